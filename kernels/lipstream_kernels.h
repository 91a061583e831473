// Every entry point of the CPU library, and every structure that crosses into it.
//
// Two readers: the compiler, which holds each definition to its declaration, and native.py, which
// makes the Python side of the calls from it. So the text below stays in a small part of C:
// structures of scalars, arrays, pointers and other structures, and functions of scalars and
// pointers. The comment after a pointer gives its shape; a pointer that is `const` is only read.
// "or null" is None in Python.
//
// LS_API    Python lets go of its lock during the call.
// LS_BRIEF  Python keeps its lock: the call is shorter than it takes to have the lock back.
// LS_EITHER Both are there; Python chooses by the size of the input, as `name` and `name_brief`.
//
// Conventions. Matrices are row by row. A picture is u8 [height, width, 3], RGB; i420 is
// u8 [height * 3 / 2, width]. Vertices are canonical: f32 [vertices, 3], inter-ocular distances.
// A pose is f32 [9]: scale in px, the first two rows of a rotation, x and y of a translation.
// Lips are i32 [4, columns]: the inner upper and lower lip, the outer upper and lower one.
#pragma once

#include <stdint.h>

#include "cpu.h"

// A digest of this file, so that a library made from another one is not called.
LS_BRIEF uint64_t ls_interface(void);

// ------------------------------------------------------------------------------ color.cpp

LS_API void ls_i420_region_to_rgb(
    const uint8_t *i420, int32_t width, int32_t height, int32_t x, int32_t y, int32_t w, int32_t h,
    uint8_t *rgb);  // [h, w, 3]
LS_API void ls_rgb_region_into_i420(
    const uint8_t *rgb,   // [h, w, 3]
    const uint8_t *mask,  // [h, w] or null: everywhere
    int32_t width, int32_t height, int32_t x, int32_t y, int32_t w, int32_t h, uint8_t *i420);

// ---------------------------------------------------------------------------- viterbi.cpp

LS_EITHER void ls_min_plus(
    int32_t states, int32_t slots,
    const float *score,           // [states]
    const int32_t *predecessors,  // [states, slots], each 0 to states - 1
    const float *cost,            // [states, slots]
    const float *emission,        // [states]
    float *best,                  // [states]
    int32_t *back);               // [states]
// Returns 1 where a state or a pointer is neither -1 nor a state, else 0.
LS_BRIEF int32_t ls_trace_back(
    int32_t states,               // of the graph
    int32_t depth,
    const int32_t *const *backs,  // depth times [states], newest first
    int32_t count,
    const int32_t *from,          // [count]
    int32_t *ancestors);          // [count]
LS_EITHER void ls_feature_distance(
    int32_t n, int32_t k,
    const float *features,  // [k, n]
    const float *wanted,    // [k]
    const float *base,      // [n]
    float *total);          // [n]

// ------------------------------------------------------------------------------- mesh.cpp

// Whether each triangle names vertices that there are, and each coordinate is a number within the
// limit.
LS_BRIEF int32_t ls_mesh_is_valid(
    const float *source_xy,    // [vertices, 2]
    const float *target_xy,    // [vertices, 2]
    int32_t vertices,
    const int32_t *triangles,  // [count, 3] or null
    int32_t count, float limit);
LS_API void ls_mesh_map(
    const float *source_xy, const float *target_xy,
    const int32_t *triangles,  // [count, 3]
    int32_t count, int32_t h, int32_t w, int32_t origin_x, int32_t origin_y,
    float *mapped,       // [h, w, 2], comes as zeros
    uint8_t *coverage);  // [h, w], comes as zeros
LS_API void ls_remap(
    const uint8_t *image,  // [height, width, channels]
    int32_t height, int32_t width, int32_t channels,
    const float *mapped,  // [pixels, 2]
    int32_t pixels,
    uint8_t *out);  // [pixels, channels]
