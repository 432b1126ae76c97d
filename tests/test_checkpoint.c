/* tests/test_checkpoint.c - checkpoints: manifests, publishing, finding, falling back. */
#include "base/file.h"
#include "formats/weights/checkpoint.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <cmocka.h>

static char dir[] = "/tmp/checkpoint.XXXXXX";

static struct checkpoint sample(int64_t step)
{
    struct checkpoint c = { .step = step, .tokens = step * 512, .updates = step - 1,
                            .skipped = 1, .data_hash = 0x0123456789abcdefu };

    snprintf(c.device, sizeof c.device, "cpu \"quoted\" processor");
    c.run = strdup("{\"mode\": \"lora+\", \"lr\": 0.5}");
    return c;
}

/* The text of a manifest with one file, malloc'ed. */
static struct buf sample_text(void)
{
    struct checkpoint c = sample(100);
    struct buf b = { 0 };
    struct err e = { 0 };

    c.n_files = 1;
    c.file[0] = (struct checkpoint_file){ .name = "state.safetensors", .nbytes = 7,
                                          .xxh3 = "00112233445566778899aabbccddeeff" };
    assert_int_equal(checkpoint_format(&c, &b, &e), 0);
    checkpoint_free(&c);
    return b;
}

/* Parses a copy of exactly n bytes, so that the sanitizer sees one too many. */
static int parse_copy(struct checkpoint *c, const char *p, size_t n, struct err *e)
{
    char *copy = malloc(n ? n : 1);
    int rc;

    memcpy(copy, p, n);
    rc = checkpoint_parse(c, copy, n, "copy", e);
    free(copy);
    return rc;
}

static void test_round_trip(void **state)
{
    struct buf b = sample_text();
    struct checkpoint c;
    struct err e = { 0 };

    (void)state;
    assert_int_equal(parse_copy(&c, b.p, b.len, &e), 0);
    assert_int_equal(c.step, 100);
    assert_int_equal(c.tokens, 51200);
    assert_int_equal(c.updates, 99);
    assert_int_equal(c.skipped, 1);
    assert_true(c.data_hash == 0x0123456789abcdefu);
    assert_string_equal(c.device, "cpu \"quoted\" processor");
    assert_non_null(strstr(c.run, "lora+"));
    assert_int_equal(c.n_files, 1);
    assert_string_equal(c.file[0].xxh3, "00112233445566778899aabbccddeeff");
    checkpoint_free(&c);
    buf_free(&b);
}

static void test_every_flipped_bit_and_every_cut_is_seen(void **state)
{
    struct buf b = sample_text();
    struct checkpoint c;
    struct err e = { 0 };

    (void)state;
    for (size_t i = 0; i < b.len * 8; i++) {
        b.p[i / 8] = (char)(b.p[i / 8] ^ (1 << i % 8));
        assert_int_equal(parse_copy(&c, b.p, b.len, &e), E_DATA);
        b.p[i / 8] = (char)(b.p[i / 8] ^ (1 << i % 8));
    }
    for (size_t n = 0; n < b.len; n++)
        assert_int_equal(parse_copy(&c, b.p, n, &e), E_DATA);
    buf_free(&b);
}

/* Replaces a part of the text and signs it again: what is left to the parser to refuse. */
static int parse_spoilt(const char *from, const char *to, struct err *e)
{
    struct buf b = sample_text(), out = { 0 };
    struct checkpoint c;
    char *at = strstr(b.p, from), *tail = strstr(b.p, "  \"manifest_xxh3_128\"");
    XXH128_hash_t h;
    int rc;

    assert_non_null(at);
    assert_true(at < tail);
    buf_add(&out, b.p, (size_t)(at - b.p), e);
    buf_add(&out, to, strlen(to), e);
    buf_add(&out, at + strlen(from), (size_t)(tail - at) - strlen(from), e);
    h = XXH3_128bits(out.p, out.len);
    buf_printf(&out, e, "  \"manifest_xxh3_128\": \"%016llx%016llx\"\n}\n",
               (unsigned long long)h.high64, (unsigned long long)h.low64);
    rc = parse_copy(&c, out.p, out.len, e);
    if (rc == 0)
        checkpoint_free(&c);
    buf_free(&b);
    buf_free(&out);
    return rc;
}

