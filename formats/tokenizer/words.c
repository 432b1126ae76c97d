/* formats/tokenizer/words.c - see words.h.
 *
 * The patterns are of one family, whose alternatives are tried in this order:
 *
 *   contractions   's 't 're 've 'm 'll 'd
 *   letters        with one character before them: a space, or any but a line end, letter or digit
 *   digits         with a space before them, or at most so many
 *   others         with a space before them; some take the line ends behind them
 *   line ends      with the white space before them
 *   white space    but for its last character, where something else follows
 *
 * Each pattern says which of these it has and in what form. The functions are written once, and
 * compiled for each pattern with its rules as constants. */
#include "formats/tokenizer/words.h"

#include "base/processor.h"
#include "formats/tokenizer/unicode.h"
#include "formats/tokenizer/words_impl.h"

#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline))

static const unsigned char ascii[128] = {
    ['\t'] = SPACE, ['\n'] = SPACE | LINE_END, ['\v'] = SPACE, ['\f'] = SPACE,
    ['\r'] = SPACE | LINE_END, [' '] = SPACE,
    ['0'] = NUMBER | NUMERIC, ['1'] = NUMBER | NUMERIC, ['2'] = NUMBER | NUMERIC,
    ['3'] = NUMBER | NUMERIC, ['4'] = NUMBER | NUMERIC, ['5'] = NUMBER | NUMERIC,
    ['6'] = NUMBER | NUMERIC, ['7'] = NUMBER | NUMERIC, ['8'] = NUMBER | NUMERIC,
    ['9'] = NUMBER | NUMERIC,
#define BIG(c) [c] = LETTER | UPPER, [c + 32] = LETTER | LOWER
    BIG('A'), BIG('B'), BIG('C'), BIG('D'), BIG('E'), BIG('F'), BIG('G'), BIG('H'), BIG('I'),
    BIG('J'), BIG('K'), BIG('L'), BIG('M'), BIG('N'), BIG('O'), BIG('P'), BIG('Q'), BIG('R'),
    BIG('S'), BIG('T'), BIG('U'), BIG('V'), BIG('W'), BIG('X'), BIG('Y'), BIG('Z')
};

unsigned words_far_kind(const char *p, size_t *used)
{
    const uint64_t both = 1u << UNI_LM | 1u << UNI_LO | UNI_MARK;
    uint64_t b = unicode_bits(unicode_at(p, used));

    return (b & UNI_LETTER ? LETTER : 0) | (b & UNI_NUMBER ? NUMBER : 0) |
           (b & UNI_SPACE ? SPACE : 0) | (b & UNI_NUMERIC ? NUMERIC : 0) |
           (b & (both | 1u << UNI_LU | 1u << UNI_LT) ? UPPER : 0) |
           (b & (both | 1u << UNI_LL) ? LOWER : 0);
}

/* What the character at p is, and its bytes. */
ALWAYS_INLINE unsigned kind_at(const char *p, size_t *used)
{
    *used = 1;
    return (unsigned char)*p < 128 ? ascii[(unsigned char)*p] : words_far_kind(p, used);
}

/* The end of the characters from at on that are of these kinds. */
ALWAYS_INLINE size_t run_of(const char *p, size_t n, size_t at, unsigned kinds)
{
    for (size_t used; at < n; at += used)
        if (!(kind_at(p + at, &used) & kinds))
            break;
    return at;
}

/* The same of letters; those of ASCII sixteen at a time, as where a word ends is hard to guess. */
ALWAYS_INLINE size_t letters(const char *p, size_t n, size_t at)
{
#ifdef __SSE2__
    while (n - at >= 16) {
        __m128i x = _mm_or_si128(_mm_loadu_si128((const __m128i *)(const void *)(p + at)),
                                 _mm_set1_epi8(32));
        /* Bytes from 0x80 on are negative here, and so below 'a'. */
        __m128i in = _mm_and_si128(_mm_cmpgt_epi8(x, _mm_set1_epi8('a' - 1)),
                                   _mm_cmplt_epi8(x, _mm_set1_epi8('z' + 1)));
        unsigned no = ~(unsigned)_mm_movemask_epi8(in) & 0xFFFF;

        if (no) {
            at += (size_t)__builtin_ctz(no);
            return (unsigned char)p[at] < 0x80 ? at : run_of(p, n, at, LETTER);
        }
        at += 16;
    }
#endif
    return run_of(p, n, at, LETTER);
}

