// A whole lower face in two calls: where everything goes, and its pixels. The steps are those of
// engine/rendering/compositor.py and engine/rendering/inner_mouth.py, in their order and with their
// rounding; those two are the readable twin. A frame is forty small steps, and what lies between two
// of them in Python costs more than most of them do.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <vector>

#include "face_math.h"
#include "lipstream_kernels.h"

namespace {

// Grows to the largest mouth that its thread has painted, and stays.
struct Scratch {
    std::vector<uint8_t> patch, lip_texture, covered, layer, one, fine, fine_covered, inside;
    std::vector<float> from, to, at, own, confidence, leading, where, lips, rest, along, weights, values, cavity_points,
        cavity_lips, cavity_rgb;
    std::vector<double> light;

    template <typename T>
    static T *take(std::vector<T> &buffer, int64_t count) {
        if ((int64_t)buffer.size() < count) buffer.resize(count);
        return buffer.data();
    }

    template <typename T>
    static T *zeros(std::vector<T> &buffer, int64_t count) {
        std::memset(take(buffer, count), 0, count * sizeof(T));
        return buffer.data();
    }
};

thread_local Scratch scratch;

struct Box {
    int x0, y0, x1, y1;
    int width() const { return x1 - x0; }
    int height() const { return y1 - y0; }
    bool empty() const { return x1 <= x0 || y1 <= y0; }
};

struct Bounds {
    float low[2] = {HUGE_VALF, HUGE_VALF}, high[2] = {-HUGE_VALF, -HUGE_VALF};

    void add(const float *xy) {
        for (int c = 0; c < 2; ++c) {
            low[c] = std::fmin(low[c], xy[c]);
            high[c] = std::fmax(high[c], xy[c]);
        }
    }

    // Even-aligned, inside a picture.
    Box rectangle(int width, int height) const {
        const int x0 = (int)std::floor(low[0] - 1) & ~1, y0 = (int)std::floor(low[1] - 1) & ~1;
        const int x1 = ((int)std::ceil(high[0] + 1) + 1) & ~1;
        const int y1 = ((int)std::ceil(high[1] + 1) + 1) & ~1;
        return {std::max(x0, 0), std::max(y0, 0), std::min(x1, width & ~1),
                std::min(y1, height & ~1)};
    }
};

int grid_size(const LsPainter &p) { return p.rows * p.columns; }

int point_count(const LsPainter &p) { return p.vertices + grid_size(p); }

int ringed_count(const LsPainter &p) { return p.vertices + p.ring_count * p.line_count; }

float gap_between_lips(const LsPainter &p, const float *vertices) {
    const int middle = p.columns / 2;
    return vertices[3 * p.lips[p.columns + middle] + 1] - vertices[3 * p.lips[middle] + 1];
}

// What the first call found, in one piece of memory.
struct Face {
    float *vertices, *grid, *start, *moved, *points;

    Face(const LsPainter &p, float *memory)
        : vertices(memory), grid(vertices + 3 * p.vertices), start(grid + 3 * grid_size(p)),
          moved(start + 2 * ringed_count(p)), points(moved + 2 * ringed_count(p)) {}
};

// Time in the stages of a frame, if it is asked for.
class Stages {
public:
    enum Name { kColor, kWarp, kComposite };

    explicit Stages(int64_t *spent) : spent_(spent), began_(now()) {}

    void end(Name stage) {
        if (!spent_) return;
        const int64_t at = now();
        spent_[stage] += at - began_;
        began_ = at;
    }

private:
    int64_t now() const {
        using namespace std::chrono;
        return spent_ ? nanoseconds(steady_clock::now().time_since_epoch()).count() : 0;
    }

