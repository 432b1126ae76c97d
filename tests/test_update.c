/* tests/test_update.c - optimizer steps: loss, clipping, decay, what is not finite, state. */
#include "base/bytes.h"
#include "base/file.h"
#include "base/perm.h"
#include "formats/tokens/shard.h"
#include "train/state.h"
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

#include "tests/traintest.h"

static struct llama_config tiny(void)
{
    struct llama_config c;
    struct err e = { 0 };

    if (config_read(&c, "tests/data/tiny-config.json", &e) < 0)
        fail_msg("%s", e.msg);
    return c;
}

struct bench {
    struct settings s;
    struct device d;
    struct trainer t;
    struct progress p;
};

static void open_bench(struct bench *b, int64_t batch, int64_t micro, int mode)
{
    struct llama_config c = tiny();
    struct model_options o;
    struct err e = { 0 };
    char note[256];

    memset(b, 0, sizeof *b);
    settings_defaults(&b->s);
    b->s.data = raw, b->s.init = "c", b->s.out = "o", b->s.mode = mode, b->s.ctx = CTX;
    b->s.attention = ATTN_S2;
    b->s.batch = batch, b->s.micro = micro, b->s.lr = 1e-3, b->s.warmup = 1;
    assert_int_equal(settings_resolve(&b->s, &c, N_TOKENS, &o, note, sizeof note, &e), 0);
    if (device_open_cpu(&b->d, &(struct device_options){ .threads = 1 }, &e) < 0)
        fail_msg("%s", e.msg);
    b->t.s = &b->s, b->t.d = &b->d;
    assert_int_equal(dataset_open(&b->t.data, raw, NULL, VOCAB, &e), 0);
    assert_int_equal(order_make(&b->t.order, N_TOKENS, CTX, batch, 42, raw, &e), 0);
    assert_int_equal(rows_open(&b->t.rows, CTX, micro, VOCAB, b->s.mask_documents, &e), 0);
    if (model_open(&b->t.m, &b->d, &c, &o, &e) < 0 || model_init(b->t.m, 7, &e) < 0)
        fail_msg("%s", e.msg);
}

static void close_bench(struct bench *b)
{
    model_close(b->t.m);
    rows_close(&b->t.rows);
    segments_free(&b->t.seg);
    dataset_close(b->t.data);
    b->d.close(&b->d);
}

static void step(struct bench *b, struct step_result *r)
{
    struct err e = { 0 };

    if (update_step(&b->t, &b->p, r, &e) < 0)
        fail_msg("%s", e.msg);
}

static float *copy_of(const float *p, int64_t n)
{
    float *c = malloc((size_t)n * sizeof *c);

    memcpy(c, p, (size_t)n * sizeof *c);
    return c;
}

static void test_loss_falls_and_micro_batches_add_up(void **state)
{
    struct bench a, b;
    struct step_result ra, rb;
    double first = 0;

    (void)state;
    open_bench(&a, 8, 8, 0);
    open_bench(&b, 8, 3, 0); /* 3 + 3 + 2 */
    for (int i = 0; i < 20; i++) {
        step(&a, &ra);
        step(&b, &rb);
        first = i ? first : ra.loss;
        assert_float_equal(ra.loss, rb.loss, 1e-4);
        assert_float_equal(ra.grad_norm, rb.grad_norm, 1e-3);
    }
    assert_int_equal(ra.scored, 8 * (CTX - 1));
    assert_float_equal(first, log(VOCAB), 0.1);
    assert_true(ra.loss < first - 0.2);
    assert_int_equal(a.p.step, 20);
    assert_int_equal(a.p.updates, 20);
    close_bench(&a);
    close_bench(&b);
}

/* Rows of 31, 12 and 26 targets: one batch's mean is over all of them, not of the rows' means. */
static void write_masked(const char *path)
{
    struct token_info info = { .width = 2, .vocab = VOCAB, .bos = -1, .eos = 2 };
    static const struct mask_run runs[] = { { 0, 0 }, { 5, 19 }, { 1, 5 } };
    struct shard_writer *w;
    struct err e = { 0 };
    uint32_t ids[CTX];
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0666);

    assert_true(fd >= 0);
    assert_int_equal(shard_create(&w, fd, path, &info, dir, &e), 0);
    for (int i = 0; i < 3; i++) {
        struct token_doc doc = { .ids = ids, .n_ids = CTX, .runs = &runs[i], .n_runs = i > 0,
                                 .source = "s", .name = "n" };
        for (int k = 0; k < CTX; k++)
            ids[k] = (uint32_t)(mix64((uint64_t)(i * CTX + k)) % VOCAB);
        if (shard_write(w, &doc, &e) < 0)
            fail_msg("%s", e.msg);
    }
    assert_int_equal(shard_finish(w, NULL, &e), 0);
    close(fd);
}

