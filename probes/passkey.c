/* probes/passkey.c - passkey retrieval, as LongLoRA's own script makes it. */
#include "probes/kinds.h"
#include "probes/fit.h"
#include "probes/python_random.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * dvlab-research/LongLoRA, passkey_retrivial.py (Apache-2.0), after CStanKonrad/long_llama and
 * Mohtashami and Jaggi 2023. The filler has 3.75 characters a token of Llama's, in whole KiB; prompt i
 * is that of seed + i; what is random are numpy's numbers. There the task's own 90 tokens come on top
 * of a length: here the filler has as many KiB less as make prompt and reply fit.
 */
enum { KIB = 1024, REPLY = 6, VARIES = 16, KEYS = 50000 };

static const struct probe_items items = { .least = KIB, .step = KIB, .reply = REPLY, .spare = VARIES };

static const char task[] =
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. I "
    "will quiz you about the important information there.";
static const char filler[] =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. ";
static const char question[] = "What is the pass key? The pass key is";

struct passkey {
    struct probe_ask ask;
    int64_t filler; /* characters */
    uint32_t seed;
};

/* The first n characters of the filler, which goes round. */
static int add_filler(struct buf *b, int64_t n, struct err *e)
{
    int64_t round = sizeof filler - 1;
    int rc = 0;

    for (int64_t at = 0; at < n && rc == 0; at += round)
        rc = buf_add(b, filler, (size_t)(n - at < round ? n - at : round), e);
    return rc;
}

static int make(void *state, int64_t n, struct probe *p, struct err *e)
{
    const struct passkey *s = state;
    struct python_random r;
    int64_t before, key;
    char answer[24];
    int rc;

    numpy_random_seed(&r, s->seed);
    before = numpy_random_int(&r, 0, n);
    key = numpy_random_int(&r, 1, KEYS);
    if (s->ask.depth >= 0)
        before = (int64_t)(s->ask.depth * (double)n + 0.5);
    p->prompt.len = p->answers.len = 0;
    p->n = 0;
    p->depth = (double)before / (double)n;
    if ((rc = buf_printf(&p->prompt, e, "%s\n", task)) == 0 &&
        (rc = add_filler(&p->prompt, before, e)) == 0 &&
        (rc = buf_printf(&p->prompt, e, "\nThe pass key is %" PRId64 ". Remember it. %" PRId64
                         " is the pass key.\n", key, key)) == 0 &&
        (rc = add_filler(&p->prompt, n - before, e)) == 0 &&
        (rc = buf_printf(&p->prompt, e, "\n%s", question)) == 0 &&
        (rc = probe_count(p, s->ask.tokenizer, e)) == 0) {
        snprintf(answer, sizeof answer, "%" PRId64, key);
        rc = probe_answer(p, answer, strlen(answer), e);
    }
    return rc;
}

static int passkey_open(void **state, const struct probe_ask *a, struct err *e)
{
    struct passkey *s = calloc(1, sizeof *s);
    struct probe p = { 0 };
    int rc = 0;

    if (!s)
        return err_set(e, E_SYS, "out of memory");
    *state = s;
    s->ask = *a;
    s->seed = (uint32_t)a->seed;
    s->filler = a->length * 15 / 4 / KIB * KIB;
    /* one for all prompts, though keys have more or fewer tokens */
    while (rc == 0 && s->filler >= KIB && (rc = make(s, s->filler, &p, e)) == 0 &&
           p.tokens > a->length - REPLY - VARIES)
        s->filler -= KIB;
    probe_free(&p);
    return rc == 0 && s->filler < KIB ? probe_too_few(a, KIB, REPLY + VARIES, make, s, e) : rc;
}

static int passkey_next(void *state, struct probe *p, struct err *e)
{
    struct passkey *s = state;
    int rc = probe_make_fitting(p, &items, &s->ask, s->filler, NULL, make, s, e);

    s->seed++;
    return rc;
}

const struct probe_kind probe_passkey = {
    .name = "passkey", .what = "a number in sentences about grass, sky and sun",
    .origin = "LongLoRA, passkey_retrivial.py (Apache-2.0)", .score = PROBE_FIRST, .reply = REPLY,
    .deep = true, .seed = 0, .open = passkey_open, .next = passkey_next, .close = free,
};
