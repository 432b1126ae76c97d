/* tests/test_train.c - order, schedule, rows, settings, metrics. */
#include "base/bytes.h"
#include "base/file.h"
#include "base/opt_json.h"
#include "base/perm.h"
#include "formats/tokens/shard.h"
#include "train/lora.h"
#include "train/metrics.h"
#include "train/order.h"
#include "train/rows.h"
#include "train/run.h"
#include "train/schedule.h"
#include "train/settings.h"
#include "train/state.h"
#include "train/update.h"

#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/traintest.h"

/* ---- order and schedule ---- */

static void test_every_epoch_sees_each_row_once(void **state)
{
    struct order o;
    struct err e = { 0 };
    int differs = 0;

    (void)state;
    assert_int_equal(order_make(&o, N_TOKENS, CTX, 3, 42, "d", &e), 0);
    assert_int_equal(o.rows, 40);
    for (int64_t epoch = 0; epoch < 5; epoch++) {
        int seen[40] = { 0 };
        for (int64_t i = 0; i < 40; i++) {
            int64_t r = order_row(&o, epoch * 40 + i);
            assert_in_range(r, 0, 39);
            seen[r]++;
            differs += r != order_row(&o, i);
        }
        for (int i = 0; i < 40; i++)
            assert_int_equal(seen[i], 1);
    }
    assert_true(differs > 100);
    assert_true(order_row(&o, 17) == order_row(&o, 17));
    assert_float_equal(order_epoch(&o, 20), 1.5, 1e-12);
}

/* Sequence k without those before it, by whoever asks: the steps of a run dealt to 1 to 16
 * workers, each with its own struct and backwards, are those of one; and it is so after 10^15
 * sequences, in as little time. */
static void test_any_sequence_without_the_others(void **state)
{
    static const int64_t from[] = { 0, 39, (int64_t)1000000000000000 };
    struct order one, other;
    struct err e = { 0 };
    int64_t want[96];

    (void)state;
    assert_int_equal(order_make(&one, N_TOKENS, CTX, 48, 42, "d", &e), 0);
    for (size_t f = 0; f < sizeof from / sizeof *from; f++) {
        int seen[40] = { 0 };
        for (int64_t k = 0; k < 96; k++)
            want[k] = order_row(&one, from[f] + k);
        for (int64_t world = 1; world <= 16; world *= 2)
            for (int64_t rank = world - 1; rank >= 0; rank--) {
                assert_int_equal(order_make(&other, N_TOKENS, CTX, 48, 42, "d", &e), 0);
                for (int64_t k = 96 - world + rank; k >= 0; k -= world)
                    assert_int_equal(order_row(&other, from[f] + k), want[k]);
            }
        for (int64_t k = (40 - from[f] % 40) % 40, n = 0; n < 40; n++) /* a whole epoch of them */
            seen[want[k + n]]++;
        for (int i = 0; i < 40; i++)
            assert_int_equal(seen[i], 1);
    }
}

static void test_too_little_data_is_said(void **state)
{
    struct order o;
    struct err e = { 0 };

    (void)state;
    assert_int_equal(order_make(&o, 31, 32, 1, 0, "d.bin", &e), E_CONFIG);
    assert_non_null(strstr(e.msg, "'d.bin' has 31 tokens"));
    assert_int_equal(order_make(&o, 32, 32, 1, 0, "d.bin", &e), 0);
}

