/* tests/test_families_text.c - texts that grow, of tiny models of every family: over a cache the logits are those of
 * one pass over the whole text, however it is cut, and with a window those of the tokens that are kept. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "formats/weights/weights.h"
#include "model/extend.h"
#include "model/model.h"
#include "tests/families.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N = 12, VOCAB = 32, SINKS = 2, WINDOW = 6 };
#define OK(x) do { if ((x) < 0) fail_msg("%s: %s: %s", name, #x, err.msg); } while (0)
static struct err err;
static struct device cpu;

static void some_ids(int32_t *ids, int n)
{
    for (int i = 0; i < n; i++)
        ids[i] = (i * 7 + 3) % VOCAB;
}

static void open_model(const char *name, struct model **m, struct weights *w, const struct llama_config *c,
                       int64_t ctx, struct cache_options cache)
{
    struct model_options o;

    model_defaults(&o);
    o.mode = TRAIN_NONE, o.ctx = ctx, o.mlp_tile = 7, o.loss_chunk = 5, o.cache = cache;
    OK(model_open(m, &cpu, c, &o, &err));
    OK(model_load(*m, w, 1, &err));
}

/* Logits of every row in one pass without a cache. */
static void at_once(const char *name, struct weights *w, const struct llama_config *c, const int32_t *ids, int n,
                    float *logits)
{
    struct segments seg = { 0 };
    struct model *m;

    open_model(name, &m, w, c, n, (struct cache_options){ 0 });
    OK(segments_build(&seg, ATTN_DENSE, 1, n, 0, NULL, 0, &err));
    OK(model_logits(m, &(struct batch){ .n_seqs = 1, .len = n, .ids = ids, .seg = &seg }, logits, &err));
    segments_free(&seg);
    model_close(m);
}

static void alike(const char *name, const char *what, const float *a, const float *b, int64_t n, double bound)
{
    double off = 0, top = 1e-30;

    for (int64_t i = 0; i < n; i++) {
        off = fmax(off, isfinite(a[i]) ? fabs((double)a[i] - (double)b[i]) : INFINITY);
        top = fmax(top, fabs((double)b[i]));
    }
    if (!(off < bound * top))
        fail_msg("%s: %s: logits are off by %g of %g", name, what, off, top);
}

/* Two texts, the second given in pieces; then single tokens of both together. */
static void cached(const char *name, struct weights *w, const struct llama_config *c, enum kv_type type, double bound)
{
    static const int cuts[][5] = { { N }, { 1, 1, 5, N - 7 }, { 7, 1, N - 8 }, { 4, 4, 4 } };
    float want[N * VOCAB], got[N * VOCAB];
    int32_t ids[N];

    some_ids(ids, N);
    at_once(name, w, c, ids, N, want);
    for (int chunk = 3; chunk <= N; chunk += 9)
        for (size_t k = 0; k < sizeof cuts / sizeof *cuts; k++) {
            struct model *m;

            open_model(name, &m, w, c, chunk, (struct cache_options){ .rows = N, .seqs = 2, .type = type });
            for (int at = 0, i = 0; at < N; at += cuts[k][i++])
                OK(model_extend(m, &(struct extend){ 1, &(struct piece){ 1, cuts[k][i], ids + at },
                                                     got + at * VOCAB, true }, &err));
            alike(name, "pieces", got, want, N * VOCAB, bound);
            model_text_cut(m, 1, 5);
            OK(model_extend(m, &(struct extend){ 1, &(struct piece){ 0, 9, ids }, NULL, false }, &err));
            for (int i = 0; i < 3; i++) {
                struct piece p[2] = { { 0, 1, ids + 9 + i }, { 1, 1, ids + 5 + i } };

                OK(model_extend(m, &(struct extend){ 2, p, got, false }, &err));
                alike(name, "the first of two", got, want + (9 + i) * VOCAB, VOCAB, bound);
                alike(name, "the second of two", got + VOCAB, want + (5 + i) * VOCAB, VOCAB, bound);
            }
            model_close(m);
        }
}

static void test_a_cache_changes_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < FAMILIES; i++) {
        const char *name = family_names[i];
        char path[128];
        struct weights *w;

        snprintf(path, sizeof path, FAMILIES_DATA "%s", name);
        OK(weights_open(&w, path, &err));
        cached(name, w, weights_config(w), KV_ACT, 1e-4);
        cached(name, w, weights_config(w), KV_BF16, 0.06);
        cached(name, w, weights_config(w), KV_INT8, 0.2);
        weights_close(w);
    }
}

/* Past the original context: frequencies that depend on the length are those of the room, however it is filled. */
static void test_texts_grow_past_the_original_context(void **state)
{
    enum { LONG = 20 };

    (void)state;
    for (int i = 0; i < FAMILIES; i++) {
        const char *name = family_names[i];
        float want[LONG * VOCAB], got[VOCAB];
        int32_t ids[LONG];
        char path[128];
        struct weights *w;
        struct model *m;

        snprintf(path, sizeof path, FAMILIES_DATA "%s", name);
        OK(weights_open(&w, path, &err));
        some_ids(ids, LONG);
        at_once(name, w, weights_config(w), ids, LONG, want);
        open_model(name, &m, w, weights_config(w), 8, (struct cache_options){ .rows = LONG, .seqs = 1 });
        OK(model_extend(m, &(struct extend){ 1, &(struct piece){ 0, 4, ids }, NULL, false }, &err));
        for (int n = 4; n < LONG; n++) {
            OK(model_extend(m, &(struct extend){ 1, &(struct piece){ 0, 1, ids + n }, got, false }, &err));
            alike(name, "a row of a longer text", got, want + n * VOCAB, VOCAB, 1e-4);
        }
        model_close(m);
        weights_close(w);
    }
}

