/* tests/test_arch.c - a family that is not in arch.c, described here alone, from config.json to a
 * merged model: against a plain model in float64, gradients against its differences. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/perm.h"
#include "formats/weights/weights.h"
#include "model/flops.h"
#include "model/model.h"
#include "tests/madeup.h"
#include "tools/merge.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { VOCAB = 23, DIM = 10, FFN = 14, LAYERS = 2, HEADS = 4, KV_HEADS = 2, HEAD = 6, TURNED = 4,
       SEQS = 2, LEN = 7, ROWS = SEQS * LEN, GROUP = 4, RANK = 3, WINDOW = 3 };
#define EPS 1e-5

static const char json[] = "{\"model_type\":\"made\",\"vocab_size\":23,\"hidden_size\":10,"
    "\"intermediate_size\":14,\"num_hidden_layers\":2,\"num_attention_heads\":4,"
    "\"num_key_value_heads\":2,\"head_dim\":6,\"rms_norm_eps\":1e-5,\"attention_bias\":true,"
    "\"initializer_range\":0.4,\"sliding_window\":3}";

static struct device cpu;
static struct err e;
#define OK(x) do { if ((x) < 0) fail_msg("%s: %s", #x, e.msg); } while (0)

/* ---- the plain model ---- */

struct net {
    double *t[LAYERS + 1][ROLES];       /* values of tensors; [LAYERS]: the top's */
    double *pair[LAYERS][ROLES][2];     /* A, B */
    double scale;                       /* of the pairs */
    int32_t ids[ROWS], targets[ROWS];
    const struct segments *seg;
    double logits[ROWS][VOCAB];
};

static void product(const struct net *n, int l, enum role r, int out, int in, const double *x,
                    double *y)
{
    const double *w = n->t[l][r], *a = n->pair[l][r][0], *b = n->pair[l][r][1];
    double low[RANK] = { 0 };

    for (int k = 0; a && k < RANK; k++)
        for (int i = 0; i < in; i++)
            low[k] += a[k * in + i] * x[i];
    for (int o = 0; o < out; o++) {
        y[o] = n->t[l][role_bias(r)][o];
        for (int i = 0; i < in; i++)
            y[o] += w[o * in + i] * x[i];
        for (int k = 0; a && k < RANK; k++)
            y[o] += n->scale * b[o * RANK + k] * low[k];
    }
}

static void rms(int n, const double *x, const double *w, double *y)
{
    double s = 0;

    for (int i = 0; i < n; i++)
        s += x[i] * x[i];
    s = 1 / sqrt(s / n + EPS);
    for (int i = 0; i < n; i++)
        y[i] = w[i] * x[i] * s;
}

/* A head's norm, then a turn of its first TURNED channels; the others stay. */
static void prepare_head(const double *w, int position, double *x)
{
    rms(HEAD, x, w, x);
    for (int i = 0; i < TURNED / 2; i++) {
        double a = position * pow(10000, -2.0 * i / TURNED), p = x[i], q = x[i + TURNED / 2];

        x[i] = p * cos(a) - q * sin(a);
        x[i + TURNED / 2] = q * cos(a) + p * sin(a);
    }
}

/* The first row that a row sees. */
static int first_seen(const struct net *n, int head, int row)
{
    const struct op_segments *s = &n->seg->half[head >= HEADS / 2];
    int64_t i = 0;

    while (s->cu[i + 1] <= row)
        i++;
    return s->cu[i] > row - WINDOW + 1 ? (int)s->cu[i] : row - WINDOW + 1;
}

static void attend(const struct net *n, int head, int row, double q[][HEADS * HEAD],
                   double k[][KV_HEADS * HEAD], double v[][KV_HEADS * HEAD], double *out)
{
    int kv = head / (HEADS / KV_HEADS) * HEAD, from = first_seen(n, head, row);
    double p[ROWS], sum = 0;

    for (int j = from; j <= row; j++) {
        p[j] = 0;
        for (int i = 0; i < HEAD; i++)
            p[j] += q[row][head * HEAD + i] * k[j][kv + i];
        sum += p[j] = exp(p[j] / sqrt(HEAD));
    }
    for (int i = 0; i < HEAD; i++) {
        out[i] = 0;
        for (int j = from; j <= row; j++)
            out[i] += p[j] / sum * v[j][kv + i];
    }
}

