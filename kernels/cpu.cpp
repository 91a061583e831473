// The kernels for the CPU: loops around the shared bodies, behind a plain C interface that
// compiled.py calls through ctypes. One thread, no state, no allocation above one row.

#include <cmath>
#include <limits>

#include "cuda/color.cuh"
#include "cuda/composite.cuh"
#include "cuda/dynamic.cuh"
#include "cuda/mesh.cuh"

#if defined(_WIN32)
#define LS_EXPORT extern "C" __declspec(dllexport)
#else
#define LS_EXPORT extern "C" __attribute__((visibility("default")))
#endif

// Wheels travel, so the baseline is plain x86-64; the hot loops exist once more for AVX2 and the
// dynamic linker picks. No FMA in the list: it would change nothing here (contraction is off).
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#define LS_MULTIVERSION __attribute__((target_clones("avx2", "default")))
#else
#define LS_MULTIVERSION
#endif

LS_EXPORT int32_t ls_abi_version() { return 1; }

// ---------------------------------------------------------------------------- colour

LS_MULTIVERSION static void rgb_row(
    const uint8_t *__restrict y, const uint8_t *__restrict u, const uint8_t *__restrict v, int w,
    uint8_t *__restrict rgb) {
    for (int i = 0; i < w / 2; ++i) {
        ls_rgb_from_yuv(y[2 * i], u[i], v[i], rgb + 6 * i);
        ls_rgb_from_yuv(y[2 * i + 1], u[i], v[i], rgb + 6 * i + 3);
    }
}

LS_EXPORT void ls_i420_region_to_rgb(
    const uint8_t *i420, int32_t width, int32_t height, int32_t x, int32_t y, int32_t w, int32_t h,
    uint8_t *rgb) {
    const int64_t pixels = (int64_t)width * height;
    const uint8_t *u = i420 + pixels, *v = u + pixels / 4;
    for (int r = 0; r < h; ++r) {
        const int64_t chroma = (int64_t)((y + r) / 2) * (width / 2) + x / 2;
        rgb_row(
            i420 + (int64_t)(y + r) * width + x, u + chroma, v + chroma, w,
            rgb + (int64_t)r * w * 3);
    }
}

LS_MULTIVERSION static void luma_row(const uint8_t *__restrict rgb, int w, uint8_t *__restrict y) {
    for (int i = 0; i < w; ++i) y[i] = ls_y_from_rgb(rgb[3 * i], rgb[3 * i + 1], rgb[3 * i + 2]);
}

LS_MULTIVERSION static void chroma_row(
    const uint8_t *__restrict top, const uint8_t *__restrict bottom, int w, uint8_t *__restrict u,
    uint8_t *__restrict v) {
    for (int i = 0; i < w / 2; ++i) {
        const uint8_t *a = top + 6 * i, *b = bottom + 6 * i;
        const int red = a[0] + a[3] + b[0] + b[3];
        const int green = a[1] + a[4] + b[1] + b[4];
        const int blue = a[2] + a[5] + b[2] + b[5];
        u[i] = ls_u_from_quad(red, green, blue);
        v[i] = ls_v_from_quad(red, green, blue);
    }
}

static void masked_quads(
    const uint8_t *top, const uint8_t *mask, int w, int width, uint8_t *y, uint8_t *u, uint8_t *v) {
    const uint8_t *bottom = top + 3 * (int64_t)w;
    for (int i = 0; i < w / 2; ++i) {
        const uint8_t *m = mask + 2 * i;
        if (!(m[0] | m[1] | m[w] | m[w + 1])) continue;
        for (int k = 0; k < 4; ++k) {
            const int column = 2 * i + k % 2, row = k / 2;
            const uint8_t *p = (row ? bottom : top) + 3 * column;
            if (m[row * w + k % 2]) y[(int64_t)row * width + column] = ls_y_from_rgb(p[0], p[1], p[2]);
        }
        chroma_row(top + 6 * i, bottom + 6 * i, 2, u + i, v + i);
    }
}

