/* tests/test_recipes.c - recipes: each row is an option, the command goes before it. */
#include "base/file.h"
#include "train/recipes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/traintest.h"

struct asked {
    struct settings s;
    struct opt_table t;
    bool given[sizeof ((struct opt_table *)0)->row / sizeof(struct opt)];
    char said[512];
    struct err e;
    int rc;
};

/* Options as of a command: "--lr 1e-3 ...", a model and a folder for the results. */
static void ask(struct asked *a, const char *model, const char *out, const char *options)
{
    static char line[512];
    static char *argv[64];
    int n = 0;
    bool stop;
    struct cmd cmd = { .name = "t", .opts = a->t.row, .given = a->given };

    memset(a, 0, sizeof *a);
    settings_defaults(&a->s);
    settings_rows(&a->t, &a->s);
    snprintf(line, sizeof line, "t %s", options);
    for (char *p = strtok(line, " "); p; p = strtok(NULL, " "))
        argv[n++] = p;
    assert_int_equal(opt_parse(&cmd, n, argv, &stop, &a->e), 0);
    if (model)
        a->s.model = model;
    if (out)
        a->s.out = out;
    a->rc = recipe_apply(&a->s, a->t.row, a->given, a->said, sizeof a->said, &a->e);
}

/* Every row of every recipe names an option and a value that it takes, and none comes twice. */
static void test_rows_are_options(void **state)
{
    struct asked a;
    char options[64];
    int n = 0;

    (void)state;
    for (const struct recipe *r = recipes; r->name; r++, n++) {
        snprintf(options, sizeof options, "--recipe %s", r->name);
        ask(&a, "m", NULL, options);
        if (a.rc < 0)
            fail_msg("%s: %s", r->name, a.e.msg);
        assert_true(*r->what && *r->source && *r->result && recipe_find(r->name) == r);
        for (const struct recipe_row *w = r->row; w->option; w++) {
            snprintf(options, sizeof options, " --%s %s", w->option, w->value);
            if (!opt_find(a.t.row, w->option) || !strstr(a.said, options))
                fail_msg("%s: '%s' is not set: %s", r->name, w->option, a.said);
            if (w->instead)
                assert_non_null(opt_find(a.t.row, w->instead));
            for (const struct recipe_row *v = r->row; v < w; v++)
                assert_string_not_equal(v->option, w->option);
        }
    }
    assert_true(n >= 2);
}

/* The paper's options are what ltrain does without a recipe. */
static void test_the_papers_are_the_defaults(void **state)
{
    struct asked a;
    struct settings s;
    struct llama_config c[2];
    struct model_options o;
    struct err e = { 0 };
    char note[256];
    json_t *by_recipe, *without;

    (void)state;
    for (int i = 0; i < 2; i++)
        assert_int_equal(config_read(&c[i], "tests/data/tiny-config.json", &e), 0);
    ask(&a, "m", NULL, "--recipe longlora-2023");
    settings_defaults(&s);
    a.s.model = s.model = "m", a.s.ctx = s.ctx = 4096;
    s.packing = PACKING_CONCAT; /* as it is but for data with masks */
    assert_int_equal(settings_resolve(&a.s, &c[0], 0, &o, note, sizeof note, &e), 0);
    assert_int_equal(settings_resolve(&s, &c[1], 0, &o, note, sizeof note, &e), 0);
    assert_int_equal(a.s.group, 1024);
    by_recipe = settings_run(&a.s, &c[0], "id", "cpu");
    without = settings_run(&s, &c[1], "id", "cpu");
    if (settings_compare(by_recipe, without, "x", &e) < 0)
        fail_msg("%s", e.msg);
    json_decref(by_recipe);
    json_decref(without);
}

static void test_an_existing_model_has_the_first(void **state)
{
    struct asked a;

    (void)state;
    ask(&a, "m", NULL, "");
    assert_string_equal(a.s.recipe, "mix-2026");
    assert_true(a.s.dense_every == 10 && a.s.dense_last == 0.05 && a.s.attention == ATTN_S2);
    assert_string_equal(a.s.group_ratio, "1/16");
    ask(&a, "m", NULL, "--mode full");
    assert_string_equal(a.s.recipe, "mix-2026");
    ask(&a, NULL, NULL, "--shape llama-2-7b --plan");
    assert_string_equal(a.s.recipe, "mix-2026");
    ask(&a, NULL, NULL, "--init c.json --mode lora+ --plan");
    assert_string_equal(a.s.recipe, "mix-2026");
}

