/* base/gguf_parse.c - the reader of GGUF's container; see gguf.h.
 *
 * Every number of the file is compared with the bytes that are left before it is used, all products
 * and sums are checked, and nothing is allocated by a count that the file could not hold. */
#include "base/gguf.h"

#include "base/gguf_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER = 24, MAX_KEY = 65535, MAX_NAME = 63, MAX_ALIGN = 1 << 16,
       LEAST_KEY = 8 + 1 + 4 + 1,      /* bytes of a key of one byte and a value of one */
       LEAST_TENSOR = 8 + 1 + 4 + 8 + 4 + 8 };

/* Where the reader is. */
struct cursor {
    const unsigned char *start, *p, *end;
    const char *file;
    struct buf strings; /* grows, so that places in it are kept as offsets until the end */
    struct err *e;
};

static size_t left(const struct cursor *c) { return (size_t)(c->end - c->p); }
static size_t place(const struct cursor *c) { return (size_t)(c->p - c->start); }

/* 0 and *v, or E_DATA with what it was to be. */
static int number(struct cursor *c, int n, const char *what, uint64_t *v)
{
    if (left(c) < (size_t)n)
        return err_set(c->e, E_DATA, "'%s': the file ends at byte %zu, in %s", c->file,
                       (size_t)(c->end - c->start), what);
    *v = get_le(c->p, n);
    c->p += n;
    return 0;
}

/* A string's bytes in the file. */
static int text(struct cursor *c, size_t most, const char *what, const unsigned char **s, size_t *n)
{
    size_t at = place(c);
    uint64_t len = 0;
    int rc = number(c, 8, what, &len);

    if (rc < 0)
        return rc;
    if (len > left(c) || len > most)
        return err_set(c->e, E_DATA, "'%s': the length of %s at byte %zu is %llu; %zu bytes are left, "
                       "%zu at most are read", c->file, what, at, (unsigned long long)len, left(c), most);
    *s = c->p;
    *n = (size_t)len;
    c->p += len;
    return 0;
}

/* A key or a name, which is kept with a NUL behind it: where in c->strings. */
static int name(struct cursor *c, size_t most, const char *what, size_t *kept)
{
    size_t at = place(c), n = 0;
    const unsigned char *s = NULL;
    int rc = text(c, most, what, &s, &n);

    if (rc < 0)
        return rc;
    if (n == 0)
        return err_set(c->e, E_DATA, "'%s': %s at byte %zu is empty", c->file, what, at);
    for (size_t i = 0; i < n; i++)
        if (s[i] < 0x20 || s[i] == 0x7F)
            return err_set(c->e, E_DATA, "'%s': %s at byte %zu has a control character", c->file, what,
                           at);
    *kept = c->strings.len;
    if ((rc = buf_add(&c->strings, s, n, c->e)) == 0)
        rc = buf_add(&c->strings, "", 1, c->e);
    return rc;
}

/* ---- keys and values ---- */

