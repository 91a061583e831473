// The kernels for the CPU: loops around the shared bodies, behind a plain C interface that
// compiled.py calls through ctypes. One thread, no state, no allocation above one row. Those that
// know what a face is are in face.cpp.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>
#include <limits>

#include "face_painter.h"
#include "cuda/color.cuh"
#include "cuda/composite.cuh"
#include "cuda/viterbi.cuh"
#include "cuda/mesh.cuh"

LS_EXPORT int32_t ls_abi_version() { return 11; }

// ---------------------------------------------------------------------------- colour

// Loops below go block by block through small planar arrays: interleaving three bytes is cheap,
// arithmetic on interleaved bytes is not (measured: 0.30 against 0.16 ms for 512x512).
static const int kBlock = 512;

LS_MULTIVERSION static void rgb_block(
    const uint8_t *__restrict y, const uint8_t *__restrict u, const uint8_t *__restrict v, int w,
    uint8_t *__restrict rgb) {
    int16_t uu[kBlock], vv[kBlock];
    uint8_t red[kBlock], green[kBlock], blue[kBlock];
    for (int i = 0; i < w / 2; ++i) uu[2 * i] = uu[2 * i + 1] = u[i];
    for (int i = 0; i < w / 2; ++i) vv[2 * i] = vv[2 * i + 1] = v[i];
    for (int i = 0; i < w; ++i) {
        uint8_t pixel[3];
        ls_rgb_from_yuv(y[i], uu[i], vv[i], pixel);
        red[i] = pixel[0], green[i] = pixel[1], blue[i] = pixel[2];
    }
    for (int i = 0; i < w; ++i) {
        rgb[3 * i] = red[i], rgb[3 * i + 1] = green[i], rgb[3 * i + 2] = blue[i];
    }
}

LS_EXPORT void ls_i420_region_to_rgb(
    const uint8_t *i420, int32_t width, int32_t height, int32_t x, int32_t y, int32_t w, int32_t h,
    uint8_t *rgb) {
    const int64_t pixels = (int64_t)width * height;
    const uint8_t *u = i420 + pixels, *v = u + pixels / 4;
    for (int r = 0; r < h; ++r) {
        const int64_t chroma = (int64_t)((y + r) / 2) * (width / 2) + x / 2;
        const uint8_t *luma = i420 + (int64_t)(y + r) * width + x;
        uint8_t *row = rgb + (int64_t)r * w * 3;
        for (int first = 0; first < w; first += kBlock) {
            rgb_block(
                luma + first, u + chroma + first / 2, v + chroma + first / 2,
                ls_min(kBlock, w - first), row + 3 * first);
        }
    }
}

// Two rows of up to kBlock pixels.
LS_MULTIVERSION static void i420_block(
    const uint8_t *__restrict top, const uint8_t *__restrict bottom, int w,
    uint8_t *__restrict top_y, uint8_t *__restrict bottom_y, uint8_t *__restrict u,
    uint8_t *__restrict v) {
    uint8_t plane[2][3][kBlock];
    int16_t column[3][kBlock];
    for (int i = 0; i < w; ++i) {
        for (int c = 0; c < 3; ++c) plane[0][c][i] = top[3 * i + c];
    }
    for (int i = 0; i < w; ++i) {
        for (int c = 0; c < 3; ++c) plane[1][c][i] = bottom[3 * i + c];
    }
    for (int i = 0; i < w; ++i) {
        top_y[i] = ls_y_from_rgb(plane[0][0][i], plane[0][1][i], plane[0][2][i]);
    }
    for (int i = 0; i < w; ++i) {
        bottom_y[i] = ls_y_from_rgb(plane[1][0][i], plane[1][1][i], plane[1][2][i]);
    }
    for (int c = 0; c < 3; ++c) {
        for (int i = 0; i < w; ++i) column[c][i] = (int16_t)(plane[0][c][i] + plane[1][c][i]);
    }
    for (int i = 0; i < w / 2; ++i) {
        const int red = column[0][2 * i] + column[0][2 * i + 1];
        const int green = column[1][2 * i] + column[1][2 * i + 1];
        const int blue = column[2][2 * i] + column[2][2 * i + 1];
        u[i] = ls_u_from_quad(red, green, blue);
        v[i] = ls_v_from_quad(red, green, blue);
    }
}

// The same, keeping what was there where the mask is 0; `mask` rows are mask_width apart.
LS_MULTIVERSION static void masked_i420_block(
    const uint8_t *__restrict top, const uint8_t *__restrict bottom,
    const uint8_t *__restrict mask, int mask_width, int w, uint8_t *__restrict top_y,
    uint8_t *__restrict bottom_y, uint8_t *__restrict u, uint8_t *__restrict v) {
    uint8_t y[2][kBlock], new_u[kBlock / 2], new_v[kBlock / 2], any[kBlock];
    i420_block(top, bottom, w, y[0], y[1], new_u, new_v);
    const uint8_t *below = mask + mask_width;
    for (int i = 0; i < w; ++i) any[i] = mask[i] | below[i];
    for (int i = 0; i < w; ++i) top_y[i] = mask[i] ? y[0][i] : top_y[i];
    for (int i = 0; i < w; ++i) bottom_y[i] = below[i] ? y[1][i] : bottom_y[i];
    for (int i = 0; i < w / 2; ++i) u[i] = any[2 * i] | any[2 * i + 1] ? new_u[i] : u[i];
    for (int i = 0; i < w / 2; ++i) v[i] = any[2 * i] | any[2 * i + 1] ? new_v[i] : v[i];
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
        for (int first = 0; first < w; first += kBlock) {
            const int count = ls_min(kBlock, w - first);
            const uint8_t *upper = top + 3 * first, *lower = upper + 3 * (int64_t)w;
            uint8_t *y_out = luma + first;
            uint8_t *u_out = u + chroma + first / 2, *v_out = v + chroma + first / 2;
            if (mask) {
                masked_i420_block(
                    upper, lower, mask + (int64_t)r * w + first, w, count, y_out, y_out + width,
                    u_out, v_out);
            } else {
                i420_block(upper, lower, count, y_out, y_out + width, u_out, v_out);
            }
        }
    }
}

