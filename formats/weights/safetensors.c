/* formats/weights/safetensors.c - the reader; its JSON has a fixed shape and is scanned.
 *
 * The file is mapped and the tensors are views into it. The header is not trusted: the span of
 * each tensor must be what its shape and type need, and all spans together must cover the data
 * without holes and overlaps. Afterwards the tensors are sorted by name, for st_find. */
#include "formats/weights/safetensors.h"

#include "base/block_hash.h"
#include "base/bytes.h"
#include "base/file.h"
#include "formats/weights/st_scan.h"
#include "formats/weights/st_sums.h"

#include <stdlib.h>
#include <string.h>

/* The limit of the reference implementation of the format too. */
#define MAX_HEADER 100000000u

/* Those that are no floats to compute with. */
static const struct tensor_type others[] = {
    { .name = "F64", .plain = DT_OTHER, .block = 1, .block_bytes = 8 },
    { .name = "I64", .plain = DT_OTHER, .block = 1, .block_bytes = 8 },
    { .name = "I32", .plain = DT_OTHER, .block = 1, .block_bytes = 4 },
    { .name = "I16", .plain = DT_OTHER, .block = 1, .block_bytes = 2 },
    { .name = "I8", .plain = DT_OTHER, .block = 1, .block_bytes = 1 },
    { .name = "U8", .plain = DT_OTHER, .block = 1, .block_bytes = 1 },
    { .name = "BOOL", .plain = DT_OTHER, .block = 1, .block_bytes = 1 },
    { .name = "U16", .plain = DT_OTHER, .block = 1, .block_bytes = 2 },
    { .name = "U32", .plain = DT_OTHER, .block = 1, .block_bytes = 4 },
    { .name = "U64", .plain = DT_OTHER, .block = 1, .block_bytes = 8 },
    { .name = "C64", .plain = DT_OTHER, .block = 1, .block_bytes = 8 },
    { .name = "F8_E5M2", .plain = DT_OTHER, .block = 1, .block_bytes = 1 },
    { .name = "F8_E4M3", .plain = DT_OTHER, .block = 1, .block_bytes = 1 },
    { .name = "F8_E8M0", .plain = DT_OTHER, .block = 1, .block_bytes = 1 },
    { .name = "F8_E4M3FNUZ", .plain = DT_OTHER, .block = 1, .block_bytes = 1 },
    { .name = "F8_E5M2FNUZ", .plain = DT_OTHER, .block = 1, .block_bytes = 1 },
    /* These pack several elements into whole bytes: 4 elements of 6 bits in 3 bytes. */
    { .name = "F6_E2M3", .plain = DT_OTHER, .block = 4, .block_bytes = 3 },
    { .name = "F6_E3M2", .plain = DT_OTHER, .block = 4, .block_bytes = 3 },
    { .name = "F4", .plain = DT_OTHER, .block = 2, .block_bytes = 1 },
};

const struct tensor_type *st_type(const char *name)
{
    static const struct tensor_type *const floats[] = { &type_f32, &type_f16, &type_bf16 };

    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++)
        if (strcmp(name, floats[i]->name) == 0)
            return floats[i];
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strcmp(name, others[i].name) == 0)
            return &others[i];
    return NULL;
}

/* A tensor and where its bytes are, counted from the end of the header. */
struct entry {
    struct tensor t;
    uint64_t begin, end;
};
/* A key and its value in __metadata__. */
struct pair {
    const char *key, *value;
};
struct st_file {
    const void *map; /* NULL: the bytes are the caller's */
    size_t map_bytes;
    struct entry *t;
    struct pair *meta;
    int64_t n, cap, n_meta, cap_meta;
    char *path;
    char *strings; /* every decoded string, as long as the header at most */
    bool hashed;
};

/* What is needed only while the header is read. */
struct reader {
    struct scan s;
    struct st_file *f;
    bool metadata_seen;
    const char *digits; /* the value of ST_HEADER_KEY, as it stands in the file; NULL: none */
};

/* The name of the type. The scanner's strings end with a NUL, so word can be compared as
 * one. */
