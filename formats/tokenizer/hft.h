/* formats/tokenizer/hft.h - tokenizer.json of Hugging Face's tokenizers, and rank files of tiktoken. */
#ifndef FORMATS_TOKENIZER_HFT_H
#define FORMATS_TOKENIZER_HFT_H
#include "base/bytes.h"
#include "base/err.h"
#include "formats/tokenizer/spm.h"
#include "formats/tokenizer/spmodel.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
C_BEGIN

/*
 * ids are those of tokenizers 0.23.3 with add_special_tokens=False, but that each byte which is not
 * UTF-8 becomes U+FFFD. BPE and Unigram models; what else a file asks for is refused by name. A loaded one is
 * read-only and shared by any number of threads, each with its own struct spm_cache.
 */
struct hft;

#define HFT_MAX_BYTES ((size_t)64 << 20) /* the largest in use have 35 MB */

/* E_DATA names the field and its offset. name is for messages. The caller frees. */
int hft_parse(struct hft **t, const void *bytes, size_t n, const char *name, struct err *e);
/* Lines of base64 and a rank. Which pattern cuts the text such a file does not say: it is known by
 * the number of ranks, else refused; and with Qwen's its text is made NFC, as by Qwen's own program. No text
 * makes a special token. */
int hft_parse_ranks(struct hft **t, const void *bytes, size_t n, const char *name, struct err *e);
void hft_free(struct hft *t);

int64_t hft_vocab(const struct hft *t);
int32_t hft_bos(const struct hft *t);
int32_t hft_eos(const struct hft *t);
/* The id of a token by its text as the file writes it, -1 for none. */
int32_t hft_find(const struct hft *t, const char *text, size_t n);
/* What a file beside it says; -1 for none. */
void hft_set_marks(struct hft *t, int32_t bos, int32_t eos);
/* Whether its template puts BOS before a text, EOS behind it. */
void hft_adds(const struct hft *t, bool *bos, bool *eos);
/* As the file writes it; "" when out of range. */
const char *hft_piece(const struct hft *t, int32_t id);

int hft_encode(const struct hft *t, struct spm_cache *c, const char *text, size_t n,
               struct spm_ids *out, struct err *e);
/* With the special tokens' text. E_DATA for an id outside the vocabulary. */
int hft_decode(const struct hft *t, const int32_t *ids, int64_t n, struct buf *out, struct err *e);

/* XXH3-128 of what it does, 32 hex digits and NUL. hft_meaning_spm: the same of a SentencePiece
 * model, so that it can be compared with the tokenizer.json made of it; "" where there is none. */
int hft_meaning(const struct hft *t, char hex[33], struct err *e);
int hft_meaning_spm(const struct spm *m, char hex[33], struct err *e);

/* Whether a space is put before a text, perhaps unless it begins with one. */
enum hft_prefix { HFT_PREFIX_NEVER, HFT_PREFIX_UNLESS, HFT_PREFIX_ALWAYS };
/* The pieces of a SentencePiece model of type BPE that makes the same ids, in the order of the ids. The scores are 0, -1, ... in the order in which the merges make pieces, as in a model that
 * such a file was made of; tokens that no merge makes follow. Those of added_tokens have the type of a piece of the
 * model, or of a control symbol behind it. E_CONFIG: no such model does the same. */
int hft_pieces(const struct hft *t, enum hft_prefix *prefix, spmodel_piece_fn *fn, void *ctx, struct err *e);

C_END
#endif
