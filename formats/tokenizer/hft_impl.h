/* formats/tokenizer/hft_impl.h - what the files of hft.h share; no one else includes it. */
#ifndef FORMATS_TOKENIZER_HFT_IMPL_H
#define FORMATS_TOKENIZER_HFT_IMPL_H
#include "base/jsonscan.h"
#include "formats/tokenizer/hft.h"
#include "formats/tokenizer/pattern.h"
#include "formats/tokenizer/spm_impl.h"
#include "formats/tokenizer/unicode.h"
#include "formats/tokenizer/words.h"

/* Texts by their bytes: open addressing, at most half full. Most are compared without a look at the text:
 * those of up to HFT_SHORT bytes stand in their slot, of others the tag, of the hash, is another. */
struct hft_slot {
    union {
        const char *p;
        uint64_t word; /* n <= HFT_SHORT: the bytes, zeros behind them */
    };
    uint16_t n, tag;
    int32_t value; /* -1: free */
};
#define HFT_SHORT 8
#define HFT_MAX_TEXT UINT16_MAX
struct hft_map {
    struct hft_slot *slot;
    size_t n, used;
};
int hft_map_make(struct hft_map *m, size_t texts, struct err *e);
/* Its value, or -1. */
int32_t hft_map_find(const struct hft_map *m, const char *p, size_t n);
/* p stays where it is; n <= HFT_MAX_TEXT; value >= 0. E_NO without a message: it is there already. E_DATA: made to
 * collide. */
int hft_map_add(struct hft_map *m, const char *p, size_t n, int32_t value, struct err *e);

struct hft_added { /* a token that is found in the text as it stands */
    const char *content; /* with a NUL behind it */
    uint32_t n;
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
};
/* Those that are looked for before normalising, or after it. */
struct hft_finder {
    struct spm_trie trie; /* values: places in hft.added */
    unsigned char *pair;  /* bit y % 8 of [x][y / 8]: some token begins with bytes x and y */
    bool one[256];        /* a token is this byte alone */
    int first;            /* the only byte that tokens begin with, or -1 */
};

enum hft_behaviour { ISOLATED, REMOVED, CONTIGUOUS, WITH_PREVIOUS, WITH_NEXT };
enum hft_kind {
    /* of a normaliser */
    NORM_FORM, NORM_PREPEND, NORM_REPLACE, NORM_STRIP,
    /* of a pre-tokenizer */
    CUT_PATTERN, CUT_DIGITS, CUT_BYTES, CUT_MARKS, CUT_PUNCTUATION, CUT_WORDS, CUT_SPACES
};
struct hft_step {
    enum hft_kind kind;
    enum unicode_form form;
    enum hft_behaviour behaviour;
    bool invert;              /* CUT_PATTERN */
    bool left, right;         /* NORM_STRIP */
    bool each;                /* CUT_DIGITS: each alone; CUT_MARKS: a cut before each */
    bool prefix;              /* CUT_BYTES: a space before */
    enum { NEVER, FIRST, ALWAYS } scheme; /* CUT_MARKS */
    char *text, *to;          /* NORM_PREPEND, NORM_REPLACE, CUT_PATTERN with a text, CUT_MARKS */
    size_t text_len, to_len;
    struct pattern *pattern;  /* or this, which regex says */
    char *regex;
    const struct words *words; /* or this */
};
#define HFT_MAX_STEPS 32

enum hft_way {
    WAY_STEPS,    /* step by step, as the file has it */
    WAY_WORDS,    /* bytes, and one well-known pattern */
    WAY_SENTENCES /* SentencePiece's: spaces are marks, the whole text is merged, with cuts */
};