/* Bytes of the contraction at p, which begins with an apostrophe; 0 for none. */
static size_t contraction(const char *p, size_t n, bool any_case)
{
    unsigned char a, b;

    if (n < 2 || *p != '\'')
        return 0;
    a = (unsigned char)p[1];
    if (any_case && n >= 3 && a == 0xC5 && (unsigned char)p[2] == 0xBF)
        return 3; /* U+017F, the long s */
    if (any_case && a >= 'A' && a <= 'Z')
        a |= 32;
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return 2;
    if (n < 3)
        return 0;
    b = (unsigned char)p[2];
    if (any_case && b >= 'A' && b <= 'Z')
        b |= 32;
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

/* Capitals, then at least one small letter, from at on, as U*W+ backtracks: the end, or at. Marks and
 * letters without case count as both. */
static size_t cased(const char *p, size_t n, size_t at)
{
    size_t last = at, i = at, used;

    for (unsigned kind; i < n; i += used) {
        kind = kind_at(p + i, &used);
        if (!(kind & UPPER))
            break;
        if (kind & LOWER)
            last = i + used;
    }
    /* Small letters behind the capitals; else back to the last that is both. */
    return i < n && kind_at(p + i, &used) & LOWER ? run_of(p, n, i, LOWER) : last;
}

/* At least one capital, then small letters: U+W*. */
static size_t capitals(const char *p, size_t n, size_t at)
{
    size_t i = run_of(p, n, at, UPPER);

    return i > at ? run_of(p, n, i, LOWER) : at;
}

/* In the order that the pattern tries them; next stands behind a character that may come first, or is
 * at. The end, or at. */
static size_t cased_letters(const char *p, size_t n, size_t at, size_t next, bool suffix)
{
    size_t end;

    /* A mark is both: one that may come first may be a word by itself, which ends at next. */
    if ((end = cased(p, n, next)) == next && (end = cased(p, n, at)) == at &&
        (end = capitals(p, n, next)) == next)
        end = capitals(p, n, at);
    if (end == at)
        return at;
    return suffix ? end + contraction(p + end, n - end, true) : end;
}

/* White space from at on. */
ALWAYS_INLINE size_t space(const char *p, size_t n, size_t at, bool line_ends)
{
    size_t last = at, end = at, behind = at, used;

    for (unsigned kind; end < n; end += used) {
        kind = kind_at(p + end, &used);
        if (!(kind & SPACE))
            break;
        last = end;
        if (kind & LINE_END)
            behind = end + used;
    }
    if (line_ends && behind > at)
        return behind;
    return end == n || last == at ? end : last;
}

/* Digits behind nothing, at most so many. */
ALWAYS_INLINE size_t few_digits(const char *p, size_t n, size_t at, int max)
{
    for (size_t used; at < n && max > 0; at += used, max--)
        if (!(kind_at(p + at, &used) & NUMBER))
            break;
    return at;
}

ALWAYS_INLINE size_t others(const char *p, size_t n, size_t at, const char *tail)
{
    for (size_t used; at < n; at += used)
        if (kind_at(p + at, &used) & (LETTER | NUMBER | SPACE))
            break;
    while (*tail && at < n && p[at] && strchr(tail, p[at]))
        at++;
    return at;
}

ALWAYS_INLINE size_t next_word(const struct rules *r, const char *p, size_t n, size_t at)
{
    size_t used, next, end;
    unsigned kind = kind_at(p + at, &used), second;

    if (r->contractions && p[at] == '\'' &&
        (end = contraction(p + at, n - at, r->contractions == 2)) > 0)
        return at + end;
    /* next: where the word's body begins, behind the one character that may come first. */
    next = at;
    if (r->any_before ? !(kind & (LETTER | NUMBER | LINE_END)) : p[at] == ' ')
        next = at + used;
    if (r->cases) {
        if ((end = cased_letters(p, n, at, next, r->suffix)) > at)
            return end;
    } else if (next == at ? kind & LETTER : next < n && kind_at(p + next, &used) & LETTER) {
        return letters(p, n, next);
    }
    if (r->digits && kind & NUMBER)
        return few_digits(p, n, at, r->digits);
    next = at + (p[at] == ' ');
    second = next == at ? kind : next < n ? kind_at(p + next, &used) : SPACE;
    if (!r->digits && second & NUMBER)
        return run_of(p, n, next, NUMBER);
    if (!(second & (LETTER | NUMBER | SPACE)))
        return others(p, n, next, r->tail);
    return space(p, n, at, r->line_ends);
}

/* The same where each digit is cut out first: the word ends before the first that it holds or asks
 * about, which is at most two characters behind its end. */
ALWAYS_INLINE size_t next_of(const struct rules *r, const char *p, size_t n, size_t at)
{
    size_t end, used;
    int behind = 2;

    if (!r->digits_alone)
        return next_word(r, p, n, at);
    if (kind_at(p + at, &used) & NUMERIC)
        return at + used;
    end = next_word(r, p, n, at);
    for (size_t i = at; i < n && (i < end || behind-- > 0); i += used)
        if (kind_at(p + i, &used) & NUMERIC)
            return next_word(r, p, i, at);
    return end;
}

#define NEXT(name, ...)                                                                        \
    static size_t next_##name(const char *p, size_t n, size_t at)                              \
    {                                                                                          \
        static const struct rules rules = { __VA_ARGS__ };                                     \
        return next_of(&rules, p, n, at);                                                      \
    }
WORDS_PATTERNS(NEXT)

#define SPACES "\\s+(?!\\S)|\\s+"
#define GPT2(c) c "| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|" SPACES
#define ANY_CASE "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define CL100K(n) \
    ANY_CASE "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" n "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|" SPACES
#define U "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define W "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define O200K(suffix, n) \
    "[^\\r\\n\\p{L}\\p{N}]?" U "*" W "+" suffix "|[^\\r\\n\\p{L}\\p{N}]?" U "+" W "*" suffix "|" n \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|" SPACES

#ifdef __x86_64__
#define WIDE(name) words_wide_##name
#else
#define WIDE(name) NULL
#endif

const struct words words_gpt2 = { "GPT-2", GPT2("'s|'t|'re|'ve|'m|'ll|'d"),
                                  GPT2("'(?:[sdmt]|ll|ve|re)"), next_gpt2,
                                  WIDE(gpt2) };
const struct words words_gpt2_digits = { "GPT-2 with single digits", "", "", next_digits,
                                         WIDE(digits) };
static const struct words others_known[] = {
    { "Llama 3", CL100K("\\p{N}{1,3}"), "", next_llama3, WIDE(llama3) },
    { "Qwen 2", CL100K("\\p{N}"), "", next_qwen2, WIDE(qwen2) },
    { "o200k", O200K(ANY_CASE "?", "\\p{N}{1,3}"), "", next_o200k, WIDE(o200k) },
    { "tekken", O200K("", "\\p{N}"), "", next_tekken, WIDE(tekken) },
};

const char *words_name(const struct words *w) { return w->name; }
const char *words_pattern(const struct words *w) { return w->pattern; }

const struct words *words_named(const char *name)
{
    for (size_t i = 0; i < sizeof others_known / sizeof *others_known; i++)
        if (strcmp(others_known[i].name, name) == 0)
            return &others_known[i];
    return &words_gpt2;
}

static bool is(const char *text, const char *pattern, size_t n)
{
    return n && strlen(text) == n && memcmp(text, pattern, n) == 0;
}

const struct words *words_known(const char *pattern, size_t n)
{
    if (is(words_gpt2.pattern, pattern, n) || is(words_gpt2.pattern2, pattern, n))
        return &words_gpt2;
    for (size_t i = 0; i < sizeof others_known / sizeof *others_known; i++)
        if (is(others_known[i].pattern, pattern, n))
            return &others_known[i];
    return NULL;
}

size_t words_next(const struct words *w, const char *p, size_t n, size_t at)
{
    return w->next(p, n, at);
}

size_t words_ends(const struct words *w, const char *p, size_t n, size_t at, uint32_t *ends,
                  size_t max)
{
    size_t k = 0;

    if (w->wide && simd_level() >= SIMD_AVX2)
        return w->wide(p, n, at, ends, max, w->next);
    while (k < max && at < n)
        ends[k++] = (uint32_t)(at = w->next(p, n, at));
    return k;
}
