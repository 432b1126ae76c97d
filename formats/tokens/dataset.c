/* formats/tokens/dataset.c - shards, one shard, or raw u16 ids as one array; see dataset.h.
 *
 * A data set is a list of parts, one for each mapped file. Tokens and documents are numbered
 * through all parts; each part knows the number of its first. Reading finds the part by binary
 * search and goes on into the next one where a row crosses its end. */
#include "formats/tokens/dataset.h"
#include "base/bytes.h"
#include "base/file.h"
#include "formats/tokens/document.h"
#include "formats/tokens/interop.h"
#include "base/hash.h"
#include "formats/tokens/manifest.h"
#include "formats/tokens/shard.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One mapped file; raw ids are a shard without tables. */
struct part {
    char *path;
    char hash[33]; /* the manifest's, "" without one */
    const void *map;
    size_t nbytes;
    struct shard s;
    int64_t first_token, first_doc; /* of the data set */
    _Atomic unsigned char *checked; /* by block: 1 when its checksum matched */
};

struct dataset {
    const char *form;
    char *path;
    bool raw, surely_raw; /* raw ids; whatever they look like */
    struct token_info info;
    struct part *parts;
    int64_t n_parts, n_tokens, n_docs, masked;
    uint64_t hash;
};

/* Maps a file. On failure the part may already own its path, which dataset_close frees. */
static int map_part(struct part *p, const char *path, struct err *e)
{
    if (!(p->path = strdup(path)))
        return err_set(e, E_SYS, "out of memory");
    return file_map(path, &p->map, &p->nbytes, e);
}

/* Maps a file that must be a shard, and checks its tables but not yet its tokens. */
static int map_shard(struct part *p, const char *path, struct err *e)
{
    int rc = map_part(p, path, e);

    if (rc < 0)
        return rc;
    if ((rc = shard_parse(&p->s, p->map, p->nbytes, e)) < 0)
        return err_within(e, "'%s'", path);
    /* One more than needed, so that a shard without tokens does not ask for 0 bytes. */
    if (!(p->checked = calloc((size_t)p->s.n_blocks + 1, 1)))
        return err_set(e, E_SYS, "out of memory");
    return 0;
}

/* Holds a shard against the manifest that lists it. Tokenizers that differ are the user's
 * mistake elsewhere (E_CONFIG); inside one data set they mean that a file is not the right
 * one. */
static int agree(const struct part *p, const struct manifest *m, const struct manifest_shard *h,
                 struct err *e)
{
    int rc = manifest_check_shard(h, &p->s, p->path, e);

    if (rc < 0)
        return rc;
    if (info_agree(&m->info, MANIFEST_FILE, &p->s.info, p->path, e) < 0)
        return e ? (e->code = E_DATA) : E_DATA;
    return 0;
}

/* The error for an unknown split, with a hint that lists the splits there are. */
static int no_such_split(const char *path, const struct manifest *m, const char *split,
                         struct err *e)
{
    char list[512];
    size_t n = 0;

    /* 70 bytes hold the longest name (63), ", " and the NUL, so the list ends between two
     * names. */
    for (int i = 0; i < m->n_splits && n < sizeof list - 70; i++)
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "",
                              m->splits[i].name);
    err_set(e, E_CONFIG, "'%s' has no split '%s'", path, split);
    return err_hint(e, "it has: %s", list);
}

/* Maps all shards of one split of a data set folder. */
static int open_folder(struct dataset *d, const char *path, const char *split, struct err *e)
{
    struct manifest *m;
    const struct manifest_split *s;
    XXH3_state_t *hash = NULL;
    int rc = manifest_read(&m, path, e);

    if (rc < 0)
        return rc;
    split = split && *split ? split : "train";
    d->form = "shards";
    d->info = m->info;
    if (!(s = manifest_find(m, split))) {
        rc = no_such_split(path, m, split, e);
        goto out;
    }
    if (!(d->parts = calloc((size_t)s->n_shards + 1, sizeof *d->parts)) ||
        !(hash = XXH3_createState())) {
        rc = err_set(e, E_SYS, "out of memory");
        goto out;
    }
    XXH3_64bits_reset(hash);
    /* The identity of the data is the split's name, with its NUL, and its shards' hashes in
     * order. The folder's path is not part of it, so a data set may be moved. */
    XXH3_64bits_update(hash, split, strlen(split) + 1);
    /* n_parts also counts a shard that failed to open, so that dataset_close frees what it
     * has. */
    for (; d->n_parts < s->n_shards && rc == 0; d->n_parts++) {
        const struct manifest_shard *h = &s->shards[d->n_parts];
        char *file = path_join(path, h->file);
        rc = map_shard(&d->parts[d->n_parts], file, e);
        free(file);
        if (rc == 0)
            rc = agree(&d->parts[d->n_parts], m, h, e);
        memcpy(d->parts[d->n_parts].hash, h->hash, sizeof h->hash);
        XXH3_64bits_update(hash, h->hash, sizeof h->hash);
    }
    d->hash = XXH3_64bits_digest(hash);
out:
    XXH3_freeState(hash);
    manifest_free(m);
    return rc;
}

