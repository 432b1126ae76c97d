/* train/order.c - see order.h. */
#include "train/order.h"

#include "base/perm.h"

#include <inttypes.h>

/*
 * A shuffle of which any element can be computed alone. perm_at(i, n, seed, epoch) is a
 * permutation of 0 .. n-1 given by a formula (base/perm.h), so which row is the k-th is known
 * without the k - 1 before it, and nothing is stored. With 5 rows and 2 sequences a step:
 *
 *     epoch 0: rows 3 0 4 1 2    epoch 1: rows 1 4 0 2 3    (say)
 *     step 0: 3 0   step 1: 4 1   step 2: 2 | 1   step 3: 4 0   ...
 *
 * A run continued at step 3 begins with rows 4 and 0; of two ranks, each computes one of them.
 */
int order_make(struct order *o, int64_t n_tokens, int64_t ctx, int64_t batch, uint64_t seed,
               const char *name, struct err *e)
{
    *o = (struct order){ .rows = n_tokens / ctx, .ctx = ctx, .batch = batch, .seed = seed };
    if (o->rows > 0)
        return 0;
    err_set(e, E_CONFIG, "'%s' has %" PRId64 " tokens, too few for one row of %" PRId64, name,
            n_tokens, ctx);
    return err_hint(e, "add text, or lower --ctx");
}

int64_t order_row(const struct order *o, int64_t k)
{
    return (int64_t)perm_at((uint64_t)(k % o->rows), (uint64_t)o->rows, o->seed,
                            (uint64_t)(k / o->rows));
}

double order_epoch(const struct order *o, int64_t s)
{
    return (double)s * (double)o->batch / (double)o->rows;
}
