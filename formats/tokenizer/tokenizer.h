/* formats/tokenizer/tokenizer.h - text to token ids and back, by whatever file a model has for it. */
#ifndef FORMATS_TOKENIZER_TOKENIZER_H
#define FORMATS_TOKENIZER_TOKENIZER_H
#include "base/bytes.h"
#include "base/err.h"
#include "base/hash.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
C_BEGIN

/* A loaded model is read-only: any number of threads may encode and decode with it at once. A
 * thread that encodes keeps about 37 MiB until it ends, whatever the number of models. */
struct tokenizer;

/*
 * Reads a SentencePiece .model, a tokenizer.json of Hugging Face's tokenizers, a rank file of tiktoken,
 * told apart by their bytes; or of a folder the first there is of tokenizer.json, tokenizer.model and
 * *.tiktoken: what transformers would load. BOS and EOS of a tokenizer.json are those of the
 * tokenizer_config.json beside it, else of its template, else special tokens of the usual names.
 * E_NOINPUT; E_DATA, naming what it is, when it is none. The caller closes.
 */
int tokenizer_open(struct tokenizer **t, const char *path, struct err *e);
/* The file of a folder that tokenizer_open would read: malloc'ed, or NULL where there is none. */
char *tokenizer_in_folder(const char *folder);
/* The same as tokenizer_open from memory (copied); name is for messages. */
int tokenizer_parse(struct tokenizer **t, const void *bytes, size_t nbytes, const char *name,
                    struct err *e);
void tokenizer_close(struct tokenizer *t);

/* What was read, BOS and EOS and whether transformers adds them, the chat template by name (chat.h), in one
 * line for people: "'m/tokenizer.json' ...". It says what a tokenizer.model beside a tokenizer.json
 * means. E_SYS. */
int tokenizer_note(const struct tokenizer *t, char *line, size_t size, struct err *e);
/* The chat template of the folder that t's file is in: chat_template() of chat.h. */
int tokenizer_template(const struct tokenizer *t, char **text, size_t *n, struct err *e);

/* Who makes the ids: our own code, as from tokenizer_open, or for a SentencePiece model
 * libsentencepiece, 50 to 200 times slower. The ids are the same. Before other threads use t. E_DATA
 * (another kind of file), E_SYS. */
enum tokenizer_maker { TOKENIZER_OWN, TOKENIZER_SENTENCEPIECE };
int tokenizer_use(struct tokenizer *t, enum tokenizer_maker maker, struct err *e);

int64_t tokenizer_vocab(const struct tokenizer *t);  /* ids are 0 .. vocab-1 */
int32_t tokenizer_bos(const struct tokenizer *t);    /* -1 when the model has none */
int32_t tokenizer_eos(const struct tokenizer *t);
/* Whether transformers' encode puts BOS before a text, EOS behind it: by the class that a
 * tokenizer_config.json names and, where that class asks, its add_bos_token and add_eos_token, else by
 * the template of the tokenizer.json; a SentencePiece model and Llama 3's ranks get BOS.
 * tokenizer_encode adds neither. */
bool tokenizer_adds_bos(const struct tokenizer *t);
bool tokenizer_adds_eos(const struct tokenizer *t);
/* FINGERPRINT_HEX chars and NUL: of a SentencePiece model XXH3-128 of the file, else its meaning. */
const char *tokenizer_fingerprint(const struct tokenizer *t);
const char *tokenizer_path(const struct tokenizer *t); /* of the file */
/* What kind of file it is: "SentencePiece model"; and what such a file is called in a model's folder. */
const char *tokenizer_form(const struct tokenizer *t);
const char *tokenizer_file(const struct tokenizer *t);

/*
 * What a tokenizer does, in FINGERPRINT_HEX chars and NUL: XXH3-128 of its pieces with their types
 * and the order in which they are made (unigram: the scores), its normaliser, how text is cut, and how
 * bytes and spaces are taken. Two files that make the same ids of every text have the same one. Not in
 * it: the names of special tokens, which a tokenizer.json finds in a text and other files do not.
 */
int tokenizer_meaning(const struct tokenizer *t, char out[FINGERPRINT_HEX + 1], struct err *e);
/* Whether data of this fingerprint was made with t, or with one that does the same: where it is
 * of t's file or meaning, or the file at path, which the data names, has it and means the same. */
bool tokenizer_made(const struct tokenizer *t, const char *fingerprint, const char *path);
/* The same of two sets of data. */
bool tokenizer_alike(const char *fingerprint, const char *path, const char *fingerprint2,
                     const char *path2);

/* ids of text, exactly as libsentencepiece's Encode gives them, or tokenizers' encode (0.23.3): no BOS,
 * no EOS. *ids is malloc'ed, the caller frees; *n may be 0. E_DATA (more than 1 GiB; a pattern that
 * backtracks too often), E_SYS. */
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t nbytes, int32_t **ids,
                     int64_t *n, struct err *e);
/* Text of ids, exactly as libsentencepiece's Decode gives it, or tokenizers' decode with special
 * tokens, malloc'ed with a NUL after the end. An id outside the vocabulary is E_DATA. */
int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, int64_t n, char **text,
                     size_t *nbytes, struct err *e);
/* The piece of one id as the file has it (with U+2581 for spaces); "" when out of range. */
const char *tokenizer_piece(const struct tokenizer *t, int32_t id);

/*
 * Text as ids come, for whoever prints while a model still writes: never half a character, and together
 * what tokenizer_decode gives. next appends what is certain, end what is left; a character whose bytes
 * do not come is U+FFFD. t must outlive it. E_DATA (id), and it is as it was; E_SYS.
 */
struct tokenizer_stream;
int tokenizer_stream_open(struct tokenizer_stream **s, const struct tokenizer *t, struct err *e);
int tokenizer_stream_next(struct tokenizer_stream *s, int32_t id, struct buf *out, struct err *e);
int tokenizer_stream_end(struct tokenizer_stream *s, struct buf *out, struct err *e);
void tokenizer_stream_close(struct tokenizer_stream *s);

C_END
#endif
