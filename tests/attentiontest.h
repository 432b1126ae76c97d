/* tests/attentiontest.h - a case of attention, run forwards and backwards, against refops.h. */
#ifndef TESTS_ATTENTIONTEST_H
#define TESTS_ATTENTIONTEST_H
#include "tests/optest.h"

/* Lists of both halves. kv and first are used where apart is set; else kv_rows is q_rows. */
enum { MAX_CUTS = 400 };
struct attention_case {
    int64_t q_rows, kv_rows, heads, kv_heads, dim, q_pad, kv_pad, window, n[2];
    bool apart;
    int64_t cu[2][MAX_CUTS], kv[2][MAX_CUTS], first[2][MAX_CUTS];
    float scale, cap, *q, *k, *v, *d_o;
};

static inline int64_t q_ld(const struct attention_case *c)
{
    return c->heads * c->dim + c->q_pad;
}
static inline int64_t kv_ld(const struct attention_case *c)
{
    return c->kv_heads * c->dim + c->kv_pad;
}

static inline struct ref_attention ref_of(const struct attention_case *c)
{
    struct ref_attention r = {
        .q_rows = c->q_rows, .kv_rows = c->kv_rows, .heads = c->heads, .kv_heads = c->kv_heads,
        .dim = c->dim, .q_ld = q_ld(c), .kv_ld = kv_ld(c), .window = c->window,
        .scale = (double)c->scale, .cap = (double)c->cap,
    };

    for (int h = 0; h < 2; h++)
        r.list[h] = (struct ref_list){ c->n[h], c->cu[h], c->apart ? c->kv[h] : NULL,
                                       c->apart ? c->first[h] : NULL };
    return r;
}

/* Keys that no query of theirs sees: they may hold anything, and here do. */
static inline void poison(struct attention_case *c)
{
    struct ref_attention r = ref_of(c);
    int64_t group = c->heads / c->kv_heads;

    for (int64_t s = 0; s < c->kv_rows; s++)
        for (int64_t g = 0; g < c->kv_heads; g++) {
            bool seen = false;
            for (int64_t h = g * group; h < (g + 1) * group; h++)
                for (int64_t t = 0; t < c->q_rows && !seen; t++)
                    seen = ref_sees(&r, h, t, s);
            for (int64_t i = 0; i < c->dim && !seen; i++)
                c->k[s * kv_ld(c) + g * c->dim + i] = c->v[s * kv_ld(c) + g * c->dim + i] = NAN;
        }
}

static inline void case_fill(struct attention_case *c, uint64_t seed)
{
    c->q = normal(c->q_rows * q_ld(c), 4 * seed);
    c->k = normal(c->kv_rows * kv_ld(c), 4 * seed + 1);
    c->v = normal(c->kv_rows * kv_ld(c), 4 * seed + 2);
    c->d_o = normal(c->q_rows * q_ld(c), 4 * seed + 3);
    c->scale = 1 / sqrtf((float)c->dim);
    if (c->apart || c->window)
        poison(c);
}

static inline void case_free(struct attention_case *c)
{
    free(c->q), free(c->k), free(c->v), free(c->d_o);
}

static inline struct op_attention op_of(const struct attention_case *c)
{
    struct op_attention a = {
        .q_rows = c->q_rows, .kv_rows = c->kv_rows, .heads = c->heads, .kv_heads = c->kv_heads,
        .dim = c->dim, .q_ld = q_ld(c), .kv_ld = kv_ld(c), .window = c->window,
        .scale = c->scale, .cap = c->cap, .q = c->q, .k = c->k, .v = c->v,
    };

    for (int h = 0; h < 2; h++)
        a.seg[h] = (struct op_segments){ c->n[h], c->cu[h], c->apart ? c->kv[h] : NULL,
                                         c->apart ? c->first[h] : NULL };
    return a;
}

/* A case's results, one after the other: o, lse, dq, dk, dv; what lies between rows is zeroed,
 * being nobody's. */
