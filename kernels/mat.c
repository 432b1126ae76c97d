/* kernels/mat.c - see mat.h. */
#include "kernels/mat.h"

/* the scales of a packed matrix begin at the next multiple of 256 bytes after its values */
enum { SCALES_AT = 256 };

static size_t rounded(size_t n) { return (n + SCALES_AT - 1) / SCALES_AT * SCALES_AT; }

/* SIZE_MAX: more than can be addressed. */
size_t mat_bytes(const struct tensor_type *t, int64_t rows, int64_t cols)
{
    size_t n = type_bytes(t, rows, cols);

    if (!t->scale_bytes || n > SIZE_MAX - SCALES_AT)
        return n;
    return __builtin_add_overflow(rounded(n), t->scale_bytes(rows, cols), &n) ? SIZE_MAX : n;
}

struct mat mat_at(const struct tensor_type *t, const void *p, int64_t rows, int64_t cols)
{
    struct mat m = { t, p, NULL };

    if (t->scale_bytes && p)
        m.scale = (const char *)p + rounded(type_bytes(t, rows, cols));
    return m;
}
