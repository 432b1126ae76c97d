/* tests/inranks.h - ranks that are processes, for tests: each runs a function, and how all end is told. */
#ifndef TESTS_INRANKS_H
#define TESTS_INRANKS_H
#include "base/log.h"
#include "kernels/group.h"
#include "ranks/open.h"
#include "ranks/place.h"
#include "tests/calm.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
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

static inline void be_rank(int rank, int size, int door, rank_fn *run, int64_t timeout_s)
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
static inline void in_ranks(int size, rank_fn *run, int64_t timeout_s, void (*before)(int door),
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

static inline void all_end(int size, rank_fn *run, int code)
{
    int status[MOST];

    in_ranks(size, run, 20, NULL, status);
    for (int r = 0; r < size; r++)
        if (status[r] != -code)
            fail_msg("rank %d of %d: status %d, %s", r, size, status[r], left[r].msg);
}

/* A group setup. */
static inline int quiet(void **state)
{
    (void)state;
    log_init("ranks", -2);
    left = mmap(NULL, MOST * sizeof *left, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                0);
    return left == MAP_FAILED ? -1 : 0;
}
#endif