static void layer(const struct net *n, int l, double x[][DIM])
{
    double q[ROWS][HEADS * HEAD], k[ROWS][KV_HEADS * HEAD], v[ROWS][KV_HEADS * HEAD];
    double h[DIM], o[HEADS * HEAD], y[DIM], g[FFN], u[FFN];

    for (int r = 0; r < ROWS; r++) {
        rms(DIM, x[r], n->t[l][ROLE_ATTN_NORM], h);
        product(n, l, ROLE_Q, HEADS * HEAD, DIM, h, q[r]);
        product(n, l, ROLE_K, KV_HEADS * HEAD, DIM, h, k[r]);
        product(n, l, ROLE_V, KV_HEADS * HEAD, DIM, h, v[r]);
        for (int i = 0; i < HEADS; i++)
            prepare_head(n->t[l][ROLE_Q_NORM], r % LEN, q[r] + i * HEAD);
        for (int i = 0; i < KV_HEADS; i++)
            prepare_head(n->t[l][ROLE_K_NORM], r % LEN, k[r] + i * HEAD);
    }
    for (int r = 0; r < ROWS; r++) {
        for (int i = 0; i < HEADS; i++)
            attend(n, i, r, q, k, v, o + i * HEAD);
        product(n, l, ROLE_O, DIM, HEADS * HEAD, o, y);
        for (int i = 0; i < DIM; i++)
            x[r][i] += y[i];
        rms(DIM, x[r], n->t[l][ROLE_MLP_NORM], h);
        product(n, l, ROLE_GATE, FFN, DIM, h, g);
        product(n, l, ROLE_UP, FFN, DIM, h, u);
        for (int i = 0; i < FFN; i++)
            g[i] = g[i] / (1 + exp(-g[i])) * u[i];
        product(n, l, ROLE_DOWN, DIM, FFN, g, y);
        for (int i = 0; i < DIM; i++)
            x[r][i] += y[i];
    }
}

/* The summed loss; leaves the logits. */
static double plain_loss(struct net *n)
{
    double x[ROWS][DIM], h[DIM], loss = 0;

    for (int r = 0; r < ROWS; r++)
        memcpy(x[r], n->t[LAYERS][ROLE_EMBED] + n->ids[r] * DIM, sizeof x[r]);
    for (int l = 0; l < LAYERS; l++)
        layer(n, l, x);
    for (int r = 0; r < ROWS; r++) {
        double sum = 0;

        rms(DIM, x[r], n->t[LAYERS][ROLE_LAST_NORM], h);
        for (int t = 0; t < VOCAB; t++) {
            n->logits[r][t] = 0;
            for (int i = 0; i < DIM; i++)
                n->logits[r][t] += n->t[LAYERS][ROLE_HEAD][t * DIM + i] * h[i];
            sum += exp(n->logits[r][t]);
        }
        if (n->targets[r] >= 0)
            loss += log(sum) - n->logits[r][n->targets[r]];
    }
    return loss;
}

/* ---- the model beside it ---- */

struct fixture {
    struct model *m;
    struct segments seg;
    struct net net;
    struct batch b;
};

static struct llama_config config(void)
{
    struct llama_config c;

    OK(config_parse(&c, json, strlen(json), "made.json", &e));
    return c;
}

static char *scratch(const char *name)
{
    static char path[4][160];
    static int turn;
    const char *tmp = getenv("TMPDIR");

    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof *path, "%s/test_arch.%d%s%s", tmp ? tmp : "/tmp", (int)getpid(),
             *name ? "/" : "", name);
    return path[turn];
}

static struct model_options options(enum train_mode mode)
{
    struct model_options o;

    model_defaults(&o);
    o.mode = mode, o.rank = RANK, o.alpha = 5, o.ctx = LEN, o.seqs = SEQS;
    o.mlp_tile = 5, o.loss_chunk = 4;
    o.targets = arch_pairs(&made_family);
    return o;
}

