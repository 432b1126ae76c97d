/* formats/tokens/shard.h - documents as token ids in one file, read straight from mapped bytes. */
#ifndef FORMATS_TOKENS_SHARD_H
#define FORMATS_TOKENS_SHARD_H
#include "base/err.h"
#include "formats/tokens/stream.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
C_BEGIN

/* The layout stands in shard.md. */
#define SHARD_HEADER_BYTES 4096
#define SHARD_FOOTER_BYTES 128
#define SHARD_DOC_BYTES 64
#define SHARD_SOURCE_BYTES 280
#define SHARD_MAX_SOURCES 4096
#define SHARD_BLOCK_BYTES ((uint32_t)1 << 20)

/* A parsed shard: borrows the bytes, owns nothing. */
struct shard {
    struct token_info info;
    int64_t n_tokens, n_docs, n_runs, n_sources, n_blocks;
    int64_t text_bytes, text_words; /* of all documents */
    int64_t masked;                 /* tokens that are not trained on */
    uint32_t block_bytes;
    uint64_t token_hash;  /* XXH3-64 of the tokens */
    uint64_t footer_hash; /* XXH3-64 of the footer: names the content */
    size_t nbytes, names_bytes;
    const unsigned char *tokens, *docs, *runs, *sources, *names, *crcs;
};

struct shard_doc {
    int64_t start, n_ids, first_run, n_runs;
    int64_t text_bytes, text_words;
    uint64_t text_hash;
    const char *source, *name; /* in the bytes */
};

/* True when the bytes begin as a shard does (which may yet be a damaged one). */
bool shard_is(const void *bytes, size_t nbytes);
/* Checks all of shard.md's rules but those on the tokens themselves. Every accessor below is
 * then safe. E_DATA naming the field. */
int shard_parse(struct shard *s, const void *bytes, size_t nbytes, struct err *e);
/* Document i, 0 <= i < n_docs; mask run i, 0 <= i < n_runs. */
void shard_doc(const struct shard *s, int64_t i, struct shard_doc *d);
void shard_run(const struct shard *s, int64_t i, struct mask_run *r);
/* The document that holds token pos, 0 <= pos < n_tokens. */
int64_t shard_doc_at(const struct shard *s, int64_t pos);
/* Counts of source i; its name is NUL-terminated in the bytes. */
const char *shard_source(const struct shard *s, int64_t i, int64_t *docs, int64_t *tokens,
                         int64_t *text_bytes);
/* CRC32C of one token block, and every id in it below vocab. E_DATA. */
int shard_check_block(const struct shard *s, int64_t block, struct err *e);
/* Reads all of the file, once: every block, the token hash, each source's counts, and hash, the
 * XXH3-128 that it must have in hex; NULL: any. E_DATA, E_SYS. */
int shard_verify(const struct shard *s, const char *hash, struct err *e);
/* Tokens [start, start + n), which must lie inside; blocks are not checked. */
void shard_ids(const struct shard *s, int64_t start, int64_t n, uint32_t *ids);

/* What a writer has learnt when it is done. */
struct shard_sums {
    int64_t docs, tokens, text_bytes, text_words, masked, bytes;
    char hash[33];        /* XXH3-128 of the file, hex */
    uint64_t footer_hash;
};

/* Writes front to back, so fd may be a pipe. Tables that outgrow a MiB wait in an unnamed
 * temporary file in tmp_folder (NULL: $TMPDIR or /tmp). E_CREATE, E_IO, E_SYS, E_DATA (a
 * document that breaks a rule; too many sources). fd stays the caller's and is not synced. */
struct shard_writer;
int shard_create(struct shard_writer **w, int fd, const char *name,
                 const struct token_info *info, const char *tmp_folder, struct err *e);
int shard_write(struct shard_writer *w, const struct token_doc *doc, struct err *e);
int64_t shard_writer_tokens(const struct shard_writer *w);
int64_t shard_writer_docs(const struct shard_writer *w);
/* Writes the tables and the footer and frees w either way; *sums may be NULL. */
int shard_finish(struct shard_writer *w, struct shard_sums *sums, struct err *e);
void shard_abandon(struct shard_writer *w); /* without footer: readers refuse the file */

/* Documents, tokens and bytes by source. Zero it before use. */
struct source_count {
    char name[256];
    uint64_t hash;
    int64_t docs, tokens, text_bytes;
};
struct source_table {
    struct source_count *v;
    int64_t n, last;
    size_t cap;
};
/* Adds to the counts of a source, which is new at its first time. Returns its index, E_DATA
 * (over SHARD_MAX_SOURCES, counts that overflow), E_SYS. */
int64_t source_add(struct source_table *t, const char *name, int64_t docs, int64_t tokens,
                   int64_t text_bytes, struct err *e);
void source_free(struct source_table *t);

C_END
#endif
