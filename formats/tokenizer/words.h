/* formats/tokenizer/words.h - the well-known patterns that cut text into words, without a regex library. */
#ifndef FORMATS_TOKENIZER_WORDS_H
#define FORMATS_TOKENIZER_WORDS_H
#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
C_BEGIN

/* How a pattern cuts. Every character of a text belongs to one word; text is well-formed UTF-8. */
struct words;

/* The pattern of these characters, or NULL: GPT-2's, Llama 3's, Qwen 2's, o200k's, tekken's. */
const struct words *words_known(const char *pattern, size_t n);
extern const struct words words_gpt2;
/* GPT-2's behind "Digits": every digit is a word, and ends the text before it. */
extern const struct words words_gpt2_digits;
const struct words *words_named(const char *name);
const char *words_name(const struct words *w);
const char *words_pattern(const struct words *w); /* as a tokenizer.json has it */

/* Where the word that begins at 'at' ends, at < n. */
size_t words_next(const struct words *w, const char *p, size_t n, size_t at);
/* The ends of the words from 'at' on, at most max of them; how many. */
size_t words_ends(const struct words *w, const char *p, size_t n, size_t at, uint32_t *ends,
                  size_t max);

C_END
#endif
