/* formats/weights/pt_file.c - see pt_file.h. */
#include "formats/weights/pt_file.h"

#include "base/file.h"
#include "formats/weights/pickle.h"
#include "formats/weights/pt_zip.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PICKLE "/data.pkl"
enum { NAME = 1024 }; /* most bytes of a member's name, folder and all */

struct pt_file {
    const void *map; /* NULL: the bytes are the caller's */
    size_t map_bytes;
    struct tensor *t;
    int64_t n;
    char *names, *path;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct tensor *)a)->name, ((const struct tensor *)b)->name);
}

/* The one member whose name ends in "/data.pkl"; what stands before it is the archive's folder. */
static const struct pt_member *find_pickle(const struct pt_zip *z)
{
    const size_t k = strlen(PICKLE);

    for (size_t i = 0; i < z->n; i++) {
        const struct pt_member *m = &z->at[i];
        if (m->name_bytes > k && m->name_bytes < NAME - 64 &&
            memcmp(m->name + m->name_bytes - k, PICKLE, k) == 0 &&
            !memchr(m->name, '/', m->name_bytes - k) && !memchr(m->name, '\0', m->name_bytes))
            return m;
    }
    return NULL;
}

/* folder/what of the archive. */
static const struct pt_member *member(const struct pt_zip *z, const struct pt_member *pickle,
                                      const char *what, const char *key, size_t n)
{
    char name[NAME];
    int folder = (int)(pickle->name_bytes - strlen(PICKLE));

    if (n > 32)
        return NULL;
    snprintf(name, sizeof name, "%.*s/%s%.*s", folder, pickle->name, what, (int)n, key);
    return pt_zip_find(z, name);
}

/* One tensor: its values are a part of the storage that its key names. */
static int add(struct pt_file *f, const struct pt_zip *z, const struct pt_member *pickle,
               const struct pickle_tensor *p, char *name, struct err *e)
{
    const struct pt_member *m = member(z, pickle, "data/", p->key, p->key_bytes);
    size_t each = p->type->block_bytes, want;
    struct tensor *t = &f->t[f->n];

    memcpy(name, p->name, p->name_bytes);
    name[p->name_bytes] = '\0';
    if (!m)
        return err_set(e, E_DATA, "'%s': tensor '%.200s': the archive has no values 'data/%.*s'",
                       f->path, name, p->key_bytes > 32 ? 32 : (int)p->key_bytes, p->key);
    if (__builtin_mul_overflow((size_t)p->stored, each, &want) || want != m->nbytes)
        return err_set(e, E_DATA, "'%s': tensor '%.200s' is of %lld values of %zu bytes, 'data/%.*s' has "
                       "%zu bytes", f->path, name, (long long)p->stored, each, (int)p->key_bytes,
                       p->key, m->nbytes);
    *t = (struct tensor){ .name = name, .type = p->type, .dims = p->dims, .count = p->count,
                          .data = m->data + (size_t)p->offset * each,
                          .nbytes = (size_t)p->count * each, .file = f->path };
    memcpy(t->shape, p->shape, sizeof t->shape);
    f->n++;
    return 0;
}

static int add_all(struct pt_file *f, const struct pt_zip *z, const struct pt_member *pickle,
                   const struct pickle *p, struct err *e)
{
    size_t bytes = 1;
    char *name;
    int rc = 0;

    for (size_t i = 0; i < p->n; i++)
        bytes += p->at[i].name_bytes + 1;
    f->t = calloc(p->n + 1, sizeof *f->t);
    if (!f->t || !(name = f->names = malloc(bytes)))
        return err_set(e, E_SYS, "out of memory");
    for (size_t i = 0; rc == 0 && i < p->n; i++) {
        rc = add(f, z, pickle, &p->at[i], name, e);
        name += p->at[i].name_bytes + 1;
    }
    if (rc == 0)
        qsort(f->t, (size_t)f->n, sizeof *f->t, by_name);
    for (int64_t i = 1; rc == 0 && i < f->n; i++)
        if (strcmp(f->t[i - 1].name, f->t[i].name) == 0)
            rc = err_set(e, E_DATA, "'%s': tensor '%.200s' is there twice", f->path, f->t[i].name);
    return rc;
}

/* What the archive says of itself beside the pickle. */
static int check_order(const struct pt_file *f, const struct pt_zip *z, const struct pt_member *pickle,
                       struct err *e)
{
    const struct pt_member *m = member(z, pickle, "byteorder", "", 0);

    if (!m || (m->nbytes == 6 && memcmp(m->data, "little", 6) == 0))
        return 0;
    return err_set(e, E_DATA, "'%s': its values are not little-endian", f->path);
}

static int read_all(struct pt_file *f, const void *bytes, size_t nbytes, struct err *e)
{
    const struct pt_member *pickle;
    struct pickle p = { 0 };
    struct pt_zip z = { 0 };
    int rc;

    if (nbytes < 4 || memcmp(bytes, "PK\3\4", 4) != 0) {
        err_set(e, E_DATA, "'%s' is no zip archive of torch.save", f->path);
        return err_hint(e, "files of torch before 1.6 are not read: save it as safetensors");
    }
    if ((rc = pt_zip_parse(&z, bytes, nbytes, f->path, e)) < 0)
        return rc;
    if (!(pickle = find_pickle(&z)))
        rc = err_set(e, E_DATA, "'%s': the archive has no data.pkl", f->path);
    if (rc == 0 && (rc = check_order(f, &z, pickle, e)) == 0 &&
        (rc = pickle_read(&p, pickle->data, pickle->nbytes, f->path, e)) == 0)
        rc = add_all(f, &z, pickle, &p, e);
    pickle_free(&p);
    pt_zip_free(&z);
    return rc;
}

int pt_parse(struct pt_file **out, const void *bytes, size_t nbytes, const char *name, struct err *e)
{
    struct pt_file *f = calloc(1, sizeof *f);
    int rc;

    *out = NULL;
    if (!f || !(f->path = strdup(name))) {
        free(f);
        return err_set(e, E_SYS, "out of memory");
    }
    if ((rc = read_all(f, bytes, nbytes, e)) < 0)
        pt_close(f);
    else
        *out = f;
    return rc;
}

int pt_open(struct pt_file **out, const char *path, struct err *e)
{
    const void *map;
    size_t n;
    int rc = file_map(path, &map, &n, e);

    *out = NULL;
    if (rc < 0)
        return rc;
    if ((rc = pt_parse(out, map, n, path, e)) < 0) {
        file_unmap(map, n);
        return rc;
    }
    (*out)->map = map;
    (*out)->map_bytes = n;
    return 0;
}

void pt_close(struct pt_file *f)
{
    if (!f)
        return;
    if (f->map)
        file_unmap(f->map, f->map_bytes);
    free(f->t);
    free(f->names);
    free(f->path);
    free(f);
}

int64_t pt_count(const struct pt_file *f) { return f->n; }
const struct tensor *pt_at(const struct pt_file *f, int64_t i) { return &f->t[i]; }

const struct tensor *pt_find(const struct pt_file *f, const char *name)
{
    struct tensor key = { .name = name };

    return f->n ? bsearch(&key, f->t, (size_t)f->n, sizeof key, by_name) : NULL;
}
