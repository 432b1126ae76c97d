/* tests/test_mix.c - which steps are dense, what they compute, what a plan says of them. */
#include "base/perm.h"
#include "formats/tokens/shard.h"
#include "model/flops.h"
#include "train/mix.h"
#include "train/update.h"

#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/planned.h"
#include "model/preset.h"
#include "tests/traintest.h"

static void test_the_steps_of_the_header(void **state)
{
    const struct mix m = { .every = 4, .last = 0.1, .steps = 20 };
    static const int dense[] = { 4, 8, 12, 16, 19, 20 };
    int n = 0;

    (void)state;
    for (int k = 1; k <= 20; k++)
        if (mix_dense(&m, k))
            assert_int_equal(dense[n++], k);
    assert_int_equal(n, 6);
    assert_float_equal(mix_share(&m), 0.3, 1e-12);
}

/* A share that in floating point is a little more than a whole number of steps; half a step. */
static void test_the_end_is_rounded_up_from_what_is_meant(void **state)
{
    static const struct { double last; int64_t steps, n; } tried[] = {
        { 0.07, 100, 7 }, { 0.05, 600, 30 }, { 0.05, 150, 8 }, { 0.1, 3, 1 }, { 0.05, 1, 1 },
        { 0, 50, 0 }, { 0.29, 100, 29 }, { 0.57, 100, 57 }, { 1e-9, 1000, 1 },
        { 0.1, 1000000000000, 100000000000 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof tried / sizeof *tried; i++) {
        const struct mix m = { .last = tried[i].last, .steps = tried[i].steps };

        if (mix_count(&m, 0, m.steps) != tried[i].n)
            fail_msg("%g of %lld: %lld", m.last, (long long)m.steps,
                     (long long)mix_count(&m, 0, m.steps));
        assert_int_equal(mix_dense(&m, m.steps), tried[i].n > 0);
        assert_false(mix_dense(&m, m.steps - tried[i].n));
    }
}

/* Counting in one go is counting one by one, from any step to any other. */
static void test_counts_are_sums(void **state)
{
    static const double last[] = { 0, 0.05, 0.34, 0.95 };
    enum { STEPS = 43 };

    (void)state;
    for (int64_t every = 0; every < 9; every++)
        for (size_t i = 0; i < sizeof last / sizeof *last; i++) {
            const struct mix m = { .every = every, .last = last[i], .steps = STEPS };

            for (int64_t from = 0; from <= STEPS; from++)
                for (int64_t to = from, n = 0; to <= STEPS; to++) {
                    n += to > from && mix_dense(&m, to);
                    assert_int_equal(mix_count(&m, from, to), n);
                }
        }
}

static void test_a_share_without_an_end(void **state)
{
    const struct mix m = { .every = 10, .last = 0.05 }, none = { 0 };
    const struct mix whole = { .every = 10, .last = 0.05, .steps = 100000 };

    (void)state;
    assert_float_equal(mix_share(&m), 0.145, 1e-12);
    assert_float_equal(mix_share(&whole), 0.145, 1e-5);
    assert_true(mix_share(&none) == 0 && !mix_any(&none) && mix_any(&m));
}

/* ---- steps ---- */

struct run {
    struct settings s;
    struct device d;
    struct trainer t;
    struct progress p;
    struct llama_config c;
};

/* Documents of 5 to 40 ids. */
static void write_documents(const char *path)
{
    struct token_info info = { .width = 2, .vocab = VOCAB, .bos = -1, .eos = 2 };
    struct shard_writer *w;
    struct err e = { 0 };
    uint32_t ids[40];
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0666);

    assert_true(fd >= 0);
    assert_int_equal(shard_create(&w, fd, path, &info, dir, &e), 0);
    for (int i = 0; i < 60; i++) {
        struct token_doc doc = { .ids = ids, .n_ids = 5 + i * 11 % 36, .source = "s", .name = "n" };

        for (int k = 0; k < 40; k++)
            ids[k] = (uint32_t)(mix64((uint64_t)(i * 40 + k)) % VOCAB);
        if (shard_write(w, &doc, &e) < 0)
            fail_msg("%s", e.msg);
    }
    assert_int_equal(shard_finish(w, NULL, &e), 0);
    close(fd);
}

static void open_run(struct run *r, const char *data, bool mask, int attention, int64_t every)
{
    int64_t n_tokens;
    struct model_options o;
    struct err e = { 0 };
    char note[256];

    memset(r, 0, sizeof *r);
    if (config_read(&r->c, "tests/data/tiny-config.json", &e) < 0)
        fail_msg("%s", e.msg);
    settings_defaults(&r->s);
    r->s.data = data, r->s.mask_documents = mask, r->s.init = "c", r->s.out = "o", r->s.mode = 0, r->s.ctx = CTX;
    r->s.attention = attention, r->s.dense_every = every, r->s.steps = 100;
    r->s.batch = 5, r->s.micro = 2, r->s.lr = 0, r->s.warmup = 0;
    assert_int_equal(dataset_open(&r->t.data, data, NULL, VOCAB, &e), 0);
    n_tokens = dataset_tokens(r->t.data);
    assert_int_equal(settings_resolve(&r->s, &r->c, n_tokens, &o, note, sizeof note, &e), 0);
    if (device_open_cpu(&r->d, &(struct device_options){ .threads = 1 }, &e) < 0)
        fail_msg("%s", e.msg);
    r->t.s = &r->s, r->t.d = &r->d;
    assert_int_equal(order_make(&r->t.order, n_tokens, CTX, 5, 42, data, &e), 0);
    assert_int_equal(rows_open(&r->t.rows, CTX, 2, VOCAB, mask, &e), 0);
    if (model_open(&r->t.m, &r->d, &r->c, &o, &e) < 0 || model_init(r->t.m, 7, &e) < 0)
        fail_msg("%s", e.msg);
}

