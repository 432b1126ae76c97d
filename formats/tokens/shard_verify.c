/* formats/tokens/shard_verify.c - checking a shard's tokens, in one pass over them; see shard.h. */
#include "formats/tokens/document.h"
#include "base/hash.h"
#include "formats/tokens/shard.h"

#include <stdlib.h>
#include <string.h>

#define STEP_BYTES 4096 /* stays in the nearest cache while all sums are taken */

/* The two hashes that go over all tokens: of the tokens alone, and of the whole file. */
struct hashes {
    XXH3_state_t *tokens, *file;
};

/* Called when the largest id of a block is too large: finds the first such id for the
 * message. */
static int find_bad_id(const struct shard *s, int64_t first, int64_t n, struct err *e)
{
    uint32_t ids[1024];
    int64_t bad = -1;

    for (int64_t k = 0; k < n && bad < 0; k += 1024) {
        int64_t m = n - k < 1024 ? n - k : 1024;
        shard_ids(s, first + k, m, ids);
        if ((bad = ids_bad(ids, m, s->info.vocab)) >= 0)
            return err_set(e, E_DATA, "token %lld is id %u, not below vocab %u",
                           (long long)(first + k + bad), ids[bad], s->info.vocab);
    }
    return err_set(e, E_BUG, "no id of tokens %lld to %lld is too large", (long long)first,
                   (long long)(first + n - 1));
}

/* One block's checksum and ids; adds its bytes to the hashes, if h is not NULL. */
static int check_block(const struct shard *s, int64_t block, const struct hashes *h,
                       struct err *e)
{
    size_t at = (size_t)block * s->block_bytes, all = (size_t)s->n_tokens * s->info.width;
    size_t n = all - at < s->block_bytes ? all - at : s->block_bytes;
    int64_t first = (int64_t)(at / s->info.width), count = (int64_t)(n / s->info.width);
    uint32_t crc = 0, top = 0;

    for (size_t i = 0, k; i < n; i += k) {
        const unsigned char *p = s->tokens + at + i;
        uint32_t id;
        k = n - i < STEP_BYTES ? n - i : STEP_BYTES;
        /* Asks for the next step from memory while this one is worked on. */
        if (all - at - i - k >= STEP_BYTES)
            bytes_fetch(p + k, STEP_BYTES, false);
        crc = crc32c(crc, p, k);
        /* Only the maximum is taken here, which is fast. The place is looked for after a
         * failure. */
        id = ids_top(p, s->info.width, (int64_t)(k / s->info.width));
        top = id > top ? id : top;
        if (h) {
            hash64_add(h->tokens, p, k);
            hash128_add(h->file, p, k);
        }
    }
    if (crc != get_le(s->crcs + 4 * block, 4)) {
        err_set(e, E_DATA, "token block %lld (tokens %lld to %lld) does not match its checksum",
                (long long)block, (long long)first, (long long)(first + count - 1));
        return err_hint(e, "the file was damaged after it was written: copy or make it again");
    }
    return top < s->info.vocab ? 0 : find_bad_id(s, first, count, e);
}

int shard_check_block(const struct shard *s, int64_t block, struct err *e)
{
    return check_block(s, block, NULL, e);
}

/* Adds up the documents by source and compares with the source table. v has one zeroed entry
 * for each source. */
static int check_sources(const struct shard *s, struct source_count *v, struct err *e)
{
    for (int64_t i = 0; i < s->n_docs; i++) {
        const unsigned char *p = s->docs + i * SHARD_DOC_BYTES;
        /* shard_parse has checked that the index is below n_sources. */
        struct source_count *c = &v[get_le(p + 56, 4)];
        c->docs++;
        c->tokens += (int64_t)get_le(p + 8, 8);
        c->text_bytes += (int64_t)get_le(p + 24, 8);
    }
    for (int64_t i = 0; i < s->n_sources; i++) {
        int64_t docs, tokens, bytes;
        const char *name = shard_source(s, i, &docs, &tokens, &bytes);
        if (docs != v[i].docs || tokens != v[i].tokens || bytes != v[i].text_bytes)
            return err_set(e, E_DATA, "counts of source '%s' are not those of its documents",
                           name);
    }
    return 0;
}

/* Header, tokens, and what follows them, in the order of the file. */
static int check_bytes(const struct shard *s, const struct hashes *h, const char *hash,
                       struct err *e)
{
    const unsigned char *file = s->tokens - SHARD_HEADER_BYTES;
    /* Zeros, tables and footer, which are hashed at once at the end. */
    const unsigned char *rest = s->tokens + (size_t)s->n_tokens * s->info.width;
    char hex[33];
    int rc = 0;

    XXH3_64bits_reset(h->tokens);
    XXH3_128bits_reset(h->file);
    hash128_add(h->file, file, SHARD_HEADER_BYTES);
    for (int64_t b = 0; b < s->n_blocks && rc == 0; b++)
        rc = check_block(s, b, h, e);
    if (rc < 0)
        return rc;
    if (XXH3_64bits_digest(h->tokens) != s->token_hash)
        return err_set(e, E_DATA, "token hash does not match: the shard is damaged");
    hash128_add(h->file, rest, (size_t)(file + s->nbytes - rest));
    hash_hex(XXH3_128bits_digest(h->file), hex);
    if (hash && strcmp(hash, hex) != 0)
        return err_set(e, E_DATA, "is not the file that the manifest lists: hash %s, must be "
                       "%s", hex, hash);
    return 0;
}

int shard_verify(const struct shard *s, const char *hash, struct err *e)
{
    struct source_count *v = calloc((size_t)s->n_sources + 1, sizeof *v);
    struct hashes h = { XXH3_createState(), XXH3_createState() };
    int rc = v && h.tokens && h.file ? check_bytes(s, &h, hash, e)
                                     : err_set(e, E_SYS, "out of memory");

    if (rc == 0)
        rc = check_sources(s, v, e);
    XXH3_freeState(h.tokens);
    XXH3_freeState(h.file);
    free(v);
    return rc;
}
