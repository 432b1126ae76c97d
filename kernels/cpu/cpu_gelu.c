/* kernels/cpu/cpu_gelu.c - activations other than the SiLU gate, forward and backward. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/gelu.h"
#include "kernels/cpu/simd.h"

#include <math.h>

/* gelu's tanh form and its slope. */
SIMD_INLINE float tanh_value(float z, float *slope)
{
    const float a = 0.79788456080286536f; /* sqrt(2 / pi) */
    float t = simd_tanh(a * (z + 0.044715f * z * z * z));

    *slope = 0.5f * (1.0f + t) + 0.5f * z * (1.0f - t * t) * a * (1.0f + 3.0f * 0.044715f * z * z);
    return 0.5f * z * (1.0f + t);
}

/* The tanh form alone: gated models have it in every layer. */
SIMD_FN(void, tanh_forward, (const struct op_swiglu *a, int64_t lo, int64_t hi), (a, lo, hi))
{
    const float *gate = a->gate, *up = a->up;
    float *y = a->y, unused;

    SIMD_LOOP
    for (int64_t i = lo; i < hi; i++)
        y[i] = tanh_value(gate[i], &unused) * (up ? up[i] : 1.0f);
}

/* The same of its backward, where there is an up. */
SIMD_FN(void, tanh_back, (const struct op_swiglu_back *a, int64_t lo, int64_t hi), (a, lo, hi))
{
    const float *gate = a->gate, *up = a->up, *dy = a->dy;
    float *d_gate = a->d_gate, *d_up = a->d_up, *y = a->y;

    SIMD_LOOP
    for (int64_t i = lo; i < hi; i++) {
        float slope, v = tanh_value(gate[i], &slope), u = up[i], e = dy[i];

        if (y)
            y[i] = v * u;
        d_gate[i] = e * u * slope;
        d_up[i] = e * v;
    }
}

/* f(z) and its slope. */
static inline float value(enum gate f, float z, float *slope)
{
    /* 1 / sqrt(2 pi), 1 / sqrt 2 */
    const float b = 0.39894228040143268f, c = 0.70710678118654752f;
    float p;

    switch (f) {
    case GATE_GELU:
        p = 0.5f * (1.0f + erff(c * z));
        *slope = p + z * b * expf(-0.5f * z * z);
        return z * p;
    case GATE_GELU_TANH:
        return tanh_value(z, slope);
    default:
        p = 1.0f / (1.0f + simd_exp(-z));
        *slope = p * (1.0f + z * (1.0f - p));
        return z * p;
    }
}

void gelu_forward(const void *op, int64_t lo, int64_t hi)
{
    const struct op_swiglu *a = op;
    const float *gate = a->gate, *up = a->up;
    float *y = a->y, unused;

    if (a->f == GATE_GELU_TANH) {
        tanh_forward(a, lo, hi);
        return;
    }
    for (int64_t i = lo; i < hi; i++)
        y[i] = value(a->f, gate[i], &unused) * (up ? up[i] : 1.0f);
}

void gelu_back(const void *op, int64_t lo, int64_t hi)
{
    const struct op_swiglu_back *a = op;
    const float *gate = a->gate, *up = a->up, *dy = a->dy;
    float *d_gate = a->d_gate, *d_up = a->d_up, *y = a->y;

    if (a->f == GATE_GELU_TANH && up) {
        tanh_back(a, lo, hi);
        return;
    }
    for (int64_t i = lo; i < hi; i++) {
        float slope, v = value(a->f, gate[i], &slope), u = up ? up[i] : 1.0f, e = dy[i];

        if (y)
            y[i] = v * u;
        d_gate[i] = e * u * slope;
        if (up)
            d_up[i] = e * v;
    }
}
