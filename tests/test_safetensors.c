/* tests/test_safetensors.c - each rule broken once, converters bit by bit, the writer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/file.h"
#include "formats/weights/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A file of this header and data_bytes zeros, in a block of exactly its size. */
static int parse(const char *header, size_t data_bytes, struct st_file **f, char **keep,
                 struct err *e)
{
    size_t n = strlen(header), total = 8 + n + data_bytes;
    char *p = calloc(1, total);

    assert_non_null(p);
    put_le(p, n, 8);
    memcpy(p + 8, header, n);
    *e = (struct err){0};
    *keep = p;
    return st_parse(f, p, total, "x", e);
}

#define T(dtype, shape, offsets) \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static const struct { const char *header; size_t data; const char *why; } spoilt[] = {
    /* places */
    { "{\"a\":" T("F32", "[2]", "[0,8]") ",\"b\":" T("F32", "[1]", "[4,8]") "}", 8, "inside" },
    { "{\"a\":" T("F32", "[1]", "[0,4]") ",\"b\":" T("F32", "[1]", "[0,4]") "}", 4, "inside" },
    { "{\"a\":" T("F32", "[1]", "[0,4]") ",\"b\":" T("F32", "[1]", "[8,12]") "}", 12, "hole" },
    { "{\"a\":" T("F32", "[1]", "[4,8]") "}", 8, "hole" },
    { "{\"a\":" T("F32", "[2]", "[0,8]") "}", 4, "cut short" },
    { "{\"a\":" T("F32", "[1]", "[0,4]") "}", 5, "1 bytes after" },
    { "{}", 1, "1 bytes after" },
    { "{\"a\":" T("F32", "[1]", "[4,0]") "}", 4, "before it begins" },
    { "{\"a\":" T("F32", "[1]", "[0,9223372036854775807]") "}", 4, "data_offsets of" },
    /* sizes */
    { "{\"a\":" T("F32", "[3]", "[0,8]") "}", 8, "3 elements" },
    { "{\"a\":" T("U16", "[3]", "[0,8]") "}", 8, "3 elements" },
    { "{\"a\":" T("F4", "[3]", "[0,1]") "}", 1, "3 elements of 4 bits" },
    { "{\"a\":" T("F32", "[4294967296,4294967296]", "[0,0]") "}", 0, "overflows" },
    { "{\"a\":" T("F32", "[4294967296,4294967296,0]", "[0,0]") "}", 0, "overflows" },
    { "{\"a\":" T("F32", "[4611686018427387904]", "[0,0]") "}", 0, "elements" },
    { "{\"a\":" T("F32", "[9223372036854775808]", "[0,0]") "}", 0, "above 2^63" },
    { "{\"a\":" T("F32", "[99999999999999999999999]", "[0,0]") "}", 0, "above 2^63" },
    { "{\"a\":" T("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, "too many" },
    { "{\"a\":" T("F32", "[-1]", "[0,4]") "}", 4, "not a whole number" },
    { "{\"a\":" T("F32", "[1.0]", "[0,4]") "}", 4, "not a whole number" },
    { "{\"a\":" T("F32", "[01]", "[0,4]") "}", 4, "not a whole number" },
    { "{\"a\":" T("F32", "[1]", "[0,4,8]") "}", 4, "too many" },
    { "{\"a\":" T("F32", "[1]", "[0]") "}", 4, "two numbers" },
    { "{\"a\":" T("F32", "{}", "[0,4]") "}", 4, "no array" },
    { "{\"a\":" T("F32", "[1 1]", "[0,4]") "}", 4, "no ']'" },
    /* types and fields */
    { "{\"a\":" T("F33", "[1]", "[0,4]") "}", 4, "unknown type 'F33'" },
    { "{\"a\":{\"dtype\":1,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "no string" },
    { "{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "no dtype" },
    { "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "no shape" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "no data_offsets" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"x\":[0,4]}}", 4, "unknown field" },
    { "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
      "twice" },
    { "{\"a\":[]}", 0, "not an object" },
    /* names */
    { "{\"a\":" T("F32", "[0]", "[0,0]") ",\"a\":" T("F32", "[1]", "[0,4]") "}", 4,
      "'a' appears twice" },
    { "{\"a\":" T("F32", "[0]", "[0,0]") ",\"\\u0061\":" T("F32", "[0]", "[0,0]") "}", 0,
      "'a' appears twice" },
    { "{\"__metadata__\":{},\"__metadata__\":{}}", 0, "twice" },
    { "{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0, "twice" },
    { "{\"__metadata__\":{\"a\":1}}", 0, "no string" },
    { "{\"__metadata__\":[]}", 0, "not an object" },
    { "{\"a\\u0000\":" T("F32", "[0]", "[0,0]") "}", 0, "NUL" },
    { "{\"a\\n\":" T("F32", "[0]", "[0,0]") "}", 0, "control character" },
    { "{\"\\ud800\":" T("F32", "[0]", "[0,0]") "}", 0, "surrogate" },
    { "{\"\\udc00\":" T("F32", "[0]", "[0,0]") "}", 0, "surrogate" },
    { "{\"\\u12g4\":" T("F32", "[0]", "[0,0]") "}", 0, "escape" },
    { "{\"\\x\":" T("F32", "[0]", "[0,0]") "}", 0, "escape" },
    { "{\"\xC0\xAF\":" T("F32", "[0]", "[0,0]") "}", 0, "not UTF-8" },
    /* JSON */
    { "", 4, "'{'" }, { " {}", 0, "'{'" }, { "[]", 0, "'{'" }, { "{", 0, "no string" },
    { "{\"a", 0, "unfinished string" }, { "{\"a\\", 0, "unfinished string" },
    { "{\"a\"", 0, "no ':'" }, { "{\"a\":", 0, "not an object" },
    { "{\"a\":{", 0, "no string" }, { "{}x", 0, "after the closing" },
    { "{\"__metadata__\":{\"a\":\"b\"", 0, "no '}'" },
    { "{\"a\":" T("F32", "[0]", "[0,0]") ",}", 0, "no string" },
    { "{\"a\":" T("F32", "[0]", "[0,0]"), 0, "no '}'" },
    { "{\"a\\u12", 0, "escape" }, { "{\"\\ud834", 0, "surrogate" },
};

static void test_each_broken_rule_is_named(void **state)
{
    struct st_file *f;
    struct err e;
    char *keep;

    (void)state;
    for (size_t i = 0; i < sizeof spoilt / sizeof *spoilt; i++) {
        int rc = parse(spoilt[i].header, spoilt[i].data, &f, &keep, &e);
        if (rc != E_DATA || !strstr(e.msg, spoilt[i].why))
            fail_msg("%s: %d %s", spoilt[i].header, rc, e.msg);
        assert_null(f);
        free(keep);
    }
}

static void test_lengths_are_held_against_the_file(void **state)
{
    static const struct { uint64_t length; size_t bytes; const char *why; } bad[] = {
        { 0, 0, "0 bytes" }, { 0, 7, "7 bytes" }, { 1, 8, "the file has 8" },
        { 100000000, 64, "the file has 64" }, { 100000001, 64, "at most" },
        { UINT64_MAX, 64, "at most" }, { UINT64_MAX - 7, 64, "at most" }, { 0, 8, "'{'" },
    };
    struct st_file *f;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err e = {0};
        unsigned char *p = calloc(1, bad[i].bytes + 1);
        assert_non_null(p);
        if (bad[i].bytes >= 8)
            put_le(p, bad[i].length, 8);
        assert_int_equal(st_parse(&f, p, bad[i].bytes, "x", &e), E_DATA);
        if (!strstr(e.msg, bad[i].why))
            fail_msg("%zu: %s", i, e.msg);
        free(p);
    }
}

static void test_odd_but_right_files_are_read(void **state)
{
    struct st_file *f;
    struct err e;
    char *keep;

    (void)state;
    assert_int_equal(parse("{}", 0, &f, &keep, &e), 0);
    assert_int_equal(st_count(f), 0);
    assert_null(st_find(f, "a"));
    assert_null(st_metadata(f, "a"));
    st_close(f);
    free(keep);
    assert_int_equal(parse("{ \"z\" :\n" T("BF16", "[]", "[ 8 , 10 ]") ",\t\"__metadata__\":"
                           "{\"k\":\"\\ud83d\\ude00\\u00e9\\\"\"},"
                           "\"a/\\\"b\\u2581\":" T("F64", "[1]", "[0,8]") ",\"e\":"
                           T("F32", "[0,7]", "[10,10]") ",\"f\":" T("F8_E4M3", "[3]", "[10,13]")
                           ",\"g\":" T("F6_E2M3", "[4]", "[13,16]") "}    ", 16, &f, &keep, &e),
                     0);
    assert_int_equal(st_count(f), 5);
    assert_string_equal(st_metadata(f, "k"), "\xF0\x9F\x98\x80\xC3\xA9\"");
    assert_string_equal(st_at(f, 0)->name, "a/\"b\xE2\x96\x81");
    assert_int_equal(st_find(f, "z")->dims, 0);
    assert_int_equal(st_find(f, "z")->count, 1);
    assert_int_equal(st_find(f, "z")->nbytes, 2);
    assert_int_equal(st_find(f, "f")->type->plain, DT_OTHER);
    assert_int_equal(st_find(f, "e")->count, 0);
    assert_null(st_find(f, "y"));
    st_close(f);
    free(keep);
}

/* 10^5 tensors in reverse order: sorting, not comparing all with all. */
static void test_a_hundred_thousand_tensors(void **state)
{
    struct buf b = {0};
    struct st_file *f;
    struct err e;
    char *keep;

    (void)state;
    for (int i = 100000; i-- > 0;)
        buf_printf(&b, &e, "%s\"t%d\":" T("U8", "[1]", "[%d,%d]"), b.len ? "," : "{", i, i,
                   i + 1);
    buf_add(&b, "}", 2, &e);
    assert_int_equal(parse(b.p, 100000, &f, &keep, &e), 0);
    assert_int_equal(st_count(f), 100000);
    assert_ptr_equal(st_find(f, "t777")->data, keep + 8 + strlen(b.p) + 777);
    st_close(f);
    free(keep);
    buf_free(&b);
}

static uint32_t bits(float v)
{
    uint32_t u;

    memcpy(&u, &v, 4);
    return u;
}

/* The definition: sign, exponent, mantissa, in double. */
static double half_value(uint16_t h, int exp_bits, int man_bits)
{
    int bias = (1 << (exp_bits - 1)) - 1, ex = h >> man_bits & ((1 << exp_bits) - 1);
    int man = h & ((1 << man_bits) - 1);
    double s = h >> 15 ? -1 : 1;

    if (ex == (1 << exp_bits) - 1)
        return man ? NAN : s * INFINITY;
    return ex ? s * ldexp((1 << man_bits) + man, ex - bias - man_bits)
              : s * ldexp(man, 1 - bias - man_bits);
}

static void test_all_halves_widen_and_come_back(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = f16_to_f32((uint16_t)h), b = bf16_to_f32((uint16_t)h);
        double want_f = half_value((uint16_t)h, 5, 10), want_b = half_value((uint16_t)h, 8, 7);
        if (isnan(want_f)) {
            assert_true(isnan(f) && isnan(f16_to_f32(f32_to_f16(f))));
        } else {
            assert_int_equal(bits(f), bits((float)want_f));
            assert_int_equal(f32_to_f16(f), h);
        }
        if (isnan(want_b)) {
            assert_true(isnan(b) && isnan(bf16_to_f32(f32_to_bf16(b))));
        } else {
            assert_int_equal(bits(b), bits((float)want_b));
            assert_int_equal(f32_to_bf16(b), h);
        }
    }
}

/* Between each two neighbours: a bit below the middle, the middle (to the even one), above. */
static void test_rounding_at_every_boundary(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7F80; h++) {
        double lo = half_value((uint16_t)h, 8, 7), step = half_value((uint16_t)(h + 1), 8, 7);
        float mid;
        uint32_t even = h & 1 ? h + 1 : h;
        mid = isinf(step) ? 0x1.FFp127f : (float)((lo + step) / 2);
        assert_int_equal(f32_to_bf16(mid), even);
        assert_int_equal(f32_to_bf16(-mid), even | 0x8000);
        assert_int_equal(f32_to_bf16(nextafterf(mid, 0)), h);
        assert_int_equal(f32_to_bf16(nextafterf(mid, INFINITY)), h + 1);
    }
    for (uint32_t h = 0; h < 0x7C00; h++) {
        double lo = half_value((uint16_t)h, 5, 10), step = half_value((uint16_t)(h + 1), 5, 10);
        float mid = (float)(isinf(step) ? 65520 : (lo + step) / 2);
        uint32_t even = h & 1 ? h + 1 : h;
        assert_int_equal(f32_to_f16(mid), even);
        assert_int_equal(f32_to_f16(-mid), even | 0x8000);
        assert_int_equal(f32_to_f16(nextafterf(mid, 0)), h);
        assert_int_equal(f32_to_f16(nextafterf(mid, INFINITY)), h + 1);
    }
    assert_int_equal(f32_to_f16(1e-30f), 0);
    assert_int_equal(f32_to_f16(3e38f), 0x7C00);
    assert_int_equal(f32_to_f16(-INFINITY), 0xFC00);
    assert_int_equal(f32_to_bf16(1e-45f), 0);
    for (uint32_t u = 1; u < 0x800000; u = u * 2 + 1) { /* a NaN of any payload stays one */
        uint32_t nan = 0x7F800000 | u;
        float v;
        memcpy(&v, &nan, 4);
        assert_true(isnan(bf16_to_f32(f32_to_bf16(v))) && isnan(f16_to_f32(f32_to_f16(v))));
        assert_true(isnan(bf16_to_f32(f32_to_bf16(-v))));
    }
}

#if defined(__FLT16_MAX__) && !defined(__clang__)
/* A spread of all float32 bit patterns against the compiler's own conversion. */
static void test_float16_as_the_compiler_rounds(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < ((uint64_t)1 << 32); i += 4099) {
        uint32_t u = (uint32_t)i;
        uint16_t want;
        float v;
        _Float16 h;
        memcpy(&v, &u, 4);
        h = (_Float16)v;
        memcpy(&want, &h, 2);
        if (isnan(v))
            assert_true(isnan(f16_to_f32(f32_to_f16(v))));
        else
            assert_int_equal(f32_to_f16(v), want);
    }
}
#endif

