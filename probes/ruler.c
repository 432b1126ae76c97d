/* probes/ruler.c - how large the haystack of a kind after RULER is, and prompts of that size. */
#include "probes/ruler.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { TRIES = 50 };

void ruler_init(struct ruler *r, const struct probe_ask *a, int64_t reply, probe_make_fn *make)
{
    r->ask = *a;
    r->words = a->source.words ? a->source.words : &own_words;
    r->reply = reply;
    r->make = make;
    python_random_seed(&r->random, a->seed);
    numpy_random_seed(&r->numpy, (uint32_t)a->seed);
}

int ruler_too_short(const struct ruler *r, int64_t needed, struct err *e)
{
    if (needed < RULER_TOO_LARGE)
        return probe_too_short(&r->ask, needed, e);
    return err_set(e, E_USAGE, "a length of %" PRId64 " tokens is too short", r->ask.length);
}

/* Python's a // b of floats above 0. */
static double floor_divide(double a, double b)
{
    const double whole = (a - fmod(a, b)) / b, down = floor(whole);

    return whole - down > 0.5 ? down + 1 : down;
}

/* The original goes on with the smallest size though that is too large, until chance helps: here it must
 * fit in one of some tries, after which all is as it was. */
static int smallest_fits(struct ruler *r, struct err *e)
{
    const struct python_random random = r->random, numpy = r->numpy;
    struct probe p = { 0 };
    int64_t most = 0;
    bool fits = false;
    int rc = 0;

    for (int i = 0; i < TRIES && rc == 0 && !fits; i++)
        if ((rc = r->make(r, r->step, &p, e)) == 0) {
            const int64_t length = p.tokens + r->reply;

            fits = length <= r->ask.length;
            most = length > most ? length : most;
        }
    probe_free(&p);
    r->random = random;
    r->numpy = numpy;
    return rc < 0 || fits ? rc : ruler_too_short(r, most, e);
}

/* The largest size of [low, high] that fits, 0: none does. */
static int halve(struct ruler *r, probe_make_fn *make, int64_t low, int64_t high, int64_t *found,
                 struct err *e)
{
    struct probe p = { 0 };
    int rc = 0;

    for (*found = 0; low <= high && rc == 0;) {
        const int64_t mid = (low + high) / 2;

        rc = make(r, mid, &p, e);
        if (rc == 0 && p.tokens + r->extra + r->reply <= r->ask.length) {
            *found = mid;
            low = mid + 1;
        } else {
            high = mid - 1;
        }
    }
    probe_free(&p);
    return rc;
}

/* Needles lie where they do in the original until the size is known: prompts that differ in their depth
 * alone begin with the same numbers. */
int ruler_search(struct ruler *r, int64_t first, int times, bool whole, struct err *e)
{
    probe_make_fn *const make = r->plain ? r->plain : r->make;
    const double length = (double)r->ask.length, depth = r->ask.depth;
    struct probe p = { 0 };
    int64_t high, found = 0;
    double each;
    int rc;

    r->ask.depth = -1;
    if ((rc = make(r, first, &p, e)) == 0) {
        each = (double)p.tokens / (double)first;
        high = whole ? (int64_t)floor_divide(length, each) * times : (int64_t)(length / each * times);
        rc = halve(r, make, r->step, high < 2 * r->step ? 2 * r->step : high, &found, e);
    }
    r->size = found ? found : r->step;
    if (rc == 0 && r->size < 2 * r->step)
        rc = smallest_fits(r, e);
    r->ask.depth = depth;
    probe_free(&p);
    return rc;
}

/* The original tries the smallest size for ever. */
int ruler_next(struct ruler *r, struct probe *p, struct err *e)
{
    int64_t size = r->size;

    for (int tries = 0; tries < TRIES;) {
        int rc = r->make(r, size, p, e);

        if (rc < 0 || p->tokens + r->reply <= r->ask.length)
            return rc;
        if (size > r->step && size - r->step >= r->least) {
            size -= r->step;
        } else if (++tries == TRIES && size > r->least) {
            size = r->least;
            tries = 0;
        }
    }
    return ruler_too_short(r, p->tokens + r->reply, e);
}

void ruler_begin(struct probe *p)
{
    p->prompt.len = p->answers.len = p->others.len = 0;
    p->n = p->n_others = 0;
}

void ruler_depth(struct probe *p)
{
    const char *at = memmem(p->prompt.p, p->prompt.len, p->answers.p, strlen(p->answers.p));

    p->depth = at ? (double)(at - p->prompt.p) / (double)p->prompt.len : -1;
}
