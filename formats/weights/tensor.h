/* formats/weights/tensor.h - a tensor of whatever file: what stands between files and the model. */
#ifndef FORMATS_WEIGHTS_TENSOR_H
#define FORMATS_WEIGHTS_TENSOR_H
#include "base/tensor_type.h"
#include <stdbool.h>
C_BEGIN

#define TENSOR_DIMS 8

/* A view: all that it names belongs to the reader of the file, and lives as long as it is open. A
 * matrix [out][in] has out first. */
struct tensor {
    const char *name;
    const char *file_name; /* the file's, of files that do not name tensors as the family does (naming.h); else NULL */
    const struct tensor_type *type;
    int dims;
    int64_t shape[TENSOR_DIMS];
    int64_t count;     /* product of shape */
    const void *data;  /* nbytes, aligned only as the file aligns them */
    size_t nbytes;
    const void *scale; /* type->scale_bytes of a matrix, or NULL */
    const char *file;  /* its path, for messages */
    bool hashed;       /* the file says what the block_hash of data is: */
    uint64_t hash;
};

static inline const char *tensor_file_name(const struct tensor *t)
{
    return t->file_name ? t->file_name : t->name;
}

/* Values [first, first + n) as float32; multiples of type->block. E_DATA naming the type where it
 * is nothing to compute with (type_real). */
int tensor_to_f32(const struct tensor *t, int64_t first, int64_t n, float *out, struct err *e);

/* Of a tensor that is hashed: hash, of the bytes as they were read, is what the file says; of others
 * nothing is known. E_DATA naming tensor and file. */
int tensor_agrees(const struct tensor *t, uint64_t hash, struct err *e);
/* The same, after reading all of it here. */
int tensor_check(const struct tensor *t, struct err *e);

C_END
#endif
