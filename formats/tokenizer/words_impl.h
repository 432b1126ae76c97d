/* formats/tokenizer/words_impl.h - what words.c and words_wide.c share; no one else includes it. */
#ifndef FORMATS_TOKENIZER_WORDS_IMPL_H
#define FORMATS_TOKENIZER_WORDS_IMPL_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a character is. */
enum { LETTER = 1, NUMBER = 2, SPACE = 4, LINE_END = 8, UPPER = 16, LOWER = 32, NUMERIC = 64 };

struct rules {
    int contractions;  /* 0 none, 1 in small letters, 2 in any */
    bool any_before;   /* any character may stand before letters, not only a space */
    bool cases;        /* capitals, then small letters; a contraction may follow (suffix) */
    bool suffix;
    int digits;        /* 0: any number, behind a space; else at most so many */
    const char *tail;  /* what others take behind them, or "" */
    bool line_ends;
    bool digits_alone; /* each digit is cut out first */
};

/* The patterns: X(name, rules). */
#define WORDS_PATTERNS(X)                                                                      \
    X(gpt2, .contractions = 1, .tail = "")                                                     \
    X(digits, .contractions = 1, .tail = "", .digits_alone = true)                             \
    X(llama3, .contractions = 2, .any_before = true, .digits = 3, .tail = "\r\n",              \
      .line_ends = true)                                                                       \
    X(qwen2, .contractions = 2, .any_before = true, .digits = 1, .tail = "\r\n",               \
      .line_ends = true)                                                                       \
    X(o200k, .any_before = true, .cases = true, .suffix = true, .digits = 3, .tail = "\r\n/",  \
      .line_ends = true)                                                                       \
    X(tekken, .any_before = true, .cases = true, .digits = 1, .tail = "\r\n/", .line_ends = true)

typedef size_t words_next_fn(const char *p, size_t n, size_t at);
typedef size_t words_ends_fn(const char *p, size_t n, size_t at, uint32_t *ends, size_t max,
                             words_next_fn *next);

struct words {
    const char *name, *pattern, *pattern2; /* two ways to write it */
    words_next_fn *next;                   /* one word */
    words_ends_fn *wide;                   /* many, with AVX2; next where that cannot tell */
};

/* Of a character beyond ASCII. */
unsigned words_far_kind(const char *p, size_t *used);

#define WORDS_DECLARE(name, ...) words_ends_fn words_wide_##name;
WORDS_PATTERNS(WORDS_DECLARE)

#endif
