/* formats/weights/tensor.c - see tensor.h. */
#include "formats/weights/tensor.h"

#include "base/block_hash.h"

#include <inttypes.h>

int tensor_to_f32(const struct tensor *t, int64_t first, int64_t n, float *out, struct err *e)
{
    const struct tensor_type *type = t->type;

    if (!type_real(type))
        return err_set(e, E_DATA, "values of type %s cannot be read as float32", type->name);
    /* A type with a function of its own, which may need the scale and the length of a row; the
     * others only need their place. */
    if (type->plain == DT_OTHER)
        type->to_f32(t->data, t->scale, t->dims ? t->shape[t->dims - 1] : 1, first, n, out);
    else
        floats_widen(type->plain, (const char *)t->data + (size_t)first * type->block_bytes, n,
                     out);
    return 0;
}

int tensor_agrees(const struct tensor *t, uint64_t hash, struct err *e)
{
    if (!t->hashed || hash == t->hash)
        return 0;
    err_set(e, E_DATA, "'%s': tensor '%.200s' was changed after it was written: its hash is "
            "%016" PRIx64 ", must be %016" PRIx64, t->file, t->name, hash, t->hash);
    return err_hint(e, "the file is damaged: copy it again, or make it again");
}

int tensor_check(const struct tensor *t, struct err *e)
{
    return t->hashed ? tensor_agrees(t, block_hash(t->data, t->nbytes), e) : 0;
}
