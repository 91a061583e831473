// The kernels that know what a face is: lips, a gap between them, a jaw. Small sums over a few
// hundred vertices, which cost NumPy a millisecond in calls alone. reference/face.py says what each must compute, in the same order of operations.

#include <algorithm>
#include <cmath>
#include <cstring>

#include "face_math.h"
#include "lipstream_kernels.h"

// The four lines of a mouth, `n` vertices each from the image's left to its right.
struct Lips {
    const int32_t *upper, *lower, *outer_upper, *outer_lower;
    int n;
    Lips(const int32_t *lips, int n)
        : upper(lips), lower(lips + n), outer_upper(lips + 2 * n), outer_lower(lips + 3 * n), n(n) {}
    float gap(const float *vertices) const {
        return vertices[3 * lower[n / 2] + 1] - vertices[3 * upper[n / 2] + 1];
    }
};

static void project(const float *pose, const float *vertex, float *xy) {
    for (int i = 0; i < 2; ++i) {
        const float *r = pose + 1 + 3 * i;
        xy[i] = (vertex[0] * r[0] + vertex[1] * r[1] + vertex[2] * r[2]) * pose[0] + pose[7 + i];
    }
}

LS_MULTIVERSION static void add_scaled(
    int n, const float *__restrict row, float factor, float *__restrict total) {
    for (int i = 0; i < n; ++i) total[i] += factor * row[i];
}

LS_EXPORT void ls_drive(
    const float *basis, int32_t coefficients, int32_t count, const float *canonical, const float *own,
    const float *wanted, const int32_t *lip_lines, int32_t n, int32_t rows, float *vertices,
    float *grid) {
    const Lips lips(lip_lines, n);
    const int64_t size = 3 * (int64_t)count;
    std::memset(vertices, 0, size * sizeof(float));
    for (int k = 0; k < coefficients; ++k) {
        add_scaled((int)size, basis + k * size, wanted[k] - own[k], vertices);
    }
    for (int64_t i = 0; i < size; ++i) vertices[i] = canonical[i] + vertices[i];
    for (int i = 0; i < n; ++i) {
        float *upper = vertices + 3 * lips.upper[i], *lower = vertices + 3 * lips.lower[i];
        float high = 0, low = 0;
        for (int k = 0; k < coefficients; ++k) {
            high += wanted[k] * basis[k * size + 3 * lips.upper[i] + 1];
            low += wanted[k] * basis[k * size + 3 * lips.lower[i] + 1];
        }
        const float gap = std::fmax(low - high, 0.0f);
        if (i > 0 && i < n - 1) {  // the corners are one vertex
            const float miss = (gap - (lower[1] - upper[1])) / 2;
            upper[1] -= miss;
            lower[1] += miss;
            vertices[3 * lips.outer_upper[i] + 1] -= miss / 2;
            vertices[3 * lips.outer_lower[i] + 1] += miss / 2;
        }
        const float closed = clamp(1 - gap / 0.02f, 0.0f, 1.0f);
        for (int c = 0; c < 3; ++c) {
            const float middle = (upper[c] + lower[c]) / 2;
            const float up = upper[c] + closed * (middle - upper[c]);
            lower[c] = lower[c] + closed * (middle - lower[c]);
            upper[c] = up;
        }
    }
    for (int r = 0; r < rows; ++r) {
        const float down = (float)r / (float)(rows - 1);
        for (int i = 0; i < n; ++i) {
            const float *upper = vertices + 3 * lips.upper[i], *lower = vertices + 3 * lips.lower[i];
            float *point = grid + 3 * (r * n + i);
            for (int c = 0; c < 3; ++c) point[c] = upper[c] + down * (lower[c] - upper[c]);
        }
    }
}

