/* kernels/cuda/cuda_attention.c - segmented causal attention: cuDNN where it fits, else ours. */
#include "kernels/attention.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/runs.h"
#include "kernels/cuda/sdpa.h"
#include "kernels/cuda/sizes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * cuDNN computes batches of equally long sequences. An op has a list of segments for each half
 * of the heads, and S2's lists are nearly that: with groups of 4 rows in a context of 16,
 *
 *     first half    [0 4 8 12 16]        one run of 4 segments of 4 rows     1 call
 *     second half   [0 2 6 10 14 16]     a run of 3 of 4 rows, and one of 2
 *                                        of 2 rows, at both ends             2 calls
 *
 * So a list is split into runs of equally long, evenly spaced segments (runs.c), and each run
 * is one strided call on the arrays as they lie, nothing copied. Where both lists are equal
 * (dense attention) all heads go into the same call.
 *
 * A rank's part of a sequence may begin inside a group: its first segment then has more keys than
 * queries, and is a run of one.
 *
 * Our own kernels (flash.cu) compute the whole op where that does not work: lists cut by
 * documents (runs_steady), halves of the heads that share a key head, very short segments,
 * windows, capped scores, a cache's keys, queries that do not end with their keys. The choice depends on the op alone, never
 * on what ran before, so a continued run uses the same kernels.
 */
enum { RUNS = 6, SHORTEST = 64 };

/* What op_segments says, in one block. */
struct list {
    int64_t *cu, *kv, *first, n, cap;
    struct run run[RUNS];
    int runs; /* -1: not regular */
};

struct cuda_attention {
    struct sdpa *dnn; /* NULL: there is none */
    struct list list[2];
    bool same, square;   /* both lists; queries are their own keys */
    bool steady;         /* lists of groups, not of documents */
    bool bounds_made;    /* of these lists, in SCRATCH_CUTS, */
    int64_t window;      /* and this window */
};

/* Heads [head, head + hq) of one group, and their key heads. */
struct heads {
    int half;
    int64_t head, hq, kv, hkv;
};

/* One cuDNN call: b of a run's segments, for some heads. */
struct call {
    int64_t first, b, step, len, keys_first, keys, head, hq, kv, hkv;
};

/* What the calls of an op need together; the second pass, with it, runs them. */
struct needs {
    size_t workspace;
    void *acc_at, *workspace_at;
    bool go;
    char why[400];
};

int attention_open(struct cuda *c, char *detail, size_t cap, struct err *e)
{
    const char *path = getenv("LONGLORA_CUDNN");
    struct err why = { 0 };
    int rc;

    if (!(c->attention = calloc(1, sizeof *c->attention)))
        return err_set(e, E_SYS, "out of memory");
    c->attention->list[0].runs = c->attention->list[1].runs = -1;
    if (path && strcmp(path, "none") == 0) {
        snprintf(detail, cap, "own attention");
        return 0;
    }
    rc = sdpa_open(&c->attention->dnn, path && *path ? path : NULL, c->stream, NULL, &why);
    if (rc == 0) {
        int64_t v = sdpa_version(c->attention->dnn);
        snprintf(detail, cap, "cuDNN %d.%d.%d", (int)(v / 10000), (int)(v / 100 % 100),
                 (int)(v % 100));
        return 0;
    }
    (void)cudaGetLastError(); /* what kept cuDNN from starting is no op's failure */
    if (path && *path) {
        *e = why;
        return err_hint(e, "LONGLORA_CUDNN names cuDNN 9's library, or 'none'");
    }
    snprintf(detail, cap, "own attention: %s", why.msg);
    return 0;
}

void attention_close(struct cuda *c)
{
    struct cuda_attention *t = c->attention;

    if (!t)
        return;
    sdpa_close(t->dnn);
    free(t->list[0].cu);
    free(t->list[1].cu);
    free(t);
    c->attention = NULL;
}

/* Whether the list is the one looked through last: compared by value, since the caller may
 * reuse its arrays. */
static bool knows(const struct list *l, const struct op_segments *s)
{
    size_t bytes = (size_t)(s->n + 1) * sizeof *s->cu;

    if (!l->cu || l->n != s->n || memcmp(l->cu, s->cu, bytes) != 0 ||
        memcmp(l->kv, segments_keys(s), bytes) != 0)
        return false;
    for (int64_t i = 0; i < s->n; i++)
        if (l->first[i] != (s->first ? s->first[i] : 0))
            return false;
    return true;
}

