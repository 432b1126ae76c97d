/* tests/test_transport.c - ranks in processes: what they send, and what happens when one is gone. */
#include "base/bytes.h"
#include "base/log.h"
#include "base/must.h"
#include "base/opt.h"
#include "base/ranks.h"
#include "kernels/group.h"
#include "ranks/launch.h"
#include "ranks/open.h"
#include "ranks/place.h"
#include "ranks/rendezvous.h"
#include "ranks/ring.h"
#include "ranks/same.h"
#include "ranks/watch.h"
#include "tests/calm.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { MOST = 4, WRONG = 99 };

/* What each rank leaves for the test, in memory that all share. */
static struct result {
    int rc;
    double seconds; /* calm ones */
    atomic_bool comes;
    char msg[1024];
} *left;

/* In a rank there is no cmocka: it tells the line and ends. */
#define MUST(x)                                                          \
    do {                                                                 \
        if (!(x)) {                                                      \
            fprintf(stderr, "rank %d, line %d: %s\n", me, __LINE__, #x); \
            _exit(WRONG);                                                \
        }                                                                \
    } while (0)

static int me;

typedef int rank_fn(struct group *g, struct err *e);

static void be_rank(int rank, int size, int door, rank_fn *run, int64_t timeout_s)
{
    const struct ranks_options o = { .timeout_s = timeout_s };
    const struct { const char *name; int v; } env[] = {
        { "LONGLORA_SIZE", size }, { "LONGLORA_RANK", rank }, { "LONGLORA_LOCAL_RANK", rank },
        { "LONGLORA_LOCAL_SIZE", size }, { "LONGLORA_PORT", net_port(door) },
        { "LONGLORA_DOOR", door } };
    struct ranks_share share;
    struct group *g;
    struct err e = { 0 };
    double begun = calm_s();
    char text[16];

    alarm(getenv("SAN") ? 120 : 30); /* a sanitizer is slow */
    for (size_t i = 0; i < sizeof env / sizeof *env; i++) {
        snprintf(text, sizeof text, "%d", env[i].v);
        setenv(env[i].name, text, 1);
    }
    setenv("LONGLORA_TOKEN", "test", 1);
    me = rank;
    if (rank > 0)
        close(door);
    left[rank].rc = ranks_open(&g, &o, &share, &e);
    if (left[rank].rc == 0)
        left[rank].rc = run(g, &e);
    snprintf(left[rank].msg, sizeof left[rank].msg, "%s", e.msg);
    left[rank].seconds = calm_s() - begun;
    left[rank].rc = ranks_close(g, left[rank].rc, &e);
    _exit(-left[rank].rc);
}

/* The exit status of each rank, negative where a signal ended it. before: with the door, while
 * nobody has come. */
static void in_ranks(int size, rank_fn *run, int64_t timeout_s, void (*before)(int door),
                     int status[MOST])
{
    struct err e = { 0 };
    pid_t pid[MOST];
    int door;

    memset(left, 0, MOST * sizeof *left);
    assert_int_equal(net_listen(&door, 0, &e), 0);
    if (before)
        before(door);
    fflush(NULL);
    for (int r = 0; r < size; r++)
        if ((pid[r] = fork()) == 0)
            be_rank(r, size, door, run, timeout_s);
    close(door);
    for (int r = 0, s; r < size; r++) {
        /* who has stopped is killed once the others have ended */
        if (r == 0)
            for (int k = size - 1; k > 0; k--)
                if (waitid(P_PID, (id_t)pid[k], &(siginfo_t){ 0 }, WEXITED | WSTOPPED | WNOWAIT) < 0)
                    fail();
        waitpid(pid[r], &s, WUNTRACED);
        if (WIFSTOPPED(s)) {
            for (int k = r + 1; k < size; k++)
                waitid(P_PID, (id_t)pid[k], &(siginfo_t){ 0 }, WEXITED | WNOWAIT);
            kill(pid[r], SIGKILL);
            waitpid(pid[r], &s, 0);
        }
        status[r] = WIFSIGNALED(s) ? -WTERMSIG(s) : WEXITSTATUS(s);
    }
}

static void all_end(int size, rank_fn *run, int code)
{
    int status[MOST];

    in_ranks(size, run, 20, NULL, status);
    for (int r = 0; r < size; r++)
        if (status[r] != -code)
            fail_msg("rank %d of %d: status %d, %s", r, size, status[r], left[r].msg);
}

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

/* ---- strangers at the door */

static int knock(int door, const void *b, size_t n)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)net_port(door)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(send(fd, b, n, MSG_NOSIGNAL), (ssize_t)n);
    return fd;
}

