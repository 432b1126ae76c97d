/* tests/test_model.c - the model against transformers' and peft's numbers, and against itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "formats/weights/safetensors.h"
#include "model/flops.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DATA "tests/data/model/"

enum { SEQS = 2, LEN = 13, VOCAB = 48, GROUP = 4 };

struct fixture {
    struct device d;
    struct model *m;
    struct st_file *gold;
    struct segments seg;
    int32_t ids[SEQS * LEN], targets[SEQS * LEN];
    struct batch b;
    struct err e;
};

#define OK(x) do { struct err *e_ = &f->e; if ((x) < 0) fail_msg("%s: %s", #x, e_->msg); } while (0)

static const struct tensor *gold(struct fixture *f, const char *name)
{
    const struct tensor *t = st_find(f->gold, name);

    if (!t)
        fail_msg("no golden tensor '%s'", name);
    return t;
}

static void shift_targets(struct fixture *f)
{
    for (int i = 0; i < SEQS * LEN; i++)
        f->targets[i] = i % LEN == LEN - 1 ? -1 : f->ids[i + 1];
}

static void set_up(struct fixture *f, const char *name, struct model_options *o, int threads,
                   bool with_adapter)
{
    struct weights *w;
    struct adapter *a;
    struct llama_config c;
    char path[128];

    memset(f, 0, sizeof *f);
    OK(device_open(&f->d,
                   &(struct device_options){ .name = "cpu", .threads = threads }, &f->e));
    snprintf(path, sizeof path, DATA "%s", name);
    OK(weights_open(&w, path, &f->e));
    c = *weights_config(w);
    o->ctx = LEN;
    o->seqs = SEQS;
    OK(model_open(&f->m, &f->d, &c, o, &f->e));
    OK(model_load(f->m, w, 1, &f->e));
    if (with_adapter) {
        strcat(path, "/adapter");
        OK(adapter_open(&a, path, weights_config(w), &f->e));
        OK(model_load_adapter(f->m, a, &f->e));
        adapter_close(a);
    }
    weights_close(w);
    snprintf(path, sizeof path, DATA "%s.safetensors", name);
    OK(st_open(&f->gold, path, &f->e));
    for (int i = 0; i < SEQS * LEN; i++) {
        int64_t id;
        memcpy(&id, (const char *)gold(f, "ids")->data + 8 * i, 8);
        f->ids[i] = (int32_t)id;
    }
    shift_targets(f);
    f->b = (struct batch){ .n_seqs = SEQS, .len = LEN, .ids = f->ids, .targets = f->targets,
                           .seg = &f->seg };
    OK(segments_build(&f->seg, ATTN_DENSE, SEQS, LEN, 0, NULL, 0, &f->e));
}

static void tear_down(struct fixture *f)
{
    segments_free(&f->seg);
    st_close(f->gold);
    model_close(f->m);
    f->d.close(&f->d);
}

/* Largest |got - want| over the largest |want|. */
static double worst(const float *got, const void *want, int64_t n)
{
    double err = 0, top = 1e-30;

    for (int64_t i = 0; i < n; i++) {
        float w;
        memcpy(&w, (const char *)want + 4 * i, 4);
        if (!(fabs((double)got[i] - (double)w) <= err))
            err = fabs((double)got[i] - (double)w);
        if (fabs((double)w) > top)
            top = fabs((double)w);
    }
    return err / top;
}

static double step(struct fixture *f)
{
    double sum;
    int64_t n;
    const struct trained *t = model_trained(f->m);

    f->d.zero(&f->d, t->grad, (size_t)t->n * 4);
    OK(model_step(f->m, &f->b, 1.0 / (SEQS * (LEN - 1)), &sum, &n, &f->e));
    assert_int_equal(n, SEQS * (LEN - 1));
    return sum / (double)n;
}

static void check_case(struct fixture *f, const char *kind)
{
    const struct trained *t = model_trained(f->m);
    char name[256];
    float want;
    double loss = step(f);

    snprintf(name, sizeof name, "%s.loss", kind);
    memcpy(&want, gold(f, name)->data, 4);
    if (fabs(loss - (double)want) > 1e-4 * fabs((double)want))
        fail_msg("%s: %.7f, expected %.7f", name, loss, (double)want);
    for (int64_t i = 0; i < t->n_params; i++) {
        const struct param *p = &t->params[i];
        const struct tensor *g;

        snprintf(name, sizeof name, "%s.grad.%s", kind, p->name);
        g = gold(f, name);
        assert_int_equal(g->count, p->count);
        if (worst(t->grad + p->offset, g->data, p->count) > 1e-4)
            fail_msg("%s: relative error %g", name, worst(t->grad + p->offset, g->data, p->count));
    }
}

