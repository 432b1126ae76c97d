/* kernels/cpu/cpu_store.c - keys and values into a cache, and out of it as float32. */
#include "kernels/cpu/cpu_attention.h"
#include "kernels/cpu/simd.h"

#include <math.h>

/* 16-bit halves of float32, rounded to nearest even; NaN stays one. */
SIMD_FN(void, to_bf16, (const float *x, int64_t n, uint16_t *y), (x, n, y))
{
    SIMD_LOOP
    for (int64_t i = 0; i < n; i++) {
        uint32_t u;

        memcpy(&u, x + i, sizeof u);
        y[i] = (uint16_t)(x[i] != x[i] ? (u >> 16) | 64 : (u + 0x7fff + (u >> 16 & 1)) >> 16);
    }
}

SIMD_FN(void, from_bf16, (const uint16_t *x, int64_t n, float *y), (x, n, y))
{
    SIMD_LOOP
    for (int64_t i = 0; i < n; i++) {
        uint32_t u = (uint32_t)x[i] << 16;

        memcpy(y + i, &u, sizeof u);
    }
}

/* Returns the scale. The product is rounded before it becomes whole, on every processor and device alike: half of the
 * largest is 63.5 or just beside it. (Adding 1.5 * 2^23 would be fused with the product where there is FMA.) */
SIMD_FN(float, to_int8, (const float *x, int64_t n, int8_t *y), (x, n, y))
{
    float most = 0, by;

    for (int64_t i = 0; i < n; i++)
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    by = most > 0 ? 127 / most : 0;
    SIMD_LOOP
    for (int64_t i = 0; i < n; i++)
        y[i] = (int8_t)rintf(x[i] * by);
    return most / 127;
}

SIMD_FN(void, from_int8, (const int8_t *x, int64_t n, float scale, float *y), (x, n, scale, y))
{
    SIMD_LOOP
    for (int64_t i = 0; i < n; i++)
        y[i] = scale * (float)x[i];
}

struct side {
    const float *x;
    void *to;
    float *scale;
};

/* A row of keys or of values. */
static void store_row(const struct op_store *a, const struct side *s, int64_t row, int64_t to)
{
    int64_t width = a->heads * a->dim;
    const float *x = s->x + row * a->ld;

    if (a->type == KV_ACT)
        memcpy((float *)s->to + to * width, x, (size_t)width * sizeof *x);
    else if (a->type == KV_BF16)
        to_bf16(x, width, (uint16_t *)s->to + to * width);
    else
        for (int64_t h = 0; h < a->heads; h++)
            s->scale[to * a->heads + h] = to_int8(x + h * a->dim, a->dim,
                                                  (int8_t *)s->to + to * width + h * a->dim);
}

static void store_rows(const void *op, int64_t lo, int64_t hi)
{
    const struct op_store *a = op;
    struct side k = { a->k, a->k_to, a->k_scale }, v = { a->v, a->v_to, a->v_scale };

    for (int64_t r = lo; r < hi; r++) {
        int64_t piece = segment_at(a->cu, a->n, r), to = a->to[piece] + r - a->cu[piece];

        store_row(a, &k, r, to);
        if (a->v)
            store_row(a, &v, r, to);
    }
}

int cpu_store(struct device *d, const struct op_store *a)
{
    if (a->rows < 0 || a->heads < 1 || a->dim < 1 || a->ld < a->heads * a->dim || a->n < 1 ||
        a->cu[0] != 0 || a->cu[a->n] != a->rows || a->type < KV_ACT || a->type >= KV_TYPES)
        return E_BUG;
    cpu_ranges(cpu_of(d), a->rows, 64, store_rows, a);
    return 0;
}

static const float *unpacked(const struct op_attention *a, const void *x, const float *scale,
                             int64_t row, int64_t n, int64_t head, float *room, int64_t *ld)
{
    int64_t at = row * a->kv_ld + head * a->dim;

    *ld = a->kv_ld;
    if (a->kv_type == KV_ACT)
        return (const float *)x + at;
    *ld = a->dim;
    for (int64_t r = 0; r < n; r++, at += a->kv_ld)
        if (a->kv_type == KV_BF16)
            from_bf16((const uint16_t *)x + at, a->dim, room + r * a->dim);
        else
            from_int8((const int8_t *)x + at, a->dim, scale[(row + r) * a->kv_heads + head],
                      room + r * a->dim);
    return room;
}

const float *cpu_keys(const struct op_attention *a, int64_t row, int64_t n, int64_t head,
                      float *room, int64_t *ld)
{
    return unpacked(a, a->k, a->k_scale, row, n, head, room, ld);
}

const float *cpu_values(const struct op_attention *a, int64_t row, int64_t n, int64_t head,
                        float *room, int64_t *ld)
{
    return unpacked(a, a->v, a->v_scale, row, n, head, room, ld);
}
