/* kernels/collective.c - see collective.h. */
#include "kernels/collective.h"

static int group_of_one(int rank, int size, struct err *e)
{
    if (rank == 0 && size == 1)
        return 0;
    return err_set(e, E_BUG, "rank %d of %d: only groups of one exist", rank, size);
}

int collective_sum(int rank, int size, float *x, int64_t n, struct err *e)
{
    (void)x, (void)n;
    return group_of_one(rank, size, e);
}

int collective_broadcast(int rank, int size, void *x, size_t nbytes, struct err *e)
{
    (void)x, (void)nbytes;
    return group_of_one(rank, size, e);
}
