/* formats/tokenizer/spm_impl.h - what the files of spm.h share; no one else includes it. */
#ifndef FORMATS_TOKENIZER_SPM_IMPL_H
#define FORMATS_TOKENIZER_SPM_IMPL_H
#include "formats/tokenizer/spm.h"
#include "formats/tokenizer/spmodel.h"
#include <limits.h>
#include <string.h>

#define SPACE_MARK "\xE2\x96\x81"  /* U+2581, what stands for a space */
#define REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD, what stands for a byte that is not UTF-8 */

/* Bytes of the character that starts with b, by b alone: what libsentencepiece steps by. */
static inline size_t char_bytes(unsigned char b)
{
    return b < 0xC0 ? 1 : b < 0xE0 ? 2 : b < 0xF0 ? 3 : 4;
}
/* Bytes of the well-formed character at p, 0 when there is none. n > 0. */
size_t spm_utf8(const unsigned char *p, size_t n);

/* A trie in a double array: the child of node i by byte c is unit base ^ c, if that unit's
 * parent is i. Node 0 is the root; value -1 where no string ends. */
struct spm_unit {
    uint32_t base, parent;
    int32_t value;
};
struct spm_trie {
    struct spm_unit *units; /* NULL: holds nothing */
    size_t n;
};
struct spm_string {
    const char *p;
    uint32_t n;
    int32_t value;
};
/* Of strings sorted by bytes, none empty, none twice. E_DATA when it would be too large. */
int spm_trie_build(struct spm_trie *t, const struct spm_string *s, size_t n, struct err *e);
/* The child, or -1. */
static inline int64_t spm_trie_step(const struct spm_trie *t, int64_t node, unsigned char c)
{
    uint32_t to = t->units[node].base ^ c;

    return t->units[to].parent == (uint32_t)node ? (int64_t)to : -1;
}
/* The value of exactly this string, or -1. */
int32_t spm_trie_find(const struct spm_trie *t, const char *p, size_t n);
/* Bytes of the longest string that p starts with, 0 for none. */
size_t spm_trie_longest(const struct spm_trie *t, const char *p, size_t n);

struct spm_norm {
    bool dummy_prefix, strip_spaces, escape_spaces, suffix;
    uint32_t *trie; /* Darts-clone's units, checked by spmodel_read; NULL without a table */
    char *pool;
    bool starts[256]; /* a rule may start with this byte */
};

/* BPE: a symbol is the id of a piece, or of a character in some piece that is none itself
 * (ids from vocab on), or SYM_NONE: a character that no merge can touch. */
#define SYM_NONE 0xFFFFFFFFu
#define SYM_FROZEN 0x40000000u /* a user-defined symbol found in the text: never merged */
#define SYM_OTHER 0x7FFFFFFFu  /* SYM_NONE where symbols are looked up in pairs */
#define RANK_NONE INT32_MAX

struct spm_pair { /* left and right merge to id; the lowest rank goes first */
    uint32_t left, right, id;
    int32_t rank;
};
struct spm_bpe {
    uint32_t ascii[128]; /* symbol of each byte */
    uint32_t space, replacement;
    uint32_t n_extra, extra_cap;
    struct spm_string *extra; /* text of symbol vocab + i; value: its final id */
    struct spm_pair *pairs;   /* open addressing; left SYM_NONE: free */
    size_t n_pairs;
    int pair_shift;
    /* Where a file lists the merges: 8 bytes a pair, left | right << 21 | rank << 42 and what each
     * rank makes, in place of pairs; all ones: free. */
    uint64_t *listed;
    size_t n_listed;
    uint32_t *makes;
    /* The same in 8 bytes a pair, where symbols and ranks have 16 bits and text is local; it is
     * then used in place of both. left, right << 16, rank << 32, id << 48; all ones: free. */
    uint64_t *small;
    size_t n_small;
    uint64_t *maybe; /* one bit per hash of a pair in small: most that are none are known at once */
    uint32_t (*ascii_pair)[128]; /* with small, [x][y]: rank | id << 16, all ones: no pair */
    uint32_t *chars;          /* open addressing: indices of extra, UINT32_MAX free */
    int char_shift;
    uint64_t *next_to;        /* one bit per hash of two characters side by side in a piece */
    uint32_t (*split)[2];     /* how an unused piece came to be, where that is one way only */
    unsigned char *own_id;    /* 1: this piece's id is what it gives, as for nearly all */
    bool local;               /* text may be cut: no unused piece has two ways */
    bool raw;                 /* the fast way may read the text itself: no real normaliser */
    bool fast;                /* cut[] may be used */
    unsigned char (*cut)[256]; /* [y][x]: 1: text may be cut between bytes x and y */
    unsigned char ascii_cut[16][128]; /* the same for x, y < 128: bit x % 8 of [x / 8][y] */
};

