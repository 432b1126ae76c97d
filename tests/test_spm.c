/* tests/test_spm.c - our SentencePiece gives libsentencepiece's ids; hostile models refused. */
#include "base/file.h"
#include "base/log.h"
#include "formats/tokenizer/splib.h"
#include "formats/tokenizer/spm.h"
#include "formats/tokenizer/spmodel.h"
#include "tests/spmrandom.h"

#include <setjmp.h>
#include <stdarg.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define TINY "tests/data/tiny.model"

struct engines {
    struct spm *ours;
    struct splib *theirs;
    struct spm_cache *cache;
    const char *name;
};

static struct engines open_bytes(const struct buf *b, const char *name)
{
    struct engines g = { .name = name };
    struct spmodel m;
    struct err e = { 0 };

    if (spmodel_check(&m, b->p, b->len, &e) < 0 ||
        spm_parse(&g.ours, b->p, b->len, name, &e) < 0 ||
        splib_parse(&g.theirs, b->p, b->len, &e) < 0 || spm_cache_open(&g.cache, &e) < 0)
        fail_msg("%s: %s", name, e.msg);
    return g;
}

static struct engines open_file(const char *folder, const char *name)
{
    struct buf b = { 0 };
    struct err e = { 0 };
    struct engines g;

    if (read_some(&b, SPMODEL_MAX_BYTES, folder, name, "*", &e) < 0)
        fail_msg("%s", e.msg);
    g = open_bytes(&b, name);
    buf_free(&b);
    return g;
}

static void close_engines(struct engines *g)
{
    spm_free(g->ours);
    splib_free(g->theirs);
    spm_cache_close(g->cache);
}

/* Every way to encode text must give the ids of the library, and the ids its text. */
static void same(const struct engines *g, const char *text, size_t n, bool whole_too)
{
    struct spm_ids out = { 0 };
    struct buf back = { 0 };
    struct err e = { 0 };
    int32_t *ids;
    int64_t n_ids;
    char *exact = malloc(n + !n), *their_back;
    size_t n_back;

    memcpy(exact, text, n);
    assert_int_equal(splib_encode(g->theirs, exact, n, &ids, &n_ids, &e), 0);
    for (int way = SPM_PLAIN; way <= (int)SPM_AVX512 + whole_too; way++) {
        bool whole = way > (int)SPM_AVX512;

        if (!whole && !spm_cache_level(g->cache, (enum spm_level)way))
            continue;
        out.len = 0;
        assert_int_equal(whole ? spm_encode_whole(g->ours, g->cache, exact, n, &out, &e)
                               : spm_encode(g->ours, g->cache, exact, n, &out, &e), 0);
        if (out.len != n_ids || (n_ids && memcmp(out.p, ids, (size_t)n_ids * sizeof *ids) != 0))
            fail_msg("%s: way %d: %lld ids for %lld of '%.200s' (%zu bytes)", g->name, way,
                     (long long)out.len, (long long)n_ids, text, n);
    }
    assert_int_equal(splib_decode(g->theirs, ids, n_ids, &their_back, &n_back, &e), 0);
    assert_int_equal(spm_decode(g->ours, ids, n_ids, &back, &e), 0);
    assert_int_equal(back.len, n_back);
    assert_memory_equal(back.p ? back.p : "", their_back, n_back);
    free(exact);
    free(ids);
    free(their_back);
    spm_ids_free(&out);
    buf_free(&back);
}

static void add(struct buf *b, const void *p, size_t n)
{
    struct err e = { 0 };

    assert_int_equal(buf_add(b, p, n, &e), 0);
}

/* c as UTF-8 would have it, surrogates and what lies beyond U+10FFFF too. */
static void add_char(struct buf *b, uint32_t c)
{
    unsigned char u[4];

    for (int i = 0; i < 4; i++)
        u[i] = (unsigned char)(0x80 | (c >> 6 * (3 - i) & 63));
    u[0] = (unsigned char)(0xF0 | c >> 18);

    if (c >= 0x10000) {
        add(b, u, 4);
    } else if (c >= 0x800) {
        u[1] = (unsigned char)(0xE0 | c >> 12);
        add(b, u + 1, 3);
    } else if (c >= 0x80) {
        u[2] = (unsigned char)(0xC0 | c >> 6);
        add(b, u + 2, 2);
    } else {
        u[3] = (unsigned char)c;
        add(b, u + 3, 1);
    }
}

