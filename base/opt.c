/* base/opt.c - see opt.h. */
#include "base/opt.h"
#include "base/utf8.h"
#include "base/log.h"
#include "base/mapped.h"
#include "base/must.h"
#include "base/processor.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Rows without a place to store to: parse_one knows by dst NULL that they only print. */
static const struct opt builtin[] = {
    { 'h', "help", NULL, OPT_FLAG, NULL, 0, 0, "print this and exit" },
    { 0, "version", NULL, OPT_FLAG, NULL, 0, 0, "print the version and exit" },
    { 0, "completion", NULL, OPT_FLAG, NULL, 0, 0, "print a bash completion script and exit" },
    OPT_END
};

/* A row with help alone is a heading; one with neither ends the table. */
static bool is_row(const struct opt *o) { return o->name || o->help; }

void opt_add(struct opt_table *t, const struct opt *rows)
{
    const int most = (int)(sizeof t->row / sizeof *t->row) - 1; /* and the end */

    for (; is_row(rows) && t->n < most; rows++)
        t->row[t->n++] = *rows;
    /* The tables are part of the program, so one that is too long is a mistake in it. */
    assert(!is_row(rows));
    t->row[t->n] = (struct opt)OPT_END;
}

bool num_f64(const char *s, double *v)
{
    char *end;

    errno = 0;
    /* strtod skips white space before a number and this does not; "1e999" sets errno, and "nan"
     * and "inf" are refused. */
    *v = strtod(s, &end);
    return !errno && end != s && *end == '\0' && isfinite(*v) && !isspace((unsigned char)*s);
}

/* A whole number and at most one letter of suffixes, each worth 1024 times the one before: of
 * "kmgt", 2k is 2048 and 1g is 2^30. False for overflow too. */
static bool num_suffix(const char *s, int64_t *v, const char *suffixes)
{
    char *end;
    const char *at;
    int64_t n, unit = 1;

    if (!isdigit((unsigned char)*s) && *s != '-')
        return false;
    errno = 0;
    n = strtoll(s, &end, 10);
    if (errno || end == s)
        return false;
    if (*end) {
        if (end[1] || !(at = strchr(suffixes, tolower((unsigned char)*end))))
            return false;
        /* One factor of 1024 for each letter up to the one that was found. */
        for (const char *p = suffixes; p <= at; p++)
            unit *= 1024;
    }
    return !__builtin_mul_overflow(n, unit, v);
}

bool num_i64(const char *s, int64_t *v) { return num_suffix(s, v, ""); }
bool num_tokens(const char *s, int64_t *v) { return num_suffix(s, v, "km"); }
bool num_bytes(const char *s, int64_t *v) { return num_suffix(s, v, "kmgt"); }

int num_tokens_list(const char *s, int64_t *v, int max, struct err *e)
{
    char word[64];
    int n = 0;

    for (const char *p = s;; p++) {
        size_t k = strcspn(p, ",");
        if (n == max)
            return err_set(e, E_USAGE, "'%s' has more than %d numbers", s, max);
        snprintf(word, sizeof word, "%.*s", (int)(k < sizeof word ? k : sizeof word - 1), p);
        if (!num_tokens(word, &v[n]) || v[n] < 1)
            return err_set(e, E_USAGE, "'%s' in '%s' is not a number of tokens (512, 8k)", word,
                           s);
        n++;
        p += k;
        if (*p == '\0')
            return n;
    }
}

static void print_opts(FILE *f, const struct opt *tab)
{
    char left[80];

    for (const struct opt *o = tab; is_row(o); o++) {
        if (!o->name) {
            fprintf(f, "\n%s:\n", o->help);
            continue;
        }
        /* The name's column is 26 wide; what does not fit has its help on the next line. */
        snprintf(left, sizeof left, "%c%c%s--%s%s%s", o->key ? '-' : ' ', o->key ? o->key : ' ',
                 o->key ? ", " : "  ", o->name, o->arg ? " " : "", o->arg ? o->arg : "");
        fprintf(f, strlen(left) > 26 ? "  %s\n%30s%s\n" : "  %-26s  %s%s\n", left,
                strlen(left) > 26 ? "" : o->help, strlen(left) > 26 ? o->help : "");
    }
}

static void print_help(const struct cmd *c)
{
    printf("usage: %s %s\n%s\n", c->name, c->synopsis, c->summary);
    if (c->examples)
        printf("\nexamples:\n%s", c->examples);
    if (is_row(c->opts) && c->opts->name)
        printf("\noptions:\n");
    print_opts(stdout, c->opts);
    printf("\n");
    print_opts(stdout, builtin);
    printf("\nmore: man %s; man 7 longlora\n", c->name);
}

/* For bash: the long names as words, and file names where none of them fits. */
static void print_completion(const struct cmd *c)
{
    printf("complete -o default -W '");
    for (int pass = 0; pass < 2; pass++)
        for (const struct opt *o = pass ? builtin : c->opts; is_row(o); o++)
            if (o->name)
                printf("--%s ", o->name);
    printf("' %s\n", c->name);
}

