/* kernels/cpu/cpu_vec.c - adding, multiplying, converting and measuring flat arrays. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd.h"

enum { ELEMENTS_A_TASK = 1 << 16 };

SIMD_FN(void, add, (const void *op, int64_t lo, int64_t hi), (op, lo, hi))
{
    const struct op_add *a = op;
    const float *x = a->x;
    float *y = a->y;

    SIMD_LOOP
    for (int64_t i = lo; i < hi; i++)
        y[i] += x[i];
}

int cpu_add(struct device *d, const struct op_add *a)
{
    cpu_ranges(cpu_of(d), a->n, ELEMENTS_A_TASK, add, a);
    return 0;
}

SIMD_FN(void, scale, (const void *op, int64_t lo, int64_t hi), (op, lo, hi))
{
    const struct op_scale *a = op;
    float *x = a->x;

    SIMD_LOOP
    for (int64_t i = lo; i < hi; i++)
        x[i] *= a->by;
}

int cpu_scale(struct device *d, const struct op_scale *a)
{
    cpu_ranges(cpu_of(d), a->n, ELEMENTS_A_TASK, scale, a);
    return 0;
}

SIMD_FN(void, softcap, (const void *op, int64_t lo, int64_t hi), (op, lo, hi))
{
    const struct op_softcap *a = op;
    float *x = a->x, cap = a->cap;

    for (int64_t i = lo; i < hi; i++)
        x[i] = cap * simd_tanh(x[i] / cap);
}

int cpu_softcap(struct device *d, const struct op_softcap *a)
{
    if (!(a->cap > 0))
        return E_BUG;
    cpu_ranges(cpu_of(d), a->n, ELEMENTS_A_TASK, softcap, a);
    return 0;
}

SIMD_FN(void, strip, (const void *op, int64_t lo, int64_t hi), (op, lo, hi))
{
    const struct op_strip *a = op;

    for (int64_t r = lo; r < hi; r++) {
        const float *restrict x = (const float *)a->x + r * a->x_ld;
        float *restrict y = (float *)a->y + r * a->y_ld;

        if (!a->add) {
            memcpy(y, x, (size_t)a->cols * sizeof *y);
            continue;
        }
        SIMD_LOOP
        for (int64_t c = 0; c < a->cols; c++)
            y[c] += x[c];
    }
}

int cpu_strip(struct device *d, const struct op_strip *a)
{
    if (a->rows < 0 || a->cols < 0 || a->x_ld < a->cols || a->y_ld < a->cols)
        return E_BUG;
    cpu_ranges(cpu_of(d), a->rows, ELEMENTS_A_TASK / (a->cols < 1 ? 1 : a->cols) + 1, strip, a);
    return 0;
}

SIMD_INLINE float from_bf16(uint16_t h) { return float_of((uint32_t)h << 16); }

/* To nearest, ties to even; a NaN keeps its sign and stays a NaN. */
SIMD_INLINE uint16_t to_bf16(float f)
{
    /* Adding just under half of the last kept place rounds; the last kept bit is added, too,
     * so that a tie goes to even. A NaN is cut instead, with one bit set, lest it become
     * infinity. */
    uint32_t u = bits_of(f), round = (u + 0x7fffu + ((u >> 16) & 1)) >> 16;

    return (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : round);
}

/* Normal numbers by shifting the exponent's bias (15 to 127), subnormal ones by letting the
 * hardware normalise: a half's fraction under the exponent of 2^-14, less 2^-14. */
SIMD_INLINE float from_f16(uint16_t h)
{
    /* float32 has 13 more bits of fraction, so everything moves up by 13 */
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = (uint32_t)(h & 0x7fffu) << 13;
    /* 112 = 127 - 15, the difference of the biases; 113 is the exponent of 2^-14 */
    uint32_t normal = rest + (112u << 23);
    float tiny = float_of(rest + (113u << 23)) - float_of(113u << 23);

    if (rest >= 0x0f800000u) /* infinity, NaN */
        normal = rest + (224u << 23);
    return float_of(sign | (rest < 0x00800000u ? bits_of(tiny) : normal));
}

/* To nearest, ties to even; beyond 65504 infinity; below 2^-14 rounded by adding 0.5, whose
 * last place is 2^-24. */
