/* formats/tokenizer/gguf_vocab.h - the tokenizer of a GGUF model, as the file that it was made from. */
#ifndef FORMATS_TOKENIZER_GGUF_VOCAB_H
#define FORMATS_TOKENIZER_GGUF_VOCAB_H
#include "base/gguf.h"
C_BEGIN

/* A SentencePiece model (tokenizer.ggml.model "llama") or a tokenizer.json ("gpt2" with a
 * tokenizer.ggml.pre of the table) of the same tokens: what the model was
 * trained with, as far as the keys say it. */
struct gguf_vocab {
    struct buf bytes;    /* the caller frees */
    const char *file;    /* what it is called in a model's folder: "tokenizer.json" */
    int32_t bos, eos;    /* -1: none */
    bool add_bos;        /* llama.cpp puts BOS before a text */
};
/* E_DATA naming the key, E_CONFIG (a kind or a pre-tokenizer that is not known), E_SYS. */
int gguf_vocab_read(struct gguf_vocab *v, const struct gguf *g, struct err *e);

/* The pre-tokenizers of the table, for who writes such files. */
struct gguf_pre {
    const char *name;      /* tokenizer.ggml.pre */
    const char *words;     /* of words.h, "" for GPT-2's */
    bool digits;           /* each digit is cut off first */
    bool whole;            /* a word that is a token is not put together from parts */
    const char *normalizer; /* JSON */
};
extern const struct gguf_pre gguf_pres[];
extern const int gguf_n_pres;

C_END
#endif
