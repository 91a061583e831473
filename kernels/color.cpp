// I420 to RGB and back, BT.709 limited range: loops around the bodies in cuda/color.cuh.

#include "cuda/color.cuh"
#include "lipstream_kernels.h"

// Loops below go block by block through small planar arrays: interleaving three bytes is cheap,
// arithmetic on interleaved bytes is not (measured: 0.30 against 0.16 ms for 512x512).

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
