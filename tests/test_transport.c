/* tests/test_transport.c - ranks in processes: what they send, and what happens when one is gone. */
#include "tests/inranks.h"

#include "base/bytes.h"
#include "base/must.h"
#include "ranks/ring.h"
#include "ranks/same.h"
#include "ranks/watch.h"

#include <math.h>

static float value(int rank, int64_t i) { return sinf((float)(i * 7 + rank * 13)) * 3.7f; }

/* Part p is added from the rank after p on, round the ring. */
static float expected(const struct group *g, int64_t n, int64_t i)
{
    float sum = 0;

    for (int p = 0; p < g->size; p++) {
        struct group other = { .rank = p, .size = g->size };
        int64_t from, to;

        group_part(&other, n, &from, &to);
        if (i < from || i >= to)
            continue;
        sum = value((p + 1) % g->size, i);
        for (int s = 2; s <= g->size; s++)
            sum = value((p + s) % g->size, i) + sum;
    }
    return sum;
}

/* Bytes that rank r sends in a sum of n: every part but its own, then every part but the next
 * rank's. */
static int64_t sum_bytes(const struct group *g, int64_t n)
{
    int64_t bytes = RING_HEAD;

    for (int p = 0; p < g->size; p++) {
        struct group other = { .rank = p, .size = g->size };
        int64_t from, to;

        group_part(&other, n, &from, &to);
        bytes += 4 * (to - from) * ((p != g->rank) + (p != (g->rank + 1) % g->size));
    }
    return bytes;
}

static int sums(struct group *g, struct err *e)
{
    static const int64_t sizes[] = { 0, 1, 2, 3, 4, 5, 7, 1000, 99991, (1 << 20) + 3 };

    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        int64_t n = sizes[k], had = g->sent, got = g->received;
        float *x = malloc(((size_t)n + 1) * sizeof *x);

        x[n] = -5;
        for (int64_t i = 0; i < n; i++)
            x[i] = value(me, i);
        MUST(g->sum(g, x, n, e) == 0);
        for (int64_t i = 0; i < n; i++)
            if (x[i] != expected(g, n, i)) /* to the bit: so on all ranks, and in every run */
                MUST(i < 0);
        MUST(x[n] == -5);
        MUST(g->sent - had == sum_bytes(g, n));
        MUST(n % g->size || g->sent - had == RING_HEAD + 8 * n * (g->size - 1) / g->size);
        MUST(n % g->size || g->received - got == g->sent - had);
        free(x);
    }
    return 0;
}

static int gathers(struct group *g, struct err *e)
{
    static const size_t sizes[] = { 0, 1, 3, 1000, 2000003 };

    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        size_t n = sizes[k];
        int64_t had = g->sent, hops = g->size - 1;
        unsigned char *mine = malloc(n + 1), *all = malloc(n * (size_t)g->size + 1);

        memset(mine, 17 + me, n);
        all[n * (size_t)g->size] = 0xee;
        MUST(g->gather(g, mine, all, n, e) == 0);
        for (size_t i = 0; i < n * (size_t)g->size; i++)
            if (all[i] != 17 + i / n)
                MUST(n == 0);
        MUST(all[n * (size_t)g->size] == 0xee);
        MUST(g->sent - had == RING_HEAD + hops * (int64_t)(n ? n : 1));
        /* in place */
        memset(all, 0, n * (size_t)g->size);
        memset(all + (size_t)me * n, 40 + me, n);
        MUST(g->gather(g, all + (size_t)me * n, all, n, e) == 0);
        for (int r = 0; r < g->size && n; r++)
            MUST(all[(size_t)r * n] == 40 + r && all[(size_t)r * n + n - 1] == 40 + r);
        free(mine);
        free(all);
    }
    return 0;
}

static int broadcasts(struct group *g, struct err *e)
{
    static const size_t sizes[] = { 0, 1, 777, (1 << 20) - 1, 3 * (1 << 20) + 5 };

    for (int root = 0; root < g->size; root++)
        for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
            size_t n = sizes[k];
            int64_t had = g->sent, got = g->received;
            unsigned char *x = malloc(n + 1);

            for (size_t i = 0; i <= n; i++)
                x[i] = me == root ? (unsigned char)(i * 31 + k) : 0xaa;
            MUST(g->broadcast(g, root, x, n, e) == 0);
            for (size_t i = 0; i < n; i++)
                if (x[i] != (unsigned char)(i * 31 + k))
                    MUST(n == 0);
            MUST(me == root || x[n] == 0xaa);
            MUST(g->sent - had == RING_HEAD + ((me + 1) % g->size == root ? 0 : (int64_t)n));
            MUST(g->received - got == RING_HEAD + (me == root ? 0 : (int64_t)n));
            free(x);
        }
    return 0;
}

