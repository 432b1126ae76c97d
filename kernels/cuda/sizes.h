/* kernels/cuda/sizes.h - scratch that the CUDA device's ops want: a plan needs it without a GPU. */
#ifndef KERNELS_CUDA_SIZES_H
#define KERNELS_CUDA_SIZES_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CUDA_DET_BYTES ((int64_t)4 << 30) /* most workspace of one deterministic call */
/* What opening takes of the card (context, libraries, their workspace: 0.6 GiB on an H200), for
 * a card that is not here; and what ops, libraries and kernels that are loaded late take for
 * themselves (0.45 GiB at 100k tokens). */
#define CUDA_OPEN_BYTES  ((size_t)600 << 20)
#define CUDA_LATER_BYTES ((size_t)640 << 20)

/* The scratch of attention's backward: sum(do * o), then from a round address the float32
 * gradient of the queries or, for a deterministic one, cuDNN's workspace. */
static inline size_t cuda_sum_bytes(int64_t rows, int64_t heads)
{
    return ((size_t)rows * (size_t)heads * sizeof(float) + 255) / 256 * 256;
}

static inline size_t cuda_rest_bytes(bool cudnn, bool deterministic, int64_t rows, int64_t heads,
                                     int64_t dim)
{
    double each = 2.0 * (double)heads * (double)rows * (double)rows;

    if (!cudnn)
        return 0;
    if (deterministic)
        return each < (double)CUDA_DET_BYTES ? (size_t)each : (size_t)CUDA_DET_BYTES;
    return (size_t)rows * (size_t)heads * (size_t)dim * sizeof(float);
}

/* Logits in float32, their gradient in bfloat16: rows of whole 16 bytes, which products want (a
 * vocabulary of 32001 would leave 2). */
static inline int64_t cuda_loss_ld(int64_t vocab) { return (vocab + 7) / 8 * 8; }
static inline size_t cuda_loss_bytes(int64_t chunk, int64_t vocab)
{
    return (size_t)chunk * (size_t)cuda_loss_ld(vocab) * (sizeof(float) + 2) + 512;
}
#endif
