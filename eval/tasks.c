/* eval/tasks.c - prompts put to a model, batch by batch, over ranks; see tasks.h. */
#include "eval/tasks.h"

#include "base/file.h"
#include "base/log.h"
#include "eval/greedy.h"
#include "eval/identity.h"
#include "eval/ppl.h"
#include "kernels/group.h"
#include "model/extend.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOGETHER = 64 }; /* most texts at once */

/* What the task keeps from prepare to close. */
struct job {
    const struct tasks_options *o;
    struct eval *v;
    struct prompts p;
    struct answered *answered;
    uint64_t model;      /* names weights, adapter and tokenizer */
    int64_t at_once;     /* prompts of a batch; the same for every number of ranks */
    int64_t done, all;   /* prompts */
    double start;
    int64_t begun;       /* done when it started */
};

/* A prompt of a cell, by number. */
struct asking {
    struct probe p;
    int64_t number;
    uint64_t key;
};

/* Prompts that the ranks answer now: batches of job.at_once, one for each rank. */
struct round {
    struct asking *a;    /* [ranks * at_once] */
    int64_t n, cap;
    int64_t most;        /* tokens of a reply */
    int32_t *mine, *all; /* a batch's replies: for each prompt how many, then most ids */
    size_t bytes;        /* of a batch */
};

/* Everything that the answer depends on, but the model. */
static uint64_t key_of(const struct job *j, const struct probed_cell *c, const struct asking *a)
{
    const struct probe_kind *k = prompts_kind(c);
    uint64_t part[5] = { hash64_of(a->p.prompt.p, a->p.prompt.len),
                         hash64_of(a->p.answers.p, a->p.answers.len),
                         hash64_of(a->p.others.p ? a->p.others.p : "", a->p.others.len), (uint64_t)k->reply * 8 + k->score,
                         (uint64_t)a->number };
    char text[256], rope[64];

    rope_words(&j->v->config[c->ctx].rope, j->v->theta, rope, sizeof rope);
    snprintf(text, sizeof text, "%s %" PRId64 " %.17g %s %016" PRIx64, c->task, c->length, c->depth, rope,
             hash64_of(part, sizeof part));
    return hash64_of(text, strlen(text));
}

/* The prompts' own hash: the same for every model of a tokenizer, so that results can be paired. */
static void count_prompt(struct probed_cell *c, const struct asking *a)
{
    uint64_t part[3] = { c->prompts, hash64_of(a->p.prompt.p, a->p.prompt.len),
                         hash64_of(a->p.answers.p, a->p.answers.len) };

    c->prompts = hash64_of(part, sizeof part);
    c->tokens += (double)a->p.tokens;
}

/* The next prompt of the cell; *known: the journal has its answer. */
static int next_prompt(struct job *j, struct probed_cell *c, struct probes *s, int64_t number,
                       struct asking *a, bool *known, struct err *e)
{
    int rc = probes_next(s, &a->p, e);

    if (rc < 0)
        return rc;
    a->number = number;
    a->key = key_of(j, c, a);
    *known = j->answered && answered_find(j->answered, a->key, &c->score[number]);
    return 0;
}

/* What the journal has of a cell, and the prompts' hash. */
static int recall(struct job *j, struct probed_cell *c, struct err *e)
{
    struct asking a = { .number = 0 };
    struct probes *s;
    int rc = prompts_stream(&j->p, c, &s, e);

    for (int64_t i = 0; i < c->n && rc == 0; i++) {
        bool known = false;

        if ((rc = next_prompt(j, c, s, i, &a, &known, e)) == 0) {
            count_prompt(c, &a);
            j->done += known;
        }
    }
    probes_close(s);
    probe_free(&a.p);
    return rc;
}

/* The journal of the rank that writes, brought to all: its file may be on that one's host alone. */
static int read_journal(struct job *j, struct err *e)
{
    struct group *g = j->v->o->machine.group ? j->v->o->machine.group : group_alone();
    int64_t n = 0;
    char *text = NULL;
    size_t bytes = 0;
    int rc = 0;

    if (group_writes(g) && path_exists(j->o->journal))
        rc = file_read(j->o->journal, (size_t)4 << 30, &text, &bytes, e);
    n = (int64_t)bytes;
    if ((rc = group_meet(g, rc, NULL, e)) == 0)
        rc = g->broadcast(g, 0, &n, sizeof n, e);
    if (rc == 0 && !text && !(text = malloc((size_t)n + 1)))
        rc = err_set(e, E_SYS, "out of memory");
    if ((rc = group_meet(g, rc, NULL, e)) == 0 && n > 0)
        rc = g->broadcast(g, 0, text, (size_t)n, e);
    if (rc == 0)
        rc = answered_parse(&j->answered, j->o->journal, text, (size_t)n, j->model, e);
    free(text);
    return rc;
}

