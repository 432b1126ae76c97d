/* gen/outlook.c - --plan: what a model takes and how fast it writes; see asked.h. */
#include "gen/asked.h"

#include "base/log.h"

#include <inttypes.h>

/* Bytes a second that ops read: the card's, or measured. 0: cannot be told. */
static double read_rate(struct device *d)
{
    enum { VALUES = 1 << 25, TIMES = 5 };
    double best = 0, sum;
    float *x = NULL;

    if (d->rates.memory > 0)
        return d->rates.memory;
    if (d->alloc(d, (size_t)VALUES * sizeof *x, (void **)&x, NULL) < 0)
        return 0;
    d->zero(d, x, (size_t)VALUES * sizeof *x);
    for (int i = 0; i < TIMES; i++) {
        double start = now_s(), s;
        d->sum_squares(d, &(struct op_sum_squares){ VALUES, x, &sum });
        d->sync(d, NULL);
        s = (double)VALUES * sizeof *x / (now_s() - start);
        best = s > best ? s : best;
    }
    d->release(d, x);
    return best;
}

static void line(FILE *f, const char *what, size_t bytes, const char *of)
{
    char s[16];

    fprintf(f, "%-10s %10s  %s\n", what, fmt_bytes((double)bytes, s, sizeof s), of);
}

/* What a token waits for, full texts taken: everything is read once. */
static double seconds(struct opening *g, double rate)
{
    const struct memory_plan *p = &g->s.plan;
    double in = g->s.device.rates.in, cache = (double)(g->s.options.cache.in_host ? 0 : p->cache);

    return ((double)p->frozen + cache) / rate + (p->host && in > 0 ? (double)p->host / in : 0);
}

static void print_memory(struct opening *g, FILE *f)
{
    struct device *d = &g->s.device;
    const struct memory_plan *p = &g->s.plan;
    const struct cache_options *c = &g->s.options.cache;

    line(f, "weights", p->frozen, g->s.options.stages > 1 ? "of these layers" : "of the model");
    line(f, "cache", p->cache, c->in_host ? "two layers of the keys and values, at a time"
                               : c->window ? "keys and values of the sinks and the window"
                                           : "keys and values");
    line(f, "work", p->work, "one layer, and the logits");
    line(f, "in all", p->total, d->own_memory ? "of the GPU's memory" : "of memory");
    if (p->host)
        line(f, "host", p->host, "of the host's memory, fetched for each token");
    line(f, "free", d->own_memory ? model_capacity(d, &g->s.options) : d->free_bytes(d), "");
}

int opening_print(struct opening *g, int ranks, int64_t rows, int64_t seqs, FILE *f, struct err *e)
{
    double rate = 0, s = 0;

    for (int i = 0; i < ranks; i++) {
        int rc = opening_plan_rank(g, i, ranks, rows, seqs, e);

        if (rc < 0)
            return ranks > 1 ? err_within(e, "rank %d of %d", i, ranks) : rc;
        if (i == 0)
            fprintf(f, "device     %s, %s\n", g->s.device.name, g->s.device.detail);
        if (ranks > 1)
            fprintf(f, "rank       %10d  of %d, with %" PRId64 " of %" PRId64 " layers\n", i, ranks,
                    g->s.plan.layers, g->s.config.layers);
        print_memory(g, f);
        rate = rate > 0 ? rate : read_rate(&g->s.device);
        s += rate > 0 ? seconds(g, rate) : 0;
    }
    fprintf(f, "texts      %10" PRId64 "  of %" PRId64 " tokens\n", seqs, rows);
    if (s > 0)
        fprintf(f, "speed      %10.4g  tokens/s of each text at most, when it is full: %.4g GB/s are read%s\n",
                1 / s, 1e-9 * rate, ranks > 1 ? " by one rank after the other" : "");
    return 0;
}
