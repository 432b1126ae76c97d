/* formats/tokenizer/words_wide.c - where words begin, in 64 bytes at once, with AVX2.
 *
 * Bytes become bits: letters 1 where a letter is, and so on, the first byte the lowest bit. A character
 * begins a word by what it and its neighbours are, so that shifts and ands tell of all 64 at once:
 *
 *     text     I   s a i d ,   " N o ! "
 *     letter   1 . 1 1 1 1 . . . 1 1 . .
 *     begins   1 1 . . . . 1 1 . 1 . 1 .     by GPT-2's pattern
 *
 * A block begins where a word does, so nothing before it counts. What is not known from its bytes alone
 * is left to the next block, which begins at the last word found, or to words.c where that would be this
 * block again. Characters beyond ASCII are looked up one by one; at one that this way has no rules for
 * (white space, numbers, letters of no case) what is known ends. */
#include "formats/tokenizer/words.h"
#include "formats/tokenizer/words_impl.h"

#include <string.h>

#define BLOCK 64
#define CHAR_MAX 4

#ifdef __x86_64__
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2,bmi,bmi2,lzcnt,popcnt")))
#define INLINE AVX2 static inline __attribute__((always_inline))

struct block {
    uint64_t letter, number, other, space; /* one of these, of each known byte */
    uint64_t blank, line_end;              /* ' ', and \r and \n, which are space too */
    uint64_t quote, slash;                 /* ' and /, which are other too */
    uint64_t upper, lower;                 /* of letters */
    uint64_t far, inside;                  /* bytes beyond ASCII; of these, all but a character's first */
    unsigned known;                        /* bytes whose kind is known; 0 behind them */
};

INLINE uint64_t bits(__m256i a, __m256i b)
{
    return (uint32_t)_mm256_movemask_epi8(a) | (uint64_t)(uint32_t)_mm256_movemask_epi8(b) << 32;
}
INLINE uint64_t equal(__m256i a, __m256i b, char c)
{
    __m256i x = _mm256_set1_epi8(c);

    return bits(_mm256_cmpeq_epi8(a, x), _mm256_cmpeq_epi8(b, x));
}
/* From c to d; bytes beyond ASCII are negative, and so below all c. */
INLINE uint64_t between(__m256i a, __m256i b, char c, char d)
{
    __m256i x = _mm256_set1_epi8((char)(c - 1)), y = _mm256_set1_epi8((char)(d + 1));

    return bits(_mm256_and_si256(_mm256_cmpgt_epi8(a, x), _mm256_cmpgt_epi8(y, a)),
                _mm256_and_si256(_mm256_cmpgt_epi8(b, x), _mm256_cmpgt_epi8(y, b)));
}

/* The bits below i, i <= 64. */
INLINE uint64_t below(unsigned i) { return i < 64 ? (UINT64_C(1) << i) - 1 : UINT64_MAX; }

/* Adds the characters beyond ASCII that there are rules for. */
INLINE void add_far(const struct rules *r, struct block *b, const char *p)
{
    for (uint64_t left = b->far; left;) {
        unsigned at = (unsigned)__builtin_ctzll(left), kind;
        size_t used;
        uint64_t bytes;

        kind = words_far_kind(p + at, &used);
        if (kind & (SPACE | NUMBER | NUMERIC) || (r->cases && kind & UPPER && kind & LOWER) ||
            (b->quote && p[at] == '\xC5' && p[at + 1] == '\xBF')) { /* U+017F: a contraction's s */
            b->known = at;
            break;
        }
        bytes = below((unsigned)used) << at;
        left &= ~bytes;
        b->inside |= bytes & bytes << 1;
        if (kind & LETTER)
            b->letter |= bytes;
        if (kind & UPPER)
            b->upper |= bytes;
        if (kind & LOWER)
            b->lower |= bytes;
    }
}

