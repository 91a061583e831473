// One source, two compilers: bodies over one pixel or one state, shared by the CPU's files and
// lipstream.cu. The twins in kernels/reference say what each must compute, with the same bits; that
// is why neither compiler may fuse multiply and add (-ffp-contract=off, --fmad=false).
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define LS_BODY __host__ __device__ __forceinline__
#else
#define LS_BODY static inline __attribute__((always_inline))
#endif

LS_BODY int ls_min(int a, int b) { return a < b ? a : b; }
LS_BODY int ls_max(int a, int b) { return a > b ? a : b; }
LS_BODY uint8_t ls_clip_u8(int v) { return (uint8_t)ls_min(ls_max(v, 0), 255); }