LS_API void ls_warp_mesh(
    const uint8_t *image,  // [height, width, channels]
    int32_t height, int32_t width, int32_t channels, const float *source_xy, const float *target_xy,
    const int32_t *triangles,  // [count, 3]
    int32_t count, int32_t h, int32_t w, int32_t origin_x, int32_t origin_y,
    uint8_t *out,        // [h, w, channels]; what no triangle covers stays
    uint8_t *coverage);  // [h, w], comes as zeros
// A frame with one rectangle warped within itself; vertices are relative to its corner.
LS_API void ls_warp_region(
    const uint8_t *i420, int32_t width, int32_t height, int32_t x, int32_t y, int32_t w, int32_t h,
    const float *source_xy, const float *target_xy,
    const int32_t *triangles,  // [count, 3]
    int32_t count,
    uint8_t *out);  // an i420 as well

// -------------------------------------------------------------------------- composite.cpp

LS_API void ls_blend(
    int32_t pixels,
    const uint8_t *background,  // [pixels, 3]
    const uint8_t *layer,       // [pixels, 3]
    const uint8_t *alpha,       // [pixels]
    uint8_t *out);              // [pixels, 3]; may be the background
LS_API void ls_blend_fractions(
    int32_t pixels, const uint8_t *background, const uint8_t *layer,
    const float *alpha,  // [pixels], 0 to 1
    uint8_t *out);
LS_API void ls_crossfade(
    int32_t n,
    const uint8_t *previous,  // [n]
    const uint8_t *next,      // [n]
    int32_t weight,           // of the next, 0 to 256
    uint8_t *out);            // [n]
LS_API void ls_weighted_sum(
    int32_t count, int32_t size,
    const float *layers,   // [count, size], levels
    const float *weights,  // [count]
    uint8_t *out);         // [size]

// ------------------------------------------------------------------------------- crop.cpp

LS_API void ls_crop_in(
    const uint8_t *picture,   // [height, width, 3]
    const uint8_t *conditioning,    // [height, width, 3]
    const uint8_t *prior,     // [prior_height, prior_width, 3] or null
    const uint8_t *previous,  // [rows, columns, 3] or null
    int32_t height, int32_t width, int32_t prior_height, int32_t prior_width, float left, float top,
    float step, int32_t rows, int32_t columns,
    uint8_t *crop,   // [rows, columns, 6]
    float *planes);  // [12, rows, columns]
LS_API void ls_apply_gates(
    const float *gates,   // [3, rows, columns]
    const float *planes,  // [12, rows, columns]
    int32_t rows, int32_t columns,
    float *scratch,      // [3 * rows + 1, columns]
    float *difference);  // [3, rows, columns]
LS_API void ls_unsharp_mask(
    const uint8_t *crop,  // [rows, columns, 6]
    int32_t rows, int32_t columns, float amount,
    float *refined,      // scratch [rows, columns]
    float *lines,        // scratch [3, columns]
    float *difference);  // [3, rows, columns], in place
LS_API void ls_attenuate_in_synthetic(
    const uint8_t *crop,  // [rows, columns, 6]
    int32_t rows, int32_t columns,
    const uint8_t *table,  // [256]; the first is 255
    uint8_t *spare,        // scratch [2, rows, columns]
    float *difference);    // [3, rows, columns], in place
LS_API void ls_crop_out(
    const float *difference,  // [3, rows, columns]
    const uint8_t *crop,      // [rows, columns, 6]
    int32_t rows, int32_t columns,
    const uint8_t *conditioning,  // [height, width, 3], the first channel the opacity
    int32_t height, int32_t width, float left, float top, float zoom,
    uint8_t *stored,    // scratch [rows, columns, 3]
    uint8_t *picture,   // [height, width, 3], in place
    uint8_t *refined);  // [rows, columns, 3]

// ------------------------------------------------------------------------------- face.cpp

LS_BRIEF void ls_drive(
    const float *basis,  // [coefficients, vertices, 3]
    int32_t coefficients, int32_t vertices,
    const float *canonical_vertices,  // [vertices, 3]
    const float *own,                 // [coefficients]
    const float *wanted,              // [coefficients]
    const int32_t *lips,              // [4, columns]
    int32_t columns, int32_t rows,
    float *driven,  // [vertices, 3]
    float *grid);   // [rows * columns, 3]