static const char *const models[] = { "mha", "gqa", "odd" };

static void test_logits_equal_transformers(void **state)
{
    static float logits[SEQS * LEN * VOCAB];

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct fixture fix, *f = &fix;
        struct model_options o;

        model_defaults(&o);
        o.mode = TRAIN_NONE;
        o.mlp_tile = 5;
        o.loss_chunk = 4;
        set_up(f, models[i], &o, 2, false);
        OK(model_logits(f->m, &f->b, logits, &f->e));
        for (int k = 0; k < SEQS * LEN * VOCAB; k++) {
            float w;
            memcpy(&w, (const char *)gold(f, "logits")->data + 4 * k, 4);
            if (!(fabs((double)logits[k] - (double)w) < 1e-4))
                fail_msg("%s logit %d: %f, expected %f", models[i], k, (double)logits[k],
                         (double)w);
        }
        tear_down(f);
    }
}

static void test_gradients_equal_transformers(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        for (int keep = 0; keep < 3; keep++) {
            struct fixture fix, *f = &fix;
            struct model_options o;

            model_defaults(&o);
            o.mode = TRAIN_FULL;
            o.keep_layers = keep;
            o.mlp_tile = 7;
            o.loss_chunk = 5;
            set_up(f, models[i], &o, 2, false);
            check_case(f, "dense");
            OK(segments_build(&f->seg, ATTN_S2, SEQS, LEN, GROUP, NULL, 0, &f->e));
            check_case(f, "s2");
            tear_down(f);
        }
}

static struct model_options lora_options(enum train_mode mode)
{
    struct model_options o;

    model_defaults(&o);
    o.mode = mode;
    o.rank = 4;
    o.alpha = 8;
    return o;
}

static void test_lora_plus_gradients_equal_peft(void **state)
{
    struct fixture fix, *f = &fix;
    struct model_options o = lora_options(TRAIN_LORA_PLUS);

    (void)state;
    set_up(f, "mha", &o, 1, true);
    OK(segments_build(&f->seg, ATTN_S2, SEQS, LEN, GROUP, NULL, 0, &f->e));
    check_case(f, "lora");
    tear_down(f);
}

/* A tied matrix under LoRA+ learns from both uses: its gradient is transformers' of full training
 * (the pairs begin at zero), and what the loss does when a value of it moves. */
static void test_a_tied_matrix_is_trained_through_both_uses(void **state)
{
    struct fixture fix, *f = &fix;
    struct model_options o = lora_options(TRAIN_LORA_PLUS);
    const struct param *p;
    const struct trained *t;
    const struct tensor *g;
    double top = 0;
    int heads = 0;

    (void)state;
    set_up(f, "gqa", &o, 1, false);
    step(f);
    t = model_trained(f->m);
    for (p = t->params; p->role != ROLE_EMBED; p++)
        ;
    for (int64_t i = 0; i < t->n_params; i++)
        heads += t->params[i].role == ROLE_HEAD;
    assert_int_equal(heads, 0); /* one matrix, once */
    g = gold(f, "dense.grad.model.embed_tokens.weight");
    assert_int_equal(g->count, p->count);
    assert_true(worst(t->grad + p->offset, g->data, p->count) < 1e-4);
    for (int64_t i = 0; i < p->count; i++)
        top = fmax(top, fabs((double)t->grad[p->offset + i]));
    for (int64_t i = 0; i < p->count; i += 7) { /* central differences, in float32 */
        float *w = t->w + p->offset + i, was = *w, h = 1e-2f;
        double up, down, want = (double)t->grad[p->offset + i];
        int64_t n;

        *w = was + h;
        OK(model_forward(f->m, &f->b, &up, &n, &f->e));
        *w = was - h;
        OK(model_forward(f->m, &f->b, &down, &n, &f->e));
        *w = was;
        assert_true(fabs((up - down) / (2 * (double)h) / (double)n - want) < 4e-3 * top);
    }
    tear_down(f);
}

/* Plain LoRA's pairs have the same gradients as LoRA+'s: freezing more changes nothing else. */
static void test_plain_lora_trains_the_pairs_only(void **state)
{
    struct fixture fix, *f = &fix;
    struct model_options o = lora_options(TRAIN_LORA);

    (void)state;
    set_up(f, "gqa", &o, 1, false);
    step(f);
    for (int64_t i = 0; i < model_trained(f->m)->n_params; i++)
        assert_true(model_trained(f->m)->params[i].part > 0);
    assert_int_equal(model_trained(f->m)->n_params, 2 * 4 * 2);
    tear_down(f);
}

