/* kernels/cpu/cpu_rope.c - rotary position embedding, in place. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd.h"

#include <math.h>
#include <stdlib.h>

/*
 * Angles are float64: at position 100,000 a float32 product is off by 0.006 radian. A position
 * is coarse * STEP + fine, and the two angles' cosines and sines, tabled in float64, give the
 * sum's by the addition theorem, exact to 1e-15. The table of 100k positions and 64 frequencies
 * takes 1.7 MB, where one of all positions would take 50.
 */
enum { STEP = 64, ELEMENTS_A_TASK = 1 << 15 };

/* trig: [STEP fine, then the coarse][half] cosines, each row followed by its sines. */
static int table(struct cpu_rope_table *t, const struct op_rope *a)
{
    int64_t half = a->dim / 2, rows = min_i64(a->rows, a->period);
    int64_t n = STEP + ceil_div(rows, STEP);
    size_t freq_bytes = (size_t)half * sizeof *t->inv_freq;

    /* Of a table that could not be made (no room for it), nothing but cap_trig tells. */
    if (t->cap_trig && t->first == a->first && t->half == half && t->rows >= rows &&
        memcmp(t->inv_freq, a->inv_freq, freq_bytes) == 0)
        return 0;
    if (t->cap_freq < half || t->cap_trig < n * 2 * half) {
        free(t->inv_freq);
        free(t->trig);
        t->inv_freq = malloc(freq_bytes);
        t->trig = malloc((size_t)n * 2 * (size_t)half * sizeof *t->trig);
        t->cap_freq = t->inv_freq && t->trig ? half : 0;
        t->cap_trig = t->cap_freq ? n * 2 * half : 0;
        if (!t->cap_freq)
            return E_SYS;
    }
    t->first = a->first;
    t->rows = rows;
    t->half = half;
    memcpy(t->inv_freq, a->inv_freq, freq_bytes);
    for (int64_t r = 0; r < n; r++)
        for (int64_t i = 0; i < half; i++) {
            /* a fine row is a small position, a coarse row one of every STEP from the first
             * on */
            double position = (double)(r < STEP ? r : a->first + (r - STEP) * STEP);
            double angle = position * (double)a->inv_freq[i];
            t->trig[r * 2 * half + i] = cos(angle);
            t->trig[r * 2 * half + half + i] = sin(angle);
        }
    return 0;
}

struct rope_job {
    const struct op_rope *a;
    const struct cpu_rope_table *t;
};

/* cs: dim floats, cosines then sines of one position, times scale. */
SIMD_FN(void, angles,
        (const double *fine, const double *coarse, int64_t half, double scale, double sign,
         float *cs),
        (fine, coarse, half, scale, sign, cs))
{
    SIMD_LOOP
    for (int64_t i = 0; i < half; i++) {
        double cf = fine[i], sf = fine[half + i], cc = coarse[i], sc = coarse[half + i];
        cs[i] = (float)(scale * (cf * cc - sf * sc));
        cs[half + i] = (float)(scale * sign * (sf * cc + cf * sc));
    }
}

/* Channels i and half + i of a head are the two coordinates that turn together. */
SIMD_FN(void, turn, (float *x, int64_t heads, int64_t stride, int64_t half, const float *cs),
        (x, heads, stride, half, cs))
{
    for (int64_t h = 0; h < heads; h++, x += stride) {
        SIMD_LOOP
        for (int64_t i = 0; i < half; i++) {
            float p = x[i], q = x[half + i];
            x[i] = p * cs[i] - q * cs[half + i];
            x[half + i] = q * cs[i] + p * cs[half + i];
        }
    }
}

/* The same of one position, without a table: rows of texts that are at different lengths. */
static void angles_at(const struct op_rope *a, int64_t position, float *cs)
{
    int64_t half = a->dim / 2;

    for (int64_t i = 0; i < half; i++) {
        double angle = (double)position * (double)a->inv_freq[i];
        cs[i] = (float)((double)a->scale * cos(angle));
        cs[half + i] = (float)((double)a->scale * (a->inverse ? -sin(angle) : sin(angle)));
    }
}

static void rows_at(const void *op, int64_t lo, int64_t hi)
{
    const struct op_rope *a = op;
    int64_t half = a->dim / 2, stride = a->stride ? a->stride : a->dim;
    float cs[1024];

    for (int64_t r = lo; r < hi; r++) {
        angles_at(a, a->firsts[r / a->period] + r % a->period, cs);
        turn((float *)a->x + r * a->ld, a->heads, stride, half, cs);
        if (a->x2)
            turn((float *)a->x2 + r * a->ld2, a->heads2, stride, half, cs);
    }
}

static void rows(const void *op, int64_t lo, int64_t hi)
{
    const struct rope_job *job = op;
    const struct op_rope *a = job->a;
    int64_t half = a->dim / 2, stride = a->stride ? a->stride : a->dim;
    /* cosines and sines of the widest head that cpu_rope lets through */
    float cs[1024];

    for (int64_t r = lo; r < hi; r++) {
        int64_t p = r % a->period;
        /* one row of the table is dim long: half cosines and half sines */
        const double *fine = job->t->trig + p % STEP * a->dim;
        const double *coarse = job->t->trig + (STEP + p / STEP) * a->dim;
        angles(fine, coarse, half, (double)a->scale, a->inverse ? -1.0 : 1.0, cs);
        turn((float *)a->x + r * a->ld, a->heads, stride, half, cs);
        if (a->x2)
            turn((float *)a->x2 + r * a->ld2, a->heads2, stride, half, cs);
    }
}

int cpu_rope(struct device *d, const struct op_rope *a)
{
    struct cpu *c = cpu_of(d);
    struct rope_job job = { a, &c->rope };

    if (a->dim < 2 || a->dim > 1024 || a->dim % 2 || a->period < 1 || a->rows < 0 ||
        (a->stride && a->stride < a->dim))
        return E_BUG;
    if (a->rows == 0)
        return 0;
    if (!a->firsts && table(&c->rope, a) < 0)
        return E_SYS;
    cpu_ranges(c, a->rows, ELEMENTS_A_TASK / max_i64((a->heads + a->heads2) * a->dim, 1),
               a->firsts ? rows_at : rows, a->firsts ? (const void *)a : &job);
    return 0;
}
