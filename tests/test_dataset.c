/* tests/test_dataset.c - packing to a folder and reading it back; manifests; raw ids. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "formats/tokens/dataset.h"
#include "formats/tokens/manifest.h"
#include "prep/pack.h"
#include "tests/docs.h"

static struct made made;
static char folder[64]; /* new for every test */

static int set_up(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/test_dataset-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return dir_remove(folder, NULL);
}

static int make_stream(int n, uint32_t vocab, uint64_t seed)
{
    struct token_info info = made_info(vocab);
    struct stream_writer *w;
    struct err e = {0};
    int fd = memfd_create("stream", 0);

    assert_int_equal(stream_create(&w, fd, "test", &info, &e), 0);
    for (int i = 0; i < n; i++) {
        make_doc(&made, i, seed, vocab, 2000);
        assert_int_equal(stream_write(w, &made.doc, &e), 0);
    }
    assert_int_equal(stream_finish(w, &e), 0);
    lseek(fd, 0, SEEK_SET);
    return fd;
}

static int pack(struct pack_options *o, int n, uint32_t vocab, struct err *e)
{
    static char *command[] = { "lpack", "-o", "\xff\xfe" };
    struct pack *p;
    int rc, fd = make_stream(n, vocab, 1);

    o->command = command;
    o->n_command = 3;
    if (!o->shard_tokens)
        o->shard_tokens = 20000;
    if ((rc = pack_open(&p, o, e)) == 0) {
        if ((rc = pack_stream(p, fd, "test", e)) == 0)
            rc = pack_finish(p, NULL, e);
        else
            pack_abandon(p);
    }
    close(fd);
    return rc;
}

