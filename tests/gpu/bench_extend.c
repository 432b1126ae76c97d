/* tests/gpu/bench_extend.c - how fast texts grow on the GPU: noise in the sizes of Llama 2 7B.
 * usage: bench_extend [ROW ...]   rows by a part of their names; default: all */
#include "base/log.h"
#include "model/extend.h"
#include "model/preset.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WARM_UP = 3, STEPS = 40, CHUNK = 2048 };

struct row {
    const char *name;
    int64_t texts, rows;
    enum kv_type type;
    const char *overlap, *few; /* LONGLORA_OVERLAP and LONGLORA_FEW; NULL: as it is */
};

/* One token more of each text, every op timed by itself: what costs what, and what is between them. With events between
 * them kernels do not overlap. */
static int say_ops(struct device *d, struct model *m, const struct extend *x, struct err *e)
{
    struct op_time was[64], now[64];
    int n = d->profile(d, true, was, 64);
    double start = now_s(), all = 0, wall;
    int rc = model_extend(m, x, e);

    wall = now_s() - start;
    d->profile(d, false, now, 64);
    for (int i = 0; i < n && rc == 0; i++) {
        double s = now[i].s - was[i].s;

        all += now[i].beside ? 0 : s;
        if (now[i].calls > was[i].calls)
            printf("    %-15s %5lld calls %8.3f ms, %6.1f us each\n", now[i].name,
                   (long long)(now[i].calls - was[i].calls), 1e3 * s,
                   1e6 * s / (double)(now[i].calls - was[i].calls));
    }
    if (rc == 0)
        printf("    %-15s             %8.3f ms of %.3f, events included\n", "between ops", 1e3 * (wall - all),
               1e3 * wall);
    return rc;
}

static int bench(struct device *d, const struct llama_config *c, const struct row *r, struct err *e)
{
    float *logits = malloc((size_t)(r->texts * c->vocab) * sizeof *logits);
    struct piece *p = calloc((size_t)r->texts, sizeof *p);
    int32_t *ids = calloc((size_t)r->rows, sizeof *ids);
    struct model_options o;
    struct model *m = NULL;
    double start = 0, read_s = 0, step_s;
    int64_t n = r->rows - WARM_UP - STEPS - 1;
    int rc;

    model_defaults(&o);
    o.mode = TRAIN_NONE, o.seqs = 1, o.ctx = CHUNK;
    o.cache = (struct cache_options){ .rows = r->rows, .seqs = r->texts, .type = r->type };
    rc = model_open(&m, d, c, &o, e);
    if (rc == 0)
        rc = model_noise(m, 1, e);
    for (int64_t i = 0; i < r->rows; i++)
        ids[i] = (int32_t)(i % 1000);
    for (int64_t t = 0; t < r->texts && rc == 0; t++) {
        struct piece one = { t, n, ids };
        start = now_s();
        rc = model_extend(m, &(struct extend){ 1, &one, logits, false }, e);
        read_s = now_s() - start; /* the last: what is made once is made */
    }
    for (int i = 0; i < WARM_UP + STEPS && rc == 0; i++) {
        if (i == WARM_UP)
            start = now_s();
        for (int64_t t = 0; t < r->texts; t++)
            p[t] = (struct piece){ t, 1, ids + i };
        rc = model_extend(m, &(struct extend){ r->texts, p, logits, false }, e);
    }
    step_s = (now_s() - start) / STEPS;
    if (rc == 0) {
        const struct memory_plan *plan = model_memory(m);
        double bytes = (double)plan->frozen + (double)plan->cache * (double)n / (double)r->rows;

        printf("%-26s %6lld tokens: read %8.0f tokens/s; %7.3f ms a step, %7.1f tokens/s, %5.0f GB/s "
               "of weights and cache\n", r->name, (long long)n, (double)n / read_s, 1e3 * step_s,
               (double)r->texts / step_s, 1e-9 * bytes / step_s);
        rc = say_ops(d, m, &(struct extend){ r->texts, p, logits, false }, e);
    }
    model_close(m);
    free(logits), free(p), free(ids);
    return rc;
}

static void set_to(const char *name, const char *value)
{
    if (value)
        setenv(name, value, 1);
    else
        unsetenv(name);
}

/* On a device of its own, as its environment is read when it is opened. */
static int bench_row(const struct llama_config *c, const struct row *r, struct err *e)
{
    struct device d;
    int rc;

    set_to("LONGLORA_OVERLAP", r->overlap), set_to("LONGLORA_FEW", r->few);
    rc = device_open(&d, &(struct device_options){ .name = "cuda" }, e);
    if (rc == 0) {
        printf("# %s\n", d.detail);
        rc = bench(&d, c, r, e);
        d.close(&d);
    }
    return rc;
}

static bool is_wanted(const struct row *r, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strstr(r->name, argv[i]))
            return true;
    return argc < 2;
}

int main(int argc, char **argv)
{
    static const struct row rows[] = {
        { "7B, 1 text, no overlap", 1, 2048, KV_ACT, "0", NULL },
        { "7B, 1 text at 2k", 1, 2048, KV_ACT, NULL, NULL },    { "7B, 1 text, int8", 1, 2048, KV_INT8, NULL, NULL },
        { "7B, 4 texts", 4, 2048, KV_ACT, NULL, NULL },   { "7B, 8 texts, cuBLASLt", 8, 2048, KV_ACT, NULL, "4" },
        { "7B, 8 texts", 8, 2048, KV_ACT, NULL, NULL },   { "7B, 16 texts, cuBLASLt", 16, 2048, KV_ACT, NULL, "4" },
        { "7B, 16 texts", 16, 2048, KV_ACT, NULL, NULL }, { "7B, 1 text", 1, 32768, KV_ACT, NULL, NULL },
        { "7B, 1 text, no overlap", 1, 102400, KV_ACT, "0", NULL }, { "7B, 1 text", 1, 102400, KV_ACT, NULL, NULL },
        { "7B, 1 text, int8", 1, 102400, KV_INT8, NULL, NULL } };
    struct llama_config c;
    struct err e = { 0 };
    struct device d;
    int rc = device_open(&d, &(struct device_options){ .name = "cuda" }, &e);

    log_init("bench_extend", 0);
    if (rc < 0) {
        fprintf(stderr, "# no GPU, skipped: %s\n", e.msg);
        return 0;
    }
    d.close(&d);
    preset_config(&c, 0); /* llama-2-7b */
    for (size_t i = 0; i < sizeof rows / sizeof *rows && rc == 0; i++)
        if (is_wanted(&rows[i], argc, argv) && (rc = bench_row(&c, &rows[i], &e)) < 0)
            fprintf(stderr, "%s\n", e.msg);
    return rc < 0;
}
