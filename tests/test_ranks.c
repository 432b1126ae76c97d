/* tests/test_ranks.c - a run of several ranks: the same losses, one writer, none left waiting. */
#include "base/log.h"
#include "base/ranks.h"
#include "eval/ppl.h"
#include "train/run.h"
#include "train/stop.h"

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/rankstest.h"
#include "tests/traintest.h"

enum { STEPS = 6 };

/* What goes wrong on a rank: at which call of an op, from 1; 0: never. */
struct fault {
    int fail_loss, nan_loss, fail_squares, stop; /* stop: at that question of the loop */
    const char *data;              /* instead of the common one */
    const char *metrics;
    bool leave;                    /* after opening, without a word */
    bool mix;                      /* of dense and sparse steps */
    bool own_memory;               /* the device's memory is taken not to be the host's */
};
struct one {
    struct settings s;
    struct fault fault;
    int rc, end; /* of run_open, of all */
    struct err e;
    struct progress p;
    double loss;
    float *w; /* trained values at the end, and their number */
    int64_t n;
};

static _Thread_local struct fault *now;
static _Thread_local int losses, squares, questions;

/* In place of train/stop.c: a signal that comes to one rank alone. */
int stop_asked(void) { return now && ++questions == now->stop ? SIGTERM : 0; }
void stop_after_step(void) {}

static _Thread_local int (*real_loss)(struct device *d, const struct op_loss *a);
static int faulty_loss(struct device *d, const struct op_loss *a)
{
    int rc = real_loss(d, a);

    losses++;
    if (now->nan_loss && losses == now->nan_loss)
        a->nll[0] = NAN;
    return now->fail_loss && losses == now->fail_loss ? E_DEVICE : rc;
}

static _Thread_local int (*real_squares)(struct device *d, const struct op_sum_squares *a);
static int faulty_squares(struct device *d, const struct op_sum_squares *a)
{
    return ++squares == now->fail_squares ? E_DEVICE : real_squares(d, a);
}

static void run_rank(struct group *g, void *arg)
{
    struct one *o = arg;
    struct run r = { .group = g };
    bool done = false;
    char *argv[] = { "ltrain" };

    now = &o->fault, losses = squares = questions = 0;
    o->end = o->rc = run_open(&r, &o->s, &o->e);
    if (o->rc == 0 && !o->fault.leave) {
        if (o->fault.fail_loss || o->fault.nan_loss) {
            real_loss = r.session.device.loss;
            r.session.device.loss = faulty_loss;
        }
        r.session.device.own_memory = o->fault.own_memory;
        if (o->fault.fail_squares) {
            real_squares = r.session.device.sum_squares;
            r.session.device.sum_squares = faulty_squares;
        }
        if ((o->end = run_begin(&r, &done, &o->e)) == 0 && !done)
            o->end = run_train(&r, 1, argv, &o->e);
        o->p = r.p, o->loss = r.last_loss;
        if (r.t.m) {
            const struct trained *t = model_trained(r.t.m);
            o->n = t->n;
            o->w = malloc((size_t)t->n * sizeof *o->w);
            memcpy(o->w, t->w, (size_t)t->n * sizeof *o->w);
        }
    }
    run_close(&r);
    now = NULL;
}

/* A run of the name OUT on so many ranks; only rank 0 is told where OUT is unless all are. */
static struct one *train(int size, const char *out, bool shared, int64_t batch,
                         const struct fault *fault)
{
    static struct one one[RANKS_MAX];
    static char at[RANKS_MAX][80];

    memset(one, 0, sizeof one);
    for (int k = 0; k < size; k++) {
        struct settings *s = &one[k].s;

        snprintf(at[k], sizeof at[k], k && !shared ? "%s/%s-%d" : "%s/%s", dir, out, k);
        settings_defaults(s);
        s->machine.device = "cpu", s->machine.threads = 1, s->init = "tests/data/tiny-config.json";
        s->ctx = CTX, s->batch = batch, s->micro = 2, s->steps = STEPS, s->lr = 1e-3;
        s->warmup = 1, s->save_every = 2, s->val_every = 3, s->val_rows = 5, s->out = at[k];
        if (fault)
            one[k].fault = fault[k];
        s->data = s->val = one[k].fault.data ? one[k].fault.data : raw;
        s->metrics = one[k].fault.metrics;
        if (one[k].fault.mix) /* steps 2, 4, 6 are dense, and 5 */
            s->attention = ATTN_S2, s->dense_every = 2, s->dense_last = 0.3;
    }
    if (size == 1)
        run_rank(group_alone(), one);
    else
        made_ranks(size, run_rank, one, sizeof *one);
    return one;
}

