/* formats/weights/st_write.c - the safetensors writer; see safetensors.h. */
#include "base/bytes.h"
#include "base/file.h"
#include "formats/weights/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The data begins at a multiple of a page. Small writes are gathered in BUF_BYTES; after
 * SEND_BYTES the disk is told to begin. MAX_HEADER is what the reader accepts. */
enum { DATA_ALIGN = 4096, BUF_BYTES = 1 << 20, SEND_BYTES = 8 << 20, MAX_HEADER = 100000000 };

/* A declared tensor. */
struct part {
    const char *name; /* in names */
    const struct tensor_type *type;
    size_t nbytes;
};
struct st_writer {
    struct file_out out; /* fd is -1 before it is open */
    char *path;
    struct part *parts;
    struct buf names;
    int64_t n, cur;  /* parts[cur] is being written */
    size_t done;     /* bytes of it that are */
    unsigned char *buf;
    size_t used;
    size_t pending; /* bytes written since the disk was last told to begin */
};

void st_abandon(struct st_writer *w)
{
    if (!w)
        return;
    if (w->out.fd >= 0)
        file_out_abandon(&w->out);
    free(w->path);
    free(w->parts);
    buf_free(&w->names);
    free(w->buf);
    free(w);
}

/* JSON string of a name. Bytes from 0x20 on stand for themselves but for two. */
static int add_name(struct buf *h, const char *name, struct err *e)
{
    int rc = buf_add(h, "\"", 1, e);

    for (const char *c = name; *c && rc == 0; c++) {
        if ((unsigned char)*c < 0x20)
            return err_set(e, E_BUG, "control character in the tensor name '%s'", name);
        if (*c == '"' || *c == '\\')
            rc = buf_add(h, "\\", 1, e);
        if (rc == 0)
            rc = buf_add(h, c, 1, e);
    }
    return rc == 0 ? buf_add(h, "\"", 1, e) : rc;
}

/* Writes a tensor's entry into the header; *at is where its data begins, then where it ends. */
static int add_decl(struct st_writer *w, struct buf *h, const struct st_decl *d, size_t *at,
                    struct err *e)
{
    size_t size = d->type->block_bytes, end, n = 1;
    int rc;

    if (d->type != st_type(d->type->name) || d->type->block != 1 || d->dims < 0 ||
        d->dims > TENSOR_DIMS || strcmp(d->name, "__metadata__") == 0)
        return err_set(e, E_BUG, "tensor '%s' cannot be declared", d->name);
    /* Readers that map the file may use the values in place, so these must be aligned. */
    if (*at % size != 0)
        return err_set(e, E_BUG, "tensor '%s' of type %s would start at byte %zu", d->name,
                       d->type->name, *at);
    /* Never the first in the header: __metadata__ stands before it. */
    if ((rc = buf_add(h, ",", 1, e)) < 0 || (rc = add_name(h, d->name, e)) < 0 ||
        (rc = buf_printf(h, e, ":{\"dtype\":\"%s\",\"shape\":[", d->type->name)) < 0)
        return rc;
    for (int i = 0; i < d->dims; i++) {
        if (d->shape[i] < 0 || !mul_ok(n, (size_t)d->shape[i], &n))
            return err_set(e, E_BUG, "the shape of tensor '%s' overflows", d->name);
        if ((rc = buf_printf(h, e, "%s%lld", i ? "," : "", (long long)d->shape[i])) < 0)
            return rc;
    }
    if (!mul_ok(n, size, &n) || !add_ok(*at, n, &end) || end > INT64_MAX)
        return err_set(e, E_BUG, "the shape of tensor '%s' overflows", d->name);
    w->parts[w->n++] = (struct part){ d->name, d->type, n };
    rc = buf_printf(h, e, "],\"data_offsets\":[%zu,%zu]}", *at, end);
    *at = end;
    return rc;
}

