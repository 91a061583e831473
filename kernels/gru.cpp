// One step of the encoder: matrices of halves times vectors of floats.
//
// A step is short and its weights are many, so what takes the time is fetching them: as halves they
// are half as long on the way. Sums go over the inputs in their order, without fused multiply-add,
// so that every machine gets the same bits.

#include <cmath>
#include <cstring>

#include "cuda/common.cuh"
#include "lipstream_kernels.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(LS_BASELINE_ONLY)
#define LS_F16C 1
#include <immintrin.h>
#endif

static const int kColumns = 64;  // of a block: its sums stay in registers

static float from_half(uint16_t half) {
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    const uint32_t magnitude = half & 0x7fff;
    float value;
    if (magnitude >= 0x7c00) {  // infinite or not a number
        const uint32_t bits = sign | 0x7f800000 | (magnitude & 0x3ff) << 13;
        std::memcpy(&value, &bits, 4);
        return value;
    }
    // Exponents 112 apart; the multiplication also sets right what is below the normal range.
    const uint32_t bits = magnitude << 13;
    std::memcpy(&value, &bits, 4);
    value *= 5.192296858534828e33f;  // 2^112
    return sign ? -value : value;
}

// total[kColumns] += x[i] * weights[i, kColumns], for i in order.
static void add_block(const float *x, int n, const uint16_t *weights, float *total) {
    for (int i = 0; i < n; ++i, weights += kColumns) {
        for (int c = 0; c < kColumns; ++c) total[c] += x[i] * from_half(weights[c]);
    }
}

#if LS_F16C
__attribute__((target("avx2,f16c"))) static void add_block_f16c(
    const float *x, int n, const uint16_t *weights, float *total) {
    __m256 sums[kColumns / 8];
    for (int c = 0; c < kColumns / 8; ++c) sums[c] = _mm256_loadu_ps(total + 8 * c);
    for (int i = 0; i < n; ++i, weights += kColumns) {
        const __m256 factor = _mm256_set1_ps(x[i]);
        for (int c = 0; c < kColumns / 8; ++c) {
            const __m128i halves = _mm_loadu_si128((const __m128i *)(weights + 8 * c));
            sums[c] = _mm256_add_ps(sums[c], _mm256_mul_ps(factor, _mm256_cvtph_ps(halves)));
        }
    }
    for (int c = 0; c < kColumns / 8; ++c) _mm256_storeu_ps(total + 8 * c, sums[c]);
}

static const bool has_f16c = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
#endif

static void affine(const LsLayer &layer, const float *x, float *out) {
    const uint16_t *weights = layer.weights;
    const int n = layer.inputs;
    std::memcpy(out, layer.bias, layer.outputs * sizeof(float));
    for (int first = 0; first < layer.outputs; first += kColumns) {
#if LS_F16C
        if (has_f16c) {
            add_block_f16c(x, n, weights, out + first);
            weights += (int64_t)n * kColumns;
            continue;
        }
#endif
        add_block(x, n, weights, out + first);
        weights += (int64_t)n * kColumns;
    }
}

static float sigmoid(float x) { return 0.5f * std::tanh(0.5f * x) + 0.5f; }

LS_EXPORT void ls_affine(const float *x, const LsLayer *layer, float *out) {
    affine(*layer, x, out);
}

// `scratch` holds both products.
static void gru(
    const LsLayer &from_input, const LsLayer &from_state, const float *x, const float *state, int width,
    float *scratch, float *next) {
    float *a = scratch, *b = scratch + from_input.outputs;
    affine(from_input, x, a);
    affine(from_state, state, b);
    for (int i = 0; i < width; ++i) {
        const float reset = sigmoid(a[i] + b[i]), update = sigmoid(a[width + i] + b[width + i]);
        const float fresh = std::tanh(a[2 * width + i] + reset * b[2 * width + i]);
        next[i] = fresh + update * (state[i] - fresh);
    }
}

LS_EXPORT void ls_encoder_step(
    const LsLayer *layers, const LsEncoderSizes *sizes, const float *features, const float *h1,
    const float *h2, const float *h3, float *scratch, float *expression, float *speech,
    float *next1, float *next2, float *next3) {
    const int hidden = sizes->hidden, code = sizes->code, width = sizes->head;
    const int look_aheads = sizes->look_aheads, phones = sizes->phones, outputs = sizes->outputs;
    int most = 0;
    for (int i = 0; i < 10; ++i) most = ls_max(most, layers[i].outputs);
    float *products = scratch, *lifted = scratch + 2 * (int64_t)most, *spoken = lifted + most;
    affine(layers[0], features, lifted);
    for (int i = 0; i < hidden; ++i) lifted[i] = lifted[i] > 0 ? lifted[i] : 0;
    gru(layers[1], layers[2], lifted, h1, hidden, products, next1);
    gru(layers[3], layers[4], next1, h2, hidden, products, next2);
    affine(layers[5], next2, spoken);
    for (int look = 0; look < look_aheads; ++look) {
        float *own = spoken + look * phones, most_likely = own[0], sum = 0;
        for (int i = 1; i < phones; ++i) most_likely = own[i] > most_likely ? own[i] : most_likely;
        for (int i = 0; i < phones; ++i) sum += own[i] = std::exp(own[i] - most_likely);
        for (int i = 0; i < phones; ++i) own[i] /= sum;
        speech[look] = 1 - own[0];
    }
    affine(layers[6], next2, products);
    float *coded = spoken + look_aheads * phones;
    for (int i = 0; i < code; ++i) coded[i] = std::tanh(products[i]);
    gru(layers[7], layers[8], spoken, h3, width, products, next3);
    affine(layers[9], next3, products);
    std::memcpy(expression, products, outputs * sizeof(float));
}