static void forget(struct one *one, int size)
{
    for (int k = 0; k < size; k++)
        free(one[k].w);
}

/* Losses, gradient norms and held-out losses of OUT/metrics.jsonl. */
static int numbers(const char *out, double *v, int most)
{
    static const char *const keys[] = { "\"loss\":", "\"grad_norm\":", "\"val_loss\":" };
    char path[128], line[4096];
    FILE *f;
    int n = 0;

    snprintf(path, sizeof path, "%s/%s/metrics.jsonl", dir, out);
    assert_non_null(f = fopen(path, "r"));
    while (fgets(line, sizeof line, f))
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
            const char *p = strstr(line, keys[k]);
            if (p && n < most)
                v[n++] = strtod(p + strlen(keys[k]), NULL);
        }
    fclose(f);
    return n;
}

static void assert_same_numbers(const char *a, const char *b)
{
    double va[64], vb[64];
    int n = numbers(a, va, 64);

    assert_int_equal(n, 2 * STEPS + 2);
    assert_int_equal(numbers(b, vb, 64), n);
    for (int i = 0; i < n; i++)
        if (fabs(va[i] - vb[i]) > 1e-6 * fabs(va[i]))
            fail_msg("%s and %s differ: %.9g, %.9g", a, b, va[i], vb[i]);
}

static void assert_all(struct one *one, int size, int code)
{
    for (int k = 0; k < size; k++) {
        if (one[k].end != code)
            fail_msg("rank %d ends with %d, not %d: %s", k, one[k].end, code, one[k].e.msg);
        if (code == 0) {
            assert_int_equal(one[k].n, one[0].n);
            assert_memory_equal(one[k].w, one[0].w, (size_t)one[0].n * sizeof(float));
        }
    }
}

static bool is_there(const char *out, const char *name)
{
    char path[160];

    snprintf(path, sizeof path, "%s/%s/%s", dir, out, name);
    return path_exists(path);
}

/* Also with a batch that three cannot share evenly, and one that is smaller than the group. */
static void test_ranks_train_as_one_does_and_one_writes(void **state)
{
    static const struct { int size; int64_t batch; } tried[] = { { 2, 8 }, { 3, 8 }, { 2, 7 },
                                                                  { 3, 2 }, { 4, 8 } };
    struct one *one;
    char a[16], b[16], other[32];

    (void)state;
    for (size_t i = 0; i < sizeof tried / sizeof *tried; i++) {
        snprintf(a, sizeof a, "alone%zu", i);
        snprintf(b, sizeof b, "ranks%zu", i);
        one = train(1, a, true, tried[i].batch, NULL);
        assert_all(one, 1, 0);
        forget(one, 1);
        one = train(tried[i].size, b, false, tried[i].batch, NULL);
        assert_all(one, tried[i].size, 0);
        assert_same_numbers(a, b);
        assert_int_equal(made.sums, STEPS);
        assert_true(made.bytes > STEPS * tried[i].size * one->n * 4); /* gradients travelled */
        assert_true(is_there(b, "model.safetensors") && is_there(b, "summary.json"));
        for (int k = 1; k < tried[i].size; k++) {
            snprintf(other, sizeof other, "%s-%d", b, k);
            assert_false(is_there(other, "."));
        }
        forget(one, tried[i].size);
    }
}

/* A step is dense by its number: whoever computes it, and after a stop the same. */
static void test_ranks_mix_dense_steps_as_one_does(void **state)
{
    const struct fault mix[3] = { { .mix = true }, { .mix = true }, { .mix = true } };
    const struct fault stop[2] = { { .mix = true }, { .mix = true, .stop = 4 } };
    struct one *one = train(1, "mixed", true, 8, mix);
    char path[128], line[4096];
    int dense = 0;
    FILE *f;

    (void)state;
    assert_all(one, 1, 0);
    forget(one, 1);
    one = train(3, "mixed3", false, 8, mix);
    assert_all(one, 3, 0);
    assert_same_numbers("mixed", "mixed3");
    forget(one, 3);
    one = train(2, "mixed2", true, 8, stop);
    assert_all(one, 2, E_AGAIN);
    forget(one, 2);
    one = train(1, "mixed2", true, 8, mix);
    assert_all(one, 1, 0);
    assert_same_numbers("mixed", "mixed2");
    forget(one, 1);
    snprintf(path, sizeof path, "%s/mixed2/metrics.jsonl", dir);
    assert_non_null(f = fopen(path, "r"));
    for (int k = 1; fgets(line, sizeof line, f); k++) {
        bool is = strstr(line, "\"attention\":\"dense\"");

        assert_int_equal(is, k % 2 == 0 || k == 5);
        dense += is;
    }
    fclose(f);
    assert_int_equal(dense, 4);
}

