/* prep/filter.c - see filter.h. */
#include "prep/filter.h"

#include "base/jsonscan.h"
#include "base/opt.h"
#include "base/utf8.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define VALUE_BYTES 8192                     /* of a value are matched */
#define SAMPLE_SALT UINT64_C(0x53414D504C45) /* so that lpack's split is another draw */

int filter_add_where(struct filter *f, const char *text, bool not, struct err *e)
{
    const char *option = not ? "--where-not" : "--where", *eq = strchr(text, '=');
    struct filter_where *w = &f->where[f->n_where];
    char why[128];
    char *path;
    int rc;

    if (!eq || eq == text)
        return err_set(e, E_USAGE, "%s '%s' is not KEY=REGEX", option, text);
    if (f->n_where == FILTER_MAX)
        return err_set(e, E_USAGE, "more than %d --where", FILTER_MAX);
    if ((rc = regcomp(&w->regex, eq + 1, REG_EXTENDED | REG_NOSUB)) != 0) {
        regerror(rc, &w->regex, why, sizeof why);
        return err_set(e, E_USAGE, "%s '%s': %s", option, text, why);
    }
    if (!(path = strndup(text, (size_t)(eq - text)))) {
        regfree(&w->regex);
        return err_set(e, E_SYS, "out of memory");
    }
    w->path = path;
    w->not = not;
    f->n_where++;
    return 0;
}

int filter_add_rate(struct filter *f, const char *text, struct err *e)
{
    const char *eq = strrchr(text, '=');
    struct filter_rate *r = &f->rate[f->n_rates];

    if (!eq || eq == text || !num_f64(eq + 1, &r->rate) || r->rate < 0 || r->rate > 1)
        return err_set(e, E_USAGE, "--sample '%s' is not SOURCE=RATE, RATE from 0 to 1", text);
    if (f->n_rates == FILTER_MAX)
        return err_set(e, E_USAGE, "more than %d --sample", FILTER_MAX);
    if (!(r->glob = strndup(text, (size_t)(eq - text))))
        return err_set(e, E_SYS, "out of memory");
    f->n_rates++;
    return 0;
}

bool filter_rate_meets(const struct filter_rate *r, const struct tally *seen)
{
    for (int64_t i = 0; i < seen->n; i++)
        if (fnmatch(r->glob, seen->v[i].name, 0) == 0)
            return true;
    return false;
}

void filter_free(struct filter *f)
{
    while (f->n_where > 0) {
        struct filter_where *w = &f->where[--f->n_where];
        free((char *)w->path);
        regfree(&w->regex);
    }
    while (f->n_rates > 0)
        free(f->rate[--f->n_rates].glob);
}

/* One object of the way: 1 where the path ends at *v, 2 where *rest of it goes on inside. */
static int step(const char *p, size_t n, const char *path, struct json_value *v,
                const char **rest)
{
    struct json_object o = json_scan(p, n);
    struct json_value key, value;
    char first[256];
    size_t k = strcspn(path, ".");
    int found = 0;

    if (k >= sizeof first)
        return 0;
    memcpy(first, path, k);
    first[k] = '\0';
    while (json_next(&o, &key, &value, NULL) == 1) {
        /* A key that has dots itself, "a.b", comes before the key "b" inside of "a". */
        if (json_is(&key, path)) {
            *v = value;
            found = 1;
        } else if (found != 1 && path[k] && json_is(&key, first)) {
            *v = value;
            *rest = path + k + 1;
            found = 2;
        }
    }
    return found;
}

/* Walks down the path an object at a time. An object inside a string is decoded to one
 * buffer while its own text may still be in the other: they take turns. */
int filter_find(const char *row, size_t n, const char *path, struct buf *out, struct err *e)
{
    struct buf inner[2] = { { 0 }, { 0 } }; /* an object in a string in an object ... */
    struct json_value v;
    int found, which = 0, rc = 0;

    while ((found = step(row, n, path, &v, &path)) == 2 && rc == 0) {
        struct buf *b = &inner[which ^= 1];
        row = v.p;
        n = v.n;
        if (v.type == JK_STRING) {
            b->len = 0;
            rc = json_text(&v, true, b, e);
            row = b->p ? b->p : "";
            n = b->len;
        }
    }
    if (rc == 0 && found == 1)
        rc = v.type == JK_STRING ? json_text(&v, true, out, e) : buf_add(out, v.p, v.n, e);
    buf_free(&inner[0]);
    buf_free(&inner[1]);
    return rc < 0 ? rc : found == 1;
}

