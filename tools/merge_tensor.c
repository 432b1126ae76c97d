/* tools/merge_tensor.c - see merge_tensor.h.
 *
 * A tensor is cut into tasks, and a thread does all of a task: reads, hashes what it read, computes,
 * checks, hashes the result and writes it to its place in the file, while it is in the caches. No
 * value depends on another task, so the bytes are the same for any number of threads. */
#include "tools/merge_tensor.h"

#include "base/block_hash.h"
#include "formats/weights/gguf_types.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Values of a task, which are written at once: the larger that is, the less the system has to do.
 * They are whole blocks of the hash, of 2 or 4 bytes a value; PART of them go through it all at a
 * time, STEP of these through float32. ROWS: of a task that measures rows. COPY: bytes of a task that only copies. */
enum { TASK = 1 << 19, PART = 1 << 16, STEP = 1 << 12, COMPARED = 1 << 10, ROWS = 16 };
#define COPY (8 * HASH_BLOCK)

struct merge_thread {
    float f[STEP];
    char out[TASK * sizeof(float)];
    float max_delta;
    int64_t unchanged;
};

/* A tensor in hand. */
struct job {
    struct merger *g;
    const struct merge_sink *w;
    const struct merge_item *m;
    const struct tensor *from;         /* whose values the result begins with */
    unsigned char *in_sums, *out_sums; /* NULL: taken elsewhere, or the same as the other */
    _Atomic int rc;                    /* of the first task that failed, */
    struct err e;                      /* and why: written by that task alone */
    _Atomic bool bad;                  /* a value is not finite */
};

int merger_open(struct merger *g, int threads, volatile sig_atomic_t *stop, struct err *e)
{
    g->stop = stop;
    if (!(g->pool = pool_open(threads, e)))
        return E_SYS;
    g->threads = calloc((size_t)pool_threads(g->pool), sizeof *g->threads);
    return g->threads ? 0 : err_set(e, E_SYS, "out of memory");
}

void merger_close(struct merger *g)
{
    pool_close(g->pool);
    free(g->threads);
    free(g->a);
    free(g->b);
    free(g->rows);
    free(g->in_sums);
    free(g->out_sums);
    *g = (struct merger){ 0 };
}

static bool is_stopped(const struct merger *g) { return g->stop && *g->stop; }

/* The others still run, but do nothing more; of several failures one is kept. */
static void fail(struct job *j, const struct err *e)
{
    int none = 0;

    if (atomic_compare_exchange_strong(&j->rc, &none, e->code))
        j->e = *e;
}

/* Bytes of so many values of a type. */
static size_t bytes_of(const struct tensor_type *t, int64_t n)
{
    return (size_t)(n / t->block) * t->block_bytes;
}

/* A part's bytes are whole blocks. */
static bool sums_fit(const struct tensor_type *t) { return bytes_of(t, PART) % HASH_BLOCK == 0; }

/* The sums of bytes [at, at + n), which lie at p; at begins a block. */
static void sum_range(unsigned char *sums, const void *p, size_t at, size_t n)
{
    for (size_t b = 0; b < hash_blocks(n); b++)
        sum_block(sums + 8 * (at / HASH_BLOCK), p, n, b);
}

/* n values from 'first' on += scale B A; they may begin and end within a row. */
static float add_pair(const struct job *j, float *f, int64_t first, int64_t n)
{
    const struct merger *g = j->g;
    int64_t cols = j->m->base->shape[1], rank = j->m->x.a->shape[0];
    float most = 0;

    for (int64_t rows, k; n > 0; f += rows * k, first += rows * k, n -= rows * k) {
        int64_t row = first / cols, at = first % cols;
        float max;

        k = cols - at < n ? cols - at : n;
        rows = k == cols ? n / cols : 1;
        max = merge_rows(f, g->b + row * rank, g->a + at, rows, k, cols, rank, (float)j->m->x.scale);
        most = max > most ? max : most;
    }
    return most;
}

/* n values from 'first' on *= what their rows are multiplied by. */
static void scale_rows(const struct job *j, float *f, int64_t first, int64_t n)
{
    int64_t cols = j->m->base->shape[1];

    for (int64_t row = first / cols, at = first % cols, k; n > 0; f += k, n -= k, at = 0, row++) {
        k = cols - at < n ? cols - at : n;
        for (int64_t i = 0; i < k; i++)
            f[i] *= j->g->rows[row];
    }
}

