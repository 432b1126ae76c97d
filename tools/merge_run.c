/* tools/merge_run.c - see merge.h. */
#include "tools/merge.h"

#include "base/bytes.h"
#include "base/file.h"
#include "base/must.h"
#include "base/staging.h"
#include "base/log.h"
#include "base/pool.h"
#include "base/json.h"
#include "formats/weights/safetensors.h"
#include "model/rope.h"
#include "tools/merge_plan.h"

#include <dirent.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Entries in memory at once, a thread's share, and at most so many shares: whole rows, so one
 * may be little more than half of TASK. */
enum { PIECE = 1 << 22, TASK = 1 << 15, MAX_TASKS = 2 * (PIECE / TASK) + 1 };
/* Of a tensor that is copied: so that it is checked and written while the nearest caches hold it. */
enum { COPY = 1 << 18 };

/* A merge goes tensor by tensor through the plan. One with a pair is cut into pieces of
 * whole rows; a piece is computed by all threads and written before the next one begins,
 * so that memory does not grow with the tensor. Nothing is computed in another order
 * with more threads. */
struct run {
    const struct merge_options *o;
    struct merge_report *r;
    struct merge_plan plan;
    struct pool *pool;
    double scale;
    float *w, *a, *b;    /* a task of every thread, as float32, and the tensor's pair */
    char *out;           /* a piece of the tensor, as it is written */
    int64_t w_cap, a_cap, b_cap, out_cap;
    int64_t done_bytes;
};

/* One piece of a tensor: rows [first, first + rows), shared out by blocks of rows. */
struct piece {
    struct run *r;
    const struct merge_item *m;
    int64_t first, rows, cols, rank, block;
    float *max;         /* by task */
    int64_t *unchanged; /* by task; -1: a value is not finite */
};

/* Of n values from 'first' on, in the output's type: those that are the base's own values in that
 * type, or -1: one is not finite. */
static int64_t count_unchanged(const struct merge_item *m, int64_t first, const char *out,
                               int64_t n)
{
    enum dtype t = m->type->plain;
    /* Bytes a value: a plain type's block is one value. */
    size_t size = m->type->block_bytes;
    float wide[1024], narrow[1024];
    int64_t same = 0;

    /* Checked after rounding: what float32 holds may be infinite in the output's type. */
    if (merge_not_finite(t, out, n))
        return -1;
    if (m->base->type == m->type)
        return merge_same(t, (const char *)m->base->data + (size_t)first * size, out, n);
    /* Else the base's values are rounded to the output's type first, so that only what the
     * merge itself changed is counted. */
    for (int64_t i = 0, k; i < n; i += k) {
        k = n - i < 1024 ? n - i : 1024;
        tensor_to_f32(m->base, first + i, k, wide, NULL);
        floats_narrow(t, wide, k, narrow);
        same += merge_same(t, narrow, out + (size_t)i * size, k);
    }
    return same;
}

/* One thread's share: widens rows of the base, adds the product of the pair to them and rounds
 * the sum once, into its place in r->out. */
static void merge_task(void *ctx, int64_t task, int thread)
{
    struct piece *p = ctx;
    struct run *r = p->r;
    int64_t at = task * p->block, rows = p->rows - at < p->block ? p->rows - at : p->block;
    int64_t first = (p->first + at) * p->cols, n = rows * p->cols;
    char *out = r->out + (size_t)(at * p->cols) * p->m->type->block_bytes;
    /* Room of the thread's own, which its next task uses again. */
    float *w = r->w + thread * p->block * p->cols;

    tensor_to_f32(p->m->base, first, n, w, NULL);
    p->max[task] = merge_rows(w, r->b + (p->first + at) * p->rank, r->a, rows, p->cols, p->rank,
                              (float)r->scale);
    floats_narrow(p->m->type->plain, w, n, out);
    p->unchanged[task] = count_unchanged(p->m, first, out, n);
}

/* Makes *p hold n floats; their old content need not be kept. */
static int room(float **p, int64_t *cap, int64_t n, struct err *e)
{
    float *q;

    if (n <= *cap)
        return 0;
    if (!(q = realloc(*p, (size_t)n * sizeof *q)))
        return err_set(e, E_SYS, "out of memory for %lld values", (long long)n);
    *p = q;
    *cap = n;
    return 0;
}

/* For n values of any plain type. */
static int room_out(struct run *r, int64_t n, struct err *e)
{
    char *p;

    if (n <= r->out_cap)
        return 0;
    if (!(p = realloc(r->out, (size_t)n * sizeof(float))))
        return err_set(e, E_SYS, "out of memory for %lld values", (long long)n);
    r->out = p;
    r->out_cap = n;
    return 0;
}

