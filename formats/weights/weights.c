/* formats/weights/weights.c - see weights.h. */
#include "formats/weights/weights.h"

#include "base/file.h"
#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILES = 4096 };

struct place {
    const struct st_tensor *t;
    int file;
};
struct weights {
    struct llama_config config;
    struct st_file **files;
    char **paths;
    int n_files;
    struct place *all; /* sorted by tensor name */
    int64_t n;
};

static const char index_name[] = "model.safetensors.index.json";

void weights_close(struct weights *w)
{
    if (!w)
        return;
    for (int i = 0; i < w->n_files; i++) {
        st_close(w->files[i]);
        free(w->paths[i]);
    }
    free(w->files);
    free(w->paths);
    free(w->all);
    free(w);
}

/* Opens folder/name as the next file. The arrays have room for it. */
static int add_file(struct weights *w, const char *folder, const char *name, struct err *e)
{
    w->files[w->n_files] = NULL;
    w->paths[w->n_files] = path_join(folder, name);
    w->n_files++;
    return st_open(&w->files[w->n_files - 1], w->paths[w->n_files - 1], e);
}

static int make_room(struct weights *w, size_t n, struct err *e)
{
    w->files = calloc(n + 1, sizeof *w->files);
    w->paths = calloc(n + 1, sizeof *w->paths);
    return w->files && w->paths ? 0 : err_set(e, E_SYS, "out of memory");
}

static int by_string(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Each file that the index's weight_map names, once. */
static int open_indexed(struct weights *w, const char *folder, const struct js *map,
                        struct err *e)
{
    size_t n = json_object_size(map->obj), k = 0;
    const char **names = malloc((n + 1) * sizeof *names), *key;
    json_t *v;
    int rc = names ? 0 : err_set(e, E_SYS, "out of memory");

    json_object_foreach(map->obj, key, v) {
        const char *name = json_string_value(v);
        if (rc == 0 && (!name || !*name || strchr(name, '/') || *name == '.'))
            rc = err_set(e, E_DATA, "'%s': %s'%.200s' does not name a file of this folder",
                         map->file, map->path, key);
        if (rc == 0)
            names[k++] = name;
    }
    if (rc == 0) {
        qsort(names, k, sizeof *names, by_string);
        n = 0;
        for (size_t i = 0; i < k; i++)
            if (i == 0 || strcmp(names[i], names[n - 1]) != 0)
                names[n++] = names[i];
        rc = n <= MAX_FILES ? make_room(w, n, e)
                            : err_set(e, E_DATA, "'%s' names %zu files, at most %d", map->file,
                                      n, MAX_FILES);
        for (size_t i = 0; i < n && rc == 0; i++)
            rc = add_file(w, folder, names[i], e);
    }
    free(names);
    return rc;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct place *)a)->t->name, ((const struct place *)b)->t->name);
}

static const struct place *find(const struct weights *w, const char *name)
{
    struct st_tensor t = { .name = name };
    struct place key = { .t = &t };

    return w->n ? bsearch(&key, w->all, (size_t)w->n, sizeof *w->all, by_name) : NULL;
}

/* One sorted list over all files; a name in two of them is refused. */
static int gather(struct weights *w, struct err *e)
{
    for (int f = 0; f < w->n_files; f++)
        w->n += st_count(w->files[f]);
    if (!(w->all = malloc(((size_t)w->n + 1) * sizeof *w->all)))
        return err_set(e, E_SYS, "out of memory");
    w->n = 0;
    for (int f = 0; f < w->n_files; f++)
        for (int64_t i = 0; i < st_count(w->files[f]); i++)
            w->all[w->n++] = (struct place){ st_at(w->files[f], i), f };
    if (w->n)
        qsort(w->all, (size_t)w->n, sizeof *w->all, by_name);
    for (int64_t i = 1; i < w->n; i++)
        if (strcmp(w->all[i - 1].t->name, w->all[i].t->name) == 0)
            return err_set(e, E_DATA, "tensor '%.200s' is both in '%s' and in '%s'",
                           w->all[i].t->name, w->paths[w->all[i - 1].file],
                           w->paths[w->all[i].file]);
    return 0;
}

static int check_index(const struct weights *w, const struct js *map, struct err *e)
{
    const struct place *p;
    const char *key, *base;
    json_t *v;

    json_object_foreach(map->obj, key, v) {
        if (!(p = find(w, key)))
            return err_set(e, E_DATA, "'%s': tensor '%.200s' is not in '%s'", map->file, key,
                           json_string_value(v));
        base = strrchr(w->paths[p->file], '/') + 1;
        if (strcmp(base, json_string_value(v)) != 0)
            return err_set(e, E_DATA, "'%s': tensor '%.200s' is not in '%s' but in '%s'",
                           map->file, key, json_string_value(v), base);
    }
    return 0;
}

/* Says what makes a model folder, and what to do about the older kind of weights. */
static int no_weights(const char *folder, struct err *e)
{
    char *bin = path_join(folder, "pytorch_model.bin"),
         *bins = path_join(folder, "pytorch_model.bin.index.json"),
         *lora = path_join(folder, "adapter_config.json");
    bool pickle = path_exists(bin) || path_exists(bins), adapter = path_exists(lora);

    free(bin);
    free(bins);
    free(lora);
    err_set(e, E_NOINPUT, "'%s' has neither model.safetensors nor %s", folder, index_name);
    if (pickle)
        return err_hint(e, "its weights are in pytorch_model.bin: save it as safetensors");
    if (adapter)
        return err_hint(e, "it is an adapter: --model is its base, --adapter is it");
    return err_hint(e, "a model folder has config.json and the weights as *.safetensors");
}

