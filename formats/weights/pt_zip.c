/* formats/weights/pt_zip.c - see pt_zip.h.
 *
 * A zip is a row of members, each with a header of 30 bytes, its name and an extra field, then the
 * directory, an entry of 46 bytes and more for each, then the end record, which says where the
 * directory is. Sizes beyond 32 bits stand in an extra field of the entry, and in a second end record.
 * Here every number is held against the bytes that are there before it is used. */
#include "formats/weights/pt_zip.h"

#include "base/bytes.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define WIDE UINT32_C(0xFFFFFFFF) /* the true value stands in a 64-bit field */
enum { END = 22, COMMENT = 65535, ENTRY = 46, LOCAL = 30, LOCATOR = 20, END64 = 56 };

struct extent {
    uint64_t from, to;
};

struct zip {
    const unsigned char *p;
    uint64_t n;
    const char *file;
    struct err *e;
};

static int bad(const struct zip *z, const char *what)
{
    return err_set(z->e, E_DATA, "'%s': %s", z->file, what);
}

/* Where the directory lies, and how many entries it says to have. */
static int find_directory(const struct zip *z, struct extent *dir, uint64_t *entries)
{
    uint64_t most = z->n < END + COMMENT ? z->n : END + COMMENT, end = 0;
    const unsigned char *r = NULL;

    for (uint64_t back = END; back <= most && !r; back++)
        if (memcmp(z->p + z->n - back, "PK\5\6", 4) == 0)
            r = z->p + (end = z->n - back);
    if (!r)
        return bad(z, "not a zip archive, or cut short: it has no end record");
    *entries = get_le(r + 10, 2);
    dir->from = get_le(r + 16, 4);
    dir->to = get_le(r + 12, 4);
    if (end >= LOCATOR && memcmp(r - LOCATOR, "PK\6\7", 4) == 0) {
        uint64_t at = get_le(r - LOCATOR + 8, 8);
        if (end - LOCATOR < END64 || at > end - LOCATOR - END64 || memcmp(z->p + at, "PK\6\6", 4) != 0)
            return bad(z, "the 64-bit end record of the archive is not where it should be");
        *entries = get_le(z->p + at + 32, 8);
        dir->to = get_le(z->p + at + 40, 8);
        dir->from = get_le(z->p + at + 48, 8);
        end = at;
    }
    if (dir->from > end || dir->to > end - dir->from)
        return bad(z, "the archive's directory lies outside the file");
    dir->to += dir->from;
    if (*entries > (dir->to - dir->from) / ENTRY)
        return bad(z, "the archive's directory is too short for its entries");
    return 0;
}

/* The 64-bit values of an entry's extra field, in the order in which the fields are WIDE. */
static int read_wide(const struct zip *z, const unsigned char *extra, size_t n, uint64_t *const want[3])
{
    for (size_t at = 0, k; n - at >= 4; at += 4 + k) {
        k = (size_t)get_le(extra + at + 2, 2);
        if (k > n - at - 4)
            return bad(z, "an entry of the archive has a damaged extra field");
        if (get_le(extra + at, 2) != 1)
            continue;
        for (size_t i = 0, used = 0; i < 3; i++)
            if (*want[i] == WIDE) {
                if (k - used < 8)
                    return bad(z, "an entry of the archive lacks its 64-bit sizes");
                *want[i] = get_le(extra + at + 4 + used, 8);
                used += 8;
            }
        break;
    }
    return 0;
}

/* The member behind one entry; *whole: with its header. */
static int read_entry(const struct zip *z, const struct extent *dir, const unsigned char *p,
                      struct pt_member *m, struct extent *whole)
{
    uint64_t stored = get_le(p + 20, 4), size = get_le(p + 24, 4), at = get_le(p + 42, 4);
    size_t name = (size_t)get_le(p + 28, 2), extra = (size_t)get_le(p + 30, 2), local;
    const unsigned char *h;
    int rc = read_wide(z, p + ENTRY + name, extra, (uint64_t *const[]){ &size, &stored, &at });