/* Kaiming's uniform with a = sqrt 5 for A, as peft begins, and zeros for B; every tensor has
 * numbers of its own, which the seed names. */
static void test_pairs_begin_as_in_peft(void **state)
{
    struct model_options o = lora_options(TRAIN_LORA);
    const struct trained *t;
    float *first = NULL;

    (void)state;
    for (uint64_t seed = 1; seed <= 2; seed++) {
        struct fixture fix, *f = &fix;
        struct weights *w;

        set_up(f, "gqa", &o, 1, false);
        OK(weights_open(&w, DATA "gqa", &f->e));
        OK(model_load(f->m, w, seed, &f->e));
        t = model_trained(f->m);
        for (int64_t i = 0; i < t->n_params; i++) {
            const float *v = t->w + t->params[i].offset;
            int64_t n = t->params[i].count, in = n / o.rank;
            double bound = t->params[i].part == 1 ? 1 / sqrt((double)in) : 0, most = 0, sum = 0;

            for (int64_t k = 0; k < n; k++) {
                most = fmax(most, fabs((double)v[k]));
                sum += (double)v[k] * v[k];
            }
            assert_true(most <= bound);
            if (bound > 0) {
                assert_true(most > 0.8 * bound);
                assert_float_equal(sum / (double)n, bound * bound / 3, bound * bound / 9);
            }
            for (int64_t k = 0; bound > 0 && k < i; k++)
                assert_true(t->params[k].part != 1 || t->params[k].count != n ||
                            memcmp(t->w + t->params[k].offset, v, (size_t)n * 4) != 0);
        }
        if (!first) {
            first = malloc((size_t)t->n * 4);
            memcpy(first, t->w, (size_t)t->n * 4);
        } else {
            assert_memory_not_equal(first, t->w, (size_t)t->n * 4);
        }
        weights_close(w);
        tear_down(f);
    }
    free(first);
}

static void test_merged_adapter_scores_as_the_pairs_do(void **state)
{
    struct fixture fa, fb, *f = &fa;
    struct model_options o = lora_options(TRAIN_LORA_PLUS), none = lora_options(TRAIN_NONE);
    double a, b;
    int64_t n;

    (void)state;
    set_up(&fa, "mha", &o, 1, true);
    set_up(&fb, "mha", &none, 1, true);
    OK(model_forward(fa.m, &fa.b, &a, &n, &f->e));
    OK(model_forward(fb.m, &fb.b, &b, &n, &f->e));
    assert_true(fabs(a - b) < 1e-5 * fabs(a));
    tear_down(&fa);
    tear_down(&fb);
}

/* Whatever is recomputed, by one thread or three: the same bits. The model has two layers; the
 * budgets go from what nothing kept takes to more than all kept takes, by way of each level. */
static void test_bits_do_not_depend_on_memory_or_threads(void **state)
{
    enum { BUDGETS = 40 };
    int64_t seen[SAVE_LEVELS] = { 0 };
    size_t low = 0, high = 0;
    float *first = NULL;

    (void)state;
    for (int i = -2; i < BUDGETS; i++) {
        struct fixture fix, *f = &fix;
        struct model_options o = lora_options(TRAIN_LORA_PLUS);

        o.attention_span = i % 2 ? GROUP : 1 << 20;
        o.keep_layers = i == -2 ? 0 : i == -1 ? 2 : -1;
        o.memory_bytes = i < 0 ? 0 : (int64_t)(low + (high - low) * (size_t)i / (BUDGETS - 1));
        set_up(f, "mha", &o, 1 + (i & 3), true);
        if (i == -2)
            low = model_memory(f->m)->total;
        else if (i == -1)
            high = model_memory(f->m)->total;
        else
            assert_true(model_memory(f->m)->total <= (size_t)o.memory_bytes);
        for (int k = 0; k < SAVE_LEVELS; k++)
            seen[k] += placement_layers(&model_memory(f->m)->placement, (enum save_level)k);
        if (i == BUDGETS - 1)
            assert_int_equal(placement_layers(&model_memory(f->m)->placement, SAVE_ALL), 2);
        OK(segments_build(&f->seg, ATTN_S2, SEQS, LEN, GROUP, NULL, 0, &f->e));
        step(f);
        if (!first) {
            first = malloc((size_t)model_trained(f->m)->n * 4);
            memcpy(first, model_trained(f->m)->grad, (size_t)model_trained(f->m)->n * 4);
        } else {
            assert_memory_equal(first, model_trained(f->m)->grad,
                                (size_t)model_trained(f->m)->n * 4);
        }
        tear_down(f);
    }
    for (int k = 0; k < SAVE_LEVELS; k++)
        assert_true(seen[k] > 0);
    free(first);
}

