/* kernels/cpu/cpu_adamw.c - one step of AdamW over flat arrays. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd.h"

#include <math.h>

enum { ELEMENTS_A_TASK = 1 << 15 };

struct step {
    const struct op_adamw *a;
    float rest1, rest2;       /* 1 - beta */
    float unbias1, unbias2;   /* 1 / (1 - beta^step) */
};

SIMD_FN(void, update, (const void *op, int64_t lo, int64_t hi), (op, lo, hi))
{
    const struct step *s = op;
    const struct op_adamw *a = s->a;
    float *w = a->w, *m = a->m, *v = a->v;
    const float *grad = a->grad;
    const float lr = a->lr, b1 = a->beta1, b2 = a->beta2, eps = a->eps, decay = a->decay;
    const float gs = a->grad_scale, r1 = s->rest1, r2 = s->rest2, u1 = s->unbias1;
    const float u2 = s->unbias2;

    /* m and v are running means of the gradient and of its square, made unbiased; the decay
     * is apart from them, in proportion to w itself */
    SIMD_LOOP
    for (int64_t i = lo; i < hi; i++) {
        float g = grad[i] * gs, mi = b1 * m[i] + r1 * g, vi = b2 * v[i] + r2 * (g * g);
        m[i] = mi;
        v[i] = vi;
        w[i] -= lr * (mi * u1 / (sqrtf(vi * u2) + eps) + decay * w[i]);
    }
}

int cpu_adamw(struct device *d, const struct op_adamw *a)
{
    double b1 = (double)a->beta1, b2 = (double)a->beta2, t = (double)a->step;
    struct step s = { a, (float)(1 - b1), (float)(1 - b2), (float)(1 / (1 - pow(b1, t))),
                      (float)(1 / (1 - pow(b2, t))) };

    if (a->step < 1)
        return E_BUG;
    cpu_ranges(cpu_of(d), a->n, ELEMENTS_A_TASK, update, &s);
    return 0;
}
