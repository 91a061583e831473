// The renderer in 16-bit integers, for processors with AVX2 and nothing wider.
//
// AVX2 multiplies pairs of 16-bit numbers into 32-bit sums as fast as it multiplies 8-bit ones,
// which it has to add twice. And 16 bits leave room to convolve the way of Winograd (Lavin and
// Gray, arXiv 1509.09308, F(2x2, 3x3)): 16 products in place of 36, exact in integers.
//
// A layer's activations are i16 [h + 2, w + 2, channels], 0 in the border and never written there,
// 0 to kMost inside. Weights and scales are made in convolution.py.

#include <algorithm>
#include <cstring>

#include "cuda/common.cuh"
#include "lipstream_kernels.h"

static const int kTiles = 6;    // of 2 x 2 outputs, or pixels, that share one fetch of weights
static const int kShare = 24;   // tiles that are transformed at a time, and stay in the cache
static const int kMost = 4095;  // level of an activation
static const int kColours = 3;

static int64_t plane(int rows, int columns, int channels) {
    return (int64_t)(rows + 2) * (columns + 2) * channels;
}

// Everything a frame needs beside the weights, in i16; what is not a plane comes last.
struct Planes {
    int64_t crop, fine[3], middle[3], coarse[3], transformed, products, all;

    explicit Planes(const LsRendererSizes &s) {
        const int rows = s.rows / 2, columns = s.columns / 2;
        int64_t at = 0;
        auto take = [&](int64_t size) {
            const int64_t own = at;
            at += (size + 31) / 32 * 32;
            return own;
        };
        crop = take(plane(rows, columns, 4 * s.channels));
        for (auto &one : fine) one = take(plane(rows, columns, s.fine));
        for (auto &one : middle) one = take(plane(rows / 2, columns / 2, s.middle));
        for (auto &one : coarse) one = take(plane(rows / 4, columns / 4, s.coarse));
        const int64_t widest =
            ls_max(ls_max(4 * s.channels, s.fine), ls_max(s.middle, s.coarse));
        transformed = take(16 * kShare * widest);
        products = take(2 * 16 * kShare * widest);
        all = at;
    }
};

LS_EXPORT int64_t ls_renderer_scratch(const LsRendererSizes *sizes) {
    return Planes(*sizes).all;
}

LS_EXPORT int32_t ls_renderer_fits() {
#if LS_AVX2
    if (!has_avx2) return 0;
    return __builtin_cpu_supports("avx512bw") ? 2 : 1;
#else
    return 0;
#endif
}

#if LS_AVX2
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2")
#endif

// sums[p][8 v ..] += a[p * next + i] * weights[i][8 v ..] over `runs` runs of `pairs` pairs of i.
template <int P, int V>
LS_METHOD void multiply(
    const int16_t *a, int64_t next, int runs, int64_t run_step, int pairs, const int16_t *weights,
    __m256i (&sums)[P][V]) {
    for (int p = 0; p < P; ++p) {
        for (int v = 0; v < V; ++v) sums[p][v] = _mm256_setzero_si256();
    }
    for (int run = 0; run < runs; ++run, a += run_step) {
        for (int k = 0; k < pairs; ++k, weights += 16 * V) {
            __m256i factor[V];
            for (int v = 0; v < V; ++v) {
                factor[v] = _mm256_loadu_si256((const __m256i *)(weights + 16 * v));
            }
            for (int p = 0; p < P; ++p) {
                int32_t pair;
                std::memcpy(&pair, a + p * next + 2 * k, 4);
                const __m256i both = _mm256_set1_epi32(pair);
                for (int v = 0; v < V; ++v) {
                    sums[p][v] = _mm256_add_epi32(sums[p][v], _mm256_madd_epi16(both, factor[v]));
                }
            }
        }
    }
}

// Eight outputs of a pixel as levels, kept between 0 and kMost.
LS_METHOD void store_levels(int16_t *to, __m256 value) {
    const __m256i whole = _mm256_cvtps_epi32(value);
    const __m128i narrow = _mm_packs_epi32(
        _mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    const __m128i kept = _mm_min_epi16(
        _mm_max_epi16(narrow, _mm_setzero_si128()), _mm_set1_epi16(kMost));
    _mm_storeu_si128((__m128i *)to, kept);
}

LS_METHOD __m256 load_levels(const int16_t *from) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)from)));
}

// Rectified levels; `onto` (may be null) is added first.
struct IntoLevels {
    int16_t *out;
    const int16_t *onto;
    int columns, channels;
    float ratio;

    LS_METHOD IntoLevels of(int o) const {
        return {out + o, onto ? onto + o : nullptr, columns, channels, ratio};
    }