static void test_schedules(void **state)
{
    struct schedule s = { SCHEDULE_CONSTANT, 1e-3, 0, 20, 100 };

    (void)state;
    assert_float_equal(schedule_lr(&s, 1), 5e-5, 1e-12);
    assert_float_equal(schedule_lr(&s, 20), 1e-3, 1e-12);
    assert_float_equal(schedule_lr(&s, 21), 1e-3, 1e-12);
    assert_float_equal(schedule_lr(&s, 1000), 1e-3, 1e-12);
    s.kind = SCHEDULE_COSINE, s.min_lr = 1e-4;
    assert_float_equal(schedule_lr(&s, 10), 5e-4, 1e-12);
    assert_float_equal(schedule_lr(&s, 60), 5.5e-4, 1e-9);
    assert_float_equal(schedule_lr(&s, 100), 1e-4, 1e-12);
    assert_float_equal(schedule_lr(&s, 40), 1e-4 + 9e-4 * 0.5 * (1 + sqrt(0.5)), 1e-9);
    s.warmup = 0, s.kind = SCHEDULE_CONSTANT;
    assert_float_equal(schedule_lr(&s, 1), 1e-3, 1e-12);
}

/* ---- settings ---- */

static const struct llama_config four = { .vocab = 20, .dim = 8, .ffn_dim = 12, .layers = 4, .heads = 2,
                                          .kv_heads = 1, .head_dim = 4 };

/* The options of pairs against a model of four layers; the code, or 0 and what the model gets. */
static int lists(const char *targets, const char *ranks, const char *alphas, const char *whole,
                 struct model_options *o, struct adapter_config *a, struct err *e)
{
    static struct lora_lists l;
    int rc;

    lora_free(&l);
    l = (struct lora_lists){ targets, ranks, alphas, whole, false, 0, NULL };
    model_defaults(o);
    if ((rc = lora_check(&l, false, e)) < 0 || (rc = lora_resolve(&l, &four, o, e)) < 0) {
        lora_free(&l);
        return rc;
    }
    *a = (struct adapter_config){ .rank = 8, .alpha = 16, .targets = o->targets, .pairs = o->pairs };
    return 0;
}

static void test_lists_of_pairs(void **state)
{
    static const struct { const char *targets, *ranks, *alphas, *whole, *why; } bad[] = {
        { "q,,v", NULL, NULL, NULL, "''" }, { "", NULL, NULL, NULL, "''" },
        { "q,q", NULL, NULL, NULL, "'q' is given twice" }, { "q,embed", NULL, NULL, NULL, "'embed'" },
        { "q,self_attn.q_proj", NULL, NULL, NULL, "given twice" },
        { "q,c_attn", NULL, NULL, NULL, "1 of the names" }, { "q,x(y_", NULL, NULL, NULL, "'x(y_'" },
        { "q", "q", NULL, NULL, "'q' has no number" }, { "q", "q=0", NULL, NULL, "not a rank" },
        { "q", "q=4x", NULL, NULL, "not a rank" }, { "q", "q=4,q=5", NULL, NULL, "'q' is given twice" },
        { "q", NULL, "q=0", NULL, "above 0" }, { "q", NULL, "w=1", NULL, "'w'" },
        { "q", NULL, NULL, "embeds", "'embeds' is no module" }, { "q", NULL, NULL, "norm,", "'' is no" },
    };
    struct model_options o;
    struct adapter_config a;
    struct err e = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (lists(bad[i].targets, bad[i].ranks, bad[i].alphas, bad[i].whole, &o, &a, &e) != E_USAGE ||
            !strstr(e.msg, bad[i].why))
            fail_msg("%zu: %s, expected %s", i, e.msg, bad[i].why);
    assert_int_equal(lists("q,down", NULL, NULL, NULL, &o, &a, &e), 0);
    assert_true(o.targets == (ROLE_BIT(ROLE_Q) | ROLE_BIT(ROLE_DOWN)) && !o.pairs && !o.whole);
    assert_int_equal(lists("all-linear", NULL, NULL, "embed,norm,head", &o, &a, &e), 0);
    assert_true(o.targets == arch_pairs(arch_nth(0)));
    assert_true(o.whole == (arch_plus(arch_nth(0)) | ROLE_BIT(ROLE_HEAD)));
    assert_int_equal(lists("q,layers.2.mlp.up_proj", "layers.1.self_attn.q_proj=4,up=2", "q=3.5",
                           "o_proj", &o, &a, &e), 0);
    assert_true(o.whole == ROLE_BIT(ROLE_O) && adapter_rank(&a, ROLE_UP, 1) == 0);
    assert_true(adapter_rank(&a, ROLE_UP, 2) == 2 && adapter_pair_scale(&a, ROLE_UP, 2) == 8);
    assert_true(adapter_rank(&a, ROLE_Q, 0) == 8 && adapter_rank(&a, ROLE_Q, 1) == 4);
    assert_true(adapter_pair_scale(&a, ROLE_Q, 1) == 3.5 / 4);
    assert_int_equal(lists("q", NULL, NULL, NULL, &o, &a, &e), 0);
}