LS_EXPORT void ls_place(
    const float *pose, const float *canonical, const float *vertices, int32_t count, const float *grid,
    int32_t grid_points, const int32_t *line, int32_t length, int32_t centre, const float *rings,
    int32_t ring_count, float *start, float *moved, float *points) {
    for (int i = 0; i < count; ++i) {
        project(pose, canonical + 3 * i, start + 2 * i);
        project(pose, vertices + 3 * i, points + 2 * i);
    }
    std::memcpy(moved, points, 2 * (int64_t)count * sizeof(float));
    for (int i = 0; i < grid_points; ++i) project(pose, grid + 3 * i, points + 2 * (count + i));
    for (int i = 0; i < length; ++i) {
        const float *at = start + 2 * line[i], *after = moved + 2 * line[i];
        const float x = at[0] - start[2 * centre], y = at[1] - start[2 * centre + 1];
        const float norm = std::fmax(std::sqrt(x * x + y * y), 1e-6f);
        const float outward[2] = {x / norm, y / norm};
        for (int r = 0; r < ring_count; ++r) {
            const float distance = rings[2 * r] * pose[0], kept = rings[2 * r + 1];
            const int64_t to = 2 * (count + (int64_t)r * length + i);
            for (int c = 0; c < 2; ++c) {
                start[to + c] = at[c] + outward[c] * distance;
                moved[to + c] = start[to + c] + (after[c] - at[c]) * kept;
            }
        }
    }
}

// The bounds are x0, y0, x1, y1 of the corners.
LS_EXPORT int32_t ls_moving_triangles(
    const float *start, const float *moved, const int32_t *triangles, int32_t count, float still_px,
    int32_t *out, float *bounds) {
    int kept = 0;
    bounds[0] = bounds[1] = HUGE_VALF, bounds[2] = bounds[3] = -HUGE_VALF;
    for (int t = 0; t < count; ++t) {
        const int32_t *ids = triangles + 3 * t;
        bool moves = false;
        for (int i = 0; i < 3; ++i) {
            const float *a = start + 2 * ids[i], *b = moved + 2 * ids[i];
            moves |= std::fabs(b[0] - a[0]) > still_px || std::fabs(b[1] - a[1]) > still_px;
        }
        if (!moves) continue;
        for (int i = 0; i < 3; ++i) {
            const float *b = moved + 2 * ids[i];
            for (int c = 0; c < 2; ++c) {
                bounds[c] = std::fmin(bounds[c], b[c]);
                bounds[2 + c] = std::fmax(bounds[2 + c], b[c]);
            }
            out[3 * kept + i] = ids[i];
        }
        ++kept;
    }
    return kept;
}

// Pixels this far inside a tracked lip edge may still be lip, and farther at the corners.
static constexpr float kLipEdge = 0.1f, kSideways = 0.3f;

