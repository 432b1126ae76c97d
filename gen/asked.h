/* gen/asked.h - what lgen was asked for, and what is open for it. */
#ifndef GEN_ASKED_H
#define GEN_ASKED_H
#include "base/opt.h"
#include "formats/tokenizer/tokenizer.h"
#include "gen/turns.h"
#include "gen/reply.h"
#include "gen/said.h"
#include "model/session.h"
#include "ranks/open.h"
#include <stdio.h>
C_BEGIN

#define CACHES "auto|float|bf16|int8"
enum { CACHE_AUTO, CACHE_FLOAT, CACHE_BF16, CACHE_INT8 };

struct asked {
    const char *model, *adapter, *tokenizer;
    struct machine machine;      /* its group: the ranks, which have the layers one after another */
    struct ranks_options ranks;
    int64_t ctx;                 /* of a text; 0: as many as are needed */
    int cache;                   /* of CACHES */
    bool cache_in_host;
    int64_t sinks, window;       /* window 0: everything is kept */
    int64_t chunk;               /* tokens of a prompt computed at once; 0: by the device */
    int gpu;                     /* --plan: a card; -1: what is here */

    struct reply_options reply;
    struct opt_list stop, files;
    int chat;                    /* of TURNS_FORMS; -1: by the model's folder */
    const char *system, *batch, *session;
    int64_t parallel;            /* --batch: texts at once */
    bool no_bos, talk, plan, logprobs, json, raw, quiet, verbose;
    char **word;                 /* the prompt's */
    int words;
};

/* What is open. Zero it before; opening_close takes any state. */
struct opening {
    const struct asked *o;
    struct session s;
    struct tokenizer *t;
    enum chat_form chat;
    uint64_t adapter_hash;       /* of its files; 0: there is none */
    struct said said;            /* text 0 of the session */
    float *logits;               /* [vocab] */
    double read_rate;            /* bytes a second that the device reads; 0: not known */
};

/* In order. files: the model's configuration and tokenizer: what a prompt can be made ids with. plan: the
 * device, and what seqs texts of rows tokens take; E_CONFIG, E_SYS where they do not fit. load: the weights. All
 * ranks come through plan and load, or none. */
int opening_files(struct opening *g, const struct asked *o, struct err *e);
int opening_plan(struct opening *g, int64_t rows, int64_t seqs, struct err *e);
int opening_load(struct opening *g, struct err *e);
void opening_close(struct opening *g);

/* All ranks make the same calls and get the same logits; the first reads and writes. */
struct group *opening_ranks(const struct opening *g);

/* Rows that a text needs which begins with n tokens: those and what is to come, or what --ctx says. E_CONFIG,
 * with what to do, where the model's context, or --ctx, is shorter. */
int opening_rows(const struct opening *g, int64_t n, int64_t *rows, struct err *e);

/* outlook.c: --plan: what it takes and how fast it will be, as lines; of so many ranks to come. */
int opening_print(struct opening *g, int ranks, int64_t rows, int64_t seqs, FILE *f, struct err *e);
/* For it: the plan of one of so many ranks, which are not here. */
int opening_plan_rank(struct opening *g, int rank, int ranks, int64_t rows, int64_t seqs, struct err *e);

C_END
#endif