/* Levenshtein distance, for "did you mean"; words over 31 characters count as far away. */
static int distance(const char *a, const char *b)
{
    int row[32], n = (int)strlen(b);

    if (n > 31 || strlen(a) > 31)
        return 99;
    for (int j = 0; j <= n; j++)
        row[j] = j;
    /* One row of the table of distances is kept. row[j] is the distance of a's first i letters
     * from b's first j; diag is row[j - 1] of the line above. */
    for (int i = 1; a[i - 1]; i++) {
        int diag = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int d = diag + (a[i - 1] != b[j - 1]);
            diag = row[j];
            if (row[j] + 1 < d)
                d = row[j] + 1;
            if (row[j - 1] + 1 < d)
                d = row[j - 1] + 1;
            row[j] = d;
        }
    }
    return row[n];
}

/* The error for an option that does not exist, with the nearest name there is. */
static int unknown(const struct cmd *c, const char *word, struct err *e)
{
    const char *best = NULL;
    /* More than three edits are no slip of the hand. */
    int d, least = 4;

    if (word[0] == '-' && word[1] == '-')
        for (int pass = 0; pass < 2; pass++)
            for (const struct opt *o = pass ? builtin : c->opts; is_row(o); o++)
                if (o->name && (d = distance(word + 2, o->name)) < least) {
                    least = d;
                    best = o->name;
                }
    err_set(e, E_USAGE, "unknown option '%.100s'", word);
    return best ? err_hint(e, "did you mean '--%s'? '%s --help' lists all", best, c->name)
                : err_hint(e, "'%s --help' lists the options", c->name);
}

/* By its letter, or where key is 0 by its long name of n bytes; NULL for neither. */
static const struct opt *find(const struct cmd *c, char key, const char *name, size_t n)
{
    for (int pass = 0; pass < 2; pass++)
        for (const struct opt *o = pass ? builtin : c->opts; is_row(o); o++)
            if (key ? o->key == key
                    : o->name && strlen(o->name) == n && memcmp(o->name, name, n) == 0)
                return o;
    return NULL;
}

/* Stores the place of s among the words of o->arg, "a|b|c": 1 for b. */
static int store_enum(const struct opt *o, const char *s, struct err *e)
{
    size_t n = strlen(s), k;
    int i = 0;

    /* p moves from word to word; k is the length of the one it stands at. */
    for (const char *p = o->arg;; p += k + 1, i++) {
        k = strcspn(p, "|");
        if (k == n && memcmp(p, s, n) == 0) {
            *(int *)o->dst = i;
            return 0;
        }
        if (p[k] == '\0')
            return err_set(e, E_USAGE, "--%s '%s' is not one of %s", o->name, s, o->arg);
    }
}

/* Whole numbers, which differ only in the suffixes they may have. */
static int store_num(const struct opt *o, const char *s, struct err *e)
{
    static const char *const what[] = { [OPT_I64] = "an integer",
                                        [OPT_TOKENS] = "a number of tokens (512, 8k)",
                                        [OPT_BYTES] = "a size (512m, 24g)" };
    int64_t v;
    enum opt_type type = opt_type(o);
    bool ok = type == OPT_I64 ? num_i64(s, &v) :
              type == OPT_TOKENS ? num_tokens(s, &v) : num_bytes(s, &v);

    if (!ok || (double)v < o->lo || (double)v > o->hi)
        return err_set(e, E_USAGE, "--%s '%s' is not %s from %.0f to %.0f", o->name, s,
                       what[type], o->lo, o->hi);
    *(int64_t *)o->dst = v;
    return 0;
}

/* A list of counts with commas, each within the row's bounds. */
static int store_counts(const struct opt *o, const char *s, struct err *e)
{
    struct opt_counts *c = o->dst;
    int n = num_tokens_list(s, c->v, OPT_MOST_COUNTS, e);

    if (n < 0)
        return err_within(e, "--%s", o->name);
    for (int i = 0; i < n; i++)
        if ((double)c->v[i] < o->lo || (double)c->v[i] > o->hi)
            return err_set(e, E_USAGE, "--%s %lld is not from %.0f to %.0f", o->name,
                           (long long)c->v[i], o->lo, o->hi);
    c->n = n;
    return 0;
}

