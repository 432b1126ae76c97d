/* kernels/cuda/flash.cu - our own segmented causal attention, for what cuDNN does not take: head
 * dimension 64 and 128 of queries that are their own keys by flash_forward.cu and flash_back.cu,
 * all others by flash_any.cu. */
#include "kernels/attention.h"
#include "kernels/cuda/flash.cuh"

/* What the tiles of flash_forward.cu and flash_back.cu take: queries and keys of the same rows,
 * whole 16-byte pieces, numbers of rows and of blocks that do not wrap, also a tile past the end. */
static bool tiles_take(const struct flash *f)
{
    const struct op_attention_back *b = &f->b;
    const struct op_attention *a = &b->fwd;

    return attention_square(a) && (a->dim == 64 || a->dim == 128) && a->q_ld % 8 == 0 &&
           a->kv_ld % 8 == 0 && a->q_rows < INT32_MAX - 1024 &&
           (a->q_rows / 128 + 1) * a->heads < INT32_MAX / 2 && a->scale > 0 &&
           aligned16(a->q) && aligned16(a->k) && aligned16(a->v) && aligned16(a->o) &&
           aligned16(b->d_o) && aligned16(b->dq) && aligned16(b->dk) && aligned16(b->dv);
}

extern "C" int flash_forward(struct cuda *c, const struct op_attention *a,
                             const struct attention_bounds bounds[2])
{
    struct op_attention_back b = { *a, NULL, NULL, NULL, NULL, NULL };
    struct flash f = flash_of(&b, bounds);

    return tiles_take(&f) ? flash_forward_tiles(c, &f) : flash_forward_any(c, &f);
}

extern "C" int flash_backward(struct cuda *c, const struct op_attention_back *b,
                              const struct attention_bounds bounds[2])
{
    struct flash f = flash_of(b, bounds);

    return tiles_take(&f) ? flash_backward_tiles(c, &f) : flash_backward_any(c, &f);
}
