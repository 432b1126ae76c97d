/* formats/tokens/shard.c - reading a shard; see shard.h, the layout stands in shard.md.
 *
 * A shard is used straight from mapped bytes. shard_parse checks the header, the footer and all
 * tables, but not the tokens, of which there may be many gigabytes; whoever reads tokens checks
 * their block first (shard_verify.c). After shard_parse the accessors need no checks of their
 * own. Numbers like p + 36 are the offsets of shard.md; integers are little-endian. */
#include "formats/tokens/shard.h"
#include "formats/tokens/document.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static const char magic_head[8] = "LLSHARD\x1a", magic_end[8] = "LLSHEND\x1a";

static bool has_head(const void *bytes, size_t nbytes)
{
    return nbytes >= 8 && memcmp(bytes, magic_head, 8) == 0;
}

/* The end counts too: a shard whose first bytes are damaged is then named as such, and is not
 * taken for raw ids. */
bool shard_is(const void *bytes, size_t nbytes)
{
    return has_head(bytes, nbytes) ||
           (nbytes >= SHARD_HEADER_BYTES + SHARD_FOOTER_BYTES &&
            memcmp((const char *)bytes + nbytes - 8, magic_end, 8) == 0);
}

/* All n bytes are zero: the first is, and each equals the one after it. */
static bool all_zero(const unsigned char *p, size_t n)
{
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* Checks the header. The version is looked at before the size and the checksum, so that a newer
 * version is named instead of being called damaged. */
static int parse_header(struct shard *s, const unsigned char *p, size_t nbytes, struct err *e)
{
    int rc;

    if (!has_head(p, nbytes))
        return shard_is(p, nbytes)
                   ? err_set(e, E_DATA, "a shard whose first 8 bytes are damaged")
                   : err_set(e, E_DATA, "not a shard (%zu bytes)", nbytes);
    if (nbytes < 12 || get_le(p + 8, 4) != 1)
        return err_set(e, E_DATA, "shard version %u, this reads 1",
                       nbytes < 12 ? 0 : (unsigned)get_le(p + 8, 4));
    if (nbytes < SHARD_HEADER_BYTES + SHARD_FOOTER_BYTES) {
        err_set(e, E_DATA, "shard cut to %zu bytes, less than header and footer", nbytes);
        return err_hint(e, "the program that wrote it did not finish: make it again");
    }
    /* The last 4 bytes of the header are the checksum of the 4092 before them. */
    if (get_le(p + 4092, 4) != crc32c(0, p, 4092))
        return err_set(e, E_DATA, "header checksum does not match: the shard is damaged");
    if (get_le(p + 12, 4) != SHARD_HEADER_BYTES)
        return err_set(e, E_DATA, "header bytes %u, must be %d", (unsigned)get_le(p + 12, 4),
                       SHARD_HEADER_BYTES);
    /* Byte 36 is the field 'block' of the token information, which begins at byte 16. */
    s->block_bytes = (uint32_t)get_le(p + 36, 4);
    if (s->block_bytes < 4096 || s->block_bytes > 1u << 30 ||
        (s->block_bytes & (s->block_bytes - 1)))
        return err_set(e, E_DATA, "block of %u bytes, must be a power of two from 4096 to 2^30",
                       s->block_bytes);
    if ((rc = info_parse(&s->info, p + 16, e)) < 0)
        return err_within(e, "shard header");
    /* 328 = 16 + 312: the end of the token information. */
    if (!all_zero(p + 328, 4092 - 328))
        return err_set(e, E_DATA, "header has bytes after the token information that are not zero");
    return 0;
}

/* *at += count * size, rounded up to a multiple of align (a power of two). */
static bool advance(size_t *at, uint64_t count, size_t size, size_t align)
{
    size_t part;

    if (!mul_ok((size_t)count, size, &part) || !add_ok(*at, part, at) ||
        !add_ok(*at, align - 1, at))
        return false;
    *at &= ~(align - 1);
    return true;
}

/* The footer's counts, and from them where every part is. */
static int parse_layout(struct shard *s, const unsigned char *p, size_t nbytes, struct err *e)
{
    const unsigned char *f = p + nbytes - SHARD_FOOTER_BYTES;
    uint64_t tokens = get_le(f, 8), docs = get_le(f + 8, 8), runs = get_le(f + 16, 8);
    uint64_t sources = get_le(f + 24, 8), names = get_le(f + 32, 8), blocks;
    size_t at = SHARD_HEADER_BYTES, at_docs, at_names, at_crcs;

    if (get_le(f + 96, 8) != nbytes)
        return err_set(e, E_DATA, "footer says the file has %llu bytes, it has %zu",
                       (unsigned long long)get_le(f + 96, 8), nbytes);
    if (sources > SHARD_MAX_SOURCES)
        return err_set(e, E_DATA, "%llu sources, must be at most %d",
                       (unsigned long long)sources, SHARD_MAX_SOURCES);
    /* Each of these takes at least one byte of the file. With counts no larger than the file
     * the products below stay within 64 bits. */
    if (tokens > nbytes || docs > nbytes || runs > nbytes || names > nbytes)
        return err_set(e, E_DATA, "footer says %llu tokens, %llu documents, %llu runs, %llu bytes "
                       "of names in %zu bytes", (unsigned long long)tokens,
                       (unsigned long long)docs, (unsigned long long)runs,
                       (unsigned long long)names, nbytes);
    blocks = (tokens * s->info.width + s->block_bytes - 1) / s->block_bytes;
    /* Walks over the parts in the order of the file. "(at_x = at, false)" notes a place on the
     * way and lets the chain go on. */
    if (!advance(&at, tokens, s->info.width, SHARD_HEADER_BYTES) || (at_docs = at, false) ||
        !advance(&at, docs, SHARD_DOC_BYTES, 1) || !advance(&at, runs, 16, 1) ||
        !advance(&at, sources, SHARD_SOURCE_BYTES, 1) || (at_names = at, false) ||
        !advance(&at, names, 1, 8) || (at_crcs = at, false) || !advance(&at, blocks, 4, 8) ||
        !advance(&at, 1, SHARD_FOOTER_BYTES, 1) || at != nbytes)
        return err_set(e, E_DATA, "footer says %llu tokens, %llu documents, %llu runs, %llu "
                       "sources, %llu bytes of names: not a layout of %zu bytes",
                       (unsigned long long)tokens, (unsigned long long)docs,
                       (unsigned long long)runs, (unsigned long long)sources,
                       (unsigned long long)names, nbytes);
    s->n_tokens = (int64_t)tokens;
    s->n_docs = (int64_t)docs;
    s->n_runs = (int64_t)runs;
    s->n_sources = (int64_t)sources;
    s->n_blocks = (int64_t)blocks;
    s->names_bytes = (size_t)names;
    s->tokens = p + SHARD_HEADER_BYTES;
    s->docs = p + at_docs;
    s->runs = s->docs + docs * SHARD_DOC_BYTES;
    s->sources = s->runs + runs * 16;
    s->names = p + at_names;
    s->crcs = p + at_crcs;
    if (!all_zero(s->tokens + tokens * s->info.width,
                  (size_t)(s->docs - s->tokens) - tokens * s->info.width) ||
        !all_zero(s->names + names, (size_t)(s->crcs - s->names) - names) ||
        !all_zero(s->crcs + 4 * blocks, (size_t)(f - s->crcs) - 4 * blocks))
        return err_set(e, E_DATA, "the gaps between the parts are not zero");
    return 0;
}

/* Checks the footer and takes what it says. Whatever stands before it is checked later. */
static int parse_footer(struct shard *s, const unsigned char *p, size_t nbytes, struct err *e)
{
    const unsigned char *f = p + nbytes - SHARD_FOOTER_BYTES;
    int rc;

    /* The footer is written last, so a file without it was cut or never finished. */
    if (memcmp(f + 120, magic_end, 8) != 0) {
        err_set(e, E_DATA, "no footer at the end of %zu bytes: the shard was cut", nbytes);
        return err_hint(e, "the program that wrote it did not finish: make it again");
    }
    if (get_le(f + 116, 4) != crc32c(0, f, 116))
        return err_set(e, E_DATA, "footer checksum does not match: the shard is damaged");
    if (!all_zero(f + 104, 12))
        return err_set(e, E_DATA, "footer has bytes that are not zero at 104");
    if ((rc = parse_layout(s, p, nbytes, e)) < 0)
        return rc;
    s->text_bytes = (int64_t)get_le(f + 40, 8);
    s->text_words = (int64_t)get_le(f + 48, 8);
    s->masked = (int64_t)get_le(f + 56, 8);
    s->token_hash = get_le(f + 64, 8);
    s->footer_hash = XXH3_64bits(f, SHARD_FOOTER_BYTES);
    s->nbytes = nbytes;
    return 0;
}

/* The checksums of all parts but the tokens, whose blocks are checked when they are first
 * read. */
static int check_sums(const struct shard *s, const unsigned char *p, struct err *e)
{
    const unsigned char *f = p + s->nbytes - SHARD_FOOTER_BYTES;
    const struct { const char *what; uint32_t found; const unsigned char *wanted; } part[] = {
        { "header", crc32c(0, p, 4092), f + 72 },
        { "document table", crc32c(0, s->docs, (size_t)s->n_docs * SHARD_DOC_BYTES), f + 76 },
        { "run table", crc32c(0, s->runs, (size_t)s->n_runs * 16), f + 80 },
        { "source table", crc32c(0, s->sources, (size_t)s->n_sources * SHARD_SOURCE_BYTES),
          f + 84 },
        { "names", crc32c(0, s->names, s->names_bytes), f + 88 },
        { "block checksums", crc32c(0, s->crcs, (size_t)s->n_blocks * 4), f + 92 },
    };

    for (size_t i = 0; i < sizeof part / sizeof *part; i++)
        if (part[i].found != get_le(part[i].wanted, 4))
            return err_set(e, E_DATA, "checksum of the %s does not match: the shard is damaged",
                           part[i].what);
    return 0;
}

/* The sums over the sources must be the footer's counts. */
static int check_sources(const struct shard *s, struct err *e)
{
    uint64_t docs = 0, tokens = 0, bytes = 0;

    for (int64_t i = 0; i < s->n_sources; i++) {
        const unsigned char *p = s->sources + i * SHARD_SOURCE_BYTES;
        if (label_field(p + 24, 256) < 0)
            return err_set(e, E_DATA, "source %lld has a name that is not UTF-8 filled up with "
                           "zeros", (long long)i);
        if (__builtin_add_overflow(docs, get_le(p, 8), &docs) ||
            __builtin_add_overflow(tokens, get_le(p + 8, 8), &tokens) ||
            __builtin_add_overflow(bytes, get_le(p + 16, 8), &bytes))
            return err_set(e, E_DATA, "counts of the sources overflow");
    }
    if (docs != (uint64_t)s->n_docs)
        return err_set(e, E_DATA, "sources have %llu documents, the footer says %lld",
                       (unsigned long long)docs, (long long)s->n_docs);
    if (tokens != (uint64_t)s->n_tokens)
        return err_set(e, E_DATA, "sources have %llu tokens, the footer says %lld",
                       (unsigned long long)tokens, (long long)s->n_tokens);
    if (bytes != (uint64_t)s->text_bytes)
        return err_set(e, E_DATA, "sources have %llu text bytes, the footer says %lld",
                       (unsigned long long)bytes, (long long)s->text_bytes);
    return 0;
}

/* What has been seen of the tables up to some document. */
struct walk {
    uint64_t token, run, name, bytes, words, masked;
};

/* Checks runs [w->run, upto), which belong to a document of n_ids tokens. */
static int check_runs(const struct shard *s, struct walk *w, uint64_t upto, uint64_t n_ids,
                      struct err *e)
{
    uint64_t end = 0;

    for (uint64_t k = w->run; k < upto; k++) {
        uint64_t start = get_le(s->runs + 16 * k, 8), count = get_le(s->runs + 16 * k + 8, 8);
        if (count < 1 || start > n_ids || count > n_ids - start ||
            (k > w->run && start <= end))
            return err_set(e, E_DATA, "run %llu does not ascend inside its document of %llu tokens",
                           (unsigned long long)k, (unsigned long long)n_ids);
        end = start + count;
        w->masked += count; /* at most n_tokens: runs lie apart inside documents */
    }
    w->run = upto;
    return 0;
}

/* Document i, whose table entry is p; next_run: where the next one's runs begin. */
static int check_doc(const struct shard *s, int64_t i, struct walk *w, struct err *e)
{
    const unsigned char *p = s->docs + i * SHARD_DOC_BYTES;
    uint64_t n_ids = get_le(p + 8, 8), bytes = get_le(p + 24, 8), words = get_le(p + 32, 8);
    uint64_t next_run = i + 1 < s->n_docs ? get_le(p + SHARD_DOC_BYTES + 16, 8)
                                          : (uint64_t)s->n_runs;
    const char *field = NULL, *name;
    size_t n;
    int rc;

    if (get_le(p, 8) != w->token)
        field = "start";
    else if (n_ids > (uint64_t)s->n_tokens - w->token)
        field = "ids";
    /* The table does not store where a document's runs end: they end where the next one's
     * begin. */
    else if (get_le(p + 16, 8) != w->run || next_run < w->run || next_run > (uint64_t)s->n_runs)
        field = "first run";
    else if (bytes > (uint64_t)DOC_TEXT_BYTES_MAX)
        field = "text bytes";
    else if (words > bytes)
        field = "text words";
    else if (get_le(p + 48, 8) != w->name || w->name >= s->names_bytes)
        field = "name";
    else if (get_le(p + 56, 4) >= (uint64_t)s->n_sources)
        field = "source";
    else if (get_le(p + 60, 4) != 0)
        field = "zero";
    if (field)
        return err_set(e, E_DATA, "field '%s' of document %lld is wrong", field, (long long)i);
    name = (const char *)s->names + w->name;
    /* A name ends with a zero inside the names; strnlen stops at their end where there is
     * none. */
    n = strnlen(name, s->names_bytes - w->name);
    if (n == s->names_bytes - w->name || !label_ok(name, n, DOC_NAME_MAX))
        return err_set(e, E_DATA, "name of document %lld is not UTF-8 of at most %d bytes",
                       (long long)i, DOC_NAME_MAX);
    if ((rc = check_runs(s, w, next_run, n_ids, e)) < 0)
        return rc;
    w->token += n_ids;
    w->name += n + 1;
    if (__builtin_add_overflow(w->bytes, bytes, &w->bytes))
        return err_set(e, E_DATA, "text bytes overflow");
    w->words += words;
    return 0;
}

/* One pass over the documents. Documents, runs and names must follow each other without gaps,
 * and must end where the footer says. */
static int check_docs(const struct shard *s, struct err *e)
{
    struct walk w = {0};
    const char *what = NULL;
    int rc;

    for (int64_t i = 0; i < s->n_docs; i++)
        if ((rc = check_doc(s, i, &w, e)) < 0)
            return rc;
    if (w.token != (uint64_t)s->n_tokens)
        what = "tokens";
    else if (w.run != (uint64_t)s->n_runs)
        what = "runs";
    else if (w.name != s->names_bytes)
        what = "bytes of names";
    else if (w.bytes != (uint64_t)s->text_bytes)
        what = "text bytes";
    else if (w.words != (uint64_t)s->text_words)
        what = "text words";
    else if (w.masked != (uint64_t)s->masked)
        what = "masked tokens";
    return what ? err_set(e, E_DATA, "the documents' %s are not what the footer says", what) : 0;
}

/* Each step relies on the one before: places come from the header and the footer, tables are
 * read only after their checksums matched. */
int shard_parse(struct shard *s, const void *bytes, size_t nbytes, struct err *e)
{
    int rc;

    *s = (struct shard){0};
    if ((rc = parse_header(s, bytes, nbytes, e)) < 0 ||
        (rc = parse_footer(s, bytes, nbytes, e)) < 0 || (rc = check_sums(s, bytes, e)) < 0 ||
        (rc = check_sources(s, e)) < 0)
        return rc;
    return check_docs(s, e);
}

void shard_doc(const struct shard *s, int64_t i, struct shard_doc *d)
{
    const unsigned char *p = s->docs + i * SHARD_DOC_BYTES;
    int64_t next = i + 1 < s->n_docs ? (int64_t)get_le(p + SHARD_DOC_BYTES + 16, 8) : s->n_runs;

    *d = (struct shard_doc){
        .start = (int64_t)get_le(p, 8), .n_ids = (int64_t)get_le(p + 8, 8),
        .first_run = (int64_t)get_le(p + 16, 8),
        .text_bytes = (int64_t)get_le(p + 24, 8), .text_words = (int64_t)get_le(p + 32, 8),
        .text_hash = get_le(p + 40, 8),
        .name = (const char *)s->names + get_le(p + 48, 8),
        .source = (const char *)s->sources + get_le(p + 56, 4) * SHARD_SOURCE_BYTES + 24,
    };
    d->n_runs = next - d->first_run;
}

void shard_run(const struct shard *s, int64_t i, struct mask_run *r)
{
    r->start = (int64_t)get_le(s->runs + 16 * i, 8);
    r->count = (int64_t)get_le(s->runs + 16 * i + 8, 8);
}

int64_t shard_doc_at(const struct shard *s, int64_t pos)
{
    int64_t lo = 0, hi = s->n_docs;

    while (hi - lo > 1) { /* the last that starts at or before pos: never an empty one */
        int64_t mid = lo + (hi - lo) / 2;
        if ((int64_t)get_le(s->docs + mid * SHARD_DOC_BYTES, 8) <= pos)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

const char *shard_source(const struct shard *s, int64_t i, int64_t *docs, int64_t *tokens,
                         int64_t *text_bytes)
{
    const unsigned char *p = s->sources + i * SHARD_SOURCE_BYTES;

    *docs = (int64_t)get_le(p, 8);
    *tokens = (int64_t)get_le(p + 8, 8);
    *text_bytes = (int64_t)get_le(p + 16, 8);
    return (const char *)p + 24;
}

void shard_ids(const struct shard *s, int64_t start, int64_t n, uint32_t *ids)
{
    ids_load(ids, s->tokens + start * s->info.width, s->info.width, n);
}
