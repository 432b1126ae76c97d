/* model/pair_merge.c - a LoRA pair into its matrix, of a model that is only evaluated. */
#include "model/inside.h"

#include <math.h>
#include <stdlib.h>

static int cast_matrix(struct model *m, const void *from, enum dtype is, void *to, enum dtype wanted,
                       const struct weight *w)
{
    return m->d->cast(m->d, &(struct op_cast){ w->out * w->in, from, is, to, wanted });
}

/* A copy of the matrix that ops can write: of a streamed one, or as act of a narrow one; else NULL. */
static int copy_of(struct model *m, const struct weight *w, bool narrow, void **c, struct err *e)
{
    size_t nbytes = (size_t)(w->out * w->in) * dtype_bytes(m->d->act);
    int rc;

    if (!narrow && !w->host)
        return 0;
    if ((rc = m->d->alloc(m->d, nbytes, c, e)) < 0)
        return rc;
    rc = narrow ? cast_matrix(m, w->w, w->type->plain, *c, m->d->act, w)
                : m->d->copy(m->d, *c, w->host, nbytes);
    return rc < 0 ? m->d->sync(m->d, e) : 0;
}

/* W += scale B A on the device. A matrix of 16 bits, where products are float32, is rounded once, with
 * the pair in it. */
static int add_product(struct model *m, const struct weight *w, const struct adapter_change *x,
                       struct err *e)
{
    const struct tensor *ta = x->a, *tb = x->b;
    int64_t rank = ta->shape[0];
    bool narrow = w->type->plain != m->d->act;
    void *a = NULL, *b = NULL, *c = NULL;
    int rc = m->d->alloc(m->d, (size_t)ta->count * dtype_bytes(m->d->act), &a, e);

    if (rc == 0)
        rc = m->d->alloc(m->d, (size_t)tb->count * dtype_bytes(m->d->act), &b, e);
    if (rc == 0)
        rc = upload_tensor(m, NULL, a, dtype_type(m->d->act), ta, NULL, e);
    if (rc == 0)
        rc = upload_tensor(m, NULL, b, dtype_type(m->d->act), tb, NULL, e);
    if (rc == 0)
        rc = copy_of(m, w, narrow, &c, e);
    if (rc == 0) {
        struct op_gemm g = { .m = w->out, .n = w->in, .k = rank, .alpha = (float)x->scale, .beta = 1,
            .a = b, .lda = rank, .b = act_mat(m, a), .ldb = w->in, .c = c ? c : w->w, .ldc = w->in,
            .c_type = m->d->act };
        int done;

        if ((rc = m->d->gemm(m->d, &g)) == 0 && narrow)
            rc = cast_matrix(m, c, m->d->act, w->w, w->type->plain, w);
        else if (rc == 0 && c)
            rc = m->d->copy(m->d, w->host, c, weight_bytes(w));
        if (rc < 0)
            err_set(e, rc, "cannot merge a LoRA pair");
        /* waits even after a failure, because a, b and c are about to be released */
        rc = (done = m->d->sync(m->d, e)) < 0 ? done : rc;
    }
    if (a)
        m->d->release(m->d, a);
    if (b)
        m->d->release(m->d, b);
    if (c)
        m->d->release(m->d, c);
    return rc;
}

/* A row of W + scale B A, in float32, made as long as its magnitude. */
static void make_row(float *w, const float *b, const float *a, int64_t in, int64_t rank, float scale,
                     float magnitude)
{
    double squares = 0;

    for (int64_t k = 0; k < rank; k++)
        for (int64_t i = 0; i < in; i++)
            w[i] += scale * b[k] * a[k * in + i];
    for (int64_t i = 0; i < in; i++)
        squares += (double)w[i] * (double)w[i];
    for (int64_t i = 0; squares > 0 && i < in; i++)
        w[i] = (float)((double)w[i] * ((double)magnitude / sqrt(squares)));
}

/* The values of a tensor as float32, malloc'ed. */
static int widened(const struct tensor *t, float **f, struct err *e)
{
    int rc;

    if (!(*f = malloc((size_t)t->count * sizeof **f + 1)))
        return err_set(e, E_SYS, "out of memory for '%s'", t->name);
    return (rc = tensor_check(t, e)) < 0 ? rc : tensor_to_f32(t, 0, t->count, *f, e);
}

/* DoRA, in the host's memory: the matrix comes from the device and goes back. */
static int rescale_rows(struct model *m, const struct weight *w, const struct adapter_change *x,
                        struct err *e)
{
    int64_t count = w->out * w->in, rank = x->a->shape[0];
    size_t nbytes = weight_bytes(w);
    float *f = malloc((size_t)count * sizeof *f), *a = NULL, *b = NULL, *g = NULL;
    void *raw = malloc(nbytes);
    int rc = f && raw ? 0 : err_set(e, E_SYS, "out of memory for a matrix");

    if (rc == 0 && (rc = widened(x->a, &a, e)) == 0 && (rc = widened(x->b, &b, e)) == 0 &&
        (rc = widened(x->magnitude, &g, e)) == 0 &&
        m->d->to_host(m->d, raw, w->host ? w->host : w->w, nbytes) < 0)
        rc = m->d->sync(m->d, e);
    if (rc == 0) {
        struct tensor made = { .name = "a merged matrix", .type = &type_f32, .dims = 2,
                               .shape = { w->out, w->in }, .count = count, .data = f,
                               .nbytes = (size_t)count * sizeof *f, .file = x->magnitude->file };
        floats_widen(w->type->plain, raw, count, f);
        for (int64_t r = 0; r < w->out; r++)
            make_row(f + r * w->in, b + r * rank, a, w->in, rank, (float)x->scale, g[r]);
        rc = upload_tensor(m, NULL, w->host ? w->host : w->w, w->type, &made, NULL, e);
    }
    free(f);
    free(a);
    free(b);
    free(g);
    free(raw);
    return rc;
}

int pair_merge(struct model *m, const struct weight *w, const struct tensor_spec *s,
               const struct adapter_change *x, struct err *e)
{
    if (w->type->plain != m->d->act && (w->type->plain == DT_OTHER || w->host))
        return err_set(e, E_CONFIG, "a LoRA pair cannot be merged into '%s', which is kept as %s",
                       s->name, w->type->name);
    return x->magnitude ? rescale_rows(m, w, x, e) : add_product(m, w, x, e);
}