static const unsigned char value_bytes[GGUF_TYPES] = {
    [GGUF_U8] = 1, [GGUF_I8] = 1, [GGUF_U16] = 2, [GGUF_I16] = 2, [GGUF_U32] = 4, [GGUF_I32] = 4,
    [GGUF_F32] = 4, [GGUF_BOOL] = 1, [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8,
};

static int value_type(struct cursor *c, const char *key, const char *what, enum gguf_type *type)
{
    size_t at = place(c);
    uint64_t t = 0;
    int rc = number(c, 4, "the type of a value", &t);

    if (rc == 0 && t >= GGUF_TYPES)
        return err_set(c->e, E_DATA, "'%s': key '%.100s': %s at byte %zu is %llu, which is none",
                       c->file, key, what, at, (unsigned long long)t);
    *type = (enum gguf_type)t;
    return rc;
}

/* v->n values of its type, from here on. */
static int value_data(struct cursor *c, const char *key, struct gguf_value *v)
{
    size_t size = value_bytes[v->type], at = place(c), n;
    const unsigned char *s;
    int rc = 0;

    v->p = c->p;
    /* A string has at least its length. */
    if (v->n > left(c) / (size ? size : 8))
        return err_set(c->e, E_DATA, "'%s': key '%.100s': %llu values at byte %zu, %zu bytes are left",
                       c->file, key, (unsigned long long)v->n, at, left(c));
    if (v->type == GGUF_STRING)
        for (uint64_t i = 0; i < v->n && rc == 0; i++)
            rc = text(c, SIZE_MAX, "a string", &s, &n);
    else
        c->p += v->n * size;
    v->nbytes = (size_t)(c->p - v->p);
    for (size_t i = 0; rc == 0 && v->type == GGUF_BOOL && i < v->nbytes; i++)
        if (v->p[i] > 1)
            rc = err_set(c->e, E_DATA, "'%s': key '%.100s': the bool at byte %zu is %u, must be 0 or 1",
                         c->file, key, at + i, v->p[i]);
    return rc < 0 ? err_within(c->e, "'%.100s'", key) : 0;
}

static int value(struct cursor *c, struct gguf_value *v, size_t *kept)
{
    const char *key;
    int rc;

    *v = (struct gguf_value){ .at = place(c), .n = 1 };
    if ((rc = name(c, MAX_KEY, "a key", kept)) < 0)
        return rc;
    key = c->strings.p + *kept;
    if ((rc = value_type(c, key, "the type", &v->type)) < 0)
        return rc;
    if (v->type == GGUF_ARRAY) {
        size_t at = place(c);

        v->array = true;
        if ((rc = value_type(c, key, "the type of the array", &v->type)) < 0 ||
            (rc = number(c, 8, "the length of an array", &v->n)) < 0)
            return rc;
        if (v->type == GGUF_ARRAY)
            return err_set(c->e, E_DATA, "'%s': key '%.100s': an array of arrays at byte %zu, which is "
                           "not read", c->file, key, at);
    }
    return value_data(c, key, v);
}

/* ---- tensors ---- */

static const struct {
    const char *name;
    unsigned short block, bytes;
} ggml[] = {
    [0] = { "F32", 1, 4 }, [1] = { "F16", 1, 2 }, [2] = { "Q4_0", 32, 18 }, [3] = { "Q4_1", 32, 20 },
    [6] = { "Q5_0", 32, 22 }, [7] = { "Q5_1", 32, 24 }, [8] = { "Q8_0", 32, 34 },
    [9] = { "Q8_1", 32, 40 }, [10] = { "Q2_K", 256, 84 }, [11] = { "Q3_K", 256, 110 },
    [12] = { "Q4_K", 256, 144 }, [13] = { "Q5_K", 256, 176 }, [14] = { "Q6_K", 256, 210 },
    [15] = { "Q8_K", 256, 292 }, [16] = { "IQ2_XXS", 256, 66 }, [17] = { "IQ2_XS", 256, 74 },
    [18] = { "IQ3_XXS", 256, 98 }, [19] = { "IQ1_S", 256, 50 }, [20] = { "IQ4_NL", 32, 18 },
    [21] = { "IQ3_S", 256, 110 }, [22] = { "IQ2_S", 256, 82 }, [23] = { "IQ4_XS", 256, 136 },
    [24] = { "I8", 1, 1 }, [25] = { "I16", 1, 2 }, [26] = { "I32", 1, 4 }, [27] = { "I64", 1, 8 },
    [28] = { "F64", 1, 8 }, [29] = { "IQ1_M", 256, 56 }, [30] = { "BF16", 1, 2 },
    [34] = { "TQ1_0", 256, 54 }, [35] = { "TQ2_0", 256, 66 }, [39] = { "MXFP4", 32, 17 },
    [40] = { "NVFP4", 64, 36 }, [41] = { "Q1_0", 128, 18 },
};

const char *gguf_type_name(uint32_t type)
{
    return type < sizeof ggml / sizeof *ggml ? ggml[type].name : NULL;
}

/* The product of the sizes, in whole blocks a row, times the bytes of a block. */
static int tensor_bytes(struct cursor *c, const char *tensor, struct gguf_tensor *t)
{
    int64_t count = 1, block = ggml[t->type].block;

    for (int i = 0; i < t->dims; i++)
        if (__builtin_mul_overflow(count, t->size[i], &count))
            return err_set(c->e, E_DATA, "'%s': tensor '%s' at byte %zu: the product of its sizes "
                           "overflows", c->file, tensor, t->at);
    if (t->size[0] % block)
        return err_set(c->e, E_DATA, "'%s': tensor '%s' at byte %zu: rows of %lld values, %s has blocks "
                       "of %lld", c->file, tensor, t->at, (long long)t->size[0], ggml[t->type].name,
                       (long long)block);
    if (!mul_ok((size_t)(count / block), ggml[t->type].bytes, &t->nbytes))
        return err_set(c->e, E_DATA, "'%s': tensor '%s' at byte %zu: its bytes overflow", c->file,
                       tensor, t->at);
    return 0;
}

static int tensor_sizes(struct cursor *c, const char *tensor, struct gguf_tensor *t)
{
    uint64_t dims = 0, v = 0;
    int rc = number(c, 4, "the number of a tensor's dimensions", &dims);

    if (rc < 0)
        return rc;
    if (dims < 1 || dims > GGUF_DIMS)
        return err_set(c->e, E_DATA, "'%s': tensor '%s': %llu dimensions at byte %zu, must be 1 to %d",
                       c->file, tensor, (unsigned long long)dims, place(c) - 4, GGUF_DIMS);
    t->dims = (int)dims;
    for (int i = 0; i < t->dims; i++) {
        if ((rc = number(c, 8, "a tensor's size", &v)) < 0)
            return rc;
        if (v < 1 || v > INT64_MAX)
            return err_set(c->e, E_DATA, "'%s': tensor '%s': size %d at byte %zu is %llu", c->file,
                           tensor, i, place(c) - 8, (unsigned long long)v);
        t->size[i] = (int64_t)v;
    }
    return 0;
}

/* *offset: from the start of the data, which is not known as yet. */
static int tensor(struct cursor *c, struct gguf_tensor *t, size_t *kept, uint64_t *offset)
{
    const char *tensor;
    uint64_t type = 0;
    int rc;

    *t = (struct gguf_tensor){ .at = place(c) };
    if ((rc = name(c, MAX_NAME, "a tensor's name", kept)) < 0)
        return rc;
    tensor = c->strings.p + *kept;
    if ((rc = tensor_sizes(c, tensor, t)) < 0 || (rc = number(c, 4, "a tensor's type", &type)) < 0)
        return rc;
    t->type = (uint32_t)type;
    if (!gguf_type_name(t->type))
        return err_set(c->e, E_DATA, "'%s': tensor '%s': the type at byte %zu is %llu, which is not "
                       "known", c->file, tensor, place(c) - 4, (unsigned long long)type);
    if ((rc = number(c, 8, "a tensor's offset", offset)) < 0)
        return rc;
    return tensor_bytes(c, tensor, t);
}

/* ---- the whole file ---- */

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct gguf_value *)a)->key, ((const struct gguf_value *)b)->key);
}
static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct gguf_tensor *)a)->name, ((const struct gguf_tensor *)b)->name);
}
static int by_place(const void *a, const void *b)
{
    const struct gguf_tensor *x = a, *y = b;

    return x->data < y->data ? -1 : x->data > y->data;
}

