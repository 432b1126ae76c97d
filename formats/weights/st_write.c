/* formats/weights/st_write.c - the safetensors writer; see safetensors.h. */
#include "base/block_hash.h"
#include "base/bytes.h"
#include "base/file.h"
#include "formats/weights/safetensors.h"
#include "formats/weights/st_sums.h"

#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdatomic.h>
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
    size_t at, nbytes; /* in the data */
    uint64_t hash; /* of its bytes, once they are written */
};
struct st_writer {
    struct file_out out; /* fd is -1 before it is open */
    char *path;
    struct part *parts;
    struct buf names;
    int64_t n, cur;  /* parts[cur] is being written */
    size_t done;     /* bytes of it that are */
    struct buf head; /* the header, whose hashes are filled in at the end */
    size_t sums_at;  /* where they are to stand in it */
    struct block_hasher *hash; /* of the tensor that is being written, */
    size_t hashed;             /* of which so many bytes are in it */
    unsigned char *buf;
    size_t used;
    _Atomic size_t pending; /* bytes written since the disk was last told to begin */
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
    buf_free(&w->head);
    block_hasher_free(w->hash);
    free(w->buf);
    free(w);
}

/* JSON string. Bytes from 0x20 on stand for themselves but for two. */
static int add_string(struct buf *h, const char *s, struct err *e)
{
    int rc = buf_add(h, "\"", 1, e);

    for (const char *c = s; *c && rc == 0; c++) {
        if ((unsigned char)*c < 0x20)
            return err_set(e, E_BUG, "control character in '%s'", s);
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
    if ((rc = buf_add(h, ",", 1, e)) < 0 || (rc = add_string(h, d->name, e)) < 0 ||
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
    w->parts[w->n++] = (struct part){ d->name, d->type, *at, n, block_hash(NULL, 0) };
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

/* What is told of the file beside its tensors: notes, and room for the hashes. */
static int add_metadata(struct st_writer *w, struct buf *h, const struct st_note *notes,
                        int64_t n_tensors, struct err *e)
{
    int rc = buf_printf(h, e, "{\"__metadata__\":{\"format\":\"pt\"");

    for (; rc == 0 && notes && notes->key; notes++)
        if ((rc = buf_add(h, ",", 1, e)) == 0 && (rc = add_string(h, notes->key, e)) == 0 &&
            (rc = buf_add(h, ":", 1, e)) == 0)
            rc = add_string(h, notes->value, e);
    if (rc == 0)
        rc = buf_add(h, ",", 1, e);
    w->sums_at = h->len;
    if (rc == 0)
        rc = st_sums_room(h, n_tensors, e);
    return rc < 0 ? rc : buf_add(h, "}", 1, e);
}

/* Length, JSON, and spaces up to where the data begins. */
static int build_header(struct st_writer *w, const struct st_decl *decl, int64_t n,
                        const struct st_note *notes, struct err *e)
{
    struct buf *h = &w->head;
    size_t at = 0, pad;
    /* Room for the length, which is filled in at the end. */
    int rc = buf_add(h, "\0\0\0\0\0\0\0\0", 8, e);

    if (rc == 0)
        rc = add_metadata(w, h, notes, n, e);
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

/* Opens the file and leaves room for the header. All tensors are declared before, so their places
 * are known; their hashes are not. */
int st_create_noted(struct st_writer **out, const char *path, const struct st_decl *decl, int64_t n,
                    const struct st_note *notes, struct err *e)
{
    struct st_writer *w = calloc(1, sizeof *w);
    int rc = 0;

    *out = NULL;
    if (!w)
        return err_set(e, E_SYS, "out of memory");
    /* So that st_abandon does not close a file that was never opened. */
    w->out.fd = -1;
    w->path = strdup(path);
    w->parts = calloc((size_t)n + 1, sizeof *w->parts);
    w->buf = malloc(BUF_BYTES);
    w->hash = block_hasher_new();
    if (!w->path || !w->parts || !w->buf || !w->hash)
        rc = err_set(e, E_SYS, "out of memory");
    if (rc == 0 && (rc = build_header(w, decl, n, notes, e)) == 0 && (rc = keep_names(w, e)) == 0)
        rc = names_unique(w, e);
    if (rc == 0 && (rc = file_out_open(&w->out, path, e)) == 0 &&
        lseek(w->out.fd, (off_t)w->head.len, SEEK_SET) < 0)
        rc = err_sys(e, E_IO, "cannot write '%s'", path);
    if (rc < 0)
        st_abandon(w);
    else
        *out = w;
    return rc;
}

int st_create(struct st_writer **w, const char *path, const struct st_decl *decl, int64_t n,
              struct err *e)
{
    return st_create_noted(w, path, decl, n, NULL, e);
}

/* The disk begins with what is there while the next is computed, so that the fsync at the end has
 * little left to wait for. Only a hint: what cannot be begun now is written then. */
static void begin_to_send(struct st_writer *w, size_t nbytes)
{
    size_t before = atomic_fetch_add(&w->pending, nbytes);

    /* The one thread whose bytes have made it so many. */
    if (before / SEND_BYTES != (before + nbytes) / SEND_BYTES)
        sync_file_range(w->out.fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

static int put(struct st_writer *w, const void *bytes, size_t nbytes, struct err *e)
{
    int rc = file_write_all(w->out.fd, bytes, nbytes, w->path, e);

    if (rc == 0)
        begin_to_send(w, nbytes);
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

/* Bytes of the current tensor, as they will stand in the file. */
static void hash_add(struct st_writer *w, const void *bytes, size_t nbytes)
{
    struct part *p = &w->parts[w->cur];

    block_hasher_add(w->hash, bytes, nbytes);
    if ((w->hashed += nbytes) == p->nbytes) {
        p->hash = block_hasher_end(w->hash);
        w->hashed = 0;
    }
}

int st_write_raw(struct st_writer *w, const void *bytes, size_t nbytes, struct err *e)
{
    int rc;

    if (nbytes == 0)
        return 0;
    if ((rc = claim(w, nbytes, e)) < 0)
        return rc;
    hash_add(w, bytes, nbytes);
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

/* What was gathered before goes out first, as it stands before it. */
int st_begin(struct st_writer *w, size_t nbytes, struct err *e)
{
    int rc = claim(w, nbytes, e);

    if (rc == 0 && w->done != nbytes)
        rc = err_set(e, E_BUG, "'%s': tensor '%s' is begun twice", w->path, w->parts[w->cur].name);
    return rc < 0 ? rc : flush(w, e);
}

int st_write_at(struct st_writer *w, size_t at, const void *bytes, size_t nbytes, struct err *e)
{
    int rc = file_write_at(w->out.fd, (int64_t)(w->head.len + w->parts[w->cur].at + at), bytes,
                           nbytes, w->path, e);

    if (rc == 0)
        begin_to_send(w, nbytes);
    return rc;
}

int st_end(struct st_writer *w, uint64_t hash, struct err *e)
{
    struct part *p = &w->parts[w->cur];

    p->hash = hash;
    if (lseek(w->out.fd, (off_t)(w->head.len + p->at + p->nbytes), SEEK_SET) < 0)
        return err_sys(e, E_IO, "cannot write '%s'", w->path);
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
        hash_add(w, w->buf + w->used, (size_t)k * size);
        w->used += (size_t)k * size;
    }
    return 0;
}

/* The header, with all hashes, into the room that was left for it. */
static int put_header(struct st_writer *w, struct err *e)
{
    for (int64_t i = 0; i < w->n; i++)
        st_sums_put(w->head.p + w->sums_at, i, w->parts[i].hash);
    st_sums_seal(w->head.p, w->head.len, w->sums_at);
    if (lseek(w->out.fd, 0, SEEK_SET) < 0)
        return err_sys(e, E_IO, "cannot write '%s'", w->path);
    return file_write_all(w->out.fd, w->head.p, w->head.len, w->path, e);
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
    if (rc == 0 && (rc = flush(w, e)) == 0 && (rc = put_header(w, e)) == 0)
        /* Only now does the file appear under its name. */
        rc = file_out_publish(&w->out, e);
    st_abandon(w);
    return rc;
}
