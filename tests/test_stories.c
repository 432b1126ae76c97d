/* tests/test_stories.c - a model that others trained: stories260K's logits, where it is at hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "model/model.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

static char *folder; /* a scratch copy of the model, unpacked */

static void unpack(const char *from, const char *to)
{
    struct err e = {0};
    char *packed, *plain;
    size_t n;
    unsigned long long size;

    if (file_read(from, 1 << 26, &packed, &n, &e) < 0)
        fail_msg("%s", e.msg);
    size = ZSTD_getFrameContentSize(packed, n);
    assert_true(size < 1 << 26);
    plain = malloc((size_t)size);
    assert_int_equal(ZSTD_decompress(plain, (size_t)size, packed, n), size);
    assert_int_equal(file_replace(to, plain, (size_t)size, &e), 0);
    free(packed);
    free(plain);
}

static int set_up(void **state)
{
    static char name[] = "/tmp/longlora-stories-XXXXXX";
    const char *data = getenv("LONGLORA_DATA");
    char from[4096], to[4096];
    struct err e = {0};

    (void)state;
    if (!data)
        return 0;
    folder = mkdtemp(name);
    assert_non_null(folder);
    snprintf(from, sizeof from, "%s/weights/stories260K/hf/config.json", data);
    snprintf(to, sizeof to, "%s/config.json", folder);
    assert_int_equal(file_copy(from, to, &e), 0);
    snprintf(from, sizeof from, "%s/weights/stories260K/hf/model.safetensors.zst", data);
    snprintf(to, sizeof to, "%s/model.safetensors", folder);
    unpack(from, to);
    return 0;
}

static int tear_down(void **state)
{
    struct err e = {0};

    (void)state;
    return folder ? dir_remove(folder, &e) : 0;
}

/* Logits of all tokens [n][vocab] and the nll of each. The caller frees the logits. */
static float *run(const int32_t *ids, int64_t n, int64_t *vocab, float *nll)
{
    struct err e = {0};
    struct device d;
    struct weights *w;
    struct model *m;
    struct model_options o;
    struct segments seg = {0};
    struct batch b = { .n_seqs = 1, .len = n, .ids = ids, .seg = &seg, .nll = nll };
    int32_t *targets = malloc((size_t)n * sizeof *targets);
    float *logits;
    double sum;
    int64_t scored;

    for (int64_t i = 0; i < n; i++)
        targets[i] = i + 1 < n ? ids[i + 1] : -1;
    b.targets = targets;
    model_defaults(&o);
    o.mode = TRAIN_NONE;
    o.ctx = n;
    if (device_open(&d,
                    &(struct device_options){ .name = "cpu", .threads = 2 },
                    &e) < 0 || weights_open(&w, folder, &e) < 0 ||
        model_open(&m, &d, weights_config(w), &o, &e) < 0 || model_load(m, w, 0, &e) < 0 ||
        segments_build(&seg, ATTN_DENSE, 1, n, 0, NULL, 0, &e) < 0)
        fail_msg("%s", e.msg);
    *vocab = weights_config(w)->vocab;
    logits = malloc((size_t)(n * *vocab) * sizeof *logits);
    if (model_logits(m, &b, logits, &e) < 0 || model_forward(m, &b, &sum, &scored, &e) < 0)
        fail_msg("%s", e.msg);
    model_close(m);
    weights_close(w);
    d.close(&d);
    segments_free(&seg);
    free(targets);
    return logits;
}

static void check_case(const json_t *c)
{
    const json_t *tokens = json_object_get(c, "tokens"), *nll = json_object_get(c, "nll");
    const json_t *last = json_object_get(c, "last_logits");
    int64_t n = (int64_t)json_array_size(tokens), vocab;
    int32_t *ids = malloc((size_t)n * sizeof *ids);
    float *got = malloc((size_t)n * sizeof *got), *logits;

    assert_true(n > 8 && json_array_size(nll) == (size_t)n - 1);
    for (int64_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(tokens, (size_t)i));
    logits = run(ids, n, &vocab, got);
    for (int64_t i = 0; i + 1 < n; i++)
        if (fabs((double)got[i] - json_number_value(json_array_get(nll, (size_t)i))) > 1e-4)
            fail_msg("nll of token %d: %f", (int)i, (double)got[i]);
    assert_int_equal(json_array_size(last), vocab);
    for (int64_t v = 0; v < vocab; v++)
        assert_true(fabs((double)logits[(n - 1) * vocab + v] -
                         json_number_value(json_array_get(last, (size_t)v))) < 1e-4);
    free(logits);
    free(got);
    free(ids);
}

static void test_logits_of_a_pretrained_model(void **state)
{
    const char *data = getenv("LONGLORA_DATA");
    char path[4096];
    json_t *root, *c;
    size_t i;

    (void)state;
    if (!data)
        skip(); /* no $LONGLORA_DATA */
    snprintf(path, sizeof path, "%s/weights/stories260K/oracle_logits.json", data);
    root = json_load_file(path, 0, NULL);
    assert_non_null(root);
    assert_true(json_array_size(json_object_get(root, "cases")) > 0);
    json_array_foreach(json_object_get(root, "cases"), i, c)
        check_case(c);
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_logits_of_a_pretrained_model) };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
