/* formats/weights/beside.c - see beside.h. */
#include "formats/weights/beside.h"

#include "base/block_hash.h"
#include "base/bytes.h"
#include "base/file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A name that can stand in the list, and leads to nowhere but the folder. */
static bool is_plain(const char *name)
{
    if (!*name || *name == '.' || strlen(name) > 255)
        return false;
    for (; *name; name++)
        if (*name <= ' ' || *name > '~' || strchr(":/", *name))
            return false;
    return true;
}

static int hash_file(const char *folder, const char *name, uint64_t *hash, struct err *e)
{
    char *path = path_join(folder, name), *text = NULL;
    size_t n;
    int rc = file_read(path, BESIDE_MAX, &text, &n, e);

    if (rc == 0)
        *hash = block_hash(text, n);
    free(text);
    free(path);
    return rc;
}

/* A file that was added before has been replaced since. */
static int add(struct beside *b, const char *name, uint64_t hash, struct err *e)
{
    size_t len = strlen(name);

    for (size_t i = 0; i < b->n; i++)
        if (strncmp(b->v[i], name, len) == 0 && b->v[i][len] == ':') {
            snprintf(b->v[i] + len + 1, HASH_HEX + 1, "%016" PRIx64, hash);
            return 0;
        }
    if (array_grow(&b->v, &b->cap, b->n, sizeof *b->v, 16, "files", e) < 0)
        return E_SYS;
    if (asprintf(&b->v[b->n], "%s:%016" PRIx64, name, hash) < 0)
        return err_set(e, E_SYS, "out of memory");
    b->n++;
    return 0;
}

int beside_add(struct beside *b, const char *name, const void *text, size_t nbytes, struct err *e)
{
    return is_plain(name) && nbytes <= BESIDE_MAX ? add(b, name, block_hash(text, nbytes), e) : 0;
}

int beside_add_file(struct beside *b, const char *folder, const char *name, struct err *e)
{
    uint64_t hash = 0;
    int rc = is_plain(name) ? hash_file(folder, name, &hash, e) : E_DATA;

    return rc == E_DATA ? 0 : rc < 0 ? rc : add(b, name, hash, e); /* E_DATA: too large */
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorted, as a folder lists its files in any order. */
int beside_value(struct beside *b, struct buf *out, struct err *e)
{
    int rc = 0;

    if (b->n)
        qsort(b->v, b->n, sizeof *b->v, by_name);
    for (size_t i = 0; i < b->n && rc == 0; i++)
        rc = buf_printf(out, e, "%s%s", i ? " " : "", b->v[i]);
    return rc < 0 ? rc : buf_add(out, "", 1, e);
}

void beside_free(struct beside *b)
{
    for (size_t i = 0; i < b->n; i++)
        free(b->v[i]);
    free(b->v);
    *b = (struct beside){ 0 };
}

enum { MAX_FILES = 256 }; /* far more than we write */

/* The file of an entry is not what the entry says, or is not there. */
static int differs(const char *entry, size_t n, const char *folder, char name[256], bool *yes,
                   struct err *e)
{
    const char *colon = memchr(entry, ':', n);
    uint64_t hash = 0;
    struct err why = { 0 };
    char is[HASH_HEX + 1];
    int rc;

    *yes = false;
    if (!colon || colon - entry > 255)
        return 0; /* not as we write it */
    snprintf(name, 256, "%.*s", (int)(colon - entry), entry);
    if (!is_plain(name))
        return 0;
    if ((rc = hash_file(folder, name, &hash, &why)) == E_SYS)
        return err_set(e, rc, "%s", why.msg);
    snprintf(is, sizeof is, "%016" PRIx64, hash);
    *yes = rc < 0 || n - (size_t)(colon + 1 - entry) != HASH_HEX ||
           memcmp(colon + 1, is, HASH_HEX) != 0;
    return 0;
}

int beside_changed(const char *value, const char *folder, struct buf *names, struct err *e)
{
    char name[256];
    bool yes;
    int rc = 0, files = 0;

    for (size_t n; rc == 0 && value && *value && files++ < MAX_FILES;
         value += n + (value[n] == ' ')) {
        n = strcspn(value, " ");
        if ((rc = differs(value, n, folder, name, &yes, e)) == 0 && yes)
            rc = buf_printf(names, e, "%s%s", names->len ? ", " : "", name);
    }
    return rc;
}