// ------------------------------------------------------------------ dynamic programming

// One state after the other, scalar: hardware gathers over eight states at a time were three times
// slower (0.6 against 0.18 ms for 15000 x 20, AMD EPYC, 2026), so this loop is not multiversioned.
LS_EXPORT void ls_min_plus(
    int32_t states, int32_t slots, const float *score, const int32_t *predecessors,
    const float *cost, const float *emission, float *best, int32_t *back) {
    for (int n = 0; n < states; ++n) {
        float lowest = std::numeric_limits<float>::infinity();
        int chosen = -1;
        for (int p = 0; p < slots; ++p) {
            ls_relax(score[predecessors[p]] + cost[p], predecessors[p], &lowest, &chosen);
        }
        best[n] = lowest + emission[n];
        back[n] = chosen;
        predecessors += slots;
        cost += slots;
    }
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

// The pixels of one row of a triangle. Along a row each edge value is an integer that grows by a
// constant integer, so those that pass all three tests are a span, found by exact division, and the
// values inside it are the very ones that ls_map_pixel would compute.
template <typename Sink>
LS_BODY void fill_row(const LsTriangle &t, int row, int first, int last, Sink &sink) {
    double start[3], step[3];
    for (int i = 0; i < 3; ++i) {
        const int a = (i + 1) % 3, b = (i + 2) % 3;
        start[i] = ls_edge_at(t, i, 0, row);
        step[i] = (t.y[a] - t.y[b]) * LS_SUBPIXELS;
        const double least = t.owns[i] ? 0 : 1;
        if (step[i] > 0) {
            const double from = std::ceil((least - start[i]) / step[i]);
            if (from > first) first = from > last ? last + 1 : (int)from;
        } else if (step[i] < 0) {
            const double to = std::floor((least - start[i]) / step[i]);
            if (to < last) last = to < first ? first - 1 : (int)to;
        } else if (start[i] < least) {
            return;
        }
    }
    const int64_t at = (int64_t)row * sink.width;
    for (int column = first; column <= last; ++column) {
        sink.add(
            t, at + column, start[0] + column * step[0], start[1] + column * step[1],
            start[2] + column * step[2]);
    }
}

// Pixels of one triangle, with the values of its edges, until there are enough of them to go
// through them eight at a time: rows of a triangle are shorter than that.
struct Pixels {
    double edges[3][kBlock];
    int64_t at[kBlock];
    float x[kBlock], y[kBlock];
    int count = 0;

    // Source px of all, as ls_map_point computes them.
    LS_METHOD void map(const LsTriangle &t) {
        for (int i = 0; i < count; ++i) {
            const double e0 = edges[0][i], e1 = edges[1][i], e2 = edges[2][i];
            x[i] = (float)((e0 * t.sx[0] + e1 * t.sx[1] + e2 * t.sx[2]) * t.weight);
            y[i] = (float)((e0 * t.sy[0] + e1 * t.sy[1] + e2 * t.sy[2]) * t.weight);
        }
    }
};

template <typename Sink>
LS_BODY void fill_triangle(const LsTriangle &t, int h, int w, Sink &sink) {
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
        fill_row(t, row, first_column, last_column, sink);
    }
    sink.flush(t);
}

template <typename Write>
struct Sink {
    int64_t width;
    Write write;
    Pixels pixels;

    LS_METHOD void add(const LsTriangle &t, int64_t at, double e0, double e1, double e2) {
        const int own = pixels.count++;
        pixels.at[own] = at;
        pixels.edges[0][own] = e0, pixels.edges[1][own] = e1, pixels.edges[2][own] = e2;
        if (pixels.count == kBlock) flush(t);
    }

    LS_METHOD void flush(const LsTriangle &t) {
        pixels.map(t);
        write(pixels);
        pixels.count = 0;
    }
};

// Whether every triangle names vertices that there are, and no coordinate is beyond the limit or not
// a number.
LS_EXPORT int32_t ls_mesh_is_sound(
    const float *source_xy, const float *target_xy, int32_t vertices, const int32_t *triangles,
    int32_t count, float limit) {
    bool sound = true;
    for (int i = 0; i < 2 * vertices; ++i) {
        sound &= std::fabs(source_xy[i]) < limit && std::fabs(target_xy[i]) < limit;
    }
    for (int i = 0; i < 3 * count; ++i) sound &= (uint32_t)triangles[i] < (uint32_t)vertices;
    return sound;
}

struct WriteMap {
    float *mapped;
    uint8_t *coverage;

    LS_METHOD void operator()(const Pixels &pixels) const {
        for (int i = 0; i < pixels.count; ++i) {
            const int64_t at = pixels.at[i];
            mapped[2 * at] = pixels.x[i], mapped[2 * at + 1] = pixels.y[i];
            coverage[at] = 255;
        }
    }
};

LS_MULTIVERSION static void map_triangle(
    const LsTriangle &t, int h, int w, Sink<WriteMap> &sink) {
    fill_triangle(t, h, w, sink);
}

LS_EXPORT void ls_mesh_map(
    const float *source_xy, const float *target_xy, const int32_t *triangles, int32_t count,
    int32_t h, int32_t w, int32_t origin_x, int32_t origin_y, float *mapped, uint8_t *coverage) {
    Sink<WriteMap> sink{w, {mapped, coverage}, {}};
    for (int i = 0; i < count; ++i) {
        LsTriangle t;
        if (ls_setup_triangle(source_xy, target_xy, triangles + 3 * i, origin_x, origin_y, &t)) {
            map_triangle(t, h, w, sink);
        }
    }
}

