/* probes/sentences.h - text cut into sentences, so that something can be put between two. */
#ifndef PROBES_SENTENCES_H
#define PROBES_SENTENCES_H
#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
C_BEGIN

struct sentence {
    size_t from, to; /* bytes of the text; no white space at the start of a sentence or the text's end */
};
/* Zero it before use; sentences_free releases it. */
struct sentences {
    struct sentence *at;
    int64_t n;
    size_t cap;
};

/*
 * Sentences as Punkt finds them (Kiss and Strunk 2006), in its form in nltk 3.10. PLAIN is its
 * PunktSentenceTokenizer() as it is before any training: . ? ! and white space end a sentence but
 * after initials, numbers and dots in a row. ENGLISH knows abbreviations and words that start sentences
 * as well. nltk's trained English model has both from newspapers, ours are lists in sentences.c: they
 * differ at about one end in 100 of books (tests/sentence_check.py), most of them titles and headings.
 * text is UTF-8 (the caller has checked), 0 bytes or more. Takes time linear in them. E_SYS.
 */
enum sentence_ends { SENTENCES_PLAIN, SENTENCES_ENGLISH };
int sentences_cut(struct sentences *s, enum sentence_ends ends, const char *text, size_t nbytes,
                  struct err *e);
void sentences_free(struct sentences *s);

/* Bytes of the white space character at p, as Python's str.isspace(); 0: it is none. p < end. */
size_t space_at(const char *p, const char *end);

C_END
#endif
