/* probes/vt.c - RULER's variable tracking: which variables have a value, each set from the one before. */
#include "probes/kinds.h"
#include "probes/ruler.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * scripts/data/synthetic/variable_tracking.py: one chain of four hops between lines of noise, after an
 * example of at most EXAMPLE tokens whose names and value are drawn anew in each prompt. Where even the
 * smallest example has more (a tokenizer of few pieces), the original never ends, and here it is taken.
 */
enum { REPLY = 30, NAMES = 5, NAME = 5, SHORT_NAME = 3, STEP = 10, SHORT_STEP = 5, EXAMPLE = 500 };

static const char noise[] =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";

struct vt {
    struct ruler ruler;
    struct buf example; /* and behind it its answers and a line end */
};

struct chain {
    char name[NAMES][NAME + 1];
    int value;
};

static void draw_letters(struct vt *s, char *to, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = (char)('A' + python_random_choices(&s->ruler.random, 26));
    to[n] = 0;
}

/* Names are different: of two alike, which the original cannot do with, the second is drawn again. */
static void draw_chain(struct vt *s, bool example, struct chain *c)
{
    for (int i = 0; i < NAMES; i++) {
        draw_letters(s, c->name[i], example ? SHORT_NAME : NAME);
        for (int k = 0; k < i; k++)
            if (strcmp(c->name[k], c->name[i]) == 0) {
                i--;
                break;
            }
    }
    c->value = example ? 12345 : (int)numpy_random_int(&s->ruler.numpy, 10000, 99999);
}