int tasks_prepare(struct eval *v, struct err *e)
{
    struct job *j = v->state = calloc(1, sizeof *j);
    int rc;

    if (!j)
        return err_set(e, E_SYS, "out of memory");
    j->o = v->asked;
    j->v = v;
    if ((rc = prompts_kinds(&j->p, j->o, e)) < 0 ||
        (rc = prompts_open(&j->p, v->o->model, ppl_asked()->data.tokenizer, v->ctx, v->n, e)) < 0 ||
        (rc = identity_of(&j->model, v, j->p.tokenizer, e)) < 0)
        return rc;
    if (tokenizer_vocab(j->p.tokenizer) > v->s.config.vocab)
        log_warn("the tokenizer has %" PRId64 " tokens, the model %" PRId64,
                 tokenizer_vocab(j->p.tokenizer), v->s.config.vocab);
    measured_fill(&j->p.r.of, v, ppl_asked()->label);
    for (int64_t i = 0; i < j->p.r.n; i++) {
        struct probed_cell *c = &j->p.r.cell[i];

        j->all += c->n;
        c->past = c->length > config_reach(&v->config[c->ctx]);
    }
    if (!j->o->journal)
        return 0;
    rc = read_journal(j, e);
    for (int64_t i = 0; i < j->p.r.n && rc == 0 && answered_count(j->answered); i++)
        rc = recall(j, &j->p.r.cell[i], e);
    v->known = rc == 0 && j->done == j->all;
    if (rc == 0 && j->done)
        log_info("'%s' has %" PRId64 " of %" PRId64 " answers", j->o->journal, j->done, j->all);
    if (v->known)
        snprintf(j->p.r.of.device, sizeof j->p.r.of.device, "%s", answered_device(j->answered));
    return rc;
}

/* A cache for a batch of the longest prompts; of a GPU that it does not fit, in the host's memory. */
int tasks_plan(struct eval *v, int64_t longest, struct err *e)
{
    struct job *j = v->state;
    struct session *s = &v->s;
    int64_t n = v->o->batch_tokens / longest;
    struct model_options mo = { .cache = { .rows = longest, .type = KV_ACT } };
    int rc;

    n = n > j->o->samples ? j->o->samples : n;
    j->at_once = mo.cache.seqs = n < 1 ? 1 : n > TOGETHER ? TOGETHER : n;
    rc = session_plan_texts(s, &v->o->machine, &mo, e);
    if (rc == 0 && s->device.own_memory && s->plan.total > model_capacity(&s->device, &s->options)) {
        mo.cache.in_host = true;
        log_warn("the keys and values do not fit the GPU: they lie in the host's memory");
        rc = session_plan_texts(s, &v->o->machine, &mo, e);
        if (rc == 0 && (rc = session_texts_fit_host(s, e)) < 0)
            err_hint(e, "raise --host-memory, or lower --lengths or --batch-tokens");
    }
    return rc;
}

static int open_round(struct round *r, const struct job *j, int64_t most, struct err *e)
{
    struct group *g = j->v->s.device.group;
    size_t each = (size_t)(1 + most) * sizeof *r->mine;

    *r = (struct round){ .cap = g->size * j->at_once, .most = most };
    if (!mul_ok(each, (size_t)j->at_once, &r->bytes) || !(r->mine = calloc(1, r->bytes)) ||
        !(r->all = calloc((size_t)g->size, r->bytes)) ||
        !(r->a = calloc((size_t)r->cap, sizeof *r->a)))
        return err_set(e, E_SYS, "out of memory");
    return 0;
}

static void close_round(struct round *r)
{
    for (int64_t i = 0; r->a && i < r->cap; i++)
        probe_free(&r->a[i].p);
    free(r->a);
    free(r->mine);
    free(r->all);
}

/* Ids of a prompt, as transformers' encode has them. malloc'ed. */
static int encode(const struct tokenizer *t, const struct buf *text, int32_t **ids, int64_t *n,
                  struct err *e)
{
    bool bos = tokenizer_adds_bos(t) && tokenizer_bos(t) >= 0;
    int32_t *plain = NULL;
    int rc = tokenizer_encode(t, text->p, text->len, &plain, n, e);

    *ids = NULL;
    if (rc == 0 && !(*ids = malloc((size_t)(*n + 1) * sizeof **ids)))
        rc = err_set(e, E_SYS, "out of memory for %" PRId64 " tokens", *n);
    if (rc == 0) {
        memcpy(*ids + bos, plain, (size_t)*n * sizeof **ids);
        if (bos)
            (*ids)[0] = tokenizer_bos(t);
        *n += bos;
    }
    free(plain);
    return rc;
}

/* This rank's batch. */
static int answer_mine(struct job *j, struct round *r, struct err *e)
{
    int64_t from = j->v->s.device.group->rank * j->at_once, n = r->n - from;
    struct turn t[TOGETHER] = { { .ids = NULL } };
    int32_t *ids[TOGETHER] = { NULL };
    int rc = 0;

    n = n > j->at_once ? j->at_once : n;
    memset(r->mine, 0, r->bytes);
    for (int64_t i = 0; i < n && rc == 0; i++) {
        rc = encode(j->p.tokenizer, &r->a[from + i].p.prompt, &ids[i], &t[i].n, e);
        t[i].ids = ids[i];
        t[i].reply = r->mine + i * (1 + r->most) + 1;
    }
    if (rc == 0 && n > 0)
        rc = greedy_replies(&j->v->s, tokenizer_eos(j->p.tokenizer), t, n, r->most, e);
    for (int64_t i = 0; i < n; i++) {
        r->mine[i * (1 + r->most)] = (int32_t)t[i].replied;
        free(ids[i]);
    }
    return rc;
}

