/* eval/measured.h - which model a result is of, the same for every kind of result. */
#ifndef EVAL_MEASURED_H
#define EVAL_MEASURED_H
#include "base/bytes.h"
#include "base/json.h"
#include "eval/task.h"
C_BEGIN

/* Strings are cut to fit, never refused. */
struct measured {
    char label[128];          /* for tables; default: the adapter's or model's last name */
    char model[512], adapter[512];
    char rope[128];           /* "default", "linear 4", ... */
    char device[300];
    int64_t context;          /* the model's own, scaling included: of all that were measured the largest */
};

/* All but the device, which is opened later. label NULL: the default. */
void measured_fill(struct measured *m, const struct eval *v, const char *label);
void measured_device(struct measured *m, const struct eval *v);

/* "model     NAME + ADAPTER (context N, rope KIND)", a line for people. E_SYS. */
int measured_line(struct buf *out, const struct measured *m, struct err *e);
/* The first fields of a result, in a new object; kind NULL: that field is left out. */
json_t *measured_json(const struct measured *m, const char *kind);
/* Reads them back, but for the device; none must be there. E_DATA. */
int measured_read(struct measured *m, const struct js *o, struct err *e);

C_END
#endif
