/* tests/gpu/test_cuda_model.c - whole models on CUDA against the CPU: losses, gradients, bits. */
#include "tests/gpu/compare.h"

#include "base/perm.h"
#include "tests/madeup.h"

#define DATA "tests/data/model/"

struct fixture {
    struct model *m;
    struct segments seg;
    int32_t *ids, *targets;
    struct batch b;
    struct err e;
};

#define OK(x) do { if ((x) < 0) fail_msg("%s: %s", #x, f->e.msg); } while (0)

static void tear_down(struct fixture *f)
{
    segments_free(&f->seg);
    model_close(f->m);
    free(f->ids), free(f->targets);
}

static void set_batch(struct fixture *f, int64_t seqs, int64_t len, int64_t vocab,
                      enum attention_kind kind, int64_t group)
{
    int64_t n = seqs * len;

    f->ids = malloc((size_t)n * 4), f->targets = malloc((size_t)n * 4);
    for (int64_t i = 0; i < n; i++)
        f->ids[i] = (int32_t)(mix64((uint64_t)i / 3) % (uint64_t)vocab);
    for (int64_t i = 0; i < n; i++)
        f->targets[i] = i % len == len - 1 || i % 11 == 5 ? -1 : f->ids[i + 1];
    f->b = (struct batch){ .n_seqs = seqs, .len = len, .ids = f->ids, .targets = f->targets,
                           .seg = &f->seg };
    OK(segments_build(&f->seg, kind, seqs, len, group, NULL, 0, &f->e));
}

/* A shipped tiny model. */
static void set_up(struct fixture *f, struct device *d, const char *name, enum train_mode mode,
                   int64_t keep, enum attention_kind kind)
{
    struct model_options o;
    struct llama_config c;
    struct weights *w;
    char path[128];

    memset(f, 0, sizeof *f);
    snprintf(path, sizeof path, DATA "%s", name);
    OK(weights_open(&w, path, &f->e));
    c = *weights_config(w);
    model_defaults(&o);
    o.mode = mode, o.keep_layers = keep, o.rank = 4, o.alpha = 8, o.mlp_tile = 7, o.loss_chunk = 5;
    if (mode == TRAIN_LORA_PLUS)
        c.tied = false;
    o.ctx = 13, o.seqs = 2;
    OK(model_open(&f->m, d, &c, &o, &f->e));
    OK(model_load(f->m, w, 1, &f->e));
    weights_close(w);
    set_batch(f, 2, 13, c.vocab, kind, 4);
}

/* A model large enough for cuDNN: 4 heads of 64, 2 key heads. */
static const struct llama_config middle = {
    .vocab = 1003, .dim = 256, .ffn_dim = 700, .layers = 3, .heads = 4, .kv_heads = 2,
    .head_dim = 64, .context = 1024, .norm_eps = 1e-5, .bos = 1, .eos = 2, .init_range = 0.05,
    .rope = { .type = ROPE_DEFAULT, .theta = 1e4 }
};

static void open_middle(struct fixture *f, struct device *d, const struct llama_config *c,
                        enum train_mode mode, int64_t keep)
{
    struct model_options o;

    memset(f, 0, sizeof *f);
    model_defaults(&o);
    o.mode = mode, o.keep_layers = keep, o.ctx = 512, o.seqs = 2, o.mlp_tile = 300;
    OK(model_open(&f->m, d, c, &o, &f->e));
    OK(model_init(f->m, 3, &f->e));
    set_batch(f, 2, 512, c->vocab, ATTN_S2, 128);
}

static void set_up_middle(struct fixture *f, struct device *d, enum train_mode mode, int64_t keep)
{
    open_middle(f, d, &middle, mode, keep);
}

/* Of a family with biases, norms of q and k, and RoPE on a part of each head; all that is no
 * matrix gets values of some size. */
