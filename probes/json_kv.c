/* probes/json_kv.c - one value of a JSON object of random keys, as in "Lost in the Middle". */
#include "probes/fit.h"
#include "probes/kinds.h"
#include "probes/python_random.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * nelson-liu/lost-in-the-middle (MIT): make_kv_retrieval_data.py, kv_retrieval.prompt; Liu et al. 2023,
 * arXiv:2307.03172. HELMET (MIT) asks the same at six depths. There UUIDs are of the system's random
 * numbers: here of Python's, after random.seed(seed), each of getrandbits(128). As many pairs as fit.
 */
enum { REPLY = 100, UUID = 37, VARIES = 24, LEAST = 2 };

static const struct probe_items items = {
    .least = LEAST, .step = 1, .reply = REPLY, .spare = VARIES
};

struct json_kv {
    struct probe_ask ask;
    struct python_random random;
    int64_t pairs;
};

static int make(void *state, int64_t n, struct probe *p, struct err *e)
{
    struct json_kv *s = state;
    char (*kv)[2][UUID] = malloc((size_t)n * sizeof *kv);
    int64_t which;
    int rc;

    if (!kv)
        return err_set(e, E_SYS, "out of memory for %" PRId64 " pairs", n);
    /* in Python's order: the value before its key; keys that repeat would be one of 2^122 */
    for (int64_t i = 0; i < n; i++)
        for (int k = 1; k >= 0; k--)
            probe_uuid(&s->random, kv[i][k]);
    which = (int64_t)python_random_below(&s->random, (uint64_t)n);
    if (s->ask.depth >= 0)
        which = (int64_t)(s->ask.depth * (double)(n - 1) + 0.5);
    p->prompt.len = p->answers.len = 0;
    p->n = 0;
    p->depth = (double)which / (double)(n - 1);
    rc = buf_printf(&p->prompt, e, "Extract the value corresponding to the specified key in the JSON "
                    "object below.\n\nJSON data:\n");
    for (int64_t i = 0; i < n && rc == 0; i++)
        rc = buf_printf(&p->prompt, e, "%c\"%s\": \"%s\"%s", i ? ' ' : '{', kv[i][0], kv[i][1],
                        i == n - 1 ? "}" : ",\n");
    if (rc == 0 && (rc = buf_printf(&p->prompt, e, "\n\nKey: \"%s\"\nCorresponding value:",
                                    kv[which][0])) == 0 &&
        (rc = probe_answer(p, kv[which][1], UUID - 1, e)) == 0)
        rc = probe_count(p, s->ask.tokenizer, e);
    free(kv);
    return rc;
}

static int json_kv_open(void **state, const struct probe_ask *a, struct err *e)
{
    struct json_kv *s = calloc(1, sizeof *s);
    int rc;

    if (!s)
        return err_set(e, E_SYS, "out of memory");
    *state = s;
    s->ask = *a;
    python_random_seed(&s->random, a->seed);
    rc = probe_fit(&s->pairs, a->length - REPLY - VARIES, make, s, e);
    python_random_seed(&s->random, a->seed);
    return rc == 0 && s->pairs == 0 ? probe_too_few(a, LEAST, REPLY + VARIES, make, s, e) : rc;
}

static int json_kv_next(void *state, struct probe *p, struct err *e)
{
    struct json_kv *s = state;

    return probe_make_fitting(p, &items, &s->ask, s->pairs, &s->random, make, s, e);
}

const struct probe_kind probe_json_kv = {
    .name = "json_kv", .what = "the value of a key among pairs of UUIDs in JSON",
    .origin = "Lost in the Middle, make_kv_retrieval_data.py and kv_retrieval.prompt (MIT)",
    .score = PROBE_ALL, .reply = REPLY, .deep = true, .seed = 0, .open = json_kv_open,
    .next = json_kv_next, .close = free,
};