/* Where the gradients are on a GPU they come by way of the host's memory, a piece at a time. */
static void test_memory_of_a_device_is_summed_too(void **state)
{
    const struct fault own[2] = { { .own_memory = true }, { .own_memory = true } };
    struct one *one = train(2, "own", false, 8, own);

    (void)state;
    assert_all(one, 2, 0);
    assert_same_numbers("alone0", "own");
    assert_int_equal(made.sums, STEPS * ((one->n + (1 << 14) - 1) >> 14));
    forget(one, 2);
}

static void test_a_failure_on_one_rank_ends_all(void **state)
{
    static const struct {
        const char *name;
        struct fault fault[2];
        int code;
        const char *said[2];
    } tried[] = {
        { "nodata", { { 0 }, { .data = "/nonexistent" } }, E_NOINPUT,
          { "rank 1 on b: ", "/nonexistent" } },
        { "opfails1", { { 0 }, { .fail_loss = 5 } }, E_DEVICE,
          { "rank 1 on b: ", "operation failed" } },
        { "opfails0", { { .fail_loss = 6 }, { 0 } }, E_DEVICE,
          { "operation failed", "rank 0 on a: " } },
        { "inval", { { 0 }, { .fail_loss = 7 } }, E_DEVICE, { "rank 1 on b: ", "" } },
        /* After the gradients are added, in a step behind which all but this rank validate. */
        { "norm", { { 0 }, { .fail_squares = 6 } }, E_DEVICE, { "rank 1 on b: ", "sum the" } },
        { "save", { { 0 }, { .fail_squares = 4 } }, E_DEVICE, { "rank 1 on b: ", "moments" } },
        { "full", { { .metrics = "/dev/full" }, { 0 } }, E_IO,
          { "/dev/full", "rank 0 cannot write its metrics" } },
        { "both", { { .fail_loss = 2 }, { .fail_loss = 2 } }, E_DEVICE,
          { "a device operation failed", "a device operation failed" } },
    };

    (void)state;
    for (size_t i = 0; i < sizeof tried / sizeof *tried; i++) {
        struct one *one = train(2, tried[i].name, false, 8, tried[i].fault);

        assert_all(one, 2, tried[i].code);
        for (int k = 0; k < 2; k++)
            if (!strstr(one[k].e.msg, tried[i].said[k]))
                fail_msg("%s, rank %d: '%s'", tried[i].name, k, one[k].e.msg);
        assert_int_equal(made.failed, 0); /* nobody called what another did not come to */
        forget(one, 2);
    }
}

/* A rank that ends without a word: the others fail, and do not wait. */
static void test_a_rank_that_leaves_is_noticed(void **state)
{
    const struct fault fault[3] = { { 0 }, { .leave = true }, { 0 } };
    struct one *one = train(3, "left", false, 8, fault);

    (void)state;
    assert_int_equal(one[0].end, E_DEVICE);
    assert_int_equal(one[2].end, E_DEVICE);
    assert_non_null(strstr(one[0].e.msg, "a rank has left"));
    forget(one, 3);
}

static void test_what_is_not_finite_on_one_rank_is_skipped_on_all(void **state)
{
    const struct fault fault[2] = { { 0 }, { .nan_loss = 3 } }; /* of step 2: 2 a step */
    struct one *one = train(2, "nan", false, 8, fault);

    (void)state;
    assert_all(one, 2, 0);
    for (int k = 0; k < 2; k++) {
        assert_int_equal(one[k].p.skipped, 1);
        assert_int_equal(one[k].p.updates, STEPS - 1);
    }
    forget(one, 2);
}

