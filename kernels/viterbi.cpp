// Steps of a Viterbi search, around the bodies in cuda/viterbi.cuh.

#include <limits>

#include "cuda/viterbi.cuh"
#include "lipstream_kernels.h"

// One state after the other, scalar: hardware gathers over eight states at a time were three times
// slower (0.6 against 0.18 ms for 15000 x 20, AMD EPYC, 2026), so this loop is not multiversioned.
LS_EXPORT void ls_min_plus(
    int32_t states, int32_t slots, const float *score, const int32_t *predecessors,
    const float *cost, const float *emission, float *best, int32_t *back) {
    for (int n = 0; n < states; ++n) {
        float lowest = std::numeric_limits<float>::infinity();
        int chosen = -1;
        for (int p = 0; p < slots; ++p) {
            ls_relax(score[predecessors[p]] + cost[p], predecessors[p], &lowest, &chosen);
        }
        best[n] = lowest + emission[n];
        back[n] = chosen;
        predecessors += slots;
        cost += slots;
    }
}

LS_EXPORT int32_t ls_trace_back(
    int32_t states, int32_t depth, const int32_t *const *backs, int32_t count, const int32_t *from,
    int32_t *ancestors) {
    for (int n = 0; n < count; ++n) {
        int state = from[n];
        for (int d = 0; d < depth && state >= 0; ++d) {
            if (state >= states) return 1;
            state = backs[d][state];
        }
        if (state < -1 || state >= states) return 1;
        ancestors[n] = state;
    }
    return 0;
}

LS_MULTIVERSION static void add_squares(
    int n, const float *__restrict row, float wanted, float *__restrict total) {
    for (int i = 0; i < n; ++i) total[i] += ls_square(row[i] - wanted);
}

LS_EXPORT void ls_feature_distance(
    int32_t n, int32_t k, const float *features, const float *wanted, const float *base,
    float *total) {
    for (int first = 0; first < n; first += 4 * kBlock) {
        const int count = ls_min(4 * kBlock, n - first);
        for (int i = first; i < first + count; ++i) total[i] = base[i];
        for (int j = 0; j < k; ++j) {
            add_squares(count, features + (int64_t)j * n + first, wanted[j], total + first);
        }
    }
}