LS_EXPORT void ls_rgb_region_into_i420(
    const uint8_t *rgb, const uint8_t *mask, int32_t width, int32_t height, int32_t x, int32_t y,
    int32_t w, int32_t h, uint8_t *i420) {
    const int64_t pixels = (int64_t)width * height;
    uint8_t *u = i420 + pixels, *v = u + pixels / 4;
    for (int r = 0; r < h; r += 2) {
        const int64_t chroma = (int64_t)((y + r) / 2) * (width / 2) + x / 2;
        const uint8_t *top = rgb + (int64_t)r * w * 3;
        uint8_t *luma = i420 + (int64_t)(y + r) * width + x;
        if (mask) {
            masked_quads(top, mask + (int64_t)r * w, w, width, luma, u + chroma, v + chroma);
        } else {
            luma_row(top, w, luma);
            luma_row(top + 3 * (int64_t)w, w, luma + width);
            chroma_row(top, top + 3 * (int64_t)w, w, u + chroma, v + chroma);
        }
    }
}

// ------------------------------------------------------------------ dynamic programming

// Blocks of states keep best and back in the first-level cache while the slots stream by.
static const int kBlock = 512;

LS_MULTIVERSION static void min_plus_block(
    int states, int slots, int64_t stride, const float *__restrict score,
    const int32_t *__restrict predecessors, const float *__restrict cost, float *__restrict best,
    int32_t *__restrict back) {
    for (int n = 0; n < states; ++n) {
        best[n] = std::numeric_limits<float>::infinity();
        back[n] = -1;
    }
    for (int p = 0; p < slots; ++p) {
        const int32_t *from = predecessors + p * stride;
        const float *step = cost + p * stride;
        for (int n = 0; n < states; ++n) {
            ls_relax(score[from[n]] + step[n], from[n], best + n, back + n);
        }
    }
}

LS_EXPORT void ls_min_plus(
    int32_t states, int32_t slots, const float *score, const int32_t *predecessors,
    const float *cost, const float *emission, float *best, int32_t *back) {
    for (int first = 0; first < states; first += kBlock) {
        const int count = ls_min(kBlock, states - first);
        min_plus_block(
            count, slots, states, score, predecessors + first, cost + first, best + first,
            back + first);
    }
    for (int n = 0; n < states; ++n) best[n] += emission[n];
}

LS_EXPORT void ls_trace_back(
    int32_t states, int32_t depth, const int32_t *const *backs, const int32_t *from,
    int32_t *ancestors) {
    for (int n = 0; n < states; ++n) {
        int state = from[n];
        for (int d = 0; d < depth && state >= 0; ++d) state = backs[d][state];
        ancestors[n] = state;
    }
}

LS_MULTIVERSION static void add_squares(
    int n, const float *__restrict row, float wanted, float *__restrict total) {
    for (int i = 0; i < n; ++i) total[i] += ls_square(row[i] - wanted);
}

LS_EXPORT void ls_feature_distance(
    int32_t n, int32_t k, const float *features, const float *wanted, const float *base,
    float *total) {
    for (int first = 0; first < n; first += 4 * kBlock) {
        const int count = ls_min(4 * kBlock, n - first);
        for (int i = first; i < first + count; ++i) total[i] = base[i];
        for (int j = 0; j < k; ++j) {
            add_squares(count, features + (int64_t)j * n + first, wanted[j], total + first);
        }
    }
}

// ---------------------------------------------------------------------------- mesh