// Red and blue in the two halves of a word, green alone: two multiplications serve three
// channels. A weighted sum stays below 2^24, so the halves do not meet.
struct LsPair {
    uint64_t red_blue;
    uint32_t green;
};

LS_BODY LsPair load_pixel(const uint8_t *p, uint32_t weight) {
    const uint64_t red_blue = p[0] | (uint64_t)p[2] << 32;
    return {red_blue * weight, p[1] * weight};
}

// ls_sample for three channels.
LS_BODY void sample_rgb(
    const uint8_t *image, int height, int width, const float *xy, uint8_t *out) {
    const int fx = ls_fixed_coordinate(xy[0], width);
    const int fy = ls_fixed_coordinate(xy[1], height);
    const int x0 = fx >> 8, y0 = fy >> 8;
    const int dx = x0 + 1 < width ? 3 : 0;
    const int64_t dy = y0 + 1 < height ? (int64_t)width * 3 : 0;
    const uint8_t *p = image + ((int64_t)y0 * width + x0) * 3;
    const uint32_t wx = fx & 255, wy = fy & 255;
    const LsPair a = load_pixel(p, (256 - wx) * (256 - wy));
    const LsPair b = load_pixel(p + dx, wx * (256 - wy));
    const LsPair c = load_pixel(p + dy, (256 - wx) * wy);
    const LsPair d = load_pixel(p + dy + dx, wx * wy);
    const uint64_t half = 1 << 15;
    const uint64_t red_blue =
        a.red_blue + b.red_blue + c.red_blue + d.red_blue + (half << 32 | half);
    out[0] = (uint8_t)(red_blue >> 16);
    out[1] = (uint8_t)((a.green + b.green + c.green + d.green + (uint32_t)half) >> 16);
    out[2] = (uint8_t)(red_blue >> 48);
}

static void sample_pixels_one_by_one(
    const uint8_t *image, int height, int width, const float *x, const float *y, int count,
    const int64_t *at, uint8_t *out) {
    for (int i = 0; i < count; ++i) {
        const float xy[2] = {x[i], y[i]};
        sample_rgb(image, height, width, xy, out + 3 * at[i]);
    }
}

#if LS_AVX2
// Eight bytes from `offset`, those beyond the end of the image 0.
LS_TARGET_AVX2 static inline int64_t load_eight(
    const uint8_t *image, int64_t offset, int64_t size) {
    const int64_t beyond = ls_max(offset + 8 - size, 0);
    uint64_t bytes;
    std::memcpy(&bytes, image + offset - beyond, 8);
    return (int64_t)(bytes >> (8 * beyond));
}

// Two pixels side by side in one register, each with the one to its right: six of eight bytes. At
// the right and lower edge the weight of what lies beyond is 0, so it may be anything. Along a row
// pixels are written four bytes at a time, of which the next one covers the last.
LS_TARGET_AVX2 static void sample_pixels_avx2(
    const uint8_t *image, int height, int width, const float *x, const float *y, int count,
    const int64_t *at, uint8_t *out) {
    int fx[kBlock], fy[kBlock], offset[kBlock + 1], across[kBlock + 1], down[kBlock + 1];
    for (int i = 0; i < count; ++i) fx[i] = ls_fixed_coordinate(x[i], width);
    for (int i = 0; i < count; ++i) fy[i] = ls_fixed_coordinate(y[i], height);
    int lowest = 0;
    for (int i = 0; i < count; ++i) lowest = fy[i] > lowest ? fy[i] : lowest;
    for (int i = 0; i < count; ++i) offset[i] = ((fy[i] >> 8) * width + (fx[i] >> 8)) * 3;
    for (int i = 0; i < count; ++i) across[i] = (256 - (fx[i] & 255)) | (fx[i] & 255) << 16;
    for (int i = 0; i < count; ++i) down[i] = (256 - (fy[i] & 255)) | (fy[i] & 255) << 16;
    offset[count] = offset[count - 1], across[count] = across[count - 1], down[count] = down[count - 1];
    const int64_t size = (int64_t)height * width * 3, stride = (int64_t)width * 3;
    // Nothing that is read lies in the last row, so eight bytes are there.
    const bool amid = (lowest >> 8) + 2 < height && stride >= 8;
    const __m256i neighbours = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1));
    const __m256i both = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
    const __m256i offset_by = _mm256_set1_epi32((int)0x80008000);
    const __m256i half = _mm256_set1_epi32((1 << 23) + (1 << 15));
    const __m256i wanted = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(2, 6, 10, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1));
    for (int i = 0; i < count; i += 2) {
        __m128i upper[2], lower[2];
        for (int k = 0; k < 2; ++k) {
            const int64_t from = offset[i + k];
            if (amid) {
                upper[k] = _mm_loadl_epi64((const __m128i *)(image + from));
                lower[k] = _mm_loadl_epi64((const __m128i *)(image + from + stride));
            } else {
                const int64_t below = from + stride < size ? from + stride : from;
                upper[k] = _mm_cvtsi64_si128(load_eight(image, from, size));
                lower[k] = _mm_cvtsi64_si128(load_eight(image, below, size));
            }
        }
        const __m256i right = _mm256_permutevar8x32_epi32(
            _mm256_castsi128_si256(_mm_loadl_epi64((const __m128i *)(across + i))), both);
        const __m256i beneath = _mm256_permutevar8x32_epi32(
            _mm256_castsi128_si256(_mm_loadl_epi64((const __m128i *)(down + i))), both);
        const __m256i top = _mm256_madd_epi16(
            _mm256_shuffle_epi8(_mm256_set_m128i(upper[1], upper[0]), neighbours), right);
        const __m256i bottom = _mm256_madd_epi16(
            _mm256_shuffle_epi8(_mm256_set_m128i(lower[1], lower[0]), neighbours), right);
        // Both are below 2^16: less 2^15 they are signed words, and one instruction mixes them.
        const __m256i pair = _mm256_xor_si256(
            _mm256_or_si256(top, _mm256_slli_epi32(bottom, 16)), offset_by);
        const __m256i level = _mm256_add_epi32(_mm256_madd_epi16(pair, beneath), half);
        const __m256i bytes = _mm256_shuffle_epi8(level, wanted);  // the third of each four
        const int first = _mm_cvtsi128_si32(_mm256_castsi256_si128(bytes));
        const int second = _mm_cvtsi128_si32(_mm256_extracti128_si256(bytes, 1));
        uint8_t *to = out + 3 * at[i];
        if (i + 1 == count) {
            std::memcpy(to, &first, 3);
            break;
        }
        if (at[i + 1] == at[i] + 1) {
            std::memcpy(to, &first, 4);
        } else {
            std::memcpy(to, &first, 3);
        }
        to = out + 3 * at[i + 1];
        if (i + 2 < count && at[i + 2] == at[i + 1] + 1) {
            std::memcpy(to, &second, 4);
        } else {
            std::memcpy(to, &second, 3);
        }
    }
}
#endif

