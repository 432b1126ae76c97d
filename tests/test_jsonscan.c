/* tests/test_jsonscan.c - the JSON scanner and the cutting of streams into records. */
#include "base/perm.h"
#include "base/jsonscan.h"
#include "formats/text/records.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Walks a copy of exactly n bytes: the number of members, or E_DATA. */
static int members(const char *text, size_t n, struct err *e)
{
    char *copy = malloc(n ? n : 1);
    struct json_object o;
    struct json_value k, v;
    int rc, count = 0;

    memcpy(copy, text, n);
    o = json_scan(copy, n);
    while ((rc = json_next(&o, &k, &v, e)) == 1)
        count++;
    if (rc == 0) {
        assert_int_equal(json_next(&o, &k, &v, e), 0); /* asking again finds the same end */
    }
    free(copy);
    return rc < 0 ? rc : count;
}

static void test_what_is_json(void **state)
{
    static const struct {
        const char *text;
        int members;
    } good[] = {
        { "{}", 0 }, { " { } \r\n", 0 }, { "{\"a\":1}", 1 },
        { "{\"\":null , \"b\" : [ ] }", 2 },
        { "{\"a\":[1,-2.5e+3,0.1,true,false,null,\"x\",{},[[]],{\"y\":{\"z\":[{}]}}]}", 1 },
        { "{\"a\":NaN,\"b\":Infinity,\"c\":-Infinity}", 3 },
        { "{\"a\\\"\\u0041\":\"\\\\\\/\\b\\f\\n\\r\\t\\uD83D\\uDE00\"}", 1 },
        { "{\"a\":\"\xFF not checked here\"}", 1 }, { "{\"a\":1,\"a\":2}", 2 },
    };
    static const char *const bad[] = {
        "", " ", "{", "}", "[]", "\"x\"", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{,}",
        "{\"a\" 1}",
        "{\"a\":1 \"b\":2}", "{a:1}", "{'a':1}", "{\"a\":01}", "{\"a\":1.}", "{\"a\":.5}",
        "{\"a\":1e}", "{\"a\":+1}", "{\"a\":-}", "{\"a\":tru}", "{\"a\":nul}", "{\"a\":[1,]}",
        "{\"a\":[1 2]}", "{\"a\":[}", "{\"a\":[}]", "{\"a\":{]}", "{\"a\":\"x}",
        "{\"a\":\"\\x\"}",
        "{\"a\":\"\\u12G4\"}", "{\"a\":\"\\u12", "{\"a\":\"tab\there\"}", "{\"a\":\"\n\"}",
        "{\"a\":1}x", "{\"a\":1}{}", "{\"a\":[{\"b\":1,}]}", "{\"a\":[{\"b\"}]}", "{\"a\":1",
        "{\"a\":[1", "{\"a\":{\"b\":", "{\"a\":\"\\", "{\"a\":N", "{\"a\":-Inf}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct err e = { 0 };
        if (members(good[i].text, strlen(good[i].text), &e) != good[i].members)
            fail_msg("'%s': %s", good[i].text, e.msg);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err e = { 0 };
        if (members(bad[i], strlen(bad[i]), &e) != E_DATA || !strstr(e.msg, "bad JSON at byte"))
            fail_msg("'%s' was taken (%s)", bad[i], e.msg);
    }
    assert_int_equal(members("{\"a\":\"\0\"}", 9, NULL), E_DATA);
}

static void test_place_of_an_error(void **state)
{
    struct err e = { 0 };

    (void)state;
    assert_int_equal(members("{\"a\": 12, \"b\": nope}", 20, &e), E_DATA);
    assert_string_equal(e.msg, "bad JSON at byte 15: not a value");
}

static void test_depth(void **state)
{
    char text[2048];
    struct err e = { 0 };

    (void)state;
    for (int depth = 127; depth <= 129; depth++) {
        size_t n = (size_t)snprintf(text, sizeof text, "{\"a\":");
        memset(text + n, '[', (size_t)depth);
        memset(text + n + depth, ']', (size_t)depth);
        n += 2 * (size_t)depth;
        text[n++] = '}';
        assert_int_equal(members(text, n, &e), depth <= JSON_MAX_DEPTH ? 1 : E_DATA);
    }
    assert_non_null(strstr(e.msg, "deeper than 128"));
    memset(text, '[', sizeof text);
    assert_int_equal(members(text, sizeof text, &e), E_DATA);
}

/* Every place that a stop can have within a word of eight bytes. */
static void test_stops_at_every_alignment(void **state)
{
    char text[64];

    (void)state;
    for (int before = 0; before < 20; before++)
        for (int byte = 0; byte < 256; byte++) {
            int n = snprintf(text, sizeof text, "{\"k\":\"%*s", before, "");
            memset(text + n - before, 0x80 + byte % 7, (size_t)before);
            text[n] = (char)byte;
            memcpy(text + n + 1, "nnnnnnnnn\"}", 12);
            bool ok = byte >= 0x20 && byte != '"' && byte != '\\';
            if (byte == '\\')
                ok = true; /* \n */
            assert_int_equal(members(text, (size_t)n + 12, NULL), ok ? 1 : E_DATA);
        }
}

