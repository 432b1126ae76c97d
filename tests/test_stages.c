/* tests/test_stages.c - layers one after another over ranks: texts of every family have the logits of one rank, what
 * travels is counted, and nobody waits for a rank that failed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "formats/weights/weights.h"
#include "model/extend.h"
#include "model/stages.h"
#include "tests/families.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/rankstest.h"

enum { VOCAB = 32, LENGTH = 14, PIECES = 4, CHUNK = 3 };
static const int cuts[PIECES] = { 7, 1, 1, 5 };

struct try {
    const char *name;      /* of a family's tiny model */
    struct cache_options cache;
    bool apart;            /* the device's memory is taken not to be the host's */
    int size, fails;       /* the rank whose ops fail; -1: none */
    bool cannot_load;      /* it fails before it has weights */
};
struct result {
    const struct try *t;
    int rc, again;         /* again: of the same text once more */
    struct err e;
    float logits[PIECES * VOCAB];
    int64_t sent;
    size_t frozen;
    uint64_t hash;
};

static int (*real_rope)(struct device *d, const struct op_rope *a);
static int faulty_rope(struct device *d, const struct op_rope *a)
{
    return d->group->rank == 1 ? err_set(NULL, E_DEVICE, "made to fail") : real_rope(d, a);
}

static int read_text(struct result *r, struct model *m)
{
    int32_t ids[LENGTH];
    int rc = 0;

    for (int i = 0; i < LENGTH; i++)
        ids[i] = (i * 7 + 3) % VOCAB;
    for (int i = 0, at = 0; i < PIECES && rc == 0; at += cuts[i++])
        rc = model_extend(m, &(struct extend){ 1, &(struct piece){ 1, cuts[i], ids + at },
                                               r->logits + i * VOCAB, false }, &r->e);
    return rc;
}

static int open_family(const char *name, struct weights **w, struct err *e)
{
    char path[128];

    snprintf(path, sizeof path, FAMILIES_DATA "%s", name);
    return weights_open(w, path, e);
}

static void one_rank(struct group *g, void *arg)
{
    struct result *r = arg;
    const struct try *t = r->t;
    struct weights *w;
    struct model_options o;
    struct model *m = NULL;
    struct device d;

    if ((r->rc = device_open(&d, &(struct device_options){ .name = "cpu", .threads = 1, .group = g }, &r->e)) < 0)
        return;
    r->rc = open_family(t->name, &w, &r->e);
    d.group = g;
    d.own_memory = t->apart;
    if (t->fails == g->rank)
        real_rope = d.rope, d.rope = faulty_rope;
    model_defaults(&o);
    o.mode = TRAIN_NONE, o.ctx = CHUNK, o.cache = t->cache;
    o.stages = t->size, o.stage = g->rank, o.pipe = g;
    if (r->rc == 0)
        r->rc = model_open(&m, &d, weights_config(w), &o, &r->e);
    if (r->rc == 0 && t->cannot_load && g->rank == 1)
        r->rc = group_meet(g, err_set(&r->e, E_DATA, "made to fail"), NULL, &r->e);
    else if (r->rc == 0)
        r->rc = model_load(m, w, 1, &r->e);
    if (r->rc == 0) {
        r->hash = model_base_hash(m);
        r->frozen = model_memory(m)->frozen;
        r->rc = read_text(r, m);
        r->sent = m->stages ? m->stages->line.bytes : 0;
        if (r->rc == 0)
            model_text_cut(m, 1, 0);
        r->again = read_text(&(struct result){ .t = t }, m);
    }
    model_close(m);
    weights_close(w);
    d.close(&d);
}

static struct result result[RANKS_MAX];

static void compute(const struct try *t)
{
    for (int k = 0; k < RANKS_MAX; k++)
        result[k] = (struct result){ .t = t };
    if (t->size == 1)
        one_rank(group_alone(), result);
    else
        made_ranks(t->size, one_rank, result, sizeof *result);
}

