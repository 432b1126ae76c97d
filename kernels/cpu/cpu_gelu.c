/* kernels/cpu/cpu_gelu.c - activations other than the SiLU gate, forward and backward. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/gelu.h"
#include "kernels/cpu/simd.h"

#include <math.h>

/* f(z) and its slope. */
static inline float value(enum gate f, float z, float *slope)
{
    /* sqrt(2 / pi), 1 / sqrt(2 pi), 1 / sqrt 2 */
    const float a = 0.79788456080286536f, b = 0.39894228040143268f, c = 0.70710678118654752f;
    float p, t, u;

    switch (f) {
    case GATE_GELU:
        p = 0.5f * (1.0f + erff(c * z));
        *slope = p + z * b * expf(-0.5f * z * z);
        return z * p;
    case GATE_GELU_TANH:
        u = a * (z + 0.044715f * z * z * z);
        t = tanhf(u);
        *slope = 0.5f * (1.0f + t) + 0.5f * z * (1.0f - t * t) * a * (1.0f + 3.0f * 0.044715f * z * z);
        return 0.5f * z * (1.0f + t);
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

    for (int64_t i = lo; i < hi; i++)
        y[i] = value(a->f, gate[i], &unused) * (up ? up[i] : 1.0f);
}

void gelu_back(const void *op, int64_t lo, int64_t hi)
{
    const struct op_swiglu_back *a = op;
    const float *gate = a->gate, *up = a->up, *dy = a->dy;
    float *d_gate = a->d_gate, *d_up = a->d_up, *y = a->y;

    for (int64_t i = lo; i < hi; i++) {
        float slope, v = value(a->f, gate[i], &slope), u = up ? up[i] : 1.0f, e = dy[i];

        if (y)
            y[i] = v * u;
        d_gate[i] = e * u * slope;
        if (up)
            d_up[i] = e * v;
    }
}