static void set_up_made(struct fixture *f, struct device *d, int64_t keep)
{
    struct llama_config c = middle;
    const struct trained *t;
    float v[1024];

    c.arch = &made_family;
    c.rotary_dim = 48, c.window = 100;
    open_middle(f, d, &c, TRAIN_FULL, keep);
    t = model_trained(f->m);
    for (int64_t i = 0; i < t->n_params; i++) {
        const struct param *p = &t->params[i];
        float mean = role_form(p->role) == FORM_NORM ? 1 : 0;

        if (role_form(p->role) == FORM_MATRIX)
            continue;
        for (int64_t k = 0; k < p->count; k++)
            v[k] = mean + 0.2f * (float)normal_at(9, (uint64_t)(10000 * i + k));
        OK(d->to_device(d, t->w + p->offset, v, (size_t)p->count * sizeof *v));
    }
    OK(model_sync_trained(f->m));
}

/* The mean loss; *grad: the flat gradient, the caller's to free. */
static double step(struct fixture *f, struct device *d, float **grad)
{
    const struct trained *t = model_trained(f->m);
    double sum;
    int64_t n;

    OK(d->zero(d, t->grad, (size_t)t->n * 4));
    OK(model_step(f->m, &f->b, 1.0 / 100, &sum, &n, &f->e));
    *grad = malloc((size_t)t->n * 4);
    OK(d->to_host(d, *grad, t->grad, (size_t)t->n * 4));
    return sum / (double)n;
}

/* bfloat16 activations leave 1 to 3% of every tensor. */
static void compare(struct fixture *f, const char *what, double loss, const float *got,
                    double want_loss, const float *want)
{
    static const struct bounds bounds = { .loss = 2e-3, .each = 0.08, .least = 1e-16, .all = 0.03 };

    compare_steps(what, model_trained(f->m), loss, got, want_loss, want, &bounds);
}

static void test_tiny_gradients(void **state)
{
    static const char *const names[] = { "mha", "gqa", "odd" };

    NEED_GPU();
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 2; k++) {
            struct fixture fc, fg, *f = &fg;
            float *want, *got;
            double a, b;
            set_up(&fc, &cpu, names[i], TRAIN_FULL, k, k ? ATTN_S2 : ATTN_DENSE);
            set_up(&fg, &gpu[0], names[i], TRAIN_FULL, k, k ? ATTN_S2 : ATTN_DENSE);
            a = step(&fc, &cpu, &want), b = step(&fg, &gpu[0], &got);
            compare(f, names[i], b, got, a, want);
            free(want), free(got);
            tear_down(&fc), tear_down(&fg);
        }
}

static void test_middle_gradients(void **state)
{
    static const enum train_mode modes[] = { TRAIN_LORA_PLUS, TRAIN_FULL };

    NEED_GPU();
    for (int i = 0; i < 2; i++) {
        struct fixture fc, fg;
        float *want, *got;
        double a, b;
        set_up_middle(&fc, &cpu, modes[i], 1);
        a = step(&fc, &cpu, &want);
        for (int g = 0; g < GPUS; g++) {
            set_up_middle(&fg, &gpu[g], modes[i], 1);
            b = step(&fg, &gpu[g], &got);
            compare(&fg, i ? "full" : "lora+", b, got, a, want);
            free(got), tear_down(&fg);
        }
        free(want), tear_down(&fc);
    }
}

static void test_made_up_family(void **state)
{
    NEED_GPU();
    for (int keep = 0; keep < 2; keep++) {
        struct fixture fc, fg;
        float *want, *got;
        double a, b;
        set_up_made(&fc, &cpu, keep), set_up_made(&fg, &gpu[0], keep);
        a = step(&fc, &cpu, &want), b = step(&fg, &gpu[0], &got);
        compare(&fg, "a made-up family", b, got, a, want);
        free(want), free(got);
        tear_down(&fc), tear_down(&fg);
    }
}

/* Kept or recomputed, run after run: equal bits on a deterministic device. */
static void test_deterministic(void **state)
{
    float *first = NULL, *again;

    NEED_GPU();
    for (int i = 0; i < 4; i++) {
        struct fixture fix, *f = &fix;
        set_up_middle(f, &gpu[DET], TRAIN_LORA_PLUS, i % 3);
        step(f, &gpu[DET], &again);
        if (first)
            same_bits("gradients again", first, again, model_trained(f->m)->n);
        else
            first = again, again = NULL;
        free(again);
        tear_down(f);
    }
    free(first);
}

