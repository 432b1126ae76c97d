/* eval/result.h - what leval found: as a table, as JSON, read back, compared and plotted. */
#ifndef EVAL_RESULT_H
#define EVAL_RESULT_H
#include "base/bytes.h"
#include "base/err.h"
#include "eval/measured.h"
#include "eval/score.h"
#include <stdbool.h>
#include <stdint.h>
C_BEGIN

enum { RESULT_ROWS = 32 };

/* One model over one corpus. Strings are truncated to fit, never refused. */
struct result {
    struct measured of;
    char data[512], form[32], split[64], protocol[32];
    int64_t data_tokens, data_docs;
    uint64_t data_hash;
    bool joined;
    char masks[16];           /* of data that has masks: "left out", or "scored" with the rest */
    char keys[128];           /* of LongPPL: whose key tokens; "": another protocol */
    int64_t mean_of;          /* windows averaged together first; 0: as 1 */
    int64_t n;
    struct score row[RESULT_ROWS]; /* one a context, in the order asked for */
};

/* The result for people: what was measured, then a line a context. by_position adds
 * perplexity by the number of tokens before the predicted one. E_SYS. */
int result_table(struct buf *out, const struct result *r, bool by_position, struct err *e);
/* The result as one JSON object (leval(1) lists its fields): each loss also as a hexadecimal
 * float, exact. E_SYS. */
int result_json(struct buf *out, const struct result *r, struct err *e);
/* Reads that object back: label, protocol, data, hash, contexts and losses. The text is
 * untrusted. E_NOINPUT, E_DATA. */
int result_read(struct result *r, const char *path, struct err *e);
int result_parse(struct result *r, const char *json, size_t nbytes, const char *name,
                 struct err *e);

/* Rows = results, columns = contexts of any of them, cells = perplexity. E_SYS. */
int results_table(struct buf *out, const struct result *r, int64_t n, struct err *e);
int results_json(struct buf *out, const struct result *r, int64_t n, struct err *e);
/* NULL, or how results k and 0 differ so that their numbers cannot be compared. */
const char *results_differ(const struct result *r, int64_t k);

/* The chart of perplexity over context, or (by_position, one result) over the tokens before.
 * To text when path is NULL, else to a file. */
struct result_chart {
    const char *title; /* NULL: made up */
    bool by_position, utf8, colour;
    int width;
};
int results_chart(struct buf *out, const char *path, const struct result_chart *how,
                  const struct result *r, int64_t n, struct err *e);

C_END
#endif