/* One answer, by all ranks: its text, its score, its line in the journal of the one that writes. */
static int take_answer(struct job *j, struct probed_cell *c, const struct asking *a, const int32_t *reply,
                       struct err *e)
{
    struct buf text = { 0 };
    double known;
    int rc = greedy_text(j->p.tokenizer, reply + 1, reply[0], &text, e);

    if (rc == 0 && !(j->answered && answered_find(j->answered, a->key, &known))) {
        c->score[a->number] = probe_score(prompts_kind(c), &a->p, text.len ? text.p : "", text.len);
        j->done++;
        if (j->answered)
            rc = answered_add(j->answered, &(struct answer){ a->key, c->task, c->length, a->number, a->p.tokens,
                                                         a->p.depth, c->score[a->number],
                                                         text.len ? text.p : "", text.len }, e);
    }
    buf_free(&text);
    return rc;
}

static void tell(const struct job *j, const struct probed_cell *c)
{
    double sum = 0, spent = now_s() - j->start;
    int64_t n = 0, did = j->done - j->begun;
    char eta[24];

    if (!log_progress_due())
        return;
    for (int64_t i = 0; i < c->n; i++)
        if (!isnan(c->score[i]))
            sum += c->score[i], n++;
    log_progress("%s, %" PRId64 " tokens: %.0f%% of %" PRId64 "   prompt %" PRId64 "/%" PRId64 "  ETA %s",
                 c->task, c->length, n ? 100 * sum / (double)n : 0, n, j->done, j->all,
                 fmt_duration(did ? spent * (double)(j->all - j->done) / (double)did : 0, eta, sizeof eta));
}

/* Each rank answers its batch; then all have all replies, in the order of the prompts. */
static int answer_round(struct job *j, struct probed_cell *c, struct round *r, struct err *e)
{
    struct group *g = j->v->s.device.group;
    int rc = group_meet(g, answer_mine(j, r, e), NULL, e);

    if (rc == 0)
        rc = g->gather(g, r->mine, r->all, r->bytes, e);
    for (int64_t i = 0; i < r->n && rc == 0; i++) {
        const int32_t *batch = r->all + (size_t)(i / j->at_once) * (r->bytes / sizeof *r->all);

        rc = take_answer(j, c, &r->a[i], batch + i % j->at_once * (1 + r->most), e);
    }
    r->n = 0;
    tell(j, c);
    return group_meet(g, rc, NULL, e);
}

/* Batches are of prompts by their numbers, whatever is known, so that a run that goes on has the same. One
 * of which all is known is passed over. */
static int run_cell(struct job *j, struct probed_cell *c, struct err *e)
{
    bool fresh = c->prompts == 0;
    struct probes *s = NULL;
    struct round r;
    int rc = open_round(&r, j, prompts_kind(c)->reply, e);

    if (rc == 0)
        rc = prompts_stream(&j->p, c, &s, e);
    rc = group_meet(j->v->s.device.group, rc, NULL, e);
    for (int64_t i = 0, known = 0; i < c->n && rc == 0; i++) {
        struct asking *a = &r.a[r.n++];
        bool is = false, last = i + 1 == c->n || (i + 1) % j->at_once == 0;

        if ((rc = next_prompt(j, c, s, i, a, &is, e)) < 0)
            break;
        if (fresh)
            count_prompt(c, a);
        known += is;
        if (!last)
            continue;
        if (known == i % j->at_once + 1)
            r.n -= known;
        known = 0;
        if (r.n > 0 && (r.n + j->at_once > r.cap || i + 1 == c->n))
            rc = answer_round(j, c, &r, e);
    }
    if (rc == 0 && r.n > 0) /* the last batch was known, those before it not */
        rc = answer_round(j, c, &r, e);
    probes_close(s);
    close_round(&r);
    return rc;
}

int tasks_run(struct eval *v, int64_t first, int64_t n, struct err *e)
{
    struct job *j = v->state;
    struct group *g = v->s.device.group;
    int rc = 0;

    measured_device(&j->p.r.of, v);
    if (j->answered && group_writes(g) && first == 0)
        rc = answered_write(j->answered, j->p.r.of.device, e);
    rc = group_meet(g, rc, NULL, e);
    j->start = now_s();
    j->begun = j->done;
    for (int64_t i = 0; i < j->p.r.n && rc == 0; i++) {
        struct probed_cell *c = &j->p.r.cell[i];

        if (c->ctx >= first && c->ctx < first + n)
            rc = run_cell(j, c, e);
    }
    log_progress_end();
    return rc;
}

const struct probed *tasks_result(struct eval *v)
{
    struct job *j = v->state;

    return &j->p.r;
}

void tasks_close(struct eval *v)
{
    struct job *j = v->state;

    answered_close(j->answered);
    prompts_close(&j->p);
    free(j);
}