struct hft {
    struct spm *v; /* tokens by their ids as the file writes them; the merges */
    struct hft_map map;
    bool bytes; /* the alphabet is 256 characters that stand for bytes */
    bool ignore_merges, byte_fallback, fuse_unk;
    int32_t unk, bos, eos;
    bool adds_bos, adds_eos; /* its template does */
    uint32_t base[256]; /* bytes: the symbol of each, or SYM_NONE */
    bool all_bytes;     /* none is SYM_NONE */
    struct hft_pair {   /* all_bytes: what two bytes merge to */
        int32_t rank;
        uint32_t id;
    } (*pair)[256];
    struct {
        char p[2], n;
    } alphabet[256];    /* the character of each byte */
    size_t longest;     /* bytes of the longest token of the model */
    double *score;      /* Unigram: of each token of the model; then these two as well */
    double unknown;     /* of a character that is no token */
    struct spm_trie tokens; /* by their texts: their ids */
    struct spm_string *raw; /* bytes: what each token stands for */
    char *raw_text;
    char *extra; /* text of added tokens that the model has not */
    struct hft_added *added;
    size_t n_added;
    struct hft_finder before, after;
    struct hft_step norm[HFT_MAX_STEPS], cut[HFT_MAX_STEPS];
    int n_norm, n_cut;
    enum hft_way way;
    bool sentences; /* the steps and the model are SentencePiece's, also where the way is another */
    const struct words *words; /* WAY_WORDS */
    bool nfc_only;             /* norm is NFC, which most texts are in */
    enum { PREFIX_NEVER, PREFIX_FIRST, PREFIX_UNLESS, PREFIX_ALWAYS } prefix; /* WAY_SENTENCES */
    struct {
        bool bytes;      /* ByteLevel */
        bool fallback, fuse;
        int strip;       /* spaces off the start of the whole */
        bool marks;      /* U+2581 is a space ... */
        bool first_mark; /* ... but of the first token it is nothing */
        bool join;       /* no decoder: spaces between tokens */
    } decode;
};

/* A value and where it lies in the file, for messages. */
struct hft_members;
struct hft_value {
    struct json_value v;
    const char *start; /* of the file */
    const char *path;
    const struct hft_members *members; /* of a large object: found once; else NULL */
};
#define HFT_MAX_MEMBERS 64
struct hft_members {
    struct json_value key[HFT_MAX_MEMBERS], v[HFT_MAX_MEMBERS];
    int n;
};
int hft_find_members(const struct hft_value *o, struct hft_members *m, struct err *e);
int hft_bad(const char *start, const char *at, struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

int hft_read_model(struct hft *t, const struct hft_value *model, const struct hft_value *added,
                   struct err *e);
int hft_read_steps(struct hft *t, const struct hft_value *normalizer,
                   const struct hft_value *pre_tokenizer, struct err *e);
int hft_read_decoder(struct hft *t, const struct hft_value *decoder, struct err *e);
int hft_read_template(struct hft *t, const struct hft_value *post, struct err *e);
int hft_read_added(struct hft *t, const struct hft_value *added, struct err *e);
/* Fields: 1 and the value, 0 where it is absent or null, E_DATA. */
int hft_field(const struct hft_value *o, const char *key, struct hft_value *v, struct err *e);
int hft_bool(const struct hft_value *o, const char *key, bool missing, bool *v, struct err *e);
/* malloc'ed, with a NUL behind it; NULL where it is absent. */
int hft_string(const struct hft_value *o, const char *key, char **text, size_t *n, struct err *e);

struct hft *hft_new(struct err *e);
/* What parsing ends with: *out is t, or, rc being an error, NULL; name goes before what was wrong. */
int hft_finish(struct hft **out, struct hft *t, int rc, const char *name, struct err *e);
int hft_add_merge(struct spm_merges *m, size_t *cap, struct spm_merge x, struct err *e);
int hft_make_raw(struct hft *t, struct err *e);
void hft_make_bytes(struct hft *t);
int hft_make_pairs(struct hft *t, struct err *e); /* once the merges are known */
int hft_make_finders(struct hft *t, struct err *e);
void hft_finder_free(struct hft_finder *f);
/* Of SPACE_MARK alone. */
bool hft_is_marks(const struct spm_string *s);
/* The byte that a character of the byte alphabet stands for, or -1. */
int hft_byte(uint32_t c);

int hft_normalize(const struct hft *t, const char *p, size_t n, struct buf *out, struct err *e);
/* A piece of text between two added tokens, normalised. at_start: it begins the text. */
struct hft_piece {
    const char *p;
    size_t n;
    bool at_start;
};
int hft_encode_steps(const struct hft *t, struct spm_cache *c, const struct hft_piece *piece,
                     struct spm_ids *out, struct err *e);
int hft_encode_words(const struct hft *t, struct spm_cache *c, const char *p, size_t n,
                     struct spm_ids *out, struct err *e);
/* One word, as remembered or merged. */
int hft_word(const struct hft *t, struct spm_cache *c, const char *p, size_t n,
             struct spm_ids *out, struct err *e);
/* The same by a Unigram model. E_DATA: a character that is no token, where the file has no unknown one. */
int hft_unigram(const struct hft *t, struct spm_cache *c, const char *p, size_t n,
                struct spm_ids *out, struct err *e);
/* Its tables: v has the model's tokens, the first n of which are its own. */
int hft_make_unigram(struct hft *t, size_t n, struct err *e);
int hft_merge(const struct hft *t, struct spm_cache *c, const char *p, size_t n,
              struct spm_ids *out, struct err *e);

#endif
