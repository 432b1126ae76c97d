/* formats/tokens/interop.h - token files of other programs: raw ids, llm.c's, Megatron's. */
#ifndef FORMATS_TOKENS_INTEROP_H
#define FORMATS_TOKENS_INTEROP_H
#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
C_BEGIN

/* The layouts stand in interop.md. */
#define LLMC_HEADER_BYTES 1024
#define LLMC_MAX_TOKENS ((int64_t)INT32_MAX)
#define MEGATRON_HEADER_BYTES 34
#define MEGATRON_MAX_SEQUENCE ((int64_t)INT32_MAX)

/* A parsed file: borrows the bytes, owns nothing. */
struct interop {
    const unsigned char *ids; /* need no alignment */
    size_t at;                /* where they begin in their file */
    uint32_t width;           /* bytes an id: 1, 2, 4, 8 */
    bool is_signed;
    int64_t n_ids, n_docs;
    int64_t n_seqs;           /* Megatron's index; else 0, and all is one document */
    const unsigned char *pointers, *docs;
};

/* True when the bytes begin as a data file of llm.c does. */
bool llmc_is(const void *bytes, size_t nbytes);
/* Each takes all bytes of its file and checks what the page says against them. E_DATA, naming
 * the byte. */
int raw_parse(struct interop *f, const void *bytes, size_t nbytes, struct err *e);
/* Raw ids have no mark of their own, and any file of an even size could be some. E_DATA, naming
 * what it is and the option that says otherwise, for a file whose bytes are another form
 * (base/magic.h) or text: of random ids not one file in 2^30 is. */
int raw_refuse(const char *path, const void *bytes, size_t nbytes, struct err *e);
int llmc_parse(struct interop *f, const void *bytes, size_t nbytes, struct err *e);
/* idx and bin: the two files of one set; bin may be NULL where bin_bytes is 0. */
int megatron_parse(struct interop *f, const void *idx, size_t idx_bytes, const void *bin,
                   size_t bin_bytes, struct err *e);

/* The same of files. Of Megatron's two, path is either, or their name without .bin and .idx.
 * Closed by interop_close, also after a failure: E_NOINPUT; E_DATA, naming the file too. */
enum interop_kind { INTEROP_RAW, INTEROP_LLMC, INTEROP_MEGATRON };
struct interop_file {
    struct interop f;
    char ids[4096], index[4096]; /* names of the files; index "" without one */
    const void *map[2];          /* of them */
    size_t nbytes[2];
};
int interop_open(struct interop_file *x, enum interop_kind kind, const char *path,
                 struct err *e);
void interop_close(struct interop_file *x);

/* Document i, 0 <= i < n_docs: ids [start, start + n). */
void interop_doc(const struct interop *f, int64_t i, int64_t *start, int64_t *n);
/* Ids [start, start + n), which must lie inside. E_DATA for one that is not below vocab (or is
 * negative), naming it and its byte. */
int interop_load(const struct interop *f, int64_t start, int64_t n, uint32_t vocab,
                 uint32_t *ids, struct err *e);

/* Headers for writers. Bytes an id: llmc_width, 2 or 4; megatron_width, 2 (uint16) or 4
 * (int32), as the programs themselves choose it. */
uint32_t llmc_width(uint32_t vocab);
void llmc_header(unsigned char out[LLMC_HEADER_BYTES], uint32_t vocab, int64_t n_tokens);
uint32_t megatron_width(uint32_t vocab);
void megatron_header(unsigned char out[MEGATRON_HEADER_BYTES], uint32_t vocab, int64_t n_seqs,
                     int64_t n_docs);

C_END
#endif
