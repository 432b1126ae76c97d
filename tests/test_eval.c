/* tests/test_eval.c - windows of each protocol, their scores against transformers, results. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/log.h"
#include "eval/ppl.h"
#include "eval/score.h"
#include "base/json.h"
#include "formats/tokens/shard.h"

#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODELS "tests/data/model/"
#define OK(x) do { if ((x) < 0) fail_msg("%s: %s", #x, err.msg); } while (0)

static struct err err;
static char tmp[] = "/tmp/test_eval.XXXXXX";

static void clear_err(void) { memset(&err, 0, sizeof err); }

static struct window_list build(enum protocol p, int64_t ctx, int64_t step, int64_t most,
                                const struct stretch *s, int64_t n)
{
    struct window_spec spec = { p, ctx, step, most, 0 };
    struct window_list l;

    clear_err();
    OK(windows_build(&l, &spec, s, n, &err));
    return l;
}

/* The reference: all_ix = list(range(0, N - ctx, step)); all_ix.pop(). */
static void test_longlora_starts_are_the_references(void **state)
{
    (void)state;
    for (int64_t n = 0; n < 60; n++)
        for (int64_t ctx = 2; ctx < 14; ctx++)
            for (int64_t step = 1; step < 9; step++) {
                struct stretch s = { 0, n };
                struct window_list l = build(PROTO_LONGLORA, ctx, step, 0, &s, 1);
                int64_t count = 0;

                for (int64_t i = 0; i < n - ctx; i += step)
                    count++;
                count = count > 1 ? count - 1 : n >= ctx;
                assert_int_equal(l.n, count);
                assert_int_equal(l.scored, count * (ctx - 1));
                for (int64_t i = 0; i < l.n; i++) {
                    assert_int_equal(l.v[i].start, i * step);
                    assert_int_equal(l.v[i].len, ctx);
                    assert_int_equal(l.v[i].from, 1);
                }
                windows_free(&l);
            }
}

/* Marks what windows score; checks that they stay inside their stretch. */
static void mark(const struct window_list *l, const struct stretch *s, int64_t n, int *hits)
{
    for (int64_t i = 0; i < l->n; i++) {
        const struct window *w = &l->v[i];
        int64_t k = 0;

        while (k < n && w->start >= s[k].start + s[k].n)
            k++;
        assert_true(k < n && w->start >= s[k].start);
        assert_true(w->start + w->len <= s[k].start + s[k].n);
        assert_true(w->from >= 1 && w->from < w->len);
        for (int64_t j = w->from; j < w->len; j++)
            hits[w->start + j]++;
    }
}

static void test_stride_scores_each_token_once_with_context(void **state)
{
    (void)state;
    for (int64_t len = 0; len < 40; len++)
        for (int64_t ctx = 2; ctx < 12; ctx++)
            for (int64_t step = 1; step < ctx; step++) {
                struct stretch s[3] = { { 0, len }, { len, 1 }, { len + 1, 7 } };
                struct window_list l = build(PROTO_STRIDE, ctx, step, 0, s, 3);
                int hits[64] = { 0 };

                mark(&l, s, 3, hits);
                for (int k = 0; k < 3; k++)
                    for (int64_t j = 0; j < s[k].n; j++)
                        assert_int_equal(hits[s[k].start + j], j > 0);
                for (int64_t i = 0; i < l.n; i++) {
                    bool first = l.v[i].from == 1 && l.v[i].len < ctx;

                    assert_true(l.v[i].len <= ctx);
                    /* Either the start of its stretch, or enough before the first scored. */
                    assert_true(first || l.v[i].start == 0 || l.v[i].start == len + 1 ||
                                l.v[i].from >= ctx - step);
                }
                windows_free(&l);
            }
}

static void test_nonoverlap_scores_all_but_window_starts(void **state)
{
    (void)state;
    for (int64_t len = 0; len < 40; len++)
        for (int64_t ctx = 2; ctx < 12; ctx++) {
            struct stretch s[2] = { { 0, len }, { len, 5 } };
            struct window_list l = build(PROTO_NONOVERLAP, ctx, 0, 0, s, 2);
            int hits[64] = { 0 };

            mark(&l, s, 2, hits);
            for (int k = 0; k < 2; k++)
                for (int64_t j = 0; j < s[k].n; j++)
                    assert_int_equal(hits[s[k].start + j], j % ctx != 0);
            windows_free(&l);
        }
}