static const struct {
    const char *p;
    size_t n;
} odd[] = {
#define S(s) { s, sizeof s - 1 }
    S(""), S(" "), S("  "), S("a"), S(" a"), S("a "), S("\n"), S("\0"), S("a\0b\0\0c"),
    S("\xFF"),
    S("\x80"), S("a\x80""b"), S("\xC0\x80"), S("\xC1\xBF x"), S("\xE0\x80\x80"), S("\xE2\x96"),
    S("\xE2\x96 a"), S("\xE2"), S("x\xE2 y"), S("\xED\xA0\x80"), S("\xED\xBF\xBF!"),
    S("\xF4\x90\x80\x80"), S("\xF0\x82\x82\xAC"), S("\xF8\x88\x80\x80\x80"), S("\xF0\x9F\x98"),
    S("\xEF\xBF\xBD"), S("\xEF\xBF\xBE"), S("\xE2\x96\x81"), S(" \xE2\x96\x81 "),
    S("x\xE2\x96\x81y \xE2\x96\x81\xE2\x96\x81z"), S("<s>"), S("</s> <s><unk>"),
    S("<0x41><0x0A>"),
    S("<pad>"), S("\r\n\t\v\f"), S("\xC2\xA0\xE3\x80\x80\xE2\x80\x83x"),
    S("A\xCC\x8A \xE2\x84\xAB"),
    S("\xEF\xAC\x81ne \xEF\xBC\xA1\xEF\xBC\xA2"), S("\xEF\xB7\xBA"),
    S("\xE1\x84\x80\xE1\x85\xA1"),
    S("1234567890 3.14159"), S("............................!!!!!!!!??"), S("\xE2\x81\x87"),
#undef S
};

static void torture(const struct engines *g)
{
    struct buf b = { 0 };

    for (size_t k = 0; k < N_OF(odd); k++)
        same(g, odd[k].p, odd[k].n, true);
    for (size_t k = 1; k <= 40; k++) {
        b.len = 0;
        for (size_t i = 0; i < k; i++)
            add(&b, " ", 1);
        same(g, b.p, b.len, true);
        add(&b, "word", 4);
        same(g, b.p, b.len, true);
        for (size_t i = 0; i < k; i++)
            add(&b, " ", 1);
        same(g, b.p, b.len, true);
    }
    for (uint32_t c = 0, end; c < 0x120000; c = end) { /* each block of 2^14 in steps of 37 */
        b.len = 0;
        for (end = c + 0x4000; c < end; c += 37) {
            add_char(&b, c);
            if (c % 3 == 0)
                add(&b, " ab", 3);
        }
        same(g, b.p, b.len, true);
    }
    for (int64_t id = 0; id < spm_vocab(g->ours);) { /* every piece, 50 a text */
        b.len = 0;
        for (int k = 0; k < 50 && id < spm_vocab(g->ours); k++, id++) {
            size_t n;
            const char *p = spm_piece(g->ours, (int32_t)id, &n);

            add(&b, p, n);
            add(&b, " \n-" + id % 3, 1);
        }
        same(g, b.p, b.len, false);
    }
    for (int c = 0; c < 2; c++) { /* a word of 1 MB */
        b.len = 0;
        for (uint32_t i = 0, x = 1; i < (c ? 300000 : 1000000); i++) {
            x = x * 1103515245u + 12345u;
            add(&b, c ? (char[1]){ (char)('a' + (x >> 16) % 10) } : "a", 1);
        }
        same(g, b.p, b.len, c == 0);
    }
    buf_free(&b);
}

static void test_tiny_model(void **state)
{
    struct engines g = open_file(".", TINY);
    struct err e = { 0 };
    struct buf out = { 0 };
    size_t n;

    (void)state;
    assert_int_equal(spm_vocab(g.ours), 400);
    assert_int_equal(spm_unk(g.ours), 0);
    assert_int_equal(spm_bos(g.ours), splib_bos(g.theirs));
    assert_int_equal(spm_eos(g.ours), splib_eos(g.theirs));
    assert_string_equal(spm_piece(g.ours, 2, &n), "</s>");
    assert_int_equal(n, 4);
    assert_string_equal(spm_piece(g.ours, 400, NULL), "");
    assert_string_equal(spm_piece(g.ours, -1, NULL), "");
    assert_int_equal(spm_decode(g.ours, (int32_t[]){ 5, 400 }, 2, &out, &e), E_DATA);
    assert_non_null(strstr(e.msg, "token id 400 at 1"));
    assert_int_equal(out.len, 0);
    torture(&g);
    close_engines(&g);
}