static int text_of(const char *json, bool replace, struct buf *out, struct err *e)
{
    struct json_value v = { JK_STRING, strchr(json, '\\') != NULL, json, strlen(json) };

    out->len = 0;
    return json_text(&v, replace, out, e);
}

static void test_text_of_strings(void **state)
{
    static const struct {
        const char *json, *text, *replaced; /* text NULL: refused without replace */
    } t[] = {
        { "", "", "" }, { "plain", "plain", "plain" },
        { "a\\n\\t\\\"\\\\\\/\\b\\f\\rz", "a\n\t\"\\/\b\f\rz", "a\n\t\"\\/\b\f\rz" },
        { "\\u0041\\u00e9\\u20AC\\ud83d\\ude00", "A\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80",
          "A\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80" },
        { "\xC3\xA9", "\xC3\xA9", "\xC3\xA9" },
        { "x\\ud83dy", NULL, "x\xEF\xBF\xBDy" }, { "\\ude00", NULL, "\xEF\xBF\xBD" },
        { "\\ud83d\\ud83d\\ude00", NULL, "\xEF\xBF\xBD\xF0\x9F\x98\x80" },
        { "\\ud83d\\n", NULL, "\xEF\xBF\xBD\n" },
        { "a\xFF" "b\xC3", NULL, "a\xEF\xBF\xBD" "b\xEF\xBF\xBD" },
        { "\xED\xA0\x80", NULL, "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD" },
        { "\xC3\\n", NULL, "\xEF\xBF\xBD\n" },
    };
    struct buf b = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct err e = { 0 };
        int rc = text_of(t[i].json, false, &b, &e);

        assert_int_equal(rc, t[i].text ? 0 : E_DATA);
        if (t[i].text) {
            assert_int_equal(b.len, strlen(t[i].text));
            assert_memory_equal(b.p, t[i].text, b.len);
        }
        assert_int_equal(text_of(t[i].json, true, &b, &e), 0);
        assert_int_equal(b.len, strlen(t[i].replaced));
        assert_memory_equal(b.p, t[i].replaced, b.len);
    }
    assert_int_equal(text_of("\\u0000", false, &b, NULL), 0);
    assert_int_equal(b.len, 1);
    buf_free(&b);
}

static void test_quoting_reads_back(void **state)
{
    struct buf q = { 0 }, back = { 0 };
    struct err e = { 0 };
    char text[40];

    (void)state;
    for (uint64_t k = 0; k < 2000; k++) {
        struct json_value v;
        size_t n = mix64(k) % sizeof text;

        for (size_t i = 0; i < n; i++)
            text[i] = (char)(mix64(k * 64 + i) % 128);
        q.len = back.len = 0;
        assert_int_equal(json_quote(&q, text, n, &e), 0);
        v = (struct json_value){ JK_STRING, true, q.p + 1, q.len - 2 };
        assert_int_equal(json_text(&v, false, &back, &e), 0);
        assert_int_equal(back.len, n);
        if (n)
            assert_memory_equal(back.p, text, n);
    }
    buf_free(&q);
    buf_free(&back);
}

static void test_keys(void **state)
{
    struct json_value plain = { JK_STRING, false, "text", 4 },
                      escaped = { JK_STRING, true, "te\\u0078t", 9 };

    (void)state;
    assert_true(json_is(&plain, "text"));
    assert_false(json_is(&plain, "tex"));
    assert_false(json_is(&plain, "texts"));
    assert_true(json_is(&escaped, "text"));
}

/* A stream that gives step bytes at a time. */
struct drip {
    const char *p;
    size_t n, step;
};

static int64_t read_drip(void *ctx, void *buf, size_t cap, struct err *e)
{
    struct drip *d = ctx;
    size_t n = d->n < d->step ? d->n : d->step;

    (void)e;
    n = n < cap ? n : cap;
    memcpy(buf, d->p, n);
    d->p += n;
    d->n -= n;
    return (int64_t)n;
}

/* The records as one string "line:text|line:text|", or the error's message. */
static void cut(enum record_mode mode, const char *text, size_t n, size_t step, char *out,
                size_t cap)
{
    struct drip d = { text, n, step };
    struct records r = { .longer = "raise --max-record" };
    struct record rec;
    struct err e = { 0 };
    size_t k = 0;
    int rc;

    out[0] = '\0';
    records_start(&r, mode, 64, read_drip, &d);
    while ((rc = records_next(&r, &rec, &e)) == 1)
        k += (size_t)snprintf(out + k, cap - k, "%ld:%.*s|", (long)rec.line, (int)rec.n, rec.p);
    if (rc < 0)
        snprintf(out + k, cap - k, "! %s", e.msg);
    else
        assert_int_equal(records_next(&r, &rec, &e), 0);
    records_free(&r);
}

