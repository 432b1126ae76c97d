/* tests/test_pickle.c - files of torch.save: those that attack are refused, and nothing of them runs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/file.h"
#include "formats/weights/pickle.h"
#include "formats/weights/pt_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEED "tests/fuzz/seeds/pickle/two.bin"

/* A pickle of a few bytes, with a name for what is wrong with it. \x80\x02 is protocol 2. */
#define TEXT(n, s) "X" n "\0\0\0" s
#define STORAGE "(" TEXT("\7", "storage") "ctorch\nFloatStorage\n" TEXT("\1", "0") TEXT("\3", "cpu") "K\4tQ"
#define REBUILD "ctorch._utils\n_rebuild_tensor_v2\n"
#define DICT(value) "\x80\2}" TEXT("\1", "w") value "s."
#define TENSOR(offset, shape, stride) DICT(REBUILD "(" STORAGE offset shape stride "\x89" \
                                           "ccollections\nOrderedDict\n)RtR")
static const struct { const char *bytes; size_t n; const char *why; } attacks[] = {
#define CASE(bytes, why) { bytes, sizeof (bytes) - 1, why }
    CASE("", "cut short"), CASE(".", "not a dict"), CASE("\x80\2N.", "not a dict"),
    CASE("\x80\2}", "cut short"), CASE("\x80\11}.", "protocol"), CASE("\x80\2}}.", "not a dict"),
    CASE("cos\nsystem\n" TEXT("\4", "true") "\x85R.", "'os.system'"),
    CASE("cposix\nsystem\n.", "'posix.system'"), CASE("c__builtin__\neval\n.", "eval"),
    CASE("cbuiltins\nexec\n.", "exec"), CASE("cbuiltins\ngetattr\n.", "getattr"),
    CASE("ctorch\nload\n.", "'torch.load'"), CASE("ctorch.storage\n_load_from_bytes\n.", "_load_from_"),
    CASE("ctorch.hub\nload\n.", "only tensors"), CASE("ctorch._utils\n_rebuild_tensor_v2 \n.", "only"),
    CASE("\x8c\2os\x8c\6system\x93.", "'os.system'"), CASE("K\1K\2\x93.", "not a text"),
    CASE("ios\nsystem\n(.", "opcode 0x69"), CASE("(os.", "opcode 0x6f"), CASE("\x81.", "opcode 0x81"),
    CASE("\x92.", "opcode 0x92"), CASE("\x82\1.", "opcode 0x82"), CASE("P1\n.", "opcode 0x50"),
    CASE("S'x'\n.", "opcode 0x53"), CASE("\x8b\1\0\0\0\1.", "opcode 0x8b"),
    CASE("h\0.", "what is not there"), CASE("j\xff\xff\xff\xff.", "what is not there"),
    CASE("Nr\xff\xff\xff\xff.", "larger than the pickle"), CASE("q\0.", "stack is empty"),
    CASE("t.", "no mark"), CASE("(u.", "no list or dict"), CASE("}(K\1u.", "no list or dict"),
    CASE("Na.", "no list or dict"), CASE("a.", "stack is empty"), CASE("}Na.", "no list or dict"), CASE("]Nb.", "no OrderedDict"),
    CASE("NNb.", "no OrderedDict"), CASE("NNR.", "no function"), CASE("N)R.", "no function"),
    CASE("ccollections\nOrderedDict\n(N\x85tR.", "something in it"), CASE("NQ.", "a storage is not"),
    CASE("(" TEXT("\6", "module") "NNNNtQ.", "a storage is not"),
    CASE("X\xff\xff\xff\x7f" "abc", "cut short"), CASE("\x8d\xff\xff\xff\xff\xff\xff\xff\xffx", "cut short"),
    CASE("\x8a\x9\1\1\1\1\1\1\1\1\1.", "64 bits"), CASE("(N(Nd.", "without a value"),
    CASE(DICT(REBUILD "(NtR"), "a tensor is not made"), CASE(DICT(REBUILD ")R"), "a tensor is not made"),
    CASE(DICT("ctorch._utils\n_rebuild_parameter\n(K\1tR"), "a Parameter is not"),
    CASE(TENSOR("K\0", "K\5\x85", "K\1\x85"), "'w' lies outside its storage"),
    CASE(TENSOR("K\1", "K\4\x85", "K\1\x85"), "'w' lies outside its storage"),
    CASE(TENSOR("J\xff\xff\xff\xff", "K\4\x85", "K\1\x85"), "'w' lies outside its storage"),
    CASE(TENSOR("K\0", "K\2K\2\x86", "K\1K\2\x86"), "'w' is a view across rows"),
    CASE(TENSOR("K\0", "K\7K\2\x86", "K\0K\1\x86"), "'w' is a view across rows"), /* expanded */
    CASE(TENSOR("K\0", "J\xff\xff\xff\xff\x85", "K\1\x85"), "'w' has a shape"),
    CASE(TENSOR("K\0", "N\x85", "K\1\x85"), "'w' has a shape"),
    CASE(TENSOR("K\0", "K\4\x85", ")"), "'w' has too many dimensions"),
    CASE(TENSOR("K\0", "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t", "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t"), "too many dim"),
    CASE(TENSOR("K\0", "\x8a\x8\0\0\0\0\0\0\0\x40K\4\x86", "K\4K\1\x86"), "'w' is too large"),
    CASE("\x80\2}" "K\1" REBUILD "(" STORAGE "K\0K\4\x85K\1\x85tRs.", "the name of a tensor"),
};