static int files_in(const char *path)
{
    DIR *d = opendir(path);
    int n = -2;

    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

/* The document of the series that a name ends in: "...c<i>.txt". */
static int made_index(const char *name)
{
    return atoi(strrchr(name, 'c') + 1);
}

/* Every document of a split is one of the series, whole, with its masks; seen[i] counts. */
static void check_docs(struct dataset *d, uint32_t vocab, int *seen)
{
    static int32_t ids[MADE_MAX_IDS];
    static uint8_t mask[MADE_MAX_IDS], want[MADE_MAX_IDS];
    struct dataset_doc doc;
    struct err e = {0};
    int64_t at = 0;

    for (int64_t i = 0; i < dataset_docs(d); i++) {
        int k;
        assert_int_equal(dataset_doc(d, i, &doc, &e), 0);
        make_doc(&made, k = made_index(doc.name), 1, vocab, 2000);
        seen[k]++;
        assert_string_equal(doc.name, made.name);
        assert_string_equal(doc.source, made.source);
        assert_int_equal(doc.start, at);
        assert_int_equal(doc.n_ids, made.doc.n_ids);
        assert_int_equal(doc.text_bytes, made.doc.text_bytes);
        assert_int_equal(dataset_read(d, at, doc.n_ids, ids, mask, &e), 0);
        assert_memory_equal(ids, made.ids, (size_t)doc.n_ids * 4);
        memset(want, 0, sizeof want);
        for (int64_t r = 0; r < made.doc.n_runs; r++)
            memset(want + made.runs[r].start, 1, (size_t)made.runs[r].count);
        assert_memory_equal(mask, want, (size_t)doc.n_ids);
        for (int64_t t = 0; t < doc.n_ids; t += 251)
            assert_int_equal(dataset_doc_at(d, at + t), i);
        at += doc.n_ids;
    }
    assert_int_equal(at, dataset_tokens(d));
}

static void round_trip(uint32_t vocab, bool shuffle)
{
    struct pack_options o = { .folder = folder, .shuffle = shuffle, .seed = 3 };
    struct dataset *d;
    struct err e = {0};
    int seen[200] = {0};

    assert_int_equal(pack(&o, 200, vocab, &e), 0);
    assert_int_equal(dataset_open(&d, folder, NULL, 0, &e), 0);
    assert_string_equal(dataset_form(d), "shards");
    assert_int_equal(dataset_docs(d), 200);
    assert_true(files_in(folder) > 5); /* several shards */
    check_docs(d, vocab, seen);
    for (int i = 0; i < 200; i++)
        assert_int_equal(seen[i], 1);
    assert_int_equal(dataset_verify(d, NULL, &e), 0);
    dataset_close(d);
}

static void test_round_trip_u16(void **state) { (void)state; round_trip(32000, false); }
static void test_round_trip_u32(void **state) { (void)state; round_trip(128256, true); }

/* Reads at any place, across documents and shards, give what one read of all gives. */
static void test_windows(void **state)
{
    struct pack_options o = { .folder = folder, .shuffle = true };
    struct dataset *d;
    struct err e = {0};
    int64_t n;
    int32_t *all, part[700];
    uint8_t *masks, mask[700];

    (void)state;
    assert_int_equal(pack(&o, 100, 32000, &e), 0);
    assert_int_equal(dataset_open(&d, folder, "train", 0, &e), 0);
    n = dataset_tokens(d);
    all = malloc((size_t)n * 4);
    masks = malloc((size_t)n);
    assert_int_equal(dataset_read(d, 0, n, all, masks, &e), 0);
    for (int64_t i = 0; i < 2000; i++) {
        int64_t k = (int64_t)(mix64((uint64_t)i) % 700);
        int64_t at = (int64_t)(mix64((uint64_t)i + 7) % (uint64_t)(n - k + 1));
        assert_int_equal(dataset_read(d, at, k, part, i % 2 ? mask : NULL, &e), 0);
        assert_memory_equal(part, all + at, (size_t)k * 4);
        if (i % 2)
            assert_memory_equal(mask, masks + at, (size_t)k);
    }
    assert_int_equal(dataset_read(d, n - 1, 2, part, NULL, &e), E_BUG);
    assert_int_equal(dataset_read(d, -1, 1, part, NULL, &e), E_BUG);
    free(all);
    free(masks);
    dataset_close(d);
}

static void test_splits(void **state)
{
    struct pack_options o = { .folder = folder, .shuffle = true, .seed = 5 };
    static const char *const name[] = { "train", "validation", "odd" };
    struct dataset *d;
    struct err e = {0};
    int seen[200] = {0};
    int64_t docs[3];

    (void)state;
    assert_int_equal(split_add(&o.rules, "validation=0.25", &e), 0);
    assert_int_equal(split_add(&o.rules, "odd=dir1/*", &e), 0);
    assert_int_equal(pack(&o, 200, 32000, &e), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(dataset_open(&d, folder, name[i], 0, &e), 0);
        check_docs(d, 32000, seen);
        docs[i] = dataset_docs(d);
        dataset_close(d);
    }
    for (int i = 0; i < 200; i++)
        assert_int_equal(seen[i], 1);
    assert_int_equal(docs[2], 100);
    assert_in_range(docs[1], 12, 40); /* a quarter of 100 */
    assert_int_equal(dataset_open(&d, folder, "test", 0, &e), E_CONFIG);
    assert_non_null(strstr(e.msg, "train, validation, odd"));
}

static void test_split_rules(void **state)
{
    static const char *const bad[] = { "validation", "validation=", "=0.1", "train=0.9", "a=0",
                                       "a=1", "a=-0.5", "a/b=0.5", ".a=0.5", "v=0.5" };
    struct split_rules r = {0};
    struct token_doc d = { .source = "pg19", .name = "x.tar:pg19/validation/7.txt" };
    struct err e = {0};
    int taken = 0, both = 0;

    (void)state;
    assert_int_equal(split_add(&r, "v=0.5", &e), 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(split_add(&r, bad[i], &e), E_USAGE);
    assert_int_equal(split_add(&r, "w=0.5", &e), E_USAGE); /* nothing left for train */
    r = (struct split_rules){0};
    assert_int_equal(split_add(&r, "a=validation/*", &e), 0);
    assert_int_equal(split_of(&r, 0, &d), 1);
    d.name = "validation.txt";
    assert_int_equal(split_of(&r, 0, &d), 0);
    assert_int_equal(split_add(&r, "b=pg19", &e), 0);
    assert_int_equal(split_of(&r, 0, &d), 2);
    /* a fraction is of the texts, another choice by each seed */
    r = (struct split_rules){0};
    assert_int_equal(split_add(&r, "v=0.25", &e), 0);
    for (d.text_hash = 0; d.text_hash < 4000; d.text_hash++) {
        taken += split_of(&r, 7, &d);
        both += split_of(&r, 7, &d) && split_of(&r, 8, &d);
    }
    assert_in_range(taken, 900, 1100);
    assert_in_range(both, 200, 300);
}

static void test_same_input_same_bytes(void **state)
{
    struct pack_options o = { .folder = folder, .shuffle = true, .seed = 9 };
    struct manifest *m[3];
    struct dataset *d;
    struct err e = {0};
    uint64_t hash[3];
    char *text[3];

    (void)state;
    for (int i = 0; i < 3; i++) {
        o.force = i > 0;
        o.seed = i < 2 ? 9 : 10;
        assert_int_equal(pack(&o, 100, 32000, &e), 0);
        assert_int_equal(manifest_read(&m[i], folder, &e), 0);
        text[i] = manifest_text(m[i]);
        assert_int_equal(dataset_open(&d, folder, NULL, 0, &e), 0);
        hash[i] = dataset_hash(d);
        dataset_close(d);
        assert_int_equal(files_in(folder), 1 + m[i]->splits[0].n_shards); /* no old shards */
    }
    assert_string_equal(text[0], text[1]);
    assert_string_not_equal(text[0], text[2]);
    assert_true(hash[0] == hash[1] && hash[0] != hash[2]);
    assert_string_equal(m[0]->command[2], "??");
    for (int i = 0; i < 3; i++) {
        manifest_free(m[i]);
        free(text[i]);
    }
}

static void test_no_documents(void **state)
{
    struct pack_options o = { .folder = folder, .shuffle = true };
    struct dataset *d;
    struct err e = {0};

    (void)state;
    assert_int_equal(pack(&o, 0, 32000, &e), 0);
    assert_int_equal(dataset_open(&d, folder, NULL, 0, &e), 0);
    assert_int_equal(dataset_tokens(d), 0);
    assert_int_equal(dataset_docs(d), 0);
    assert_int_equal(dataset_read(d, 0, 0, NULL, NULL, &e), 0);
    assert_int_equal(dataset_verify(d, NULL, &e), 0);
    dataset_close(d);
}

/* A read across blocks checks every one of them, each once, and a later one's damage is named. */
static void test_each_block_is_checked(void **state)
{
    enum { IDS = 3 * (1 << 20) / 4 + 5 }; /* of four bytes: three blocks and a little */
    struct token_info info = made_info(128256);
    uint32_t *ids = calloc(IDS, sizeof *ids);
    struct token_doc doc = { .ids = ids, .n_ids = IDS, .source = "s", .name = "n" };
    char *path = path_join(folder, "long.shard");
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    struct shard_writer *w;
    struct dataset *d;
    struct err e = {0};

    (void)state;
    assert_int_equal(shard_create(&w, fd, path, &info, folder, &e), 0);
    assert_int_equal(shard_write(w, &doc, &e), 0);
    assert_int_equal(shard_finish(w, NULL, &e), 0);
    for (int64_t block = 0; block < 4; block++) {
        assert_int_equal(pwrite(fd, "\1", 1, 4096 + (block << 20)), 1);
        assert_int_equal(dataset_open(&d, path, NULL, 0, &e), 0);
        if (block > 0) /* those before it can be read */
            assert_int_equal(dataset_read(d, 0, block << 18, (int32_t *)ids, NULL, &e), 0);
        assert_int_equal(dataset_read(d, 0, IDS, (int32_t *)ids, NULL, &e), E_DATA);
        assert_non_null(strstr(e.msg, "token block "));
        assert_int_equal(strstr(e.msg, "token block ")[12] - '0', block);
        dataset_close(d);
        assert_int_equal(pwrite(fd, "\0", 1, 4096 + (block << 20)), 1);
    }
    close(fd);
    free(path);
    free(ids);
}

/* One shard to a descriptor, and what happens when a token in it is spoilt. */
static void test_single_shard(void **state)
{
    struct pack_options o = {0};
    struct dataset *d;
    struct err e = {0};
    char *path = path_join(folder, "one.shard");
    int32_t ids[2];
    int seen[100] = {0};

    (void)state;
    o.fd = open(path, O_RDWR | O_CREAT, 0600);
    assert_int_equal(pack(&o, 100, 32000, &e), 0);
    assert_int_equal(dataset_open(&d, path, "ignored", 0, &e), 0);
    assert_string_equal(dataset_form(d), "shard");
    assert_int_equal(dataset_docs(d), 100);
    check_docs(d, 32000, seen);
    dataset_close(d);
    assert_int_equal(pwrite(o.fd, "\x7f", 1, 4096 + 101), 1);
    assert_int_equal(dataset_open(&d, path, NULL, 0, &e), 0);
    assert_int_equal(dataset_read(d, 0, 2, ids, NULL, &e), E_DATA);
    assert_non_null(strstr(e.msg, path));
    assert_non_null(strstr(e.msg, "token block 0"));
    dataset_close(d);
    close(o.fd);
    free(path);
}

static void test_raw(void **state)
{
    char *path = path_join(folder, "raw.bin");
    static const unsigned char raw[] = { 1, 0, 2, 0, 0xFF, 0x7C, 0, 0x7D, 9 };
    struct dataset *d;
    struct dataset_doc doc;
    struct err e = {0};
    int32_t ids[4];
    uint8_t mask[4] = { 9, 9, 9, 9 };

    (void)state;
    assert_int_equal(file_replace(path, raw, 8, &e), 0);
    assert_int_equal(dataset_open(&d, path, NULL, 0, &e), 0);
    assert_string_equal(dataset_form(d), "raw u16");
    assert_int_equal(dataset_tokens(d), 4);
    assert_int_equal(dataset_docs(d), 1);
    assert_int_equal(dataset_read(d, 0, 4, ids, mask, &e), 0);
    assert_int_equal(ids[2], 31999);
    assert_int_equal(ids[3], 32000);
    assert_int_equal(mask[0] | mask[1] | mask[2] | mask[3], 0);
    assert_int_equal(dataset_doc(d, 0, &doc, &e), 0);
    assert_int_equal(doc.n_ids, 4);
    assert_string_equal(doc.name, "");
    dataset_close(d);
    assert_int_equal(dataset_open(&d, path, NULL, 32000, &e), 0);
    assert_int_equal(dataset_read(d, 0, 3, ids, NULL, &e), 0);
    assert_int_equal(dataset_read(d, 1, 3, ids, NULL, &e), E_DATA);
    assert_non_null(strstr(e.msg, "token 3 is id 32000"));
    dataset_close(d);
    assert_int_equal(file_replace(path, raw, 9, &e), 0);
    assert_int_equal(dataset_open(&d, path, NULL, 0, &e), E_DATA);
    assert_non_null(strstr(e.msg, "odd"));
    assert_int_equal(file_replace(path, "LLSTREAM", 8, &e), 0);
    assert_int_equal(dataset_open(&d, path, NULL, 0, &e), E_DATA);
    assert_non_null(strstr(e.msg, "token stream"));
    assert_int_equal(file_replace(path, "", 0, &e), 0);
    assert_int_equal(dataset_open(&d, path, NULL, 0, &e), E_DATA);
    assert_int_equal(dataset_open(&d, "/nonexistent", NULL, 0, &e), E_NOINPUT);
    assert_int_equal(dataset_open(&d, folder, NULL, 0, &e), E_NOINPUT);
    assert_non_null(strstr(e.msg, "manifest.json"));
    free(path);
}

/* Text replaced in a good manifest, and what the refusal says. */
static const struct { const char *from, *to, *why; } spoilt[] = {
    { "longlora-dataset", "longlora-model", "'format'" },
    { "\"version\": 1", "\"version\": 2", "version 2" },
    { "\"version\": 1", "\"version\": 1.0", "'version'" },
    { "\"version\"", "\"format\"", "duplicate" },
    { "\"vocab\": 32000", "\"vocab\": 0", "vocab" },
    { "\"vocab\": 32000", "\"vocab\": 70000", "width 2" },
    { "\"token_bytes\": 2", "\"token_bytes\": 4", "width 4" },
    { "\"bos\": 1", "\"bos\": 32000", "bos 32000" },
    { "0123456789abcdef0123456789abcdef", "0123", "fingerprint" },
    { "\"adds_eos\": true", "\"adds_eos\": 1", "adds_eos" },
    { "\"seed\": 9", "\"seed\": -9", "seed" },
    { "\"shuffled\": true", "\"shuffled\": 0", "shuffled" },
    { "\"documents\": 50,\n  \"tokens\"", "\"documents\": 51,\n  \"tokens\"", "add up" },
    { "\"documents\": 50,\n      \"tokens\"", "\"documents\": 51,\n      \"tokens\"", "add up" },
    { "\"text_bytes\": ", "\"text_bytes\": 1", "do not add up to its" },
    { "\"train\"", "\"../x\"", "a name that is none" },
    { "\"train\": {", "\"train\": {}, \"b\": {", "missing" },
    { "\"file\": \"train", "\"file\": \"../train", "file in its folder" },
    { "\"file\": \"train", "\"file\": \"a/train", "file in its folder" },
    { "\"file\": \"train", "\"file\": \"", "cannot open" },
    { "\"xxh3_128\": \"", "\"xxh3_128\": \"f", "xxh3_128" },
    { "\"footer\": \"", "\"footer\": \"f", "footer" },
    { "\"bytes\": ", "\"bytes\": 1", "the manifest says 1" },
    { "\"bytes\": ", "\"bytes\": -", "bytes" },
    { "\"command\": [", "\"command\": [1,", "array of strings" },
    { "\"splits\"", "\"spilts\"", "splits" },
    { "}", "", "not valid JSON" },
};

/* The same object without the hash of itself, as an editor is told to leave it. */
static void unseal(char *text)
{
    char *at = strstr(text, "\n  \"sealed\""), *end = strchr(strchr(at + 1, '\n') + 1, '\n');

    memmove(at, end, strlen(end) + 1);
}

static void test_spoilt_manifest_is_named(void **state)
{
    struct pack_options o = { .folder = folder, .shuffle = true, .seed = 9 };
    char *path = path_join(folder, MANIFEST_FILE), *text, *at;
    struct dataset *d;
    struct err e = {0};

    (void)state;
    assert_int_equal(pack(&o, 50, 32000, &e), 0);
    assert_int_equal(file_read(path, 1 << 20, &text, NULL, &e), 0);
    unseal(text);
    for (size_t i = 0; i < sizeof spoilt / sizeof *spoilt; i++) {
        struct buf b = {0};
        if (!(at = strstr(text, spoilt[i].from)))
            fail_msg("case %zu: no '%s' in the manifest", i, spoilt[i].from);
        assert_int_equal(buf_printf(&b, &e, "%.*s%s%s", (int)(at - text), text, spoilt[i].to,
                                    at + strlen(spoilt[i].from)), 0);
        assert_int_equal(file_replace(path, b.p, b.len, &e), 0);
        assert_true(dataset_open(&d, folder, NULL, 0, &e) < 0);
        if (!strstr(e.msg, spoilt[i].why))
            fail_msg("case %zu: '%s' lacks '%s'", i, e.msg, spoilt[i].why);
        buf_free(&b);
    }
    assert_int_equal(file_replace(path, text, strlen(text), &e), 0);
    assert_int_equal(dataset_open(&d, folder, NULL, 0, &e), 0);
    dataset_close(d);
    at = strstr(text, "\"file\": "); /* one file for two shards: trained and validated on */
    memcpy(strstr(at + 1, "\"file\": "), at, strlen("\"file\": \"train-00000-0123456789abcdef"));
    assert_int_equal(file_replace(path, text, strlen(text), &e), 0);
    assert_int_equal(dataset_open(&d, folder, NULL, 0, &e), E_DATA);
    assert_non_null(strstr(e.msg, "is listed twice"));
    free(text);
    free(path);
}

/* A shard that is good in itself, but not the one the manifest lists. */
static void test_exchanged_shard(void **state)
{
    struct pack_options o = { .folder = folder, .shuffle = true, .shard_tokens = 1 << 20 };
    char *other = path_join(folder, "other"), *from, *to;
    struct manifest *m, *n;
    struct dataset *d;
    struct err e = {0};

    (void)state;
    assert_int_equal(pack(&o, 50, 32000, &e), 0);
    o.folder = other;
    o.seed = 1;
    assert_int_equal(pack(&o, 50, 32000, &e), 0);
    assert_int_equal(manifest_read(&m, folder, &e), 0);
    assert_int_equal(manifest_read(&n, other, &e), 0);
    from = path_join(other, n->splits[0].shards[0].file);
    to = path_join(folder, m->splits[0].shards[0].file);
    assert_int_equal(rename(from, to), 0);
    assert_int_equal(dataset_open(&d, folder, NULL, 0, &e), E_DATA);
    assert_non_null(strstr(e.msg, "another hash"));
    free(from);
    free(to);
    free(other);
    manifest_free(m);
    manifest_free(n);
}

/* Of several damaged shards the first is named, however many threads look. */
static void test_verifying_by_threads(void **state)
{
    struct pack_options o = { .folder = folder };
    struct pool *team[] = { NULL, pool_open(3, NULL) };
    struct manifest *m;
    struct dataset *d;
    struct err e = {0};

    (void)state;
    assert_int_equal(pack(&o, 200, 32000, &e), 0);
    assert_int_equal(manifest_read(&m, folder, &e), 0);
    assert_int_equal(dataset_open(&d, folder, NULL, 0, &e), 0);
    assert_int_equal(dataset_verify(d, team[1], &e), 0);
    for (int i = 3; i > 0; i -= 2) {
        char *path = path_join(folder, m->splits[0].shards[i].file);
        int fd = open(path, O_RDWR);
        assert_int_equal(pwrite(fd, "\1\1", 2, SHARD_HEADER_BYTES + 100 * i), 2);
        close(fd);
        for (int k = 0; k < 2; k++) {
            assert_int_equal(dataset_verify(d, team[k], &e), E_DATA);
            assert_non_null(strstr(e.msg, m->splits[0].shards[i].file));
            assert_non_null(strstr(e.msg, "token block 0"));
        }
        free(path);
    }
    dataset_close(d);
    manifest_free(m);
    pool_close(team[1]);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_round_trip_u16), TEST(test_round_trip_u32), TEST(test_windows),
        TEST(test_splits), TEST(test_split_rules), TEST(test_same_input_same_bytes),
        TEST(test_no_documents), TEST(test_each_block_is_checked), TEST(test_single_shard),
        TEST(test_raw), TEST(test_spoilt_manifest_is_named), TEST(test_exchanged_shard),
        TEST(test_verifying_by_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
