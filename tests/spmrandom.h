/* tests/spmrandom.h - small SentencePiece models made at random, with every field there is. */
#ifndef TESTS_SPMRANDOM_H
#define TESTS_SPMRANDOM_H
#include "tests/spmtest.h"

#define N_OF(a) (sizeof(a) / sizeof *(a))

/* Letters that the pieces and texts of a random model are made of. */
static const char *const letters[] = { "a", "b", "c", "\xE2\x96\x81", " ", "d", "\xC3\xA9",
                                       "\xE4\xBD\xA0", "\xEF\xBF\xBD", "\xE2", "<",
                                       "\xF0\x9F\x98\x80" };

static inline uint32_t pick(uint64_t *seed, uint32_t n) { return next_random(seed) % n; }

static inline void put_varint(struct buf *b, uint64_t v)
{
    struct err e = { 0 };
    unsigned char c[10];
    size_t n = 0;

    do
        c[n++] = (unsigned char)((v & 127) | (v > 127 ? 128 : 0));
    while (v >>= 7);
    if (buf_add(b, c, n, &e) < 0)
        abort();
}
static inline void put_number(struct buf *b, unsigned field, uint64_t v)
{
    put_varint(b, field << 3);
    put_varint(b, v);
}
static inline void put_bytes(struct buf *b, unsigned field, const void *p, size_t n)
{
    struct err e = { 0 };

    put_varint(b, field << 3 | 2);
    put_varint(b, n);
    if (buf_add(b, p, n, &e) < 0)
        abort();
}

static inline void put_piece(struct buf *b, const char *text, size_t n, float score, int type)
{
    struct buf inner = { 0 };
    struct err e = { 0 };

    put_bytes(&inner, 1, text, n);
    put_varint(&inner, 2 << 3 | 5);
    if (buf_add(&inner, &score, 4, &e) < 0)
        abort();
    if (type != 1)
        put_number(&inner, 3, (uint64_t)type);
    put_bytes(b, 1, inner.p, inner.len);
    buf_free(&inner);
}

/* 1 to most letters; how many bytes. */
static inline size_t some_letters(uint64_t *seed, char *to, uint32_t most)
{
    uint32_t kinds = pick(seed, 3) ? 4 : (uint32_t)N_OF(letters);
    size_t n = 0;

    for (uint32_t k = 1 + pick(seed, most); k > 0; k--) {
        const char *s = letters[pick(seed, kinds)];

        memcpy(to + n, s, strlen(s));
        n += strlen(s);
    }
    return n;
}

/* A character table of a few rules, as Darts-clone lays it out: unit 0 is the root, and the
 * children of the k-th node that has any stand in the k-th block of 256 units after it. */
static inline void put_charsmap(struct buf *b, uint64_t *seed)
{
    enum { RULES = 6, BLOCKS = 12 };
    static const char *const results[] = { "", " ", "a", "ab", "  ", "\xE4\xBD\xA0", " b ",
                                           "\xE2\x96\x81", "c c" };
    static uint32_t unit[BLOCKS * 256];
    struct buf map = { 0 };
    uint32_t block = 1, pool = 0, starts[N_OF(results)];
    struct err e = { 0 };

    for (size_t i = 0; i < N_OF(results); i++) {
        starts[i] = pool;
        pool += (uint32_t)strlen(results[i]) + 1;
    }
    for (uint32_t i = 0; i < BLOCKS * 256; i++)
        unit[i] = 0x80000000u;
    unit[0] = 256 << 10;
    for (int rule = 0; rule < RULES; rule++) {
        char text[16];
        size_t n = some_letters(seed, text, 2);
        uint32_t at = 0;

        for (size_t i = 0; i < n && block + 1 < BLOCKS; i++) {
            unsigned char c = (unsigned char)text[i];
            uint32_t to = (at ^ unit[at] >> 10) ^ c;

            if (unit[to] == 0x80000000u) {
                block++;
                unit[to] = ((block * 256) ^ to) << 10 | c;
            }
            at = to;
        }
        if (at) {
            unit[(at ^ unit[at] >> 10)] = 0x80000000u | starts[pick(seed, N_OF(results))];
            unit[at] |= 256;
        }
    }
    put_le(&pool, BLOCKS * 1024, 4);
    if (buf_add(&map, &pool, 4, &e) < 0 || buf_add(&map, unit, sizeof unit, &e) < 0)
        abort();
    for (size_t i = 0; i < N_OF(results); i++)
        if (buf_add(&map, results[i], strlen(results[i]) + 1, &e) < 0)
            abort();
    put_bytes(b, 2, map.p, map.len);
    buf_free(&map);
}