LS_BRIEF void ls_place(
    const float *pose,                // [9]
    const float *canonical_vertices,  // [vertices, 3]
    const float *driven,              // [vertices, 3]
    int32_t vertices,
    const float *grid,  // [grid_points, 3]
    int32_t grid_points,
    const int32_t *line,  // [length]
    int32_t length, int32_t centre,
    const float *rings,  // [ring_count, 2]
    int32_t ring_count,
    float *start,    // [vertices + ring_count * length, 2]
    float *moved,    // the same
    float *points);  // [vertices + grid_points, 2]
// Returns how many triangles are kept.
LS_BRIEF int32_t ls_moving_triangles(
    const float *start,        // [vertices, 2]
    const float *moved,        // [vertices, 2]
    const int32_t *triangles,  // [count, 3]
    int32_t count, float still_px,
    int32_t *kept,   // [count, 3]
    float *bounds);  // [4]
LS_BRIEF void ls_map_to_source(
    const float *driven,  // [vertices, 3]
    const float *grid,    // [rows * columns, 3]
    int32_t rows,
    const float *canonical_vertices,  // [vertices, 3], of the source
    int32_t vertices,
    const float *pose,    // [9], of the source
    const float *view,    // [3]: left, top, zoom
    const int32_t *lips,  // [4, columns]
    int32_t columns,
    const int32_t *chin,  // [chin_count]
    int32_t chin_count, float inset,
    float *scratch,     // [vertices + rows * columns, 3]
    float *points,      // [vertices + rows * columns, 2]
    float *confidence,  // [rows * columns]
    float *lowered);    // [1]
LS_BRIEF void ls_relight(
    uint8_t *layer,        // [h, w, 3], in place
    const uint8_t *below,  // [h, w, 3], its rows below_stride bytes apart
    int32_t below_stride, int32_t h, int32_t w,
    const float *points,  // [points, 2]
    const int32_t *skin,  // [count]
    int32_t count,
    const float *limits,  // [4], as `face.Limits`
    double *scratch,      // [6, count]
    float *along);        // scratch [w]
LS_BRIEF void ls_downsample2x(
    const uint8_t *fine,     // [2 * h, 2 * w, 3]
    const uint8_t *covered,  // [2 * h, 2 * w]
    int32_t h, int32_t w,
    uint8_t *window,  // [h, w, 3], its rows `stride` bytes apart, in place
    int32_t stride);

// --------------------------------------------------------------------------- features.cpp

typedef struct LsNormalisation {
    float energy_floor, floor_rise, sound_margin, peak_fall, speech_range, jump, jump_takes;
    float jump_keeps, memory_frames, prior_frames, lowest_level, per_nat, offset, range, centre, scale;
} LsNormalisation;

typedef struct LsFilterBank {
    const float *window;     // [400]
    const float *twiddles;   // [2, 512], cosine and minus sine of 2 pi k / 512
    const int32_t *first;    // [80], first bin of each filter
    const int32_t *width;    // [80], its bins
    const float *weights;    // [80, widest]
    int32_t widest;
    LsNormalisation normalisation;
} LsFilterBank;

LS_BRIEF void ls_features_step(
    const LsFilterBank *bank,
    const float *samples,  // [560]
    const float *state,    // [4]
    float *next_state,     // [4]
    float *features);      // [2, 80]

// ---------------------------------------------------------------------------- encoder.cpp

// Weights in blocks of 64 outputs, f16 [blocks, inputs, 64].
typedef struct LsLayer {
    const uint16_t *weights;
    const float *bias;  // [outputs]
    int32_t inputs;
    int32_t outputs;  // of the blocks: a multiple of 64
} LsLayer;

// Weights in blocks of 64 outputs and pairs of inputs, i8 [blocks, inputs / 2, 64, 2].
typedef struct LsIntegerLayer {
    const int8_t *weights;
    const float *scale;  // [outputs], what a weight of 1 is worth
    const float *bias;   // [outputs]
    int32_t inputs;      // even
    int32_t outputs;     // a multiple of 64
    int32_t limit;       // largest level of an input: no sum leaves 32 bits
} LsIntegerLayer;

