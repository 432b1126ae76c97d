/* tests/test_session.c - an open model: its steps, its losses, and logits as a text grows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"
#include "model/extend.h"
#include "model/rope.h"
#include "model/session.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define GQA "tests/data/model/gqa"
enum { N = 24, MOST_VOCAB = 512 };

static struct err err;
#define OK(call) do { if ((call) < 0) fail_msg("%s", err.msg); } while (0)

static struct session_options of(const char *model, int64_t ctx)
{
    struct session_options o = { .model = model, .seed = 7,
                                 .machine = { .device = "cpu", .threads = 2,
                                              .host_bytes = -1 } };

    model_defaults(&o.plan);
    o.plan.mode = TRAIN_NONE;
    o.plan.ctx = ctx;
    return o;
}

static void some_ids(const struct session *s, int32_t *ids)
{
    for (int i = 0; i < N; i++)
        ids[i] = (int32_t)((i * 7 + 3) % s->config.vocab);
}

/* -log of ids[i + 1]'s share of row i, from the logits. */
static double nll_of(const float *logits, int64_t vocab, int32_t id)
{
    double most = -INFINITY, sum = 0;

    for (int64_t k = 0; k < vocab; k++)
        most = fmax(most, (double)logits[k]);
    for (int64_t k = 0; k < vocab; k++)
        sum += exp((double)logits[k] - most);
    return log(sum) + most - (double)logits[id];
}

static void test_logits_of_a_growing_text_give_its_losses(void **state)
{
    struct session_options o = of(GQA, N);
    struct session s = { 0 };
    int32_t ids[N], targets[N];
    float nll[N], logits[MOST_VOCAB], again[MOST_VOCAB];
    double sum;
    int64_t n;

    (void)state;
    OK(session_open(&s, &o, &err));
    assert_null(s.weights); /* closed */
    assert_true(s.config.vocab <= MOST_VOCAB);
    some_ids(&s, ids);
    for (int i = 0; i < N; i++)
        targets[i] = i + 1 < N ? ids[i + 1] : -1;
    OK(session_losses(&s, 1, N, ids, targets, nll, &sum, &n, &err));
    assert_int_equal(n, N - 1);
    for (int i = 0; i + 1 < N; i++) {
        OK(session_extend(&s, ids + i, 1, logits, &err));
        assert_true(fabs(nll_of(logits, s.config.vocab, ids[i + 1]) - (double)nll[i]) < 1e-4);
    }
    /* Back to the fifth token, and on in one piece: the same last row. */
    session_rewind(&s, 5);
    OK(session_extend(&s, ids + 5, N - 1 - 5, again, &err));
    assert_memory_equal(logits, again, (size_t)s.config.vocab * sizeof *again);
    session_close(&s);
}

/* The logits of every row of the first n ids, computed at once and without a cache. */
static void plain_logits(const char *model, const int32_t *ids, int64_t n, float *logits)
{
    struct session_options o = of(model, n);
    struct session s = { 0 };

    OK(session_open(&s, &o, &err));
    for (int64_t i = 0; i < n; i++)
        OK(session_extend(&s, ids + i, 1, logits + i * s.config.vocab, &err));
    session_close(&s);
}

static double farthest(const float *a, const float *b, int64_t n)
{
    double most = 0;

    for (int64_t i = 0; i < n; i++)
        most = fmax(most, fabs((double)a[i] - (double)b[i]));
    return most;
}

static void open_cached(struct session *s, const char *model, int64_t chunk,
                        struct cache_options cache)
{
    struct session_options o = of(model, chunk);

    o.plan.cache = cache;
    memset(s, 0, sizeof *s);
    OK(session_open(s, &o, &err));
}

/* However a text is cut into pieces, and pieces into passes, every row is as without a cache. */
static void a_cached_text(const char *model, enum kv_type type, double bound)
{
    static const int64_t cuts[][6] = { { N }, { 1, 1, 1, 5, 1, N - 9 }, { 7, 1, N - 8 }, { 20, 4 } };
    float *want = calloc(N * MOST_VOCAB, sizeof *want), *got = calloc(N * MOST_VOCAB, sizeof *got);
    struct session s;
    int32_t ids[N];

    for (int64_t chunk = 3; chunk <= N; chunk += 7)
        for (size_t c = 0; c < sizeof cuts / sizeof *cuts; c++) {
            open_cached(&s, model, chunk, (struct cache_options){ .rows = N, .seqs = 1, .type = type });
            some_ids(&s, ids);
            if (chunk == 3 && c == 0)
                plain_logits(model, ids, N, want);
            for (int64_t at = 0, i = 0; at < N; at += cuts[c][i++]) {
                struct piece p = { 0, cuts[c][i], ids + at };
                OK(model_extend(s.model, &(struct extend){ 1, &p, got + at * s.config.vocab, true },
                                &err));
            }
            if (!(farthest(want, got, N * s.config.vocab) < bound))
                fail_msg("%s type %d chunk %d cut %d: off by %g", model, type, (int)chunk, (int)c,
                         farthest(want, got, N * s.config.vocab));
            assert_int_equal(session_extend(&s, ids, 1, NULL, &err), E_CONFIG);
            session_rewind(&s, 5);
            OK(session_extend(&s, ids + 5, 3, got, &err));
            assert_true(farthest(want + 7 * s.config.vocab, got, s.config.vocab) < bound);
            session_close(&s);
        }
    free(want);
    free(got);
}

