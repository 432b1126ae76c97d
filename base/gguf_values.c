/* base/gguf_values.c - what a GGUF file that was read has: keys, values, tensors; see gguf.h. */
#include "base/gguf.h"

#include "base/gguf_impl.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void gguf_close(struct gguf *g)
{
    if (!g)
        return;
    file_unmap(g->map, g->map_bytes);
    free(g->values);
    free(g->tensors);
    free(g->keys);
    free(g->names);
    free(g->name);
    free(g);
}

bool gguf_is(const char *path)
{
    int fd = path_is_file(path) ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    char magic[4] = "";
    bool is = fd >= 0 && read(fd, magic, sizeof magic) == sizeof magic &&
              memcmp(magic, "GGUF", sizeof magic) == 0;

    if (fd >= 0)
        close(fd);
    return is;
}

const char *gguf_name(const struct gguf *g) { return g->name; }
int64_t gguf_values(const struct gguf *g) { return g->n_values; }
const struct gguf_value *gguf_value_at(const struct gguf *g, int64_t i) { return &g->values[i]; }
int64_t gguf_tensors(const struct gguf *g) { return g->n_tensors; }
const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, int64_t i) { return &g->tensors[i]; }

static int by_key(const void *key, const void *v)
{
    return strcmp(key, ((const struct gguf_value *)v)->key);
}
static int by_name(const void *name, const void *t)
{
    return strcmp(name, ((const struct gguf_tensor *)t)->name);
}

const struct gguf_value *gguf_find(const struct gguf *g, const char *key)
{
    return g->n_values ? bsearch(key, g->values, (size_t)g->n_values, sizeof *g->values, by_key) : NULL;
}

const struct gguf_tensor *gguf_tensor_find(const struct gguf *g, const char *name)
{
    return g->n_tensors ? bsearch(name, g->tensors, (size_t)g->n_tensors, sizeof *g->tensors, by_name)
                        : NULL;
}

/* The value of a key, of which pattern may have "%s" for arch in front. *v NULL: it may be absent. */
static int find(const struct gguf *g, const char *pattern, const char *arch, bool must,
                const struct gguf_value **v, struct err *e)
{
    bool of_arch = strncmp(pattern, "%s", 2) == 0;
    char key[256];

    snprintf(key, sizeof key, "%s%s", of_arch ? arch : "", pattern + (of_arch ? 2 : 0));
    *v = gguf_find(g, key);
    return *v || !must ? 0 : err_set(e, E_DATA, "'%s': key '%s' is missing", g->name, key);
}

static int mistyped(const struct gguf *g, const struct gguf_value *v, const char *want, struct err *e)
{
    return err_set(e, E_DATA, "'%s': key '%.100s' at byte %zu is not %s", g->name, v->key, v->at, want);
}

static bool is_whole(enum gguf_type t)
{
    return t != GGUF_F32 && t != GGUF_F64 && t != GGUF_STRING && t != GGUF_BOOL;
}

int64_t gguf_int_at(const struct gguf_value *v, uint64_t i)
{
    switch (v->type) {
    case GGUF_U8: return v->p[i];
    case GGUF_I8: return (int8_t)v->p[i];
    case GGUF_U16: return (int64_t)get_le(v->p + 2 * i, 2);
    case GGUF_I16: return (int16_t)get_le(v->p + 2 * i, 2);
    case GGUF_U32: return (int64_t)get_le(v->p + 4 * i, 4);
    case GGUF_I32: return (int32_t)get_le(v->p + 4 * i, 4);
    case GGUF_U64: case GGUF_I64: return (int64_t)get_le(v->p + 8 * i, 8);
    default: return v->p[i];
    }
}

