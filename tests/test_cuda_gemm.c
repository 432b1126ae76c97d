/* tests/test_cuda_gemm.c - which algorithm a matrix product takes on the CUDA device, and how many
 * are timed for it: cuda_gemm.c with a cuBLASLt that only counts, and a clock that each of its
 * algorithms moves on by what the test says it takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/perm.h"
#include "kernels/cuda/cuda.h"

#include <cublasLt.h>

enum { ALGOS = 4 };
/* What the mocks saw, and what they are to do. */
static struct {
    int runs, timed, checks, naive, notes; /* products into their own matrix, and others */
    uint64_t ran;                          /* the algorithm of the last that counts */
    int64_t refused_above, broken;         /* checked for more rows: refused; that one fails */
    size_t workspace;                      /* what a check says is wanted */
    double now;
    bool waited, stuck;                    /* for all queues; for ranks that are gone, in vain */
} seen;
static struct cuda cuda;
static struct device dev;
static char memory[4096];

/* Milliseconds of an algorithm. Which is the best changes with every m, and in an octave each is
 * somewhere the best: so whoever times another m finds another. */
static double ms_of(uint64_t algo, uint64_t m)
{
    return 1 + (double)(mix64(algo * 77777 + m) % 1000);
}
static uint64_t best_of(uint64_t m)
{
    uint64_t best = 1;

    for (uint64_t i = 2; i <= ALGOS; i++)
        if (ms_of(i, m) < ms_of(best, m))
            best = i;
    return best;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *h)
{
    *h = memory;
    return 0;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t h) { return h != memory; }
struct cublas_desc { int made; };
struct cublas_pref { int made; };
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *d, int compute, cudaDataType_t scale)
{
    (void)compute, (void)scale;
    return !(*d = calloc(1, sizeof **d));
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d)
{
    free(d);
    return 0;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, int attr, const void *v,
                                              size_t n)
{
    (void)attr, (void)v, (void)n;
    return !d;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *l, cudaDataType_t type,
                                          uint64_t rows, uint64_t cols, int64_t ld)
{
    (void)type;
    if (!(*l = malloc(sizeof **l)))
        return 1;
    **l = (struct cublas_layout){ rows, cols, ld };
    return 0;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l)
{
    free(l);
    return 0;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *p)
{
    return !(*p = calloc(1, sizeof **p));
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p)
{
    free(p);
    return 0;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p, int attr,
                                                    const void *v, size_t n)
{
    (void)attr, (void)v, (void)n;
    return !p;
}
/* Algorithm 2 first, then the others. */
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t h, cublasLtMatmulDesc_t op,
    cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
    cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t p, int most,
    cublasLtMatmulHeuristicResult_t *r, int *n)
{
    (void)h, (void)op, (void)a, (void)b, (void)c, (void)d, (void)p;
    assert_true(most >= ALGOS);
    memset(r, 0, (size_t)most * sizeof *r);
    for (int i = 0; i < ALGOS; i++)
        r[i].algo.data[0] = (uint64_t)(i == 0 ? 2 : i == 1 ? 1 : i + 1);
    *n = ALGOS;
    return 0;
}
cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t h, cublasLtMatmulDesc_t op,
    cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
    cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t *algo, cublasLtMatmulHeuristicResult_t *r)
{
    (void)h, (void)op, (void)a, (void)b, (void)d, (void)algo;
    seen.checks++;
    memset(r, 0xff, sizeof *r);
    r->workspaceSize = seen.workspace;
    return seen.refused_above && (int64_t)c->cols > seen.refused_above ? CUBLAS_STATUS_NOT_SUPPORTED
                                                                       : 0;
}
/* Rows of ours are columns of its. */
cublasStatus_t cublasLtMatmul(cublasLtHandle_t h, cublasLtMatmulDesc_t op, const void *alpha,
    const void *a, cublasLtMatrixLayout_t la, const void *b, cublasLtMatrixLayout_t lb,
    const void *beta, const void *c, cublasLtMatrixLayout_t lc, void *d, cublasLtMatrixLayout_t ld,
    const cublasLtMatmulAlgo_t *algo, void *workspace, size_t bytes, cudaStream_t s)
{
    (void)h, (void)op, (void)alpha, (void)a, (void)la, (void)b, (void)lb, (void)beta, (void)c;
    (void)lc, (void)workspace, (void)bytes, (void)s;
    if (algo->data[0] == (uint64_t)seen.broken)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    seen.now += ms_of(algo->data[0], ld->cols);
    if (d != memory) {
        seen.timed++;
    } else {
        seen.runs++;
        seen.ran = algo->data[0];
    }
    return 0;
}