static int open_files(struct weights *w, const char *folder, struct err *e)
{
    char *one = path_join(folder, "model.safetensors"), *index = path_join(folder, index_name);
    struct js o = {0}, map;
    int rc;

    if (path_exists(one)) {
        if ((rc = make_room(w, 1, e)) == 0 && (rc = add_file(w, folder, "model.safetensors", e))
            == 0)
            rc = gather(w, e);
    } else if (!path_exists(index)) {
        rc = no_weights(folder, e);
    } else {
        rc = js_load(&o, index, JS_MAX_BYTES, e);
        if (rc == 0)
            rc = js_object(&o, "weight_map", JS_MUST, &map, e);
        if (rc == 0 && (rc = open_indexed(w, folder, &map, e)) == 0 && (rc = gather(w, e)) == 0)
            rc = check_index(w, &map, e);
    }
    js_free(&o);
    free(one);
    free(index);
    return rc;
}

/* Everything the configuration promises, by name, shape and type. */
static int check_complete(const struct weights *w, const char *folder, struct err *e)
{
    const struct st_tensor *t;
    struct tensor_spec s;
    char first[96] = "";
    int64_t missing = 0, n = config_tensors(&w->config);
    int rc;

    for (int64_t i = 0; i < n; i++) {
        config_tensor(&w->config, i, &s);
        if (!find(w, s.name)) {
            if (missing++ == 0)
                snprintf(first, sizeof first, "%s", s.name);
            continue;
        }
        if ((rc = weights_get(w, s.name, s.dims, s.shape, &t, e)) < 0)
            return rc;
        if (!st_dtype_real(t->dtype))
            return err_set(e, E_CONFIG, "'%s': tensor '%s' is of type %s, must be F32, F16 or "
                           "BF16", folder, s.name, st_dtype_name(t->dtype));
    }
    if (missing == 0)
        return 0;
    err_set(e, E_DATA, "'%s': tensor '%s' is missing (%lld of %lld are)", folder, first,
            (long long)missing, (long long)n);
    return err_hint(e, "config.json promises it: check that all files of the model are there");
}

int weights_open(struct weights **out, const char *folder, struct err *e)
{
    struct weights *w;
    char *path;
    int rc;

    *out = NULL;
    if (!path_is_dir(folder)) {
        err_set(e, E_NOINPUT, "'%s' is not a folder", folder);
        return err_hint(e, "a model folder has config.json and the weights as *.safetensors");
    }
    if (!(w = calloc(1, sizeof *w)))
        return err_set(e, E_SYS, "out of memory");
    path = path_join(folder, "config.json");
    rc = config_read(&w->config, path, e);
    free(path);
    if (rc == E_NOINPUT)
        err_hint(e, "a model folder has config.json and the weights as *.safetensors");
    if (rc == 0 && (rc = open_files(w, folder, e)) == 0)
        rc = check_complete(w, folder, e);
    if (rc < 0)
        weights_close(w);
    else
        *out = w;
    return rc;
}

const struct llama_config *weights_config(const struct weights *w) { return &w->config; }
int64_t weights_count(const struct weights *w) { return w->n; }
const struct st_tensor *weights_at(const struct weights *w, int64_t i) { return w->all[i].t; }
const char *weights_file(const struct weights *w, int64_t i)
{
    return w->paths[w->all[i].file];
}

static const char *shape_text(int dims, const int64_t *shape, char *buf, size_t cap)
{
    size_t n = (size_t)snprintf(buf, cap, "[");

    for (int i = 0; i < dims && n < cap; i++)
        n += (size_t)snprintf(buf + n, cap - n, "%s%lld", i ? ", " : "", (long long)shape[i]);
    if (n < cap)
        snprintf(buf + n, cap - n, "]");
    return buf;
}

int weights_get(const struct weights *w, const char *name, int dims, const int64_t *shape,
                const struct st_tensor **t, struct err *e)
{
    const struct place *p = find(w, name);
    char is[200], want[200];
    bool same;

    if (!p)
        return err_set(e, E_DATA, "tensor '%s' is missing", name);
    same = p->t->dims == dims;
    for (int i = 0; i < dims && same; i++)
        same = p->t->shape[i] == shape[i];
    if (!same)
        return err_set(e, E_DATA, "'%s': tensor '%s' has shape %s, config.json wants %s",
                       w->paths[p->file], name,
                       shape_text(p->t->dims, p->t->shape, is, sizeof is),
                       shape_text(dims, shape, want, sizeof want));
    *t = p->t;
    return 0;
}

int weights_copy_side_files(const char *from, const char *to, struct err *e)
{
    static const char *const names[] = { "generation_config.json", "tokenizer.json",
        "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
        "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja",
        "chat_template.json" };
    int rc = 0;

    for (size_t i = 0; i < sizeof names / sizeof *names && rc == 0; i++) {
        char *a = path_join(from, names[i]), *b = path_join(to, names[i]);
        if (path_exists(a))
            rc = file_copy(a, b, e);
        free(a);
        free(b);
    }
    return rc;
}

char *weights_tokenizer_path(const char *folder)
{
    char *path = path_join(folder, "tokenizer.model");

    if (path_exists(path))
        return path;
    free(path);
    return NULL;
}