/* The loops give what the single conversions give, from any alignment. */
static void test_arrays_convert_like_single_values(void **state)
{
    enum { N = 65536 };
    unsigned char *raw = malloc(2 * N + 1);
    float *v = malloc(N * sizeof *v);
    uint16_t *back = malloc(N * sizeof *back);
    struct tensor t8 = { .type = st_type("I8"), .data = raw };
    struct err e = {0};

    (void)state;
    assert_true(raw && v && back);
    for (uint32_t i = 0; i < N; i++)
        put_le(raw + 1 + 2 * i, i, 2);
    for (int t = DT_F16; t <= DT_BF16; t++) {
        float (*widen)(uint16_t) = t == DT_F16 ? f16_to_f32 : bf16_to_f32;
        uint16_t (*narrow)(float) = t == DT_F16 ? f32_to_f16 : f32_to_bf16;
        floats_widen((enum dtype)t, raw + 1, N, v);
        for (uint32_t i = 0; i < N; i++)
            assert_int_equal(bits(v[i]), bits(widen((uint16_t)i)));
        floats_narrow((enum dtype)t, v, N, back);
        for (uint32_t i = 0; i < N; i++)
            assert_int_equal(back[i], narrow(v[i]));
    }
    assert_int_equal(tensor_to_f32(&t8, 0, 1, v, &e), E_DATA);
    assert_non_null(strstr(e.msg, "I8"));
    free(raw);
    free(v);
    free(back);
}

