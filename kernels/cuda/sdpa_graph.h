/* kernels/cuda/sdpa_graph.h - shared by sdpa_plans.c and sdpa_graph.c only. */
#ifndef KERNELS_CUDA_SDPA_GRAPH_H
#define KERNELS_CUDA_SDPA_GRAPH_H
#include "kernels/cuda/cudnn_abi.h"
#include "kernels/cuda/sdpa.h"

enum { SDPA_DESCS = 160 };
enum sdpa_slot {
    SLOT_Q, SLOT_K, SLOT_V, SLOT_O, SLOT_LSE, SLOT_DO, SLOT_DQ, SLOT_DK, SLOT_DV, SLOT_ACC,
    SLOT_SUM, SLOT_VIRTUAL, SLOT_SCALAR
};

struct sdpa_plan {
    struct sdpa_shape shape;
    dnn_desc plan; /* NULL: cuDNN does not take the shape (or only planned) */
    bool ok;
    int64_t workspace, engine, used; /* used: when last, counted in uses of any */
    int n_tensors, n_scalars;
    int64_t uid[16], scalar_uid[8];
    enum sdpa_slot slot[16];
    union sdpa_scalar { float f; int32_t i; } scalar[8];
    char why[320];
    dnn_desc made[SDPA_DESCS]; /* all that the plan was made of, kept as long as it */
    int n_made;
};

/* Describes the shape's graph and has it planned; p->ok or p->why afterwards. */
void sdpa_build(const struct dnn *l, void *handle, dnn_desc device, struct sdpa_plan *p);
#endif
