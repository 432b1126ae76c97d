/* formats/tokens/dataset.h - tokens ready to train or score on, whichever file form they came in. */
#ifndef FORMATS_TOKENS_DATASET_H
#define FORMATS_TOKENS_DATASET_H
#include "base/err.h"
#include "base/pool.h"
#include "formats/tokens/stream.h"
#include <stdint.h>
C_BEGIN

/*
 * A data set is documents 0 .. n_docs-1 laid end to end: one array of n_tokens, readable at
 * any place in O(1) from mapped memory. Forms:
 *   shards    a folder with manifest.json (one split of it, default "train")
 *   shard     a single .shard file, as 'lpack > pg19.val' writes
 *   raw       headerless little-endian uint16 ids (the reference's *.bin): one document
 * Integrity: opening checks headers, footers, sizes and the manifest's hashes of the small
 * parts; the token blocks' CRC32C is checked on first touch of each block by dataset_read
 * (E_DATA, naming file and block).
 */
struct dataset;

struct dataset_doc {
    int64_t start, n_ids; /* tokens [start, start + n_ids) of the data set */
    int64_t text_bytes, text_words; /* 0 when unknown (raw) */
    uint64_t text_hash;             /* the same */
    const char *source, *name;      /* live as long as the data set; "" when unknown */
};

/* path: folder or file. split: NULL or "" = "train" for folders, ignored for files.
 * raw_vocab: for the raw form, ids at or above it are refused (0: no limit).
 * E_NOINPUT, E_DATA, E_CONFIG (no such split; the message lists them). */
int dataset_open(struct dataset **d, const char *path, const char *split, int64_t raw_vocab,
                 struct err *e);
/* The same where it is known that a file of no form of ours is raw ids: dataset_open refuses
 * what looks like anything else (raw_refuse). */
int dataset_open_raw(struct dataset **d, const char *path, const char *split, int64_t raw_vocab,
                     struct err *e);
void dataset_close(struct dataset *d);

const char *dataset_form(const struct dataset *d); /* "shards", "shard", "raw u16" */
const struct token_info *dataset_info(const struct dataset *d);
int64_t dataset_tokens(const struct dataset *d);
int64_t dataset_docs(const struct dataset *d);
int64_t dataset_masked(const struct dataset *d); /* tokens that are not to be trained on */
/* 64 bits that name content and order: manifest or file hash. For checkpoints. */
uint64_t dataset_hash(const struct dataset *d);

/* Tokens [start, start + n) as int32. mask (may be NULL) [n]: 1 where the token is not to be
 * trained on. Threads may call it at once. */
int dataset_read(struct dataset *d, int64_t start, int64_t n, int32_t *ids, uint8_t *mask,
                 struct err *e);
/* Document i. */
int dataset_doc(struct dataset *d, int64_t i, struct dataset_doc *doc, struct err *e);
/* The document that token position start belongs to, 0 <= start < dataset_tokens. */
int64_t dataset_doc_at(const struct dataset *d, int64_t start);
/* Reads all of it: every block's checksum, every table, and each file's hash where a manifest
 * has one; a thread of team (NULL: this one alone) a file. Raw ids have nothing to check
 * against. E_DATA: of the first file that is damaged; E_SYS. */
int dataset_verify(struct dataset *d, struct pool *team, struct err *e);

C_END
#endif
