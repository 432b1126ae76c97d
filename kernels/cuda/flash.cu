/* kernels/cuda/flash.cu - our own segmented causal attention: which of its kernels runs. */
#include "kernels/attention.h"
#include "kernels/cuda/flash.cuh"

/*
 * cuda_attention.c calls this for what cuDNN does not take: rows cut by documents, windows,
 * keys in a cache, capped scores, heads of more than 128 channels. Two sets of kernels: the fast ones
 * (flash_forward.cu, flash_back.cu, flash_keys.cu) for training with heads of 64 or 128 channels and no
 * cap, and flash_any.cu for everything else. Both learn what a row may see from two arrays (attention.h). Of documents of 3 and 5
 * rows:
 *
 *     row         0 1 2 3 4 5 6 7
 *     key_first   0 0 0 3 3 3 3 3     query r sees keys key_first[r] .. r
 *     query_end   3 3 3 8 8 8 8 8     key k is seen by queries k .. query_end[k] - 1
 */

/* The fast kernels copy 16 bytes at a time and count rows and blocks in 32 bits, a tile past
 * the end included. */
static bool tiles_take(const struct flash *f, bool own)
{
    const struct op_attention_back *b = &f->b;
    const struct op_attention *a = &b->fwd;

    return own && a->cap == 0 && (a->dim == 64 || a->dim == 128) && a->q_ld % 8 == 0 &&
           a->kv_ld % 8 == 0 && a->q_rows < INT32_MAX - 1024 &&
           (a->q_rows / 128 + 1) * a->heads < INT32_MAX / 2 && a->scale > 0 &&
           aligned16(a->q) && aligned16(a->k) && aligned16(a->v) && aligned16(a->o) &&
           aligned16(b->d_o) && aligned16(b->dq) && aligned16(b->dk) && aligned16(b->dv);
}

/* One text's queries behind its cache, the last of which sees all keys: the tiles of the forward take it
 * as well. */
static bool behind_cache(const struct op_attention *a)
{
    for (int half = 0; half < 2; half++) {
        const struct op_segments *s = &a->seg[half];
        if (s->n != 1 || !s->first || a->window || s->first[0] < 0 ||
            s->first[0] + a->q_rows != a->kv_rows)
            return false;
    }
    return a->kv_rows < INT32_MAX - 1024;
}

extern "C" int flash_forward(struct cuda *c, const struct op_attention *a,
                             const struct attention_bounds bounds[2])
{
    struct op_attention_back b = { *a, NULL, NULL, NULL, NULL, NULL };
    struct flash f = flash_of(&b, bounds);

    return tiles_take(&f, attention_square(a) || behind_cache(a)) ? flash_forward_tiles(c, &f) : flash_forward_any(c, &f);
}

extern "C" int flash_backward(struct cuda *c, const struct op_attention_back *b,
                              const struct attention_bounds bounds[2])
{
    struct flash f = flash_of(b, bounds);

    return tiles_take(&f, attention_square(&b->fwd)) ? flash_backward_tiles(c, &f) : flash_backward_any(c, &f);
}