static void over_ranks(const char *name, struct try t)
{
    const struct llama_config *c;
    struct err e = { 0 };
    struct weights *w;
    struct result one;

    assert_int_equal(open_family(name, &w, &e), 0);
    c = weights_config(w);
    t.size = 1, t.name = name;
    compute(&t);
    if (result[0].rc < 0)
        fail_msg("%s: %s", name, result[0].e.msg);
    one = result[0];
    for (t.size = 2; t.size <= (int)c->layers && t.size <= RANKS_MAX; t.size++) {
        size_t frozen = 0;

        compute(&t);
        for (int k = 0; k < t.size; k++) {
            /* every row of every piece, once over each border, in float32 */
            int64_t want = k + 1 < t.size ? LENGTH * c->dim * 4 : 0;

            if (result[k].rc < 0)
                fail_msg("%s, rank %d of %d: %s", name, k, t.size, result[k].e.msg);
            if (memcmp(one.logits, result[k].logits, sizeof one.logits) != 0)
                fail_msg("%s, rank %d of %d: other logits", name, k, t.size);
            assert_int_equal(result[k].sent, want);
            assert_true(result[k].hash == one.hash && one.hash != 0);
            assert_true(result[k].frozen < one.frozen);
            frozen += result[k].frozen;
        }
        /* in all no more than one rank's, but for a tied embedding, which is the head, too */
        assert_true(frozen <= one.frozen + (c->tied ? (size_t)(c->vocab * c->dim) * 4 : 0) + 1024);
        assert_int_equal(made.passed, (t.size - 1) * 2 * LENGTH * c->dim * 4);
    }
    weights_close(w);
}

static void test_every_family(void **state)
{
    (void)state;
    for (int i = 0; i < FAMILIES; i++) {
        struct try t = { .fails = -1,
                         .cache = { .rows = 2 * LENGTH, .seqs = 2 } };

        over_ranks(family_names[i], t);
        t.apart = true, t.cache.type = KV_INT8;
        over_ranks(family_names[i], t);
        t.cache = (struct cache_options){ .rows = 10, .seqs = 2, .sinks = 2, .window = 6 };
        over_ranks(family_names[i], t);
    }
}

static void test_a_cache_in_the_hosts_memory(void **state)
{
    struct try t = { .fails = -1, .apart = true,
                     .cache = { .rows = 2 * LENGTH, .seqs = 2, .in_host = true } };

    (void)state;
    over_ranks("llama32", t);
}

static void test_a_rank_that_fails(void **state)
{
    struct try t = { .name = "mistral_full", .fails = 1, .size = 3,
                     .cache = { .rows = 2 * LENGTH, .seqs = 2 } };

    (void)state;
    compute(&t);
    assert_int_equal(result[1].rc, E_DEVICE);
    for (int k = 0; k < t.size; k++)
        assert_true(result[k].rc < 0);
    assert_string_equal(made.broken, "a rank has left"); /* and did not hang */
    t.fails = -1, t.cannot_load = true;
    compute(&t);
    for (int k = 0; k < t.size; k++)
        assert_int_equal(result[k].rc, E_DATA);
    assert_non_null(strstr(result[0].e.msg, "rank 1"));
}

static void test_more_ranks_than_layers(void **state)
{
    struct weights *w;
    struct device d;
    struct model_options o;
    struct memory_plan p;
    struct err e = { 0 };

    (void)state;
    assert_int_equal(open_family("mistral_full", &w, &e), 0);
    assert_int_equal(device_open(&d, &(struct device_options){ .name = "cpu", .threads = 1 }, &e), 0);
    model_defaults(&o);
    o.mode = TRAIN_NONE, o.ctx = CHUNK, o.cache = (struct cache_options){ .rows = 8, .seqs = 1 };
    o.stages = weights_config(w)->layers + 1;
    assert_int_equal(model_plan(&d, weights_config(w), &o, &p, &e), E_CONFIG);
    assert_non_null(strstr(e.msg, "cannot lie over 4 ranks"));
    for (o.stages = 2, o.stage = 0; o.stage < 2; o.stage++) {
        assert_int_equal(model_plan(&d, weights_config(w), &o, &p, &e), 0);
        assert_int_equal(p.layers, o.stage == 0 ? 2 : 1);
    }
    o.cache.rows = 0;
    assert_int_equal(model_plan(&d, weights_config(w), &o, &p, &e), E_CONFIG);
    d.close(&d);
    weights_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_family),
        cmocka_unit_test(test_a_cache_in_the_hosts_memory),
        cmocka_unit_test(test_a_rank_that_fails),
        cmocka_unit_test(test_more_ranks_than_layers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
