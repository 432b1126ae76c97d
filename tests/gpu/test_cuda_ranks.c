/* tests/gpu/test_cuda_ranks.c - ranks with a GPU each: sums by NCCL, the same losses, a rank that
 * is killed. Two processes on two GPUs; where there is one GPU, what two ranks on it do.
 * LONGLORA_GPU_SMALL=1: short arrays and two steps, for compute-sanitizer. LONGLORA_IMITATED=1: on imitated GPUs
 * (tests/imitate), which compute in float32: a smaller model, held to more digits. */
#include "base/bytes.h"
#include "base/file.h"
#include "base/log.h"
#include "base/perm.h"
#include "kernels/exchange.h"
#include "train/run.h"
#include "train/stop.h"

#include <errno.h>
#include <execinfo.h>
#include <math.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define NEED(n) do { (void)state; if (cards < (n)) skip(); } while (0)

/* ---- two processes and a socket between them are the group ---- */

static int pipe_of(const struct group *g) { return (int)(intptr_t)g->state; }

static int pair_check(struct group *g, struct err *e)
{
    struct pollfd p = { .fd = pipe_of(g), .events = POLLRDHUP };

    if (poll(&p, 1, 0) > 0 && p.revents & (POLLHUP | POLLRDHUP | POLLERR))
        return err_set(e, E_DEVICE, "rank %d is gone", 1 - g->rank);
    return 0;
}

static int all_of(struct group *g, bool out, void *p, size_t n, struct err *e)
{
    for (size_t at = 0; at < n;) {
        ssize_t k = out ? send(pipe_of(g), (char *)p + at, n - at, MSG_NOSIGNAL)
                        : recv(pipe_of(g), (char *)p + at, n - at, 0);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return err_set(e, E_DEVICE, "rank %d is gone", 1 - g->rank);
        at += (size_t)k;
    }
    *(out ? &g->sent : &g->received) += (int64_t)n;
    return 0;
}

/* Small enough pieces that both may send before either reads. */
static int swap(struct group *g, const void *mine, void *theirs, size_t n, struct err *e)
{
    int rc = 0;

    for (size_t at = 0, k; at < n && rc == 0; at += k) {
        k = n - at < 1 << 15 ? n - at : 1 << 15;
        if ((rc = all_of(g, true, (char *)(uintptr_t)mine + at, k, e)) == 0)
            rc = all_of(g, false, (char *)theirs + at, k, e);
    }
    return rc;
}

static int pair_gather(struct group *g, const void *mine, void *all, size_t n, struct err *e)
{
    memmove((char *)all + (size_t)g->rank * n, mine, n);
    return swap(g, (char *)all + (size_t)g->rank * n, (char *)all + (size_t)(1 - g->rank) * n, n, e);
}

static int pair_sum(struct group *g, float *x, int64_t n, struct err *e)
{
    float *y = malloc((size_t)n * sizeof *y);
    int rc = y ? swap(g, x, y, (size_t)n * sizeof *y, e) : err_set(e, E_SYS, "out of memory");

    for (int64_t i = 0; i < n && rc == 0; i++)
        x[i] = g->rank ? y[i] + x[i] : x[i] + y[i];
    free(y);
    return rc;
}

static int pair_broadcast(struct group *g, int root, void *x, size_t n, struct err *e)
{
    return all_of(g, g->rank == root, x, n, e);
}

static int pair_pass(struct group *g, int step, const void *out, size_t n_out, void *in, size_t n_in,
                     struct err *e)
{
    int rc = 0;

    (void)step; /* of two one sends and one receives */
    if (n_out)
        rc = all_of(g, true, (void *)(uintptr_t)out, n_out, e);
    return rc == 0 && n_in ? all_of(g, false, in, n_in, e) : rc;
}

static void pair_close(struct group *g) { close(pipe_of(g)); }

/* ---- what a rank does, and what it leaves in memory that all share ---- */

