/* train/order.h - which row of the data comes when: a pure function of seed and number. */
#ifndef TRAIN_ORDER_H
#define TRAIN_ORDER_H
#include "base/err.h"
#include <stdint.h>
C_BEGIN

/*
 * The data set is n_tokens in one array; row r is the window [r * ctx, (r + 1) * ctx), and what
 * does not fill a row is left out. Sequence k of the run (step s of b sequences has k = s * b
 * .. s * b + b - 1, s from 0) is row perm_at(k mod rows, rows, seed, k / rows): every epoch
 * sees each row once, in an order of its own. Nothing is remembered, so going on from step s
 * costs nothing, and the number of devices does not enter. Rows of a packing (pack_rows.h) come
 * in the same order: then n_tokens is that of its rows, padding and all.
 */
struct order {
    int64_t rows, ctx, batch;
    uint64_t seed;
};

/* E_CONFIG when not one row is full. name is the data's, for the message. */
int order_make(struct order *o, int64_t n_tokens, int64_t ctx, int64_t batch, uint64_t seed,
               const char *name, struct err *e);
int64_t order_row(const struct order *o, int64_t k);
/* Passes over the rows after s steps, with fraction. */
double order_epoch(const struct order *o, int64_t s);

C_END
#endif
