// Arithmetic that face.cpp and face_painter.cpp share.
#pragma once

#include "cuda/common.cuh"

LS_BODY float clamp(float x, float low, float high) {
    const float least = x > low ? x : low;
    return least < high ? least : high;
}

LS_BODY float smoothstep(float x) {
    const float t = clamp(x, 0.0f, 1.0f);
    return t * t * (3 - 2 * t);
}
