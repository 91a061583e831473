// The dynamic-programming step, over one state.
#pragma once

#include "common.cuh"

// Strictly less: ties stay with the lowest slot, and -1 stays where no way in is finite.
LS_BODY void ls_relax(float candidate, int predecessor, float *best, int *back) {
    const bool better = candidate < *best;
    *best = better ? candidate : *best;
    *back = better ? predecessor : *back;
}

LS_BODY float ls_square(float x) { return x * x; }