SIMD_INLINE uint16_t to_f16(float f)
{
    uint32_t u = bits_of(f), sign = (u >> 16) & 0x8000u, rest = u & 0x7fffffffu;
    /* as in to_bf16, for the 13 bits that are lost */
    uint32_t normal = (rest - (112u << 23) + 0xfffu + ((rest >> 13) & 1)) >> 13;
    uint32_t tiny = bits_of(float_of(rest) + 0.5f) - bits_of(0.5f);
    /* 0x38800000 is 2^-14 */
    uint32_t h = rest < 0x38800000u ? tiny : normal;

    /* 0x47800000 is 65536, 0x7f800000 infinity; above that is NaN */
    h = rest >= 0x47800000u ? 0x7c00u : h;
    h = rest > 0x7f800000u ? 0x7e00u : h;
    return (uint16_t)(sign | h);
}

#define CAST(FROM_T, FROM, TO_T, TO) \
    do { \
        const FROM_T *src = (const FROM_T *)job->src; \
        TO_T *dst = (TO_T *)job->dst; \
        SIMD_LOOP \
        for (int64_t i = lo; i < hi; i++) \
            dst[i] = TO(FROM(src[i])); \
    } while (0)
#define SAME(x) (x)

SIMD_FN(void, cast, (const void *op, int64_t lo, int64_t hi), (op, lo, hi))
{
    const struct op_cast *job = op;

    if (job->from == job->to)
        memmove((char *)job->dst + (size_t)lo * dtype_bytes(job->to),
                (const char *)job->src + (size_t)lo * dtype_bytes(job->to),
                (size_t)(hi - lo) * dtype_bytes(job->to));
    else if (job->from == DT_F32 && job->to == DT_BF16)
        CAST(float, SAME, uint16_t, to_bf16);
    else if (job->from == DT_F32)
        CAST(float, SAME, uint16_t, to_f16);
    else if (job->from == DT_BF16 && job->to == DT_F32)
        CAST(uint16_t, from_bf16, float, SAME);
    else if (job->from == DT_BF16)
        CAST(uint16_t, from_bf16, uint16_t, to_f16);
    else if (job->to == DT_F32)
        CAST(uint16_t, from_f16, float, SAME);
    else
        CAST(uint16_t, from_f16, uint16_t, to_bf16);
}

int cpu_cast(struct device *d, const struct op_cast *a)
{
    cpu_ranges(cpu_of(d), a->n, ELEMENTS_A_TASK, cast, a);
    return 0;
}

/* A task's values are summed on their own, and the sums in order: the number of threads does
 * not change the result. */
struct squares_job {
    const float *x;
    double *partial; /* one a task */
};

SIMD_FN(void, squares, (const void *op, int64_t lo, int64_t hi), (op, lo, hi))
{
    const struct squares_job *job = op;
    double lane[SIMD_LANES] = { 0 };
    const float *x = job->x;
    int64_t i = lo;

    for (; i + SIMD_LANES <= hi; i += SIMD_LANES)
        for (int l = 0; l < SIMD_LANES; l++)
            lane[l] += (double)x[i + l] * (double)x[i + l];
    for (int l = 0; i < hi; i++, l++)
        lane[l] += (double)x[i] * (double)x[i];
    for (int l = 1; l < SIMD_LANES; l++)
        lane[0] += lane[l];
    /* lo / ELEMENTS_A_TASK is the task's number */
    job->partial[lo / ELEMENTS_A_TASK] = lane[0];
}

int cpu_sum_squares(struct device *d, const struct op_sum_squares *a)
{
    struct cpu *c = cpu_of(d);
    int64_t parts = ceil_div(a->n, ELEMENTS_A_TASK);
    struct squares_job job = { a->x, NULL };

    *a->sum = 0;
    if (cpu_shared(c, (size_t)parts * sizeof *job.partial) < 0)
        return E_SYS;
    job.partial = (double *)c->shared;
    cpu_ranges(c, a->n, ELEMENTS_A_TASK, squares, &job);
    for (int64_t i = 0; i < parts; i++)
        *a->sum += job.partial[i];
    return 0;
}
