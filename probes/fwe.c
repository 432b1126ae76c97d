/* probes/fwe.c - RULER's frequent words: which three of made-up words stand there most often. */
#include "probes/kinds.h"
#include "probes/ruler.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/*
 * scripts/data/synthetic/freq_words_extraction.py: words of six letters, a fiftieth of the length's
 * tokens of them; the k-th stands there in proportion to k^-2 (zeta); the first is "...", no word.
 */
enum { REPLY = 50, LETTERS = 6, TOKENS_EACH = 50, STEPS = 32, ANSWERS = 3, FEWEST = 53, MARGIN = 2 };
enum { LEAST = (ANSWERS + 2) * TOKENS_EACH + REPLY };
#define ZETA_2 1.6449340668482264 /* pi^2 / 6 */

struct fwe {
    struct ruler ruler;
    char (*word)[LETTERS + 1]; /* drawn for a prompt, in order */
    int64_t n, cap;
    int64_t *rank;             /* rank[k]: the word that is k-th */
    int64_t number;            /* of words in all, from the first prompt */
};

static int by_letters(const void *a, const void *b) { return strcmp(a, b); }

static int draw_word(struct fwe *s, struct err *e)
{
    if (s->n == s->cap) {
        void *grown = realloc(s->word, (size_t)(s->cap + s->cap / 2 + 16) * sizeof *s->word);

        if (!grown)
            return err_set(e, E_SYS, "out of memory for words");
        s->word = grown;
        s->cap += s->cap / 2 + 16;
    }
    for (int i = 0; i < LETTERS; i++)
        s->word[s->n][i] = (char)('a' + python_random_choices(&s->ruler.random, 26));
    s->word[s->n++][LETTERS] = 0;
    return 0;
}

/* Sorted, each once. */
static void sort_words(struct fwe *s)
{
    int64_t kept = 0;

    qsort(s->word, (size_t)s->n, sizeof *s->word, by_letters);
    for (int64_t i = 0; i < s->n; i++)
        if (i == 0 || strcmp(s->word[i], s->word[kept - 1]) != 0)
            memmove(s->word[kept++], s->word[i], sizeof *s->word);
    s->n = kept;
}

/* count different words, and in which order they are frequent. */
static int draw_words(struct fwe *s, int64_t count, struct err *e)
{
    struct python_random again;
    int rc = 0;

    for (s->n = 0; s->n < count; sort_words(s)) /* again where two were alike */
        while (s->n < count && (rc = draw_word(s, e)) == 0)
            ;
    if (rc < 0)
        return rc;
    for (int64_t i = 0; i < count; i++)
        s->rank[i] = i;
    python_random_seed(&again, s->ruler.ask.seed);
    python_random_shuffle(&again, s->rank, count, sizeof *s->rank);
    return 0;
}

/* How often the k-th of number words stands there, k from 1. */
static int64_t times(int64_t number, int64_t k)
{
    return (int64_t)((double)number * pow((double)k, -2.0) / ZETA_2);
}

/* The prompt of number words, answers and tokens too. */
static int add_text(struct fwe *s, int64_t number, struct probe *p, struct err *e)
{
    int64_t *list = malloc((size_t)(number + 1) * sizeof *list), n = 0;
    struct python_random again;
    int rc;

    if (!list)
        return err_set(e, E_SYS, "out of memory for %" PRId64 " words", number);
    for (int64_t k = 0; k < s->n; k++)
        for (int64_t i = times(number, k + 1); i > 0 && n < number; i--)
            list[n++] = k;
    python_random_seed(&again, s->ruler.ask.seed);
    python_random_shuffle(&again, list, n, sizeof *list);
    ruler_begin(p);
    rc = buf_printf(&p->prompt, e, "Read the following coded text and track the frequency of each coded "
                                   "word. Find the three most frequently appeared coded words. ");
    for (int64_t i = 0; i < n && rc == 0; i++)
        rc = buf_printf(&p->prompt, e, "%s%s", i ? " " : "", list[i] ? s->word[s->rank[list[i]]] : "...");
    free(list);
    if (rc == 0)
        rc = buf_printf(&p->prompt, e, "\nQuestion: Do not provide any explanation. Please ignore the dots "
                        "'....'. What are the three most frequently appeared words in the above coded text? "
                        "Answer: According to the coded text above, the three most frequently appeared "
                        "words are:");
    for (int k = 1; k <= ANSWERS && rc == 0; k++)
        rc = probe_answer(p, s->word[s->rank[k]], LETTERS, e);
    p->depth = -1;
    return rc < 0 ? rc : probe_count(p, s->ruler.ask.tokenizer, e);
}

