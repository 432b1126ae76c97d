/* probes/word_lists.h - words that name things and fill lists in prompts. */
#ifndef PROBES_WORD_LISTS_H
#define PROBES_WORD_LISTS_H
#include "base/bytes.h"
#include "base/err.h"
#include <stdint.h>
C_BEGIN

/* One list: n words, none of them empty, in the order of the file that they are from. */
struct word_list {
    const char *const *word;
    int64_t n;
};
struct word_lists {
    struct word_list nouns, adjectives, verbs;
    struct word_list more; /* taken instead of these where a prompt needs more words; n may be 0 */
    void *owned;           /* by word_lists_read */
};

extern const struct word_lists own_words; /* common English, written for this project */

/* The lists of RULER: nounlist.txt, adjectivelist.txt and verblist.txt, a word a line, of Python's
 * wonderwords (MIT) in a folder, and where it is there too RULER's english_words.json. With them prompts
 * are RULER's own, byte for byte. E_NOINPUT, E_DATA, E_SYS. */
int word_lists_read(struct word_lists *w, const char *folder, struct err *e);
void word_lists_free(struct word_lists *w);

/* Every "adjective-noun", each once, in the order of its bytes: millions, of which few are made. */
struct word_pairs;
int word_pairs_open(struct word_pairs **p, const struct word_lists *w, struct err *e); /* E_SYS */
void word_pairs_close(struct word_pairs *p);
int64_t word_pairs_count(const struct word_pairs *p);
int word_pairs_add(const struct word_pairs *p, int64_t i, struct buf *out, struct err *e);

/* Nouns, adjectives and verbs together, each once, in the order of their bytes: their pointers,
 * malloc'ed; *n how many. E_SYS. */
int word_lists_all(const struct word_lists *w, const char ***all, int64_t *n, struct err *e);

C_END
#endif
