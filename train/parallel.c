/* train/parallel.c - see parallel.h. */
#include "train/parallel.h"

#include "base/log.h"
#include "base/opt.h"
#include "kernels/cards.h"
#include "kernels/wires.h"

#include <inttypes.h>
#include <string.h>

static bool automatic(const struct settings *s)
{
    return s->cp_text && strcmp(s->cp_text, "auto") == 0;
}

int parallel_resolve(struct settings *s, int64_t ranks, struct err *e)
{
    int64_t cp = 1;

    if (s->cp_text && !automatic(s) && (!num_i64(s->cp_text, &cp) || cp < 1 || cp > 1024))
        return err_set(e, E_USAGE, "--cp '%.40s': must be auto or a number from 1 to 1024",
                       s->cp_text);
    if (!s->cp_text && s->dp)
        cp = ranks % s->dp ? 0 : ranks / s->dp;
    s->cp = automatic(s) ? 0 : cp;
    if (automatic(s) && s->dp)
        return err_set(e, E_USAGE, "--cp auto and --dp %" PRId64 ": give one of them", s->dp);
    if (s->cp == 0 ? s->dp && ranks % s->dp : ranks % cp || (s->dp && s->dp * cp != ranks)) {
        err_set(e, E_USAGE, "--%s %" PRId64 " does not fit %" PRId64 " rank%s", s->dp ? "dp" : "cp",
                s->dp ? s->dp : cp, ranks, ranks == 1 ? "" : "s");
        return err_hint(e, "--dp times --cp is the number of ranks");
    }
    if (s->cp != 1 && s->same_bits)
        return err_set(e, E_USAGE, "--same-on-any-ranks adds whole rows: it goes with --cp 1 only");
    if (s->cp > 1 && s->micro > 1)
        return err_set(e, E_USAGE, "--micro %" PRId64 ": ranks that share a sequence compute one at "
                       "a time", s->micro);
    if (ranks % s->shares) {
        err_set(e, E_USAGE, "--shard-weights %" PRId64 " does not fit %" PRId64 " ranks", s->shares,
                ranks);
        return err_hint(e, "it divides their number");
    }
    /* they make the same calls, row by row */
    if (s->shares > (s->cp > 1 ? s->cp : 1) && s->cp && s->batch % (ranks / s->cp) && !s->bench) {
        err_set(e, E_USAGE, "--shard-weights %" PRId64 ": --batch %" PRId64 " gives some ranks more rows "
                "than others", s->shares, s->batch);
        return err_hint(e, "give a multiple of %" PRId64, ranks / s->cp);
    }
    return 0;
}

struct group parallel_rows(const struct group *g, int64_t cp)
{
    int64_t line = cp > 1 ? cp : 1;

    return (struct group){ .rank = (int)(g->rank / line), .size = (int)(g->size / line) };
}

double parallel_link(const struct settings *s, const struct device *d, int64_t cp)
{
    const struct card *card = s->plan ? card_at(s->gpu >= 0 ? s->gpu : 0) : card_named(d->detail);
    int64_t host = settings_ranks(s) / s->hosts;
    double rate = 0;

    if (s->link)
        wire_rate(s->link, &rate);
    else if (s->plan && cp > host)
        wire_rate("400g", &rate);
    else if (card && d->own_memory)
        wire_rate(wire_of_card(card->name), &rate);
    return rate;
}

static void divide(struct settings *s, struct model_options *o, const struct device *d, int64_t cp)
{
    s->cp = o->cp = cp;
    o->link_rate = parallel_link(s, d, cp);
    if (cp > 1)
        s->micro = o->seqs = 1;
}

/* Seconds of a batch by a plan, SIZE of what is not known: less is better. */
static double batch_s(const struct settings *s, const struct memory_plan *p, int64_t lines)
{
    int64_t rows = (s->batch + lines - 1) / lines;

    return p->step_s > 0 ? p->step_s * (double)((rows + s->micro - 1) / s->micro) : (double)s->cp;
}

static int choose(struct settings *s, const struct session *open, struct model_options *o,
                  int64_t ranks, struct err *e)
{
    int64_t best = ranks;
    double least = 0;

    for (int64_t cp = 1; cp <= ranks && cp <= 1024; cp++) {
        struct settings as = *s;
        struct model_options asked = *o;
        struct memory_plan p;
        int rc;

        if (ranks % cp || cp > s->ctx)
            continue;
        divide(&as, &asked, &open->device, cp);
        asked.stored = open->weights;
        if ((rc = model_plan(&open->device, &open->config, &asked, &p, e)) < 0)
            return rc;
        if (p.total > model_capacity(&open->device, &asked))
            continue;
        if (least == 0 || batch_s(&as, &p, ranks / cp) < least)
            best = cp, least = batch_s(&as, &p, ranks / cp);
    }
    divide(s, o, &open->device, best);
    return 0;
}

int parallel_choose(struct settings *s, const struct session *open, struct model_options *o,
                    int64_t ranks, struct group *g, struct err *e)
{
    int rc = s->cp ? 0 : choose(s, open, o, ranks, e);
    bool asked = s->cp_text && strcmp(s->cp_text, "auto") == 0 && g->size > 1;
    int64_t cp = s->cp;

    if (asked) {
        if ((rc = group_meet(g, rc, NULL, e)) < 0 || (rc = g->broadcast(g, 0, &cp, sizeof cp, e)) < 0)
            return rc;
        divide(s, o, &open->device, cp);
        log_info("--cp auto: %" PRId64 " rank%s to a sequence", cp, cp == 1 ? "" : "s");
    }
    o->link_rate = parallel_link(s, &open->device, s->cp);
    return rc;
}
