/* tests/test_hft.c - tokenizer.json and rank files: ids as tokenizers gives them, and hostile files. */
#include "base/file.h"
#include "base/jsonscan.h"
#include "formats/tokenizer/chat.h"
#include "formats/tokenizer/hft.h"
#include "formats/tokenizer/tokenizer.h"
#include "formats/tokenizer/unicode.h"
#include "formats/tokenizer/words.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define GOLDEN "tests/data/hft/golden.jsonl"

static char *golden;
static size_t n_golden;

static int read_golden(void **state)
{
    struct err e = { 0 };

    (void)state;
    return file_read(GOLDEN, 1 << 24, &golden, &n_golden, &e);
}

static int free_golden(void **state)
{
    (void)state;
    free(golden);
    return 0;
}

/* The member of that name of an object. */
static struct json_value member(const char *p, size_t n, const char *name)
{
    struct json_object o = json_scan(p, n);
    struct json_value k, v;
    struct err e = { 0 };

    while (json_next(&o, &k, &v, &e) == 1)
        if (json_is(&k, name))
            return v;
    fail_msg("no '%s'", name);
    return v;
}

static struct json_object list(const struct json_value *v)
{
    assert_int_equal(v->type, JK_ARRAY);
    return json_scan(v->p, v->n);
}

/* One text of one tokenizer: its ids, and what they decode to. */
static void check_text(const char *name, const struct hft *t, struct spm_cache *c,
                       const struct buf *text, const struct json_value *ids,
                       const struct json_value *back)
{
    struct spm_ids got = { 0 };
    struct buf out = { 0 }, want = { 0 };
    struct json_object scan = list(ids);
    struct json_value v;
    struct err e = { 0 };
    int64_t n = 0;
    char *copy = malloc(text->len + !text->len); /* exactly so long: ASan sees one byte too many */

    if (text->len)
        memcpy(copy, text->p, text->len);
    assert_int_equal(hft_encode(t, c, copy, text->len, &got, &e), 0);
    for (; json_next_element(&scan, &v, &e) == 1; n++)
        if (n >= got.len || got.p[n] != atoi(v.p))
            fail_msg("%s: id %d of '%.*s' is %d, must be %.*s", name, (int)n, (int)text->len, text->p,
                     n < got.len ? got.p[n] : -1, (int)v.n, v.p);
    assert_int_equal(n, got.len);
    /* The same when its words are remembered. */
    assert_int_equal(hft_encode(t, c, copy, text->len, &got, &e), 0);
    assert_int_equal(got.len, 2 * n);
    if (n)
        assert_memory_equal(got.p, got.p + n, (size_t)n * sizeof *got.p);
    got.len = n;
    assert_int_equal(hft_decode(t, got.p, got.len, &out, &e), 0);
    if (back->type == JK_STRING)
        assert_int_equal(json_text(back, false, &want, &e), 0);
    else if (text->len)
        assert_int_equal(buf_add(&want, text->p, text->len, &e), 0);
    if (want.len != out.len || (out.len && memcmp(want.p, out.p, out.len)))
        fail_msg("%s: '%.*s' decodes to '%.*s'", name, (int)text->len, text->p, (int)out.len, out.p);
    free(copy);
    spm_ids_free(&got);
    buf_free(&out);
    buf_free(&want);
}

/* The tokenizer of that name, or the k-th; NULL when there are no more. */
static struct hft *open_golden(const char *name, size_t k, const char **line, size_t *n, char *called)
{
    const char *p = memchr(golden, '\n', n_golden), *end = golden + n_golden;
    struct json_value v;
    struct hft *t;
    struct err e = { 0 };

    for (size_t i = 0; p && ++p < end; i++) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));

        *line = p;
        *n = (size_t)(stop - p);
        v = member(p, *n, "name");
        p = stop;
        if (name ? !json_is(&v, name) : i != k)
            continue;
        snprintf(called, 32, "%.*s", (int)v.n, v.p);
        v = member(*line, *n, "tokenizer");
        if (hft_parse(&t, v.p, v.n, called, &e) < 0)
            fail_msg("%s", e.msg);
        return t;
    }
    return NULL;
}

/* Words by bits, many at once, and one by one: made-up texts of what the patterns look at. */
static void test_words_many_at_once(void **state)
{
    static const char *const parts[] = {
        "'", "'s", "'S", "\u2019s", "'ll", "'LL", "'\u017f", "'re", "'Ve", "'d", "'t's", "''", " '", " s",
        " ", "  ", "    ", "\t", "\n", "\r\n", "\r", "\n\n", " \n", "\n ", "\n    ", "\n\t\t", "\n  \n  ",
        "\u00a0", "\u3000", "\u2028", "\xC2\x85", "\u200b", "\u2581", "1", "12", "123", "1234567", "\u00b2",
        "\u0661\u0662", "\u2167", "\u4e00", "\u3042", "a\u0301", "\u00e9", "\u00c9", "\u0301", "\u01c5",
        "\u02b0", "\U0001f600", "!", "..", "/", "//", ";\n//", ";\n/\n", ")\n\n", "-", "_", "(", "<|", "the",
        "The", "THE", " the", "camelCase", "ALLCaps", "x", "X", "don't", "don't's", "I'll've", "\u0416\u0438",
        "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmno", "a b c d e f g h i j k "
    };
    static const char *const names[] = { "GPT-2", "Llama 3", "Qwen 2", "o200k", "tekken" };
    struct err e = { 0 };
    uint32_t ends[256];
    uint64_t r = 1;

    (void)state;
    assert_int_equal(unicode_open(&e), 0);
    for (int round = 0; round < 600; round++) {
        struct buf b = { 0 };

        for (int k = 0; k < 120; k++) {
            r = r * 6364136223846793005u + 1442695040888963407u;
            const char *part = parts[(r >> 33) % (sizeof parts / sizeof *parts)];
            char c = (char)(32 + (r >> 20) % 95);

            assert_int_equal(r >> 61 ? buf_add(&b, part, strlen(part), &e) : buf_add(&b, &c, 1, &e), 0);
        }
        for (int k = 0; k <= 5; k++) {
            const struct words *w = k < 5 ? words_named(names[k]) : &words_gpt2_digits;
            char *p = malloc(b.len); /* exactly so long */
            size_t one = 0;

            memcpy(p, b.p, b.len);
            for (size_t at = 0, n; at < b.len; at = one) {
                n = words_ends(w, p, b.len, at, ends, WORDS_ROOM + (size_t)(round % 193));
                assert_in_range(n, 1, WORDS_ROOM + round % 193);
                for (size_t i = 0; i < n; i++)
                    if ((one = words_next(w, p, b.len, one)) != ends[i])
                        fail_msg("%s, round %d: a word ends at %zu, not %u", words_name(w), round, one,
                                 ends[i]);
            }
            free(p);
        }
        buf_free(&b);
    }
}

