/* tests/test_shard.c - one shard: round trip, and every way to spoil one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/hash.h"
#include "formats/tokens/shard.h"
#include "tests/docs.h"

static struct made made;

/* A shard of n documents: *bytes is malloc'ed. */
static size_t make_shard(unsigned char **bytes, int n, uint32_t vocab, int64_t max_ids)
{
    struct token_info info = made_info(vocab);
    struct shard_writer *w;
    struct shard_sums sums;
    struct err e = {0};
    int fd = memfd_create("shard", 0);
    size_t size;
    char hex[33];

    assert_int_equal(shard_create(&w, fd, "test", &info, NULL, &e), 0);
    for (int i = 0; i < n; i++) {
        make_doc(&made, i, 1, vocab, max_ids);
        assert_int_equal(shard_write(w, &made.doc, &e), 0);
    }
    assert_int_equal(shard_finish(w, &sums, &e), 0);
    size = (size_t)lseek(fd, 0, SEEK_CUR);
    assert_int_equal(sums.bytes, size);
    assert_int_equal(sums.docs, n);
    *bytes = malloc(size);
    assert_int_equal(pread(fd, *bytes, size, 0), (ssize_t)size);
    hash_hex(XXH3_128bits(*bytes, size), hex);
    assert_string_equal(sums.hash, hex);
    close(fd);
    return size;
}

/* Parses and verifies a copy of exactly n bytes, so that ASan sees one byte too many. */
static int check_copy(const unsigned char *bytes, size_t n, struct err *e)
{
    unsigned char *copy = malloc(n ? n : 1);
    struct shard s;
    int rc;

    memset(e, 0, sizeof *e);
    memcpy(copy, bytes, n);
    if ((rc = shard_parse(&s, copy, n, e)) == 0)
        rc = shard_verify(&s, NULL, e);
    free(copy);
    return rc;
}

static void round_trip(uint32_t vocab, int n, int64_t max_ids)
{
    struct token_info info = made_info(vocab);
    unsigned char *b;
    size_t nbytes = make_shard(&b, n, vocab, max_ids);
    uint32_t ids[MADE_MAX_IDS];
    struct mask_run r;
    struct shard_doc d;
    struct shard s;
    struct err e = {0};
    int64_t tokens = 0, masked = 0;
    char hex[33];

    assert_int_equal(shard_parse(&s, b, nbytes, &e), 0);
    assert_int_equal(shard_verify(&s, NULL, &e), 0);
    hash_hex(XXH3_128bits(b, nbytes), hex);
    assert_int_equal(shard_verify(&s, hex, &e), 0);
    hex[31] ^= 1;
    assert_int_equal(shard_verify(&s, hex, &e), E_DATA);
    assert_non_null(strstr(e.msg, "not the file that the manifest lists"));
    assert_int_equal(info_agree(&s.info, "a", &info, "b", &e), 0);
    assert_int_equal(s.n_docs, n);
    for (int i = 0; i < n; i++) {
        make_doc(&made, i, 1, vocab, max_ids);
        shard_doc(&s, i, &d);
        assert_int_equal(d.start, tokens);
        assert_int_equal(d.n_ids, made.doc.n_ids);
        assert_int_equal(d.n_runs, made.doc.n_runs);
        assert_int_equal(d.text_hash, made.doc.text_hash);
        assert_int_equal(d.text_bytes, made.doc.text_bytes);
        assert_int_equal(d.text_words, made.doc.text_words);
        assert_string_equal(d.source, made.doc.source);
        assert_string_equal(d.name, made.doc.name);
        shard_ids(&s, d.start, d.n_ids, ids);
        assert_memory_equal(ids, made.ids, (size_t)d.n_ids * 4);
        for (int64_t k = 0; k < d.n_runs; k++) {
            shard_run(&s, d.first_run + k, &r);
            assert_memory_equal(&r, &made.runs[k], sizeof r);
            masked += r.count;
        }
        for (int64_t k = 0; k < d.n_ids; k += 97)
            assert_int_equal(shard_doc_at(&s, d.start + k), i);
        tokens += d.n_ids;
    }
    assert_int_equal(s.n_tokens, tokens);
    assert_int_equal(s.masked, masked);
    free(b);
}

