// Lets g++ compile lipstream.cu: each kernel becomes a function that runs one thread.
#pragma once

#define __global__ __attribute__((visibility("default")))

struct Index {
    unsigned x, y, z;
};

extern "C" {
__attribute__((visibility("default"))) Index blockIdx, blockDim, gridDim, threadIdx;
}