static void test_golden_ids(void **state)
{
    struct json_value texts = member(golden, (size_t)((char *)memchr(golden, '\n', n_golden) - golden),
                                     "texts");
    struct spm_cache *c;
    struct err e = { 0 };
    const char *line;
    size_t n, k = 0;
    char name[32];
    struct hft *t;

    (void)state;
    assert_int_equal(spm_cache_open(&c, &e), 0);
    for (; (t = open_golden(NULL, k, &line, &n, name)); k++) {
        struct json_value all = member(line, n, "ids"), backs = member(line, n, "back"), x, i, b;
        struct json_object ts = list(&texts), is = list(&all), bs = list(&backs);
        struct buf text = { 0 };

        while (json_next_element(&ts, &x, &e) == 1) {
            text.len = 0;
            assert_int_equal(json_text(&x, false, &text, &e), 0);
            assert_int_equal(json_next_element(&is, &i, &e), 1);
            assert_int_equal(json_next_element(&bs, &b, &e), 1);
            check_text(name, t, c, &text, &i, &b);
        }
        buf_free(&text);
        hft_free(t);
    }
    assert_int_equal(k, 23);
    spm_cache_close(c);
}

/* tiny.model and the tokenizer.json that is made of it are one tokenizer; others are not. */
static void test_one_meaning(void **state)
{
    char name[32], a[33], b[33];
    struct tokenizer *m;
    struct err e = { 0 };
    const char *line;
    size_t n;
    struct hft *t = open_golden("tiny", 0, &line, &n, name);

    (void)state;
    assert_int_equal(tokenizer_open(&m, "tests/data/tiny.model", &e), 0);
    assert_int_equal(hft_meaning(t, a, &e), 0);
    assert_true(tokenizer_made(m, a, ""));
    assert_int_equal(hft_bos(t), 1);
    assert_int_equal(hft_eos(t), 2);
    hft_free(t);
    t = open_golden("gpt2", 0, &line, &n, name);
    assert_int_equal(hft_meaning(t, b, &e), 0);
    assert_string_not_equal(a, b);
    assert_false(tokenizer_made(m, b, ""));
    hft_free(t);
    t = open_golden("smollm", 0, &line, &n, name); /* the same model, cut in another way */
    assert_int_equal(hft_meaning(t, a, &e), 0);
    assert_string_not_equal(a, b);
    hft_free(t);
    tokenizer_close(m);
}

#define HEAD "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,"
#define MODEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}}"

/* Special tokens are no part of what a tokenizer means, but for what they take of the text beside them. */
static void test_meaning_of_added_tokens(void **state)
{
    static const struct {
        const char *token;
        bool same;
    } cases[] = {
        { "{\"id\":3,\"content\":\"<x>\",\"special\":true}", true },
        { "{\"id\":3,\"content\":\"<x>\",\"special\":true,\"rstrip\":true}", false },
        { "{\"id\":3,\"content\":\"<x>\",\"special\":true,\"lstrip\":true}", false },
        { "{\"id\":3,\"content\":\"<x>\",\"special\":true,\"single_word\":true}", false },
        { "{\"id\":3,\"content\":\"<x>\"}", false },
    };
    char hex[5][33], json[512];
    struct err e = { 0 };
    struct hft *t;

    (void)state;
    for (int i = 0; i < 5; i++) {
        snprintf(json, sizeof json, HEAD "\"added_tokens\":[%s]," MODEL, cases[i].token);
        assert_int_equal(hft_parse(&t, json, strlen(json), "added", &e), 0);
        assert_int_equal(hft_meaning(t, hex[i], &e), 0);
        for (int k = 0; k < i; k++)
            assert_string_not_equal(hex[k], hex[i]);
        hft_free(t);
    }
    assert_int_equal(hft_parse(&t, HEAD MODEL, strlen(HEAD MODEL), "none", &e), 0);
    assert_int_equal(hft_meaning(t, json, &e), 0);
    for (int i = 0; i < 5; i++)
        assert_int_equal(strcmp(json, hex[i]) == 0, cases[i].same);
    hft_free(t);
}

