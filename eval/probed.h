/* eval/probed.h - how well a model answered probes: as a table, as JSON, read back, compared. */
#ifndef EVAL_PROBED_H
#define EVAL_PROBED_H
#include "base/bytes.h"
#include "base/err.h"
#include "eval/bootstrap.h"
#include "eval/measured.h"
#include <stdbool.h>
#include <stdint.h>
C_BEGIN

enum { PROBED_DEPTHS = 101, PROBED_MOST = 4096 };

/* Prompts of one task, length and depth. */
struct probed_cell {
    char task[64];
    int64_t length;
    double depth;        /* asked for; -1: as the task has it */
    int64_t n;           /* prompts */
    double *score;       /* [n], owned; NAN: not known yet */
    double tokens;       /* of all prompts together */
    uint64_t prompts;    /* a hash of their texts and answers, in order */
    bool past;           /* longer than the model's context: RoPE was not scaled for it */
    int ctx;             /* while measuring: which context it belongs to */
};

/* One model. Strings are truncated to fit. */
struct probed {
    struct measured of;
    char tokenizer[512];
    int64_t seed;        /* -1: that of each original */
    char haystack[512];  /* its first file; "": none was used */
    int64_t haystack_bytes;
    uint64_t haystack_hash;
    int64_t n, cap;
    struct probed_cell *cell; /* [n], owned: by length, then by task, then by depth */
};
/* Room for one more cell of n prompts, which becomes the last; all 0. E_SYS. */
int probed_add(struct probed *r, int64_t n, struct probed_cell **c, struct err *e);
void probed_free(struct probed *r);

/* Cells of one task and length, all depths, [*from, *to); false: there are none. */
bool probed_find(const struct probed *r, const char *task, int64_t length, int64_t *from,
                 int64_t *to);
/* Lengths, and tasks, in the order they come first; each at most 'most', how many there are. Of several lengths
 * probed_columns has 0 behind them: all together. */
int64_t probed_lengths(const struct probed *r, int64_t *length, int64_t most);
int64_t probed_columns(const struct probed *r, int64_t *length, int64_t most);
int64_t probed_tasks(const struct probed *r, const char **task, int64_t most);
/* A task at a length, all depths; task NULL: the mean of all tasks there; length 0: that of all lengths. Of c
 * less r where c is given, over the same prompts: *same is false where there are none (of all lengths: of one of
 * them), and *out is nothing. E_SYS. */
int probed_score(const struct probed *r, const struct probed *c, const char *task, int64_t length,
                 struct interval *out, bool *same, struct err *e);

/* Tables of text: of one model, with maps by depth where there are depths; of several, and what each is
 * better than the first. E_SYS. */
struct probed_how {
    int width;
    bool utf8, colour;
};
int probed_table(struct buf *out, const struct probed *r, const struct probed_how *how, struct err *e);
int probed_compare(struct buf *out, const struct probed *r, int64_t n, struct err *e);
/* Drawn to a file: maps by depth, else the score of each task over lengths. E_SYS, E_CREATE, E_DATA. */
int probed_plot(const struct probed *r, int64_t n, const char *title, const char *path, struct err *e);

/* JSON (formats/probes.md). probed_is: an object of probed_json's, by its first bytes of text; the text
 * is untrusted. E_NOINPUT, E_DATA. */
int probed_json(struct buf *out, const struct probed *r, struct err *e);
int probed_compare_json(struct buf *out, const struct probed *r, int64_t n, struct err *e);
bool probed_is(const char *path);
int probed_read(struct probed *r, const char *path, struct err *e);
int probed_parse(struct probed *r, const char *json, size_t nbytes, const char *name, struct err *e);

C_END
#endif