// Samples of three channels at (x, y) into pixels `at` of `out`; count is at most kBlock.
static void sample_pixels(
    const uint8_t *image, int height, int width, const float *x, const float *y, int count,
    const int64_t *at, uint8_t *out) {
#if LS_AVX2
    if (has_avx2 && count && (int64_t)height * width * 3 >= 8) {
        sample_pixels_avx2(image, height, width, x, y, count, at, out);
        return;
    }
#endif
    sample_pixels_one_by_one(image, height, width, x, y, count, at, out);
}

LS_EXPORT void ls_remap(
    const uint8_t *image, int32_t height, int32_t width, int32_t channels, const float *mapped,
    int32_t pixels, uint8_t *out) {
    for (int i = 0; i < pixels; ++i) {
        const float *xy = mapped + 2 * (int64_t)i;
        uint8_t *value = out + (int64_t)i * channels;
        if (channels == 3) {
            sample_rgb(image, height, width, xy, value);
        } else {
            ls_sample(image, height, width, channels, xy, value);
        }
    }
}

// Samples at once what ls_mesh_map would only map: the map alone is eight bytes a pixel.
template <int Channels>
struct WriteSamples {
    const uint8_t *image;
    int height, width, channels;
    uint8_t *out, *coverage;

    LS_METHOD void operator()(const Pixels &pixels) const {
        const int count = pixels.count;
        for (int i = 0; i < count; ++i) coverage[pixels.at[i]] = 255;
        if (Channels == 3) {
            sample_pixels(image, height, width, pixels.x, pixels.y, count, pixels.at, out);
            return;
        }
        for (int i = 0; i < count; ++i) {
            const float xy[2] = {pixels.x[i], pixels.y[i]};
            ls_sample(image, height, width, channels, xy, out + channels * pixels.at[i]);
        }
    }
};

LS_MULTIVERSION static void warp_triangle(
    const LsTriangle &t, int h, int w, Sink<WriteSamples<3>> &sink) {
    fill_triangle(t, h, w, sink);
}

LS_MULTIVERSION static void warp_triangle_of_any(
    const LsTriangle &t, int h, int w, Sink<WriteSamples<0>> &sink) {
    fill_triangle(t, h, w, sink);
}

// `out` and `coverage` come as zeros.
LS_EXPORT void ls_warp_mesh(
    const uint8_t *image, int32_t height, int32_t width, int32_t channels, const float *source_xy,
    const float *target_xy, const int32_t *triangles, int32_t count, int32_t h, int32_t w,
    int32_t origin_x, int32_t origin_y, uint8_t *out, uint8_t *coverage) {
    Sink<WriteSamples<3>> rgb{w, {image, height, width, channels, out, coverage}, {}};
    Sink<WriteSamples<0>> any{w, {image, height, width, channels, out, coverage}, {}};
    for (int i = 0; i < count; ++i) {
        LsTriangle t;
        if (ls_setup_triangle(source_xy, target_xy, triangles + 3 * i, origin_x, origin_y, &t)) {
            if (channels == 3) {
                warp_triangle(t, h, w, rgb);
            } else {
                warp_triangle_of_any(t, h, w, any);
            }
        }
    }
}

// A frame with what lies in one rectangle warped within it; vertices relative to its corner.
LS_EXPORT void ls_warp_region(
    const uint8_t *i420, int32_t width, int32_t height, int32_t x, int32_t y, int32_t w, int32_t h,
    const float *source_xy, const float *target_xy, const int32_t *triangles, int32_t count,
    uint8_t *out) {
    // Kept from call to call: a megabyte and a half of fresh pages costs half as much as the warp.
    static thread_local std::vector<uint8_t> scratch;
    const size_t pixels = (size_t)w * h;
    if (scratch.size() < 7 * pixels) scratch.resize(7 * pixels);
    uint8_t *patch = scratch.data(), *warped = patch + 3 * pixels, *covered = warped + 3 * pixels;
    std::memset(warped, 0, 4 * pixels);
    ls_i420_region_to_rgb(i420, width, height, x, y, w, h, patch);
    ls_warp_mesh(patch, h, w, 3, source_xy, target_xy, triangles, count, h, w, 0, 0, warped, covered);
    std::memcpy(out, i420, (size_t)width * height * 3 / 2);
    ls_rgb_region_into_i420(warped, covered, width, height, x, y, w, h, out);
}

// ------------------------------------------------------------------------- composite

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