static char *scratch(const char *name)
{
    static char path[128];

    snprintf(path, sizeof path, "/tmp/test_safetensors.%ld.%s", (long)getpid(), name);
    return path;
}

static void test_what_is_written_is_read(void **state)
{
    const char *path = scratch("rw");
    const struct st_decl d[] = {
        { "b\"\\q", &type_f32, 2, { 300, 1000 } }, { "none", &type_f32, 2, { 0, 5 } },
        { "c", &type_bf16, 1, { 4 } }, { "a", &type_f16, 0, {0} }, { "i", st_type("I8"), 1, { 3 } },
    };
    float *v = malloc(300000 * sizeof *v), back[4];
    const struct tensor *t;
    struct st_writer *w;
    struct st_file *f;
    struct err e = {0};

    (void)state;
    assert_non_null(v);
    for (int i = 0; i < 300000; i++)
        v[i] = (float)i * 0.25f;
    assert_int_equal(st_create(&w, path, d, 5, &e), 0);
    assert_false(path_exists(path));
    assert_int_equal(st_write_f32(w, v, 100, &e), 0); /* in pieces */
    assert_int_equal(st_write_raw(w, v + 100, 299900 * sizeof *v, &e), 0);
    assert_int_equal(st_write_f32(w, v + 1, 4, &e), 0);
    assert_int_equal(st_write_f32(w, v + 2, 1, &e), 0);
    assert_int_equal(st_write_f32(w, v, 3, &e), E_DATA); /* not of that type */
    assert_int_equal(st_write_raw(w, "xyz", 3, &e), 0);
    assert_int_equal(st_write_raw(w, "x", 1, &e), E_BUG);
    assert_int_equal(st_finish(w, &e), 0);
    assert_int_equal(st_open(&f, path, &e), 0);
    assert_int_equal(st_count(f), 5);
    assert_string_equal(st_metadata(f, "format"), "pt");
    t = st_find(f, "b\"\\q");
    assert_int_equal((uintptr_t)t->data % 4096, 0);
    assert_memory_equal(t->data, v, 300000 * sizeof *v);
    t = st_find(f, "c");
    assert_int_equal(tensor_to_f32(t, 0, 4, back, &e), 0);
    assert_string_equal(t->file, path);
    assert_memory_equal(back, v + 1, 16);
    st_close(f);
    unlink(path);
    free(v);
}