static void test_round_trip_u16(void **state) { (void)state; round_trip(32000, 60, 4000); }
static void test_round_trip_u32(void **state) { (void)state; round_trip(128256, 60, 4000); }
static void test_vocab_65536(void **state) { (void)state; round_trip(65536, 9, 100); }
/* 1.5 M tokens of 4 bytes: several blocks; 40,000 table entries: the spools reach the disk */
static void test_many_blocks(void **state) { (void)state; round_trip(128256, 40000, 90); }
static void test_no_documents(void **state) { (void)state; round_trip(100, 0, 1); }

static void test_cut_at_every_byte(void **state)
{
    unsigned char *b;
    size_t n = make_shard(&b, 5, 100, 20);
    struct err e;

    (void)state;
    for (size_t k = 0; k < n; k++)
        assert_int_equal(check_copy(b, k, &e), E_DATA);
    assert_int_equal(check_copy(b, n, &e), 0);
    b = realloc(b, n + 128);
    memcpy(b + n, b + n - 128, 128); /* grown, with a footer at its end */
    assert_int_equal(check_copy(b, n + 128, &e), E_DATA);
    assert_int_equal(check_copy(b, n + 1, &e), E_DATA);
    free(b);
}

static void test_every_bit_flip(void **state)
{
    unsigned char *b;
    size_t n = make_shard(&b, 5, 100, 20);
    struct err e;

    (void)state;
    for (size_t bit = 0; bit < 8 * n; bit++) {
        b[bit / 8] ^= (unsigned char)(1u << bit % 8);
        if (check_copy(b, n, &e) != E_DATA)
            fail_msg("bit %zu of byte %zu", bit % 8, bit / 8);
        b[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    assert_int_equal(check_copy(b, n, &e), 0);
    free(b);
}

/* Makes every checksum right again, after the contents were spoilt. */
static void reseal(unsigned char *b, size_t n, const struct shard *s)
{
    unsigned char *f = b + n - 128;

    put_le(b + 4092, crc32c(0, b, 4092), 4);
    put_le(f + 72, crc32c(0, b, 4092), 4);
    put_le(f + 76, crc32c(0, s->docs, (size_t)s->n_docs * 64), 4);
    put_le(f + 80, crc32c(0, s->runs, (size_t)s->n_runs * 16), 4);
    put_le(f + 84, crc32c(0, s->sources, (size_t)s->n_sources * 280), 4);
    put_le(f + 88, crc32c(0, s->names, s->names_bytes), 4);
    put_le(f + 92, crc32c(0, s->crcs, (size_t)s->n_blocks * 4), 4);
    put_le(f + 116, crc32c(0, f, 116), 4);
}

enum part { HEAD, TOKENS, DOCS, RUNS, SOURCES, NAMES, FOOT };
/* Of a shard of 5 documents, the 4th empty, the 1st with 3 runs; all checksums made right. */
static const struct { enum part part; int at, bytes; uint64_t v; const char *why; } spoilt[] = {
    { HEAD, 0, 1, 'X', "first 8 bytes are damaged" }, { HEAD, 8, 4, 2, "version 2" },
    { HEAD, 12, 4, 4097, "header bytes 4097" }, { HEAD, 16, 4, 4, "width 4" },
    { HEAD, 20, 4, 0, "vocab 0" }, { HEAD, 20, 4, 65537, "width 2" },
    { HEAD, 24, 4, 100, "bos 100" }, { HEAD, 28, 4, 100, "eos 100" },
    { HEAD, 32, 4, 8, "flags" }, { HEAD, 36, 4, 0, "block of 0" },
    { HEAD, 36, 4, 4097, "block of 4097" }, { HEAD, 36, 4, 2048, "block of 2048" },
    { HEAD, 36, 4, 0x80000000u, "block of" }, { HEAD, 40, 1, 'z', "fingerprint" },
    { HEAD, 72, 1, 0x80, "tokenizer name" }, { HEAD, 328, 1, 1, "not zero" },
    { HEAD, 4091, 1, 1, "not zero" },
    { DOCS, 0, 8, 1, "'start' of document 0" }, { DOCS, 64, 8, 0, "'start' of document 1" },
    { DOCS, 8, 8, 1000000, "'ids' of document 0" }, { DOCS, 8, 8, UINT64_MAX, "'ids'" },
    { DOCS, 4 * 64 + 8, 8, 1, "documents' tokens" },
    { DOCS, 16, 8, 1, "'first run' of document 0" },
    { DOCS, 4 * 64 + 16, 8, 100, "'first run' of document 3" },
    { DOCS, 64 + 16, 8, UINT64_MAX, "'first run' of document 0" },
    { DOCS, 24, 8, ((uint64_t)1 << 40) + 1, "'text bytes'" },
    { DOCS, 24, 8, 81, "documents' text bytes" }, { DOCS, 32, 8, 1000, "'text words'" },
    { DOCS, 32, 8, 0, "documents' text words" }, { DOCS, 48, 8, 1, "'name' of document 0" },
    { DOCS, 64 + 48, 8, 1 << 20, "'name' of document 1" },
    { DOCS, 56, 4, 3, "'source' of document 0" }, { DOCS, 60, 4, 1, "'zero'" },
    { RUNS, 8, 8, 0, "run 0 does not" }, { RUNS, 0, 8, 5, "run 1 does not" },
    { RUNS, 16, 8, 2, "run 1 does not" }, { RUNS, 8, 8, UINT64_MAX, "run 0 does not" },
    { RUNS, 0, 8, UINT64_MAX, "run 0 does not" }, { RUNS, 8, 8, 3, "documents' masked" },
    { SOURCES, 0, 8, 100, "sources have" }, { SOURCES, 8, 8, 1000000, "sources have" },
    { SOURCES, 16, 8, UINT64_MAX, "" }, { SOURCES, 24, 1, 0xFF, "source 0 has a name" },
    { SOURCES, 279, 1, 1, "source 0 has a name" },
    { NAMES, 0, 1, 0xFF, "name of document 0" }, { NAMES, 0, 1, 0, "'name' of document 1" },
    { FOOT, 0, 8, 1000000, "1000000 tokens" }, { FOOT, 0, 8, UINT64_MAX, "tokens" },
    { FOOT, 8, 8, 4, "4 documents" }, { FOOT, 8, 8, (uint64_t)1 << 58, "documents" },
    { FOOT, 16, 8, 4, "4 runs" }, { FOOT, 16, 8, (uint64_t)1 << 60, "runs" },
    { FOOT, 24, 8, 2, "2 sources" }, { FOOT, 24, 8, 5000, "5000 sources" },
    { FOOT, 32, 8, 4096, "4096 bytes of names" }, { FOOT, 40, 8, 1, "text bytes" },
    { FOOT, 48, 8, 1, "text words" }, { FOOT, 56, 8, 1, "masked" },
    { FOOT, 64, 8, 1, "token hash" }, { FOOT, 96, 8, 1, "has 1 bytes" },
    { FOOT, 104, 1, 1, "not zero" }, { FOOT, 115, 1, 1, "not zero" },
    { FOOT, 120, 1, 'X', "no footer" },
    { TOKENS, 0, 2, 100, "does not match its checksum" }, { TOKENS, 4000, 1, 1, "gaps" },
};

static void test_each_spoilt_field_is_named(void **state)
{
    unsigned char *b, *old;
    size_t n = make_shard(&b, 5, 100, 20), from[7];
    struct shard s;
    struct err e = {0};

    (void)state;
    assert_int_equal(shard_parse(&s, b, n, &e), 0);
    from[HEAD] = 0;
    from[TOKENS] = 4096;
    from[DOCS] = (size_t)(s.docs - b);
    from[RUNS] = (size_t)(s.runs - b);
    from[SOURCES] = (size_t)(s.sources - b);
    from[NAMES] = (size_t)(s.names - b);
    from[FOOT] = n - 128;
    old = malloc(n);
    memcpy(old, b, n);
    for (size_t i = 0; i < sizeof spoilt / sizeof *spoilt; i++) {
        put_le(b + from[spoilt[i].part] + spoilt[i].at, spoilt[i].v, spoilt[i].bytes);
        reseal(b, n, &s);
        assert_int_equal(check_copy(b, n, &e), E_DATA);
        if (!strstr(e.msg, spoilt[i].why))
            fail_msg("case %zu: '%s' lacks '%s'", i, e.msg, spoilt[i].why);
        memcpy(b, old, n);
    }
    free(old);
    free(b);
}

/* Checksums that agree do not make an id good that the model has no embedding for. */
static void test_id_beyond_vocab(void **state)
{
    unsigned char *b;
    size_t n = make_shard(&b, 5, 100, 20);
    struct shard s;
    struct err e = {0};

    (void)state;
    assert_int_equal(shard_parse(&s, b, n, &e), 0);
    put_le(b + 4096 + 2 * 7, 100, 2);
    put_le(b + (s.crcs - b), crc32c(0, s.tokens, (size_t)s.n_tokens * 2), 4);
    reseal(b, n, &s);
    assert_int_equal(check_copy(b, n, &e), E_DATA);
    assert_non_null(strstr(e.msg, "token 7 is id 100"));
    free(b);
}

/* Counts that were moved from one source to another: the sums agree, verification does not. */
static void test_source_counts_verified(void **state)
{
    unsigned char *b, *p;
    size_t n = make_shard(&b, 5, 100, 20);
    struct shard s;
    struct err e = {0};

    (void)state;
    assert_int_equal(shard_parse(&s, b, n, &e), 0);
    assert_true(s.n_sources >= 2);
    p = b + (s.sources - b);
    put_le(p + 8, get_le(p + 8, 8) - 1, 8);
    put_le(p + 280 + 8, get_le(p + 280 + 8, 8) + 1, 8);
    reseal(b, n, &s);
    assert_int_equal(check_copy(b, n, &e), E_DATA);
    assert_non_null(strstr(e.msg, "counts of source"));
    free(b);
}

static void test_too_many_sources(void **state)
{
    struct source_table t = {0};
    struct err e = {0};
    char name[32];

    (void)state;
    for (int i = 0; i < SHARD_MAX_SOURCES; i++) {
        snprintf(name, sizeof name, "s%d", i);
        assert_int_equal(source_add(&t, name, 1, 1, 1, &e), i);
    }
    assert_int_equal(source_add(&t, "s17", 1, 1, 1, &e), 17);
    assert_int_equal(source_add(&t, "one more", 1, 1, 1, &e), E_DATA);
    assert_int_equal(source_add(&t, "s17", 1, INT64_MAX, 1, &e), E_DATA);
    source_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip_u16),
        cmocka_unit_test(test_round_trip_u32),
        cmocka_unit_test(test_vocab_65536),
        cmocka_unit_test(test_many_blocks),
        cmocka_unit_test(test_no_documents),
        cmocka_unit_test(test_cut_at_every_byte),
        cmocka_unit_test(test_every_bit_flip),
        cmocka_unit_test(test_each_spoilt_field_is_named),
        cmocka_unit_test(test_id_beyond_vocab),
        cmocka_unit_test(test_source_counts_verified),
        cmocka_unit_test(test_too_many_sources),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
