/* base/tensor_type.c - the types of plain floats; see tensor_type.h. */
#include "base/tensor_type.h"

const struct tensor_type type_f32 = { .name = "F32", .plain = DT_F32, .block = 1, .block_bytes = 4 };
const struct tensor_type type_f16 = { .name = "F16", .plain = DT_F16, .block = 1, .block_bytes = 2 };
const struct tensor_type type_bf16 = { .name = "BF16", .plain = DT_BF16, .block = 1,
                                       .block_bytes = 2 };

const struct tensor_type *dtype_type(enum dtype t)
{
    static const struct tensor_type *const types[] = { &type_f32, &type_f16, &type_bf16 };

    return types[t];
}

size_t dtype_bytes(enum dtype t) { return dtype_type(t)->block_bytes; }

bool type_real(const struct tensor_type *t) { return t->plain != DT_OTHER || t->to_f32; }

size_t type_bytes(const struct tensor_type *t, int64_t rows, int64_t cols)
{
    size_t n;

    /* A row that does not fill its last block has that block whole. */
    if (__builtin_mul_overflow(cols / t->block + (cols % t->block != 0), rows, &n) ||
        __builtin_mul_overflow(n, t->block_bytes, &n))
        return SIZE_MAX;
    return n;
}
