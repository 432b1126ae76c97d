/* kernels/product.h - how a device comes to multiply by matrices of further types. */
#ifndef KERNELS_PRODUCT_H
#define KERNELS_PRODUCT_H
#include "kernels/kernels.h"
C_BEGIN

/*
 * What a device does with matrices of one type that is not its own act. gemm: a->b is of that
 * type; loss multiplies by it too. embed: a->table is; NULL: embeddings of this type become act
 * when they are loaded. Both queue and fail as the ops of their names do.
 */
struct mat_product {
    const char *type; /* its name */
    int (*gemm)(struct device *d, const struct op_gemm *a);
    int (*embed)(struct device *d, const struct op_embed *a);
};

/* Adds one to those of an open device, which keeps the address; E_BUG where it is full. */
int device_add_product(struct device *d, const struct mat_product *p);
/* That of a type, NULL where the device has none (nor needs one: it is the device's act). */
const struct mat_product *device_product(const struct device *d, const struct tensor_type *t);

/* For a device's own gemm and embed, when the operand is not act: the product of its type, or
 * E_DEVICE, with the device and the type named in *fault unless that holds an error already. */
int mat_gemm(struct device *d, const struct op_gemm *a, struct err *fault);
int mat_embed(struct device *d, const struct op_embed *a, struct err *fault);

C_END
#endif