static void test_a_fresh_or_dense_one_has_none(void **state)
{
    static const char *const tried[] = { "--init c.json", "--init c.json --mode full",
                                         "--attention dense" };
    struct asked a;

    (void)state;
    for (size_t i = 0; i < sizeof tried / sizeof *tried; i++) {
        ask(&a, strstr(tried[i], "init") ? NULL : "m", NULL, tried[i]);
        assert_true(a.rc == 0 && a.s.recipe == NULL && *a.said == '\0' && a.s.dense_every == 0);
    }
}

static void test_the_command_goes_before_it(void **state)
{
    struct asked a;

    (void)state;
    ask(&a, "m", NULL, "--dense-every 20 --group 512");
    assert_string_equal(a.said, "recipe mix-2026: --rope parts --attention s2 --dense-last 0.05");
    assert_true(a.s.dense_every == 20 && a.s.group == 512 && a.s.group_ratio == NULL);
    ask(&a, "m", NULL, "--dense-every 0 --dense-last=0 --attention s2");
    assert_string_equal(a.said, "recipe mix-2026: --rope parts --group-ratio 1/16");
    assert_true(a.s.dense_every == 0 && a.s.dense_last == 0);
    ask(&a, "m", NULL, "--recipe longlora-2023 -b 8 --lr 1e-3");
    assert_true(a.s.batch == 8 && a.s.lr == 1e-3 && a.s.dense_every == 0);
    assert_null(strstr(a.said, "--batch"));
    ask(&a, "m", NULL, "--recipe mix-2026 --attention dense");
    assert_string_equal(a.said, "recipe mix-2026: --rope parts");
    assert_int_equal(a.s.attention, ATTN_DENSE);
}

static void write_record(char *folder, size_t cap, const char *name, const char *text)
{
    struct err e = { 0 };
    char *path;

    snprintf(folder, cap, "%s/%s", dir, name);
    assert_int_equal(dir_make(folder, &e), 0);
    path = path_join(folder, "options.json");
    assert_int_equal(file_replace(path, text, strlen(text), &e), 0);
    free(path);
}

/* A folder goes on with the recipe it was begun with: none, of a run before there were any. */
static void test_a_run_keeps_its_recipe(void **state)
{
    static const struct { const char *text, *recipe; int rc; } tried[] = {
        { "{\"options\":{\"lr\":0.1}}", NULL, 0 },
        { "{}", NULL, 0 },
        { "{\"options\":{\"recipe\":null}}", NULL, 0 },
        { "{\"options\":{\"recipe\":7}}", NULL, 0 },
        { "{\"options\":{\"recipe\":\"longlora-2023\"}}", "longlora-2023", 0 },
        { "{\"options\":{\"recipe\":\"mix-2026\"}}", "mix-2026", 0 },
        { "{\"options\":{\"recipe\":\"mix-3000\"}}", NULL, E_CONFIG },
        { "not JSON", "mix-2026", 0 },
    };
    struct asked a;
    char folder[128], name[16];

    (void)state;
    for (size_t i = 0; i < sizeof tried / sizeof *tried; i++) {
        snprintf(name, sizeof name, "out%zu", i);
        write_record(folder, sizeof folder, name, tried[i].text);
        ask(&a, "m", folder, "");
        assert_int_equal(a.rc, tried[i].rc);
        if (a.rc < 0)
            assert_non_null(strstr(a.e.msg, "'mix-3000' is not one of mix-2026, longlora-2023"));
        else if (tried[i].recipe)
            assert_string_equal(a.s.recipe, tried[i].recipe);
        else
            assert_null(a.s.recipe);
        ask(&a, "m", folder, "-f"); /* nothing of it stays */
        assert_true(a.rc == 0 && strcmp(a.s.recipe, "mix-2026") == 0);
        ask(&a, "m", folder, "--recipe longlora-2023");
        assert_true(a.rc == 0 && strcmp(a.s.recipe, "longlora-2023") == 0);
    }
}

static void test_no_such_recipe(void **state)
{
    struct asked a;

    (void)state;
    ask(&a, "m", NULL, "--recipe best");
    assert_int_equal(a.rc, E_USAGE);
    assert_string_equal(a.e.msg, "--recipe 'best' is not one of mix-2026, longlora-2023");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_are_options),
        cmocka_unit_test(test_the_papers_are_the_defaults),
        cmocka_unit_test(test_an_existing_model_has_the_first),
        cmocka_unit_test(test_a_fresh_or_dense_one_has_none),
        cmocka_unit_test(test_the_command_goes_before_it),
        cmocka_unit_test(test_a_run_keeps_its_recipe),
        cmocka_unit_test(test_no_such_recipe),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
