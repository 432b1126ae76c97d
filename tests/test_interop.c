/* tests/test_interop.c - token files of other programs: there and back, each field spoilt. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "formats/tokens/dataset.h"
#include "formats/tokens/interop.h"
#include "formats/tokens/tokenlines.h"
#include "prep/export.h"
#include "prep/import.h"
#include "tests/docs.h"

enum { DOCS = 40, EOS = 2 };
static struct made made;
static char folder[64], out[128], set[128], back[128];

static int set_up(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/test_interop-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    snprintf(out, sizeof out, "%s/x.out", folder);
    snprintf(set, sizeof set, "%s/set.shard", folder);
    snprintf(back, sizeof back, "%s/back", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return dir_remove(folder, NULL);
}

/* Made documents that end with EOS, which is nowhere else in them. Every 7th is empty. */
static void make_set(uint32_t vocab)
{
    struct token_info info = made_info(vocab);
    struct shard_writer *w;
    struct err e = { 0 };
    int fd = open(set, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    assert_int_equal(shard_create(&w, fd, set, &info, folder, &e), 0);
    for (int i = 0; i < DOCS; i++) {
        make_doc(&made, i, 1, vocab, 500);
        for (int64_t k = 0; k < made.doc.n_ids; k++)
            made.ids[k] = k + 1 == made.doc.n_ids ? EOS : made.ids[k] < 3 ? 3 : made.ids[k];
        assert_int_equal(shard_write(w, &made.doc, &e), 0);
    }
    assert_int_equal(shard_finish(w, NULL, &e), 0);
    close(fd);
}

static struct export_sums export_it(enum token_format f, int64_t file_tokens)
{
    struct export_options o = { .format = f, .data = set, .out = out, .force = true,
                                .file_tokens = file_tokens };
    struct export_sums s = { 0 };
    struct err e = { 0 };

    if (export_data(&o, &s, &e) < 0)
        fail_msg("%s", e.msg);
    return s;
}

static int import_it(enum token_format f, const char *path, int64_t vocab, int64_t bos,
                     int64_t eos, struct err *e)
{
    struct import_options o = { .format = f, .vocab = vocab, .bos = bos, .eos = eos };
    struct pack_options po = { .folder = back, .shard_tokens = 1 << 20, .force = true };
    struct import *x;
    struct pack *p;
    int rc;

    memset(e, 0, sizeof *e);
    assert_int_equal(pack_open(&p, &po, e), 0);
    if ((rc = import_open(&x, &o, e)) == 0)
        rc = import_file(x, p, path, e);
    import_close(x);
    if (rc == 0)
        return pack_finish(p, NULL, e);
    pack_abandon(p);
    return rc;
}

/* What came back has the documents of the set, but for empty ones where 'no_empty'; with 'all'
 * masks, labels and text's figures too. */
static void compare(bool no_empty, bool all)
{
    struct dataset *a, *b;
    struct dataset_doc x, y;
    struct err e = { 0 };
    int64_t k = 0, tokens = 0;

    assert_int_equal(dataset_open(&a, set, NULL, 0, &e), 0);
    if (dataset_open(&b, back, NULL, 0, &e) < 0)
        fail_msg("%s", e.msg);
    assert_int_equal(dataset_tokens(a), dataset_tokens(b));
    for (int64_t i = 0; i < DOCS; i++) {
        int32_t ids[2][MADE_MAX_IDS];
        uint8_t mask[2][MADE_MAX_IDS];
        assert_int_equal(dataset_doc(a, i, &x, &e), 0);
        if (no_empty && x.n_ids == 0)
            continue;
        assert_int_equal(dataset_doc(b, k++, &y, &e), 0);
        assert_int_equal(x.n_ids, y.n_ids);
        assert_int_equal(dataset_read(a, x.start, x.n_ids, ids[0], mask[0], &e), 0);
        assert_int_equal(dataset_read(b, y.start, x.n_ids, ids[1], mask[1], &e), 0);
        assert_memory_equal(ids[0], ids[1], (size_t)x.n_ids * sizeof **ids);
        tokens += x.n_ids;
        if (!all)
            continue;
        assert_memory_equal(mask[0], mask[1], (size_t)x.n_ids);
        assert_string_equal(x.source, y.source);
        assert_string_equal(x.name, y.name);
        assert_true(x.text_hash == y.text_hash && x.text_bytes == y.text_bytes &&
                    x.text_words == y.text_words);
    }
    assert_int_equal(dataset_docs(b), k);
    assert_int_equal(dataset_tokens(b), tokens);
    assert_true(!all || dataset_masked(a) == dataset_masked(b));
    dataset_close(a);
    dataset_close(b);
}

static void there_and_back(uint32_t vocab)
{
    struct export_sums s;
    struct err e;

    make_set(vocab);
    s = export_it(FORMAT_NDJSON, 0);
    assert_true(s.docs == DOCS && s.lost_masked == 0 && s.lost_bounds == 0 &&
                s.lost_labels == 0);
    if (import_it(FORMAT_NDJSON, out, 0, -1, -1, &e) < 0)
        fail_msg("%s", e.msg);
    compare(false, true);
    s = export_it(FORMAT_MEGATRON, 0);
    assert_true(s.files == 2 && s.lost_masked > 0 && s.lost_bounds == 0 &&
                s.lost_labels == DOCS);
    if (import_it(FORMAT_MEGATRON, out, vocab, -1, EOS, &e) < 0)
        fail_msg("%s", e.msg);
    compare(false, false);
    s = export_it(FORMAT_LLMC, 1 << 20);
    assert_true(s.files == 1 && s.lost_masked > 0 && s.lost_bounds == DOCS - 1);
    if (import_it(FORMAT_LLMC, out, vocab, -1, EOS, &e) < 0)
        fail_msg("%s", e.msg);
    compare(true, false);
    if (vocab > 65536)
        return;
    s = export_it(FORMAT_U16, 0);
    assert_true(s.files == 1 && s.lost_masked > 0 && s.lost_bounds == DOCS - 1);
    if (import_it(FORMAT_U16, out, vocab, -1, EOS, &e) < 0)
        fail_msg("%s", e.msg);
    compare(true, false);
}

static void test_there_and_back(void **state)
{
    (void)state;
    there_and_back(32000);
    there_and_back(65530); /* Megatron's int32, our and llm.c's 16 bits */
    there_and_back(128256);
}

/* One file becomes many, of whole documents; what an earlier export left behind them goes. */
static void test_many_files(void **state)
{
    struct export_options o = { .format = FORMAT_LLMC, .data = set, .file_tokens = 1000 };
    char *path = path_join(folder, "y.v1/part.bin"), name[160];
    struct export_sums s;
    struct import_options io = { .format = FORMAT_LLMC, .vocab = 32000, .bos = -1, .eos = EOS };
    struct pack_options po = { .folder = back, .shard_tokens = 1 << 20 };
    struct import *x;
    struct pack *p;
    struct err e = { 0 };

    (void)state;
    make_set(32000);
    snprintf(name, sizeof name, "%s/y.v1", folder);
    assert_int_equal(dir_make(name, &e), 0);
    o.out = path;
    assert_int_equal(export_data(&o, &s, &e), 0);
    assert_true(s.files > 5);
    assert_int_equal(pack_open(&p, &po, &e), 0);
    assert_int_equal(import_open(&x, &io, &e), 0);
    for (int i = 0; i < s.files; i++) {
        snprintf(name, sizeof name, "%s/y.v1/part_%06d.bin", folder, i);
        if (import_file(x, p, name, &e) < 0)
            fail_msg("%s", e.msg);
    }
    assert_int_equal(pack_finish(p, NULL, &e), 0);
    import_close(x);
    compare(true, false);
    assert_int_equal(export_data(&o, &s, &e), E_CREATE);
    o.file_tokens = 4000;
    o.force = true;
    assert_int_equal(export_data(&o, &s, &e), 0);
    snprintf(name, sizeof name, "%s/y.v1/part_%06d.bin", folder, (int)s.files - 1);
    assert_true(path_exists(name));
    snprintf(name, sizeof name, "%s/y.v1/part_%06d.bin", folder, (int)s.files);
    assert_false(path_exists(name));
    free(path);
}

/* A document of 9 ids in files of 4, and cuts before an id. */
static void test_cuts(void **state)
{
    static const unsigned char raw[] = { 7, 0, 1, 0, 5, 0, 6, 0, 1, 0, 1, 0, 9, 0 };
    static const int64_t want[] = { 1, 3, 1, 2 };
    struct dataset *d;
    struct dataset_doc doc;
    struct err e = { 0 };

    (void)state;
    assert_int_equal(file_replace(out, raw, sizeof raw, &e), 0);
    for (int both = 0; both < 2; both++) {
        assert_int_equal(import_it(FORMAT_U16, out, 0, 1, both ? 1 : -1, &e), 0);
        assert_int_equal(dataset_open(&d, back, NULL, 0, &e), 0);
        assert_int_equal(dataset_docs(d), 4);
        for (int i = 0; i < 4; i++) {
            assert_int_equal(dataset_doc(d, i, &doc, &e), 0);
            assert_int_equal(doc.n_ids, want[i]);
        }
        assert_true(dataset_info(d)->vocab == 65536 && dataset_info(d)->bos == 1);
        dataset_close(d);
    }
    assert_int_equal(import_it(FORMAT_U16, out, 0, -1, 1, &e), 0);
    assert_int_equal(dataset_open(&d, back, NULL, 0, &e), 0);
    assert_int_equal(dataset_docs(d), 4); /* 7 1, 5 6 1, 1, 9 */
    assert_int_equal(dataset_doc(d, 1, &doc, &e), 0);
    assert_int_equal(doc.n_ids, 3);
    dataset_close(d);
    assert_int_equal(import_it(FORMAT_U16, out, 0, -1, -1, &e), 0);
    assert_int_equal(dataset_open(&d, back, NULL, 0, &e), 0);
    assert_int_equal(dataset_docs(d), 1);
    dataset_close(d);
    assert_int_equal(import_it(FORMAT_U16, out, 9, -1, -1, &e), E_DATA);
    assert_non_null(strstr(e.msg, "token 6 at byte 12 is id 9"));
    assert_int_equal(import_it(FORMAT_U16, out, 9, 9, -1, &e), E_CONFIG);
}

static void expect(int rc, const struct err *e, const char *why, size_t i)
{
    if (rc != E_DATA || !strstr(e->msg, why))
        fail_msg("case %zu: %d, '%s' lacks '%s'", i, rc, e->msg, why);
}

static void test_spoilt_llmc(void **state)
{
    static const struct { int at; uint64_t v; const char *why; } spoilt[] = {
        { 0, 20240521, "magic 20240521 at byte 0" }, { 4, 7, "version 7 at byte 4" },
        { 8, 4, "4 tokens of 2 bytes at byte 8" }, { 8, 0xffffffff, "4294967295 tokens" },
        { 0, 20240801, "version 1 at byte 4, must be 7" },
    };
    unsigned char b[LLMC_HEADER_BYTES + 6];
    struct interop f;
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof spoilt / sizeof *spoilt; i++) {
        memset(b, 0, sizeof b);
        llmc_header(b, 32000, 3);
        assert_int_equal(llmc_parse(&f, b, sizeof b, &e), 0);
        assert_int_equal(f.n_ids, 3);
        put_le(b + spoilt[i].at, spoilt[i].v, 4);
        expect(llmc_parse(&f, b, sizeof b, &e), &e, spoilt[i].why, i);
    }
    llmc_header(b, 32000, 3);
    expect(llmc_parse(&f, b, sizeof b - 1, &e), &e, "do not fit the 5 bytes", 0);
    expect(llmc_parse(&f, b, 1000, &e), &e, "less than llm.c's header", 0);
    expect(raw_parse(&f, b, 3, &e), &e, "an odd number", 0);
}