static void test_ratios(void **state)
{
    struct err e = { 0 };
    int64_t g;

    (void)state;
    assert_int_equal(settings_ratio("1/4", 1000, &g, &e), 0);
    assert_int_equal(g, 250);
    assert_int_equal(settings_ratio("0.25", 102400, &g, &e), 0);
    assert_int_equal(g, 25600);
    assert_int_equal(settings_ratio("1/3", 100, &g, &e), 0);
    assert_int_equal(g, 33);
    static const char *const bad[] = { "4/1", "0/4", "1/0", "x", "-0.5", "0", "2", "1/4x" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(settings_ratio(bad[i], 100, &g, &e), E_USAGE);
}

static struct llama_config tiny(void)
{
    struct llama_config c;
    struct err e = { 0 };

    if (config_read(&c, "tests/data/tiny-config.json", &e) < 0)
        fail_msg("%s", e.msg);
    return c;
}

static void test_resolving(void **state)
{
    struct settings s;
    struct model_options o;
    struct llama_config c = tiny();
    struct err e = { 0 };
    char note[256];

    (void)state;
    settings_defaults(&s);
    s.data = "d", s.model = "m", s.out = "o", s.ctx = 256;
    assert_int_equal(settings_check(&s, &e), 0);
    assert_int_equal(settings_resolve(&s, &c, 0, &o, note, sizeof note, &e), 0);
    assert_int_equal(s.mode, 2);
    assert_int_equal(s.group, 64);
    assert_int_equal(s.attention, ATTN_S2);
    assert_int_equal(s.micro, 32); /* 8k tokens at once */
    assert_int_equal(s.steps, 1000);
    assert_int_equal(c.rope.type, ROPE_LINEAR);
    assert_float_equal(c.rope.factor, 4, 0);
    assert_int_equal(c.context, 256);
    assert_int_equal(*note, '\0');
    s.group = 100, c = tiny();
    assert_int_equal(settings_resolve(&s, &c, 0, &o, note, sizeof note, &e), 0);
    assert_non_null(strstr(note, "256 tokens, is not divisible by the group, 100"));
    s.group = 257, c = tiny();
    assert_int_equal(settings_resolve(&s, &c, 0, &o, note, sizeof note, &e), E_CONFIG);
    settings_defaults(&s);
    s.data = "d", s.init = "c", s.out = "o", s.epochs = 2, s.batch = 8, c = tiny();
    assert_int_equal(settings_resolve(&s, &c, 64 * 10 + 5, &o, note, sizeof note, &e), 0);
    assert_int_equal(s.mode, 0);
    assert_int_equal(s.attention, ATTN_DENSE);
    assert_int_equal(s.steps, 3); /* 20 rows by 8 */
    assert_int_equal(s.micro, 8);
}

static void test_impossible_combinations(void **state)
{
    struct settings s;
    struct err e = { 0 };

    (void)state;
    settings_defaults(&s);
    assert_int_equal(settings_check(&s, &e), E_USAGE);
    s.data = "d", s.out = "o";
    assert_int_equal(settings_check(&s, &e), E_USAGE);
    s.model = "m", s.init = "c";
    assert_int_equal(settings_check(&s, &e), E_USAGE);
    s.model = NULL, s.mode = 2;
    assert_int_equal(settings_check(&s, &e), E_USAGE);
    s.init = NULL, s.model = "m";
    assert_int_equal(settings_check(&s, &e), 0);
    s.steps = 3, s.epochs = 1;
    assert_int_equal(settings_check(&s, &e), E_USAGE);
    s.epochs = 0, s.group = 16, s.group_ratio = "1/4";
    assert_int_equal(settings_check(&s, &e), E_USAGE);
    s.group = -1, s.micro = 65;
    assert_int_equal(settings_check(&s, &e), E_USAGE);
}

static void test_what_changes_results_is_compared(void **state)
{
    struct settings s;
    struct model_options o;
    struct llama_config c = tiny();
    struct err e = { 0 };
    json_t *a, *b;
    char note[256], *text;

    (void)state;
    settings_defaults(&s);
    s.data = "d", s.model = "m", s.out = "o", s.lr = 0.1, s.ctx = 256;
    settings_resolve(&s, &c, 0, &o, note, sizeof note, &e);
    a = settings_run(&s, &c, "id", "cpu");
    text = json_dumps(a, JSON_REAL_PRECISION(17)); /* as a checkpoint keeps it */
    json_decref(a);
    a = json_loads(text, 0, NULL);
    free(text);
    s.save_every = 7, s.steps = 5000, s.keep_layers = 0, s.machine.threads = 1;
    b = settings_run(&s, &c, "id", "cpu");
    assert_int_equal(settings_compare(a, b, "f", &e), 0);
    json_decref(b);
    s.lr = nextafter(0.1, 1);
    b = settings_run(&s, &c, "id", "cpu");
    assert_int_equal(settings_compare(a, b, "f", &e), E_CONFIG);
    assert_non_null(strstr(e.msg, "'lr'"));
    json_decref(b);
    s.lr = 0.1, s.schedule = SCHEDULE_COSINE; /* then steps count too: a key more */
    b = settings_run(&s, &c, "id", "cpu");
    assert_int_equal(settings_compare(a, b, "f", &e), E_CONFIG);
    json_object_del(b, "steps");
    json_object_del(b, "min_lr");
    json_object_set_new(b, "schedule", json_string("constant"));
    assert_int_equal(settings_compare(a, b, "f", &e), 0);
    json_object_del(b, "seed");
    assert_int_equal(settings_compare(a, b, "f", &e), E_CONFIG);
    assert_non_null(strstr(e.msg, "'seed' 42, this run has absent"));
    json_object_set_new(b, "seed", json_integer(42));
    /* Before there were words for it; before there was the option, and after. */
    json_object_set_new(a, "rope_type", json_integer(ROPE_LINEAR));
    json_object_del(a, "packing");
    assert_int_equal(settings_compare(a, b, "f", &e), 0);
    json_object_set_new(b, "packing", json_string("bestfit"));
    assert_int_equal(settings_compare(a, b, "f", &e), E_CONFIG);
    assert_non_null(strstr(e.msg, "'packing' \"concat\", this run has \"bestfit\""));
    json_object_set_new(b, "packing", json_string("concat"));
    json_object_set_new(a, "rope_type", json_integer(ROPE_LLAMA3));
    assert_int_equal(settings_compare(a, b, "f", &e), E_CONFIG);
    assert_non_null(strstr(e.msg, "'rope_type' \"llama3\""));
    json_decref(a);
    json_decref(b);
}

/* A row is all that an option takes: no other place has a list of them. */
static void test_rows_are_recorded(void **state)
{
    struct settings s;
    struct opt_table t = { .n = 0 };
    json_t *all, *some;

    (void)state;
    settings_defaults(&s);
    s.mode = 1, s.out = "x", s.contexts = (struct opt_counts){ { 8, 16 }, 2 };
    settings_rows(&t, &s);
    all = opt_record(t.row, 0);
    some = opt_record(t.row, OPT_RESULT);
    assert_string_equal(json_string_value(json_object_get(all, "mode")), "lora");
    assert_string_equal(json_string_value(json_object_get(all, "output")), "x");
    assert_int_equal(json_array_size(json_object_get(all, "ctx")), 2);
    assert_true(json_is_false(json_object_get(all, "mask_documents")));
    assert_int_equal(json_integer_value(json_object_get(all, "host_memory")), -1);
    assert_float_equal(json_real_value(json_object_get(all, "lr")), 2e-5, 0);
    assert_null(json_object_get(all, "val"));   /* not given */
    assert_null(json_object_get(all, "shape"));
    assert_null(json_object_get(some, "output")); /* changes no result */
    assert_null(json_object_get(some, "threads"));
    assert_non_null(json_object_get(some, "lr"));
    json_decref(all);
    json_decref(some);
}

static void test_threads_are_no_hardware(void **state)
{
    char now[64], then[64];

    (void)state;
    run_hardware(now, sizeof now, "cpu", "A 7, 12 threads, blas");
    assert_string_equal(now, "cpu A 7, blas");
    run_hardware(then, sizeof then, "", "cpu A 7, 1 thread, blas");
    assert_string_equal(then, now);
    run_hardware(now, sizeof now, "cpu", "threadripper, blas");
    assert_string_equal(now, "cpu threadripper, blas");
}

/* ---- metrics ---- */

static void write_lines(const char *path, int64_t from, int64_t to, double loss)
{
    struct metrics m;
    struct err e = { 0 };
    int64_t kept;

    assert_int_equal(metrics_open(&m, path, from - 1, &kept, &e), 0);
    assert_int_equal(kept, from - 1);
    for (int64_t i = from; i <= to; i++) {
        struct metrics_line l = { .step = i, .tokens = i * 10, .loss = loss, .grad_norm = 1,
                                  .attention = "s2" };
        assert_int_equal(metrics_write(&m, &l, &e), 0);
    }
    assert_int_equal(metrics_sync(&m, &e), 0);
    metrics_close(&m);
}

static int64_t kept_of(const char *path, int64_t step, const char *text, int *rc)
{
    struct metrics m;
    struct err e = { 0 };
    int64_t kept = -1;

    if (text)
        assert_int_equal(file_replace(path, text, strlen(text), &e), 0);
    *rc = metrics_open(&m, path, step, &kept, &e);
    if (*rc == 0)
        metrics_close(&m);
    return kept;
}

static void test_metrics_are_cut_at_the_checkpoint(void **state)
{
    char *path = path_join(dir, "m.jsonl"), *text, *before;
    struct err e = { 0 };
    size_t n;
    int rc;

    (void)state;
    write_lines(path, 1, 9, 2.5);
    assert_int_equal(file_read(path, 1 << 16, &before, &n, &e), 0);
    write_lines(path, 5, 9, 2.5);
    assert_int_equal(file_read(path, 1 << 16, &text, &n, &e), 0);
    assert_string_equal(text, before);
    assert_non_null(strstr(text, "\"loss\":2.5,\"loss_hex\":\"0x1.4p+1\""));
    free(text);
    free(before);
    assert_int_equal(kept_of(path, 3, "{\"step\":1,\"a\":1}\n{\"step\":2}\n{\"st", &rc), 2);
    assert_int_equal(kept_of(path, 3, NULL, &rc), 2);
    assert_int_equal(kept_of(path, 3, "{\"step\":1}\n{\"step\":5}\n", &rc), 1);
    /* step 2 was done when its line could not be written */
    assert_int_equal(kept_of(path, 3, "{\"step\":1}\n{\"step\":3}\n{\"step\":2}\n", &rc), 2);

    assert_int_equal(kept_of(path, 0, "{\"ste", &rc), 0);
    assert_int_equal(rc, 0);
    kept_of(path, 3, "my notes\n", &rc);
    assert_int_equal(rc, E_CREATE);
    assert_int_equal(file_read(path, 1 << 16, &text, &n, &e), 0);
    assert_string_equal(text, "my notes\n");
    free(text);
    free(path);
}

static void test_not_finite_is_null(void **state)
{
    char *path = path_join(dir, "nan.jsonl"), *text;
    struct err e = { 0 };
    size_t n;

    (void)state;
    write_lines(path, 1, 1, NAN);
    assert_int_equal(file_read(path, 1 << 16, &text, &n, &e), 0);
    assert_non_null(strstr(text, "\"loss\":null,\"loss_hex\":\"nan\""));
    free(text);
    free(path);
}

/* ---- rows ---- */

static void test_rows_are_windows_with_the_next_token(void **state)
{
    struct rows r;
    struct dataset *d;
    struct err e = { 0 };
    int64_t scored = 0;

    (void)state;
    assert_int_equal(dataset_open(&d, raw, NULL, VOCAB, &e), 0);
    assert_int_equal(rows_open(&r, CTX, 2, VOCAB, true, &e), 0);
    assert_int_equal(rows_load(&r, 0, d, 3, &scored, &e), 0);
    assert_int_equal(rows_load(&r, 1, d, 39, &scored, &e), 0);
    assert_int_equal(scored, 2 * (CTX - 1));
    assert_int_equal(r.n_starts, 0);
    for (int64_t i = 0; i + 1 < CTX; i++)
        assert_int_equal(r.targets[i], r.ids[i + 1]);
    assert_int_equal(r.targets[CTX - 1], -1);
    assert_int_equal(r.targets[2 * CTX - 1], -1);
    rows_close(&r);
    assert_int_equal(rows_open(&r, CTX, 1, 100, false, &e), 0); /* ids reach beyond */
    assert_int_equal(rows_load(&r, 0, d, 0, &scored, &e), E_DATA);
    assert_non_null(strstr(e.msg, "the model has 100 ids"));
    rows_close(&r);
    dataset_close(d);
}

/* Documents of 5, 0, 10 (its 3rd and 4th id masked) and 17 ids: one row of 32. */
static void write_docs(const char *path)
{
    struct token_info info = { .width = 2, .vocab = VOCAB, .bos = -1, .eos = 2 };
    static const int64_t sizes[] = { 5, 0, 10, 17 };
    struct mask_run run = { 2, 2 };
    struct shard_writer *w;
    struct err e = { 0 };
    uint32_t ids[17];
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0666);

    assert_true(fd >= 0);
    assert_int_equal(shard_create(&w, fd, path, &info, dir, &e), 0);
    for (int i = 0; i < 4; i++) {
        struct token_doc doc = { .ids = ids, .n_ids = sizes[i], .runs = &run,
                                 .n_runs = i == 2, .source = "s", .name = "n" };
        for (int64_t k = 0; k < sizes[i]; k++)
            ids[k] = (uint32_t)(100 * i + k);
        if (shard_write(w, &doc, &e) < 0)
            fail_msg("%s", e.msg);
    }
    assert_int_equal(shard_finish(w, NULL, &e), 0);
    close(fd);
}