static void test_max_windows_spreads_over_all(void **state)
{
    struct stretch s[3] = { { 0, 100 }, { 100, 3 }, { 103, 57 } };

    (void)state;
    for (int p = 0; p < 3; p++) {
        struct window_list all = build((enum protocol)p, 8, 3, 0, s, p ? 3 : 1);

        for (int64_t keep = 1; keep <= all.n + 1; keep++) {
            struct window_list l = build((enum protocol)p, 8, 3, keep, s, p ? 3 : 1);

            assert_int_equal(l.n, keep < all.n ? keep : all.n);
            assert_int_equal(l.all, all.n);
            for (int64_t k = 0; k < l.n; k++)
                assert_memory_equal(&l.v[k], &all.v[k * all.n / l.n], sizeof *l.v);
            windows_free(&l);
        }
        windows_free(&all);
    }
}

static void test_impossible_windows_are_refused(void **state)
{
    struct stretch s = { 0, (int64_t)1 << 60 };
    static const struct { enum protocol p; int64_t ctx, step; int rc; } bad[] = {
        { PROTO_LONGLORA, 1, 0, E_CONFIG }, { PROTO_STRIDE, 8, 8, E_CONFIG },
        { PROTO_STRIDE, 8, 9, E_CONFIG },   { PROTO_LONGLORA, 8, -1, E_CONFIG },
        { PROTO_LONGLORA, 8, 1, E_SYS },    /* 2^60 windows */
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct window_spec spec = { bad[i].p, bad[i].ctx, bad[i].step, 0, 0 };
        struct window_list l;

        assert_int_equal(windows_build(&l, &spec, &s, 1, &err), bad[i].rc);
        windows_free(&l);
    }
    assert_int_equal(windows_default_step(PROTO_LONGLORA, 64), 256);
    assert_int_equal(windows_default_step(PROTO_STRIDE, 64), 32);
    assert_int_equal(windows_default_step(PROTO_STRIDE, 8192), 256);
}

static void test_forms_are_told_apart(void **state)
{
    static const struct { const char *name, *head; size_t n; int form; } file[] = {
        { "a.txt", "\xff\xfe", 2, E_DATA },       { "-", "x", 1, FORM_TEXT },
        { "-", "{\"text\":1}", 10, E_DATA },     { "a.txt", "[{\"a\":1}]", 9, E_DATA },
        { "-", "<!DOCTYPE html>", 15, E_DATA },  { "a", "PAR1\x15\4\x15\4x\0", 10, FORM_RAW },
        { "a", "%PDF-1.4\n1 0 obj", 16, E_DATA },
        { "a.bin", "text", 4, FORM_RAW },         { "a", "plain words\n", 12, FORM_TEXT },
        { "a", "\1\0\2\0", 4, FORM_RAW },         { "a.val", "LLSHARD\x1a", 8, FORM_SHARDS },
        { "a.shard", "x", 1, FORM_SHARDS },       { "a.txt", "\x1f\x8b\x08", 3, E_DATA },
        { "a", "\x28\xb5\x2f\xfd", 4, E_DATA },   { "a.jsonl", "{}", 2, E_DATA },
        { "a", "LLSTREAM", 8, E_DATA },           { "a", "PK\3\4", 4, E_DATA },
        { "", "", 0, FORM_TEXT },
    };

    (void)state;
    for (size_t i = 0; i < sizeof file / sizeof *file; i++) {
        clear_err();
        assert_int_equal(corpus_sniff(file[i].name, file[i].head, file[i].n, &err),
                         file[i].form);
        if (file[i].form == E_DATA)
            assert_non_null(strchr(err.msg, '\n')); /* the remedy */
    }
    assert_int_equal(text_words(" one\ttwo\n\xc3\xa9 ", 12), 3);
    assert_int_equal(text_words("", 0), 0);
}

