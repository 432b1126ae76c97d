/* kernels/rate.c - see rate.h. */
#include "kernels/rate.h"

#include "base/log.h"

#include <math.h>

#define LONG_ENOUGH_S 0.02
enum { SMALLEST = 128, REPEATS = 5 };

/* The rate of the best of a few square products, n x n x n: the first ones are slower than
 * those of a run, which find everything prepared. n is halved until three matrices fit. */
int rate_matrix(struct device *d, size_t room, double *flop_s, struct err *e)
{
    int64_t n = d->own_memory ? 8192 : 768;
    double begun = now_s();
    size_t bytes;
    char *p;
    int rc;

    while (n > SMALLEST && 3 * (size_t)(n * n) * dtype_bytes(d->act) > room)
        n /= 2;
    bytes = (size_t)(n * n) * dtype_bytes(d->act);
    *flop_s = 0;
    if ((rc = d->alloc(d, 3 * bytes, (void **)&p, e)) < 0)
        return rc;
    rc = d->sync(d, e); /* the memory is cleared */
    /* two at least, and more of them only while they are short */
    for (int i = 0; rc == 0 && i < REPEATS && (i < 2 || now_s() - begun < LONG_ENOUGH_S); i++) {
        struct op_gemm g = { .trans_b = true, .m = n, .n = n, .k = n, .alpha = 1, .a = p,
                             .b = mat_plain(d->act, p + bytes), .c = p + 2 * bytes, .lda = n, .ldb = n, .ldc = n,
                             .c_type = d->act };
        double start = now_s();

        if ((rc = d->gemm(d, &g)) < 0)
            err_set(e, rc, "a matrix product failed on '%s'", d->name);
        else if ((rc = d->sync(d, e)) == 0)
            *flop_s = fmax(*flop_s, 2.0 * pow((double)n, 3) / fmax(now_s() - start, 1e-9));
    }
    d->release(d, p);
    return rc;
}