/* p has CHAR_MAX bytes beyond the block. */
INLINE struct block read_block(const struct rules *r, const char *p)
{
    __m256i lo = _mm256_loadu_si256((const __m256i *)(const void *)p);
    __m256i hi = _mm256_loadu_si256((const __m256i *)(const void *)(p + 32));
    __m256i small = _mm256_set1_epi8(32);
    struct block b = { .known = BLOCK, .far = bits(lo, hi), .quote = equal(lo, hi, '\'') };

    b.letter = between(_mm256_or_si256(lo, small), _mm256_or_si256(hi, small), 'a', 'z');
    b.number = between(lo, hi, '0', '9');
    b.blank = equal(lo, hi, ' ');
    b.space = b.blank | between(lo, hi, '\t', '\r');
    if (r->line_ends)
        b.line_end = equal(lo, hi, '\n') | equal(lo, hi, '\r');
    if (r->cases) {
        b.slash = equal(lo, hi, '/');
        b.upper = between(lo, hi, 'A', 'Z');
        b.lower = b.letter & ~b.upper;
    }
    if (__builtin_expect(b.far != 0, 0))
        add_far(r, &b, p);
    b.other = below(b.known) & ~(b.letter | b.number | b.space);
    return b;
}

/* The contractions whose apostrophe is in at: bits of those of two bytes, and of three. */
INLINE void contractions(const char *p, uint64_t at, bool any_case, uint64_t *two, uint64_t *three)
{
    char fold = any_case ? 32 : 0;

    for (*two = *three = 0; at; at &= at - 1) {
        const char *q = p + __builtin_ctzll(at);
        char a = q[1] | fold, b = q[2] | fold; /* of what is no letter 32 may make no letter of these */

        if (a == 's' || a == 't' || a == 'm' || a == 'd')
            *two |= at & -at;
        else if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l'))
            *three |= at & -at;
    }
}

/* Line ends behind others, which go with them, and / behind those. */
INLINE uint64_t with_others(const struct block *b)
{
    uint64_t first = b->line_end & b->other << 1, tail = b->line_end | b->slash, all = 0;

    /* A sum carries through a run of ones. */
    if ((b->slash & b->line_end << 1) == 0)
        return tail & ~(tail + first);
    for (; first; first &= ~all) /* a / in such a run makes no line end behind it a first one */
        all |= tail & ~(tail + (first & -first)) & ~below((unsigned)_tzcnt_u64(first));
    return all;
}

/* Where words begin by GPT-2's pattern, but for contractions. */
INLINE uint64_t plain_starts(const struct rules *r, const struct block *b)
{
    /* The last of white space is by itself, or a space before a word; where a digit that is alone
     * follows, it is as at the end of the text. */
    uint64_t letter = b->letter, number = b->number, other = b->other, space = b->space;
    uint64_t on = r->digits_alone ? space | number : space;
    uint64_t same = (letter & letter << 1) | (number & number << 1) | (other & other << 1);
    uint64_t starts = (space & ~(space << 1 & on >> 1)) | (~space & ~same & ~(b->blank << 1));

    return r->digits_alone ? starts | number : starts;
}

/* White space by the patterns with line ends: what of it begins words. space: without what others have
 * taken. */
INLINE uint64_t space_starts(const struct block *b, uint64_t space, unsigned *limit)
{
    uint64_t ends = b->line_end, plain = b->space & ~ends, before = plain & ends >> 1, run = plain;
    uint64_t starts = (space & ~(space << 1)) | (plain & ~(b->space >> 1));
    /* White space behind the last line end of a run. A run of it that a line end follows is no last
     * one; of one that reaches the end of what is known that is not known. */
    uint64_t top = plain << (BLOCK - b->known);

    if (top >> 63) {
        unsigned length = (unsigned)_lzcnt_u64(~top);

        *limit = length < b->known ? b->known - length : 1;
    }
    if (before)
        for (int k = 1; k < BLOCK; k *= 2) { /* spreads down the run */
            before |= run & before >> k;
            run &= run >> k;
        }
    return starts | (plain & ends << 1 & ~before);
}

