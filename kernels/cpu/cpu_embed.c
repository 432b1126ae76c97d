/* kernels/cpu/cpu_embed.c - token embedding: a look-up, and the sum of rows back. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd.h"
#include "kernels/product.h"

enum { ELEMENTS_A_TASK = 1 << 15 };

/* Ids were checked by whoever read them; a wrong one must not become a wild address. */
static bool ids_ok(const int32_t *ids, int64_t rows, int64_t vocab)
{
    for (int64_t r = 0; r < rows; r++)
        if (ids[r] < 0 || ids[r] >= vocab)
            return false;
    return true;
}

/* Rows of the table, one for each id. */
static void forward(const void *op, int64_t lo, int64_t hi)
{
    const struct op_embed *a = op;

    for (int64_t r = lo; r < hi; r++)
        memcpy((float *)a->y + r * a->dim, (const float *)a->table.data + a->ids[r] * a->dim,
               (size_t)a->dim * sizeof(float));
}

int cpu_embed(struct device *d, const struct op_embed *a)
{
    if (!ids_ok(a->ids, a->rows, a->vocab))
        return E_BUG;
    if (a->table.type->plain != DT_F32)
        return mat_embed(d, a, &cpu_of(d)->fault);
    cpu_ranges(cpu_of(d), a->rows, ELEMENTS_A_TASK / max_i64(a->dim, 1), forward, a);
    return 0;
}

struct back_job {
    const struct op_embed_back *a;
    int64_t parts;
};

SIMD_FN(void, add_row, (const float *x, float *y, int64_t n), (x, y, n))
{
    SIMD_LOOP
    for (int64_t i = 0; i < n; i++)
        y[i] += x[i];
}

/* Each part owns the ids of one residue and meets its rows in their order, so the sums come
 * out the same however many parts there are. */
static void back_part(void *ctx, int64_t task, int thread)
{
    const struct back_job *job = ctx;
    const struct op_embed_back *a = job->a;

    (void)thread;
    for (int64_t r = 0; r < a->rows; r++)
        if (a->ids[r] % job->parts == task)
            add_row((const float *)a->dy + r * a->dim, a->d_table + a->ids[r] * a->dim, a->dim);
}

int cpu_embed_back(struct device *d, const struct op_embed_back *a)
{
    struct cpu *c = cpu_of(d);
    /* more parts than threads, so that frequent ids in one part hold nobody up for long */
    struct back_job job = { a, c->threads == 1 ? 1 : 4 * c->threads };

    if (!ids_ok(a->ids, a->rows, a->vocab))
        return E_BUG;
    pool_run(c->pool, job.parts, back_part, &job);
    return 0;
}