typedef struct LsNorm {
    const float *weight;  // [384]
    const float *bias;    // [384]
} LsNorm;

typedef struct LsBlock {
    LsNorm before, middle;
    LsIntegerLayer query, key, value, out;  // [384, 384]
    LsIntegerLayer up;                      // [1536, 384]
    LsIntegerLayer down;                    // [384, 1536]
    const float *offsets;                   // [6, 63]
} LsBlock;

typedef struct LsEncoder {
    LsIntegerLayer conv1;      // [384, 240]
    LsIntegerLayer conv2;      // [384, 1152]
    const float *base;         // [384]
    LsBlock blocks[2];
    LsLayer taps[3];           // [tap width, 384]
    int32_t tap_widths[3];
    LsLayer gru_input;         // [3 * hidden, sum of tap widths]
    LsLayer gru_state;         // [3 * hidden, hidden]
    LsLayer phone;             // [look_aheads * phones, hidden]
    LsLayer head;              // [outputs, hidden]
    int32_t hidden, look_aheads, phones, outputs;
} LsEncoder;

LS_API void ls_affine(
    const float *x,           // [inputs]
    const LsLayer *layer,
    float *out);              // [outputs]
LS_API void ls_integer_affine(
    const float *x,           // [inputs]
    const LsIntegerLayer *layer,
    int16_t *levels,          // scratch [inputs]
    float *out);              // [outputs]
LS_API void ls_encoder_step(
    const LsEncoder *encoder,
    const float *features,  // [160]
    const float *frames,    // [160]
    const float *lifted,    // [384]
    const float *waiting,   // [2, 2, 384]
    const float *memory,    // [2, 2, 62, 384]
    const float *hidden,    // [hidden]
    float *scratch,         // [tap widths + 64 + the most of both GRU layers, phone, head]
    float *expression,      // [outputs]
    float *speech,          // [look_aheads]
    float *next_frames, float *next_lifted, float *next_waiting, float *next_memory,
    float *next_hidden);

// ------------------------------------------------------------------------ convolution.cpp

typedef struct LsConvolution {
    const int16_t *weights;
    const float *scale;  // [outputs], a sum of products to output levels
    const float *bias;   // [outputs], output levels
    int32_t inputs;      // channels, an even number
    int32_t outputs;     // a multiple of 8
    float ratio;         // of what is added on top, its level over the output's
} LsConvolution;

// Rows, columns and channels of the crop; widths at 1/2, 1/4, 1/8; residual blocks at 1/8 and 1/4.
typedef struct LsRendererSizes {
    int32_t rows, columns, channels, fine, middle, coarse, coarse_blocks, middle_blocks;
} LsRendererSizes;

// How many i16 a frame's scratch holds; it is 0 before the first frame.
LS_BRIEF int64_t ls_renderer_scratch(const LsRendererSizes *sizes);
// 0: this processor cannot run it; 1: it can; 2: it can, and has AVX-512 beside.
LS_BRIEF int32_t ls_renderer_fits(void);
LS_API void ls_renderer_run(
    const LsConvolution *layers, const LsRendererSizes *sizes,
    float level,          // of an input of 1
    const float *planes,  // [channels, rows, columns], 0 to 1
    int16_t *scratch,
    float *gates);  // [3, rows, columns]

// ------------------------------------------------------------------------ oral_cavity.cpp

// The teeth, tongue and light of one target.
typedef struct LsCavity {
    const float *teeth;    // [2, rows, columns, 4], RGB and coverage
    const float *colours;  // [5, 3]: tongue, dark, upper lip, lower lip, loss in shadow
    const float *grain;    // [32, 32]
    const float *shape;    // [11], as `oral_cavity.Cavity`
    int32_t rows, columns;
} LsCavity;

