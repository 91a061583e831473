// A rectangle of the picture into the renderer's input, and what the renderer's gates add back.

#include <algorithm>
#include <cstring>
#include <vector>

#include "cuda/stage.cuh"
#include "lipstream_kernels.h"

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

// `step` is how far apart in the picture two neighbours of the crop lie.
LS_EXPORT void ls_crop_in(
    const uint8_t *picture, const uint8_t *conditioning, const uint8_t *prior,
    const uint8_t *previous, int32_t height, int32_t width, int32_t prior_height,
    int32_t prior_width, float left, float top, float step, int32_t rows, int32_t columns,
    uint8_t *crop, float *planes) {
    const int64_t area = (int64_t)rows * columns;
    RowSampler colour(picture, height, width, columns), map(conditioning, height, width, columns);
    RowSampler texture(prior, prior_height, prior_width, prior ? columns : 0);
    const float across = (float)((double)prior_width / width);
    const float down = (float)((double)prior_height / height);
    for (int i = 0; i < columns; ++i) {
        const float x = ((float)i + 0.5f) * step + left;
        colour.column(i, x);
        map.column(i, x);
        if (prior) texture.column(i, x * across);
    }
    std::vector<uint8_t> colours(3 * columns), opacities(3 * columns), layer(3 * columns);
    std::vector<uint8_t> opacity(columns);
    for (int row = 0; row < rows; ++row) {
        const float y = ((float)row + 0.5f) * step + top;
        const int64_t at = (int64_t)row * columns;
        colour.row(y, colours.data());
        map.row(y, opacities.data());
        if (prior) {
            texture.row(y * down, layer.data());
            for (int i = 0; i < columns; ++i) opacity[i] = opacities[3 * i];
            ls_blend(columns, colours.data(), layer.data(), opacity.data(), layer.data());
        } else {
            layer = colours;
        }
        uint8_t *own = crop + 6 * at;
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

LS_MULTIVERSION static void take_bands(
    int64_t n, const float *__restrict gates, const float *__restrict painted,
    const float *__restrict prior, const float *__restrict low, float *__restrict out) {
    for (int64_t i = 0; i < n; ++i) {
        const float coarse = ls_bounded_gate(gates[i], 0.0f), fine = ls_bounded_gate(gates[n + i], 0.0f);
        out[i] = coarse * low[i] + fine * ((prior[i] - painted[i]) - low[i]);
    }
}

LS_MULTIVERSION static void add_own(
    int64_t n, const float *__restrict gate, const float *__restrict painted,
    const float *__restrict low, float *__restrict out) {
    for (int64_t i = 0; i < n; ++i) {
        out[i] += ls_bounded_gate(gate[i], -0.5f) * (painted[i] - low[i]);
    }
}

LS_EXPORT void ls_apply_gates(
    const float *gates, const float *planes, int32_t rows, int32_t columns, float *scratch,
    float *difference) {
    const int64_t area = (int64_t)rows * columns;
    float *once = scratch, *twice = once + area, *apart = twice + area, *sums = apart + area;
    for (int c = 0; c < 3; ++c) {
        const float *painted = planes + c * area, *prior = planes + (6 + c) * area;
        float *out = difference + c * area;
        apart_of(area, painted, prior, apart);
        mean_of_five(apart, rows, columns, sums, once);
        mean_of_five(once, rows, columns, sums, twice);
        take_bands(area, gates, painted, prior, twice, out);
        mean_of_five(painted, rows, columns, sums, once);
        mean_of_five(once, rows, columns, sums, twice);
        add_own(area, gates + 2 * area, painted, twice, out);
    }
}

LS_EXPORT void ls_unsharp_mask(
    const uint8_t *crop, int32_t rows, int32_t columns, float amount, float *refined, float *lines,
    float *difference) {
    float *sums = lines, *down = sums + columns, *soft = down + columns;
    const float full = (float)(1.0 / 255.0);
    const int64_t area = (int64_t)rows * columns;
    for (int c = 0; c < 3; ++c) {
        float *plane = difference + c * area;
        without_grid(rows, columns, plane, refined);
        for (int64_t i = 0; i < area; ++i) refined[i] = (float)crop[6 * i + c] * full + plane[i];
        for (int row = 0; row < rows; ++row) {
            const int high = five_rows(refined, row, rows, columns, sums);
            const int64_t at = (int64_t)row * columns;
            const float *own = refined + at;
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

// The largest of the last channel within two pixels, looked up in the table; then the mean of 3 x 3
// of that, in 255ths, times the difference. table[0] is 255, so a line without a gap near it stays as
// it is.
LS_EXPORT void ls_attenuate_in_synthetic(
    const uint8_t *crop, int32_t rows, int32_t columns, const uint8_t *table, uint8_t *spare,
    float *difference) {
    const int64_t area = (int64_t)rows * columns;
    uint8_t *gap = spare, *weights = spare + area;
    for (int64_t i = 0; i < area; ++i) gap[i] = crop[6 * i + 5];
    std::vector<uint8_t> tall(columns), near(rows, 0);
    std::vector<int> sums(columns);
    for (int row = 0; row < rows; ++row) {
        std::fill(tall.begin(), tall.end(), 0);
        for (int r = ls_max(row - 2, 0); r <= ls_min(row + 2, rows - 1); ++r) {
            larger(columns, gap + (int64_t)r * columns, tall.data());
        }
        uint8_t *out = weights + (int64_t)row * columns;
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
        const uint8_t *above = weights + (int64_t)before * columns;
        const uint8_t *own = weights + (int64_t)row * columns;
        const uint8_t *below = weights + (int64_t)after * columns;
        for (int i = 0; i < columns; ++i) sums[i] = above[i] + own[i] + below[i];
        for (int i = 0; i < columns; ++i) {
            const int total = sums[ls_max(i - 1, 0)] + sums[i] + sums[ls_min(i + 1, columns - 1)];
            if (total == 9 * 255) continue;
            const float weight = (float)total * (float)(1.0 / (9 * 255));
            for (int c = 0; c < 3; ++c) difference[c * area + (int64_t)row * columns + i] *= weight;
        }
    }
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

// `stored` holds the difference in levels, 128 for none.
LS_EXPORT void ls_crop_out(
    const float *difference, const uint8_t *crop, int32_t rows, int32_t columns,
    const uint8_t *conditioning, int32_t height, int32_t width, float left, float top, float zoom,
    uint8_t *stored, uint8_t *picture, uint8_t *refined) {
    const int longest = 3 * ls_max(columns, width);
    std::vector<uint8_t> changes(longest), each(longest), own(longest);
    for (int row = 0; row < rows; ++row) {
        const int64_t at = (int64_t)row * columns, area = (int64_t)rows * columns;
        for (int c = 0; c < 3; ++c) {
            to_levels(columns, difference + c * area + at, &changes[c * columns]);
        }
        uint8_t *levels = stored + 3 * at;
        const uint8_t *from = crop + 6 * at;
        for (int i = 0; i < columns; ++i) {
            for (int c = 0; c < 3; ++c) levels[3 * i + c] = changes[c * columns + i];
            std::memcpy(&own[3 * i], from + 6 * i, 3);
            std::memset(&each[3 * i], from[6 * i + 3], 3);
        }
        add_line(3 * columns, levels, each.data(), own.data(), refined + 3 * at);
    }
    RowSampler change(stored, rows, columns, width);
    for (int i = 0; i < width; ++i) change.column(i, ((float)i + 0.5f - left) * zoom);
    for (int row = 0; row < height; ++row) {
        const uint8_t *weights = conditioning + (int64_t)row * width * 3;
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
