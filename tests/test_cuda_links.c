/* tests/test_cuda_links.c - links between GPUs without one: cuda_links.c with a CUDA and an NCCL
 * that are made up. Who may be linked, what travels, and that no wait outlasts a rank that died. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/log.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/nccl_abi.h"
#include "tests/calm.h"

/* What happens, and what was seen. */
static struct {
    bool no_library, never, connecting; /* never: NCCL's kernels wait for ever */
    bool shared, no_stop;   /* ranks' cards are one; an abort does not end the kernels */
    int version, other_version, async, id;
    double dies_s;          /* so long after 'start_s' the group knows that a rank is gone */
    double start_s;
    int aborted, reduced, parts, gathered, open, moves; /* open: a call that is several */
    struct { const void *out; void *in; size_t n; int rank; } move[8];
    int bad_move;           /* what NCCL answers to one */
    size_t n;
} made;
static struct cuda cuda;
static struct device dev;
static struct group group;

/* ---- CUDA ---- */

cudaError_t cudaStreamQuery(cudaStream_t s)
{
    (void)s;
    return made.never && (!made.aborted || made.no_stop) ? cudaErrorNotReady : cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int index)
{
    memset(p, 0, sizeof *p);
    p->uuid[0] = (char)(index + 1);
    return cudaSuccess;
}
cudaError_t cudaMalloc(void **p, size_t n) { return (*p = malloc(n)) ? cudaSuccess : 2; }
cudaError_t cudaFree(void *p) { return free(p), cudaSuccess; }
cudaError_t cudaMemset(void *p, int value, size_t n) { return memset(p, value, n), cudaSuccess; }
cudaError_t cudaGetLastError(void) { return 0; }
cudaError_t cudaDeviceSynchronize(void) { return cudaSuccess; }

/* ---- what other files of the device do ---- */

int cuda_fault(struct cuda *c, const char *fmt, ...)
{
    va_list ap;

    if (c->fault.code)
        return E_DEVICE;
    va_start(ap, fmt);
    vsnprintf(c->fault.msg, sizeof c->fault.msg, fmt, ap);
    va_end(ap);
    return c->fault.code = E_DEVICE;
}
int cuda_check(struct cuda *c, cudaError_t r, const char *what)
{
    return r == cudaSuccess ? 0 : cuda_fault(c, "%s failed: %d", what, r);
}
void cuda_note(struct cuda *c, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(c->notes, sizeof c->notes, fmt, ap);
    va_end(ap);
}
cudaError_t cuda_copy_async(void *dst, const void *src, size_t n, cudaStream_t s)
{
    assert_ptr_equal(s, &cuda.queue[QUEUE_LINK]);
    memcpy(dst, src, n);
    return cudaSuccess;
}
cudaStream_t cuda_stream(struct cuda *c, enum queue q) { return c->queue[q] = &c->queue[q]; }
void cuda_wait_all(struct cuda *c)
{
    cuda_check(c, cuda_wait(c, c->queue[QUEUE_LINK]), "queued work");
    links_waited(c);
}
size_t cuda_held(size_t used_before, int index) { return used_before + 1000 + (size_t)index; }
void clock_start(struct cuda_clock *k, int kind, cudaStream_t s) { (void)k, (void)kind, (void)s; }
void clock_stop(struct cuda_clock *k, int kind, double flop, cudaStream_t s)
{
    (void)k, (void)kind, (void)flop, (void)s;
}
static int sync_all(struct device *d, struct err *e)
{
    struct cuda *c = cuda_of(d);
    int code;

    cuda_wait_all(c);
    code = c->fault.code;
    if (code && e)
        *e = c->fault;
    c->fault.code = 0;
    return code;
}

/* ---- NCCL ---- */