/* As a rank of this job would say it; another token where wrong_token. */
static void hello(unsigned char b[HELLO_BYTES], bool wrong_token, uint32_t version, int rank)
{
    struct hello h = { .purpose = HELLO_MEET, .version = version, .size = 3, .rank = rank,
                       .port = 9, .host = "elsewhere", .release = LONGLORA_VERSION };
    struct ranks r = { .by = RANKS_OWN, .rank = 1, .size = 3 };
    struct err e = { 0 };
    struct place p;

    setenv("LONGLORA_TOKEN", wrong_token ? "another" : "test", 1);
    setenv("LONGLORA_PORT", "9", 1);
    assert_int_equal(place_find(&p, &r, &e), 0);
    memcpy(h.token, p.token, TOKEN_BYTES);
    hello_write(&h, b);
}

enum { STRANGERS = 200 };
static int strangers[STRANGERS + 8];

static void many_strangers(int door)
{
    unsigned char b[HELLO_BYTES], noise[3000];
    int n = 0;

    memset(noise, 'x', sizeof noise);
    for (int i = 0; i < STRANGERS; i++) /* more than may wait, and they say nothing */
        strangers[n++] = knock(door, "", 0);
    hello(b, true, HELLO_VERSION, 1);
    strangers[n++] = knock(door, b, sizeof b);
    strangers[n++] = knock(door, noise, sizeof noise);
    strangers[n++] = knock(door, "GET / HTTP/1.1\r\n\r\n", 18);
    strangers[n++] = knock(door, "llranks\n", 8);
    hello(b, false, HELLO_VERSION, 1);
    b[0] = 'L';
    strangers[n++] = knock(door, b, sizeof b);
    hello(b, false, HELLO_VERSION, 1);
    strangers[n++] = knock(door, b, sizeof b - 1); /* all but the last byte, and no more */
    close(knock(door, b, 20));
    close(knock(door, "", 0));
}

static void test_strangers_do_no_harm(void **state)
{
    int status[MOST];

    (void)state;
    in_ranks(3, sums, 20, many_strangers, status);
    for (int r = 0; r < 3; r++)
        if (status[r] != 0)
            fail_msg("rank %d: %s", r, left[r].msg);
    for (int i = 0; i < STRANGERS + 6; i++) /* no answer to any of them */
        assert_true(recv(strangers[i], (char[1]){ 0 }, 1, 0) <= 0 && close(strangers[i]) == 0);
}

static void other_version(int door)
{
    unsigned char b[HELLO_BYTES];

    hello(b, false, HELLO_VERSION + 1, 1);
    strangers[0] = knock(door, b, sizeof b);
}

static void no_such_rank(int door)
{
    unsigned char b[HELLO_BYTES];

    hello(b, false, HELLO_VERSION, 3);
    strangers[0] = knock(door, b, sizeof b);
}

static void test_a_rank_that_cannot_be_one_of_us_is_refused(void **state)
{
    char answer[1024] = "";
    int status[MOST];

    (void)state;
    in_ranks(3, sums, 20, other_version, status);
    assert_int_equal(status[0], -E_CONFIG);
    assert_non_null(strstr(left[0].msg, "rank 1 on elsewhere is of version"));
    assert_true(recv(strangers[0], answer, sizeof answer, MSG_WAITALL) > 32);
    assert_non_null(strstr(answer + 32, "is of version")); /* and is told */
    close(strangers[0]);
    in_ranks(3, sums, 20, no_such_rank, status);
    assert_int_equal(status[0], -E_CONFIG);
    assert_non_null(strstr(left[0].msg, "rank 3"));
    close(strangers[0]);
}

/* One that has met the others and then says what no rank says: all end, none is confused. */
static void test_nonsense_between_ranks(void **state)
{
    struct ranks r = { .by = "test", .rank = 0, .size = 2, .host = "here" };
    struct rendezvous m;
    struct err e = { 0 };
    struct place p;
    pid_t pid;
    int s;

    (void)state;
    assert_int_equal(place_make(&p, &e), 0);
    if ((pid = fork()) == 0) {
        close(p.listener);
        p.listener = -1;
        r.rank = 1;
        if (rendezvous_meet(&m, &r, &p, 5, &e) < 0 || send(m.fds[0], "zzzzzzzzzz", 10, 0) != 10)
            _exit(WRONG);
        sleep(5);
        _exit(0);
    }
    assert_int_equal(rendezvous_meet(&m, &r, &p, 5, &e), 0);
    assert_int_equal(watch_open(&m, 20, &e), 0);
    for (int i = 0; i < 200 && watch_check(&e) == 0; i++)
        usleep(10000);
    assert_int_equal(watch_check(&e), E_DEVICE);
    assert_non_null(strstr(e.msg, "rank 1 on here says what no rank says"));
    assert_int_equal(watch_lost(1, "x", &e), E_DEVICE);
    watch_close(E_DEVICE, e.msg, false);
    rendezvous_close(&m);
    kill(pid, SIGKILL);
    waitpid(pid, &s, 0);
}

