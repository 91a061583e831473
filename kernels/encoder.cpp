// One step of the encoder: matrices times vectors, and attention over the tokens that it remembers.
//
// A step is short and its weights are many, so what takes the time is fetching them. Most are 8-bit
// integers, times 16-bit activations in 32-bit sums, which are exact; a few are halves, whose sums go
// over the inputs in their order, without fused multiply-add. Nothing here calls the C library's
// exponential. So every machine gets the same bits.

#include <cmath>
#include <cstring>

#include "cuda/common.cuh"
#include "lipstream_kernels.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(LS_BASELINE_ONLY)
#define LS_F16C 1
#endif

static const int kColumns = 64;  // of a block: its sums stay in registers
static const int kBands = 80, kWidth = 384, kRaised = 4 * kWidth;
static const int kHeads = 6, kHead = kWidth / kHeads;
static const int kKept = 62, kSeen = kKept + 1;  // tokens remembered, and those with the newest
static const int kLanes = 16;  // of a sum that runs in parallel

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

LS_EXPORT void ls_affine(const float *x, const LsLayer *layer, float *out) {
    affine(*layer, x, out);
}

// ------------------------------------------------------------------------------ integers

// The nearest integer, ties to even, for |x| below 2^22.
LS_BODY int32_t nearest(float x) {
    const float shifted = x + 12582912.0f;  // 1.5 * 2^23: the fraction's last bit is worth 1
    int32_t bits;
    std::memcpy(&bits, &shifted, 4);
    return bits - 0x4b400000;
}

// Levels of -limit to limit for n values; returns what one level is worth.
LS_MULTIVERSION static float quantise(
    const float *__restrict x, int n, int limit, int16_t *__restrict levels) {
    int32_t largest_bits = 0;  // floats above 0 are ordered as their bits are
    for (int i = 0; i < n; ++i) {
        int32_t bits;
        std::memcpy(&bits, x + i, 4);
        largest_bits = ls_max(largest_bits, bits & 0x7fffffff);
    }
    float largest;
    std::memcpy(&largest, &largest_bits, 4);
    if (largest < 1e-30f) {
        std::memset(levels, 0, n * sizeof(int16_t));
        return 0;
    }
    const float factor = limit / largest;
    for (int i = 0; i < n; ++i) levels[i] = (int16_t)nearest(x[i] * factor);
    return largest / limit;
}

// total[kColumns] = sum over pairs of levels[2 * pairs] * weights[pairs, kColumns, 2].
static void sum_block(const int16_t *levels, int pairs, const int8_t *weights, int32_t *total) {
    for (int c = 0; c < kColumns; ++c) total[c] = 0;
    for (int p = 0; p < pairs; ++p, weights += 2 * kColumns) {
        const int first = levels[2 * p], second = levels[2 * p + 1];
        for (int c = 0; c < kColumns; ++c) {
            total[c] += first * weights[2 * c] + second * weights[2 * c + 1];
        }
    }
}

#if LS_AVX2
LS_TARGET_AVX2 static void sum_block_avx2(
    const int16_t *levels, int pairs, const int8_t *weights, int32_t *total) {
    __m256i sums[kColumns / 8];
    for (int c = 0; c < kColumns / 8; ++c) sums[c] = _mm256_setzero_si256();
    for (int p = 0; p < pairs; ++p, weights += 2 * kColumns) {
        int32_t both;
        std::memcpy(&both, levels + 2 * p, 4);
        const __m256i factor = _mm256_set1_epi32(both);
        for (int c = 0; c < kColumns / 8; ++c) {
            const __m128i bytes = _mm_loadu_si128((const __m128i *)(weights + 16 * c));
            sums[c] = _mm256_add_epi32(
                sums[c], _mm256_madd_epi16(factor, _mm256_cvtepi8_epi16(bytes)));
        }
    }
    for (int c = 0; c < kColumns / 8; ++c) {
        _mm256_storeu_si256((__m256i *)(total + 8 * c), sums[c]);
    }
}
#endif

static void integer_product(
    const LsIntegerLayer &layer, const int16_t *levels, float level, float *out) {
    const int pairs = layer.inputs / 2;
    const int8_t *weights = layer.weights;
    for (int first = 0; first < layer.outputs; first += kColumns) {
        int32_t total[kColumns];
#if LS_AVX2
        if (has_avx2) {
            sum_block_avx2(levels, pairs, weights, total);
        } else
#endif
            sum_block(levels, pairs, weights, total);
        weights += (int64_t)pairs * 2 * kColumns;
        for (int c = 0; c < kColumns; ++c) {
            const float unit = layer.scale[first + c] * level;
            out[first + c] = (float)total[c] * unit + layer.bias[first + c];
        }
    }
}

// `levels` is scratch for the layer's inputs.
static void integer_affine(const LsIntegerLayer &layer, const float *x, int16_t *levels, float *out) {
    const float level = quantise(x, layer.inputs, layer.limit, levels);
    integer_product(layer, levels, level, out);
}

