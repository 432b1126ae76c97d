/* eval/ppl.h - leval --ppl: a model folder, an adapter, a file and contexts to a result. */
#ifndef EVAL_PPL_H
#define EVAL_PPL_H
#include "base/err.h"
#include "eval/corpus.h"
#include "eval/result.h"
#include "eval/windows.h"
#include "model/session.h"
#include <stdbool.h>
#include <stdint.h>
C_BEGIN

struct ppl_options {
    const char *model, *adapter; /* folders; adapter may be NULL */
    const char *label;           /* NULL: the last name of adapter or model */
    struct corpus_options data;  /* vocab is filled in here, and tokenizer where NULL */
    int64_t ctx[RESULT_ROWS];
    int64_t n_ctx;               /* 0: one, the model's own context */
    enum protocol protocol;
    int64_t step, max_windows;   /* as struct window_spec */
    bool join;
    double rope_factor;          /* 0 the model's RoPE as it is, > 0 linear scaling by it, < 0
                                    the reference's rule for the largest context */
    int64_t batch_tokens;        /* tokens computed at once, where a window is not longer */
    struct machine machine;
};

/* Everything that can be refused is refused before the weights are loaded. Progress and what
 * was resolved go to base/log. The first error of what it calls, with the file's name. */
int ppl_run(struct result *r, const struct ppl_options *o, struct err *e);

C_END
#endif
