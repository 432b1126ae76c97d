/* model/upload.c - tensors of mapped files onto the device, as fast as memory goes. */
#include "model/inside.h"

#include "base/block_hash.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LEAST = 1024,            /* values converted at a time, whole blocks of any type */
       TASK = 1 << 16,           /* values one thread looks at or converts at a time */
       STAGED = 1 << 20,         /* values converted before they go up */
       DIRECT = 32 << 20 };      /* values that go up as they are in the file */
#define PINNED_BYTES ((size_t)128 << 20)

struct upload {
    const struct tensor *t;
    enum dtype to;
    int64_t at, n;               /* the piece in hand */
    void *stage;                 /* what goes up; NULL: the file's bytes do */
    unsigned char *sums;         /* of all blocks of the tensor, for its hash; NULL: not here */
    bool bad;                    /* a value of the piece is not finite */
};

/* Value i in the file. Only for plain types, where a block is one value. */
static const char *value_at(const struct tensor *t, int64_t i)
{
    return (const char *)t->data + (size_t)i * t->type->block_bytes;
}

/* Whether an exponent is all ones, which is infinity or no number. */
static bool any_special16(const char *p, int64_t n, uint16_t mask)
{
    uint16_t bad = 0, v;

    for (int64_t i = 0; i < n; i++) {
        memcpy(&v, p + 2 * i, sizeof v);
        bad |= (uint16_t)((v & mask) == mask);
    }
    return bad;
}

static bool any_special32(const char *p, int64_t n)
{
    const uint32_t mask = 0x7F800000u;
    uint32_t bad = 0, v;

    for (int64_t i = 0; i < n; i++) {
        memcpy(&v, p + 4 * i, sizeof v);
        bad |= (v & mask) == mask;
    }
    return bad;
}

static bool any_special(enum dtype t, const char *p, int64_t n)
{
    /* the exponent's bits: 8 of bfloat16, 5 of float16 */
    return t == DT_F32 ? any_special32(p, n)
                       : any_special16(p, n, t == DT_BF16 ? 0x7F80 : 0x7C00);
}

/* Values [at, at + n) of the piece in hand, converted into the same place of the stage. */
static void convert(const struct upload *u, int64_t at, int64_t n)
{
    size_t es = dtype_bytes(u->to);
    char *dst = (char *)u->stage + (size_t)at * es;
    float f[LEAST];

    if (u->t->type->plain == u->to) {
        memcpy(dst, value_at(u->t, u->at + at), (size_t)n * es);
        return;
    }
    if (u->to == DT_F32) {
        tensor_to_f32(u->t, u->at + at, n, (float *)u->stage + at, NULL);
        return;
    }
    /* by way of float32, as much as fits on the stack */
    for (int64_t i = 0, k; i < n; i += k) {
        k = n - i < LEAST ? n - i : LEAST;
        tensor_to_f32(u->t, u->at + at + i, k, f, NULL);
        floats_narrow(u->to, f, k, dst + (size_t)i * es);
    }
}

/* Bytes of so many values in the file. */
static size_t bytes_of(const struct tensor *t, int64_t n)
{
    return (size_t)(n / t->type->block) * t->type->block_bytes;
}

/* Each task is whole blocks of the hash, so that it is taken while they are in the nearest caches. */
static bool sums_fit(const struct tensor *t) { return bytes_of(t, TASK) % HASH_BLOCK == 0; }

static void sum_task(const struct upload *u, int64_t at, int64_t n)
{
    size_t end = hash_blocks(bytes_of(u->t, u->at + at + n));

    for (size_t b = bytes_of(u->t, u->at + at) / HASH_BLOCK; b < end; b++)
        sum_block(u->sums, u->t->data, u->t->nbytes, b);
}

/* Converts TASK values, looks whether all are finite, and takes the sums of their bytes. */
static void one_task(void *ctx, int64_t task, int thread)
{
    struct upload *u = ctx;
    int64_t at = task * TASK, n = u->n - at < TASK ? u->n - at : TASK;
    bool packed = u->t->type->plain == DT_OTHER, bad;

    (void)thread;
    if (u->stage)
        convert(u, at, n);
    /* what is packed shows its values only when converted; else the file's own are looked at */
    bad = packed ? any_special(u->to, (char *)u->stage + (size_t)at * dtype_bytes(u->to), n)
                 : any_special(u->t->type->plain, value_at(u->t, u->at + at), n);
    if (bad)
        /* all threads write the same value, in any order */
        __atomic_store_n(&u->bad, true, __ATOMIC_RELAXED);
    if (u->sums)
        sum_task(u, at, n);
}

/* Finds the first value of the piece that is not finite, and names it. */
static int name_bad(const struct upload *u, struct err *e)
{
    const int64_t block = u->t->type->block;
    float v[LEAST];

    for (int64_t i = u->at; i < u->at + u->n; i++) {
        int64_t k = (i - u->at) % block;

        /* decodes a block at a time, for packed values cannot be read alone */
        if (k == 0)
            tensor_to_f32(u->t, i, block, v, NULL);
        if (isfinite(v[k]))
            continue;
        err_set(e, E_DATA, "element %lld is %s", (long long)i,
                isnan(v[k]) ? "not a number" : "infinite");
        err_hint(e, "the file is damaged or was saved by a run that diverged; "
                 "'linfo --verify FOLDER' checks all of it");
        break;
    }
    return err_within(e, "tensor '%s'", u->t->name);
}