    LS_METHOD void write(int y, int x, __m256 value) const {
        const int64_t at = ((int64_t)(y + 1) * (columns + 2) + x + 1) * channels;
        if (onto) {
            value = _mm256_add_ps(
                value, _mm256_mul_ps(load_levels(onto + at), _mm256_set1_ps(ratio)));
        }
        store_levels(out + at, value);
    }
};

// The same where each pixel becomes 2 x 2: outputs are ordered [row][column][channel].
struct IntoFiner {
    IntoLevels finer;
    int down, right;

    LS_METHOD IntoFiner of(int o) const {
        const int quarter = o / finer.channels;
        return {finer.of(o % finer.channels), quarter / 2, quarter % 2};
    }

    LS_METHOD void write(int y, int x, __m256 value) const {
        finer.write(2 * y + down, 2 * x + right, value);
    }
};

// Colours f32 [3, rows, columns], each pixel becoming 2 x 2: outputs [colour][row][column].
struct IntoPlanes {
    float *out;
    int rows, columns, colour;

    LS_METHOD IntoPlanes of(int o) const { return {out, rows, columns, o / 4}; }

    LS_METHOD void write(int y, int x, __m256 value) const {
        float *at = out + ((int64_t)colour * rows + 2 * y) * columns + 2 * x;
        const __m128 own = _mm256_castps256_ps128(value), next = _mm256_extractf128_ps(value, 1);
        _mm_storel_pi((__m64 *)at, own);
        _mm_storeh_pi((__m64 *)(at + columns), own);
        if (colour + 1 == kColours) return;
        at += (int64_t)rows * columns;
        _mm_storel_pi((__m64 *)at, next);
        _mm_storeh_pi((__m64 *)(at + columns), next);
    }
};

template <int V, class Write>
LS_METHOD void convolve_row(
    const LsConvolution &c, const int16_t *in, int64_t next, int runs, int64_t run_step, int pairs,
    int y, int columns, int first, const Write &write) {
    const int16_t *weights = c.weights + (int64_t)first * runs * pairs * 2;
    __m256 scale[V], bias[V];
    for (int v = 0; v < V; ++v) {
        scale[v] = _mm256_loadu_ps(c.scale + first + 8 * v);
        bias[v] = _mm256_loadu_ps(c.bias + first + 8 * v);
    }
    for (int group = 0; group < columns; group += kTiles) {
        const int x = ls_min(group, columns - kTiles);  // the last one may do some pixels again
        __m256i sums[kTiles][V];
        multiply<kTiles, V>(in + x * next, next, runs, run_step, pairs, weights, sums);
        for (int v = 0; v < V; ++v) {
            const auto own = write.of(first + 8 * v);
            for (int p = 0; p < kTiles; ++p) {
                const __m256 value = _mm256_mul_ps(_mm256_cvtepi32_ps(sums[p][v]), scale[v]);
                own.write(y, x + p, _mm256_add_ps(value, bias[v]));
            }
        }
    }
}

// Sides 3, every second pixel (`side` 3), or 1 (`side` 1). rows, columns: of the output.
template <class Write>
static void convolve(
    const LsConvolution &c, const int16_t *in, int side, int rows, int columns, const Write &write) {
    const int stride = side == 3 ? 2 : 1;
    const int64_t line = (int64_t)(stride * columns + 2) * c.inputs;
    const int16_t *start = side == 3 ? in : in + line + c.inputs;
    const int pairs = side * c.inputs / 2;
    for (int y = 0; y < rows; ++y) {
        const int16_t *row = start + (int64_t)y * stride * line;
        int first = 0;
        for (; first + 16 <= c.outputs; first += 16) {
            convolve_row<2>(
                c, row, stride * c.inputs, side, line, pairs, y, columns, first, write);
        }
        if (first < c.outputs) {
            convolve_row<1>(
                c, row, stride * c.inputs, side, line, pairs, y, columns, first, write);
        }
    }
}

// 4 x 4 pixels of 16 channels: d to Bt d B.
LS_METHOD void transform_in(
    const int16_t *in, int64_t line, int channels, int16_t *out, int64_t position) {
    __m256i across[4][4];
    for (int r = 0; r < 4; ++r) {
        __m256i d[4];
        for (int c = 0; c < 4; ++c) {
            d[c] = _mm256_loadu_si256((const __m256i *)(in + r * line + c * channels));
        }
        across[r][0] = _mm256_sub_epi16(d[0], d[2]);
        across[r][1] = _mm256_add_epi16(d[1], d[2]);
        across[r][2] = _mm256_sub_epi16(d[2], d[1]);
        across[r][3] = _mm256_sub_epi16(d[1], d[3]);
    }
    for (int c = 0; c < 4; ++c) {
        const __m256i down[4] = {
            _mm256_sub_epi16(across[0][c], across[2][c]),
            _mm256_add_epi16(across[1][c], across[2][c]),
            _mm256_sub_epi16(across[2][c], across[1][c]),
            _mm256_sub_epi16(across[1][c], across[3][c])};
        for (int r = 0; r < 4; ++r) {
            _mm256_storeu_si256((__m256i *)(out + (4 * r + c) * position), down[r]);
        }
    }
}