/* What one layer keeps of a token is the token's alone: the last row is as of a text of the sinks and the window. */
static void kept(const char *name, struct weights *w, const struct llama_config *c)
{
    float want[(SINKS + WINDOW) * VOCAB], got[VOCAB];
    int32_t ids[3 * N], left[SINKS + WINDOW];
    struct model *m;

    some_ids(ids, 3 * N);
    open_model(name, &m, w, c, 8, (struct cache_options){ .rows = SINKS + WINDOW + 3, .seqs = 1, .sinks = SINKS,
                                                          .window = WINDOW });
    for (int n = 1; n <= 3 * N; n++) {
        int first = n < SINKS ? n : SINKS, then = n - first < WINDOW ? n - first : WINDOW;

        OK(model_extend(m, &(struct extend){ 1, &(struct piece){ 0, 1, ids + n - 1 }, got, false }, &err));
        memcpy(left, ids, (size_t)first * sizeof *ids);
        memcpy(left + first, ids + n - then, (size_t)then * sizeof *ids);
        at_once(name, w, c, left, first + then, want);
        alike(name, "a window", got, want + (first + then - 1) * VOCAB, VOCAB, 1e-4);
    }
    model_close(m);
}

static void test_a_window_keeps_sinks(void **state)
{
    (void)state;
    for (int i = 0; i < FAMILIES; i++) {
        const char *name = family_names[i];
        struct llama_config c;
        char path[128];
        struct weights *w;

        snprintf(path, sizeof path, FAMILIES_DATA "%s", name);
        OK(weights_open(&w, path, &err));
        c = *weights_config(w);
        c.layers = 1;
        kept(name, w, &c);
        if (config_arch(&c)->block.no_rope) {
            c.no_rope.bits[0] |= 1; /* the layer without */
            kept(name, w, &c);
        }
        weights_close(w);
    }
}

/* The letters of letters.json. */
static int letters(const char *text, int32_t *ids)
{
    static const char all[] = "abcdefghijklmnopqrstuvwxyzABC";
    int n = 0;

    for (; text[n]; n++)
        ids[n] = VOCAB - (int)strlen(all) + (int)(strchr(all, text[n]) - all);
    return n;
}

static int largest(const float *logits)
{
    int best = 0;

    for (int i = 1; i < VOCAB; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

/* ids: a prompt of so many tokens and what transformers goes on with, n in all. */
static void greedy(const char *name, struct weights *w, const int32_t *ids, int prompt, int n)
{
    float logits[32 * VOCAB];
    struct model *m;

    at_once(name, w, weights_config(w), ids, n, logits);
    for (int at = prompt; at < n; at++)
        if (largest(logits + (at - 1) * VOCAB) != ids[at])
            fail_msg("%s: token %d is not transformers', without a cache", name, at);
    for (int chunk = 1; chunk <= 16; chunk += 5) {
        open_model(name, &m, w, weights_config(w), chunk, (struct cache_options){ .rows = n, .seqs = 1 });
        for (int at = 0, next = prompt; next <= n; at = next++) {
            OK(model_extend(m, &(struct extend){ 1, &(struct piece){ 0, next - at, ids + at }, logits, false }, &err));
            if (next < n && largest(logits) != ids[next])
                fail_msg("%s: token %d is not transformers', in chunks of %d", name, next, chunk);
        }
        model_close(m);
    }
}

/* Past windows and the original context (tests/make_arch_golden.py). */
static void test_greedy_texts_are_transformers(void **state)
{
    FILE *f = fopen(FAMILIES_DATA "greedy.txt", "re");
    char name[32], prompt[32], more[32], path[128];
    int families = 0;

    (void)state;
    assert_non_null(f);
    for (; fscanf(f, "%31s %31s %31s", name, prompt, more) == 3; families++) {
        struct weights *w;
        int32_t ids[64];
        int n = letters(prompt, ids), all = n + letters(more, ids + n);

        assert_true(all == 30);
        snprintf(path, sizeof path, FAMILIES_DATA "%s", name);
        OK(weights_open(&w, path, &err));
        greedy(name, w, ids, n, all);
        weights_close(w);
    }
    fclose(f);
    assert_int_equal(families, FAMILIES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_cache_changes_nothing),
        cmocka_unit_test(test_texts_grow_past_the_original_context),
        cmocka_unit_test(test_a_window_keeps_sinks),
        cmocka_unit_test(test_greedy_texts_are_transformers),
    };
    int rc;

    if (device_open(&cpu, &(struct device_options){ .name = "cpu", .threads = 1 }, &err) < 0)
        return 1;
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    cpu.close(&cpu);
    return rc;
}
