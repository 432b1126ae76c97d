/* probes/lines.c - one of many numbered lines, as LongEval asks for it. */
#include "probes/fit.h"
#include "probes/kinds.h"
#include "probes/python_random.h"
#include "probes/word_lists.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * DachengLi1/LongChat, longeval/utils.py (Apache-2.0), generate_lines_testcases with the configuration
 * that is shipped, LRT-NL: lines are named by an adjective and a noun, no word twice; asked as models
 * without turns are asked there (test_lines_one_sample, mpt-7b-storywriter), with its 15 tokens. There
 * wonderwords draws names from numbers of its own: here from those of random.seed(seed). More lines than
 * there are adjectives: they are drawn anew. As many lines as fit.
 */
enum { REPLY = 15, NUMBERS = 50000, VARIES = 24, LEAST = 2 };

static const struct probe_items items = {
    .least = LEAST, .step = 1, .per = 128, .reply = REPLY, .spare = VARIES
};

static const char header[] =
    "Below is a record of lines I want you to remember. Each line begins with 'line <line index>' and "
    "contains a '<REGISTER_CONTENT>' at the end of the line as a numerical value. For each line index, "
    "memorize its corresponding <REGISTER_CONTENT>. At the end of the record, I will ask you to retrieve "
    "the corresponding <REGISTER_CONTENT> of a certain line index. Now the record start:\n\n";

struct lines {
    struct probe_ask ask;
    struct pool {
        const char **word; /* [n]: each once, in the order of their bytes, as wonderwords' filter */
        int64_t n;
    } adjectives, nouns;
    struct python_random random;
    int64_t lines;
};

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int fill(struct pool *p, const struct word_list *from, struct err *e)
{
    int64_t n = 0;

    if (!(p->word = malloc((size_t)(from->n + 1) * sizeof *p->word)))
        return err_set(e, E_SYS, "out of memory for %" PRId64 " words", from->n);
    memcpy(p->word, from->word, (size_t)from->n * sizeof *p->word);
    qsort(p->word, (size_t)from->n, sizeof *p->word, by_bytes);
    for (int64_t i = 0; i < from->n; i++)
        if (n == 0 || strcmp(p->word[i], p->word[n - 1]) != 0)
            p->word[n++] = p->word[i];
    p->n = n;
    return 0;
}

/* n words of a pool, each taken out of what is left, as wonderwords' random_words. */
static int draw(struct lines *s, const struct pool *from, int64_t n, const char **out, struct err *e)
{
    const char **left = malloc((size_t)from->n * sizeof *left);
    int64_t have = 0;

    if (!left)
        return err_set(e, E_SYS, "out of memory for %" PRId64 " words", from->n);
    for (int64_t i = 0; i < n; i++) {
        int64_t k;

        if (have == 0)
            memcpy(left, from->word, (size_t)(have = from->n) * sizeof *left);
        k = (int64_t)python_random_below(&s->random, (uint64_t)have);
        out[i] = left[k];
        memmove(left + k, left + k + 1, (size_t)(--have - k) * sizeof *left);
    }
    free(left);
    return 0;
}

/* The line that is asked for must be the only one of its name: of one that is not, the next is asked for. */
static int64_t alone(const char *const *adjective, const char *const *noun, int64_t n, int64_t which)
{
    for (int64_t tries = 0; tries < n; tries++, which = (which + 1) % n) {
        int64_t same = 0;

        for (int64_t i = 0; i < n; i++)
            same += strcmp(adjective[i], adjective[which]) == 0 && strcmp(noun[i], noun[which]) == 0;
        if (same == 1)
            break;
    }
    return which;
}

static int put_lines(struct lines *s, const char *const *adjective, const char *const *noun, int64_t n,
                     int64_t *number, struct probe *p, struct err *e)
{
    int rc = buf_add(&p->prompt, header, sizeof header - 1, e);

    for (int64_t i = 0; i < n && rc == 0; i++) {
        number[i] = python_random_int(&s->random, 1, NUMBERS);
        rc = buf_printf(&p->prompt, e, "line %s-%s: REGISTER_CONTENT is <%" PRId64 ">\n", adjective[i],
                        noun[i], number[i]);
    }
    return rc;
}

static int make(void *state, int64_t n, struct probe *p, struct err *e)
{
    struct lines *s = state;
    const char **word = malloc(2 * (size_t)n * sizeof *word);
    int64_t *number = malloc((size_t)n * sizeof *number), which;
    char answer[24];
    int rc = word && number ? 0 : err_set(e, E_SYS, "out of memory for %" PRId64 " lines", n);

    p->prompt.len = p->answers.len = 0;
    p->n = 0;
    if (rc == 0 && (rc = draw(s, &s->adjectives, n, word, e)) == 0 &&
        (rc = draw(s, &s->nouns, n, word + n, e)) == 0 &&
        (rc = put_lines(s, word, word + n, n, number, p, e)) == 0) {
        which = python_random_int(&s->random, 0, n - 1);
        if (s->ask.depth >= 0)
            which = (int64_t)(s->ask.depth * (double)(n - 1) + 0.5);
        which = alone(word, word + n, n, which);
        p->depth = (double)which / (double)(n - 1);
        snprintf(answer, sizeof answer, "%" PRId64, number[which]);
        if ((rc = buf_printf(&p->prompt, e, "\nNow the record is over. Tell me what is the "
                             "<REGISTER_CONTENT> in line %s-%s? I need the number.Line <%s-%s>: "
                             "<REGISTER_CONTENT> is", word[which], word[n + which], word[which],
                             word[n + which])) == 0 &&
            (rc = probe_answer(p, answer, strlen(answer), e)) == 0)
            rc = probe_count(p, s->ask.tokenizer, e);
    }
    free(word);
    free(number);
    return rc;
}

static int lines_open(void **state, const struct probe_ask *a, struct err *e)
{
    const struct word_lists *words = a->source.words ? a->source.words : &own_words;
    struct lines *s = calloc(1, sizeof *s);
    int rc;

    if (!s)
        return err_set(e, E_SYS, "out of memory");
    *state = s;
    s->ask = *a;
    python_random_seed(&s->random, a->seed);
    if ((rc = fill(&s->adjectives, &words->adjectives, e)) < 0 || (rc = fill(&s->nouns, &words->nouns, e)) < 0)
        return rc;
    rc = probe_fit(&s->lines, a->length - REPLY - VARIES, make, s, e);
    python_random_seed(&s->random, a->seed);
    return rc == 0 && s->lines == 0 ? probe_too_few(a, LEAST, REPLY + VARIES, make, s, e) : rc;
}

static int lines_next(void *state, struct probe *p, struct err *e)
{
    struct lines *s = state;

    return probe_make_fitting(p, &items, &s->ask, s->lines, &s->random, make, s, e);
}

static void lines_close(void *state)
{
    struct lines *s = state;

    free(s->adjectives.word);
    free(s->nouns.word);
    free(s);
}

const struct probe_kind probe_lines = {
    .name = "lines", .what = "the number in one of many named lines",
    .origin = "LongChat, LongEval's lines, longeval/utils.py (Apache-2.0)", .score = PROBE_NUMBER,
    .reply = REPLY, .deep = true, .seed = 0, .open = lines_open, .next = lines_next, .close = lines_close,
};