/* What was trained, or is about to be, becomes the plain model's. */
static void take_trained(struct fixture *f)
{
    const struct trained *t = model_trained(f->m);

    for (int64_t i = 0; i < t->n_params; i++) {
        const struct param *p = &t->params[i];
        double **to = p->part ? &f->net.pair[p->layer][p->role][p->part - 1]
                              : &f->net.t[p->layer < 0 ? LAYERS : p->layer][p->role];

        free(*to);
        *to = malloc((size_t)p->count * sizeof **to);
        for (int64_t k = 0; k < p->count; k++)
            (*to)[k] = (double)t->w[p->offset + k];
    }
}

/* All that is trained gets values of some size, around what it has. */
static void stir(struct fixture *f)
{
    const struct trained *t = model_trained(f->m);

    for (int64_t i = 0; i < t->n_params; i++)
        for (int64_t k = 0; k < t->params[i].count; k++)
            t->w[t->params[i].offset + k] +=
                0.3f * (float)normal_at(7, (uint64_t)(100000 * i + k));
    OK(model_sync_trained(f->m));
    take_trained(f);
}

static void set_up(struct fixture *f, const struct model_options *o, const struct weights *w)
{
    struct llama_config c = config();

    memset(f, 0, sizeof *f);
    OK(model_open(&f->m, &cpu, &c, o, &e));
    if (w)
        OK(model_load(f->m, w, 1, &e));
    else
        OK(model_init(f->m, 1, &e));
    OK(segments_build(&f->seg, ATTN_S2, SEQS, LEN, GROUP, NULL, 0, &e));
    f->net.seg = &f->seg;
    f->net.scale = o->alpha / (double)o->rank;
    for (int i = 0; i < ROWS; i++) {
        f->net.ids[i] = (int32_t)(mix64((uint64_t)i) % VOCAB);
        f->net.targets[i] = i % LEN == LEN - 1 ? -1 : (int32_t)(mix64((uint64_t)i + 1) % VOCAB);
    }
    f->b = (struct batch){ .n_seqs = SEQS, .len = LEN, .ids = f->net.ids, .targets = f->net.targets,
                           .seg = &f->seg };
}

static void tear_down(struct fixture *f)
{
    for (int l = 0; l <= LAYERS; l++)
        for (int r = 0; r < ROLES; r++) {
            free(f->net.t[l][r]);
            for (int k = 0; k < 2 && l < LAYERS; k++)
                free(f->net.pair[l][r][k]);
        }
    segments_free(&f->seg);
    model_close(f->m);
}

static double step(struct fixture *f)
{
    const struct trained *t = model_trained(f->m);
    double sum;
    int64_t n;

    memset(t->grad, 0, (size_t)t->n * sizeof *t->grad);
    OK(model_step(f->m, &f->b, 1, &sum, &n, &e));
    assert_int_equal(n, ROWS - SEQS);
    return sum;
}

/* Every element of every gradient against the difference of the plain model's loss. */
static void check_gradients(struct fixture *f)
{
    const struct trained *t = model_trained(f->m);
    double loss = step(f), want = plain_loss(&f->net);

    if (!(fabs(loss - want) < 1e-5 * want))
        fail_msg("loss %.9g, expected %.9g", loss, want);
    for (int64_t i = 0; i < t->n_params; i++) {
        const struct param *p = &t->params[i];
        double *v = p->part ? f->net.pair[p->layer][p->role][p->part - 1]
                            : f->net.t[p->layer < 0 ? LAYERS : p->layer][p->role];
        double off = 0, most = 0;

        for (int64_t k = 0; k < p->count; k++) {
            double was = v[k], up, slope;

            v[k] = was + 1e-5, up = plain_loss(&f->net);
            v[k] = was - 1e-5, slope = (up - plain_loss(&f->net)) / 2e-5;
            v[k] = was;
            most = fmax(most, fabs(slope));
            off = fmax(off, fabs(slope - (double)t->grad[p->offset + k]));
        }
        if (!(most > 1e-3 && off < 1e-4 * most + 1e-6))
            fail_msg("gradient of %s: off by %g of %g", p->name, off, most);
    }
}

/* ---- tests ---- */