    if (rc < 0)
        return rc;
    if (get_le(p + 8, 2) & 1)
        return bad(z, "a member of the archive is encrypted");
    if (get_le(p + 10, 2) != 0 || stored != size)
        return bad(z, "a member of the archive is compressed, which torch.save never does");
    if (at > dir->from || dir->from - at < LOCAL || memcmp(h = z->p + at, "PK\3\4", 4) != 0)
        return bad(z, "a member of the archive is not where its entry says");
    local = LOCAL + (size_t)get_le(h + 26, 2) + (size_t)get_le(h + 28, 2);
    if (get_le(h + 26, 2) != name || local > dir->from - at || size > dir->from - at - local ||
        memcmp(h + LOCAL, p + ENTRY, name) != 0)
        return bad(z, "a member of the archive and its entry do not agree");
    *m = (struct pt_member){ (const char *)p + ENTRY, name, h + local, (size_t)size };
    *whole = (struct extent){ at, at + local + size };
    return 0;
}

static int by_name(const void *a, const void *b)
{
    const struct pt_member *x = a, *y = b;
    size_t n = x->name_bytes < y->name_bytes ? x->name_bytes : y->name_bytes;
    int c = memcmp(x->name, y->name, n);

    return c ? c : (x->name_bytes > y->name_bytes) - (x->name_bytes < y->name_bytes);
}

static int by_place(const void *a, const void *b)
{
    const struct extent *x = a, *y = b;

    return (x->from > y->from) - (x->from < y->from);
}

static int check_apart(const struct zip *z, const struct pt_zip *out, struct extent *x)
{
    qsort(x, out->n, sizeof *x, by_place);
    for (size_t i = 1; i < out->n; i++)
        if (x[i - 1].to > x[i].from)
            return bad(z, "members of the archive overlap");
    for (size_t i = 1; i < out->n; i++)
        if (by_name(&out->at[i - 1], &out->at[i]) == 0)
            return bad(z, "two members of the archive have one name");
    return 0;
}

int pt_zip_parse(struct pt_zip *out, const void *bytes, size_t nbytes, const char *file, struct err *e)
{
    const struct zip z = { bytes, nbytes, file, e };
    struct extent dir = { 0 }, *x = NULL;
    uint64_t entries = 0;
    int rc = find_directory(&z, &dir, &entries);

    *out = (struct pt_zip){ 0 };
    if (rc == 0) {
        out->at = calloc((size_t)entries + 1, sizeof *out->at);
        x = calloc((size_t)entries + 1, sizeof *x);
        rc = out->at && x ? 0 : err_set(e, E_SYS, "out of memory");
    }
    for (uint64_t at = rc < 0 ? 0 : dir.from, i = 0; rc == 0 && i < entries; i++) {
        const unsigned char *p = z.p + at;
        uint64_t n;
        if (dir.to - at < ENTRY || memcmp(p, "PK\1\2", 4) != 0) {
            rc = bad(&z, "the archive's directory is damaged");
            break;
        }
        n = ENTRY + get_le(p + 28, 2) + get_le(p + 30, 2) + get_le(p + 32, 2);
        if (n > dir.to - at)
            rc = bad(&z, "the archive's directory is cut short");
        else if ((rc = read_entry(&z, &dir, p, &out->at[out->n], &x[out->n])) == 0)
            out->n++;
        at += n;
    }
    if (rc == 0) {
        qsort(out->at, out->n, sizeof *out->at, by_name);
        rc = check_apart(&z, out, x);
    }
    free(x);
    if (rc < 0)
        pt_zip_free(out);
    return rc;
}

void pt_zip_free(struct pt_zip *z)
{
    free(z->at);
    *z = (struct pt_zip){ 0 };
}

const struct pt_member *pt_zip_find(const struct pt_zip *z, const char *name)
{
    struct pt_member key = { .name = name, .name_bytes = strlen(name) };

    return z->n ? bsearch(&key, z->at, z->n, sizeof key, by_name) : NULL;
}