/* Magic, version, and two counts that the file has room for. */
static int header(struct cursor *c, uint64_t *n_tensors, uint64_t *n_values)
{
    uint64_t version;

    if (left(c) < HEADER || memcmp(c->p, "GGUF", 4) != 0)
        return err_set(c->e, E_DATA, "'%s' is not a GGUF file", c->file);
    version = get_le(c->p + 4, 4);
    *n_tensors = get_le(c->p + 8, 8);
    *n_values = get_le(c->p + 16, 8);
    c->p += HEADER;
    if (version != 2 && version != 3) {
        err_set(c->e, E_DATA, "'%s': GGUF version %llu at byte 4, 2 and 3 are read", c->file,
                (unsigned long long)version);
        return version & 0xFFFF ? E_DATA
                                : err_hint(c->e, "big-endian files are not read: convert the model anew");
    }
    if (*n_values > left(c) / LEAST_KEY)
        return err_set(c->e, E_DATA, "'%s': %llu keys at byte 16, the file has %zu bytes", c->file,
                       (unsigned long long)*n_values, left(c) + HEADER);
    if (*n_tensors > left(c) / LEAST_TENSOR)
        return err_set(c->e, E_DATA, "'%s': %llu tensors at byte 8, the file has %zu bytes", c->file,
                       (unsigned long long)*n_tensors, left(c) + HEADER);
    return 0;
}