static const struct {
    const char *json, *why;
} bad[] = {
    { "{", "at byte 1" },
    { "[]", "not an object" },
    { "{}", "'model' is missing" },
    { "{\"config\":{},\"vocab\":[],\"special_tokens\":[]}", "tokens without a model, as a tekken.json" },
    { HEAD "\"model\":[]}", "must be an object" },
    { HEAD "\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}", "'WordPiece' is not supported" },
    { HEAD "\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", "field 'model.vocab' is empty" },
    { HEAD "\"model\":{\"type\":\"Unigram\"}}", "field 'model.vocab' is missing" },
    { HEAD "\"model\":{\"type\":\"Unigram\",\"vocab\":{}}}", "must be an array" },
    { HEAD "\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0],[\"b\"]]}}", "'model.vocab[1]' is not a token" },
    { HEAD "\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0,0]]}}", "'model.vocab[0]' is not a token" },
    { HEAD "\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",-Infinity]]}}", "'model.vocab[0]' is not a token" },
    { HEAD "\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"\",0]]}}", "'model.vocab[0]' is not a token" },
    { HEAD "\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0],[\"a\",1]]}}", "is there twice" },
    { HEAD "\"model\":{\"type\":\"Unigram\",\"unk_id\":1,\"vocab\":[[\"a\",0]]}}", "'model.unk_id' must be 0 to 0" },
    { HEAD "\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]]}}",
      "Unigram behind ByteLevel" },
    { HEAD "\"model\":{\"type\":\"BPE\",\"merges\":[]}}", "'model.vocab' is missing" },
    { HEAD "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", "'model.merges' is missing" },
    { HEAD "\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", "'model.vocab' is empty" },
    { HEAD "\"model\":{\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", "two tokens have id 0" },
    { HEAD "\"model\":{\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}}", "there twice" },
    { HEAD "\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", "the id of token 0 must be" },
    { HEAD "\"model\":{\"vocab\":{\"a\":1.5},\"merges\":[]}}", "the id of token 0 must be" },
    { HEAD "\"model\":{\"vocab\":{\"a\":4000000000},\"merges\":[]}}", "the id of token 0 must be" },
    { HEAD "\"model\":{\"vocab\":{\"a\":4000000},\"merges\":[]}}", "ids up to 4000000 for 1" },
    { HEAD "\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}", "merges[0]': 'b' is no token" },
    { HEAD "\"model\":{\"vocab\":{\"a\":0,\"b\":1},\"merges\":[\"a b\"]}}", "'ab' is no token" },
    { HEAD "\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"aa\"]}}", "is not two tokens" },
    { HEAD "\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}", "is not two tokens" },
    { HEAD "\"model\":{\"vocab\":{\"a\":0},\"merges\":[3]}}", "is not two tokens" },
    { HEAD "\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.1}}", "'model.dropout'" },
    { HEAD "\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"unk_token\":\"u\"}}", "'u' is no token" },
    { HEAD "\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"end_of_word_suffix\":\"x\"}}",
      "end_of_word_suffix' is not supported" },
    { HEAD "\"normalizer\":{\"type\":\"Nmt\"}," MODEL, "'normalizer.type': 'Nmt' is not" },
    { HEAD "\"normalizer\":{\"x\":1}," MODEL, "has no type" },
    { HEAD "\"pre_tokenizer\":{\"type\":\"NFC\"}," MODEL, "'pre_tokenizer.type': 'NFC' is not" },
    { HEAD "\"pre_tokenizer\":{\"type\":\"Sequence\"}," MODEL, "'pretokenizers'" },
    { HEAD "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},"
           "\"behavior\":\"Isolated\"}," MODEL, "cannot be compiled" },
    { HEAD "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\p{Klingon}\"},"
           "\"behavior\":\"Isolated\"}," MODEL, "at byte 2 of the pattern: this property" },
    { HEAD "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},"
           "\"behavior\":\"Sideways\"}," MODEL, "'behavior'" },
    { HEAD "\"decoder\":{\"type\":\"CTC\"}," MODEL, "'CTC' is not supported" },
    { HEAD "\"added_tokens\":{}," MODEL, "must be an array" },
    { HEAD "\"added_tokens\":[{\"content\":\"x\"}]," MODEL, "added_tokens[0].id" },
    { HEAD "\"added_tokens\":[{\"content\":\"x\",\"id\":7}]," MODEL, "tokenizers gives it 3" },
    { HEAD "\"added_tokens\":[{\"content\":\"a\",\"id\":1}]," MODEL, "has id 1, and 0 in the model" },
    { HEAD "\"added_tokens\":[{\"content\":\"x\",\"id\":3,\"special\":1}]," MODEL, "true or false" },
    { HEAD "\"added_tokens\":[{\"content\":\"x\",\"id\":3},{\"content\":\"x\",\"id\":3,\"lstrip\":true}]," MODEL,
      "'x' is there twice, and not alike" },
    { HEAD "\"added_tokens\":[{\"content\":\"X\",\"id\":3},{\"content\":\"x\",\"id\":4}],"
      "\"normalizer\":{\"type\":\"Lowercase\"}," MODEL, "the normalizer makes 'X' and 'x' the same" },
    { HEAD "\"normalizer\":{\"type\":\"Prepend\",\"prepend\":\"\"}," MODEL, "'prepend'" },
    { HEAD "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Metaspace\",\"replacement\":"
      "\"\u2581\"},{\"type\":\"Metaspace\",\"replacement\":\"\u2581\",\"prepend_scheme\":\"first\"}]}," MODEL,
      "behind another Metaspace" },
    { HEAD "\"model\":{\"vocab\":[],\"unk_id\":null}}", "'model.vocab' is empty" },
};

static void test_bad_files(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
        size_t n = strlen(bad[k].json);
        char *copy = malloc(n);
        struct err e = { 0 };
        struct hft *t;

        memcpy(copy, bad[k].json, n);
        if (hft_parse(&t, copy, n, "bad", &e) != E_DATA || !strstr(e.msg, bad[k].why))
            fail_msg("%zu: '%s' lacks '%s'", k, e.msg, bad[k].why);
        assert_null(t);
        free(copy);
    }
}

/* Nested without end; every shorter file. */
static void test_cut_files(void **state)
{
    static char deep[100000];
    struct err e = { 0 };
    const char *line;
    char name[32];
    size_t n;
    struct hft *t = open_golden("tiny-first", 0, &line, &n, name);
    struct json_value v = member(line, n, "tokenizer");

    (void)state;
    hft_free(t);
    memset(deep, '[', sizeof deep);
    memcpy(deep, "{\"model\":", 9);
    assert_int_equal(hft_parse(&t, deep, sizeof deep, "deep", &e), E_DATA);
    assert_non_null(strstr(e.msg, "nested deeper than 128"));
    for (size_t k = 0; k < v.n; k += 97) {
        char *copy = malloc(k + !k);

        memcpy(copy, v.p, k);
        assert_int_equal(hft_parse(&t, copy, k, "cut", &e), E_DATA);
        free(copy);
    }
}