/* Changing token t leaves every logit before t as it was, bit for bit. */
static void test_causality(void **state)
{
    static float before[SEQS * LEN * VOCAB], after[SEQS * LEN * VOCAB];

    (void)state;
    for (int i = 0; i < 3; i++)
        for (int kind = 0; kind < 3; kind++) {
            struct fixture fix, *f = &fix;
            struct model_options o;
            int64_t docs[] = { 3, 9, 13, 20 };

            model_defaults(&o);
            o.mode = TRAIN_NONE;
            set_up(f, models[i], &o, 2, false);
            OK(segments_build(&f->seg, kind == 0 ? ATTN_DENSE : ATTN_S2, SEQS, LEN, 5,
                              kind == 2 ? docs : NULL, 4, &f->e));
            OK(model_logits(f->m, &f->b, before, &f->e));
            for (int t = 0; t < LEN; t++) {
                int32_t was = f->ids[t];
                f->ids[t] = (was + 1) % VOCAB;
                OK(model_logits(f->m, &f->b, after, &f->e));
                assert_memory_equal(before, after, (size_t)t * VOCAB * 4);
                assert_memory_not_equal(before + t * VOCAB, after + t * VOCAB, VOCAB * 4);
                assert_memory_equal(before + LEN * VOCAB, after + LEN * VOCAB, LEN * VOCAB * 4);
                f->ids[t] = was;
            }
            tear_down(f);
        }
}

/* With documents kept apart, a document's logits are those it has alone. */
static void test_masked_documents_are_alone(void **state)
{
    static float whole[SEQS * LEN * VOCAB], alone[LEN * VOCAB];
    struct fixture fix, *f = &fix;
    struct model_options o;
    int64_t docs[] = { 6, LEN };

    (void)state;
    model_defaults(&o);
    o.mode = TRAIN_NONE;
    set_up(f, "gqa", &o, 1, false);
    OK(segments_build(&f->seg, ATTN_DENSE, SEQS, LEN, 0, docs, 2, &f->e));
    OK(model_logits(f->m, &f->b, whole, &f->e));
    f->b.n_seqs = 1;
    f->b.len = LEN - 6;
    f->b.ids = f->ids + 6;
    OK(segments_build(&f->seg, ATTN_DENSE, 1, LEN - 6, 0, NULL, 0, &f->e));
    OK(model_logits(f->m, &f->b, alone, &f->e));
    for (int i = 0; i < (LEN - 6) * VOCAB; i++)
        assert_true(fabsf(whole[6 * VOCAB + i] - alone[i]) < 1e-4f);
    tear_down(f);
}

static void test_bad_ids_are_refused(void **state)
{
    struct fixture fix, *f = &fix;
    struct model_options o;
    double sum;
    int64_t n;

    (void)state;
    model_defaults(&o);
    o.mode = TRAIN_NONE;
    set_up(f, "mha", &o, 1, false);
    f->ids[5] = VOCAB;
    assert_int_equal(model_forward(f->m, &f->b, &sum, &n, &f->e), E_DATA);
    assert_non_null(strstr(f->e.msg, "row 5"));
    f->ids[5] = 0;
    f->targets[7] = -2;
    assert_int_equal(model_forward(f->m, &f->b, &sum, &n, &f->e), E_DATA);
    tear_down(f);
}

/* A device of bfloat16 that notes what goes up to it. */
static struct {
    size_t nbytes, pieces;
    uint64_t sum;
} seen_up;

static uint64_t sum_bytes(const void *p, size_t n)
{
    uint64_t h = 0;

    for (size_t i = 0; i < n; i++)
        h = h * 31 + ((const unsigned char *)p)[i];
    return h;
}

static int note_up(struct device *d, void *dst, const void *src, size_t nbytes)
{
    (void)d;
    memcpy(dst, src, nbytes);
    seen_up.pieces++;
    seen_up.nbytes += nbytes;
    seen_up.sum += sum_bytes(src, nbytes);
    return 0;
}

