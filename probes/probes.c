/* probes/probes.c - the table of kinds, one stream of prompts, and scores; see probe.h. */
#include "probes/kinds.h"
#include "probes/python_random.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

const struct probe_kind *const PROBE_KINDS[] = {
    &probe_passkey, &probe_lines, &probe_json_kv,
    &probe_niah_single_1, &probe_niah_single_2, &probe_niah_single_3,
    &probe_niah_multikey_1, &probe_niah_multikey_2, &probe_niah_multikey_3,
    &probe_niah_multivalue, &probe_niah_multiquery, &probe_vt, &probe_cwe, &probe_fwe,
    &probe_qa1, &probe_qa2, &probe_qa3,
};
const int N_PROBE_KINDS = sizeof PROBE_KINDS / sizeof *PROBE_KINDS;

const struct probe_kind *probe_kind_named(const char *name)
{
    for (int i = 0; i < N_PROBE_KINDS; i++)
        if (strcmp(PROBE_KINDS[i]->name, name) == 0)
            return PROBE_KINDS[i];
    return NULL;
}

struct probes {
    const struct probe_kind *kind;
    struct probe_ask ask;
    void *state;
    int64_t taken;
};

void probe_free(struct probe *p)
{
    buf_free(&p->prompt);
    buf_free(&p->answers);
    buf_free(&p->others);
    *p = (struct probe){ 0 };
}

int probe_answer(struct probe *p, const char *answer, size_t nbytes, struct err *e)
{
    int rc = buf_add(&p->answers, answer, nbytes, e);

    if (rc == 0 && (rc = buf_add(&p->answers, "", 1, e)) == 0)
        p->n++;
    return rc;
}

int probe_other(struct probe *p, const char *answer, size_t nbytes, struct err *e)
{
    int rc = buf_add(&p->others, answer, nbytes, e);

    if (rc == 0 && (rc = buf_add(&p->others, "", 1, e)) == 0)
        p->n_others++;
    return rc;
}

int probe_count(struct probe *p, const struct tokenizer *t, struct err *e)
{
    int32_t *ids = NULL;
    int rc = tokenizer_encode(t, p->prompt.p, p->prompt.len, &ids, &p->tokens, e);

    free(ids);
    return rc;
}

/* Python's int has its least word first, a UUID its most significant digit. */
void probe_uuid(struct python_random *r, char out[37])
{
    uint32_t w[4];

    python_random_bits(r, w, 4);
    w[2] = (w[2] & 0xffff0fffu) | 0x4000u;
    w[1] = (w[1] & 0x3fffffffu) | 0x80000000u;
    snprintf(out, 37, "%08x-%04x-%04x-%04x-%04x%08x", w[3], w[2] >> 16, w[2] & 0xffff, w[1] >> 16,
             w[1] & 0xffff, w[0]);
}

int probes_open(struct probes **out, const struct probe_kind *k, const struct probe_ask *a,
                struct err *e)
{
    struct probes *s;
    int rc;

    *out = NULL;
    if (k->needs_text && !a->source.text) {
        err_set(e, E_USAGE, "'%s' hides its answers in text", k->name);
        return err_hint(e, "give some: --haystack FILE");
    }
    if (!(s = calloc(1, sizeof *s)))
        return err_set(e, E_SYS, "out of memory");
    s->kind = k;
    s->ask = *a;
    if (!k->deep)
        s->ask.depth = -1;
    if ((rc = k->open(&s->state, &s->ask, e)) < 0) {
        probes_close(s);
        return err_within(e, "'%s'", k->name);
    }
    *out = s;
    return 0;
}

/* The contract of every kind is held here: what it makes fits. */
int probes_next(struct probes *s, struct probe *p, struct err *e)
{
    int rc;

    p->prompt.len = p->answers.len = p->others.len = 0;
    p->n = p->n_others = p->tokens = 0;
    p->depth = -1;
    if (s->taken++ >= s->ask.number)
        return err_set(e, E_BUG, "'%s' was opened for %" PRId64 " prompts", s->kind->name,
                       s->ask.number);
    if ((rc = s->kind->next(s->state, p, e)) < 0)
        return err_within(e, "'%s'", s->kind->name);
    if (p->n < 1 || p->tokens < 1 || p->tokens > s->ask.length - s->kind->reply)
        return err_set(e, E_BUG, "'%s': a prompt of %" PRId64 " tokens and %" PRId64 " answers for %"
                       PRId64, s->kind->name, p->tokens, p->n, s->ask.length);
    return 0;
}

void probes_close(struct probes *s)
{
    if (!s)
        return;
    if (s->state)
        s->kind->close(s->state);
    free(s);
}

/* ASCII letters in either case are the same: answers are names, words and numbers. */
static bool stands_in(const char *text, size_t n, const char *what)
{
    size_t k = strlen(what);

    for (size_t i = 0; i + k <= n; i++)
        if (strncasecmp(text + i, what, k) == 0)
            return true;
    return false;
}

static bool begins_with(const char *text, size_t n, const char *what)
{
    size_t k = strlen(what), at = n > 0 && *text == ' ';

    return n - at >= k && memcmp(text + at, what, k) == 0;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* Zeros in front do not count, as the originals compare integers. */
static bool ends_in_number(const char *text, size_t n, const char *what)
{
    size_t to = n, from;

    while (to > 0 && !is_digit(text[to - 1]))
        to--;
    for (from = to; from > 0 && is_digit(text[from - 1]);)
        from--;
    while (to - from > 1 && text[from] == '0')
        from++;
    return to > from && to - from == strlen(what) && memcmp(text + from, what, to - from) == 0;
}

/* Of the output up to its first full stop, or an example that the model makes up. */
static bool names_only(const struct probe *p, const char *text, size_t n)
{
    static const char *const ends[] = { ".", "<context>", "<example>" };
    const char *other = p->others.p;

    for (size_t at = 0; at < n; at++)
        for (int k = 0; k < 3; k++)
            if (strlen(ends[k]) <= n - at && strncasecmp(text + at, ends[k], strlen(ends[k])) == 0)
                n = at;
    for (int64_t i = 0; i < p->n_others; i++, other += strlen(other) + 1)
        if (stands_in(text, n, other))
            return false;
    return stands_in(text, n, p->answers.p);
}

double probe_score(const struct probe_kind *k, const struct probe *p, const char *output,
                   size_t nbytes)
{
    const char *a = p->answers.p;
    int64_t found = 0;

    if (k->score == PROBE_FIRST)
        return begins_with(output, nbytes, a);
    if (k->score == PROBE_NUMBER)
        return ends_in_number(output, nbytes, a);
    if (k->score == PROBE_ONLY)
        return names_only(p, output, nbytes);
    for (int64_t i = 0; i < p->n; i++, a += strlen(a) + 1)
        found += stands_in(output, nbytes, a);
    return k->score == PROBE_ANY ? found > 0 : (double)found / (double)p->n;
}
