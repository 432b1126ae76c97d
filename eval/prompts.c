/* eval/prompts.c - the prompts that tasks ask with; see tasks.h. */
#include "eval/tasks.h"

#include "base/file.h"
#include "base/log.h"
#include "eval/haystack.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool has(const struct prompts *p, const struct probe_kind *k)
{
    for (int i = 0; i < p->n_kinds; i++)
        if (p->kind[i] == k)
            return true;
    return false;
}

/* A name, or the beginning of several: "niah" and "niah_" are every needle. */
static int add_named(struct prompts *p, const char *name, size_t n, struct err *e)
{
    bool any = false;

    for (int pass = 0; pass < 2 && !any; pass++)
        for (int i = 0; i < N_PROBE_KINDS; i++) {
            const struct probe_kind *k = PROBE_KINDS[i];
            const char *rest = strncmp(k->name, name, n) == 0 ? k->name + n : NULL;

            if (!rest || (pass == 0 ? *rest != '\0' : *rest != '_' && (n == 0 || name[n - 1] != '_')))
                continue;
            any = true;
            if (!has(p, k))
                p->kind[p->n_kinds++] = k;
        }
    if (any)
        return 0;
    err_set(e, E_USAGE, "no task is called '%.*s'", (int)(n < 60 ? n : 60), name);
    return err_hint(e, "'leval --tasks list' shows them all");
}

int prompts_kinds(struct prompts *p, const struct tasks_options *o, struct err *e)
{
    const char *s = o->list;
    int rc = 0;

    p->o = o;
    if (!(p->kind = calloc((size_t)N_PROBE_KINDS, sizeof *p->kind)))
        return err_set(e, E_SYS, "out of memory");
    if (strcmp(s, "all") == 0) {
        for (int i = 0; i < N_PROBE_KINDS; i++)
            if (!PROBE_KINDS[i]->needs_text || o->haystack.n)
                p->kind[p->n_kinds++] = PROBE_KINDS[i];
            else
                log_info("without --haystack there is no '%s'", PROBE_KINDS[i]->name);
        return 0;
    }
    for (size_t n; rc == 0; s += n + 1) {
        n = strcspn(s, ",");
        rc = add_named(p, s, n, e);
        if (s[n] == '\0')
            break;
    }
    return rc;
}

static int open_tokenizer(struct prompts *p, const char *model, const char *path, struct err *e)
{
    char *own = path || !model ? NULL : tokenizer_in_folder(model);
    int rc;

    if (!path && !own) {
        if (!model)
            err_set(e, E_USAGE, "prompts of a length need a tokenizer");
        else
            err_set(e, E_NOINPUT, "'%s' has no tokenizer", model);
        return err_hint(e, "name one with --tokenizer FILE");
    }
    rc = tokenizer_open(&p->tokenizer, path ? path : own, e);
    if (rc == 0)
        snprintf(p->r.tokenizer, sizeof p->r.tokenizer, "%s", path ? path : own);
    free(own);
    return rc;
}

static int read_haystack(struct prompts *p, struct err *e)
{
    bool needed = false;
    int rc;

    for (int i = 0; i < p->n_kinds; i++)
        needed |= p->kind[i]->needs_text;
    if (!needed || !p->o->haystack.n)
        return 0;
    if ((rc = haystack_read(&p->text, &p->o->haystack, e)) < 0)
        return rc;
    snprintf(p->r.haystack, sizeof p->r.haystack, "%s", p->o->haystack.v[0]);
    p->r.haystack_bytes = (int64_t)p->text.len;
    p->r.haystack_hash = hash64_of(p->text.p, p->text.len);
    return 0;
}

const struct probe_kind *prompts_kind(const struct probed_cell *c) { return probe_kind_named(c->task); }

int prompts_stream(const struct prompts *p, const struct probed_cell *c, struct probes **s,
                   struct err *e)
{
    const struct probe_kind *k = prompts_kind(c);
    struct probe_ask a = { .length = c->length, .number = c->n, .depth = c->depth,
                           .seed = p->o->seed < 0 ? k->seed : (uint64_t)p->o->seed,
                           .tokenizer = p->tokenizer,
                           .source = { p->text.len ? p->text.p : NULL, p->text.len,
                                       p->words.nouns.n ? &p->words : NULL } };

    return probes_open(s, k, &a, e);
}

/* A cell, whose first prompt is tried. */
static int add_cell(struct prompts *p, const struct probe_kind *k, int64_t length, int ctx, double depth,
                    struct err *e)
{
    struct probe first = { .n = 0 };
    struct probed_cell *c;
    struct probes *s;
    int rc = probed_add(&p->r, p->o->samples, &c, e);