/* Ids of the golden numbers: a linear congruential generator's, in a raw file. */
static void lcg_file(const char *path, int64_t n, uint32_t vocab)
{
    unsigned char *b = malloc((size_t)n * 2);
    uint32_t x = 1;

    for (int64_t i = 0; i < n; i++) {
        x = (x * 1103515245u + 12345u) & 0x7fffffffu;
        put_le(b + 2 * i, (x >> 16) % vocab, 2);
    }
    OK(file_replace(path, b, (size_t)n * 2, &err));
    free(b);
}

/* Options of a task and its own, and what leval does with them. */
struct asked {
    struct eval_options o;
    struct ppl_options p;
};

static struct asked ppl_defaults(const char *model, const char *data)
{
    return (struct asked){ .o = { .model = model, .shape = -1, .batch_tokens = 100,
                                  .machine = { .device = "cpu", .threads = 1 } },
                           .p = { .data = { .path = data } } };
}

static int ppl_run(struct result *r, const struct asked *a, struct err *e)
{
    struct eval v = { .o = &a->o, .asked = &a->p };
    int rc = eval_run(&task_ppl, &v, e);

    if (rc == 0)
        *r = *ppl_result(&v);
    eval_close(&task_ppl, &v);
    return rc;
}

static void test_scores_equal_transformers(void **state)
{
    char path[64], model[128], adapter[128];
    struct result *r = malloc(sizeof *r);
    json_t *cases;
    struct js o;

    (void)state;
    clear_err();
    snprintf(path, sizeof path, "%s/lcg.bin", tmp);
    OK(js_load(&o, "tests/data/eval_golden.json", 1 << 20, &err));
    OK(js_array(&o, "tiny", JS_MUST, &cases, &err));
    assert_true(json_array_size(cases) >= 21);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const char *name, *with = NULL, *protocol;
        struct asked p = ppl_defaults(model, path);
        int64_t windows, tokens;
        double loss;
        struct js c;

        OK(js_item(&o, "tiny", cases, i, &c, &err));
        OK(js_str(&c, "model", JS_MUST, &name, &err));
        OK(js_str(&c, "adapter", JS_MAY, &with, &err));
        OK(js_str(&c, "protocol", JS_MUST, &protocol, &err));
        OK(js_i64(&c, "ctx", JS_MUST, 2, 1000, &p.o.ctx.v[0], &err));
        OK(js_i64(&c, "step", JS_MUST, 1, 1000, &p.p.step, &err));
        OK(js_i64(&c, "windows", JS_MUST, 1, 1000, &windows, &err));
        OK(js_i64(&c, "tokens", JS_MUST, 1, 1000, &tokens, &err));
        OK(js_f64(&c, "loss", JS_MUST, 0, 100, &loss, &err));
        snprintf(model, sizeof model, MODELS "%s", name);
        snprintf(adapter, sizeof adapter, MODELS "%s", with ? with : "");
        p.o.adapter = with ? adapter : NULL;
        p.o.ctx.n = 1;
        while (strcmp(protocol_name((enum protocol)p.p.protocol), protocol) != 0)
            p.p.protocol++;
        lcg_file(path, 203, 48);
        OK(ppl_run(r, &p, &err));
        assert_int_equal(r->row[0].windows, windows);
        assert_int_equal(r->row[0].tokens, tokens);
        if (!(fabs(r->row[0].loss - loss) < 2e-6 * loss))
            fail_msg("%s %s ctx %" PRId64 ": loss %.9f, transformers %.9f", name, protocol,
                     p.o.ctx.v[0], r->row[0].loss, loss);
    }
    js_free(&o);
    free(r);
}

static void test_threads_do_not_change_a_bit(void **state)
{
    char path[64];
    struct result *r = malloc(2 * sizeof *r);

    (void)state;
    clear_err();
    snprintf(path, sizeof path, "%s/lcg.bin", tmp);
    lcg_file(path, 500, 48);
    for (int threads = 1; threads <= 3; threads++) {
        struct asked p = ppl_defaults(MODELS "mha", path);

        p.o.ctx.n = 3;
        p.o.ctx.v[0] = 16;
        p.o.ctx.v[1] = 32;
        p.o.ctx.v[2] = 100;
        p.p.step = 7;
        p.o.machine.threads = threads;
        OK(ppl_run(&r[threads > 1], &p, &err));
        for (int i = 0; i < 3; i++)
            assert_true(r[threads > 1].row[i].loss == r[0].row[i].loss);
    }
    free(r);
}

