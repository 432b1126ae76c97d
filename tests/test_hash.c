/* tests/test_hash.c - hashes in blocks, JSON that holds its own, messages and paths that are cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/block_hash.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/plot.h"
#include "base/sealed.h"
#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct err e;

/* By the definition alone, with the library's plain functions. */
static uint64_t plainly(const char *p, size_t n)
{
    unsigned char sums[8 * 16];
    size_t k = 0;

    for (size_t at = 0; at < n; at += 1 << 17, k++)
        put_le(sums + 8 * k, XXH3_64bits(p + at, n - at < 1 << 17 ? n - at : 1 << 17), 8);
    return XXH3_64bits(sums, 8 * k);
}

static void test_any_pieces_give_one_hash(void **state)
{
    static const size_t sizes[] = { 0, 1, 1000, HASH_BLOCK - 1, HASH_BLOCK, HASH_BLOCK + 1,
                                    3 * HASH_BLOCK, 5 * HASH_BLOCK + 77 };
    struct block_hasher *h = block_hasher_new();
    char *p = malloc(6 * HASH_BLOCK);
    unsigned char sums[8 * 16];

    (void)state;
    assert_non_null(h);
    assert_non_null(p);
    for (size_t i = 0; i < 6 * HASH_BLOCK; i++)
        p[i] = (char)(i * 31 >> 3);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t n = sizes[i], step = 7;
        uint64_t want = plainly(p, n);

        assert_true(block_hash(p, n) == want);
        for (size_t b = hash_blocks(n); b-- > 0;)
            sum_block(sums, p, n, b);
        assert_true(block_hash_of(sums, n) == want);
        for (size_t at = 0, k; at < n; at += k, step = step * 3 % 300007) {
            k = step < n - at ? step : n - at;
            block_hasher_add(h, p + at, k);
        }
        assert_true(block_hasher_end(h) == want);
    }
    block_hasher_free(h);
    free(p);
}

/* Every bit of it; and without its two lines it is the same object. */
static void test_a_seal_holds_every_bit(void **state)
{
    json_t *o = json_pack("{ss s{ss} sf}", "a", "\"xxh3_128\": \"x", "b", "xxh3_128", "no", "c", 0.1), *back;
    char *text = sealed_text(o), *plain = js_text(o), *rest;
    size_t n = strlen(text);

    (void)state;
    assert_int_equal(sealed_check(text, n, "t", &e), 0);
    assert_int_equal(sealed_check(plain, strlen(plain), "t", &e), 0);
    for (size_t bit = 0; bit < 8 * n; bit++) {
        text[bit / 8] = (char)(text[bit / 8] ^ 1 << bit % 8);
        back = sealed_check(text, n, "t", &e) < 0 ? NULL : json_loadb(text, n, 0, NULL);
        if (back)
            fail_msg("bit %zu is not found", bit);
        text[bit / 8] = (char)(text[bit / 8] ^ 1 << bit % 8);
    }
    rest = strchr(strchr(strchr(text, '\n') + 1, '\n') + 1, '\n');
    assert_string_equal(rest, plain + 1);
    json_decref(o);
    free(text);
    free(plain);
}

/* A name of three bytes a character, cut at each of them. */
static void test_messages_end_in_whole_characters(void **state)
{
    char name[2000];

    (void)state;
    for (size_t i = 0; i + 3 < sizeof name; i += 3)
        memcpy(name + i, "\u20ac", 4);
    for (int k = 0; k < 3; k++) {
        err_set(&e, E_DATA, "%.*s%s", k, "xx", name);
        assert_true(strlen(e.msg) > sizeof e.msg - 4);
        assert_true(utf8_valid(e.msg, strlen(e.msg), NULL));
        err_within(&e, "%.*s", k + 1, "yyy");
        assert_true(utf8_valid(e.msg, strlen(e.msg), NULL));
        err_set(&e, E_DATA, "x");
        err_hint(&e, "%.*s%s", k, "xx", name);
        assert_true(utf8_valid(e.msg, strlen(e.msg), NULL));
    }
}

/* An empty entry of PATH is the folder that one is in, and not the root. */
static void test_an_empty_entry_of_path(void **state)
{
    char dir[] = "/tmp/test_hash-XXXXXX", was[4096], *path = strdup(getenv("PATH"));
    char *program;

    (void)state;
    assert_non_null(mkdtemp(dir));
    program = path_join(dir, "gnuplot");
    assert_int_equal(file_replace(program, "x", 1, &e), 0);
    assert_int_equal(chmod(program, 0755), 0);
    assert_non_null(getcwd(was, sizeof was));
    setenv("PATH", ":/nowhere", 1);
    assert_int_equal(plot_check(&e), E_SYS);
    assert_int_equal(chdir(dir), 0);
    assert_int_equal(plot_check(&e), 0);
    assert_int_equal(chdir(was), 0);
    setenv("PATH", path, 1);
    dir_remove(dir, &e);
    free(program);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_pieces_give_one_hash),
        cmocka_unit_test(test_a_seal_holds_every_bit),
        cmocka_unit_test(test_messages_end_in_whole_characters),
        cmocka_unit_test(test_an_empty_entry_of_path),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
