/* formats/weights/safetensors.c - the reader; the header's JSON has a fixed shape, scanned here. */
#include "formats/weights/safetensors.h"

#include "base/bytes.h"
#include "base/file.h"
#include "formats/weights/st_scan.h"

#include <stdlib.h>
#include <string.h>

#define MAX_HEADER 100000000u

/* Names as the format writes them; bits an element. */
static const struct { const char *name; unsigned bits; enum st_dtype type; } dtypes[] = {
    { "F32", 32, ST_F32 }, { "F16", 16, ST_F16 }, { "BF16", 16, ST_BF16 },
    { "F64", 64, ST_F64 }, { "I64", 64, ST_I64 }, { "I32", 32, ST_I32 },
    { "I16", 16, ST_I16 }, { "I8", 8, ST_I8 }, { "U8", 8, ST_U8 }, { "BOOL", 8, ST_BOOL },
    { "U16", 16, ST_OTHER }, { "U32", 32, ST_OTHER }, { "U64", 64, ST_OTHER },
    { "C64", 64, ST_OTHER }, { "F8_E5M2", 8, ST_OTHER }, { "F8_E4M3", 8, ST_OTHER },
    { "F8_E8M0", 8, ST_OTHER }, { "F8_E4M3FNUZ", 8, ST_OTHER }, { "F8_E5M2FNUZ", 8, ST_OTHER },
    { "F6_E2M3", 6, ST_OTHER }, { "F6_E3M2", 6, ST_OTHER }, { "F4", 4, ST_OTHER },
};
enum { N_DTYPES = sizeof dtypes / sizeof *dtypes };

size_t st_dtype_bytes(enum st_dtype t)
{
    return t < ST_OTHER ? dtypes[t].bits / 8 : 0;
}

const char *st_dtype_name(enum st_dtype t)
{
    return t < ST_OTHER ? dtypes[t].name : "other";
}

bool st_dtype_real(enum st_dtype t) { return t == ST_F32 || t == ST_F16 || t == ST_BF16; }

struct entry {
    struct st_tensor t;
    uint64_t begin, end;
    unsigned bits;
};
struct pair {
    const char *key, *value;
};
struct st_file {
    const void *map; /* NULL: the bytes are the caller's */
    size_t map_bytes;
    struct entry *t;
    struct pair *meta;
    int64_t n, cap, n_meta, cap_meta;
    char *strings; /* every decoded string, as long as the header at most */
};

struct reader {
    struct scan s;
    struct st_file *f;
    bool metadata_seen;
};

static int dtype_field(struct reader *r, struct entry *t)
{
    const char *word;
    int rc = scan_string(&r->s, &word);

    if (rc < 0)
        return rc;
    for (int i = 0; i < N_DTYPES; i++)
        if (strcmp(word, dtypes[i].name) == 0) {
            t->t.dtype = dtypes[i].type;
            t->bits = dtypes[i].bits;
            return 0;
        }
    return err_set(r->s.e, E_DATA, "'%s': tensor '%.200s' has the unknown type '%.40s'",
                   r->s.file, t->t.name, word);
}

/* One of the three fields of a tensor; seen collects which there were. */
static int tensor_field(struct reader *r, struct entry *t, unsigned *seen)
{
    uint64_t v[ST_MAX_DIMS];
    const char *key;
    unsigned bit;
    int rc = scan_string(&r->s, &key);

    if (rc < 0)
        return rc;
    bit = strcmp(key, "dtype") == 0 ? 1 : strcmp(key, "shape") == 0 ? 2 :
          strcmp(key, "data_offsets") == 0 ? 4 : 0;
    if (!bit)
        return scan_bad(&r->s, "unknown field of a tensor");
    if (*seen & bit)
        return scan_bad(&r->s, "field of a tensor given twice");
    *seen |= bit;
    if (!scan_take(&r->s, ':'))
        return scan_bad(&r->s, "no ':'");
    if (bit == 1)
        return dtype_field(r, t);
    if ((rc = scan_numbers(&r->s, v, bit == 2 ? ST_MAX_DIMS : 2)) < 0)
        return rc;
    if (bit == 2) {
        t->t.dims = rc;
        for (int i = 0; i < rc; i++)
            t->t.shape[i] = (int64_t)v[i];
    } else {
        if (rc != 2)
            return scan_bad(&r->s, "data_offsets must be two numbers");
        t->begin = v[0];
        t->end = v[1];
    }
    return 0;
}

