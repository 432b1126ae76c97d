/* tests/test_spread.c - a sequence over several ranks against one: losses, gradients, what travels,
 * and who sees whom by brute force. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/spreadtest.h"

/* Groups of any size: borders at every place in them, over heads that share keys or do not. */
static void test_groups_over_borders(void **state)
{
    static const int64_t heads[][2] = { { 4, 4 }, { 4, 2 }, { 4, 1 }, { 6, 3 }, { 3, 3 }, { 5, 1 } };

    (void)state;
    for (int64_t group = 2; group <= 12; group++) {
        const int64_t *h = heads[group % 6];
        struct try t = { .ctx = 48, .group = group, .heads = h[0], .kv_heads = h[1],
                         .mode = TRAIN_FULL, .keep = group % 3 };

        try_all(&t);
    }
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        struct try t = { .ctx = 47, .group = 11, .heads = heads[i][0], .kv_heads = heads[i][1],
                         .mode = TRAIN_LORA_PLUS, .keep = (int64_t)i % 3 };

        try_all(&t);
    }
}

static void test_documents_and_windows(void **state)
{
    (void)state;
    for (int64_t i = 1; i < 6; i++) {
        struct try t = { .ctx = 45, .group = 6 + i, .heads = 4, .kv_heads = 2, .docs = i,
                         .window = i % 2 ? 0 : 5, .mode = i % 2 ? TRAIN_FULL : TRAIN_NONE };

        try_all(&t);
    }
}

/* Half a group of keys and values of half of the heads: once forward, once again where they were
 * not saved, and their gradients back. Nothing else. */
static void test_what_travels_is_half_a_group(void **state)
{
    (void)state;
    for (int size = 2; size <= RANKS_MAX; size++)
        for (int64_t keep = 0; keep <= LAYERS; keep += LAYERS) {
            struct try t = { .ctx = 24 * size, .group = 12, .heads = 4, .kv_heads = 2,
                             .mode = TRAIN_FULL, .keep = keep };
            int64_t half = t.group / 2 * (t.kv_heads / 2) * HEAD * 2 * (int64_t)sizeof(float);

            if (t.ctx > MOST)
                continue;
            compute(&t, size);
            for (int k = 0; k < size; k++) {
                int64_t ups = k < size - 1 ? (keep ? 1 : 2) : 0, downs = k > 0;

                assert_int_equal(result[k].rc, 0);
                assert_int_equal(result[k].sent, LAYERS * half * (ups + downs));
            }
        }
}

/* Heads that divide, that do not, fewer than ranks; documents, windows; groups over many ranks. */
static void test_whole_sequences(void **state)
{
    static const int64_t heads[][2] = { { 4, 4 }, { 4, 2 }, { 4, 1 }, { 6, 3 }, { 3, 3 }, { 8, 4 },
                                        { 12, 12 } };

    (void)state;
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        for (int64_t docs = 0; docs < 2; docs++) {
            struct try t = { .ctx = 43 + (int64_t)i, .group = docs ? 7 : 40, .dense = 1,
                             .heads = heads[i][0], .kv_heads = heads[i][1], .docs = docs,
                             .window = i == 2 ? 9 : 0, .keep = (int64_t)i % 3,
                             .mode = i % 2 ? TRAIN_LORA_PLUS : TRAIN_FULL };

            try_all(&t);
        }
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        struct try t = { .ctx = 46, .group = 37, .heads = heads[i][0], .kv_heads = heads[i][1],
                         .docs = i % 2, .mode = i % 2 ? TRAIN_FULL : TRAIN_NONE, .spans = true };

        try_all(&t);
    }
}

/* Turned, a rank sends all but its own share of q, k, v and o, and back of their gradients. */
static void test_what_travels_is_no_gather(void **state)
{
    struct try t = { .ctx = 48, .group = 48, .dense = 1, .heads = 4, .kv_heads = 4,
                     .mode = TRAIN_FULL, .keep = LAYERS };
    int64_t each = 48 * 4 * HEAD * (int64_t)sizeof(float);

    (void)state;
    for (int size = 2; size <= RANKS_MAX; size += 2) {
        compute(&t, size);
        for (int k = 0; k < size; k++) {
            int64_t share = each / size * (size - 1) / size;

            assert_int_equal(result[k].rc, 0);
            /* q k v o; of the last layer these are there still: d_o dq dk dv; of the first again */
            assert_int_equal(result[k].sent, share * (4 * LAYERS + 4 * LAYERS + 4 * (LAYERS - 1)));
        }
    }
}

