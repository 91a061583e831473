// A step of the encoder's features: two windows to log-mel energies, and their normalisation. What
// each number must be stands in engine/speech/features.py. Sums here run in another order, so
// the two agree to 1e-4 and not to the bit.

#include <algorithm>
#include <cmath>
#include <cstring>

#include "lipstream_kernels.h"

namespace {

constexpr int kHop = 160, kWindow = 400, kFrames = 2, kBands = 80, kState = 4;
constexpr int kFirstSummedBand = 2;  // below lie hum and rumble, which must not move the level
constexpr int kPoints = 256, kStages = 8;  // of the complex transform that 512 real samples take

float within(float x, float low, float high) { return std::fmin(std::fmax(x, low), high); }

// One pass of Stockham's transform: radix 2, in order, without bit reversal.
LS_MULTIVERSION void pass(
    int half, int stride, const float *__restrict re, const float *__restrict im,
    const float *__restrict twiddle_re, const float *__restrict twiddle_im, float *__restrict out_re,
    float *__restrict out_im) {
    for (int p = 0; p < half; ++p) {
        const float c = twiddle_re[2 * p * stride], s = twiddle_im[2 * p * stride];
        const float *ar = re + stride * p, *ai = im + stride * p;
        const float *br = ar + stride * half, *bi = ai + stride * half;
        float *up_re = out_re + 2 * stride * p, *up_im = out_im + 2 * stride * p;
        for (int q = 0; q < stride; ++q) {
            const float re_less = ar[q] - br[q], im_less = ai[q] - bi[q];
            up_re[q] = ar[q] + br[q], up_im[q] = ai[q] + bi[q];
            up_re[stride + q] = re_less * c - im_less * s;
            up_im[stride + q] = re_less * s + im_less * c;
        }
    }
}

// |X|^2 of 512 real samples, f32 [257]; `re`, `im` hold the even and the odd ones.
void power_of(const LsFilterBank &bank, float *re, float *im, float *power) {
    float other_re[kPoints], other_im[kPoints];
    const float *twiddle_re = bank.twiddles, *twiddle_im = bank.twiddles + 2 * kPoints;
    for (int stage = 0; stage < kStages; stage += 2) {
        pass(kPoints >> (stage + 1), 1 << stage, re, im, twiddle_re, twiddle_im, other_re, other_im);
        pass(kPoints >> (stage + 2), 2 << stage, other_re, other_im, twiddle_re, twiddle_im, re, im);
    }
    for (int k = 0; k <= kPoints; ++k) {
        const int a = k % kPoints, b = (kPoints - k) % kPoints;
        const float even_re = re[a] + re[b], even_im = im[a] - im[b];
        const float odd_re = im[a] + im[b], odd_im = re[b] - re[a];
        const float c = k < kPoints ? twiddle_re[k] : -1.0f, s = k < kPoints ? twiddle_im[k] : 0.0f;
        const float x = even_re + (odd_re * c - odd_im * s);
        const float y = even_im + (odd_re * s + odd_im * c);
        power[k] = (x * x + y * y) / 4;
    }
}

// Returns the log energy of all bands that count for the level.
float log_mel(const LsFilterBank &bank, const float *samples, float *bands) {
    float re[kPoints] = {}, im[kPoints] = {}, power[kPoints + 1], total = 0;
    for (int i = 0; i < kWindow / 2; ++i) {
        re[i] = samples[2 * i] * bank.window[2 * i];
        im[i] = samples[2 * i + 1] * bank.window[2 * i + 1];
    }
    power_of(bank, re, im, power);
    for (int b = 0; b < kBands; ++b) {
        const float *weights = bank.weights + (int64_t)b * bank.widest;
        float sum = 0;
        for (int i = 0; i < bank.width[b]; ++i) sum += power[bank.first[b] + i] * weights[i];
        sum += bank.normalisation.energy_floor;
        if (b >= kFirstSummedBand) total += sum;
        bands[b] = std::log10(sum);
    }
    return std::log(total);
}

// Normaliser.step of one frame; state f32 [kState], in place.
void normalise(
    const LsNormalisation &n, const float *frame, float energy, float *state, float *normal) {
    float &level = state[0], &floor = state[1], &peak = state[2], &speech_frames = state[3];
    floor = std::fmin(energy, floor + n.floor_rise);
    const float sound = within(energy - floor - n.sound_margin, 0, 1);
    peak = std::fmax(energy, peak - n.peak_fall * sound);
    const float weight = sound * within(energy - peak + n.speech_range, 0, 1);
    const float excess = energy - n.jump - level;
    if (weight > 0 && excess > 0) {
        level += n.jump_takes * excess;
        speech_frames *= n.jump_keeps;
    }
    speech_frames = std::fmin(speech_frames + weight, n.memory_frames);
    const float rate = weight / (speech_frames + n.prior_frames);
    level = std::fmax(level + rate * (energy - level), n.lowest_level);
    const float middle = level * n.per_nat - n.offset;
    for (int b = 0; b < kBands; ++b) {
        normal[b] = (within(frame[b] - middle, -n.range, n.range) + n.centre) * n.scale;
    }
}

}  // namespace

LS_EXPORT void ls_features_step(
    const LsFilterBank *bank, const float *samples, const float *state, float *next_state,
    float *features) {
    std::memcpy(next_state, state, kState * sizeof(float));
    for (int f = 0; f < kFrames; ++f) {
        float bands[kBands];
        const float energy = log_mel(*bank, samples + f * kHop, bands);
        normalise(bank->normalisation, bands, energy, next_state, features + f * kBands);
    }
}