/* What was gathered, which does not grow any more. */
static char *take_strings(struct cursor *c)
{
    char *p = c->strings.p;

    c->strings = (struct buf){ 0 };
    return p;
}

/* All keys, sorted; none twice. */
static int read_values(struct gguf *g, struct cursor *c, uint64_t n)
{
    size_t *kept = malloc((n + 1) * sizeof *kept);
    int rc = 0;

    if (!kept || !(g->values = malloc((n + 1) * sizeof *g->values)))
        rc = err_set(c->e, E_SYS, "'%s': out of memory for %llu keys", c->file, (unsigned long long)n);
    for (uint64_t i = 0; i < n && rc == 0; i++)
        rc = value(c, &g->values[i], &kept[i]);
    g->keys = take_strings(c);
    if (rc == 0) {
        for (uint64_t i = 0; i < n; i++)
            g->values[i].key = g->keys + kept[i];
        g->n_values = (int64_t)n;
        if (n)
            qsort(g->values, n, sizeof *g->values, by_key);
    }
    for (uint64_t i = 1; i < n && rc == 0; i++)
        if (by_key(&g->values[i - 1], &g->values[i]) == 0)
            rc = err_set(c->e, E_DATA, "'%s': key '%.200s' appears twice, at bytes %zu and %zu", c->file,
                         g->values[i].key, g->values[i - 1].at, g->values[i].at);
    free(kept);
    return rc;
}

static int alignment(const struct gguf *g, struct cursor *c, uint64_t *align)
{
    const struct gguf_value *v = gguf_find(g, "general.alignment");

    *align = GGUF_ALIGN;
    if (!v)
        return 0;
    if (v->type != GGUF_U32 || v->array)
        return err_set(c->e, E_DATA, "'%s': general.alignment at byte %zu is not of type u32", c->file,
                       v->at);
    *align = get_le(v->p, 4);
    if (*align < 1 || *align > MAX_ALIGN || (*align & (*align - 1)))
        return err_set(c->e, E_DATA, "'%s': general.alignment at byte %zu is %llu, must be a power of "
                       "two up to %d", c->file, v->at, (unsigned long long)*align, MAX_ALIGN);
    return 0;
}

/* Bytes up to the next multiple. align is a power of two. */
static size_t padding(size_t at, uint64_t align) { return (size_t)(-at & (align - 1)); }

/* From its offset the place of a tensor: at a multiple, all of it inside. */
static int place_tensor(struct cursor *c, struct gguf_tensor *t, uint64_t offset, uint64_t align)
{
    if (offset % align)
        return err_set(c->e, E_DATA, "'%s': tensor '%s' at byte %zu: offset %llu is not a multiple of "
                       "the alignment %llu", c->file, t->name, t->at, (unsigned long long)offset,
                       (unsigned long long)align);
    if (offset > left(c) || t->nbytes > left(c) - offset) {
        err_set(c->e, E_DATA, "'%s': tensor '%s' at byte %zu: offset %llu and %zu bytes, the file has "
                "%zu bytes of data", c->file, t->name, t->at, (unsigned long long)offset, t->nbytes,
                left(c));
        return err_hint(c->e, "the file was cut short: copy or download it again");
    }
    t->data = c->p + offset;
    return 0;
}

/* Sorted by place, each begins where the one before ends but for padding: no overlaps, no holes, and
 * nothing behind the last. */
