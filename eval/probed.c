/* eval/probed.c - scores by task, length and depth, and their means; see probed.h. */
#include "eval/probed.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int probed_add(struct probed *r, int64_t n, struct probed_cell **c, struct err *e)
{
    size_t cap = (size_t)r->cap, bytes;
    double *score;
    int rc = array_grow(&r->cell, &cap, (size_t)r->n, sizeof *r->cell, 64, "results", e);

    r->cap = (int64_t)cap;
    if (rc < 0)
        return rc;
    if (!mul_ok((size_t)n, sizeof *score, &bytes) || !(score = malloc(bytes)))
        return err_set(e, E_SYS, "out of memory for %" PRId64 " scores", n);
    for (int64_t i = 0; i < n; i++)
        score[i] = NAN;
    *c = &r->cell[r->n++];
    **c = (struct probed_cell){ .n = n, .score = score, .depth = -1 };
    return 0;
}

void probed_free(struct probed *r)
{
    for (int64_t i = 0; i < r->n; i++)
        free(r->cell[i].score);
    free(r->cell);
    *r = (struct probed){ 0 };
}

bool probed_find(const struct probed *r, const char *task, int64_t length, int64_t *from,
                 int64_t *to)
{
    for (*from = 0; *from < r->n; (*from)++)
        if (r->cell[*from].length == length && strcmp(r->cell[*from].task, task) == 0)
            break;
    for (*to = *from; *to < r->n && r->cell[*to].length == length &&
                      strcmp(r->cell[*to].task, task) == 0;)
        (*to)++;
    return *to > *from;
}

int64_t probed_lengths(const struct probed *r, int64_t *length, int64_t most)
{
    int64_t n = 0;

    for (int64_t i = 0; i < r->n && n < most; i++) {
        int64_t k = 0;

        while (k < n && length[k] != r->cell[i].length)
            k++;
        if (k == n)
            length[n++] = r->cell[i].length;
    }
    return n;
}

int64_t probed_columns(const struct probed *r, int64_t *length, int64_t most)
{
    int64_t n = probed_lengths(r, length, most - 1);

    if (n > 1)
        length[n++] = 0;
    return n;
}

int64_t probed_tasks(const struct probed *r, const char **task, int64_t most)
{
    int64_t n = 0;

    for (int64_t i = 0; i < r->n && n < most; i++) {
        int64_t k = 0;

        while (k < n && strcmp(task[k], r->cell[i].task) != 0)
            k++;
        if (k == n)
            task[n++] = r->cell[i].task;
    }
    return n;
}

/* Scores of a task at a length, or c's less r's, behind x; how many, 0: none to compare. */
static int64_t take(const struct probed *r, const struct probed *c, const char *task, int64_t length,
                    double *x)
{
    int64_t from, to, cfrom = 0, cto, n = 0;

    if (!probed_find(r, task, length, &from, &to) ||
        (c && (!probed_find(c, task, length, &cfrom, &cto) || cto - cfrom != to - from)))
        return 0;
    for (int64_t i = from; i < to; i++) {
        const struct probed_cell *a = &r->cell[i], *b = c ? &c->cell[cfrom + i - from] : NULL;

        if (b && (b->n != a->n || b->prompts != a->prompts))
            return 0;
        for (int64_t k = 0; k < a->n; k++)
            x[n++] = b ? b->score[k] - a->score[k] : a->score[k];
    }
    return n;
}

/* The same of one length, or with 0 of all that r has, each a stratum: how many strata, 0 also where a
 * length cannot be compared. *x moves behind what was taken. */
static int64_t take_lengths(const struct probed *r, const struct probed *c, const char *task, int64_t length,
                            double **x, struct stratum *s)
{
    int64_t n = 0, from, to;

    for (int64_t i = 0; i < r->n; i = to) {
        to = i + 1;
        if ((length && r->cell[i].length != length) || strcmp(r->cell[i].task, task) != 0)
            continue;
        probed_find(r, task, r->cell[i].length, &from, &to);
        if (from != i) { /* there was a run of both before: that one counts */
            to = i + 1;
            continue;
        }
        if ((s[n].n = take(r, c, task, r->cell[i].length, *x)) == 0)
            return 0;
        s[n].x = *x;
        *x += s[n++].n;
    }
    return n;
}

int probed_score(const struct probed *r, const struct probed *c, const char *task, int64_t length,
                 struct interval *out, bool *same, struct err *e)
{
    const char **name = calloc((size_t)r->n + 1, sizeof *name);
    struct stratum *s = calloc((size_t)r->n + 1, sizeof *s);
    int64_t all = 0, tasks = 1, strata = 0;
    double *x, *at;
    int rc = 0;

    for (int64_t i = 0; i < r->n; i++)
        all += r->cell[i].n;
    x = at = malloc((size_t)(all + 1) * sizeof *x);
    if (!name || !s || !x)
        rc = err_set(e, E_SYS, "out of memory");
    else if (task)
        name[0] = task;
    else
        tasks = probed_tasks(r, name, r->n);
    for (int64_t i = 0; i < tasks && rc == 0; i++)
        strata += take_lengths(r, c, name[i], length, &at, s + strata);
    *same = strata > 0;
    *out = (struct interval){ 0, 0, 0 };
    if (rc == 0 && strata > 0)
        rc = bootstrap(out, s, strata, e);
    free(x);
    free(s);
    free(name);
    return rc;
}
