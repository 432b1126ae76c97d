/* formats/weights/turned.c - see turned.h. */
#include "formats/weights/turned.h"

#include <string.h>

/* The row that comes in the place of row r. */
static int64_t source_row(const struct turn *t, int64_t r)
{
    int64_t n = t->rows.head, heads = t->rows.heads, head = r / n, i = r % n, half = n / 2;

    if (heads > 0) /* back: by head q, k, v; else by q, k, v the heads */
        return (t->back ? head % 3 * heads + head / 3 : head % heads * 3 + head / heads) * n + i;
    return head * n + (t->back ? 2 * (i % half) + i / half : i % 2 * half + i / 2);
}

static void turned_to_f32(const void *data, const void *how, int64_t cols, int64_t first, int64_t n,
                          float *out)
{
    const struct turn *t = how;
    struct tensor rows = { .type = t->of, .dims = 2, .shape = { 1, t->cols }, .data = data };

    (void)cols;
    for (int64_t k; n > 0; first += k, out += k, n -= k) {
        int64_t at = first % t->cols;

        k = t->rows.head == 0 ? n : t->cols - at < n ? t->cols - at : n;
        tensor_to_f32(&rows, t->rows.head == 0 ? first : source_row(t, first / t->cols) * t->cols + at, k, out, 0);
        for (int64_t i = 0; i < k && t->rows.more != 0; i++)
            out[i] += t->back ? -t->rows.more : t->rows.more;
    }
}

/* By the stored type: it stays the name, and the bytes of a block. */
#define TURNED(n, b, bytes) \
    { .name = n, .plain = DT_OTHER, .block = b, .block_bytes = bytes, .to_f32 = turned_to_f32 }
static const struct tensor_type views[] = {
    TURNED("F32", 1, 4), TURNED("F16", 1, 2), TURNED("BF16", 1, 2), TURNED("Q8_0", 32, 34),
    TURNED("Q4_0", 32, 18), TURNED("Q4_1", 32, 20),
};

struct tensor tensor_turned(const struct tensor *t, struct turn *how, struct row_order rows, bool back)
{
    struct tensor view = *t;

    *how = (struct turn){ t->type, rows, t->dims > 1 ? t->shape[1] : 1, back };
    for (size_t i = 0; i < sizeof views / sizeof *views; i++)
        if (strcmp(views[i].name, t->type->name) == 0)
            view.type = &views[i];
    view.scale = how;
    return view;
}

const struct tensor_type *tensor_stored(const struct tensor *t)
{
    return t->type->to_f32 == turned_to_f32 ? ((const struct turn *)t->scale)->of : t->type;
}