/* What there is no room for is refused by all, with words. */
static void test_what_was_not_planned_is_refused(void **state)
{
    struct try t = { .ctx = 48, .group = 12, .dense = 2, .heads = 4, .kv_heads = 4,
                     .mode = TRAIN_FULL };

    (void)state;
    compute(&t, 4);
    for (int k = 0; k < 4; k++) {
        assert_int_equal(result[k].rc, E_CONFIG);
        assert_non_null(strstr(result[k].e.msg, "further than"));
    }
    assert_int_equal(made.failed, 0);
}

/* Frozen matrices over the ranks, forwards and backwards, by all paths of the layers; what each holds
 * and sends is a part of every layer. */
static void test_shared_weights(void **state)
{
    static const struct try tried[] = {
        { .ctx = 48, .group = 11, .heads = 4, .kv_heads = 2, .mode = TRAIN_LORA_PLUS, .keep = 1 },
        { .ctx = 40, .group = 40, .dense = 1, .heads = 4, .kv_heads = 4, .mode = TRAIN_LORA },
        { .ctx = 40, .group = 40, .dense = 1, .heads = 6, .kv_heads = 3, .mode = TRAIN_NONE },
        { .ctx = 30, .group = 10, .heads = 4, .kv_heads = 4, .mode = TRAIN_LORA_PLUS, .alone = true },
        { .ctx = 30, .group = 10, .heads = 4, .kv_heads = 4, .mode = TRAIN_LORA, .alone = true,
          .apart = true },
    };

    (void)state;
    for (size_t i = 0; i < sizeof tried / sizeof *tried; i++) {
        struct try t = tried[i];
        struct result one;

        compute(&t, 1);
        assert_int_equal(result[0].rc, 0);
        one = result[0], result[0].grad = NULL;
        for (int size = 2; size <= RANKS_MAX; size++) {
            t.shares = true;
            if (!t.alone) {
                assert_alike(&t, size, &one);
            } else {
                compute(&t, size);
                for (int k = 0; k < size; k++) { /* the same ops: the same bits */
                    assert_int_equal(result[k].rc, 0);
                    assert_true(result[k].loss == one.loss);
                    assert_memory_equal(result[k].grad, one.grad, (size_t)one.n * sizeof(float));
                }
            }
            for (int k = 0; k < size; k++) {
                /* the last two are there still when the backward begins */
                int64_t times = (size - 1) * (LAYERS + (t.mode == TRAIN_NONE ? 0 : LAYERS - 2));
                int64_t part = result[k].shared / times;

                assert_true(part > 0 && part * times == result[k].shared);
                assert_int_equal(part % 256, 0);
            }
        }
        free(one.grad);
    }
}

static void test_a_rank_that_fails_keeps_no_other_waiting(void **state)
{
    (void)state;
    for (int call = 1; call < 12; call += 2)
        for (int dense = 0; dense < 2; dense++) {
            struct try t = { .ctx = 48, .group = 12, .dense = dense, .heads = 4, .kv_heads = 4,
                             .mode = TRAIN_FULL };

            t.shares = call % 4 == 3, t.mode = t.shares ? TRAIN_LORA_PLUS : TRAIN_FULL;
            fails_rank = call % 3, fails_call = call / 2 + 1;
            compute(&t, 3);
            for (int k = 0; k < 3; k++)
                assert_int_equal(result[k].rc, k == fails_rank ? E_DEVICE : 0);
            assert_int_equal(made.failed, 0);
        }
    fails_rank = -1;
}

static bool sees(const struct op_segments *s, int64_t q, int64_t k)
{
    for (int64_t i = 0; i < s->n; i++)
        if (q >= s->cu[i] && q < s->cu[i + 1])
            return k >= s->cu[i] && k <= q;
    return false;
}