enum { STEPS = 8, BIG = 139 << 20 };
struct report {
    int rc, linked, steps, status; /* status: waitpid's */
    char detail[256], said[512];
    double loss[STEPS], sum_s, gone_s;
    int64_t sent;
    uint64_t bits;
};
static struct report *report; /* [3]: of ranks 0 and 1, of one alone */
static char dir[] = "/tmp/cuda_ranks.XXXXXX";
static int cards; /* 0, 1, or 2 and more */
static bool small, imitated; /* imitated: LONGLORA_IMITATED, the GPU is (tests/imitate) */
static int steps = STEPS;

typedef void rank_fn(struct group *g, struct report *r);

int stop_asked(void) { return 0; }
void stop_after_step(void) {}

/* A crash says where it was, and ends the process. */
static void crashed(int sig)
{
    void *at[40];

    signal(sig, SIG_DFL);
    backtrace_symbols_fd(at, backtrace(at, 40), STDERR_FILENO);
    raise(sig);
}

/* In a child, where cmocka's own handlers would go back into its loop and run the other tests. */
static void crash_for_real(void)
{
    static const int signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGSYS };

    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        signal(signals[i], crashed);
}

static int run_rank(rank_fn *f, int rank, int fd)
{
    struct group_note notes[2];
    struct group g = { .rank = rank, .size = 2, .host = "here", .notes = notes,
                       .state = (void *)(intptr_t)fd, .gather = pair_gather, .sum = pair_sum,
                       .broadcast = pair_broadcast, .close = pair_close, .check = pair_check,
                       .pass = pair_pass };

    crash_for_real();
    f(&g, &report[rank]);
    g.close(&g);
    return 0;
}

/* Seconds after which two ranks hang; compute-sanitizer is slow. */
static int limit_s(void) { return small ? 150 : 60; }

/* f as two ranks; the seconds until both had ended, -1: one did not within 'limit'. */
static double two(rank_fn *f, int limit)
{
    double start = now_s();
    int fd[2], left = 2;
    pid_t pid[2];

    memset(report, 0, 2 * sizeof *report);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    for (int k = 0; k < 2; k++) {
        fflush(NULL);
        assert_true((pid[k] = fork()) >= 0);
        if (pid[k] == 0) {
            close(fd[1 - k]);
            _exit(run_rank(f, k, fd[k]));
        }
    }
    close(fd[0]), close(fd[1]);
    while (left && now_s() - start < limit) {
        int how = 0;
        pid_t ended = waitpid(-1, &how, WNOHANG);

        for (int k = 0; k < 2; k++)
            if (ended > 0 && ended == pid[k]) /* 0: none has ended, and pid[k] of one that had */
                pid[k] = 0, left--, report[k].status = how;
        usleep(20000);
    }
    for (int k = 0; k < 2; k++)
        if (pid[k]) {
            kill(pid[k], SIGKILL);
            waitpid(pid[k], NULL, 0);
        }
    return left ? -1 : now_s() - start;
}

static int open_device(struct device *d, struct group *g, int index, struct report *r,
                       struct err *e)
{
    struct device_options o = { .name = "cuda", .index = index, .group = g };
    int rc = device_open(d, &o, e);

    if ((rc = group_link(d, rc, e)) < 0)
        snprintf(r->said, sizeof r->said, "%.500s", e->msg);
    else if (device_notes(d))
        snprintf(r->said, sizeof r->said, "see the notes");
    r->rc = rc;
    r->linked = rc == 0 && d->links;
    snprintf(r->detail, sizeof r->detail, "%s", d->detail);
    return rc;
}

static float value(int rank, int64_t i) { return (float)(normal_at((uint64_t)rank + 7, (uint64_t)i)); }