static void test_a_cache_changes_nothing(void **state)
{
    (void)state;
    a_cached_text(GQA, KV_ACT, 1e-4);
    a_cached_text("tests/data/model/mha", KV_ACT, 1e-4);
    a_cached_text("tests/data/model/odd", KV_ACT, 1e-4);
    a_cached_text(GQA, KV_BF16, 0.05);
    a_cached_text(GQA, KV_INT8, 0.1);
}

/* Texts of different lengths side by side: single tokens of several go together. */
static void test_texts_side_by_side(void **state)
{
    enum { TEXTS = 3 };
    float want[TEXTS][MOST_VOCAB], got[TEXTS * MOST_VOCAB];
    const int64_t had[TEXTS] = { 2, 9, 5 };
    struct piece p[TEXTS];
    struct session s;
    int32_t ids[N];

    (void)state;
    for (int t = 0; t < TEXTS; t++) {
        open_cached(&s, GQA, 8, (struct cache_options){ .rows = N, .seqs = 1 });
        some_ids(&s, ids);
        OK(session_extend(&s, ids + t, had[t] + 2, want[t], &err));
        session_close(&s);
    }
    open_cached(&s, GQA, 8, (struct cache_options){ .rows = N, .seqs = TEXTS });
    for (int t = 0; t < TEXTS; t++)
        p[t] = (struct piece){ t, had[t], ids + t };
    OK(model_extend(s.model, &(struct extend){ TEXTS, p, NULL, false }, &err));
    for (int step = 0; step < 2; step++) {
        for (int t = 0; t < TEXTS; t++)
            p[t] = (struct piece){ t, 1, ids + t + had[t] + step };
        OK(model_extend(s.model, &(struct extend){ TEXTS, p, got, false }, &err));
    }
    for (int t = 0; t < TEXTS; t++)
        assert_true(farthest(want[t], got + t * s.config.vocab, s.config.vocab) < 1e-4);
    /* one that stays behind, and one alone */
    p[0] = (struct piece){ 0, 1, ids }, p[1] = (struct piece){ 2, 1, ids };
    OK(model_extend(s.model, &(struct extend){ 2, p, got, false }, &err));
    assert_int_equal(model_text_length(s.model, 0), 5);
    assert_int_equal(model_text_length(s.model, 1), 11);
    p[0] = (struct piece){ 1, 1, ids }, p[1] = (struct piece){ 1, 1, ids };
    assert_int_equal(model_extend(s.model, &(struct extend){ 2, p, got, false }, &err), E_BUG);
    session_close(&s);
}

/* What a text keeps of a layer, taken out and put into another model's cache. */
static void test_a_text_moves_to_another_cache(void **state)
{
    float want[MOST_VOCAB], got[MOST_VOCAB];
    unsigned char rows[1 << 14];
    struct session a, b;
    int32_t ids[N];

    (void)state;
    for (enum kv_type t = KV_ACT; t < KV_TYPES; t++) {
        struct cache_options o = { .rows = N, .seqs = 2, .type = t };

        open_cached(&a, GQA, 8, o);
        open_cached(&b, GQA, 8, o);
        some_ids(&a, ids);
        OK(session_extend(&a, ids, 11, NULL, &err));
        for (int64_t l = 0; l < a.config.layers; l++)
            for (int part = 0; part < TEXT_PARTS; part++) {
                assert_true(11 * model_text_row_bytes(a.model, part) <= sizeof rows);
                OK(model_text_get(a.model, 0, l, part, 0, 11, rows, &err));
                OK(model_text_put(b.model, 1, l, part, 0, 11, rows, &err));
            }
        model_text_set(b.model, 1, 11);
        OK(session_extend(&a, ids + 11, 2, want, &err));
        OK(model_extend(b.model, &(struct extend){ 1, &(struct piece){ 1, 2, ids + 11 }, got, false },
                        &err));
        assert_memory_equal(want, got, (size_t)a.config.vocab * sizeof *got);
        session_close(&a);
        session_close(&b);
    }
}

static void test_what_does_not_fit_a_session_is_refused(void **state)
{
    struct session_options o = of(GQA, 8);
    struct session s = { 0 };
    int32_t ids[N];
    float logits[MOST_VOCAB];

    (void)state;
    OK(session_open(&s, &o, &err));
    some_ids(&s, ids);
    assert_int_equal(session_extend(&s, ids, 9, logits, &err), E_CONFIG);
    OK(session_extend(&s, ids, 8, NULL, &err));
    assert_int_equal(session_extend(&s, ids, 1, logits, &err), E_CONFIG);
    session_rewind(&s, 2);
    ids[3] = (int32_t)s.config.vocab;
    assert_int_equal(session_extend(&s, ids, 4, logits, &err), E_DATA);
    assert_int_equal(s.n, 2); /* as if it had not been asked */
    session_close(&s);
    o.model = "tests/data/absent";
    assert_int_equal(session_open(&s, &o, &err), E_NOINPUT);
    session_close(&s);
}