    int64_t *spent_, began_;
};

void moved_by(const float *points, int count, float x, float y, float factor, float *out) {
    for (int i = 0; i < count; ++i) {
        out[2 * i] = (points[2 * i] - x) * factor;
        out[2 * i + 1] = (points[2 * i + 1] - y) * factor;
    }
}

// ------------------------------------------------------------------ the inside of a mouth

// InnerMouth._draw: synthetic teeth where confidence is low, and the shadow of a lowered lip.
void draw_gap(
    const LsPainter &p, uint8_t *window, int stride, int h, int w, const float *inner,
    const float *grid, const float *confidence, float lowered, const float *motion) {
    const int count = grid_size(p), last = (p.rows - 1) * p.columns, pixels = h * w;
    const float least = *std::min_element(confidence, confidence + count);
    const bool shadowed = lowered > p.least_lowered, synthetic = least < p.trusted;
    float *values = Scratch::take(scratch.values, 2 * count);
    float *where = Scratch::zeros(scratch.where, 2 * pixels);
    uint8_t *inside = Scratch::zeros(scratch.inside, pixels);
    for (int i = 0; i < count; ++i) values[2 * i] = grid[3 * i], values[2 * i + 1] = grid[3 * i + 1];
    ls_mesh_map(values, inner, p.gap, p.gap_count, h, w, 0, 0, where, inside);
    for (int i = 0; i < count; ++i) {
        const int column = i % p.columns;
        values[2 * i] = grid[3 * column + 1], values[2 * i + 1] = grid[3 * (last + column) + 1];
    }
    float *lips = Scratch::zeros(scratch.lips, 2 * pixels);
    ls_mesh_map(values, inner, p.gap, p.gap_count, h, w, 0, 0, lips, inside);
    float *rgb = nullptr;
    if (synthetic) {
        for (int i = 0; i < count; ++i) values[2 * i] = grid[3 * i + 2], values[2 * i + 1] = 0;
        float *rest = Scratch::zeros(scratch.rest, 2 * pixels);
        ls_mesh_map(values, inner, p.gap, p.gap_count, h, w, 0, 0, rest, inside);
        float *points = Scratch::take(scratch.cavity_points, 3 * pixels), *point = points;
        float *between = Scratch::take(scratch.cavity_lips, 2 * pixels), *lip = between;
        for (int at = 0; at < pixels; ++at) {
            if (!inside[at]) continue;
            *point++ = where[2 * at], *point++ = where[2 * at + 1], *point++ = rest[2 * at];
            *lip++ = lips[2 * at], *lip++ = lips[2 * at + 1];
        }
        rgb = Scratch::take(scratch.cavity_rgb, 3 * pixels);
        ls_paint_cavity(&p.cavity, motion, points, between, (int)(lip - between) / 2, rgb);
    }
    const double by = std::fmin((lowered - p.least_lowered) / 0.05, 1.0);
    const float loss = (float)(p.lip_shadow * by), depth = (float)(p.slit_depth * by);
    const float *upper = p.cavity.colours + 6, *lower = upper + 3;
    const float keep = smoothstep((float)((least - p.least_shown) / (p.trusted - p.least_shown)));
    for (int row = 0; row < h; ++row) {
        for (int column = 0; column < w; ++column) {
            const int at = row * w + column;
            if (!inside[at]) continue;
            uint8_t *pixel = window + (int64_t)row * stride + 3 * column;
            float level[3] = {(float)pixel[0], (float)pixel[1], (float)pixel[2]};
            if (shadowed) {
                const float down = where[2 * at + 1] - lips[2 * at];
                const float near = 1 - clamp(down / p.shadow_reach, 0.0f, 1.0f);
                const float tall = (lips[2 * at + 1] - lips[2 * at]) / p.slit;
                const float slit = depth * (1 - smoothstep(tall));
                for (int c = 0; c < 3; ++c) {
                    level[c] *= 1 - loss * near * near;
                    level[c] += slit * (0.25f * (upper[c] + lower[c]) - level[c]);
                }
            }
            if (synthetic) {
                for (int c = 0; c < 3; ++c) level[c] = level[c] * keep + rgb[c] * (1 - keep);
                rgb += 3;
            }
            for (int c = 0; c < 3; ++c) pixel[c] = (uint8_t)clamp(level[c] + 0.5f, 0.0f, 255.0f);
        }
    }
}

// inner_mouth.gap_box.
Box gap_box(const LsPainter &p, const float *points, int h, int w) {
    Bounds bounds;
    for (int i = p.vertices; i < point_count(p); ++i) bounds.add(points + 2 * i);
    return {
        std::max((int)std::floor(bounds.low[0]) - 2, 0),
        std::max((int)std::floor(bounds.low[1]) - 2, 0),
        std::min((int)std::ceil(bounds.high[0]) + 2, w),
        std::min((int)std::ceil(bounds.high[1]) + 2, h)};
}

// A box at twice the resolution, in scratch.fine and scratch.fine_covered; scratch.to has its points.
void sample_finely(
    const LsPainter &p, const uint8_t *rgb, int rows, int columns, const float *at, const float *points,
    Box box) {
    const int fine_h = 2 * box.height(), fine_w = 2 * box.width();
    float *close_up = Scratch::take(scratch.to, 2 * point_count(p));
    moved_by(points, point_count(p), (float)box.x0, (float)box.y0, 2, close_up);
    uint8_t *fine = Scratch::zeros(scratch.fine, 3 * (int64_t)fine_h * fine_w);
    uint8_t *covered = Scratch::zeros(scratch.fine_covered, (int64_t)fine_h * fine_w);
    ls_warp_mesh(
        rgb, rows, columns, 3, at, close_up, p.mouth, p.mouth_count, fine_h, fine_w, 0, 0, fine,
        covered);
}

// InnerMouth.supersample: the gap and its edges once more, into `warped` u8 [h, w, 3].
void supersample(
    const LsPainter &p, const uint8_t *rgb, int rows, int columns, const float *at, const float *points,
    uint8_t *warped, int h, int w) {
    const Box box = gap_box(p, points, h, w);
    if (box.empty()) return;
    sample_finely(p, rgb, rows, columns, at, points, box);
    ls_downsample2x(
        scratch.fine.data(), scratch.fine_covered.data(), box.height(), box.width(),
        warped + 3 * ((int64_t)box.y0 * w + box.x0), 3 * w);
}

// InnerMouth.paint.
void paint_gap(
    const LsPainter &p, const LsSource &source, const float *grid, const float *points, const float *at,
    const float *confidence, float lowered, const float *motion, uint8_t *warped, int h, int w) {
    const Box box = gap_box(p, points, h, w);
    if (box.empty()) return;
    sample_finely(p, source.rgb, source.height, source.width, at, points, box);
    float *close_up = scratch.to.data();
    const bool synthetic = *std::min_element(confidence, confidence + grid_size(p)) < p.trusted;
    if (synthetic || lowered > p.least_lowered) {
        draw_gap(
            p, scratch.fine.data(), 6 * box.width(), 2 * box.height(), 2 * box.width(),
            close_up + 2 * p.vertices, grid, confidence, lowered, motion);
    }
    ls_downsample2x(
        scratch.fine.data(), scratch.fine_covered.data(), box.height(), box.width(),
        warped + 3 * ((int64_t)box.y0 * w + box.x0), 3 * w);
}

// ----------------------------------------------------------------------------- the lips

// How far the target's lips meet where the source's do not, 0 to 1.
double new_closure(const LsPainter &p, const float *source, const float *target) {
    const double open = std::fmin(std::fmax(gap_between_lips(p, source) / 0.05, 0.0), 1.0);
    return open * std::fmin(std::fmax(1 - gap_between_lips(p, target) / 0.03, 0.0), 1.0);
}

void darken(uint8_t *layer, const uint8_t *lip_texture, int pixels, float strength) {
    for (int i = 0; i < pixels; ++i) {
        const float factor = 1 - (float)lip_texture[2 * i + 1] * strength;
        for (int c = 0; c < 3; ++c) {
            layer[3 * i + c] = (uint8_t)((float)layer[3 * i + c] * factor + 0.5f);
        }
    }
}

// Where a source's pixels lie for a driven face, f32 [vertices + grid, 2]; null where a coordinate is
// not a number or beyond the limit.
const float *source_points(
    const LsPainter &p, const Face &face, const LsSource &source, const float *points, float *confidence,
    float *lowered) {
    float *at = Scratch::take(scratch.at, 2 * point_count(p));
    ls_map_to_source(
        face.vertices, face.grid, p.rows, source.canonical_vertices, p.vertices, source.pose, source.view,
        p.lips, p.columns, p.chin, p.chin_count, p.inset,
        Scratch::take(scratch.own, 3 * point_count(p)), at, confidence, lowered);
    return ls_mesh_is_valid(at, points, point_count(p), nullptr, 0, p.coordinate_limit) ? at : nullptr;
}

// Compositor._expected: the mouth texture of the appearance prior over a patch
// u8 [height, width, 3] at (x, y), in its light; `layer` u8 [h, w, 3]. Returns false where a
// coordinate is not a number or beyond the limit.
bool lay_prior(
    const LsPainter &p, const Face &face, const uint8_t *texture, int x, int y, int width, int height,
    const uint8_t *patch, int h, int w, uint8_t *layer) {
    const float down = (float)((double)h / height), across = (float)((double)w / width);
    const int64_t size = 3 * (int64_t)h * w;
    float *points = Scratch::take(scratch.from, 2 * point_count(p));
    for (int i = 0; i < point_count(p); ++i) {
        points[2 * i] = (face.points[2 * i] - (float)x) * across;
        points[2 * i + 1] = (face.points[2 * i + 1] - (float)y) * down;
    }
    if (!ls_mesh_is_valid(p.look_xy, points, point_count(p), nullptr, 0, p.coordinate_limit)) return false;
    std::memset(layer, 0, size);
    uint8_t *covered = Scratch::take(scratch.covered, size / 3);
    ls_warp_mesh(
        texture, p.look_h, p.look_w, 3, p.look_xy, points, p.mouth, p.mouth_count, h, w, 0, 0, layer,
        covered);
    supersample(p, texture, p.look_h, p.look_w, p.look_xy, points, layer, h, w);
    float *from = Scratch::take(scratch.where, 2 * (int64_t)h * w), *next = from;
    for (int row = 0; row < h; ++row) {
        for (int column = 0; column < w; ++column) {
            *next++ = ((float)column + 0.5f) / across, *next++ = ((float)row + 0.5f) / down;
        }
    }
    uint8_t *below = Scratch::take(scratch.one, size);
    ls_remap(patch, height, width, 3, from, h * w, below);
    ls_relight(
        layer, below, 3 * w, h, w, points, p.skin, p.skin_count, p.limits,
        Scratch::take(scratch.light, 6 * (int64_t)p.skin_count), Scratch::take(scratch.along, w));
    return true;
}

// Compositor._lay_lips. Returns false where a coordinate is not a number or beyond the limit.
bool lay_lips(
    const LsPainter &p, const Face &face, const float *motion, const LsSource *sources, int count, int x, int y, int width, int height, uint8_t *painted, uint8_t *mask,
    uint8_t *conditioning, Stages &stages) {
    float *points = Scratch::take(scratch.from, 2 * point_count(p));
    moved_by(face.points, point_count(p), (float)x, (float)y, 1, points);
    Bounds used;
    for (int i = 0; i < p.lip_vertex_count; ++i) used.add(points + 2 * p.lip_vertices[i]);
    const Box box = used.rectangle(width, height);
    if (box.empty()) return true;
    moved_by(points, point_count(p), (float)box.x0, (float)box.y0, 1, points);
    const int w = box.width(), h = box.height(), pixels = w * h, stride = 3 * width;
    uint8_t *below = painted + ((int64_t)box.y0 * width + box.x0) * 3;
    uint8_t *lip_texture = Scratch::zeros(scratch.lip_texture, 2 * pixels);
    uint8_t *covered = Scratch::take(scratch.covered, pixels);
    ls_warp_mesh(
        p.texture, p.texture_h, p.texture_w, 2, p.texture_xy, points, p.mouth, p.mouth_count, h, w,
        0, 0, lip_texture, covered);

    double so_far = 0, most = 0;
    float *leading = Scratch::take(scratch.leading, grid_size(p));
    for (int i = 0; i < grid_size(p); ++i) leading[i] = face.grid[3 * i];
    uint8_t *layer = nullptr;
    float *weights = Scratch::take(scratch.weights, w), *along = Scratch::take(scratch.along, w);
    for (int s = 0; s < count; ++s) {
        stages.end(Stages::kComposite);
        const LsSource &source = sources[s];
        uint8_t *own = Scratch::zeros(s ? scratch.one : scratch.layer, 3 * pixels);
        float *confidence = Scratch::take(scratch.confidence, grid_size(p)), lowered;
        const float *at = source_points(p, face, source, points, confidence, &lowered);
        if (!at) return false;
        ls_warp_mesh(
            source.rgb, source.height, source.width, 3, at, points, p.mouth, p.mouth_count, h, w, 0,
            0, own, covered);
        paint_gap(p, source, face.grid, points, at, confidence, lowered, motion, own, h, w);
        stages.end(Stages::kWarp);
        ls_relight(
            own, below, stride, h, w, points, p.skin, p.skin_count, p.limits,
            Scratch::take(scratch.light, 6 * (int64_t)p.skin_count), along);
        const double closed = new_closure(p, source.canonical_vertices, face.vertices);
        if (closed > 0) darken(own, lip_texture, pixels, (float)(closed * p.seam_depth / 255));
        so_far += source.share;
        if (s == 0) {
            layer = own;
        } else {
            std::fill(weights, weights + w, (float)(source.share / so_far));
            for (int row = 0; row < h; ++row) {
                uint8_t *line = layer + 3 * (int64_t)row * w;
                ls_blend_fractions(w, line, own + 3 * (int64_t)row * w, weights, line);
            }
        }
        if (source.share > most) {
            most = source.share;
            std::copy(confidence, confidence + grid_size(p), leading);
        }
    }
    uint8_t *alpha = Scratch::take(scratch.covered, pixels);
    for (int i = 0; i < pixels; ++i) alpha[i] = lip_texture[2 * i];
    for (int row = 0; row < h; ++row) {
        uint8_t *line = below + (int64_t)row * stride;
        const uint8_t *own = alpha + (int64_t)row * w;
        ls_blend(w, line, layer + 3 * (int64_t)row * w, own, line);
        uint8_t *out = mask + (int64_t)(box.y0 + row) * width + box.x0;
        for (int i = 0; i < w; ++i) out[i] = std::max(out[i], own[i]);
    }
    if (!conditioning) return true;
    float *values = Scratch::take(scratch.values, 2 * grid_size(p));  // 40 is SYNTHETIC of crop.py
    for (int i = 0; i < grid_size(p); ++i) {
        values[2 * i] = p.gap_row[i], values[2 * i + 1] = 40 + 215 * leading[i];
    }
    float *mapped = Scratch::zeros(scratch.where, 2 * pixels);
    ls_mesh_map(
        values, points + 2 * p.vertices, p.gap, p.gap_count, h, w, 0, 0, mapped,
        Scratch::take(scratch.inside, pixels));
    for (int row = 0; row < h; ++row) {
        uint8_t *out = conditioning + 3 * ((int64_t)(box.y0 + row) * width + box.x0);
        for (int i = 0; i < w; ++i) {
            const int at = row * w + i;
            out[3 * i] = alpha[at];
            out[3 * i + 1] = (uint8_t)mapped[2 * at], out[3 * i + 2] = (uint8_t)mapped[2 * at + 1];
        }
    }
    return true;
}

}  // namespace