static void test_fresh_values(void **state)
{
    struct model_options o = options(TRAIN_FULL);
    const struct trained *t;
    struct fixture f;

    (void)state;
    set_up(&f, &o, NULL);
    t = model_trained(f.m);
    for (int64_t i = 0; i < t->n_params; i++)
        for (int64_t k = 0; k < t->params[i].count; k++) {
            float v = t->w[t->params[i].offset + k];
            enum form form = role_form(t->params[i].role);

            assert_true(form == FORM_MATRIX ? fabsf(v) < 3 : v == (form == FORM_NORM));
        }
    tear_down(&f);
}

static void test_its_config(void **state)
{
    static const struct { const char *more, *why; } refused[] = {
        { ",\"mlp_bias\":false", "mlp_bias false" }, { ",\"hidden_act\":\"relu\"", "'relu'" },
        { ",\"partial_rotary_factor\":0.5", "not an even number" },
    };
    struct llama_config c = config();
    char text[512];

    (void)state;
    assert_ptr_equal(c.arch, &made_family);
    assert_int_equal(c.rotary_dim, TURNED);
    assert_int_equal(c.window, WINDOW);
    assert_int_equal(config_tensors(&c), 3 + LAYERS * (MADE_TENSORS - 3));
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        snprintf(text, sizeof text, "%.*s%s}", (int)strlen(json) - 1, json, refused[i].more);
        assert_int_equal(config_parse(&c, text, strlen(text), "x", &e), E_CONFIG);
        if (!strstr(e.msg, refused[i].why))
            fail_msg("%s: %s", refused[i].more, e.msg);
    }
}

static void test_counts(void **state)
{
    struct llama_config c = config();
    int64_t sum = 0, q = HEADS * HEAD, kv = KV_HEADS * HEAD;
    int64_t layer_products = DIM * (2 * q + 2 * kv + 3 * FFN);
    struct tensor_spec s;
    struct segments seg = { 0 };

    (void)state;
    for (int64_t i = 0; i < config_tensors(&c); i++) {
        config_tensor(&c, i, &s);
        sum += s.count;
    }
    assert_true(config_params(&c) == sum);
    assert_true(sum == 2 * VOCAB * DIM + DIM + LAYERS * (layer_products + q + 2 * kv + 4 * DIM +
                                                        2 * FFN + 2 * HEAD));
    assert_true(config_products(&c) == LAYERS * layer_products + VOCAB * DIM);
    OK(segments_build(&seg, ATTN_DENSE, 1, LEN, 0, NULL, 0, &e));
    assert_true(model_flops(&c, TRAIN_NONE, &seg) ==
                2.0 * LEN * (double)config_products(&c) + 4.0 * q * (WINDOW * (WINDOW + 1) / 2 +
                                                            (LEN - WINDOW) * WINDOW) * LAYERS);
    segments_free(&seg);
    config_tensor(&c, 2 + MADE_TENSORS - 3 + 4, &s);
    assert_string_equal(s.name, "net.blocks.1.att.wq.bias");
    assert_true(s.role == ROLE_Q_BIAS && s.dims == 1 && s.shape[0] == q);
}

static void test_full_gradients(void **state)
{
    struct model_options o = options(TRAIN_FULL);
    float logits[ROWS * VOCAB];
    struct fixture f;

    (void)state;
    set_up(&f, &o, NULL);
    assert_int_equal(model_trained(f.m)->n_params, 3 + LAYERS * (MADE_TENSORS - 3));
    stir(&f);
    check_gradients(&f);
    OK(segments_build(&f.seg, ATTN_DENSE, SEQS, LEN, 0, NULL, 0, &e));
    check_gradients(&f);
    OK(model_logits(f.m, &f.b, logits, &e));
    for (int i = 0; i < ROWS * VOCAB; i++)
        assert_true(fabs((double)logits[i] - f.net.logits[i / VOCAB][i % VOCAB]) < 1e-4);
    tear_down(&f);
}

