/* formats/weights/pickle.h - the tensors that a pickle of torch.save describes, without running it. */
#ifndef FORMATS_WEIGHTS_PICKLE_H
#define FORMATS_WEIGHTS_PICKLE_H
#include "base/tensor_type.h"
#include "formats/weights/tensor.h"
C_BEGIN

/*
 * A pickle is a program for a machine with a stack; Python's can be told to call any function. This
 * machine has no calls: of the functions that a pickle may name it knows what rebuilds a tensor, a
 * storage of a type, a Parameter and an OrderedDict, and makes a note of them instead. Any other name
 * is refused. What is left on the stack must be a dict; its tensors are the result, and what else it
 * holds (numbers, texts, lists) is left out.
 */
struct pickle_tensor {
    const char *name; /* the pickle's bytes, not terminated */
    size_t name_bytes;
    const struct tensor_type *type;
    const char *key;  /* of the storage, likewise */
    size_t key_bytes;
    int64_t stored;   /* values of the storage */
    int64_t offset;   /* first value of the tensor in it */
    int dims;
    int64_t shape[TENSOR_DIMS], count;
};
struct pickle {
    struct pickle_tensor *at;
    size_t n;
};
/* All tensors are whole and in C order, inside their storage as the pickle gives its size. Memory is
 * bounded by the pickle's bytes, at most 8 MiB of them. E_DATA (names the function, the opcode, the
 * tensor), E_SYS. */
int pickle_read(struct pickle *p, const void *bytes, size_t nbytes, const char *file, struct err *e);
void pickle_free(struct pickle *p);

C_END
#endif
