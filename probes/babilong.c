/* probes/babilong.c - BABILong's first three tasks: facts of a story between the sentences of a text. */
#include "probes/kinds.h"
#include "probes/babi_story.h"
#include "probes/fit.h"
#include "probes/python_random.h"
#include "probes/sentences.h"

#include "formats/tokenizer/unicode.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/*
 * booydar/babilong (Apache-2.0), babilong/babilong_utils.py, prompts.py, metrics.py, data/create_tasks.py;
 * Kuratov et al. 2024, arXiv:2406.10149. As there: sentences are nltk's untrained Punkt's, of ten tokens or
 * more, in the order of the text from a place drawn at random; facts, at most one for eight tokens of
 * context, go in order before sentences drawn at random, or behind the last; 20 tokens of reply. Not as there:
 * stories are ours (babi_story.h), one text takes the place of a set of books and goes round, all numbers
 * are those of Python's generator, the length is that of the prompt and its reply instead of 300 less, and
 * the last sentence is cut behind a word, not behind any token.
 */
enum { REPLY = 20, SEED = 42, LEAST_TOKENS = 10, FACT_TOKENS = 8, BYTES_EACH = 64, TASKS = 3, SPARE = 16,
       TRIES = 6, STORIES = 40 };

static const struct {
    const char *instruction, *examples, *post_prompt;
} prompts[TASKS] = {
    { "I will give you context with the facts about positions of different persons hidden in some random text "
      "and a question. You need to answer the question based only on the information from the facts. "
      "If a person was in different locations, use the latest location to answer the question.",
      "<example>\nCharlie went to the hallway. Judith come back to the kitchen. Charlie travelled to balcony. "
      "Where is Charlie?\nAnswer: The most recent location of Charlie is balcony.\n</example>\n\n"
      "<example>\nAlan moved to the garage. Charlie went to the beach. Alan went to the shop. Rouse "
      "travelled to balcony. Where is Alan?\nAnswer: The most recent location of Alan is shop.\n</example>",
      "Always return your answer in the following format: "
      "The most recent location of \u2019person\u2019 is \u2019location\u2019. Do not write anything else after "
      "that." },
    { "I give you context with the facts about locations and actions of different persons "
      "hidden in some random text and a question."
      "You need to answer the question based only on the information from the facts.\n"
      "If a person got an item in the first location and travelled to the second location "
      "the item is also in the second location. "
      "If a person dropped an item in the first location and moved to the second location "
      "the item remains in the first location.",
      "<example>\nCharlie went to the kitchen. Charlie got a bottle. Charlie moved to the balcony. "
      "Where is the bottle?\nAnswer: The bottle is in the balcony.\n</example>\n"
      "<example>\nAlan moved to the garage. Alan got a screw driver. Alan moved to the kitchen. Where "
      "is the screw driver?\nAnswer: The screw driver is in the kitchen.\n</example>",
      "Always return your answer in the following format: The \u2019item\u2019 is in \u2019location\u2019. "
      "Do not write anything else after that." },
    { "I give you context with the facts about locations and actions of different persons "
      "hidden in some random text and a question. "
      "You need to answer the question based only on the information from the facts.\n"
      "If a person got an item in the first location and travelled to the second location "
      "the item is also in the second location. "
      "If a person dropped an item in the first location and moved to the second location "
      "the item remains in the first location.",
      "<example>\nJohn journeyed to the bedroom. Mary grabbed the apple. Mary went back to the bathroom. "
      "Daniel journeyed to the bedroom. Daniel moved to the garden. Mary travelled to the kitchen. "
      "Where was the apple before the kitchen?\nAnswer: Before the kitchen the apple was in the bathroom.\n"
      "</example>\n<example>\nJohn went back to the bedroom. John went back to the garden. John went back to "
      "the kitchen. Sandra took the football. Sandra travelled to the garden. Sandra journeyed to the "
      "bedroom. Where was the football before the bedroom?\nAnswer: Before the bedroom the football was in "
      "the garden.\n</example>",
      "Always return your answer in the following format: "
      "Before the $location_1$ the $item$ was in the $location_2$. Do not write anything else after that." },
};

struct babilong {
    struct probe_ask ask;
    struct python_random random;
    int task;                   /* 1 to TASKS */
    struct sentences sentences; /* of the whole text */
    struct sentence *taken;     /* those of one prompt */
    int64_t n, cap;
    struct babi_story story;
    double *where;              /* of each fact, 0 to 1, going up */
    struct probe scratch;
};

/* Tokens of a sentence with a space before it. */
static int count_tokens(struct babilong *s, struct sentence at, int64_t *tokens, struct err *e)
{
    struct probe *p = &s->scratch;
    int rc;

    p->prompt.len = 0;
    if ((rc = buf_add(&p->prompt, " ", 1, e)) == 0 &&
        (rc = buf_add(&p->prompt, s->ask.source.text + at.from, at.to - at.from, e)) == 0 &&
        (rc = probe_count(p, s->ask.tokenizer, e)) == 0)
        *tokens = p->tokens;
    return rc;
}