static int check_places(const struct gguf *g, struct cursor *c, uint64_t align)
{
    size_t at = 0;

    for (int64_t i = 0; i < g->n_tensors; i++) {
        const struct gguf_tensor *t = &g->tensors[i];
        size_t begins = (size_t)(t->data - c->p);

        if (begins != at)
            return err_set(c->e, E_DATA, "'%s': tensor '%s' at byte %zu: offset %zu is %s: the one "
                           "before ends at %zu", c->file, t->name, t->at, begins,
                           begins < at ? "inside another" : "after a hole", at);
        at += t->nbytes;
        /* Behind the last one padding may be missing. */
        at += padding(at, align) < left(c) - at ? padding(at, align) : left(c) - at;
    }
    return at == left(c) ? 0 : err_set(c->e, E_DATA, "'%s': %zu bytes after the last tensor, at byte %zu",
                                       c->file, left(c) - at, place(c) + at);
}

static int read_tensors(struct gguf *g, struct cursor *c, uint64_t n)
{
    struct gguf_tensor *t = malloc((n + 1) * sizeof *t);
    struct { size_t kept; uint64_t offset; } *extra = malloc((n + 1) * sizeof *extra);
    uint64_t align = GGUF_ALIGN;
    size_t pad;
    int rc = t && extra ? 0 : err_set(c->e, E_SYS, "'%s': out of memory for %llu tensors", c->file,
                                      (unsigned long long)n);

    g->tensors = t;
    for (uint64_t i = 0; i < n && rc == 0; i++)
        rc = tensor(c, &t[i], &extra[i].kept, &extra[i].offset);
    g->names = take_strings(c);
    for (uint64_t i = 0; i < n && rc == 0; i++)
        t[i].name = g->names + extra[i].kept;
    if (rc == 0)
        rc = alignment(g, c, &align);
    if (rc == 0) { /* a file without tensors may end at once */
        pad = padding(place(c), align);
        c->p += pad < left(c) ? pad : left(c);
        g->n_tensors = (int64_t)n;
    }
    for (uint64_t i = 0; i < n && rc == 0; i++)
        rc = place_tensor(c, &t[i], extra[i].offset, align);
    if (rc == 0 && n)
        qsort(t, n, sizeof *t, by_place);
    if (rc == 0 && (rc = check_places(g, c, align)) == 0 && n)
        qsort(t, n, sizeof *t, by_name);
    for (uint64_t i = 1; i < n && rc == 0; i++)
        if (by_name(&t[i - 1], &t[i]) == 0)
            rc = err_set(c->e, E_DATA, "'%s': tensor '%s' appears twice, at bytes %zu and %zu", c->file,
                         t[i].name, t[i - 1].at, t[i].at);
    free(extra);
    return rc;
}

int gguf_parse(struct gguf **out, const void *bytes, size_t nbytes, const char *file, struct err *e)
{
    struct cursor c = { .start = bytes, .p = bytes, .end = (const unsigned char *)bytes + nbytes,
                        .file = file, .e = e };
    struct gguf *g = calloc(1, sizeof *g);
    uint64_t n_tensors = 0, n_values = 0;
    int rc;

    *out = NULL;
    if (!g || !(g->name = strdup(file)))
        rc = err_set(e, E_SYS, "out of memory");
    else if ((rc = header(&c, &n_tensors, &n_values)) == 0 &&
             (rc = read_values(g, &c, n_values)) == 0)
        rc = read_tensors(g, &c, n_tensors);
    if (rc == 0)
        *out = g;
    else
        gguf_close(g);
    return rc;
}

int gguf_open(struct gguf **g, const char *path, struct err *e)
{
    const void *map;
    size_t n;
    int rc = file_map(path, &map, &n, e);

    *g = NULL;
    if (rc < 0)
        return rc;
    if ((rc = gguf_parse(g, map, n, path, e)) < 0) {
        file_unmap(map, n);
        return rc;
    }
    (*g)->map = map;
    (*g)->map_bytes = n;
    return 0;
}
