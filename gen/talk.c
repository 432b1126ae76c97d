/* gen/talk.c - see talk.h. */
#include "gen/talk.h"

#include "base/log.h"
#include "base/utf8.h"
#include "gen/book.h"
#include "gen/screen.h"
#include "gen/told.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Times of one reply, for the line on standard error. */
struct clock {
    double start, first, end;
    int64_t prompt, kept; /* tokens of the prompt, and of those that were in the cache */
};

static void say_speed(const struct clock *c, const struct reply *r)
{
    double reading = c->first - c->start, writing = c->end - c->first;

    log_info("%" PRId64 " tokens read (%" PRId64 " kept) in %.3g s; %" PRId64 " written, %.4g tokens/s, the "
             "first after %.3g s; end: %s", c->prompt, c->kept, reading, r->n,
             writing > 0 && r->n > 1 ? (double)(r->n - 1) / writing : 0, reading,
             reply_end_word(r->end));
}

/* Hands on what has become certain. On a terminal it does nothing but be read. */
static int show(const struct opening *g, const struct reply *r, size_t *shown, struct err *e)
{
    struct buf clean = { 0 };
    const char *p = r->text.p + *shown;
    size_t n = r->given - *shown;
    int rc = 0;

    if (n == 0 || g->o->json || !group_writes(opening_ranks(g)))
        return 0;
    if (isatty(STDOUT_FILENO) && !g->o->raw) {
        rc = screen_clean(p, n, &clean, e);
        p = clean.p, n = clean.len;
    }
    if (rc == 0 && (fwrite(p, 1, n, stdout) < n || fflush(stdout) != 0))
        rc = err_sys(e, E_IO, "cannot write standard output");
    buf_free(&clean);
    *shown = r->given;
    return rc;
}

/* Tokens until the reply ends, or the text has no more room. */
static int write_reply(struct opening *g, struct reply *r, struct clock *c, struct err *e)
{
    int64_t rows = g->s.options.cache.window ? INT64_MAX : g->s.options.cache.rows;
    size_t shown = 0;
    int rc = 0;

    while (rc == 0 && r->end == REPLY_GOES_ON) {
        int32_t id;

        if ((rc = reply_next(r, g->logits, &id, e)) < 0)
            break;
        if (r->n <= 1)
            c->first = now_s();
        rc = show(g, r, &shown, e);
        if (r->end != REPLY_GOES_ON || rc < 0)
            break;
        if (g->s.n >= rows) {
            log_warn("the text has reached its %" PRId64 " tokens (--ctx)", rows);
            r->end = REPLY_LENGTH;
            r->given = r->text.len;
            rc = show(g, r, &shown, e);
            break;
        }
        rc = said_add(&g->said, &g->s, id, g->logits, e);
    }
    c->end = now_s();
    return rc;
}

/* Of several ranks the first prints it. */
static int put_json(bool print, const struct reply *r, const struct clock *c, bool logprobs, struct err *e)
{
    json_t *o = json_pack("{s:o, s:s, s:I, s:I}", "text",
                          json_stringn_nocheck(r->text.len ? r->text.p : "", r->text.len), "end",
                          reply_end_word(r->end), "prompt_tokens", (json_int_t)c->prompt, "tokens",
                          (json_int_t)r->n);
    json_t *list = json_array();
    char *line;

    for (int64_t i = 0; i < r->n && logprobs; i++)
        json_array_append_new(list, json_real(r->logprobs[i]));
    if (logprobs)
        json_object_set(o, "logprobs", list);
    json_decref(list);
    line = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    if (!line)
        return err_set(e, E_DATA, "the text is not UTF-8");
    if (print)
        puts(line);
    free(line);
    return 0;
}

/* The session's text becomes ids, and a reply follows. */
static int answer(struct opening *g, const int32_t *ids, int64_t n, uint64_t number, struct reply *r,
                  struct err *e)
{
    struct clock c = { .start = now_s(), .prompt = n };
    int rc = reply_open(r, &g->o->reply, g->t, g->s.config.vocab, number, ids, n, e);

    while (c.kept < n && c.kept < g->said.n && g->said.ids[c.kept] == ids[c.kept])
        c.kept++;
    if (rc == 0)
        rc = said_become(&g->said, &g->s, ids, n, g->logits, e);
    if (rc == 0 && (rc = write_reply(g, r, &c, e)) == 0) {
        if (g->o->json)
            rc = put_json(group_writes(opening_ranks(g)), r, &c, g->o->logprobs, e);
        else if (group_writes(opening_ranks(g)))
            putchar('\n');
        say_speed(&c, r);
    }
    return rc;
}