/* True when word is one of the words of list, which commas part: "de" is in "en,de". */
static bool in_list(const char *list, const char *word, size_t n)
{
    for (const char *p = list; *p; p += strcspn(p, ","), p += *p == ',')
        if (strcspn(p, ",") == n && memcmp(p, word, n) == 0)
            return true;
    return false;
}

/* 1 when the language is wanted; a row that names none is not. */
static int language_ok(const struct filter *f, const char *row, size_t n, struct err *e)
{
    static const char *const path[] = { "meta.language", "language", "meta.lang", "lang" };
    struct buf b = { 0 };
    int rc = 0;

    /* The first key that is there decides. */
    for (size_t i = 0; row && rc == 0 && i < sizeof path / sizeof *path; i++)
        rc = filter_find(row, n, path[i], &b, e);
    if (rc == 1)
        rc = b.len > 0 && in_list(f->languages, b.p, b.len);
    buf_free(&b);
    return rc;
}

/* 1 when all conditions hold, 0 when one does not. A key that is not there matches no
 * pattern, so that --where leaves the row out and --where-not keeps it. */
static int where_ok(const struct filter *f, const char *row, size_t n, struct err *e)
{
    struct buf b = { 0 };
    int rc = 1;

    for (int i = 0; i < f->n_where && rc == 1; i++) {
        const struct filter_where *w = &f->where[i];
        b.len = 0;
        if ((rc = row ? filter_find(row, n, w->path, &b, e) : 0) == 1) {
            b.len = b.len < VALUE_BYTES ? b.len : VALUE_BYTES;
            if ((rc = buf_add(&b, "", 1, e)) == 0) /* regexec takes a string */
                rc = regexec(&w->regex, b.p, 0, NULL, 0) == 0;
        }
        if (rc >= 0)
            rc = rc != w->not;
    }
    buf_free(&b);
    return rc;
}

/* Whether --sample keeps the document: a hash of the seed and its text, as a number in [0, 1),
 * must be below the rate. The choice depends on nothing else, and copies share it. */
static bool sampled(const struct filter *f, const struct doc *d)
{
    const struct buf *part[] = { &d->text, &d->input, &d->output };
    uint64_t h = (uint64_t)f->seed ^ SAMPLE_SALT;

    for (int i = 0; i < f->n_rates; i++)
        if (fnmatch(f->rate[i].glob, d->source, 0) == 0) {
            for (int k = 0; k < (d->instruct ? 3 : 1); k++)
                h = XXH3_64bits_withSeed(part[k]->len ? part[k]->p : "", part[k]->len, h);
            /* 53 bits are what a double holds exactly;
             * a rate of 1 keeps all, a rate of 0 none. */
            return (double)(h >> 11) * 0x1p-53 < f->rate[i].rate;
        }
    return true;
}

int filter_doc(const struct filter *f, const struct doc *d, const char *row, size_t n,
               struct err *e)
{
    int64_t chars = 0;
    int rc;

    /* Cheap questions come before those that walk the row's JSON again. */
    if (d->text.len == 0 && (!d->instruct || d->output.len == 0))
        return DROP_EMPTY;
    if (f->min_chars > 0 || f->max_chars > 0)
        chars = utf8_chars(d->text.p, d->text.len) + utf8_chars(d->input.p, d->input.len) +
                utf8_chars(d->output.p, d->output.len);
    if (chars < f->min_chars)
        return DROP_SHORT;
    if (f->max_chars > 0 && chars > f->max_chars)
        return DROP_LONG;
    if (f->languages && (rc = language_ok(f, row, n, e)) != 1)
        return rc < 0 ? rc : DROP_LANGUAGE;
    if (f->n_where && (rc = where_ok(f, row, n, e)) != 1)
        return rc < 0 ? rc : DROP_WHERE;
    return sampled(f, d) ? KEPT : DROP_SAMPLE;
}
