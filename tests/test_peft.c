/* tests/test_peft.c - every feature of peft's adapters that is read: opened, scored, merged; see
 * tests/make_peft_features.py for what they are. */
#include "tests/adaptertest.h"

#include "base/file.h"
#include "formats/weights/adapter_config.h"
#include "formats/weights/pt_file.h"
#include "formats/weights/safetensors.h"
#include "tools/merge.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DATA "tests/data/peft_features/"

/* tensors: with a pair, saved whole, neither. */
static const struct feature {
    const char *name, *base;
    int64_t merged, replaced, copied, vocab;
    bool untied;
} features[] = {
    { "patterns", "base", 10, 0, 20, 48, false }, { "layers", "base", 4, 0, 26, 48, false },
    { "one_layer", "base", 18, 0, 12, 48, false }, { "regex", "base", 6, 0, 24, 48, false },
    { "dora", "base", 9, 0, 21, 48, false }, { "ends", "base", 5, 7, 18, 48, false },
    { "ends_tied", "base_tied", 4, 0, 26, 48, true }, { "vocab", "base", 6, 2, 22, 53, false },
    { "vocab_tied", "base_tied", 6, 1, 22, 53, false }, { "whole", "base", 3, 10, 17, 48, false },
    { "bin", "base", 6, 0, 24, 48, false }, { "reference", "base", 12, 8, 10, 49, false },
};

static const char *path(const char *form, const char *name)
{
    static char buf[4][200];
    static int k;

    k = (k + 1) % 4;
    snprintf(buf[k], sizeof buf[k], form, name);
    return buf[k];
}

static void test_scored_as_peft_scores_them(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
        const struct feature *f = &features[i];
        double worst = logits_differ(path(DATA "%s", f->base), path(DATA "%s/adapter", f->name),
                                     path(DATA "%s/logits.json", f->name));
        if (!(worst < 1e-4))
            fail_msg("%s: logits differ by %g", f->name, worst);
    }
}

static void test_merged_as_peft_computes_them(void **state)
{
    char out[100];
    struct err e = { 0 };

    (void)state;
    snprintf(out, sizeof out, "/tmp/test_peft.%ld", (long)getpid());
    for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
        const struct feature *f = &features[i];
        struct merge_report r;
        struct merge_options o = { path(DATA "%s", f->base), path(DATA "%s/adapter", f->name), out,
                                   .keep_dtype = true, .shard_bytes = 20000, .threads = 2,
                                   .force = i > 0 };
        struct weights *w;
        double worst;

        OK(merge_run(&o, &r, &e));
        if (r.merged != f->merged || r.replaced != f->replaced || r.copied != f->copied ||
            r.untied != f->untied)
            fail_msg("%s: %lld merged, %lld replaced, %lld copied, untied %d", f->name,
                     (long long)r.merged, (long long)r.replaced, (long long)r.copied, r.untied);
        OK(weights_open(&w, out, &e));
        assert_int_equal(weights_config(w)->vocab, f->vocab);
        weights_close(w);
        worst = logits_differ(out, NULL, path(DATA "%s/logits.json", f->name));
        if (!(worst < 1e-4))
            fail_msg("%s: merged logits differ by %g", f->name, worst);
    }
    OK(dir_remove(out, &e));
}

static void test_a_base_of_pickles(void **state)
{
    (void)state;
    assert_true(logits_differ(DATA "base_bin", NULL, DATA "plain_base/logits.json") < 1e-4);
    assert_true(logits_differ(DATA "base_bin", DATA "dora/adapter", DATA "dora/logits.json") < 1e-4);
}

/* The same values as in the file of safetensors, whatever made the tensors (Parameter or not). */
static void test_values_of_a_pickle(void **state)
{
    struct weights *a, *b;
    struct err e = { 0 };

    (void)state;
    OK(weights_open(&a, DATA "base", &e));
    OK(weights_open(&b, DATA "base_bin", &e));
    assert_int_equal(weights_count(b), weights_count(a) + 3); /* inv_freq */
    for (int64_t i = 0; i < weights_count(a); i++) {
        const struct tensor *x = weights_at(a, i), *y = weights_find(b, x->name);
        assert_non_null(y);
        assert_true(x->nbytes == y->nbytes && x->type == y->type && x->dims == y->dims);
        assert_memory_equal(x->data, y->data, x->nbytes);
    }
    weights_close(a);
    weights_close(b);
}