/* Rule 4: the product of the shape times the element's size is the span, without overflow. */
static int check_span(struct reader *r, struct entry *t)
{
    uint64_t bits;

    t->t.count = 1;
    for (int i = 0; i < t->t.dims; i++)
        if (__builtin_mul_overflow(t->t.count, t->t.shape[i], &t->t.count))
            return err_set(r->s.e, E_DATA, "'%s': the shape of tensor '%.200s' overflows",
                           r->s.file, t->t.name);
    if (t->end < t->begin)
        return err_set(r->s.e, E_DATA, "'%s': tensor '%.200s' ends at %llu, before it begins "
                       "at %llu", r->s.file, t->t.name, (unsigned long long)t->end,
                       (unsigned long long)t->begin);
    if (__builtin_mul_overflow((uint64_t)t->t.count, t->bits, &bits) || bits % 8 != 0 ||
        bits / 8 != t->end - t->begin)
        return err_set(r->s.e, E_DATA, "'%s': tensor '%.200s' has %lld elements of %u bits "
                       "and data_offsets of %llu bytes", r->s.file, t->t.name,
                       (long long)t->t.count, t->bits, (unsigned long long)(t->end - t->begin));
    t->t.nbytes = (size_t)(t->end - t->begin);
    return 0;
}

/* Room for one more of n elements of size bytes; *cap grows. */
static int grow(struct reader *r, void *array, int64_t n, int64_t *cap, size_t size)
{
    void **a = array, *q;
    int64_t want = *cap ? *cap + *cap / 2 : 64;

    if (n < *cap)
        return 0;
    if (!(q = realloc(*a, (size_t)want * size)))
        return err_set(r->s.e, E_SYS, "'%s': out of memory for the header", r->s.file);
    *a = q;
    *cap = want;
    return 0;
}

static int metadata(struct reader *r)
{
    struct st_file *f = r->f;
    int rc;

    if (r->metadata_seen)
        return scan_bad(&r->s, "'__metadata__' given twice");
    r->metadata_seen = true;
    if (!scan_take(&r->s, '{'))
        return scan_bad(&r->s, "'__metadata__' is not an object");
    if (scan_take(&r->s, '}'))
        return 0;
    do {
        if ((rc = grow(r, &f->meta, f->n_meta, &f->cap_meta, sizeof *f->meta)) < 0 ||
            (rc = scan_string(&r->s, &f->meta[f->n_meta].key)) < 0)
            return rc;
        if (!scan_take(&r->s, ':'))
            return scan_bad(&r->s, "no ':'");
        if ((rc = scan_string(&r->s, &f->meta[f->n_meta].value)) < 0)
            return rc;
        f->n_meta++;
    } while (scan_take(&r->s, ','));
    return scan_take(&r->s, '}') ? 0 : scan_bad(&r->s, "no '}' after '__metadata__'");
}

static int tensor(struct reader *r, const char *name)
{
    struct st_file *f = r->f;
    unsigned seen = 0;
    struct entry *t;
    int rc = grow(r, &f->t, f->n, &f->cap, sizeof *f->t);

    if (rc < 0)
        return rc;
    t = &f->t[f->n];
    *t = (struct entry){ .t.name = name };
    for (const char *c = name; *c; c++) /* they are printed and written again */
        if ((unsigned char)*c < 0x20 || *c == 0x7F)
            return scan_bad(&r->s, "control character in a tensor's name");
    if (!scan_take(&r->s, '{'))
        return scan_bad(&r->s, "a tensor is not an object");
    do {
        if ((rc = tensor_field(r, t, &seen)) < 0)
            return rc;
    } while (scan_take(&r->s, ','));
    if (!scan_take(&r->s, '}'))
        return scan_bad(&r->s, "no '}' after a tensor");
    if (seen != 7)
        return err_set(r->s.e, E_DATA, "'%s': tensor '%.200s' has no %s", r->s.file, name,
                       !(seen & 1) ? "dtype" : !(seen & 2) ? "shape" : "data_offsets");
    f->n++;
    return check_span(r, t);
}