/* n values of each rank go through f; bad: how many came out otherwise than the sum in float. */
static int64_t try_sum(struct device *d, struct group *g, int64_t n, bool parts, struct err *e)
{
    float *x = malloc((size_t)n * sizeof *x);
    int64_t bad = 0, part = n / 2;
    void *p = NULL;

    for (int64_t i = 0; i < n; i++)
        x[i] = value(g->rank, i);
    if (d->alloc(d, (size_t)n * 4, &p, e) < 0 || d->to_device(d, p, x, (size_t)n * 4) < 0)
        return -1;
    if (parts && group_sum_parts(d, p, n, e) < 0)
        return -1;
    if (parts) { /* what is not this rank's must come from the other */
        int64_t other = (1 - g->rank) * part;
        d->zero(d, (char *)p + other * 4, (size_t)part * 4);
    }
    if ((parts ? group_share_parts : group_sum)(d, p, n, e) < 0)
        return -1;
    d->to_host(d, x, p, (size_t)n * 4);
    for (int64_t i = 0; i < n; i++)
        bad += x[i] != value(0, i) + value(1, i);
    d->release(d, p);
    free(x);
    return bad;
}

static void sums(struct group *g, struct report *r)
{
    static const int64_t sizes[] = { 2, 1000, 1 << 20, (1 << 22) + 6 };
    struct err e = { 0 };
    struct device d;

    if (open_device(&d, g, g->rank % cards, r, &e) < 0)
        return;
    for (int i = 0; i < 8 && r->rc == 0; i++) {
        int64_t sent = g->sent, n = sizes[i / 2] >> (small && i > 3 ? 5 : 0);
        int64_t bad = try_sum(&d, g, n, i % 2, &e);

        if (bad != 0)
            r->rc = -1, snprintf(r->said, sizeof r->said, "%lld values %s: %lld are wrong; %.300s",
                                 (long long)n, i % 2 ? "in parts" : "at once", (long long)bad,
                                 e.msg);
        /* a ring of two carries half an array each way, twice; and some notes */
        if (r->linked && g->sent - sent < n * 4)
            r->rc = -1, snprintf(r->said, sizeof r->said, "%lld bytes travelled of %lld",
                                 (long long)(g->sent - sent), (long long)n * 4);
    }
    d.close(&d);
}

/* How long a sum of LoRA+'s gradient of a 7B takes. */
static void speed(struct group *g, struct report *r)
{
    struct err e = { 0 };
    struct device d;
    void *p = NULL;

    if (open_device(&d, g, g->rank % cards, r, &e) < 0)
        return;
    if ((r->rc = d.alloc(&d, (size_t)BIG * 4, &p, &e)) == 0) {
        r->sum_s = 1e9;
        for (int i = 0; i < 6 && r->rc == 0; i++) {
            double start = now_s();
            r->rc = group_sum(&d, p, BIG, &e);
            r->sum_s = fmin(r->sum_s, now_s() - start);
        }
        d.release(&d, p);
    }
    snprintf(r->said, sizeof r->said, "%.500s", e.msg);
    d.close(&d);
}

/* Rank 1 dies while rank 0 waits on the GPU for it. */
static void dies(struct group *g, struct report *r)
{
    struct err e = { 0 };
    struct device d;
    void *p = NULL;
    double start;

    if (open_device(&d, g, g->rank % cards, r, &e) < 0)
        return;
    if (!r->linked || (r->rc = d.alloc(&d, 1 << 24, &p, &e)) < 0)
        return;
    if (g->rank == 1) {
        sleep(1);
        raise(SIGKILL);
    }
    start = now_s();
    if ((r->rc = group_queue_sum(&d, p, 1 << 20)) == 0)
        r->rc = group_wait_queued(&d, "add", &e);
    r->gone_s = now_s() - start - 1;
    snprintf(r->said, sizeof r->said, "%.500s", e.msg);
    d.close(&d);
}

/* ---- training ---- */

static struct {
    const char *out, *base, *cp;
    int64_t batch, group; /* group: of s2; 0: dense, where cp is given */
    bool deterministic, shares; /* shares: frozen weights lie over both */
} what;