static int version(int *v) { return *v = made.version, NCCL_OK; }
static int unique_id(struct nccl_id *id) { return id->bytes[0] = 7, made.id; }
static int init(void **comm, int size, struct nccl_id id, int rank, struct nccl_config *c)
{
    assert_int_equal(size, group.size);
    assert_int_equal(rank, group.rank);
    assert_int_equal(id.bytes[0], 7);
    assert_int_equal(c->blocking, 0);
    assert_true(c->size == sizeof *c && c->magic == NCCL_MAGIC);
    *comm = &made;
    return NCCL_IN_PROGRESS;
}
static int async_error(void *comm, int *status)
{
    assert_ptr_equal(comm, &made);
    *status = made.connecting ? NCCL_IN_PROGRESS : made.async;
    return NCCL_OK;
}
static int stop(void *comm)
{
    assert_ptr_equal(comm, &made);
    made.aborted++;
    return NCCL_OK;
}
static const char *error_string(int status) { return status == 6 ? "remote" : "failed"; }
static const char *last_error(void *comm) { return (void)comm, "no more to say"; }
static int all_reduce(const void *from, void *to, size_t n, int type, int op, void *comm,
                      cudaStream_t s)
{
    assert_ptr_equal(from, to);
    assert_true(type == NCCL_F32 && op == NCCL_SUM && comm == &made && s == cuda.queue[QUEUE_LINK]);
    made.reduced++, made.n = n;
    return NCCL_OK;
}
/* in place: this rank's part of from */
static int reduce_scatter(const void *from, void *to, size_t part, int type, int op, void *comm,
                          cudaStream_t s)
{
    assert_ptr_equal((const float *)from + (size_t)group.rank * part, to);
    (void)type, (void)op, (void)comm, (void)s;
    made.parts++, made.n = part;
    return NCCL_OK;
}
static int all_gather(const void *from, void *to, size_t part, int type, void *comm, cudaStream_t s)
{
    assert_ptr_equal((float *)to + (size_t)group.rank * part, from);
    (void)type, (void)comm, (void)s;
    made.gathered++, made.n = part;
    return NCCL_OK;
}

static int begin_calls(void) { return made.open++, NCCL_OK; }
static int end_calls(void) { return made.open--, NCCL_IN_PROGRESS; }
static int note_move(const void *out, void *in, size_t n, int type, int rank, void *comm,
                     cudaStream_t s)
{
    assert_true(type == NCCL_BYTE && made.open == 1 && comm == &made && s == cuda.queue[QUEUE_LINK]);
    made.move[made.moves % 8].out = out, made.move[made.moves % 8].in = in;
    made.move[made.moves % 8].n = n, made.move[made.moves++ % 8].rank = rank;
    return made.bad_move;
}
static int send_to(const void *from, size_t n, int type, int rank, void *comm, cudaStream_t s)
{
    return note_move(from, NULL, n, type, rank, comm, s);
}
static int receive_from(void *to, size_t n, int type, int rank, void *comm, cudaStream_t s)
{
    return note_move(NULL, to, n, type, rank, comm, s);
}

void *made_dlopen(const char *name, int flags);
void *made_dlsym(void *lib, const char *name);
int made_dlclose(void *lib);
void *made_dlopen(const char *name, int flags)
{
    assert_string_equal(name, "libnccl.so.2");
    (void)flags;
    return made.no_library ? NULL : &made;
}
void *made_dlsym(void *lib, const char *name)
{
#define FN(f) (void *)(uintptr_t)f
    const struct { const char *name; void *f; } all[] = {
        { "ncclGetVersion", FN(version) }, { "ncclGetUniqueId", FN(unique_id) },
        { "ncclCommInitRankConfig", FN(init) }, { "ncclCommGetAsyncError", FN(async_error) },
        { "ncclCommAbort", FN(stop) }, { "ncclGetErrorString", FN(error_string) },
        { "ncclGetLastError", FN(last_error) }, { "ncclAllReduce", FN(all_reduce) },
        { "ncclReduceScatter", FN(reduce_scatter) }, { "ncclAllGather", FN(all_gather) },
        { "ncclSend", FN(send_to) }, { "ncclRecv", FN(receive_from) },
        { "ncclGroupStart", FN(begin_calls) }, { "ncclGroupEnd", FN(end_calls) },
    };

    assert_ptr_equal(lib, &made);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(name, all[i].name) == 0)
            return all[i].f;
    return NULL;
}
int made_dlclose(void *lib) { return (void)lib, 0; }