/* A list of contexts is as each alone: --rope-factor auto too. */
static void test_each_context_has_its_own_rope(void **state)
{
    static const int64_t ctx[] = { 16, 32, 64, 100, 64 };
    char path[64];
    struct result *r = malloc(2 * sizeof *r);
    struct asked p = ppl_defaults(MODELS "mha", path); /* of a context of 32 */

    (void)state;
    clear_err();
    snprintf(path, sizeof path, "%s/lcg.bin", tmp);
    lcg_file(path, 300, 48);
    p.o.rope.factor = -1;
    p.p.step = 50;
    p.o.ctx.n = 5;
    memcpy(p.o.ctx.v, ctx, sizeof ctx);
    OK(ppl_run(&r[0], &p, &err));
    assert_string_equal(r[0].of.rope, "default, linear 2, linear 4, linear 2");
    assert_int_equal(r[0].of.context, 128);
    p.o.ctx.n = 1;
    for (int i = 0; i < 5; i++) {
        p.o.ctx.v[0] = ctx[i];
        OK(ppl_run(&r[1], &p, &err));
        assert_true(r[1].row[0].loss == r[0].row[i].loss);
    }
    free(r);
}

/* A shard of documents of these lengths (ids of the generator), 3 bytes and half a word a
 * token, but for BOS (1) and EOS (2) where info adds them. Documents after the first begin with
 * 'masked' tokens that have a mask. */
static void make_shard_as(const struct token_info *info, const char *path, const int64_t *len, int n,
                          int64_t masked)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    struct shard_writer *w;
    uint32_t ids[256], x = 7;

    OK(shard_create(&w, fd, path, info, NULL, &err));
    for (int k = 0; k < n; k++) {
        int64_t text = len[k] - info->adds_bos - info->adds_eos;
        struct mask_run run = { 0, masked };
        struct token_doc d = { .ids = ids, .n_ids = len[k], .source = "s", .name = "n",
                               .text_bytes = text * 3, .text_words = text / 2,
                               .runs = &run, .n_runs = masked > 0 && k > 0 };

        for (int64_t i = 0; i < len[k]; i++) {
            x = (x * 1103515245u + 12345u) & 0x7fffffffu;
            ids[i] = (x >> 16) % 48;
        }
        if (info->adds_bos)
            ids[0] = 1;
        if (info->adds_eos)
            ids[len[k] - 1] = 2;
        OK(shard_write(w, &d, &err));
    }
    OK(shard_finish(w, NULL, &err));
    close(fd);
}

static void make_shard(const char *path, const int64_t *len, int n)
{
    make_shard_as(&(struct token_info){ .width = 2, .vocab = 48, .bos = -1, .eos = -1 }, path, len,
                  n, 0);
}

struct bench {
    struct session s;
    struct corpus *c;
};

static void open_bench(struct bench *b, const char *data, int64_t rows)
{
    struct corpus_options co = { .path = data, .vocab = 48 };
    struct session_options so = { .model = MODELS "gqa",
                                  .machine = { .device = "cpu", .threads = 1 } };

    clear_err();
    model_defaults(&so.plan);
    so.plan.mode = TRAIN_NONE;
    so.plan.ctx = rows;
    b->s = (struct session){ 0 };
    OK(session_open(&b->s, &so, &err));
    OK(corpus_open(&b->c, &co, &err));
}

static void close_bench(struct bench *b)
{
    corpus_close(b->c);
    session_close(&b->s);
}

/* -log p of each token of [start, start + len) but the first, from one sequence alone. */
static void single(struct bench *b, int64_t start, int64_t len, double *nll)
{
    int32_t ids[256], targets[256];
    float f[256];
    int64_t n;
    double sum;

    OK(corpus_read(b->c, start, len, ids, NULL, &err));
    for (int64_t i = 0; i < len; i++)
        targets[i] = i + 1 < len ? ids[i + 1] : -1;
    OK(session_losses(&b->s, 1, len, ids, targets, f, &sum, &n, &err));
    for (int64_t i = 1; i < len; i++)
        nll[i] = f[i - 1];
}