/* Asked before step 4, on the last rank alone; then on as three ranks, and as one. */
static void test_a_stop_on_one_rank_stops_all_and_others_go_on(void **state)
{
    const struct fault fault[2] = { { 0 }, { .stop = 4 } };
    struct one *one = train(1, "whole", true, 8, NULL);

    (void)state;
    forget(one, 1);
    for (int size = 1; size <= 3; size += 2) {
        char out[16];

        snprintf(out, sizeof out, "stopped%d", size);
        one = train(2, out, true, 8, fault);
        assert_all(one, 2, E_AGAIN);
        assert_int_equal(one[0].p.step, 3);
        assert_int_equal(one[1].p.step, 3);
        assert_non_null(strstr(one[0].e.msg, "SIGTERM after step 3"));
        assert_true(is_there(out, "checkpoints/step-00000003"));
        forget(one, 2);
        one = train(size, out, true, 8, NULL);
        assert_all(one, size, 0);
        assert_same_numbers("whole", out);
        forget(one, size);
    }
}

static void test_ranks_that_see_other_folders_do_not_go_on(void **state)
{
    const struct fault fault[2] = { { .stop = 3 }, { 0 } };
    struct one *one = train(2, "apart", false, 8, fault);

    (void)state;
    assert_all(one, 2, E_AGAIN);
    forget(one, 2);
    one = train(2, "apart", false, 8, NULL); /* rank 1 has an empty folder of its own */
    assert_all(one, 2, E_CONFIG);
    assert_non_null(strstr(one[1].e.msg, "holds step 0 here and 2 for rank 0"));
    forget(one, 2);
}

/* ---- evaluation ---- */

static char small[64]; /* ids of a vocabulary of 48 */

struct scored {
    struct eval_options o;
    struct ppl_options p;
    struct result r;
    struct err e;
    int rc;
};

static void score(struct scored *s)
{
    struct eval v = { .o = &s->o, .asked = &s->p };

    s->rc = eval_run(&task_ppl, &v, &s->e);
    if (s->rc == 0)
        s->r = *ppl_result(&v);
    eval_close(&task_ppl, &v);
}

static void score_rank(struct group *g, void *arg)
{
    struct scored *s = arg;

    s->o.machine.group = g;
    score(s);
}

/* Windows of several lengths, two at once, over 1 to 4 ranks: the same to the last digit. */
static void test_ranks_evaluate_as_one_does(void **state)
{
    static struct scored one, many[RANKS_MAX];

    (void)state;
    one.o = (struct eval_options){ .model = "tests/data/model/gqa", .shape = -1,
                                   .ctx = { .v = { 16, 24 }, .n = 2 }, .batch_tokens = 48,
                                   .machine = { .device = "cpu", .threads = 1 } };
    one.p = (struct ppl_options){ .data = { .path = small }, .protocol = PROTO_STRIDE, .step = 7 };
    score(&one);
    if (one.rc < 0)
        fail_msg("%s", one.e.msg);
    for (int size = 2; size <= RANKS_MAX; size++) {
        for (int k = 0; k < size; k++) {
            many[k] = (struct scored){ .o = one.o, .p = one.p };
        }
        made_ranks(size, score_rank, many, sizeof *many);
        for (int k = 0; k < size; k++) {
            if (many[k].rc < 0)
                fail_msg("rank %d: %s", k, many[k].e.msg);
            for (int i = 0; i < 2; i++) {
                const struct score *a = &one.r.row[i], *b = &many[k].r.row[i];

                assert_true(a->windows > 5 && a->windows == b->windows && a->read == b->read);
                assert_true(a->nll == b->nll && a->loss == b->loss && a->tokens == b->tokens);
                assert_memory_equal(a->bucket, b->bucket, sizeof a->bucket);
            }
        }
    }
    for (int k = 0; k < 2; k++)
        many[k] = (struct scored){ .o = one.o, .p = one.p };
    many[1].o.model = "/nonexistent";
    made_ranks(2, score_rank, many, sizeof *many);
    assert_int_equal(many[0].rc, many[1].rc);
    assert_non_null(strstr(many[0].e.msg, "rank 1 on b: "));
}