struct spm {
    int64_t vocab;
    int type;
    bool byte_fallback;
    int32_t unk, bos, eos;
    int32_t byte_id[256];
    char *text; /* the pieces, each with a NUL after it */
    size_t text_len;
    struct spm_string *piece; /* value: the id that PieceToId gives for the text */
    size_t piece_cap;
    float *score;
    unsigned char *kind; /* enum spmodel_type */
    uint32_t *order;     /* ids by text; of two of one text, the reserved one first */
    char *unk_surface;          /* what decoding puts for unk */
    float min_score, max_score; /* unigram */
    struct spm_trie trie;       /* normal, user-defined and unused pieces */
    struct spm_trie user;       /* user-defined symbols */
    struct spm_norm norm, denorm;
    struct spm_bpe bpe;
    uint64_t serial; /* names this model in a cache: an address may come again */
};

#define WORD_BYTES 16
#define WORD_IDS 7
struct spm_word { /* ids of a fragment of text; 32 bytes: two share a cache line */
    uint64_t lo, hi;                 /* the text, zeros behind it */
    uint16_t ids[WORD_IDS];          /* or 4 of 24 bits, when the vocabulary needs them */
    uint8_t n_bytes, n_ids;          /* n_bytes 0: empty */
};

#define PHRASE_BYTES 64
#define PHRASE_IDS 31
struct spm_phrase { /* the same for a longer fragment; two cache lines */
    unsigned char text[PHRASE_BYTES];
    uint16_t ids[PHRASE_IDS]; /* or 15 of 32 bits */
    uint8_t n_bytes, n_ids;
};
/* narrow: every id of the vocabulary fits 16 bits. ids has room for PHRASE_IDS. */
static inline void phrase_ids(const struct spm_phrase *w, bool narrow, int32_t *ids)
{
    for (int i = 0; i < w->n_ids && narrow; i++)
        ids[i] = w->ids[i];
    if (!narrow)
        memcpy(ids, w->ids, w->n_ids * sizeof *ids);
}
/* Over whatever was in the slot, if there is room for the ids. */
static inline void phrase_keep(struct spm_phrase *w, bool narrow, const void *p, size_t n,
                               const struct spm_ids *ids)
{
    if (ids->len > (narrow ? PHRASE_IDS : PHRASE_IDS / 2))
        return;
    w->n_bytes = (uint8_t)n;
    w->n_ids = (uint8_t)ids->len;
    memcpy(w->text, p, n);
    for (int i = 0; i < w->n_ids && narrow; i++)
        w->ids[i] = (uint16_t)ids->p[i];
    if (!narrow)
        memcpy(w->ids, ids->p, w->n_ids * sizeof *ids->p);
}

/* What one thread works with. */
struct spm_cache {
    uint64_t serial; /* of the model that the words are of */
    enum spm_level level;
    void *map; /* words are in it, where a huge page may start */
    struct spm_word *words;
    struct spm_phrase *phrases;
    struct spm_ids spilled; /* ids of words that have more than a slot has room for */
    struct buf norm; /* text in normal form */
    uint32_t *sym, *pos, *to; /* one a symbol: what it is, where it starts, what it and the
                                 next merge to */
    int32_t *prev, *next;
    int32_t *rank; /* of the pair of it and the next; then 16-fold minima of these, and so on */
    size_t sym_cap;
    uint32_t (*split)[2]; /* of the model's symbols, where bpe.local does not hold */
    size_t split_cap;
    void *path; /* unigram: one node a byte */
    size_t path_cap; /* in bytes */
    struct spm_ids ids; /* of one fragment */
};

/* A model without a file: piece by piece, at most text_bytes of text with a NUL each; then its
 * tables. The pieces are not normalised: a space in the text is U+2581 in them. */
