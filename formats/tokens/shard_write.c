/* formats/tokens/shard_write.c - writing a shard front to back; see shard.h and shard.md.
 *
 * A shard is header, tokens, tables, footer; nothing is written twice, so that it may go to a pipe.
 * Tokens fill a block and go out when it is full, with a checksum noted. What belongs in the tables
 * behind them (a record a document, runs of the mask, names) is not known to its end until the last
 * document has come, and waits in spools: memory first, an unnamed temporary file beyond 1 MiB.
 * shard_finish copies the spools behind the tokens and writes the footer, without which readers
 * take the file for cut.
 */
#include "base/file.h"
#include "base/bytes.h"
#include "base/spool.h"
#include "formats/tokens/document.h"
#include "base/hash.h"
#include "formats/tokens/shard.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct shard_writer {
    int fd;
    char *name;
    struct token_info info;
    struct shard_sums sums;
    XXH3_state_t *file_hash, *token_hash;
    struct spool *docs, *runs, *names;
    struct source_table sources;
    struct buf crcs;
    uint32_t header_crc;
    size_t len; /* of the block being filled */
    unsigned char *block;
};

/* Documents of one source often come one after another, so the last one found is tried first.
 * The hash keeps the search from comparing most names. */
int64_t source_add(struct source_table *t, const char *name, int64_t docs, int64_t tokens,
                   int64_t text_bytes, struct err *e)
{
    uint64_t h = XXH3_64bits(name, strlen(name));
    int64_t i = t->last;
    struct source_count *c;

    if (i >= t->n || t->v[i].hash != h || strcmp(t->v[i].name, name) != 0)
        for (i = 0; i < t->n; i++)
            if (t->v[i].hash == h && strcmp(t->v[i].name, name) == 0)
                break;
    /* Not found: a new source at the end. Its index stays its number in the shard. */
    if (i == t->n) {
        if (t->n == SHARD_MAX_SOURCES) {
            err_set(e, E_DATA, "more than %d different sources", SHARD_MAX_SOURCES);
            return err_hint(e, "lprep --source NAME gives all documents one");
        }
        if (array_grow(&t->v, &t->cap, (size_t)t->n, sizeof *t->v, 8, "sources", e) < 0)
            return E_SYS;
        t->v[i] = (struct source_count){ .hash = h };
        snprintf(t->v[i].name, sizeof t->v[i].name, "%s", name);
        t->n++;
    }
    c = &t->v[t->last = i];
    if (__builtin_add_overflow(c->docs, docs, &c->docs) ||
        __builtin_add_overflow(c->tokens, tokens, &c->tokens) ||
        __builtin_add_overflow(c->text_bytes, text_bytes, &c->text_bytes))
        return err_set(e, E_DATA, "counts of source '%s' overflow", name);
    return i;
}

void source_free(struct source_table *t)
{
    free(t->v);
    *t = (struct source_table){0};
}

/* All bytes of the file pass here, so that the hash and the size cover them. */
static int put(struct shard_writer *w, const void *p, size_t n, struct err *e)
{
    hash128_add(w->file_hash, p, n);
    w->sums.bytes += (int64_t)n;
    return file_write_all(w->fd, p, n, w->name, e);
}

/* Zeros up to the next multiple of align, which is at most SHARD_HEADER_BYTES. */
static int put_zeros(struct shard_writer *w, size_t align, struct err *e)
{
    static const char zeros[SHARD_HEADER_BYTES];

    return put(w, zeros, (align - (size_t)w->sums.bytes % align) % align, e);
}

/* The header, through block, which nothing else uses yet. */
static int put_header(struct shard_writer *w, struct err *e)
{
    unsigned char *h = w->block;

    memset(h, 0, SHARD_HEADER_BYTES);
    memcpy(h, "LLSHARD\x1a", 8);
    put_le(h + 8, 1, 4);
    put_le(h + 12, SHARD_HEADER_BYTES, 4);
    info_encode(&w->info, h + 16);
    put_le(h + 36, SHARD_BLOCK_BYTES, 4);
    w->header_crc = crc32c(0, h, 4092);
    put_le(h + 4092, w->header_crc, 4);
    return put(w, h, SHARD_HEADER_BYTES, e);
}

