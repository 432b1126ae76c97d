/* formats/tokens/document.h - one document, and what a stream's documents share, as bytes. */
#ifndef FORMATS_TOKENS_DOCUMENT_H
#define FORMATS_TOKENS_DOCUMENT_H
#include "base/bytes.h"
#include "base/err.h"
#include "base/hash.h"
#include <stdbool.h>
#include <stdint.h>
C_BEGIN

/* What stream, shard and lpack's spill have in common; the layouts stand in stream.md. */
#define INFO_BYTES 312
#define DOC_FIXED_BYTES 44
#define DOC_BYTES_MAX ((uint64_t)1 << 31)
#define DOC_TEXT_BYTES_MAX ((int64_t)1 << 40)
#define DOC_SOURCE_MAX 255
#define DOC_NAME_MAX 1023

/* What a whole stream, shard or data set has in common. */
struct token_info {
    uint32_t width;                        /* bytes a token: 2 or 4, little-endian */
    uint32_t vocab;                        /* ids are below this */
    int32_t bos, eos;                      /* -1: none */
    bool adds_bos, adds_eos;               /* already among the document's ids */
    char fingerprint[FINGERPRINT_HEX + 1]; /* of the tokenizer; "" unknown */
    char tokenizer[256];                   /* its file name, for people and as a default */
};

/* Tokens [start, start + count) of a document are not trained on (a prompt). Runs of one
 * document ascend and do not touch. */
struct mask_run {
    int64_t start, count;
};

/* One document. ids are uint32_t in memory whatever the width on disk. */
struct token_doc {
    const uint32_t *ids;
    int64_t n_ids;
    const struct mask_run *runs;
    int64_t n_runs;
    const char *source;  /* "pg19", "redpajama.arxiv", ...; at most 255 bytes of UTF-8 */
    const char *name;    /* file or record it came from, for people; at most 1023 bytes */
                         /* writers cut both to size and put '?' for what is not UTF-8 */
    uint64_t text_hash;  /* XXH3-64 of the text that was tokenised */
    int64_t text_bytes;  /* its length in bytes */
    int64_t text_words;  /* its words: maximal runs of bytes other than ASCII white space */
};

/* Bytes a token id takes on disk: 2 where the vocabulary allows it, else 4. */
uint32_t token_width(uint32_t vocab);

/* The token information block. Encoding writes 0 to its field 'block' (at 20), which parsing
 * does not look at. info_parse and info_check: E_DATA naming the field. */
void info_encode(const struct token_info *info, unsigned char out[INFO_BYTES]);
int info_parse(struct token_info *info, const unsigned char in[INFO_BYTES], struct err *e);
int info_check(const struct token_info *info, struct err *e);
/* E_CONFIG naming both and what differs, unless ids of a and b mean the same. */
int info_agree(const struct token_info *a, const char *a_name, const struct token_info *b,
               const char *b_name, struct err *e);

/* Copies a label (source or name) to out: cut to max bytes between characters; bytes that are
 * not UTF-8 become '?'. out has max + 1 bytes. */
void label_clean(char *out, size_t max, const char *in);

/* Appends the DOC payload. Labels are cleaned. E_DATA for a document that breaks a rule. */
int doc_encode(struct buf *b, const struct token_doc *doc, const struct token_info *info,
               struct err *e);

/* Where a decoded document lives. Zero it before use. */
struct doc_space {
    struct buf ids, runs;
    char source[DOC_SOURCE_MAX + 1], name[DOC_NAME_MAX + 1];
};
/* Reads a DOC payload of nbytes; *doc points into s, until the next call. E_DATA, E_SYS. */
int doc_decode(struct doc_space *s, const void *payload, size_t nbytes,
               const struct token_info *info, struct token_doc *doc, struct err *e);
void doc_space_free(struct doc_space *s);

/* Everything stream.md asks of a document but its labels. E_DATA. */
int doc_check(const struct token_doc *doc, const struct token_info *info, struct err *e);
/* At most max bytes of UTF-8 without NUL (n is its length). */
bool label_ok(const char *s, size_t n, size_t max);
/* A label in a field of cap bytes filled up with zeros, at least one: its length, or -1. */
int label_field(const unsigned char *p, size_t cap);

/* n ids between memory and disk; p needs no alignment. */
void ids_load(uint32_t *ids, const void *p, uint32_t width, int64_t n);
void ids_store(void *p, const uint32_t *ids, uint32_t width, int64_t n);
/* The largest of n ids on disk; 0 of none. */
uint32_t ids_top(const void *p, uint32_t width, int64_t n);
/* Index of the first id that is not below vocab, or -1. */
int64_t ids_bad(const uint32_t *ids, int64_t n, uint32_t vocab);

C_END
#endif
