/* kernels/cuda/cuda_gemm.c - matrix products through cuBLASLt, its plans kept by shape. */
#include "kernels/cuda/cuda.h"
#include "kernels/product.h"

#include <cublasLt.h>
#include <stdlib.h>
#include <string.h>

/*
 * cuBLASLt has many algorithms for a product, and which is fastest depends on the shape. The
 * first product of a shape makes a plan: cuBLASLt's heuristics offer up to 16 algorithms, each
 * is timed once on the real operands, and the fastest is used for every later product of that
 * shape (small products are not timed: the first offer is good enough). So the first step of a
 * run is slower than the others. Timed results go to a side buffer, because a product that adds
 * to C must not add twice. A deterministic device times nothing and takes the first offer.
 *
 * Windows that are scored have any number of rows, and a search for each would take longer than
 * the windows. So where the caller says that m varies, one m of an octave is timed for all of
 * it, with its first rows:
 *
 *     m       64 .. 127    128 .. 255    ...    4096 .. 8191
 *     timed   64           128                  4096
 *
 * whichever m comes first: what runs depends on shapes alone. Where the algorithm does not take
 * an m, the heuristics' own offers for it follow.
 *
 * cuBLASLt stores matrices by columns, we by rows. A matrix [2][3] by rows is a matrix [3][2]
 * by columns in the same memory, so instead of C = A B it is asked for C^T = B^T A^T: the
 * operands change places and nothing is transposed.
 *
 * An algorithm that fails when it is used is dropped and the next one tried. Where none is
 * left, a small product goes to a plain kernel of our own; a large one, which that would
 * compute for minutes, is an error.
 */
enum { OFFERS = 16, PLANS = 1024, CHOICES = 512 };
#define PLAIN_FLOP 1e11
#define WORKSPACE_BYTES ((size_t)64 << 20)
#define SIDE_BYTES ((size_t)256 << 20) /* of a timed result; a taller one is timed in part */
#define TIMED_FLOP 2e9                 /* products of less, and of fewer values, */
#define TIMED_VALUES 4e6               /* are not worth timing */

struct key {
    int64_t m, n, k, lda, ldb, ldc, timed; /* timed: another m, or its own */
    int32_t ta, tb, c_type, add, align_a, align_b, align_c, pad;
};

struct plan {
    struct key key;
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t offer[OFFERS + 1]; /* the one to take first */
    int offers;
};

/* What was the fastest for a shape: kept when plans begin anew. */
struct choice {
    struct key key;
    cublasLtMatmulAlgo_t algo;
    bool any; /* else cuBLASLt offered nothing */
};

struct cuda_gemms {
    cublasLtHandle_t lt;
    void *workspace;
    int n, last, choices;
    struct plan plan[PLANS];
    struct choice choice[CHOICES];
};

int gemms_open(struct cuda *c, struct err *e)
{
    struct cuda_gemms *g = calloc(1, sizeof *g);

    if (!g)
        return err_set(e, E_SYS, "out of memory");
    c->gemms = g;
    if (cublasLtCreate(&g->lt) != CUBLAS_STATUS_SUCCESS)
        return err_set(e, E_DEVICE, "cuBLASLt cannot start on this GPU");
    if (cudaMalloc(&g->workspace, WORKSPACE_BYTES) != cudaSuccess)
        return err_set(e, E_DEVICE, "out of GPU memory: cannot allocate 64 MiB for matrix "
                                    "products");
    return 0;
}

static void plan_free(struct plan *p)
{
    if (p->op)
        cublasLtMatmulDescDestroy(p->op);
    if (p->a)
        cublasLtMatrixLayoutDestroy(p->a);
    if (p->b)
        cublasLtMatrixLayoutDestroy(p->b);
    if (p->c)
        cublasLtMatrixLayoutDestroy(p->c);
    memset(p, 0, sizeof *p);
}