LS_EXPORT void ls_map_to_source(
    const float *vertices, const float *grid, int32_t rows, const float *canonical, int32_t count,
    const float *pose, const float *view, const int32_t *lip_lines, int32_t n, const int32_t *chin,
    int32_t chin_count, float inset, float *own, float *points, float *confidence, float *lowered) {
    const Lips lips(lip_lines, n);
    float jaw[3];
    for (int c = 0; c < 3; ++c) {
        float theirs = 0, ours = 0;
        for (int i = 0; i < chin_count; ++i) {
            theirs += canonical[3 * chin[i] + c];
            ours += vertices[3 * chin[i] + c];
        }
        jaw[c] = theirs / (float)chin_count - ours / (float)chin_count;
    }
    const int middle = 3 * lips.upper[n / 2] + 1;
    *lowered = vertices[middle] - canonical[middle];
    const float like = lips.gap(canonical) / std::fmax(lips.gap(vertices), 1e-3f);
    const float likeness =
        smoothstep((like - 0.45f) / 0.35f) * smoothstep((0.11f - std::fabs(jaw[1])) / 0.07f);
    const float left = canonical[3 * lips.upper[0]], right = canonical[3 * lips.upper[n - 1]];
    for (int r = 0; r < rows; ++r) {
        const float down = (float)r / (float)(rows - 1), follow = likeness * smoothstep(down);
        for (int i = 0; i < n; ++i) {
            const int at = r * n + i;
            const float *above = canonical + 3 * lips.upper[i], *below = canonical + 3 * lips.lower[i];
            const float roof = above[1], span = below[1] - roof;
            float *point = own + 3 * at;  // of the grid, after the vertices
            for (int c = 0; c < 3; ++c) point[c] = grid[3 * at + c] + follow * jaw[c];
            const float beyond = std::fmax(point[1] - std::fmax(below[1], roof), 0.0f);
            const float thin = smoothstep((span - 0.01f) / 0.04f);
            confidence[at] = std::fmax(likeness, thin * (1 - smoothstep(beyond / 0.03f)));
            point[0] = clamp(point[0], left, right);
            const float side = std::fmin(above[0] - left, right - above[0]);
            const float depth = std::fmin(std::fmin(down, 1 - down) * span, kSideways * side);
            const float inside = smoothstep(depth / kLipEdge);
            for (int c = 0; c < 3; ++c) {
                const float along = above[c] + down * (below[c] - above[c]);
                float off = point[c] - along;
                if (c == 1) off = clamp(off, -0.4f * depth, 0.4f * depth);  // rows stay in order
                point[c] = along + inside * off;
            }
        }
    }
    float *edge = own + 3 * (int64_t)rows * n;  // scratch: the source's vertices, lips moved inward
    std::memcpy(edge, canonical, 3 * (int64_t)count * sizeof(float));
    for (int i = 0; i < n; ++i) {
        const float roof = canonical[3 * lips.upper[i] + 1], floor = canonical[3 * lips.lower[i] + 1];
        const float gap = floor - roof;
        const float wanted = vertices[3 * lips.lower[i] + 1] - vertices[3 * lips.upper[i] + 1];
        const float closing = smoothstep((0.6f - wanted / std::fmax(gap, 1e-3f)) / 0.5f);
        const float thickness = std::fmin(
            roof - canonical[3 * lips.outer_upper[i] + 1], canonical[3 * lips.outer_lower[i] + 1] - floor);
        const float most = 0.35f * std::fmax(thickness, 0.0f);
        // Parted wider, lips show no line where they met, or where they bordered on teeth.
        const float parting = (1 - smoothstep((like - 0.45f) / 0.35f)) * smoothstep(wanted / 0.06f);
        const float least = std::fmax(closing * smoothstep((gap - 0.008f) / 0.03f), 1.3f * parting);
        const float inward = std::fmin(least * (inset + 0.8f / pose[0]), most);
        edge[3 * lips.upper[i] + 1] -= inward;
        edge[3 * lips.lower[i] + 1] += inward;
    }
    for (int i = 0; i < count + rows * n; ++i) {
        float xy[2];
        project(pose, i < count ? edge + 3 * i : own + 3 * (i - count), xy);
        for (int c = 0; c < 2; ++c) points[2 * i + c] = (xy[c] - view[c]) * view[2];
    }
}

// ---------------------------------------------------------------------------- light

LS_MULTIVERSION static void light_row(
    int w, const float *__restrict along, const float *__restrict at_row,
    const float *__restrict slope, uint8_t *__restrict row) {
    for (int i = 0; i < w; ++i) {
        for (int c = 0; c < 3; ++c) {
            const float gain = 1 + (at_row[c] + slope[c] * along[i] + at_row[3 + c]);
            const float value = clamp((float)row[3 * i + c] * gain + 0.5f, 0.0f, 255.0f);
            row[3 * i + c] = (uint8_t)(int)value;
        }
    }
}

