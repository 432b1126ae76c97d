/* tests/gpu/test_cuda_plans.c - cuDNN takes every attention shape that we ship; needs no GPU. */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cuda/cudnn_abi.h"
#include "kernels/cuda/runs.h"
#include "kernels/cuda/sdpa.h"
#include "kernels/cuda/sizes.h"

#if __has_include(<cudnn.h>)
#include <cudnn.h>
#define EQUAL(a, b) _Static_assert((int)(a) == (int)(b), #b)
EQUAL(DNN_F32, CUDNN_DATA_FLOAT); EQUAL(DNN_I32, CUDNN_DATA_INT32);
EQUAL(DNN_BF16, CUDNN_DATA_BFLOAT16); EQUAL(DNN_BOOL, CUDNN_DATA_BOOLEAN);
EQUAL(DNN_POINTWISE, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
EQUAL(DNN_ENGINE, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
EQUAL(DNN_ENGINECFG, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
EQUAL(DNN_ENGINEHEUR, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
EQUAL(DNN_PLAN, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
EQUAL(DNN_OP_POINTWISE, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
EQUAL(DNN_GRAPH, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
EQUAL(DNN_PACK, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
EQUAL(DNN_TENSOR, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
EQUAL(DNN_MATMUL, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
EQUAL(DNN_OP_MATMUL, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
EQUAL(DNN_REDUCTION, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
EQUAL(DNN_OP_REDUCTION, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
EQUAL(DNN_OP_RESHAPE, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
EQUAL(DNN_T_HANDLE, CUDNN_TYPE_HANDLE); EQUAL(DNN_T_DATA_TYPE, CUDNN_TYPE_DATA_TYPE);
EQUAL(DNN_T_BOOL, CUDNN_TYPE_BOOLEAN); EQUAL(DNN_T_INT64, CUDNN_TYPE_INT64);
EQUAL(DNN_T_PTR, CUDNN_TYPE_VOID_PTR); EQUAL(DNN_T_HEUR, CUDNN_TYPE_HEUR_MODE);
EQUAL(DNN_T_POINTWISE, CUDNN_TYPE_POINTWISE_MODE);
EQUAL(DNN_T_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR);
EQUAL(DNN_T_REDUCE, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE);
EQUAL(DNN_POINTWISE_MODE, CUDNN_ATTR_POINTWISE_MODE);
EQUAL(DNN_POINTWISE_PREC, CUDNN_ATTR_POINTWISE_MATH_PREC);
EQUAL(DNN_POINTWISE_AXIS, CUDNN_ATTR_POINTWISE_AXIS);
EQUAL(DNN_HEUR_MODE, CUDNN_ATTR_ENGINEHEUR_MODE);
EQUAL(DNN_HEUR_GRAPH, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
EQUAL(DNN_HEUR_RESULTS, CUDNN_ATTR_ENGINEHEUR_RESULTS);
EQUAL(DNN_CFG_ENGINE, CUDNN_ATTR_ENGINECFG_ENGINE);
EQUAL(DNN_CFG_WORKSPACE, CUDNN_ATTR_ENGINECFG_WORKSPACE_SIZE);
EQUAL(DNN_PLAN_HANDLE, CUDNN_ATTR_EXECUTION_PLAN_HANDLE);
EQUAL(DNN_PLAN_CFG, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
EQUAL(DNN_PLAN_WORKSPACE, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE);
EQUAL(DNN_OPPW_PW, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR);
EQUAL(DNN_OPPW_X, CUDNN_ATTR_OPERATION_POINTWISE_XDESC);
EQUAL(DNN_OPPW_B, CUDNN_ATTR_OPERATION_POINTWISE_BDESC);
EQUAL(DNN_OPPW_Y, CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
EQUAL(DNN_OPPW_T, CUDNN_ATTR_OPERATION_POINTWISE_TDESC);
EQUAL(DNN_GRAPH_HANDLE, CUDNN_ATTR_OPERATIONGRAPH_HANDLE);
EQUAL(DNN_GRAPH_OPS, CUDNN_ATTR_OPERATIONGRAPH_OPS);
EQUAL(DNN_TENSOR_ALIGN, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT);
EQUAL(DNN_TENSOR_TYPE, CUDNN_ATTR_TENSOR_DATA_TYPE);
EQUAL(DNN_TENSOR_DIMS, CUDNN_ATTR_TENSOR_DIMENSIONS);
EQUAL(DNN_TENSOR_STRIDES, CUDNN_ATTR_TENSOR_STRIDES);
EQUAL(DNN_TENSOR_UID, CUDNN_ATTR_TENSOR_UNIQUE_ID);
EQUAL(DNN_TENSOR_VIRTUAL, CUDNN_ATTR_TENSOR_IS_VIRTUAL);
EQUAL(DNN_TENSOR_BY_VALUE, CUDNN_ATTR_TENSOR_IS_BY_VALUE);
EQUAL(DNN_PACK_UIDS, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
EQUAL(DNN_PACK_POINTERS, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
EQUAL(DNN_PACK_WORKSPACE, CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
EQUAL(DNN_ENGINE_INDEX, CUDNN_ATTR_ENGINE_GLOBAL_INDEX);
EQUAL(DNN_MATMUL_PREC, CUDNN_ATTR_MATMUL_COMP_TYPE);
EQUAL(DNN_OPMM_A, CUDNN_ATTR_OPERATION_MATMUL_ADESC);
EQUAL(DNN_OPMM_B, CUDNN_ATTR_OPERATION_MATMUL_BDESC);
EQUAL(DNN_OPMM_C, CUDNN_ATTR_OPERATION_MATMUL_CDESC);
EQUAL(DNN_OPMM_MATMUL, CUDNN_ATTR_OPERATION_MATMUL_DESC);
EQUAL(DNN_REDUCTION_OP, CUDNN_ATTR_REDUCTION_OPERATOR);
EQUAL(DNN_REDUCTION_PREC, CUDNN_ATTR_REDUCTION_COMP_TYPE);
EQUAL(DNN_OPRED_X, CUDNN_ATTR_OPERATION_REDUCTION_XDESC);
EQUAL(DNN_OPRED_Y, CUDNN_ATTR_OPERATION_REDUCTION_YDESC);
EQUAL(DNN_OPRED_REDUCTION, CUDNN_ATTR_OPERATION_REDUCTION_DESC);
EQUAL(DNN_RESHAPE_X, CUDNN_ATTR_OPERATION_RESHAPE_XDESC);
EQUAL(DNN_RESHAPE_Y, CUDNN_ATTR_OPERATION_RESHAPE_YDESC);
EQUAL(DNN_HEUR_FALLBACK, CUDNN_HEUR_MODE_FALLBACK); EQUAL(DNN_HEUR_A, CUDNN_HEUR_MODE_A);
EQUAL(DNN_ADD, CUDNN_POINTWISE_ADD); EQUAL(DNN_MUL, CUDNN_POINTWISE_MUL);
EQUAL(DNN_DIV, CUDNN_POINTWISE_DIV); EQUAL(DNN_SUB, CUDNN_POINTWISE_SUB);
EQUAL(DNN_EXP, CUDNN_POINTWISE_EXP); EQUAL(DNN_LOG, CUDNN_POINTWISE_LOG);
EQUAL(DNN_IDENTITY, CUDNN_POINTWISE_IDENTITY); EQUAL(DNN_CMP_GE, CUDNN_POINTWISE_CMP_GE);
EQUAL(DNN_GEN_INDEX, CUDNN_POINTWISE_GEN_INDEX);
EQUAL(DNN_SELECT, CUDNN_POINTWISE_BINARY_SELECT);
EQUAL(DNN_REDUCE_ADD, CUDNN_REDUCE_TENSOR_ADD); EQUAL(DNN_REDUCE_MAX, CUDNN_REDUCE_TENSOR_MAX);
#endif

/* What cudaGetDeviceProperties says of a card of each architecture. */
static const struct card_kind {
    int sm, processors, shared_bytes, blocks, threads;
} kinds[] = {
    { 80, 108, 166912, 32, 2048 }, { 86, 84, 101376, 16, 1536 },   { 89, 142, 101376, 24, 1536 },
    { 90, 132, 232448, 32, 2048 }, { 100, 148, 232448, 32, 2048 }, { 120, 170, 101376, 24, 1536 },
};
enum { KINDS = sizeof kinds / sizeof *kinds, H200 = 3 };

/* Only to plan; NULL where there is no cuDNN, or no libcuda.so.1 for it. */
static struct sdpa *open_kind(const struct card_kind *k)
{
    struct sdpa *s = NULL;
    struct err e = { 0 };
    char json[1000];

    if (!dlopen("libcuda.so.1", RTLD_LAZY)) {
        print_message("# skipped: no libcuda.so.1; CUDA's lib64/stubs has one that will do\n");
        return NULL;
    }
    snprintf(json, sizeof json,
             "{\"cudaDeviceId\":0,\"deviceVer\":%d,\"driverVer\":13000,"
             "\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64],"
             "\"regsPerBlock\":65536,\"multiProcessorCount\":%d,\"warpSize\":32,"
             "\"maxSharedMemoryPerBlock\":49152,\"maxSharedMemoryPerBlockOptin\":%d,"
             "\"reservedSharedMemoryPerBlock\":1024,\"maxRegistersPerSM\":65536,"
             "\"maxCtasPerSM\":%d,\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":%d,"
             "\"pciDeviceId\":0,\"isTccDriver\":0,\"supportCoopLaunch\":1,"
             "\"totalGlobalMem\":150754820096,\"smClockRateKHz\":1980000,"
             "\"memClockRateKHz\":3201000,\"l2CacheSize\":62914560,"
             "\"deviceName\":\"sm_%d\"}", 10 * k->sm, k->processors, k->shared_bytes, k->blocks,
             k->threads, k->sm);
    if (sdpa_open(&s, getenv("LONGLORA_CUDNN"), NULL, json, &e) < 0)
        print_message("# skipped: %s\n", e.msg);
    return s;
}

static void test_every_shape_can_be_planned(void **state)
{
    static const struct { int64_t b, hq, hkv, s, d, rows; } v[] = {
        { 4, 16, 16, 2048, 128, 8192 },   { 3, 16, 16, 2048, 128, 8192 },
        { 2, 16, 16, 1024, 128, 8192 },   { 1, 32, 32, 8192, 128, 8192 },
        { 4, 16, 16, 25600, 128, 102400 }, { 3, 16, 16, 25600, 128, 102400 },
        { 2, 16, 16, 12800, 128, 102400 }, { 1, 32, 32, 102400, 128, 102400 },
        { 4, 16, 4, 8192, 128, 32768 },   { 1, 32, 8, 8192, 128, 8192 }, { 4, 4, 4, 512, 64, 2048 },
        { 1, 8, 8, 1000, 64, 1000 }, { 1, 4, 2, 333, 64, 999 }, { 2, 4, 4, 100, 32, 250 },
    };
    struct sdpa *s = open_kind(&kinds[H200]);
    struct err e = { 0 };

    (void)state;
    if (!s)
        skip();
    for (size_t i = 0; i < sizeof v / sizeof *v; i++)
        for (int back = 0; back < 3; back++) {
            int64_t hq = v[i].hq, hkv = v[i].hkv, d = v[i].d, step = v[i].s;
            struct sdpa_shape sh = { back > 0, back == 2, v[i].b, hq, hkv, v[i].s, d,
                                     { step * 2 * hq * d, d, 2 * hq * d },
                                     { step * 2 * hkv * d, d, 2 * hkv * d },
                                     { step, v[i].rows, 1 }, 0.125f, 0 };
            const struct sdpa_plan *p = NULL;

            if (back == 2 && v[i].s > 8192)
                continue;
            if (sdpa_plan(s, &sh, &p, &e) < 0)
                fail_msg("%s", e.msg);
            print_message("# %lld x %lld, %lld/%lld of %lld, %s: workspace %.1f MiB\n",
                          (long long)v[i].b, (long long)v[i].s, (long long)hq, (long long)hkv,
                          (long long)d, back == 2 ? "det" : back ? "back" : "forward",
                          (double)sdpa_workspace(p) / 0x1p20);
        }
    sdpa_close(s);
}

/* A group that began on another rank, chunks of queries that see all before them. */
static void test_more_keys_than_queries(void **state)
{
    static const struct { int64_t b, hq, hkv, s, keys, d; } v[] = {
        { 1, 16, 16, 12800, 25600, 128 }, { 1, 4, 2, 333, 500, 64 }, { 1, 8, 1, 16384, 131072, 128 },
    };

    (void)state;
    for (int k = 0; k < KINDS; k++) {
        struct sdpa *s = open_kind(&kinds[k]);
        struct err e = { 0 };

        if (!s)
            skip();
        for (size_t i = 0; i < sizeof v / sizeof *v; i++)
            for (int back = 0; back < 2; back++) {
                int64_t hq = v[i].hq, hkv = v[i].hkv, d = v[i].d;
                struct sdpa_shape sh = { back > 0, false, v[i].b, hq, hkv, v[i].s, d,
                                         { v[i].s * hq * d, d, hq * d },
                                         { v[i].keys * hkv * d, d, hkv * d },
                                         { v[i].s, v[i].s, 1 }, 0.125f, v[i].keys };
                size_t most = back ? cuda_sdpa_bytes(kinds[k].sm, false, hq > hkv, v[i].b, hq,
                                                     v[i].keys, d) : CUDA_SDPA_SLACK;
                const struct sdpa_plan *p = NULL;

                if (sdpa_plan(s, &sh, &p, &e) < 0)
                    fail_msg("sm_%d: %s", kinds[k].sm, e.msg);
                if (sdpa_workspace(p) > most)
                    fail_msg("sm_%d, %lld of %lld: %zu bytes, planned are %zu", kinds[k].sm,
                             (long long)v[i].s, (long long)v[i].keys, sdpa_workspace(p), most);
            }
        sdpa_close(s);
    }
}

/* What cuDNN asks for is what is planned for, on every architecture: no more, and less by no more
 * than the slack; of a forward no more than that. */
static void test_workspaces(void **state)
{
    static const struct { int64_t b, hq, hkv, s, d; } v[] = {
        { 1, 32, 32, 8192, 128 }, { 1, 32, 8, 8192, 128 }, { 4, 16, 4, 2048, 128 },
        { 1, 32, 8, 3000, 128 },  { 1, 8, 8, 1000, 64 },   { 2, 4, 4, 100, 32 },
    };

    (void)state;
    for (int k = 0; k < KINDS; k++) {
        struct sdpa *s = open_kind(&kinds[k]);
        struct err e = { 0 };
        if (!s)
            skip();
        for (size_t i = 0; i < sizeof v / sizeof *v; i++)
            for (int back = 0; back < 3; back++) {
                int64_t b = v[i].b, hq = v[i].hq, hkv = v[i].hkv, n = v[i].s, d = v[i].d;
                struct sdpa_shape sh = { back > 0, back == 2, b, hq, hkv, n, d,
                                         { n * hq * d, d, hq * d }, { n * hkv * d, d, hkv * d },
                                         { n, b * n, 1 }, 0.125f, 0 };
                size_t most = back ? cuda_sdpa_bytes(kinds[k].sm, back == 2, hq > hkv, b, hq, n, d)
                                   : CUDA_SDPA_SLACK;
                const struct sdpa_plan *p = NULL;
                if (sdpa_plan(s, &sh, &p, &e) < 0)
                    fail_msg("%s", e.msg);
                if (sdpa_workspace(p) > most || sdpa_workspace(p) + CUDA_SDPA_SLACK < most)
                    fail_msg("sm_%d, %lld x %lld, %lld/%lld heads of %lld, %d: cuDNN asks for %zu "
                             "bytes, planned are %zu", kinds[k].sm, (long long)b, (long long)n,
                             (long long)hq, (long long)hkv, (long long)d, back,
                             sdpa_workspace(p), most);
            }
        sdpa_close(s);
    }
}

static void check_runs(const int64_t *cu, int64_t n, const char *want)
{
    struct op_segments s = { .n = n, .cu = cu };
    struct run r[6];
    char got[256] = "";
    int k = runs_find(&s, r, 6);

    for (int i = 0; i < k; i++)
        sprintf(got + strlen(got), "%s%lld+%lldx%lld/%lld", i ? " " : "", (long long)r[i].first,
                (long long)r[i].step, (long long)r[i].n, (long long)r[i].len);
    assert_string_equal(k < 0 ? "none" : got, want);
}

static void test_runs(void **state)
{
    static const int64_t s2[] = { 0, 4, 8, 12, 16 }, shift[] = { 0, 2, 6, 10, 14, 16 };
    static const int64_t two[] = { 0, 2, 6, 10, 14, 16, 18, 22, 26, 30, 32 }, one[] = { 0, 9 };
    static const int64_t any[] = { 0, 1, 3, 6, 10, 15, 21, 28 }, gap[] = { 0, 0, 3, 3, 6 };
    int64_t many[45];

    (void)state;
    check_runs(s2, 4, "0+4x4/4");
    check_runs(shift, 5, "0+14x2/2 2+4x3/4");
    check_runs(two, 10, "0+14x2/2 2+8x4/4 6+16x2/4 16+14x2/2");
    check_runs(one, 1, "0+9x1/9");
    check_runs(any, 7, "none");
    check_runs(gap, 4, "0+3x2/3");
    for (int i = 0; i <= 8; i++) /* 8 sequences of 16 */
        for (int j = 0; j < 5; j++)
            many[5 * i + j] = i < 8 ? 16 * i + shift[j] : 128;
    check_runs(many, 40, "0+16x8/2 2+8x16/4 6+16x8/4 14+16x8/2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs),
        cmocka_unit_test(test_more_keys_than_queries),
        cmocka_unit_test(test_every_shape_can_be_planned),
        cmocka_unit_test(test_workspaces),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