void upload_begin(struct model *m)
{
    if (m->d->own_memory && m->d->host_alloc(m->d, PINNED_BYTES, &m->stage, NULL) < 0)
        m->stage = NULL; /* slower */
}

void upload_end(struct model *m)
{
    if (m->stage)
        m->d->host_release(m->d, m->stage, PINNED_BYTES);
    m->stage = NULL;
}

/* In the host's memory of the model threads write to the place itself. */
static bool on_host(const struct model *m, const unsigned char *p)
{
    const struct arena *a = &m->mem[MEM_HOST];

    return p >= a->base && p < a->base + a->used_bytes;
}

/* A packed matrix, as it is. */
static int upload_packed(struct model *m, void *dst, const struct tensor_type *to,
                         const struct tensor *t, struct err *e)
{
    struct mat at = mat_at(to, dst, t->shape[0], t->shape[1]);
    int rc;

    if (t->type != to)
        return err_set(e, E_CONFIG, "tensor '%s' has type %s; the model was laid out for %s",
                       t->name,
                       t->type->name, to->name);
    rc = m->d->to_device(m->d, dst, t->data, t->nbytes);
    if (rc == 0 && at.scale)
        rc = m->d->to_device(m->d, (void *)(uintptr_t)at.scale, t->scale,
                             to->scale_bytes(t->shape[0], t->shape[1]));
    return rc < 0 ? m->d->sync(m->d, e) : 0;
}

/* A piece after the other, each by all threads. most: values of a piece. */
static int upload_pieces(struct model *m, struct pool *p, void *dst, size_t es, int64_t most,
                         struct upload *u, struct err *e)
{
    bool there = on_host(m, dst);
    int rc = 0;

    for (; u->at < u->t->count && rc == 0; u->at += u->n) {
        char *place = (char *)dst + (size_t)u->at * es;

        u->n = u->t->count - u->at < most ? u->t->count - u->at : most;
        /* in the host's memory the threads write to the final place, and nothing is copied */
        u->stage = there ? place : u->stage;
        pool_run(p, (u->n + TASK - 1) / TASK, one_task, u);
        if (u->bad)
            rc = name_bad(u, e);
        else if (!there && m->d->to_device(m->d, place, u->stage ? u->stage : value_at(u->t, u->at),
                                           (size_t)u->n * es) < 0)
            rc = m->d->sync(m->d, e);
    }
    return rc;
}

static int upload_plain(struct model *m, struct pool *p, void *dst, const struct tensor_type *type,
                        const struct tensor *t, unsigned char *sums, struct err *e)
{
    struct upload u = { .t = t, .to = type->plain, .stage = m->stage, .sums = sums };
    bool there = on_host(m, dst);
    size_t es = type->block_bytes;
    /* the size of a piece: what the pinned stage holds; a lot where no stage is needed; else
     * a little, for the stage is taken from ordinary memory */
    int64_t most = m->stage && !there ? (int64_t)(PINNED_BYTES / es)
                   : there || t->type->plain == u.to ? DIRECT : STAGED;
    void *own = NULL;
    int rc;

    if (!type_real(t->type)) {
        err_set(e, E_DATA, "values of type %s cannot be used as weights", t->type->name);
        return err_within(e, "tensor '%s'", t->name);
    }
    if (most == STAGED) {
        int64_t n = t->count < STAGED ? t->count : STAGED;
        /* + 1: malloc(0) may return NULL without a failure */
        if (!(u.stage = own = malloc((size_t)n * es + 1)))
            return err_set(e, E_SYS, "out of memory");
    }
    rc = upload_pieces(m, p, dst, es, most, &u, e);
    free(own);
    return rc;
}

int upload_tensor(struct model *m, struct pool *p, void *dst, const struct tensor_type *type,
                  const struct tensor *t, uint64_t *hash, struct err *e)
{
    bool packed = type->plain == DT_OTHER, wanted = hash || t->hashed;
    bool apart = packed || !sums_fit(t); /* then the hash is taken by this thread, before */
    unsigned char *sums = NULL;
    uint64_t is = 0;
    int rc = 0;

    if (wanted && apart)
        is = block_hash(t->data, t->nbytes);
    else if (wanted && !(sums = malloc(8 * hash_blocks(t->nbytes) + 1)))
        return err_set(e, E_SYS, "out of memory");
    /* damage is named before what follows from it, such as a value that is not finite */
    if (wanted && apart)
        rc = tensor_agrees(t, is, e);
    if (rc == 0)
        rc = packed ? upload_packed(m, dst, type, t, e) : upload_plain(m, p, dst, type, t, sums, e);
    if (rc == 0 && sums)
        rc = tensor_agrees(t, is = block_hash_of(sums, t->nbytes), e);
    if (hash)
        *hash = is;
    free(sums);
    return rc;
}