/* Takes the whole file for 16-bit ids of one document. There is no header to check, so what
 * looks like something else is refused first, unless the user says that it is raw. */
static int open_raw(struct dataset *d, struct part *p, int64_t raw_vocab, struct err *e)
{
    struct shard *s = &p->s;
    int rc;

    if (p->nbytes % 2) {
        err_set(e, E_DATA, "'%s' has %zu bytes, an odd number: neither a shard nor raw 16-bit "
                "token ids", p->path, p->nbytes);
        return err_hint(e, "pack text first: lprep FILE -t tokenizer.model | lpack -o DIR");
    }
    if (!d->surely_raw && (rc = raw_refuse(p->path, p->map, p->nbytes, e)) < 0)
        return rc;
    d->form = "raw u16";
    d->raw = true;
    d->hash = XXH3_64bits(p->map, p->nbytes);
    d->info = (struct token_info){ .width = 2, .bos = -1, .eos = -1 };
    /* Without a better bound every value of 16 bits is a valid id. */
    d->info.vocab = raw_vocab > 0 && raw_vocab < 65536 ? (uint32_t)raw_vocab : 65536;
    s->info = d->info;
    s->tokens = p->map;
    s->n_tokens = (int64_t)(p->nbytes / 2);
    s->n_docs = 1;
    return 0;
}

/* A single file: a shard, or raw ids. Files of other forms are named, since their bytes would
 * otherwise be read as raw ids and give nonsense without an error. */
static int open_file(struct dataset *d, const char *path, int64_t raw_vocab, struct err *e)
{
    struct interop f;
    struct part *p;
    int rc;

    if (!(p = d->parts = calloc(1, sizeof *p)))
        return err_set(e, E_SYS, "out of memory");
    d->n_parts = 1;
    if ((rc = map_part(p, path, e)) < 0)
        return rc;
    if (p->nbytes >= 8 && memcmp(p->map, "LLSTREAM", 8) == 0) {
        err_set(e, E_DATA, "'%s' is a token stream, not a data set", path);
        return err_hint(e, "pack it first: lpack %s > FILE.shard", path);
    }
    if (llmc_parse(&f, p->map, p->nbytes, NULL) == 0) { /* its header would be taken for ids */
        err_set(e, E_DATA, "'%s' is a data file of llm.c, not a data set", path);
        return err_hint(e, "import it first: lpack --import llmc %s > FILE.shard", path);
    }
    /* Whatever does not begin or end as a shard does can only be raw ids. */
    if (!shard_is(p->map, p->nbytes))
        return open_raw(d, p, raw_vocab, e);
    if ((rc = shard_parse(&p->s, p->map, p->nbytes, e)) < 0)
        return err_within(e, "'%s'", path);
    if (!(p->checked = calloc((size_t)p->s.n_blocks + 1, 1)))
        return err_set(e, E_SYS, "out of memory");
    d->form = "shard";
    d->info = p->s.info;
    d->hash = p->s.footer_hash;
    return 0;
}

/* Opens a folder or a file, then gives each part its place in the whole data set. */
static int open_set(struct dataset **out, const char *path, const char *split,
                    int64_t raw_vocab, bool surely_raw, struct err *e)
{
    struct dataset *d = calloc(1, sizeof *d);
    int rc;

    *out = NULL;
    if (!d || !(d->path = strdup(path))) {
        dataset_close(d);
        return err_set(e, E_SYS, "out of memory");
    }
    d->surely_raw = surely_raw;
    rc = path_is_dir(path) ? open_folder(d, path, split, e) : open_file(d, path, raw_vocab, e);
    for (int64_t i = 0; i < d->n_parts && rc == 0; i++) {
        struct part *p = &d->parts[i];
        p->first_token = d->n_tokens;
        p->first_doc = d->n_docs;
        d->n_docs += p->s.n_docs; /* no overflow: each is below its file's bytes */
        d->n_tokens += p->s.n_tokens;
        d->masked += p->s.masked;
    }
    if (rc < 0) {
        dataset_close(d);
        return rc;
    }
    *out = d;
    return 0;
}