static const struct {
    const char *from, *to, *why;
} spoilt[] = {
    { "longlora-checkpoint", "longlora-shards", "not a checkpoint's" },
    { "\"version\": 1", "\"version\": 2", "version 2" },
    { "\"step\": 100", "\"step\": -1", "'step'" },
    { "\"step\": 100", "\"step\": \"100\"", "'step'" },
    { "\"updates\": 99", "\"updates\": 101", "more updates" },
    { "\"skipped\": 1", "\"skipped\": 101", "skipped" },
    { "\"streak\": 0", "\"streak\": 2", "skipped" },
    { "0123456789abcdef", "0123456789ABCDEF", "data_xxh3" },
    { "\"run\": {", "\"run\": 1, \"x\": {", "'run'" },
    { "state.safetensors", "../state", "no plain name" },
    { "state.safetensors", ".hidden", "no plain name" },
    { "state.safetensors", "", "no plain name" },
    { "00112233445566778899aabbccddeeff", "00112233", "32 hex" },
    { "\"bytes\": 7", "\"bytes\": 7.5", "'bytes'" },
    { "\"files\": [", "\"files\": [], \"f\": [", "'files'" },
    { "\"tokens\"", "\"step\"", "duplicate" },
    { "{\"name\"", "[\"name\"", "line" },
};

static void test_each_spoilt_field_is_named(void **state)
{
    struct err e = { 0 };

    (void)state;
    assert_int_equal(parse_spoilt("\"tokens\"", "\"tokens\"", &e), 0);
    for (size_t i = 0; i < sizeof spoilt / sizeof *spoilt; i++) {
        assert_int_equal(parse_spoilt(spoilt[i].from, spoilt[i].to, &e), E_DATA);
        if (!strstr(e.msg, spoilt[i].why))
            fail_msg("'%s' -> '%s': %s", spoilt[i].from, spoilt[i].to, e.msg);
    }
}

static void test_example_is_a_manifest(void **state)
{
    struct checkpoint c;
    struct err e = { 0 };
    char *text;
    size_t n;

    (void)state;
    if (file_read("tests/data/checkpoint.json", 1 << 16, &text, &n, &e) < 0)
        fail_msg("%s", e.msg);
    assert_int_equal(parse_copy(&c, text, n, &e), 0);
    assert_int_equal(c.step, 3);
    checkpoint_free(&c);
    free(text);
}

static void publish(const char *root, int64_t step)
{
    struct checkpoint c = sample(step);
    struct err e = { 0 };
    char *folder, *path, text[32];

    assert_int_equal(checkpoint_begin(root, step, &folder, &e), 0);
    path = path_join(folder, "state.safetensors");
    snprintf(text, sizeof text, "state %lld", (long long)step);
    assert_int_equal(file_replace(path, text, strlen(text), &e), 0);
    assert_int_equal(checkpoint_commit(root, &c, &e), 0);
    assert_int_equal(c.n_files, 1);
    assert_false(path_exists(folder));
    checkpoint_free(&c);
    free(path);
    free(folder);
}

/* The step found in root, -1 for none, or a code. *n_bad: how many were passed over. */
static void count_bad(void *ctx, const char *folder, const struct err *why)
{
    assert_non_null(folder);
    assert_true(why->code < 0);
    ++*(int *)ctx;
}

static int64_t find(const char *root, int *n_bad)
{
    struct checkpoint c;
    struct err e = { 0 };
    char *folder;
    int64_t step;
    int rc;

    *n_bad = 0;
    rc = checkpoint_find(root, &c, &folder, count_bad, n_bad, &e);
    if (rc <= 0) {
        assert_null(folder);
        return rc == 0 ? -1 : rc;
    }
    step = c.step;
    assert_true(path_is_dir(folder));
    free(folder);
    checkpoint_free(&c);
    return step;
}

static char *fresh_root(const char *name)
{
    char *root = path_join(dir, name);

    dir_remove(root, NULL);
    return root;
}

static void spoil(const char *root, const char *file, char first)
{
    char *path = path_join(root, file);
    FILE *f = fopen(path, "r+");

    assert_non_null(f);
    fputc(first, f);
    fclose(f);
    free(path);
}

static void test_newest_is_found_and_old_ones_go(void **state)
{
    char *root = fresh_root("newest"), *old;
    struct err e = { 0 };
    int bad;

    (void)state;
    assert_int_equal(find(root, &bad), -1);
    publish(root, 3);
    assert_int_equal(find(root, &bad), 3);
    publish(root, 6);
    publish(root, 123456789);
    assert_int_equal(find(root, &bad), 123456789);
    assert_int_equal(bad, 0);
    assert_int_equal(checkpoint_prune(root, 123456789, 2, &e), 0);
    old = path_join(root, "step-00000003");
    assert_false(path_exists(old));
    publish(root, 6); /* again over itself */
    assert_int_equal(find(root, &bad), 123456789);
    free(old);
    free(root);
}

