/* train/order.c - see order.h. */
#include "train/order.h"

#include "base/perm.h"

#include <inttypes.h>

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
