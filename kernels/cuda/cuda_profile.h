/* kernels/cuda/cuda_profile.h - where a CUDA device's time went, by kind of op. */
#ifndef KERNELS_CUDA_CUDA_PROFILE_H
#define KERNELS_CUDA_CUDA_PROFILE_H
#include "kernels/kernels.h"
C_BEGIN

enum cuda_kind {
    CUDA_GEMM, CUDA_ATTENTION, CUDA_ATTENTION_BACK, CUDA_LOSS, /* the matrix ops: always timed */
    CUDA_NORM, CUDA_NORM_BACK, CUDA_ROPE, CUDA_SWIGLU, CUDA_SWIGLU_BACK, CUDA_EMBED,
    CUDA_EMBED_BACK, CUDA_ADAMW, CUDA_VEC, CUDA_COPY, CUDA_KINDS
};

struct cuda_profile {
    struct {
        const char *name;
        int64_t calls;
        double s, flop; /* flop of matrix products only */
    } kind[CUDA_KINDS];
};

/* What was timed since the device was opened, after a sync. Kinds past CUDA_LOSS only with
 * LONGLORA_CUDA_PROFILE=1. Exported by the device's module under this name. */
typedef void cuda_profile_fn(const struct device *d, struct cuda_profile *p);
__attribute__((visibility("default"))) cuda_profile_fn cuda_profile_read;

C_END
#endif