static struct hft *with_pattern(const char *regex)
{
    char json[1024];
    struct err e = { 0 };
    struct hft *t;

    snprintf(json, sizeof json, HEAD "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"%s\"},"
             "\"behavior\":\"Isolated\",\"invert\":false}," MODEL, regex);
    if (hft_parse(&t, json, strlen(json), "pattern", &e) < 0)
        fail_msg("%s", e.msg);
    return t;
}

/* A pattern whose time doubles with each letter ends in an error, soon. */
static void test_backtracking_is_bounded(void **state)
{
    struct hft *t = with_pattern("(?:a+)+[cd]");
    struct spm_ids ids = { 0 };
    struct spm_cache *c;
    struct err e = { 0 };
    char text[5000];

    (void)state;
    assert_int_equal(spm_cache_open(&c, &e), 0);
    memset(text, 'a', sizeof text);
    text[sizeof text - 1] = 'b';
    assert_int_equal(hft_encode(t, c, text, sizeof text, &ids, &e), E_DATA);
    assert_non_null(strstr(e.msg, "backtracks too often at byte 0"));
    assert_int_equal(ids.len, 0);
    assert_int_equal(hft_encode(t, c, "aab", 3, &ids, &e), 0);
    assert_int_equal(ids.len, 2); /* a ab: nothing matches, and a b is a merge */
    spm_ids_free(&ids);
    spm_cache_close(c);
    hft_free(t);
}

/* A megabyte of letters without a space is one word, and is merged in little time. */
static void test_no_spaces(void **state)
{
    size_t n = 1 << 20;
    char *text = malloc(n), name[32];
    struct spm_ids ids = { 0 };
    struct buf back = { 0 };
    struct spm_cache *c;
    struct err e = { 0 };
    const char *line;
    size_t k;
    struct hft *t = open_golden("llama3", 0, &line, &k, name);

    (void)state;
    for (size_t i = 0; i < n; i++)
        text[i] = "nationdedicated"[i % 15];
    assert_int_equal(spm_cache_open(&c, &e), 0);
    assert_int_equal(hft_encode(t, c, text, n, &ids, &e), 0);
    assert_true(ids.len < (int64_t)n / 2);
    assert_int_equal(hft_decode(t, ids.p, ids.len, &back, &e), 0);
    assert_int_equal(back.len, n);
    assert_memory_equal(back.p, text, n);
    buf_free(&back);
    spm_ids_free(&ids);
    spm_cache_close(c);
    hft_free(t);
    free(text);
}

