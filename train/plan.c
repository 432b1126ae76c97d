/* train/plan.c - see plan.h. */
#include "train/plan.h"

#include "base/log.h"
#include "base/json.h"
#include "kernels/planned.h"
#include "kernels/wires.h"
#include "train/parallel.h"

#include <inttypes.h>
#include <stdlib.h>

#define STEP ((int64_t)4096) /* tokens */
#define MOST ((int64_t)1 << 30)

/* Opens the device that the plan is for. --gpu names a card, present or not. Without it this
 * machine's device is taken, but --plan --gpu-memory on a machine without a GPU plans for
 * the first card of the list, with that much memory. */
int plan_device(struct session *open, const struct settings *s, struct group *g, struct err *e)
{
    struct machine m = s->machine;
    struct device *d = &open->device;
    const struct card *card = card_at(s->gpu >= 0 ? s->gpu : 0);
    size_t bytes = (size_t)(card->gib * 0x1p30);
    int rc;

    m.group = g;
    if (s->gpu < 0) {
        rc = session_device(open, &m, e);
        if (rc < 0 || d->own_memory || !s->plan || s->machine.device_bytes == 0)
            return rc;
        log_info("no GPU here: planning for the card %s (--gpu chooses another)", card->name);
    }
    if ((size_t)s->machine.device_bytes > bytes) {
        if (s->gpu >= 0)
            log_warn("--gpu-memory is more than the %.4g GiB of the card %s", card->gib,
                     card->name);
        else
            bytes = (size_t)s->machine.device_bytes;
    }
    rc = session_card(open, card, bytes, e);
    if (rc == 0 && s->machine.deterministic)
        d->be_deterministic(d);
    return rc;
}

/* Does one sequence of ctx tokens fit, with host bytes (as in model_options)? */
static int fits(struct run *r, int64_t ctx, int64_t host, bool *yes, struct err *e)
{
    struct model_options o = r->session.options;
    struct memory_plan p;
    int rc;

    /* The group keeps its share of the context. */
    o.attention_span = (int64_t)((double)ctx * (double)r->s->group / (double)r->s->ctx);
    o.ctx = ctx, o.seqs = 1, o.host_bytes = host;
    o.placement = NULL, o.mlp_tile = o.loss_chunk = 0; /* what was planned for another context */
    if ((rc = model_plan(&r->session.device, &r->session.config, &o, &p, e)) == 0)
        *yes = p.total <= model_capacity(&r->session.device, &o);
    return rc;
}

/* The largest multiple of 4096 tokens, up to 2^30, that one sequence of r's model may have in
 * the memory there is; 0: none. *host: the host's memory is what stands in the way of more. */
static int find_longest(struct run *r, int64_t *ctx, bool *host, struct err *e)
{
    int64_t low = 0, high = MOST / STEP + 1, own = r->session.options.host_bytes;
    bool yes = false;
    int rc = 0;

    /* low steps fit (none always does), high is more than fits or more than the limit. */
    while (high - low > 1 && rc == 0) {
        int64_t middle = low + (high - low) / 2;

        rc = fits(r, middle * STEP, own, &yes, e);
        *(yes ? &low : &high) = middle;
    }
    *ctx = low * STEP;
    *host = false;
    /* Asks once more, one step longer and with as good as endless host memory (2^60 bytes). */
    return rc < 0 ? rc : fits(r, (low + 1) * STEP, MOST * MOST, host, e);
}

/* Predicted speed; 0 where the device has no prediction. */
static double tokens_per_s(const struct run *r)
{
    double s = r->budget.model.step_s;

    return s > 0 ? (double)(r->s->micro * r->s->ctx) / s : 0;
}

/* The same in the words of a mix: what each kind takes. */
static void print_kinds(const struct run *r, FILE *f)
{
    double tokens = (double)(r->s->micro * r->s->ctx), share = r->session.options.dense_share;
    double sparse, dense;

    mix_times(&r->budget.model, share, &sparse, &dense);
    fprintf(f, "%-10s %10.4g s  of a step in groups of %" PRId64 ", %.0f tokens/s\n", "  s2",
            sparse, r->s->group, tokens / sparse);
    fprintf(f, "%-10s %10.4g s  of a dense one, %.0f tokens/s; %.3g%% of the steps\n", "  dense",
            dense, tokens / dense, 100 * share);
}

/* What many ranks take for a step of the whole batch. Sums in parts and their sharing are as much
 * as one sum; a mode that trains little sends little. */
struct many {
    int64_t ranks, cp, rows; /* of a batch, the most that one rank, or cp of them together, has */
    const char *link;
    double rate, bytes, exchange_s, step_s, tok_s, speed; /* 0: not known; speed over one rank */
};