int spm_new(struct spm **m, size_t text_bytes, struct err *e);
int spm_add(struct spm *m, const char *text, size_t n, enum spmodel_type kind, struct err *e);
struct spm_merges;
int spm_build(struct spm *m, const struct spm_merges *list, struct err *e);

int spm_ids_reserve(struct spm_ids *v, int64_t extra, struct err *e);
int spm_norm_make(struct spm_norm *to, const struct spmodel_norm *from, bool suffix,
                  struct err *e);
void spm_norm_free(struct spm_norm *norm);
/* Appends text in normal form. user may be NULL. */
int spm_normalize(const struct spm_norm *norm, const struct spm_trie *user, const char *text,
                  size_t n, struct buf *out, struct err *e);

/* PieceToId: the reserved piece of this text, else the normal one, else unk. */
int32_t spm_find(const struct spm *m, const char *text, size_t n);
/* Appends id, or for unk what stands for text: its bytes or unk. No id before out->p[first]
 * belongs to this text. E_DATA for a control symbol. */
int spm_put(const struct spm *m, int32_t id, const char *text, size_t n, int64_t first,
            struct spm_ids *out, struct err *e);

/* Merges as a file lists them, the first first. */
struct spm_merge {
    uint32_t left, right, id;
};
struct spm_merges {
    struct spm_merge *v;
    size_t n;
};
/* list: NULL, and two symbols merge where a piece is made, by its score. */
int spm_bpe_make(struct spm *m, const struct spm_merges *list, struct err *e);
/* The pairs alone, for whoever makes the symbols himself. */
int spm_bpe_merges(struct spm *m, const struct spm_merges *list, struct err *e);
void spm_bpe_free(struct spm_bpe *b);
int spm_bpe_cuts(struct spm *m, struct err *e); /* bpe.cut and what belongs to it */
/* The symbol of one character, or SYM_NONE. */
uint32_t spm_bpe_char(const struct spm *m, const char *p, size_t n);
static inline uint64_t spm_mix(uint64_t a, uint64_t b)
{
    return ((a << 32 | a >> 32) ^ b) * 0x9E3779B97F4A7C15u;
}
static inline bool spm_bpe_next_to(const struct spm_bpe *b, uint32_t l, uint32_t r)
{
    uint64_t h = spm_mix(l, r) >> 44; /* 2^20 bits */

    return b->next_to[h >> 6] >> (h & 63) & 1;
}
#define NEXT_TO_WORDS ((size_t)1 << 14)
/* The rank of a pair, or RANK_NONE; *id is what it merges to. */
static inline int32_t spm_bpe_pair(const struct spm_bpe *b, uint32_t l, uint32_t r,
                                   uint32_t *id)
{
    size_t mask = ((size_t)1 << (64 - b->pair_shift)) - 1;

    for (size_t i = spm_mix(l, r) >> b->pair_shift;; i = (i + 1) & mask) {
        const struct spm_pair *p = &b->pairs[i];

        if (p->left == l && p->right == r) {
            *id = p->id;
            return p->rank;
        }
        if (p->left == SYM_NONE)
            return RANK_NONE;
    }
}
#define LISTED_SYMBOL 21
#define LISTED_KEY ((UINT64_C(1) << 2 * LISTED_SYMBOL) - 1)
static inline size_t spm_listed_slot(const struct spm_bpe *b, uint64_t key)
{
    uint64_t h = key * UINT64_C(0x9E3779B97F4A7C15);

    return (size_t)((h >> 32) * b->n_listed >> 32);
}
static inline int32_t spm_listed_pair(const struct spm_bpe *b, uint32_t l, uint32_t r, uint32_t *id)
{
    uint64_t key = l | (uint64_t)r << LISTED_SYMBOL;

    if ((l | r) >> LISTED_SYMBOL)
        return RANK_NONE;
    for (size_t i = spm_listed_slot(b, key);; i = i + 1 < b->n_listed ? i + 1 : 0) {
        uint64_t p = b->listed[i];

        if (p == UINT64_MAX)
            return RANK_NONE;
        if ((p & LISTED_KEY) == key) {
            *id = b->makes[p >> 2 * LISTED_SYMBOL];
            return (int32_t)(p >> 2 * LISTED_SYMBOL);
        }
    }
}
static inline uint64_t spm_small_hash(uint32_t key)
{
    return key * UINT64_C(0x9E3779B97F4A7C15);
}
static inline size_t spm_small_slot(const struct spm_bpe *b, uint64_t h)
{
    return (size_t)(((h ^ h >> 29) & UINT32_MAX) * b->n_small >> 32);
}
#define MAYBE_BITS 18 /* 32 KiB: they stay in the nearest cache, small does not */
static inline bool spm_small_maybe(const struct spm_bpe *b, uint64_t h)
{
    return b->maybe[h >> (64 - MAYBE_BITS + 6)] >> (h >> (64 - MAYBE_BITS) & 63) & 1;
}
static inline int32_t spm_small_pair(const struct spm_bpe *b, uint32_t l, uint32_t r,
                                     uint32_t *id)
{
    uint32_t key = l | r << 16;
    uint64_t h = spm_small_hash(key);

    if ((l | r) > UINT16_MAX || !spm_small_maybe(b, h))
        return RANK_NONE;
    for (size_t i = spm_small_slot(b, h);; i = i + 1 < b->n_small ? i + 1 : 0) {
        uint64_t p = b->small[i];

        if ((uint32_t)p == key && p != UINT64_MAX) {
            *id = (uint32_t)(p >> 48);
            return (int32_t)(p >> 32 & UINT16_MAX);
        }
        if (p == UINT64_MAX)
            return RANK_NONE;
    }
}