struct results {
    float *o, *lse, *dq, *dk, *dv;
};
static inline int64_t case_numbers(const struct attention_case *c)
{
    return c->q_rows * (2 * q_ld(c) + c->heads) + 2 * c->kv_rows * kv_ld(c);
}
static inline struct results results_in(const struct attention_case *c, float *out)
{
    int64_t nq = c->q_rows * q_ld(c), nk = c->kv_rows * kv_ld(c), nl = c->heads * c->q_rows;

    return (struct results){ out, out + nq, out + nq + nl, out + 2 * nq + nl,
                             out + 2 * nq + nl + nk };
}

static inline void clear_padding(float *x, int64_t rows, int64_t ld, int64_t used)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = used; i < ld; i++) {
            assert_true(x[r * ld + i] == 7); /* untouched */
            x[r * ld + i] = 0;
        }
}

static inline void run_attention(struct device *d, const void *ctx, float *out)
{
    const struct attention_case *c = ctx;
    struct results r = results_in(c, out);
    struct op_attention_back b = { .fwd = op_of(c), .d_o = c->d_o, .dq = r.dq, .dk = r.dk,
                                   .dv = r.dv };

    b.fwd.o = r.o;
    b.fwd.lse = r.lse;
    b.scratch = malloc(d->attention_scratch_bytes(d, c->q_rows, c->heads, c->kv_heads, c->dim));
    assert_int_equal(d->attention(d, &b.fwd), 0);
    assert_int_equal(d->attention_back(d, &b), 0);
    clear_padding(r.o, c->q_rows, q_ld(c), c->heads * c->dim);
    clear_padding(r.dq, c->q_rows, q_ld(c), c->heads * c->dim);
    clear_padding(r.dk, c->kv_rows, kv_ld(c), c->kv_heads * c->dim);
    clear_padding(r.dv, c->kv_rows, kv_ld(c), c->kv_heads * c->dim);
    free(b.scratch);
}

/* All devices against the plain formula; frees what the case holds. */
static inline void check_filled(const char *what, struct attention_case *c)
{
    int64_t nq = c->q_rows * q_ld(c), nk = c->kv_rows * kv_ld(c), nl = c->q_rows * c->heads;
    float *all = on_all_devices(what, run_attention, c, case_numbers(c));
    struct results got = results_in(c, all);
    double *o = zeros(nq), *lse = zeros(nl), *dq = zeros(nq), *dk = zeros(nk), *dv = zeros(nk);
    double *q = wide(c->q, nq), *k = wide(c->k, nk), *v = wide(c->v, nk);
    double *d_o = wide(c->d_o, nq);
    struct ref_attention ref = ref_of(c);

    ref.q = q, ref.k = k, ref.v = v, ref.o = o, ref.lse = lse;
    ref_attention(&ref);
    ref_attention_back(&ref, d_o, dq, dk, dv);
    assert_near(what, got.o, o, nq, 5e-6);
    assert_near("lse", got.lse, lse, nl, 5e-6);
    assert_near("dq", got.dq, dq, nq, 2e-5);
    assert_near("dk", got.dk, dk, nk, 2e-5);
    assert_near("dv", got.dv, dv, nk, 2e-5);
    free(o), free(lse), free(dq), free(dk), free(dv), free(q), free(k), free(v), free(d_o);
    free(all);
    case_free(c);
}
static inline void check(const char *what, struct attention_case *c, uint64_t seed)
{
    case_fill(c, seed);
    check_filled(what, c);
}

/* One segment of rows that are both queries and keys. */
static inline struct attention_case dense(int64_t rows, int64_t heads, int64_t kv_heads,
                                          int64_t dim)
{
    struct attention_case c = { .q_rows = rows, .kv_rows = rows, .heads = heads,
                                .kv_heads = kv_heads, .dim = dim, .n = { 1, 1 }, .scale = 1 };

    c.cu[0][1] = c.cu[1][1] = rows;
    return c;
}

/* Cuts at first, first + step, ... */
static inline void cut_every(struct attention_case *c, int half, int64_t first, int64_t step)
{
    int64_t *cu = c->cu[half], n = 0;

    cu[n++] = 0;
    for (int64_t at = first; at < c->q_rows; at += step)
        if (at > 0)
            cu[n++] = at;
    cu[n] = c->q_rows;
    c->n[half] = n;
}
static inline void cut_s2(struct attention_case *c, int64_t group)
{
    cut_every(c, 0, group, group);
    cut_every(c, 1, group / 2, group);
}
#endif
