/* probes/ruler.h - what the kinds after RULER have in common: how large the haystack is. */
#ifndef PROBES_RULER_H
#define PROBES_RULER_H
#include "probes/fit.h"
#include "probes/python_random.h"
#include "probes/word_lists.h"
C_BEGIN

/*
 * NVIDIA/RULER (Apache-2.0), scripts/data/synthetic; Hsieh et al. 2024, arXiv:2404.06654. With the same
 * seed, tokenizer, text and words a kind's prompts are those of the original (at c3f5e3b), byte for byte:
 * each number is drawn where the original draws it, the search for the size included, and the prompt is
 * its "input" and "answer_prefix" in one (template "base").
 */
enum { RULER_SEED = 42, RULER_SHORT = 4096 }; /* below SHORT tokens the originals make smaller steps */

/* First member of each kind's state. Sizes count the kind's own things: words, lines, needles. */
struct ruler {
    struct probe_ask ask;
    const struct word_lists *words;
    struct python_random random, numpy; /* of random.seed and numpy.random.seed */
    probe_make_fn *make;  /* a prompt of that size; RULER_TOO_LARGE tokens where it cannot fit anyhow */
    probe_make_fn *plain; /* what is made while searching, with extra tokens on top; as make, if NULL */
    int64_t reply;
    int64_t step;         /* the smallest size that is searched, and by how much less is tried */
    int64_t least;        /* a prompt cannot have fewer */
    int64_t size;         /* by ruler_search */
    int64_t extra;
};
#define RULER_TOO_LARGE (INT64_MAX / 4)

void ruler_init(struct ruler *r, const struct probe_ask *a, int64_t reply, probe_make_fn *make);
/* Finds size by halving, up to 'times' what a prompt of 'first' things lets expect; whole: in tokens a
 * thing, rounded down first. E_USAGE, with a length that suffices, where not even 'step' things fit. */
int ruler_search(struct ruler *r, int64_t first, int times, bool whole, struct err *e);
/* The next prompt, of size things or as many fewer as it takes. */
int ruler_next(struct ruler *r, struct probe *p, struct err *e);
/* Length too short, with what is needed. E_USAGE. */
int ruler_too_short(const struct ruler *r, int64_t needed, struct err *e);

/* p->prompt and p->answers emptied. */
void ruler_begin(struct probe *p);
/* Where in the prompt the first answer stands first: p->depth. */
void ruler_depth(struct probe *p);

C_END
#endif
