/* tests/test_result.c - leval's results as tables, JSON and charts; hostile JSON and labels. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/plot.h"
#include "eval/result.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct err err;

static void fill(struct result *r, const char *label, double loss)
{
    memset(r, 0, sizeof *r);
    snprintf(r->of.label, sizeof r->of.label, "%s", label);
    snprintf(r->of.model, sizeof r->of.model, "m");
    snprintf(r->data, sizeof r->data, "d\xff.bin"); /* a name that is not UTF-8 */
    snprintf(r->protocol, sizeof r->protocol, "stride");
    r->data_tokens = 1000;
    r->data_docs = 2;
    r->data_hash = 0xfedcba9876543210u;
    r->n = 3;
    for (int i = 0; i < 3; i++) {
        r->row[i] = (struct score){ .ctx = 512 << i, .step = 256, .windows = 9, .tokens = 999,
                                    .loss = loss * (1 + 0.1 * i), .bytes = 3000, .words = 500,
                                    .seconds = 1, .read = 2000, .docs = 2 };
        r->row[i].bucket[i] = (struct score_bucket){ 10, 5 };
    }
}

static char *text_of(struct buf *b)
{
    assert_int_equal(buf_add(b, "", 1, &err), 0);
    return b->p;
}

static void test_json_comes_back(void **state)
{
    struct result *r = malloc(2 * sizeof *r);
    struct buf b = { 0 };

    (void)state;
    fill(&r[0], "LongLoRA \xce\xb1", 2.0 / 3);
    assert_int_equal(result_json(&b, &r[0], &err), 0);
    assert_int_equal(result_parse(&r[1], b.p, b.len, "x", &err), 0);
    assert_string_equal(r[1].of.label, r[0].of.label);
    assert_string_equal(r[1].protocol, "stride");
    assert_string_equal(r[1].data, "d?.bin");
    assert_true(r[1].data_hash == r[0].data_hash);
    assert_int_equal(r[1].n, 3);
    for (int i = 0; i < 3; i++) {
        assert_true(r[1].row[i].loss == r[0].row[i].loss); /* every bit */
        assert_int_equal(r[1].row[i].ctx, r[0].row[i].ctx);
    }
    assert_non_null(strstr(text_of(&b), "\"loss_hex\": \"0x1.5555555555555p-1\""));
    assert_null(results_differ(r, 1));
    r[1].row[0].windows++;
    assert_non_null(results_differ(r, 1));
    r[1].data_hash++;
    assert_string_equal(results_differ(r, 1), "other data");
    buf_free(&b);
    free(r);
}

static void test_hostile_json_is_refused(void **state)
{
    static const char *const bad[] = {
        "", "[]", "{}", "{\"leval\":1}", "{\"leval\":\"0\",\"results\":[]}",
        "{\"leval\":\"0\",\"results\":[1]}", "{\"leval\":\"0\",\"results\":[{}]}",
        "{\"leval\":\"0\",\"results\":[{\"ctx\":1,\"loss\":1}]}",
        "{\"leval\":\"0\",\"results\":[{\"ctx\":512,\"loss\":\"1\"}]}",
        "{\"leval\":\"0\",\"results\":[{\"ctx\":512,\"loss\":1e300}]}",
        "{\"leval\":\"0\",\"results\":[{\"ctx\":9223372036854775807,\"loss\":1}]}",
        "{\"leval\":\"0\",\"label\":7,\"results\":[{\"ctx\":512,\"loss\":1}]}",
        "{\"leval\":\"0\",\"data\":[],\"results\":[{\"ctx\":512,\"loss\":1}]}",
    };
    struct result *r = malloc(sizeof *r);
    struct buf b = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (result_parse(r, bad[i], strlen(bad[i]), "x", &err) != E_DATA)
            fail_msg("accepted: %s", bad[i]);
    buf_printf(&b, &err, "{\"leval\":\"0\",\"results\":[{\"ctx\":2,\"loss\":1}");
    for (int i = 0; i < RESULT_ROWS; i++)
        buf_printf(&b, &err, ",{\"ctx\":2,\"loss\":1}");
    buf_printf(&b, &err, "]}");
    assert_int_equal(result_parse(r, b.p, b.len, "x", &err), E_DATA); /* one too many */
    buf_free(&b);
    /* A label longer than its field is cut between characters. */
    buf_printf(&b, &err, "{\"leval\":\"0\",\"label\":\"");
    for (int i = 0; i < 100; i++)
        buf_printf(&b, &err, "\xc3\xa9");
    buf_printf(&b, &err, "\",\"results\":[{\"ctx\":2,\"loss\":1}]}");
    assert_int_equal(result_parse(r, b.p, b.len, "x", &err), 0);
    assert_int_equal(strlen(r->of.label), 126);
    buf_free(&b);
    free(r);
}

