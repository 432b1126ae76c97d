/* formats/weights/tensor.h - a tensor of whatever file: what stands between files and the model. */
#ifndef FORMATS_WEIGHTS_TENSOR_H
#define FORMATS_WEIGHTS_TENSOR_H
#include "base/tensor_type.h"
C_BEGIN

#define TENSOR_DIMS 8

/* A view: all that it names belongs to the reader of the file, and lives as long as it is open. A
 * matrix [out][in] has out first. */
struct tensor {
    const char *name;
    const struct tensor_type *type;
    int dims;
    int64_t shape[TENSOR_DIMS];
    int64_t count;     /* product of shape */
    const void *data;  /* nbytes, aligned only as the file aligns them */
    size_t nbytes;
    const void *scale; /* type->scale_bytes of a matrix, or NULL */
    const char *file;  /* its path, for messages */
};

/* Values [first, first + n) as float32; multiples of type->block. E_DATA naming the type where it
 * is nothing to compute with (type_real). */
int tensor_to_f32(const struct tensor *t, int64_t first, int64_t n, float *out, struct err *e);

C_END
#endif
