/* kernels/mat.h - a matrix with a type, as products read it. */
#ifndef KERNELS_MAT_H
#define KERNELS_MAT_H
#include "base/tensor_type.h"
C_BEGIN

/* A matrix that products read, in the device's memory. */
struct mat {
    const struct tensor_type *type;
    const void *data;
    const void *scale; /* type->scale_bytes of them, or NULL */
};

/* Plain floats at p. */
static inline struct mat mat_plain(enum dtype t, const void *p)
{
    struct mat m = { dtype_type(t), p, NULL };

    return m;
}

/* A matrix laid out in one piece: its values, then, from a multiple of 256 bytes on, its scales.
 * mat_bytes: of all of it, SIZE_MAX on overflow. */
size_t mat_bytes(const struct tensor_type *t, int64_t rows, int64_t cols);
struct mat mat_at(const struct tensor_type *t, const void *p, int64_t rows, int64_t cols);

C_END
#endif