static void put_numbers(struct report *r, const char *out)
{
    char path[160], line[4096];
    FILE *f;

    snprintf(path, sizeof path, "%s/metrics.jsonl", out);
    if (!(f = fopen(path, "r")))
        return;
    while (r->steps < STEPS && fgets(line, sizeof line, f)) {
        const char *p = strstr(line, "\"loss_hex\":\"");
        if (p) {
            r->loss[r->steps] = strtod(p + 12, NULL);
            memcpy(&r->bits, &r->loss[r->steps++], sizeof r->bits);
        }
    }
    fclose(f);
}

static void train(struct group *g, struct report *r)
{
    struct run run = { .group = g };
    struct settings s;
    struct err e = { 0 };
    bool done = false;
    char *argv[] = { "ltrain" }, init[80], data[80];

    snprintf(init, sizeof init, "%s/c.json", dir);
    snprintf(data, sizeof data, "%s/d.bin", dir);
    settings_defaults(&s);
    s.machine.device = "cuda", s.machine.index = g->size > 1 ? g->rank % cards : 0;
    s.machine.deterministic = what.deterministic;
    s.init = what.base ? NULL : init, s.model = what.base, s.data = data, s.out = what.out;
    if (what.cp) { /* a sequence over both, or here as one process computes it */
        s.attention = what.group ? ATTN_S2 : ATTN_DENSE, s.group = what.group ? what.group : -1;
        s.cp_text = g->size > 1 ? what.cp : NULL;
    }
    s.shares = what.shares ? g->size : 1;
    s.batch = what.batch, s.micro = what.cp ? 1 : 2, s.steps = steps, s.lr = 1e-3, s.warmup = 2;
    s.contexts = (struct opt_counts){ .v = { 256 }, .n = 1 };
    r->rc = settings_contexts(&s, &e);
    if (r->rc == 0 && (r->rc = run_open(&run, &s, &e)) == 0)
        run.open.plan.chunk = run.session.options.chunk = 1; /* of the gradient: each layer */
    if (r->rc == 0 && (r->rc = run_begin(&run, &done, &e)) == 0)
        r->rc = run_train(&run, 1, argv, &e);
    r->linked = run.session.device.links != NULL;
    r->sent = g->sent;
    snprintf(r->detail, sizeof r->detail, "%s", run.session.device.detail);
    snprintf(r->said, sizeof r->said, "%.500s", e.msg);
    run_close(&run);
    put_numbers(r, what.out);
}

