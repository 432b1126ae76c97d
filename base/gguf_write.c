/* base/gguf_write.c - writing a GGUF file; see gguf.h. */
#include "base/gguf.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SEND_BYTES ((size_t)64 << 20) /* after so many the disk is told to begin */

static void put(struct gguf_head *h, struct buf *to, const void *p, size_t n)
{
    if (h->rc == 0)
        h->rc = buf_add(to, p, n, &h->e);
}
static void put_number(struct gguf_head *h, struct buf *to, uint64_t v, int n)
{
    unsigned char b[8];

    put_le(b, v, n);
    put(h, to, b, (size_t)n);
}
static void put_text(struct gguf_head *h, struct buf *to, const char *s, size_t n)
{
    put_number(h, to, n, 8);
    put(h, to, s, n);
}
static void put_key(struct gguf_head *h, const char *key, enum gguf_type type)
{
    put_text(h, &h->keys, key, strlen(key));
    put_number(h, &h->keys, type, 4);
    h->n_keys++;
}

void gguf_put_u32(struct gguf_head *h, const char *key, uint32_t v)
{
    put_key(h, key, GGUF_U32);
    put_number(h, &h->keys, v, 4);
}

void gguf_put_f32(struct gguf_head *h, const char *key, double v)
{
    float f = (float)v;
    uint32_t bits;

    memcpy(&bits, &f, sizeof bits);
    put_key(h, key, GGUF_F32);
    put_number(h, &h->keys, bits, 4);
}

void gguf_put_bool(struct gguf_head *h, const char *key, bool v)
{
    put_key(h, key, GGUF_BOOL);
    put_number(h, &h->keys, v, 1);
}

void gguf_put_string(struct gguf_head *h, const char *key, const char *s, size_t n)
{
    put_key(h, key, GGUF_STRING);
    put_text(h, &h->keys, s, n);
}

void gguf_put_array(struct gguf_head *h, const char *key, enum gguf_type type, uint64_t n)
{
    put_key(h, key, GGUF_ARRAY);
    put_number(h, &h->keys, type, 4);
    put_number(h, &h->keys, n, 8);
}

void gguf_add_string(struct gguf_head *h, const char *s, size_t n) { put_text(h, &h->keys, s, n); }
void gguf_add_raw(struct gguf_head *h, const void *p, size_t n) { put(h, &h->keys, p, n); }

void gguf_put_value(struct gguf_head *h, const struct gguf_value *v)
{
    if (v->array)
        gguf_put_array(h, v->key, v->type, v->n);
    else
        put_key(h, v->key, v->type);
    put(h, &h->keys, v->p, v->nbytes);
}

static uint64_t padded(uint64_t n) { return (n + GGUF_ALIGN - 1) / GGUF_ALIGN * GGUF_ALIGN; }

uint64_t gguf_put_tensor(struct gguf_head *h, const char *name, uint32_t type, int dims,
                         const int64_t *size, size_t nbytes)
{
    uint64_t at = h->data_bytes;

    put_text(h, &h->infos, name, strlen(name));
    put_number(h, &h->infos, (uint64_t)dims, 4);
    for (int i = 0; i < dims; i++)
        put_number(h, &h->infos, (uint64_t)size[i], 8);
    put_number(h, &h->infos, type, 4);
    put_number(h, &h->infos, at, 8);
    h->n_tensors++;
    h->data_bytes += padded(nbytes);
    return at;
}

void gguf_head_free(struct gguf_head *h)
{
    buf_free(&h->keys);
    buf_free(&h->infos);
    *h = (struct gguf_head){ 0 };
}

/* The header, keys, places of tensors, and padding. */
static int put_head(struct gguf_out *o, const struct gguf_head *h, struct err *e)
{
    struct buf all = { 0 };
    unsigned char first[24] = "GGUF", zeros[GGUF_ALIGN] = { 0 };
    int rc;

    put_le(first + 4, 3, 4);
    put_le(first + 8, h->n_tensors, 8);
    put_le(first + 16, h->n_keys, 8);
    if ((rc = buf_add(&all, first, sizeof first, e)) == 0 &&
        (rc = buf_add(&all, h->keys.p, h->keys.len, e)) == 0 &&
        (rc = buf_add(&all, h->infos.p, h->infos.len, e)) == 0 &&
        (rc = buf_add(&all, zeros, padded(all.len) - all.len, e)) == 0)
        rc = file_write_at(o->out.fd, 0, all.p, all.len, o->out.path, e);
    o->data_at = all.len;
    o->nbytes = all.len + h->data_bytes;
    buf_free(&all);
    return rc;
}

int gguf_create(struct gguf_out *o, const char *path, const struct gguf_head *h, struct err *e)
{
    int rc;

    *o = (struct gguf_out){ .out.fd = -1 };
    if (h->rc < 0) {
        if (e)
            *e = h->e;
        return h->rc;
    }
    if ((rc = file_out_open(&o->out, path, e)) < 0)
        return rc;
    if (o->out.into)
        rc = err_set(e, E_CREATE, "'%s' is no regular file, and a GGUF is not written in order", path);
    if (rc < 0 || (rc = put_head(o, h, e)) < 0)
        gguf_abandon(o);
    return rc;
}

int gguf_write_at(struct gguf_out *o, uint64_t at, const void *p, size_t n, struct err *e)
{
    int rc = file_write_at(o->out.fd, (int64_t)(o->data_at + at), p, n, o->out.path, e);
    uint64_t before;

    if (rc < 0)
        return rc;
    /* The disk begins while the next is computed; only a hint. */
    before = atomic_fetch_add(&o->pending, n);
    if (before / SEND_BYTES != (before + n) / SEND_BYTES)
        sync_file_range(o->out.fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    return 0;
}

int gguf_publish(struct gguf_out *o, struct err *e)
{
    /* The padding of the last tensor has not been written. */
    if (ftruncate(o->out.fd, (off_t)o->nbytes) < 0) {
        int rc = err_sys(e, E_IO, "cannot write '%s'", o->out.path);

        gguf_abandon(o);
        return rc;
    }
    return file_out_publish(&o->out, e);
}

void gguf_abandon(struct gguf_out *o)
{
    if (o->out.fd >= 0)
        file_out_abandon(&o->out);
    o->out.fd = -1;
}