int dataset_open(struct dataset **d, const char *path, const char *split, int64_t raw_vocab,
                 struct err *e)
{
    return open_set(d, path, split, raw_vocab, false, e);
}

int dataset_open_raw(struct dataset **d, const char *path, const char *split, int64_t raw_vocab,
                     struct err *e)
{
    return open_set(d, path, split, raw_vocab, true, e);
}

void dataset_close(struct dataset *d)
{
    if (!d)
        return;
    for (int64_t i = 0; i < d->n_parts; i++) {
        file_unmap(d->parts[i].map, d->parts[i].nbytes);
        free((void *)d->parts[i].checked);
        free(d->parts[i].path);
    }
    free(d->parts);
    free(d->path);
    free(d);
}

const char *dataset_form(const struct dataset *d) { return d->form; }
const struct token_info *dataset_info(const struct dataset *d) { return &d->info; }
int64_t dataset_tokens(const struct dataset *d) { return d->n_tokens; }
int64_t dataset_docs(const struct dataset *d) { return d->n_docs; }
int64_t dataset_masked(const struct dataset *d) { return d->masked; }
uint64_t dataset_hash(const struct dataset *d) { return d->hash; }

/* The last part that begins at or before a token, or a document: parts without any are
 * passed over, as the next one begins at the same place. */
static struct part *part_at(const struct dataset *d, int64_t at, bool doc)
{
    int64_t lo = 0, hi = d->n_parts;

    while (hi - lo > 1) {
        int64_t mid = lo + (hi - lo) / 2;
        if ((doc ? d->parts[mid].first_doc : d->parts[mid].first_token) <= at)
            lo = mid;
        else
            hi = mid;
    }
    return &d->parts[lo];
}

/* Checks the blocks that hold tokens [start, start + n) of a part, where n is above 0. Each
 * block is checked once. Two threads may check the same one at the same time, which does no
 * harm. */
static int check_blocks(struct part *p, int64_t start, int64_t n, struct err *e)
{
    /* Blocks are counted in bytes, tokens in ids of width bytes. The last block is the one of
     * the last byte that is read, not of the byte after it. */
    int64_t first = start * p->s.info.width / p->s.block_bytes;
    int64_t last = ((start + n) * p->s.info.width - 1) / p->s.block_bytes;

    for (int64_t b = first; b <= last; b++) {
        if (atomic_load_explicit(&p->checked[b], memory_order_relaxed))
            continue;
        if (shard_check_block(&p->s, b, e) < 0)
            return err_within(e, "'%s'", p->path);
        atomic_store_explicit(&p->checked[b], 1, memory_order_relaxed);
    }
    return 0;
}

/* Marks mask[0 .. n) for tokens [start, start + n) of a part. */
static void read_mask(const struct shard *s, int64_t start, int64_t n, uint8_t *mask)
{
    struct shard_doc d;
    struct mask_run r;

    memset(mask, 0, (size_t)n);
    if (s->n_runs == 0)
        return;
    /* Document by document: runs count from the first token of their document. */
    for (int64_t i = shard_doc_at(s, start); i < s->n_docs; i++) {
        int64_t lo, hi;
        shard_doc(s, i, &d);
        if (d.start >= start + n)
            break;
        lo = d.first_run; /* the first run that ends after start */
        hi = d.first_run + d.n_runs;
        while (lo < hi) {
            int64_t mid = lo + (hi - lo) / 2;
            shard_run(s, mid, &r);
            if (d.start + r.start + r.count <= start)
                lo = mid + 1;
            else
                hi = mid;
        }
        for (; lo < d.first_run + d.n_runs; lo++) {
            shard_run(s, lo, &r);
            /* The run as [a, b) in mask. It may begin before start and end after start + n. */
            int64_t a = d.start + r.start - start, b = a + r.count;
            if (a >= n)
                break;
            a = a > 0 ? a : 0;
            memset(mask + a, 1, (size_t)((b < n ? b : n) - a));
        }
    }
}

/* Shuffled rows are nowhere near each other, so of each the next piece is on its way while one
 * is copied. */