LS_MULTIVERSION static void match_block(
    int n, const uint8_t *__restrict layer, const float *__restrict gain,
    const float *__restrict bias, uint8_t *__restrict out) {
    for (int i = 0; i < n; ++i) out[i] = ls_match_color(layer[i], gain[i], bias[i]);
}

// Sum of `count` layers f32 [size] by their shares, plus a half, as levels. A block at a time, so
// that the sums stay in the cache.
LS_MULTIVERSION static void sum_block(
    int count, const float *__restrict layers, int64_t apart, const float *__restrict shares,
    int size, float *__restrict total, uint8_t *__restrict out) {
    for (int i = 0; i < size; ++i) total[i] = 0.5f;
    for (int k = 0; k < count; ++k) {
        const float *layer = layers + k * apart;
        const float share = shares[k];
        for (int i = 0; i < size; ++i) total[i] += share * layer[i];
    }
    for (int i = 0; i < size; ++i) {
        const float level = total[i] < 0.0f ? 0.0f : total[i];
        out[i] = (uint8_t)(level > 255.0f ? 255.0f : level);
    }
}

LS_EXPORT void ls_sum_layers(
    int32_t count, int32_t size, const float *layers, const float *shares, uint8_t *out) {
    constexpr int kSums = 1024;
    float total[kSums];
    for (int first = 0; first < size; first += kSums) {
        sum_block(
            count, layers + first, size, shares, ls_min(kSums, size - first), total, out + first);
    }
}

// gain_bias is f32 [2, 3] or null.
LS_EXPORT void ls_blend(
    int32_t pixels, const uint8_t *background, const uint8_t *layer, const void *alpha,
    int32_t alpha_is_u8, const float *gain_bias, uint8_t *out) {
    float gain[3 * kBlock], bias[3 * kBlock];
    uint8_t matched[3 * kBlock];
    for (int i = 0; gain_bias && i < 3 * kBlock; ++i) {
        gain[i] = gain_bias[i % 3];
        bias[i] = gain_bias[3 + i % 3];
    }
    for (int first = 0; first < pixels; first += kBlock) {
        const int count = ls_min(kBlock, pixels - first);
        const uint8_t *front = layer + 3 * (int64_t)first;
        if (gain_bias) {
            match_block(3 * count, front, gain, bias, matched);
            front = matched;
        }
        const uint8_t *back = background + 3 * (int64_t)first;
        uint8_t *result = out + 3 * (int64_t)first;
        if (alpha_is_u8) {
            blend_block_u8(count, back, front, (const uint8_t *)alpha + first, result);
        } else {
            blend_block_f32(count, back, front, (const float *)alpha + first, result);
        }
    }
}

LS_MULTIVERSION static void mix(
    int n, const uint8_t *__restrict old, const uint8_t *__restrict fresh, uint16_t weight,
    uint8_t *__restrict out) {
    for (int i = 0; i < n; ++i) {
        // Below 2^16, so 16 bits will do.
        const uint16_t sum = (uint16_t)(old[i] * (256 - weight) + fresh[i] * weight + 128);
        out[i] = (uint8_t)(sum >> 8);
    }
}

LS_EXPORT void ls_mix(
    int32_t n, const uint8_t *old, const uint8_t *fresh, int32_t weight, uint8_t *out) {
    mix(n, old, fresh, (uint16_t)weight, out);
}

// ---------------------------------------------------------------------------- crop

// One row of samples from the two lines it lies between.
LS_MULTIVERSION static void mix_lines(
    int n, const uint16_t *__restrict above, const uint16_t *__restrict below, uint32_t weight,
    uint8_t *__restrict out) {
    for (int i = 0; i < n; ++i) {
        out[i] = (uint8_t)((above[i] * (256 - weight) + below[i] * weight + (1 << 15)) >> 16);
    }
}

// What `sample_rgb` reads, where neighbours lie along the rows of the image: each of its lines is
// sampled along once, and two lines make a row.
class RowSampler {
public:
    RowSampler(const uint8_t *image, int height, int width, int columns)
        : image_(image), height_(height), width_(width), columns_(columns), places_(columns) {
        for (auto &line : lines_) line.resize(3 * columns);
    }

    void column(int i, float x) {
        const int fixed = ls_fixed_coordinate(x, width_), pixel = fixed >> 8;
        places_[i] = {3 * pixel, pixel + 1 < width_ ? 3 : 0, (uint32_t)fixed & 255};
    }

    // out u8 [columns, 3]
    void row(float y, uint8_t *out) {
        const int fixed = ls_fixed_coordinate(y, height_), above = fixed >> 8;
        const int below = ls_min(above + 1, height_ - 1);
        mix_lines(3 * columns_, line(above), line(below), fixed & 255, out);
    }

private:
    struct Place {
        int at, next;
        uint32_t weight;
    };

    const uint16_t *line(int y) {
        auto &own = lines_[y & 1];
        if (held_[y & 1] != y) {
            const uint8_t *from = image_ + (int64_t)y * width_ * 3;
            uint16_t *to = own.data();
            for (const Place &place : places_) {
                const uint8_t *p = from + place.at, *q = p + place.next;
                const uint32_t weight = place.weight;
                for (int c = 0; c < 3; ++c) {
                    *to++ = (uint16_t)(p[c] * (256 - weight) + q[c] * weight);
                }
            }
            held_[y & 1] = y;
        }
        return own.data();
    }

    const uint8_t *image_;
    int height_, width_, columns_;
    std::vector<Place> places_;
    std::vector<uint16_t> lines_[2];  // of even and of odd rows of the image
    int held_[2] = {-1, -1};
};

