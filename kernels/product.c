/* kernels/product.c - see product.h. */
#include "kernels/product.h"

#include <string.h>

int device_add_product(struct device *d, const struct mat_product *p)
{
    if (d->n_products == MAT_PRODUCTS)
        return E_BUG;
    d->products[d->n_products++] = p;
    return 0;
}

const struct mat_product *device_product(const struct device *d, const struct tensor_type *t)
{
    for (int i = 0; i < d->n_products; i++)
        if (strcmp(d->products[i]->type, t->name) == 0)
            return d->products[i];
    return NULL;
}

/* Notes why, once; the device's next sync tells it. */
static int unknown(const struct device *d, const struct tensor_type *t, struct err *fault)
{
    if (fault->code == 0)
        err_set(fault, E_DEVICE, "device '%s' cannot compute with matrices of type %s", d->name,
                t->name);
    return E_DEVICE;
}

int mat_gemm(struct device *d, const struct op_gemm *a, struct err *fault)
{
    const struct mat_product *p = device_product(d, a->b.type);

    return p ? p->gemm(d, a) : unknown(d, a->b.type, fault);
}

int mat_embed(struct device *d, const struct op_embed *a, struct err *fault)
{
    const struct mat_product *p = device_product(d, a->table.type);

    return p && p->embed ? p->embed(d, a) : unknown(d, a->table.type, fault);
}