// Eight sums of 16 positions to 2 x 2 outputs: At m A.
template <class Write>
LS_METHOD void transform_out(
    const int32_t *products, int64_t position, __m256 scale, __m256 bias, int y, int x,
    const Write &write) {
    __m256 down[2][4];
    for (int c = 0; c < 4; ++c) {
        __m256 m[4];
        for (int r = 0; r < 4; ++r) {
            m[r] = _mm256_cvtepi32_ps(
                _mm256_loadu_si256((const __m256i *)(products + (4 * r + c) * position)));
        }
        down[0][c] = _mm256_add_ps(_mm256_add_ps(m[0], m[1]), m[2]);
        down[1][c] = _mm256_sub_ps(_mm256_sub_ps(m[1], m[2]), m[3]);
    }
    for (int r = 0; r < 2; ++r) {
        const __m256 *d = down[r];
        const __m256 left = _mm256_add_ps(_mm256_add_ps(d[0], d[1]), d[2]);
        const __m256 right = _mm256_sub_ps(_mm256_sub_ps(d[1], d[2]), d[3]);
        write.write(y + r, x, _mm256_add_ps(_mm256_mul_ps(left, scale), bias));
        write.write(y + r, x + 1, _mm256_add_ps(_mm256_mul_ps(right, scale), bias));
    }
}

template <int V>
LS_METHOD void multiply_tiles(
    const LsConvolution &c, const int16_t *transformed, int tiles, const int16_t *weights, int first,
    int32_t *products) {
    for (int group = 0; group < tiles; group += kTiles) {
        const int tile = ls_min(group, tiles - kTiles);
        __m256i sums[kTiles][V];
        multiply<kTiles, V>(
            transformed + (int64_t)tile * c.inputs, c.inputs, 1, 0, c.inputs / 2,
            weights + (int64_t)first * c.inputs, sums);
        for (int p = 0; p < kTiles; ++p) {
            for (int v = 0; v < V; ++v) {
                int32_t *to = products + (int64_t)(tile + p) * c.outputs + first + 8 * v;
                _mm256_storeu_si256((__m256i *)to, sums[p][v]);
            }
        }
    }
}

// Sides 3, every pixel. rows, columns: even, of input and output.
template <class Write>
static void convolve_winograd(
    const LsConvolution &c, const int16_t *in, int rows, int columns, int16_t *transformed,
    int32_t *products, const Write &write) {
    const int across = columns / 2, all = across * rows / 2;
    const int64_t line = (int64_t)(columns + 2) * c.inputs;
    const int tiles = ls_min(kShare, all);
    for (int share = 0; share < all; share += kShare) {
        const int before = ls_min(share, all - tiles);  // the last one may do some tiles again
        const int64_t position = (int64_t)tiles * c.inputs, sum = (int64_t)tiles * c.outputs;
        for (int tile = 0; tile < tiles; ++tile) {
            const int y = 2 * ((before + tile) / across), x = 2 * ((before + tile) % across);
            const int16_t *corner = in + y * line + x * c.inputs;
            for (int first = 0; first < c.inputs; first += 16) {
                const int i = ls_min(first, c.inputs - 16);
                transform_in(
                    corner + i, line, c.inputs, transformed + (int64_t)tile * c.inputs + i,
                    position);
            }
        }
        for (int k = 0; k < 16; ++k) {
            const int16_t *weights = c.weights + (int64_t)k * c.inputs * c.outputs;
            int first = 0;
            for (; first + 16 <= c.outputs; first += 16) {
                multiply_tiles<2>(
                    c, transformed + k * position, tiles, weights, first, products + k * sum);
            }
            if (first < c.outputs) {
                multiply_tiles<1>(
                    c, transformed + k * position, tiles, weights, first, products + k * sum);
            }
        }
        for (int o = 0; o < c.outputs; o += 8) {
            const __m256 scale = _mm256_loadu_ps(c.scale + o), bias = _mm256_loadu_ps(c.bias + o);
            const auto own = write.of(o);
            for (int tile = 0; tile < tiles; ++tile) {
                const int y = 2 * ((before + tile) / across), x = 2 * ((before + tile) % across);
                transform_out(
                    products + (int64_t)tile * c.outputs + o, sum, scale, bias, y, x, own);
            }
        }
    }
}