static void test_tables(void **state)
{
    struct result *r = malloc(2 * sizeof *r);
    struct buf b = { 0 };
    char *s;

    (void)state;
    fill(&r[0], "base\033[31m\xc2\x9b", 3);
    fill(&r[1], "other", 2);
    r[1].n = 2;
    assert_int_equal(results_table(&b, r, 2, &err), 0);
    s = text_of(&b);
    assert_null(strchr(s, '\033')); /* no escape reaches a terminal */
    assert_null(strstr(s, "\xc2\x9b"));
    assert_non_null(strstr(s, "perplexity         512        1024        2048\n"));
    assert_non_null(strstr(s, "other           7.3891      9.0250           -\n"));
    buf_free(&b);
    assert_int_equal(result_table(&b, &r[0], true, &err), 0);
    s = text_of(&b);
    assert_non_null(strstr(s, "20.0855"));
    assert_non_null(strstr(s, "~"));          /* text not exact */
    assert_non_null(strstr(s, "tokens before"));
    assert_non_null(strstr(s, "2-3"));
    buf_free(&b);
    r[0].row[0].loss = 800; /* beyond a double */
    assert_int_equal(results_table(&b, r, 1, &err), 0);
    assert_non_null(strstr(text_of(&b), "inf"));
    buf_free(&b);
    free(r);
}

static void test_chart_in_the_terminal(void **state)
{
    struct result *r = malloc(2 * sizeof *r);
    struct result_chart how = { "title\n\033", false, true, false, 80 };
    struct buf b = { 0 };
    char *s;

    (void)state;
    fill(&r[0], "base", 3);
    fill(&r[1], "it's \"x\" `y`", 2);
    for (how.utf8 = false;; how.utf8 = true) {
        assert_int_equal(results_chart(&b, NULL, &how, r, 2, &err), 0);
        s = text_of(&b);
        assert_null(strchr(s, '\033'));
        assert_non_null(strstr(s, "title??"));
        assert_non_null(strstr(s, "512"));
        assert_non_null(strstr(s, "2k"));
        assert_non_null(strstr(s, "base"));
        assert_non_null(strstr(s, how.utf8 ? "■" : "#"));
        if (!how.utf8)
            for (char *p = s; *p; p++)
                assert_true((unsigned char)*p < 0x80);
        buf_free(&b);
        if (how.utf8)
            break;
    }
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < 3; i++)
            r[k].row[i].loss = 5000; /* nothing finite to draw */
    assert_int_equal(results_chart(&b, NULL, &how, r, 2, &err), E_DATA);
    buf_free(&b);
    free(r);
}

static void test_one_point_and_flat_lines_draw(void **state)
{
    static const double x[] = { 8192, 8192 }, y[] = { 4, 4 };
    struct plot_series s = { "a", x, y, 1 };
    struct plot p = { .log2_x = true, .log_y = true, .series = &s, .n_series = 1 };
    struct buf b = { 0 };

    (void)state;
    for (int n = 0; n <= 2; n++)
        for (int logarithmic = 0; logarithmic < 2; logarithmic++) {
            s.n = n;
            p.log2_x = p.log_y = logarithmic;
            assert_int_equal(plot_text(&b, &p, 1, 1, true, true, &err), n ? 0 : E_DATA);
        }
    buf_free(&b);
}

static void test_plot_file(void **state)
{
    static const char png[] = "\x89PNG\r\n";
    struct result *r = malloc(sizeof *r);
    struct result_chart how = { .title = "it's `date` $(x) \"q\" {/Bold z}" };
    char dir[] = "/tmp/test_result.XXXXXX", path[64], *bytes = NULL;
    char *old = getenv("PATH") ? strdup(getenv("PATH")) : NULL;
    size_t n;

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/a.png", dir);
    fill(r, "'; set output '| touch x'", 3);
    setenv("PATH", "/nonexistent", 1);
    memset(&err, 0, sizeof err);
    assert_int_equal(plot_check(&err), E_SYS);
    assert_int_equal(results_chart(NULL, path, &how, r, 1, &err), E_SYS);
    assert_non_null(strstr(err.msg, "gnuplot-nox"));
    assert_false(path_exists(path));
    setenv("PATH", old ? old : "/usr/bin:/bin", 1);
    free(old);
    if (plot_check(NULL) == 0) {
        if (results_chart(NULL, path, &how, r, 1, &err) < 0)
            fail_msg("%s", err.msg);
        assert_int_equal(file_read(path, 1 << 24, &bytes, &n, &err), 0);
        assert_true(n > 1000 && memcmp(bytes, png, 6) == 0);
        free(bytes);
        assert_int_equal(results_chart(NULL, "/nonexistent/a.png", &how, r, 1, &err), E_CREATE);
    }
    free(r);
    assert_int_equal(dir_remove(dir, &err), 0);
    if (plot_check(NULL) < 0)
        skip();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_comes_back),
        cmocka_unit_test(test_hostile_json_is_refused),
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_chart_in_the_terminal),
        cmocka_unit_test(test_one_point_and_flat_lines_draw),
        cmocka_unit_test(test_plot_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