/* The golden model's weights as another type, in a folder; bad: one value of it is spoilt. */
static void write_as(struct fixture *f, const struct weights *w, const struct tensor_type *t, const char *to,
                     uint64_t *sum, uint16_t bad)
{
    struct st_decl decl[64];
    struct st_writer *out;
    char path[512];
    int64_t n = weights_count(w);

    assert_true(n <= 64);
    for (int64_t i = 0; i < n; i++) {
        const struct tensor *s = weights_at(w, i);
        decl[i] = (struct st_decl){ .name = s->name, .type = t, .dims = s->dims };
        memcpy(decl[i].shape, s->shape, sizeof s->shape);
    }
    snprintf(path, sizeof path, "%s/config.json", to);
    OK(config_write(weights_config(w), DATA "mha/config.json", "bfloat16", path, &f->e));
    snprintf(path, sizeof path, "%s/model.safetensors", to);
    OK(st_create(&out, path, decl, n, &f->e));
    *sum = 0;
    for (int64_t i = 0; i < n; i++) {
        const struct tensor *s = weights_at(w, i);
        float *x = malloc((size_t)s->count * 4);
        uint16_t *half = malloc((size_t)s->count * 2);

        OK(tensor_to_f32(s, 0, s->count, x, &f->e));
        floats_narrow(DT_BF16, x, s->count, half);
        floats_widen(DT_BF16, half, s->count, x); /* what it holds of a norm */
        *sum += s->dims == 1 ? sum_bytes(x, (size_t)s->count * 4)
                             : sum_bytes(half, (size_t)s->count * 2);
        if (bad && strcmp(s->name, "model.layers.1.mlp.up_proj.weight") == 0)
            half[37] = bad;
        floats_widen(DT_BF16, half, s->count, x);
        OK(st_write_f32(out, x, s->count, &f->e));
        free(x);
        free(half);
    }
    OK(st_finish(out, &f->e));
}

/* On a device of bfloat16 the same values arrive whether the file has them so or as float32, and
 * whether its memory is the host's; one that is not finite is named in all. */
static void test_weights_go_up_as_they_are(void **state)
{
    struct fixture fix = { 0 }, *f = &fix;
    char dir[] = "/tmp/longlora-test-up-XXXXXX";
    struct weights *golden, *w;
    struct model_options o;
    uint64_t want;

    (void)state;
    assert_non_null(mkdtemp(dir));
    OK(device_open(&f->d, &(struct device_options){ .name = "cpu", .threads = 2 }, &f->e));
    f->d.act = DT_BF16;
    f->d.to_device = note_up;
    model_defaults(&o);
    o.mode = TRAIN_NONE, o.ctx = 8;
    OK(weights_open(&golden, DATA "mha", &f->e));
    for (int j = 0; j < 12; j++) {
        int i = j % 6;
        const struct tensor_type *t = i % 2 ? &type_f32 : &type_bf16;
        uint16_t bad = i < 2 ? 0 : i < 4 ? 0x7FC1 : 0xFF80;

        f->d.own_memory = j >= 6; /* by way of pinned memory */
        write_as(f, golden, t, dir, &want, bad);
        OK(weights_open(&w, dir, &f->e));
        OK(model_open(&f->m, &f->d, weights_config(w), &o, &f->e));
        memset(&seen_up, 0, sizeof seen_up);
        if (!bad) {
            OK(model_load(f->m, w, 1, &f->e));
            assert_true(seen_up.sum == want);
            assert_int_equal(seen_up.pieces, weights_count(w));
        } else {
            assert_int_equal(model_load(f->m, w, 1, &f->e), E_DATA);
            assert_non_null(strstr(f->e.msg, "up_proj.weight': element 37 is "));
            assert_non_null(strstr(f->e.msg, i < 4 ? "not a number" : "infinite"));
        }
        model_close(f->m);
        weights_close(w);
    }
    weights_close(golden);
    f->d.close(&f->d);
    OK(dir_remove(dir, &f->e));
}

