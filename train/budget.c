/* train/budget.c - see budget.h. */
#include "train/budget.h"

#include "base/log.h"
#include "train/rows.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES ((size_t)1 << 20) /* of a checkpoint, moved or hashed at once */

/* A field of /proc/self/status, in bytes (the file has KiB); 0 where it cannot be read. */
static int64_t status_field(const char *key)
{
    char line[256];
    int64_t kib = 0;
    FILE *f = fopen("/proc/self/status", "re");

    if (!f)
        return 0;
    while (fgets(line, sizeof line, f))
        if (strncmp(line, key, strlen(key)) == 0)
            kib = strtoll(line + strlen(key), NULL, 10);
    fclose(f);
    return kib * 1024;
}

int64_t budget_rss(void) { return status_field("VmRSS:"); }
int64_t budget_peak_rss(void) { return status_field("VmHWM:"); }

/* Runs one matrix product, at most 1024 in each dimension, so that the library touches the
 * buffers it packs into: then budget_rss counts them as part of the program. */
static int warm_up(struct device *d, const struct llama_config *c, int64_t rows, struct err *e)
{
    int64_t dim = c->dim < 1024 ? c->dim : 1024, n = rows < 1024 ? rows : 1024;
    size_t es = dtype_bytes(d->act);
    void *a, *b, *y;
    struct op_gemm g = { .trans_b = true, .m = n, .n = dim, .k = dim, .alpha = 1,
                         .lda = dim, .ldb = dim, .ldc = dim, .c_type = d->act };
    int rc = d->alloc(d, (size_t)(n * dim) * es, &a, e);

    if (rc < 0)
        return rc;
    if ((rc = d->alloc(d, (size_t)(dim * dim) * es, &b, e)) == 0) {
        if ((rc = d->alloc(d, (size_t)(n * dim) * es, &y, e)) == 0) {
            g.a = a, g.b = mat_plain(d->act, b), g.c = y;
            if ((rc = d->gemm(d, &g)) < 0)
                err_set(e, rc, "a matrix product failed on '%s'", d->name);
            else
                rc = d->sync(d, e);
            d->release(d, y);
        }
        d->release(d, b);
    }
    d->release(d, a);
    return rc;
}

/* Loading holds the frozen and trained weights and the mapped base at once; training holds
 * the whole plan and the host's buffers. They do not overlap, so the peak is the larger of
 * both. With a device that has its own memory, 'peak' is of the device and 'host_peak' of
 * the host. */
int budget_make(struct budget *b, struct session *s, size_t mapped, struct err *e)
{
    struct device *d = &s->device;
    const struct model_options *o = &s->options;
    size_t load, run, piece;
    int rc = 0;

    b->model = s->plan;
    b->free = d->free_bytes(d);
    b->capacity = model_capacity(d, o);
    if (d->gemm) /* a device that is only planned for has no ops */
        rc = warm_up(d, &s->config, o->seqs * o->ctx, e);
    if (rc < 0)
        return rc;
    b->process = (size_t)budget_rss();
    piece = b->model.trained < PIECE_BYTES ? b->model.trained : PIECE_BYTES;
    b->host = rows_bytes(o->ctx, o->seqs) + 2 * piece;
    b->mapped = mapped;
    load = b->model.frozen + b->model.trained + mapped;
    run = b->model.total + b->host;
    b->peak = b->process + (load > run ? load : run);
    b->own_memory = d->own_memory;
    /* The peak is the device's here. On the host, mapped base weights and the buffers of the
     * run do not overlap: loading ends before training begins. */
    if (b->own_memory) {
        b->peak = b->model.total;
        b->held = d->held_bytes;
        b->host_peak = b->process + b->model.host + (mapped > b->host ? mapped : b->host);
    }
    return 0;
}

size_t budget_need(const struct budget *b)
{
    return b->own_memory ? b->model.total : b->model.total + b->host;
}

bool budget_too_large(const struct budget *b)
{
    return budget_need(b) > b->capacity;
}

/* One line of the table, the size in units that people read. */
static void line(FILE *f, const char *name, size_t nbytes, const char *what)
{
    char text[32];

    fprintf(f, "%-10s %12s  %s\n", name, fmt_bytes((double)nbytes, text, sizeof text), what);
}

/* Returns the characters added, none beyond cap. */
__attribute__((format(printf, 4, 5)))
static size_t add_text(char *text, size_t at, size_t cap, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text + at, cap - at, fmt, ap);
    va_end(ap);
    return strlen(text + at);
}

/* Describes what layers save, as "all in 3 layers; input in 29 layers (offloaded)". For
 * level k, 'offloaded' counts the parts in host memory: 0 none, k + 1 all of them. */
