/* formats/text/zipcheck.c - see zipcheck.h. */
#include "formats/text/zipcheck.h"

#include "base/bytes.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TAIL_BYTES 65557 /* the end record and the longest comment */
#define DIRECTORY_MAX ((uint64_t)64 << 20)
#define WIDE UINT32_C(0xFFFFFFFF) /* the true value stands in a 64-bit field */

/* The model: a zip archive is a row of members, each with its own header, then the
 * directory, which has an entry of 46 bytes and more for each member, then the end record,
 * which says where the directory is. In a large archive a second end record, with 64-bit
 * fields, stands before it, found by a locator of 20 bytes. All numbers are little-endian.
 * Records begin with "PK" and two bytes: 3 4 a member, 1 2 an entry of the directory, 5 6
 * the end record, 6 6 the 64-bit end record, 6 7 its locator. */

struct extent {
    uint64_t from, to;
};

static int read_at(int fd, void *p, size_t n, uint64_t at, const char *name, struct err *e)
{
    ssize_t k = pread(fd, p, n, (off_t)at);

    return k == (ssize_t)n ? 0
           : k < 0         ? err_sys(e, E_IO, "cannot read '%s'", name)
                           : err_set(e, E_IO, "'%s' became shorter while it was read", name);
}

/* Where the directory lies, and by how much all offsets are behind: 1, or 0 for none.
 * Offsets in the archive count from its own start, which is not the file's where something
 * was put before it, as in a program that unpacks itself. */
static int find_directory(int fd, uint64_t bytes, const char *name, struct extent *dir,
                          uint64_t *shift, struct err *e)
{
    unsigned char *tail, wide[56];
    uint64_t n = bytes < TAIL_BYTES ? bytes : TAIL_BYTES, size, at, end;
    int64_t i;
    int rc = 0;

    if (!(tail = malloc(n + 1)))
        return err_set(e, E_SYS, "out of memory");
    if ((rc = read_at(fd, tail, n, bytes - n, name, e)) < 0) {
        free(tail);
        return rc;
    }
    /* From the end backwards: a comment of up to 65,535 bytes may stand behind the record,
     * which has 22 bytes without it. */
    for (i = (int64_t)n - 22; i >= 0 && memcmp(tail + i, "PK\5\6", 4) != 0; i--)
        ;
    if (i < 0) {
        free(tail);
        return 0;
    }
    /* The end record: at 12 the directory's bytes, at 16 its offset. */
    size = get_le(tail + i + 12, 4);
    at = get_le(tail + i + 16, 4);
    end = bytes - n + (uint64_t)i;
    /* The 64-bit end record: its offset at 8 of the locator, then the same two values at 40
     * and 48. */
    if (i >= 20 && memcmp(tail + i - 20, "PK\6\7", 4) == 0) {
        uint64_t where = get_le(tail + i - 20 + 8, 8);
        if (where <= bytes && bytes - where >= sizeof wide &&
            (rc = read_at(fd, wide, sizeof wide, where, name, e)) == 0 &&
            memcmp(wide, "PK\6\6", 4) == 0) {
            size = get_le(wide + 40, 8);
            at = get_le(wide + 48, 8);
            end = where;
        }
    }
    free(tail);
    if (rc < 0)
        return rc;
    /* A size that cannot be: the reader will say so. */
    if (size > end || at > end - size)
        return 0;
    /* The directory ends where its end record begins, whatever the offset says. */
    *dir = (struct extent){ end - size, end };
    *shift = end - size - at; /* something was put before the archive */
    return 1;
}

/* 64-bit values, in this order, of those fields that are WIDE. The extra part is a row of
 * blocks: two bytes of id, two of length, then the data; id 1 is the block of 64-bit
 * values. */
static void widen(const unsigned char *extra, size_t n, uint64_t *unpacked, uint64_t *packed,
                  uint64_t *at)
{
    uint64_t *field[] = { unpacked, packed, at };

    while (n >= 4) {
        size_t k = (size_t)get_le(extra + 2, 2), id = (size_t)get_le(extra, 2), used = 0;
        if (k > n - 4)
            return;
        for (int i = 0; id == 1 && i < 3; i++)
            if (*field[i] == WIDE && used + 8 <= k) {
                *field[i] = get_le(extra + 4 + used, 8);
                used += 8;
            }
        extra += 4 + k;
        n -= 4 + k;
    }
}

static int by_place(const void *a, const void *b)
{
    const struct extent *x = a, *y = b;

    return x->from < y->from ? -1 : x->from > y->from ? 1 : x->to < y->to ? -1 : x->to > y->to;
}

/* What the directory says of a member. */
struct entry {
    const unsigned char *at_directory, *label;
    size_t n_label;
    uint64_t packed, unpacked, at;
};