LS_API void ls_paint_cavity(
    const LsCavity *cavity,
    const float *motion,  // [6], as `oral_cavity.paint`
    const float *points,  // [count, 3]
    const float *lips,    // [count, 2]
    int32_t count,
    float *rgb);          // [count, 3]

// ----------------------------------------------------------------------- face_painter.cpp

// What never changes for a target.
typedef struct LsPainter {
    const float *basis;           // [coefficients, vertices, 3]
    const float *rings;           // [ring_count, 2]
    const int32_t *lips;          // [4, columns]
    const int32_t *line;          // [line_count]
    const int32_t *chin;          // [chin_count]
    const int32_t *jaw;           // [jaw_count, 3]
    const int32_t *mouth;         // [mouth_count, 3], lips and gap
    const int32_t *gap;           // [gap_count, 3], of the grid alone
    const int32_t *lip_vertices;  // [lip_vertex_count]
    const int32_t *skin;          // [skin_count]
    const uint8_t *texture;       // [texture_h, texture_w, 2], opacity and seam
    const float *texture_xy;      // [vertices + grid, 2]
    const float *gap_row;         // [grid], a conditioning map
    const float *look_xy;         // [vertices + grid, 2], of a mouth texture
    const float *limits;          // [4], as `face.Limits`
    int32_t coefficients, vertices, columns, rows, ring_count, line_count, chin_count, jaw_count;
    int32_t mouth_count, gap_count, lip_vertex_count, skin_count, texture_h, texture_w, centre;
    int32_t look_h, look_w;
    float still, inset, coordinate_limit, shadow_reach, slit;
    // Compared and multiplied in double precision, as Python does.
    double seam_depth, trusted, least_shown, least_lowered, lip_shadow, slit_depth;
    LsCavity cavity;
} LsPainter;

// One mouth to lay over another.
typedef struct LsSource {
    const uint8_t *rgb;               // [height, width, 3]
    const float *canonical_vertices;  // [vertices, 3]
    int32_t height, width;
    float share;  // of the blend of all sources
    float pose[9];
    float view[3];
} LsSource;

// Where everything goes. Returns 1 where a coordinate is not a number or beyond the limit, else 0.
LS_BRIEF int32_t ls_place_face(
    const LsPainter *painter,
    const float *pose,                // [9]
    const float *canonical_vertices,  // [vertices, 3]
    const float *own,                 // [coefficients]
    const float *wanted,              // [coefficients]
    const float *corners,             // [2, 2] that the patch must hold too, or null
    int32_t width, int32_t height,
    float *memory,   // [5 * (vertices + grid) + 4 * (vertices + ring_count * line_count)]
    int32_t *kept,   // [jaw_count, 3], triangles that move
    int32_t *box);   // [5]: x0, y0, x1, y1 of the patch and how many triangles are kept
// The pixels. `memory`, `kept` and `box` are what the first call left. Returns 1 where a mesh of a
// source has a coordinate that is not a number or beyond the limit, else 0.
LS_API int32_t ls_paint_face(
    const LsPainter *painter,
    float *memory, const int32_t *kept, const int32_t *box,
    const uint8_t *background,  // i420
    int32_t width, int32_t height,
    const float *motion,  // [6], as `oral_cavity.paint`
    const LsSource *sources,
    int32_t count,
    const uint8_t *mouth_texture,  // [look_h, look_w, 3], laid into `prior`, or null
    uint8_t *painted,     // [h, w, 3]
    uint8_t *mask,        // [h, w], comes as zeros
    uint8_t *conditioning,      // [h, w, 3], comes as zeros, or null
    uint8_t *prior,       // [prior_h, prior_w, 3] or null
    int32_t prior_h, int32_t prior_w,
    uint8_t *frame,   // i420, becomes the background with the patch in it; or null
    int64_t *spent);  // [3], ns of color, warp and composite; or null

// -------------------------------------------------------------------------- watermark.cpp

LS_API void ls_add_waves(
    uint8_t *i420, int32_t width, int32_t height,
    const int8_t *waves,     // [height, width]
    const uint8_t *dither);  // [64, width]
