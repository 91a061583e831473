// The renderer's stage on the GPU, batched: the z index of the grid is the picture. Each thread
// walks its pixels by the size of the grid, so that any grid is right. No entry point calls another.
// kernels/cuda/stage.py launches them in this order, with the network after ls_gpu_crop.
//
// Compile: python kernels/build.py --gpu

#include "strip.cuh"

#define LS_KERNEL extern "C" __global__ void
#define LS_EACH_PIXEL(height, width)                                                    \
    for (int y = blockIdx.y * blockDim.y + threadIdx.y; y < (height);                   \
         y += gridDim.y * blockDim.y)                                                   \
        for (int x = blockIdx.x * blockDim.x + threadIdx.x; x < (width);                \
             x += gridDim.x * blockDim.x)
// Of kernels that look at 5 x 5: y is the first of LS_STRIP pixels, of which the last may be outside.
#define LS_EACH_STRIP(height, width)                                                    \
    for (int y = LS_STRIP * (blockIdx.y * blockDim.y + threadIdx.y); y < (height);       \
         y += LS_STRIP * gridDim.y * blockDim.y)                                        \
        for (int x = blockIdx.x * blockDim.x + threadIdx.x; x < (width);                \
             x += gridDim.x * blockDim.x)

// Crop u8 [B, rows, columns, 6] and planes f32 [B, 12, rows, columns]; those of a row that does not
// hold are 0. held i32 [B].
LS_KERNEL ls_gpu_crop(
    const LsRow *table, int rows, int columns, int synthetic, uint8_t *crops, float *planes,
    int32_t *held) {
    const LsRow row = table[blockIdx.z];
    const LsCrop crop = {rows, columns};
    const bool holds = ls_row_holds(row);
    uint8_t *pixels = crops + blockIdx.z * 6 * crop.area();
    float *input = planes + blockIdx.z * 12 * crop.area();
    if (blockIdx.x + blockIdx.y + threadIdx.x + threadIdx.y == 0) held[blockIdx.z] = holds;
    LS_EACH_PIXEL(rows, columns) {
        if (holds) {
            ls_crop_pixel(row, crop, synthetic, y, x, pixels, input);
        } else {
            for (int c = 0; c < 12; ++c) input[c * crop.area() + crop.at(y, x)] = 0;
        }
    }
}

// weights u8 [B, rows, columns]; tables u8 [2, 256]: with a prior, and without.
LS_KERNEL ls_gpu_near_gap(
    const LsRow *table, const int32_t *held, int rows, int columns, const uint8_t *crops,
    const uint8_t *tables, uint8_t *weights) {
    if (!held[blockIdx.z]) return;
    const LsCrop crop = {rows, columns};
    const uint8_t *pixels = crops + blockIdx.z * 6 * crop.area();
    const uint8_t *kept = table[blockIdx.z].prior ? tables : tables + 256;
    LS_EACH_STRIP(rows, columns) {
        int largest[LS_STRIP];
        ls_largest_of_strip(pixels, crop, y, x, largest);
        LS_UNROLL
        for (int k = 0; k < LS_STRIP; ++k) {
            if (y + k >= rows) break;
            weights[blockIdx.z * crop.area() + crop.at(y + k, x)] = kept[largest[k]];
        }
    }
}

// once f32 [B, 6, rows, columns]: means of 5 x 5 of prior less painted, and of painted.
LS_KERNEL ls_gpu_mean_once(
    const int32_t *held, int rows, int columns, const float *planes, float *once) {
    if (!held[blockIdx.z]) return;
    const LsCrop crop = {rows, columns};
    const float *painted = planes + blockIdx.z * 12 * crop.area();
    float *out = once + blockIdx.z * 6 * crop.area();
    LS_EACH_STRIP(rows, columns) {
        for (int c = 0; c < 3; ++c) {
            const float *own = painted + c * crop.area();
            const float *const planes[2] = {own + 6 * crop.area(), own};
            float means[2][LS_STRIP];
            ls_means_of_strip<2, true>(planes, crop, y, x, means);
            LS_UNROLL
            for (int k = 0; k < LS_STRIP; ++k) {
                if (y + k >= rows) break;
                const int64_t at = c * crop.area() + crop.at(y + k, x);
                out[at] = means[0][k];
                out[at + 3 * crop.area()] = means[1][k];
            }
        }
    }
}

