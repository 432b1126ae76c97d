/* tools/merge_run.c - see merge.h. */
#include "tools/merge.h"

#include "base/bytes.h"
#include "base/file.h"
#include "base/gguf.h"
#include "base/must.h"
#include "base/staging.h"
#include "base/log.h"
#include "base/json.h"
#include "formats/weights/beside.h"
#include "formats/weights/safetensors.h"
#include "model/gguf_files.h"
#include "model/rope.h"
#include "tools/merge_gguf.h"

#include <dirent.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONFIG "config.json"
#define INDEX "model.safetensors.index.json"

/* A merge goes tensor by tensor through the plan. */
struct run {
    const struct merge_options *o;
    struct merge_report *r;
    const struct weights *weights;
    struct merge_plan plan;
    struct merger merger;
    uint64_t *each;      /* hashes of the base's tensors, by their places in weights; 0: not yet */
    int64_t done_bytes;
};

/* The names that Hugging Face's loaders expect, numbered from 1. */
static void file_name(char *name, size_t cap, int file, int files)
{
    if (files == 1)
        snprintf(name, cap, "model.safetensors");
    else
        snprintf(name, cap, "model-%05d-of-%05d.safetensors", file + 1, files);
}

static int begin(void *w, size_t nbytes, struct err *e) { return st_begin(w, nbytes, e); }
static int end_with(void *w, uint64_t hash, struct err *e) { return st_end(w, hash, e); }
static int write_at(void *w, size_t at, const void *p, size_t n, struct err *e)
{
    return st_write_at(w, at, p, n, e);
}

static int write_items(struct run *r, struct st_writer *w, int64_t first, int64_t end,
                       struct err *e)
{
    const struct merge_sink to = { w, begin, write_at, end_with };
    int rc = 0;

    for (int64_t i = first; i < end && rc == 0; i++) {
        const struct merge_item *m = &r->plan.items[i];
        /* 1 more, as a model may have no bytes at all. */
        log_progress("%s  %.0f%%", m->name,
                     100.0 * (double)r->done_bytes / ((double)r->r->bytes + 1));
        rc = merger_write(&r->merger, &to, m, &r->each[m->base - weights_at(r->weights, 0)], e);
        r->done_bytes += (int64_t)m->nbytes;
    }
    return rc;
}

static int write_file(struct run *r, const char *folder, int64_t first, int64_t end,
                      const struct st_note *notes, struct err *e)
{
    struct st_decl *d = calloc((size_t)(end - first) + 1, sizeof *d);
    struct st_writer *w = NULL;
    char name[64], *path;
    int rc = d ? 0 : err_set(e, E_SYS, "out of memory");

    file_name(name, sizeof name, r->plan.items[first].file, r->plan.files);
    path = path_join(folder, name);
    /* The header's length must be known first, so every tensor is declared. */
    for (int64_t i = first; i < end && rc == 0; i++) {
        const struct merge_item *m = &r->plan.items[i];
        d[i - first] = (struct st_decl){ .name = m->name, .type = m->type,
                                         .dims = m->base->dims };
        memcpy(d[i - first].shape, m->base->shape, sizeof m->base->shape);
    }
    if (rc == 0)
        /* On failure the half-written file is removed; after st_finish there is
         * nothing to remove. */
        rc = st_create_noted(&w, path, d, end - first, notes, e);
    if (rc == 0 && (rc = write_items(r, w, first, end, e)) == 0) {
        rc = st_finish(w, e);
        w = NULL;
    }
    st_abandon(w);
    free(path);
    free(d);
    return rc;
}

/* For a model of several files: which tensor is in which of them. *text is malloc'ed. */
static int index_text(const struct run *r, char **text, struct err *e)
{
    json_t *map = json_object(), *root;
    char name[64];
    int rc = map ? 0 : E_SYS;

    for (int64_t i = 0; i < r->plan.n && rc == 0; i++) {
        file_name(name, sizeof name, r->plan.items[i].file, r->plan.files);
        rc = json_object_set_new(map, r->plan.items[i].name, json_string(name)) ? E_SYS : 0;
    }
    /* "so" takes over the reference to map, so map is not freed apart. */
    root = json_pack("{s{sI} so}", "metadata", "total_size", (json_int_t)r->r->bytes,
                     "weight_map", map);
    *text = rc == 0 && root ? js_text(root) : NULL;
    json_decref(root);
    return *text ? 0 : err_set(e, E_SYS, "out of memory");
}

static int put_text(const char *folder, const char *name, const char *text, struct err *e)
{
    char *path = path_join(folder, name);
    int rc = file_replace(path, text, strlen(text), e);

    free(path);
    return rc;
}

