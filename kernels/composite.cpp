// Layers over each other: by alpha, by weights, by a cross-fade. The bodies of `blend` are in
// cuda/composite.cuh.

#include "cuda/composite.cuh"
#include "lipstream_kernels.h"

LS_MULTIVERSION static void blend_block_u8(
    int n, const uint8_t *__restrict background, const uint8_t *__restrict layer,
    const uint8_t *__restrict alpha, uint8_t *__restrict out) {
    uint8_t each[3 * kBlock];
    for (int i = 0; i < n; ++i) each[3 * i] = each[3 * i + 1] = each[3 * i + 2] = alpha[i];
    for (int i = 0; i < 3 * n; ++i) out[i] = ls_blend_u8(background[i], layer[i], each[i]);
}

LS_MULTIVERSION static void blend_block_f32(
    int n, const uint8_t *__restrict background, const uint8_t *__restrict layer,
    const float *__restrict alpha, uint8_t *__restrict out) {
    int16_t steps[kBlock], each[3 * kBlock];
    for (int i = 0; i < n; ++i) steps[i] = (int16_t)ls_alpha_steps(alpha[i]);
    for (int i = 0; i < n; ++i) each[3 * i] = each[3 * i + 1] = each[3 * i + 2] = steps[i];
    for (int i = 0; i < 3 * n; ++i) out[i] = ls_blend_steps(background[i], layer[i], each[i]);
}

// The sum of layers by their weights, plus a half, as levels. A block at a time, so that the sums
// stay in the cache.
LS_MULTIVERSION static void sum_block(
    int count, const float *__restrict layers, int64_t apart, const float *__restrict weights,
    int size, float *__restrict total, uint8_t *__restrict out) {
    for (int i = 0; i < size; ++i) total[i] = 0.5f;
    for (int k = 0; k < count; ++k) {
        const float *layer = layers + k * apart;
        const float weight = weights[k];
        for (int i = 0; i < size; ++i) total[i] += weight * layer[i];
    }
    for (int i = 0; i < size; ++i) {
        const float level = total[i] < 0.0f ? 0.0f : total[i];
        out[i] = (uint8_t)(level > 255.0f ? 255.0f : level);
    }
}

LS_EXPORT void ls_weighted_sum(
    int32_t count, int32_t size, const float *layers, const float *weights, uint8_t *out) {
    constexpr int kSums = 1024;
    float total[kSums];
    for (int first = 0; first < size; first += kSums) {
        sum_block(
            count, layers + first, size, weights, ls_min(kSums, size - first), total, out + first);
    }
}

// `block` over all pixels, a block at a time.
template <typename Alpha, typename Block>
static void blend_blocks(
    int pixels, const uint8_t *background, const uint8_t *layer, const Alpha *alpha, uint8_t *out,
    Block block) {
    for (int first = 0; first < pixels; first += kBlock) {
        const int64_t at = 3 * (int64_t)first;
        block(
            ls_min(kBlock, pixels - first), background + at, layer + at, alpha + first, out + at);
    }
}

LS_EXPORT void ls_blend(
    int32_t pixels, const uint8_t *background, const uint8_t *layer, const uint8_t *alpha,
    uint8_t *out) {
    blend_blocks(pixels, background, layer, alpha, out, blend_block_u8);
}

LS_EXPORT void ls_blend_fractions(
    int32_t pixels, const uint8_t *background, const uint8_t *layer, const float *alpha,
    uint8_t *out) {
    blend_blocks(pixels, background, layer, alpha, out, blend_block_f32);
}

LS_MULTIVERSION static void crossfade_levels(
    int n, const uint8_t *__restrict previous, const uint8_t *__restrict next, uint16_t weight,
    uint8_t *__restrict out) {
    for (int i = 0; i < n; ++i) {
        // Below 2^16, so 16 bits will do.
        const uint16_t sum = (uint16_t)(previous[i] * (256 - weight) + next[i] * weight + 128);
        out[i] = (uint8_t)(sum >> 8);
    }
}

LS_EXPORT void ls_crossfade(
    int32_t n, const uint8_t *previous, const uint8_t *next, int32_t weight, uint8_t *out) {
    crossfade_levels(n, previous, next, (uint16_t)weight, out);
}
