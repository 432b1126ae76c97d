/* tests/test_flips.c - one flipped bit, anywhere in anything that the tools write, is found: by linfo
 * --verify in every file, by what reads tensors in those. The tools themselves make the files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/file.h"
#include "base/log.h"
#include "base/must.h"
#include "model/session.h"
#include "tools/info.h"
#include "tools/merge.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Streams, shards, a run that was cut off; a trained model with a tokenizer, an adapter of it with
 * checkpoints, what lmerge makes of both, in one file and in several. */
static const char make[] =
    "set -e; cp tests/data/tiny.model $D/tok.model; cp tests/data/tiny.txt $D/t.txt; cd $D\n"
    "mkdir in && for i in 1 2 3; do sed \"s/^/$i /\" t.txt | head -n 9 > in/$i.txt; done\n"
    "lprep -q -t tok.model in > s.stream && lpack -q --split validation='*3.txt' -o set s.stream\n"
    "lpack -q < s.stream > one.shard\n"
    "lprep -q --resume cut -t tok.model in 2> /dev/null > r.stream\n"
    "head -c $(($(wc -c < r.stream) - 40)) r.stream | lpack -q -o cut 2> /dev/null || true\n"
    "sed 's/\"vocab_size\": *[0-9]*/\"vocab_size\": 400/' $OLDPWD/tests/data/tiny-config.json > c.json\n"
    "t() { ltrain -q one.shard --ctx 32 --batch 2 --save-every 100 --device cpu --threads 1 \"$@\"; }\n"
    "t --init c.json --steps 2 -o base --tokenizer tok.model\n"
    "t --model base --steps 2 -o plus --ctx 64\n"
    "lmerge -q -m base -a plus -o merged && lmerge -q -m base -a plus -o parts --shard-size 32k\n";

static char *dir;
static struct err e;

static const char *in_dir(const char *name)
{
    static char path[3][256]; /* as many as one call needs at once */
    static int k;

    k = (k + 1) % 3;
    snprintf(path[k], sizeof path[k], "%s/%s", dir, name);
    return path[k];
}

static void flip(const char *path, int64_t bit)
{
    int fd = open(path, O_RDWR);
    unsigned char byte;

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, bit / 8), 1);
    byte = (unsigned char)(byte ^ 1 << bit % 8);
    assert_int_equal(pwrite(fd, &byte, 1, bit / 8), 1);
    close(fd);
}

static int64_t bits_of(const char *path)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return 8 * (int64_t)st.st_size;
}

/* 0: all is well. */
static int verify(const char *path)
{
    struct info_options o = { .verify = true, .doc = -1 };
    enum info_kind kind;
    json_t *j = NULL;
    int rc = info_kind_of(path, false, &kind, &e);

    if (rc == 0 && (rc = info_describe(path, kind, &o, &j, &e)) == 0)
        rc = json_object_get(j, "changed") ? E_NO : 0;
    json_decref(j);
    return rc;
}

/* What is shown to linfo, and the file of it that is spoilt. */
static const struct { const char *shown, *file; } ours[] = {
    { "s.stream", "s.stream" }, { "r.stream", "r.stream" }, { "one.shard", "one.shard" },
    { "set", "set/manifest.json" }, { "set", "set/train-*.shard" }, { "set", "set/validation-*.shard" },
    { "cut", "cut/lpack.journal" }, { "cut", "cut/lpack.docs" }, { "cut", "cut/lpack.index" },
    { "base", "base/model.safetensors" }, { "base", "base/config.json" },
    { "base", "base/tokenizer.model" },
    { "base", "base/checkpoints/step-00000002/MANIFEST.json" },
    { "base", "base/checkpoints/step-00000002/state.safetensors" },
    { "plus", "plus/adapter_model.safetensors" }, { "plus", "plus/adapter_config.json" },
    { "plus", "plus/config.json" },
    { "plus/checkpoints/step-00000002", "plus/checkpoints/step-00000002/MANIFEST.json" },
    { "plus/adapter_model.safetensors", "plus/adapter_model.safetensors" },
    { "merged", "merged/model.safetensors" }, { "merged", "merged/config.json" },
    { "merged", "merged/tokenizer.model" },
    { "parts", "parts/model-00001-of-*.safetensors" }, { "parts", "parts/model-00003-of-*.safetensors" },
    { "parts", "parts/model.safetensors.index.json" }, { "parts", "parts/config.json" },
};

/* The first file of that pattern. */
static void resolve(char out[256], const char *pattern)
{
    char command[600];
    FILE *p;

    snprintf(command, sizeof command, "ls -d %s | head -n 1 | tr -d '\\n'", in_dir(pattern));
    assert_non_null(p = popen(command, "r"));
    if (!fgets(out, 256, p))
        fail_msg("no file %s", pattern);
    pclose(p);
}

/* Of small files a bit in every byte at least, and all where the forms have their headers; of others
 * so many, spread over all of them. FLIPS: another number than the default. */