void gemms_close(struct cuda *c)
{
    struct cuda_gemms *g = c->gemms;

    if (!g)
        return;
    for (int i = 0; i < g->n; i++)
        plan_free(&g->plan[i]);
    cudaFree(g->workspace);
    if (g->lt)
        cublasLtDestroy(g->lt);
    free(g);
    c->gemms = NULL;
}

/* The largest power of two, at most 256, that divides both the address and the bytes of a
 * row. bits & (~bits + 1) is the lowest bit that is set: of binary 10100, 100. */
static int32_t alignment(const void *p, int64_t ld, int64_t elem_bytes)
{
    uint64_t bits = (uint64_t)(uintptr_t)p | (uint64_t)(ld * elem_bytes) | 256;

    return (int32_t)(bits & (~bits + 1));
}

/* The m that is timed for a: its own, or where it varies the power of two below it. */
static int64_t timed_m(const struct op_gemm *a)
{
    return a->varies ? (int64_t)1 << (63 - __builtin_clzll((uint64_t)a->m)) : a->m;
}

static struct key key_of(const struct op_gemm *a)
{
    struct key k;

    /* keys are compared as bytes, so unused ones have to be 0 */
    memset(&k, 0, sizeof k);
    k.m = a->m, k.n = a->n, k.k = a->k;
    k.lda = a->lda, k.ldb = a->ldb, k.ldc = a->ldc, k.timed = timed_m(a);
    k.ta = a->trans_a, k.tb = a->trans_b, k.c_type = (int32_t)a->c_type, k.add = a->beta != 0;
    k.align_a = alignment(a->a, a->lda, 2);
    k.align_b = alignment(a->b.data, a->ldb, 2);
    k.align_c = alignment(a->c, a->ldc, (int64_t)dtype_bytes(a->c_type));
    if (a->addend && a->beta != 0)
        k.align_c = (int32_t)lesser(k.align_c, alignment(a->addend, 0, 1));
    return k;
}

/* A row-major [rows][cols] matrix, as cuBLASLt sees it: [cols][rows] by columns. */
static bool layout(cublasLtMatrixLayout_t *l, cudaDataType_t type, int64_t rows, int64_t cols,
                   int64_t ld)
{
    return cublasLtMatrixLayoutCreate(l, type, (uint64_t)cols, (uint64_t)rows, ld) ==
           CUBLAS_STATUS_SUCCESS;
}

/* Makes the descriptors of a plan for the swapped product. False: one could not be made, and
 * the plan has no offers. */
static bool describe(struct plan *p, const struct op_gemm *a)
{
    cublasOperation_t first = a->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t second = a->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;

    return cublasLtMatmulDescCreate(&p->op, CUBLAS_COMPUTE_32F, CUDA_R_32F) ==
               CUBLAS_STATUS_SUCCESS &&
           cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSA, &first,
                                          sizeof first) == CUBLAS_STATUS_SUCCESS &&
           cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSB, &second,
                                          sizeof second) == CUBLAS_STATUS_SUCCESS &&
           layout(&p->b, CUDA_R_16BF, a->trans_b ? a->n : a->k, a->trans_b ? a->k : a->n, a->ldb) &&
           layout(&p->a, CUDA_R_16BF, a->trans_a ? a->k : a->m, a->trans_a ? a->m : a->k, a->lda) &&
           layout(&p->c, a->c_type == DT_F32 ? CUDA_R_32F : CUDA_R_16BF, a->m, a->n, a->ldc);
}

/* What cuBLASLt's heuristics offer for p, best first, into r; returns how many. Without
 * naming the real alignment it might offer what needs 16 bytes where there are 2. */