static void test_loss_is_the_mean_over_all_scored_tokens(void **state)
{
    char *path = path_join(dir, "masked.shard");
    struct bench b;
    struct step_result r;
    struct err e = { 0 };
    const struct trained *t;
    double nll = 0, sum, squares = 0;
    int64_t scored = 0, n;

    (void)state;
    write_masked(path);
    open_bench(&b, 3, 2, 0);
    dataset_close(b.t.data);
    assert_int_equal(dataset_open(&b.t.data, path, NULL, 0, &e), 0);
    assert_int_equal(order_make(&b.t.order, 3 * CTX, CTX, 3, 42, path, &e), 0);
    t = model_trained(b.t.m);
    for (int64_t row = 0; row < 3; row++) { /* row by row, the sum of all losses */
        struct batch one = { .n_seqs = 1, .len = CTX, .ids = b.t.rows.ids,
                             .targets = b.t.rows.targets, .seg = &b.t.seg };
        assert_int_equal(rows_load(&b.t.rows, 0, b.t.data, row, &scored, &e), 0);
        assert_int_equal(segments_build(&b.t.seg, ATTN_S2, 1, CTX, b.s.group, NULL, 0, &e), 0);
        assert_int_equal(model_step(b.t.m, &one, 1.0, &sum, &n, &e), 0);
        nll += sum;
    }
    for (int64_t i = 0; i < t->n; i++)
        squares += (double)t->grad[i] * t->grad[i];
    step(&b, &r);
    assert_int_equal(scored, 31 + 12 + 26);
    assert_int_equal(r.scored, scored);
    assert_float_equal(r.loss, nll / (double)scored, 1e-5);
    assert_float_equal(r.grad_norm, sqrt(squares) / (double)scored, 1e-5);
    close_bench(&b);
    free(path);
}

static void test_clipping_bounds_the_first_moment(void **state)
{
    struct bench b;
    struct step_result r;
    const struct trained *t;
    double sum = 0;

    (void)state;
    open_bench(&b, 4, 4, 0);
    b.s.clip = 0.01;
    step(&b, &r);
    t = model_trained(b.t.m);
    for (int64_t i = 0; i < t->n; i++)
        sum += (double)t->m[i] * t->m[i];
    assert_true(r.grad_norm > 0.01); /* said before clipping */
    assert_float_equal(sqrt(sum), 0.1 * 0.01, 1e-6); /* m = (1 - beta1) g */
    close_bench(&b);
}

/* A device whose loss, or whose gradient's norm, is spoilt at chosen moments. */
static int (*real_loss)(struct device *d, const struct op_loss *a);
static int (*real_squares)(struct device *d, const struct op_sum_squares *a);
static int spoil_loss, spoil_squares;

static int bad_loss(struct device *d, const struct op_loss *a)
{
    int rc = real_loss(d, a);

    if (spoil_loss)
        a->nll[3] = NAN;
    return rc;
}

static int bad_squares(struct device *d, const struct op_sum_squares *a)
{
    int rc = real_squares(d, a);

    if (spoil_squares)
        *a->sum = INFINITY;
    return rc;
}

static void test_what_is_not_finite_changes_nothing(void **state)
{
    struct bench b;
    struct step_result r;
    const struct trained *t;
    struct err e = { 0 };
    float *w, *m, *v;

    (void)state;
    open_bench(&b, 4, 2, 0);
    real_loss = b.d.loss, real_squares = b.d.sum_squares;
    b.d.loss = bad_loss, b.d.sum_squares = bad_squares;
    step(&b, &r);
    t = model_trained(b.t.m);
    w = copy_of(t->w, t->n), m = copy_of(t->m, t->n), v = copy_of(t->v, t->n);
    spoil_loss = 1;
    step(&b, &r);
    assert_true(isnan(r.loss));
    spoil_loss = 0, spoil_squares = 1;
    step(&b, &r);
    assert_true(isinf(r.grad_norm));
    assert_int_equal(update_finite(&b.t, &e), E_NO);
    spoil_squares = 0;
    assert_int_equal(b.p.step, 3);
    assert_int_equal(b.p.updates, 1);
    assert_int_equal(b.p.skipped, 2);
    assert_int_equal(b.p.streak, 2);
    assert_memory_equal(w, t->w, (size_t)t->n * 4);
    assert_memory_equal(m, t->m, (size_t)t->n * 4);
    assert_memory_equal(v, t->v, (size_t)t->n * 4);
    step(&b, &r);
    assert_true(isfinite(r.loss));
    assert_int_equal(b.p.streak, 0);
    assert_int_equal(b.p.updates, 2);
    assert_int_equal(update_finite(&b.t, &e), 0);
    assert_true(memcmp(w, t->w, (size_t)t->n * 4) != 0);
    free(w);
    free(m);
    free(v);
    close_bench(&b);
}

/* Moments are corrected for the updates made, not the steps: the first moves each weight that
 * has a gradient by the whole rate, though a step before it was skipped. */