cudaError_t cudaGetLastError(void) { return 0; }
cudaError_t cudaMalloc(void **p, size_t nbytes) { return (*p = malloc(nbytes ? 16 : 1)) == NULL; }
cudaError_t cudaFree(void *p)
{
    free(p);
    return 0;
}
cudaError_t cudaEventCreate(cudaEvent_t *e) { return !(*e = calloc(1, sizeof(double))); }
cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    free(e);
    return 0;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    assert_true(seen.waited); /* nothing runs beside what is timed */
    (void)s;
    memcpy(e, &seen.now, sizeof seen.now);
    return 0;
}
cudaError_t cudaEventSynchronize(cudaEvent_t e) { return !e; }
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
    double a, b;

    memcpy(&a, from, sizeof a);
    memcpy(&b, to, sizeof b);
    *ms = (float)(b - a);
    return 0;
}

void cuda_wait_all(struct cuda *c) { (void)c, seen.waited = true; }
bool links_stuck(const struct cuda *c) { return (void)c, seen.stuck; }
int cuda_fault(struct cuda *c, const char *fmt, ...)
{
    (void)c, (void)fmt;
    return E_DEVICE;
}
void cuda_note(struct cuda *c, const char *fmt, ...)
{
    (void)c, (void)fmt;
    seen.notes++;
}
void cuda_begin(struct cuda *c, int kind) { (void)c, (void)kind; }
void cuda_begin_rows(struct cuda *c, int kind, int64_t rows) { (void)rows, cuda_begin(c, kind); }
int cuda_end(struct device *d, int rc, int kind, double flop)
{
    (void)d, (void)kind, (void)flop;
    return rc;
}
int gemm_naive(struct cuda *c, const struct op_gemm *a)
{
    (void)c, (void)a;
    seen.naive++;
    return 0;
}
/* The kernel for few rows takes none here: its choice is by the shape alone. */
bool gemm_few_takes(const struct op_gemm *a)
{
    (void)a;
    return false;
}
int gemm_few(struct cuda *c, const struct op_gemm *a) { return gemm_naive(c, a); }

static void open_mock(bool deterministic)
{
    struct err e = { 0 };

    memset(&cuda, 0, sizeof cuda);
    memset(&dev, 0, sizeof dev);
    memset(&seen, 0, sizeof seen);
    cuda.deterministic = deterministic;
    dev.state = &cuda;
    assert_int_equal(gemms_open(&cuda, &e), 0);
}

/* A linear layer of 4096 inputs and n outputs, over m rows; the algorithm that ran. */
static uint64_t run(int64_t m, int64_t n, bool varies)
{
    struct op_gemm a = { .trans_b = true, .m = m, .n = n, .k = 4096, .alpha = 1, .a = memory,
                         .b = mat_plain(DT_BF16, memory), .c = memory, .lda = 4096, .ldb = 4096,
                         .ldc = n, .c_type = DT_BF16, .varies = varies };

    seen.ran = 0;
    assert_int_equal(cuda_gemm(&dev, &a), 0);
    return seen.ran;
}

static const int64_t widths[] = { 4096, 1024, 11008, 32000 };
enum { WIDTHS = 4, WINDOWS = 224, EACH = 3 * ALGOS /* products to time one shape */ };

/* Window i of 224, none as long as another: 300 to 8104 tokens. */
static int64_t window(int64_t i) { return 300 + 35 * i; }
static int64_t octave_of(int64_t m)
{
    int64_t p = 1;

    while (2 * p <= m)
        p *= 2;
    return p;
}

/* 224 lengths of four matrices: one m of each of the five octaves from 256 to 8191 is timed. */
static void test_one_an_octave(void **state)
{
    (void)state;
    open_mock(false);
    for (int64_t i = 0; i < WINDOWS; i++)
        for (int k = 0; k < WIDTHS; k++)
            run(window(i), widths[k], true);
    assert_int_equal(seen.timed, 5 * WIDTHS * EACH);
    assert_int_equal(seen.runs, WINDOWS * WIDTHS);
    assert_int_equal(seen.checks, WINDOWS * WIDTHS);
    /* more shapes than plans are kept for: what was timed stays */
    for (int64_t m = 2048; m < 4096; m++)
        assert_int_equal(run(m, 4096, true), best_of(2048));
    for (int64_t i = 0; i < WINDOWS; i++)
        run(window(i), 4096, true);
    assert_int_equal(seen.timed, 5 * WIDTHS * EACH);
    gemms_close(&cuda);
}

