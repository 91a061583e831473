// What is seen between parted lips where no footage shows it. Its twin, step by step and with the same
// rounding: reference/oral_cavity.py.

#include <algorithm>
#include <cmath>

#include "face_math.h"
#include "lipstream_kernels.h"

namespace {

constexpr int kGrain = 32;  // side of the grain's tile

void over(float *below, const float *color, float factor, float alpha) {
    for (int c = 0; c < 3; ++c) below[c] += alpha * (color[c] * factor - below[c]);
}

float lip_shade(float y, float roof, float floor) {
    const float shade = (0.5f + 0.5f * smoothstep((y - roof) / 0.08f)) *
                        (0.88f + 0.12f * smoothstep((floor - y) / 0.03f));
    return shade * (0.65f + 0.35f * smoothstep((floor - roof) / 0.08f));
}

// Bilinear, of [rows, columns, 4]; beyond the border it repeats.
void sample(
    const float *table, int rows, int columns, float across, float down, float step, float *out) {
    const float u = clamp(across / step, 0.0f, (float)(columns - 1));
    const float v = clamp(down / step, 0.0f, (float)(rows - 1));
    const int left = std::min((int)u, columns - 2), top = std::min((int)v, rows - 2);
    const float a = u - (float)left, b = v - (float)top;
    const float *first = table + 4 * ((int64_t)top * columns + left), *second = first + 4 * columns;
    for (int c = 0; c < 4; ++c) {
        const float above = first[c] + a * (first[c + 4] - first[c]);
        const float below = second[c] + a * (second[c + 4] - second[c]);
        out[c] = above + b * (below - above);
    }
}

}  // namespace

LS_EXPORT void ls_paint_cavity(
    const LsCavity *cavity, const float *motion, const float *points, const float *lips,
    int32_t count, float *rgb) {
    const int rows = cavity->rows, columns = cavity->columns;
    const float *upper = cavity->teeth, *lower = upper + 4 * (int64_t)rows * columns;
    const float *tongue = cavity->colours, *dark = tongue + 3, *upper_lip = tongue + 6;
    const float *lower_lip = tongue + 9, *loss = tongue + 12, *shape = cavity->shape;
    const float half = shape[0], upper_top = shape[1], lower_top = shape[2], step = shape[3];
    const float arch_z = shape[4], curve = shape[5], upper_edge = shape[6], lower_edge = shape[7];
    const float gradient = shape[8], apart = shape[9], corners = shape[10];
    const float middle = motion[0], jaw = motion[1], light = motion[2];
    const float raised = motion[3], ray_x = motion[4], ray_y = motion[5];
    const float inner = 0.55f + 0.45f * light, outer = 0.7f + 0.3f * light;
    for (int i = 0; i < count; ++i, rgb += 3) {
        const float x = points[3 * i] - middle, y = points[3 * i + 1], z = points[3 * i + 2];
        const float roof = lips[2 * i], floor = lips[2 * i + 1], tall = floor - roof;

        // Where the line of sight through a point between the lips meets the arch behind it.
        float behind = std::fmax(arch_z + curve * x * x - z, 0.0f);
        float at_x = x + ray_x * behind;
        behind = std::fmax(arch_z + curve * at_x * at_x - z, 0.0f);
        at_x = x + ray_x * behind;
        const float at_y = y + ray_y * behind, away = std::fabs(at_x);

        // The cavity: dark at the back, cheeks at the sides; the tongue in front, which falls off
        // towards both.
        const float top = lower_edge + jaw - (0.13f + 0.09f * raised) + 0.5f * (at_x * at_x);
        const float front = at_y - top;
        float lit = 0.5f + 0.6f * smoothstep(front / 0.24f);
        lit *= 1 - 0.05f * smoothstep(1 - away / 0.05f);
        lit *= 0.65f + 0.35f * smoothstep((at_y - upper_edge) / 0.10f);
        const float side = smoothstep((away - 0.12f) / 0.20f);
        for (int c = 0; c < 3; ++c) {
            const float cheek = tongue[c] * 0.55f;
            rgb[c] = (dark[c] + side * (cheek - dark[c])) * inner;
        }
        over(rgb, tongue, lit * inner, smoothstep(front / 0.08f) * smoothstep((0.36f - away) / 0.16f));

        float tooth[4];
        sample(lower, rows, columns, half + at_x, at_y - jaw - lower_top, step, tooth);
        const float reached = outer * (0.82f + 0.22f * smoothstep((at_y - upper_edge) / 0.08f));
        over(rgb, tooth, reached, tooth[3]);
        sample(upper, rows, columns, half + at_x, at_y - upper_top, step, tooth);
        over(rgb, tooth, outer, tooth[3]);

        const float shade = lip_shade(y, roof, floor);
        for (int c = 0; c < 3; ++c) rgb[c] *= shade * (1 - (1 - shade) * loss[c]);

        // The wet inside of the lips, which turns away into the mouth: a gap ends in it, in no line.
        // Lips that almost touch light one another.
        const float under = 1 - smoothstep((y - roof) / std::fmin(0.018f, 0.3f * tall + 1e-4f));
        const float thin = 1 - smoothstep(tall / 0.10f);
        over(rgb, upper_lip, 0.66f, 0.8f * std::fmax(under, thin));
        const float on = 1 - smoothstep((floor - y) / std::fmin(0.045f, 0.4f * tall + 1e-4f));
        const float wet = (0.7f + 0.25f * smoothstep(tall / 0.12f)) * (1 - 0.3f * side);
        over(rgb, lower_lip, wet, 0.9f * on);

        // In the corners of a wide mouth the flesh that joins the lips rounds the gap off.
        const float off = (2 * y - roof - floor) / std::fmax(tall, 1e-4f);
        const float joined = 1 - smoothstep((tall * (1 - 0.4f * (off * off)) - 0.025f) / 0.075f);
        const float flesh = 0.31f - 0.055f * smoothstep(tall / 0.09f);
        for (int c = 0; c < 3; ++c) {
            const float web = (upper_lip[c] + lower_lip[c]) * flesh;
            rgb[c] += corners * light * joined * (web - rgb[c]);
        }
        const float aside = 1 + gradient * clamp(at_x / 0.4f, -1.0f, 1.0f);
        const int row = (int)std::floor(at_y / apart) & (kGrain - 1);
        const int column = (int)std::floor(at_x / apart) & (kGrain - 1);
        const float grain = cavity->grain[kGrain * row + column];
        for (int c = 0; c < 3; ++c) rgb[c] = rgb[c] * aside + grain;
    }
}