/* ---- the other ranks: as this one, but where made says otherwise ---- */

static int gather(struct group *g, const void *mine, void *all, size_t nbytes, struct err *e)
{
    (void)e;
    for (int r = 0; r < g->size; r++) {
        unsigned char *its = (unsigned char *)all + (size_t)r * nbytes;
        memcpy(its, mine, nbytes);
        if (r == g->rank)
            continue;
        its[0] = made.shared ? its[0] : (unsigned char)(100 + r); /* of its card's number */
        if (made.other_version >= 0)
            memcpy(its + nbytes - sizeof(int), &made.other_version, sizeof(int));
    }
    return 0;
}
static int broadcast(struct group *g, int root, void *x, size_t nbytes, struct err *e)
{
    struct { int status; struct nccl_id id; } first = { made.id, { { 7 } } };

    (void)e;
    assert_true(root == 0 && nbytes == sizeof first);
    if (g->rank != 0)
        memcpy(x, &first, nbytes);
    return 0;
}
static int check(struct group *g, struct err *e)
{
    (void)g;
    return made.dies_s > 0 && now_s() - made.start_s > made.dies_s
               ? err_set(e, E_DEVICE, "rank 2 on b is gone") : 0;
}

static int set_up(void **state)
{
    (void)state;
    unsetenv("LONGLORA_NCCL");
    unsetenv("NCCL_NVLS_ENABLE");
    unsetenv("NCCL_ALGO");
    memset(&made, 0, sizeof made);
    made.version = 22809, made.other_version = -1, made.start_s = now_s();
    group = (struct group){ .rank = 1, .size = 3, .host = "a", .gather = gather,
                            .broadcast = broadcast, .check = check };
    cuda = (struct cuda){ .group = &group, .used_before = 24 };
    dev = (struct device){ .state = &cuda, .group = &group, .sync = sync_all };
    return 0;
}
static int tear_down(void **state)
{
    (void)state;
    links_close(&cuda);
    return 0;
}

static void link_all(void)
{
    struct err e = { 0 };

    if (cuda_link(&dev, &e) < 0)
        fail_msg("%s", e.msg);
    assert_non_null(dev.links);
    made.reduced = made.parts = made.gathered = 0;
    group.sent = group.received = 0;
}

/* Warmed before memory is counted; a ring's bytes are counted by group_part's equal parts. */
static void test_what_travels(void **state)
{
    static float x[30];

    (void)state;
    assert_int_equal(cuda_link(&dev, NULL), 0);
    assert_true(made.reduced == 1 && made.parts == 1 && made.gathered == 1);
    assert_int_equal(dev.held_bytes, 1024);
    assert_non_null(strstr(dev.detail, "NCCL 2.28.9"));
    assert_string_equal(getenv("NCCL_NVLS_ENABLE"), "0");
    assert_null(getenv("NCCL_ALGO"));
    assert_int_equal(cuda_link(&dev, NULL), 0); /* nothing again */
    link_all();
    assert_int_equal(dev.links->sum(&dev, x, 30), 0);
    assert_true(made.reduced == 1 && made.n == 30);
    assert_int_equal(group.sent, 2 * 20 * 4);
    assert_int_equal(dev.links->sum_parts(&dev, x, 30), 0);
    assert_true(made.parts == 1 && made.n == 10);
    assert_int_equal(dev.links->share_parts(&dev, x, 30), 0);
    assert_true(made.gathered == 1 && made.n == 10);
    assert_int_equal(group.sent, 4 * 20 * 4);
    assert_int_equal(group.received, group.sent);
    assert_int_equal(dev.sync(&dev, NULL), 0);
}