/* Whatever is kept or computed again: the same bits. */
static void test_levels(void **state)
{
    enum { BUDGETS = 24 };
    int64_t seen[SAVE_LEVELS] = { 0 };
    size_t low = 0, high = 0;
    float *first = NULL;

    (void)state;
    for (int i = -2; i < BUDGETS; i++) {
        struct model_options o = options(TRAIN_LORA_PLUS);
        const struct trained *t;
        struct fixture f;

        o.attention_span = i % 2 ? GROUP : 1 << 20;
        o.keep_layers = i == -2 ? 0 : i == -1 ? LAYERS : -1;
        o.memory_bytes = i < 0 ? 0 : (int64_t)(low + (high - low) * (size_t)i / (BUDGETS - 1));
        set_up(&f, &o, NULL);
        stir(&f);
        step(&f);
        *(i == -2 ? &low : &high) = i < 0 ? model_memory(f.m)->total : high;
        for (int k = 0; k < SAVE_LEVELS; k++)
            seen[k] += placement_layers(&model_memory(f.m)->placement, (enum save_level)k);
        t = model_trained(f.m);
        if (!first)
            first = memcpy(malloc((size_t)t->n * 4), t->grad, (size_t)t->n * 4);
        assert_memory_equal(first, t->grad, (size_t)t->n * 4);
        tear_down(&f);
    }
    for (int k = 0; k < SAVE_LEVELS; k++)
        assert_true(seen[k] > 0);
    free(first);
}

/* A folder of the family, with values that a full model was stirred to. */
static void write_base(const struct fixture *f)
{
    const struct trained *t = model_trained(f->m);
    struct st_decl d[3 + LAYERS * (MADE_TENSORS - 3)];
    struct tensor_spec s[3 + LAYERS * (MADE_TENSORS - 3)];
    struct llama_config c = config();
    struct st_writer *w;

    OK(dir_make(scratch(""), &e));
    OK(dir_make(scratch("base"), &e));
    OK(config_write(&c, NULL, "float32", scratch("base/config.json"), &e));
    for (int64_t i = 0; i < t->n_params; i++) {
        config_tensor(&c, i, &s[i]);
        d[i] = (struct st_decl){ s[i].name, &type_f32, s[i].dims, { s[i].shape[0], s[i].shape[1] } };
    }
    OK(st_create(&w, scratch("base/model.safetensors"), d, t->n_params, &e));
    for (int64_t i = 0; i < t->n_params; i++)
        OK(st_write_f32(w, t->w + t->params[i].offset, t->params[i].count, &e));
    OK(st_finish(w, &e));
}

static const float *value(void *ctx, int64_t i)
{
    const struct trained *t = ctx;

    return t->w + t->params[i].offset;
}

/* Scores a folder, with an adapter or none. */
static double score(const char *folder, const char *adapter, const struct batch *b)
{
    struct model_options o = options(TRAIN_NONE);
    struct adapter *a;
    struct weights *w;
    struct fixture f;
    double sum;
    int64_t n;

    OK(weights_open(&w, folder, &e));
    assert_ptr_equal(weights_config(w)->arch, &made_family);
    assert_true(weights_config(w)->rotary_dim == TURNED && weights_config(w)->window == WINDOW);
    set_up(&f, &o, w);
    if (adapter) {
        OK(adapter_open(&a, adapter, weights_config(w), &e));
        OK(model_load_adapter(f.m, a, &e));
        adapter_close(a);
    }
    OK(model_forward(f.m, b, &sum, &n, &e));
    weights_close(w);
    tear_down(&f);
    return sum;
}

