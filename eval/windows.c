/* eval/windows.c - see windows.h. */
#include "eval/windows.h"
#include "base/bytes.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

const char *protocol_name(enum protocol p)
{
    static const char *const name[] = { "longlora", "stride", "nonoverlap" };

    return name[p];
}

/* With stride, the step must be below ctx: small contexts take half of it. */
int64_t windows_default_step(enum protocol p, int64_t ctx)
{
    if (p == PROTO_NONOVERLAP)
        return ctx;
    return p == PROTO_STRIDE && ctx < 512 ? ctx / 2 : 256;
}

static int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0); }

/* Windows of one stretch of n tokens. */
static int64_t stretch_count(const struct window_spec *s, int64_t step, int64_t n)
{
    int64_t starts;

    if (n < 2)
        return 0;
    switch (s->protocol) {
    case PROTO_LONGLORA:
        if (n < s->ctx)
            return 0;
        /* The reference's range(0, n - ctx, step) has so many starts; it then drops the last
         * one. */
        starts = ceil_div(n - s->ctx, step);
        return starts > 1 ? starts - 1 : 1;
    case PROTO_STRIDE:
        /* The first window takes ctx tokens, each further one brings up to 'step' new ones. */
        return n <= s->ctx ? 1 : 1 + ceil_div(n - s->ctx, step);
    default:
        /* A last window of one token predicts nothing. */
        return ceil_div(n, s->ctx) - (n % s->ctx == 1);
    }
}

/* Window i of a stretch. */
static struct window stretch_window(const struct window_spec *s, int64_t step, struct stretch p,
                                 int64_t i)
{
    struct window w = { p.start, s->ctx < p.n ? s->ctx : p.n, 1 };
    int64_t end, before;

    if (s->protocol == PROTO_STRIDE) {
        if (i > 0) {
            /* With ctx 8 and step 3, window 1 has tokens 3 to 10: windows before it have
             * reached token 7 (before = 8), so it scores its last three, from = 5. The last
             * window ends with the stretch and scores what is left. */
            before = s->ctx + (i - 1) * step;
            end = step < p.n - before ? before + step : p.n;
            w.start = p.start + end - s->ctx;
            w.from = s->ctx - (end - before);
        }
        return w;
    }
    w.start += i * step;
    if (s->protocol == PROTO_NONOVERLAP && p.n - i * step < w.len)
        w.len = p.n - i * step;
    return w;
}

/* The k-th window that max_windows keeps is number floor(k * all / keep): of 10 windows, 4
 * would be 0, 2, 5 and 7. The product may need more than 64 bits. */
static int64_t kept(int64_t k, int64_t all, int64_t keep)
{
    return (int64_t)((unsigned __int128)k * (uint64_t)all / (uint64_t)keep);
}

/* Goes through the stretches and the kept numbers at the same time; both ascend. */
static void fill_list(struct window_list *l, const struct window_spec *s, int64_t step,
                      const struct stretch *in, int64_t n_stretches)
{
    int64_t first = 0, k = 0; /* number of the stretch's first window; next to list */

    for (int64_t i = 0; i < n_stretches && k < l->n; i++) {
        int64_t count = stretch_count(s, step, in[i].n), at;

        for (; k < l->n && (at = kept(k, l->all, l->n)) < first + count; k++) {
            struct window w = stretch_window(s, step, in[i], at - first);

            l->v[k] = w;
            l->scored += w.len - w.from;
            if (w.len > l->longest)
                l->longest = w.len;
        }
        first += count;
    }
}

int windows_build(struct window_list *l, const struct window_spec *s, const struct stretch *in,
                  int64_t n_stretches, struct err *e)
{
    int64_t step = s->protocol == PROTO_NONOVERLAP ? s->ctx : s->step;
    size_t bytes;

    memset(l, 0, sizeof *l);
    if (s->ctx < 2)
        return err_set(e, E_CONFIG, "--ctx %" PRId64 ": must be at least 2", s->ctx);
    if (step == 0)
        step = windows_default_step(s->protocol, s->ctx);
    if (step < 1 || (s->protocol == PROTO_STRIDE && step >= s->ctx)) {
        err_set(e, E_CONFIG, "--step %" PRId64 " does not fit --ctx %" PRId64, step,
                s->ctx);
        return err_hint(e, "with --protocol stride, --step must be below the smallest --ctx");
    }
    /* A first pass counts, so that the list is allocated once at its final size. */
    for (int64_t i = 0; i < n_stretches; i++)
        l->all += stretch_count(s, step, in[i].n);
    l->n = s->max_windows > 0 && s->max_windows < l->all ? s->max_windows : l->all;
    if (l->n == 0)
        return 0;
    if (!mul_ok((size_t)l->n, sizeof *l->v, &bytes) || !(l->v = malloc(bytes))) {
        err_set(e, E_SYS, "out of memory for a list of %" PRId64 " windows", l->n);
        l->n = 0;
        return err_hint(e, "--max-windows or --max-tokens makes it shorter");
    }
    fill_list(l, s, step, in, n_stretches);
    return 0;
}

void windows_free(struct window_list *l)
{
    free(l->v);
    memset(l, 0, sizeof *l);
}