static int err_reaches(const struct entry *m, const char *name, struct err *e)
{
    return err_set(e, E_DATA, "'%s' is damaged: a member at byte %llu of %llu bytes reaches into its "
                   "directory", name, (unsigned long long)m->at, (unsigned long long)m->packed);
}

/* The member's own header must say the same; on success *to is the member's end. */
static int check_member(int fd, const struct entry *m, uint64_t limit, const char *name,
                        uint64_t *to, struct err *e)
{
    unsigned char own[30 + UINT16_MAX]; /* the fixed part and the longest name */
    size_t n = 30 + m->n_label;
    bool later, same; /* sizes follow the data: they are not in the header */
    int rc;

    if (m->at > limit || m->packed > limit - m->at || limit - m->at - m->packed < n)
        return err_reaches(m, name, e);
    if ((rc = read_at(fd, own, n, m->at, name, e)) < 0)
        return rc;
    /* Bit 3 of the flags: checksum and sizes follow the data, so the header may have zeros
     * there. Otherwise checksum (14), packed size (18) and unpacked size (22) must be the
     * directory's; the method (8) and the name (from 30) always. */
    later = own[6] & 8;
    same = memcmp(own, "PK\3\4", 4) == 0 && get_le(own + 26, 2) == m->n_label &&
           memcmp(own + 30, m->label, m->n_label) == 0 &&
           memcmp(own + 8, m->at_directory + 10, 2) == 0 &&
           (later || (memcmp(own + 14, m->at_directory + 16, 4) == 0 &&
                      (get_le(own + 18, 4) == m->packed || get_le(own + 18, 4) == WIDE) &&
                      (get_le(own + 22, 4) == m->unpacked || get_le(own + 22, 4) == WIDE)));
    if (!same)
        return err_set(e, E_DATA, "'%s': the member at byte %llu is not what the directory says",
                       name, (unsigned long long)m->at);
    /* The header's extra part may have another length than the directory's: it is read
     * here. */
    *to = m->at + n + get_le(own + 28, 2) + m->packed;
    return *to > limit ? err_reaches(m, name, e) : 0;
}

/* Sorted by place, two neighbours overlap if any two members do. */
static int check_apart(struct extent *v, size_t members, const char *name, struct err *e)
{
    qsort(v, members, sizeof *v, by_place);
    for (size_t i = 1; i < members; i++)
        if (v[i].from < v[i - 1].to)
            return err_set(e, E_DATA, "'%s': members overlap at byte %llu: a zip bomb, or damaged", name,
                           (unsigned long long)v[i].from);
    return 0;
}

/* Goes through the directory's n bytes at p, entry by entry, and checks each member; then
 * that they lie apart. Fields of an entry: at 20 packed bytes, 24 unpacked bytes, 28 to 32
 * the lengths of name, extra part and comment, 42 the member's offset. */
static int check(int fd, const unsigned char *p, size_t n, struct extent dir, uint64_t shift,
                 const char *name, struct err *e)
{
    struct extent *v = malloc((n / 46 + 1) * sizeof *v); /* an entry has at least 46 bytes */
    size_t members = 0;
    int rc = 0;

    if (!v)
        return err_set(e, E_SYS, "out of memory for a directory of %zu bytes", n);
    while (rc == 0 && n >= 46 && memcmp(p, "PK\1\2", 4) == 0) {
        struct entry m = { p, p + 46, (size_t)get_le(p + 28, 2), get_le(p + 20, 4),
                           get_le(p + 24, 4), get_le(p + 42, 4) };
        size_t extra = (size_t)get_le(p + 30, 2),
               all = 46 + m.n_label + extra + (size_t)get_le(p + 32, 2);
        if (all > n)
            break;
        widen(p + 46 + m.n_label, extra, &m.unpacked, &m.packed, &m.at);
        m.at += shift;
        rc = check_member(fd, &m, dir.from, name, &v[members].to, e);
        v[members++].from = m.at;
        p += all;
        n -= all;
    }
    if (rc == 0)
        rc = check_apart(v, members, name, e);
    free(v);
    return rc;
}

int zip_check(int fd, int64_t bytes, const char *name, struct err *e)
{
    struct extent dir = { 0, 0 };
    uint64_t shift = 0;
    unsigned char *p;
    int rc = bytes < 22 ? 0 : find_directory(fd, (uint64_t)bytes, name, &dir, &shift, e);

    if (rc <= 0)
        return rc;
    if (dir.to - dir.from > DIRECTORY_MAX)
        return err_set(e, E_DATA, "'%s': a directory of %llu bytes, at most 64 MiB are read",
                       name, (unsigned long long)(dir.to - dir.from));
    if (!(p = malloc(dir.to - dir.from + 1)))
        return err_set(e, E_SYS, "out of memory");
    if ((rc = read_at(fd, p, dir.to - dir.from, dir.from, name, e)) == 0)
        rc = check(fd, p, dir.to - dir.from, dir, shift, name, e);
    free(p);
    return rc;
}