// gates f32 [B, 3, rows, columns] to difference, of the same size.
LS_KERNEL ls_gpu_gates(
    const LsRow *table, const int32_t *held, int rows, int columns, const float *gates,
    const float *planes, const float *once, const uint8_t *weights, float *difference) {
    if (!held[blockIdx.z]) return;
    const LsCrop crop = {rows, columns};
    const int64_t area = crop.area(), batch = blockIdx.z;
    const bool prior = table[batch].prior;
    planes += batch * 12 * area, once += batch * 6 * area, difference += batch * 3 * area;
    LS_EACH_STRIP(rows, columns) {
        float gate[LS_STRIP][3], own[LS_STRIP];
        if (prior) ls_kept_of_strip(weights + batch * area, crop, y, x, own);
        LS_UNROLL
        for (int k = 0; k < LS_STRIP; ++k) {
            const float kept = prior ? own[k] : 1.0f;
            ls_gates_of_pixel(gates + batch * 3 * area, kept, crop, y + k, x, gate[k]);
        }
        for (int c = 0; c < 3; ++c) {
            const float *const sources[2] = {once + c * area, once + (3 + c) * area};
            float means[2][LS_STRIP];
            ls_means_of_strip<2, false>(sources, crop, y, x, means);
            LS_UNROLL
            for (int k = 0; k < LS_STRIP; ++k) {
                if (y + k >= rows) break;
                const int64_t at = c * area + crop.at(y + k, x);
                const float painted = planes[at], low = means[0][k];
                const float apart = planes[at + 6 * area] - painted;
                difference[at] = (gate[k][0] * low + gate[k][1] * (apart - low)) +
                                 gate[k][2] * (painted - means[1][k]);
            }
        }
    }
}

// What alternates along rows, out of the difference: into spare f32 [B, 3, rows, columns].
LS_KERNEL ls_gpu_grid_along(
    const int32_t *held, int rows, int columns, const float *difference, float *spare) {
    if (!held[blockIdx.z]) return;
    const LsCrop crop = {rows, columns};
    for (int c = 0; c < 3; ++c) {
        const int64_t plane = (blockIdx.z * 3 + c) * crop.area();
        const float *from = difference + plane;
        LS_EACH_PIXEL(rows, columns) {
            spare[plane + crop.at(y, x)] = ls_without_alternation(
                from[crop.at(y, x - 2)], from[crop.at(y, x - 1)], from[crop.at(y, x)],
                from[crop.at(y, x + 1)], from[crop.at(y, x + 2)]);
        }
    }
}

// The same across rows, back into difference; refined f32 [B, 3, rows, columns] is the crop with it.
LS_KERNEL ls_gpu_grid_across(
    const int32_t *held, int rows, int columns, const float *spare, const uint8_t *crops,
    float *difference, float *refined) {
    if (!held[blockIdx.z]) return;
    const LsCrop crop = {rows, columns};
    const uint8_t *pixels = crops + blockIdx.z * 6 * crop.area();
    for (int c = 0; c < 3; ++c) {
        const int64_t plane = (blockIdx.z * 3 + c) * crop.area();
        const float *from = spare + plane;
        LS_EACH_PIXEL(rows, columns) {
            const int64_t at = crop.at(y, x);
            const float kept = ls_without_alternation(
                from[crop.at(y - 2, x)], from[crop.at(y - 1, x)], from[at],
                from[crop.at(y + 1, x)], from[crop.at(y + 2, x)]);
            difference[plane + at] = kept;
            refined[plane + at] = (float)pixels[6 * at + c] * (float)(1.0 / 255.0) + kept;
        }
    }
}

// stored u8 [B, rows, columns, 3]: the difference, sharpened, in levels, 128 for none; and each
// row's own refined crop.
LS_KERNEL ls_gpu_sharpen(
    const LsRow *table, const int32_t *held, int rows, int columns, const float *difference,
    const float *refined, const uint8_t *crops, const uint8_t *weights, uint8_t *stored) {
    if (!held[blockIdx.z]) return;
    const LsRow row = table[blockIdx.z];
    const LsCrop crop = {rows, columns};
    const int64_t area = crop.area(), batch = blockIdx.z;
    crops += batch * area * 6, stored += batch * area * 3;
    difference += batch * 3 * area, refined += batch * 3 * area;
    LS_EACH_STRIP(rows, columns) {
        float kept[LS_STRIP];
        if (!row.prior) ls_kept_of_strip(weights + batch * area, crop, y, x, kept);
        for (int c = 0; c < 3; ++c) {
            const float *const planes[1] = {refined + c * area};
            float means[1][LS_STRIP], soft[LS_STRIP];
            ls_means_of_strip<1, false>(planes, crop, y, x, means);
            ls_softened_strip(planes[0], crop, y, x, soft);
            LS_UNROLL
            for (int k = 0; k < LS_STRIP; ++k) {
                if (y + k >= rows) break;
                const int64_t at = crop.at(y + k, x);
                const float fine = soft[k] - means[0][k];
                float change = difference[c * area + at] + row.sharpen * fine;
                if (!row.prior && kept[k] < 1.0f) change *= kept[k];
                const uint8_t level = ls_difference_level(change);
                const uint8_t *own = crops + 6 * at;
                stored[3 * at + c] = level;
                row.refined[3 * at + c] = ls_add_weighted(own[c], level, own[3]);
            }
        }
    }
}

// Into the pictures, in place.
LS_KERNEL ls_gpu_paste(
    const LsRow *table, const int32_t *held, int rows, int columns, const uint8_t *stored) {
    if (!held[blockIdx.z]) return;
    const LsRow row = table[blockIdx.z];
    const LsCrop crop = {rows, columns};
    LS_EACH_PIXEL(row.height, row.width) {
        ls_paste_pixel(row, crop, stored + blockIdx.z * 3 * crop.area(), y, x);
    }
}