static void test_records(void **state)
{
    static const struct {
        enum record_mode mode;
        const char *text, *want;
    } t[] = {
        { RECORDS_TEXT, "", "1:|" }, { RECORDS_TEXT, "{}\nx", "1:{}\nx|" },
        { RECORDS_LINES, "", "" }, { RECORDS_LINES, "\n\n \r\n", "" },
        { RECORDS_LINES, "{\"a\":1}\r\n\n{\"b\":2}", "1:{\"a\":1}\r|3:{\"b\":2}|" },
        { RECORDS_LINES, "junk\n{}\n", "1:junk|2:{}|" },
        { RECORDS_LINES, "[{\"a\":1},\n{}]", "1:{\"a\":1}|2:{}|" },
        { RECORDS_JSON, "\xEF\xBB\xBF{\"a\":1}\n{}\n", "1:{\"a\":1}|2:{}|" },
        { RECORDS_JSON, "[]", "" }, { RECORDS_JSON, " [ ] \n", "" },
        { RECORDS_JSON, "[\n{\"a\":\"]}\\\"\"},\n\n {\"b\":[{}]}]\n",
          "2:{\"a\":\"]}\\\"\"}|4:{\"b\":[{}]}|" },
        { RECORDS_JSON, "{\n \"a\": 1\n}\n{\n \"b\": 2\n}\n",
          "1:{\n \"a\": 1\n}|4:{\n \"b\": 2\n}|" },
        { RECORDS_JSON, "[{}",
          "1:{}|! line 1, byte 3: the array is cut short: no ']' at its end" },
        { RECORDS_JSON, "[{},{\"a\":",
          "1:{}|! line 1, byte 4: the object that begins here is cut short" },
        { RECORDS_JSON, "[{} {}]", "1:{}|! line 1, byte 4: ',' is missing after a row" },
        { RECORDS_JSON, "[1]", "! line 1, byte 1: a row is not an object" },
        { RECORDS_JSON, "[[{}]]", "! line 1, byte 1: a row is not an object" },
        { RECORDS_JSON, "[{}]\n[{}]", "1:{}|! line 2, byte 5: something follows the array" },
        { RECORDS_AUTO, "plain text\n", "1:plain text\n|" }, { RECORDS_AUTO, "", "1:|" },
        { RECORDS_AUTO, "{ not json }\n", "1:{ not json }\n|" },
        { RECORDS_AUTO, "[x] a list\n", "1:[x] a list\n|" },
        { RECORDS_AUTO, " {\"a\":1}\n{}\n", "1:{\"a\":1}|2:{}|" },
        { RECORDS_AUTO, "[ {\"a\":1} ]", "1:{\"a\":1}|" },
        { RECORDS_LINES,
          "{\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\":1}\n",
          "! line 1, byte 0: a record of more than 64 bytes\n"
          "raise --max-record to read it" },
    };
    char out[1024];

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++)
        for (size_t step = 1; step <= 9; step += step < 3 ? 1 : 6) {
            cut(t[i].mode, t[i].text, strlen(t[i].text), step, out, sizeof out);
            if (strcmp(out, t[i].want) != 0)
                fail_msg("%zu by %zu: '%s', not '%s'", i, step, out, t[i].want);
        }
}

/* Many records through one small buffer: moved, refilled, counted. */
static void test_long_streams(void **state)
{
    struct buf b = { 0 };
    struct records r = { 0 };
    struct record rec;
    struct err e = { 0 };
    struct drip d;

    (void)state;
    for (int i = 0; i < 40000; i++)
        buf_printf(&b, &e, "{\"n\":%d,\"pad\":\"%0*d\"}\n", i, i % 50 + 1, 0);
    for (int mode = 0; mode < 2; mode++) {
        d = (struct drip){ b.p, b.len, 1000 };
        records_start(&r, mode ? RECORDS_VALUES : RECORDS_LINES, 1 << 20, read_drip, &d);
        for (int i = 0; i < 40000; i++) {
            char want[32];
            assert_int_equal(records_next(&r, &rec, &e), 1);
            snprintf(want, sizeof want, "{\"n\":%d,", i);
            assert_memory_equal(rec.p, want, strlen(want));
            assert_int_equal(rec.line, i + 1);
            assert_memory_equal(b.p + rec.offset, rec.p, rec.n);
        }
        assert_int_equal(records_next(&r, &rec, &e), 0);
        assert_true(r.b.cap < 2 << 20); /* bounded, whatever the stream's length */
    }
    records_free(&r);
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_json),
        cmocka_unit_test(test_place_of_an_error),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_stops_at_every_alignment),
        cmocka_unit_test(test_text_of_strings),
        cmocka_unit_test(test_quoting_reads_back),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_records),
        cmocka_unit_test(test_long_streams),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
