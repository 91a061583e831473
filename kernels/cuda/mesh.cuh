// Triangle coverage and bilinear sampling, over one pixel.
#pragma once

#include "common.cuh"

#if !defined(__CUDACC__)
#include <cmath>
using std::floor;
#endif

#define LS_SUBPIXELS 256.0

// A triangle set up for tests: integers held in doubles, so every edge value is exact.
struct LsTriangle {
    double x[3], y[3];  // subpixels, relative to the output's corner
    double sx[3], sy[3];  // source px
    double weight;  // 1 / area
    bool owns[3];  // whether the edge opposite to the vertex owns the pixels exactly on it
};

LS_BODY double ls_edge(double ax, double ay, double bx, double by, double px, double py) {
    return (bx - ax) * (py - ay) - (by - ay) * (px - ax);
}

LS_BODY double ls_subpixel(float px) { return floor((double)px * LS_SUBPIXELS + 0.5); }

// False where the triangle has no area.
LS_BODY bool ls_setup_triangle(
    const float *source_xy, const float *target_xy, const int32_t *vertices, int origin_x,
    int origin_y, LsTriangle *t) {
    int ids[3] = {vertices[0], vertices[1], vertices[2]};
    for (int i = 0; i < 3; ++i) {
        t->x[i] = ls_subpixel(target_xy[2 * ids[i]]) - origin_x * LS_SUBPIXELS;
        t->y[i] = ls_subpixel(target_xy[2 * ids[i] + 1]) - origin_y * LS_SUBPIXELS;
    }
    double area = ls_edge(t->x[0], t->y[0], t->x[1], t->y[1], t->x[2], t->y[2]);
    if (area == 0) return false;
    if (area < 0) {  // the other winding
        const double x = t->x[1], y = t->y[1];
        t->x[1] = t->x[2], t->y[1] = t->y[2];
        t->x[2] = x, t->y[2] = y;
        const int id = ids[1];
        ids[1] = ids[2], ids[2] = id;
        area = -area;
    }
    t->weight = 1.0 / area;
    for (int i = 0; i < 3; ++i) {
        t->sx[i] = source_xy[2 * ids[i]];
        t->sy[i] = source_xy[2 * ids[i] + 1];
        const int a = (i + 1) % 3, b = (i + 2) % 3;
        t->owns[i] = t->y[b] < t->y[a] || (t->y[b] == t->y[a] && t->x[b] > t->x[a]);
    }
    return true;
}

// Source px of a point inside, from its three edge values.
LS_BODY void ls_map_point(const LsTriangle &t, double e0, double e1, double e2, float *source_xy) {
    source_xy[0] = (float)((e0 * t.sx[0] + e1 * t.sx[1] + e2 * t.sx[2]) * t.weight);
    source_xy[1] = (float)((e0 * t.sy[0] + e1 * t.sy[1] + e2 * t.sy[2]) * t.weight);
}

// Value at pixel (row, column) of the edge opposite to vertex i.
LS_BODY double ls_edge_at(const LsTriangle &t, int i, int column, int row) {
    const double px = column * LS_SUBPIXELS + LS_SUBPIXELS / 2;
    const double py = row * LS_SUBPIXELS + LS_SUBPIXELS / 2;
    const int a = (i + 1) % 3, b = (i + 2) % 3;
    return ls_edge(t.x[a], t.y[a], t.x[b], t.y[b], px, py);
}

// Whether pixel (row, column) belongs to the triangle; if so, where it comes from.
LS_BODY bool ls_map_pixel(const LsTriangle &t, int column, int row, float *source_xy) {
    double e[3];
    for (int i = 0; i < 3; ++i) {
        e[i] = ls_edge_at(t, i, column, row);
        if (e[i] < 0 || (e[i] == 0 && !t.owns[i])) return false;
    }
    ls_map_point(t, e[0], e[1], e[2], source_xy);
    return true;
}

// Position in 1/256 px from the first pixel's centre, clamped to the image; NaN becomes 0.
LS_BODY int ls_fixed_coordinate(float position, int size) {
    const float scaled = position * 256.0f - 127.5f;
    const float last = (float)((size - 1) * 256);
    if (!(scaled > 0)) return 0;
    return (int)(scaled < last ? scaled : last);  // positive: truncation is floor
}

LS_BODY int ls_bilinear(int p00, int p01, int p10, int p11, int wx, int wy) {
    const int top = p00 * (256 - wx) + p01 * wx;
    const int bottom = p10 * (256 - wx) + p11 * wx;
    return (top * (256 - wy) + bottom * wy + (1 << 15)) >> 16;
}

LS_BODY void ls_sample(
    const uint8_t *image, int height, int width, int channels, const float *xy, uint8_t *out) {
    const int fx = ls_fixed_coordinate(xy[0], width);
    const int fy = ls_fixed_coordinate(xy[1], height);
    const int x0 = fx >> 8, y0 = fy >> 8;
    const int dx = x0 + 1 < width ? channels : 0;
    const int64_t dy = y0 + 1 < height ? (int64_t)width * channels : 0;
    const uint8_t *p = image + ((int64_t)y0 * width + x0) * channels;
    for (int c = 0; c < channels; ++c, ++p) {
        out[c] = (uint8_t)ls_bilinear(p[0], p[dx], p[dy], p[dy + dx], fx & 255, fy & 255);
    }
}
