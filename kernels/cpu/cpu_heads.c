/* kernels/cpu/cpu_heads.c - copying heads from one layout to another. */
#include "kernels/cpu/cpu.h"

#include <string.h>

enum { ELEMENTS_A_TASK = 1 << 15 };

static void copy(const void *op, int64_t lo, int64_t hi)
{
    const struct op_heads *a = op;

    for (int64_t r = lo; r < hi; r++)
        for (int64_t h = 0; h < a->heads; h++)
            memcpy((float *)a->y + r * a->y_ld + h * a->y_stride,
                   (const float *)a->x + r * a->x_ld + h * a->x_stride, (size_t)a->dim * sizeof(float));
}

int cpu_heads(struct device *d, const struct op_heads *a)
{
    cpu_ranges(cpu_of(d), a->rows, max_i64(ELEMENTS_A_TASK / max_i64(a->heads * a->dim, 1), 1), copy, a);
    return 0;
}