void budget_saved(const struct memory_plan *p, char *text, size_t cap)
{
    static const char *const name[SAVE_LEVELS] = { "input", "attention", "q, k, v", "all" };
    size_t n = 0;

    *text = '\0';
    for (int k = SAVE_ALL; k >= SAVE_INPUT; k--)
        for (int offloaded = 0; offloaded <= k + 1; offloaded++) {
            int64_t layers = p->placement.n[k][offloaded];

            if (layers == 0)
                continue;
            n += add_text(text, n, cap, "%s%s in %" PRId64 " layer%s", n ? "; " : "", name[k],
                          layers, layers == 1 ? "" : "s");
            if (offloaded == k + 1)
                n += add_text(text, n, cap, " (offloaded)");
            else if (offloaded)
                n += add_text(text, n, cap, " (%s%s offloaded)", offloaded > 1 ? "up to " : "",
                              name[offloaded - 1]);
        }
    if (p->placement.streamed)
        n += add_text(text, n, cap, "%sweights of %" PRId64 " layer%s ", n ? "; " : "",
                      p->placement.streamed, p->placement.streamed == 1 ? "" : "s");
    if (p->placement.streamed && p->shares > 1)
        add_text(text, n, cap, "over %" PRId64 " ranks", p->shares);
    else if (p->placement.streamed)
        add_text(text, n, cap, "streamed");
}

/* The table of --plan: one line per kind of memory. */
void budget_print(const struct budget *b, FILE *f)
{
    const struct memory_plan *p = &b->model;
    char layers[SAVED_CHARS], saved[SAVED_CHARS + 40];

    budget_saved(p, layers, sizeof layers);
    snprintf(saved, sizeof saved, "activations saved for the backward: %s", layers);
    line(f, "frozen", p->frozen, "frozen weights");
    line(f, "trained", p->trained, "trained weights and their copies");
    line(f, "gradients", p->gradients, "of the trained weights");
    line(f, "moments", p->moments, "of AdamW, two values per trained weight");
    line(f, "saved", p->saved, saved);
    line(f, "work", p->work, "buffers of one layer, of the loss, token ids");
    if (b->own_memory) {
        line(f, "peak", b->peak, "predicted, GPU memory");
        line(f, "context", b->held, "CUDA context, libraries and their workspace");
        line(f, "available", b->capacity, budget_too_large(b)
             ? "GPU memory for the plan: it does not fit"
             : "GPU memory for the plan: it fits");
        line(f, "pinned", p->host, "host memory for what is offloaded");
    }
    line(f, "host", b->host, "rows of data, pieces of a checkpoint");
    line(f, "process", b->process, "program and libraries");
    line(f, "mapped", b->mapped, "base weights while they are loaded");
    if (b->own_memory) {
        line(f, "host peak", b->host_peak, "predicted, memory of this process");
        return;
    }
    line(f, "peak", b->peak, "predicted: loading or training, whichever is more");
    line(f, "free", b->free, "memory available now");
}

/* The same figures for --json, all in bytes unless the key says otherwise. */
json_t *budget_json(const struct budget *b)
{
    const struct memory_plan *p = &b->model;
    const struct {
        const char *key;
        int64_t value;
    } field[] = {
        { "frozen_bytes", (int64_t)p->frozen },       { "trained_bytes", (int64_t)p->trained },
        { "gradient_bytes", (int64_t)p->gradients },  { "moment_bytes", (int64_t)p->moments },
        { "saved_bytes", (int64_t)p->saved },         { "work_bytes", (int64_t)p->work },
        { "host_bytes", (int64_t)b->host },           { "process_bytes", (int64_t)b->process },
        { "mapped_bytes", (int64_t)b->mapped },       { "peak_bytes", (int64_t)b->peak },
        { "free_bytes", (int64_t)b->free },           { "room_bytes", (int64_t)b->capacity },
        { "held_bytes", (int64_t)b->held },           { "pinned_bytes", (int64_t)p->host },
        { "streamed_layers", p->placement.streamed },
        { "keep_layers", placement_layers(&p->placement, SAVE_ALL) },         { "layers", p->layers },
        { "keep_qkv_layers", placement_layers(&p->placement, SAVE_QKV) },
        { "keep_attention_layers", placement_layers(&p->placement, SAVE_ATTENTION) },
        { "params", p->params },                      { "trained_params", p->trained_params },
    };
    json_t *o = json_object();

    for (size_t i = 0; o && i < sizeof field / sizeof *field; i++)
        json_object_set_new(o, field[i].key, json_integer(field[i].value));
    if (o && b->own_memory)
        json_object_set_new(o, "host_peak_bytes", json_integer((int64_t)b->host_peak));
    return o;
}
