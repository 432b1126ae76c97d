/* formats/tokenizer/tokenizer.h - text to token ids and back, by a SentencePiece model. */
#ifndef FORMATS_TOKENIZER_TOKENIZER_H
#define FORMATS_TOKENIZER_TOKENIZER_H
#include "base/err.h"
#include "base/hash.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
C_BEGIN

/* A loaded model is read-only: any number of threads may encode and decode with it at once. A
 * thread that encodes keeps about 33 MiB until it ends, whatever the number of models. */
struct tokenizer;

/* Reads a SentencePiece .model: that file, or tokenizer.model in that folder. E_NOINPUT; E_DATA,
 * naming what it is, when it is not one. The caller closes. */
int tokenizer_open(struct tokenizer **t, const char *path, struct err *e);
/* The same from memory (copied); name is for messages. */
int tokenizer_parse(struct tokenizer **t, const void *bytes, size_t nbytes, const char *name,
                    struct err *e);
void tokenizer_close(struct tokenizer *t);

/* Who makes the ids: our own code (spm.h), as from tokenizer_open, or libsentencepiece, 50 to
 * 200 times slower. The ids are the same. Before other threads use t. E_DATA, E_SYS. */
enum tokenizer_engine { TOKENIZER_OWN, TOKENIZER_SENTENCEPIECE };
int tokenizer_use(struct tokenizer *t, enum tokenizer_engine engine, struct err *e);

int64_t tokenizer_vocab(const struct tokenizer *t);  /* ids are 0 .. vocab-1 */
int32_t tokenizer_bos(const struct tokenizer *t);    /* -1 when the model has none */
int32_t tokenizer_eos(const struct tokenizer *t);
const char *tokenizer_fingerprint(const struct tokenizer *t); /* FINGERPRINT_HEX chars, NUL: XXH3-128 of the file */
const char *tokenizer_path(const struct tokenizer *t); /* of the file */

/*
 * What a tokenizer does, in FINGERPRINT_HEX chars and NUL: XXH3-128 of its pieces with their types
 * and the order of their scores (unigram: the scores), its normaliser, and how bytes and spaces are
 * taken. Two files that make the same ids of every text have the same one; data is marked with
 * the file's, as it always was.
 */
int tokenizer_meaning(const struct tokenizer *t, char out[FINGERPRINT_HEX + 1], struct err *e);
/* Whether data of this fingerprint was made with t, or with one that does the same: where it is
 * of t's file or meaning, or the file at path, which the data names, has it and means the same. */
bool tokenizer_made(const struct tokenizer *t, const char *fingerprint, const char *path);
/* The same of two sets of data. */
bool tokenizer_alike(const char *fingerprint, const char *path, const char *fingerprint2,
                     const char *path2);

/* ids of text, exactly as libsentencepiece's Encode gives them: no BOS, no EOS. *ids is
 * malloc'ed, the caller frees; *n may be 0. E_DATA (more than 1 GiB), E_SYS. */
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t nbytes, int32_t **ids,
                     int64_t *n, struct err *e);
/* Text of ids, exactly as libsentencepiece's Decode gives it, malloc'ed with a NUL after the
 * end. An id outside the vocabulary is E_DATA. */
int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, int64_t n, char **text,
                     size_t *nbytes, struct err *e);
/* The piece of one id as stored in the model (with U+2581 for spaces); "" when out of range. */
const char *tokenizer_piece(const struct tokenizer *t, int32_t id);

C_END
#endif