static void put64(struct buf *b, const unsigned char *p, size_t n, int rank)
{
    static const char d[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    unsigned v = (unsigned)p[0] << 16 | (n > 1 ? (unsigned)p[1] << 8 : 0) | (n > 2 ? p[2] : 0);
    struct err e = { 0 };
    char line[32];
    int k = snprintf(line, sizeof line, "%c%c%c%c %d\n", d[v >> 18], d[v >> 12 & 63],
                     n > 1 ? d[v >> 6 & 63] : '=', n > 2 ? d[v & 63] : '=', rank);

    assert_int_equal(buf_add(b, line, (size_t)k, &e), 0);
}

/* A file of n ranks: bytes, the given tokens, then those of three bytes that no text here has. */
static void put_ranks(struct buf *b, const char *const *tokens, int n)
{
    int rank = 0;

    for (int i = 0; i < 256; i++)
        put64(b, (unsigned char[]){ (unsigned char)i }, 1, rank++);
    for (; *tokens; tokens++)
        put64(b, (const unsigned char *)*tokens, (int)strlen(*tokens), rank++);
    for (int i = 0; rank < n; i++)
        put64(b, (unsigned char[]){ 128 + i % 64, 128 + i / 64 % 64, 128 + i / 4096 }, 3, rank++);
}

/* As many ranks as GPT-2 has: "ab", "abc". */
static void test_rank_file(void **state)
{
    static const int32_t want[] = { 257, 'd', 256, 256, ' ', 257 };
    struct buf b = { 0 }, back = { 0 };
    struct spm_ids ids = { 0 };
    struct spm_cache *c;
    struct err e = { 0 };
    struct hft *t;

    (void)state;
    put_ranks(&b, (const char *const[]){ "ab", "abc", NULL }, 50256);
    if (hft_parse_ranks(&t, b.p, b.len, "ranks", &e) < 0)
        fail_msg("%s", e.msg);
    assert_int_equal(hft_vocab(t), 50257);
    assert_int_equal(hft_eos(t), 50256);
    assert_int_equal(hft_bos(t), -1);
    assert_int_equal(spm_cache_open(&c, &e), 0);
    assert_int_equal(hft_encode(t, c, "abcdabab abc", 12, &ids, &e), 0);
    assert_int_equal(ids.len, 6);
    assert_memory_equal(ids.p, want, sizeof want);
    assert_int_equal(hft_decode(t, ids.p, ids.len, &back, &e), 0);
    assert_int_equal(back.len, 12);
    assert_memory_equal(back.p, "abcdabab abc", 12);
    spm_ids_free(&ids);
    buf_free(&back);
    spm_cache_close(c);
    hft_free(t);
    put64(&b, (const unsigned char *)"zz", 2, 50256);
    assert_int_equal(hft_parse_ranks(&t, b.p, b.len, "ranks", &e), E_DATA);
    assert_non_null(strstr(e.msg, "50257 ranks"));
    put64(&b, (const unsigned char *)"yy", 2, 50262);
    assert_int_equal(hft_parse_ranks(&t, b.p, b.len, "ranks", &e), E_DATA);
    assert_non_null(strstr(e.msg, "the rank must be"));
    assert_int_equal(hft_parse_ranks(&t, "%%%% 0\n", 7, "ranks", &e), E_DATA);
    assert_non_null(strstr(e.msg, "line 1 is not base64"));
    buf_free(&b);
}

/* Qwen's later ranks have a pattern in which marks are letters. */
static void test_ranks_with_marks(void **state)
{
    static const struct {
        int n, ids, first;
    } files[] = { { 151643, 2, 'a' }, { 248044, 1, 257 } };
    struct spm_ids ids = { 0 };
    struct spm_cache *c;
    struct err e = { 0 };

    (void)state;
    assert_int_equal(spm_cache_open(&c, &e), 0);
    for (int i = 0; i < 2; i++) {
        struct buf b = { 0 };
        struct hft *t;

        put_ranks(&b, (const char *const[]){ "\u0331", "a\u0331", NULL }, files[i].n);
        assert_int_equal(hft_parse_ranks(&t, b.p, b.len, "ranks", &e), 0);
        assert_int_equal(hft_eos(t), files[i].n);
        ids.len = 0;
        assert_int_equal(hft_encode(t, c, "a\u0331", 3, &ids, &e), 0);
        assert_int_equal(ids.len, files[i].ids);
        assert_int_equal(ids.p[0], files[i].first);
        hft_free(t);
        buf_free(&b);
    }
    spm_ids_free(&ids);
    spm_cache_close(c);
}

/* The tokens of t as the tokenizer.json of Qwen 2, with one way to make each. */
static void put_qwen_json(struct buf *b, const struct hft *t, int n, const char *normalizer, const char *last)
{
    struct err e = { 0 };

    assert_int_equal(buf_printf(b, &e, "{\"normalizer\":%s,\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["
        "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|"
        "\\\\p{N}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},"
        "\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
        "\"trim_offsets\":false,\"use_regex\":false}]},\"decoder\":{\"type\":\"ByteLevel\"},"
        "\"model\":{\"type\":\"BPE\",\"merges\":[[\"\u00c3\",\"\u00a9\"],"
        "[\"a\",\"b\"],[\"b\",\"c\"],%s],\"vocab\":{", normalizer, last), 0);
    for (int i = 0; i < n; i++) {
        const char *p = hft_piece(t, i);
        assert_int_equal(buf_printf(b, &e, "%s\"%s%s\":%d", i ? "," : "", *p == '"' || *p == '\\' ? "\\" : "", p, i), 0);
    }
    assert_int_equal(buf_printf(b, &e, "}}}"), 0);
}

/* Qwen's ranks: its own program makes one character of two, as its tokenizer.json does. Of "abc" the ranks
 * know two ways, of which merges come to the first alone. */
static void test_ranks_of_qwen_are_its_json(void **state)
{
    enum { N = 151643 };
    static const char *const forms[][2] = { { "{\"type\":\"NFC\"}", "[\"ab\",\"c\"]" },
        { "null", "[\"ab\",\"c\"]" }, { "{\"type\":\"NFC\"}", "[\"a\",\"bc\"]" } };
    static const int32_t want[] = { 256, 'x' };
    struct buf b = { 0 }, json = { 0 };
    struct spm_ids ids = { 0 };
    struct spm_cache *c;
    struct err e = { 0 };
    struct hft *t, *j;
    char a[33], same[33];

    (void)state;
    put_ranks(&b, (const char *const[]){ "\u00e9", "ab", "bc", "abc", NULL }, N);
    assert_int_equal(hft_parse_ranks(&t, b.p, b.len, "ranks", &e), 0);
    assert_int_equal(spm_cache_open(&c, &e), 0);
    assert_int_equal(hft_encode(t, c, "e\u0301x", 4, &ids, &e), 0);
    assert_int_equal(ids.len, 2);
    assert_memory_equal(ids.p, want, sizeof want);
    assert_int_equal(hft_meaning(t, a, &e), 0);
    for (int i = 0; i < 3; i++) {
        json.len = 0;
        put_qwen_json(&json, t, N, forms[i][0], forms[i][1]);
        if (hft_parse(&j, json.p, json.len, "json", &e) < 0)
            fail_msg("%s", e.msg);
        assert_int_equal(hft_meaning(j, same, &e), 0);
        assert_int_equal(strcmp(a, same) == 0, i == 0);
        hft_free(j);
    }
    spm_ids_free(&ids);
    spm_cache_close(c);
    hft_free(t);
    buf_free(&json);
    buf_free(&b);
}

/* ---- as a SentencePiece model ---- */

struct piece_row {
    char text[64];
    float score;
    enum spmodel_type type;
};
struct piece_rows {
    struct piece_row v[512];
    int n;
};

static int keep_piece(void *ctx, const char *text, size_t n, float score, enum spmodel_type type, struct err *e)
{
    struct piece_rows *all = ctx;

    (void)e;
    assert_in_range(n, 1, 63);
    memcpy(all->v[all->n].text, text, n);
    all->v[all->n].text[n] = '\0';
    all->v[all->n].score = score;
    all->v[all->n++].type = type;
    return 0;
}

/* The file that the tokenizer.json was made of: the same texts, kinds and order of what is made. */
static void test_pieces(void **state)
{
    static const struct {
        const char *name;
        enum hft_prefix prefix;
    } forms[] = {
        { "tiny", HFT_PREFIX_ALWAYS }, { "tiny-first", HFT_PREFIX_UNLESS }, { "tiny-gemma", HFT_PREFIX_NEVER },
    };
    static struct piece_rows model, made;
    struct spmodel m;
    struct err e = { 0 };
    const char *text;
    char *bytes, name[32];
    size_t n;

    (void)state;
    model.n = 0;
    assert_int_equal(file_read("tests/data/tiny.model", 1 << 20, &bytes, &n, &e), 0);
    assert_int_equal(spmodel_read(&m, bytes, n, keep_piece, &model, &e), 0);
    for (size_t f = 0; f < sizeof forms / sizeof *forms; f++) {
        struct hft *t = open_golden(forms[f].name, 0, &text, &n, name);
        enum hft_prefix prefix;

        made.n = 0;
        if (hft_pieces(t, &prefix, keep_piece, &made, &e) < 0)
            fail_msg("%s: %s", forms[f].name, e.msg);
        assert_int_equal(prefix, forms[f].prefix);
        assert_int_equal(made.n >= model.n, 1); /* some have tokens of their own behind it */
        for (int i = 0; i < model.n; i++) {
            assert_string_equal(made.v[i].text, model.v[i].text);
            if (model.v[i].type != PIECE_CONTROL)
                assert_int_equal(made.v[i].type, model.v[i].type);
            for (int k = 0; k < i && model.v[i].type == PIECE_NORMAL; k++)
                if (model.v[k].type == PIECE_NORMAL)
                    assert_int_equal(made.v[k].score > made.v[i].score, model.v[k].score > model.v[i].score);
        }
        hft_free(t);
    }
    free(bytes);
}

/* Text is cut before each mark, so that marks never merge, though they are in the list. */
static void test_pieces_of_cut_text(void **state)
{
    static struct piece_rows made;
    enum hft_prefix prefix;
    struct err e = { 0 };
    const char *text;
    char name[32];
    size_t n;
    struct hft *t = open_golden("tiny-split", 0, &text, &n, name);

    (void)state;
    assert_int_equal(hft_pieces(t, &prefix, keep_piece, &made, &e), E_CONFIG);
    assert_non_null(strstr(e.msg, "token '\u2581\u2581' is not made by all pairs"));
    hft_free(t);
}

/* All bytes, <unk>, <s>, then these tokens, by these merges; user: a token that is found in texts. */
static int pieces_of(const char *tokens, const char *merges, const char *user, const char *pre, struct piece_rows *rows,
                     struct err *e)
{
    struct buf b = { 0 };
    enum hft_prefix prefix;
    struct hft *t;
    int rc;

    assert_int_equal(buf_printf(&b, e, "{\"added_tokens\":[%s],\"pre_tokenizer\":%s,\"normalizer\":{\"type\":"
        "\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\u2581\"},\"model\":{\"type\":\"BPE\","
        "\"byte_fallback\":true,\"unk_token\":\"<unk>\",\"merges\":[%s],\"vocab\":{\"<unk>\":0,\"<s>\":1",
        user, pre, merges), 0);
    for (int i = 0; i < 256; i++)
        assert_int_equal(buf_printf(&b, e, ",\"<0x%02X>\":%d", i, 2 + i), 0);
    assert_int_equal(buf_printf(&b, e, ",%s}}}", tokens), 0);
    if (hft_parse(&t, b.p, b.len, "made", e) < 0)
        fail_msg("%s", e->msg);
    rows->n = 0;
    rc = hft_pieces(t, &prefix, keep_piece, rows, e);
    hft_free(t);
    buf_free(&b);
    return rc;
}

/* What scores cannot say is refused: merges of other programs, in another order, or of other steps. */
static void test_pieces_that_are_none(void **state)
{
#define ABC "\"a\":258,\"b\":259,\"c\":260,\"ab\":261,\"bc\":262,\"abc\":263"
#define MARKS "\"\u2581\":258,\"\u2581\u2581\":259,\"\u2581\u2581\u2581\":260,\"\u2581\u2581\u2581\u2581\":261"
#define THREE "[\"\u2581\u2581\",\"\u2581\"],"
#define FOUR "[\"\u2581\u2581\u2581\",\"\u2581\"]"
#define REST ",[\"\u2581\",\"\u2581\"],[\"\u2581\u2581\",\"\u2581\u2581\"],[\"\u2581\",\"\u2581\u2581\"]," \
             "[\"\u2581\",\"\u2581\u2581\u2581\"]"
    static const struct {
        const char *tokens, *merges, *user, *pre, *why; /* why NULL: it is one */
    } cases[] = {
        { ABC, "\"a b\",\"b c\",\"a bc\",\"ab c\"", "", "null", NULL },
        { ABC, "\"a b\",\"b c\",\"ab c\"", "", "null", "token 'abc' is not made by all pairs" },
        { ABC, "\"a b\",\"a bc\",\"b c\",\"ab c\"", "", "null", "'bc' is made by merges that do not follow" },
        { ABC, "\"a b\",\"a bc\",\"b c\",\"ab c\"", "{\"id\":263,\"content\":\"abc\",\"special\":false}", "null", NULL },
        { ABC, "\"a b\",\"b c\"", "{\"id\":263,\"content\":\"abc\",\"special\":false}", "null", NULL },
        { ABC, "\"a b\",\"b c\",\"a bc\",\"ab c\"", "", "{\"type\":\"Digits\",\"individual_digits\":true}",
          "text is not cut as by" },
        { MARKS, THREE FOUR REST, "", "null", NULL }, /* of one score */
    };
    static struct piece_rows rows;
    struct err e = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int rc = pieces_of(cases[i].tokens, cases[i].merges, cases[i].user, cases[i].pre, &rows, &e);

        if (rc != (cases[i].why ? E_CONFIG : 0) || (rc && !strstr(e.msg, cases[i].why)))
            fail_msg("%zu: %d %s", i, rc, e.msg);
    }
    for (int i = 259; i < 262; i++)
        assert_true(rows.v[i].score == rows.v[259].score && rows.v[i].score > rows.v[258].score);
}