/* The same from whichever table there is. */
static inline int32_t spm_bpe_merge(const struct spm_bpe *b, uint32_t l, uint32_t r, uint32_t *id)
{
    return b->small ? spm_small_pair(b, l, r, id) : b->listed ? spm_listed_pair(b, l, r, id)
                                                              : spm_bpe_pair(b, l, r, id);
}
/* Slots of that table, and whether slot i holds a pair, and which. */
size_t spm_bpe_slots(const struct spm_bpe *b);
bool spm_bpe_slot(const struct spm_bpe *b, size_t i, struct spm_pair *p);

/* Merging, spm_bpe.c: room for n symbols in c (E_SYS; runs of over 2^20 wait for one another); then
 * c->sym[0 .. n-1] are put and each is looked up with its next, r; after spm_merge of n > 1 those
 * that remain are linked by c->next from 0 to n. spm_merge_done gives back what was much. */
int spm_merge_room(struct spm_cache *c, size_t n, struct err *e);
static inline void spm_merge_look(const struct spm *m, struct spm_cache *c, int32_t i, uint32_t r)
{
    uint32_t l = c->sym[i];

    if (m->bpe.small) {
        c->rank[i] = spm_small_pair(&m->bpe, l, r, &c->to[i]);
        return;
    }
    /* Unused pieces take part in merges, but are no ids: what they were made of is given
     * instead (resegment). Where that is not the same every time, it is noted here. */
    c->rank[i] = spm_bpe_merge(&m->bpe, l, r, &c->to[i]);
    if (!m->bpe.local && c->rank[i] != RANK_NONE && m->kind[c->to[i]] == PIECE_UNUSED) {
        c->split[c->to[i]][0] = l; /* the library keeps the way that was looked up last */
        c->split[c->to[i]][1] = r;
    }
}
void spm_merge(const struct spm *m, struct spm_cache *c, int32_t n);
void spm_merge_done(struct spm_cache *c);

struct spm_part { /* a stretch of text to be merged */
    const char *p;
    size_t n;
    bool raw;    /* spaces and broken bytes stand as they are; else in normal form */
    bool prefix; /* a space mark goes before it (raw only) */
    bool whole;  /* do not cut it */
};
int spm_bpe_encode(const struct spm *m, struct spm_cache *c, const struct spm_part *part,
                   int64_t first, struct spm_ids *out, struct err *e);
/* prefix: raw text has a space mark before it. */
int spm_bpe_fast(const struct spm *m, struct spm_cache *c, const char *text, size_t n, bool raw,
                 bool prefix, struct spm_ids *out, struct err *e);
int spm_unigram_encode(const struct spm *m, struct spm_cache *c, const char *text, size_t n,
                       struct spm_ids *out, struct err *e);

#endif