/* Every protocol by brute force, window by window, over documents kept apart or joined. */
static double brute(struct bench *b, enum protocol p, int64_t ctx, int64_t step, int64_t start,
                    int64_t n, double *sum, int64_t *count, double *means, int64_t *windows)
{
    double nll[256];

    if (p == PROTO_LONGLORA) {
        int64_t last = (n - ctx - 1) / step; /* the last of range(), which is dropped */

        for (int64_t k = 0; k < last; k++, ++*windows) {
            double s = 0;

            single(b, k * step, ctx, nll);
            for (int64_t j = 1; j < ctx; j++)
                s += nll[j];
            *means += s / (double)(ctx - 1);
        }
        return *means / (double)*windows;
    }
    for (int64_t t = 1; t < n; t++) { /* the token at t, from its own window */
        int64_t at, len;

        if (p == PROTO_NONOVERLAP) {
            at = t / ctx * ctx;
            if (t == at)
                continue;
            len = n - at < ctx ? n - at : ctx;
        } else {
            int64_t end = ctx;

            while (end <= t)
                end += step;
            end = end < n ? end : n;
            at = end > ctx ? end - ctx : 0;
            len = end - at;
        }
        single(b, start + at, len, nll);
        *sum += nll[t - at];
        ++*count;
    }
    return *count ? *sum / (double)*count : 0;
}

static void test_documents_are_kept_apart_unless_joined(void **state)
{
    static const int64_t len[] = { 40, 0, 1, 23, 2, 61 };
    int64_t total = 0;
    struct bench b;
    char path[64];

    (void)state;
    snprintf(path, sizeof path, "%s/docs.shard", tmp);
    make_shard(path, len, 6);
    open_bench(&b, path, 128);
    for (int k = 0; k < 6; k++)
        total += len[k];
    for (int p = 0; p < 3; p++)
        for (int join = 0; join < 2; join++) {
            struct window_spec spec = { (enum protocol)p, 16, 5, 0, 0 };
            struct window_list l;
            struct score s;
            int64_t start = 0, count = 0, windows = 0, longest;
            double sum = 0, means = 0, want = 0;

            OK(score_windows(&l, b.c, &spec, join, &longest, &err));
            OK(score_run(&s, NULL, &b.s, 128, b.c, &spec, &l, NULL, NULL, &err));
            if (join || p == PROTO_LONGLORA)
                want = brute(&b, spec.protocol, 16, 5, 0, total, &sum, &count, &means,
                             &windows);
            else
                for (int k = 0; k < 6; start += len[k++])
                    want = brute(&b, spec.protocol, 16, 5, start, len[k], &sum, &count, &means,
                                 &windows);
            if (!(fabs(s.loss - want) < 1e-6))
                fail_msg("protocol %d join %d: %.9f, by brute force %.9f", p, join, s.loss,
                         want);
            assert_int_equal(s.tokens, p == PROTO_LONGLORA ? windows * 15 : count);
            windows_free(&l);
        }
    close_bench(&b);
}

/* Of documents of 40, 0, 1, 23 .. tokens, the first 50 tokens are 40, 0, 1 and 9. */
static void test_data_may_be_taken_in_part(void **state)
{
    static const int64_t len[] = { 40, 0, 1, 23, 2, 61 };
    struct corpus_options co = { .vocab = 48, .max_tokens = 50 };
    struct corpus *c;
    struct corpus_doc d;
    int32_t ids[64];
    char path[64];

    (void)state;
    snprintf(path, sizeof path, "%s/part.shard", tmp);
    make_shard(path, len, 6);
    co.path = path;
    OK(corpus_open(&c, &co, &err));
    assert_int_equal(corpus_tokens(c), 50);
    assert_int_equal(corpus_docs(c), 4);
    OK(corpus_doc(c, 3, &d, &err));
    assert_true(d.start == 41 && d.n == 9 && d.whole == 23);
    OK(corpus_read(c, 0, 50, ids, NULL, &err));
    assert_int_equal(corpus_read(c, 0, 51, ids, NULL, &err), E_BUG);
    corpus_close(c);
    clear_err();
}

