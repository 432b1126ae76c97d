/* tests/test_stream.c - the token stream: round trip, and every way to spoil one. With
 * arguments it is a producer for the tests of lpack: SEED DOCS VOCAB [MAX_IDS [US [cut]]]. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "tests/docs.h"

#define HEADER 332

static struct made made;

/* A stream of n documents in memory: *bytes is malloc'ed. */
static size_t make_stream(unsigned char **bytes, int n, uint32_t vocab, int64_t max_ids)
{
    struct token_info info = made_info(vocab);
    struct stream_writer *w;
    struct err e = {0};
    int fd = memfd_create("stream", 0);
    size_t size;

    assert_int_equal(stream_create(&w, fd, "test", &info, &e), 0);
    for (int i = 0; i < n; i++) {
        make_doc(&made, i, 1, vocab, max_ids);
        assert_int_equal(stream_write(w, &made.doc, &e), 0);
    }
    assert_int_equal(stream_finish(w, &e), 0);
    size = (size_t)lseek(fd, 0, SEEK_CUR);
    *bytes = malloc(size);
    assert_int_equal(pread(fd, *bytes, size, 0), (ssize_t)size);
    close(fd);
    return size;
}

/* Reads a whole stream from bytes; 0 at a good END, or the code. *docs: how many came. */
static int read_bytes(const unsigned char *bytes, size_t n, int *docs, struct err *e)
{
    struct stream_reader *r;
    struct token_doc d;
    int rc, fd = memfd_create("stream", 0);

    *docs = 0;
    memset(e, 0, sizeof *e);
    assert_int_equal(write(fd, bytes, n), (ssize_t)n);
    lseek(fd, 0, SEEK_SET);
    if ((rc = stream_open(&r, fd, "test", e)) == 0) {
        while ((rc = stream_read(r, &d, e)) == 1)
            ++*docs;
        assert_int_equal(stream_read(r, &d, e), rc); /* stays as it ended */
        stream_close(r);
    }
    close(fd);
    return rc;
}

static void round_trip(uint32_t vocab)
{
    struct token_info info = made_info(vocab);
    struct stream_reader *r;
    struct token_doc d;
    struct err e = {0};
    unsigned char *b;
    size_t n = make_stream(&b, 100, vocab, MADE_MAX_IDS);
    int fd = memfd_create("stream", 0);

    assert_int_equal(file_write_all(fd, b, n, "test", &e), 0);
    lseek(fd, 0, SEEK_SET);
    assert_int_equal(stream_open(&r, fd, "test", &e), 0);
    assert_int_equal(info_agree(stream_info(r), "a", &info, "b", &e), 0);
    assert_string_equal(stream_info(r)->tokenizer, info.tokenizer);
    assert_true(stream_info(r)->adds_eos && !stream_info(r)->adds_bos);
    for (int i = 0; i < 100; i++) {
        make_doc(&made, i, 1, vocab, MADE_MAX_IDS);
        assert_int_equal(stream_read(r, &d, &e), 1);
        assert_true(same_doc(&d, &made.doc));
    }
    assert_int_equal(stream_read(r, &d, &e), 0);
    assert_int_equal(stream_read(r, &d, &e), 0);
    stream_close(r);
    close(fd);
    free(b);
}

static void test_round_trip_u16(void **state) { (void)state; round_trip(32000); }
static void test_round_trip_u32(void **state) { (void)state; round_trip(128256); }

static void test_no_documents(void **state)
{
    unsigned char *b;
    size_t n = make_stream(&b, 0, 100, 10);
    struct err e;
    int docs;

    (void)state;
    assert_int_equal(n, HEADER + 16 + 24 + 4);
    assert_int_equal(read_bytes(b, n, &docs, &e), 0);
    assert_int_equal(docs, 0);
    free(b);
}

static void test_cut_at_every_byte(void **state)
{
    unsigned char *b;
    size_t n = make_stream(&b, 4, 100, 20);
    struct err e;
    char at[64];
    int docs;

    (void)state;
    for (size_t k = 0; k < n; k++) {
        assert_int_equal(read_bytes(b, k, &docs, &e), E_DATA);
        snprintf(at, sizeof at, "stops at byte %zu", k);
        assert_non_null(strstr(e.msg, k ? at : "no token stream: it is empty"));
    }
    assert_int_equal(read_bytes(b, n, &docs, &e), 0);
    free(b);
}