/* What a starter says, as "NAME=value ..."; what is found, or the words of the refusal. */
static const struct {
    const char *env, *by;
    int rank, size, local_rank, local_size;
    const char *refused;
} tried[] = {
    { "", NULL, 0, 1, 0, 1, NULL },
    { "RANK=16 LOCAL_RANK=x", NULL, 0, 1, 0, 1, NULL }, /* somebody's own */
    { "RANK=5 WORLD_SIZE=8 LOCAL_RANK=1 LOCAL_WORLD_SIZE=4", "torchrun", 5, 8, 1, 4, NULL },
    { "RANK=0 WORLD_SIZE=1", "torchrun", 0, 1, -1, 0, NULL },
    /* A copy of our own that torchrun's or mpirun's process has made. */
    { "LONGLORA_RANK=2 LONGLORA_SIZE=4 LONGLORA_LOCAL_RANK=2 LONGLORA_LOCAL_SIZE=4 RANK=0 WORLD_SIZE=1",
      RANKS_OWN, 2, 4, 2, 4, NULL },
    { "OMPI_COMM_WORLD_RANK=3 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_RANK=1 "
      "OMPI_COMM_WORLD_LOCAL_SIZE=2", "Open MPI", 3, 4, 1, 2, NULL },
    { "PMI_RANK=2 PMI_SIZE=6 MPI_LOCALRANKID=2 MPI_LOCALNRANKS=3", "MPICH", 2, 6, 2, 3,
      NULL },
    { "SLURM_PROCID=9 SLURM_STEP_NUM_TASKS=11 SLURM_LOCALID=1 SLURM_NODEID=2 "
      "SLURM_STEP_TASKS_PER_NODE=4(x2),3", "Slurm", 9, 11, 1, 3, NULL },
    { "SLURM_PROCID=7 SLURM_STEP_NUM_TASKS=8 SLURM_LOCALID=3 SLURM_NODEID=1 "
      "SLURM_STEP_TASKS_PER_NODE=4(x2)", "Slurm", 7, 8, 3, 4, NULL },
    { "SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_JOB_ID=9", NULL, 0, 1, 0, 1, NULL }, /* sbatch */
    /* Started by torchrun or mpirun inside a step of Slurm's: the inner one counts. */
    { "SLURM_PROCID=1 SLURM_STEP_NUM_TASKS=2 RANK=9 WORLD_SIZE=16", "torchrun", 9, 16,
      -1, 0, NULL },
    { "SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=1 OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2",
      "Open MPI", 1, 2, -1, 0, NULL },
    { "WORLD_SIZE=4", NULL, 0, 0, 0, 0, "RANK, the number of this process" },
    { "RANK=4 WORLD_SIZE=4", NULL, 0, 0, 0, 0, "RANK is 4, but WORLD_SIZE is only 4" },
    { "RANK=-1 WORLD_SIZE=4", NULL, 0, 0, 0, 0, "RANK is '-1'" },
    { "RANK=0 WORLD_SIZE=0", NULL, 0, 0, 0, 0, "RANK is 0, but WORLD_SIZE is only 0" },
    { "RANK=0 WORLD_SIZE=two", NULL, 0, 0, 0, 0, "WORLD_SIZE is 'two'" },
    { "RANK=0 WORLD_SIZE=99999999999", NULL, 0, 0, 0, 0, "WORLD_SIZE is '99999999999'" },
    { "RANK=1 WORLD_SIZE=4 LOCAL_RANK=2 LOCAL_WORLD_SIZE=2", NULL, 0, 0, 0, 0,
      "LOCAL_RANK is 2, but LOCAL_WORLD_SIZE is only 2" },
    { "RANK=1 WORLD_SIZE=4 LOCAL_WORLD_SIZE=8", NULL, 0, 0, 0, 0,
      "LOCAL_WORLD_SIZE is 8, but WORLD_SIZE is only 4" },
    { "RANK=1 WORLD_SIZE=4 LOCAL_RANK=4", NULL, 0, 0, 0, 0,
      "LOCAL_RANK is 4, but WORLD_SIZE is only 4" },
    { "PMI_RANK=1x PMI_SIZE=4", NULL, 0, 0, 0, 0, "PMI_RANK is '1x'" },
    { "SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=2 SLURM_NODEID=2 "
      "SLURM_STEP_TASKS_PER_NODE=1(x2)", NULL, 0, 0, 0, 0, "has no entry for node 2" },
    { "SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=2 SLURM_NODEID=1 SLURM_STEP_TASKS_PER_NODE=1;1",
      NULL, 0, 0, 0, 0, "has no entry for node 1" },
};