LS_EXPORT void ls_mesh_map(
    const float *source_xy, const float *target_xy, const int32_t *triangles, int32_t count,
    int32_t h, int32_t w, int32_t origin_x, int32_t origin_y, float *mapped, uint8_t *coverage) {
    for (int i = 0; i < count; ++i) {
        LsTriangle t;
        if (!ls_setup_triangle(source_xy, target_xy, triangles + 3 * i, origin_x, origin_y, &t)) {
            continue;
        }
        const double left = std::fmin(t.x[0], std::fmin(t.x[1], t.x[2]));
        const double right = std::fmax(t.x[0], std::fmax(t.x[1], t.x[2]));
        const double top = std::fmin(t.y[0], std::fmin(t.y[1], t.y[2]));
        const double bottom = std::fmax(t.y[0], std::fmax(t.y[1], t.y[2]));
        const double half = LS_SUBPIXELS / 2;
        const int first_column = (int)std::fmax(std::ceil((left - half) / LS_SUBPIXELS), 0);
        const int first_row = (int)std::fmax(std::ceil((top - half) / LS_SUBPIXELS), 0);
        const int last_column = (int)std::fmin(std::floor((right - half) / LS_SUBPIXELS), w - 1);
        const int last_row = (int)std::fmin(std::floor((bottom - half) / LS_SUBPIXELS), h - 1);
        for (int row = first_row; row <= last_row; ++row) {
            for (int column = first_column; column <= last_column; ++column) {
                const int64_t pixel = (int64_t)row * w + column;
                if (ls_map_pixel(t, column, row, mapped + 2 * pixel)) coverage[pixel] = 255;
            }
        }
    }
}

LS_EXPORT void ls_remap(
    const uint8_t *image, int32_t height, int32_t width, int32_t channels, const float *mapped,
    const uint8_t *coverage, int32_t pixels, uint8_t *out) {
    for (int i = 0; i < pixels; ++i) {
        uint8_t *value = out + (int64_t)i * channels;
        if (coverage && !coverage[i]) {
            for (int c = 0; c < channels; ++c) value[c] = 0;
        } else if (channels == 3) {  // a constant lets the compiler unroll
            ls_sample(image, height, width, 3, mapped + 2 * (int64_t)i, value);
        } else {
            ls_sample(image, height, width, channels, mapped + 2 * (int64_t)i, value);
        }
    }
}

// ------------------------------------------------------------------------- composite

LS_MULTIVERSION static void blend_pixels_u8(
    int n, const uint8_t *__restrict background, const uint8_t *__restrict layer,
    const uint8_t *__restrict alpha, uint8_t *__restrict out) {
    for (int i = 0; i < n; ++i) {
        for (int c = 0; c < 3; ++c) {
            out[3 * i + c] = ls_blend_u8(background[3 * i + c], layer[3 * i + c], alpha[i]);
        }
    }
}

LS_MULTIVERSION static void blend_pixels_f32(
    int n, const uint8_t *__restrict background, const uint8_t *__restrict layer,
    const float *__restrict alpha, uint8_t *__restrict out) {
    for (int i = 0; i < n; ++i) {
        const int steps = ls_alpha_steps(alpha[i]);
        for (int c = 0; c < 3; ++c) {
            out[3 * i + c] = ls_blend_steps(background[3 * i + c], layer[3 * i + c], steps);
        }
    }
}

// gain_bias is f32 [2, 3] or null. A level has 256 values: the match is a table per channel.
LS_EXPORT void ls_blend(
    int32_t pixels, const uint8_t *background, const uint8_t *layer, const void *alpha,
    int32_t alpha_is_u8, const float *gain_bias, uint8_t *out) {
    uint8_t table[3][256];
    uint8_t matched[3 * kBlock];
    if (gain_bias) {
        for (int c = 0; c < 3; ++c) {
            for (int level = 0; level < 256; ++level) {
                table[c][level] = ls_match_color(level, gain_bias[c], gain_bias[3 + c]);
            }
        }
    }
    for (int first = 0; first < pixels; first += kBlock) {
        const int count = ls_min(kBlock, pixels - first);
        const uint8_t *front = layer + 3 * (int64_t)first;
        if (gain_bias) {
            for (int i = 0; i < count; ++i) {
                for (int c = 0; c < 3; ++c) matched[3 * i + c] = table[c][front[3 * i + c]];
            }
            front = matched;
        }
        const uint8_t *back = background + 3 * (int64_t)first;
        uint8_t *result = out + 3 * (int64_t)first;
        if (alpha_is_u8) {
            blend_pixels_u8(count, back, front, (const uint8_t *)alpha + first, result);
        } else {
            blend_pixels_f32(count, back, front, (const float *)alpha + first, result);
        }
    }
}
