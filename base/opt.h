/* base/opt.h - one option table a tool: parser, range checks, --help and completion. */
#ifndef BASE_OPT_H
#define BASE_OPT_H
#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
C_BEGIN

#define LONGLORA_VERSION "0.1.0"

enum opt_type {
    OPT_FLAG,   /* bool *         no argument; sets true */
    OPT_STR,    /* const char **  points into argv */
    OPT_LIST,   /* struct opt_list *  may be given more than once; commas do not split */
    OPT_I64,    /* int64_t *      a whole number in [lo, hi] */
    OPT_TOKENS, /* int64_t *      the same with suffix k = 1024, m = 1024^2 (8k, 100k) */
    OPT_BYTES,  /* int64_t *      the same with k, m, g, t = powers of 1024 (24g) */
    OPT_F64,    /* double *       a finite number in [lo, hi] */
    OPT_ENUM,   /* int *          index of a word in arg, "a|b|c" */
    OPT_COUNTS, /* struct opt_counts *  as OPT_TOKENS, several with commas between (8k,16k) */
    OPT_RESULT = 0x100, /* may be added to a type: another value gives other results. A run is
                          continued only with the same (opt_json.h) */
    OPT_AUTO = 0x200    /* to OPT_F64: the word auto too, which is -1 */
};
struct opt_list {
    const char *v[64];
    int n;
};
#define OPT_MOST_COUNTS 32
struct opt_counts {
    int64_t v[OPT_MOST_COUNTS];
    int n;
};

/* One row an option. key 0: long form only. A row with key 0, name NULL and help set is a
 * heading in --help; OPT_END closes the table. Defaults stand in *dst before the call, and
 * are named in help as "[8]". Rows that several tools have stand in base/opt_rows.h and
 * model/model_rows.h. */
struct opt {
    char key;
    const char *name, *arg;
    int type; /* enum opt_type, and flags */
    void *dst;
    double lo, hi;
    const char *help;
};
#define OPT_HEADING(text) { 0, NULL, NULL, OPT_FLAG, NULL, 0, 0, text }
#define OPT_END { 0, NULL, NULL, OPT_FLAG, NULL, 0, 0, NULL }
static inline enum opt_type opt_type(const struct opt *o)
{
    return (enum opt_type)(o->type & (OPT_RESULT - 1));
}

/* A table put together from several: zero it, then add. It ends in OPT_END. */
struct opt_table {
    struct opt row[128];
    int n;
};
void opt_add(struct opt_table *t, const struct opt *rows);

struct cmd {
    const char *name;     /* lprep */
    const char *synopsis; /* [-o folder] file ... */
    const char *summary;  /* one sentence */
    const char *examples; /* lines, each indented by two spaces and ended by \n */
    const struct opt *opts;
    bool *given;          /* one for each of opts: set where argv has it; NULL: nobody asks */
};

/* The row of a long name; NULL where there is none. */
const struct opt *opt_find(const struct opt *rows, const char *name);
/* Stores a value as if it stood in argv. E_USAGE, naming the option. */
int opt_set(const struct opt *o, const char *value, struct err *e);

/* Parses argv by the table and moves the operands to the front: argv[1 .. n].
 * Accepts -k V, -kV, --name V, --name=V, clustered flags, options after operands, '--' to
 * end options; no abbreviations. -h/--help, --version and --completion (bash) print and set
 * *done, which every table has without naming them.
 * Returns n >= 0, or E_USAGE with the option named (and the nearest one suggested). */
int opt_parse(const struct cmd *cmd, int argc, char **argv, bool *done, struct err *e);

/* Whole-string numbers: "12x" is an error. suffixes as OPT_TOKENS / OPT_BYTES. False if bad. */
bool num_i64(const char *s, int64_t *v);
bool num_tokens(const char *s, int64_t *v);
bool num_bytes(const char *s, int64_t *v);
bool num_f64(const char *s, double *v);
/* "8k,16k" to at most max numbers; returns how many, or E_USAGE. */
int num_tokens_list(const char *s, int64_t *v, int max, struct err *e);

/* The last lines of every main: flushes stdout (E_IO when that fails), prints "prog: message"
 * for a failure, returns the exit status. */
int cmd_exit(const struct cmd *cmd, int rc, struct err *e);

C_END
#endif