static double middle_of(double *values, int n) {
    std::sort(values, values + n);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

// x of a x = b for a symmetric positive 3x3 matrix, by elimination without pivots.
static void solve_3x3(const double matrix[3][3], const double *right, double *x) {
    double a[3][4];
    for (int i = 0; i < 3; ++i) {
        for (int j = 0; j < 3; ++j) a[i][j] = matrix[i][j];
        a[i][3] = right[i];
    }
    for (int i = 0; i < 3; ++i) {
        for (int j = i + 1; j < 3; ++j) {
            const double factor = a[j][i] / a[i][i];
            for (int k = i; k < 4; ++k) a[j][k] -= factor * a[i][k];
        }
    }
    for (int i = 2; i >= 0; --i) {
        double rest = a[i][3];
        for (int j = i + 1; j < 3; ++j) rest -= a[i][j] * x[j];
        x[i] = rest / a[i][i];
    }
}

LS_EXPORT void ls_relight(
    uint8_t *layer, const uint8_t *below, int32_t below_stride, int32_t h, int32_t w,
    const float *points, const int32_t *skin, int32_t count, const float *limits, double *scratch,
    float *along) {
    int n = 0;
    double own[3] = {0, 0, 0}, design[3][3] = {}, right[3][3] = {};
    double *x = scratch, *y = scratch + count, *difference = scratch + 2 * (int64_t)count;
    for (int i = 0; i < count; ++i) {
        const double px = std::floor(points[2 * skin[i]]), py = std::floor(points[2 * skin[i] + 1]);
        if (!(px >= 1 && py >= 1 && px < w - 1 && py < h - 1)) continue;
        const int column = (int)px, row = (int)py;
        x[n] = px / w - 0.5, y[n] = py / h - 0.5;
        const int at[5][2] = {{0, 0}, {-1, 0}, {1, 0}, {0, -1}, {0, 1}};
        for (int c = 0; c < 3; ++c) {
            int sum = 0;
            for (int k = 0; k < 5; ++k) {
                const int64_t r = row + at[k][1], q = column + at[k][0];
                sum += below[r * below_stride + 3 * q + c] - layer[(r * w + q) * 3 + c];
            }
            difference[(int64_t)c * count + n] = sum / 5.0;
            own[c] += layer[((int64_t)row * w + column) * 3 + c];
        }
        ++n;
    }
    if (n < limits[0]) return;
    double *sorted = scratch + 5 * (int64_t)count;
    float plane[3][3];  // [term][channel]
    for (int i = 0; i < n; ++i) {
        const double row[3] = {1, x[i], y[i]};
        for (int a = 0; a < 3; ++a) {
            for (int b = 0; b < 3; ++b) design[a][b] += row[a] * row[b];
        }
    }
    design[1][1] += limits[1], design[2][2] += limits[1];
    for (int c = 0; c < 3; ++c) {
        double *d = difference + (int64_t)c * count;
        std::memcpy(sorted, d, n * sizeof(double));
        const double middle = middle_of(sorted, n), reach = limits[2];
        for (int i = 0; i < n; ++i) {
            const double near = middle + std::fmin(std::fmax(d[i] - middle, -reach), reach);
            right[c][0] += near, right[c][1] += near * x[i], right[c][2] += near * y[i];
        }
        double terms[3];
        solve_3x3(design, right[c], terms);
        for (int a = 0; a < 3; ++a) plane[a][c] = (float)(terms[a] / (own[c] / n + 8));
    }
    for (int a = 0; a < 3; ++a) {
        const float strength = (plane[a][0] + plane[a][1] + plane[a][2]) / 3;
        for (int c = 0; c < 3; ++c) {
            plane[a][c] = strength + clamp(plane[a][c] - strength, -limits[3], limits[3]);
        }
    }
    for (int i = 0; i < w; ++i) along[i] = (float)i / (float)w - 0.5f;
    for (int r = 0; r < h; ++r) {
        const float down = (float)r / (float)h - 0.5f;
        float at_row[6];
        for (int c = 0; c < 3; ++c) at_row[c] = plane[0][c], at_row[3 + c] = plane[2][c] * down;
        light_row(w, along, at_row, plane[1], layer + (int64_t)r * w * 3);
    }
}

LS_EXPORT void ls_downsample2x(
    const uint8_t *fine, const uint8_t *covered, int32_t h, int32_t w, uint8_t *window,
    int32_t stride) {
    const int64_t line = 2 * (int64_t)w;
    for (int r = 0; r < h; ++r) {
        const uint8_t *top = fine + 3 * line * 2 * r, *bottom = top + 3 * line;
        const uint8_t *over = covered + line * 2 * r, *under = over + line;
        uint8_t *out = window + (int64_t)r * stride;
        for (int i = 0; i < w; ++i) {
            if (!(over[2 * i] & over[2 * i + 1] & under[2 * i] & under[2 * i + 1])) continue;
            for (int c = 0; c < 3; ++c) {
                const int a = 6 * i + c, b = a + 3;
                out[3 * i + c] = (uint8_t)((top[a] + bottom[a] + top[b] + bottom[b] + 2) >> 2);
            }
        }
    }
}