static int offers(struct cuda *c, struct plan *p, cublasLtMatmulHeuristicResult_t *r)
{
    cublasLtMatmulPreference_t want = NULL;
    size_t ws = WORKSPACE_BYTES;
    uint32_t sums = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE; /* parts of k are added in float32 */
    uint32_t first = (uint32_t)p->key.align_b, second = (uint32_t)p->key.align_a;
    uint32_t result = (uint32_t)p->key.align_c;
    int n = 0;

    if (cublasLtMatmulPreferenceCreate(&want) != CUBLAS_STATUS_SUCCESS)
        return 0;
    if (cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &ws,
                                             sizeof ws) != CUBLAS_STATUS_SUCCESS ||
        cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                             &sums, sizeof sums) != CUBLAS_STATUS_SUCCESS ||
        cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                                             &first, sizeof first) != CUBLAS_STATUS_SUCCESS ||
        cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                                             &second, sizeof second) != CUBLAS_STATUS_SUCCESS ||
        cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                                             &result, sizeof result) != CUBLAS_STATUS_SUCCESS ||
        cublasLtMatmulPreferenceSetAttribute(want, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
                                             &result, sizeof result) != CUBLAS_STATUS_SUCCESS ||
        cublasLtMatmulAlgoGetHeuristic(c->gemms->lt, p->op, p->b, p->a, p->c, p->c, want, OFFERS, r,
                                       &n) != CUBLAS_STATUS_SUCCESS)
        n = 0;
    cublasLtMatmulPreferenceDestroy(want);
    for (int i = 0; i < n; i++) /* offers come best first, those that cannot run last */
        if (r[i].state != CUBLAS_STATUS_SUCCESS)
            n = i;
    return n;
}

/* op with the layouts of p; d receives, which may be another buffer than a->c. */
static bool multiply(struct cuda *c, const struct plan *p, const struct op_gemm *a, void *d,
                     const cublasLtMatmulAlgo_t *algo)
{
    const void *add = a->addend && a->beta != 0 ? a->addend : a->c;

    return cublasLtMatmul(c->gemms->lt, p->op, &a->alpha, a->b.data, p->b, a->a, p->a, &a->beta, add,
                          p->c, d, p->c, algo, c->gemms->workspace, WORKSPACE_BYTES,
                          c->stream) == CUBLAS_STATUS_SUCCESS;
}

/* Milliseconds of the faster of two runs; negative where the algorithm does not run. */
static float time_one(struct cuda *c, const struct plan *p, const struct op_gemm *a, void *side,
                      const cublasLtMatmulAlgo_t *algo, cudaEvent_t ev[3])
{
    float first = -1, second = -1;

    if (!multiply(c, p, a, side, algo))
        return -1;
    cudaEventRecord(ev[0], c->stream);
    multiply(c, p, a, side, algo);
    cudaEventRecord(ev[1], c->stream);
    multiply(c, p, a, side, algo);
    cudaEventRecord(ev[2], c->stream);
    if (cudaEventSynchronize(ev[2]) != cudaSuccess ||
        cudaEventElapsedTime(&first, ev[0], ev[1]) != cudaSuccess ||
        cudaEventElapsedTime(&second, ev[1], ev[2]) != cudaSuccess)
        return -1;
    return first < second ? first : second;
}

/* The number of the fastest of n offers. Where there is no memory to time them in, the
 * first. */
static int fastest(struct cuda *c, const struct op_gemm *whole,
                   const cublasLtMatmulHeuristicResult_t *r, int n)
{
    struct op_gemm a = *whole;
    size_t row = (size_t)a.ldc * dtype_bytes(a.c_type);
    struct plan part;
    cudaEvent_t ev[3] = { NULL, NULL, NULL };
    void *side = NULL;
    float best = -1;
    int choice = 0;

    /* beside an exchange times would be another's, and the wait for them have no end where a rank is gone */
    cuda_wait_all(c);
    if (links_stuck(c))
        return 0;
    /* as many rows as the side buffer may hold */
    a.m = lesser(a.m, (int64_t)(SIDE_BYTES / row));
    memset(&part, 0, sizeof part);
    if (a.m < 1 || cudaMalloc(&side, (size_t)a.m * row) != cudaSuccess) {
        (void)cudaGetLastError();
        return 0;
    }
    for (int i = 0; i < 3; i++)
        cudaEventCreate(&ev[i]);
    for (int i = 0; i < n && describe(&part, &a); i++) {
        float ms = time_one(c, &part, &a, side, &r[i].algo, ev);
        if (ms >= 0 && (best < 0 || ms < best)) {
            best = ms;
            choice = i;
        }
        plan_free(&part);
    }
    plan_free(&part);
    for (int i = 0; i < 3; i++)
        cudaEventDestroy(ev[i]);
    cudaFree(side);
    (void)cudaGetLastError();
    return choice;
}