/* A list is looked through once; a step asks for the same one in every layer. */
static int know(struct list *l, const struct op_segments *s, bool *changed)
{
    size_t bytes = (size_t)(s->n + 1) * sizeof *s->cu;

    if (knows(l, s))
        return 0;
    *changed = true;
    if (l->cap < s->n + 1) {
        int64_t *p = realloc(l->cu, 3 * bytes);
        if (!p)
            return E_SYS;
        l->cu = p;
        l->cap = s->n + 1;
    }
    l->kv = l->cu + l->cap;
    l->first = l->kv + l->cap;
    memcpy(l->cu, s->cu, bytes);
    memcpy(l->kv, segments_keys(s), bytes);
    for (int64_t i = 0; i < s->n; i++)
        l->first[i] = s->first ? s->first[i] : 0;
    l->n = s->n;
    l->runs = runs_find(s, l->run, RUNS);
    return 0;
}

static bool lists_equal(const struct list *a, const struct list *b)
{
    size_t bytes = (size_t)a->n * sizeof(int64_t);

    return a->n == b->n && memcmp(a->cu, b->cu, bytes + sizeof(int64_t)) == 0 &&
           memcmp(a->kv, b->kv, bytes + sizeof(int64_t)) == 0 &&
           memcmp(a->first, b->first, bytes) == 0;
}

static int know_both(struct cuda_attention *t, const struct op_attention *a)
{
    const struct list *l = t->list;
    bool changed = t->window != a->window;

    if (know(&t->list[0], &a->seg[0], &changed) < 0 || know(&t->list[1], &a->seg[1], &changed) < 0)
        return E_SYS;
    if (changed) {
        t->bounds_made = false;
        t->window = a->window;
        t->square = attention_square(a);
        t->steady = runs_steady(a->seg);
        t->same = lists_equal(&l[0], &l[1]);
    }
    return 0;
}

/* The groups of heads that cuDNN can take one by one; 0: none, and why. */
static int groups_of(const struct cuda_attention *t, const struct op_attention *a,
                     struct heads g[2], const char **why)
{
    int n = t->same ? 1 : 2;

    *why = "heads whose halves share keys";
    if (n == 2 && (a->heads % 2 || a->kv_heads % 2))
        return 0;
    *why = "segments that are short, or no even groups";
    for (int i = 0; i < n; i++) {
        g[i] = (struct heads){ i, i * a->heads / n, a->heads / n, i * a->kv_heads / n,
                               a->kv_heads / n };
        if (t->list[i].runs < 0)
            return 0;
        for (int r = 0; r < t->list[i].runs; r++)
            if (t->list[i].run[r].len < SHORTEST)
                return 0;
    }
    return n;
}

static bool aligned(const void *p) { return ((uintptr_t)p & 15) == 0; }

/* NULL: cuDNN may take it; else what it is that it does not. */
static const char *not_cudnn(const struct cuda_attention *t, const struct op_attention *a,
                             const struct op_attention_back *b, bool deterministic)
{
    if (!t->square && (t->list[0].runs < 0 || t->list[1].runs < 0))
        return "keys that are not the queries' own";
    if (!t->square && b && deterministic)
        return "keys of another rank's, deterministic";
    if (attention_window(a))
        return "a sliding window";
    if (a->cap > 0)
        return "capped scores";
    if (!t->steady)
        return "documents kept apart";
    if (a->dim % 8 || a->dim > 128)
        return "heads of this many channels";
    if (a->q_ld % 8 || a->kv_ld % 8 || !aligned(a->q) || !aligned(a->k) || !aligned(a->v) ||
        !aligned(a->o) ||
        (b && !(aligned(b->d_o) && aligned(b->dq) && aligned(b->dk) && aligned(b->dv))))
        return "rows that do not begin at 16 bytes";
    return NULL;
}

/* The address of one head's channels in a row; activations have 2 bytes each. */
static void *act(const void *base, int64_t row, int64_t ld, int64_t head, int64_t dim)
{
    return base ? (char *)(uintptr_t)base + 2 * (row * ld + head * dim) : NULL;
}