// planes f32 [channels, rows, columns], 0 to 1, as levels: each 2 x 2 pixels' channels side by side.
static void enter_levels(const float *planes, const LsRendererSizes &s, float level, int16_t *out) {
    const int rows = s.rows / 2, columns = s.columns / 2, channels = 4 * s.channels;
    const __m256 half = _mm256_set1_ps(0.5f), factor = _mm256_set1_ps(level);
    for (int y = 0; y < rows; ++y) {
        int16_t *row = out + ((int64_t)(y + 1) * (columns + 2) + 1) * channels;
        for (int c = 0; c < s.channels; ++c) {
            for (int down = 0; down < 2; ++down) {
                const float *from = planes + ((int64_t)c * s.rows + 2 * y + down) * s.columns;
                int16_t *to = row + 4 * c + 2 * down;
                for (int x = 0; x < s.columns; x += 8, to += 4 * channels) {
                    const __m256 value = _mm256_sub_ps(_mm256_loadu_ps(from + x), half);
                    const __m256i whole = _mm256_cvtps_epi32(_mm256_mul_ps(value, factor));
                    const __m128i narrow = _mm_packs_epi32(
                        _mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
                    int32_t pairs[4];
                    _mm_storeu_si128((__m128i *)pairs, narrow);
                    for (int i = 0; i < 4; ++i) std::memcpy(to + i * channels, pairs + i, 4);
                }
            }
        }
    }
}

// layers: enter, down1, down2, coarse blocks (two each), up1, middle blocks, up2, fine's two, leave.
// planes f32 [channels, rows, columns] to gates f32 [3, rows, columns].
static void refine(
    const LsConvolution *layer, const LsRendererSizes &s, float level, const float *planes, int16_t *scratch,
    float *gates) {
    const Planes at(s);
    int16_t *crop = scratch + at.crop, *transformed = scratch + at.transformed;
    int32_t *products = (int32_t *)(scratch + at.products);
    int16_t *fine[3], *middle[3], *coarse[3];
    for (int i = 0; i < 3; ++i) {
        fine[i] = scratch + at.fine[i];
        middle[i] = scratch + at.middle[i];
        coarse[i] = scratch + at.coarse[i];
    }
    const int rows = s.rows / 2, columns = s.columns / 2;
    auto same = [&](const int16_t *in, int height, int width, const auto &write) {
        convolve_winograd(*layer++, in, height, width, transformed, products, write);
    };
    // Planes: [0] in and out, [1] what the first of a block's two makes, [2] the other out.
    auto blocks = [&](int count, int16_t *(&own)[3], int height, int width, int channels) {
        for (int i = 0; i < count; ++i) {
            same(own[0], height, width, IntoLevels{own[1], nullptr, width, channels, 0});
            same(own[1], height, width, IntoLevels{own[2], own[0], width, channels, layer->ratio});
            std::swap(own[0], own[2]);
        }
    };
    enter_levels(planes, s, level, crop);
    same(crop, rows, columns, IntoLevels{fine[2], nullptr, columns, s.fine, 0});
    convolve(
        *layer++, fine[2], 3, rows / 2, columns / 2,
        IntoLevels{middle[2], nullptr, columns / 2, s.middle, 0});
    convolve(
        *layer++, middle[2], 3, rows / 4, columns / 4,
        IntoLevels{coarse[0], nullptr, columns / 4, s.coarse, 0});
    blocks(s.coarse_blocks, coarse, rows / 4, columns / 4, s.coarse);
    convolve(
        *layer, coarse[0], 1, rows / 4, columns / 4,
        IntoFiner{{middle[0], middle[2], columns / 2, s.middle, layer->ratio}, 0, 0});
    ++layer;
    blocks(s.middle_blocks, middle, rows / 2, columns / 2, s.middle);
    convolve(
        *layer, middle[0], 1, rows / 2, columns / 2,
        IntoFiner{{fine[0], fine[2], columns, s.fine, layer->ratio}, 0, 0});
    ++layer;
    blocks(1, fine, rows, columns, s.fine);
    same(fine[0], rows, columns, IntoPlanes{gates, s.rows, s.columns, 0});
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

LS_EXPORT void ls_renderer_run(
    const LsConvolution *layers, const LsRendererSizes *sizes, float level, const float *planes,
    int16_t *scratch, float *gates) {
#if LS_AVX2
    refine(layers, *sizes, level, planes, scratch, gates);
#endif
}
