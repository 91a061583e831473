// The same bodies for the GPU, batched: the z index of the grid is the session. No entry point
// calls another; each pointer is device memory laid out as in kernels/reference, with the
// sessions as a leading dimension. kernels/cuda/loader.py launches them.
//
// Compile: python kernels/build.py --gpu

#include "color.cuh"
#include "composite.cuh"
#include "viterbi.cuh"
#include "mesh.cuh"

#define LS_KERNEL extern "C" __global__ void

// One thread per chroma sample: four pixels.
LS_KERNEL ls_gpu_i420_to_rgb(const uint8_t *i420, int w, int h, uint8_t *rgb) {
    const int cx = blockIdx.x * blockDim.x + threadIdx.x;
    const int cy = blockIdx.y * blockDim.y + threadIdx.y;
    if (cx >= w / 2 || cy >= h / 2) return;
    const int64_t pixels = (int64_t)w * h;
    const uint8_t *luma = i420 + blockIdx.z * (pixels * 3 / 2);
    const int64_t chroma = (int64_t)cy * (w / 2) + cx;
    const int u = luma[pixels + chroma], v = luma[pixels + pixels / 4 + chroma];
    uint8_t *out = rgb + blockIdx.z * (pixels * 3);
    for (int k = 0; k < 4; ++k) {
        const int64_t pixel = (int64_t)(2 * cy + k / 2) * w + 2 * cx + k % 2;
        ls_rgb_from_yuv(luma[pixel], u, v, out + 3 * pixel);
    }
}

// One thread per chroma sample; mask u8 [sessions, h, w] or null.
LS_KERNEL ls_gpu_rgb_into_i420(const uint8_t *rgb, const uint8_t *mask, int w, int h, uint8_t *i420) {
    const int cx = blockIdx.x * blockDim.x + threadIdx.x;
    const int cy = blockIdx.y * blockDim.y + threadIdx.y;
    if (cx >= w / 2 || cy >= h / 2) return;
    const int64_t pixels = (int64_t)w * h;
    const uint8_t *in = rgb + blockIdx.z * (pixels * 3);
    uint8_t *luma = i420 + blockIdx.z * (pixels * 3 / 2);
    int red = 0, green = 0, blue = 0;
    bool any = false;
    for (int k = 0; k < 4; ++k) {
        const int64_t pixel = (int64_t)(2 * cy + k / 2) * w + 2 * cx + k % 2;
        const uint8_t *p = in + 3 * pixel;
        red += p[0], green += p[1], blue += p[2];
        if (!mask || mask[blockIdx.z * pixels + pixel]) {
            any = true;
            luma[pixel] = ls_y_from_rgb(p[0], p[1], p[2]);
        }
    }
    if (any) {
        const int64_t chroma = (int64_t)cy * (w / 2) + cx;
        luma[pixels + chroma] = ls_u_from_quad(red, green, blue);
        luma[pixels + pixels / 4 + chroma] = ls_v_from_quad(red, green, blue);
    }
}

// One thread per state; all sessions walk the same graph.
LS_KERNEL ls_gpu_min_plus(
    int states, int slots, const float *score, const int32_t *predecessors, const float *cost,
    const float *emission, float *best, int32_t *back) {
    const int n = blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= states) return;
    const int64_t session = (int64_t)blockIdx.z * states;
    float lowest = __builtin_huge_valf();
    int chosen = -1;
    for (int p = 0; p < slots; ++p) {
        const int from = predecessors[(int64_t)n * slots + p];
        ls_relax(score[session + from] + cost[(int64_t)n * slots + p], from, &lowest, &chosen);
    }
    best[session + n] = lowest + emission[session + n];
    back[session + n] = chosen;
}

// One thread per output pixel. Triangles are tried from the last, which is on top, to the first.
// origins i32 [sessions, 2]; all sessions share the triangles.
LS_KERNEL ls_gpu_mesh_map(
    const float *source_xy, const float *target_xy, int vertices, const int32_t *triangles,
    int count, const int32_t *origins, int w, int h, float *mapped, uint8_t *coverage) {
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    const int row = blockIdx.y * blockDim.y + threadIdx.y;
    if (column >= w || row >= h) return;
    const int64_t session = blockIdx.z;
    const float *source = source_xy + session * vertices * 2;
    const float *target = target_xy + session * vertices * 2;
    const int64_t pixel = (session * h + row) * w + column;
    float xy[2] = {0, 0};
    bool covered = false;
    for (int i = count - 1; i >= 0 && !covered; --i) {
        LsTriangle t;
        covered = ls_setup_triangle(
                      source, target, triangles + 3 * i, origins[2 * session],
                      origins[2 * session + 1], &t) &&
                  ls_map_pixel(t, column, row, xy);
    }
    mapped[2 * pixel] = xy[0];
    mapped[2 * pixel + 1] = xy[1];
    coverage[pixel] = covered ? 255 : 0;
}

// One thread per output pixel; uncovered pixels (coverage may be null) become 0.
LS_KERNEL ls_gpu_remap(
    const uint8_t *images, int height, int width, int channels, const float *mapped,
    const uint8_t *coverage, int pixels, uint8_t *out) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= pixels) return;
    const int64_t session = blockIdx.z, pixel = session * pixels + i;
    uint8_t *value = out + pixel * channels;
    if (coverage && !coverage[pixel]) {
        for (int c = 0; c < channels; ++c) value[c] = 0;
        return;
    }
    const uint8_t *image = images + session * height * width * channels;
    ls_sample(image, height, width, channels, mapped + 2 * pixel, value);
}

// One thread per pixel; alpha f32, gain_bias f32 [sessions, 2, 3] or null.
LS_KERNEL ls_gpu_blend(
    int pixels, const uint8_t *background, const uint8_t *layer, const float *alpha,
    const float *gain_bias, uint8_t *out) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= pixels) return;
    const int64_t session = blockIdx.z, pixel = session * pixels + i;
    const int steps = ls_alpha_steps(alpha[pixel]);
    for (int c = 0; c < 3; ++c) {
        int front = layer[3 * pixel + c];
        if (gain_bias) {
            const float *match = gain_bias + 6 * session;
            front = ls_match_color(front, match[c], match[3 + c]);
        }
        out[3 * pixel + c] = ls_blend_steps(background[3 * pixel + c], front, steps);
    }
}