static bool worth_timing(const struct op_gemm *a)
{
    double m = (double)a->m, n = (double)a->n, k = (double)a->k;

    return 2 * m * n * k >= TIMED_FLOP || m * k + k * n + m * n >= TIMED_VALUES;
}

/* The algorithm that was the fastest for the product that is timed for a, looked for when it is
 * first asked for. NULL: none is better than the first offer. */
static const cublasLtMatmulAlgo_t *timed(struct cuda *c, const struct op_gemm *whole)
{
    struct cuda_gemms *g = c->gemms;
    cublasLtMatmulHeuristicResult_t r[OFFERS];
    struct op_gemm a = *whole;
    struct plan probe = { .offers = 0 };
    struct choice *t;
    int n;

    a.m = timed_m(whole);
    if (c->deterministic || !worth_timing(&a))
        return NULL;
    probe.key = key_of(&a);
    for (int i = 0; i < g->choices; i++)
        if (memcmp(&g->choice[i].key, &probe.key, sizeof probe.key) == 0)
            return g->choice[i].any ? &g->choice[i].algo : NULL;
    if (g->choices == CHOICES)
        g->choices = 0;
    t = &g->choice[g->choices++];
    t->key = probe.key;
    n = describe(&probe, &a) ? offers(c, &probe, r) : 0;
    plan_free(&probe);
    t->any = n > 0;
    if (n > 0)
        t->algo = r[n > 1 ? fastest(c, &a, r, n) : 0].algo;
    return t->any ? &t->algo : NULL;
}

/* Whether an algorithm that was found for another m computes p too. */
static bool takes(struct cuda *c, const struct plan *p, const cublasLtMatmulAlgo_t *algo)
{
    cublasLtMatmulHeuristicResult_t r;

    return cublasLtMatmulAlgoCheck(c->gemms->lt, p->op, p->b, p->a, p->c, p->c, algo, &r) ==
               CUBLAS_STATUS_SUCCESS &&
           r.workspaceSize <= WORKSPACE_BYTES; /* what else is in r it does not set */
}

/* The algorithms for p in the order in which to try them. */
static void fill_offers(struct cuda *c, struct plan *p, const struct op_gemm *a)
{
    cublasLtMatmulHeuristicResult_t r[OFFERS];
    const cublasLtMatmulAlgo_t *best = timed(c, a);
    int n = offers(c, p, r);

    if (best && takes(c, p, best))
        p->offer[p->offers++] = *best;
    for (int i = 0; i < n; i++)
        if (p->offers == 0 || memcmp(&r[i].algo, &p->offer[0], sizeof r[i].algo) != 0)
            p->offer[p->offers++] = r[i].algo;
}

/* The plan for a product, made when its shape is first asked for. Layers ask for the same
 * products in the same order, so the search begins after the last hit. */
static struct plan *plan_of(struct cuda *c, const struct op_gemm *a)
{
    struct cuda_gemms *g = c->gemms;
    struct key key = key_of(a);
    struct plan *p;