LS_EXPORT void ls_integer_affine(
    const float *x, const LsIntegerLayer *layer, int16_t *levels, float *out) {
    integer_affine(*layer, x, levels, out);
}

// ---------------------------------------------------------------------- pointwise functions

// To 1e-7 of the result. Source: the polynomial of Cephes (S. Moshier), expf.
LS_BODY float exponential(float x) {
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    const int32_t power = nearest(x * 1.44269504f);
    const float whole = (float)power;
    const float r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;  // ln 2 in two parts
    float y = 1.9875691500e-4f;
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * (r * r) + r + 1.0f;
    const int32_t bits = (power + 127) << 23;
    float scale;
    std::memcpy(&scale, &bits, 4);
    return y * scale;
}

LS_BODY float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }
LS_BODY float hyperbolic_tangent(float x) { return 1.0f - 2.0f / (exponential(2.0f * x) + 1.0f); }

// In place, to 4e-7. Source: Abramowitz and Stegun 7.1.26, for the error function.
LS_MULTIVERSION static void gelu(float *x, int n) {
    for (int i = 0; i < n; ++i) {
        const float size = std::fabs(x[i]);
        const float t = 1.0f / (1.0f + 0.3275911f * 0.70710678f * size);
        float y = 1.061405429f;
        y = y * t - 1.453152027f;
        y = y * t + 1.421413741f;
        y = y * t - 0.284496736f;
        y = y * t + 0.254829592f;
        const float beyond = y * t * exponential(-0.5f * size * size);
        x[i] = (x[i] > 0 ? x[i] : 0.0f) - 0.5f * size * beyond;
    }
}

// ------------------------------------------------------------------------------ transformer

LS_BODY float sum_of(float *lanes) {
    for (int half = kLanes / 2; half > 0; half /= 2) {
        for (int l = 0; l < half; ++l) lanes[l] += lanes[l + half];
    }
    return lanes[0];
}

LS_MULTIVERSION static void layer_norm(
    const LsNorm &norm, const float *__restrict x, float *__restrict out) {
    float lanes[kLanes] = {}, squares[kLanes] = {};
    for (int i = 0; i < kWidth; i += kLanes) {
        for (int l = 0; l < kLanes; ++l) lanes[l] += x[i + l];
    }
    const float mean = sum_of(lanes) / kWidth;
    for (int i = 0; i < kWidth; i += kLanes) {
        for (int l = 0; l < kLanes; ++l) squares[l] += (x[i + l] - mean) * (x[i + l] - mean);
    }
    const float factor = 1.0f / std::sqrt(sum_of(squares) / kWidth + 1e-5f);
    for (int i = 0; i < kWidth; ++i) out[i] = (x[i] - mean) * factor * norm.weight[i] + norm.bias[i];
}

// scores[kHeads] of one key.
LS_MULTIVERSION static void score(
    const float *__restrict query, const float *__restrict key, float *__restrict scores) {
    for (int head = 0; head < kHeads; ++head, query += kHead, key += kHead) {
        float lanes[kLanes] = {};
        for (int i = 0; i < kHead; i += kLanes) {
            for (int l = 0; l < kLanes; ++l) lanes[l] += query[i + l] * key[i + l];
        }
        scores[head] = sum_of(lanes);
    }
}

// Scores of one head to shares that sum to 1, in place.
LS_MULTIVERSION static void softmax(float *scores, int n) {
    float largest = scores[0], sum = 0;
    for (int i = 1; i < n; ++i) largest = scores[i] > largest ? scores[i] : largest;
    for (int i = 0; i < n; ++i) scores[i] = exponential(scores[i] - largest);
    for (int i = 0; i < n; ++i) sum += scores[i];
    for (int i = 0; i < n; ++i) scores[i] /= sum;
}

LS_MULTIVERSION static void add_value(
    const float *__restrict value, const float *__restrict shares, float *__restrict out) {
    for (int head = 0; head < kHeads; ++head) {
        const float share = shares[head * kSeen];
        for (int i = 0; i < kHead; ++i) out[head * kHead + i] += share * value[head * kHead + i];
    }
}

// Keys and values f32 [kKept, kWidth] each, of the tokens before the newest.
static void attend(
    const float *query, const float *keys, const float *values, const float *new_key,
    const float *new_value, const float *offsets, float *out) {
    float scores[kHeads * kSeen], of_key[kHeads];
    for (int token = 0; token < kSeen; ++token) {
        score(query, token < kKept ? keys + token * kWidth : new_key, of_key);
        for (int head = 0; head < kHeads; ++head) {
            const int at = head * kSeen + token;
            scores[at] = of_key[head] / 8 + offsets[at];  // 8 is the root of kHead
        }
    }
    for (int head = 0; head < kHeads; ++head) softmax(scores + head * kSeen, kSeen);
    std::memset(out, 0, kWidth * sizeof(float));
    for (int token = 0; token < kSeen; ++token) {
        add_value(token < kKept ? values + token * kWidth : new_value, scores + token, out);
    }
}