/* Puts the text s into what o->dst points to, after checking it; s is not used by a flag. */
static int store(const struct opt *o, const char *s, struct err *e)
{
    struct opt_list *l = o->dst;
    double d;

    switch (opt_type(o)) {
    case OPT_FLAG:
        *(bool *)o->dst = true;
        return 0;
    case OPT_STR:
        *(const char **)o->dst = s;
        return 0;
    case OPT_LIST:
        if (l->n == (int)(sizeof l->v / sizeof *l->v))
            return err_set(e, E_USAGE, "--%s given more than %d times", o->name, l->n);
        l->v[l->n++] = s;
        return 0;
    case OPT_F64:
        /* -1 stands for "auto": the tool finds the number itself. */
        if ((o->type & OPT_AUTO) && strcmp(s, "auto") == 0)
            d = -1;
        else if (!num_f64(s, &d) || d < o->lo || d > o->hi)
            return err_set(e, E_USAGE, "--%s '%s' is not %sa number from %g to %g",
                           o->name, s, o->type & OPT_AUTO ? "auto or " : "", o->lo, o->hi);
        *(double *)o->dst = d;
        return 0;
    case OPT_ENUM:
        return store_enum(o, s, e);
    case OPT_COUNTS:
        return store_counts(o, s, e);
    default:
        return store_num(o, s, e);
    }
}

const struct opt *opt_find(const struct opt *rows, const char *name)
{
    for (const struct opt *o = rows; is_row(o); o++)
        if (o->name && strcmp(o->name, name) == 0)
            return o;
    return NULL;
}

int opt_set(const struct opt *o, const char *value, struct err *e) { return store(o, value, e); }

/* Handles one argument that begins with '-'. *i moves past a value taken from argv. */
static int parse_one(const struct cmd *c, int argc, char **argv, int *i, bool *done,
                     struct err *e)
{
    char *word = argv[*i];
    bool is_long = word[1] == '-';

    /* '-force' is a slip for '--force', and not -f -o rce. */
    if (!is_long && word[2] && find(c, 0, word + 1, strcspn(word + 1, "="))) {
        err_set(e, E_USAGE, "'%.100s' with one dash", word);
        return err_hint(e, "did you mean '-%.100s'?", word);
    }
    /* A long option passes once. Of short ones each letter is an option, as in -qv, until one
     * takes a value: the rest of the word is that value (-oDIR), or the next word is. */
    for (char *p = word + 1; *p;) {
        char *eq = is_long ? strchr(word, '=') : NULL;
        size_t n = is_long ? (eq ? (size_t)(eq - word) : strlen(word)) - 2 : 1;
        const struct opt *o = find(c, is_long ? 0 : *p, word + 2, n);
        char *value = is_long ? (eq ? eq + 1 : NULL) : p[1] ? p + 1 : NULL;
        int rc;

        if (!o)
            return unknown(c, word, e);
        /* The options of every tool print something and end it; they are told
         * apart by their names. */
        if (!o->dst) {
            if (o->key == 'h')
                print_help(c);
            else if (o->name[0] == 'v')
                printf("%s %s\n", c->name, LONGLORA_VERSION);
            else
                print_completion(c);
            *done = true;
            return 0;
        }
        if (c->given)
            c->given[o - c->opts] = true;
        if (!o->arg) {
            if (is_long && eq)
                return err_set(e, E_USAGE, "--%s takes no value", o->name);
            store(o, NULL, e);
            if (is_long)
                return 0;
            p++;
            continue;
        }
        if (!value && ++*i >= argc)
            return err_set(e, E_USAGE, "no value for '%s', which takes %s", word, o->arg);
        rc = store(o, value ? value : argv[*i], e);
        return rc;
    }
    return 0;
}

int opt_parse(const struct cmd *c, int argc, char **argv, bool *done, struct err *e)
{
    int n = 0, rc;
    bool only_operands = false;

    *done = false;
    /* Before anything else: from here on the program has a name in messages, and a mapped file
     * that is cut ends it with one. */
    must_begin(c->name);
    mapped_begin();
    signal(SIGXFSZ, SIG_IGN); /* a write beyond the limit then fails, as on a full disk */
    if ((rc = simd_check(e)) < 0)
        return rc;
    for (int i = 1; i < argc; i++) {
        /* Operands move to the front, to argv[1] and on: n never passes i, so none is lost. A
         * lone '-' is an operand, which tools take for standard input. */
        if (only_operands || argv[i][0] != '-' || argv[i][1] == '\0') {
            argv[++n] = argv[i];
        } else if (strcmp(argv[i], "--") == 0) {
            only_operands = true;
        } else if ((rc = parse_one(c, argc, argv, &i, done, e)) < 0 || *done) {
            return rc;
        }
    }
    return n;
}

int cmd_exit(const struct cmd *c, int rc, struct err *e)
{
    must_leave();
    /* A full disk may show only when the last of the output leaves the buffer; the
     * exit status must say so. */
    if ((fflush(stdout) != 0 || ferror(stdout)) && rc >= 0)
        rc = err_sys(e, E_IO, "cannot write standard output");
    text_clean(e->msg, true);
    if (rc < 0 && !e->told)
        fprintf(stderr, "%s: %s\n", c->name, e->msg[0] ? e->msg : "failed");
    /* Error codes are negative exit statuses. */
    return rc < 0 ? -rc : 0;
}
