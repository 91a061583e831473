// A driver with one card that is the host: what pycuda calls for the proof, over plain memory. The
// kernels come from a library (KERNELS_ON_HOST) and run pixel after pixel. It refuses what a driver
// refuses: work without a current context, memory that is not its own, a stream that is none.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { OK, INVALID = 1, NO_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600 };
typedef struct { unsigned x, y, z; } Index;
typedef struct { void *run; const char *kinds; } Function;  // kinds: P a pointer, i an int
typedef struct { const char *name, *kinds; } Signature;
static const Signature signatures[] = {SIGNATURES {0, 0}};

static int contexts, retained;  // that are current; that are held
static long used;
static Index *at[4];
static int a_context, streams[64], next_stream;

#define NEEDS_CONTEXT if (!contexts) return NO_CONTEXT
#define NEEDS_STREAM(s) if ((int *)(s) < streams || (int *)(s) >= streams + 64) return INVALID_HANDLE

int cuGetErrorString(int error, const char **text) {
    *text = error == NO_CONTEXT ? "invalid device context" : error == INVALID_HANDLE
        ? "invalid resource handle" : error == NOT_READY ? "device not ready" : "an error";
    return OK;
}
int cuInit(unsigned flags) { return OK; }
int cuDriverGetVersion(int *version) { *version = 13000; return OK; }
int cuDeviceGetCount(int *count) { *count = 1; return OK; }
int cuDeviceGet(int *device, int ordinal) { *device = 0; return ordinal ? 101 : OK; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "a host", size); return OK; }
int cuDeviceComputeCapability(int *major, int *minor, int d) { *major = 9, *minor = 0; return OK; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 1l << 33; return OK; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 38 ? 1 << 20 : 1;  // 38: bytes of the last cache
    return OK;
}
int cuDevicePrimaryCtxRetain(void **context, int device) {
    ++retained;
    *context = &a_context;
    return OK;
}
int cuDevicePrimaryCtxRelease_v2(int device) { return retained-- > 0 ? OK : INVALID; }
int cuCtxDetach(void *context) { abort(); }  // of a primary context: torch may still use it
int cuCtxPushCurrent_v2(void *context) {
    if (context != &a_context) return NO_CONTEXT;
    ++contexts;
    return OK;
}
int cuCtxPopCurrent_v2(void **context) {
    NEEDS_CONTEXT;
    --contexts;
    *context = &a_context;
    return OK;
}
int cuCtxGetDevice(int *device) { NEEDS_CONTEXT; *device = 0; return OK; }
int cuCtxSynchronize(void) { NEEDS_CONTEXT; return OK; }

int cuMemAlloc_v2(uint64_t *address, size_t size) {
    NEEDS_CONTEXT;
    if (!size) return INVALID;
    *address = (uint64_t)aligned_alloc(256, (size + 255) & ~255ul);
    used += malloc_usable_size((void *)*address);
    return OK;
}
int cuMemFree_v2(uint64_t address) {
    NEEDS_CONTEXT;
    used -= malloc_usable_size((void *)address);
    free((void *)address);
    return OK;
}
int cuMemGetInfo_v2(size_t *left, size_t *total) {
    NEEDS_CONTEXT;
    *total = 1l << 33, *left = *total - used;
    return OK;
}
int cuMemHostAlloc(void **memory, size_t size, unsigned flags) {
    NEEDS_CONTEXT;
    *memory = malloc(size);
    return OK;
}
int cuMemFreeHost(void *memory) { free(memory); return OK; }
int cuMemcpyHtoDAsync_v2(uint64_t onto, const void *from, size_t size, void *stream) {
    NEEDS_CONTEXT; NEEDS_STREAM(stream);
    memcpy((void *)onto, from, size);
    return OK;
}
int cuMemcpyDtoHAsync_v2(void *onto, uint64_t from, size_t size, void *stream) {
    NEEDS_CONTEXT; NEEDS_STREAM(stream);
    memcpy(onto, (void *)from, size);
    return OK;
}
int cuMemcpyDtoDAsync_v2(uint64_t onto, uint64_t from, size_t size, void *stream) {
    NEEDS_CONTEXT; NEEDS_STREAM(stream);
    memcpy((void *)onto, (void *)from, size);
    return OK;
}
int cuMemsetD8Async(uint64_t onto, unsigned char value, size_t size, void *stream) {
    NEEDS_CONTEXT; NEEDS_STREAM(stream);
    memset((void *)onto, value, size);
    return OK;
}

