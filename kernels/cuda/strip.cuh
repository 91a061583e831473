// Neighbourhoods of pixels one below another, a strip a thread: what a thread has read serves all of
// its pixels, so that one of 5 x 5 costs a pixel 10 loads and not 25. The order of every sum is that
// of the CPU's kernels, and so are the bits.
#pragma once

#include "stage.cuh"

#define LS_STRIP 4  // pixels; kernels/cuda/loader.py launches as many threads fewer

#if defined(__CUDACC__)
#define LS_UNROLL _Pragma("unroll")
#else
#define LS_UNROLL
#endif

// Means of what is inside of 5 x 5, of PLANES at once. APART: the first plane is taken less the
// second. INSIDE: all rows are, which is the same for a whole warp.
template <int PLANES, bool APART, bool INSIDE>
LS_BODY void ls_sum_strip(
    const float *const (&planes)[PLANES], const LsCrop &crop, int y, int x,
    float (&sums)[PLANES][LS_STRIP]) {
    const float *lines[PLANES][LS_STRIP + 4];
    LS_UNROLL
    for (int r = 0; r < LS_STRIP + 4; ++r) {
        const int row = INSIDE ? y + r - 2 : ls_min(ls_max(y + r - 2, 0), crop.rows - 1);
        LS_UNROLL
        for (int p = 0; p < PLANES; ++p) {
            lines[p][r] = planes[p] + (int64_t)row * crop.columns + x;
        }
    }
    const int left = ls_max(x - 2, 0);
    LS_UNROLL
    for (int c = -2; c <= 2; ++c) {
        if (x + c < 0 || x + c >= crop.columns) continue;
        float values[PLANES][LS_STRIP + 4];
        LS_UNROLL
        for (int r = 0; r < LS_STRIP + 4; ++r) {
            LS_UNROLL
            for (int p = 0; p < PLANES; ++p) values[p][r] = lines[p][r][c];
            if (APART) values[0][r] = values[0][r] - values[PLANES - 1][r];
        }
        LS_UNROLL
        for (int p = 0; p < PLANES; ++p) {
            LS_UNROLL
            for (int k = 0; k < LS_STRIP; ++k) {
                float sum = values[p][k];
                LS_UNROLL
                for (int r = 1; r < 5; ++r) {
                    const int row = y + k + r - 2;
                    const float more = sum + values[p][k + r];
                    // The first row that is inside begins the sum, those behind the last add nothing.
                    if (INSIDE || (row > 0 && row < crop.rows)) sum = more;
                    else if (row <= 0) sum = values[p][k + r];
                }
                sums[p][k] = x + c == left ? sum : sums[p][k] + sum;
            }
        }
    }
}

template <int PLANES, bool APART>
LS_BODY void ls_means_of_strip(
    const float *const (&planes)[PLANES], const LsCrop &crop, int y, int x,
    float (&means)[PLANES][LS_STRIP]) {
    if (y >= 2 && y + LS_STRIP + 2 <= crop.rows) {
        ls_sum_strip<PLANES, APART, true>(planes, crop, y, x, means);
    } else {
        ls_sum_strip<PLANES, APART, false>(planes, crop, y, x, means);
    }
    const int across = ls_min(x + 2, crop.columns - 1) - ls_max(x - 2, 0) + 1;
    LS_UNROLL
    for (int k = 0; k < LS_STRIP; ++k) {
        const int down = ls_min(y + k + 2, crop.rows - 1) - ls_max(y + k - 2, 0) + 1;
        LS_UNROLL
        for (int p = 0; p < PLANES; ++p) means[p][k] = means[p][k] / (float)(down * across);
    }
}

// A plane softened by 1 2 1 both ways, down a strip and then across; the border repeats.
LS_BODY void ls_softened_strip(
    const float *plane, const LsCrop &crop, int y, int x, float (&soft)[LS_STRIP]) {
    const int columns[3] = {ls_max(x - 1, 0), x, ls_min(x + 1, crop.columns - 1)};
    float down[3][LS_STRIP];
    const float *lines[LS_STRIP + 2];
    LS_UNROLL
    for (int r = 0; r < LS_STRIP + 2; ++r) {
        lines[r] = plane + (int64_t)ls_min(ls_max(y + r - 1, 0), crop.rows - 1) * crop.columns;
    }
    LS_UNROLL
    for (int c = 0; c < 3; ++c) {
        float values[LS_STRIP + 2];
        LS_UNROLL
        for (int r = 0; r < LS_STRIP + 2; ++r) values[r] = lines[r][columns[c]];
        LS_UNROLL
        for (int k = 0; k < LS_STRIP; ++k) {
            down[c][k] = ((values[k] + 2 * values[k + 1]) + values[k + 2]) * 0.25f;
        }
    }
    LS_UNROLL
    for (int k = 0; k < LS_STRIP; ++k) {
        soft[k] = ((down[0][k] + 2 * down[1][k]) + down[2][k]) * 0.25f;
    }
}

// The mean of 3 x 3 of u8 [rows, columns] that `ls_gpu_near_gap` made, 0 to 1; the border repeats.
LS_BODY void ls_kept_of_strip(
    const uint8_t *weights, const LsCrop &crop, int y, int x, float (&kept)[LS_STRIP]) {
    const int columns[3] = {ls_max(x - 1, 0), x, ls_min(x + 1, crop.columns - 1)};
    int sums[LS_STRIP + 2];
    LS_UNROLL
    for (int r = 0; r < LS_STRIP + 2; ++r) {
        const uint8_t *line =
            weights + (int64_t)ls_min(ls_max(y + r - 1, 0), crop.rows - 1) * crop.columns;
        sums[r] = line[columns[0]] + line[columns[1]] + line[columns[2]];
    }
    LS_UNROLL
    for (int k = 0; k < LS_STRIP; ++k) {
        const int total = sums[k] + sums[k + 1] + sums[k + 2];
        kept[k] = total == 9 * 255 ? 1.0f : (float)total * (float)(1.0 / (9 * 255));
    }
}

// Largest of 5 x 5 of the last map. The border repeats, which adds nothing to what is inside.
LS_BODY void ls_largest_of_strip(
    const uint8_t *pixels, const LsCrop &crop, int y, int x, int (&largest)[LS_STRIP]) {
    int columns[5];
    LS_UNROLL
    for (int c = 0; c < 5; ++c) {
        columns[c] = 6 * ls_min(ls_max(x + c - 2, 0), crop.columns - 1) + 5;
    }
    LS_UNROLL
    for (int k = 0; k < LS_STRIP; ++k) largest[k] = 0;
    LS_UNROLL
    for (int r = 0; r < LS_STRIP + 4; ++r) {
        const int row = ls_min(ls_max(y + r - 2, 0), crop.rows - 1);
        const uint8_t *line = pixels + 6 * (int64_t)row * crop.columns;
        int widest = 0;
        LS_UNROLL
        for (int c = 0; c < 5; ++c) widest = ls_max(widest, line[columns[c]]);
        LS_UNROLL
        for (int k = 0; k < LS_STRIP; ++k) {
            if (r >= k && r < k + 5) largest[k] = ls_max(largest[k], widest);
        }
    }
}