/* Answers must be told from the fifth, by their number, as they are from FEWEST words on. */
static bool too_few(int64_t number) { return number < FEWEST; }

/* Words are added in steps of 1/32 of the room until there is none, or taken away. */
static int fwe_make(struct fwe *s, struct probe *p, struct err *e)
{
    const int64_t room = s->ruler.ask.length - REPLY, step = room / STEPS;
    int64_t number = s->number;
    int rc = draw_words(s, room / TOKENS_EACH, e);

    if (rc < 0)
        return rc;
    if (number > 0) {
        while ((rc = add_text(s, number, p, e)) == 0 && p->tokens > room && number > step)
            number -= step;
    } else {
        number = room / LETTERS;
        while ((rc = add_text(s, number, p, e)) == 0 && p->tokens < room)
            number += step;
        number -= step;
        if (rc == 0 && number > 0)
            rc = add_text(s, number, p, e);
        s->number = number;
    }
    if (rc == 0 && (p->tokens > room || too_few(number)))
        return ruler_too_short(&s->ruler, RULER_TOO_LARGE, e);
    return rc;
}

/* What so many words take that prompts of longer words than these may have some steps less. */
static int name_length(struct fwe *s, struct probe *p, struct err *e)
{
    int64_t needed = LEAST;
    int rc = draw_words(s, LEAST / TOKENS_EACH, e);

    for (int i = 0; i < 3 && rc == 0; i++) /* steps grow with the length */
        if ((rc = add_text(s, FEWEST + (MARGIN + 2) * (needed / STEPS), p, e)) == 0)
            needed = p->tokens + REPLY > LEAST ? p->tokens + REPLY : LEAST;
    return rc < 0 ? rc : ruler_too_short(&s->ruler, needed, e);
}

/* With a margin: words of other prompts may be longer. */
static int check_length(struct fwe *s, struct err *e)
{
    const int64_t room = s->ruler.ask.length - REPLY;
    struct probe p = { 0 };
    struct err no = { 0 };
    int rc = s->ruler.ask.length < LEAST ? E_USAGE : fwe_make(s, &p, &no);

    if (rc == E_USAGE || (rc == 0 && too_few(s->number - MARGIN * (room / STEPS))))
        rc = name_length(s, &p, e);
    else if (rc < 0 && e)
        *e = no;
    probe_free(&p);
    return rc;
}

static int fwe_open(void **state, const struct probe_ask *a, struct err *e)
{
    const int64_t longest = a->length > LEAST ? a->length : LEAST;
    struct fwe *s = calloc(1, sizeof *s);

    if (!s)
        return err_set(e, E_SYS, "out of memory");
    *state = s;
    ruler_init(&s->ruler, a, REPLY, NULL);
    if (!(s->rank = malloc((size_t)(longest / TOKENS_EACH + 1) * sizeof *s->rank)))
        return err_set(e, E_SYS, "out of memory for words");
    return check_length(s, e);
}

static int fwe_next(void *state, struct probe *p, struct err *e) { return fwe_make(state, p, e); }

static void fwe_close(void *state)
{
    struct fwe *s = state;

    free(s->word);
    free(s->rank);
    free(s);
}

const struct probe_kind probe_fwe = {
    .name = "fwe", .what = "the three most frequent words of a made-up text",
    .origin = "RULER, freq_words_extraction.py (Apache-2.0)", .score = PROBE_ALL, .reply = REPLY,
    .seed = RULER_SEED, .open = fwe_open, .next = fwe_next, .close = fwe_close,
};
