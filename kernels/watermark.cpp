// The watermark's pattern, added to the luma of a frame: see watermark.py.

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "lipstream_kernels.h"

static const int kSide = 8;                              // of a block, pixels
static const int kBase = 24, kGain = 40, kMost = 120;    // of a block's strength
static const int kBlack = 16, kWhite = 235, kDark = 32;  // luma
static const int kShift = 11;
static const int kDitherRows = 64;

// Adds the differences to the right and downwards, and the values, of one row; `below` is the row
// itself at the lower edge.
LS_MULTIVERSION static void sum_row(
    const uint8_t *__restrict row, const uint8_t *__restrict below, int w,
    uint16_t *__restrict texture, uint16_t *__restrict sum) {
    for (int i = 0; i < w - 1; ++i) {
        const uint8_t a = row[i], b = row[i + 1], c = below[i];
        const uint8_t right = (uint8_t)((a > b ? a : b) - (a > b ? b : a));
        const uint8_t down = (uint8_t)((a > c ? a : c) - (a > c ? c : a));
        texture[i] = (uint16_t)(texture[i] + right + down);
        sum[i] = (uint16_t)(sum[i] + a);
    }
    texture[w - 1] = (uint16_t)(texture[w - 1] + std::abs(row[w - 1] - below[w - 1]));
    sum[w - 1] = (uint16_t)(sum[w - 1] + row[w - 1]);
}

// The strength of each pixel of a row of blocks, from the sums of its columns.
LS_MULTIVERSION static void spread_strength(
    const uint16_t *__restrict texture, const uint16_t *__restrict sum, int w, int rows,
    int16_t *__restrict strength) {
    for (int x = 0; x < w; x += kSide) {
        const int columns = w - x < kSide ? w - x : kSide;
        int32_t change = 0, value = 0;
        for (int i = x; i < x + columns; ++i) change += texture[i], value += sum[i];
        if (rows != kSide || columns != kSide) change = change * (kSide * kSide) / (rows * columns);
        int32_t own = kBase + ((change * kGain) >> 8);
        own = own < kMost ? own : kMost;
        int32_t above = value / (rows * columns) - kBlack;
        above = above < kDark / 4 ? kDark / 4 : above > kDark ? kDark : above;
        own = own * above / kDark;
        for (int i = x; i < x + columns; ++i) strength[i] = (int16_t)own;
    }
}

LS_MULTIVERSION static void add_row(
    uint8_t *__restrict row, const int8_t *__restrict waves, const uint8_t *__restrict dither,
    const int16_t *__restrict strength, int w) {
    for (int i = 0; i < w; ++i) {
        const int16_t y = row[i];
        const int16_t scaled = (int16_t)(waves[i] * strength[i] + (dither[i] << (kShift - 8)));
        int16_t changed = (int16_t)(y + (scaled >> kShift));
        const int16_t least = y < kBlack ? y : kBlack, most = y > kWhite ? y : kWhite;
        changed = changed < least ? least : changed;
        row[i] = (uint8_t)(changed > most ? most : changed);
    }
}

LS_EXPORT void ls_add_waves(
    uint8_t *i420, int32_t width, int32_t height, const int8_t *waves, const uint8_t *dither) {
    std::vector<uint16_t> sums(2 * (size_t)width);
    std::vector<int16_t> strength(width);
    for (int r = 0; r < height; r += kSide) {
        const int rows = height - r < kSide ? height - r : kSide;
        std::fill(sums.begin(), sums.end(), (uint16_t)0);
        for (int k = r; k < r + rows; ++k) {
            const uint8_t *row = i420 + (int64_t)k * width;
            const uint8_t *below = k + 1 < height ? row + width : row;
            sum_row(row, below, width, sums.data(), sums.data() + width);
        }
        spread_strength(sums.data(), sums.data() + width, width, rows, strength.data());
        for (int k = r; k < r + rows; ++k) {
            const int64_t at = (int64_t)k * width;
            add_row(
                i420 + at, waves + at, dither + (int64_t)(k % kDitherRows) * width,
                strength.data(), width);
        }
    }
}