/* Where words begin by the patterns with line ends, but for contractions. */
INLINE uint64_t line_end_starts(const struct rules *r, const struct block *b, unsigned *limit)
{
    uint64_t taken = with_others(b), other = b->other & ~taken, plain = b->space & ~b->line_end;
    uint64_t starts = space_starts(b, b->space & ~taken, limit);
    /* One other character goes with letters, as white space before them does. */
    uint64_t lone = other & ~(other << 1) & ~(b->blank << 1);
    /* carried over the character's other bytes */
    uint64_t behind = (b->inside + (lone << 1)) & ~b->inside;

    starts |= lone | (b->letter & ~(b->letter << 1 | plain << 1 | behind));
    if (r->digits == 1) {
        starts |= b->number;
    } else {
        uint64_t number = b->number, three_before = number & number << 1 & number << 2;

        for (uint64_t d = number & ~(number << 1); d; d = d << 3 & three_before)
            starts |= d;
    }
    return r->cases ? starts | (b->upper & b->lower << 1) : starts;
}

/* The starts with those that contractions, whose apostrophes are in quotes, make and take away. */
INLINE uint64_t with_contractions(const struct rules *r, const char *p, uint64_t quotes,
                                  uint64_t starts, unsigned *limit)
{
    uint64_t two, three;

    contractions(p, quotes, r->suffix || r->contractions == 2, &two, &three);
    if (r->suffix) {
        /* One behind another is none: it begins a word. */
        uint64_t chained = (two | three) & (two << 2 | three << 3);

        starts &= ~(two | three);
        if (chained && (unsigned)_tzcnt_u64(chained) < *limit)
            *limit = (unsigned)_tzcnt_u64(chained);
    }
    starts &= ~((two | three) << 1 | three << 2);
    return starts | two << 2 | three << 3;
}

/* Where words begin, below *limit; more than 2 bytes are known. */
INLINE uint64_t find_starts(const struct rules *r, const struct block *b, const char *p,
                            unsigned *limit)
{
    uint64_t starts, quotes;

    *limit = b->known - 1; /* the byte behind must be known too */
    starts = r->line_ends ? line_end_starts(r, b, limit) : plain_starts(r, b);
    quotes = b->quote & (r->suffix ? b->letter << 1 : starts | 1) & below(*limit);
    return (r->contractions || r->suffix) && quotes ? with_contractions(r, p, quotes, starts, limit)
                                                    : starts;
}

INLINE size_t find_ends(const struct rules *r, const char *p, size_t n, size_t at, uint32_t *ends,
                        size_t max, words_next_fn *next)
{
    size_t k = 0, upto = at;

    while (at < n && k + WORDS_ROOM <= max) {
        if (at >= upto && n - at >= BLOCK + CHAR_MAX) {
            struct block b = read_block(r, p + at);
            unsigned limit = 0;
            uint64_t starts = b.known > 2 ? find_starts(r, &b, p + at, &limit) : 0;

            if ((starts &= below(limit) & ~UINT64_C(1))) {
                uint32_t *to = ends + k;

                /* Groups of 8, of which the last may hold what is overwritten. */
                k += (size_t)__builtin_popcountll(starts);
                do
                    for (int i = 0; i < 8; i++, starts &= starts - 1)
                        *to++ = (uint32_t)at + (uint32_t)_tzcnt_u64(starts);
                while (starts);
                at = ends[k - 1];
                continue;
            }
            upto = b.known < BLOCK ? at + b.known + 1 : at;
        }
        ends[k++] = (uint32_t)(at = next(p, n, at));
    }
    return k;
}

#define WIDE(name, ...)                                                                        \
    AVX2 size_t words_wide_##name(const char *p, size_t n, size_t at, uint32_t *ends,          \
                                  size_t max, words_next_fn *next)                             \
    {                                                                                          \
        static const struct rules rules = { __VA_ARGS__ };                                     \
        return find_ends(&rules, p, n, at, ends, max, next);                                   \
    }
WORDS_PATTERNS(WIDE)
#endif