LS_EXPORT int32_t ls_place_face(
    const LsPainter *painter, const float *pose, const float *canonical_vertices, const float *own,
    const float *wanted, const float *corners, int32_t width, int32_t height, float *memory,
    int32_t *kept, int32_t *box) {
    const LsPainter &p = *painter;
    const Face face(p, memory);
    ls_drive(
        p.basis, p.coefficients, p.vertices, canonical_vertices, own, wanted, p.lips, p.columns, p.rows,
        face.vertices, face.grid);
    ls_place(
        pose, canonical_vertices, face.vertices, p.vertices, face.grid, grid_size(p), p.line, p.line_count, p.centre,
        p.rings, p.ring_count, face.start, face.moved, face.points);
    const float limit = p.coordinate_limit;
    if (!ls_mesh_is_valid(face.start, face.moved, ringed_count(p), nullptr, 0, limit) ||
        !ls_mesh_is_valid(face.points, face.points, point_count(p), nullptr, 0, limit)) {
        return 1;
    }
    float bounds[4];
    box[4] = ls_moving_triangles(face.start, face.moved, p.jaw, p.jaw_count, p.still, kept, bounds);
    Bounds used;
    for (int i = 0; i < p.lip_vertex_count; ++i) used.add(face.points + 2 * p.lip_vertices[i]);
    if (box[4]) used.add(bounds), used.add(bounds + 2);
    if (corners) used.add(corners), used.add(corners + 2);
    const Box found = used.rectangle(width, height);
    box[0] = found.x0, box[1] = found.y0, box[2] = found.x1, box[3] = found.y1;
    return 0;
}

