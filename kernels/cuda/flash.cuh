/* kernels/cuda/flash.cuh - what the kernels of our own attention share. */
#ifndef KERNELS_CUDA_FLASH_CUH
#define KERNELS_CUDA_FLASH_CUH
#include "kernels/attention.h"
#include "kernels/cuda/bf16.cuh"
#include "kernels/cuda/cuda.h"

#define L2_BYTES ((int64_t)32 << 20) /* of two arrays' rows that many blocks read */

/* What a kernel needs of the op. The bounds are attention.h's, by half; the kernels for queries
 * that are their own keys want key_first and query_end alone. dp, ld, ldo for the kernels of
 * flash_any.cu: dim padded, a tile's row in shared memory. */
struct flash {
    struct op_attention_back b;
    const int32_t *key_first[2], *key_end[2], *query_first[2], *query_end[2];
    int32_t dim, dp, ld, ldo;
    int32_t together; /* heads that are worked on at a time */
};

static inline struct flash flash_of(const struct op_attention_back *b,
                                    const struct attention_bounds bounds[2])
{
    int64_t rows = b->fwd.q_rows > 0 ? b->fwd.q_rows : 1;
    struct flash f;

    f.b = *b;
    for (int half = 0; half < 2; half++) {
        f.key_first[half] = bounds[half].key_first;
        f.key_end[half] = bounds[half].key_end;
        f.query_first[half] = bounds[half].query_first;
        f.query_end[half] = bounds[half].query_end;
    }
    f.dim = (int32_t)b->fwd.dim;
    f.dp = (f.dim + 15) / 16 * 16;
    f.ld = f.dp + 8;
    f.ldo = f.dp + 4;
    f.together = (int32_t)lesser(L2_BYTES / (rows * b->fwd.dim * 4), b->fwd.heads);
    if (f.together < 4) /* long enough that a head's last blocks do not count */
        f.together = 1;
    return f;
}

static __device__ __forceinline__ int half_of(const struct flash &f, int64_t h)
{
    return h < f.b.fwd.heads / 2 ? 0 : 1;
}

/*
 * A block's head and which of its tiles, the most laborious first: late blocks are short ones, and
 * the card runs dry at once. Heads go by groups of f.together, whose rows the L2 cache can hold.
 */
struct flash_place {
    int head, tile;
};
static __device__ __forceinline__ struct flash_place flash_place_of(const struct flash &f,
                                                                    int heads)
{
    int block = (int)blockIdx.x, each = f.together * ((int)gridDim.x / heads);
    int from = block / each * f.together, here = min(f.together, heads - from);
    struct flash_place p = { from + block % each % here, block % each / here };

    return p;
}

/* A kernel's shared memory may be more than 48 KiB: that has to be asked for. */
static inline int flash_shared_memory(struct cuda *c, const void *kernel, size_t bytes)
{
    return cuda_check(c, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                              (int)bytes), "attention");
}

static inline int flash_launch(struct cuda *c, void (*kernel)(const struct flash),
                               int64_t blocks, int threads, size_t bytes, const struct flash *f)
{
    struct flash arg = *f;
    void *args[] = { &arg };
    int rc = flash_shared_memory(c, (const void *)kernel, bytes);

    return rc ? rc : cuda_check(c, cudaLaunchKernel((const void *)kernel, dim3((unsigned)blocks),
                                                    dim3((unsigned)threads), args, bytes,
                                                    c->stream), "attention");
}

/* flash_forward.cu, flash_back.cu, flash_keys.cu: head dimension 64 and 128, rows aligned to 16
 * bytes. */
int flash_forward_tiles(struct cuda *c, const struct flash *f);
int flash_backward_tiles(struct cuda *c, const struct flash *f);
int flash_backward_keys(struct cuda *c, const struct flash *f);
/* flash_any.cu: head dimension to 256, all that op_attention allows. */
int flash_forward_any(struct cuda *c, const struct flash *f);
int flash_backward_any(struct cuda *c, const struct flash *f);
#endif