/* Every pair of rows: seen by the list of a part exactly where the whole one sees it. */
static void test_parts_of_lists_by_brute_force(void **state)
{
    struct segments seg = { 0 };

    (void)state;
    for (int64_t group = 2; group <= 20; group++) {
        struct try t = { .ctx = 40, .group = group, .docs = group % 3 };

        segments_of(&t, &seg);
        for (int h = 0; h < 2; h++)
            for (int64_t from = 0; from < t.ctx; from += 3) {
                const struct op_segments *s = &seg.half[h];
                int64_t at[3 * (MOST + 2)], keys = from, to = from + 13 < t.ctx ? from + 13 : t.ctx;
                struct op_segments part;

                for (int64_t i = 0; i < s->n; i++)
                    if (s->cu[i] <= from)
                        keys = s->cu[i];
                keys = keys > 2 ? keys - 2 : 0; /* some that are the other half's */
                segments_part(s, from, to, keys, to, at, &part);
                assert_int_equal(part.cu[part.n], to - from);
                assert_int_equal(part.kv[part.n], to - keys);
                for (int64_t q = from; q < to; q++)
                    for (int64_t k = keys; k < to; k++) {
                        bool seen = false;

                        for (int64_t i = 0; i < part.n; i++) {
                            int64_t place = q - from - part.cu[i] + part.first[i];

                            if (q - from >= part.cu[i] && q - from < part.cu[i + 1])
                                seen = k - keys >= part.kv[i] && k - keys < part.kv[i + 1] &&
                                       k - keys - part.kv[i] <= place;
                        }
                        assert_int_equal(seen, sees(s, q, k));
                    }
            }
    }
    segments_free(&seg);
}

static void in_parts(struct group *g, void *arg)
{
    struct err e = { 0 };
    struct group *part;
    struct group_note note = { .most = g->rank, .sum = { 1 } };
    int all[4] = { 0 }, mine = 10 + g->rank, told = g->rank * 7;
    float x[3] = { 1, 2, (float)g->rank };

    (void)arg;
    assert_int_equal(group_split(g, 2, &part, &e), 0);
    assert_int_equal(part->first, g->rank / 2 * 2);
    if (g->rank < 2) /* the other part does not know of it */
        for (int i = 0; i < 3; i++) {
            assert_int_equal(part->gather(part, &mine, all, sizeof mine, &e), 0);
            assert_true(all[0] == 10 && all[1] == 11);
        }
    assert_int_equal(part->broadcast(part, 1, &told, sizeof told, &e), 0);
    assert_int_equal(told, 7 * (part->first + 1));
    assert_int_equal(part->sum(part, x, 3, &e), 0);
    assert_true(x[0] == 2 && x[1] == 4 && x[2] == 2 * part->first + 1);
    assert_int_equal(group_meet(part, 0, &note, &e), 0);
    assert_true(note.sum[0] == 2 && note.most_rank == 1);
    if (g->rank == 3)
        err_set(&e, E_DATA, "it is so");
    assert_int_equal(group_meet(part, g->rank == 3 ? E_DATA : 0, NULL, &e), g->rank < 2 ? 0 : E_DATA);
    assert_int_equal(group_meet(g, 0, NULL, &e), 0);
    part->close(part);
}

static void test_parts_of_a_group(void **state)
{
    int none[4];

    (void)state;
    made_ranks(4, in_parts, none, sizeof *none);
    assert_int_equal(made.failed, 0);
}

static int quiet(void **state)
{
    (void)state;
    log_init("test_spread", -2);
    setenv("LONGLORA_BLAS", "builtin", 1);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts_of_a_group),
        cmocka_unit_test(test_parts_of_lists_by_brute_force),
        cmocka_unit_test(test_groups_over_borders),
        cmocka_unit_test(test_documents_and_windows),
        cmocka_unit_test(test_what_travels_is_half_a_group),
        cmocka_unit_test(test_whole_sequences),
        cmocka_unit_test(test_what_travels_is_no_gather),
        cmocka_unit_test(test_what_was_not_planned_is_refused),
        cmocka_unit_test(test_shared_weights),
        cmocka_unit_test(test_a_rank_that_fails_keeps_no_other_waiting),
    };

    return cmocka_run_group_tests(tests, quiet, NULL);
}