int cuStreamCreate(void **stream, unsigned flags) {
    NEEDS_CONTEXT;
    if (flags != 1 || next_stream == 64) return INVALID;
    *stream = &streams[next_stream++];
    return OK;
}
int cuStreamDestroy_v2(void *stream) { return OK; }
int cuStreamSynchronize(void *stream) { NEEDS_CONTEXT; NEEDS_STREAM(stream); return OK; }

int cuEventCreate(void **event, unsigned flags) {
    NEEDS_CONTEXT;
    *event = calloc(1, sizeof(struct timespec));
    return OK;
}
int cuEventDestroy_v2(void *event) { free(event); return OK; }
int cuEventRecord(void *event, void *stream) {
    NEEDS_CONTEXT; NEEDS_STREAM(stream);
    clock_gettime(CLOCK_MONOTONIC, event);
    return OK;
}
int cuEventQuery(void *event) { NEEDS_CONTEXT; return NOT_READY; }
int cuEventSynchronize(void *event) { NEEDS_CONTEXT; return OK; }
int cuEventElapsedTime_v2(float *ms, void *begin, void *end) {
    const struct timespec *a = begin, *b = end;
    *ms = (b->tv_sec - a->tv_sec) * 1e3f + (b->tv_nsec - a->tv_nsec) * 1e-6f;
    return OK;
}

int cuModuleLoadDataEx(void **module, const void *image, unsigned n, void *names, void *values) {
    NEEDS_CONTEXT;
    const char *places[] = {"blockIdx", "blockDim", "gridDim", "threadIdx"};
    *module = dlopen(getenv("KERNELS_ON_HOST"), RTLD_NOW);
    if (!*module) return NOT_FOUND;
    for (int k = 0; k < 4; ++k) at[k] = dlsym(*module, places[k]);
    return OK;
}
int cuModuleLoadData(void **module, const void *image) {
    return cuModuleLoadDataEx(module, image, 0, 0, 0);
}
int cuFuncSetBlockShape(void *function, int x, int y, int z) { NEEDS_CONTEXT; return OK; }
int cuModuleUnload(void *module) { return OK; }
int cuModuleGetFunction(void **function, void *module, const char *name) {
    for (const Signature *s = signatures; s->name; ++s) {
        if (strcmp(s->name, name)) continue;
        Function *made = malloc(sizeof(Function));
        made->run = dlsym(module, name), made->kinds = s->kinds;
        *function = made;
        return made->run ? OK : NOT_FOUND;
    }
    return NOT_FOUND;
}
int cuLaunchKernel(
    Function *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
    unsigned shared, void *stream, void **parameters, void **extra) {
    NEEDS_CONTEXT; NEEDS_STREAM(stream);
    const char *packed = extra[1];
    size_t size = *(size_t *)extra[3], place = 0;
    uint64_t a[12] = {0};
    if (bx * by * bz > 1024 || !gx || !gy || !gz) return INVALID;
    for (int k = 0; f->kinds[k]; ++k) {
        const size_t width = f->kinds[k] == 'P' ? 8 : 4;
        place = (place + width - 1) / width * width;
        if (place + width > size) return INVALID;
        memcpy(&a[k], packed + place, width);
        place += width;
    }
    if (place != size) return INVALID;
    *at[1] = *at[2] = (Index){1, 1, 1};
    at[2]->z = gz;
    *at[3] = *at[0] = (Index){0, 0, 0};
    for (at[0]->z = 0; at[0]->z < gz; ++at[0]->z) {
        // Integers in twelve registers and places of the stack: what is not taken does no harm.
        ((void (*)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                   uint64_t, uint64_t, uint64_t, uint64_t))f->run)(
            a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11]);
    }
    return OK;
}