static void read_ids(const struct shard *s, int64_t start, int64_t n, uint32_t *ids)
{
    enum { PIECE = 2048 };

    for (int64_t i = 0; i < n; i += PIECE) {
        if (n - i >= 2 * PIECE)
            bytes_fetch(s->tokens + (start + i + PIECE) * s->info.width, PIECE * s->info.width,
                        true);
        shard_ids(s, start + i, n - i < PIECE ? n - i : PIECE, ids + i);
    }
}

/* Reads tokens that all lie in one part. mask may be NULL. */
static int read_part(struct dataset *d, struct part *p, int64_t start, int64_t n, int32_t *ids,
                     uint8_t *mask, struct err *e)
{
    int64_t bad;
    int rc;

    if (!d->raw && (rc = check_blocks(p, start, n, e)) < 0)
        return rc;
    read_ids(&p->s, start, n, (uint32_t *)ids);
    if (mask)
        read_mask(&p->s, start, n, mask);
    /* A shard's ids were checked with their blocks; raw ids are checked at every read. */
    if (d->raw && (bad = ids_bad((uint32_t *)ids, n, d->info.vocab)) >= 0) {
        err_set(e, E_DATA, "'%s': token %lld is id %d, not below the vocabulary of %u", p->path,
                (long long)(start + bad), ids[bad], d->info.vocab);
        return err_hint(e, "is this file raw 16-bit token ids, made with this model's tokenizer?");
    }
    return 0;
}

int dataset_read(struct dataset *d, int64_t start, int64_t n, int32_t *ids, uint8_t *mask,
                 struct err *e)
{
    int rc;

    if (start < 0 || n < 0 || start > d->n_tokens || n > d->n_tokens - start)
        return err_set(e, E_BUG, "tokens %lld to %lld of a data set of %lld", (long long)start,
                       (long long)start + n, (long long)d->n_tokens);
    while (n > 0) {
        struct part *p = part_at(d, start, false);
        /* A row may run over the end of a shard into the next: at most k tokens come from this
         * one. */
        int64_t at = start - p->first_token, k = p->s.n_tokens - at;
        if (k > n)
            k = n;
        if ((rc = read_part(d, p, at, k, ids, mask, e)) < 0)
            return rc;
        start += k;
        ids += k;
        mask = mask ? mask + k : NULL;
        n -= k;
    }
    return 0;
}

int dataset_doc(struct dataset *d, int64_t i, struct dataset_doc *doc, struct err *e)
{
    struct shard_doc sd;
    struct part *p;

    if (i < 0 || i >= d->n_docs)
        return err_set(e, E_BUG, "document %lld of a data set of %lld", (long long)i,
                       (long long)d->n_docs);
    if (d->raw) {
        *doc = (struct dataset_doc){ .n_ids = d->n_tokens, .source = "", .name = "" };
        return 0;
    }
    p = part_at(d, i, true);
    shard_doc(&p->s, i - p->first_doc, &sd);
    *doc = (struct dataset_doc){ .start = p->first_token + sd.start, .n_ids = sd.n_ids,
                                 .text_bytes = sd.text_bytes, .text_words = sd.text_words,
                                 .text_hash = sd.text_hash, .source = sd.source, .name = sd.name };
    return 0;
}

/* Raw ids are one document, number 0. */
int64_t dataset_doc_at(const struct dataset *d, int64_t start)
{
    const struct part *p;

    if (d->raw || d->n_parts == 0)
        return 0;
    p = part_at(d, start, false);
    return p->first_doc + shard_doc_at(&p->s, start - p->first_token);
}

struct verifying {
    struct dataset *d;
    struct err *errs; /* by part */
};

/* Verifies one part in a thread. Each has its own error, so that threads share nothing. */
static void verify_part(void *ctx, int64_t i, int thread)
{
    struct verifying *v = ctx;
    struct part *p = &v->d->parts[i];

    (void)thread;
    if (!v->d->raw && shard_verify(&p->s, p->hash[0] ? p->hash : NULL, &v->errs[i]) < 0)
        err_within(&v->errs[i], "'%s'", p->path);
}

int dataset_verify(struct dataset *d, struct pool *team, struct err *e)
{
    struct verifying v = { d, calloc((size_t)d->n_parts + 1, sizeof *v.errs) };
    int rc = 0;

    if (!v.errs)
        return err_set(e, E_SYS, "out of memory");
    pool_run(team, d->n_parts, verify_part, &v);
    /* The first part that failed, in the order of the parts, whichever thread ended first. */
    for (int64_t i = 0; i < d->n_parts && rc == 0; i++)
        if ((rc = v.errs[i].code) < 0 && e)
            *e = v.errs[i];
    free(v.errs);
    return rc;
}
