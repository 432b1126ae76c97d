/* prep/shuffle.c - see shuffle.h.
 *
 * Documents go to one file as they come, and an entry of 24 bytes for each to another, the
 * index. Reading back in shuffled order needs entries sorted by key, but there may be too many
 * for the memory. So the space of keys is cut into equal ranges: the index is scanned once for
 * each range, and only the entries whose key is in it are kept and sorted.
 */
#include "prep/shuffle.h"
#include "base/perm.h"
#include "base/spool.h"
#include "formats/tokens/document.h"

#include <stdlib.h>
#include <xxhash.h>

enum { ENTRY_BYTES = 24, SCAN = 4096 }; /* offset 8, bytes 4, CRC32C 4, hash 8; entries at once */
#define RANGE_DOCS ((int64_t)2 << 20)
#define SALT 0x6c7061636bu /* "lpack": another draw than split.c's of the same seed */

/* An entry as it is sorted. The hash on disk is of the document alone; key is made of that
 * hash and the seed. */
struct entry {
    uint64_t key, at;
    uint32_t nbytes, crc;
};

struct shuffle {
    struct spool *docs, *index;
    struct buf record;
    struct doc_space space;
    /* Reading: entries whose keys are in range 'range' of 'ranges' equal ones, sorted; or the
     * entries from number 'scanned' on, as they came. */
    bool shuffled;
    uint64_t seed;
    int64_t ranges, range, scanned, place;
    struct buf found;   /* struct entry */
    unsigned char scan[SCAN * ENTRY_BYTES];
};

static struct shuffle *new_shuffle(struct err *e)
{
    struct shuffle *s = calloc(1, sizeof *s);

    if (!s)
        err_set(e, E_SYS, "out of memory");
    return s;
}

int shuffle_open(struct shuffle **out, const char *folder, struct err *e)
{
    struct shuffle *s = new_shuffle(e);
    int rc;

    *out = NULL;
    if (!s)
        return E_SYS;
    if ((rc = spool_open(&s->docs, folder, e)) < 0 ||
        (rc = spool_open(&s->index, folder, e)) < 0) {
        shuffle_close(s);
        return rc;
    }
    *out = s;
    return 0;
}

/* An entry of the index to memory; key is the document's hash until fill mixes the seed in. */
static void load(struct entry *to, const unsigned char *p)
{
    *to = (struct entry){ get_le(p + 16, 8), get_le(p, 8), (uint32_t)get_le(p + 8, 4),
                          (uint32_t)get_le(p + 12, 4) };
}

/* Entries [from, from + n) of the index to s->scan; n is at most SCAN. */
static int64_t scan(struct shuffle *s, int64_t from, struct err *e)
{
    int64_t n = shuffle_docs(s) - from;
    int rc;

    n = n < SCAN ? n : SCAN;
    rc = spool_read(s->index, from * ENTRY_BYTES, s->scan, (size_t)n * ENTRY_BYTES, e);
    return rc < 0 ? rc : n;
}

/* Documents must lie end to end; *bytes is where the last one ends. */
static int check_index(struct shuffle *s, const char *path, int64_t *bytes, struct err *e)
{
    struct entry one;

    *bytes = 0;
    for (int64_t i = 0, n; i < shuffle_docs(s); i += n) {
        if ((n = scan(s, i, e)) < 0)
            return (int)n;
        for (int64_t k = 0; k < n; k++) {
            load(&one, s->scan + k * ENTRY_BYTES);
            if (one.at != (uint64_t)*bytes || one.nbytes < DOC_FIXED_BYTES)
                return err_set(e, E_DATA, "'%s': entry %lld is damaged", path, (long long)(i + k));
            *bytes += one.nbytes; /* at most 2^32 for each entry that is there: no overflow */
        }
    }
    return 0;
}

int shuffle_open_at(struct shuffle **out, const char *docs_path, const char *index_path,
                    int64_t keep_docs, struct err *e)
{
    struct shuffle *s = new_shuffle(e);
    int64_t bytes;
    int rc;

    *out = NULL;
    if (!s)
        return E_SYS;
    rc = keep_docs < 0 || keep_docs > INT64_MAX / ENTRY_BYTES
             ? err_set(e, E_DATA, "'%s' cannot hold %lld documents", index_path,
                       (long long)keep_docs)
             : spool_open_at(&s->index, index_path, keep_docs * ENTRY_BYTES, e);
    if (rc < 0 || (rc = check_index(s, index_path, &bytes, e)) < 0 ||
        (rc = spool_open_at(&s->docs, docs_path, bytes, e)) < 0) {
        shuffle_close(s);
        return rc;
    }
    *out = s;
    return 0;
}