/* Each to whom it is meant for, nothing where there is nothing, in one call. */
static void test_moves_between_some(void **state)
{
    static char x[64];
    const struct device_move m[] = { { 0, x, NULL, 24, 0 }, { 2, x + 24, x + 32, 8, 16 } };
    const struct device_move own = { group.rank, x, x + 40, 8, 8 };

    (void)state;
    assert_int_equal(cuda_link(&dev, NULL), 0);
    assert_int_equal(made.moves, 4); /* warmed, with both others */
    made.moves = 0, group.sent = group.received = 0;
    assert_int_equal(dev.links->move(&dev, m, 2), 0);
    assert_int_equal(made.moves, 3);
    assert_true(made.move[0].out == x && made.move[0].n == 24 && made.move[0].rank == 0);
    assert_true(made.move[1].out == x + 24 && made.move[1].n == 8 && made.move[1].rank == 2);
    assert_true(made.move[2].in == x + 32 && made.move[2].n == 16 && made.move[2].rank == 2);
    assert_true(group.sent == 32 && group.received == 16 && made.open == 0);
    made.moves = 0, x[0] = 7;
    assert_int_equal(dev.links->move(&dev, &own, 1), 0); /* nothing of it travels */
    assert_true(made.moves == 0 && x[40] == 7 && group.sent == 32 && group.received == 16);
    made.bad_move = 6;
    assert_int_equal(dev.links->move(&dev, m, 2), E_DEVICE);
    assert_true(made.aborted == 1 && made.open == 0);
    assert_int_equal(dev.links->move(&dev, m, 2), E_DEVICE);
    cuda.fault.code = 0;
}

static void test_the_users_settings_stay(void **state)
{
    (void)state;
    setenv("NCCL_NVLS_ENABLE", "1", 1);
    cuda.deterministic = true;
    link_all();
    assert_string_equal(getenv("NCCL_NVLS_ENABLE"), "1");
    assert_string_equal(getenv("NCCL_ALGO"), "Ring");
}

/* No links, for which there is a word, and no failure: the host's memory serves. */
static void test_who_cannot_be_linked(void **state)
{
    static const char *const word[] = { "share one GPU", "no NCCL", "rank 1 has NCCL 22809, rank 0 NCCL 22703",
                                        "2.14 or later", "LONGLORA_NCCL is none" };

    for (int i = 0; i < 5; i++) {
        struct err e = { 0 };

        set_up(state);
        made.shared = i == 0, made.no_library = i == 1;
        made.other_version = i == 2 ? 22703 : -1;
        made.version = i == 3 ? 21000 : made.version;
        if (i == 4)
            setenv("LONGLORA_NCCL", "none", 1);
        assert_int_equal(cuda_link(&dev, &e), 0);
        assert_null(dev.links);
        if (!strstr(cuda.notes, word[i]))
            fail_msg("%d: '%s'", i, cuda.notes);
        links_close(&cuda);
    }
}

/* NCCL's kernel waits for a rank that died: the group knows it a moment later. */
static void test_a_rank_that_died_ends_the_wait(void **state)
{
    static float x[30];
    struct err e = { 0 };
    double start, calm = calm_s();

    (void)state;
    link_all();
    made.never = true, made.start_s = start = now_s(), made.dies_s = 0.2;
    assert_int_equal(dev.links->sum(&dev, x, 30), 0);
    assert_int_equal(dev.sync(&dev, &e), E_DEVICE);
    assert_non_null(strstr(e.msg, "rank 2 on b is gone"));
    assert_true(now_s() - start >= 0.2 && calm_s() - calm < 2);
    assert_int_equal(made.aborted, 1);
    assert_false(links_stuck(&cuda));
    assert_int_equal(dev.links->sum(&dev, x, 30), E_DEVICE); /* and no more of them */
    assert_int_equal(dev.sync(&dev, &e), E_DEVICE);
    assert_non_null(strstr(e.msg, "closed after a failure"));
}