static void test_every_bit_flip(void **state)
{
    unsigned char *b;
    size_t n = make_stream(&b, 4, 100, 20);
    struct err e;
    int docs;

    (void)state;
    for (size_t bit = 0; bit < 8 * n; bit++) {
        b[bit / 8] ^= (unsigned char)(1u << bit % 8);
        assert_int_equal(read_bytes(b, n, &docs, &e), E_DATA);
        b[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    assert_int_equal(read_bytes(b, n, &docs, &e), 0);
    free(b);
}

static void test_bytes_after_end(void **state)
{
    unsigned char *b;
    size_t n = make_stream(&b, 2, 100, 20);
    struct err e;
    int docs;

    (void)state;
    b = realloc(b, 2 * n);
    memcpy(b + n, b, n);
    assert_int_equal(read_bytes(b, n + 1, &docs, &e), E_DATA);
    assert_non_null(strstr(e.msg, "after END"));
    assert_int_equal(read_bytes(b, 2 * n, &docs, &e), E_DATA);
    free(b);
}

/* Puts value at a place and makes the checksum right again, so that only sense is wrong. */
static const struct { int at, bytes; uint64_t v; const char *why; } spoilt_header[] = {
    { 0, 1, 'X', "not a token stream" }, { 8, 4, 4, "version 4" }, { 8, 4, 0, "version 0" },
    { 12, 4, 333, "header bytes 333" }, { 16, 4, 4, "width 4" }, { 16, 4, 3, "width 3" },
    { 20, 4, 0, "vocab 0" }, { 20, 4, 0x80000000u, "vocab 2147483648" },
    { 20, 4, 70000, "width 2" }, { 24, 4, 100, "bos 100" }, { 24, 4, (uint32_t)-2, "bos -2" },
    { 28, 4, 100, "eos 100" }, { 32, 4, 4, "flags" }, { 28, 4, (uint32_t)-1, "flags" },
    { 36, 4, 1, "block 1" }, { 40, 1, 'G', "fingerprint" }, { 40, 1, 0, "fingerprint" },
    { 45, 1, 0, "fingerprint" }, { 72, 1, 0xFF, "tokenizer name" },
    { 327, 1, 1, "tokenizer name" },
};

static void test_spoilt_header_is_named(void **state)
{
    unsigned char *b, old[HEADER];
    size_t n = make_stream(&b, 1, 100, 20);
    struct err e;
    int docs;

    (void)state;
    memcpy(old, b, HEADER);
    for (size_t i = 0; i < sizeof spoilt_header / sizeof *spoilt_header; i++) {
        put_le(b + spoilt_header[i].at, spoilt_header[i].v, spoilt_header[i].bytes);
        put_le(b + 328, crc32c(0, b, 328), 4);
        assert_int_equal(read_bytes(b, n, &docs, &e), E_DATA);
        if (!strstr(e.msg, spoilt_header[i].why))
            fail_msg("case %zu: '%s' lacks '%s'", i, e.msg, spoilt_header[i].why);
        memcpy(b, old, HEADER);
    }
    free(b);
}

/* Places in the first frame, which begins at HEADER: document 0 has 20 ids and 3 runs. */
static const struct { int at, bytes; uint64_t v; const char *why; } spoilt_frame[] = {
    { 0, 4, 0x20434F45, "neither DOC nor END" }, { 4, 8, ((uint64_t)1 << 31) + 1, "at most 2 GiB" },
    { 4, 8, UINT64_MAX, "at most 2 GiB" }, { 4, 8, (uint64_t)1 << 31, "stops at byte" },
    { 16, 8, 21, "21 ids" }, { 16, 8, (uint64_t)1 << 63, "ids" }, { 24, 8, 4, "4 runs" },
    { 24, 8, UINT64_MAX / 16 + 2, "runs" }, { 40, 8, ((uint64_t)1 << 40) + 1, "text bytes" },
    { 40, 8, UINT64_MAX, "text bytes" }, { 48, 8, 81, "text words" },
    { 56, 2, 65535, "do not fit its" }, { 60, 1, 0, "source" }, { 60, 1, 0x80, "source" },
    { 70, 1, 0xC0, "name" }, { 70, 1, 0, "name" },
};

static void test_spoilt_frame_is_named(void **state)
{
    unsigned char *b, *old, *f;
    size_t n = make_stream(&b, 1, 100, 20), payload;
    struct err e;
    int docs;

    (void)state;
    old = malloc(n);
    memcpy(old, b, n);
    f = b + HEADER;
    payload = (size_t)get_le(f + 4, 8);
    for (size_t i = 0; i < sizeof spoilt_frame / sizeof *spoilt_frame; i++) {
        put_le(f + spoilt_frame[i].at, spoilt_frame[i].v, spoilt_frame[i].bytes);
        put_le(f + 12, crc32c(0, f, 12), 4);
        put_le(f + 16 + payload, crc32c(0, f + 16, payload), 4);
        assert_int_equal(read_bytes(b, n, &docs, &e), E_DATA);
        if (!strstr(e.msg, spoilt_frame[i].why))
            fail_msg("case %zu: '%s' lacks '%s'", i, e.msg, spoilt_frame[i].why);
        memcpy(b, old, n);
    }
    free(old);
    free(b);
}

static const struct { int at; uint64_t v; const char *why; } spoilt_end[] = {
    { 0, 3, "3 documents" }, { 8, 7, "7 tokens" }, { 16, 1, "hash" },
};

static void test_spoilt_end_is_named(void **state)
{
    unsigned char *b, *f, old[24];
    size_t n = make_stream(&b, 2, 100, 20);
    struct err e;
    int docs;

    (void)state;
    f = b + n - 28;
    memcpy(old, f, 24);
    for (size_t i = 0; i < 3; i++) {
        put_le(f + spoilt_end[i].at, spoilt_end[i].v, 8);
        put_le(f + 24, crc32c(0, f, 24), 4);
        assert_int_equal(read_bytes(b, n, &docs, &e), E_DATA);
        assert_non_null(strstr(e.msg, spoilt_end[i].why));
        memcpy(f, old, 24);
    }
    free(b);
}

static void test_frames_out_of_order(void **state)
{
    unsigned char *b, *swapped;
    size_t n = make_stream(&b, 2, 100, 20), one, two;
    struct err e;
    int docs;

    (void)state;
    one = 20 + (size_t)get_le(b + HEADER + 4, 8);
    two = 20 + (size_t)get_le(b + HEADER + one + 4, 8);
    swapped = malloc(n);
    memcpy(swapped, b, n);
    memcpy(swapped + HEADER, b + HEADER + one, two);
    memcpy(swapped + HEADER + two, b + HEADER, one);
    assert_int_equal(read_bytes(swapped, n, &docs, &e), E_DATA);
    assert_non_null(strstr(e.msg, "END's hash"));
    free(swapped);
    free(b);
}

static void count_doc(struct tally *t, const struct token_doc *d)
{
    struct tally_source *s;

    assert_int_equal(tally_of(t, d->source, &s, NULL), 0);
    s->docs++;
    s->tokens += d->n_ids;
}

/* RUN, 6 documents, a mark of inputs and keys after 3 of them, and a mark before END, which
 * counts 'more' too many. Returns the code of reading it as that version. */
static int read_marked(int more, int version, struct tally *sum, struct err *e)
{
    static const unsigned char keys[32] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };
    struct stream_input in[2] = { { "a/b.txt", 7, -5 }, { "\xff.txt", 0, INT64_MAX } };
    struct stream_run run = { 0, 0, 77, "format auto\nseed 0\n" };
    struct token_info info = made_info(100);
    struct stream_mark m = { .inputs = in, .n_inputs = 2, .keys = keys, .n_keys = 2 };
    struct stream_writer *w;
    struct stream_reader *r;
    struct stream_item it;
    unsigned char h[HEADER];
    int fd = memfd_create("stream", 0), kinds[16], n = 0;

    assert_int_equal(stream_create(&w, fd, "test", &info, e), 0);
    assert_int_equal(stream_run(w, &run, e), 0);
    for (int i = 0; i < 6; i++) {
        make_doc(&made, i, 1, 100, 20);
        assert_int_equal(stream_write(w, &made.doc, e), 0);
        count_doc(&m.tally, &made.doc);
        m.tally.v[0].dropped[DROP_NEAR] = 40 + i;
        if (i == 2) {
            assert_int_equal(stream_mark(w, &m, e), 0);
            tally_clear(&m.tally);
            m.n_keys = 0;
        }
    }
    m.tally.v[0].docs += more;
    m.tally.bad_files = 3;
    assert_int_equal(stream_mark(w, &m, e), 0);
    tally_free(&m.tally);
    assert_int_equal(stream_finish(w, e), 0);
    assert_int_equal(pread(fd, h, HEADER, 0), HEADER);
    put_le(h + 8, (uint64_t)version, 4);
    put_le(h + 328, crc32c(0, h, 328), 4);
    assert_int_equal(pwrite(fd, h, HEADER, 0), HEADER);
    lseek(fd, 0, SEEK_SET);
    assert_int_equal(stream_open(&r, fd, "test", e), 0);
    while (n < 16 && (kinds[n] = stream_next(r, &it, e)) > 0) {
        if (kinds[n] == STREAM_RUN) {
            assert_true(it.run.manifest == 77 && it.run.marks == 0);
            assert_string_equal(it.run.recipe, run.recipe);
        } else if (kinds[n] == STREAM_MARK) {
            assert_int_equal(it.mark.n_inputs, 2);
            assert_string_equal(it.mark.inputs[0].path, "a/b.txt");
            assert_string_equal(it.mark.inputs[1].path, "\xff.txt");
            assert_true(it.mark.inputs[0].bytes == 7 && it.mark.inputs[0].mtime_ns == -5);
            assert_int_equal(it.mark.n_keys, n == 4 ? 2 : 0);
            assert_true(n != 4 || mark_key(&it.mark, 1).low64 == 0);
            assert_true(n != 4 || mark_key(&it.mark, 0).high64 == UINT64_C(0x100F0E0D0C0B0A09));
        }
        n++;
    }
    assert_true(kinds[0] == (version == 1 ? E_DATA : STREAM_RUN));
    assert_true(version == 1 || (kinds[4] == STREAM_MARK && kinds[8] == STREAM_MARK && n == 9));
    assert_int_equal(tally_add(sum, stream_tally(r), e), 0);
    stream_close(r);
    close(fd);
    return kinds[n];
}

static void test_marks(void **state)
{
    struct tally sum = { .n = 0 };
    struct tally_source all;
    struct err e = {0};

    (void)state;
    assert_int_equal(read_marked(0, 3, &sum, &e), 0);
    assert_int_equal(tally_sum(&sum, &all, &e), 0);
    assert_true(all.docs == 6 && sum.bad_files == 3 && all.dropped[DROP_NEAR] >= 42 + 45);
    tally_free(&sum);
    assert_int_equal(read_marked(1, 3, &sum, &e), E_DATA);
    assert_non_null(strstr(e.msg, "its marks count 7 documents"));
    tally_free(&sum);
    assert_int_equal(read_marked(0, 1, &sum, &e), E_DATA);
    assert_non_null(strstr(e.msg, "neither DOC nor END"));
    tally_free(&sum);
}

/* Every cut and every changed byte of a mark's payload: E_DATA, or what is read is in bounds. */
static void test_spoilt_marks(void **state)
{
    struct stream_input in[2] = { { "a", 1, 2 }, { "b", 3, 4 } };
    struct stream_mark m = { .inputs = in, .n_inputs = 2, .keys = (const unsigned char *)
                             "0123456789abcdef", .n_keys = 1 }, back;
    struct mark_space s = { .tally = { .n = 0 } };
    struct buf b = { 0 };
    struct err e = {0};
    size_t n;

    (void)state;
    make_doc(&made, 0, 1, 100, 20);
    count_doc(&m.tally, &made.doc);
    m.tally.false_copies = 7;
    m.tally.false_copy_chance = 5;
    assert_int_equal(mark_encode(&b, &m, &e), 0);
    for (n = 0; n < b.len; n++) {
        void *exact = malloc(n ? n : 1);
        memcpy(exact, b.p, n);
        assert_int_equal(mark_decode(&s, STREAM_VERSION, exact, n, &back, &e), E_DATA);
        free(exact);
    }
    for (size_t bit = 0; bit < 8 * b.len; bit++) {
        b.p[bit / 8] ^= (char)(1u << bit % 8);
        if (mark_decode(&s, STREAM_VERSION, b.p, b.len, &back, &e) == 0)
            for (int64_t i = 0; i < back.n_inputs; i++)
                assert_int_equal(strlen(back.inputs[i].path), 1);
        b.p[bit / 8] ^= (char)(1u << bit % 8);
    }
    assert_int_equal(mark_decode(&s, STREAM_VERSION, b.p, b.len, &back, &e), 0);
    assert_true(back.tally.false_copies == 7 && back.tally.false_copy_chance == 5);
    memmove(b.p + 40, b.p + 56, b.len - 56); /* as version 2 has it */
    assert_int_equal(mark_decode(&s, 2, b.p, b.len - 16, &back, &e), 0);
    assert_true(back.n_keys == 1 && back.n_inputs == 2 && back.tally.v[0].docs == 1);
    assert_true(back.tally.false_copies == 0 && back.tally.false_copy_chance == 0);
    mark_space_free(&s);
    tally_free(&m.tally);
    buf_free(&b);
}

/* What a writer is given wrongly is refused, and the stream goes on whole. */
static void test_writer_refuses(void **state)
{
    struct token_info info = made_info(100), wide = info;
    struct mask_run touching[2] = { { 0, 2 }, { 2, 1 } }, past[1] = { { 3, 100 } };
    struct stream_writer *w;
    struct stream_reader *r;
    struct token_doc d, good;
    struct err e = {0};
    int fd = memfd_create("stream", 0);
    uint32_t high = 100;
    char longname[3000];

    (void)state;
    wide.width = 4;
    assert_int_equal(stream_create(&w, fd, "test", &wide, &e), E_DATA);
    assert_int_equal(stream_create(&w, fd, "test", &info, &e), 0);
    make_doc(&made, 0, 1, 100, 20);
    good = d = made.doc;
    d.ids = &high;
    d.n_ids = 1;
    d.n_runs = 0;
    assert_int_equal(stream_write(w, &d, &e), E_DATA);
    d = good;
    d.runs = touching;
    d.n_runs = 2;
    assert_int_equal(stream_write(w, &d, &e), E_DATA);
    d.runs = past;
    d.n_runs = 1;
    assert_int_equal(stream_write(w, &d, &e), E_DATA);
    memset(longname, 'x', sizeof longname);
    longname[2999] = '\0';
    memcpy(longname + 1021, "\xe2\x82\xac", 3); /* the limit cuts this character */
    longname[5] = '\xff';
    d = good;
    d.name = longname;
    assert_int_equal(stream_write(w, &d, &e), 0);
    assert_int_equal(stream_finish(w, &e), 0);
    lseek(fd, 0, SEEK_SET);
    assert_int_equal(stream_open(&r, fd, "test", &e), 0);
    assert_int_equal(stream_read(r, &d, &e), 1);
    assert_int_equal(strlen(d.name), 1021);
    assert_int_equal(d.name[5], '?');
    assert_int_equal(stream_read(r, &d, &e), 0);
    stream_close(r);
    close(fd);
}

/* The producer. us: pause after each document; cut: end without END. */
static int produce(uint64_t seed, int64_t docs, uint32_t vocab, int64_t max_ids, int64_t us,
                   int cut)
{
    struct token_info info = made_info(vocab);
    struct stream_writer *w;
    struct err e = {0};
    int rc = stream_create(&w, STDOUT_FILENO, "standard output", &info, &e);

    for (int64_t i = 0; i < docs && rc == 0; i++) {
        make_doc(&made, i, seed, vocab, max_ids);
        rc = stream_write(w, &made.doc, &e);
        if (us)
            usleep((useconds_t)us);
    }
    if (rc == 0 && !cut)
        rc = stream_finish(w, &e);
    else
        stream_abandon(w);
    if (rc < 0)
        fprintf(stderr, "test_stream: %s\n", e.msg);
    return -rc;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip_u16),
        cmocka_unit_test(test_round_trip_u32),
        cmocka_unit_test(test_no_documents),
        cmocka_unit_test(test_cut_at_every_byte),
        cmocka_unit_test(test_every_bit_flip),
        cmocka_unit_test(test_bytes_after_end),
        cmocka_unit_test(test_spoilt_header_is_named),
        cmocka_unit_test(test_spoilt_frame_is_named),
        cmocka_unit_test(test_spoilt_end_is_named),
        cmocka_unit_test(test_frames_out_of_order),
        cmocka_unit_test(test_writer_refuses),
        cmocka_unit_test(test_marks),
        cmocka_unit_test(test_spoilt_marks),
    };

    if (argc >= 4)
        return produce(strtoull(argv[1], NULL, 10), atoll(argv[2]), (uint32_t)atoll(argv[3]),
                       argc > 4 ? atoll(argv[4]) : 2000, argc > 5 ? atoll(argv[5]) : 0,
                       argc > 6);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
