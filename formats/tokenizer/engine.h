/* formats/tokenizer/engine.h - what tokenizer.c asks of each kind of tokenizer. */
#ifndef FORMATS_TOKENIZER_ENGINE_H
#define FORMATS_TOKENIZER_ENGINE_H
#include "base/bytes.h"
#include "base/err.h"
#include "formats/tokenizer/spm.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
C_BEGIN

/* One kind: self is what parse made, read-only from then on. The cache is the thread's, and is used
 * with one tokenizer after another. */
struct tokenizer_engine {
    const char *form; /* "SentencePiece model" */
    const char *file; /* what it is called in a model's folder */
    bool by_meaning;  /* its fingerprint is its meaning, not the file's bytes */
    int (*parse)(void **self, const void *bytes, size_t n, const char *name, struct err *e);
    void (*free)(void *self);
    int64_t (*vocab)(const void *self);
    int32_t (*bos)(const void *self);
    int32_t (*eos)(const void *self);
    const char *(*piece)(const void *self, int32_t id);
    /* The id of a token's text, -1 for none; and the ids that a file beside it names. NULL where the
     * file itself has the last word. */
    int32_t (*find)(const void *self, const char *text, size_t n);
    void (*set)(void *self, int32_t bos, int32_t eos);
    /* Whether its file puts BOS before a text, EOS behind it. */
    void (*adds)(const void *self, bool *bos, bool *eos);
    int (*encode)(const void *self, struct spm_cache *c, const char *text, size_t n,
                  struct spm_ids *out, struct err *e);
    int (*decode)(const void *self, const int32_t *ids, int64_t n, struct buf *out, struct err *e);
    /* Hashes of what it does, 32 hex digits each: the second "" where other kinds have no such. */
    int (*meaning)(const void *self, const void *bytes, size_t n, char first[33], char second[33],
                   struct err *e);
};

/* The kind of a file by its first bytes, and where those do not tell, by its name. */
const struct tokenizer_engine *engine_of(const void *bytes, size_t n, const char *name);

#define TOKENIZER_CONFIG_FILE "tokenizer_config.json"
#define TOKENIZER_CONFIG_MAX_BYTES ((size_t)16 << 20) /* some list every added token */

C_END
#endif
