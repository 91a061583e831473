// Kernels that painter.cpp calls, defined in cpu.cpp and face.cpp, and what the faces' files share.
#pragma once

#include <cstdint>

#include "cpu.h"
#include "cuda/common.cuh"

LS_BODY float clamp(float x, float low, float high) {
    const float least = x > low ? x : low;
    return least < high ? least : high;
}

LS_BODY float smoothstep(float x) {
    const float t = clamp(x, 0.0f, 1.0f);
    return t * t * (3 - 2 * t);
}

LS_EXPORT void ls_i420_region_to_rgb(
    const uint8_t *i420, int32_t width, int32_t height, int32_t x, int32_t y, int32_t w, int32_t h,
    uint8_t *rgb);
LS_EXPORT void ls_rgb_region_into_i420(
    const uint8_t *rgb, const uint8_t *mask, int32_t width, int32_t height, int32_t x, int32_t y,
    int32_t w, int32_t h, uint8_t *i420);
LS_EXPORT int32_t ls_mesh_is_sound(
    const float *source_xy, const float *target_xy, int32_t vertices, const int32_t *triangles,
    int32_t count, float limit);
LS_EXPORT void ls_mesh_map(
    const float *source_xy, const float *target_xy, const int32_t *triangles, int32_t count,
    int32_t h, int32_t w, int32_t origin_x, int32_t origin_y, float *mapped, uint8_t *coverage);
LS_EXPORT void ls_warp_mesh(
    const uint8_t *image, int32_t height, int32_t width, int32_t channels, const float *source_xy,
    const float *target_xy, const int32_t *triangles, int32_t count, int32_t h, int32_t w,
    int32_t origin_x, int32_t origin_y, uint8_t *out, uint8_t *coverage);
LS_EXPORT void ls_remap(
    const uint8_t *image, int32_t height, int32_t width, int32_t channels, const float *mapped,
    int32_t pixels, uint8_t *out);
LS_EXPORT void ls_blend(
    int32_t pixels, const uint8_t *background, const uint8_t *layer, const void *alpha,
    int32_t alpha_is_u8, const float *gain_bias, uint8_t *out);
LS_EXPORT void ls_drive(
    const float *basis, int32_t coefficients, int32_t count, const float *freed, const float *own,
    const float *wanted, const int32_t *lip_lines, int32_t n, int32_t rows, float *vertices,
    float *grid);
LS_EXPORT void ls_place(
    const float *pose, const float *freed, const float *vertices, int32_t count, const float *grid,
    int32_t grid_points, const int32_t *line, int32_t length, int32_t centre, const float *rings,
    int32_t ring_count, float *start, float *moved, float *points);
LS_EXPORT int32_t ls_stirred(
    const float *start, const float *moved, const int32_t *triangles, int32_t count, float still,
    int32_t *out, float *bounds);
LS_EXPORT void ls_lend(
    const float *vertices, const float *grid, int32_t rows, const float *freed, int32_t count,
    const float *pose, const float *view, const int32_t *lip_lines, int32_t n, const int32_t *chin,
    int32_t chin_count, float inset, float *own, float *points, float *trust,
    float *lowered);
LS_EXPORT void ls_relight(
    uint8_t *layer, const uint8_t *below, int32_t below_stride, int32_t h, int32_t w,
    const float *points, const int32_t *skin, int32_t count, const float *limits, double *scratch,
    float *along);
LS_EXPORT void ls_halve_into(
    const uint8_t *fine, const uint8_t *covered, int32_t h, int32_t w, uint8_t *window,
    int32_t stride);