/* Ids in front of what is appended are not touched, nor joined with it. */
static void test_appending(void **state)
{
    struct engines g = open_file(".", TINY);
    struct spm_ids out = { 0 };
    struct err e = { 0 };
    int64_t n;

    (void)state;
    assert_int_equal(spm_encode(g.ours, g.cache, "the nation", 10, &out, &e), 0);
    n = out.len;
    assert_int_equal(spm_encode(g.ours, g.cache, "", 0, &out, &e), 0);
    assert_int_equal(out.len, n);
    assert_int_equal(spm_encode(g.ours, g.cache, "the nation", 10, &out, &e), 0);
    assert_int_equal(out.len, 2 * n);
    assert_memory_equal(out.p, out.p + n, (size_t)n * sizeof *out.p);
    assert_int_equal(spm_encode(g.ours, g.cache, "x", SPM_MAX_TEXT_BYTES + 1, &out, &e),
                     E_DATA);
    assert_int_equal(out.len, 2 * n);
    spm_ids_free(&out);
    close_engines(&g);
}

static void test_random_models(void **state)
{
    struct spm_cache *cache;
    struct buf b = { 0 };
    struct err e = { 0 };
    int used = 0;

    (void)state;
    assert_int_equal(spm_cache_open(&cache, &e), 0);
    for (uint64_t seed = 1; seed <= 150; seed++) {
        struct engines g = { .cache = cache, .name = "random" };
        uint64_t dice = seed * 7919;
        struct err theirs = { 0 };
        char text[2000];
        int32_t *ids;
        int64_t n_ids;
        int rc;

        make_random_model(&b, &dice);
        rc = splib_parse(&g.theirs, b.p, b.len, &theirs);
        if (spm_parse(&g.ours, b.p, b.len, "random", &e) != rc)
            fail_msg("seed %d: ours '%s', theirs '%s'", (int)seed, e.msg, theirs.msg);
        for (int k = 0; k < 60 && rc == 0; k++) {
            size_t n = random_text(&dice, text, 60);

            if (splib_encode(g.theirs, text, n, &ids, &n_ids, &theirs) == 0) {
                free(ids);
                same(&g, text, n, true);
                used++;
            } else {
                struct spm_ids out = { 0 };

                assert_int_equal(spm_encode(g.ours, cache, text, n, &out, &e), E_DATA);
                assert_non_null(strstr(e.msg, "which this model reserves"));
                assert_int_equal(out.len, 0);
                spm_ids_free(&out);
            }
        }
        spm_free(g.ours);
        splib_free(g.theirs);
    }
    assert_true(used > 5000);
    spm_cache_close(cache);
    buf_free(&b);
}

/* More ids than 16 bits hold: other tables, other words in the cache. */
static void test_large_vocabulary(void **state)
{
    struct buf b = { 0 }, spec = { 0 }, text = { 0 };
    struct engines g;
    uint64_t dice = 5;
    char piece[8];

    (void)state;
    for (int byte_fallback = 0; byte_fallback < 2; byte_fallback++) {
        b.len = spec.len = text.len = 0;
        put_piece(&b, "<unk>", 5, 0, 2);
        for (unsigned c = 0; c < 256 && byte_fallback; c++) {
            snprintf(piece, sizeof piece, "<0x%02X>", c);
            put_piece(&b, piece, 6, 0, 6);
        }
        for (uint32_t i = 0; i < 90000; i++) { /* words of one to five letters */
            size_t n = 0;

            for (uint32_t v = i; n == 0 || v > 0; v /= 17)
                piece[n++] = (char)('a' + v % 17);
            put_piece(&b, piece, n, -(float)pick(&dice, 60000), 1);
        }
        put_piece(&b, "\xE2\x96\x81", 3, -1, 1);
        put_number(&spec, 3, 2);
        if (byte_fallback)
            put_number(&spec, 35, 1);
        put_bytes(&b, 2, spec.p, spec.len);
        put_bytes(&b, 3, "\x20\x00", 2); /* spaces are kept */
        g = open_bytes(&b, "90,000 pieces");
        for (int i = 0; i < 100000; i++) {
            uint32_t k = pick(&dice, 100);
            char c = k < 80 ? (char)('a' + k % 17) : k < 95 ? ' ' : (char)('q' + k % 10);

            add(&text, &c, 1);
        }
        same(&g, text.p, text.len, true);
        for (size_t at = 0; at < text.len; at += 500)
            same(&g, text.p + at, 500, true); /* words again: from the cache */
        close_engines(&g);
    }
    buf_free(&b);
    buf_free(&spec);
    buf_free(&text);
}

