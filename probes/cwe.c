/* probes/cwe.c - RULER's common words: which ten of a numbered list stand there most often. */
#include "probes/kinds.h"
#include "probes/ruler.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/*
 * scripts/data/synthetic/common_words_extraction.py: ten words 30 times, others 3 times (below 4096
 * tokens 6 and 1), after an example of 40 words, 10 and 3 times (20; 3 and 1). Where the lists have fewer
 * words than a prompt needs, all are of the longer list of words; without that, of our own, pairs. Near the
 * least length a prompt may have fewer than ten words, all common, as the original's then have.
 */
enum { REPLY = 120, COMMON = 10, STEP = 10, FIRST = 4096 };

struct counts {
    int64_t words;
    int common, others; /* times */
};

static int common_of(struct counts c) { return c.words < COMMON ? (int)c.words : COMMON; }

struct cwe {
    struct ruler ruler;
    const char **word; /* shuffled */
    int64_t n;
    struct word_pairs *pairs; /* NULL: the longer list is taken */
};

/* How many words may be had of the longer list. */
static int64_t more(const struct cwe *s)
{
    return s->pairs ? word_pairs_count(s->pairs) : s->ruler.words->more.n;
}

/* Word i of what a list of so many words is taken from. */
static int add_word(const struct cwe *s, bool longer, int64_t i, struct buf *out, struct err *e)
{
    const char *w;

    if (longer && s->pairs)
        return word_pairs_add(s->pairs, i, out, e);
    w = longer ? s->ruler.words->more.word[i] : s->word[i];
    return buf_add(out, w, strlen(w), e);
}

/* n numbered words: place i has word at[i]. */
static int add_list(const struct cwe *s, bool longer, const int64_t *at, int64_t n, struct buf *out,
                    struct err *e)
{
    int rc = 0;

    for (int64_t i = 0; i < n && rc == 0; i++)
        if ((rc = buf_printf(out, e, i ? " %" PRId64 ". " : "%" PRId64 ". ", i + 1)) == 0)
            rc = add_word(s, longer, at[i], out, e);
    return rc;
}

/* A list with its question; words: the most common ones, as add_list's. */
static int add_task(struct cwe *s, struct counts c, struct buf *out, int64_t words[COMMON], struct err *e)
{
    const bool longer = c.words > s->n;
    const int64_t top = common_of(c), n = top * c.common + (c.words - top) * c.others;
    int64_t *drawn = malloc((size_t)(c.words + n) * sizeof *drawn), *list = drawn + c.words, at = 0;
    struct python_random again;
    int rc;

    if (!drawn)
        return err_set(e, E_SYS, "out of memory for a list of %" PRId64 " words", n);
    rc = python_random_sample(&s->ruler.random, longer ? more(s) : s->n, c.words, drawn, e);
    for (int k = 0; k < c.common && rc == 0; k++)
        for (int i = 0; i < top; i++)
            list[at++] = drawn[i];
    for (int k = 0; k < c.others && rc == 0; k++)
        for (int64_t i = top; i < c.words; i++)
            list[at++] = drawn[i];
    python_random_seed(&again, s->ruler.ask.seed);
    python_random_shuffle(&again, list, at, sizeof *list);
    if (rc == 0 && (rc = buf_printf(out, e, "Below is a numbered list of words. In these words, some appear "
                                            "more often than others. Memorize the ones that appear most "
                                            "often.\n")) == 0 &&
        (rc = add_list(s, longer, list, n, out, e)) == 0)
        rc = buf_printf(out, e, "\nQuestion: What are the %d most common words in the above list? Answer: "
                        "The top %d words that appear most often in the list are:", COMMON, COMMON);
    for (int i = 0; i < top && rc == 0; i++)
        words[i] = drawn[i];
    free(drawn);
    return rc;
}

static int make_lists(struct cwe *s, struct counts example, struct counts asked, struct probe *p,
                      struct err *e)
{
    int64_t words[COMMON];
    struct buf word = { 0 };
    int rc;

    if ((rc = add_task(s, example, &p->prompt, words, e)) == 0 &&
        (rc = buf_add(&p->prompt, " ", 1, e)) == 0 &&
        (rc = add_list(s, example.words > s->n, words, common_of(example), &p->prompt, e)) == 0 &&
        (rc = buf_add(&p->prompt, "\n", 1, e)) == 0)
        rc = add_task(s, asked, &p->prompt, words, e);
    for (int i = 0; i < common_of(asked) && rc == 0; i++, word.len = 0)
        if ((rc = add_word(s, asked.words > s->n, words[i], &word, e)) == 0)
            rc = probe_answer(p, word.p, word.len, e);
    buf_free(&word);
    return rc < 0 ? rc : probe_count(p, s->ruler.ask.tokenizer, e);
}

static int cwe_make(void *state, int64_t size, struct probe *p, struct err *e)
{
    struct cwe *s = state;
    const bool brief = s->ruler.ask.length < RULER_SHORT;

    ruler_begin(p);
    if (size > s->n && size > more(s)) {
        p->tokens = RULER_TOO_LARGE;
        return 0;
    }
    return make_lists(s, brief ? (struct counts){ 20, 3, 1 } : (struct counts){ 40, 10, 3 },
                      brief ? (struct counts){ size, 6, 1 } : (struct counts){ size, 30, 3 }, p, e);
}

static int cwe_open(void **state, const struct probe_ask *a, struct err *e)
{
    struct cwe *s = calloc(1, sizeof *s);
    struct python_random again;
    int64_t most;
    int rc;

    if (!s)
        return err_set(e, E_SYS, "out of memory");
    *state = s;
    ruler_init(&s->ruler, a, REPLY, cwe_make);
    s->ruler.step = STEP;
    s->ruler.least = 1;
    if ((rc = word_lists_all(s->ruler.words, &s->word, &s->n, e)) < 0 ||
        (s->ruler.words->more.n == 0 && (rc = word_pairs_open(&s->pairs, s->ruler.words, e)) < 0))
        return rc;
    if (s->n < 40)
        return err_set(e, E_DATA, "there are only %" PRId64 " different words", s->n);
    python_random_seed(&again, a->seed);
    python_random_shuffle(&again, s->word, s->n, sizeof *s->word);
    most = s->n > more(s) ? s->n : more(s);
    return ruler_search(&s->ruler, most < FIRST ? most : FIRST, 2, true, e);
}

static int cwe_next(void *state, struct probe *p, struct err *e)
{
    return ruler_next(&((struct cwe *)state)->ruler, p, e);
}

static void cwe_close(void *state)
{
    struct cwe *s = state;

    word_pairs_close(s->pairs);
    free(s->word);
    free(s);
}

const struct probe_kind probe_cwe = {
    .name = "cwe", .what = "the ten most common words of a list",
    .origin = "RULER, common_words_extraction.py (Apache-2.0)", .score = PROBE_ALL, .reply = REPLY,
    .seed = RULER_SEED, .open = cwe_open, .next = cwe_next, .close = cwe_close,
};