/* What runs depends on the shape alone: the best for its octave, in whatever order they come, and
 * beside products whose m does not vary. */
static void test_no_history(void **state)
{
    (void)state;
    for (int order = 0; order < 3; order++) {
        open_mock(false);
        for (int64_t i = 0; i < WINDOWS; i++) {
            int64_t m = window(order == 0 ? i : order == 1 ? WINDOWS - 1 - i : i * 101 % WINDOWS);
            if (order == 2)
                assert_int_equal(run(m, 4096, false), best_of((uint64_t)m));
            assert_int_equal(run(m, 4096, true), best_of((uint64_t)octave_of(m)));
            assert_int_equal(run(m, 4096, true), best_of((uint64_t)octave_of(m)));
        }
        gemms_close(&cuda);
    }
}

/* Rows that do not vary, as training's, and the octave's own: the best for exactly them. */
static void test_exact(void **state)
{
    static const int64_t rows[] = { 8192, 102400, 12000, 3 * 8192, 4096, 100000, 1 << 20 };

    (void)state;
    open_mock(false);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int again = 0; again < 3; again++)
            /* in 256 MiB of results, 32768 rows at most */
            assert_int_equal(run(rows[i], 4096, false),
                             best_of((uint64_t)lesser(rows[i], 32768)));
    assert_int_equal(seen.timed, 7 * EACH);
    assert_int_equal(run(8192, 4096, true), best_of(8192));
    assert_int_equal(seen.timed, 7 * EACH); /* the same one */
    gemms_close(&cuda);
}

/* An m that the octave's algorithm does not take: the heuristics' first offer for it. */
static void test_not_taken(void **state)
{
    int64_t base = 256;

    (void)state;
    open_mock(false);
    while (best_of((uint64_t)base) == 2) /* the first offer */
        base *= 2;
    seen.refused_above = base + base / 2;
    assert_int_equal(run(base + base / 4, 4096, true), best_of((uint64_t)base));
    assert_int_equal(run(base + base / 2 + 8, 4096, true), 2);
    seen.refused_above = 0;
    seen.workspace = (size_t)1 << 30; /* more than there is */
    assert_int_equal(run(base + base / 2 + 16, 4096, true), 2);
    gemms_close(&cuda);
}

static void test_failing_algorithm(void **state)
{
    uint64_t best = best_of(4096);

    (void)state;
    open_mock(false);
    assert_int_equal(run(5000, 4096, true), best);
    seen.broken = (int64_t)best;
    assert_int_equal(run(5000, 4096, true), best == 2 ? 1 : 2); /* the next offer */
    assert_int_equal(seen.notes, 1);
    assert_int_equal(run(5000, 4096, true), best == 2 ? 1 : 2);
    assert_int_equal(seen.notes, 1); /* dropped for good */
    assert_int_equal(seen.naive, 0);
    gemms_close(&cuda);
}

/* Nothing is timed where bits must repeat, nor where it is not worth it. */
static void test_untimed(void **state)
{
    (void)state;
    open_mock(true);
    for (int64_t i = 0; i < WINDOWS; i++) {
        assert_int_equal(run(window(i), 4096, true), 2);
        assert_int_equal(run(window(i), 4096, false), 2);
    }
    assert_int_equal(seen.timed, 0);
    gemms_close(&cuda);
    open_mock(false);
    assert_int_equal(run(33, 8, true), 2);
    assert_int_equal(run(33, 8, false), 2);
    assert_int_equal(seen.timed, 0);
    gemms_close(&cuda);
    open_mock(false);
    seen.stuck = true; /* the GPU waits for ranks that are gone */
    run(window(0), 4096, true);
    assert_int_equal(seen.timed, 0);
    gemms_close(&cuda);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_an_octave), cmocka_unit_test(test_no_history),
        cmocka_unit_test(test_exact), cmocka_unit_test(test_not_taken),
        cmocka_unit_test(test_failing_algorithm), cmocka_unit_test(test_untimed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