static void test_who_does_not_come_is_named(void **state)
{
    struct ranks r = { .by = "test", .rank = 0, .size = 3, .host = "here" };
    struct rendezvous m;
    struct err e = { 0 };
    struct place p;

    (void)state;
    assert_int_equal(place_make(&p, &e), 0);
    assert_true(p.n > 0);
    assert_int_equal(rendezvous_meet(&m, &r, &p, 0.2, &e), E_DEVICE);
    assert_non_null(strstr(e.msg, "rank 1 has not come within 0 s; 1 of 3 are here"));
    rendezvous_close(&m);
    /* and nobody is where rank 0 should be */
    r.rank = 1;
    p.at[0] = (struct address){ .ip = { [10] = 0xff, 0xff, 127, 0, 0, 1 }, .port = 9 };
    p.n = 1;
    assert_int_equal(rendezvous_meet(&m, &r, &p, 0.2, &e), E_DEVICE);
    assert_non_null(strstr(e.msg, "rank 0 was not found at 127.0.0.1 port 9"));
    rendezvous_close(&m);
}

/* ---- where rank 0 is */

/* Who tells that rank 0 has died: a bit for each rank from 0 on. */
static unsigned speakers(const char *places, bool apart)
{
    struct seat seats[8] = { 0 };
    struct rendezvous m = { .size = (int)strlen(places), .seats = seats, .apart = apart };
    unsigned all = 0;

    for (int r = 0; r < m.size; r++) {
        strcpy(seats[r].host, "node"); /* a digit: its address; capitals: of another name */
        seats[r].host[0] = places[r] < 'a' ? 'N' : 'n';
        seats[r].door.ip[15] = (unsigned char)(places[r] | 32);
        seats[r].door.port = (uint16_t)(1000 + r);
    }
    for (m.rank = 0; m.rank < m.size; m.rank++)
        all |= (unsigned)rendezvous_speaks(&m) << m.rank;
    return all;
}

static void test_one_tells_of_rank_0(void **state)
{
    (void)state;
    assert_int_equal(speakers("aaaaa", false), 3);   /* ranks 0 and 1 */
    assert_int_equal(speakers("aabbcc", false), 7);  /* rank 1 may have died with its host */
    assert_int_equal(speakers("abcabc", false), 3);
    assert_int_equal(speakers("aAaA", false), 3);    /* a host of another name */
    assert_int_equal(speakers("aaaaa", true), 3);
    assert_int_equal(speakers("aabbcc", true), 23);  /* each host has its own terminal */
    assert_int_equal(speakers("abab", true), 7);
}

static void test_first_host_of_a_list(void **state)
{
    static const struct { const char *list, *first; } lists[] = {
        { "a[1-3,7],b2", "a1" }, { "n[001-003]", "n001" }, { "host", "host" }, { "h1,h2", "h1" },
        { "tux[12-14]-ib,x", "tux12-ib" }, { "r[1-2]n[3-4]", "r1n3" }, { "a[", NULL },
        { "a[x]", NULL }, { "", NULL }, { ",a", NULL }, { "a[1-3", NULL },
    };
    char host[8 + 4];

    (void)state;
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        bool ok = place_first_host(lists[i].list, host, sizeof host);

        if (ok != !!lists[i].first || (ok && strcmp(host, lists[i].first) != 0))
            fail_msg("'%s': %s", lists[i].list, ok ? host : "refused");
    }
    assert_false(place_first_host("a-name-too-long", host, sizeof host));
}

