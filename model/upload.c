/* model/upload.c - tensors of mapped files onto the device, as fast as memory goes. */
#include "model/inside.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TASK = 1 << 16,           /* values one thread looks at or converts at a time */
       STAGED = 1 << 20,         /* values converted before they go up */
       DIRECT = 32 << 20 };      /* values that go up as they are in the file */
#define PINNED_BYTES ((size_t)128 << 20)

struct upload {
    const struct st_tensor *t;
    enum dtype to;
    int64_t at, n;               /* the piece in hand */
    void *stage;                 /* what goes up; NULL: the file's bytes do */
    bool bad;                    /* a value of the piece is not finite */
};

static const char *value_at(const struct st_tensor *t, int64_t i)
{
    return (const char *)t->data + (size_t)i * st_dtype_bytes(t->dtype);
}

static bool same_type(enum st_dtype from, enum dtype to)
{
    return (from == ST_F32 && to == DT_F32) || (from == ST_F16 && to == DT_F16) ||
           (from == ST_BF16 && to == DT_BF16);
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

static bool any_special(enum st_dtype t, const char *p, int64_t n)
{
    return t == ST_F32 ? any_special32(p, n)
                       : any_special16(p, n, t == ST_BF16 ? 0x7F80 : 0x7C00);
}

static void convert(const struct upload *u, const char *src, int64_t at, int64_t n)
{
    enum st_dtype to = u->to == DT_BF16 ? ST_BF16 : ST_F16;
    size_t es = dtype_bytes(u->to);
    float f[1024];

    if (same_type(u->t->dtype, u->to)) {
        memcpy((char *)u->stage + (size_t)at * es, src, (size_t)n * es);
        return;
    }
    if (u->to == DT_F32) {
        st_to_f32(u->t->dtype, src, n, (float *)u->stage + at, NULL);
        return;
    }
    for (int64_t i = 0, k; i < n; i += k) {
        k = n - i < 1024 ? n - i : 1024;
        st_to_f32(u->t->dtype, src + (size_t)i * st_dtype_bytes(u->t->dtype), k, f, NULL);
        st_from_f32(to, f, k, (uint16_t *)u->stage + at + i, NULL);
    }
}

static void one_task(void *ctx, int64_t task, int thread)
{
    struct upload *u = ctx;
    int64_t at = task * TASK, n = u->n - at < TASK ? u->n - at : TASK;
    const char *src = value_at(u->t, u->at + at);

    (void)thread;
    if (any_special(u->t->dtype, src, n))
        __atomic_store_n(&u->bad, true, __ATOMIC_RELAXED);
    if (u->stage)
        convert(u, src, at, n);
}

static int name_bad(const struct upload *u, struct err *e)
{
    for (int64_t i = u->at; i < u->at + u->n; i++) {
        float v;

        st_to_f32(u->t->dtype, value_at(u->t, i), 1, &v, NULL);
        if (isfinite(v))
            continue;
        err_set(e, E_DATA, "element %lld is %s", (long long)i,
                isnan(v) ? "not a number" : "infinite");
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

int upload_tensor(struct model *m, struct pool *p, void *dst, enum dtype to,
                  const struct st_tensor *t, struct err *e)
{
    struct upload u = { .t = t, .to = to, .stage = m->stage };
    bool there = on_host(m, dst);
    int64_t most = m->stage && !there ? (int64_t)(PINNED_BYTES / dtype_bytes(to))
                   : there || same_type(t->dtype, to) ? DIRECT : STAGED;
    void *own = NULL;
    int rc = 0;

    if (!st_dtype_real(t->dtype)) {
        err_set(e, E_DATA, "values of type %s are not weights", st_dtype_name(t->dtype));
        return err_within(e, "tensor '%s'", t->name);
    }
    if (most == STAGED) {
        int64_t n = t->count < STAGED ? t->count : STAGED;
        if (!(u.stage = own = malloc((size_t)n * dtype_bytes(to) + 1)))
            return err_set(e, E_SYS, "out of memory");
    }
    for (; u.at < t->count && rc == 0; u.at += u.n) {
        char *place = (char *)dst + (size_t)u.at * dtype_bytes(to);

        u.n = t->count - u.at < most ? t->count - u.at : most;
        u.stage = there ? place : u.stage;
        pool_run(p, (u.n + TASK - 1) / TASK, one_task, &u);
        if (u.bad)
            rc = name_bad(&u, e);
        else if (!there && m->d->to_device(m->d, place, u.stage ? u.stage : value_at(t, u.at),
                                           (size_t)u.n * dtype_bytes(to)) < 0)
            rc = m->d->sync(m->d, e);
    }
    free(own);
    return rc;
}