static int header(struct reader *r)
{
    const char *key;
    int rc;

    if (r->s.p == r->s.end || *r->s.p++ != '{')
        return err_set(r->s.e, E_DATA, "'%s': the header does not begin with '{'", r->s.file);
    if (!scan_take(&r->s, '}')) {
        do {
            if ((rc = scan_string(&r->s, &key)) < 0)
                return rc;
            if (!scan_take(&r->s, ':'))
                return scan_bad(&r->s, "no ':'");
            rc = strcmp(key, "__metadata__") == 0 ? metadata(r) : tensor(r, key);
            if (rc < 0)
                return rc;
        } while (scan_take(&r->s, ','));
        if (!scan_take(&r->s, '}'))
            return scan_bad(&r->s, "no '}'");
    }
    scan_space(&r->s);
    return r->s.p == r->s.end ? 0 : scan_bad(&r->s, "bytes after the closing '}'");
}

static int by_place(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;

    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->t.name, ((const struct entry *)b)->t.name);
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct pair *)a)->key, ((const struct pair *)b)->key);
}

/* Rules 3 and 5: sorted by place, each tensor begins where the one before ended, and the last
 * ends with the file. */
static int check_places(struct reader *r, const unsigned char *data, uint64_t data_bytes)
{
    struct st_file *f = r->f;
    uint64_t at = 0;

    if (f->n)
        qsort(f->t, (size_t)f->n, sizeof *f->t, by_place);
    for (int64_t i = 0; i < f->n; i++) {
        struct entry *t = &f->t[i];
        if (t->begin != at)
            return err_set(r->s.e, E_DATA, "'%s': tensor '%.200s' begins at %llu, %s: the one "
                           "before ends at %llu", r->s.file, t->t.name,
                           (unsigned long long)t->begin,
                           t->begin > at ? "after a hole" : "inside another",
                           (unsigned long long)at);
        if (t->end > data_bytes) {
            err_set(r->s.e, E_DATA, "'%s': tensor '%.200s' ends at %llu, the file has %llu "
                    "bytes of data", r->s.file, t->t.name, (unsigned long long)t->end,
                    (unsigned long long)data_bytes);
            return err_hint(r->s.e, "the file was cut short: copy or download it again");
        }
        t->t.data = data + t->begin;
        at = t->end;
    }
    if (at != data_bytes)
        return err_set(r->s.e, E_DATA, "'%s': %llu bytes after the last tensor", r->s.file,
                       (unsigned long long)(data_bytes - at));
    return 0;
}

static int check_unique(struct reader *r)
{
    struct st_file *f = r->f;

    if (f->n)
        qsort(f->t, (size_t)f->n, sizeof *f->t, by_name);
    for (int64_t i = 1; i < f->n; i++)
        if (strcmp(f->t[i - 1].t.name, f->t[i].t.name) == 0)
            return err_set(r->s.e, E_DATA, "'%s': tensor '%.200s' is there twice", r->s.file,
                           f->t[i].t.name);
    if (f->n_meta)
        qsort(f->meta, (size_t)f->n_meta, sizeof *f->meta, by_key);
    for (int64_t i = 1; i < f->n_meta; i++)
        if (strcmp(f->meta[i - 1].key, f->meta[i].key) == 0)
            return err_set(r->s.e, E_DATA, "'%s': a '__metadata__' key is there twice",
                           r->s.file);
    return 0;
}