/* What one rank alone would take for a micro-batch; 0: it has no room, or it is not known. */
static double alone_s(const struct run *r)
{
    struct model_options o = r->session.options;
    struct memory_plan p;

    if (o.cp <= 1)
        return r->budget.model.step_s;
    o.cp = 1, o.line = NULL, o.placement = NULL, o.mlp_tile = o.loss_chunk = 0;
    if (model_plan(&r->session.device, &r->session.config, &o, &p, NULL) < 0 ||
        p.total > model_capacity(&r->session.device, &o))
        return 0;
    return p.step_s;
}

static struct many foretell(const struct run *r)
{
    const struct settings *s = r->s;
    const struct card *card = card_at(s->gpu >= 0 ? s->gpu : 0);
    struct many m = { .ranks = settings_ranks(s), .bytes = (double)r->budget.model.gradients };
    double micro_s = r->budget.model.step_s, micros, alone;

    m.link = s->link ? s->link : s->hosts > 1 ? "400g" : wire_of_card(card->name);
    wire_rate(m.link, &m.rate);
    m.exchange_s = wire_sum_s(m.bytes, m.ranks, m.rate);
    m.cp = s->cp > 1 ? s->cp : 1;
    m.rows = (s->batch + m.ranks / m.cp - 1) / (m.ranks / m.cp);
    micros = (double)((m.rows + s->micro - 1) / s->micro);
    alone = (double)((s->batch + s->micro - 1) / s->micro) * alone_s(r);
    if (micro_s <= 0)
        return m;
    m.step_s = micros * micro_s + m.exchange_s;
    m.tok_s = (double)(s->batch * s->ctx) / m.step_s;
    m.speed = alone / m.step_s;
    return m;
}

/* Ranks that share a sequence. */
static void print_line(const struct run *r, FILE *f)
{
    const struct memory_plan *p = &r->budget.model;
    char bytes[16];

    fprintf(f, "%-10s %12s  sent by a rank in a micro-batch, predicted %.4g s, %.4g s of it not "
            "beside operations; %" PRId64 " ranks share a "
            "sequence, the one with most to attend to has %.1f%% more than the mean\n", "sequence",
            fmt_bytes(p->line_bytes, bytes, sizeof bytes), p->line_s, p->line_bare_s, r->s->cp,
            100 * (p->line_most - 1));
}

static void print_many(const struct run *r, FILE *f)
{
    const struct settings *s = r->s;
    const struct budget *b = &r->budget;
    struct many m = foretell(r);
    /* the base is mapped by all ranks, and there once */
    double all = (double)(b->process + b->model.host + b->host) * (double)(m.ranks / s->hosts);
    char bytes[16], rate[16], host[16];

    if (m.ranks < 2)
        return;
    fprintf(f, "%-10s %12" PRId64 "  a GPU each, %s on each of %" PRId64 " host%s; the above is of one rank\n",
            "ranks", m.ranks, s->ranks.gpus, s->hosts, s->hosts == 1 ? "" : "s");
    fprintf(f, "%-10s %10.4g s  predicted, a step: a sum of %s by a ring over %s, %s/s\n",
            "exchange", m.exchange_s, fmt_bytes(m.bytes, bytes, sizeof bytes), m.link,
            fmt_bytes(m.rate, rate, sizeof rate));
    if (m.cp > 1)
        print_line(r, f);
    if (m.step_s > 0)
        fprintf(f, "%-10s %10.4g s  predicted for --batch %" PRId64 ", up to %" PRId64 " on %s: "
                "%.0f tokens/s", "batch", m.step_s, s->batch, m.rows,
                m.cp > 1 ? "a group of ranks" : "a rank", m.tok_s);
    if (m.step_s > 0 && m.speed > 0)
        fprintf(f, ", %.2f times one rank\n", m.speed);
    else if (m.step_s > 0)
        fputs("; one rank has no room for it\n", f);
    if (b->own_memory)
        fprintf(f, "%-10s %12s  predicted, memory of all ranks of a host\n", "host, all",
                fmt_bytes(all + (double)b->mapped, host, sizeof host));
}

static void put_many(const struct run *r, json_t *j)
{
    struct many m = foretell(r);

    json_object_set_new(j, "ranks", json_integer(m.ranks));
    json_object_set_new(j, "hosts", json_integer(r->s->hosts));
    json_object_set_new(j, "cp", json_integer(m.cp));
    if (m.cp > 1) {
        json_object_set_new(j, "line_bytes", json_real(r->budget.model.line_bytes));
        json_object_set_new(j, "line_s", json_real(r->budget.model.line_s));
        json_object_set_new(j, "line_bare_s", json_real(r->budget.model.line_bare_s));
        json_object_set_new(j, "line_most", json_real(r->budget.model.line_most));
    }
    json_object_set_new(j, "exchange_bytes", json_integer((json_int_t)m.bytes));
    json_object_set_new(j, "link_bytes_s", json_real(m.rate));
    json_object_set_new(j, "exchange_s", json_real(m.exchange_s));
    if (m.step_s > 0) {
        json_object_set_new(j, "batch_s", json_real(m.step_s));
        json_object_set_new(j, "batch_tok_s", json_real(m.tok_s));
        if (m.speed > 0)
            json_object_set_new(j, "scaling", json_real(m.speed));
    }
}

