/* kernels/cuda/flash.cuh - what the kernels of our own attention share. */
#ifndef KERNELS_CUDA_FLASH_CUH
#define KERNELS_CUDA_FLASH_CUH
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/cuda.h"

/* What a kernel needs of the op. The last three for the kernels of flash.cu: dim padded, a tile's
 * row in shared memory. */
struct flash {
    struct op_attention_back b;
    const int32_t *first[2], *end[2]; /* by half: of each row's segment */
    int32_t dim, dp, ld, ldo;
};

static __device__ __forceinline__ int half_of(const struct flash &f, int64_t h)
{
    return h < f.b.fwd.heads / 2 ? 0 : 1;
}

/* A kernel's shared memory, beyond 48 KiB too. */
static inline int flash_room(struct cuda *c, const void *kernel, size_t bytes)
{
    return cuda_check(c, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                              (int)bytes), "attention");
}

/* flash_forward.cu, flash_back.cu: head dimension 64 and 128, 16-byte aligned rows. */
int flash_forward_tiles(struct cuda *c, const struct flash *f);
int flash_backward_tiles(struct cuda *c, const struct flash *f);
#endif