static void test_an_unfinished_file_does_not_appear(void **state)
{
    const char *path = scratch("part");
    const struct st_decl d[] = { { "a", &type_f32, 1, { 2 } }, { "a", &type_f32, 1, { 2 } },
                                 { "h", &type_f16, 1, { 1 } }, { "o", st_type("F4"), 1, { 1 } } };
    const float v[2] = { 1, 2 };
    struct st_writer *w;
    struct err e = {0};

    (void)state;
    assert_int_equal(st_create(&w, path, d, 1, &e), 0);
    assert_int_equal(st_write_f32(w, v, 1, &e), 0);
    assert_int_equal(st_finish(w, &e), E_BUG);
    assert_int_equal(st_create(&w, path, d, 1, &e), 0);
    st_abandon(w);
    assert_int_equal(st_create(&w, path, d, 2, &e), E_BUG); /* twice */
    assert_int_equal(st_create(&w, path, d + 2, 2, &e), E_BUG); /* no such type */
    assert_int_equal(st_create(&w, path, (struct st_decl[]){ d[2], d[0] }, 2, &e), E_BUG);
    assert_non_null(strstr(e.msg, "would start at byte 2"));
    assert_int_equal(st_create(&w, "/nowhere/at/all", d, 1, &e), E_CREATE);
    assert_false(path_exists(path));
    assert_false(path_exists(path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_broken_rule_is_named),
        cmocka_unit_test(test_lengths_are_held_against_the_file),
        cmocka_unit_test(test_odd_but_right_files_are_read),
        cmocka_unit_test(test_a_hundred_thousand_tensors),
        cmocka_unit_test(test_all_halves_widen_and_come_back),
        cmocka_unit_test(test_rounding_at_every_boundary),
#if defined(__FLT16_MAX__) && !defined(__clang__)
        cmocka_unit_test(test_float16_as_the_compiler_rounds),
#endif
        cmocka_unit_test(test_arrays_convert_like_single_values),
        cmocka_unit_test(test_what_is_written_is_read),
        cmocka_unit_test(test_an_unfinished_file_does_not_appear),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