/* Models of kinds that are not at hand, trained here. */
static void test_trained_models(void **state)
{
    static const char *const kinds[] = {
        "--model_type=bpe --vocab_size=420 --byte_fallback --normalization_rule_name=identity "
            "--user_defined_symbols='<sep>,the,ing ,  ,na'",
        "--model_type=bpe --vocab_size=200 --character_coverage=0.98 "
            "--normalization_rule_name=identity --remove_extra_whitespaces=false",
        "--model_type=bpe --vocab_size=440 --treat_whitespace_as_suffix --byte_fallback "
            "--character_coverage=0.98",
        "--model_type=bpe --vocab_size=300 --split_by_whitespace=false "
            "--remove_extra_whitespaces=false --add_dummy_prefix=false",
        "--model_type=unigram --vocab_size=150 --normalization_rule_name=nmt_nfkc_cf "
            "--character_coverage=0.98 --user_defined_symbols='<x>,of'",
        "--model_type=char --vocab_size=40 --hard_vocab_limit=false",
        "--model_type=word --vocab_size=100 --hard_vocab_limit=false",
    };
    char folder[] = "/tmp/test_spm.XXXXXX", command[1024], path[64];

    (void)state;
    if (system("command -v spm_train >/dev/null 2>&1") != 0) {
        print_message("# no spm_train on PATH\n");
        skip();
    }
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/m.model", folder);
    for (size_t k = 0; k < N_OF(kinds); k++) {
        struct engines g;

        snprintf(command, sizeof command,
                 "spm_train --input=tests/data/tiny.txt --num_threads=1 "
                 "--minloglevel=2 --model_prefix=%s/m %s >/dev/null 2>&1", folder, kinds[k]);
        if (system(command) != 0)
            fail_msg("'%s' failed", command);
        g = open_file(folder, "m.model");
        g.name = kinds[k];
        torture(&g);
        close_engines(&g);
    }
    unlink(path);
    snprintf(path, sizeof path, "%s/m.vocab", folder);
    unlink(path);
    rmdir(folder);
}

/* Texts in documents of some sizes. */
static void same_documents(const struct engines *g, const struct buf *b, size_t doc_bytes)
{
    for (size_t at = 0, k; at < b->len; at += k) {
        k = doc_bytes < b->len - at ? doc_bytes : b->len - at;
        same(g, b->p + at, k, false);
    }
}

static void test_real_models_and_texts(void **state)
{
    static const char *const models[] = {
        "tokenizers/llama2/tokenizer.model.zst", "tokenizers/mistral/tokenizer.model.v1.zst",
        "tokenizers/mistral/mistral_instruct_tokenizer_240323.model.v3.zst",
        "tokenizers/t5like/fast_sentencepiece.model.zst",
        "tokenizers/t5like/sentencepiece.model.zst",
        "tokenizers/sentencepiece/test_model.model.zst",
        "tokenizers/sentencepiece/test_ja_model.model.zst", "weights/stories260K/tok512.model"
    };
    const char *data = getenv("LONGLORA_DATA");
    struct buf books = { 0 }, latex = { 0 }, code = { 0 };
    struct err e = { 0 };

    (void)state;
    if (!data) {
        print_message("# no $LONGLORA_DATA\n");
        skip();
    }
    assert_int_equal(read_some(&books, 2000000, data, "pg19/pg19-validation.tar.zst", NULL, &e),
                     0);
    assert_int_equal(read_some(&latex, 800000, data, "proof-pile/dev", NULL, &e), 0);
    read_some(&code, 800000, "/usr", "include", "*.h", &e); /* whatever there is */
    for (size_t k = 0; k < N_OF(models); k++) {
        struct engines g = open_file(data, models[k]);
        struct buf part = books;

        part.len = k == 0 ? books.len : 300000; /* the library takes its time */
        same_documents(&g, &part, 50000);
        part = latex;
        part.len = k == 0 ? latex.len : 200000;
        same_documents(&g, &part, 20000);
        part = code;
        part.len = k == 0 || code.len < 200000 ? code.len : 200000;
        same_documents(&g, &part, 20000);
        torture(&g);
        close_engines(&g);
    }
    buf_free(&books);
    buf_free(&latex);
    buf_free(&code);
}

/* Of this process, so that it does not matter who else wants the processor. */
static double busy_s(void) { return (double)clock() / CLOCKS_PER_SEC; }

static void refused(const struct buf *b, const char *why)
{
    struct err e = { 0 };
    struct spm *m;
    char *exact = malloc(b->len + !b->len);
    double start = busy_s();

    if (b->len)
        memcpy(exact, b->p, b->len);
    assert_int_equal(spm_parse(&m, exact, b->len, "bad", &e), E_DATA);
    assert_null(m);
    if (!strstr(e.msg, why))
        fail_msg("'%s' lacks '%s'", e.msg, why);
    assert_true(busy_s() - start < 5);
    free(exact);
}