    if (rc < 0)
        return rc;
    snprintf(c->task, sizeof c->task, "%s", k->name);
    c->length = length;
    c->depth = depth;
    c->ctx = ctx;
    if ((rc = prompts_stream(p, c, &s, e)) < 0)
        return rc;
    rc = probes_next(s, &first, e);
    probes_close(s);
    probe_free(&first);
    return rc;
}

int prompts_open(struct prompts *p, const char *model, const char *tokenizer, const int64_t *length,
                 int64_t n, struct err *e)
{
    int rc = open_tokenizer(p, model, tokenizer, e);

    if (rc == 0 && p->o->words)
        rc = word_lists_read(&p->words, p->o->words, e);
    if (rc == 0)
        rc = read_haystack(p, e);
    p->r.seed = p->o->seed;
    for (int64_t i = 0; i < n; i++)
        for (int k = 0; k < p->n_kinds; k++) {
            int64_t depths = p->kind[k]->deep && p->o->depths > 0 ? p->o->depths : 1;

            for (int64_t d = 0; d < depths && rc == 0; d++) {
                double depth = depths < 2 ? p->o->depths == 1 && p->kind[k]->deep ? 0.5 : -1
                                          : (double)d / (double)(depths - 1);
                rc = add_cell(p, p->kind[k], length[i], (int)i, depth, e);
            }
        }
    return rc;
}

void prompts_close(struct prompts *p)
{
    tokenizer_close(p->tokenizer);
    buf_free(&p->text);
    word_lists_free(&p->words);
    probed_free(&p->r);
    free(p->kind);
    *p = (struct prompts){ 0 };
}

static json_t *strings(const char *s, int64_t n)
{
    json_t *all = json_array();

    for (int64_t i = 0; i < n; i++, s += strlen(s) + 1)
        json_array_append_new(all, json_string(s));
    return all;
}

/* One line: the prompt with all that is needed to score an answer elsewhere. */
static int put_prompt(struct buf *b, const struct probed_cell *c, int64_t number, const struct probe *p,
                      struct err *e)
{
    static const char *const score[] = { "all", "any", "first", "number", "only" };
    const struct probe_kind *k = prompts_kind(c);
    json_t *o = json_object();
    char *text;
    int rc;

    json_object_set_new(o, "task", json_string(k->name));
    json_object_set_new(o, "length", json_integer(c->length));
    json_object_set_new(o, "number", json_integer(number));
    json_object_set_new(o, "depth", p->depth < 0 ? json_null() : json_real(p->depth));
    json_object_set_new(o, "tokens", json_integer(p->tokens));
    json_object_set_new(o, "prompt", json_stringn(p->prompt.p, p->prompt.len));
    json_object_set_new(o, "answers", strings(p->answers.p, p->n));
    if (p->n_others)
        json_object_set_new(o, "others", strings(p->others.p, p->n_others));
    json_object_set_new(o, "score", json_string(score[k->score]));
    json_object_set_new(o, "reply", json_integer(k->reply));
    text = json_object_get(o, "prompt") ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    if (!text)
        return err_set(e, E_SYS, "out of memory");
    b->len = 0;
    if ((rc = buf_add(b, text, strlen(text), e)) == 0)
        rc = buf_add(b, "\n", 1, e);
    free(text);
    return rc;
}

static int write_cell(struct prompts *p, const struct probed_cell *c, int fd, const char *name,
                      struct err *e)
{
    struct probe one = { .n = 0 };
    struct buf line = { 0 };
    struct probes *s;
    int rc = prompts_stream(p, c, &s, e);

    for (int64_t i = 0; i < c->n && rc == 0; i++)
        if ((rc = probes_next(s, &one, e)) == 0 && (rc = put_prompt(&line, c, i, &one, e)) == 0)
            rc = file_write_all(fd, line.p, line.len, name, e);
    probes_close(s);
    probe_free(&one);
    buf_free(&line);
    return rc;
}

int prompts_write(struct prompts *p, const char *path, bool force, struct err *e)
{
    bool to_stdout = strcmp(path, "-") == 0;
    struct file_out f;
    int rc = 0;

    if (!to_stdout && ((rc = eval_check_output(path, force, e)) < 0 || (rc = file_out_open(&f, path, e)) < 0))
        return rc;
    for (int64_t i = 0; i < p->r.n && rc == 0; i++)
        rc = write_cell(p, &p->r.cell[i], to_stdout ? STDOUT_FILENO : f.fd,
                        to_stdout ? "standard output" : path, e);
    if (to_stdout)
        return rc;
    if (rc == 0)
        return file_out_publish(&f, e);
    file_out_abandon(&f);
    return rc;
}
