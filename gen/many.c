/* gen/many.c - many prompts, several at once; see talk.h. */
#include "gen/talk.h"

#include "base/bytes.h"
#include "base/log.h"
#include "gen/told.h"
#include "model/extend.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/*
 * Each line of the input is a prompt. So many as --parallel says are under way; whichever ends makes
 * room for the next line, and results wait until those before them are out. Every prompt has random numbers
 * of its own (its line's), so that a result does not depend on who was beside it.
 */
struct slot {
    bool busy;
    int64_t line;
    int32_t id;              /* the next token that the model is given */
    int64_t prompt;          /* tokens */
    struct reply_options o;  /* the line's */
    struct reply reply;
    json_t *name;            /* its "id"; NULL: none */
};

struct many {
    struct opening *g;
    FILE *in;
    struct slot *slot;
    int64_t n_slots, lines, printed, failed, tokens, prompts;
    char **result;           /* of lines [printed, lines), by line - printed; NULL: not yet */
    size_t cap;
    struct piece *piece;
    float *logits;           /* [n_slots][vocab] */
    struct buf line;         /* in hand */
    char *read;              /* getline's */
    size_t read_cap;
    bool ended;
};

/* Prints what is ready in the order of the lines. */
static int hand_on(struct many *m, int64_t line, char *text, struct err *e)
{
    int64_t n = 0;

    m->result[line - m->printed] = text;
    while (n < m->lines - m->printed && m->result[n]) {
        if (group_writes(opening_ranks(m->g)))
            puts(m->result[n]);
        free(m->result[n++]);
    }
    memmove(m->result, m->result + n, (size_t)(m->lines - m->printed - n) * sizeof *m->result);
    m->printed += n;
    return fflush(stdout) != 0 ? err_sys(e, E_IO, "cannot write standard output") : 0;
}

static int room_for_line(struct many *m, struct err *e)
{
    int64_t n = m->lines - m->printed;
    int rc = array_grow(&m->result, &m->cap, (size_t)n, sizeof *m->result, 64, "results", e);

    if (rc < 0)
        return rc;
    m->result[n] = NULL;
    m->lines++;
    return 0;
}

static json_t *reals(const double *x, int64_t n)
{
    json_t *a = json_array();

    for (int64_t i = 0; i < n; i++)
        json_array_append_new(a, json_real(x[i]));
    return a;
}

static int finish(struct many *m, struct slot *s, struct err *e)
{
    const struct reply *r = &s->reply;
    json_t *o = json_object();
    char *text;

    if (s->name)
        json_object_set(o, "id", s->name);
    json_object_set_new(o, "text", json_stringn_nocheck(r->text.len ? r->text.p : "", r->text.len));
    json_object_set_new(o, "end", json_string(reply_end_word(r->end)));
    json_object_set_new(o, "prompt_tokens", json_integer(s->prompt));
    json_object_set_new(o, "tokens", json_integer(r->n));
    if (m->g->o->logprobs)
        json_object_set_new(o, "logprobs", reals(r->logprobs, r->n));
    text = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    m->tokens += r->n;
    json_decref(s->name);
    reply_close(&s->reply);
    s->busy = false;
    s->name = NULL;
    if (!text)
        return err_set(e, E_DATA, "the text of line %" PRId64 " is not UTF-8", s->line + 1);
    return hand_on(m, s->line, text, e);
}

/* A line that cannot be answered says why; the others go on. */
static int fail(struct many *m, struct slot *s, const struct err *why, struct err *e)
{
    json_t *o = json_object();
    char first[sizeof why->msg], *text;

    snprintf(first, sizeof first, "%.*s", (int)strcspn(why->msg, "\n"), why->msg);
    if (s->name)
        json_object_set(o, "id", s->name);
    json_object_set_new(o, "error", json_string(first));
    text = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    m->failed++;
    json_decref(s->name);
    s->name = NULL;
    return text ? hand_on(m, s->line, text, e) : err_set(e, E_SYS, "out of memory");
}

/* Messages of an array; texts are borrowed from it. */
static int messages_of(const json_t *a, struct message *m, int most, int *n, struct err *e)
{
    static const char *const words[] = { "system", "user", "assistant" };
    const json_t *one;
    size_t i;

    *n = 0;
    json_array_foreach(a, i, one) {
        const char *role = json_string_value(json_object_get(one, "role"));
        const json_t *text = json_object_get(one, "content");
        int r = 0;

        while (r < 3 && (!role || strcmp(role, words[r]) != 0))
            r++;
        if (r == 3 || !json_is_string(text) || (int)i == most)
            return err_set(e, E_DATA, "message %zu is not one of a role and a content", i + 1);
        m[(*n)++] = (struct message){ (enum turn_role)r, json_string_value(text),
                                      json_string_length(text) };
    }
    return 0;
}

/* What a line asks, as ids. */
static int read_line(struct many *m, struct slot *s, const char *line, size_t n, int32_t **ids,
                     int64_t *count, struct err *e)
{
    const struct opening *g = m->g;
    struct message msg[64];
    json_error_t where;
    json_t *o = json_loadb(line, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &where);
    const json_t *prompt = json_object_get(o, "prompt"), *list = json_object_get(o, "messages");
    const json_t *most = json_object_get(o, "max_tokens");
    int k = 0, rc = 0;

    if (!json_is_object(o))
        rc = err_set(e, E_DATA, "line %" PRId64 " is no JSON object: %.80s", s->line + 1, where.text);
    else if (json_is_array(list))
        rc = messages_of(list, msg, 64, &k, e);
    else if (json_is_string(prompt)) {
        if (g->o->system)
            msg[k++] = (struct message){ TURN_SYSTEM, g->o->system, strlen(g->o->system) };
        msg[k++] = (struct message){ TURN_USER, json_string_value(prompt), json_string_length(prompt) };
    } else
        rc = err_set(e, E_DATA, "line %" PRId64 " has neither a \"prompt\" nor \"messages\"",
                     s->line + 1);
    s->name = json_incref(json_object_get(o, "id"));
    if (rc == 0 && most && (!json_is_integer(most) || json_integer_value(most) < 0))
        rc = err_set(e, E_DATA, "line %" PRId64 ": max_tokens is no number from 0 on", s->line + 1);
    s->o = g->o->reply;
    if (rc == 0 && most && json_integer_value(most) < s->o.max_tokens)
        s->o.max_tokens = json_integer_value(most);
    if (rc == 0)
        rc = turns_ids(g->chat, g->t, !g->o->no_bos, msg, k, ids, count, e);
    json_decref(o);
    return rc;
}

/* The reply's next token from a slot's logits; a reply that ends is finished. */
static int go_on(struct many *m, struct slot *s, float *logits, struct err *e)
{
    int rc = s->reply.end == REPLY_GOES_ON ? reply_next(&s->reply, logits, &s->id, e) : 0;

    if (rc == 0 && s->reply.end != REPLY_GOES_ON)
        rc = finish(m, s, e);
    return rc;
}

/* A slot takes the next line. */
static int begin(struct many *m, struct slot *s, const char *line, size_t n, struct err *e)
{
    struct session *on = &m->g->s;
    int64_t seq = s - m->slot, count = 0;
    struct err why = { 0 };
    int32_t *ids = NULL;
    int rc;

    s->line = m->lines;
    if ((rc = room_for_line(m, e)) < 0)
        return rc;
    if ((rc = read_line(m, s, line, n, &ids, &count, &why)) == 0 && count == 0)
        rc = err_set(&why, E_DATA, "an empty prompt");
    if (rc == 0 && !on->options.cache.window && count + s->o.max_tokens > on->options.cache.rows)
        rc = err_set(&why, E_CONFIG, "%" PRId64 " tokens and %" PRId64 " to come do not fit --ctx %"
                     PRId64, count, s->o.max_tokens, on->options.cache.rows);
    if (rc < 0) {
        free(ids);
        return rc == E_SYS ? (*e = why, rc) : fail(m, s, &why, e);
    }
    model_text_cut(on->model, seq, 0);
    s->prompt = count;
    m->prompts += count;
    rc = model_extend(on->model, &(struct extend){ 1, &(struct piece){ seq, count, ids }, m->logits,
                                                   false }, e);
    if (rc == 0)
        rc = reply_open(&s->reply, &s->o, m->g->t, on->config.vocab, (uint64_t)s->line, ids, count, e);
    if (rc == 0) {
        s->busy = true;
        rc = go_on(m, s, m->logits, e);
    }
    free(ids);
    return rc;
}

/* The next line, or the end; of several ranks the first reads. */
static int next_line(struct many *m, struct err *e)
{
    struct group *ranks = opening_ranks(m->g);
    int64_t n = 0;
    int rc = 0;

    m->line.len = 0;
    if (ranks->rank == 0) {
        n = getline(&m->read, &m->read_cap, m->in);
        if (n < 0 && ferror(m->in))
            rc = err_sys(e, errno == EISDIR ? E_NOINPUT : E_IO, "cannot read '%s'", m->g->o->batch);
        else if (n > 0)
            rc = buf_add(&m->line, m->read, (size_t)(n - (m->read[n - 1] == '\n')), e);
    }
    rc = told_number(ranks, rc, &n, e);
    m->ended = n < 0;
    return rc < 0 || m->ended ? rc : told_bytes(ranks, 0, &m->line, 0, e);
}

/* Free slots take lines while there are any. */
static int refill(struct many *m, struct err *e)
{
    int rc = 0;

    for (int64_t i = 0; i < m->n_slots && rc == 0; i++)
        while (!m->slot[i].busy && !m->ended && rc == 0)
            if ((rc = next_line(m, e)) == 0 && !m->ended && m->line.len)
                rc = begin(m, &m->slot[i], m->line.p, m->line.len, e);
    return rc;
}

/* One token of every reply under way. *any: there was one. */
static int step(struct many *m, bool *any, struct err *e)
{
    int64_t n = 0, vocab = m->g->s.config.vocab;
    int rc;

    for (int64_t i = 0; i < m->n_slots; i++)
        if (m->slot[i].busy)
            m->piece[n++] = (struct piece){ i, 1, &m->slot[i].id };
    *any = n > 0;
    if (n == 0)
        return 0;
    rc = model_extend(m->g->s.model, &(struct extend){ n, m->piece, m->logits, false }, e);
    for (int64_t i = 0; i < n && rc == 0; i++)
        rc = go_on(m, &m->slot[m->piece[i].seq], m->logits + i * vocab, e);
    return rc;
}

static int open_many(struct many *m, struct err *e)
{
    int64_t n = m->n_slots;
    const char *path = m->g->o->batch;

    if (opening_ranks(m->g)->rank == 0)
        m->in = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
    if (!m->in && opening_ranks(m->g)->rank == 0)
        return err_sys(e, E_NOINPUT, "cannot open '%s'", path);
    m->slot = calloc((size_t)n, sizeof *m->slot);
    m->piece = calloc((size_t)n, sizeof *m->piece);
    m->logits = malloc((size_t)(n * m->g->s.config.vocab) * sizeof *m->logits);
    return m->slot && m->piece && m->logits ? 0 : err_set(e, E_SYS, "out of memory");
}

static void close_many(struct many *m)
{
    for (int64_t i = 0; i < m->n_slots && m->slot; i++) {
        reply_close(&m->slot[i].reply);
        json_decref(m->slot[i].name);
    }
    for (int64_t i = 0; i < m->lines - m->printed; i++)
        free(m->result[i]);
    if (m->in && m->in != stdin)
        fclose(m->in);
    buf_free(&m->line);
    free(m->read);
    free(m->result);
    free(m->slot);
    free(m->piece);
    free(m->logits);
}

int talk_many(struct opening *g, struct err *e)
{
    struct many m = { .g = g, .n_slots = g->o->parallel };
    double start = now_s(), s;
    bool any = true;
    int rc = group_meet(opening_ranks(g), open_many(&m, e), NULL, e);

    while (rc == 0 && any) {
        rc = refill(&m, e);
        if (rc == 0)
            rc = step(&m, &any, e);
    }
    s = now_s() - start;
    if (rc == 0)
        log_info("%" PRId64 " prompts: %" PRId64 " tokens read, %" PRId64 " written in %.3g s, %.4g "
                 "written a second", m.lines, m.prompts, m.tokens, s, (double)m.tokens / s);
    if (rc == 0 && m.failed)
        rc = err_set(e, E_DATA, "%" PRId64 " of %" PRId64 " prompts could not be answered: their lines say "
                     "why", m.failed, m.lines);
    close_many(&m);
    return rc;
}
