/* eval/windows.h - which windows of the data a perplexity protocol scores: a pure function. */
#ifndef EVAL_WINDOWS_H
#define EVAL_WINDOWS_H
#include "base/err.h"
#include <stdint.h>
C_BEGIN

/*
 * A window is tokens [start, start + len) of the data, given to the model at positions
 * 0 .. len-1. Scored are its tokens [from, len), each predicted from those before it in the
 * window; from >= 1. A stretch is a stretch of data that no window leaves: one document, or the
 * whole stream when documents are joined.
 *
 * PROTO_LONGLORA, as the reference's eval.py: for i in range(0, N - ctx, step), the last start
 *   dropped as there ('all_ix.pop()'), from = 1, so ctx-1 predictions a window. The result is
 *   ppl = exp(mean over windows of the window's mean nll). The reference takes the mean over
 *   batches of --batch_size windows (32; the last has fewer) of their mean, which is mean_of, and
 *   writes e as 2.71828, a relative 7e-7 times the loss. Beyond the reference: where its rule leaves no window though
 *   N >= ctx, the one at 0 is scored. Windows shorter than ctx never.
 * PROTO_STRIDE: every token but a stretch's first is scored exactly once. The first window
 *   takes the stretch's first ctx tokens and scores all of them; each further one ends step
 *   tokens later (the last at the stretch's end), is ctx long and scores what the one before
 *   did not reach: every token beyond the first ctx has at least ctx - step before it.
 *   step < ctx.
 *   ppl = exp(sum of nll / tokens scored).
 * PROTO_NONOVERLAP: windows of ctx laid end to end, the last of a stretch shorter; from = 1.
 *   ppl = exp(sum of nll / tokens scored).
 */
enum protocol { PROTO_LONGLORA, PROTO_STRIDE, PROTO_NONOVERLAP };
const char *protocol_name(enum protocol p); /* "longlora", "stride", "nonoverlap" */

struct stretch {
    int64_t start, n;
};
struct window {
    int64_t start, len, from;
};
struct window_spec {
    enum protocol protocol;
    int64_t ctx;         /* >= 2 */
    int64_t step;        /* >= 1; 0: windows_default_step */
    int64_t max_windows; /* 0: all; else so many, spread evenly: those numbered
                            floor(k * all / max_windows) */
    int64_t mean_of;     /* longlora: windows averaged together first, at the end fewer; 0: 1 */
};
struct window_list {
    struct window *v; /* owned; ascending */
    int64_t n;        /* listed */
    int64_t all;      /* before max_windows thinned them */
    int64_t scored;   /* predictions of the listed ones: sum of len - from */
    int64_t longest;  /* the longest listed window */
};

int64_t windows_default_step(enum protocol p, int64_t ctx); /* 256; stride: at most ctx/2 */
/* Zero l before. Spans of fewer than two tokens have no window. n may come out 0: not an
 * error here. E_CONFIG (ctx, step), E_SYS (memory, naming the number of windows). */
int windows_build(struct window_list *l, const struct window_spec *s, const struct stretch *in,
                  int64_t n_stretches, struct err *e);
void windows_free(struct window_list *l);

C_END
#endif