static void test_damage_falls_back_and_is_set_aside(void **state)
{
    char *root = fresh_root("damage"), *aside;
    struct err e = { 0 };
    int bad;

    (void)state;
    publish(root, 1);
    publish(root, 2);
    publish(root, 3);
    spoil(root, "step-00000003/state.safetensors", 'X');
    spoil(root, "step-00000002/MANIFEST.json", 'X');
    assert_int_equal(find(root, &bad), 1);
    assert_int_equal(bad, 2);
    assert_int_equal(find(root, &bad), 1);
    assert_int_equal(bad, 0);
    aside = path_join(root, "step-00000003.bad");
    assert_true(path_is_dir(aside));
    assert_int_equal(checkpoint_prune(root, 1, 1, &e), 0);
    assert_int_equal(find(root, &bad), 1);
    free(aside);
    free(root);
}

/* A folder without a manifest has not failed: it is half removed, or not ours. */
static void test_a_newer_folder_without_a_manifest_stays(void **state)
{
    char *root = fresh_root("newer"), *newer = path_join(root, "step-00000009"),
         *file = path_join(newer, "x");
    struct err e = { 0 };
    int bad;

    (void)state;
    publish(root, 1);
    publish(root, 2);
    spoil(root, "step-00000002/state.safetensors", 'X');
    assert_int_equal(dir_make(newer, &e), 0);
    assert_int_equal(file_replace(file, "x", 1, &e), 0);
    assert_int_equal(find(root, &bad), 1);
    assert_int_equal(bad, 1);
    assert_true(path_is_file(file));
    free(file);
    free(newer);
    free(root);
}

static void test_all_damaged_is_an_error_that_moves_nothing(void **state)
{
    char *root = fresh_root("all"), *path;
    int bad;

    (void)state;
    publish(root, 1);
    publish(root, 2);
    spoil(root, "step-00000001/state.safetensors", 'X');
    path = path_join(root, "step-00000002/state.safetensors");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(find(root, &bad), E_DATA);
    assert_int_equal(bad, 2);
    assert_int_equal(find(root, &bad), E_DATA);
    free(path);
    free(root);
}

static void test_renamed_folder_is_refused(void **state)
{
    char *root = fresh_root("renamed"), *from, *to;
    int bad;

    (void)state;
    publish(root, 1);
    publish(root, 2);
    from = path_join(root, "step-00000002");
    to = path_join(root, "step-00000009");
    assert_int_equal(rename(from, to), 0);
    assert_int_equal(find(root, &bad), 1);
    assert_int_equal(bad, 1);
    free(from);
    free(to);
    free(root);
}

static void test_left_overs_are_swept(void **state)
{
    char *root = fresh_root("sweep"), *folder, *half, *other;
    struct err e = { 0 };
    int bad;

    (void)state;
    publish(root, 1);
    assert_int_equal(checkpoint_begin(root, 2, &folder, &e), 0); /* killed before commit */
    half = path_join(root, "step-00000003");                      /* killed while removing */
    other = path_join(root, "notes.tmp");                         /* not ours */
    assert_int_equal(mkdir(half, 0777), 0);
    assert_int_equal(mkdir(other, 0777), 0);
    assert_int_equal(find(root, &bad), 1);
    assert_int_equal(bad, 0);
    assert_int_equal(checkpoint_sweep(root, &e), 0);
    assert_false(path_exists(folder));
    assert_false(path_exists(half));
    assert_true(path_exists(other));
    assert_int_equal(find(root, &bad), 1);
    free(folder);
    free(half);
    free(other);
    free(root);
}

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    return dir_remove(dir, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_every_flipped_bit_and_every_cut_is_seen),
        cmocka_unit_test(test_each_spoilt_field_is_named),
        cmocka_unit_test(test_example_is_a_manifest),
        cmocka_unit_test(test_newest_is_found_and_old_ones_go),
        cmocka_unit_test(test_damage_falls_back_and_is_set_aside),
        cmocka_unit_test(test_a_newer_folder_without_a_manifest_stays),
        cmocka_unit_test(test_all_damaged_is_an_error_that_moves_nothing),
        cmocka_unit_test(test_renamed_folder_is_refused),
        cmocka_unit_test(test_left_overs_are_swept),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
