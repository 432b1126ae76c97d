/* formats/tokenizer/word_cache.h - a thread's table of words and their ids, as its two users read it:
 * spm_fast.c and hft_words.c. */
#ifndef FORMATS_TOKENIZER_WORD_CACHE_H
#define FORMATS_TOKENIZER_WORD_CACHE_H
#include "formats/tokenizer/spm_impl.h"
#include <string.h>

#define WORD_BITS 20   /* slots of the table: 32 MiB; with half of them, 6 % slower on books */
#define PHRASE_BITS 13 /* 1 MiB */
#define MAX_SPILLED ((int64_t)1 << 20) /* 4 MiB */
#define IS_SPILLED 0xFF /* n_ids: the ids are in c->spilled, from ids[0] | ids[1] << 16 on, ids[2] of them */
#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Another model was used with this cache before: none of its words count. */
static inline void word_cache_take(struct spm_cache *c, uint64_t serial)
{
    if (c->serial == serial)
        return;
    memset(c->words, 0, sizeof *c->words << WORD_BITS);
    memset(c->phrases, 0, sizeof *c->phrases << PHRASE_BITS);
    c->spilled.len = 0;
    c->serial = serial;
}

/* Reads the n <= 16 bytes at p as two numbers; 16 bytes are there. */
ALWAYS_INLINE void load_key(const unsigned char *p, size_t n, uint64_t *lo, uint64_t *hi)
{
    static const uint64_t mask[9] = { 0, 0xFF, 0xFFFF, 0xFFFFFF, 0xFFFFFFFF, 0xFFFFFFFFFF,
                                      0xFFFFFFFFFFFF, 0xFFFFFFFFFFFFFF, UINT64_MAX };

    memcpy(lo, p, 8);
    memcpy(hi, p + 8, 8);
    *lo &= mask[n < 8 ? n : 8]; /* n = 3: the low 3 bytes stay */
    *hi &= mask[n < 8 ? 0 : n - 8];
}

/* A hash of the key: a product of 128 bits, its halves folded, mixes every byte into the
 * slot. slot ^ 1 is a word's second place; both are in one cache line. */
ALWAYS_INLINE uint32_t slot_of(uint64_t lo, uint64_t hi)
{
    unsigned __int128 r = (unsigned __int128)(lo ^ 0x9E3779B97F4A7C15u) *
                          (hi ^ 0xD6E8FEB86659FD93u);

    return (uint32_t)((uint64_t)r ^ (uint64_t)(r >> 64)) & ((1u << WORD_BITS) - 1);
}

/* Without branches: all three are compared. n_bytes tells "a" from "a" with a NUL behind
 * it. */
ALWAYS_INLINE bool is_word(const struct spm_word *w, uint64_t lo, uint64_t hi, size_t n)
{
    return ((w->lo ^ lo) | (w->hi ^ hi) | (w->n_bytes ^ n)) == 0;
}

/* Puts the ids into the word, if they are few enough: of 24 bits, as there are at most 2^22 pieces. */
static inline bool fill_word(struct spm_word *w, const int32_t *ids, int64_t n, bool narrow)
{
    if (n > (narrow ? WORD_IDS : 4))
        return false;
    w->n_ids = (uint8_t)n;
    for (int64_t i = 0; i < n; i++)
        if (narrow)
            w->ids[i] = (uint16_t)ids[i];
        else
            put_le((char *)w->ids + 3 * i, (uint64_t)ids[i], 3);
    return true;
}

/* Writes a known word's ids to where there is room for 8; where the next ones go. */
ALWAYS_INLINE int32_t *put_word(int32_t *to, const struct spm_word *w, bool narrow)
{
    if (narrow) {
        uint16_t ids[8];

        /* Reads 16 bytes from ids on, the 14 of the ids and the two counts: within the
         * struct. The caller has space for 8, and the return value says how many count. */
        memcpy(ids, (const char *)w + offsetof(struct spm_word, ids), sizeof ids);
        for (int i = 0; i < 8; i++) /* the eighth is none, but eight at once are fast */
            to[i] = ids[i];
    } else {
        const char *p = (const char *)w + offsetof(struct spm_word, ids);

        for (int i = 0; i < 4; i++) { /* each reads a byte of the next, which the mask takes off */
            memcpy(&to[i], p + 3 * i, 4);
            to[i] &= 0xFFFFFF;
        }
    }
    return to + w->n_ids;
}

static inline uint64_t mix_16(uint64_t h, const unsigned char *p)
{
    uint64_t lo, hi;
    unsigned __int128 r;

    memcpy(&lo, p, 8);
    memcpy(&hi, p + 8, 8);
    r = (unsigned __int128)(lo ^ h) * (hi ^ 0xD6E8FEB86659FD93u);
    return (uint64_t)r ^ (uint64_t)(r >> 64);
}

/* Where a phrase of n > 16 bytes is, if it is there. */
static inline struct spm_phrase *phrase_slot(struct spm_cache *c, const unsigned char *p, size_t n)
{
    uint64_t h = n * 0x9E3779B97F4A7C15u;

    /* Whole steps of 16 bytes, then the last 16, which may overlap them. */
    for (size_t i = 0; i + 16 < n; i += 16)
        h = mix_16(h, p + i);
    return &c->phrases[mix_16(h, p + n - 16) & ((1u << PHRASE_BITS) - 1)];
}

#endif
