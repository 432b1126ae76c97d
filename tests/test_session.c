/* tests/test_session.c - an open model: its steps, its losses, and logits as a text grows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"
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
    products++;
    varied += a->varies;
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
        cmocka_unit_test(test_what_does_not_fit_a_session_is_refused),
        cmocka_unit_test(test_a_session_is_loaded_again),
        cmocka_unit_test(test_the_host_memory_that_was_asked_for),
        cmocka_unit_test(test_rows_that_vary_are_called_so),
    };

    log_init("test_session", -1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