// rgb u8 [n, 3] to three planes f32 [n], 0 to 1, each `area` after the other.
LS_MULTIVERSION static void split_colours(
    int n, const uint8_t *__restrict rgb, int64_t area, float *__restrict planes) {
    const float full = (float)(1.0 / 255.0);
    for (int i = 0; i < n; ++i) {
        planes[i] = (float)rgb[3 * i] * full;
        planes[area + i] = (float)rgb[3 * i + 1] * full;
        planes[2 * area + i] = (float)rgb[3 * i + 2] * full;
    }
}

// A rectangle of the picture with its corner at (left, top), seen as rows x columns; `step` is how
// far apart in the picture two neighbours lie.
LS_EXPORT void ls_crop_in(
    const uint8_t *picture, const uint8_t *guides, const uint8_t *expected,
    const uint8_t *previous, int32_t height, int32_t width, int32_t expected_height,
    int32_t expected_width, float left, float top, float step, int32_t rows, int32_t columns,
    uint8_t *seen, float *planes) {
    const int64_t area = (int64_t)rows * columns;
    RowSampler colour(picture, height, width, columns), guide(guides, height, width, columns);
    RowSampler look(expected, expected_height, expected_width, expected ? columns : 0);
    const float across = (float)((double)expected_width / width);
    const float down = (float)((double)expected_height / height);
    for (int i = 0; i < columns; ++i) {
        const float x = ((float)i + 0.5f) * step + left;
        colour.column(i, x);
        guide.column(i, x);
        if (expected) look.column(i, x * across);
    }
    std::vector<uint8_t> colours(3 * columns), opacities(3 * columns), layer(3 * columns);
    std::vector<uint8_t> opacity(columns);
    for (int row = 0; row < rows; ++row) {
        const float y = ((float)row + 0.5f) * step + top;
        const int64_t at = (int64_t)row * columns;
        colour.row(y, colours.data());
        guide.row(y, opacities.data());
        if (expected) {
            look.row(y * down, layer.data());
            for (int i = 0; i < columns; ++i) opacity[i] = opacities[3 * i];
            ls_blend(columns, colours.data(), layer.data(), opacity.data(), 1, nullptr,
                     layer.data());
        } else {
            layer = colours;
        }
        uint8_t *own = seen + 6 * at;
        for (int i = 0; i < columns; ++i) {
            std::memcpy(own + 6 * i, &colours[3 * i], 3);
            std::memcpy(own + 6 * i + 3, &opacities[3 * i], 3);
        }
        split_colours(columns, colours.data(), area, planes + at);
        split_colours(columns, opacities.data(), area, planes + 3 * area + at);
        split_colours(columns, layer.data(), area, planes + 6 * area + at);
        const uint8_t *before = previous ? previous + 3 * at : colours.data();
        split_colours(columns, before, area, planes + 9 * area + at);
    }
}

// Sums of five rows of `plane` round `row` (fewer at the edges); returns of how many.
LS_MULTIVERSION static int five_rows(
    const float *__restrict plane, int row, int rows, int columns, float *__restrict sums) {
    const int first = ls_max(row - 2, 0), last = ls_min(row + 2, rows - 1);
    for (int i = 0; i < columns; ++i) sums[i] = plane[(int64_t)first * columns + i];
    for (int r = first + 1; r <= last; ++r) {
        const float *own = plane + (int64_t)r * columns;
        for (int i = 0; i < columns; ++i) sums[i] += own[i];
    }
    return last - first + 1;
}

// `own` less what alternates from number to number along a b own d e: a network that paints two by
// two pixels at once leaves it. The rest of a spectrum up to half as fast keeps 5/6 and more.
LS_BODY float ls_without_alternation(float a, float b, float own, float d, float e) {
    return (own * (float)(2.0 / 3.0) + (b + d) * 0.25f) - (a + e) * (float)(1.0 / 12.0);
}

LS_MULTIVERSION static void along_row(
    const float *__restrict from, int columns, float *__restrict to) {
    const int last = columns - 1, edge = ls_min(2, columns);
    const auto at = [=](int i) { return from[ls_min(ls_max(i, 0), last)]; };  // the border repeats
    const auto by_the_border = [=](int i) {
        to[i] = ls_without_alternation(at(i - 2), at(i - 1), at(i), at(i + 1), at(i + 2));
    };
    for (int i = 0; i < edge; ++i) by_the_border(i);
    for (int i = 2; i < columns - 2; ++i) {
        to[i] = ls_without_alternation(from[i - 2], from[i - 1], from[i], from[i + 1], from[i + 2]);
    }
    for (int i = ls_max(columns - 2, edge); i < columns; ++i) by_the_border(i);
}

LS_MULTIVERSION static void across_rows(
    const float *__restrict a, const float *__restrict b, const float *__restrict own,
    const float *__restrict d, const float *__restrict e, int columns, float *__restrict to) {
    for (int i = 0; i < columns; ++i) {
        to[i] = ls_without_alternation(a[i], b[i], own[i], d[i], e[i]);
    }
}

// What alternates along rows and columns, out of one plane; `spare` is scratch of its size.
static void without_grid(int rows, int columns, float *plane, float *spare) {
    for (int row = 0; row < rows; ++row) {
        along_row(plane + (int64_t)row * columns, columns, spare + (int64_t)row * columns);
    }
    const auto line = [=](int row) {
        return spare + (int64_t)ls_min(ls_max(row, 0), rows - 1) * columns;
    };
    for (int row = 0; row < rows; ++row) {
        across_rows(line(row - 2), line(row - 1), line(row), line(row + 1), line(row + 2), columns,
                    plane + (int64_t)row * columns);
    }
}