/* Measures one call, or runs it. 1: cuDNN does not take it, n->why. */
static int one(struct cuda *c, const struct op_attention *a, const struct op_attention_back *b,
               const struct call *k, struct needs *n)
{
    struct cuda_attention *t = c->attention;
    /* strides in values, by segment, head and row; lse is [heads][rows] */
    struct sdpa_shape s = { b != NULL, b && c->deterministic, k->b, k->hq, k->hkv, k->len, a->dim,
                            { k->step * a->q_ld, a->dim, a->q_ld },
                            { k->step * a->kv_ld, a->dim, a->kv_ld },
                            { k->step, a->q_rows, 1 }, a->scale,
                            k->keys };
    const struct sdpa_plan *p;
    struct err e = { 0 };
    struct sdpa_args g;

    if (s.back && (s.s | s.keys) % 128 && sdpa_version(t->dnn) <= 91500) { /* wants a padding mask there */
        snprintf(n->why, sizeof n->why, "cuDNN before 9.15.1 wants rows in multiples of 128");
        return 1;
    }
    if (sdpa_plan(t->dnn, &s, &p, &e) < 0) {
        snprintf(n->why, sizeof n->why, "%.380s", e.msg);
        return 1;
    }
    n->workspace = sdpa_workspace(p) > n->workspace ? sdpa_workspace(p) : n->workspace;
    if (!n->go)
        return 0;
    memset(&g, 0, sizeof g);
    g.q = act(a->q, k->first, a->q_ld, k->head, a->dim);
    g.k = act(a->k, k->keys_first, a->kv_ld, k->kv, a->dim);
    g.v = act(a->v, k->keys_first, a->kv_ld, k->kv, a->dim);
    g.o = act(a->o, k->first, a->q_ld, k->head, a->dim);
    g.lse = a->lse + k->head * a->q_rows + k->first;
    if (b) {
        g.d_o = act(b->d_o, k->first, a->q_ld, k->head, a->dim);
        g.dq = act(b->dq, k->first, a->q_ld, k->head, a->dim);
        g.dk = act(b->dk, k->keys_first, a->kv_ld, k->kv, a->dim);
        g.dv = act(b->dv, k->keys_first, a->kv_ld, k->kv, a->dim);
        g.sum = b->scratch;
        g.acc = n->acc_at;
    }
    g.workspace = n->workspace_at;
    if (sdpa_run(t->dnn, p, &g, &e) == 0)
        return 0;
    snprintf(n->why, sizeof n->why, "%.380s", e.msg);
    return 1;
}

/* What a backward's scratch has for cuDNN. */
static size_t workspace_room(const struct cuda *c, const struct op_attention *a)
{
    return cuda_workspace_bytes(c->sm, c->deterministic, a->q_rows, a->heads, a->kv_heads, a->dim);
}

/* Whether a deterministic call of segs segments and that many key heads fits. */
static bool room_for(const struct cuda *c, const struct op_attention *a, int64_t segs, int64_t keys,
                     int64_t len)
{
    int64_t share = a->heads / a->kv_heads;

    return (double)segs * (double)(keys * share) * (double)len * (double)len < 0x1p40 &&
           cuda_sdpa_bytes(c->sm, true, share > 1, segs, keys * share, len, a->dim) <=
               workspace_room(c, a);
}

/* A run for a group, in one call, or where a deterministic backward would want too much
 * workspace, in several: fewer key heads, then one segment at a time. */
static int whole_run(struct cuda *c, const struct op_attention *a,
                     const struct op_attention_back *b, const struct run *r, const struct heads *g,
                     struct needs *n)
{
    int64_t share = g->hq / g->hkv, keys = g->hkv, segs = r->n;
    int rc = 0;

    if (b && c->deterministic) {
        while (keys > 1 && !room_for(c, a, segs, keys, r->len))
            keys = keys % 2 ? 1 : keys / 2;
        if (!room_for(c, a, segs, keys, r->len))
            segs = 1;
        if (!room_for(c, a, segs, keys, r->len)) {
            snprintf(n->why, sizeof n->why, "deterministic rows of %lld tokens",
                     (long long)r->len);
            return 1;
        }
    }
    for (int64_t s = 0; s < r->n && rc == 0; s += segs)
        for (int64_t k = 0; k < g->hkv && rc == 0; k += keys) {
            struct call one_call = { r->first + s * r->step, segs, r->step, r->len,
                                     r->keys_first + s * r->step, r->keys, g->head + k * share, keys * share, g->kv + k, keys };
            rc = one(c, a, b, &one_call, n);
        }
    return rc;
}