static void test_a_pickle_that_attacks(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof attacks / sizeof *attacks; i++) {
        struct err e = { 0 };
        struct pickle p;
        char *copy = malloc(attacks[i].n + 1); /* of just so many bytes */

        memcpy(copy, attacks[i].bytes, attacks[i].n);
        if (pickle_read(&p, copy, attacks[i].n, "f", &e) != E_DATA || !strstr(e.msg, attacks[i].why))
            fail_msg("%zu: '%s', expected '%s'", i, e.msg, attacks[i].why);
        free(copy);
    }
}

static void test_a_tensor_and_what_is_beside_it(void **state)
{
    static const char bytes[] = "\x80\2}(" TEXT("\1", "n") "K\7" TEXT("\1", "w") REBUILD "(" STORAGE
        "K\1K\3\x85K\1\x85tR" TEXT("\1", "l") "]Na" TEXT("\1", "f") "G\0\0\0\0\0\0\0\0u.";
    struct err e = { 0 };
    struct pickle p;

    (void)state;
    assert_int_equal(pickle_read(&p, bytes, sizeof bytes - 1, "f", &e), 0);
    assert_int_equal(p.n, 1);
    assert_memory_equal(p.at[0].name, "w", 1);
    assert_true(p.at[0].type == &type_f32 && p.at[0].stored == 4 && p.at[0].offset == 1);
    assert_true(p.at[0].dims == 1 && p.at[0].shape[0] == 3 && p.at[0].count == 3);
    pickle_free(&p);
}

/* Deep in itself, and doubled each time: no recursion, no more memory than bytes. */
static void test_a_pickle_bomb(void **state)
{
    enum { N = 100000 };
    char *bytes = malloc(N + 8), *to = bytes;
    struct err e = { 0 };
    struct pickle p;

    (void)state;
    for (*to++ = ')'; to < bytes + N;) {
        memcpy(to, "q\0h\0\x86", 5); /* t = (t, t) */
        to += 5;
    }
    *to++ = '.';
    assert_int_equal(pickle_read(&p, bytes, (size_t)(to - bytes), "f", &e), E_DATA);
    free(bytes);
}

/* ---- the archive ---- */

static unsigned char *seed(size_t *n)
{
    struct err e = { 0 };
    char *p;

    if (file_read(SEED, 1 << 20, &p, n, &e) < 0)
        fail_msg("%s", e.msg);
    return (unsigned char *)p;
}

static int parse(const unsigned char *p, size_t n, struct err *e)
{
    unsigned char *copy = malloc(n + 1);
    struct pt_file *f;
    int rc;

    memcpy(copy, p, n);
    rc = pt_parse(&f, copy, n, "f", e);
    if (rc == 0) {
        volatile unsigned sum = 0;
        for (int64_t i = 0; i < pt_count(f); i++)
            for (size_t k = 0; k < pt_at(f, i)->nbytes; k++)
                sum += ((const unsigned char *)pt_at(f, i)->data)[k];
        pt_close(f);
    }
    free(copy);
    return rc;
}

static void test_a_file_of_torch(void **state)
{
    struct pt_file *f;
    const struct tensor *a, *b;
    struct err e = { 0 };
    float v;

    (void)state;
    if (pt_open(&f, SEED, &e) < 0)
        fail_msg("%s", e.msg);
    assert_int_equal(pt_count(f), 2);
    assert_non_null(a = pt_find(f, "a"));
    assert_non_null(b = pt_find(f, "b"));
    assert_true(a->type == &type_f32 && a->dims == 2 && a->shape[0] == 2 && a->shape[1] == 2);
    assert_true(tensor_to_f32(a, 3, 1, &v, &e) == 0 && v == 3);
    assert_true(b->type == &type_bf16 && b->count == 3);
    assert_true(tensor_to_f32(b, 2, 1, &v, &e) == 0 && v == 1);
    assert_null(pt_find(f, "c"));
    pt_close(f);
}