/* Documents of 40, 20 and 30 tokens in windows of 16, each by brute force; far is from the 12th
 * token of a window on. */
static void check_docs(struct bench *b, const struct score *s, const struct score_docs *docs)
{
    static const int64_t start[] = { 0, 40, 60, 90 };
    struct score_bucket all = { 0 };
    double nll[16];

    assert_int_equal(docs->n, 3);
    assert_ptr_equal(s->by_doc, docs);
    for (int i = 0; i < 3; i++) {
        struct score_bucket want = { 0 }, far = { 0 };
        const struct score_doc *d = &docs->v[i];

        for (int64_t at = start[i]; at < start[i + 1]; at += 16) {
            int64_t n = start[i + 1] - at < 16 ? start[i + 1] - at : 16;

            single(b, at, n, nll);
            for (int64_t k = 1; k < n; k++) {
                want.nll += nll[k], want.n++;
                far.nll += k >= 12 ? nll[k] : 0, far.n += k >= 12;
            }
        }
        assert_int_equal(d->doc, i);
        assert_int_equal(d->all.n, want.n);
        assert_int_equal(d->far.n, far.n);
        assert_true(far.n > 0 && far.n < want.n);
        assert_float_equal(d->all.nll, want.nll, 1e-4 * want.nll);
        assert_float_equal(d->far.nll, far.nll, 1e-4 * far.nll);
        all.nll += d->all.nll, all.n += d->all.n;
    }
    assert_int_equal(all.n, s->tokens);
    assert_float_equal(all.nll, s->nll, 1e-9 * s->nll);
}

/* The score of b's data under a protocol, contexts of 16. */
static struct score scored(struct bench *b, enum protocol p, bool join, int64_t mean_of)
{
    struct window_spec spec = { p, 16, 5, 0, mean_of };
    struct window_list l;
    struct score s;
    int64_t longest;

    OK(score_windows(&l, b->c, &spec, join, &longest, &err));
    if (score_run(&s, NULL, &b->s, 64, b->c, &spec, &l, NULL, NULL, &err) < 0)
        s.tokens = -1;
    windows_free(&l);
    return s;
}

static void test_words_and_bytes(void **state)
{
    static const int64_t len[] = { 40, 20, 30 };
    struct score_docs docs = { 0 };
    struct window_spec spec = { PROTO_NONOVERLAP, 16, 5, 0, 0 };
    struct window_list l;
    int64_t longest;
    struct token_info both = { .width = 2, .vocab = 48, .bos = 1, .eos = 2, .adds_bos = true,
                               .adds_eos = true };
    struct score s;
    struct bench b;
    char path[64];
    double nll[256], text = 0;

    (void)state;
    snprintf(path, sizeof path, "%s/docs.shard", tmp);
    make_shard_as(&both, path, len, 3, 0);
    open_bench(&b, path, 64);
    s = scored(&b, PROTO_STRIDE, false, 0);
    assert_true(s.text_exact && s.docs == 3 && s.tokens == 87);
    assert_float_equal(s.bytes, 270 - 6 * 3, 1e-9);
    assert_float_equal(s.words, 45 - 3, 1e-9);
    /* The loss of each EOS is in the loss, and in no figure by word or byte. */
    for (int k = 0; k < 3; k++) {
        int64_t end = k == 0 ? 40 : k == 1 ? 60 : 90;

        single(&b, end - 16, 16, nll);
        text += nll[15];
    }
    assert_float_equal(s.text_nll, s.nll - text, 1e-6);
    assert_float_equal(score_word_ppl(&s), exp(s.text_nll / 42), 1e-6 * exp(s.text_nll / 42));
    assert_float_equal(score_bits_per_byte(&s), s.text_nll / 252 / log(2), 1e-9);
    /* Joined, each BOS is predicted too, and that is no text either. */
    s = scored(&b, PROTO_STRIDE, true, 0);
    assert_true(s.text_exact && s.tokens == 89 && s.bytes == 252);
    close_bench(&b);
    /* Without a BOS nothing predicts a document's first token: in proportion, and said to be so. */
    make_shard(path, len, 3);
    open_bench(&b, path, 64);
    OK(score_windows(&l, b.c, &spec, false, &longest, &err));
    OK(score_run(&s, &docs, &b.s, 64, b.c, &spec, &l, NULL, NULL, &err));
    windows_free(&l);
    check_docs(&b, &s, &docs);
    score_docs_free(&docs);
    s = scored(&b, PROTO_STRIDE, false, 0);
    assert_false(s.text_exact);
    assert_float_equal(s.bytes, 270 - 3 * 3, 1e-9);
    assert_float_equal(s.text_nll, s.nll, 1e-9);
    /* 40 = 16+16+8, 20 = 16+4, 30 = 16+14: 4 starts inside documents are left out as well. */
    s = scored(&b, PROTO_NONOVERLAP, false, 0);
    assert_false(s.text_exact);
    assert_float_equal(s.bytes, 270 - 7 * 3, 1e-9);
    close_bench(&b);
}