static int dtype_field(struct reader *r, struct entry *t)
{
    const char *word;
    int rc = scan_string(&r->s, &word);

    if (rc < 0)
        return rc;
    if ((t->t.type = st_type(word)))
        return 0;
    /* A type that is not in the tables has no known size, so its span cannot be checked. */
    return err_set(r->s.e, E_DATA, "'%s': tensor '%.200s' has the unknown type '%.40s'",
                   r->s.file, t->t.name, word);
}

/* One of the three fields of a tensor; seen collects which there were. */
static int tensor_field(struct reader *r, struct entry *t, unsigned *seen)
{
    uint64_t v[TENSOR_DIMS];
    const char *key;
    unsigned bit;
    int rc = scan_string(&r->s, &key);

    if (rc < 0)
        return rc;
    /* One bit for each field: 1 dtype, 2 shape, 4 data_offsets. */
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
    /* From here on rc is how many numbers there were. */
    if ((rc = scan_numbers(&r->s, v, bit == 2 ? TENSOR_DIMS : 2)) < 0)
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

/* The product of the shape times the element's size is the span, without overflow. */
static int check_span(struct reader *r, struct entry *t)
{
    const struct tensor_type *type = t->t.type;
    uint64_t nbytes;

    t->t.count = 1;
    /* A shape without dimensions, [], is one element. */
    for (int i = 0; i < t->t.dims; i++)
        if (__builtin_mul_overflow(t->t.count, t->t.shape[i], &t->t.count))
            return err_set(r->s.e, E_DATA, "'%s': the shape of tensor '%.200s' overflows",
                           r->s.file, t->t.name);
    if (t->end < t->begin)
        return err_set(r->s.e, E_DATA, "'%s': tensor '%.200s' ends at %llu, before it begins "
                       "at %llu", r->s.file, t->t.name, (unsigned long long)t->end,
                       (unsigned long long)t->begin);
    /* Types of less than a byte come in blocks, which must be whole. */
    if (t->t.count % type->block != 0 ||
        __builtin_mul_overflow((uint64_t)(t->t.count / type->block), type->block_bytes, &nbytes) ||
        nbytes != t->end - t->begin)
        return err_set(r->s.e, E_DATA, "'%s': tensor '%.200s' has %lld elements of %u bits "
                       "and data_offsets of %llu bytes", r->s.file, t->t.name,
                       (long long)t->t.count, (unsigned)(8 * type->block_bytes / type->block),
                       (unsigned long long)(t->end - t->begin));
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

/* The object __metadata__: strings only, kept for st_metadata. */
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
        /* Its last quote is behind it now. */
        if (strcmp(f->meta[f->n_meta].key, ST_HEADER_KEY) == 0)
            r->digits = r->s.p - 1 - HASH_HEX;
        f->n_meta++;
    } while (scan_take(&r->s, ','));
    return scan_take(&r->s, '}') ? 0 : scan_bad(&r->s, "no '}' after '__metadata__'");
}

/* One tensor of the header: its type, shape and place. */
static int tensor(struct reader *r, const char *name)
{
    struct st_file *f = r->f;
    unsigned seen = 0;
    struct entry *t;
    int rc = grow(r, &f->t, f->n, &f->cap, sizeof *f->t);

    if (rc < 0)
        return rc;
    t = &f->t[f->n];
    *t = (struct entry){ .t.name = name, .t.file = f->path };
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
    /* All three fields must have come; 7 is all three bits. */
    if (seen != 7)
        return err_set(r->s.e, E_DATA, "'%s': tensor '%.200s' has no %s", r->s.file, name,
                       !(seen & 1) ? "dtype" : !(seen & 2) ? "shape" : "data_offsets");
    f->n++;
    return check_span(r, t);
}

/* The whole header. It must begin with '{' at once; white space is allowed behind the last
 * '}'. */
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
            /* All keys but this one are names of tensors. */
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

/* By where they begin, and empty tensors before the one that begins at the same place. */
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

/* Sorted by place, each tensor begins where the one before ended, and the last
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
    /* Bytes that belong to no tensor could hide anything, and a strict reader takes none. */
    if (at != data_bytes)
        return err_set(r->s.e, E_DATA, "'%s': %llu bytes after the last tensor", r->s.file,
                       (unsigned long long)(data_bytes - at));
    return 0;
}

/* No name may come twice. The array stays sorted by name after this, which is what st_find searches
 * in. */