// 1 2 1 both ways round one row, the border repeated; `down` is scratch of columns.
LS_MULTIVERSION static void three_by_three(
    const float *__restrict above, const float *__restrict own, const float *__restrict below,
    int columns, float *__restrict down, float *__restrict out) {
    for (int i = 0; i < columns; ++i) down[i] = ((above[i] + 2 * own[i]) + below[i]) * 0.25f;
    for (int i = 1; i < columns - 1; ++i) {
        out[i] = ((down[i - 1] + 2 * down[i]) + down[i + 1]) * 0.25f;
    }
    const int last = columns - 1;
    out[0] = ((down[0] + 2 * down[0]) + down[ls_min(1, last)]) * 0.25f;
    out[last] = ((down[ls_max(last - 1, 0)] + 2 * down[last]) + down[last]) * 0.25f;
}

LS_BODY float mean_at(const float *sums, int high, int columns, int i) {
    const int first = ls_max(i - 2, 0), last = ls_min(i + 2, columns - 1);
    float total = sums[first];
    for (int c = first + 1; c <= last; ++c) total += sums[c];
    return total / (float)(high * (last - first + 1));
}

LS_MULTIVERSION static void sharpen_row(
    const float *__restrict own, const float *__restrict sums, int high, int columns, float amount,
    float *__restrict out) {
    const int edge = ls_min(2, columns);
    const float count = (float)(5 * high);
    for (int i = 0; i < edge; ++i) out[i] += amount * (own[i] - mean_at(sums, high, columns, i));
    for (int i = 2; i < columns - 2; ++i) {
        const float total = sums[i - 2] + sums[i - 1] + sums[i] + sums[i + 1] + sums[i + 2];
        out[i] += amount * (own[i] - total / count);
    }
    for (int i = ls_max(columns - 2, edge); i < columns; ++i) {
        out[i] += amount * (own[i] - mean_at(sums, high, columns, i));
    }
}

LS_MULTIVERSION static void mean_row(
    const float *__restrict sums, int high, int columns, float *__restrict out) {
    const int edge = ls_min(2, columns);
    const float count = (float)(5 * high);
    for (int i = 0; i < edge; ++i) out[i] = mean_at(sums, high, columns, i);
    for (int i = 2; i < columns - 2; ++i) {
        out[i] = (sums[i - 2] + sums[i - 1] + sums[i] + sums[i + 1] + sums[i + 2]) / count;
    }
    for (int i = ls_max(columns - 2, edge); i < columns; ++i) {
        out[i] = mean_at(sums, high, columns, i);
    }
}

// Means over 5 x 5 of one plane; `sums` is scratch of columns.
static void mean_of_five(const float *plane, int rows, int columns, float *sums, float *out) {
    for (int row = 0; row < rows; ++row) {
        const int high = five_rows(plane, row, rows, columns, sums);
        mean_row(sums, high, columns, out + (int64_t)row * columns);
    }
}

LS_MULTIVERSION static void apart_of(
    int64_t n, const float *__restrict a, const float *__restrict b, float *__restrict out) {
    for (int64_t i = 0; i < n; ++i) out[i] = b[i] - a[i];
}

LS_BODY float bounded(float gate, float least) {
    const float more = gate > least ? gate : least;
    return more < 1.0f ? more : 1.0f;
}

LS_MULTIVERSION static void take_bands(
    int64_t n, const float *__restrict gates, const float *__restrict painted,
    const float *__restrict expected, const float *__restrict low, float *__restrict out) {
    for (int64_t i = 0; i < n; ++i) {
        const float coarse = bounded(gates[i], 0.0f), fine = bounded(gates[n + i], 0.0f);
        out[i] = coarse * low[i] + fine * ((expected[i] - painted[i]) - low[i]);
    }
}

LS_MULTIVERSION static void add_own(
    int64_t n, const float *__restrict gate, const float *__restrict painted,
    const float *__restrict low, float *__restrict out) {
    for (int64_t i = 0; i < n; ++i) {
        out[i] += bounded(gate[i], -0.5f) * (painted[i] - low[i]);
    }
}

// See kernels/crop.py. `scratch` is (3 x rows + 1) x columns.
LS_EXPORT void ls_fuse(
    const float *gates, const float *planes, int32_t rows, int32_t columns, float *scratch,
    float *difference) {
    const int64_t area = (int64_t)rows * columns;
    float *once = scratch, *twice = once + area, *apart = twice + area, *sums = apart + area;
    for (int c = 0; c < 3; ++c) {
        const float *painted = planes + c * area, *expected = planes + (6 + c) * area;
        float *out = difference + c * area;
        apart_of(area, painted, expected, apart);
        mean_of_five(apart, rows, columns, sums, once);
        mean_of_five(once, rows, columns, sums, twice);
        take_bands(area, gates, painted, expected, twice, out);
        mean_of_five(painted, rows, columns, sums, once);
        mean_of_five(once, rows, columns, sums, twice);
        add_own(area, gates + 2 * area, painted, twice, out);
    }
}

// `mended` is scratch of rows x columns, `lines` of 3 x columns.
LS_EXPORT void ls_sharpen(
    const uint8_t *seen, int32_t rows, int32_t columns, float amount, float *mended, float *lines,
    float *difference) {
    float *sums = lines, *down = sums + columns, *soft = down + columns;
    const float full = (float)(1.0 / 255.0);
    const int64_t area = (int64_t)rows * columns;
    for (int c = 0; c < 3; ++c) {
        float *plane = difference + c * area;
        without_grid(rows, columns, plane, mended);
        for (int64_t i = 0; i < area; ++i) mended[i] = (float)seen[6 * i + c] * full + plane[i];
        for (int row = 0; row < rows; ++row) {
            const int high = five_rows(mended, row, rows, columns, sums);
            const int64_t at = (int64_t)row * columns;
            const float *own = mended + at;
            const float *above = row ? own - columns : own;
            const float *below = row + 1 < rows ? own + columns : own;
            three_by_three(above, own, below, columns, down, soft);
            sharpen_row(soft, sums, high, columns, amount, plane + at);
        }
    }
}