/* All files of weights; notes are for each. */
static int write_files(struct run *r, const char *folder, const struct st_note *notes,
                       struct err *e)
{
    int64_t first = 0, end;
    int rc = 0;

    for (; first < r->plan.n && rc == 0; first = end) {
        /* Items of the same file stand side by side in the plan. */
        for (end = first; end < r->plan.n &&
             r->plan.items[end].file == r->plan.items[first].file; end++)
            ;
        rc = write_file(r, folder, first, end, notes, e);
    }
    log_progress_end();
    return rc;
}

/* Everything of the result, into a folder that is there. What is beside the weights comes first, or
 * is made up at least, as they hold its hashes. */
static int write_all(struct run *r, const char *folder, struct err *e)
{
    bool gguf = gguf_is(r->o->base);
    char *like = gguf ? NULL : path_join(r->o->base, "config.json"), *config = NULL, *index = NULL;
    struct beside files = { 0 };
    struct buf list = { 0 };
    int64_t reach = config_reach(&r->plan.config);
    char *tokenizer = r->o->adapter ? weights_tokenizer_path(r->o->adapter) : NULL;
    /* A tokenizer that was saved with the adapter knows the tokens that were added. */
    int rc = tokenizer ? weights_copy_side_files(r->o->adapter, folder, reach, &files, e) : 0;

    free(tokenizer);
    if (rc == 0)
        rc = gguf ? gguf_files(r->o->base, folder, &files, e)
                  : weights_copy_side_files(r->o->base, folder, reach, &files, e);
    if (rc == 0 && (rc = config_text(&r->plan.config, like, r->r->dtype, CONFIG, &config, e)) == 0)
        rc = beside_add(&files, CONFIG, config, strlen(config), e);
    if (rc == 0 && r->plan.files > 1 && (rc = index_text(r, &index, e)) == 0 &&
        (rc = beside_add(&files, INDEX, index, strlen(index), e)) == 0)
        rc = put_text(folder, INDEX, index, e);
    if (rc == 0 && (rc = beside_value(&files, &list, e)) == 0)
        rc = write_files(r, folder, (struct st_note[]){ { BESIDE_KEY, list.p }, { 0 } }, e);
    if (rc == 0) /* last: a folder without it is not a model */
        rc = put_text(folder, CONFIG, config, e);
    beside_free(&files);
    buf_free(&list);
    free(index);
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
    if (same_place(out, o->base) || (o->adapter && same_place(out, o->adapter)))
        return err_set(e, E_USAGE, "'%s' is an input: it cannot be the output too", out);
    if (o->to_gguf && path_is_dir(out))
        return err_set(e, E_CREATE, "'%s' is a folder", out);
    if (o->force)
        return o->to_gguf ? 0 : check_replaceable(out, e);
    err_set(e, E_CREATE, "'%s' is there already", out);
    return err_hint(e, "name another folder with -o, or replace it with -f");
}

/* The folder that is being built, for remove_building, which takes no argument. A signal
 * handler only asks whether there is one. */
static struct staging *volatile building;

bool merge_building(void) { return building; }
static void remove_building(void) { staging_abandon(building); }

/* What the result does not have of the base counts too: the adapter may say which base it was trained
 * on, and every byte of that. */
static int check_base(struct run *r, const struct adapter *a, struct err *e)
{
    uint64_t want = a ? adapter_config(a)->base_hash : 0;
    int rc = 0;

    for (int64_t i = 0; i < weights_count(r->weights) && rc == 0; i++)
        if (r->each[i] == 0)
            rc = merger_hash(&r->merger, weights_at(r->weights, i), &r->each[i], e);
    if (rc == 0 && want && want != weights_hash(r->weights, r->each))
        log_warn("'%s' was trained on other weights than those of '%s'", r->o->adapter, r->o->base);
    return rc;
}

static int build(struct run *r, const struct adapter *a, const char *out, struct err *e)
{
    struct staging s;
    int rc = staging_open(&s, out, e);

    if (rc < 0)
        return rc;
    /* From here on, the folder is also removed when the program ends in the middle: without
     * memory, or because an input file was cut. */
    building = &s;
    must_end_with(remove_building);
    if ((rc = write_all(r, s.tmp, e)) == 0 && (rc = check_base(r, a, e)) == 0)
        /* A signal that came after the last tensor still counts. */
        rc = r->o->stop && *r->o->stop ? err_set(e, E_NO, "stopped") : 0;
    must_end_with(NULL);
    if (rc == 0)
        rc = staging_publish(&s, e);
    else
        staging_abandon(&s);
    building = NULL;
    return rc;
}