    for (int i = 0; i < g->n; i++) { /* mostly the one after the last */
        int at = (g->last + 1 + i) % g->n;
        if (memcmp(&g->plan[at].key, &key, sizeof key) == 0) {
            g->last = at;
            return &g->plan[at];
        }
    }
    if (g->n == PLANS) { /* many shapes: begin anew */
        for (int i = 0; i < g->n; i++)
            plan_free(&g->plan[i]);
        g->n = 0;
    }
    g->last = g->n;
    p = &g->plan[g->n++];
    p->key = key;
    if (describe(p, a))
        fill_offers(c, p, a);
    return p;
}

/* No algorithm is left for a product. */
static int without(struct cuda *c, const struct op_gemm *a)
{
    double flop = 2.0 * (double)a->m * (double)a->n * (double)a->k;

    if (flop > PLAIN_FLOP)
        return cuda_fault(c, "cuBLASLt has no algorithm that runs for a matrix product of %lld x "
                          "%lld x %lld", (long long)a->m, (long long)a->n, (long long)a->k);
    cuda_note(c, "matrix products of %lld x %lld x %lld run on a slow kernel: cuBLASLt takes none",
              (long long)a->m, (long long)a->n, (long long)a->k);
    return gemm_naive(c, a);
}

static bool makes_sense(const struct op_gemm *a)
{
    int64_t cols_a = a->trans_a ? a->m : a->k, cols_b = a->trans_b ? a->k : a->n;

    return a->b.type && a->m >= 0 && a->n >= 0 && a->k >= 0 && a->lda >= cols_a && a->ldb >= cols_b &&
           a->ldc >= a->n && (a->c_type == DT_F32 || a->c_type == DT_BF16);
}

static bool is_few(const struct cuda *c, const struct op_gemm *a)
{
    return a->m > 0 && a->m <= c->few_product && a->n > 0 && a->k > 0 && a->b.type->plain == DT_BF16 &&
           gemm_few_takes(a);
}

int gemm_run(struct device *d, const struct op_gemm *all)
{
    struct cuda *c = cuda_of(d);
    struct op_gemm one = *all;
    const struct op_gemm *a = &one;
    struct plan *p;

    one.also = NULL;
    if (!makes_sense(a))
        return E_BUG;
    if (a->m == 0 || a->n == 0)
        return 0;
    if (a->b.type->plain != DT_BF16)
        return mat_gemm(d, a, &c->fault);
    if (a->k == 0)
        return gemm_naive(c, a);
    if (is_few(c, a))
        return gemm_few(c, a);
    /* what fails is dropped for good: the next one moves to the front of the plan */
    for (p = plan_of(c, a); p->offers > 0; p->offers--) {
        if (multiply(c, p, a, a->c, &p->offer[0]))
            return 0;
        (void)cudaGetLastError();
        cuda_note(c, "an algorithm of cuBLASLt fails for matrix products of %lld x %lld x %lld: "
                  "another is taken", (long long)a->m, (long long)a->n, (long long)a->k);
        memmove(p->offer, p->offer + 1, (size_t)(p->offers - 1) * sizeof *p->offer);
    }
    return without(c, a);
}

/* In one launch where all are of few rows; else one after the other. */
static int run_all(struct device *d, const struct op_gemm *a)
{
    bool few = true;
    int rc = 0;

    for (const struct op_gemm *g = a; g; g = g->also) {
        if (!makes_sense(g) || g->a != a->a || g->m != a->m || g->k != a->k || g->lda != a->lda)
            return E_BUG;
        few = few && is_few(cuda_of(d), g);
    }
    if (few)
        return gemm_few(cuda_of(d), a);
    for (; a && rc == 0; a = a->also)
        rc = gemm_run(d, a);
    return rc;
}

int cuda_gemm(struct device *d, const struct op_gemm *a)
{
    double flop = 0;

    for (const struct op_gemm *g = a; g; g = g->also)
        flop += 2.0 * (double)g->m * (double)g->n * (double)g->k;
    cuda_begin_rows(cuda_of(d), OP_gemm, a->m);
    return cuda_end(d, run_all(d, a), OP_gemm, flop);
}