/* The user has asked to stop: E_NO, and what was begun is removed. */
static int stopped(const struct run *r, struct err *e)
{
    return r->o->stop && *r->o->stop ? err_set(e, E_NO, "stopped") : 0;
}

static int not_finite(const struct merge_item *m, struct err *e)
{
    err_set(e, E_DATA, "tensor '%.200s' has values that are not finite as %s", m->name,
            m->type->name);
    /* Float16 ends at 65504; the other types reach further. */
    return m->type->plain == DT_F16 ? err_hint(e, "try --dtype bfloat16 or --dtype float32") : E_DATA;
}

/* Merges one piece into r->out. */
static int merge_piece(struct piece *p, struct err *e)
{
    /* The last block may have fewer rows. */
    int64_t n = (p->rows + p->block - 1) / p->block;
    float max[MAX_TASKS];
    int64_t same[MAX_TASKS];

    p->max = max;
    p->unchanged = same;
    if (n > MAX_TASKS)
        return err_set(e, E_BUG, "%lld tasks in a piece", (long long)n);
    pool_run(p->r->pool, n, merge_task, p);
    for (int64_t i = 0; i < n; i++) {
        if (same[i] < 0) {
            return not_finite(p->m, e);
        }
        if (max[i] > p->r->r->max_delta)
            p->r->r->max_delta = max[i];
        p->r->r->unchanged += same[i];
    }
    return 0;
}

static int write_merged(struct run *r, struct st_writer *w, const struct merge_item *m,
                        struct err *e)
{
    struct piece p = { .r = r, .m = m, .cols = m->base->shape[1], .rank = m->a->shape[0] };
    int64_t rows = m->base->shape[0], step;
    int rc;

    /* At least one row, however long; and a whole number of blocks a piece. */
    p.block = TASK / p.cols ? TASK / p.cols : 1;
    step = PIECE / p.cols / p.block * p.block;
    step = step ? step : p.block;
    /* The pair is small against the tensor, so it is widened as a whole, once. */
    if ((rc = room(&r->a, &r->a_cap, m->a->count, e)) < 0 ||
        (rc = room(&r->b, &r->b_cap, m->b->count, e)) < 0 ||
        (rc = room(&r->w, &r->w_cap, pool_threads(r->pool) * p.block * p.cols, e)) < 0 ||
        (rc = room_out(r, (step < rows ? step : rows) * p.cols, e)) < 0 ||
        (rc = tensor_to_f32(m->a, 0, m->a->count, r->a, e)) < 0 ||
        (rc = tensor_to_f32(m->b, 0, m->b->count, r->b, e)) < 0)
        return rc;
    for (p.first = 0; p.first < rows && rc == 0; p.first += p.rows) {
        p.rows = rows - p.first < step ? rows - p.first : step;
        if ((rc = stopped(r, e)) == 0 && (rc = merge_piece(&p, e)) == 0)
            rc = st_write_raw(w, r->out, (size_t)(p.rows * p.cols) * m->type->block_bytes, e);
    }
    return rc;
}

/* A tensor of the base that stays as it is: from its file to the other. */
static int write_copy(struct run *r, struct st_writer *w, const struct merge_item *m,
                      struct err *e)
{
    const struct tensor *t = m->base;
    /* Bytes an element, without asking for the type: ids and flags are copied too. */
    size_t size = t->count ? t->nbytes / (size_t)t->count : 0;
    int rc = 0;

    for (int64_t i = 0, k; i < t->count && rc == 0; i += k) {
        const char *src = (const char *)t->data + (size_t)i * size;
        k = t->count - i < COPY ? t->count - i : COPY;
        if ((rc = stopped(r, e)) < 0)
            break;
        if (type_real(t->type) && merge_not_finite(t->type->plain, src, k))
            rc = not_finite(m, e);
        else /* what is not real: ids, flags */
            rc = st_write_raw(w, src, (size_t)k * size, e);
    }
    return rc;
}

/* A tensor without a pair: bytes where the type stays, else through float32. */
static int write_plain(struct run *r, struct st_writer *w, const struct merge_item *m,
                       struct err *e)
{
    const struct tensor *t = m->whole ? m->whole : m->base;
    float limit = m->type->plain == DT_F16 ? 65520.0f : INFINITY; /* where it rounds to infinity */
    int rc;

    /* Nothing to convert: the file's bytes are the result's. */
    if (!m->whole && t->type == m->type && (!type_real(t->type) || t->type->plain != DT_OTHER))
        return write_copy(r, w, m, e);
    rc = room(&r->w, &r->w_cap, TASK, e);
    for (int64_t i = 0, k; i < t->count && rc == 0; i += k) {
        k = t->count - i < TASK ? t->count - i : TASK;
        if ((rc = stopped(r, e)) < 0 || (rc = tensor_to_f32(t, i, k, r->w, e)) < 0)
            break;
        rc = merge_beyond(r->w, k, limit) ? not_finite(m, e) : st_write_f32(w, r->w, k, e);
    }
    return rc;
}

