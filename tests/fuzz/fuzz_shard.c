/* tests/fuzz/fuzz_shard.c - a shard of any bytes, as they are and with every checksum made
 * right, so that the checks behind the checksums are reached too. */
#include "base/bytes.h"
#include "formats/tokens/shard.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

/* Touches all that a reader may touch. */
static void use(const struct shard *s)
{
    struct shard_doc d;
    struct mask_run r;
    uint32_t ids[64];
    int64_t docs, tokens, bytes, sum = 0;

    for (int64_t i = 0; i < s->n_docs; i++) {
        shard_doc(s, i, &d);
        sum += (int64_t)(strlen(d.name) + strlen(d.source));
        for (int64_t k = 0; k < d.n_runs; k++) {
            shard_run(s, d.first_run + k, &r);
            if (r.start < 0 || r.count < 1 || r.start + r.count > d.n_ids)
                abort();
        }
        for (int64_t k = 0; k < d.n_ids; k += 64)
            shard_ids(s, d.start + k, d.n_ids - k < 64 ? d.n_ids - k : 64, ids);
        if (d.n_ids && shard_doc_at(s, d.start + d.n_ids - 1) != i)
            abort();
        sum += d.n_ids;
    }
    for (int64_t i = 0; i < s->n_sources; i++)
        sum += (int64_t)strlen(shard_source(s, i, &docs, &tokens, &bytes));
    if (sum < s->n_tokens)
        abort();
}

static void parse(const uint8_t *p, size_t n, struct shard *s)
{
    struct err e = {0};
    int rc = shard_parse(s, p, n, &e);

    if (rc == 0) {
        use(s);
        shard_verify(s, NULL, &e);
    } else if (rc != E_DATA || !e.msg[0]) {
        abort();
    }
}

/* s: what the first try came to know; parts it did not reach are NULL. */
static void seal(uint8_t *p, size_t n, const struct shard *s)
{
    uint8_t *f = p + n - SHARD_FOOTER_BYTES;

    memcpy(p, "LLSHARD\x1a\1\0\0\0", 12);
    memcpy(f + 120, "LLSHEND\x1a", 8);
    put_le(p + 4092, crc32c(0, p, 4092), 4);
    put_le(f + 72, crc32c(0, p, 4092), 4);
    put_le(f + 96, n, 8);
    if (s->docs) {
        for (int64_t b = 0; b < s->n_blocks; b++) {
            size_t at = (size_t)b * s->block_bytes, end = (size_t)s->n_tokens * s->info.width;
            size_t k = end - at < s->block_bytes ? end - at : s->block_bytes;
            put_le(p + (s->crcs - p) + 4 * b, crc32c(0, s->tokens + at, k), 4);
        }
        put_le(f + 76, crc32c(0, s->docs, (size_t)s->n_docs * SHARD_DOC_BYTES), 4);
        put_le(f + 80, crc32c(0, s->runs, (size_t)s->n_runs * 16), 4);
        put_le(f + 84, crc32c(0, s->sources, (size_t)s->n_sources * SHARD_SOURCE_BYTES), 4);
        put_le(f + 88, crc32c(0, s->names, s->names_bytes), 4);
        put_le(f + 92, crc32c(0, s->crcs, (size_t)s->n_blocks * 4), 4);
    }
    put_le(f + 116, crc32c(0, f, 116), 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    uint8_t *copy = malloc(nbytes ? nbytes : 1);
    struct shard s;

    memcpy(copy, data, nbytes);
    parse(copy, nbytes, &s);
    for (int i = 0; i < 2 && nbytes >= SHARD_HEADER_BYTES + SHARD_FOOTER_BYTES; i++) {
        seal(copy, nbytes, &s); /* once to get at the layout, once with it */
        parse(copy, nbytes, &s);
    }
    free(copy);
    return 0;
}