/* The door: a folder's tokenizer.json goes first, and tokenizer_config.json has the last word. */
static void test_folder(void **state)
{
    char folder[] = "/tmp/test_hft.XXXXXX", *json, *config, line[1024], name[32];
    struct json_value v;
    struct err e = { 0 };
    struct tokenizer *t;
    const char *text;
    size_t n;
    struct hft *h = open_golden("tiny", 0, &text, &n, name);

    (void)state;
    hft_free(h);
    v = member(text, n, "tokenizer");
    assert_non_null(mkdtemp(folder));
    json = path_join(folder, "tokenizer.json");
    config = path_join(folder, "tokenizer_config.json");
    assert_int_equal(tokenizer_open(&t, folder, &e), E_NOINPUT);
    assert_int_equal(file_replace(json, v.p, v.n, &e), 0);
    assert_int_equal(tokenizer_open(&t, folder, &e), 0);
    assert_int_equal(tokenizer_bos(t), 1);
    assert_int_equal(tokenizer_note(t, line, sizeof line, &e), 0);
    assert_non_null(strstr(line, "(tokenizer.json): 400 tokens, BOS '<s>', EOS '</s>'"));
    tokenizer_close(t);
    text = "{\"bos_token\":null,\"eos_token\":{\"content\":\"the\"}}";
    assert_int_equal(file_replace(config, text, strlen(text), &e), 0);
    assert_int_equal(tokenizer_open(&t, folder, &e), E_DATA);
    assert_non_null(strstr(e.msg, "'the' is no token"));
    text = "{\"bos_token\":null,\"eos_token\":{\"content\":\"<s>\"}}";
    assert_int_equal(file_replace(config, text, strlen(text), &e), 0);
    assert_int_equal(tokenizer_open(&t, folder, &e), 0);
    assert_int_equal(tokenizer_bos(t), -1);
    assert_int_equal(tokenizer_eos(t), 1);
    tokenizer_close(t);
    unlink(json);
    unlink(config);
    rmdir(folder);
    free(json);
    free(config);
}