/* The names that Hugging Face's loaders expect, numbered from 1. */
static void file_name(char *name, size_t cap, int file, int files)
{
    if (files == 1)
        snprintf(name, cap, "model.safetensors");
    else
        snprintf(name, cap, "model-%05d-of-%05d.safetensors", file + 1, files);
}

static int write_items(struct run *r, struct st_writer *w, int64_t first, int64_t end,
                       struct err *e)
{
    int rc = 0;

    for (int64_t i = first; i < end && rc == 0; i++) {
        const struct merge_item *m = &r->plan.items[i];
        /* 1 more, as a model may have no bytes at all. */
        log_progress("%s  %.0f%%", m->name,
                     100.0 * (double)r->done_bytes / ((double)r->r->bytes + 1));
        rc = m->a ? write_merged(r, w, m, e) : write_plain(r, w, m, e);
        r->done_bytes += (int64_t)m->nbytes;
    }
    return rc;
}

static int write_file(struct run *r, const char *folder, int64_t first, int64_t end,
                      struct err *e)
{
    struct st_decl *d = calloc((size_t)(end - first) + 1, sizeof *d);
    struct st_writer *w = NULL;
    char name[64], *path;
    int rc = d ? 0 : err_set(e, E_SYS, "out of memory");

    file_name(name, sizeof name, r->plan.items[first].file, r->plan.files);
    path = path_join(folder, name);
    /* The whole header is written first, with every tensor's place, so the
     * shapes must be known. */
    for (int64_t i = first; i < end && rc == 0; i++) {
        const struct merge_item *m = &r->plan.items[i];
        d[i - first] = (struct st_decl){ .name = m->name, .type = m->type,
                                         .dims = m->base->dims };
        memcpy(d[i - first].shape, m->base->shape, sizeof m->base->shape);
    }
    if (rc == 0)
        /* On failure the half-written file is removed; after st_finish there is
         * nothing to remove. */
        rc = st_create(&w, path, d, end - first, e);
    if (rc == 0 && (rc = write_items(r, w, first, end, e)) == 0) {
        rc = st_finish(w, e);
        w = NULL;
    }
    st_abandon(w);
    free(path);
    free(d);
    return rc;
}

/* For a model of several files: which tensor is in which of them. */
static int write_index(const struct run *r, const char *folder, struct err *e)
{
    json_t *map = json_object(), *root;
    char name[64], *path = path_join(folder, "model.safetensors.index.json");
    int rc = map ? 0 : E_SYS;

    for (int64_t i = 0; i < r->plan.n && rc == 0; i++) {
        file_name(name, sizeof name, r->plan.items[i].file, r->plan.files);
        rc = json_object_set_new(map, r->plan.items[i].name, json_string(name)) ? E_SYS : 0;
    }
    /* "so" takes over the reference to map, so map is not freed apart. */
    root = json_pack("{s{sI} so}", "metadata", "total_size", (json_int_t)r->r->bytes,
                     "weight_map", map);
    rc = rc == 0 && root ? js_save(root, path, e) : err_set(e, E_SYS, "out of memory");
    json_decref(root);
    free(path);
    return rc;
}

/* Everything of the result, into a folder that is there. */
static int write_all(struct run *r, const char *folder, struct err *e)
{
    char *like = path_join(r->o->base, "config.json"),
         *config = path_join(folder, "config.json");
    int64_t first = 0, end;
    int rc = 0;

    for (; first < r->plan.n && rc == 0; first = end) {
        /* Items of the same file stand side by side in the plan. */
        for (end = first; end < r->plan.n &&
             r->plan.items[end].file == r->plan.items[first].file; end++)
            ;
        rc = write_file(r, folder, first, end, e);
    }
    log_progress_end();
    if (rc == 0 && r->plan.files > 1)
        rc = write_index(r, folder, e);
    if (rc == 0)
        rc = weights_copy_side_files(r->o->base, folder, config_reach(&r->plan.config), e);
    if (rc == 0) /* last: a folder without it is not a model */
        rc = config_write(&r->plan.config, like, r->r->dtype, config, e);
    free(like);
    free(config);
    return rc == 0 ? file_sync(folder, e) : rc;
}