int shard_create(struct shard_writer **out, int fd, const char *name,
                 const struct token_info *info, const char *tmp_folder, struct err *e)
{
    struct shard_writer *w = calloc(1, sizeof *w);
    int rc;

    *out = NULL;
    if (!w || !(w->name = strdup(name)) || !(w->block = malloc(SHARD_BLOCK_BYTES)) ||
        !(w->file_hash = XXH3_createState()) || !(w->token_hash = XXH3_createState())) {
        shard_abandon(w);
        return err_set(e, E_SYS, "out of memory");
    }
    w->fd = fd;
    w->info = *info;
    XXH3_128bits_reset(w->file_hash);
    XXH3_64bits_reset(w->token_hash);
    if ((rc = info_check(info, e)) < 0 || (rc = spool_open(&w->docs, tmp_folder, e)) < 0 ||
        (rc = spool_open(&w->runs, tmp_folder, e)) < 0 ||
        (rc = spool_open(&w->names, tmp_folder, e)) < 0 || (rc = put_header(w, e)) < 0) {
        shard_abandon(w);
        return rc;
    }
    *out = w;
    return 0;
}

void shard_abandon(struct shard_writer *w)
{
    if (!w)
        return;
    spool_close(w->docs);
    spool_close(w->runs);
    spool_close(w->names);
    source_free(&w->sources);
    buf_free(&w->crcs);
    XXH3_freeState(w->file_hash);
    XXH3_freeState(w->token_hash);
    free(w->block);
    free(w->name);
    free(w);
}

/* Ends a block, which may be a short one: its checksum goes to the table, its bytes to the
 * file. */
static int flush_block(struct shard_writer *w, struct err *e)
{
    unsigned char crc[4];
    size_t n = w->len;
    int rc;

    w->len = 0;
    if (n == 0)
        return 0;
    put_le(crc, crc32c(0, w->block, n), 4);
    hash64_add(w->token_hash, w->block, n);
    if ((rc = buf_add(&w->crcs, crc, 4, e)) < 0)
        return rc;
    return put(w, w->block, n, e);
}

/* Appends ids to the block. A block's size is a multiple of 2 and 4, so no id lies across
 * two. */
static int write_ids(struct shard_writer *w, const uint32_t *ids, int64_t n, struct err *e)
{
    int rc;

    while (n > 0) {
        int64_t room = (int64_t)((SHARD_BLOCK_BYTES - w->len) / w->info.width);
        int64_t k = n < room ? n : room;
        ids_store(w->block + w->len, ids, w->info.width, k);
        w->len += (size_t)k * w->info.width;
        ids += k;
        n -= k;
        if (w->len == SHARD_BLOCK_BYTES && (rc = flush_block(w, e)) < 0)
            return rc;
    }
    return 0;
}

/* Puts the runs of a document's mask aside for the run table. */
static int write_runs(struct shard_writer *w, const struct token_doc *d, struct err *e)
{
    unsigned char b[16];
    int rc = 0;

    for (int64_t i = 0; i < d->n_runs && rc == 0; i++) {
        put_le(b, (uint64_t)d->runs[i].start, 8);
        put_le(b + 8, (uint64_t)d->runs[i].count, 8);
        w->sums.masked += d->runs[i].count;
        rc = spool_add(w->runs, b, sizeof b, e);
    }
    return rc;
}

int shard_write(struct shard_writer *w, const struct token_doc *d, struct err *e)
{
    unsigned char b[SHARD_DOC_BYTES] = {0};
    char source[DOC_SOURCE_MAX + 1], name[DOC_NAME_MAX + 1];
    int64_t id;
    int rc;

    label_clean(source, DOC_SOURCE_MAX, d->source ? d->source : "");
    label_clean(name, DOC_NAME_MAX, d->name ? d->name : "");
    if ((rc = doc_check(d, &w->info, e)) < 0)
        return err_within(e, "'%.200s'", name);
    /* Everything that can be refused is checked before anything is put aside or written. */
    if (__builtin_add_overflow(w->sums.text_bytes, d->text_bytes, &w->sums.text_bytes))
        return err_set(e, E_DATA, "'%.200s': the sum of text bytes overflows", name);
    if ((id = source_add(&w->sources, source, 1, d->n_ids, d->text_bytes, e)) < 0)
        return (int)id;
    /* The places are the sizes so far: this document begins where the one before ended. */
    put_le(b, (uint64_t)w->sums.tokens, 8);
    put_le(b + 8, (uint64_t)d->n_ids, 8);
    /* A run takes 16 bytes, so this is the number of runs before this document's. */
    put_le(b + 16, (uint64_t)spool_bytes(w->runs) / 16, 8);
    put_le(b + 24, (uint64_t)d->text_bytes, 8);
    put_le(b + 32, (uint64_t)d->text_words, 8);
    put_le(b + 40, d->text_hash, 8);
    put_le(b + 48, (uint64_t)spool_bytes(w->names), 8);
    put_le(b + 56, (uint64_t)id, 4);
    if ((rc = spool_add(w->docs, b, sizeof b, e)) < 0 ||
        (rc = spool_add(w->names, name, strlen(name) + 1, e)) < 0 ||
        (rc = write_runs(w, d, e)) < 0 || (rc = write_ids(w, d->ids, d->n_ids, e)) < 0)
        return rc;
    w->sums.docs++;
    w->sums.tokens += d->n_ids;
    w->sums.text_words += d->text_words; /* at most the bytes, which do not overflow */
    return 0;
}

