/* probes/niah.c - RULER's needles in a haystack, eight kinds. */
#include "probes/kinds.h"
#include "probes/ruler.h"
#include "probes/ruler_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* scripts/data/synthetic/niah.py, with the settings of scripts/synthetic.yaml. */
enum { REPLY = 128, MOST = 4, DEPTHS = 40, ESSAY_STEP = 500, LINE_STEP = 25, SHORT_STEP = 5 };
enum hay { NOISE, ESSAY, NEEDLES };

struct shape {
    enum hay hay;
    bool uuid_keys, uuid_values;
    int keys, values, queries; /* values: of each key */
};

static const char noise[] =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";

struct niah {
    struct ruler ruler;
    const struct shape *shape;
    struct word_pairs *pairs;
    struct ruler_text text;
    struct buf hay; /* lines of the other haystacks, each with its line end */
};

/* What is drawn for one prompt: names as offsets of NUL-terminated strings in text. */
struct drawn {
    struct buf text;
    size_t key[MOST], value[MOST][MOST], needle[MOST];
    int owner[MOST];    /* whose needle it is, before shuffling */
    int order[MOST];    /* needles as they are shuffled */
    int64_t place[MOST]; /* of the needles in that order: among sentences or lines */
    int64_t query[MOST];
    int needles;
};

static int draw_name(struct niah *s, bool uuid, bool key, struct buf *b, struct err *e)
{
    char id[37];

    if (uuid) {
        probe_uuid(&s->ruler.random, id);
        return buf_add(b, id, 36, e);
    }
    if (!key)
        return buf_printf(b, e, "%d", (int)python_random_int(&s->ruler.random, 1000000, 9999999));
    return word_pairs_add(s->pairs, (int64_t)python_random_below(&s->ruler.random,
                                                               (uint64_t)word_pairs_count(s->pairs)),
                          b, e);
}

static const char *type_of(const struct niah *s) { return s->shape->uuid_values ? "uuids" : "numbers"; }

/* A new string at the end of d->text. */
static int end_string(struct drawn *d, int rc, struct err *e)
{
    return rc < 0 ? rc : buf_add(&d->text, "", 1, e);
}

static int draw_needles(struct niah *s, struct drawn *d, struct err *e)
{
    const struct shape *h = s->shape;
    struct python_random again;
    int rc = 0;

    for (int k = 0; k < h->keys && rc == 0; k++) {
        d->key[k] = d->text.len;
        rc = end_string(d, draw_name(s, h->uuid_keys, true, &d->text, e), e);
        for (int v = 0; v < h->values && rc == 0; v++, d->needles++) {
            d->value[k][v] = d->text.len;
            if ((rc = end_string(d, draw_name(s, h->uuid_values, false, &d->text, e), e)) < 0)
                break;
            d->owner[d->needles] = k;
            d->order[d->needles] = d->needles;
            /* the buffer may move while it is written to */
            if ((rc = buf_reserve(&d->text, d->text.len + 128, e)) < 0)
                break;
            d->needle[d->needles] = d->text.len;
            rc = end_string(d, buf_printf(&d->text, e, "One of the special magic %s for %s is: %s.",
                                          type_of(s), d->text.p + d->key[k],
                                          d->text.p + d->value[k][v]), e);
        }
    }
    python_random_seed(&again, s->ruler.ask.seed);
    python_random_shuffle(&again, d->order, d->needles, sizeof *d->order);
    return rc;
}

/* The lines that the needles are put between. */
static int draw_hay(struct niah *s, int64_t size, struct err *e)
{
    int rc = 0;

    s->hay.len = 0;
    for (int64_t i = 0; i < size && rc == 0; i++)
        if (s->shape->hay == NOISE) {
            rc = buf_printf(&s->hay, e, "%s\n", noise);
        } else if ((rc = buf_printf(&s->hay, e, "One of the special magic %s for ", type_of(s))) == 0 &&
                   (rc = draw_name(s, s->shape->uuid_keys, true, &s->hay, e)) == 0 &&
                   (rc = buf_printf(&s->hay, e, " is: ")) == 0 &&
                   (rc = draw_name(s, s->shape->uuid_values, false, &s->hay, e)) == 0) {
            rc = buf_printf(&s->hay, e, ".\n");
        }
    return rc;
}