static void close_run(struct run *r)
{
    model_close(r->t.m);
    rows_close(&r->t.rows);
    segments_free(&r->t.seg);
    dataset_close(r->t.data);
    r->d.close(&r->d);
}

/* Every step of a mix, at a rate of 0 so that weights stay: its loss, its gradient and its
 * arithmetic are to the bit those of a dense run, or of one without dense steps. */
static void compare_steps(const char *data, bool mask)
{
    struct run mix, pure[2];
    struct err e = { 0 };
    int64_t starts = 0;
    int dense = 0;

    open_run(&mix, data, mask, ATTN_S2, 3);
    open_run(&pure[ATTN_DENSE], data, mask, ATTN_DENSE, 0);
    open_run(&pure[ATTN_S2], data, mask, ATTN_S2, 0);
    for (int k = 1; k <= 7; k++) {
        struct step_result is, by[2];
        const struct trained *w = model_trained(mix.t.m), *v[2];
        enum attention_kind kind = k % 3 == 0 ? ATTN_DENSE : ATTN_S2;
        size_t n = (size_t)w->n * sizeof *w->grad;

        assert_int_equal(update_step(&mix.t, &mix.p, &is, &e), 0);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(update_step(&pure[i].t, &pure[i].p, &by[i], &e), 0);
            v[i] = model_trained(pure[i].t.m);
        }
        assert_int_equal(settings_attention(&mix.s, k), kind);
        assert_true(is.loss == by[kind].loss && is.grad_norm == by[kind].grad_norm);
        assert_memory_equal(w->grad, v[kind]->grad, n);
        assert_true(is.loss != by[!kind].loss);
        assert_true(memcmp(w->grad, v[!kind]->grad, n) != 0);
        assert_true(model_flops(&mix.c, TRAIN_FULL, &mix.t.seg) ==
                    model_flops(&mix.c, TRAIN_FULL, &pure[kind].t.seg));
        starts += mix.t.rows.n_starts;
        dense += kind == ATTN_DENSE;
    }
    assert_int_equal(dense, 2);
    assert_int_equal(starts > 0, mask);
    close_run(&mix);
    close_run(&pure[0]);
    close_run(&pure[1]);
}

static void test_a_dense_step_is_a_dense_runs_step(void **state)
{
    char path[128];

    (void)state;
    snprintf(path, sizeof path, "%s/documents.shard", dir);
    write_documents(path);
    compare_steps(raw, false);
    compare_steps(path, false);
    compare_steps(path, true);
}

/* ---- plans ---- */

static struct memory_plan plan_7b(double share, int64_t span, int64_t gib)
{
    struct llama_config c;
    struct model_options o;
    struct memory_plan p;
    struct device d;
    struct err e = { 0 };
    enum { LLAMA_2_7B, H200 = 0 };

    preset_config(&c, LLAMA_2_7B);
    model_defaults(&o);
    o.ctx = 102400, o.attention_span = span, o.dense_share = share;
    o.device_bytes = gib << 30, o.host_bytes = (int64_t)96 << 30;
    assert_int_equal(device_open_planned(&d, card_at(H200), 0, &e), 0);
    if (model_plan(&d, &c, &o, &p, &e) < 0)
        fail_msg("%s", e.msg);
    d.close(&d);
    return p;
}

/* One placement for both kinds of steps, in the same memory: no kind is faster than with a plan
 * of its own, and their average is the best that any of three plans reaches. */
static void test_a_plan_is_for_both_kinds(void **state)
{
    static const int64_t gib[] = { 0, 24, 40 };
    const int64_t ctx = 102400, group = ctx / 16;
    const double share = 0.145;

    (void)state;
    for (size_t i = 0; i < sizeof gib / sizeof *gib; i++) {
        struct memory_plan mix = plan_7b(share, group, gib[i]), s2 = plan_7b(0, group, gib[i]);
        struct memory_plan dense = plan_7b(0, ctx, gib[i]);
        double sparse_s, dense_s;

        mix_times(&mix, share, &sparse_s, &dense_s);
        assert_float_equal((1 - share) * sparse_s + share * dense_s, mix.step_s, 1e-9);
        assert_true(sparse_s >= s2.step_s * 0.997 && sparse_s < 1.1 * s2.step_s);
        assert_true(dense_s >= dense.step_s * 0.997 && dense_s < 1.1 * dense.step_s);
        assert_true(s2.dense_ratio == 0 && mix.dense_ratio > 3 && mix.dense_ratio < 4.5);
        assert_true(mix.work == s2.work && mix.work == dense.work);
        if (gib[i])
            assert_true(mix.total <= (size_t)gib[i] << 30);
    }
}

/* All dense is a plan for dense attention; the time of the other kind is told all the same. */
static void test_a_share_of_one_is_dense(void **state)
{
    struct memory_plan all = plan_7b(1, 6400, 24), dense = plan_7b(0, 102400, 24);
    double sparse_s, dense_s;

    (void)state;
    mix_times(&all, 1, &sparse_s, &dense_s);
    assert_float_equal(all.step_s, dense.step_s, 1e-6);
    assert_float_equal(dense_s, dense.step_s, 1e-6);
    assert_true(sparse_s < 0.4 * dense_s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_steps_of_the_header),
        cmocka_unit_test(test_the_end_is_rounded_up_from_what_is_meant),
        cmocka_unit_test(test_counts_are_sums),
        cmocka_unit_test(test_a_share_without_an_end),
        cmocka_unit_test(test_a_dense_step_is_a_dense_runs_step),
        cmocka_unit_test(test_a_plan_is_for_both_kinds),
        cmocka_unit_test(test_a_share_of_one_is_dense),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