/* NCCL ends the kernel itself when its neighbour is gone: the work is over, and was not done. */
static void test_work_that_a_death_ended_is_no_work(void **state)
{
    static float x[30];
    struct err e = { 0 };

    (void)state;
    link_all();
    assert_int_equal(dev.links->sum(&dev, x, 30), 0);
    made.start_s = now_s() - 1, made.dies_s = 0.5;
    assert_int_equal(dev.sync(&dev, &e), E_DEVICE);
    assert_non_null(strstr(e.msg, "rank 2 on b is gone"));
}

/* A failure that all have met: what this rank has queued the one that failed may not have. */
static void test_a_group_that_is_over_ends_the_wait(void **state)
{
    static float x[30];
    struct err e = { 0 };

    (void)state;
    link_all();
    made.never = true;
    assert_int_equal(dev.links->sum_parts(&dev, x, 30), 0);
    group.over = E_DATA;
    assert_int_equal(dev.sync(&dev, &e), E_DEVICE);
    assert_non_null(strstr(e.msg, "have parted"));
    assert_int_equal(made.aborted, 1);
}

static void test_a_failure_of_nccl_ends_the_wait(void **state)
{
    static float x[30];
    struct err e = { 0 };

    (void)state;
    link_all();
    assert_int_equal(dev.links->sum(&dev, x, 30), 0);
    made.never = true, made.async = 6;
    assert_int_equal(dev.sync(&dev, &e), E_DEVICE);
    assert_non_null(strstr(e.msg, "remote: no more to say"));
    assert_int_equal(made.aborted, 1);
}

/* An abort that does not end them: the wait ends all the same, and nothing is freed. */
static void test_a_gpu_that_does_not_stop_is_left(void **state)
{
    static float x[30];
    struct err e = { 0 };
    double start = now_s(), calm = calm_s();

    (void)state;
    link_all();
    made.never = made.no_stop = true, made.dies_s = 1e-3;
    assert_int_equal(dev.links->sum(&dev, x, 30), 0);
    assert_int_equal(dev.sync(&dev, &e), E_DEVICE);
    assert_non_null(strstr(e.msg, "rank 2 on b is gone"));
    assert_true(links_stuck(&cuda));
    assert_true(now_s() - start > 4 && calm_s() - calm < 8);
    calm = calm_s();
    dev.sync(&dev, &e);
    assert_true(calm_s() - calm < 1);
}

static void test_a_rank_that_dies_while_all_connect(void **state)
{
    struct err e = { 0 };

    (void)state;
    made.connecting = true, made.dies_s = 0.1;
    assert_int_equal(cuda_link(&dev, &e), E_DEVICE);
    assert_non_null(strstr(e.msg, "rank 2 on b is gone"));
    assert_non_null(strstr(e.msg, "NCCL_DEBUG=WARN"));
    assert_null(dev.links);
}

static void test_rank_0_that_cannot_start_is_told_to_all(void **state)
{
    struct err e = { 0 };

    (void)state;
    made.id = 2;
    assert_int_equal(cuda_link(&dev, &e), E_DEVICE);
    assert_non_null(strstr(e.msg, "cannot start on rank 0"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_what_travels), TEST(test_moves_between_some), TEST(test_the_users_settings_stay), TEST(test_who_cannot_be_linked),
        TEST(test_a_rank_that_died_ends_the_wait), TEST(test_work_that_a_death_ended_is_no_work), TEST(test_a_group_that_is_over_ends_the_wait), TEST(test_a_failure_of_nccl_ends_the_wait),
        TEST(test_a_gpu_that_does_not_stop_is_left), TEST(test_a_rank_that_dies_while_all_connect),
        TEST(test_rank_0_that_cannot_start_is_told_to_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