/* DoRA: of some rows of W + scale B A the lengths, which the magnitudes are divided by. */
static void lengths_task(void *ctx, int64_t task, int thread)
{
    struct job *j = ctx;
    float *f = j->g->threads[thread].f;
    int64_t cols = j->m->base->shape[1], end = (task + 1) * ROWS;

    if (is_stopped(j->g))
        return;
    end = end < j->m->base->shape[0] ? end : j->m->base->shape[0];
    for (int64_t row = task * ROWS; row < end; row++) {
        double squares = 0;
        for (int64_t at = 0, n; at < cols; at += n) {
            n = cols - at < STEP ? cols - at : STEP;
            tensor_to_f32(j->from, row * cols + at, n, f, NULL);
            add_pair(j, f, row * cols + at, n);
            for (int64_t i = 0; i < n; i++)
                squares += (double)f[i] * (double)f[i];
        }
        j->g->rows[row] = squares > 0 ? (float)((double)j->g->rows[row] / sqrt(squares)) : 1;
    }
}

/* Of n values from 'first' on: those that are the base's own in the result's type. */
static int64_t count_unchanged(const struct merge_item *m, int64_t first, const char *out,
                               int64_t n)
{
    enum dtype t = m->type->plain;
    float wide[COMPARED], narrow[COMPARED];
    int64_t same = 0;

    if (m->base->type == m->type)
        return merge_same(t, (const char *)m->base->data + bytes_of(m->type, first), out, n);
    /* Else the base's values are rounded first, so that only what the merge itself changed is
     * counted. */
    for (int64_t i = 0, k; i < n; i += k) {
        k = n - i < COMPARED ? n - i : COMPARED;
        tensor_to_f32(m->base, first + i, k, wide, NULL);
        floats_narrow(t, wide, k, narrow);
        same += merge_same(t, narrow, out + bytes_of(m->type, i), k);
    }
    return same;
}

/* n values from 'first' on through float32 to out, with the pair where there is one, rounded once.
 * False: one is not finite. */
static bool convert(struct job *j, struct merge_thread *t, int64_t first, int64_t n, char *out)
{
    const struct merge_item *m = j->m;
    bool packed = m->type->plain == DT_OTHER;

    if (j->in_sums)
        sum_range(j->in_sums, (const char *)j->from->data + bytes_of(j->from->type, first),
                  bytes_of(j->from->type, first), bytes_of(j->from->type, n));
    for (int64_t i = 0, k; i < n; i += k) {
        k = n - i < STEP ? n - i : STEP;
        tensor_to_f32(j->from, first + i, k, t->f, NULL);
        if (m->x.a)
            t->max_delta = fmaxf(t->max_delta, add_pair(j, t->f, first + i, k));
        if (m->x.magnitude)
            scale_rows(j, t->f, first + i, k);
        /* What is packed shows its values here alone. */
        if (!gguf_narrow(m->type, t->f, k, out + bytes_of(m->type, i)))
            return false;
    }
    /* Checked after rounding: what float32 holds may be infinite in the result's type. */
    if (!packed && merge_not_finite(m->type->plain, out, n))
        return false;
    if (m->x.a && !packed)
        t->unchanged += count_unchanged(m, first, out, n);
    if (j->out_sums)
        sum_range(j->out_sums, out, bytes_of(m->type, first), bytes_of(m->type, n));
    return true;
}

static void convert_task(void *ctx, int64_t task, int thread)
{
    struct job *j = ctx;
    struct merge_thread *t = &j->g->threads[thread];
    int64_t first = task * TASK, n = j->from->count - first < TASK ? j->from->count - first : TASK;
    struct err e = { 0 };

    if (is_stopped(j->g) || j->rc || j->bad)
        return;
    for (int64_t i = 0, k; i < n; i += k) {
        k = n - i < PART ? n - i : PART;
        if (!convert(j, t, first + i, k, t->out + bytes_of(j->m->type, i))) {
            j->bad = true;
            return;
        }
    }
    if (j->w->write_at(j->w->to, bytes_of(j->m->type, first), t->out, bytes_of(j->m->type, n), &e) < 0)
        fail(j, &e);
}

/* Some blocks of a tensor of the base that stays as it is: from its file to the other. */
static void copy_task(void *ctx, int64_t task, int thread)
{
    struct job *j = ctx;
    const struct tensor *t = j->from;
    size_t at = (size_t)task * COPY, n = t->nbytes - at < COPY ? t->nbytes - at : COPY;
    const char *p = (const char *)t->data + at;
    struct err e = { 0 };

    (void)thread;
    if (is_stopped(j->g) || j->rc || j->bad)
        return;
    for (size_t i = 0, k; i < n; i += k) {
        k = n - i < HASH_BLOCK ? n - i : HASH_BLOCK;
        sum_range(j->in_sums, p + i, at + i, k);
        /* What is not real, ids and flags, is not looked at. */
        if (type_real(t->type) &&
            merge_not_finite(t->type->plain, p + i, (int64_t)(k / t->type->block_bytes))) {
            j->bad = true;
            return;
        }
    }
    if (j->w->write_at(j->w->to, at, p, n, &e) < 0)
        fail(j, &e);
}

static void hash_task(void *ctx, int64_t task, int thread)
{
    struct job *j = ctx;

    (void)thread;
    if (!is_stopped(j->g))
        sum_block(j->in_sums, j->from->data, j->from->nbytes, (size_t)task);
}