static void print_table(const struct run *r, int64_t longest, bool host, FILE *f)
{
    const struct settings *s = r->s;

    fprintf(f, "ctx=%" PRId64 " micro=%" PRId64 " mode=%s params=%" PRId64 " trained=%" PRId64
            " factor=%g\n", s->ctx, s->micro, settings_mode(s->mode), r->budget.model.params,
            r->budget.model.trained_params,
            r->session.config.rope.type == ROPE_DEFAULT ? 1.0 : r->session.config.rope.factor);
    budget_print(&r->budget, f);
    if (tokens_per_s(r) > 0)
        fprintf(f, "%-10s %10.4g s  predicted for %" PRId64 " tokens, %.0f tokens/s, on %s\n",
                "step", r->budget.model.step_s, s->micro * s->ctx, tokens_per_s(r),
                r->session.device.detail);
    if (tokens_per_s(r) > 0 && r->budget.model.dense_ratio > 0)
        print_kinds(r, f);
    print_many(r, f);
    if (s->longest)
        fprintf(f, "%-10s %12" PRId64 "  tokens fit, in steps of 4096; limited by %s memory\n",
                "longest", longest, host ? "host" : "device");
}

static void add_kinds(const struct run *r, json_t *j)
{
    double share = r->session.options.dense_share, sparse, dense;

    mix_times(&r->budget.model, share, &sparse, &dense);
    json_object_set_new(j, "dense_share", json_real(share));
    json_object_set_new(j, "s2_step_s", json_real(sparse));
    json_object_set_new(j, "dense_step_s", json_real(dense));
}

static int print_json(const struct run *r, int64_t longest, bool host, FILE *f, struct err *e)
{
    const struct settings *s = r->s;
    json_t *j = budget_json(&r->budget);
    char *text = NULL;

    if (j) {
        json_object_set_new(j, "ctx", json_integer(s->ctx));
        json_object_set_new(j, "micro", json_integer(s->micro));
        json_object_set_new(j, "fits", json_boolean(!budget_too_large(&r->budget)));
        if (tokens_per_s(r) > 0) {
            json_object_set_new(j, "step_s", json_real(r->budget.model.step_s));
            json_object_set_new(j, "tok_s", json_real(tokens_per_s(r)));
            if (r->budget.model.dense_ratio > 0)
                add_kinds(r, j);
        }
        if (settings_ranks(s) > 1)
            put_many(r, j);
        if (s->longest) {
            json_object_set_new(j, "longest_ctx", json_integer(longest));
            json_object_set_new(j, "limit", json_string(host ? "host" : "device"));
        }
        text = js_text(j);
    }
    if (text)
        fputs(text, f);
    free(text);
    json_decref(j);
    return text ? 0 : err_set(e, E_SYS, "out of memory");
}

/* The error of a plan that is too large, with a context that would fit as a hint. */
static int does_not_fit(struct run *r, struct err *e)
{
    const struct budget *b = &r->budget;
    char need[16], has[16];
    int64_t ctx;
    bool host;
    int rc = find_longest(r, &ctx, &host, e);

    if (rc < 0)
        return rc;
    err_set(e, E_CONFIG, "the plan needs %s of GPU memory, %s is available",
            fmt_bytes((double)budget_need(b), need, sizeof need),
            fmt_bytes((double)b->capacity, has, sizeof has));
    if (ctx == 0)
        return err_hint(e, "no context fits: give more --gpu-memory%s",
                        host ? " or --host-memory" : "");
    return err_hint(e, "--micro 1 --ctx %" PRId64 " would fit, or more --gpu-memory%s", ctx,
                    host ? " or --host-memory" : "");
}

/* Prints the plan in any case, so that the reader sees what is too large. Only a device with
 * its own memory makes it an error. */
static int print(struct run *r, FILE *f, struct err *e)
{
    int64_t longest = 0;
    bool host = false;
    int rc = r->s->longest ? find_longest(r, &longest, &host, e) : 0;

    if (rc == 0 && r->s->json)
        rc = print_json(r, longest, host, f, e);
    else if (rc == 0)
        print_table(r, longest, host, f);
    return rc == 0 && r->session.device.own_memory && budget_too_large(&r->budget) ? does_not_fit(r, e)
                                                                            : rc;
}

int plan_run(const struct settings *s, FILE *f, struct err *e)
{
    int rc = 0;

    for (int i = 0; i < (s->contexts.n ? s->contexts.n : 1) && rc == 0; i++) {
        struct settings one = *s;
        struct run r = { 0 };

        if (s->contexts.n)
            one.ctx = s->contexts.v[i];
        rc = run_open(&r, &one, e);
        if (rc == 0 && i > 0 && !s->json)
            fputc('\n', f);
        if (rc == 0)
            rc = print(&r, f, e);
        run_close(&r);
    }
    return rc;
}