static int all_runs(struct cuda *c, const struct op_attention *a,
                    const struct op_attention_back *b, struct needs *n)
{
    struct cuda_attention *t = c->attention;
    struct heads g[2];
    const char *why = NULL;
    int groups = groups_of(t, a, g, &why), rc = groups ? 0 : 1;

    if (!groups)
        snprintf(n->why, sizeof n->why, "%s", why);

    for (int i = 0; i < groups && rc == 0; i++)
        for (int r = 0; r < t->list[i].runs && rc == 0; r++)
            rc = whole_run(c, a, b, &t->list[i].run[r], &g[i], n);
    return rc;
}

size_t cuda_attention_scratch_bytes(const struct device *d, int64_t q_rows, int64_t heads,
                                    int64_t kv_heads, int64_t dim)
{
    const struct cuda *c = cuda_of(d);

    return cuda_attention_bytes(c->attention->dnn, c->sm, c->deterministic, q_rows, heads,
                                kv_heads, dim);
}

/* Keys that no query of their heads sees: those of segments without any. */
static int no_gradients(struct cuda *c, const struct op_attention_back *b)
{
    const struct op_attention *a = &b->fwd;
    int n = c->attention->same ? 1 : 2;

    for (int h = 0; h < n; h++) {
        const struct op_segments *s = &a->seg[h];
        int64_t head = h * a->kv_heads / n, heads = a->kv_heads / n;

        for (int64_t i = 0; i < s->n; i++) {
            int64_t rows = s->kv[i + 1] - s->kv[i], end = s->cu[i + 1];
            void *at[2] = { act(b->dk, s->kv[i], a->kv_ld, head, a->dim),
                            act(b->dv, s->kv[i], a->kv_ld, head, a->dim) };

            for (int k = 0; k < 2 && rows > 0 && end == s->cu[i]; k++) {
                int rc = cuda_check(c, cudaMemset2DAsync(at[k], (size_t)a->kv_ld * 2, 0,
                                                         (size_t)(heads * a->dim) * 2, (size_t)rows,
                                                         c->stream), "clearing memory");
                if (rc < 0)
                    return rc;
            }
        }
    }
    return 0;
}

/* 0: done; 1: cuDNN does not take it, or failed, and a person is told why, once. A
 * forward wants next to no workspace; a backward's is in its scratch, or it is not cuDNN's. */
static int by_cudnn(struct cuda *c, const struct op_attention *a, const struct op_attention_back *b)
{
    struct needs n = { 0 };
    const char *why = not_cudnn(c->attention, a, b, c->deterministic);
    size_t room = b ? workspace_room(c, a) : CUDA_SDPA_SLACK;
    char *rest = b ? (char *)b->scratch + cuda_sum_bytes(a->q_rows, a->heads) : NULL;

    if (!c->attention->dnn) /* said when opened */
        return 1;
    if (!why && all_runs(c, a, b, &n) != 0)
        why = n.why;
    if (!why && n.workspace > room) {
        snprintf(n.why, sizeof n.why, "cuDNN wants %zu bytes of workspace, %zu are planned",
                 n.workspace, room);
        why = n.why;
    }
    n.acc_at = b && !c->deterministic ? rest : NULL;
    n.workspace_at = b ? rest + cuda_acc_bytes(c->deterministic, a->q_rows, a->heads, a->dim)
                       : cuda_scratch(c, SCRATCH_SDPA, CUDA_SDPA_SLACK);
    if (!n.workspace_at)
        return E_DEVICE;
    n.go = true;
    if (!why && all_runs(c, a, b, &n) != 0)
        why = n.why;
    if (!why)
        return b && !c->attention->square ? no_gradients(c, b) : 0;
    (void)cudaGetLastError(); /* cuDNN's; one that sticks shows in what comes now */
    cuda_note(c, "attention runs on kernels of its own, not cuDNN's: %s", why);
    return 1;
}

/* Four arrays for each half, one behind the other: two with a value for each query, two for
 * each key. */
