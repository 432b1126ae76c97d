/* kernels/cuda/sdpa_graph.c - attention as a graph of operations that cuDNN fuses. */
#include "kernels/cuda/sdpa_graph.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/*
 * cuDNN has no function "attention". A caller describes a graph of small operations, and cuDNN
 * looks whether it has a fused kernel for a graph of that form (its documentation: "Fused flash
 * attention"). The forward is
 *
 *     q k^T -> * scale -> causal mask -> max, subtract, exp, sum, divide -> * v -> o
 *                                        (max + log(sum) -> lse)
 *
 * Tensors between operations are virtual: named, but never in memory, so the scores are not
 * stored. The order and kind of operations must be just these, or no kernel is found. The types
 * of cuDNN's descriptors are its own numbers (cudnn_abi.h). Every function here does nothing
 * after the first failure, whose reason is kept in the plan (why), so that a graph is written
 * without checks in between.
 */
enum { MOST_OPS = 32 };

struct builder {
    const struct dnn *l;
    struct sdpa_plan *p;
    void *handle;
    dnn_desc device, ops[MOST_OPS];
    int n_ops;
    int64_t next_uid;
    bool failed;
};

/* Keeps the first failure with cuDNN's own words. */
static void fail(struct builder *b, const char *what, int status)
{
    char msg[200] = "";

    if (b->failed)
        return;
    b->failed = true;
    b->l->last_error(msg, sizeof msg);
    snprintf(b->p->why, sizeof b->p->why, "%s: %s %s", what, b->l->error_string(status), msg);
}

/* A new descriptor. The plan owns it and destroys it in the end, whatever became of the
 * graph. */
static dnn_desc make(struct builder *b, int type)
{
    dnn_desc d = NULL;
    int status;

    if (b->failed)
        return NULL;
    if (b->p->n_made == SDPA_DESCS || (status = b->l->desc_create(type, &d)) != 0) {
        fail(b, "descriptor", b->p->n_made == SDPA_DESCS ? 0 : status);
        return NULL;
    }
    return b->p->made[b->p->n_made++] = d;
}

/* One attribute of a descriptor: n values of a type at v. */
static void set(struct builder *b, dnn_desc d, int name, int type, int64_t n, const void *v)
{
    int status = b->failed ? 0 : b->l->desc_set(d, name, type, n, v);
    char what[32];

    if (status) {
        snprintf(what, sizeof what, "attribute %d", name);
        fail(b, what, status);
    }
}

static void set_desc(struct builder *b, dnn_desc d, int name, dnn_desc v)
{
    set(b, d, name, DNN_T_DESC, 1, &v);
}

static void set_int(struct builder *b, dnn_desc d, int name, int type, int v)
{
    set(b, d, name, type, 1, &v);
}

static void finalize(struct builder *b, dnn_desc d, const char *what)
{
    int status = b->failed ? 0 : b->l->desc_finalize(d);

    if (status)
        fail(b, what, status);
}

/* A tensor of four dimensions. One in memory gets a slot, by which sdpa_run finds its
 * address; a virtual one lies nowhere; a scalar's value is given with each run. */
static dnn_desc tensor(struct builder *b, int type, const int64_t *dims, const int64_t *strides,
                       enum sdpa_slot slot)
{
    dnn_desc t = make(b, DNN_TENSOR);
    /* 4 bytes for single float32 values, whose rows may begin anywhere; 16 for the others */
    int64_t uid = ++b->next_uid, align = slot == SLOT_LSE || slot == SLOT_SUM ? 4 : 16;
    bool yes = true;

    set_int(b, t, DNN_TENSOR_TYPE, DNN_T_DATA_TYPE, type);
    set(b, t, DNN_TENSOR_DIMS, DNN_T_INT64, 4, dims);
    set(b, t, DNN_TENSOR_STRIDES, DNN_T_INT64, 4, strides);
    set(b, t, DNN_TENSOR_UID, DNN_T_INT64, 1, &uid);
    set(b, t, DNN_TENSOR_ALIGN, DNN_T_INT64, 1, &align);
    if (slot == SLOT_VIRTUAL)
        set(b, t, DNN_TENSOR_VIRTUAL, DNN_T_BOOL, 1, &yes);
    else if (slot == SLOT_SCALAR)
        set(b, t, DNN_TENSOR_BY_VALUE, DNN_T_BOOL, 1, &yes);
    else {
        b->p->uid[b->p->n_tensors] = uid;
        b->p->slot[b->p->n_tensors++] = slot;
    }
    finalize(b, t, "tensor");
    return t;
}

/* A number that the graph reads, such as the scale. */
static dnn_desc number(struct builder *b, int type, union sdpa_scalar v)
{
    const int64_t one[4] = { 1, 1, 1, 1 };
    dnn_desc t = tensor(b, type, one, one, SLOT_SCALAR);

    b->p->scalar_uid[b->p->n_scalars] = b->next_uid;
    b->p->scalar[b->p->n_scalars++] = v;
    return t;
}

static dnn_desc scalar(struct builder *b, float v)
{
    return number(b, DNN_F32, (union sdpa_scalar){ .f = v });
}

/* y = mode(x, with); of a selection: x where mask holds, else with. */
static void pointwise(struct builder *b, int mode, int prec, int64_t axis, dnn_desc x,
                      dnn_desc with, dnn_desc mask, dnn_desc y)
{
    dnn_desc p = make(b, DNN_POINTWISE), op;

    set_int(b, p, DNN_POINTWISE_MODE, DNN_T_POINTWISE, mode);
    set_int(b, p, DNN_POINTWISE_PREC, DNN_T_DATA_TYPE, prec);
    if (axis >= 0)
        set(b, p, DNN_POINTWISE_AXIS, DNN_T_INT64, 1, &axis);
    finalize(b, p, "pointwise");
    op = make(b, DNN_OP_POINTWISE);
    set_desc(b, op, DNN_OPPW_PW, p);
    set_desc(b, op, DNN_OPPW_X, x);
    if (with)
        set_desc(b, op, DNN_OPPW_B, with);
    if (mask)
        set_desc(b, op, DNN_OPPW_T, mask);
    set_desc(b, op, DNN_OPPW_Y, y);
    finalize(b, op, "pointwise operation");
    b->ops[b->n_ops++] = op;
}

/* y = mode(x, with), in float32. */
static void two(struct builder *b, int mode, dnn_desc x, dnn_desc with, dnn_desc y)
{
    pointwise(b, mode, DNN_F32, -1, x, with, NULL, y);
}

/* z = x y for each batch and head, summed in float32. */
static void matmul(struct builder *b, dnn_desc x, dnn_desc y, dnn_desc z)
{
    dnn_desc m = make(b, DNN_MATMUL), op;

    set_int(b, m, DNN_MATMUL_PREC, DNN_T_DATA_TYPE, DNN_F32);
    finalize(b, m, "product");
    op = make(b, DNN_OP_MATMUL);
    set_desc(b, op, DNN_OPMM_A, x);
    set_desc(b, op, DNN_OPMM_B, y);
    set_desc(b, op, DNN_OPMM_C, z);
    set_desc(b, op, DNN_OPMM_MATMUL, m);
    finalize(b, op, "product operation");
    b->ops[b->n_ops++] = op;
}

/* y = x summed, or its maximum, over the dimensions that are 1 in y. */
static void reduce(struct builder *b, int how, dnn_desc x, dnn_desc y)
{
    dnn_desc r = make(b, DNN_REDUCTION), op;

    set_int(b, r, DNN_REDUCTION_OP, DNN_T_REDUCE, how);
    set_int(b, r, DNN_REDUCTION_PREC, DNN_T_DATA_TYPE, DNN_F32);
    finalize(b, r, "reduction");
    op = make(b, DNN_OP_REDUCTION);
    set_desc(b, op, DNN_OPRED_REDUCTION, r);
    set_desc(b, op, DNN_OPRED_X, x);
    set_desc(b, op, DNN_OPRED_Y, y);
    finalize(b, op, "reduction operation");
    b->ops[b->n_ops++] = op;
}

/* The same values with other strides: how the graph transposes. */
static void reshape(struct builder *b, dnn_desc x, dnn_desc y)
{
    dnn_desc op = make(b, DNN_OP_RESHAPE);

    set_desc(b, op, DNN_RESHAPE_X, x);
    set_desc(b, op, DNN_RESHAPE_Y, y);
    finalize(b, op, "reshape");
    b->ops[b->n_ops++] = op;
}

/* The shapes that the graphs share: dimensions and strides of four. */
struct forms {
    int64_t q[4], qs[4];                /* [b][hq][s][d] queries and results */
    int64_t v[4], vs[4], kt[4], kts[4]; /* [b][hkv][n][d], and turned [d][n] */
    int64_t sc[4], scs[4];              /* scores [s][n], packed, */
    int64_t tr[4], trs[4];              /* and their transpose */
    int64_t st[4], sts[4], lse[4];      /* one a row: packed, and as the caller's lse */
    int64_t full[4], fulls[4];          /* [b][hq][s][d] packed */
    int64_t each[4], eachs[4];          /* [b][hq][n][d] packed */
};

/* kt is k with its last two strides exchanged: transposed without a copy. */
static struct forms forms_of(const struct sdpa_shape *c)
{
    int64_t b = c->b, h = c->hq, g = c->hkv, s = c->s, d = c->d, n = c->keys ? c->keys : s;
    struct forms f = {
        .q = { b, h, s, d }, .qs = { c->q[0], c->q[1], c->q[2], 1 },
        .v = { b, g, n, d }, .vs = { c->kv[0], c->kv[1], c->kv[2], 1 },
        .kt = { b, g, d, n }, .kts = { c->kv[0], c->kv[1], 1, c->kv[2] },
        .sc = { b, h, s, n }, .scs = { h * s * n, s * n, n, 1 },
        .tr = { b, h, n, s }, .trs = { h * s * n, s * n, 1, n },
        .st = { b, h, s, 1 }, .sts = { h * s, s, 1, 1 },
        .lse = { c->lse[0], c->lse[1], c->lse[2], 1 },
        .full = { b, h, s, d }, .fulls = { h * s * d, s * d, d, 1 },
        .each = { b, h, n, d }, .eachs = { h * n * d, n * d, d, 1 },
    };
    return f;
}

/* A virtual matrix of scores, and below it a virtual value for each row. */
static dnn_desc virt(struct builder *b, const struct forms *f, int type)
{
    return tensor(b, type, f->sc, f->scs, SLOT_VIRTUAL);
}

static dnn_desc virt_row(struct builder *b, const struct forms *f)
{
    return tensor(b, DNN_F32, f->st, f->sts, SLOT_VIRTUAL);
}

/* The place of each row's query among the keys: with more keys than queries the last one of both
 * is the same. */
static dnn_desc place(struct builder *b, const struct forms *f, dnn_desc row)
{
    dnn_desc more, y = row;
    const int32_t step[2] = { (int32_t)f->sc[3], (int32_t)f->sc[2] };

    for (int i = 0; i < 2 && f->sc[3] != f->sc[2]; i++) { /* cuDNN knows this form: + keys - rows */
        more = number(b, DNN_I32, (union sdpa_scalar){ .i = step[i] });
        y = virt(b, f, DNN_I32);
        pointwise(b, i ? DNN_SUB : DNN_ADD, DNN_I32, -1, row, more, NULL, y);
        row = y;
    }
    return y;
}

/* Scores of keys after the query become -infinity. */
static dnn_desc causal(struct builder *b, const struct forms *f, dnn_desc s)
{
    dnn_desc row = virt(b, f, DNN_I32), col = virt(b, f, DNN_I32), seen = virt(b, f, DNN_BOOL);
    dnn_desc y = virt(b, f, DNN_F32), none = scalar(b, -INFINITY);

    /* dimension 2 of the scores counts queries, 3 counts keys */
    pointwise(b, DNN_GEN_INDEX, DNN_F32, 2, s, NULL, NULL, row);
    row = place(b, f, row);
    pointwise(b, DNN_GEN_INDEX, DNN_F32, 3, s, NULL, NULL, col);
    pointwise(b, DNN_CMP_GE, DNN_BOOL, -1, row, col, NULL, seen);
    pointwise(b, DNN_SELECT, DNN_F32, -1, s, none, seen, y);
    return y;
}

static void forward(struct builder *b, const struct forms *f)
{
    dnn_desc q = tensor(b, DNN_BF16, f->q, f->qs, SLOT_Q);
    dnn_desc kt = tensor(b, DNN_BF16, f->kt, f->kts, SLOT_K);
    dnn_desc v = tensor(b, DNN_BF16, f->v, f->vs, SLOT_V);
    dnn_desc o = tensor(b, DNN_BF16, f->q, f->qs, SLOT_O);
    dnn_desc lse = tensor(b, DNN_F32, f->st, f->lse, SLOT_LSE);
    dnn_desc scale = scalar(b, b->p->shape.scale), raw = virt(b, f, DNN_F32);
    dnn_desc s = virt(b, f, DNN_F32), max, less, e, sum, log_sum, p;

    matmul(b, q, kt, raw);
    two(b, DNN_MUL, raw, scale, s);
    /* the softmax: the maximum is subtracted before exp, so that nothing overflows */
    s = causal(b, f, s);
    max = virt_row(b, f), less = virt(b, f, DNN_F32), e = virt(b, f, DNN_F32);
    sum = virt_row(b, f), log_sum = virt_row(b, f), p = virt(b, f, DNN_BF16);
    reduce(b, DNN_REDUCE_MAX, s, max);
    two(b, DNN_SUB, s, max, less);
    two(b, DNN_EXP, less, NULL, e);
    reduce(b, DNN_REDUCE_ADD, e, sum);
    two(b, DNN_LOG, sum, NULL, log_sum);
    two(b, DNN_ADD, max, log_sum, lse);
    two(b, DNN_DIV, e, sum, p);
    matmul(b, p, v, o);
}

/* out [b][hkv] = x y, summed over the query heads that share a key head. */
static void shared_product(struct builder *b, const struct forms *f, dnn_desc x, dnn_desc y,
                           dnn_desc out)
{
    dnn_desc each;

    if (b->p->shape.hq == b->p->shape.hkv) {
        matmul(b, x, y, out);
        return;
    }
    each = tensor(b, DNN_BF16, f->each, f->eachs, SLOT_VIRTUAL);
    matmul(b, x, y, each);
    reduce(b, DNN_REDUCE_ADD, each, out);
}

static void backward(struct builder *b, const struct forms *f)
{
    dnn_desc q = tensor(b, DNN_BF16, f->q, f->qs, SLOT_Q);
    dnn_desc kt = tensor(b, DNN_BF16, f->kt, f->kts, SLOT_K);
    dnn_desc vt = tensor(b, DNN_BF16, f->kt, f->kts, SLOT_V);
    dnn_desc o = tensor(b, DNN_BF16, f->q, f->qs, SLOT_O);
    dnn_desc d_o = tensor(b, DNN_BF16, f->q, f->qs, SLOT_DO);
    dnn_desc lse = tensor(b, DNN_F32, f->st, f->lse, SLOT_LSE);
    dnn_desc scale = scalar(b, b->p->shape.scale), one = scalar(b, 1.0f);
    dnn_desc dq = tensor(b, DNN_BF16, f->q, f->qs, SLOT_DQ);
    dnn_desc dk = tensor(b, DNN_BF16, f->v, f->vs, SLOT_DK);
    dnn_desc dv = tensor(b, DNN_BF16, f->v, f->vs, SLOT_DV);
    dnn_desc t = tensor(b, DNN_F32, f->full, f->fulls, SLOT_VIRTUAL), r = virt_row(b, f);
    dnn_desc sum = tensor(b, DNN_F32, f->st, f->sts, SLOT_SUM);
    dnn_desc raw = virt(b, f, DNN_F32), s = virt(b, f, DNN_F32), less = virt(b, f, DNN_F32);
    dnn_desc e, pt, dp, dpr, w, ds, dst, k, acc;

    /* sum = the row sums of d_o * o; times one, because the result has to be in memory */
    two(b, DNN_MUL, d_o, o, t);
    reduce(b, DNN_REDUCE_ADD, t, r);
    two(b, DNN_MUL, r, one, sum);
    /* the forward's weights again: e = exp(scale q k^T - lse), 0 after the query */
    matmul(b, q, kt, raw);
    two(b, DNN_MUL, raw, scale, s);
    two(b, DNN_SUB, s, lse, less);
    s = causal(b, f, less);
    e = virt(b, f, DNN_F32);
    two(b, DNN_EXP, s, NULL, e);
    /* dv = e^T d_o */
    pt = tensor(b, DNN_BF16, f->tr, f->trs, SLOT_VIRTUAL);
    reshape(b, e, pt);
    shared_product(b, f, pt, d_o, dv);
    /* ds = (d_o v^T - sum) * e * scale */
    dp = virt(b, f, DNN_F32), dpr = virt(b, f, DNN_F32), w = virt(b, f, DNN_F32);
    ds = virt(b, f, DNN_F32);
    matmul(b, d_o, vt, dp);
    two(b, DNN_SUB, dp, sum, dpr);
    two(b, DNN_MUL, dpr, e, w);
    two(b, DNN_MUL, w, scale, ds);
    /* dk = ds^T q */
    dst = tensor(b, DNN_BF16, f->tr, f->trs, SLOT_VIRTUAL);
    reshape(b, ds, dst);
    shared_product(b, f, dst, q, dk);
    /* dq = ds k */
    k = tensor(b, DNN_BF16, f->v, f->vs, SLOT_VIRTUAL);
    reshape(b, kt, k);
    if (b->p->shape.det) {
        matmul(b, ds, k, dq);
        return;
    }
    /* blocks of keys add to a float32 buffer in any order, which is rounded in the end */
    acc = tensor(b, DNN_F32, f->full, f->fulls, SLOT_ACC);
    matmul(b, ds, k, acc);
    two(b, DNN_IDENTITY, acc, NULL, dq);
}

/* One offer of the heuristics to a plan. */
static void try_config(struct builder *b, dnn_desc config)
{
    struct sdpa_plan *p = b->p;
    dnn_desc engine = make(b, DNN_ENGINE), plan = make(b, DNN_PLAN);
    char msg[200] = "";
    int64_t n = 0;
    int status;

    if (b->failed)
        return;
    /* -1: not known */
    p->engine = p->workspace = -1;
    if (b->l->desc_get(config, DNN_CFG_ENGINE, DNN_T_DESC, 1, &n, &engine) == 0)
        (void)b->l->desc_get(engine, DNN_ENGINE_INDEX, DNN_T_INT64, 1, &n, &p->engine);
    if (b->handle)
        set(b, plan, DNN_PLAN_HANDLE, DNN_T_HANDLE, 1, &b->handle);
    set_desc(b, plan, DNN_PLAN_CFG, config);
    /* for a GPU that is not here, the configuration tells what the plan would */
    if (b->device) {
        set_desc(b, plan, DNN_PLAN_DEVICEPROP, b->device);
        (void)b->l->desc_get(config, DNN_CFG_WORKSPACE, DNN_T_INT64, 1, &n, &p->workspace);
    }
    if (b->failed)
        return;
    if ((status = b->l->desc_finalize(plan)) == 0) {
        (void)b->l->desc_get(plan, DNN_PLAN_WORKSPACE, DNN_T_INT64, 1, &n, &p->workspace);
        p->ok = p->workspace >= 0;
        p->plan = plan;
        return;
    }
    b->l->last_error(msg, sizeof msg);
    snprintf(p->why, sizeof p->why, "engine %lld: %s %s", (long long)p->engine,
             b->l->error_string(status), msg);
    if (b->device && strstr(msg, "cuLibraryLoadData")) /* compiled; no GPU here to load it on */
        p->ok = true;
}

/* Asks the heuristics first, then the list of fallbacks; the first offer that makes a plan
 * wins. */
static void choose(struct builder *b)
{
    static const int modes[2] = { DNN_HEUR_A, DNN_HEUR_FALLBACK };
    dnn_desc g = make(b, DNN_GRAPH);

    if (b->handle)
        set(b, g, DNN_GRAPH_HANDLE, DNN_T_HANDLE, 1, &b->handle);
    set(b, g, DNN_GRAPH_OPS, DNN_T_DESC, b->n_ops, b->ops);
    finalize(b, g, "graph");
    for (int m = 0; m < 2 && !b->failed && !b->p->ok; m++) {
        dnn_desc heur = make(b, DNN_ENGINEHEUR), config[8];
        int64_t n = 0, got = 0;
        set_desc(b, heur, DNN_HEUR_GRAPH, g);
        set_int(b, heur, DNN_HEUR_MODE, DNN_T_HEUR, modes[m]);
        if (b->device)
            set_desc(b, heur, DNN_HEUR_DEVICEPROP, b->device);
        if (b->failed || b->l->desc_finalize(heur) != 0 ||
            b->l->desc_get(heur, DNN_HEUR_RESULTS, DNN_T_DESC, 0, &n, NULL) != 0)
            continue;
        /* 8 offers at most, best first */
        n = n < 8 ? n : 8;
        for (int64_t i = 0; i < n; i++)
            config[i] = make(b, DNN_ENGINECFG);
        if (n == 0 || b->failed ||
            b->l->desc_get(heur, DNN_HEUR_RESULTS, DNN_T_DESC, n, &got, config) != 0)
            continue;
        for (int64_t i = 0; i < got && !b->p->ok && !b->failed; i++)
            try_config(b, config[i]);
    }
}

void sdpa_build(const struct dnn *l, void *handle, dnn_desc device, struct sdpa_plan *p)
{
    struct builder b = { .l = l, .p = p, .handle = handle, .device = device };
    struct forms f = forms_of(&p->shape);

    /* stays if there are no offers at all */
    snprintf(p->why, sizeof p->why, "no engine takes it");
    if (p->shape.back)
        backward(&b, &f);
    else
        forward(&b, &f);
    choose(&b);
    if (b.failed)
        p->ok = false;
}
