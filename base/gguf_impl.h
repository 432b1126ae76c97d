/* base/gguf_impl.h - what the files of gguf.h share; no one else includes it. */
#ifndef BASE_GGUF_IMPL_H
#define BASE_GGUF_IMPL_H
#include "base/gguf.h"

struct gguf {
    struct gguf_value *values;
    struct gguf_tensor *tensors;
    int64_t n_values, n_tensors;
    char *keys, *names; /* of values and of tensors, a NUL after each */
    char *name;
    const void *map; /* NULL: the bytes are the caller's */
    size_t map_bytes;
};

#endif