static void test_hostile_models(void **state)
{
    struct buf b = { 0 }, spec = { 0 };
    char text[SPMODEL_MAX_PIECE_BYTES + 1];

    (void)state;
    refused(&b, "0 bytes");
    put_piece(&b, "a", 1, 0, 1);
    refused(&b, "the model has no piece of type 'unknown'");
    put_piece(&b, "<unk>", 5, 0, 2);
    put_piece(&b, "a", 1, -1, 1);
    refused(&b, "piece 2: the same text as piece 0");
    b.len = 0;
    put_piece(&b, "<unk>", 5, 0, 2);
    put_piece(&b, "<unk2>", 6, 0, 2);
    refused(&b, "piece 1: a second one of type unknown");
    b.len = 0;
    put_piece(&b, "<unk>", 5, 0, 2);
    put_piece(&b, "<0x4g>", 6, 0, 6);
    refused(&b, "piece 1: of type byte, but not");
    b.len = 0;
    put_piece(&b, "<unk>", 5, 0, 2);
    put_piece(&b, "<0x41>", 6, 0, 6);
    refused(&b, "piece 1: of type byte, but byte_fallback is off");
    put_number(&spec, 35, 1);
    put_bytes(&b, 2, spec.p, spec.len);
    refused(&b, "no piece '<0x00>'");
    b.len = 0;
    put_piece(&b, "<unk>", 5, 0, 2);
    refused(&b, "without a normal piece");
    put_piece(&b, "a\0b", 3, 0, 1);
    refused(&b, "piece 1: it contains a NUL");
    b.len = 0;
    put_piece(&b, "<unk>", 5, 0, 2);
    put_piece(&b, "a\0b", 3, 0, 4);
    refused(&b, "a user-defined symbol with a NUL");
    memset(text, 'a', sizeof text);
    b.len = spec.len = 0;
    put_number(&spec, 3, 2);
    put_bytes(&b, 2, spec.p, spec.len);
    put_piece(&b, "<unk>", 5, 0, 2);
    put_piece(&b, text, sizeof text, 0, 1);
    refused(&b, "has 4097 bytes");
    b.len = spec.len = 0; /* every way to merge each of these: billions of steps */
    put_number(&spec, 3, 2);
    put_bytes(&b, 2, spec.p, spec.len);
    put_piece(&b, "<unk>", 5, 0, 2);
    for (size_t n = 1; n < sizeof text; n++)
        put_piece(&b, text, n, -(float)n, 1);
    refused(&b, "");
    buf_free(&b);
    buf_free(&spec);
}

static void test_hostile_charsmaps(void **state)
{
    static const struct {
        uint32_t unit0, unit1, n_units;
        const char *why;
    } bad[] = {
        { 0xFFFFFC00u, 0, 512, "points outside" }, /* children beyond the array */
        { 256 << 10 | 256, 0, 512, "points outside" }, /* a leaf that is no offset: 0 */
        { 0, 0, 1, "points outside" },             /* fewer units than a block */
    };

    (void)state;
    for (size_t k = 0; k < N_OF(bad); k++) {
        static uint32_t unit[512];
        struct buf b = { 0 }, map = { 0 }, spec = { 0 };
        uint32_t bytes = bad[k].n_units * 4;

        for (size_t i = 0; i < 512; i++)
            unit[i] = 0x80000000u | 99; /* as a leaf: beyond the pool */
        unit[0] = bad[k].unit0;
        unit[1] = bad[k].unit1;
        put_le(&bytes, bytes, 4);
        add(&map, &bytes, 4);
        add(&map, unit, bad[k].n_units * 4);
        add(&map, "x\0y", 4);
        put_bytes(&spec, 2, map.p, map.len);
        put_piece(&b, "<unk>", 5, 0, 2);
        put_piece(&b, "a", 1, 0, 1);
        put_bytes(&b, 3, spec.p, spec.len);
        refused(&b, bad[k].why);
        buf_free(&b);
        buf_free(&map);
        buf_free(&spec);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny_model),
        cmocka_unit_test(test_appending),
        cmocka_unit_test(test_random_models),
        cmocka_unit_test(test_large_vocabulary),
        cmocka_unit_test(test_trained_models),
        cmocka_unit_test(test_real_models_and_texts),
        cmocka_unit_test(test_hostile_models),
        cmocka_unit_test(test_hostile_charsmaps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