/* Makes *p hold n things of a size; their old content need not be kept. */
static int room(void *p, size_t *cap, size_t n, size_t size, struct err *e)
{
    void **at = p, *q;

    if (n <= *cap)
        return 0;
    if (!(q = realloc(*at, n * size)))
        return err_set(e, E_SYS, "out of memory for %zu values", n);
    *at = q;
    *cap = n;
    return 0;
}

/* The pair is small against the tensor, so it is widened as a whole, once. */
static int widen(const struct tensor *t, float **to, int64_t *cap, struct err *e)
{
    size_t have = (size_t)*cap;
    int rc = room(to, &have, (size_t)t->count, sizeof **to, e);

    *cap = (int64_t)have;
    if (rc == 0 && (rc = tensor_check(t, e)) == 0)
        rc = tensor_to_f32(t, 0, t->count, *to, e);
    return rc;
}

/* Why the tasks did not do it all. */
static int outcome(const struct job *j, struct err *e)
{
    if (is_stopped(j->g))
        return err_set(e, E_NO, "stopped");
    if (j->rc) {
        *e = j->e;
        return j->rc;
    }
    if (!j->bad)
        return 0;
    err_set(e, E_DATA, "tensor '%.200s' has values that are not finite as %s", j->m->name,
            j->m->type->name);
    /* Float16 ends at 65504; the other types reach further. */
    return j->m->type->plain == DT_F16 ? err_hint(e, "try --dtype bfloat16 or --dtype float32") : E_DATA;
}

/* Of what was read: the sums that the tasks took, or where they could not, all of it here. */
static int check_input(struct job *j, uint64_t *hash, struct err *e)
{
    *hash = j->in_sums ? block_hash_of(j->in_sums, j->from->nbytes)
                       : block_hash(j->from->data, j->from->nbytes);
    return tensor_agrees(j->from, *hash, e);
}

/* The bytes stay: no value is converted. */
static bool is_copy(const struct merge_item *m, const struct tensor *from)
{
    return !m->x.a && from->type == m->type && (!type_real(from->type) || from->type->plain != DT_OTHER);
}

int merger_write(struct merger *g, const struct merge_sink *w, const struct merge_item *m,
                 uint64_t *base_hash, struct err *e)
{
    struct job j = { .g = g, .w = w, .m = m, .from = m->x.whole ? m->x.whole : m->base };
    bool copy = is_copy(m, j.from);
    uint64_t in = 0;
    int rc;

    if (m->nbytes == 0)
        return 0;
    rc = w->begin(w->to, m->nbytes, e);
    if (rc == 0 && (rc = room(&g->in_sums, &g->in_cap, hash_blocks(j.from->nbytes), 8, e)) == 0)
        rc = room(&g->out_sums, &g->out_cap, hash_blocks(m->nbytes), 8, e);
    if (rc == 0 && m->x.a && (rc = widen(m->x.a, &g->a, &g->a_cap, e)) == 0)
        rc = widen(m->x.b, &g->b, &g->b_cap, e);
    if (rc == 0 && m->x.magnitude && (rc = widen(m->x.magnitude, &g->rows, &g->rows_cap, e)) == 0)
        pool_run(g->pool, (m->base->shape[0] + ROWS - 1) / ROWS, lengths_task, &j);
    if (rc < 0)
        return rc;
    j.in_sums = copy || sums_fit(j.from->type) ? g->in_sums : NULL;
    j.out_sums = copy ? g->in_sums : sums_fit(m->type) ? g->out_sums : NULL; /* a copy has the same */
    pool_run(g->pool, copy ? (int64_t)((j.from->nbytes + COPY - 1) / COPY)
                           : (j.from->count + TASK - 1) / TASK,
             copy ? copy_task : convert_task, &j);
    if ((rc = outcome(&j, e)) < 0 || (rc = check_input(&j, &in, e)) < 0)
        return rc;
    if (!m->x.whole)
        *base_hash = in;
    for (int i = 0; i < pool_threads(g->pool); i++) {
        g->max_delta = fmaxf(g->max_delta, g->threads[i].max_delta);
        g->unchanged += g->threads[i].unchanged;
        g->threads[i].unchanged = 0;
    }
    return w->end(w->to, j.out_sums ? block_hash_of(j.out_sums, m->nbytes) : 0, e);
}

int merger_hash(struct merger *g, const struct tensor *t, uint64_t *hash, struct err *e)
{
    struct job j = { .g = g, .from = t };
    int rc = room(&g->in_sums, &g->in_cap, hash_blocks(t->nbytes), 8, e);

    if (rc < 0)
        return rc;
    j.in_sums = g->in_sums;
    pool_run(g->pool, (int64_t)hash_blocks(t->nbytes), hash_task, &j);
    return (rc = outcome(&j, e)) < 0 ? rc : check_input(&j, hash, e);
}