static void test_lora_plus_from_disk_to_a_merged_model(void **state)
{
    struct model_options full = options(TRAIN_FULL), o = options(TRAIN_LORA_PLUS);
    struct adapter_config a;
    struct merge_report r = { 0 };
    struct fixture base, f;
    struct weights *w;
    double want;

    (void)state;
    set_up(&base, &full, NULL);
    stir(&base);
    write_base(&base);
    OK(weights_open(&w, scratch("base"), &e));
    set_up(&f, &o, w);
    memcpy(f.net.t, base.net.t, sizeof f.net.t); /* frozen: the base's values */
    memset(base.net.t, 0, sizeof base.net.t);
    stir(&f);
    /* embedding, norms (of q and k too), seven pairs; no bias */
    assert_int_equal(model_trained(f.m)->n_params, 2 + LAYERS * (4 + 2 * 7));
    assert_string_equal(model_trained(f.m)->params[2].name,
                        "base_model.model.net.blocks.0.att.wv.lora_A.weight");
    check_gradients(&f);
    want = plain_loss(&f.net);

    model_adapter_config(f.m, &a);
    snprintf(a.base, sizeof a.base, "%s", scratch("base"));
    OK(dir_make(scratch("adapter"), &e));
    OK(adapter_write(scratch("adapter"), &a, model_config(f.m), scratch("base/config.json"), value,
                     (void *)(uintptr_t)model_trained(f.m), &e));
    assert_true(fabs(score(scratch("base"), scratch("adapter"), &f.b) - want) < 1e-5 * want);
    OK(merge_run(&(struct merge_options){ .base = scratch("base"), .adapter = scratch("adapter"),
        .out = scratch("merged"), .keep_dtype = true, .shard_bytes = 1 << 20, .threads = 1 }, &r,
        &e));
    assert_int_equal(r.merged, 7 * LAYERS);
    assert_int_equal(r.replaced, 2 + 4 * LAYERS);
    assert_true(fabs(score(scratch("merged"), NULL, &f.b) - want) < 1e-5 * want);
    weights_close(w);
    tear_down(&base);
    tear_down(&f);
    OK(dir_remove(scratch(""), &e));
}

/* What the code does not compute is refused when a family is made known. */
static void test_what_is_no_family(void **state)
{
    static const struct { int at; struct tensor_def d; const char *why; } spoilt[] = {
        { 0, { "net.#.words.weight", ROLE_EMBED, SIZE_VOCAB, SIZE_DIM, true }, "wrong place" },
        { 1, { "net.out.weight", ROLE_EMBED, SIZE_VOCAB, SIZE_DIM, false }, "another has" },
        { 1, { "net.last.weight", ROLE_LAST_NORM, SIZE_DIM, SIZE_NONE, false }, "another has" },
        { 3, { MADE "wv", ROLE_V, SIZE_KV, SIZE_DIM, false }, "must end in .weight" },
        { 3, { MADE "wv.weight", ROLE_V, SIZE_Q, SIZE_DIM, false }, "the shape" },
        { 4, { MADE "wv.bias", ROLE_V_BIAS, SIZE_KV, SIZE_NONE, true }, "LoRA+" },
        { 9, { MADE "n.weight", ROLE_Q_NORM, SIZE_KV, SIZE_NONE, true }, "the shape" },
        { 2, { "net.pre.weight", ROLE_ATTN_NORM, SIZE_DIM, SIZE_NONE, true }, "wrong place" },
    };
    struct tensor_def t[MADE_TENSORS];
    struct arch a = made_family;

    (void)state;
    for (size_t i = 0; i < sizeof spoilt / sizeof *spoilt; i++) {
        memcpy(t, made_tensors, sizeof t);
        t[spoilt[i].at] = spoilt[i].d;
        a.model_type = "spoilt", a.tensors = t;
        assert_int_equal(arch_register(&a, &e), E_CONFIG);
        if (!strstr(e.msg, spoilt[i].why))
            fail_msg("%s: %s", spoilt[i].d.name, e.msg);
    }
    a = made_family;
    a.n_tensors--;
    assert_int_equal(arch_check(&a, &e), E_CONFIG);
    a = made_family;
    a.block.by_head = true; /* of q, k and v in one, which it has not */
    assert_int_equal(arch_check(&a, &e), E_CONFIG);
    assert_int_equal(arch_register(&made_family, &e), E_BUG); /* twice */
    assert_null(arch_find("spoilt"));
    for (int i = 0; arch_nth(i); i++)
        OK(arch_check(arch_nth(i), &e));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_its_config), cmocka_unit_test(test_counts),
        cmocka_unit_test(test_fresh_values),
        cmocka_unit_test(test_full_gradients), cmocka_unit_test(test_levels),
        cmocka_unit_test(test_lora_plus_from_disk_to_a_merged_model),
        cmocka_unit_test(test_what_is_no_family),
    };
    int rc;

    if (arch_register(&made_family, &e) < 0 || device_open(&cpu, &(struct device_options){ .name = "cpu", .threads = 2 }, &e) < 0)
        return 1;
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    cpu.close(&cpu);
    return rc;
}
