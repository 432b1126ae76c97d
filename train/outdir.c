/* train/outdir.c - see outdir.h. */
#include "train/outdir.h"

#include "base/file.h"
#include "base/gguf.h"
#include "base/json.h"
#include "base/log.h"
#include "base/temp.h"
#include "formats/tokenizer/tokenizer.h"
#include "formats/weights/beside.h"
#include "formats/weights/safetensors.h"
#include "model/gguf_files.h"
#include "train/outweights.h"
#include "train/state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* The files of a run, in three parts: its record (options, metrics, summary), then its
 * results, then the tokenizer, which may have been there before ltrain. */
static const char *const ours[] = {
    "options.json", "metrics.jsonl", "summary.json", "adapter_config.json",
    "adapter_model.safetensors", "config.json", "model.safetensors", "tokenizer.model",
    "tokenizer.json",
};
enum { N_OURS = sizeof ours / sizeof *ours, FIRST_RESULT = 3, LAST_RESULT = N_OURS - 2 };

static bool has(const char *folder, const char *name)
{
    char *path = path_join(folder, name);
    bool yes = path_exists(path);

    free(path);
    return yes;
}

static int remove_file(const char *folder, const char *name, struct err *e)
{
    char *path = path_join(folder, name);
    int rc = 0;

    if (unlink(path) < 0 && errno != ENOENT)
        rc = err_sys(e, E_CREATE, "cannot remove '%s'", path);
    free(path);
    return rc;
}

/* True for a temporary file that a killed writer of one of our files has left. */
static bool is_left_over(const char *name)
{
    for (int i = 0; i < N_OURS; i++)
        if (temp_is_of(name, ours[i]))
            return true;
    return false;
}

/* Removes what killed writers have left. The lock is held, so no other writer is alive. */
static int sweep(const char *out, struct err *e)
{
    DIR *d = opendir(out);
    struct dirent *f;
    int rc = 0;

    if (!d)
        return err_sys(e, E_CREATE, "cannot list '%s'", out);
    while (rc == 0 && (f = readdir(d)))
        if (is_left_over(f->d_name))
            rc = remove_file(out, f->d_name, e);
    closedir(d);
    return rc;
}