static inline void put_specs(struct buf *b, uint64_t *seed, int type, bool byte_fallback)
{
    struct buf spec = { 0 };

    put_number(&spec, 3, (uint64_t)type);
    if (pick(seed, 4) == 0)
        put_number(&spec, 24, 1); /* space is suffix */
    if (byte_fallback)
        put_number(&spec, 35, 1);
    if (pick(seed, 4) == 0)
        put_bytes(&spec, 44, "??", 2); /* unk_surface */
    put_bytes(b, 2, spec.p, spec.len);
    for (unsigned field = 3; field <= 5; field += 2) { /* normaliser, denormaliser */
        spec.len = 0;
        if (field == 5 && pick(seed, 4))
            continue;
        if (pick(seed, 3) == 0)
            put_charsmap(&spec, seed);
        if (field == 3 && pick(seed, 3))
            put_number(&spec, 4, 0); /* spaces are kept: what the fast way needs */
        for (unsigned k = 3; k <= 5; k++)
            if (pick(seed, 4) == 0)
                put_number(&spec, k, pick(seed, 2));
        put_bytes(b, field, spec.p, spec.len);
    }
    buf_free(&spec);
}

/* The bytes of a model file into b, which may be one that is to be refused (a piece twice). */
static inline void make_random_model(struct buf *b, uint64_t *seed)
{
    bool byte_fallback = pick(seed, 2);
    uint32_t kind = pick(seed, 20), n = 3 + pick(seed, 60);
    int type = kind < 11 ? 2 : kind < 18 ? 1 : kind < 19 ? 3 : 4;
    bool rare = pick(seed, 3) == 0; /* user-defined and unused pieces are */
    char text[64];

    b->len = 0;
    put_piece(b, "<unk>", 5, 0, 2);
    put_piece(b, "<s>", 3, 0, 3);
    if (pick(seed, 20) == 0)
        put_piece(b, letters[pick(seed, N_OF(letters))], 1, 0, 3);
    for (unsigned c = 0; c < 256 && byte_fallback; c++) {
        snprintf(text, sizeof text, "<0x%02X>", c);
        put_piece(b, text, 6, 0, 6);
    }
    if (pick(seed, 4))
        for (size_t i = 0; i < 6; i++)
            put_piece(b, letters[i], strlen(letters[i]), -(float)pick(seed, 30), 1);
    for (; n > 0; n--) {
        size_t k = some_letters(seed, text + 2, 1 + pick(seed, 6));
        uint32_t t = pick(seed, 20);
        float score = pick(seed, 2) ? -(float)pick(seed, 8)
                                    : -(float)pick(seed, 1000000) * 0x1p-15f;

        text[0] = 1 << 3 | 2; /* as put_piece has written it, if it was there already */
        text[1] = (char)k;
        text[k + 2] = 2 << 3 | 5;
        if (memmem(b->p, b->len, text, k + 3) && pick(seed, 500))
            continue;
        put_piece(b, text + 2, k, score, rare || t > 4 ? 1 : t > 2 ? 4 : 5);
    }
    put_specs(b, seed, type, byte_fallback);
}

static inline size_t random_text(uint64_t *seed, char *to, uint32_t most)
{
    return pick(seed, 10) ? some_letters(seed, to, 1 + pick(seed, most)) : pick(seed, 2);
}
#endif