void shuffle_close(struct shuffle *s)
{
    if (!s)
        return;
    spool_close(s->docs);
    spool_close(s->index);
    buf_free(&s->record);
    buf_free(&s->found);
    doc_space_free(&s->space);
    free(s);
}

int64_t shuffle_docs(const struct shuffle *s)
{
    return spool_bytes(s->index) / ENTRY_BYTES;
}

int shuffle_sync(struct shuffle *s, struct err *e)
{
    int rc = spool_sync(s->docs, e);

    return rc < 0 ? rc : spool_sync(s->index, e);
}

int shuffle_add(struct shuffle *s, const struct token_doc *doc, const struct token_info *info,
                struct err *e)
{
    unsigned char entry[ENTRY_BYTES];
    int rc;

    s->record.len = 0;
    if ((rc = doc_encode(&s->record, doc, info, e)) < 0)
        return rc;
    put_le(entry, (uint64_t)spool_bytes(s->docs), 8); /* where it will begin */
    put_le(entry + 8, s->record.len, 4);
    put_le(entry + 12, crc32c(0, s->record.p, s->record.len), 4);
    put_le(entry + 16, XXH3_64bits(s->record.p, s->record.len), 8);
    if ((rc = spool_add(s->docs, s->record.p, s->record.len, e)) < 0)
        return rc;
    return spool_add(s->index, entry, sizeof entry, e);
}

void shuffle_order(struct shuffle *s, bool shuffled, int64_t seed, int64_t range_docs)
{
    s->shuffled = shuffled;
    s->seed = mix64((uint64_t)seed ^ SALT);
    /* Keys are spread evenly, so a range has about
     * range_docs of them, whatever the documents are. */
    s->ranges = shuffle_docs(s) / (range_docs > 0 ? range_docs : RANGE_DOCS) + 1;
    s->range = s->scanned = s->place = 0;
    s->found.len = 0;
}

/* By key; where keys agree by what else follows from the document, never by its place, so
 * that the order does not depend on how documents came in. */
static int by_key(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;

    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    if (x->crc != y->crc)
        return x->crc < y->crc ? -1 : 1;
    return x->nbytes < y->nbytes ? -1 : x->nbytes > y->nbytes;
}

/* The next entries to s->found: a range of keys, sorted, or SCAN entries as they came. */
static int fill(struct shuffle *s, struct err *e)
{
    int64_t docs = shuffle_docs(s), n;
    struct entry one;
    int rc;

    s->found.len = 0;
    s->place = 0;
    for (int64_t i = s->shuffled ? 0 : s->scanned; i < docs; i += n) {
        if ((n = scan(s, i, e)) < 0)
            return (int)n;
        for (int64_t k = 0; k < n; k++) {
            load(&one, s->scan + k * ENTRY_BYTES);
            one.key = mix64(one.key ^ s->seed);
            /* The range of a key is floor(key / 2^64 * ranges), computed without rounding.
             * With 4 ranges a key of 0x80... is in range 2. */
            if (s->shuffled && (int64_t)((unsigned __int128)one.key * (uint64_t)s->ranges >> 64)
                               != s->range)
                continue;
            if ((rc = buf_add(&s->found, &one, sizeof one, e)) < 0)
                return rc;
        }
        s->scanned = i + n;
        if (!s->shuffled)
            break;
    }
    s->range++;
    if (s->shuffled && s->found.len)
        qsort(s->found.p, s->found.len / sizeof one, sizeof one, by_key);
    return 0;
}

int shuffle_next(struct shuffle *s, const struct token_info *info, struct token_doc *doc,
                 struct err *e)
{
    const struct entry *x;
    int rc;

    /* A range may be empty: then the next is tried. */
    while (s->place == (int64_t)(s->found.len / sizeof *x)) {
        if (s->shuffled ? s->range == s->ranges : s->scanned == shuffle_docs(s))
            return 0;
        if ((rc = fill(s, e)) < 0)
            return rc;
    }
    x = (const struct entry *)(const void *)s->found.p + s->place++;
    s->record.len = 0;
    if ((rc = buf_reserve(&s->record, x->nbytes, e)) < 0 ||
        (rc = spool_read(s->docs, (int64_t)x->at, s->record.p, x->nbytes, e)) < 0)
        return rc;
    /* The key too is of the document's bytes: a spoilt one would only change the order. */
    if (crc32c(0, s->record.p, x->nbytes) != x->crc ||
        mix64(XXH3_64bits(s->record.p, x->nbytes) ^ s->seed) != x->key)
        return err_set(e, E_IO, "a temporary file changed after it was written");
    rc = doc_decode(&s->space, s->record.p, x->nbytes, info, doc, e);
    return rc < 0 ? rc : 1;
}