int st_parse(struct st_file **out, const void *bytes, size_t nbytes, const char *name,
             struct err *e)
{
    const char *p = bytes;
    struct st_file *f;
    struct reader r;
    uint64_t n;
    int rc;

    *out = NULL;
    if (nbytes < 8)
        return err_set(e, E_DATA, "'%s' is not a safetensors file: %zu bytes", name, nbytes);
    n = get_le(p, 8);
    if (n > MAX_HEADER)
        return err_set(e, E_DATA, "'%s' is not a safetensors file: header length %llu, at most "
                       "%u", name, (unsigned long long)n, MAX_HEADER);
    if (n > nbytes - 8)
        return err_set(e, E_DATA, "'%s': header length %llu, the file has %zu bytes", name,
                       (unsigned long long)n, nbytes);
    if (!utf8_valid(p + 8, (size_t)n, NULL))
        return err_set(e, E_DATA, "'%s': the header is not UTF-8", name);
    f = calloc(1, sizeof *f);
    if (!f || !(f->strings = malloc((size_t)n + 1))) {
        free(f);
        return err_set(e, E_SYS, "'%s': out of memory for the header", name);
    }
    r = (struct reader){ .s = { .file = name, .start = p + 8, .p = p + 8, .end = p + 8 + n,
                                .out = f->strings, .e = e }, .f = f };
    rc = header(&r);
    if (rc == 0)
        rc = check_places(&r, (const unsigned char *)p + 8 + n, nbytes - 8 - n);
    if (rc == 0)
        rc = check_unique(&r);
    if (rc < 0)
        st_close(f);
    else
        *out = f;
    return rc;
}

int st_open(struct st_file **f, const char *path, struct err *e)
{
    const void *map;
    size_t n;
    int rc = file_map(path, &map, &n, e);

    *f = NULL;
    if (rc < 0)
        return rc;
    if ((rc = st_parse(f, map, n, path, e)) < 0) {
        file_unmap(map, n);
        return rc;
    }
    (*f)->map = map;
    (*f)->map_bytes = n;
    return 0;
}

void st_close(struct st_file *f)
{
    if (!f)
        return;
    file_unmap(f->map, f->map_bytes);
    free(f->t);
    free(f->meta);
    free(f->strings);
    free(f);
}

int64_t st_count(const struct st_file *f) { return f->n; }
const struct st_tensor *st_at(const struct st_file *f, int64_t i) { return &f->t[i].t; }

const struct st_tensor *st_find(const struct st_file *f, const char *name)
{
    struct entry key = { .t.name = name };
    const struct entry *t = f->n ? bsearch(&key, f->t, (size_t)f->n, sizeof *f->t, by_name)
                                 : NULL;

    return t ? &t->t : NULL;
}

const char *st_metadata(const struct st_file *f, const char *key)
{
    struct pair want = { key, NULL };
    const struct pair *m = f->n_meta ? bsearch(&want, f->meta, (size_t)f->n_meta,
                                               sizeof *f->meta, by_key) : NULL;

    return m ? m->value : NULL;
}

static enum dtype plain_of(enum st_dtype t)
{
    return t == ST_F32 ? DT_F32 : t == ST_F16 ? DT_F16 : t == ST_BF16 ? DT_BF16 : DT_OTHER;
}

int st_to_f32(enum st_dtype t, const void *src, int64_t count, float *dst, struct err *e)
{
    if (plain_of(t) == DT_OTHER)
        return err_set(e, E_DATA, "values of type %s cannot be read as float32",
                       st_dtype_name(t));
    floats_widen(plain_of(t), src, count, dst);
    return 0;
}

int st_from_f32(enum st_dtype t, const float *src, int64_t count, void *dst, struct err *e)
{
    if (plain_of(t) == DT_OTHER)
        return err_set(e, E_DATA, "float32 values cannot be written as type %s",
                       st_dtype_name(t));
    floats_narrow(plain_of(t), src, count, dst);
    return 0;
}