/* A folder with a tokenizer.json, and room for what may stand beside it. */
struct beside {
    char folder[32], *json, *config, *jinja;
};

static void beside_open(struct beside *b)
{
    const char *text;
    char name[32];
    struct json_value v;
    struct err e = { 0 };
    size_t n;

    hft_free(open_golden("tiny-first", 0, &text, &n, name));
    v = member(text, n, "tokenizer");
    strcpy(b->folder, "/tmp/test_hft.XXXXXX");
    assert_non_null(mkdtemp(b->folder));
    b->json = path_join(b->folder, "tokenizer.json");
    b->config = path_join(b->folder, "tokenizer_config.json");
    b->jinja = path_join(b->folder, "chat_template.jinja");
    assert_int_equal(file_replace(b->json, v.p, v.n, &e), 0);
}

static void beside_config(const struct beside *b, const char *text)
{
    struct err e = { 0 };

    assert_int_equal(file_replace(b->config, text, strlen(text), &e), 0);
}

static void beside_close(struct beside *b)
{
    struct err e = { 0 };

    assert_int_equal(dir_remove(b->folder, &e), 0);
    free(b->json);
    free(b->config);
    free(b->jinja);
}

/* Who adds BOS and EOS, as transformers 4.57 does it. */
static void test_config(void **state)
{
    static const struct {
        const char *config;
        bool bos, eos; /* of a file without a template */
    } flags[] = {
        { "{}", false, false },
        { "{\"add_bos_token\":true}", true, false },
        { "{\"tokenizer_class\":\"LlamaTokenizer\"}", true, false },
        { "{\"tokenizer_class\":\"LlamaTokenizerFast\",\"add_bos_token\":false,\"add_eos_token\":true}",
          false, true },
        { "{\"tokenizer_class\":\"GPTNeoXTokenizer\"}", false, false },
        { "{\"tokenizer_class\":\"GPTNeoXTokenizerFast\",\"add_bos_token\":true}", true, false },
        { "{\"tokenizer_class\":\"PreTrainedTokenizerFast\",\"add_bos_token\":true}", false, false },
        { "{\"tokenizer_class\":\"GemmaTokenizer\",\"bos_token\":null}", false, false },
        { "{\"tokenizer_class\":\"LlamaTokenizer\",\"add_bos_token\":null,\"add_eos_token\":true}", false, true },
        { "{\"tokenizer_class\":\"TokenizersBackend\",\"add_bos_token\":true}", false, false },
    };
    /* Tokens that stand there alone, which transformers adds. */
    static const char *const lacks[][2] = {
        { "{\"pad_token\":\"<s>\",\"extra_special_tokens\":{\"x\":\"</s>\"}}", "adds neither" },
        { "{\"pad_token\":{\"content\":\"[PAD]\"}}", "; plain text here, a token of tokenizer_config.json to "
          "transformers: '[PAD]'" },
        { "{\"extra_special_tokens\":[\"<s>\",\"[X]\"]}", "transformers: '[X]'" },
        { "{\"extra_special_tokens\":{\"image\":\"[X]\"}}", "transformers: '[X]'" },
        { "{\"additional_special_tokens\":[\"[X]\"]}", "transformers: '[X]'" },
        { "{\"added_tokens_decoder\":{\"9\":{\"content\":\"[X]\"}}}", "transformers: '[X]'" },
    };
    struct beside b;
    struct err e = { 0 };
    struct tokenizer *t;
    char line[1024];

    (void)state;
    beside_open(&b);
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        beside_config(&b, flags[i].config);
        assert_int_equal(tokenizer_open(&t, b.folder, &e), 0);
        if (tokenizer_adds_bos(t) != flags[i].bos || tokenizer_adds_eos(t) != flags[i].eos)
            fail_msg("%s", flags[i].config);
        tokenizer_close(t);
    }
    for (size_t i = 0; i < sizeof lacks / sizeof *lacks; i++) {
        beside_config(&b, lacks[i][0]);
        assert_int_equal(tokenizer_open(&t, b.folder, &e), 0);
        assert_int_equal(tokenizer_note(t, line, sizeof line, &e), 0);
        if (!strstr(line, lacks[i][1]) || (!strchr(lacks[i][1], '[') && strstr(line, "plain text here")))
            fail_msg("%s", line);
        tokenizer_close(t);
    }
    beside_config(&b, "{\"add_bos_token\":1}");
    assert_int_equal(tokenizer_open(&t, b.folder, &e), E_DATA);
    assert_non_null(strstr(e.msg, "add_bos_token"));
    beside_close(&b);
}