/* Two documents of one and two sequences: 2, 1 and 3 ids. */
static size_t make_index(unsigned char *p)
{
    megatron_header(p, 32000, 3, 2);
    p += MEGATRON_HEADER_BYTES;
    put_le(p, 2, 4), put_le(p + 4, 1, 4), put_le(p + 8, 3, 4);
    put_le(p + 12, 0, 8), put_le(p + 20, 4, 8), put_le(p + 28, 6, 8);
    put_le(p + 36, 0, 8), put_le(p + 44, 1, 8), put_le(p + 52, 3, 8);
    return MEGATRON_HEADER_BYTES + 60;
}

static void test_spoilt_megatron(void **state)
{
    static const struct { int at, n; uint64_t v; const char *why; } spoilt[] = {
        { 0, 1, 'm', "do not begin with MMIDIDX" },
        { 8, 1, 1, "do not begin" },
        { 9, 8, 2, "version 2 at byte 9" },
        { 17, 1, 6, "floating point" },
        { 17, 1, 0, "type 0 at byte 17" },
        { 17, 1, 255, "unknown" },
        { 17, 1, 4, "pointer of sequence 1" },
        { 18, 8, 4, "4 sequences and 3 document bounds at byte 18" },
        { 18, 8, 1ull << 61, "at byte 18" },
        { 26, 8, 0, "0 document bounds" },
        { 26, 8, 1ull << 62, "at byte 18" },
        { 34, 4, 7, "length of sequence 0 at byte 34" },
        { 34, 4, 0xffffffff, "length of sequence 0 at byte 34 of the index is -1" },
        { 42, 4, 2, "the index tells of 10 bytes" },
        { 46, 8, 2, "pointer of sequence 0 at byte 46" },
        { 54, 8, 1ull << 63, "pointer of sequence 1 at byte 54" },
        { 70, 8, 1, "document 0 at byte 70" },
        { 78, 8, 4, "document 1 at byte 78" },
        { 86, 8, 2, "end at sequence 2 of 3" },
        { 86, 8, 0, "document 2 at byte 86" },
    };
    unsigned char p[128], ids[12] = { 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0 };
    struct interop f;
    struct err e;
    int64_t at, n;
    size_t size = make_index(p);

    (void)state;
    assert_int_equal(megatron_parse(&f, p, size, ids, sizeof ids, &e), 0);
    assert_int_equal(f.n_docs, 2);
    interop_doc(&f, 0, &at, &n);
    assert_true(at == 0 && n == 2);
    interop_doc(&f, 1, &at, &n);
    assert_true(at == 2 && n == 4);
    for (size_t i = 0; i < sizeof spoilt / sizeof *spoilt; i++) {
        make_index(p);
        put_le(p + spoilt[i].at, spoilt[i].v, spoilt[i].n);
        expect(megatron_parse(&f, p, size, ids, sizeof ids, &e), &e,
               spoilt[i].why, i);
    }
    make_index(p);
    put_le(p + 18, size, 8); /* as many modes as bytes, and bounds beyond them */
    put_le(p + 26, 1ull << 62, 8);
    expect(megatron_parse(&f, p, size, ids, sizeof ids, &e), &e, "at byte 18", 0);
    make_index(p);
    expect(megatron_parse(&f, p, size, ids, 10, &e), &e, "length of sequence 2", 0);
    expect(megatron_parse(&f, p, size - 1, ids, 12, &e), &e, "are not its 93 bytes", 0);
    memset(p + size, 0, 3); /* modes, all of them text */
    assert_int_equal(megatron_parse(&f, p, size + 3, ids, sizeof ids, &e), 0);
    p[size + 1] = 1;
    expect(megatron_parse(&f, p, size + 3, ids, sizeof ids, &e), &e, "sequence 1 is of mode 1",
           0);
}