/* By hand: 8 tokens, matrices of 280 weights, 36 pairs of rows in each of two layers. */
static void test_flops(void **state)
{
    struct llama_config c = { .vocab = 10, .dim = 4, .ffn_dim = 6, .layers = 2, .heads = 2,
                              .kv_heads = 1, .head_dim = 2 };
    struct segments s = { 0 };
    struct err e = { 0 };

    (void)state;
    assert_int_equal(segments_build(&s, ATTN_DENSE, 1, 8, 8, NULL, 0, &e), 0);
    assert_true(model_flops(&c, TRAIN_NONE, &s) == 2 * 280 * 8 + 4 * 4 * 36 * 2);
    assert_true(model_flops(&c, TRAIN_LORA_PLUS, &s) == 4 * 280 * 8 + 12 * 4 * 36 * 2);
    assert_true(model_flops(&c, TRAIN_FULL, &s) == 6 * 280 * 8 + 12 * 4 * 36 * 2);
    assert_int_equal(segments_build(&s, ATTN_S2, 1, 8, 4, NULL, 0, &e), 0);
    assert_true(model_flops(&c, TRAIN_NONE, &s) == 2 * 280 * 8 + 4 * 4 * (20 + 16) * 2 / 2);
    segments_free(&s);
}

static void test_the_plan_is_what_is_allocated(void **state)
{
    struct fixture fix, *f = &fix;
    struct model_options o = lora_options(TRAIN_LORA_PLUS);
    struct memory_plan p;

    (void)state;
    o.keep_layers = 1;
    set_up(f, "mha", &o, 1, false);
    OK(model_plan(&f->d, model_config(f->m), &o, &p, &f->e));
    assert_memory_equal(&p, model_memory(f->m), sizeof p);
    assert_int_equal(p.params, config_params(model_config(f->m)));
    assert_int_equal(p.trained_params, 48 * 16 + 5 * 16 + 2 * 4 * 2 * (4 * 16));
    tear_down(f);
}

/* The segment lists themselves, against the definition written out by hand. */
static void check_cu(const struct op_segments *s, const char *want)
{
    char got[256] = "";

    for (int64_t i = 0; i <= s->n; i++)
        sprintf(got + strlen(got), "%s%lld", i ? " " : "", (long long)s->cu[i]);
    assert_string_equal(got, want);
}

static void test_segments(void **state)
{
    struct segments s = {0};
    struct err e = {0};
    int64_t docs[] = { 3, 4, 8, 11 };

    (void)state;
    assert_int_equal(segments_build(&s, ATTN_S2, 1, 16, 4, NULL, 0, &e), 0);
    check_cu(&s.half[0], "0 4 8 12 16");
    check_cu(&s.half[1], "0 2 6 10 14 16");
    assert_int_equal(segments_build(&s, ATTN_S2, 2, 10, 4, NULL, 0, &e), 0);
    check_cu(&s.half[0], "0 4 8 10 14 18 20");
    check_cu(&s.half[1], "0 2 6 10 12 16 20");
    assert_int_equal(segments_build(&s, ATTN_S2, 1, 12, 5, NULL, 0, &e), 0);
    check_cu(&s.half[0], "0 5 10 12");
    check_cu(&s.half[1], "0 2 7 12");
    assert_int_equal(segments_build(&s, ATTN_S2, 1, 12, 4, docs, 4, &e), 0);
    check_cu(&s.half[0], "0 3 4 8 11 12");
    check_cu(&s.half[1], "0 2 3 4 6 8 10 11 12");
    assert_int_equal(segments_build(&s, ATTN_DENSE, 2, 6, 0, docs, 4, &e), 0);
    check_cu(&s.half[0], "0 3 4 6 8 11 12");
    check_cu(&s.half[1], "0 3 4 6 8 11 12");
    assert_int_equal(segments_build(&s, ATTN_S2, 1, 8, 1, NULL, 0, &e), E_CONFIG);
    assert_int_equal(segments_build(&s, ATTN_S2, 1, 8, 9, NULL, 0, &e), E_CONFIG);
    segments_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_segments),
        cmocka_unit_test(test_logits_equal_transformers),
        cmocka_unit_test(test_gradients_equal_transformers),
        cmocka_unit_test(test_lora_plus_gradients_equal_peft),
        cmocka_unit_test(test_a_tied_matrix_is_trained_through_both_uses),
        cmocka_unit_test(test_plain_lora_trains_the_pairs_only),
        cmocka_unit_test(test_pairs_begin_as_in_peft),
        cmocka_unit_test(test_merged_adapter_scores_as_the_pairs_do),
        cmocka_unit_test(test_bits_do_not_depend_on_memory_or_threads),
        cmocka_unit_test(test_causality),
        cmocka_unit_test(test_masked_documents_are_alone),
        cmocka_unit_test(test_bad_ids_are_refused),
        cmocka_unit_test(test_weights_go_up_as_they_are),
        cmocka_unit_test(test_flops),
        cmocka_unit_test(test_the_plan_is_what_is_allocated),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