/* Chat templates by their text. */
static void test_chat_forms(void **state)
{
    static const struct {
        const char *text;
        enum chat_form form;
    } chats[] = {
        { "{{ bos_token + '[INST] ' + '<<SYS>>\n' + content + '[/INST]' }}", CHAT_LLAMA2 },
        { "{{ bos_token }}{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}", CHAT_MISTRAL },
        { "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>'}}", CHAT_CHATML },
        { "'<|start_header_id|>' + role + '<|end_header_id|>\n\n' + content + '<|eot_id|>'", CHAT_LLAMA3 },
        { "### Instruction:\n{{ m }}\n\n### Response:\n", CHAT_ALPACA },
        { "<|im_start|> and <|start_header_id|> and <|eot_id|>", CHAT_OTHER },
        { "", CHAT_OTHER },
    };

    (void)state;
    for (size_t i = 0; i < sizeof chats / sizeof *chats; i++)
        assert_int_equal(chat_form_of(chats[i].text, strlen(chats[i].text)), chats[i].form);
    assert_string_equal(chat_form_name(CHAT_OTHER), "other");
    assert_string_equal(chat_form_name(CHAT_MISTRAL), "mistral");
}

/* Where they are kept: the file goes before the field; of a list the default counts. */
static void test_chat_templates(void **state)
{
    struct beside b;
    struct err e = { 0 };
    struct tokenizer *t;
    char line[1024], *got;
    size_t n;

    (void)state;
    beside_open(&b);
    assert_int_equal(tokenizer_open(&t, b.folder, &e), 0);
    assert_int_equal(tokenizer_template(t, &got, &n, &e), 0);
    assert_null(got);
    beside_config(&b, "{}");
    assert_int_equal(tokenizer_template(t, &got, &n, &e), 0);
    assert_null(got);
    beside_config(&b, "{\"chat_template\":[{\"name\":\"tool_use\",\"template\":\"x\"},{\"name\":\"default\","
                      "\"template\":\"<|im_start|>\u00e9\"}]}");
    assert_int_equal(tokenizer_template(t, &got, &n, &e), 0);
    assert_string_equal(got, "<|im_start|>\xC3\xA9");
    assert_int_equal(n, 14);
    free(got);
    assert_int_equal(tokenizer_note(t, line, sizeof line, &e), 0);
    assert_non_null(strstr(line, "transformers adds neither; chat template: chatml"));
    assert_int_equal(file_replace(b.jinja, "[INST]", 6, &e), 0);
    assert_int_equal(tokenizer_template(t, &got, &n, &e), 0);
    assert_string_equal(got, "[INST]");
    free(got);
    assert_int_equal(file_replace(b.jinja, "\xFF", 1, &e), 0);
    assert_int_equal(tokenizer_template(t, &got, &n, &e), E_DATA);
    assert_null(got);
    assert_int_equal(unlink(b.jinja), 0);
    beside_config(&b, "{\"chat_template\":3}");
    assert_int_equal(tokenizer_template(t, &got, &n, &e), E_DATA);
    assert_non_null(strstr(e.msg, "field 'chat_template' is neither"));
    tokenizer_close(t);
    beside_close(&b);
}

/* Every text of every kind, id by id: the same text, in whole characters. */
static void stream_all(const struct tokenizer *t, const char *name, const struct buf *text)
{
    struct tokenizer_stream *s;
    struct buf out = { 0 };
    struct err e = { 0 };
    size_t n_back, was = 0;
    int32_t *ids;
    int64_t n;
    char *back;

    assert_int_equal(tokenizer_encode(t, text->len ? text->p : "", text->len, &ids, &n, &e), 0);
    assert_int_equal(tokenizer_decode(t, ids, n, &back, &n_back, &e), 0);
    assert_int_equal(tokenizer_stream_open(&s, t, &e), 0);
    assert_int_equal(tokenizer_stream_next(s, -1, &out, &e), E_DATA);
    for (int64_t i = 0; i < n; i++, was = out.len) {
        assert_int_equal(tokenizer_stream_next(s, ids[i], &out, &e), 0);
        if (out.len > was && !utf8_valid(out.p + was, out.len - was, NULL))
            fail_msg("%s: half a character in '%.*s'", name, (int)text->len, text->p);
    }
    assert_int_equal(tokenizer_stream_end(s, &out, &e), 0);
    if (out.len != n_back || (n_back && memcmp(out.p, back, n_back)))
        fail_msg("%s: '%s' streams as '%.*s'", name, back, (int)out.len, out.p);
    tokenizer_stream_close(s);
    buf_free(&out);
    free(back);
    free(ids);
}

static void test_streams(void **state)
{
    struct json_value texts = member(golden, (size_t)((char *)memchr(golden, '\n', n_golden) - golden),
                                     "texts"), x;
    struct err e = { 0 };
    const char *line;
    char name[32];
    struct hft *h;
    size_t n;

    (void)state;
    for (size_t k = 0; (h = open_golden(NULL, k, &line, &n, name)); k++) {
        struct json_value v = member(line, n, "tokenizer");
        struct json_object ts = list(&texts);
        struct buf text = { 0 };
        struct tokenizer *t;

        hft_free(h);
        if (strcmp(name, "unknown") == 0) /* no decoder: a space before each token */
            continue;
        assert_int_equal(tokenizer_parse(&t, v.p, v.n, "x.json", &e), 0);
        while (json_next_element(&ts, &x, &e) == 1) {
            text.len = 0;
            assert_int_equal(json_text(&x, false, &text, &e), 0);
            stream_all(t, name, &text);
        }
        buf_free(&text);
        tokenizer_close(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words_many_at_once),
        cmocka_unit_test(test_golden_ids),
        cmocka_unit_test(test_one_meaning),
        cmocka_unit_test(test_meaning_of_added_tokens),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_cut_files),
        cmocka_unit_test(test_backtracking_is_bounded),
        cmocka_unit_test(test_no_spaces),
        cmocka_unit_test(test_rank_file),
        cmocka_unit_test(test_ranks_of_qwen_are_its_json),
        cmocka_unit_test(test_ranks_with_marks),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_pieces_of_cut_text),
        cmocka_unit_test(test_pieces_that_are_none),
        cmocka_unit_test(test_folder),
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_chat_forms),
        cmocka_unit_test(test_chat_templates),
        cmocka_unit_test(test_streams),
    };

    return cmocka_run_group_tests(tests, read_golden, free_golden);
}
