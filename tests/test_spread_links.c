/* tests/test_spread_links.c - exchanges of ranks beside their ops: links that are threads, behind queues
 * that run as late or as early as their fences allow. A fence that is missing, or ranks that queue
 * in another order, show in losses and gradients, or hang. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/spreadtest.h"

#include "tests/queued.h"
#include "tests/wire.h"

static int fake_move(struct device *d, const struct device_move *m, int n)
{
    struct wire_moves w = { .me = d->group->rank, .n = n };

    memcpy(w.m, m, (size_t)n * sizeof *m);
    if (w.me == 0 && strlen(wire.kinds) + 1 < sizeof wire.kinds)
        wire.kinds[strlen(wire.kinds)] = m[0].rank == 0 ? 'w' : 'h';
    queued_op(QUEUE_LINK, wire_run, &w, sizeof w, 0);
    return 0;
}

static const struct device_links fake_links = { .move = fake_move };

static const enum queue (*order)[QUEUES];
static int64_t left_over;

static void linked_close(struct device *d)
{
    queued_sync(d, NULL);
    pthread_mutex_lock(&wire.lock);
    left_over += queued.left;
    pthread_mutex_unlock(&wire.lock);
    queued_close(d);
}

static int linked_open(struct device *d, struct group *g, struct err *e)
{
    int rc = queued_open(d, 1, e);

    queued.order = *order;
    d->group = g, d->close = linked_close;
    if (g->size > 1)
        d->links = &fake_links;
    return rc;
}

/* Each in every order of the queues: what may run late runs last, what may run early first. */
static const enum queue orders[][QUEUES] = {
    { QUEUE_OPS, QUEUE_OUT, QUEUE_IN, QUEUE_LINK }, { QUEUE_LINK, QUEUE_IN, QUEUE_OUT, QUEUE_OPS },
    { QUEUE_IN, QUEUE_LINK, QUEUE_OPS, QUEUE_OUT },
};

static void in_every_order(const struct try *t)
{
    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
        order = &orders[i];
        left_over = wire.bytes = wire.moves = 0;
        try_all(t);
        assert_false(wire.wrong);
        assert_true(wire.moves > 0);
        assert_int_equal(left_over, 0); /* the ops wait for all that is queued */
        assert_int_equal(made.failed, 0);
    }
}

static void test_halos_beside_ops(void **state)
{
    static const struct try tried[] = {
        { .ctx = 48, .group = 11, .heads = 4, .kv_heads = 2, .mode = TRAIN_FULL },
        { .ctx = 48, .group = 12, .heads = 4, .kv_heads = 4, .mode = TRAIN_LORA_PLUS, .keep = 1 },
        { .ctx = 47, .group = 10, .heads = 6, .kv_heads = 3, .mode = TRAIN_LORA_PLUS, .keep = 3 },
        { .ctx = 45, .group = 8, .heads = 4, .kv_heads = 2, .docs = 3, .mode = TRAIN_NONE },
    };

    (void)state;
    for (size_t i = 0; i < sizeof tried / sizeof *tried; i++)
        in_every_order(&tried[i]);
}

/* Bands of one, two and four; ranks that share heads; what is saved and what is not. */
static void test_turned_heads_beside_ops(void **state)
{
    static const struct try tried[] = {
        { .ctx = 44, .group = 44, .dense = 1, .heads = 8, .kv_heads = 8, .mode = TRAIN_FULL },
        { .ctx = 43, .group = 43, .dense = 1, .heads = 8, .kv_heads = 4, .mode = TRAIN_LORA_PLUS, .keep = 1 },
        { .ctx = 46, .group = 46, .dense = 1, .heads = 4, .kv_heads = 1, .mode = TRAIN_FULL, .keep = 3 },
        { .ctx = 46, .group = 37, .heads = 12, .kv_heads = 4, .spans = true, .mode = TRAIN_FULL },
        { .ctx = 40, .group = 7, .dense = 1, .docs = 2, .heads = 8, .kv_heads = 8, .mode = TRAIN_NONE },
    };

    (void)state;
    for (size_t i = 0; i < sizeof tried / sizeof *tried; i++)
        in_every_order(&tried[i]);
}

/* Weights stand in the same queue, behind what the next layer's ranks tell each other. */
static void test_weights_behind_exchanges(void **state)
{
    static const struct try tried[] = {
        { .ctx = 48, .group = 11, .heads = 4, .kv_heads = 2, .mode = TRAIN_LORA_PLUS, .keep = 1, .shares = true },
        { .ctx = 40, .group = 40, .dense = 1, .heads = 8, .kv_heads = 4, .mode = TRAIN_LORA, .shares = true },
        { .ctx = 40, .group = 40, .dense = 1, .heads = 6, .kv_heads = 3, .mode = TRAIN_NONE, .shares = true },
    };

    (void)state;
    for (size_t i = 0; i < sizeof tried / sizeof *tried; i++)
        in_every_order(&tried[i]);
    order = &orders[0];
    memset(wire.kinds, 0, sizeof wire.kinds);
    compute(&tried[0], 2);
    /* forwards weights of layers 0, 1, halos of 0, 1, weights of 2, halo of 2; backwards gradients of 2,
     * those of 1 behind the halo that it needs again, the weights of 0 between the two */
    assert_string_equal(wire.kinds, "wwhhwhhhwhhh");
}

/* A rank whose op fails queues what the others wait for all the same. */
static void test_a_rank_that_fails_queues_all(void **state)
{
    (void)state;
    for (int call = 1; call < 10; call += 2)
        for (int dense = 0; dense < 2; dense++) {
            struct try t = { .ctx = 48, .group = 12, .dense = dense, .heads = 4, .kv_heads = 4,
                             .mode = TRAIN_LORA_PLUS, .shares = call % 4 == 3 };

            order = &orders[call % 3];
            fails_rank = call % 3, fails_call = call / 2 + 1;
            compute(&t, 3);
            for (int k = 0; k < 3; k++)
                assert_int_equal(result[k].rc, k == fails_rank ? E_DEVICE : 0);
            assert_false(wire.wrong);
        }
    fails_rank = -1;
}

static int quiet(void **state)
{
    (void)state;
    log_init("test_spread_links", -2);
    setenv("LONGLORA_BLAS", "builtin", 1);
    rank_open = linked_open;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_halos_beside_ops),
        cmocka_unit_test(test_turned_heads_beside_ops),
        cmocka_unit_test(test_weights_behind_exchanges),
        cmocka_unit_test(test_a_rank_that_fails_queues_all),
    };

    return cmocka_run_group_tests(tests, quiet, NULL);
}
