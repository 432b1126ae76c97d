/* kernels/cpu/cpu_swiglu.c - the gated activation of the MLP, forward and backward. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/gelu.h"
#include "kernels/cpu/simd.h"

enum { ELEMENTS_A_TASK = 1 << 15 };

SIMD_FN(void, forward, (const void *op, int64_t lo, int64_t hi), (op, lo, hi))
{
    const struct op_swiglu *a = op;
    const float *gate = a->gate, *up = a->up;
    float *y = a->y;

    /* y = g sigmoid(g) up */
    SIMD_LOOP
    for (int64_t i = lo; i < hi; i++)
        y[i] = gate[i] / (1.0f + simd_exp(-gate[i])) * up[i];
}

int cpu_swiglu(struct device *d, const struct op_swiglu *a)
{
    cpu_ranges(cpu_of(d), a->n, ELEMENTS_A_TASK, a->f == GATE_SILU && a->up ? forward : gelu_forward, a);
    return 0;
}

/* s = sigmoid(g): d_gate = dy up s (1 + g (1 - s)), d_up = dy g s. */
SIMD_FN(void, back, (const void *op, int64_t lo, int64_t hi), (op, lo, hi))
{
    const struct op_swiglu_back *a = op;
    const float *gate = a->gate, *up = a->up, *dy = a->dy;
    float *d_gate = a->d_gate, *d_up = a->d_up;

    if (a->y) /* before gate and up are overwritten */
        forward(&(struct op_swiglu){ a->n, a->gate, a->up, a->y, a->f }, lo, hi);
    SIMD_LOOP
    for (int64_t i = lo; i < hi; i++) {
        float g = gate[i], u = up[i], dv = dy[i], e = simd_exp(-g), s = 1.0f / (1.0f + e);
        d_gate[i] = dv * u * s * (1.0f + g * (e * s));
        d_up[i] = dv * (g * s);
    }
}

int cpu_swiglu_back(struct device *d, const struct op_swiglu_back *a)
{
    cpu_ranges(cpu_of(d), a->n, ELEMENTS_A_TASK, a->f == GATE_SILU && a->up ? back : gelu_back, a);
    return 0;
}
