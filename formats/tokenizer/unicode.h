/* formats/tokenizer/unicode.h - kinds of characters and normal forms, as Hugging Face's tokenizers has them. */
#ifndef FORMATS_TOKENIZER_UNICODE_H
#define FORMATS_TOKENIZER_UNICODE_H
#include "base/bytes.h"
#include "base/err.h"
#include <stdbool.h>
#include <stdint.h>
C_BEGIN

/* The version of each is that of tokenizers 0.23.3 (tools/make_unicode.py): categories, UNI_SPACE
 * and UNI_WORD as in its patterns, Unicode 16; the others as its steps of that name have them; normal
 * forms of Unicode 12. */
#define UNICODE_TABLES "Unicode 16 as in tokenizers 0.23.3"

/* Bits of a character: one for its category, more for what else it is. */
enum unicode_category {
    UNI_LU, UNI_LL, UNI_LT, UNI_LM, UNI_LO, UNI_MN, UNI_MC, UNI_ME, UNI_ND, UNI_NL, UNI_NO, UNI_PC,
    UNI_PD, UNI_PS, UNI_PE, UNI_PI, UNI_PF, UNI_PO, UNI_SM, UNI_SC, UNI_SK, UNI_SO, UNI_ZS, UNI_ZL,
    UNI_ZP, UNI_CC, UNI_CF, UNI_CN, UNI_CATEGORIES
};
extern const char unicode_category_names[UNI_CATEGORIES][3];
#define UNI_SPACE (UINT64_C(1) << 32)       /* \s */
#define UNI_WORD (UINT64_C(1) << 33)        /* \w of a pattern */
#define UNI_NUMERIC (UINT64_C(1) << 34)     /* what "Digits" takes */
#define UNI_PUNCTUATION (UINT64_C(1) << 35) /* what "Punctuation" takes */
#define UNI_PLAIN_WORD (UINT64_C(1) << 36)  /* \w of "Whitespace" and of added tokens */
#define UNI_SCRIPT(i) (UINT64_C(1) << (37 + (i))) /* \p{Han} and others, by their place in: */
#define UNI_SCRIPTS 10
extern const char unicode_script_names[UNI_SCRIPTS][9];
#define UNI_LETTER UINT64_C(0x1F)           /* \p{L} */
#define UNI_MARK UINT64_C(0xE0)             /* \p{M} */
#define UNI_NUMBER UINT64_C(0x700)          /* \p{N} */

#define UNICODE_MAX 0x10FFFFu

/* Makes the tables, once a process; before anything below. E_SYS. */
int unicode_open(struct err *e);
uint64_t unicode_bits(uint32_t c); /* c <= UNICODE_MAX */

/* The character at p in well-formed UTF-8, and its bytes. */
static inline uint32_t unicode_at(const char *s, size_t *n)
{
    const unsigned char *p = (const unsigned char *)s;

    if (p[0] < 0x80) {
        *n = 1;
        return p[0];
    }
    if (p[0] < 0xE0) {
        *n = 2;
        return (p[0] & 31u) << 6 | (p[1] & 63u);
    }
    if (p[0] < 0xF0) {
        *n = 3;
        return (p[0] & 15u) << 12 | (p[1] & 63u) << 6 | (p[2] & 63u);
    }
    *n = 4;
    return (p[0] & 7u) << 18 | (p[1] & 63u) << 12 | (p[2] & 63u) << 6 | (p[3] & 63u);
}
/* The last character of the n > 0 bytes of well-formed UTF-8 at p, and its bytes. */
static inline uint32_t unicode_before(const char *p, size_t n, size_t *bytes)
{
    size_t at = n - 1;

    while (at > 0 && ((unsigned char)p[at] & 0xC0) == 0x80)
        at--;
    return unicode_at(p + at, bytes);
}
/* Writes c as 1 to 4 bytes; how many. */
size_t unicode_put(char *to, uint32_t c);

/* Appends the n bytes of well-formed UTF-8 at p in a normal form, or in lower case. E_SYS. */
enum unicode_form { UNICODE_NFC, UNICODE_NFD, UNICODE_NFKC, UNICODE_NFKD, UNICODE_LOWER };
int unicode_form(enum unicode_form form, const char *p, size_t n, struct buf *out, struct err *e);
/* True when the text certainly is in NFC already: nearly all is, and this is fast. */
bool unicode_is_nfc(const char *p, size_t n);

C_END
#endif