/* Wide enough that copies between the host and the card take as long as the ops beside them. */
static const struct llama_config wide = {
    .vocab = 1003, .dim = 1024, .ffn_dim = 1536, .layers = 7, .heads = 8, .kv_heads = 8,
    .head_dim = 128, .context = 4096, .norm_eps = 1e-5, .bos = 1, .eos = 2, .init_range = 0.03,
    .rope = { .type = ROPE_DEFAULT, .theta = 1e4 }
};

static void set_up_wide(struct fixture *f, struct device *d, enum train_mode mode,
                        const struct placement *p)
{
    struct model_options o;

    memset(f, 0, sizeof *f);
    model_defaults(&o);
    o.mode = mode, o.placement = p, o.ctx = 4096, o.mlp_tile = 1500;
    OK(model_open(&f->m, d, &wide, &o, &f->e));
    OK(model_noise(f->m, 3, &f->e));
    set_batch(f, 1, 4096, wide.vocab, ATTN_S2, 1024);
}

/* Wherever weights and activations lie, step after step: equal bits. */
static void test_placements(void **state)
{
    static const struct placement placed[] = {
        { .n[SAVE_INPUT][0] = 7 },
        { .n[SAVE_INPUT][1] = 7 },
        { .n[SAVE_ATTENTION][2] = 7 },
        { .n[SAVE_QKV][3] = 7 },
        { .n[SAVE_ALL][4] = 7 },
        { .n[SAVE_INPUT][1] = 7, .streamed = 7 },
        { .n[SAVE_ALL][4] = 7, .streamed = 7 },
        { .n[SAVE_ALL][1] = 3, .n[SAVE_QKV][3] = 2, .n[SAVE_INPUT][0] = 2, .streamed = 4 },
    };
    float *first = NULL, *again, *nll[2];

    NEED_GPU();
    for (int k = 0; k < 2; k++)
        nll[k] = malloc(4096 * sizeof *nll[k]);
    for (size_t i = 0; i < sizeof placed / sizeof *placed; i++) {
        struct fixture fix, *f = &fix;
        double sum;
        int64_t n;
        set_up_wide(f, &gpu[DET], TRAIN_LORA_PLUS, &placed[i]);
        for (int k = 0; k < 3; k++) {
            f->b.nll = nll[i > 0];
            OK(model_forward(f->m, &f->b, &sum, &n, &f->e));
            same_bits("losses", nll[0], nll[i > 0], 4096);
            f->b.nll = NULL;
            step(f, &gpu[DET], &again);
            if (!first)
                first = copy_of(again, model_trained(f->m)->n);
            same_bits("gradients", first, again, model_trained(f->m)->n);
            free(again);
        }
        printf("# placement %d: %.0f MiB on the card, %.0f MiB of the host's\n", (int)i,
               (double)model_memory(f->m)->total / 0x1p20,
               (double)model_memory(f->m)->host / 0x1p20);
        tear_down(f);
    }
    free(first), free(nll[0]), free(nll[1]);
}

/* The same of scoring, with none, some and all of the weights in the host's memory. */
static void test_streamed_scoring(void **state)
{
    float *first = NULL;
    double sum;
    int64_t n;

    NEED_GPU();
    for (int i = 0; i <= 7; i += i < 2 ? 1 : 5) {
        struct placement p = { .streamed = i };
        struct fixture fix, *f = &fix;
        set_up_wide(f, &gpu[DET], TRAIN_NONE, &p);
        f->b.nll = malloc(4096 * sizeof *f->b.nll);
        for (int k = 0; k < 3; k++) {
            OK(model_forward(f->m, &f->b, &sum, &n, &f->e));
            if (!first)
                first = copy_of(f->b.nll, 4096);
            same_bits("losses", first, f->b.nll, 4096);
        }
        free(f->b.nll);
        tear_down(f);
    }
    free(first);
}

