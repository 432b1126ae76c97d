/* tests/test_words.c - lists of words, pairs of them in order, and where sentences end. */
#include "base/file.h"
#include "probes/sentences.h"
#include "probes/word_lists.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static char folder[] = "/tmp/test_words_XXXXXX";

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL;
}

static void write_list(const char *name, const char *text)
{
    char path[256];
    struct err e = { 0 };

    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (text)
        assert_int_equal(file_replace(path, text, strlen(text), &e), 0);
    else
        unlink(path);
}

static int tear_down(void **state)
{
    (void)state;
    write_list("nounlist.txt", NULL);
    write_list("adjectivelist.txt", NULL);
    write_list("verblist.txt", NULL);
    write_list("english_words.json", NULL);
    return rmdir(folder);
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Every pair, made and sorted, is what word_pairs says it is. */
static void check_pairs(const struct word_lists *w)
{
    const int64_t all = w->nouns.n * w->adjectives.n;
    char **pair = calloc((size_t)all, sizeof *pair);
    struct word_pairs *p;
    struct buf b = { 0 };
    struct err e = { 0 };
    int64_t n = 0;

    assert_non_null(pair);
    for (int64_t i = 0; i < all; i++)
        assert_true(asprintf(&pair[i], "%s-%s", w->adjectives.word[i / w->nouns.n],
                             w->nouns.word[i % w->nouns.n]) > 0);
    qsort(pair, (size_t)all, sizeof *pair, by_bytes);
    assert_int_equal(word_pairs_open(&p, w, &e), 0);
    for (int64_t i = 0; i < all; i++) {
        if (i > 0 && strcmp(pair[i], pair[i - 1]) == 0)
            continue;
        assert_true(n < word_pairs_count(p));
        b.len = 0;
        assert_int_equal(word_pairs_add(p, n++, &b, &e), 0);
        assert_int_equal(buf_add(&b, "", 1, &e), 0);
        assert_string_equal(b.p, pair[i]);
    }
    assert_int_equal(word_pairs_count(p), n);
    word_pairs_close(p);
    buf_free(&b);
    for (int64_t i = 0; i < all; i++)
        free(pair[i]);
    free(pair);
}

static void test_pairs_are_in_order(void **state)
{
    struct word_lists w;
    struct err e = { 0 };

    (void)state;
    check_pairs(&own_words);
    write_list("nounlist.txt", "zoo\neyed-cat\ncat\nant hill\r\ncat\nend\xc3\xa9\n");
    write_list("adjectivelist.txt", "blue-eyed\nblue\nad hoc\nad\na\nblue-ey\nblue\nblue-eyed-\nz\xc3\xa9\nbl");
    write_list("verblist.txt", "go\n");
    write_list("english_words.json", NULL);
    assert_int_equal(word_lists_read(&w, folder, &e), 0);
    assert_int_equal(w.nouns.n, 6);
    assert_int_equal(w.adjectives.n, 10);
    assert_string_equal(w.nouns.word[3], "ant hill");
    assert_int_equal(w.more.n, 0);
    check_pairs(&w);
    word_lists_free(&w);
}

static void test_all_words_once(void **state)
{
    const char **all;
    struct err e = { 0 };
    int64_t n;

    (void)state;
    assert_int_equal(word_lists_all(&own_words, &all, &n, &e), 0);
    assert_int_equal(n, own_words.nouns.n + own_words.adjectives.n + own_words.verbs.n);
    for (int64_t i = 1; i < n; i++)
        assert_true(strcmp(all[i - 1], all[i]) < 0);
    free(all);
}

static void refused(int code, const char *message)
{
    struct word_lists w;
    struct err e = { 0 };

    assert_int_equal(word_lists_read(&w, folder, &e), code);
    if (!strstr(e.msg, message))
        fail_msg("'%s'", e.msg);
    assert_null(w.owned);
}

static void test_lists_that_are_none(void **state)
{
    struct word_lists w;
    struct err e = { 0 };

    (void)state;
    write_list("nounlist.txt", "cat\ndog\n");
    write_list("adjectivelist.txt", "big\n");
    write_list("verblist.txt", NULL);
    refused(E_NOINPUT, "verblist.txt");
    write_list("verblist.txt", "go\n\nrun\n");
    refused(E_DATA, "no word in line 2");
    write_list("verblist.txt", "");
    refused(E_DATA, "no word in line 1");
    write_list("verblist.txt", "go\n\xff\n");
    refused(E_DATA, "UTF-8");
    write_list("verblist.txt", "go\n");
    write_list("english_words.json", "{\"0\": \"one\", \"1\": 2}");
    refused(E_DATA, "'1' is no word");
    write_list("english_words.json", "[]");
    refused(E_DATA, "english_words.json");
    write_list("english_words.json", "{\"9\": \"one\", \"1\": \"two\"}");
    assert_int_equal(word_lists_read(&w, folder, &e), 0);
    assert_int_equal(w.more.n, 2);
    assert_string_equal(w.more.word[0], "one"); /* in the order of the file */
    word_lists_free(&w);
}

/* Sentences between bars, as nltk 3.10 finds them: its untrained Punkt, and where that is different what
 * the lists add. */
static const struct {
    const char *text, *plain, *english;
} cut[] = {
    { "", "", NULL },
    { "One", "One", NULL },
    { " One. Two", " One.|Two", NULL },
    { "One. two? three! Four", "One.|two?|three!|Four", NULL },
    { "\"Is it?\" he said. \"Yes.\" So", "\"Is it?\"|he said.|\"Yes.\"|So", NULL },
    { "(He went.) She stayed.", "(He went.)|She stayed.", NULL },
    { "J. Doe met A. b. He", "J. Doe met A. b. He", "J. Doe met A. b.|He" },
    { "It has 3. of 4. The", "It has 3. of 4.|The", NULL },
    { "Well... No. well... no", "Well... No.|well... no", "Well...|No.|well... no" },
    { "Well... The end", "Well... The end", "Well...|The end" },
    { "Mr. Smith and Mrs. Lee, etc. The", "Mr.|Smith and Mrs.|Lee, etc.|The",
      "Mr. Smith and Mrs. Lee, etc.|The" },
    { "At 3 p.m. he left. At 3 p.m. The", "At 3 p.m.|he left.|At 3 p.m.|The",
      "At 3 p.m. he left.|At 3 p.m.|The" },
    { "What?! No!!! I", "What?!|No!!!|I", NULL },
    { "an.\n\nbe.\tC  ", "an.|be.|C", NULL },
    { "he said.\u201d \u00abOui.\u00bb Non", "he said.\u201d|\u00abOui.\u00bb|Non", NULL },
    { "end.\u3000Next.\u00a0Last", "end.\u3000Next.|Last", NULL },
    { "no.stop here v1.2.3 www.x.org ok", "no.stop here v1.2.3 www.x.org ok", NULL },
};

static void check_cut(enum sentence_ends ends, const char *text, const char *want)
{
    struct sentences s = { 0 };
    struct buf b = { 0 };
    struct err e = { 0 };

    assert_int_equal(sentences_cut(&s, ends, text, strlen(text), &e), 0);
    for (int64_t i = 0; i < s.n; i++)
        assert_int_equal(buf_printf(&b, &e, "%s%.*s", i ? "|" : "", (int)(s.at[i].to - s.at[i].from),
                                    text + s.at[i].from), 0);
    assert_string_equal(b.p ? b.p : "", want);
    buf_free(&b);
    sentences_free(&s);
}

static void test_where_sentences_end(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cut / sizeof *cut; i++) {
        check_cut(SENTENCES_PLAIN, cut[i].text, cut[i].plain);
        check_cut(SENTENCES_ENGLISH, cut[i].text, cut[i].english ? cut[i].english : cut[i].plain);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pairs_are_in_order),
        cmocka_unit_test(test_all_words_once),
        cmocka_unit_test(test_lists_that_are_none),
        cmocka_unit_test(test_where_sentences_end),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
