/* formats/tokenizer/spm.h - our own SentencePiece: model files, exact encoding and decoding, fast. */
#ifndef FORMATS_TOKENIZER_SPM_H
#define FORMATS_TOKENIZER_SPM_H
#include "base/bytes.h"
#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
C_BEGIN

/*
 * ids are those of libsentencepiece 0.1.97, whatever the bytes of the text: BPE, unigram, word
 * and char models, every normaliser field, user-defined symbols, unused pieces, byte fallback.
 * A loaded model is read-only and shared by any number of threads; each thread brings its own
 * struct spm_cache (about 33 MiB, and 26 bytes a byte of the longest text that cannot be cut).
 */
struct spm;
struct spm_cache;

/* A growable list of ids. Zero it before use; spm_ids_free releases it. */
struct spm_ids {
    int32_t *p;
    int64_t len, cap;
};
void spm_ids_free(struct spm_ids *v);

/* What the hardware may be asked for; all give the same ids. */
enum spm_level { SPM_PLAIN, SPM_AVX2, SPM_AVX512 };
enum spm_level spm_best_level(void); /* the highest this processor has */

/* A model from the bytes of its file (copied). E_DATA names the field that is wrong; a file is
 * refused within bounded time and memory. name is for messages. The caller frees. */
int spm_parse(struct spm **m, const void *bytes, size_t n, const char *name, struct err *e);
void spm_free(struct spm *m);

int64_t spm_vocab(const struct spm *m);
int32_t spm_bos(const struct spm *m); /* -1 when the model has none */
int32_t spm_eos(const struct spm *m);
int32_t spm_unk(const struct spm *m);
/* The piece of an id as the model stores it, with a NUL after its *n bytes (n may be NULL; a
 * piece may itself hold a NUL); "" when id is out of range. */
const char *spm_piece(const struct spm *m, int32_t id, size_t *n);

int spm_cache_open(struct spm_cache **c, struct err *e);
void spm_cache_close(struct spm_cache *c);
/* Uses no more than level (for tests and benchmarks); false when the processor lacks it. */
bool spm_cache_level(struct spm_cache *c, enum spm_level level);

#define SPM_MAX_TEXT_BYTES ((size_t)1 << 30)

/* Appends the ids of text: no BOS, no EOS. A cache may be used with one model after another,
 * by one thread at a time. E_DATA: longer than SPM_MAX_TEXT_BYTES, or a character that the
 * model maps to a control symbol; then, as after E_SYS, out->len is what it was. */
int spm_encode(const struct spm *m, struct spm_cache *c, const char *text, size_t n,
               struct spm_ids *out, struct err *e);
/* The same ids by the plain way: the whole text normalised, then merged at once, with no cut
 * and no cache of words. */
int spm_encode_whole(const struct spm *m, struct spm_cache *c, const char *text, size_t n,
                     struct spm_ids *out, struct err *e);

/* Appends the text of ids. E_DATA for an id outside the vocabulary; out is then as it was. */
int spm_decode(const struct spm *m, const int32_t *ids, int64_t n, struct buf *out,
               struct err *e);

C_END
#endif