static int64_t step_after(int64_t bit, int64_t bits)
{
    const char *given = getenv("FLIPS");
    int64_t flips = given ? atoll(given) : 3000, step = bits / flips;

    if (bit < flips / 3 || step < 2)
        return bit + 1;
    if (!given && bits <= 8 << 13)
        return bit + 7;
    return bit + (step | 1); /* odd: every bit of a byte */
}

static void test_every_bit_is_verified(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
        char file[256], shown[256];
        int64_t bits, missed = 0, first = 0, tried = 0;

        resolve(file, ours[i].file);
        resolve(shown, ours[i].shown);
        if (verify(shown) != 0)
            fail_msg("%s as it was made: %s", shown, e.msg);
        bits = bits_of(file);
        for (int64_t bit = 0; bit < bits; bit = step_after(bit, bits), tried++) {
            flip(file, bit);
            if (verify(shown) == 0 && missed++ == 0)
                first = bit;
            flip(file, bit);
        }
        if (missed)
            fail_msg("%s: %lld of %lld flips are not found, the first is bit %lld", ours[i].file,
                     (long long)missed, (long long)tried, (long long)first);
    }
}

/* Where a file's tensors begin. */
static int64_t data_bit(const char *path)
{
    unsigned char n[8];
    int fd = open(path, O_RDONLY);

    assert_int_equal(pread(fd, n, 8, 0), 8);
    close(fd);
    return 8 * (8 + (int64_t)get_le(n, 8));
}

static int score(const char *model, const char *adapter)
{
    struct session_options o = { .model = model, .adapter = adapter,
                                 .machine = { .device = "cpu", .threads = 2, .host_bytes = -1 } };
    struct session s = { 0 };
    int rc;

    model_defaults(&o.plan);
    o.plan.mode = TRAIN_NONE;
    o.plan.ctx = 8;
    rc = session_open(&s, &o, &e);
    session_close(&s);
    return rc;
}

static int merge(const char *model, const char *adapter)
{
    struct merge_options o = { .base = model, .adapter = adapter, .out = in_dir("again"),
                               .keep_dtype = true, .shard_bytes = 1 << 30, .threads = 2, .force = true };
    struct merge_report r;

    return merge_run(&o, &r, &e);
}

/* What scores and what merges read every tensor of base and adapter. */
static void test_readers_find_spoilt_tensors(void **state)
{
    static const char *const files[] = { "base/model.safetensors", "plus/adapter_model.safetensors" };
    const char *base = strdup(in_dir("base")), *plus = strdup(in_dir("plus"));

    (void)state;
    assert_int_equal(score(base, plus), 0);
    assert_int_equal(merge(base, plus), 0);
    for (int i = 0; i < 2; i++) {
        const char *file = strdup(in_dir(files[i]));
        int64_t bits = bits_of(file), step = (bits - data_bit(file)) / 40 | 1;

        for (int64_t bit = data_bit(file); bit < bits; bit += step) {
            flip(file, bit);
            if (score(base, plus) != E_DATA || merge(base, plus) != E_DATA)
                fail_msg("%s: bit %lld is not found: %s", files[i], (long long)bit, e.msg);
            flip(file, bit);
        }
        free((char *)(uintptr_t)file);
    }
    free((char *)(uintptr_t)base);
    free((char *)(uintptr_t)plus);
}

/* A file of others, or of before, has no hashes, and is read as ever. */
static void test_what_has_no_hashes_is_read(void **state)
{
    (void)state;
    assert_int_equal(verify("tests/data/peft_tiny/plain/base"), 0);
    assert_int_equal(verify("tests/data/peft_tiny/plain/adapter"), 0);
    assert_int_equal(score("tests/data/peft_tiny/plain/base", "tests/data/peft_tiny/plain/adapter"), 0);
}

/* Edited, not spoilt: read with a warning, told by linfo. */
static void test_an_edited_config_is_no_error(void **state)
{
    char *config = strdup(in_dir("merged/config.json")), *text;
    size_t n;

    (void)state;
    assert_int_equal(file_read(config, 1 << 20, &text, &n, &e), 0);
    text[n - 1] = ' '; /* the line end */
    assert_int_equal(file_replace(config, text, n, &e), 0);
    assert_int_equal(verify(in_dir("merged")), E_NO);
    assert_int_equal(score(in_dir("merged"), NULL), 0);
    free(text);
    free(config);
}

static int setup(void **state)
{
    char name[] = "/tmp/test_flips-XXXXXX";

    (void)state;
    must_begin("test_flips");
    if (!mkdtemp(name) || !(dir = strdup(name)) || setenv("D", dir, 1) < 0)
        return -1;
    return system(make);
}

static int teardown(void **state)
{
    (void)state;
    dir_remove(dir, &e);
    free(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_bit_is_verified),
        cmocka_unit_test(test_readers_find_spoilt_tensors),
        cmocka_unit_test(test_what_has_no_hashes_is_read),
        cmocka_unit_test(test_an_edited_config_is_no_error),
    };
    int rc;

    log_init("test_flips", -1);
    rc = cmocka_run_group_tests(tests, setup, teardown);
    must_leave();
    return rc;
}