/* Ids of every type; a negative one is refused by its value. */
static void test_types(void **state)
{
    static const struct { uint32_t width; bool is_signed; } t[] = {
        { 1, false }, { 1, true }, { 2, false }, { 2, true }, { 4, true }, { 8, true }
    };
    unsigned char b[24];
    uint32_t ids[3];
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        struct interop f = { .ids = b, .width = t[i].width, .is_signed = t[i].is_signed,
                             .n_ids = 3, .n_docs = 1 };
        for (int k = 0; k < 3; k++)
            put_le(b + t[i].width * (unsigned)k, 100 + (unsigned)k, (int)t[i].width);
        assert_int_equal(interop_load(&f, 1, 2, 200, ids, &e), 0);
        assert_true(ids[0] == 101 && ids[1] == 102);
        assert_int_equal(interop_load(&f, 0, 3, 102, ids, &e), E_DATA);
        assert_non_null(strstr(e.msg, "token 2 at byte"));
        put_le(b + t[i].width, UINT64_MAX, (int)t[i].width);
        assert_int_equal(interop_load(&f, 0, 3, t[i].is_signed ? INT32_MAX : 200, ids, &e),
                         E_DATA);
        assert_non_null(strstr(e.msg, "token 1 at byte"));
    }
}

static void test_spoilt_lines(void **state)
{
    static const struct { const char *line, *why; } spoilt[] = {
        { "{\"tokens\":3}", "'tokens' is a number" },
        { "{\"tokens\":[-1]}", "token 0 of" },
        { "{\"tokens\":[1,2.5]}", "token 1 of" },
        { "{\"tokens\":[4294967296]}", "token 0 of" },
        { "{\"tokens\":[1,\"2\"]}", "token 1 of" },
        { "{\"tokens\":[1,[2]]}", "token 1 of" },
        { "{\"tokens\":[99999999999999999999]}", "token 0 of" },
        { "{\"tokens\":[1,]}", "JSON" },
        { "{\"tokens\":[1],\"mask\":{}}", "'mask' is" },
        { "{\"mask\":[[0,1]]}", "no key 'tokens'" },
        { "{\"tokens\":[1],\"mask\":[[0]]}", "run 0 of 'mask'" },
        { "{\"tokens\":[1],\"mask\":[0,1]}", "run 0 of 'mask'" },
        { "{\"tokens\":[1],\"text_bytes\":-1}", "'text_bytes' is not a whole number" },
        { "{\"tokens\":[1],\"text_hash\":\"12\"}", "16 hex digits" },
        { "{\"tokens\":[1],\"meta\":{\"source\":3}}", "'meta.source' is a number" },
        { "{\"tokens\":[1],\"meta\":{\"name\":\"\\u0000\"}}", "'meta.name'" },
        { "{\"end\":{\"documents\":1}}", "'end' lacks" },
        { "{\"end\":2}", "'end' is a number" },
        { "{\"format\":\"other\",\"version\":1}", "format 'other'" },
        { "{\"format\":\"longlora-tokens\",\"version\":2}", "version 2" },
        { "{\"format\":\"longlora-tokens\",\"version\":1}", "tokenizer" },
        { "{}", "no key 'tokens'" },
        { "[1]", "JSON" },
        { "{\"tokens\":[1]", "JSON" },
    };
    struct tokenline_read r = { 0 };
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof spoilt / sizeof *spoilt; i++) {
        memset(&e, 0, sizeof e);
        expect(tokenline_read(&r, spoilt[i].line, strlen(spoilt[i].line), "f", &e), &e,
               spoilt[i].why, i);
    }
    static const char odd[] = " { \"x\" : [ {} ] , \"tokens\" : [ 1 , 4294967295 ] , "
                              "\"mask\" : [ ] , \"meta\" : \"s\" } ";
    assert_int_equal(tokenline_read(&r, odd, strlen(odd), "f", &e), TOKENLINE_DOC);
    assert_true(r.doc.n_ids == 2 && r.doc.ids[1] == UINT32_MAX && r.doc.n_runs == 0);
    tokenline_free(&r);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_there_and_back), TEST(test_many_files), TEST(test_cuts),
        TEST(test_spoilt_llmc), TEST(test_spoilt_megatron), TEST(test_types),
        TEST(test_spoilt_lines),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
