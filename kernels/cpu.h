// How the sources for the CPU export functions and choose instruction sets.
#pragma once

#if defined(_WIN32)
#define LS_EXPORT extern "C" __declspec(dllexport)
#else
#define LS_EXPORT extern "C" __attribute__((visibility("default")))
#endif

// What each promises to Python is in lipstream_kernels.h; to the compiler they are one.
#define LS_API LS_EXPORT
#define LS_BRIEF LS_EXPORT
#define LS_EITHER LS_EXPORT

// Wheels travel, so the baseline is plain x86-64; the hot loops exist once more for AVX2 and the
// dynamic linker picks. No FMA in the list: it would change nothing here (contraction is off).
// LS_BASELINE_ONLY leaves the second set out, for the test that both agree.
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(LS_BASELINE_ONLY)
#define LS_MULTIVERSION __attribute__((target_clones("avx2", "default")))
#else
#define LS_MULTIVERSION
#endif

// Code with AVX2's own instructions, for functions that ask `has_avx2` before they call it.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(LS_BASELINE_ONLY)
#define LS_AVX2 1
#include <immintrin.h>
#define LS_TARGET_AVX2 __attribute__((target("avx2")))
static const bool has_avx2 = __builtin_cpu_supports("avx2");
#else
#define LS_AVX2 0
#endif

// A method that must not be a call of its own: it is the body of a loop.
#define LS_METHOD inline __attribute__((always_inline))

// Pixels that go through a loop at a time: their scratch stays in the first cache.
static const int kBlock = 512;
