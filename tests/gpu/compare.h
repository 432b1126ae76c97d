/* tests/gpu/compare.h - one step of a model on a GPU against the same on the CPU. */
#ifndef TESTS_GPU_COMPARE_H
#define TESTS_GPU_COMPARE_H
#include "tests/gpu/gputest.h"

#include "model/model.h"

/* How far off, as shares: the loss; ||got - want|| / ||want|| of every tensor, where 'least' is added to
 * the square of what may be, and of all. */
struct bounds { double loss, each, least, all; };

/* got and want are gradients of t's parameters. */
static inline void compare_steps(const char *name, const struct trained *t, double loss, const float *got,
                                 double want_loss, const float *want, const struct bounds *b)
{
    double all = 0, all_norm = 0;

    if (!(fabs(loss - want_loss) < b->loss * want_loss))
        fail_msg("%s: loss %.6f, on the CPU %.6f", name, loss, want_loss);
    for (int64_t i = 0; i < t->n_params; i++) {
        const struct param *p = &t->params[i];
        double off = 0, norm = 0;
        for (int64_t j = p->offset; j < p->offset + p->count; j++) {
            off += ((double)got[j] - want[j]) * ((double)got[j] - want[j]);
            norm += (double)want[j] * want[j];
        }
        all += off, all_norm += norm;
        if (!(off <= b->each * b->each * norm + b->least))
            fail_msg("%s: the gradient of %s is off by %.3g of its norm %.3g", name, p->name,
                     sqrt(off / norm), sqrt(norm));
    }
    printf("# %s: loss %.5f (CPU %.5f), gradients off by %.2f%%\n", name, loss, want_loss,
           100 * sqrt(all / all_norm));
    assert_true(all <= b->all * b->all * all_norm);
}
#endif
