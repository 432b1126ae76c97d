/* formats/document.h - one document, and what a stream's documents share, as bytes. */
#ifndef FORMATS_DOCUMENT_H
#define FORMATS_DOCUMENT_H
#include "base/bytes.h"
#include "base/err.h"
#include "formats/stream.h"
C_BEGIN

/* What stream, shard and lpack's spill have in common; the layouts stand in stream.md. */
#define INFO_BYTES 312
#define DOC_FIXED_BYTES 44
#define DOC_BYTES_MAX ((uint64_t)1 << 31)
#define DOC_TEXT_BYTES_MAX ((int64_t)1 << 40)
#define DOC_SOURCE_MAX 255
#define DOC_NAME_MAX 1023

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