/* A sentence behind a word, at about so many bytes; false: it has no word that short. */
static bool cut_sentence(const char *text, struct sentence *at, size_t nbytes)
{
    const char *p = text + at->from + nbytes, *const from = text + at->from, *const end = text + at->to;

    if (nbytes >= at->to - at->from)
        return true;
    while (p > from && (((unsigned char)*p & 0xC0) == 0x80 || !space_at(p, end)))
        p--;
    if (p == from)
        return false;
    at->to = (size_t)(p - text);
    return true;
}

static int take(struct babilong *s, struct sentence at, struct err *e)
{
    size_t cap = (size_t)s->cap;
    int rc = array_grow(&s->taken, &cap, (size_t)s->n, sizeof *s->taken, 64, "sentences", e);

    s->cap = (int64_t)cap;
    if (rc == 0)
        s->taken[s->n++] = at;
    return rc;
}

/* Sentences of so many tokens in all, from the first that begins at place or behind. */
static int take_sentences(struct babilong *s, uint64_t place, int64_t room, struct err *e)
{
    const size_t longest = (size_t)(room > 0 ? room : 1) * BYTES_EACH;
    int64_t first = 0, tokens = 0, skipped = 0;
    int rc = 0;

    s->n = 0;
    for (int64_t low = 0, high = s->sentences.n; low < high; first = low) {
        const int64_t mid = (low + high) / 2;

        if (s->sentences.at[mid].from < place)
            low = mid + 1;
        else
            high = mid;
    }
    for (int64_t i = first; room > 0 && rc == 0; i++) {
        struct sentence at = s->sentences.at[i % s->sentences.n];
        int64_t has = 0;

        if (skipped > s->sentences.n)
            return err_set(e, E_DATA, "no sentence of the text has %d tokens", LEAST_TOKENS);
        skipped++;
        if (!cut_sentence(s->ask.source.text, &at, longest) || (rc = count_tokens(s, at, &has, e)) < 0 ||
            has < LEAST_TOKENS)
            continue;
        skipped = 0;
        if (tokens + has > room) { /* the last one, as far as there is room */
            const double part = (double)(room - tokens) / (double)has;

            if (cut_sentence(s->ask.source.text, &at, (size_t)(part * (double)(at.to - at.from))))
                rc = take(s, at, e);
            break;
        }
        rc = take(s, at, e);
        tokens += has;
    }
    return rc;
}

/* Facts that come before sentence i, or behind the last. */
static int add_facts(struct babilong *s, int64_t i, int *next, const char **fact, struct probe *p,
                     struct err *e)
{
    int rc = 0;

    for (; *next < s->story.n && (int64_t)(s->where[*next] * (double)(s->n + 1)) == i && rc == 0; ++*next) {
        if (i > 0 || *next > 0)
            rc = buf_add(&p->prompt, " ", 1, e);
        if (*next == s->story.told)
            p->depth = (double)p->prompt.len;
        if (rc == 0)
            rc = buf_add(&p->prompt, *fact, strlen(*fact), e);
        *fact += strlen(*fact) + 1;
    }
    return rc;
}

static int add_context(struct babilong *s, struct probe *p, struct err *e)
{
    const char *fact = s->story.facts.p;
    int rc = 0, next = 0;

    for (int64_t i = 0; i <= s->n && rc == 0; i++) {
        rc = add_facts(s, i, &next, &fact, p, e);
        if (i < s->n && rc == 0 && (i > 0 || next > 0))
            rc = buf_add(&p->prompt, " ", 1, e);
        if (i < s->n && rc == 0)
            rc = buf_add(&p->prompt, s->ask.source.text + s->taken[i].from,
                         s->taken[i].to - s->taken[i].from, e);
    }
    return rc;
}

static int add_prompt(struct babilong *s, struct probe *p, struct err *e)
{
    int rc;

    p->prompt.len = 0;
    rc = buf_printf(&p->prompt, e, "%s\n\n%s\n\n%s\n\n<context>\n", prompts[s->task - 1].instruction,
                    prompts[s->task - 1].examples, prompts[s->task - 1].post_prompt);
    if (rc == 0 && (rc = add_context(s, p, e)) == 0)
        rc = buf_printf(&p->prompt, e, "\n</context>\n\nQuestion: %s", s->story.question);
    return rc < 0 ? rc : probe_count(p, s->ask.tokenizer, e);
}

/* Of the places the answer; the others, but for one that the question names. */
static int add_answers(const struct babilong *s, struct probe *p, struct err *e)
{
    int rc = probe_answer(p, s->story.answer, strlen(s->story.answer), e);

    for (int i = 0; i < BABI_PLACES && rc == 0; i++)
        if (babi_places[i] != s->story.answer && !strstr(s->story.question, babi_places[i]))
            rc = probe_other(p, babi_places[i], strlen(babi_places[i]), e);
    return rc;
}