int64_t shard_writer_tokens(const struct shard_writer *w) { return w->sums.tokens; }
int64_t shard_writer_docs(const struct shard_writer *w) { return w->sums.docs; }

/* Copies a table from its spool to the file; *crc is its checksum. */
static int put_spool(struct shard_writer *w, const struct spool *s, uint32_t *crc,
                     struct err *e)
{
    int64_t all = spool_bytes(s);
    int rc = 0;

    *crc = 0;
    /* The block is free by now and serves as the buffer. */
    for (int64_t at = 0; at < all && rc == 0;) {
        size_t n = all - at < SHARD_BLOCK_BYTES ? (size_t)(all - at) : SHARD_BLOCK_BYTES;
        if ((rc = spool_read(s, at, w->block, n, e)) == 0)
            rc = put(w, w->block, n, e);
        *crc = crc32c(*crc, w->block, n);
        at += (int64_t)n;
    }
    return rc;
}

/* Writes the source table; *crc is its checksum. */
static int put_sources(struct shard_writer *w, uint32_t *crc, struct err *e)
{
    int rc = 0;

    *crc = 0;
    for (int64_t i = 0; i < w->sources.n && rc == 0; i++) {
        unsigned char b[SHARD_SOURCE_BYTES] = {0};
        const struct source_count *c = &w->sources.v[i];
        put_le(b, (uint64_t)c->docs, 8);
        put_le(b + 8, (uint64_t)c->tokens, 8);
        put_le(b + 16, (uint64_t)c->text_bytes, 8);
        memcpy(b + 24, c->name, strlen(c->name));
        *crc = crc32c(*crc, b, sizeof b);
        rc = put(w, b, sizeof b, e);
    }
    return rc;
}

/* The footer; crc has the checksums of documents, runs, sources and names in this order. */
static int put_footer(struct shard_writer *w, const uint32_t crc[4], struct err *e)
{
    unsigned char f[SHARD_FOOTER_BYTES] = {0};

    put_le(f, (uint64_t)w->sums.tokens, 8);
    put_le(f + 8, (uint64_t)w->sums.docs, 8);
    put_le(f + 16, (uint64_t)spool_bytes(w->runs) / 16, 8);
    put_le(f + 24, (uint64_t)w->sources.n, 8);
    put_le(f + 32, (uint64_t)spool_bytes(w->names), 8);
    put_le(f + 40, (uint64_t)w->sums.text_bytes, 8);
    put_le(f + 48, (uint64_t)w->sums.text_words, 8);
    put_le(f + 56, (uint64_t)w->sums.masked, 8);
    put_le(f + 64, XXH3_64bits_digest(w->token_hash), 8);
    put_le(f + 72, w->header_crc, 4);
    for (int i = 0; i < 4; i++)
        put_le(f + 76 + 4 * i, crc[i], 4);
    put_le(f + 92, crc32c(0, w->crcs.p, w->crcs.len), 4);
    /* The size of the file, with the footer that is not yet in it. */
    put_le(f + 96, (uint64_t)w->sums.bytes + sizeof f, 8);
    put_le(f + 116, crc32c(0, f, 116), 4);
    memcpy(f + 120, "LLSHEND\x1a", 8);
    w->sums.footer_hash = XXH3_64bits(f, sizeof f);
    return put(w, f, sizeof f, e);
}

int shard_finish(struct shard_writer *w, struct shard_sums *sums, struct err *e)
{
    uint32_t crc[4];
    int rc;

    /* The order of the parts in the file. The tables begin at a multiple of 4096, the checksums
     * and the footer at a multiple of 8. */
    if ((rc = flush_block(w, e)) == 0 && (rc = put_zeros(w, SHARD_HEADER_BYTES, e)) == 0 &&
        (rc = put_spool(w, w->docs, &crc[0], e)) == 0 &&
        (rc = put_spool(w, w->runs, &crc[1], e)) == 0 &&
        (rc = put_sources(w, &crc[2], e)) == 0 &&
        (rc = put_spool(w, w->names, &crc[3], e)) == 0 && (rc = put_zeros(w, 8, e)) == 0 &&
        (rc = put(w, w->crcs.p, w->crcs.len, e)) == 0 && (rc = put_zeros(w, 8, e)) == 0)
        rc = put_footer(w, crc, e);
    hash_hex(XXH3_128bits_digest(w->file_hash), w->sums.hash);
    if (rc == 0 && sums)
        *sums = w->sums;
    shard_abandon(w);
    return rc;
}