LS_EXPORT int32_t ls_paint_face(
    const LsPainter *painter, float *memory, const int32_t *kept, const int32_t *box,
    const uint8_t *background, int32_t width, int32_t height, const float *motion,
    const LsSource *sources, int32_t count, const uint8_t *mouth_texture,
    uint8_t *painted, uint8_t *mask, uint8_t *conditioning, uint8_t *prior, int32_t prior_h,
    int32_t prior_w, uint8_t *frame, int64_t *spent) {
    const LsPainter &p = *painter;
    const Face face(p, memory);
    Stages stages(spent);
    const int w = box[2] - box[0], h = box[3] - box[1];
    uint8_t *patch = Scratch::take(scratch.patch, 3 * (int64_t)w * h);
    ls_i420_region_to_rgb(background, width, height, box[0], box[1], w, h, patch);
    stages.end(Stages::kColor);
    std::memcpy(painted, patch, 3 * (int64_t)w * h);
    float *from = Scratch::take(scratch.from, 2 * ringed_count(p));
    float *to = Scratch::take(scratch.to, 2 * ringed_count(p));
    moved_by(face.start, ringed_count(p), (float)box[0], (float)box[1], 1, from);
    moved_by(face.moved, ringed_count(p), (float)box[0], (float)box[1], 1, to);
    ls_warp_mesh(patch, h, w, 3, from, to, kept, box[4], h, w, 0, 0, painted, mask);
    stages.end(Stages::kWarp);
    bool valid = true;
    if (mouth_texture) {
        valid = lay_prior(
            p, face, mouth_texture, box[0], box[1], w, h, painted, prior_h, prior_w, prior);
    }
    valid = valid && lay_lips(
        p, face, motion, sources, count, box[0], box[1], w, h, painted, mask, conditioning, stages);
    if (frame) std::memcpy(frame, background, (int64_t)width * height * 3 / 2);
    stages.end(Stages::kComposite);
    if (frame) {
        ls_rgb_region_into_i420(painted, mask, width, height, box[0], box[1], w, h, frame);
    }
    stages.end(Stages::kColor);
    return valid ? 0 : 1;
}