/* Compares device and inode, so that links and other spellings of a path are seen through. */
static bool same_place(const char *p, const char *q)
{
    struct stat a, b;

    return p && stat(p, &a) == 0 && stat(q, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

/* Refuses a folder that is not ours to write to. options.json is the sign that ltrain made
 * it: it is the first file of a run and the last that wipe removes. -f allows replacing a
 * foreign model, but never the base, the data, or checkpoints that are not ours. */
static int refuse_foreign(const struct settings *s, struct err *e)
{
    if (same_place(s->model, s->out))
        return err_set(e, E_USAGE, "'%s' is the base model's own folder: give another with -o",
                       s->out);
    if (same_place(s->data, s->out))
        return err_set(e, E_USAGE, "'%s' is the data's own folder: give another with -o",
                       s->out);
    if (has(s->out, "options.json"))
        return 0;
    if (has(s->out, "checkpoints")) { /* a run's options come before them, and go after them */
        err_set(e, E_CREATE, "'%s' holds 'checkpoints', which ltrain did not write",
                s->out);
        return err_hint(e, "give another folder with -o");
    }
    for (int i = FIRST_RESULT; i <= LAST_RESULT && !s->force; i++)
        if (has(s->out, ours[i])) {
            err_set(e, E_CREATE, "'%s' holds '%s', which ltrain did not write", s->out,
                    ours[i]);
            return err_hint(e, "give another folder with -o, or replace what is there with -f");
        }
    return 0;
}

/* Removes an earlier run: checkpoints first, then the files from last to first. So
 * options.json goes last, and a wipe that was killed can be repeated. Without options.json
 * the results are someone else's: they stay until ours replace them. */
static int wipe(const char *out, struct err *e)
{
    char *root = path_join(out, "checkpoints");
    bool results = has(out, "options.json");
    int rc = dir_remove(root, e);

    for (int i = N_OURS - 1; rc == 0 && i >= 0; i--)
        if (i < FIRST_RESULT || results)
            rc = remove_file(out, ours[i], e);
    free(root);
    return rc;
}

int outdir_open(const struct settings *s, int *lock, struct err *e)
{
    int rc = dir_make(s->out, e);

    *lock = -1;
    if (rc < 0)
        return rc;
    if ((*lock = open(s->out, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        return err_sys(e, E_CREATE, "cannot open the folder '%s'", s->out);
    /* Other errors are let pass: some file systems cannot lock, and a run there is still
     * possible. */
    if (flock(*lock, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
        return err_set(e, E_CREATE, "another ltrain is writing to '%s'", s->out);
    if (access(s->out, W_OK) < 0)
        return err_sys(e, E_CREATE, "cannot write to '%s'", s->out);
    if ((rc = refuse_foreign(s, e)) == 0 && s->force)
        rc = wipe(s->out, e);
    return rc == 0 ? sweep(s->out, e) : rc;
}

/* ---- results ---- */

struct values {
    struct device *d;
    const struct trained *t;
    const struct adapter_config *a;
    const struct llama_config *c;
    float *copy; /* of one tensor, where the device's memory is not the host's */
    bool failed;
};

/* Tensor i of the adapter's file among what is trained. A tied head is the embedding again. */
static const struct param *param_at(const struct values *v, int64_t i)
{
    struct adapter_tensor t;
    const struct param *p = v->t->params;

    adapter_tensor(v->a, v->c, i, &t);
    if (t.role == ROLE_HEAD && v->c->tied)
        t.role = ROLE_EMBED;
    while (p->role != t.role || p->layer != t.layer || p->part != t.part)
        p++;
    return p;
}

/* Gives one tensor to adapter_write, in host memory. The callback cannot return an error, so
 * a failed copy is noted in "failed", which write_adapter looks at. */
static const float *value_at(void *ctx, int64_t i)
{
    struct values *v = ctx;
    const struct param *p = param_at(v, i);

    if (!v->copy)
        return v->t->w + p->offset;
    if (v->d->to_host(v->d, v->copy, v->t->w + p->offset, (size_t)p->count * sizeof(float)) < 0)
        v->failed = true;
    return v->copy;
}

static int write_adapter(const struct settings *s, struct device *d, struct model *m,
                         const char *like, struct err *e)
{
    struct adapter_config a;
    struct values v = { .d = d, .t = model_trained(m), .a = &a, .c = model_config(m) };
    int64_t largest = 0;
    int rc;

    model_adapter_config(m, &a);
    /* One matrix that was trained through both uses stands there twice: peft makes two of it, and
     * would leave a head that is not there as the base has it. */
    if (v.c->tied && a.saved & ROLE_BIT(ROLE_EMBED))
        a.saved |= ROLE_BIT(ROLE_HEAD);
    snprintf(a.base, sizeof a.base, "%s", s->model);
    for (int64_t i = 0; i < v.t->n_params; i++)
        largest = v.t->params[i].count > largest ? v.t->params[i].count : largest;
    /* One buffer for all tensors, as large as the largest of them. */
    if (d->own_memory && !(v.copy = malloc((size_t)largest * sizeof(float))))
        return err_set(e, E_SYS, "out of memory");
    rc = adapter_write(s->out, &a, v.c, like, value_at, &v, e);
    if (rc == 0 && v.failed)
        rc = err_set(e, E_DEVICE, "cannot read the adapter from '%s'", d->name);
    free(v.copy);
    return rc;
}

/* By the number of --dtype, as options.c lists its words. */
static const struct tensor_type *const dtypes[] = { &type_f32, &type_bf16, &type_f16 };
static const char *const dtype_names[] = { "float32", "bfloat16", "float16" };

int outdir_tokenizer(const struct settings *s, const struct token_info *info, const char *from,
                     struct err *e)
{
    struct tokenizer *t = NULL;
    int rc = tokenizer_open(&t, from, e);

    /* The check needs a fingerprint in the data; older or raw data has none. */
    if (rc == 0 && info && *info->fingerprint && !s->any_tokenizer &&
        !tokenizer_made(t, info->fingerprint, info->tokenizer))
        rc = err_set(e, E_CONFIG, "'%s' is not the tokenizer that the data was made with", from);
    tokenizer_close(t);
    return rc;
}

/* The file under the name that a model's folder has for it, and what says BOS and EOS beside it. */
static int copy_files(const struct settings *s, const struct tokenizer *t, struct beside *files,
                      struct err *e)
{
    static const char config[] = "tokenizer_config.json";
    const char *from = tokenizer_path(t), *slash = strrchr(from, '/');
    char *folder = slash ? strndup(from, (size_t)(slash - from) + 1) : strdup("."),
         *beside = folder ? path_join(folder, config) : NULL, *to = path_join(s->out, config);
    int rc = beside ? 0 : err_set(e, E_SYS, "out of memory");

    if (rc == 0 && strcmp(tokenizer_file(t), "tokenizer.json") == 0 && path_is_file(beside) &&
        (rc = file_copy(beside, to, e)) == 0)
        rc = beside_add_file(files, s->out, config, e);
    free(to);
    to = path_join(s->out, tokenizer_file(t));
    if (rc == 0 && (rc = file_copy(from, to, e)) == 0)
        rc = beside_add_file(files, s->out, tokenizer_file(t), e);
    free(to);
    free(beside);
    free(folder);
    return rc;
}

/* The tokenizer of a fresh model is the data's: named by the user, or where it was then. */
static int copy_tokenizer(const struct settings *s, const struct token_info *info,
                          struct beside *files, struct err *e)
{
    /* Without --tokenizer a missing or wrong file is no error: the model is complete without
     * it. */
    const char *from = s->tokenizer ? s->tokenizer : info ? info->tokenizer : "";
    struct err why = { 0 };
    struct tokenizer *t;
    int rc = outdir_tokenizer(s, info, from, s->tokenizer ? e : &why);

    if (rc < 0) {
        if (!s->tokenizer)
            log_info("no tokenizer copied: the data's was not found (give --tokenizer FILE)");
        return s->tokenizer ? rc : 0;
    }
    if ((rc = tokenizer_open(&t, from, e)) == 0)
        rc = copy_files(s, t, files, e);
    tokenizer_close(t);
    return rc;
}

/* The weights come after the files whose hashes they hold, and the configuration last: a folder
 * without config.json is not taken for a model. */
static int write_model(const struct settings *s, struct device *d, struct model *m,
                       const struct token_info *info, const char *like, struct err *e)
{
    char *config = path_join(s->out, "config.json"), *text = NULL;
    struct beside files = { 0 };
    struct buf list = { 0 };
    int rc = config_text(model_config(m), like, dtype_names[s->dtype], config, &text, e);

    if (rc == 0 && s->model && gguf_is(s->model))
        rc = gguf_files(s->model, s->out, &files, e);
    else if (rc == 0 && s->model)
        rc = weights_copy_side_files(s->model, s->out, config_reach(model_config(m)), &files, e);
    if (rc == 0 && (s->init || s->tokenizer))
        rc = copy_tokenizer(s, info, &files, e);
    if (rc == 0 && (rc = beside_add(&files, "config.json", text, strlen(text), e)) == 0 &&
        (rc = beside_value(&files, &list, e)) == 0)
        rc = outweights_write(s, d, m, dtypes[s->dtype], (struct st_note[]){ { BESIDE_KEY, list.p }, { 0 } }, e);
    if (rc == 0)
        rc = file_replace(config, text, strlen(text), e);
    beside_free(&files);
    buf_free(&list);
    free(text);
    free(config);
    return rc;
}

int outdir_results(const struct settings *s, struct device *d, struct model *m,
                   const struct token_info *info, struct err *e)
{
    /* The file that config.json or adapter_config.json takes its other fields from. */
    bool gguf = !s->init && gguf_is(s->model); /* which has none: it is written anew */
    char *like = s->init ? strdup(s->init) : gguf ? NULL : path_join(s->model, "config.json");
    int rc;

    if (!like && !gguf)
        return err_set(e, E_SYS, "out of memory");
    rc = s->mode > 0 ? write_adapter(s, d, m, like, e) : write_model(s, d, m, info, like, e);
    free(like);
    return rc;
}

/* The model is there in the type that is asked for now: both files say so. */
static bool has_dtype(const struct settings *s)
{
    char *weights = path_join(s->out, "model.safetensors"),
         *config = path_join(s->out, "config.json");
    struct js o = { .file = config };
    const char *said = "";
    struct st_file *f = NULL;
    bool yes = js_load(&o, config, JS_MAX_BYTES, NULL) == 0 &&
               js_str(&o, "torch_dtype", JS_MAY, &said, NULL) == 0 &&
               strcmp(said, dtype_names[s->dtype]) == 0 && st_open(&f, weights, NULL) == 0, has = false;

    /* any, as a multimodal model's may have others beside */
    for (int64_t i = 0; yes && i < st_count(f) && !has; i++)
        has = st_at(f, i)->type == dtypes[s->dtype];
    yes &= has;
    st_close(f);
    js_free(&o);
    free(config);
    free(weights);
    return yes;
}

bool outdir_done(const struct settings *s)
{
    return has(s->out, "config.json") &&
           (s->mode > 0 ? has(s->out, "adapter_config.json") &&
                              has(s->out, "adapter_model.safetensors")
                        : has(s->out, "model.safetensors") && has_dtype(s));
}