/* The names are copied, since the caller's may go before the data is written. */
static int keep_names(struct st_writer *w, struct err *e)
{
    size_t total = 0, k;
    int rc;

    for (int64_t i = 0; i < w->n; i++)
        total += strlen(w->parts[i].name) + 1;
    if ((rc = buf_reserve(&w->names, total + 1, e)) < 0)
        return rc;
    for (int64_t i = 0; i < w->n; i++) {
        k = strlen(w->parts[i].name) + 1;
        memcpy(w->names.p + w->names.len, w->parts[i].name, k);
        w->parts[i].name = w->names.p + w->names.len;
        w->names.len += k;
    }
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The reader refuses a name that comes twice, so a writer must not make such a file. */
static int names_unique(const struct st_writer *w, struct err *e)
{
    const char **v = malloc((size_t)w->n * sizeof *v + 1);
    int rc = 0;

    if (!v)
        return err_set(e, E_SYS, "out of memory");
    for (int64_t i = 0; i < w->n; i++)
        v[i] = w->parts[i].name;
    qsort(v, (size_t)w->n, sizeof *v, by_name);
    for (int64_t i = 1; i < w->n && rc == 0; i++)
        if (strcmp(v[i - 1], v[i]) == 0)
            rc = err_set(e, E_BUG, "tensor '%s' declared twice", v[i]);
    free(v);
    return rc;
}

/* Length, JSON, and spaces up to where the data begins. */
static int build_header(struct st_writer *w, struct buf *h, const struct st_decl *decl,
                        int64_t n, struct err *e)
{
    size_t at = 0, pad;
    /* Room for the length, which is filled in at the end. */
    int rc = buf_add(h, "\0\0\0\0\0\0\0\0", 8, e);

    if (rc == 0)
        rc = buf_printf(h, e, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (int64_t i = 0; i < n && rc == 0; i++)
        rc = add_decl(w, h, &decl[i], &at, e);
    if (rc == 0)
        rc = buf_add(h, "}", 1, e);
    if (rc < 0)
        return rc;
    /* Spaces behind the JSON are allowed and count as a part of the header. */
    pad = (DATA_ALIGN - h->len % DATA_ALIGN) % DATA_ALIGN;
    if (h->len + pad - 8 > MAX_HEADER)
        return err_set(e, E_BUG, "'%s': %lld tensors make too long a header", w->path,
                       (long long)n);
    if ((rc = buf_reserve(h, pad, e)) < 0)
        return rc;
    memset(h->p + h->len, ' ', pad);
    h->len += pad;
    put_le(h->p, h->len - 8, 8);
    return 0;
}

/* Writes the header at once. All tensors are declared before, so their places are known. */
int st_create(struct st_writer **out, const char *path, const struct st_decl *decl, int64_t n,
              struct err *e)
{
    struct st_writer *w = calloc(1, sizeof *w);
    struct buf h = {0};
    int rc = 0;

    *out = NULL;
    if (!w)
        return err_set(e, E_SYS, "out of memory");
    /* So that st_abandon does not close a file that was never opened. */
    w->out.fd = -1;
    w->path = strdup(path);
    w->parts = calloc((size_t)n + 1, sizeof *w->parts);
    w->buf = malloc(BUF_BYTES);
    if (!w->path || !w->parts || !w->buf)
        rc = err_set(e, E_SYS, "out of memory");
    if (rc == 0 && (rc = build_header(w, &h, decl, n, e)) == 0 && (rc = keep_names(w, e)) == 0)
        rc = names_unique(w, e);
    if (rc == 0 && (rc = file_out_open(&w->out, path, e)) == 0)
        rc = file_write_all(w->out.fd, h.p, h.len, w->path, e);
    buf_free(&h);
    if (rc < 0)
        st_abandon(w);
    else
        *out = w;
    return rc;
}

/* The disk begins with what is there while the next is computed, so that the fsync at the end has
 * little left to wait for. Only a hint: what cannot be begun now is written then. */
static int put(struct st_writer *w, const void *bytes, size_t nbytes, struct err *e)
{
    int rc = file_write_all(w->out.fd, bytes, nbytes, w->path, e);

    w->pending += nbytes;
    if (rc == 0 && w->pending >= SEND_BYTES) {
        w->pending = 0;
        sync_file_range(w->out.fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    }
    return rc;
}

/* Writes what has been gathered. */
static int flush(struct st_writer *w, struct err *e)
{
    int rc = put(w, w->buf, w->used, e);

    w->used = 0;
    return rc;
}

/* Steps to the tensor that the next nbytes belong to (empty ones are passed over) and counts
 * them as written. */
static int claim(struct st_writer *w, size_t nbytes, struct err *e)
{
    while (w->cur < w->n && w->done == w->parts[w->cur].nbytes) {
        w->cur++;
        w->done = 0;
    }
    if (w->cur == w->n || nbytes > w->parts[w->cur].nbytes - w->done)
        return err_set(e, E_BUG, "'%s': more data than '%s' was declared to have", w->path,
                       w->cur < w->n ? w->parts[w->cur].name : "the last tensor");
    w->done += nbytes;
    return 0;
}

int st_write_raw(struct st_writer *w, const void *bytes, size_t nbytes, struct err *e)
{
    int rc;

    if (nbytes == 0)
        return 0;
    if ((rc = claim(w, nbytes, e)) < 0)
        return rc;
    /* Flushed first, to keep the order of the bytes. */
    if (nbytes > BUF_BYTES - w->used && (rc = flush(w, e)) < 0)
        return rc;
    /* Too large to gather: written as it comes, without a copy. */
    if (nbytes >= BUF_BYTES)
        return put(w, bytes, nbytes, e);
    memcpy(w->buf + w->used, bytes, nbytes);
    w->used += nbytes;
    return 0;
}

/* No finite value becomes infinite. What is not finite as it comes is the caller's to judge. */
static bool all_fit(enum dtype t, const float *v, int64_t n)
{
    float limit = t == DT_F16 ? 65520.0f : 0x1.ffp127f; /* half a step beyond the largest */
    /* Counted instead of left at the first one, so that the loop can be turned into vector
     * code. */
    int64_t bad = 0;

    if (t == DT_F32)
        return true;
    for (int64_t i = 0; i < n; i++)
        bad += fabsf(v[i]) >= limit && fabsf(v[i]) <= FLT_MAX;
    return bad == 0;
}

int st_write_f32(struct st_writer *w, const float *values, int64_t count, struct err *e)
{
    const struct tensor_type *type;
    size_t size;
    int64_t k;
    int rc;

    if (count == 0)
        return 0;
    /* A claim of nothing only steps to the tensor, whose type says how large a value is. */
    if ((rc = claim(w, 0, e)) < 0)
        return rc;
    type = w->parts[w->cur].type;
    size = type->block_bytes;
    if (type->plain == DT_OTHER)
        return err_set(e, E_DATA, "'%s': float32 values cannot be written as type %s", w->path,
                       type->name);
    if (count < 0 || (size_t)count > SIZE_MAX / 8)
        return err_set(e, E_BUG, "'%s': %lld values", w->path, (long long)count);
    if ((rc = claim(w, (size_t)count * size, e)) < 0)
        return rc;
    for (; count > 0; count -= k, values += k) {
        /* At least one value must fit, or the loop would not go on. */
        if (BUF_BYTES - w->used < size && (rc = flush(w, e)) < 0)
            return rc;
        k = (int64_t)((BUF_BYTES - w->used) / size);
        if (k > count)
            k = count;
        if (!all_fit(type->plain, values, k))
            return err_set(e, E_DATA, "tensor '%s' has values that are not finite as %s",
                           w->parts[w->cur].name, type->name);
        floats_narrow(type->plain, values, k, w->buf + w->used);
        w->used += (size_t)k * size;
    }
    return 0;
}

int st_finish(struct st_writer *w, struct err *e)
{
    int rc = 0;

    /* Steps over tensors that are complete, empty ones among them. One that is left lacks
     * data. */
    for (; w->cur < w->n && w->done == w->parts[w->cur].nbytes; w->cur++)
        w->done = 0;
    if (w->cur < w->n)
        rc = err_set(e, E_BUG, "'%s': tensor '%s' was not written", w->path,
                     w->parts[w->cur].name);
    if (rc == 0 && (rc = flush(w, e)) == 0)
        /* Only now does the file appear under its name. */
        rc = file_out_publish(&w->out, e);
    st_abandon(w);
    return rc;
}