double gguf_float_at(const struct gguf_value *v, uint64_t i)
{
    uint64_t bits = get_le(v->p + (v->type == GGUF_F64 ? 8 : 4) * i, v->type == GGUF_F64 ? 8 : 4);
    uint32_t half = (uint32_t)bits;
    double d;
    float f;

    memcpy(&d, &bits, sizeof d);
    memcpy(&f, &half, sizeof f);
    return v->type == GGUF_F64 ? d : (double)f;
}

/* The key's value, one that is_type takes; NULL where it may be missing and is. */
static int find_one(const struct gguf *g, const char *key, const char *arch, bool must,
                    bool (*is_type)(enum gguf_type t), const char *what, const struct gguf_value **v, struct err *e)
{
    int rc = find(g, key, arch, must, v, e);

    return rc == 0 && *v && ((*v)->array || !is_type((*v)->type)) ? mistyped(g, *v, what, e) : rc;
}

static bool is_float(enum gguf_type t) { return t == GGUF_F32 || t == GGUF_F64; }

int gguf_i64(const struct gguf *g, const char *key, const char *arch, bool must, int64_t lo,
             int64_t hi, int64_t *to, struct err *e)
{
    const struct gguf_value *v;
    int rc = find_one(g, key, arch, must, is_whole, "a whole number", &v, e);
    int64_t is;

    if (rc < 0 || !v)
        return rc;
    is = gguf_int_at(v, 0); /* above 2^63 it is negative, and below lo */
    if (is < lo || is > hi || (is < 0 && v->type == GGUF_U64))
        return err_set(e, E_DATA, "'%s': key '%.100s' at byte %zu is %lld, must be %lld to %lld", g->name,
                       v->key, v->at, (long long)is, (long long)lo, (long long)hi);
    *to = is;
    return 0;
}

int gguf_f64(const struct gguf *g, const char *key, const char *arch, bool must, double lo,
             double hi, double *to, struct err *e)
{
    const struct gguf_value *v;
    int rc = find_one(g, key, arch, must, is_float, "a float", &v, e);
    double is;

    if (rc < 0 || !v)
        return rc;
    is = gguf_float_at(v, 0);
    if (!(is >= lo && is <= hi))
        return err_set(e, E_DATA, "'%s': key '%.100s' at byte %zu is %g, must be %g to %g", g->name,
                       v->key, v->at, is, lo, hi);
    *to = is;
    return 0;
}

int gguf_bool(const struct gguf *g, const char *key, bool must, bool *to, struct err *e)
{
    const struct gguf_value *v;
    int rc = find(g, key, "", must, &v, e);

    if (rc < 0 || !v)
        return rc;
    if (v->array || v->type != GGUF_BOOL)
        return mistyped(g, v, "a bool", e);
    *to = v->p[0];
    return 0;
}

int gguf_string(const struct gguf *g, const char *key, const char *arch, bool must, const char **s,
                size_t *n, struct err *e)
{
    const struct gguf_value *v;
    int rc = find(g, key, arch, must, &v, e);

    if (rc < 0 || !v)
        return rc;
    if (v->array || v->type != GGUF_STRING)
        return mistyped(g, v, "a string", e);
    *s = (const char *)v->p + 8;
    *n = v->nbytes - 8;
    return 0;
}

int gguf_array(const struct gguf *g, const char *key, bool must, enum gguf_type type,
               const struct gguf_value **v, struct err *e)
{
    static const char *const called[GGUF_TYPES] = {
        [GGUF_I32] = "an array of i32", [GGUF_F32] = "an array of f32",
        [GGUF_STRING] = "an array of strings",
    };
    int rc = find(g, key, "", must, v, e);

    if (rc < 0 || !*v)
        return rc;
    return (*v)->array && (*v)->type == type ? 0 : mistyped(g, *v, called[type] ? called[type] :
                                                            "an array of its type", e);
}

const char *gguf_next_string(const struct gguf_value *v, size_t *at, size_t *n)
{
    const char *s = (const char *)v->p + *at + 8;

    *n = (size_t)get_le(v->p + *at, 8);
    *at += 8 + *n;
    return s;
}