/* Masked tokens are read and not scored, as in training, unless all are asked for. */
static void test_masks(void **state)
{
    static const int64_t len[] = { 40, 20, 30 }, end[] = { 40, 60, 90 };
    struct token_info info = { .width = 2, .vocab = 48, .bos = -1, .eos = -1 };
    struct corpus_options co = { .vocab = 48, .all_tokens = true };
    struct score s;
    struct bench b;
    char path[64];
    double nll[256], sum = 0;

    (void)state;
    snprintf(path, sizeof path, "%s/masks.shard", tmp);
    make_shard_as(&info, path, len, 3, 7);
    open_bench(&b, path, 64);
    assert_true(corpus_masks(b.c) && corpus_masked(b.c) == 14);
    for (int k = 0; k < 3; k++)
        for (int64_t at = end[k] - len[k]; at < end[k]; at += 16) {
            int64_t n = end[k] - at < 16 ? end[k] - at : 16, from = at > end[k] - len[k] || k == 0 ? 1 : 7;

            single(&b, at, n, nll);
            for (int64_t i = from; i < n; i++)
                sum += nll[i];
        }
    s = scored(&b, PROTO_NONOVERLAP, false, 0);
    assert_int_equal(s.tokens, 83 - 12);
    assert_int_equal(s.masked, 12);
    assert_float_equal(s.nll, sum, 1e-5);
    assert_float_equal(s.bytes, (83 - 12) * 3, 1e-9);
    corpus_close(b.c);
    co.path = path;
    OK(corpus_open(&b.c, &co, &err));
    assert_true(!corpus_masks(b.c) && corpus_masked(b.c) == 14);
    s = scored(&b, PROTO_NONOVERLAP, false, 0);
    assert_int_equal(s.tokens, 83);
    assert_int_equal(s.masked, 0);
    close_bench(&b);
    make_shard_as(&info, path, (int64_t[]){ 1, 20 }, 2, 20); /* nothing left */
    open_bench(&b, path, 64);
    assert_int_equal(scored(&b, PROTO_STRIDE, false, 0).tokens, -1);
    assert_true(err.code == E_DATA && strstr(err.msg, "masked") && strstr(err.msg, "--all-tokens"));
    clear_err();
    close_bench(&b);
}

/* The reference's mean over batches of its means over windows: 14 windows by 4 are 4, 4, 4, 2. */
static void test_windows_may_be_averaged_in_batches(void **state)
{
    static const int64_t len[] = { 90 };
    double nll[256], means = 0, batch = 0;
    struct bench b;
    char path[64];
    struct score s;

    (void)state;
    snprintf(path, sizeof path, "%s/batches.shard", tmp);
    make_shard(path, len, 1);
    open_bench(&b, path, 64);
    for (int k = 0; k < 14; k++) {
        double sum = 0;

        single(&b, k * 5, 16, nll);
        for (int i = 1; i < 16; i++)
            sum += nll[i];
        batch += sum / 15;
        if (k % 4 == 3 || k == 13) {
            means += batch / (k % 4 + 1);
            batch = 0;
        }
    }
    s = scored(&b, PROTO_LONGLORA, true, 4);
    assert_int_equal(s.windows, 14);
    assert_float_equal(s.loss, means / 4, 1e-6);
    assert_true(fabs(scored(&b, PROTO_LONGLORA, true, 1).loss - s.loss) > 1e-5);
    close_bench(&b);
}

