/* kernels/cuda/cudnn_abi.h - the part of cuDNN 9's backend interface that attention uses. */
#ifndef KERNELS_CUDA_CUDNN_ABI_H
#define KERNELS_CUDA_CUDNN_ABI_H
#include <stddef.h>
#include <stdint.h>

/* The library is found at run time, so that neither its headers nor it are needed to build. The
 * numbers are those of its documented, stable binary interface (docs.nvidia.com, cuDNN backend
 * API); tests/gpu/test_cuda_plans.c holds them against <cudnn.h> where that is installed. */
typedef void *dnn_desc;

enum { DNN_F32 = 0, DNN_I32 = 4, DNN_BF16 = 9, DNN_BOOL = 11 };
enum {
    DNN_POINTWISE = 0, DNN_ENGINE = 2, DNN_ENGINECFG = 3, DNN_ENGINEHEUR = 4, DNN_PLAN = 5,
    DNN_OP_POINTWISE = 13, DNN_GRAPH = 15, DNN_PACK = 16, DNN_TENSOR = 17, DNN_MATMUL = 18,
    DNN_OP_MATMUL = 19, DNN_REDUCTION = 21, DNN_OP_REDUCTION = 22, DNN_OP_RESHAPE = 31,
    DNN_DEVICEPROP = 38
};
enum {
    DNN_T_HANDLE = 0, DNN_T_DATA_TYPE = 1, DNN_T_BOOL = 2, DNN_T_INT64 = 3, DNN_T_PTR = 6,
    DNN_T_HEUR = 8, DNN_T_POINTWISE = 14, DNN_T_DESC = 15, DNN_T_REDUCE = 18, DNN_T_CHAR = 24
};
enum {
    DNN_POINTWISE_MODE = 0, DNN_POINTWISE_PREC = 1, DNN_POINTWISE_AXIS = 9,
    DNN_HEUR_MODE = 200, DNN_HEUR_GRAPH = 201, DNN_HEUR_RESULTS = 202, DNN_HEUR_DEVICEPROP = 204,
    DNN_CFG_ENGINE = 300, DNN_CFG_WORKSPACE = 303,
    DNN_PLAN_HANDLE = 400, DNN_PLAN_CFG = 401, DNN_PLAN_WORKSPACE = 402, DNN_PLAN_DEVICEPROP = 407,
    DNN_OPPW_PW = 750, DNN_OPPW_X = 751, DNN_OPPW_B = 752, DNN_OPPW_Y = 753, DNN_OPPW_T = 758,
    DNN_GRAPH_HANDLE = 800, DNN_GRAPH_OPS = 801,
    DNN_TENSOR_ALIGN = 900, DNN_TENSOR_TYPE = 901, DNN_TENSOR_DIMS = 902, DNN_TENSOR_STRIDES = 903,
    DNN_TENSOR_UID = 906, DNN_TENSOR_VIRTUAL = 907, DNN_TENSOR_BY_VALUE = 908,
    DNN_PACK_UIDS = 1000, DNN_PACK_POINTERS = 1001, DNN_PACK_WORKSPACE = 1003,
    DNN_ENGINE_INDEX = 1301,
    DNN_MATMUL_PREC = 1500, DNN_OPMM_A = 1520, DNN_OPMM_B = 1521, DNN_OPMM_C = 1522,
    DNN_OPMM_MATMUL = 1523,
    DNN_REDUCTION_OP = 1600, DNN_REDUCTION_PREC = 1601, DNN_OPRED_X = 1610, DNN_OPRED_Y = 1611,
    DNN_OPRED_REDUCTION = 1612,
    DNN_RESHAPE_X = 2200, DNN_RESHAPE_Y = 2201, DNN_PROP_JSON = 2702
};
enum { DNN_HEUR_FALLBACK = 2, DNN_HEUR_A = 3 };
enum {
    DNN_ADD = 0, DNN_MUL = 1, DNN_DIV = 6, DNN_SUB = 9, DNN_EXP = 13, DNN_LOG = 15,
    DNN_IDENTITY = 21, DNN_CMP_GE = 303, DNN_GEN_INDEX = 501, DNN_SELECT = 601
};
enum { DNN_REDUCE_ADD = 0, DNN_REDUCE_MAX = 3 };

/* A status of 0 is success; enumerations are ints. */
struct dnn {
    size_t (*version)(void);
    int (*create)(void **handle);
    int (*destroy)(void *handle);
    int (*set_stream)(void *handle, void *stream);
    const char *(*error_string)(int status);
    void (*last_error)(char *msg, size_t cap);
    int (*desc_create)(int type, dnn_desc *d);
    int (*desc_destroy)(dnn_desc d);
    int (*desc_finalize)(dnn_desc d);
    int (*desc_set)(dnn_desc d, int name, int type, int64_t n, const void *values);
    int (*desc_get)(dnn_desc d, int name, int type, int64_t room, int64_t *n, void *values);
    int (*execute)(void *handle, dnn_desc plan, dnn_desc pack);
};
#endif