/* Sizes without files: planned and loaded twice, at another context and RoPE, on one device. */
static void test_a_session_is_loaded_again(void **state)
{
    struct llama_config c = { .vocab = 48, .dim = 16, .ffn_dim = 24, .layers = 2, .heads = 2,
                              .kv_heads = 1, .head_dim = 8, .context = 16, .norm_eps = 1e-5,
                              .bos = 1, .eos = 2, .init_range = 0.02, .rope = { .theta = 1e4 } };
    struct session_options o = of(NULL, 0);
    struct session s = { 0 };
    int32_t ids[N];
    float logits[MOST_VOCAB];

    (void)state;
    o.sizes = &c;
    o.noise = true;
    OK(session_files(&s, &o, &err));
    OK(session_device(&s, &o.machine, &err));
    OK(session_plan(&s, &o.plan, &err));
    assert_int_equal(s.options.ctx, 16); /* the model's, where none is given */
    OK(session_load(&s, &o, &err));
    some_ids(&s, ids);
    OK(session_extend(&s, ids, 16, logits, &err));
    session_unload(&s);
    OK(rope_extend(&s.config, N, &(struct rope_ask){ 0 }, &err));
    assert_int_equal(s.config.context, 32);
    assert_int_equal(s.base_context, 16);
    o.plan.ctx = N;
    OK(session_plan(&s, &o.plan, &err));
    OK(session_load(&s, &o, &err));
    OK(session_extend(&s, ids, N, logits, &err));
    session_close(&s);
    session_close(&s); /* in any state */
}

/* The tool's "none" and "nobody said" are told apart in one place. */
static void test_the_host_memory_that_was_asked_for(void **state)
{
    static const struct { int64_t asked, planned; } t[] = { { -1, 0 }, { 0, -1 }, { 5, 5 } };
    struct model_options o;

    (void)state;
    for (int i = 0; i < 3; i++) {
        machine_plan(&(struct machine){ .host_bytes = t[i].asked, .device_bytes = 9 }, &o);
        assert_int_equal(o.host_bytes, t[i].planned);
        assert_int_equal(o.device_bytes, 9);
    }
}

static int (*real_gemm)(struct device *d, const struct op_gemm *a);
static int (*real_loss)(struct device *d, const struct op_loss *a);
static int products, varied;
static int noted_gemm(struct device *d, const struct op_gemm *a)
{
    for (const struct op_gemm *g = a; g; g = g->also) {
        products++;
        varied += g->varies;
    }
    return real_gemm(d, a);
}
static int noted_loss(struct device *d, const struct op_loss *a)
{
    products++;
    varied += a->varies;
    return real_loss(d, a);
}

/* Windows of other lengths than the session's do not each make a device look for the best way;
 * rows as they were planned do, and the few that training has. */
static void rows_that_vary(enum train_mode mode)
{
    struct session_options o = of(GQA, N);
    struct session s = { 0 };
    int32_t ids[N], targets[N];
    float nll[N], logits[MOST_VOCAB];
    double sum;
    int64_t n;

    o.plan.mode = mode;
    OK(session_open(&s, &o, &err));
    real_gemm = s.device.gemm, s.device.gemm = noted_gemm;
    real_loss = s.device.loss, s.device.loss = noted_loss;
    some_ids(&s, ids);
    memcpy(targets, ids, sizeof targets);
    for (int64_t len = N; len >= N - 2; len--) {
        products = varied = 0;
        OK(session_losses(&s, 1, len, ids, targets, nll, &sum, &n, &err));
        assert_true(products > 10);
        assert_int_equal(varied, len == N || mode != TRAIN_NONE ? 0 : products);
    }
    products = varied = 0;
    OK(session_extend(&s, ids, 5, logits, &err));
    assert_true(products > 10);
    assert_int_equal(varied, mode == TRAIN_NONE ? products : 0);
    session_close(&s);
}

static void test_rows_that_vary_are_called_so(void **state)
{
    (void)state;
    rows_that_vary(TRAIN_NONE);
    rows_that_vary(TRAIN_LORA);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits_of_a_growing_text_give_its_losses),
        cmocka_unit_test(test_a_cache_changes_nothing),
        cmocka_unit_test(test_texts_side_by_side),
        cmocka_unit_test(test_a_text_moves_to_another_cache),
        cmocka_unit_test(test_what_does_not_fit_a_session_is_refused),
        cmocka_unit_test(test_a_session_is_loaded_again),
        cmocka_unit_test(test_the_host_memory_that_was_asked_for),
        cmocka_unit_test(test_rows_that_vary_are_called_so),
    };

    log_init("test_session", -1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
