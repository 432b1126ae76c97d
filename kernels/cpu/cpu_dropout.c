/* kernels/cpu/cpu_dropout.c - elements left out by their numbers. */
#include "base/perm.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd.h"

enum { ELEMENTS_A_TASK = 1 << 15 };

SIMD_FN(void, dropout, (const void *op, int64_t lo, int64_t hi), (op, lo, hi))
{
    const struct op_dropout *a = op;
    const float *x = a->x, scale = 65536.0f / (float)(65536 - a->drop);
    float *y = a->y;

    SIMD_LOOP
    for (int64_t i = lo; i < hi; i++) {
        uint64_t k = (uint64_t)(a->first + i), bits = mix64(a->seed ^ k / 4) >> (16 * (k % 4));
        y[i] = (uint32_t)(bits & 0xFFFF) >= a->drop ? x[i] * scale : 0.0f;
    }
}

int cpu_dropout(struct device *d, const struct op_dropout *a)
{
    cpu_ranges(cpu_of(d), a->n, ELEMENTS_A_TASK, dropout, a);
    return 0;
}