static void test_unfit_input_is_refused(void **state)
{
    char raw[64];
    struct result *r = malloc(sizeof *r);
    struct asked p = ppl_defaults(MODELS "mha", raw);
    static const int64_t len[] = { 10 };

    (void)state;
    snprintf(raw, sizeof raw, "%s/bad.bin", tmp);
    lcg_file(raw, 100, 60); /* ids up to 59, the model's end at 47 */
    p.o.ctx.n = 1;
    p.o.ctx.v[0] = 16;
    assert_int_equal(ppl_run(r, &p, &err), E_DATA);
    lcg_file(raw, 15, 48);
    assert_int_equal(ppl_run(r, &p, &err), E_DATA);
    assert_non_null(strstr(err.msg, "fewer than one window of 16"));
    lcg_file(raw, 1, 48);
    p.p.protocol = PROTO_NONOVERLAP;
    assert_int_equal(ppl_run(r, &p, &err), E_DATA);
    p.p.data.path = "tests/data/tiny.txt"; /* text, no tokenizer */
    assert_int_equal(ppl_run(r, &p, &err), E_CONFIG);
    p.p.data.tokenizer = "tests/data/tiny.model"; /* 400 pieces, 48 in the model */
    assert_int_equal(ppl_run(r, &p, &err), E_CONFIG);
    p.p.data.path = "tests/data/absent";
    assert_int_equal(ppl_run(r, &p, &err), E_NOINPUT);
    p.o.model = "tests/data/absent";
    assert_int_equal(ppl_run(r, &p, &err), E_NOINPUT);
    snprintf(raw, sizeof raw, "%s/one.shard", tmp);
    make_shard(raw, len, 1);
    p.o.model = MODELS "mha";
    p.p.data = (struct corpus_options){ .path = raw, .form = FORM_RAW };
    assert_int_equal(ppl_run(r, &p, &err), E_DATA);
    free(r);
}

static int make_tmp(void **state)
{
    (void)state;
    log_init("test_eval", -1);
    return mkdtemp(tmp) ? 0 : -1;
}

static int drop_tmp(void **state)
{
    (void)state;
    return dir_remove(tmp, &err);
}

/* Few lengths for a GPU to plan for; none below the window's, none above the longest. */
static void test_lengths_are_few(void **state)
{
    int64_t last = 0, kinds = 0;

    (void)state;
    for (int64_t len = 1; len <= 100000; len++) {
        int64_t n = score_length(len, 100000);
        assert_true(n >= len && n >= last && n <= 100000 && (len < 64 || n <= len + len / 8 + 64));
        kinds += n != last;
        last = n;
    }
    assert_true(kinds <= 110);
    assert_int_equal(score_length(1000, 1000), 1000);
    assert_int_equal(score_length(8192, 32768), 8192);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lengths_are_few),
        cmocka_unit_test(test_longlora_starts_are_the_references),
        cmocka_unit_test(test_stride_scores_each_token_once_with_context),
        cmocka_unit_test(test_nonoverlap_scores_all_but_window_starts),
        cmocka_unit_test(test_max_windows_spreads_over_all),
        cmocka_unit_test(test_impossible_windows_are_refused),
        cmocka_unit_test(test_forms_are_told_apart),
        cmocka_unit_test(test_scores_equal_transformers),
        cmocka_unit_test(test_threads_do_not_change_a_bit),
        cmocka_unit_test(test_each_context_has_its_own_rope),
        cmocka_unit_test(test_documents_are_kept_apart_unless_joined),
        cmocka_unit_test(test_data_may_be_taken_in_part),
        cmocka_unit_test(test_words_and_bytes),
        cmocka_unit_test(test_masks),
        cmocka_unit_test(test_windows_may_be_averaged_in_batches),
        cmocka_unit_test(test_unfit_input_is_refused),
    };

    return cmocka_run_group_tests(tests, make_tmp, drop_tmp);
}