static int check_names(struct reader *r)
{
    struct st_file *f = r->f;

    if (f->n)
        qsort(f->t, (size_t)f->n, sizeof *f->t, by_name);
    for (int64_t i = 1; i < f->n; i++)
        if (strcmp(f->t[i - 1].t.name, f->t[i].t.name) == 0)
            return err_set(r->s.e, E_DATA, "'%s': tensor '%.200s' appears twice", r->s.file,
                           f->t[i].t.name);
    return 0;
}

/* The same of the keys of the metadata, for st_metadata. */
static int check_keys(struct reader *r)
{
    struct st_file *f = r->f;

    if (f->n_meta)
        qsort(f->meta, (size_t)f->n_meta, sizeof *f->meta, by_key);
    for (int64_t i = 1; i < f->n_meta; i++)
        if (strcmp(f->meta[i - 1].key, f->meta[i].key) == 0)
            return err_set(r->s.e, E_DATA, "'%s': a '__metadata__' key appears twice",
                           r->s.file);
    return 0;
}

/* Other programs that keep keys they do not know would lead here too. */
static int changed(struct reader *r, const char *what)
{
    err_set(r->s.e, E_DATA, "'%s': the header was changed after it was written: %s", r->s.file, what);
    return err_hint(r->s.e, "the file is damaged: copy it again; or a program rewrote it and kept "
                    "'" ST_HEADER_KEY "' and '" ST_TENSORS_KEY "', which must go then");
}

/* The header is what its hash says, and every tensor gets its own. The tensors are sorted by place,
 * the metadata by key. */
static int take_sums(struct reader *r, const char *file, size_t nbytes)
{
    struct st_file *f = r->f;
    const char *header = st_metadata(f, ST_HEADER_KEY), *all = st_metadata(f, ST_TENSORS_KEY);

    if (!header && !all)
        return 0;
    if (!header || !all)
        return changed(r, "one of its two keys of hashes is not there");
    if (!st_sums_sealed(file, nbytes, r->digits))
        return changed(r, "its hash does not match");
    f->hashed = true;
    for (int64_t i = 0; i < f->n; i++) {
        f->t[i].t.hashed = true;
        if (!st_sums_get(all, i, f->n, &f->t[i].t.hash))
            return changed(r, "it has not one hash for each tensor");
    }
    return 0;
}

/* The file is 8 bytes of length, the header in JSON, and the data of all tensors. */
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
    /* The length comes from the file and is not to be trusted before this line. */
    if (n > nbytes - 8)
        return err_set(e, E_DATA, "'%s': header length %llu, the file has %zu bytes", name,
                       (unsigned long long)n, nbytes);
    if (!utf8_valid(p + 8, (size_t)n, NULL))
        return err_set(e, E_DATA, "'%s': the header is not UTF-8", name);
    f = calloc(1, sizeof *f);
    /* The decoded strings never take more room than the header (see st_scan.h). */
    if (!f || !(f->strings = malloc((size_t)n + 1)) || !(f->path = strdup(name))) {
        st_close(f);
        return err_set(e, E_SYS, "'%s': out of memory for the header", name);
    }
    r = (struct reader){ .s = { .file = name, .start = p + 8, .p = p + 8, .end = p + 8 + n,
                                .out = f->strings, .e = e }, .f = f };
    /* Names are compared last: until then the tensors are sorted by place, as their hashes are. */
    rc = header(&r);
    if (rc == 0)
        rc = check_places(&r, (const unsigned char *)p + 8 + n, nbytes - 8 - n);
    if (rc == 0 && (rc = check_keys(&r)) == 0 && (rc = take_sums(&r, p, (size_t)n + 8)) == 0)
        rc = check_names(&r);
    if (rc < 0)
        st_close(f);
    else
        *out = f;
    return rc;
}

/* The tensors point into the mapped file, which stays mapped until st_close. */
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
    free(f->path);
    free(f->strings);
    free(f);
}

int64_t st_count(const struct st_file *f) { return f->n; }
bool st_hashed(const struct st_file *f) { return f->hashed; }
const struct tensor *st_at(const struct st_file *f, int64_t i) { return &f->t[i].t; }

const struct tensor *st_find(const struct st_file *f, const char *name)
{
    /* Only the name is compared, so the rest of the key may stay empty. */
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