LS_MULTIVERSION static void larger(
    int n, const uint8_t *__restrict each, uint8_t *__restrict largest) {
    for (int i = 0; i < n; ++i) largest[i] = each[i] > largest[i] ? each[i] : largest[i];
}

// Of the last channel of `seen`, the largest within two pixels, looked up in `table` u8 [256]; then
// the mean of 3 x 3 of that, in 255ths, times the difference. `spare` is scratch of
// 2 x rows x columns; table[0] is 255, so lines without a gap near them are left as they are.
LS_EXPORT void ls_withhold(
    const uint8_t *seen, int32_t rows, int32_t columns, const uint8_t *table, uint8_t *spare,
    float *difference) {
    const int64_t area = (int64_t)rows * columns;
    uint8_t *gap = spare, *shares = spare + area;
    for (int64_t i = 0; i < area; ++i) gap[i] = seen[6 * i + 5];
    std::vector<uint8_t> tall(columns), near(rows, 0);
    std::vector<int> sums(columns);
    for (int row = 0; row < rows; ++row) {
        std::fill(tall.begin(), tall.end(), 0);
        for (int r = ls_max(row - 2, 0); r <= ls_min(row + 2, rows - 1); ++r) {
            larger(columns, gap + (int64_t)r * columns, tall.data());
        }
        uint8_t *out = shares + (int64_t)row * columns;
        near[row] = *std::max_element(tall.begin(), tall.end()) > 0;
        if (!near[row]) {
            std::memset(out, 255, columns);
            continue;
        }
        std::memcpy(out, tall.data(), columns);
        for (int by = 1; by <= ls_min(2, columns - 1); ++by) {
            larger(columns - by, tall.data() + by, out);
            larger(columns - by, tall.data(), out + by);
        }
        for (int i = 0; i < columns; ++i) out[i] = table[out[i]];
    }
    for (int row = 0; row < rows; ++row) {
        const int before = ls_max(row - 1, 0), after = ls_min(row + 1, rows - 1);
        if (!near[before] && !near[row] && !near[after]) continue;
        const uint8_t *above = shares + (int64_t)before * columns;
        const uint8_t *own = shares + (int64_t)row * columns;
        const uint8_t *below = shares + (int64_t)after * columns;
        for (int i = 0; i < columns; ++i) sums[i] = above[i] + own[i] + below[i];
        for (int i = 0; i < columns; ++i) {
            const int total = sums[ls_max(i - 1, 0)] + sums[i] + sums[ls_min(i + 1, columns - 1)];
            if (total == 9 * 255) continue;
            const float share = (float)total * (float)(1.0 / (9 * 255));
            for (int c = 0; c < 3; ++c) difference[c * area + (int64_t)row * columns + i] *= share;
        }
    }
}

LS_BODY uint8_t ls_add_weighted(int level, int difference, int opacity) {
    // Rounded half up; the shift is a division by 255 that is exact in this range.
    const int sum = level + (((difference - 128) * opacity * 257 + (1 << 15)) >> 16);
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

// out = from + difference by each, of n numbers.
LS_MULTIVERSION static void add_line(
    int n, const uint8_t *__restrict difference, const uint8_t *__restrict each,
    const uint8_t *__restrict from, uint8_t *__restrict out) {
    for (int i = 0; i < n; ++i) out[i] = ls_add_weighted(from[i], difference[i], each[i]);
}

LS_MULTIVERSION static void to_levels(
    int n, const float *__restrict difference, uint8_t *__restrict levels) {
    for (int i = 0; i < n; ++i) {
        const float level = difference[i] * 255.0f + 128.5f;
        const float kept = level > 0 ? (level < 255.0f ? level : 255.0f) : 0;
        levels[i] = (uint8_t)(int)kept;
    }
}

// `stored` is scratch of rows x columns x 3: the difference in levels, 128 for none.
LS_EXPORT void ls_crop_out(
    const float *difference, const uint8_t *seen, int32_t rows, int32_t columns,
    const uint8_t *opacity, int32_t height, int32_t width, float left, float top, float zoom,
    uint8_t *stored, uint8_t *picture, uint8_t *mended) {
    const int longest = 3 * ls_max(columns, width);
    std::vector<uint8_t> changes(longest), each(longest), own(longest);
    for (int row = 0; row < rows; ++row) {
        const int64_t at = (int64_t)row * columns, area = (int64_t)rows * columns;
        for (int c = 0; c < 3; ++c) {
            to_levels(columns, difference + c * area + at, &changes[c * columns]);
        }
        uint8_t *levels = stored + 3 * at;
        const uint8_t *from = seen + 6 * at;
        for (int i = 0; i < columns; ++i) {
            for (int c = 0; c < 3; ++c) levels[3 * i + c] = changes[c * columns + i];
            std::memcpy(&own[3 * i], from + 6 * i, 3);
            std::memset(&each[3 * i], from[6 * i + 3], 3);
        }
        add_line(3 * columns, levels, each.data(), own.data(), mended + 3 * at);
    }
    RowSampler change(stored, rows, columns, width);
    for (int i = 0; i < width; ++i) change.column(i, ((float)i + 0.5f - left) * zoom);
    for (int row = 0; row < height; ++row) {
        const uint8_t *weights = opacity + (int64_t)row * width * 3;
        int weighed = 0;
        for (int i = 0; i < width; ++i) {
            weighed |= weights[3 * i];
            std::memset(&each[3 * i], weights[3 * i], 3);
        }
        if (!weighed) continue;
        change.row(((float)row + 0.5f - top) * zoom, changes.data());
        uint8_t *line = picture + (int64_t)row * width * 3;
        std::memcpy(own.data(), line, 3 * width);
        add_line(3 * width, changes.data(), each.data(), own.data(), line);
    }
}
