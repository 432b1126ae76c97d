/* kernels/cuda/sizes.h - scratch that the CUDA device's ops want: a plan needs it without a GPU. */
#ifndef KERNELS_CUDA_SIZES_H
#define KERNELS_CUDA_SIZES_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CUDA_LEAST_SHARED ((int64_t)99 << 10) /* memory of a block: sm_86, 89 and 120 have no more */
#define CUDA_MOST_HEAD_DIM 256 /* of our own attention, on every card; cuDNN's takes 128 */
#define CUDA_DET_BYTES ((int64_t)4 << 30) /* most of it for scores, of one deterministic call */
/* What opening takes of the card (context, libraries, their workspace: 0.6 GiB on an H200), for
 * a card that is not here; and what ops, libraries and kernels that are loaded late take for
 * themselves (0.45 GiB at 100k tokens). */
#define CUDA_OPEN_BYTES  ((size_t)600 << 20)
#define CUDA_LATER_BYTES ((size_t)640 << 20)

/* What a call of cuDNN's backward wants beside: b segments of s rows, hq query heads of d channels,
 * shared: by fewer key heads. 9.19 asks for the gradient of the queries in float32 once where the
 * card does not reduce into memory by itself (sm_90 and, from 64 channels, sm_100 do), and once for
 * shared keys; a deterministic one for the scores, bf16, of rows that fill tiles, and once for
 * shared keys. make check-plans asks it for six architectures. Some bytes for its own rounding. */
#define CUDA_SDPA_SLACK ((size_t)16 << 10)
static inline size_t cuda_sdpa_bytes(int sm, bool deterministic, bool shared, int64_t b,
                                     int64_t hq, int64_t s, int64_t d)
{
    size_t unit = (size_t)b * (size_t)hq * (size_t)s * (size_t)d * sizeof(float);
    size_t units = shared, scores = 0, rows = (size_t)(s + 63) / 64 * 64;
    size_t cols = sm >= 90 && sm < 100 ? (size_t)(s + 127) / 128 * 128 : rows;

    if (deterministic)
        scores = (size_t)b * (size_t)hq * rows * cols * 2;
    else if (sm < 90 || sm >= 110 || (sm >= 100 && d < 64))
        units++;
    return units * unit + scores + CUDA_SDPA_SLACK;
}

/* The scratch of attention's backward: sum(do * o), then from round addresses the float32
 * gradient of the queries, where the backward is not deterministic, and cuDNN's workspace: enough
 * for all rows in one segment, and so for any segments. Deterministic calls are cut to fit. */
static inline size_t cuda_sum_bytes(int64_t rows, int64_t heads)
{
    return ((size_t)rows * (size_t)heads * sizeof(float) + 255) / 256 * 256;
}

static inline size_t cuda_acc_bytes(bool deterministic, int64_t rows, int64_t heads, int64_t dim)
{
    return deterministic ? 0 : ((size_t)rows * (size_t)heads * (size_t)dim * sizeof(float) + 255) /
                               256 * 256;
}

static inline size_t cuda_workspace_bytes(int sm, bool deterministic, int64_t rows, int64_t heads,
                                          int64_t kv_heads, int64_t dim)
{
    size_t most = cuda_sdpa_bytes(sm, deterministic, heads > kv_heads, 1, heads, rows, dim);
    double scores = 2.0 * (double)heads * (double)rows * (double)rows;

    if (deterministic && scores > (double)CUDA_DET_BYTES)
        return (size_t)CUDA_DET_BYTES +
               cuda_sdpa_bytes(90, false, heads > kv_heads, 1, heads, rows, dim);
    return most;
}

static inline size_t cuda_attention_bytes(bool cudnn, int sm, bool deterministic, int64_t rows,
                                          int64_t heads, int64_t kv_heads, int64_t dim)
{
    return cuda_sum_bytes(rows, heads) +
           (cudnn ? cuda_acc_bytes(deterministic, rows, heads, dim) +
                        cuda_workspace_bytes(sm, deterministic, rows, heads, kv_heads, dim)
                  : 0);
}

/* Logits in float32, their gradient in bfloat16: rows of whole 16 bytes, which products want (a
 * vocabulary of 32001 would leave 2). */
static inline int64_t cuda_loss_ld(int64_t vocab) { return (vocab + 7) / 8 * 8; }
static inline size_t cuda_loss_bytes(int64_t chunk, int64_t vocab)
{
    return (size_t)chunk * (size_t)cuda_loss_ld(vocab) * (sizeof(float) + 2) + 512;
}
#endif