/* Changing token t leaves every logit before t as it was, bit for bit. */
static void test_causality(void **state)
{
    static const int at[] = { 1, 63, 64, 130, 511 };
    struct fixture fix, *f = &fix;
    int64_t n = 512 * middle.vocab;
    float *before = malloc((size_t)(2 * n) * 4), *after = malloc((size_t)(2 * n) * 4);

    NEED_GPU();
    for (int kind = 0; kind < 2; kind++) {
        set_up_middle(f, &gpu[0], TRAIN_NONE, 0);
        OK(segments_build(&f->seg, kind ? ATTN_S2 : ATTN_DENSE, 2, 512, 128, NULL, 0, &f->e));
        OK(model_logits(f->m, &f->b, before, &f->e));
        for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
            int t = at[i];
            int32_t was = f->ids[t];
            f->ids[t] = (was + 1) % (int32_t)middle.vocab;
            OK(model_logits(f->m, &f->b, after, &f->e));
            same_bits("logits before t", before, after, t * middle.vocab);
            same_bits("another sequence", before + n, after + n, n);
            assert_memory_not_equal(before + t * middle.vocab, after + t * middle.vocab,
                                    (size_t)middle.vocab * 4);
            f->ids[t] = was;
        }
        tear_down(f);
    }
    free(before), free(after);
}

/* AdamW on one batch: the loss falls, as it does on the CPU. */
static void test_learns(void **state)
{
    struct fixture fix, *f = &fix;
    struct device *d = &gpu[0];
    const struct trained *t;
    double first = 0, last = 0;
    float *grad;

    NEED_GPU();
    set_up_middle(f, d, TRAIN_FULL, -1);
    t = model_trained(f->m);
    for (int i = 1; i <= 20; i++) {
        struct op_adamw a = { t->n, i, 2e-3f, 0.9f, 0.95f, 1e-8f, 0, 1, t->w, t->m, t->v, t->grad };
        last = step(f, d, &grad);
        first = i == 1 ? last : first;
        free(grad);
        RUN(d->adamw(d, &a));
        RUN(model_sync_trained(f->m));
    }
    printf("# 20 steps: loss %.3f to %.3f\n", first, last);
    assert_true(last < 0.7 * first);
    tear_down(f);
}

/* After the first step of each kind nothing more of the card is taken: dense, groups, documents that
 * are others every time, a length that fills no tile, fewer key heads and as many. */
static void test_nothing_is_allocated_later(void **state)
{
    enum { STEPS = 4, KINDS = 4 };
    static const int64_t lengths[KINDS] = { 512, 512, 512, 451 };

    NEED_GPU();
    for (int g = 0; g < GPUS; g++)
        for (int heads = 2; heads <= 4; heads += 2) {
            struct llama_config c = middle;
            struct fixture fix, *f = &fix;
            struct model_options o;
            struct device *d = &gpu[g];
            size_t left = 0;
            memset(f, 0, sizeof *f);
            c.kv_heads = heads;
            model_defaults(&o);
            o.mode = TRAIN_FULL, o.ctx = 512, o.seqs = 2, o.mlp_tile = 300;
            OK(model_open(&f->m, d, &c, &o, &f->e));
            OK(model_init(f->m, 3, &f->e));
            set_batch(f, 2, 512, c.vocab, ATTN_DENSE, 0);
            for (int i = 0; i < STEPS; i++) {
                for (int k = 0; k < KINDS; k++) {
                    int64_t docs[] = { 100 + 31 * i, 300 + 17 * i, 700 + i }, n;
                    double sum;
                    f->b.len = lengths[k];
                    OK(segments_build(&f->seg, k == 1 ? ATTN_S2 : ATTN_DENSE, 2, lengths[k], 128,
                                      k == 2 ? docs : NULL, 3, &f->e));
                    OK(model_step(f->m, &f->b, 1, &sum, &n, &f->e));
                }
                if (i == 0)
                    left = d->free_bytes(d);
                if (d->free_bytes(d) != left)
                    fail_msg("device %d, %d key heads, step %d: %zu bytes are free, %zu were", g,
                             heads, i, d->free_bytes(d), left);
            }
            tear_down(f);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny_gradients), cmocka_unit_test(test_middle_gradients),
        cmocka_unit_test(test_made_up_family),
        cmocka_unit_test(test_deterministic),  cmocka_unit_test(test_causality),
        cmocka_unit_test(test_learns),         cmocka_unit_test(test_placements),
        cmocka_unit_test(test_nothing_is_allocated_later),
        cmocka_unit_test(test_streamed_scoring),
    };

    return cmocka_run_group_tests(tests, open_all, close_all);
}