static int upwards(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

/* Where the needles go: n sentences or lines. numpy's round(linspace(0, 100, 40)) of an essay. */
static int draw_places(struct niah *s, struct drawn *d, int64_t n, struct err *e)
{
    const bool essay = s->shape->hay == ESSAY;
    int64_t at[MOST];
    int rc = python_random_sample(&s->ruler.random, essay ? DEPTHS : n, d->needles, at, e);

    if (rc < 0)
        return rc;
    for (int i = 0; essay && i < d->needles; i++)
        at[i] = (int64_t)((double)n * ((double)((at[i] * 200 + 39) / 78) / 100));
    qsort(at, (size_t)d->needles, sizeof *at, upwards);
    for (int i = 0; i < d->needles; i++) /* lines are put in from the last place to the first */
        d->place[i] = at[essay ? i : d->needles - 1 - i];
    return 0;
}

/* Needles and their places, so that places go up; the asked one where it is asked for. */
static void put_in_order(const struct niah *s, struct drawn *d, int64_t n)
{
    if (s->ruler.ask.depth >= 0)
        for (int i = 0; i < d->needles; i++)
            if (d->owner[d->order[i]] == d->query[0])
                d->place[i] = (int64_t)(s->ruler.ask.depth * (double)n + 0.5);
    for (int i = 1; i < d->needles; i++)
        for (int k = i; k > 0 && d->place[k - 1] > d->place[k]; k--) {
            const int64_t place = d->place[k];
            const int needle = d->order[k];

            d->place[k] = d->place[k - 1];
            d->order[k] = d->order[k - 1];
            d->place[k - 1] = place;
            d->order[k - 1] = needle;
        }
}

/* Sentences with a space between two, and the needles. */
static int add_essay(const struct niah *s, const struct drawn *d, struct buf *out, struct err *e)
{
    const struct sentences *t = &s->text.sentences;
    int64_t at = 0;
    int rc = 0;

    for (int i = 0; i <= d->needles && rc == 0; i++) {
        const int64_t to = i < d->needles ? d->place[i] : t->n;

        for (bool first = true; at < to && rc == 0; at++, first = false) {
            if (!first)
                rc = buf_add(out, " ", 1, e);
            if (rc == 0)
                rc = buf_add(out, s->text.now.p + t->at[at].from, t->at[at].to - t->at[at].from, e);
        }
        if (i < d->needles && rc == 0)
            rc = buf_printf(out, e, " %s ", d->text.p + d->needle[d->order[i]]);
    }
    return rc;
}

/* Lines, and the needles between them. */
static int add_lines(const struct niah *s, const struct drawn *d, struct buf *out, struct err *e)
{
    const char *p = s->hay.p, *const end = p + s->hay.len;
    int64_t line = 0;
    int rc = 0;

    for (int i = 0; i <= d->needles && rc == 0; i++) {
        const char *from = p;

        for (; p < end && (i == d->needles || line < d->place[i]); line++)
            p = (const char *)memchr(p, '\n', (size_t)(end - p)) + 1;
        rc = buf_add(out, from, (size_t)(p - from), e);
        if (i < d->needles && rc == 0)
            rc = buf_printf(out, e, "%s\n", d->text.p + d->needle[d->order[i]]);
    }
    if (rc == 0)
        out->len--; /* the last line has no end of its own */
    return rc;
}

static int add_question(const struct niah *s, const struct drawn *d, struct probe *p, struct err *e)
{
    const struct shape *h = s->shape;
    const bool one = h->queries * h->values == 1;
    const char *type = type_of(s);
    const int n = (int)strlen(type) - one;
    struct buf query = { 0 };
    int rc = 0;

    for (int i = 0; i < h->queries && rc == 0; i++)
        rc = buf_printf(&query, e, "%s%s", i == 0 ? "" : i < h->queries - 1 ? ", " : ", and ",
                        d->text.p + d->key[d->query[i]]);
    if (rc == 0)
        rc = buf_printf(&p->prompt, e, "\nWhat %s special magic %.*s for %s mentioned in the provided "
                        "text? The special magic %.*s for %s mentioned in the provided text %s",
                        one ? "is the" : "are all the", n, type, query.p, n, type, query.p,
                        one ? "is" : "are");
    for (int i = 0; i < h->queries; i++)
        for (int v = 0; v < h->values && rc == 0; v++) {
            const char *value = d->text.p + d->value[d->query[i]][v];

            rc = probe_answer(p, value, strlen(value), e);
        }
    buf_free(&query);
    return rc;
}

static int add_all(const struct niah *s, const struct drawn *d, struct probe *p, struct err *e)
{
    const bool one = s->shape->queries * s->shape->values == 1;
    const int n = (int)strlen(type_of(s)) - one;
    int rc = buf_printf(&p->prompt, e, "%s special magic %.*s %s hidden within the following text. Make "
                        "sure to memorize it. I will quiz you about the %.*s afterwards.\n",
                        one ? "A" : "Some", n, type_of(s), one ? "is" : "are", n, type_of(s));

    if (rc == 0)
        rc = s->shape->hay == ESSAY ? add_essay(s, d, &p->prompt, e) : add_lines(s, d, &p->prompt, e);
    if (rc == 0 && (rc = add_question(s, d, p, e)) == 0 &&
        (rc = probe_count(p, s->ruler.ask.tokenizer, e)) == 0)
        ruler_depth(p);
    return rc;
}

/* Whether needles can go into the text of a prompt. */
static int check_text(const struct niah *s, int64_t size, bool fits, struct err *e)
{
    if (!fits && size <= s->ruler.step)
        return err_set(e, E_DATA, "the first %" PRId64 " words of the text have more than %zu bytes", size,
                       s->text.most);
    if (fits && size >= s->ruler.step && s->text.sentences.n < 2)
        return err_set(e, E_DATA, "the text has one sentence only, and needles go between sentences");
    return 0;
}

static int niah_make(void *state, int64_t size, struct probe *p, struct err *e)
{
    struct niah *s = state;
    const bool essay = s->shape->hay == ESSAY;
    struct drawn d = { .needles = 0 };
    int64_t n = size;
    bool fits = true;
    int rc = draw_needles(s, &d, e);

    ruler_begin(p);
    if (rc == 0)
        rc = essay ? ruler_text_take(&s->text, size, &fits, e) : draw_hay(s, size, e);
    if (rc == 0 && essay && (rc = check_text(s, size, fits, e)) == 0)
        n = s->text.sentences.n;
    if (rc == 0 && (rc = draw_places(s, &d, fits ? n : 1, e)) == 0 &&
        (rc = python_random_sample(&s->ruler.random, s->shape->keys, s->shape->queries, d.query, e)) == 0) {
        put_in_order(s, &d, n);
        p->tokens = RULER_TOO_LARGE;
        if (fits)
            rc = add_all(s, &d, p, e);
    }
    buf_free(&d.text);
    return rc;
}

static void niah_close(void *state)
{
    struct niah *s = state;

    word_pairs_close(s->pairs);
    ruler_text_free(&s->text);
    buf_free(&s->hay);
    free(s);
}

static int niah_open(void **state, const struct shape *h, const struct probe_ask *a, struct err *e)
{
    struct niah *s = calloc(1, sizeof *s);
    int rc;

    if (!s)
        return err_set(e, E_SYS, "out of memory");
    *state = s;
    s->shape = h;
    ruler_init(&s->ruler, a, REPLY, niah_make);
    s->ruler.least = 1;
    if (h->hay == ESSAY)
        s->ruler.step = ESSAY_STEP;
    else
        s->ruler.step = a->length < RULER_SHORT ? SHORT_STEP : LINE_STEP;
    if ((rc = word_pairs_open(&s->pairs, s->ruler.words, e)) < 0 ||
        (h->hay == ESSAY && (rc = ruler_text_open(&s->text, a, e)) < 0))
        return rc;
    return ruler_search(&s->ruler, s->ruler.step, 3, false, e);
}

static int niah_next(void *state, struct probe *p, struct err *e)
{
    return ruler_next(&((struct niah *)state)->ruler, p, e);
}

#define KIND(id, text, depths, hay, ...)                                                             \
    static const struct shape shape_##id = { hay, __VA_ARGS__ };                                     \
    static int open_##id(void **state, const struct probe_ask *a, struct err *e)                     \
    {                                                                                                \
        return niah_open(state, &shape_##id, a, e);                                                  \
    }                                                                                                \
    const struct probe_kind probe_niah_##id = {                                                      \
        .name = "niah_" #id, .what = text, .origin = "RULER, niah.py (Apache-2.0)",                  \
        .score = PROBE_ALL, .reply = REPLY, .deep = depths,                                          \
        .needs_text = (hay) == ESSAY, .seed = RULER_SEED,                                            \
        .open = open_##id, .next = niah_next, .close = niah_close,                                   \
    }

KIND(single_1, "a number in sentences about grass, sky and sun", true, NOISE, 0, 0, 1, 1, 1);
KIND(single_2, "a number in text", true, ESSAY, 0, 0, 1, 1, 1);
KIND(single_3, "a UUID in text", true, ESSAY, 0, 1, 1, 1, 1);
KIND(multikey_1, "a number in text, of four with other names", true, ESSAY, 0, 0, 4, 1, 1);
KIND(multikey_2, "a number among nothing but numbers with other names", true, NEEDLES, 0, 0, 1, 1, 1);
KIND(multikey_3, "a UUID among nothing but UUIDs, by a UUID", true, NEEDLES, 1, 1, 1, 1, 1);
KIND(multivalue, "four numbers of one name in text", false, ESSAY, 0, 0, 1, 4, 1);
KIND(multiquery, "four numbers of four names in text", false, ESSAY, 0, 0, 4, 1, 4);