static void test_masks_and_documents_kept_apart(void **state)
{
    char *path = path_join(dir, "docs.shard");
    struct rows r;
    struct dataset *d;
    struct err e = { 0 };
    int64_t scored = 0;

    (void)state;
    write_docs(path);
    if (dataset_open(&d, path, NULL, 0, &e) < 0)
        fail_msg("%s", e.msg);
    assert_int_equal(rows_open(&r, CTX, 2, VOCAB, false, &e), 0);
    assert_int_equal(rows_load(&r, 0, d, 0, &scored, &e), 0);
    assert_int_equal(scored, CTX - 1 - 2);
    assert_int_equal(r.ids[5], 200);
    assert_int_equal(r.targets[4], 200);   /* the reference's recipe: joined and cut */
    assert_int_equal(r.targets[5], 201);
    assert_int_equal(r.targets[6], -1);    /* what follows is a prompt */
    assert_int_equal(r.targets[7], -1);
    assert_int_equal(r.targets[8], 204);
    assert_int_equal(r.n_starts, 0);
    rows_close(&r);
    assert_int_equal(rows_open(&r, CTX, 2, VOCAB, true, &e), 0);
    scored = 0;
    assert_int_equal(rows_load(&r, 0, d, 0, &scored, &e), 0);
    assert_int_equal(rows_load(&r, 1, d, 0, &scored, &e), 0);
    assert_int_equal(scored, 2 * (CTX - 1 - 2 - 2));
    assert_int_equal(r.n_starts, 4);
    assert_int_equal(r.starts[0], 5);
    assert_int_equal(r.starts[1], 15);
    assert_int_equal(r.starts[2], 37);
    assert_int_equal(r.starts[3], 47);
    assert_int_equal(r.targets[4], -1);
    assert_int_equal(r.targets[14], -1);
    assert_int_equal(r.targets[36], -1);
    assert_int_equal(rows_load(&r, 0, d, 0, &scored, &e), 0);
    assert_int_equal(r.n_starts, 2);
    rows_close(&r);
    dataset_close(d);
    free(path);
}

