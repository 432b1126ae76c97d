/* eval/corpus.h - the tokens to score, in whichever form: data set, raw ids or text. */
#ifndef EVAL_CORPUS_H
#define EVAL_CORPUS_H
#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
C_BEGIN

/*
 * Forms. FORM_AUTO decides: a folder is shards; '-' is text; a name ending in .txt, .text or
 * .md is text, in .bin raw, in .shard a shard; a shard's magic is a shard; else what is valid
 * UTF-8 without NUL in its first 64 KiB is text, and the rest raw ids. Compressed files,
 * archives, JSON, token streams and whatever else base/magic.h knows are E_DATA with the command
 * that prepares them, from standard input too; so are raw ids that look like text, unless form is
 * FORM_RAW.
 * Text is one document: libsentencepiece's ids of the whole file, no BOS (add_bos: one before),
 * no EOS.
 */
enum corpus_form { FORM_AUTO, FORM_SHARDS, FORM_RAW, FORM_TEXT };

struct corpus_options {
    const char *path;      /* "-": text on standard input */
    enum corpus_form form;
    const char *split;     /* NULL: "validation" where the manifest has one, else "train" */
    const char *tokenizer; /* for text, and whose fingerprint the data must have; NULL:
                              nothing to compare with, and text is E_CONFIG */
    const char *model;     /* its folder, for the tokenizer where none is given; or NULL */
    int64_t vocab;         /* the model's: the data's may not be larger (E_CONFIG) */
    int64_t max_tokens;    /* only so many from the start; 0: all */
    bool add_bos;
    bool all_tokens;       /* as if the data had no loss masks */
    bool force;            /* warn of another tokenizer's fingerprint, do not refuse it */
};

struct corpus_doc {
    int64_t start, n;      /* its tokens among those in use (max_tokens may cut the last) */
    int64_t whole;         /* tokens of the uncut document */
    int64_t bytes, words;  /* of the whole document's text; 0 unknown */
    int64_t bos, eos;      /* 1: its first, its last token has none of that text */
};

struct corpus;
/* E_NOINPUT, E_DATA, E_CONFIG (vocabulary, tokenizer, split), E_SYS. */
int corpus_open(struct corpus **c, const struct corpus_options *o, struct err *e);
void corpus_close(struct corpus *c);
const char *corpus_form(const struct corpus *c);  /* "shards", "shard", "raw u16", "text" */
const char *corpus_split(const struct corpus *c); /* "" where there are none */
/* A warning for people about what was let pass (force), or "". */
const char *corpus_warning(const struct corpus *c);
int64_t corpus_tokens(const struct corpus *c);
int64_t corpus_docs(const struct corpus *c);
int64_t corpus_masked(const struct corpus *c);    /* tokens of the data with a mask */
bool corpus_masks(const struct corpus *c);        /* it has some, and they count */
uint64_t corpus_hash(const struct corpus *c);     /* names the content; of all tokens */
int corpus_doc(struct corpus *c, int64_t i, struct corpus_doc *d, struct err *e);
int64_t corpus_doc_at(const struct corpus *c, int64_t token); /* the document it belongs to */
/* Tokens [start, start + n), all below options.vocab (E_DATA). mask (may be NULL) [n]: 1 where the
 * token is not to be scored. */
int corpus_read(struct corpus *c, int64_t start, int64_t n, int32_t *ids, uint8_t *mask,
                struct err *e);

/* Pure: the form that FORM_AUTO takes for a file of this name that begins with these bytes, or
 * E_DATA with the remedy. */
int corpus_sniff(const char *name, const void *head, size_t nbytes, struct err *e);

C_END
#endif