/* A child's, lest this process holds a GPU when it forks. */
static void alone(void)
{
    pid_t pid;

    memset(&report[2], 0, sizeof report[2]);
    fflush(NULL);
    if ((pid = fork()) == 0) {
        crash_for_real();
        train(group_alone(), &report[2]);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    assert_int_equal(report[2].rc, 0);
}

static void good(void)
{
    for (int k = 0; k < 2; k++)
        if (report[k].rc != 0 || report[k].status != 0)
            fail_msg("rank %d: %d, status %x, %s (%s)", k, report[k].rc, report[k].status,
                     report[k].said, report[k].detail);
}

static void test_sums_are_the_ranks(void **state)
{
    NEED(1);
    assert_true(two(sums, limit_s()) > 0);
    good();
    print_message("# %s: links %d\n", report[0].detail, report[0].linked);
    assert_int_equal(report[0].linked, cards > 1);
    if (cards == 1) /* NCCL refuses two ranks on one GPU: the host's memory serves, with a word */
        assert_true(*report[0].said);
}

static void test_a_sum_is_fast(void **state)
{
    NEED(2);
    if (small)
        skip();
    assert_true(two(speed, limit_s()) > 0);
    good();
    print_message("# a sum of %d MB takes %.2f ms: %.0f GB/s each way\n", BIG / 250000,
                  1e3 * report[0].sum_s, 4e-9 * BIG / report[0].sum_s);
    assert_true(report[0].sum_s < 0.2);
}

static void test_a_rank_that_dies_ends_the_wait(void **state)
{
    NEED(2);
    assert_true(two(dies, 60) > 0);
    print_message("# %.2f s after it died: %s (links %d, %s)\n", report[0].gone_s, report[0].said,
                  report[0].linked, report[0].detail);
    assert_int_equal(WTERMSIG(report[1].status), SIGKILL);
    assert_int_equal(report[0].status, 0);
    assert_int_equal(report[0].rc, E_DEVICE);
    assert_true(report[0].gone_s < 5);
    assert_non_null(strstr(report[0].said, "rank 1 is gone"));
}

static void near(const char *name)
{
    double most = imitated ? 2e-6 : 2e-3; /* bfloat16 leaves a little */

    for (int i = 0; i < steps; i++) {
        print_message("# %s step %d: %.6f alone, %.6f two\n", name, i + 1, report[2].loss[i],
                      report[0].loss[i]);
        if (!(fabs(report[2].loss[i] - report[0].loss[i]) <= most * report[2].loss[i]))
            fail_msg("%s: losses differ at step %d", name, i + 1);
    }
}

static const char *at(const char *name)
{
    static char path[8][96];
    static int n;

    n = (n + 1) % 8;
    snprintf(path[n], sizeof path[n], "%s/%s", dir, name);
    return path[n];
}

/* Full training and LoRA+, batches that two share unevenly too. */
static void test_two_ranks_train_as_one(void **state)
{
    static const struct { const char *one, *two; bool lora; int64_t batch; } tried[] = {
        { "full1", "full2", false, 8 }, { "odd1", "odd2", false, 5 }, { "plus1", "plus2", true, 8 },
    };

    NEED(1);
    for (int i = 0; i < (small ? 1 : 3); i++) {
        what.batch = tried[i].batch, what.base = tried[i].lora ? at("full1") : NULL;
        what.deterministic = false;
        what.out = at(tried[i].one);
        alone();
        what.out = at(tried[i].two);
        assert_true(two(train, limit_s()) > 0);
        good();
        assert_int_equal(report[0].steps, steps);
        near(tried[i].two);
        assert_true(report[0].sent > steps * 500000); /* the gradients' bytes */
    }
}

/* S2-Attn whose groups end at the border, lie over it, half or by a few rows, or reach further than a
 * part; dense; each with the heads' halo or turned. */
static void test_a_sequence_over_two_ranks(void **state)
{
    static const struct { const char *one, *two; bool lora; int64_t group; } tried[] = {
        { "cp_a1", "cp_a2", false, 64 }, { "cp_b1", "cp_b2", true, 100 },
        { "cp_c1", "cp_c2", false, 37 }, { "cp_d1", "cp_d2", false, 200 },
        { "cp_e1", "cp_e2", true, 0 },
    };

    NEED(1);
    for (size_t i = 0; i < sizeof tried / sizeof *tried; i++) {
        what.batch = 3, what.base = tried[i].lora ? at("cp_a1") : NULL;
        what.deterministic = false, what.cp = "2", what.group = tried[i].group;
        what.out = at(tried[i].one);
        alone();
        what.out = at(tried[i].two);
        assert_true(two(train, limit_s()) > 0);
        good();
        assert_int_equal(report[0].steps, steps);
        near(tried[i].two);
    }
    what.cp = NULL;
}

/* Each holds half of every layer's frozen matrices: of plain rows, and of parts of a sequence. */
static void test_frozen_weights_over_two_ranks(void **state)
{
    NEED(1);
    for (int parts = 0; parts < 2; parts++) {
        what.batch = 4, what.base = at("cp_a1"), what.deterministic = false, what.shares = true;
        what.cp = parts ? "2" : NULL, what.group = 64;
        what.out = at(parts ? "sh_b1" : "sh_a1");
        alone();
        what.out = at(parts ? "sh_b2" : "sh_a2");
        assert_true(two(train, limit_s()) > 0);
        good();
        near(what.out);
    }
    what.shares = false, what.cp = NULL;
}

static void test_a_sequence_repeats_its_bits(void **state)
{
    double was[STEPS];

    NEED(1);
    for (int dense = 0; dense < 2; dense++) {
        what.batch = 2, what.base = NULL, what.deterministic = true, what.cp = "2";
        what.group = dense ? 0 : 100;
        what.out = at(dense ? "cpd_a" : "cps_a");
        assert_true(two(train, limit_s()) > 0);
        good();
        memcpy(was, report[0].loss, sizeof was);
        what.out = at(dense ? "cpd_b" : "cps_b");
        assert_true(two(train, limit_s()) > 0);
        good();
        assert_memory_equal(was, report[0].loss, sizeof was);
    }
    what.cp = NULL;
}

static void test_deterministic_ranks_repeat_their_bits(void **state)
{
    double was[STEPS];

    NEED(1);
    if (small)
        skip();
    what.batch = 8, what.base = NULL, what.deterministic = true;
    what.out = at("det1");
    assert_true(two(train, limit_s()) > 0);
    good();
    memcpy(was, report[0].loss, sizeof was);
    what.out = at("det2");
    assert_true(two(train, limit_s()) > 0);
    good();
    assert_memory_equal(was, report[0].loss, sizeof was);
}

static const char config[] =
    "{ \"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"vocab_size\": 512,\n"
    "\"hidden_size\": %d, \"intermediate_size\": %d, \"num_hidden_layers\": 3,\n"
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"max_position_embeddings\": 256,\n"
    "\"rms_norm_eps\": 1e-05, \"rope_theta\": 10000.0, \"hidden_act\": \"silu\",\n"
    "\"initializer_range\": 0.02, \"tie_word_embeddings\": false, \"bos_token_id\": 1,\n"
    "\"eos_token_id\": 2 }\n";

/* How many GPUs, asked by a child: this process must not touch them before it forks. */
static int count_cards(void)
{
    pid_t pid = fork();
    int status = 0;

    if (pid == 0) {
        struct err e = { 0 };
        struct device d;
        int n = 0;

        while (n < 2 && device_open(&d, &(struct device_options){ .name = "cuda", .index = n }, &e) == 0) {
            d.close(&d);
            n++;
        }
        if (n == 0)
            fprintf(stderr, "# no GPU, skipped: %s\n", e.msg);
        _exit(n);
    }
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 0;
}

static int set_up(void **state)
{
    static unsigned char bytes[2 * 60000];
    struct err e = { 0 };
    char text[1024];

    (void)state;
    log_init("test_cuda_ranks", -2);
    small = getenv("LONGLORA_GPU_SMALL") != NULL, imitated = getenv("LONGLORA_IMITATED") != NULL;
    snprintf(text, sizeof text, config, imitated ? 64 : 256, imitated ? 96 : 640);
    steps = small ? 2 : STEPS;
    report = mmap(NULL, 3 * sizeof *report, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (report == MAP_FAILED || !mkdtemp(dir))
        return -1;
    for (int i = 0; i < 60000; i++) /* each id tells the next */
        put_le(bytes + 2 * i, (uint64_t)(3 + (i * 7 + (int)(mix64((uint64_t)i) % 3)) % 500), 2);
    if (file_replace(at("d.bin"), bytes, sizeof bytes, &e) < 0 ||
        file_replace(at("c.json"), text, strlen(text), &e) < 0)
        return -1;
    cards = count_cards();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return dir_remove(dir, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums_are_the_ranks),
        cmocka_unit_test(test_a_sum_is_fast),
        cmocka_unit_test(test_a_rank_that_dies_ends_the_wait),
        cmocka_unit_test(test_two_ranks_train_as_one),
        cmocka_unit_test(test_deterministic_ranks_repeat_their_bits),
        cmocka_unit_test(test_a_sequence_over_two_ranks),
        cmocka_unit_test(test_frozen_weights_over_two_ranks),
        cmocka_unit_test(test_a_sequence_repeats_its_bits),
    };

    signal(SIGPIPE, SIG_IGN); /* as ltrain does */
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