static void test_an_id_beyond_the_model_is_named(void **state)
{
    struct rows r;
    struct dataset *d;
    struct err e = { 0 };
    char want[64];
    int64_t scored = 0;
    int32_t ids[CTX], top = 0;
    int at = 0;

    (void)state;
    assert_int_equal(dataset_open(&d, raw, NULL, 0, &e), 0);
    assert_int_equal(dataset_read(d, 3 * CTX, CTX, ids, NULL, &e), 0);
    for (int i = 0; i < CTX; i++)
        if (ids[i] > top)
            top = ids[at = i];
    assert_int_equal(rows_open(&r, CTX, 1, top + 1, false, &e), 0);
    assert_int_equal(rows_load(&r, 0, d, 3, &scored, &e), 0);
    rows_close(&r);
    assert_int_equal(rows_open(&r, CTX, 1, top, false, &e), 0);
    assert_int_equal(rows_load(&r, 0, d, 3, &scored, &e), E_DATA);
    snprintf(want, sizeof want, "token %d of the data is %d,", 3 * CTX + at, top);
    assert_non_null(strstr(e.msg, want));
    rows_close(&r);
    dataset_close(d);
}

/* No room at all is too little, on the host as on a device. */
static void test_a_full_machine_has_no_room(void **state)
{
    struct budget b = { .model.total = 1000, .host = 10, .capacity = 1010 };

    (void)state;
    for (int own = 0; own < 2; own++) {
        b.own_memory = own;
        b.capacity = 1010;
        assert_false(budget_too_large(&b));
        b.capacity = 999;
        assert_true(budget_too_large(&b));
        b.capacity = 0;
        assert_true(budget_too_large(&b));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_full_machine_has_no_room),
        cmocka_unit_test(test_every_epoch_sees_each_row_once),
        cmocka_unit_test(test_any_sequence_without_the_others),
        cmocka_unit_test(test_too_little_data_is_said),
        cmocka_unit_test(test_schedules),
        cmocka_unit_test(test_lists_of_pairs),
        cmocka_unit_test(test_ratios),
        cmocka_unit_test(test_resolving),
        cmocka_unit_test(test_impossible_combinations),
        cmocka_unit_test(test_what_changes_results_is_compared),
        cmocka_unit_test(test_rows_are_recorded),
        cmocka_unit_test(test_threads_are_no_hardware),
        cmocka_unit_test(test_metrics_are_cut_at_the_checkpoint),
        cmocka_unit_test(test_not_finite_is_null),
        cmocka_unit_test(test_rows_are_windows_with_the_next_token),
        cmocka_unit_test(test_masks_and_documents_kept_apart),
        cmocka_unit_test(test_an_id_beyond_the_model_is_named),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
