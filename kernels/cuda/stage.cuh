// What the renderer does to a picture besides its network, over one pixel: the twins are those of
// kernels/crop.cpp, in the same order of operations.
#pragma once

#include "composite.cuh"
#include "mesh.cuh"

// One picture of a batch. kernels/cuda/stage.py has the same fields in the same order.
struct LsRow {
    uint8_t *picture;  // u8 [height, width, 3], painted; written by the paste
    const uint8_t *conditioning;  // u8 [height, width, 3]
    const uint8_t *prior;  // u8 [prior_height, prior_width, 3], or null
    const uint8_t *previous;  // u8 [rows, columns, 3], or null
    uint8_t *refined;  // u8 [rows, columns, 3], written
    int32_t height, width, prior_height, prior_width;
    float left, top, step, zoom;  // where the crop lies; zoom is 1 / step
    float doubt;  // 1 less the prior's confidence
    float sharpen;
    int32_t used;  // 0 fills a batch up
};

#if defined(__CUDACC__)
#define LS_MEMBER __host__ __device__ __forceinline__
#else
#define LS_MEMBER inline
#endif

// Sides of the crop, the same for all of a batch.
struct LsCrop {
    int rows, columns;
    LS_MEMBER int64_t area() const { return (int64_t)rows * columns; }
    LS_MEMBER int64_t at(int y, int x) const {
        return (int64_t)ls_min(ls_max(y, 0), rows - 1) * columns + ls_min(ls_max(x, 0), columns - 1);
    }
};

LS_BODY bool ls_finite(float value) { return value - value == 0; }

// Whether a row may be walked: the checks of kernels/crop.py, so that one that is wrong costs
// nobody else's picture.
LS_BODY bool ls_row_holds(const LsRow &row) {
    if (!row.used || !row.picture || !row.conditioning || !row.refined) return false;
    if (row.height <= 0 || row.width <= 0) return false;
    if (row.prior && (row.prior_height <= 0 || row.prior_width <= 0)) return false;
    return ls_finite(row.left) && ls_finite(row.top) && row.step > 0 && row.zoom > 0 &&
           ls_finite(row.step) && ls_finite(row.zoom) && ls_finite(row.doubt) && ls_finite(row.sharpen);
}

LS_BODY uint8_t ls_add_weighted(int level, int difference, int opacity) {
    // Rounded half up; the shift is a division by 255 that is exact in this range.
    return ls_clip_u8(level + (((difference - 128) * opacity * 257 + (1 << 15)) >> 16));
}

// `own` less what alternates from number to number along a b own d e: a renderer that paints two by
// two pixels at once leaves it. The rest of a spectrum up to half as fast keeps 5/6 and more.
LS_BODY float ls_without_alternation(float a, float b, float own, float d, float e) {
    return (own * (float)(2.0 / 3.0) + (b + d) * 0.25f) - (a + e) * (float)(1.0 / 12.0);
}

LS_BODY float ls_bounded_gate(float gate, float least) {
    const float more = gate > least ? gate : least;
    return more < 1.0f ? more : 1.0f;
}

// One pixel of the network's input, and of the crop u8 [rows, columns, 6].
LS_BODY void ls_crop_pixel(
    const LsRow &row, const LsCrop &crop, int synthetic, int y, int x, uint8_t *pixels,
    float *planes) {
    const float full = (float)(1.0 / 255.0);
    const float xy[2] = {
        ((float)x + 0.5f) * row.step + row.left, ((float)y + 0.5f) * row.step + row.top};
    const int64_t at = crop.at(y, x), area = crop.area();
    uint8_t *own = pixels + 6 * at, layer[3];
    ls_sample(row.picture, row.height, row.width, 3, xy, own);
    ls_sample(row.conditioning, row.height, row.width, 3, xy, own + 3);
    for (int c = 0; c < 3; ++c) layer[c] = own[c];
    if (row.prior) {
        const float there[2] = {
            xy[0] * (float)((double)row.prior_width / row.width),
            xy[1] * (float)((double)row.prior_height / row.height)};
        uint8_t texture[3];
        ls_sample(row.prior, row.prior_height, row.prior_width, 3, there, texture);
        for (int c = 0; c < 3; ++c) layer[c] = ls_blend_u8(own[c], texture[c], own[3]);
    }
    const float gap = (float)own[5] * (float)(1.0 / synthetic);
    const float doubt = row.prior ? 1.0f - (1.0f - row.doubt * (gap < 1.0f ? gap : 1.0f)) : 0;
    for (int c = 0; c < 3; ++c) {
        const float painted = (float)own[c] * full, prior = (float)layer[c] * full;
        planes[c * area + at] = painted;
        planes[(3 + c) * area + at] = (float)own[3 + c] * full;
        planes[(6 + c) * area + at] = doubt > 0 ? prior + doubt * (painted - prior) : prior;
        planes[(9 + c) * area + at] =
            (float)(row.previous ? row.previous[3 * at + c] : own[c]) * full;
    }
}

// The three gates of a pixel within their bounds. `own`: how much of them stays, the rest being all
// of the prior.
LS_BODY void ls_gates_of_pixel(
    const float *gates, float own, const LsCrop &crop, int y, int x, float *gate) {
    const int64_t at = crop.at(y, x), area = crop.area();
    const float shown[3] = {1, 1, 0};
    for (int k = 0; k < 3; ++k) {
        const float given = gates[k * area + at];
        const float kept = own < 1.0f ? shown[k] + own * (given - shown[k]) : given;
        gate[k] = ls_bounded_gate(kept, k == 2 ? -0.5f : 0.0f);
    }
}

LS_BODY uint8_t ls_difference_level(float difference) {
    const float level = difference * 255.0f + 128.5f;
    return (uint8_t)(int)(level > 0 ? (level < 255.0f ? level : 255.0f) : 0);
}

// One pixel of the picture gets what was stored u8 [rows, columns, 3] of the crop, by its opacity.
LS_BODY void ls_paste_pixel(
    const LsRow &row, const LsCrop &crop, const uint8_t *stored, int y, int x) {
    const int64_t at = 3 * ((int64_t)y * row.width + x);
    const int opacity = row.conditioning[at];
    if (!opacity) return;
    const float xy[2] = {
        ((float)x + 0.5f - row.left) * row.zoom, ((float)y + 0.5f - row.top) * row.zoom};
    uint8_t change[3];
    ls_sample(stored, crop.rows, crop.columns, 3, xy, change);
    for (int c = 0; c < 3; ++c) {
        row.picture[at + c] = ls_add_weighted(row.picture[at + c], change[c], opacity);
    }
}