static int upwards(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

/* Template, noise and chain, question. */
static int add_text(struct vt *s, const struct chain *c, int64_t size, struct buf *out, struct err *e)
{
    int64_t at[NAMES];
    int rc = python_random_sample(&s->ruler.random, size, NAMES, at, e), next = 0;

    if (rc < 0)
        return rc;
    qsort(at, NAMES, sizeof *at, upwards);
    rc = buf_printf(out, e, "Memorize and track the chain(s) of variable assignment hidden in the following "
                            "text.\n\n");
    for (int64_t i = 0; i < size && rc == 0; i++) {
        if (next < NAMES && at[next] == i) {
            if (next == 0)
                rc = buf_printf(out, e, "VAR %s = %d\n", c->name[0], c->value);
            else
                rc = buf_printf(out, e, "VAR %s = VAR %s \n", c->name[next], c->name[next - 1]);
            next++;
        }
        if (rc == 0)
            rc = buf_printf(out, e, "%s\n", noise);
    }
    return rc < 0 ? rc : buf_printf(out, e, "Question: Find all variables that are assigned the value %d in "
                                    "the text above. Answer: According to the chain(s) of variable "
                                    "assignment in the text above, %d variables are assigned the value %d, "
                                    "they are: ", c->value, NAMES, c->value);
}

static int make_example(void *state, int64_t size, struct probe *p, struct err *e)
{
    struct vt *s = state;
    struct chain c;
    int rc;

    ruler_begin(p);
    draw_chain(s, true, &c);
    rc = add_text(s, &c, size, &p->prompt, e);
    for (int i = 0; i < NAMES && rc == 0; i++)
        rc = probe_answer(p, c.name[i], SHORT_NAME, e);
    return rc < 0 ? rc : probe_count(p, s->ruler.ask.tokenizer, e);
}

/* While the size is looked for, without the example. */
static int make_plain(void *state, int64_t size, struct probe *p, struct err *e)
{
    struct vt *s = state;
    struct chain c;
    int rc;

    ruler_begin(p);
    draw_chain(s, false, &c);
    rc = add_text(s, &c, size, &p->prompt, e);
    return rc < 0 ? rc : probe_count(p, s->ruler.ask.tokenizer, e);
}

/* All places of a string, from the left, take another of the same length. */
static void replace(struct buf *b, const char *what, const char *with)
{
    const size_t n = strlen(what);
    char *p = b->p, *const end = p + b->len;

    while ((p = memmem(p, (size_t)(end - p), what, n))) {
        memcpy(p, with, n);
        p += n;
    }
}

/* The example with other names and another value. Its names are the words behind its text. */
static int add_example(struct vt *s, struct buf *out, struct err *e)
{
    const size_t names = s->example.len - NAMES * (SHORT_NAME + 1);
    struct buf b = { 0 };
    char name[SHORT_NAME + 1], fresh[SHORT_NAME + 1], value[12];
    int rc = buf_add(&b, s->example.p, s->example.len, e);

    for (int i = 0; i < NAMES && rc == 0; i++) {
        memcpy(name, s->example.p + names + (size_t)i * (SHORT_NAME + 1), SHORT_NAME);
        name[SHORT_NAME] = 0;
        draw_letters(s, fresh, SHORT_NAME);
        replace(&b, name, fresh);
    }
    if (rc == 0) {
        snprintf(value, sizeof value, "%d", (int)numpy_random_int(&s->ruler.numpy, 10000, 99999));
        replace(&b, "12345", value);
        if ((rc = buf_add(out, b.p, b.len, e)) == 0)
            rc = buf_add(out, "\n", 1, e);
    }
    buf_free(&b);
    return rc;
}

/* Names and values of the chain are drawn before those of the example that goes before it. */
static int make_prompt(void *state, int64_t size, struct probe *p, struct err *e)
{
    struct vt *s = state;
    struct buf text = { 0 };
    struct chain c;
    int rc;

    ruler_begin(p);
    draw_chain(s, false, &c);
    if ((rc = add_text(s, &c, size, &text, e)) == 0 && (rc = add_example(s, &p->prompt, e)) == 0)
        rc = buf_add(&p->prompt, text.p, text.len, e);
    for (int i = 0; i < NAMES && rc == 0; i++)
        rc = probe_answer(p, c.name[i], NAME, e);
    buf_free(&text);
    if (rc == 0 && (rc = probe_count(p, s->ruler.ask.tokenizer, e)) == 0)
        ruler_depth(p);
    return rc;
}

/* The search for the example has a length of its own, and no reply; numbers go on being drawn. */
static int draw_example(struct vt *s, struct probe *p, struct err *e)
{
    const struct ruler own = s->ruler;
    struct err no = { 0 };
    int rc;

    s->ruler.ask.length = EXAMPLE;
    s->ruler.reply = 0;
    s->ruler.step = SHORT_STEP;
    s->ruler.make = make_example;
    if ((rc = ruler_search(&s->ruler, SHORT_STEP, 3, false, &no)) == 0)
        rc = ruler_next(&s->ruler, p, &no);
    if (rc == E_USAGE)
        rc = make_example(s, SHORT_STEP, p, &no);
    s->ruler.ask.length = own.ask.length;
    s->ruler.reply = own.reply;
    s->ruler.step = own.step;
    s->ruler.make = own.make;
    if (rc < 0 && e)
        *e = no;
    return rc;
}

static int find_example(struct vt *s, struct err *e)
{
    struct probe p = { 0 };
    int rc = draw_example(s, &p, e);

    if (rc == 0)
        rc = buf_add(&s->example, p.prompt.p, p.prompt.len, e);
    for (int i = 0; i < NAMES && rc == 0; i++)
        rc = buf_printf(&s->example, e, " %s", p.answers.p + i * (SHORT_NAME + 1));
    if (rc == 0 && (rc = buf_add(&s->example, "\n", 1, e)) == 0) {
        p.prompt.len = 0;
        if ((rc = buf_add(&p.prompt, s->example.p, s->example.len, e)) == 0 &&
            (rc = probe_count(&p, s->ruler.ask.tokenizer, e)) == 0)
            s->ruler.extra = p.tokens;
    }
    probe_free(&p);
    return rc;
}

static int vt_open(void **state, const struct probe_ask *a, struct err *e)
{
    struct vt *s = calloc(1, sizeof *s);
    int rc;

    if (!s)
        return err_set(e, E_SYS, "out of memory");
    *state = s;
    ruler_init(&s->ruler, a, REPLY, make_prompt);
    s->ruler.step = a->length < RULER_SHORT ? SHORT_STEP : STEP;
    s->ruler.least = NAMES;
    if ((rc = find_example(s, e)) < 0)
        return rc;
    s->ruler.plain = make_plain;
    return ruler_search(&s->ruler, s->ruler.step, 3, false, e);
}

static int vt_next(void *state, struct probe *p, struct err *e)
{
    return ruler_next(&((struct vt *)state)->ruler, p, e);
}

static void vt_close(void *state)
{
    struct vt *s = state;

    buf_free(&s->example);
    free(s);
}

const struct probe_kind probe_vt = {
    .name = "vt", .what = "five variables set one from another, among sentences",
    .origin = "RULER, variable_tracking.py (Apache-2.0)", .score = PROBE_ALL, .reply = REPLY,
    .seed = RULER_SEED, .open = vt_open, .next = vt_next, .close = vt_close,
};
