/* formats/weights/vocab.c - a matrix of a vocabulary with other rows; see weights.h. */
#include "formats/weights/vocab.h"

#include <stdlib.h>
#include <string.h>

enum { PIECE = 1 << 12 };

/* The mean of the rows of t, in double, one column after the other. */
static int mean_row(const struct tensor *t, double *mean, struct err *e)
{
    int64_t cols = t->shape[1];
    float f[PIECE];

    memset(mean, 0, (size_t)cols * sizeof *mean);
    for (int64_t r = 0; r < t->shape[0]; r++)
        for (int64_t at = 0, n; at < cols; at += n) {
            int rc;
            n = cols - at < PIECE ? cols - at : PIECE;
            if ((rc = tensor_to_f32(t, r * cols + at, n, f, e)) < 0)
                return rc;
            for (int64_t i = 0; i < n; i++)
                mean[at + i] += (double)f[i];
        }
    for (int64_t i = 0; i < cols; i++)
        mean[i] /= (double)t->shape[0];
    return 0;
}

/* The rows from the old ones on. */
static int fill_new(const struct tensor *t, int64_t rows, char *to, struct err *e)
{
    int64_t cols = t->shape[1];
    size_t row = (size_t)cols * t->type->block_bytes;
    double *mean = malloc((size_t)cols * sizeof *mean + 1);
    float *f = malloc((size_t)cols * sizeof *f + 1);
    int rc = mean && f ? mean_row(t, mean, e) : err_set(e, E_SYS, "out of memory");

    for (int64_t i = 0; rc == 0 && i < cols; i++)
        f[i] = (float)mean[i];
    for (int64_t r = t->shape[0]; rc == 0 && r < rows; r++)
        floats_narrow(t->type->plain, f, cols, to + (size_t)r * row);
    free(mean);
    free(f);
    return rc;
}

int vocab_resize(const struct tensor *t, int64_t rows, struct tensor *out, void **memory, struct err *e)
{
    int64_t kept = t->shape[0] < rows ? t->shape[0] : rows;
    size_t row, all;
    int rc;

    *memory = NULL;
    if (t->dims != 2 || t->shape[0] < 1 || rows < 1 || t->type->plain == DT_OTHER)
        return err_set(e, E_CONFIG, "'%s': tensor '%.200s' of type %s cannot get another vocabulary",
                       t->file, t->name, t->type->name);
    row = (size_t)t->shape[1] * t->type->block_bytes;
    if (__builtin_mul_overflow(row, (size_t)rows, &all) || !(*memory = malloc(all)))
        return err_set(e, E_SYS, "out of memory for a vocabulary of %lld tokens", (long long)rows);
    if ((rc = tensor_check(t, e)) < 0)
        return rc;
    memcpy(*memory, t->data, row * (size_t)kept);
    *out = *t;
    out->shape[0] = rows;
    out->count = rows * t->shape[1];
    out->data = *memory;
    out->nbytes = all;
    out->hashed = false;
    return rows > kept ? fill_new(t, rows, *memory, e) : 0;
}