/* The same for one file, of which nothing is left when the process ends in the middle. */
static int build_gguf(struct run *r, const struct adapter *a, const char *out, struct err *e)
{
    struct merge_gguf m;
    int rc;

    if (r->o->adapter_only)
        return merge_gguf_adapter(r->o, a, out, r->r, e);
    rc = merge_gguf_build(&m, r->o, &r->plan, &r->merger, r->weights, r->each, out, r->r, e);
    if (rc == 0 && (rc = check_base(r, a, e)) == 0)
        rc = r->o->stop && *r->o->stop ? err_set(e, E_NO, "stopped") : 0;
    if (rc == 0)
        return merge_gguf_publish(&m, e);
    merge_gguf_abandon(&m);
    return rc;
}

/* Edited by hand, most likely, and meant; or damaged. */
static void warn_changed(const char *folder, const char *names)
{
    if (names)
        log_warn("'%s': changed after the weights were written: %s", folder, names);
}

/* An adapter of another program does not say what context it was trained for. */
static int set_rope(struct run *r, const struct adapter *a, struct err *e)
{
    const struct merge_options *o = r->o;
    struct llama_config *c = &r->plan.config;
    int rc;

    if (o->rope.factor == 0 && o->rope.theta == 0) {
        if (a && !adapter_has_model(a))
            log_info("'%s' has no config.json: RoPE stays the base's; if it was trained for a "
                     "longer context, give --rope-factor", o->adapter);
        return 0;
    }
    /* Such an adapter brings its own RoPE, and a second factor would scale it twice. */
    if (!a)
        return err_set(e, E_USAGE, "--rope and its options are for an adapter, and none is given");
    if (adapter_has_model(a)) {
        err_set(e, E_USAGE, "--rope and its options are only for an adapter without config.json, "
                            "and '%s' has one", o->adapter);
        return err_hint(e, "leave --rope-factor out, and --rope");
    }
    if ((rc = rope_extend(c, 0, &o->rope, e)) == 0)
        r->r->context = config_reach(c);
    return rc;
}

/* What is no text. llama.cpp has it in a second file, which its own script makes. */
static void say_beside(const struct merge_options *o, const struct weights *w)
{
    const char *what = weights_beside(w);

    if (what && o->to_gguf && !o->adapter_only)
        log_info("'%s': left out, as llama.cpp has them in a file of their own (convert_hf_to_gguf.py --mmproj): %s",
                 o->base, what);
    else if (what && !o->to_gguf)
        log_info("'%s': copied as they are: %s", o->base, what);
}

/* The adapter may have been trained with more tokens, or fewer, than its base has. */
static int set_vocab(const struct merge_options *o, struct weights *w, const struct adapter *a,
                     struct err *e)
{
    int64_t was = weights_config(w)->vocab, now = adapter_model_config(a)->vocab;

    if (now != was)
        log_warn("the vocabulary becomes that of '%s': %lld tokens, the base's has %lld", o->adapter,
                 (long long)now, (long long)was);
    return weights_resize(w, now, e);
}

/* Base, adapter, and what will be made of them. */
static int open_all(struct run *r, struct weights **w, struct adapter **a, struct err *e)
{
    const struct merge_options *o = r->o;
    int rc;

    if ((rc = weights_open(w, o->base, e)) < 0 ||
        (o->adapter && (rc = adapter_open(a, o->adapter, weights_config(*w), e)) < 0))
        return rc;
    warn_changed(o->base, weights_changed(*w));
    say_beside(o, *w);
    if (o->adapter)
        warn_changed(o->adapter, adapter_changed(*a));
    if (o->adapter && adapter_idle(*a))
        log_info("'%s': %lld tensors are of what is no text, and add nothing to it", o->adapter,
                 (long long)adapter_idle(*a));
    if (o->adapter && (rc = set_vocab(o, *w, *a, e)) < 0)
        return rc;
    r->weights = *w;
    if (!(r->each = calloc((size_t)weights_count(*w) + 1, sizeof *r->each)))
        return err_set(e, E_SYS, "out of memory");
    if ((rc = merge_plan_make(&r->plan, o, *w, *a, r->r, e)) < 0 || (rc = set_rope(r, *a, e)) < 0)
        return rc;
    return merger_open(&r->merger, o->threads, o->stop, e);
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
    if (rc == 0 && (rc = check_out(o, out, e)) == 0 && (rc = open_all(&r, &w, &a, e)) == 0) {
        if (!o->to_gguf) /* it is of programs that read folders */
            rope_advice(&r.plan.config, report->advice, sizeof report->advice);
        rc = o->to_gguf ? build_gguf(&r, a, out, e) : build(&r, a, out, e);
    }
    report->max_delta = r.merger.max_delta;
    report->unchanged = r.merger.unchanged;
    merger_close(&r.merger);
    merge_plan_free(&r.plan);
    adapter_close(a);
    weights_close(w);
    free(r.each);
    free(out);
    return rc;
}