static void test_ranks_of_the_environment(void **state)
{
    const char *form = getenv("CMOCKA_MESSAGE_OUTPUT");
    char *output = form ? strdup(form) : NULL;

    (void)state;
    for (size_t i = 0; i < sizeof tried / sizeof *tried; i++) {
        char text[512], *word, *value, *rest = text;
        struct err e = { 0 };
        struct ranks r;

        clearenv();
        snprintf(text, sizeof text, "%s", tried[i].env);
        while ((word = strsep(&rest, " ")))
            if ((value = strchr(word, '='))) {
                *value = '\0';
                setenv(word, value + 1, 1);
            }
        if (ranks_find(&r, &e) < 0) {
            if (!tried[i].refused || !strstr(e.msg, tried[i].refused) || e.code != E_USAGE)
                fail_msg("%s: %s", tried[i].env, e.msg);
        } else if (tried[i].refused || r.rank != tried[i].rank || r.size != tried[i].size ||
                   r.local_rank != tried[i].local_rank || r.local_size != tried[i].local_size ||
                   !r.by != !tried[i].by || (r.by && strcmp(r.by, tried[i].by) != 0) || !*r.host) {
            fail_msg("%s: rank %d of %d, %d of %d", tried[i].env, r.rank, r.size, r.local_rank,
                     r.local_size);
        }
    }
    clearenv();
    setenv("LONGLORA_BLAS", "builtin", 1);
    if (output)
        setenv("CMOCKA_MESSAGE_OUTPUT", output, 1);
    free(output);
}

static int quiet(void **state)
{
    unsigned char bytes[2 * 331];
    struct err e = { 0 };

    log_init("test_ranks", -2);
    setenv("LONGLORA_BLAS", "builtin", 1); /* others are looked for there */
    if (setup(state) < 0)
        return -1;
    snprintf(small, sizeof small, "%s/small.bin", dir);
    for (int i = 0; i < 331; i++)
        put_le(bytes + 2 * i, mix64((uint64_t)i) % 48, 2);
    return file_replace(small, bytes, sizeof bytes, &e);
}

/* The plan's forecast for the rank with the most rows, until steps show that they are faster, or that
 * it was wrong. */
static void test_what_a_step_should_take(void **state)
{
    struct settings s;
    struct group g = { .size = 3 };
    struct run r = { .s = &s, .group = &g };

    (void)state;
    settings_defaults(&s);
    s.batch = 16, s.micro = 2, s.steps = 100, s.attention = ATTN_S2;
    assert_true(run_expected_s(&r, 1) == 0);
    r.step_s[ATTN_S2] = 7; /* of a device that foretells nothing */
    assert_true(run_expected_s(&r, 1) == 7);
    r.budget.model.step_s = 0.5; /* of two rows: a rank has up to 6 */
    r.step_s[ATTN_S2] = 0;
    assert_true(run_expected_s(&r, 1) == 1.5);
    r.step_s[ATTN_S2] = 1;
    assert_true(run_expected_s(&r, 2) == 1);
    r.step_s[ATTN_S2] = 4;
    assert_true(run_expected_s(&r, 3) == 1.5);
    r.step_s[ATTN_S2] = 5;
    assert_true(run_expected_s(&r, 4) == 5);
    /* every second step is dense, and takes three times as long */
    s.dense_every = 2, r.session.options.dense_share = 0.5, r.budget.model.dense_ratio = 3;
    r.step_s[ATTN_S2] = 0, r.budget.model.step_s = 1;
    assert_true(fabs(run_expected_s(&r, 1) - 1.5) < 1e-9);
    assert_true(fabs(run_expected_s(&r, 2) - 4.5) < 1e-9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranks_of_the_environment),
        cmocka_unit_test(test_ranks_train_as_one_does_and_one_writes),
        cmocka_unit_test(test_ranks_mix_dense_steps_as_one_does),
        cmocka_unit_test(test_memory_of_a_device_is_summed_too),
        cmocka_unit_test(test_a_failure_on_one_rank_ends_all),
        cmocka_unit_test(test_a_rank_that_leaves_is_noticed),
        cmocka_unit_test(test_what_is_not_finite_on_one_rank_is_skipped_on_all),
        cmocka_unit_test(test_a_stop_on_one_rank_stops_all_and_others_go_on),
        cmocka_unit_test(test_ranks_that_see_other_folders_do_not_go_on),
        cmocka_unit_test(test_ranks_evaluate_as_one_does),
        cmocka_unit_test(test_what_a_step_should_take),
    };

    return cmocka_run_group_tests(tests, quiet, teardown);
}