int talk_once(struct opening *g, const struct question *q, struct err *e)
{
    struct reply r = { 0 };
    int rc = g->o->session ? book_use(g, q, e) : 0;

    if (rc == 0)
        rc = answer(g, q->ids, q->n, 0, &r, e);
    reply_close(&r);
    return rc;
}

/* Messages of a conversation, texts malloc'ed. */
struct history {
    struct message *m;
    int n, cap;
};

static int remember(struct history *h, enum turn_role role, const char *text, size_t n, struct err *e)
{
    struct message *m = h->m;
    char *copy = malloc(n + 1);

    if (h->n == h->cap) {
        m = realloc(h->m, (size_t)(h->cap + 64) * sizeof *m);
        h->cap += m ? 64 : 0;
    }
    if (!copy || !m) {
        free(copy);
        return err_set(e, E_SYS, "out of memory");
    }
    memcpy(copy, text, n);
    copy[n] = '\0';
    h->m = m;
    h->m[h->n++] = (struct message){ role, copy, n };
    return 0;
}

static void forget(struct history *h, int from)
{
    while (h->n > from)
        free((void *)(uintptr_t)h->m[--h->n].text);
}

/* What was said so far, with a new message, and the reply to it. A text too long is told, and the message
 * taken back: the conversation goes on. */
static int turn(struct opening *g, struct history *h, const char *text, size_t n, struct err *e)
{
    struct reply r = { 0 };
    const struct cache_options *c = &g->s.options.cache;
    int32_t *ids = NULL;
    int64_t count;
    int rc = remember(h, TURN_USER, text, n, e);

    if (rc == 0)
        rc = turns_ids(g->chat, g->t, !g->o->no_bos, h->m, h->n, &ids, &count, e);
    if (rc == 0 && !c->window && count >= c->rows) {
        log_warn("that makes %" PRId64 " tokens, and the conversation has room for %" PRId64 ": say less, or begin "
                 "with more --ctx or a --window", count, c->rows);
        forget(h, h->n - 1);
    } else if (rc == 0) {
        rc = answer(g, ids, count, (uint64_t)h->n, &r, e);
        if (rc == 0)
            rc = remember(h, TURN_ASSISTANT, r.text.len ? r.text.p : "", r.text.len, e);
    }
    free(ids);
    reply_close(&r);
    return rc;
}

/* The next line that says something, behind what is in b. *end: there was none. */
static int read_message(struct buf *b, bool *end, struct err *e)
{
    bool people = isatty(STDIN_FILENO) && isatty(STDERR_FILENO);
    char *line = NULL;
    size_t cap = 0;
    ssize_t n = 0;
    int rc;

    while (n == 0) {
        if (people)
            fputs("> ", stderr);
        if ((n = getline(&line, &cap, stdin)) < 0)
            break;
        n -= n && line[n - 1] == '\n';
        if (!utf8_valid(line, (size_t)n, NULL)) {
            log_warn("that line is not UTF-8");
            n = 0;
        }
    }
    *end = n < 0;
    rc = n > 0 ? buf_add(b, line, (size_t)n, e) : ferror(stdin) ? err_sys(e, E_IO, "cannot read standard input") : 0;
    free(line);
    return rc;
}

/* Of several ranks the first reads. The files stand before the first message. */
static int next_message(struct opening *g, bool first, struct buf *b, bool *end, struct err *e)
{
    struct group *ranks = opening_ranks(g);
    int64_t none = 0;
    int rc = 0;

    b->len = 0;
    if (ranks->rank == 0) {
        for (int i = 0; i < g->o->files.n && first && rc == 0; i++)
            if ((rc = question_add_file(b, g->o->files.v[i], e)) == 0)
                rc = buf_add(b, "\n\n", 2, e);
        if (rc == 0)
            rc = read_message(b, end, e);
        none = *end;
    }
    rc = told_number(ranks, rc, &none, e);
    *end = none != 0;
    return rc < 0 || *end ? rc : told_bytes(ranks, 0, b, 0, e);
}

int talk_on(struct opening *g, struct err *e)
{
    struct history h = { 0 };
    struct buf text = { 0 };
    bool end = false;
    int rc = 0;

    if (g->o->system)
        rc = remember(&h, TURN_SYSTEM, g->o->system, strlen(g->o->system), e);
    for (bool first = true; rc == 0; first = false) {
        if ((rc = next_message(g, first, &text, &end, e)) < 0 || end)
            break;
        rc = turn(g, &h, text.p, text.len, e);
    }
    forget(&h, 0);
    free(h.m);
    buf_free(&text);
    return rc;
}
