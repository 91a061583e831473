// BT.709 limited range in 16.16 fixed point. Chroma weights sum to zero: greys stay grey.
#pragma once

#include "common.cuh"

LS_BODY uint8_t ls_y_from_rgb(int r, int g, int b) {
    return (uint8_t)(((11966 * r + 40254 * g + 4064 * b + (1 << 15)) >> 16) + 16);
}

// r, g, b are sums over the four pixels of one chroma sample, 0..1020.
LS_BODY uint8_t ls_u_from_quad(int r, int g, int b) {
    return (uint8_t)((-6596 * r - 22189 * g + 28785 * b + (128 << 18) + (1 << 17)) >> 18);
}

LS_BODY uint8_t ls_v_from_quad(int r, int g, int b) {
    return (uint8_t)((28784 * r - 26145 * g - 2639 * b + (128 << 18) + (1 << 17)) >> 18);
}

LS_BODY void ls_rgb_from_yuv(int y, int u, int v, uint8_t *rgb) {
    const int c = (y - 16) * 76309 + (1 << 15);
    u -= 128;
    v -= 128;
    rgb[0] = ls_clip_u8((c + 117489 * v) >> 16);
    rgb[1] = ls_clip_u8((c - 13975 * u - 34925 * v) >> 16);
    rgb[2] = ls_clip_u8((c + 138438 * u) >> 16);
}