static void test_a_skipped_step_is_no_update(void **state)
{
    struct bench b;
    struct step_result r;
    const struct trained *t;
    double most = 0;
    float *w;

    (void)state;
    open_bench(&b, 4, 4, 0);
    real_squares = b.d.sum_squares;
    b.d.sum_squares = bad_squares;
    spoil_squares = 1;
    step(&b, &r);
    spoil_squares = 0;
    t = model_trained(b.t.m);
    w = copy_of(t->w, t->n);
    step(&b, &r);
    for (int64_t i = 0; i < t->n; i++)
        most = fmax(most, fabs((double)t->w[i] - w[i]));
    assert_float_equal(most, r.lr, 0.01 * r.lr);
    free(w);
    close_bench(&b);
}

/* Held-out loss is by dense attention, whatever the training's. */
static void test_validation_is_dense(void **state)
{
    struct bench b;
    struct err e = { 0 };
    double loss = 0, nll[2] = { 0, 0 };
    int64_t scored = 0, n;

    (void)state;
    open_bench(&b, 4, 4, 0);
    b.s.lr = 1e-2;
    for (int i = 0; i < 5; i++) { /* away from weights for which all attention is alike */
        struct step_result r;
        step(&b, &r);
    }
    for (int i = 0; i < 4; i++)
        assert_int_equal(rows_load(&b.t.rows, i, b.t.data, i, &scored, &e), 0);
    for (int i = 0; i < 2; i++) {
        struct batch four = { .n_seqs = 4, .len = CTX, .ids = b.t.rows.ids,
                              .targets = b.t.rows.targets, .seg = &b.t.seg };
        assert_int_equal(segments_build(&b.t.seg, i ? ATTN_S2 : ATTN_DENSE, 4, CTX, CTX / 4,
                                        NULL, 0, &e), 0);
        assert_int_equal(model_forward(b.t.m, &four, &nll[i], &n, &e), 0);
    }
    assert_int_equal(update_validate(&b.t, b.t.data, 4, &loss, &e), 0);
    assert_true(loss == nll[0] / (double)scored);
    assert_true(nll[0] != nll[1]);
    close_bench(&b);
}

static void test_state_comes_back_bit_for_bit(void **state)
{
    char *root = path_join(dir, "state"), *folder = path_join(root, "step-00000003");
    struct checkpoint c = { .step = 3, .updates = 3, .run = strdup("{}") };
    struct bench a, b;
    struct step_result ra, rb;
    struct err e = { 0 };

    (void)state;
    open_bench(&a, 4, 4, 0);
    open_bench(&b, 4, 4, 0);
    for (int i = 0; i < 3; i++)
        step(&a, &ra);
    if (state_save(&a.d, model_trained(a.t.m), root, &c, 2, &e) < 0)
        fail_msg("%s", e.msg);
    if (state_load(&b.d, model_trained(b.t.m), folder, &e) < 0)
        fail_msg("%s", e.msg);
    assert_int_equal(model_sync_trained(b.t.m), 0);
    b.p = a.p;
    for (int i = 0; i < 3; i++) {
        step(&a, &ra);
        step(&b, &rb);
        assert_true(ra.loss == rb.loss && ra.grad_norm == rb.grad_norm);
    }
    checkpoint_free(&c);
    close_bench(&b);
    open_bench(&b, 4, 4, 1); /* another mode's state has other tensors */
    assert_int_equal(state_load(&b.d, model_trained(b.t.m), folder, &e), E_DATA);
    close_bench(&a);
    close_bench(&b);
    free(folder);
    free(root);
}

static void test_decay_spares_norms(void **state)
{
    struct bench b;
    struct step_result r;
    const struct trained *t;
    float *w;
    int norms = 0;

    (void)state;
    open_bench(&b, 2, 2, 0);
    b.s.decay = 50, b.s.lr = 1e-3; /* a decayed value loses a twentieth */
    t = model_trained(b.t.m);
    w = copy_of(t->w, t->n);
    step(&b, &r);
    for (int64_t i = 0; i < t->n_params; i++) {
        const struct param *p = &t->params[i];
        double before = 0, after = 0;
        for (int64_t k = p->offset; k < p->offset + p->count; k++)
            before += fabs((double)w[k]), after += fabs((double)t->w[k]);
        if (role_form(p->role) == FORM_NORM) {
            norms++;
            assert_true(fabs(after - before) <= 1.01e-3 * (double)p->count);
        }
        if (p->role == ROLE_EMBED) /* ids that the batch lacks have no gradient: only decay */
            assert_true(after < before);
    }
    assert_int_equal(norms, 5);
    free(w);
    close_bench(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loss_falls_and_micro_batches_add_up),
        cmocka_unit_test(test_loss_is_the_mean_over_all_scored_tokens),
        cmocka_unit_test(test_clipping_bounds_the_first_moment),
        cmocka_unit_test(test_what_is_not_finite_changes_nothing),
        cmocka_unit_test(test_a_skipped_step_is_no_update),
        cmocka_unit_test(test_validation_is_dense),
        cmocka_unit_test(test_state_comes_back_bit_for_bit),
        cmocka_unit_test(test_decay_spares_norms),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