/* Nobody is through before all have come. */
/* From each rank to rank 0 and by nobody else, not a byte more than there is; calls of the ring in
 * between, to which the others have gone on. */
static int brings(struct group *g, struct err *e)
{
    static const size_t sizes[] = { 1, 1000, 3000017 };

    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
        for (int from = 0; from < g->size; from++) {
            size_t n = sizes[k];
            int64_t had = g->sent, got = g->received;
            unsigned char *x = malloc(n), token = (unsigned char)me, all[MOST];

            memset(x, 31 + me, n);
            MUST(group_bring(g, from, x, n, e) == 0);
            MUST(x[0] == 31 + (me ? me : from) && x[n - 1] == x[0]);
            MUST(g->sent - had == (from && me == from ? (int64_t)n : 0));
            MUST(g->received - got == (from && me == 0 ? (int64_t)n : 0));
            free(x);
            if (from % 2)
                MUST(g->gather(g, &token, all, 1, e) == 0 && all[from] == from);
        }
    return 0;
}

static int barrier(struct group *g, struct err *e)
{
    char c;

    if (me == g->size - 1) {
        usleep(300000);
        atomic_store(&left[me].comes, true);
    }
    MUST(g->gather(g, &c, &c, 0, e) == 0);
    MUST(atomic_load(&left[g->size - 1].comes)); /* nobody is through before the last has come */
    return 0;
}

static void test_sums_are_the_rings_to_the_bit_and_the_byte(void **state)
{
    (void)state;
    for (int size = 2; size <= MOST; size++)
        all_end(size, sums, 0);
}

static void test_a_rank_brings_to_the_first(void **state)
{
    (void)state;
    for (int size = 2; size <= MOST; size++)
        all_end(size, brings, 0);
}

/* Up and down the line, as much as the two agree on, at their own pace; heads are counted. */
static int passes(struct group *g, struct err *e)
{
    static const size_t sizes[] = { 1, 3, 1000, 3000001 };
    int64_t had = g->sent, moved = 0;

    for (int step = 1; step >= -1; step -= 2)
        for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
            int to = me + step, from = me - step;
            size_t n_out = to < 0 || to >= g->size ? 0 : sizes[k] + (size_t)me;
            size_t n_in = from < 0 || from >= g->size ? 0 : sizes[k] + (size_t)from;
            unsigned char *x = malloc(n_out + 1), *y = malloc(n_in + 1);

            memset(x, 11 * (me + 1), n_out);
            y[n_in] = 77;
            MUST(g->pass(g, step, x, n_out, y, n_in, e) == 0);
            for (size_t i = 0; i < n_in; i++)
                if (y[i] != 11 * (from + 1))
                    MUST(i > n_in);
            MUST(y[n_in] == 77);
            moved += (int64_t)n_out + (n_out > 0) * RING_HEAD;
            free(x), free(y);
        }
    MUST(g->sent - had == moved);
    for (int i = 0; i < 3; i++) { /* two alone: the others are not asked */
        int it = -1;

        MUST(g->pass(g, 1, &i, me == 0 ? sizeof i : 0, &it, me == 1 ? sizeof it : 0, e) == 0);
        MUST(it == (me == 1 ? i : -1));
    }
    return 0;
}

static int passes_differ(struct group *g, struct err *e)
{
    char x[16] = { 0 };

    return g->pass(g, 1, x, me == 0 ? 8 : 0, x, me == 1 ? 9 : 0, e);
}

static void test_neighbours(void **state)
{
    int status[MOST];

    (void)state;
    for (int size = 2; size <= MOST; size++)
        all_end(size, passes, 0);
    in_ranks(2, passes_differ, 20, NULL, status);
    assert_int_equal(status[1], -E_BUG);
}

static void test_gather_and_broadcast(void **state)
{
    (void)state;
    for (int size = 2; size <= MOST; size++) {
        all_end(size, gathers, 0);
        all_end(size, broadcasts, 0);
        all_end(size, barrier, 0);
    }
}

static int calls_differ(struct group *g, struct err *e)
{
    float x[8] = { 0 };

    return me == 1 ? g->sum(g, x, 7, e) : g->sum(g, x, 8, e);
}

static void test_ranks_that_call_different_things_end(void **state)
{
    (void)state;
    all_end(3, calls_differ, E_BUG);
}

static int same_words(struct group *g, struct err *e)
{
    return ranks_same(g, me == 2 ? "seed 1\nlr 0.5\n" : "seed 1\nlr 0.25\n", e);
}

static void test_what_differs_between_ranks_is_named(void **state)
{
    (void)state;
    all_end(3, same_words, E_CONFIG);
    assert_string_equal(left[2].msg, "'lr' is 0.5 here and 0.25 for rank 0");
    assert_non_null(strstr(left[0].msg, "rank 2 on "));
    assert_non_null(strstr(left[1].msg, "'lr' is 0.5 here"));
}