static int upwards(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static int draw_story(struct babilong *s, int most, struct err *e)
{
    double *where;
    int rc = babi_tell(&s->story, s->task, most, &s->random, e);

    if (rc < 0)
        return rc;
    if (!(where = realloc(s->where, (size_t)s->story.n * sizeof *where)))
        return err_set(e, E_SYS, "out of memory for facts");
    s->where = where;
    for (int i = 0; i < s->story.n; i++)
        where[i] = python_random_real(&s->random);
    qsort(where, (size_t)s->story.n, sizeof *where, upwards);
    return 0;
}

/* The longest of some of the shortest stories must fit. E_USAGE. */
static int check_length(struct babilong *s, struct probe *p, struct err *e)
{
    int64_t most = 0;
    int rc = 0;

    s->n = 0;
    for (int i = 0; i < STORIES && rc == 0; i++)
        if ((rc = draw_story(s, BABI_LEAST, e)) == 0 && (rc = add_prompt(s, p, e)) == 0 && p->tokens > most)
            most = p->tokens;
    if (rc < 0 || most + REPLY <= s->ask.length)
        return rc;
    return probe_too_short(&s->ask, most + REPLY, e);
}

/* A story that leaves room for text: with half as many facts each time that one does not. */
static int find_story(struct babilong *s, struct probe *p, int64_t *room, struct err *e)
{
    const int64_t context = s->ask.length - REPLY;
    int most = context / FACT_TOKENS > 512 ? 512 : (int)(context / FACT_TOKENS) - 1, rc;

    *room = -1;
    for (int i = 0; i < STORIES && *room < 0; i++, most /= 2) {
        if (most < BABI_LEAST)
            most = BABI_LEAST;
        s->n = 0;
        if ((rc = draw_story(s, most, e)) < 0 || (rc = add_prompt(s, p, e)) < 0)
            return rc;
        *room = context - p->tokens;
    }
    return *room < 0 ? check_length(s, p, e) : 0;
}

/* Tokens of the whole are not those of its sentences in sum: what that is off by is put right. */
static int fill(struct babilong *s, struct probe *p, int64_t room, struct err *e)
{
    const uint64_t place = python_random_below(&s->random, s->ask.source.nbytes);
    const int64_t most = s->ask.length - REPLY;
    int rc = 0;

    for (int try = 0; try < TRIES && rc == 0; try++) {
        if ((rc = take_sentences(s, place, room, e)) == 0 && (rc = add_prompt(s, p, e)) == 0 &&
            p->tokens <= most && p->tokens >= most - SPARE)
            return 0;
        room += most - p->tokens - SPARE / 2;
    }
    while (rc == 0 && p->tokens > most && s->n > 0) {
        s->n--;
        rc = add_prompt(s, p, e);
    }
    return rc;
}

static int babilong_next(void *state, struct probe *p, struct err *e)
{
    struct babilong *s = state;
    int64_t room;
    int rc = find_story(s, p, &room, e);

    if (rc == 0)
        rc = fill(s, p, room, e);
    p->depth /= (double)p->prompt.len;
    return rc < 0 ? rc : add_answers(s, p, e);
}

static void babilong_close(void *state)
{
    struct babilong *s = state;

    sentences_free(&s->sentences);
    babi_free(&s->story);
    probe_free(&s->scratch);
    free(s->taken);
    free(s->where);
    free(s);
}

static int open_task(void **state, int task, const struct probe_ask *a, struct err *e)
{
    struct babilong *s = calloc(1, sizeof *s);
    struct probe p = { 0 };
    size_t at;
    int rc;

    if (!s)
        return err_set(e, E_SYS, "out of memory");
    *state = s;
    s->ask = *a;
    s->task = task;
    python_random_seed(&s->random, a->seed);
    if (!utf8_valid(a->source.text, a->source.nbytes, &at))
        return err_set(e, E_DATA, "the text is not UTF-8 at byte %zu", at);
    if ((rc = unicode_open(e)) < 0 ||
        (rc = sentences_cut(&s->sentences, SENTENCES_PLAIN, a->source.text, a->source.nbytes, e)) < 0)
        return rc;
    if (s->sentences.n < 2)
        return err_set(e, E_DATA, "the text has no sentences, and facts go between sentences");
    if ((rc = check_length(s, &p, e)) == 0)
        rc = babilong_next(s, &p, e); /* is there a sentence that can be taken? */
    python_random_seed(&s->random, a->seed);
    probe_free(&p);
    return rc;
}

#define KIND(n, text)                                                                                \
    static int open_qa##n(void **state, const struct probe_ask *a, struct err *e)                    \
    {                                                                                                \
        return open_task(state, n, a, e);                                                            \
    }                                                                                                \
    const struct probe_kind probe_qa##n = {                                                          \
        .name = "babilong_qa" #n, .what = text, .origin = "BABILong, babilong_utils.py (Apache-2.0)", \
        .score = PROBE_ONLY, .reply = REPLY, .needs_text = true, .seed = SEED, .open = open_qa##n,   \
        .next = babilong_next, .close = babilong_close,                                              \
    }

KIND(1, "where somebody is, by facts in text");
KIND(2, "where a thing is that people carry, by facts in text");
KIND(3, "where a thing was before, by facts in text");
