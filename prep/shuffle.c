/* prep/shuffle.c - see shuffle.h. */
#include "prep/shuffle.h"
#include "base/perm.h"
#include "base/spool.h"
#include "formats/document.h"

#include <stdlib.h>

#define ENTRY_BYTES 16 /* offset 8, bytes 4, CRC32C 4 */
#define ROUND 0x6c7061636bu /* "lpack": another permutation than training's of the same seed */

struct shuffle {
    struct spool *docs, *index;
    struct buf record;
    struct doc_space space;
};

int shuffle_open(struct shuffle **out, const char *folder, struct err *e)
{
    struct shuffle *s = calloc(1, sizeof *s);
    int rc;

    *out = NULL;
    if (!s)
        return err_set(e, E_SYS, "out of memory");
    if ((rc = spool_open(&s->docs, folder, e)) < 0 ||
        (rc = spool_open(&s->index, folder, e)) < 0) {
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
    doc_space_free(&s->space);
    free(s);
}

int64_t shuffle_docs(const struct shuffle *s)
{
    return spool_bytes(s->index) / ENTRY_BYTES;
}

int shuffle_add(struct shuffle *s, const struct token_doc *doc, const struct token_info *info,
                struct err *e)
{
    unsigned char entry[ENTRY_BYTES];
    int rc;

    s->record.len = 0;
    if ((rc = doc_encode(&s->record, doc, info, e)) < 0)
        return rc;
    put_le(entry, (uint64_t)spool_bytes(s->docs), 8);
    put_le(entry + 8, s->record.len, 4);
    put_le(entry + 12, crc32c(0, s->record.p, s->record.len), 4);
    if ((rc = spool_add(s->docs, s->record.p, s->record.len, e)) < 0)
        return rc;
    return spool_add(s->index, entry, sizeof entry, e);
}

int shuffle_read(struct shuffle *s, int64_t i, int64_t seed, const struct token_info *info,
                 struct token_doc *doc, struct err *e)
{
    unsigned char entry[ENTRY_BYTES];
    uint64_t at = perm_at((uint64_t)i, (uint64_t)shuffle_docs(s), (uint64_t)seed, ROUND);
    size_t n;
    int rc = spool_read(s->index, (int64_t)at * ENTRY_BYTES, entry, sizeof entry, e);

    if (rc < 0)
        return rc;
    n = (size_t)get_le(entry + 8, 4);
    s->record.len = 0;
    if ((rc = buf_reserve(&s->record, n, e)) < 0 ||
        (rc = spool_read(s->docs, (int64_t)get_le(entry, 8), s->record.p, n, e)) < 0)
        return rc;
    if (crc32c(0, s->record.p, n) != get_le(entry + 12, 4))
        return err_set(e, E_IO, "a temporary file gave back other bytes than were written");
    if (doc_decode(&s->space, s->record.p, n, info, doc, e) < 0)
        return e ? (e->code = E_BUG) : E_BUG;
    return 0;
}
