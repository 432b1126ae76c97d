/* model/norm.c - the norms of layers and behind the last, of the family's kind. */
#include "model/inside.h"

void norm_forward(struct model *m, const struct weight *w, int64_t rows, const void *x, void *y, float *rstd)
{
    float eps = (float)m->c.norm_eps;

    if (m->rc < 0)
        return;
    if (config_arch(&m->c)->block.norm == NORM_LAYER)
        m->rc = m->d->layernorm(m->d, &(struct op_layernorm){ .rows = rows, .dim = w->in, .eps = eps,
            .x = x, .w = w->w, .b = w->bias ? w->bias->w : NULL, .y = y, .rstd = rstd });
    else
        m->rc = m->d->rmsnorm(m->d, &(struct op_rmsnorm){ .rows = rows, .dim = w->in, .eps = eps, .x = x,
            .w = w->w, .y = y, .rstd = rstd, .shift = norm_shift(m) });
}

void norm_backward(struct model *m, const struct weight *w, int64_t rows, const void *x, const void *dy,
                   const float *rstd, void *dx, bool overwrite)
{
    if (m->rc < 0)
        return;
    if (config_arch(&m->c)->block.norm == NORM_LAYER)
        m->rc = m->d->layernorm_back(m->d, &(struct op_layernorm_back){ .rows = rows, .dim = w->in, .x = x,
            .dy = dy, .w = w->w, .rstd = rstd, .dx = dx, .dw = w->grad,
            .db = w->bias ? w->bias->grad : NULL, .overwrite = overwrite });
    else
        m->rc = m->d->rmsnorm_back(m->d, &(struct op_rmsnorm_back){ .rows = rows, .dim = w->in, .x = x,
            .dy = dy, .w = w->w, .rstd = rstd, .dx = dx, .dw = w->grad, .overwrite = overwrite,
            .shift = norm_shift(m) });
}
