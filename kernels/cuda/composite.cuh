// Layer over background, over one colour value.
#pragma once

#include "common.cuh"

LS_BODY uint8_t ls_blend_u8(int background, int layer, int alpha) {
    // round(x / 255), exact for this range; at most 65407, and 16 bits vectorise twice as wide.
    const uint16_t total = (uint16_t)(background * (255 - alpha) + layer * alpha + 128);
    return (uint8_t)((uint16_t)(total + (total >> 8)) >> 8);
}

LS_BODY int ls_alpha_steps(float alpha) {
    const float bounded = alpha > 0 ? (alpha < 1 ? alpha : 1.0f) : 0.0f;
    return (int)(bounded * 4096.0f + 0.5f);
}

LS_BODY uint8_t ls_blend_steps(int background, int layer, int steps) {
    return (uint8_t)((background * (4096 - steps) + layer * steps + 2048) >> 12);
}

LS_BODY uint8_t ls_match_color(int layer, float gain, float bias) {
    const float value = (float)layer * gain + bias + 0.5f;
    const float bounded = value < 0 ? 0.0f : (value > 255 ? 255.0f : value);
    return (uint8_t)(int)bounded;  // not negative: truncation is floor
}