static void test_place_in_the_environment(void **state)
{
    const char *form = getenv("CMOCKA_MESSAGE_OUTPUT"); /* of the next tests' results */
    char *output = form ? strdup(form) : NULL;
    struct ranks r = { .by = "torchrun", .rank = 1, .size = 2 };
    struct err e = { 0 };
    struct place p, q;
    unsigned char b[PLACE_BYTES];

    (void)state;
    clearenv();
    assert_int_equal(place_find(&p, &r, &e), E_CONFIG);
    assert_non_null(strstr(e.msg, "MASTER_ADDR"));
    setenv("MASTER_ADDR", "127.0.0.1", 1);
    assert_int_equal(place_find(&p, &r, &e), 0); /* the port follows from the job */
    assert_in_range(p.at[0].port, 15000, 29999);
    setenv("MASTER_PORT", "70000", 1);
    assert_int_equal(place_find(&p, &r, &e), E_CONFIG);
    setenv("MASTER_PORT", "12345", 1);
    assert_int_equal(place_find(&p, &r, &e), 0);
    assert_int_equal(p.at[0].port, 12345);
    assert_true(net_is_loopback(&p.at[0]));
    setenv("TORCHELASTIC_USE_AGENT_STORE", "True", 1);
    assert_int_equal(place_find(&q, &r, &e), 0);
    assert_int_equal(q.at[0].port, 12346);
    assert_memory_equal(p.token, q.token, TOKEN_BYTES);
    setenv("LONGLORA_TOKEN", "secret", 1);
    assert_int_equal(place_find(&q, &r, &e), 0);
    assert_memory_not_equal(p.token, q.token, TOKEN_BYTES);
    place_write(&q, b);
    place_read(&p, b);
    assert_memory_equal(p.at, q.at, sizeof p.at[0]);
    assert_memory_equal(p.token, q.token, TOKEN_BYTES);
    memset(b, 0xff, sizeof b); /* more addresses than there is room for */
    place_read(&p, b);
    assert_int_equal(p.n, PLACE_MOST);
    clearenv();
    r.by = "Slurm";
    setenv("SLURM_STEP_NODELIST", "127.0.0.[1-2]", 1);
    setenv("SLURM_JOB_ID", "7", 1);
    assert_int_equal(place_find(&p, &r, &e), 0);
    assert_int_equal(p.at[0].ip[12], 127);
    setenv("SLURM_STEP_NODELIST", "no-such-host.invalid", 1);
    assert_int_equal(place_find(&p, &r, &e), E_CONFIG);
    clearenv();
    if (output)
        setenv("CMOCKA_MESSAGE_OUTPUT", output, 1);
    free(output);
}

/* How many to start, of the options. */
static void test_ranks_asked(void **state)
{
    struct err e = { 0 };

    (void)state;
    assert_int_equal(ranks_asked(&(struct ranks_options){ 0 }, &e), 0);
    assert_int_equal(ranks_asked(&(struct ranks_options){ .processes = 3 }, &e), 3);
    assert_int_equal(ranks_asked(&(struct ranks_options){ .gpus = "8" }, &e), 8);
    assert_int_equal(ranks_asked(&(struct ranks_options){ .gpus = "8x" }, &e), E_USAGE);
    assert_int_equal(ranks_asked(&(struct ranks_options){ .gpus = "0" }, &e), E_USAGE);
    assert_int_equal(ranks_asked(&(struct ranks_options){ .gpus = "2", .processes = 2 }, &e),
                     E_USAGE);
}

static int quiet(void **state)
{
    (void)state;
    log_init("test_transport", -2);
    left = mmap(NULL, MOST * sizeof *left, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                0);
    return left == MAP_FAILED ? -1 : 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums_are_the_rings_to_the_bit_and_the_byte),
        cmocka_unit_test(test_a_rank_brings_to_the_first), cmocka_unit_test(test_gather_and_broadcast),
        cmocka_unit_test(test_neighbours),
        cmocka_unit_test(test_ranks_that_call_different_things_end),
        cmocka_unit_test(test_what_differs_between_ranks_is_named),
        cmocka_unit_test(test_who_is_gone_is_named_and_nobody_waits),
        cmocka_unit_test(test_long_work_is_no_silence),
        cmocka_unit_test(test_strangers_do_no_harm),
        cmocka_unit_test(test_a_rank_that_cannot_be_one_of_us_is_refused),
        cmocka_unit_test(test_nonsense_between_ranks),
        cmocka_unit_test(test_who_does_not_come_is_named),
        cmocka_unit_test(test_ranks_asked),
        cmocka_unit_test(test_one_tells_of_rank_0), cmocka_unit_test(test_first_host_of_a_list),
        cmocka_unit_test(test_place_in_the_environment),
    };

    return cmocka_run_group_tests(tests, quiet, NULL);
}