// `rows` f32 [count, kWidth] without the oldest, and a new one behind them.
static void push(const float *rows, int count, const float *newest, float *next) {
    const int64_t moved = (int64_t)(count - 1) * kWidth;
    std::memcpy(next, rows + kWidth, moved * sizeof(float));
    std::memcpy(next + moved, newest, kWidth * sizeof(float));
}

// The newest token in, the one that has waited for it out, both `token`. `waiting` and `memory` are
// of this block.
static void run_block(
    const LsBlock &block, const float *waiting, const float *memory, float *next_waiting,
    float *next_memory, float *token) {
    const int64_t side = (int64_t)kKept * kWidth;
    float normal[kWidth], key[kWidth], value[kWidth], query[kWidth], attended[kWidth], own[kWidth];
    float change[kWidth], raised[kRaised];
    int16_t levels[kRaised];
    layer_norm(block.before, token, normal);
    const float level = quantise(normal, kWidth, block.key.limit, levels);
    integer_product(block.key, levels, level, key);
    integer_product(block.value, levels, level, value);
    std::memcpy(own, waiting, sizeof own);
    layer_norm(block.before, own, normal);
    integer_affine(block.query, normal, levels, query);
    attend(query, memory, memory + side, key, value, block.offsets, attended);
    push(waiting, 2, token, next_waiting);
    push(memory, kKept, key, next_memory);
    push(memory + side, kKept, value, next_memory + side);
    integer_affine(block.out, attended, levels, change);
    for (int i = 0; i < kWidth; ++i) own[i] += change[i];
    layer_norm(block.middle, own, normal);
    integer_affine(block.up, normal, levels, raised);
    gelu(raised, kRaised);
    integer_affine(block.down, raised, levels, change);
    for (int i = 0; i < kWidth; ++i) token[i] = own[i] + change[i];
}

// ------------------------------------------------------------------------------ the step

// `scratch` holds both products.
LS_MULTIVERSION static void gru(
    const LsLayer &from_input, const LsLayer &from_state, const float *x, const float *state, int width,
    float *scratch, float *next) {
    float *a = scratch, *b = scratch + from_input.outputs;
    affine(from_input, x, a);
    affine(from_state, state, b);
    for (int i = 0; i < width; ++i) {
        const float reset = sigmoid(a[i] + b[i]), update = sigmoid(a[width + i] + b[width + i]);
        const float fresh = hyperbolic_tangent(a[2 * width + i] + reset * b[2 * width + i]);
        next[i] = fresh + update * (state[i] - fresh);
    }
}

LS_EXPORT void ls_encoder_step(
    const LsEncoder *encoder, const float *features, const float *frames, const float *lifted,
    const float *waiting, const float *memory, const float *hidden, float *scratch,
    float *expression, float *speech, float *next_frames, float *next_lifted, float *next_waiting,
    float *next_memory, float *next_hidden) {
    const LsEncoder &e = *encoder;
    float four[4 * kBands], three[3 * kWidth], token[kWidth];
    int16_t levels[3 * kWidth];
    std::memcpy(four, frames, 2 * kBands * sizeof(float));
    std::memcpy(four + 2 * kBands, features, 2 * kBands * sizeof(float));
    std::memcpy(three, lifted, kWidth * sizeof(float));
    for (int i = 0; i < 2; ++i) {
        integer_affine(e.conv1, four + i * kBands, levels, three + (i + 1) * kWidth);
    }
    gelu(three + kWidth, 2 * kWidth);
    integer_affine(e.conv2, three, levels, token);
    gelu(token, kWidth);
    for (int i = 0; i < kWidth; ++i) token[i] += e.base[i];
    std::memcpy(next_frames, features, 2 * kBands * sizeof(float));
    std::memcpy(next_lifted, three + 2 * kWidth, kWidth * sizeof(float));

    // A tap writes whole blocks of columns; the next one begins where its own outputs end.
    float *code = scratch, *end = code;
    affine(e.taps[0], token, end);
    for (int b = 0; b < 2; ++b) {
        const int64_t at_waiting = (int64_t)b * 2 * kWidth, at_memory = (int64_t)b * 2 * kKept * kWidth;
        run_block(
            e.blocks[b], waiting + at_waiting, memory + at_memory, next_waiting + at_waiting,
            next_memory + at_memory, token);
        end += e.tap_widths[b];
        affine(e.taps[b + 1], token, end);
    }
    float *products = end + e.taps[2].outputs;
    gru(e.gru_input, e.gru_state, code, hidden, e.hidden, products, next_hidden);
    affine(e.phone, next_hidden, products);
    for (int look = 0; look < e.look_aheads; ++look) {
        float *own = products + look * e.phones;
        softmax(own, e.phones);
        speech[look] = 1 - own[0];
    }
    affine(e.head, next_hidden, products);
    std::memcpy(expression, products, e.outputs * sizeof(float));
}
