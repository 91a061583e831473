// Mesh warp: triangles to source coordinates, and bilinear samples there. The bodies are in
// cuda/mesh.cuh.

#include <cmath>
#include <cstring>
#include <vector>

#include "cuda/mesh.cuh"
#include "lipstream_kernels.h"

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

LS_EXPORT int32_t ls_mesh_is_valid(
    const float *source_xy, const float *target_xy, int32_t vertices, const int32_t *triangles,
    int32_t count, float limit) {
    bool valid = true;
    for (int i = 0; i < 2 * vertices; ++i) {
        valid &= std::fabs(source_xy[i]) < limit && std::fabs(target_xy[i]) < limit;
    }
    for (int i = 0; i < 3 * count; ++i) valid &= (uint32_t)triangles[i] < (uint32_t)vertices;
    return valid;
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
