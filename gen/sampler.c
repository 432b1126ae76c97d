/* gen/sampler.c - see sampler.h. */
#include "gen/sampler.h"

#include "base/perm.h"
#include "model/extend.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A token that may be chosen. */
struct choice {
    float logit;
    int32_t id;
};

struct sampler {
    struct sampling o;
    int64_t vocab;
    uint64_t stream, n; /* of random numbers, and how many were taken */
    unsigned char *seen; /* [vocab] */
    struct choice *list; /* [vocab] */
};

void sampling_defaults(struct sampling *o)
{
    *o = (struct sampling){ .repetition = 1, .top_p = 1 };
}

int sampling_check(const struct sampling *o, struct err *e)
{
    if (o->temperature == 0 && (o->top_k || o->top_p < 1 || o->min_p > 0)) {
        err_set(e, E_USAGE, "--top-k, --top-p and --min-p choose among tokens: without a "
                            "--temperature the likeliest is taken");
        return err_hint(e, "add --temperature 1");
    }
    return 0;
}

int sampler_open(struct sampler **out, const struct sampling *o, int64_t vocab, uint64_t text,
                 struct err *e)
{
    struct sampler *s = calloc(1, sizeof *s);

    *out = s;
    if (s) {
        s->o = *o;
        s->vocab = vocab;
        s->stream = mix64(o->seed ^ mix64(text));
        s->seen = calloc((size_t)vocab, 1);
        s->list = malloc((size_t)vocab * sizeof *s->list);
    }
    if (s && s->seen && s->list)
        return 0;
    sampler_close(s);
    *out = NULL;
    return err_set(e, E_SYS, "out of memory");
}

void sampler_close(struct sampler *s)
{
    if (!s)
        return;
    free(s->seen);
    free(s->list);
    free(s);
}

void sampler_saw(struct sampler *s, int32_t id)
{
    if (id >= 0 && id < s->vocab)
        s->seen[id] = 1;
}

/* Uniform in [0, 1), of 53 bits. */
static double uniform(struct sampler *s)
{
    return (double)(mix64(s->stream + 0x9E3779B97F4A7C15u * ++s->n) >> 11) * 0x1p-53;
}

static double logprob_of(const float *x, int64_t n, float most, float mine)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += x[i] == x[i] ? exp((double)x[i] - (double)most) : 0;
    return (double)mine - (double)most - log(sum);
}

static void penalise(const struct sampler *s, float *x)
{
    if (s->o.repetition == 1)
        return;
    for (int64_t i = 0; i < s->vocab; i++)
        if (s->seen[i])
            x[i] = (float)(x[i] > 0 ? (double)x[i] / s->o.repetition : (double)x[i] * s->o.repetition);
}

/* The likelier first, of equal ones the smaller id. */
static int order(const void *a, const void *b)
{
    const struct choice *x = a, *y = b;

    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* A heap of the k likeliest, the least likely on top: c comes in, and where there are k one goes. */
static void push(struct choice *heap, int64_t *n, int64_t k, struct choice c)
{
    int64_t i = *n;

    if (*n == k && order(&c, heap) > 0)
        return;
    if (*n < k) {
        for ((*n)++; i > 0 && order(&heap[(i - 1) / 2], &c) < 0; i = (i - 1) / 2)
            heap[i] = heap[(i - 1) / 2];
    } else {
        int64_t child;
        for (i = 0; (child = 2 * i + 1) < k; i = child) {
            if (child + 1 < k && order(&heap[child + 1], &heap[child]) > 0)
                child++;
            if (order(&heap[child], &c) < 0)
                break;
            heap[i] = heap[child];
        }
    }
    heap[i] = c;
}

/* Those that may be among the chosen, sorted where their order matters; returns their number. To sort a
 * whole vocabulary would take longer than a small model: of top_k a heap is kept, and without it what cannot be
 * among those that have top_p, whatever the others are, stays out. total: of all weights. */
static int64_t gather(struct sampler *s, const float *x, float most, double total)
{
    double floor = s->o.top_p < 1 ? (1 - s->o.top_p) / (double)s->vocab * total : s->o.min_p;
    int64_t n = 0;

    for (int64_t i = 0; i < s->vocab; i++) {
        struct choice c = { x[i], (int32_t)i };

        if (x[i] != x[i] || isinf(x[i]))
            continue;
        if (s->o.top_k > 0)
            push(s->list, &n, s->o.top_k, c);
        else if (exp(((double)x[i] - (double)most) / s->o.temperature) >= floor)
            s->list[n++] = c;
    }
    if (s->o.top_k > 0 || s->o.top_p < 1)
        qsort(s->list, (size_t)n, sizeof *s->list, order);
    return n;
}

static double weight(const struct sampler *s, int64_t i, float most)
{
    return exp(((double)s->list[i].logit - (double)most) / s->o.temperature);
}

/* Of a sorted list, so many as have top_p of the whole that is left, and of those what min_p leaves;
 * of one that is not sorted min_p was seen to. */
static int64_t nucleus(const struct sampler *s, int64_t n, float most)
{
    double total = 0, sum = 0;
    int64_t i = 0;

    if (s->o.top_p >= 1 && s->o.top_k == 0)
        return n;
    for (int64_t k = 0; k < n; k++)
        total += weight(s, k, most);
    while (i < n && sum < s->o.top_p * total)
        sum += weight(s, i++, most);
    i = i > 0 ? i : 1;
    while (i > 1 && weight(s, i - 1, most) < s->o.min_p)
        i--;
    return i;
}

static int32_t draw(struct sampler *s, const float *x, float most)
{
    double total = 0, at;
    int64_t n;

    for (int64_t i = 0; i < s->vocab; i++)
        total += x[i] == x[i] ? exp(((double)x[i] - (double)most) / s->o.temperature) : 0;
    n = gather(s, x, most, total);
    n = nucleus(s, n, most);
    total = 0;
    for (int64_t i = 0; i < n; i++)
        total += weight(s, i, most);
    at = uniform(s) * total;
    for (int64_t i = 0; i < n; i++)
        if ((at -= weight(s, i, most)) < 0)
            return s->list[i].id;
    return s->list[n - 1].id; /* by rounding */
}

int sampler_pick(struct sampler *s, float *x, int32_t *id, double *logprob, struct err *e)
{
    int32_t best = likeliest(x, s->vocab);
    float most, *plain = NULL;

    if (best < 0 || isinf(x[best]))
        return err_set(e, E_DATA, "the model gives no number for the next token");
    most = x[best];
    if (logprob && s->o.repetition != 1) {
        if (!(plain = malloc((size_t)s->vocab * sizeof *plain)))
            return err_set(e, E_SYS, "out of memory");
        memcpy(plain, x, (size_t)s->vocab * sizeof *plain);
    }
    penalise(s, x);
    best = likeliest(x, s->vocab);
    *id = s->o.temperature > 0 ? draw(s, x, x[best]) : best;
    if (logprob)
        *logprob = logprob_of(plain ? plain : x, s->vocab, most, (plain ? plain : x)[*id]);
    free(plain);
    sampler_saw(s, *id);
    return 0;
}
