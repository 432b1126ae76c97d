/* tests/test_shuffle.c - documents set aside: an order of their own, in any memory, and files that
 * are gone on with. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "prep/shuffle.h"
#include "tests/docs.h"

enum { DOCS = 300, MAX_IDS = 50 };
#define VOCAB 1000u

static struct made made;
static struct token_info info;
static char dir[] = "/tmp/test_shuffle.XXXXXX", docs_path[64], index_path[64];

static void add(struct shuffle *s, int64_t i)
{
    struct err e = {0};

    make_doc(&made, i, 1, VOCAB, MAX_IDS);
    assert_int_equal(shuffle_add(s, &made.doc, &info, &e), 0);
}

/* The hashes of the texts in the order they are read in. */
static void read_all(struct shuffle *s, bool shuffled, int64_t seed, int64_t range, uint64_t *out)
{
    struct token_doc d;
    struct err e = {0};
    int64_t n = 0;

    shuffle_order(s, shuffled, seed, range);
    while (shuffle_next(s, &info, &d, &e) == 1)
        out[n++] = d.text_hash;
    assert_int_equal(e.code, 0);
    assert_int_equal(n, shuffle_docs(s));
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static void test_an_order_of_their_own(void **state)
{
    static const int64_t ranges[] = { 0, 1, 7, 100, 299, 1000 };
    uint64_t came[DOCS], want[DOCS], got[DOCS];
    struct shuffle *s, *backwards;
    struct err e = {0};
    int moved = 0;

    (void)state;
    assert_int_equal(shuffle_open(&s, NULL, &e), 0);
    assert_int_equal(shuffle_open(&backwards, NULL, &e), 0);
    for (int i = 0; i < DOCS; i++) {
        add(s, i);
        add(backwards, DOCS - 1 - i);
    }
    read_all(s, false, 5, 0, came);
    read_all(s, true, 5, 0, want);
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        read_all(s, true, 5, ranges[i], got);
        assert_memory_equal(got, want, sizeof want);
        read_all(backwards, true, 5, ranges[i], got);
        assert_memory_equal(got, want, sizeof want);
    }
    read_all(s, true, 6, 0, got); /* another seed, another order */
    assert_memory_not_equal(got, want, sizeof want);
    for (int i = 0; i < DOCS; i++)
        moved += came[i] != want[i];
    assert_in_range(moved, DOCS - 10, DOCS);
    qsort(came, DOCS, sizeof *came, by_value);
    qsort(got, DOCS, sizeof *got, by_value);
    assert_memory_equal(came, got, sizeof got); /* each once */
    shuffle_close(s);
    shuffle_close(backwards);
}

/* What was added after the documents that are kept is gone, and others take its place. */
static void test_files_are_gone_on_with(void **state)
{
    uint64_t want[DOCS], got[DOCS];
    struct shuffle *s;
    struct err e = {0};

    (void)state;
    assert_int_equal(shuffle_open(&s, dir, &e), 0);
    for (int i = 0; i < DOCS; i++)
        add(s, i);
    read_all(s, true, 0, 0, want);
    shuffle_close(s);
    assert_int_equal(shuffle_open_at(&s, docs_path, index_path, 0, &e), 0);
    for (int i = 0; i < DOCS / 2; i++)
        add(s, i);
    assert_int_equal(shuffle_sync(s, &e), 0);
    for (int i = 0; i < 40; i++)
        add(s, 1000 + i);
    assert_int_equal(shuffle_sync(s, &e), 0);
    shuffle_close(s);
    assert_int_equal(shuffle_open_at(&s, docs_path, index_path, DOCS / 2 + 41, &e), E_DATA);
    assert_int_equal(shuffle_open_at(&s, docs_path, index_path, INT64_MAX, &e), E_DATA);
    assert_int_equal(shuffle_open_at(&s, docs_path, index_path, DOCS / 2, &e), 0);
    assert_int_equal(shuffle_docs(s), DOCS / 2);
    for (int i = DOCS / 2; i < DOCS; i++)
        add(s, i);
    read_all(s, true, 0, 0, got);
    assert_memory_equal(got, want, sizeof want);
    shuffle_close(s);
    assert_int_equal(truncate(docs_path, 100), 0);
    assert_int_equal(shuffle_open_at(&s, docs_path, index_path, DOCS / 2, &e), E_DATA);
    unlink(docs_path);
    unlink(index_path);
}

static int set_up(void **state)
{
    (void)state;
    info = made_info(VOCAB);
    if (!mkdtemp(dir))
        return -1;
    snprintf(docs_path, sizeof docs_path, "%s/docs", dir);
    snprintf(index_path, sizeof index_path, "%s/index", dir);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_order_of_their_own),
        cmocka_unit_test(test_files_are_gone_on_with),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