static void test_every_cut_and_every_bit(void **state)
{
    size_t n;
    unsigned char *p = seed(&n);

    (void)state;
    for (size_t i = 0; i < n; i++) {
        struct err e = { 0 };
        if (parse(p, i, &e) != E_DATA)
            fail_msg("cut to %zu bytes: '%s'", i, e.msg);
    }
    for (size_t i = 0; i < n * 8; i++) {
        struct err e = { 0 };
        p[i / 8] ^= (unsigned char)(1 << i % 8);
        parse(p, n, &e);
        p[i / 8] ^= (unsigned char)(1 << i % 8);
    }
    free(p);
}

/* The place of the n-th record that begins with PK and these two bytes. */
static size_t find(const unsigned char *p, size_t n, const char *two, int which)
{
    for (size_t i = 0; i + 4 <= n; i++)
        if (p[i] == 'P' && p[i + 1] == 'K' && memcmp(p + i + 2, two, 2) == 0 && which-- == 0)
            return i;
    fail_msg("no record");
    return 0;
}

/* Entry 2 of the directory, a member's own header, or the end: a field becomes another value. */
static const struct { const char *record; int which, at, bytes; uint64_t v; const char *why; } spoilt[] = {
    { "\1\2", 2, 10, 2, 8, "compressed" }, { "\1\2", 2, 8, 2, 1, "encrypted" },
    { "\1\2", 2, 24, 4, 0x7FFFFFFF, "compressed" }, { "\1\2", 2, 42, 4, 0, "do not agree" },
    { "\1\2", 2, 42, 4, 0xFFFFFFFE, "not where its entry says" }, { "\1\2", 1, 46, 1, 'X', "not agree" },
    { "\1\2", 2, 28, 2, 0xFFFF, "cut short" }, { "\1\2", 2, 42, 4, 0xFFFFFFFF, "where its entry" },
    { "\3\4", 2, 28, 2, 0xFFFF, "do not agree" }, { "\1\2", 0, 0, 1, 'X', "directory is damaged" },
    { "\6\6", 0, 48, 8, 0x7FFFFFFF, "outside the file" }, { "\6\6", 0, 40, 8, UINT64_MAX, "outside" },
    { "\6\6", 0, 32, 8, 60000, "too short" }, { "\6\6", 0, 32, 8, 0, "no data.pkl" },
    { "\6\6", 0, 32, 8, UINT64_MAX, "too short" }, { "\6\6", 0, 0, 1, 'X', "64-bit end record" },
    { "\6\7", 0, 8, 8, UINT64_MAX - 8, "64-bit end record" },
    { "\5\6", 0, 2, 1, 0, "no end record" }, { "\3\4", 0, 0, 1, 'X', "no zip archive" },
};

static void test_each_spoilt_field_of_the_archive(void **state)
{
    size_t n;
    unsigned char *p = seed(&n), *was = malloc(n);

    (void)state;
    memcpy(was, p, n);
    for (size_t i = 0; i < sizeof spoilt / sizeof *spoilt; i++) {
        struct err e = { 0 };
        memcpy(p, was, n);
        put_le(p + find(p, n, spoilt[i].record, spoilt[i].which) + spoilt[i].at, spoilt[i].v,
               spoilt[i].bytes);
        if (parse(p, n, &e) != E_DATA || !strstr(e.msg, spoilt[i].why))
            fail_msg("%zu: '%s', expected '%s'", i, e.msg, spoilt[i].why);
    }
    free(was);
    free(p);
}

/* Two entries for one place, as in a bomb; and values in the other order. */
static void test_members_that_lie_on_each_other(void **state)
{
    size_t n, a, b, size;
    unsigned char *p = seed(&n), *little;
    struct err e = { 0 };

    (void)state;
    a = find(p, n, "\1\2", 0), b = find(p, n, "\1\2", 1);
    size = b - a;
    /* the first entry stands in the second's place too, where it fits */
    if (get_le(p + a + 28, 2) <= get_le(p + b + 28, 2)) {
        memmove(p + b, p + a, size < n - b ? size : n - b);
        assert_int_equal(parse(p, n, &e), E_DATA);
    }
    free(p);
    p = seed(&n);
    for (little = p; memcmp(little, "little", 6) != 0; little++)
        ;
    memcpy(little, "biggie", 6);
    assert_int_equal(parse(p, n, &e), E_DATA);
    assert_non_null(strstr(e.msg, "little-endian"));
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_pickle_that_attacks),
        cmocka_unit_test(test_a_tensor_and_what_is_beside_it),
        cmocka_unit_test(test_a_pickle_bomb),
        cmocka_unit_test(test_a_file_of_torch),
        cmocka_unit_test(test_every_cut_and_every_bit),
        cmocka_unit_test(test_each_spoilt_field_of_the_archive),
        cmocka_unit_test(test_members_that_lie_on_each_other),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