/* Read and written again, the configuration names the same pairs. */
static void test_what_is_read_is_written(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
        struct adapter_config a, b;
        struct err e = { 0 };
        char *text;

        OK(adapter_config_load(&a, arch_nth(0), NULL, 3,
                               path(DATA "%s/adapter/adapter_config.json", features[i].name), &e));
        OK(adapter_config_text(&a, "a", &text, &e));
        OK(adapter_config_parse(&b, arch_nth(0), NULL, 3, text, strlen(text), "a", &e));
        assert_true(a.targets == b.targets && a.saved == b.saved && !a.pairs == !b.pairs);
        for (int64_t l = -1; l < 3; l++)
            for (int r = 0; r < ROLES; r++) {
                bool top = r == ROLE_EMBED || r == ROLE_HEAD;
                if (top != (l < 0))
                    continue;
                assert_int_equal(adapter_rank(&a, (enum role)r, l), adapter_rank(&b, (enum role)r, l));
                assert_true(adapter_pair_scale(&a, (enum role)r, l) ==
                            adapter_pair_scale(&b, (enum role)r, l));
            }
        free(text);
        adapter_config_free(&a);
        adapter_config_free(&b);
    }
}

/* The expression that Unsloth writes; and one adapter with an expression for each of many modules. */
static void test_long_expressions(void **state)
{
    static const char unsloth[] = "{\"peft_type\":\"LORA\",\"auto_mapping\":{\"unsloth_fixed\":true},"
        "\"target_modules\":\"(?:.*?(?:language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|"
        "dense).*?(?:k_proj|v_proj|q_proj|gate_proj|up_proj|down_proj|o_proj).*?)|(?:\\\\bmodel\\\\.layers"
        "\\\\.[\\\\d]{1,}\\\\.(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense)\\\\.(?:(?:k_proj|v_proj|"
        "q_proj|gate_proj|up_proj|down_proj|o_proj)))\"}";
    struct adapter_config a;
    struct err e = { 0 };
    char many[8192];
    size_t n;

    (void)state;
    OK(adapter_config_parse(&a, NULL, NULL, 126, unsloth, sizeof unsloth - 1, "a", &e));
    assert_true(a.targets == arch_pairs(arch_nth(0)) && !a.pairs);
    n = (size_t)snprintf(many, sizeof many, "{\"peft_type\":\"LORA\",\"target_modules\":\"all-linear\","
                                            "\"rank_pattern\":{");
    for (int i = 0; i < 60; i++)
        n += (size_t)snprintf(many + n, sizeof many - n, "%s\"(x|y)%d$\":4", i ? "," : "", i);
    n += (size_t)snprintf(many + n, sizeof many - n, "}}");
    assert_int_equal(adapter_config_parse(&a, NULL, NULL, 4096, many, n, "a", &e), E_CONFIG);
    assert_non_null(strstr(e.msg, "takes too long"));
}

/* Both kinds of keys: one for all layers, one with its layer. */
static void test_ranks_of_patterns(void **state)
{
    struct adapter_config a;
    struct err e = { 0 };

    (void)state;
    OK(adapter_config_load(&a, arch_nth(0), NULL, 3, DATA "patterns/adapter/adapter_config.json", &e));
    assert_int_equal(adapter_rank(&a, ROLE_Q, 0), 2);
    assert_int_equal(adapter_rank(&a, ROLE_Q, 1), 4);
    assert_int_equal(adapter_rank(&a, ROLE_DOWN, 2), 7);
    assert_int_equal(adapter_rank(&a, ROLE_V, 2), 1);
    assert_int_equal(adapter_rank(&a, ROLE_O, 1), 4);
    assert_int_equal(adapter_rank(&a, ROLE_O, 0), 0);
    assert_true(adapter_pair_scale(&a, ROLE_DOWN, 0) == 8 / sqrt(7));
    assert_true(adapter_pair_scale(&a, ROLE_DOWN, 1) == 5.5 / sqrt(7));
    adapter_config_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scored_as_peft_scores_them),
        cmocka_unit_test(test_merged_as_peft_computes_them),
        cmocka_unit_test(test_a_base_of_pickles),
        cmocka_unit_test(test_values_of_a_pickle),
        cmocka_unit_test(test_what_is_read_is_written),
        cmocka_unit_test(test_long_expressions),
        cmocka_unit_test(test_ranks_of_patterns),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