static struct attention_bounds bounds_at(int32_t *p, const struct op_attention *a, int half)
{
    p += 2 * half * (a->q_rows + a->kv_rows);
    return (struct attention_bounds){ p, p + a->q_rows, p + 2 * a->q_rows,
                                      p + 2 * a->q_rows + a->kv_rows };
}

/* Made on the host and sent, when the lists change. */
static int bounds(struct cuda *c, const struct op_attention *a, struct attention_bounds b[2])
{
    struct cuda_attention *t = c->attention;
    size_t bytes = (size_t)(a->q_rows + a->kv_rows) * 4 * sizeof(int32_t);
    int32_t *up, *p = cuda_scratch(c, SCRATCH_CUTS, bytes);
    int rc = 0;

    if (!p)
        return E_DEVICE;
    if (!t->bounds_made) {
        if (!(up = malloc(bytes)))
            return E_SYS;
        for (int half = 0; half < 2; half++) {
            struct attention_bounds host = bounds_at(up, a, half);
            attention_bounds_fill(a, half, &host);
        }
        rc = cuda_check(c, cudaMemcpyAsync(p, up, bytes, cudaMemcpyHostToDevice, c->stream),
                        "a copy");
        if (rc == 0)
            rc = cuda_check(c, cuda_wait(c, c->stream), "queued work");
        free(up);
        t->bounds_made = rc == 0;
    }
    b[0] = bounds_at(p, a, 0);
    b[1] = bounds_at(p, a, 1);
    return rc;
}

/* A cache of 8 bits for many queries: its rows unpacked, of one layer. */
static int unpacked(struct cuda *c, struct op_attention *a)
{
    size_t bytes = (size_t)(a->kv_rows * a->kv_ld) * 2;
    char *p = a->kv_type == KV_INT8 ? cuda_scratch(c, SCRATCH_KEYS, 2 * bytes) : NULL;

    if (a->kv_type != KV_INT8)
        return 0;
    if (!p)
        return E_DEVICE;
    store_unpack(c, a->kv_rows, a->kv_heads, a->dim, a->k, a->k_scale, p);
    store_unpack(c, a->kv_rows, a->kv_heads, a->dim, a->v, a->v_scale, p + bytes);
    a->k = p, a->v = p + bytes, a->kv_type = KV_ACT;
    return 0;
}

/* The forward over a cache: few queries, or many. */
static int over_cache(struct cuda *c, const struct op_attention *whole)
{
    struct attention_bounds limits[2];
    struct op_attention a = *whole;
    int rc;

    if (flash_few_takes(&a))
        return flash_few(c, &a);
    if ((rc = unpacked(c, &a)) < 0 || (rc = know_both(c->attention, &a)) < 0 ||
        (rc = bounds(c, &a, limits)) < 0)
        return rc;
    return flash_forward(c, &a, limits);
}

static int run(struct device *d, const struct op_attention *a, const struct op_attention_back *b)
{
    struct cuda *c = cuda_of(d);
    int kind = b ? OP_attention_back : OP_attention;
    struct attention_bounds limits[2];
    int rc;

    if (a->q_rows == 0 && (!b || a->kv_rows == 0))
        return 0;
    if (a->q_rows >= INT32_MAX || a->kv_rows >= INT32_MAX || (rc = attention_check(a)) < 0)
        return E_BUG;
    if (!b && a->cached && (a->kv_type == KV_INT8 || !attention_square(a))) {
        cuda_begin_rows(c, kind, a->q_rows);
        return cuda_end(d, over_cache(c, a), kind, 4.0 * (double)a->dim * attention_pairs(a));
    }
    if ((rc = know_both(c->attention, a)) < 0)
        return rc;
    cuda_begin(c, kind);
    rc = by_cudnn(c, a, b);
    if (rc == 1 && (rc = bounds(c, a, limits)) == 0)
        rc = b ? flash_backward(c, b, limits) : flash_forward(c, a, limits);
    return cuda_end(d, rc, kind, (b ? 10.0 : 4.0) * (double)a->dim * attention_pairs(a));
}

int cuda_attention(struct device *d, const struct op_attention *a) { return run(d, a, NULL); }
int cuda_attention_back(struct device *d, const struct op_attention_back *a)
{
    return run(d, &a->fwd, a);
}