/* What may be at out with force: a folder with config.json, and nothing but files. */
static int check_replaceable(const char *out, struct err *e)
{
    DIR *d = opendir(out);
    bool model = false, odd = false;
    const struct dirent *f;

    if (!d)
        return err_sys(e, E_CREATE, "cannot replace '%s'", out);
    /* A folder within would be removed too, so its presence is reason enough to refuse. */
    while ((f = readdir(d))) {
        if (strcmp(f->d_name, ".") == 0 || strcmp(f->d_name, "..") == 0)
            continue;
        char *path = path_join(out, f->d_name);
        odd |= path_is_dir(path);
        model |= strcmp(f->d_name, "config.json") == 0;
        free(path);
    }
    closedir(d);
    if (model && !odd)
        return 0;
    err_set(e, E_CREATE, "'%s' is not a model folder, so it is not replaced", out);
    return err_hint(e, "name another folder with -o");
}

/* The same folder, also by another name or through a link. */
static bool same_place(const char *a, const char *b)
{
    struct stat x, y;

    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* Refuses an output that would destroy something: an input, always; what is there, without
 * force; and with force what is no model folder. */
static int check_out(const struct merge_options *o, const char *out, struct err *e)
{
    if (!path_exists(out))
        return 0;
    if (same_place(out, o->base) || same_place(out, o->adapter))
        return err_set(e, E_USAGE, "'%s' is an input: it cannot be the output too", out);
    if (o->force)
        return check_replaceable(out, e);
    err_set(e, E_CREATE, "'%s' is there already", out);
    return err_hint(e, "name another folder with -o, or replace it with -f");
}

/* The folder that is being built, for remove_building, which takes no argument. A signal
 * handler only asks whether there is one. */
static struct staging *volatile building;

bool merge_building(void) { return building; }
static void remove_building(void) { staging_abandon(building); }

static int build(struct run *r, const char *out, struct err *e)
{
    struct staging s;
    int rc = staging_open(&s, out, e);

    if (rc < 0)
        return rc;
    /* From here on, the folder is also removed when the program ends in the middle: without
     * memory, or because an input file was cut. */
    building = &s;
    must_end_with(remove_building);
    if ((rc = write_all(r, s.tmp, e)) == 0)
        /* A signal that came after the last tensor still counts. */
        rc = stopped(r, e);
    must_end_with(NULL);
    if (rc == 0)
        rc = staging_publish(&s, e);
    else
        staging_abandon(&s);
    building = NULL;
    return rc;
}

/* An adapter of another program does not say what context it was trained for. */
static int set_rope(struct run *r, const struct adapter *a, struct err *e)
{
    const struct merge_options *o = r->o;
    struct llama_config *c = &r->plan.config;
    int rc;

    if (o->rope.factor == 0 && o->rope.theta == 0) {
        if (!adapter_has_model(a))
            log_info("'%s' has no config.json: RoPE stays the base's; if it was trained for a "
                     "longer context, give --rope-factor", o->adapter);
        return 0;
    }
    /* Such an adapter brings its own RoPE, and a second factor would scale it twice. */
    if (adapter_has_model(a)) {
        err_set(e, E_USAGE, "--rope and its options are only for an adapter without config.json, "
                            "and '%s' has one", o->adapter);
        return err_hint(e, "leave --rope-factor out, and --rope");
    }
    if ((rc = rope_extend(c, 0, &o->rope, e)) == 0)
        r->r->context = config_reach(c);
    return rc;
}

int merge_run(const struct merge_options *o, struct merge_report *report, struct err *e)
{
    struct run r = { .o = o, .r = report };
    struct weights *w = NULL;
    struct adapter *a = NULL;
    char *out = strdup(o->out);
    size_t n = out ? strlen(out) : 0;
    int rc = out ? 0 : err_set(e, E_SYS, "out of memory");

    *report = (struct merge_report){0};
    /* A '/' at the end is no part of the folder's name. */
    while (n > 1 && out[n - 1] == '/')
        out[--n] = '\0';
    /* Cheap checks come first: nothing is opened when the output is refused. */
    if (rc == 0 && (rc = check_out(o, out, e)) == 0 &&
        (rc = weights_open(&w, o->base, e)) == 0 &&
        (rc = adapter_open(&a, o->adapter, weights_config(w), e)) == 0 &&
        (rc = merge_plan_make(&r.plan, o, w, a, report, e)) == 0 &&
        (rc = set_rope(&r, a, e)) == 0 && !(r.pool = pool_open(o->threads, e)))
        rc = E_SYS;
    if (rc == 0) {
        r.scale = adapter_scale(adapter_config(a));
        rope_advice(&r.plan.config, report->advice, sizeof report->advice);
        rc = build(&r, out, e);
    }
    pool_close(r.pool);
    merge_plan_free(&r.plan);
    adapter_close(a);
    weights_close(w);
    free(r.w);
    free(r.a);
    free(r.b);
    free(r.out);
    free(out);
    return rc;
}
