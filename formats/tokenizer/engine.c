/* formats/tokenizer/engine.c - the kinds of tokenizers: one entry each. */
#include "formats/tokenizer/engine.h"

#include "base/magic.h"
#include "formats/tokenizer/hft.h"
#include "formats/tokenizer/spmodel.h"

#include <string.h>

static int parse_spm(void **self, const void *bytes, size_t n, const char *name, struct err *e)
{
    struct spm *m;
    int rc = spm_parse(&m, bytes, n, name, e);

    *self = m;
    return rc;
}
static void free_spm(void *self) { spm_free(self); }
static int64_t vocab_spm(const void *self) { return spm_vocab(self); }
static int32_t bos_spm(const void *self) { return spm_bos(self); }
static int32_t eos_spm(const void *self) { return spm_eos(self); }
static const char *piece_spm(const void *self, int32_t id) { return spm_piece(self, id, NULL); }
static int encode_spm(const void *self, struct spm_cache *c, const char *text, size_t n,
                      struct spm_ids *out, struct err *e)
{
    return spm_encode(self, c, text, n, out, e);
}
static int decode_spm(const void *self, const int32_t *ids, int64_t n, struct buf *out,
                      struct err *e)
{
    return spm_decode(self, ids, n, out, e);
}
static int meaning_spm(const void *self, const void *bytes, size_t n, char first[33],
                       char second[33], struct err *e)
{
    int rc = spmodel_meaning(bytes, n, first, e);

    return rc < 0 ? rc : hft_meaning_spm(self, second, e);
}

/* As LlamaTokenizer does where no configuration says otherwise. */
static void adds_spm(const void *self, bool *bos, bool *eos)
{
    *bos = bos_spm(self) >= 0;
    *eos = false;
}

static int parse_hft(void **self, const void *bytes, size_t n, const char *name, struct err *e)
{
    struct hft *t;
    int rc = hft_parse(&t, bytes, n, name, e);

    *self = t;
    return rc;
}
static int parse_ranks(void **self, const void *bytes, size_t n, const char *name, struct err *e)
{
    struct hft *t;
    int rc = hft_parse_ranks(&t, bytes, n, name, e);

    *self = t;
    return rc;
}
static void free_hft(void *self) { hft_free(self); }
static int64_t vocab_hft(const void *self) { return hft_vocab(self); }
static int32_t bos_hft(const void *self) { return hft_bos(self); }
static int32_t eos_hft(const void *self) { return hft_eos(self); }
static const char *piece_hft(const void *self, int32_t id) { return hft_piece(self, id); }
static int32_t find_hft(const void *self, const char *text, size_t n)
{
    return hft_find(self, text, n);
}
static void set_hft(void *self, int32_t bos, int32_t eos) { hft_set_marks(self, bos, eos); }
static void adds_hft(const void *self, bool *bos, bool *eos) { hft_adds(self, bos, eos); }
static int encode_hft(const void *self, struct spm_cache *c, const char *text, size_t n,
                      struct spm_ids *out, struct err *e)
{
    return hft_encode(self, c, text, n, out, e);
}
static int decode_hft(const void *self, const int32_t *ids, int64_t n, struct buf *out,
                      struct err *e)
{
    return hft_decode(self, ids, n, out, e);
}
static int meaning_hft(const void *self, const void *bytes, size_t n, char first[33],
                       char second[33], struct err *e)
{
    (void)bytes;
    (void)n;
    *second = '\0';
    return hft_meaning(self, first, e);
}

static const struct tokenizer_engine sentencepiece = {
    "SentencePiece model", "tokenizer.model", false, parse_spm, free_spm, vocab_spm, bos_spm, eos_spm, piece_spm,
    NULL, NULL, adds_spm, encode_spm, decode_spm, meaning_spm
};
static const struct tokenizer_engine tokenizer_json = {
    "tokenizer.json", "tokenizer.json", true, parse_hft, free_hft, vocab_hft, bos_hft, eos_hft, piece_hft,
    find_hft, set_hft, adds_hft, encode_hft, decode_hft, meaning_hft
};
static const struct tokenizer_engine rank_file = {
    "rank file of tiktoken", "tokenizer.model", true, parse_ranks, free_hft, vocab_hft, bos_hft, eos_hft, piece_hft,
    NULL, NULL, adds_hft, encode_hft, decode_hft, meaning_hft
};

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), k = strlen(end);

    return n >= k && strcmp(s + n - k, end) == 0;
}

const struct tokenizer_engine *engine_of(const void *bytes, size_t n, const char *name)
{
    const struct magic_form *m = magic_of(bytes, n, true);
    const char *p = bytes;

    if (m && m->form == MAGIC_TIKTOKEN)
        return &rank_file;
    if ((m && m->form == MAGIC_TOKENIZER_JSON) || (n > 0 && *p == '{') ||
        (!m && ends_with(name, ".json")))
        return &tokenizer_json;
    return !m && ends_with(name, ".tiktoken") ? &rank_file : &sentencepiece;
}
