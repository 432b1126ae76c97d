/* tests/adaptertest.h - what a base and an adapter compute, against the numbers of peft. */
#ifndef TESTS_ADAPTERTEST_H
#define TESTS_ADAPTERTEST_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/json.h"
#include "model/model.h"

#include <math.h>
#include <stdlib.h>

#define OK(x) do { if ((x) < 0) fail_msg("%s: %s", #x, e.msg); } while (0)

/* Largest difference of our logits from those in folder/logits.json. adapter may be NULL. */
static double logits_differ(const char *model, const char *adapter, const char *golden)
{
    int32_t ids[64], targets[64];
    struct segments seg = {0};
    struct model_options o;
    struct weights *w;
    struct adapter *a = NULL;
    struct device d;
    struct model *m;
    struct err e = {0};
    struct js js;
    json_t *list, *rows;
    double worst = 0;
    float *logits;
    size_t n;

    OK(js_load(&js, golden, JS_MAX_BYTES, &e));
    OK(js_array(&js, "ids", JS_MUST, &list, &e));
    OK(js_array(&js, "logits", JS_MUST, &rows, &e));
    n = json_array_size(list);
    assert_true(n > 1 && n <= 64);
    for (size_t i = 0; i < n; i++) {
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
        targets[i] = -1;
    }
    OK(device_open(&d, &(struct device_options){ .name = "cpu", .threads = 1 }, &e));
    OK(weights_open(&w, model, &e));
    if (adapter)
        OK(adapter_open(&a, adapter, weights_config(w), &e));
    model_defaults(&o);
    o.mode = TRAIN_NONE;
    o.ctx = (int64_t)n;
    o.seqs = 1;
    if (a)
        OK(weights_resize(w, adapter_model_config(a)->vocab, &e));
    OK(model_open(&m, &d, a ? adapter_model_config(a) : weights_config(w), &o, &e));
    OK(model_load(m, w, 1, &e));
    if (a)
        OK(model_load_adapter(m, a, &e));
    OK(segments_build(&seg, ATTN_DENSE, 1, (int64_t)n, 0, NULL, 0, &e));
    logits = calloc(n * (size_t)weights_config(w)->vocab, sizeof *logits);
    assert_non_null(logits);
    OK(model_logits(m, &(struct batch){ 1, (int64_t)n, ids, targets, &seg, NULL }, logits, &e));
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < (size_t)weights_config(w)->vocab; k++) {
            double want = json_number_value(json_array_get(json_array_get(rows, i), k));
            double got = logits[i * (size_t)weights_config(w)->vocab + k];
            if (!(fabs(got - want) <= worst))
                worst = fabs(got - want);
        }
    free(logits);
    segments_free(&seg);
    model_close(m);
    adapter_close(a);
    weights_close(w);
    d.close(&d);
    js_free(&js);
    return worst;
}
#endif