/* ---- a rank that is gone */

static int many_sums(struct group *g, struct err *e)
{
    float x[1000] = { 0 };
    int rc = 0;

    while (rc == 0) {
        rc = g->sum(g, x, 1000, e);
        usleep(1000);
    }
    return rc;
}

static int kills_itself(struct group *g, struct err *e)
{
    float x = 0;

    MUST(g->sum(g, &x, 1, e) == 0);
    if (me == 2)
        raise(SIGKILL);
    return many_sums(g, e);
}

static int zero_kills_itself(struct group *g, struct err *e)
{
    if (me == 0)
        raise(SIGKILL);
    return many_sums(g, e);
}

static int stops_itself(struct group *g, struct err *e)
{
    float x = 0;

    MUST(g->sum(g, &x, 1, e) == 0);
    if (me == 1)
        raise(SIGSTOP);
    return many_sums(g, e);
}

/* Stuck where nothing looks at the verdict: the thread ends the process. */
static int does_not_look(struct group *g, struct err *e)
{
    if (me == 1)
        raise(SIGKILL);
    if (me == 2)
        for (;;)
            pause();
    return many_sums(g, e);
}

static int fails_alone(struct group *g, struct err *e)
{
    return me == 1 ? err_set(e, E_NOINPUT, "no such thing") : many_sums(g, e);
}

static int ends_in_a_library(struct group *g, struct err *e)
{
    if (me == 1)
        must_end(E_SYS, "no", " memory", "");
    return many_sums(g, e);
}

static void test_who_is_gone_is_named_and_nobody_waits(void **state)
{
    static const struct {
        rank_fn *run;
        int gone, ends, status; /* the rank, how it ends, how the others end */
        const char *said;
        double within_s;
    } tried[] = {
        { kills_itself, 2, -SIGKILL, -E_DEVICE, "rank 2 on %s has died", 1.5 },
        { zero_kills_itself, 0, -SIGKILL, -E_DEVICE, "rank 0 on %s has died", 1.5 },
        { stops_itself, 1, -SIGKILL, -E_DEVICE, "rank 1 on %s was not heard of for 1 s", 3 },
        { does_not_look, 1, -SIGKILL, -E_DEVICE, "rank 1 on %s has died", 1.5 },
        { fails_alone, 1, -E_NOINPUT, -E_NOINPUT, "rank 1 on %s: no such thing", 1.5 },
        { ends_in_a_library, 1, -E_SYS, -E_SYS, "rank 1 on %s: no memory", 1.5 },
    };
    char host[HOST_BYTES], said[200];
    int status[MOST];

    (void)state;
    assert_int_equal(gethostname(host, sizeof host), 0);
    for (size_t i = 0; i < sizeof tried / sizeof *tried; i++) {
        double begun = calm_s();

        in_ranks(3, tried[i].run, 1, NULL, status);
        snprintf(said, sizeof said, tried[i].said, host); // NOLINT
        assert_true(calm_s() - begun < 5);
        for (int r = 0; r < 3; r++) {
            bool stuck = tried[i].run == does_not_look && r == 2;

            if (status[r] != (r == tried[i].gone ? tried[i].ends : tried[i].status))
                fail_msg("case %zu: rank %d ends with %d: %s", i, r, status[r], left[r].msg);
            if (r == tried[i].gone || stuck)
                continue;
            if (!strstr(left[r].msg, said) || left[r].seconds > tried[i].within_s)
                fail_msg("case %zu: rank %d after %.2f s: '%s', not '%s'", i, r, left[r].seconds,
                         left[r].msg, said);
        }
    }
}

/* Long work between two calls is no reason to give a rank up: it beats from a thread. */
static int works_long(struct group *g, struct err *e)
{
    double until = now_s() + (me == 1 ? 2.5 : 0);
    float x = 1;

    while (now_s() < until)
        x += 1e-9f;
    return g->sum(g, &x, 1, e);
}

static void test_long_work_is_no_silence(void **state)
{
    int status[MOST];

    (void)state;
    in_ranks(2, works_long, 1, NULL, status);
    assert_int_equal(status[0], 0);
    assert_int_equal(status[1], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums_are_the_rings_to_the_bit_and_the_byte),
        cmocka_unit_test(test_a_rank_brings_to_the_first),
        cmocka_unit_test(test_gather_and_broadcast),
        cmocka_unit_test(test_neighbours),
        cmocka_unit_test(test_ranks_that_call_different_things_end),
        cmocka_unit_test(test_what_differs_between_ranks_is_named),
        cmocka_unit_test(test_who_is_gone_is_named_and_nobody_waits),
        cmocka_unit_test(test_long_work_is_no_silence),
    };

    return cmocka_run_group_tests(tests, quiet, NULL);
}
