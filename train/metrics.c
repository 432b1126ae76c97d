/* train/metrics.c - see metrics.h. */
#include "train/metrics.h"

#include "base/bytes.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Every line of the log starts with this; it tells our log from another file. */
#define HEAD "{\"step\":"

/* Counts the bytes of the lines that stay: whole ones, ascending, up to 'step'. Later ones
 * belong to steps that will be made again. A line that could not be written may be missing
 * in between. Returns -1 if the first line is not ours, so that no other file is cut off. */
static int64_t keep_bytes(FILE *f, int64_t step, int64_t *kept)
{
    char *line = NULL;
    size_t cap = 0;
    int64_t keep = 0, last = 0;
    ssize_t n;

    *kept = 0;
    while ((n = getline(&line, &cap, f)) > 0) {
        size_t head = (size_t)n < sizeof HEAD - 1 ? (size_t)n : sizeof HEAD - 1;
        if (memcmp(line, HEAD, head) != 0) {
            keep = *kept ? keep : -1;
            break;
        }
        /* A line that ends inside the head has no number: 0 ends the loop below. */
        int64_t at = head < sizeof HEAD - 1 ? 0 : strtoll(line + head, NULL, 10);
        if (line[n - 1] != '\n' || at <= last || at > step)
            break;
        last = at;
        ++*kept;
        keep += n;
    }
    free(line);
    return keep;
}

int metrics_open(struct metrics *m, const char *path, int64_t step, int64_t *kept,
                 struct err *e)
{
    struct stat st;
    int64_t keep;
    FILE *f;

    m->path = path;
    *kept = step;
    if (strcmp(path, "-") == 0) {
        m->fd = STDOUT_FILENO;
        return 0;
    }
    /* O_APPEND: after the truncation below, writes go to the new end. */
    if ((m->fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666)) < 0)
        return err_sys(e, E_CREATE, "cannot open '%s'", path);
    if (fstat(m->fd, &st) < 0 || !S_ISREG(st.st_mode))
        return 0; /* a pipe or /dev/full: only written to */
    if (!(f = fopen(path, "re"))) {
        metrics_close(m);
        return err_sys(e, E_CREATE, "cannot read '%s'", path);
    }
    /* Read through a second descriptor: m->fd is for appending. */
    keep = keep_bytes(f, step, kept);
    fclose(f);
    if (keep < 0) {
        metrics_close(m);
        err_set(e, E_CREATE, "'%s' exists and is not a metrics log", path);
        return err_hint(e, "give another file with --metrics");
    }
    if (keep < st.st_size && ftruncate(m->fd, keep) < 0) {
        metrics_close(m);
        return err_sys(e, E_CREATE, "cannot truncate '%s'", path);
    }
    return 0;
}

/* JSON has no NaN. Nine digits tell every float32 apart; loss_hex has the whole double. */
static int add_number(struct buf *b, const char *key, double v, struct err *e)
{
    return isfinite(v) ? buf_printf(b, e, ",\"%s\":%.9g", key, v)
                       : buf_printf(b, e, ",\"%s\":null", key);
}

/* ,"rank_ms":[1.5,1.6] and the like: what each rank took, and what it moved. */
static int add_each(struct buf *b, const struct metrics_line *l, struct err *e)
{
    static const char *const keys[] = { "rank_ms", "rank_comm_ms", "rank_mem", "rank_sent",
                                        "rank_received" };
    int rc = 0;

    for (size_t k = 0; k < sizeof keys / sizeof *keys && rc == 0; k++) {
        rc = buf_printf(b, e, ",\"%s\":", keys[k]);
        for (int i = 0; i < l->ranks && rc == 0; i++) {
            const struct metrics_rank *r = &l->rank[i];
            const double v[] = { 1e3 * r->own_s, 1e3 * r->comm_s, (double)r->mem_bytes,
                                 (double)r->sent, (double)r->received };

            rc = buf_printf(b, e, k < 2 ? "%c%.1f" : "%c%.0f", i ? ',' : '[', v[k]);
        }
        if (rc == 0)
            rc = buf_add(b, "]", 1, e);
    }
    return rc;
}

static int add_ranks(struct buf *b, const struct metrics_line *l, struct err *e)
{
    int rc = buf_printf(b, e, ",\"ranks\":%d,\"comm_ms\":%.1f,\"slowest_rank\":%d,"
                        "\"slowest_ms\":%.1f", l->ranks, l->comm_s * 1e3, l->slowest,
                        l->slowest_s * 1e3);

    return rc < 0 || !l->rank ? rc : add_each(b, l, e);
}

int metrics_write(struct metrics *m, const struct metrics_line *l, struct err *e)
{
    struct buf b = { 0 };
    int rc = buf_printf(&b, e,
                        HEAD "%" PRId64 ",\"epoch\":%.4f,\"tokens\":%" PRId64
                             ",\"scored\":%" PRId64,
                        l->step, l->epoch, l->tokens, l->scored);

    if (rc == 0)
        rc = add_number(&b, "loss", l->loss, e);
    if (rc == 0)
        rc = buf_printf(&b, e, ",\"loss_hex\":\"%a\"", l->loss);
    if (rc == 0)
        rc = add_number(&b, "grad_norm", l->grad_norm, e);
    if (rc == 0)
        rc = add_number(&b, "lr", l->lr, e);
    if (rc == 0)
        rc = buf_printf(&b, e, ",\"attention\":\"%s\",\"skipped\":%" PRId64, l->attention,
                        l->skipped);
    if (rc == 0 && l->has_val && (rc = add_number(&b, "val_loss", l->val_loss, e)) == 0)
        rc = buf_printf(&b, e, ",\"val_hex\":\"%a\"", l->val_loss);
    if (rc == 0)
        rc = buf_printf(&b, e,
                        ",\"tok_s\":%.1f,\"step_ms\":%.1f,\"gemm_fraction\":%.3f,"
                        "\"model_flop_s\":%.4g,\"mfu\":%.4f,\"mem\":%" PRId64,
                        l->tok_s, l->step_s * 1e3, l->gemm_fraction, l->model_flop_s, l->mfu,
                        l->mem_bytes);
    if (rc == 0 && l->ranks > 1)
        rc = add_ranks(&b, l, e);
    if (rc == 0)
        rc = buf_add(&b, "}\n", 2, e);
    /* One write for the whole line, so that a killed run rarely leaves half of one. */
    if (rc == 0)
        rc = file_write_all(m->fd, b.p, b.len, m->path, e);
    buf_free(&b);
    return rc;
}

int metrics_sync(struct metrics *m, struct err *e)
{
    /* Pipes, terminals and /dev/full cannot be synced; that is no error. */
    if (fsync(m->fd) < 0 && errno != EINVAL && errno != EROFS && errno != ENOTSUP)
        return err_sys(e, E_IO, "cannot sync '%s'", m->path);
    return 0;
}

void metrics_close(struct metrics *m)
{
    if (m->fd > STDERR_FILENO)
        close(m->fd);
    m->fd = -1;
}
