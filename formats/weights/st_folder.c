/* formats/weights/st_folder.c - a model folder of safetensors files, or of torch.save's; see reader.h. */
#include "formats/weights/reader.h"

#include "base/file.h"
#include "base/json.h"
#include "formats/weights/beside.h"
#include "formats/weights/pt_file.h"
#include "formats/weights/safetensors.h"

#include <stdlib.h>
#include <string.h>

/* Far more files than a model has; each stays open as a mapping. */
enum { MAX_FILES = 4096 };

/* The two forms of a file of tensors: what one is called where there is one, and where there are
 * several their index; and what opens one. */
struct form {
    const char *one, *index;
    int (*open)(void **f, const char *path, struct err *e);
    void (*close)(void *f);
    int64_t (*count)(const void *f);
    const struct tensor *(*at)(const void *f, int64_t i);
    const struct tensor *(*find)(const void *f, const char *name);
};

#define FORM(x, type)                                                                          \
    static int x##_open_any(void **f, const char *path, struct err *e)                         \
    {                                                                                          \
        struct type *t = NULL;                                                                 \
        int rc = x##_open(&t, path, e);                                                        \
        *f = t;                                                                                \
        return rc;                                                                             \
    }                                                                                          \
    static void x##_close_any(void *f) { x##_close(f); }                                       \
    static int64_t x##_count_any(const void *f) { return x##_count(f); }                       \
    static const struct tensor *x##_at_any(const void *f, int64_t i) { return x##_at(f, i); }  \
    static const struct tensor *x##_find_any(const void *f, const char *name)                  \
    {                                                                                          \
        return x##_find(f, name);                                                              \
    }
FORM(st, st_file)
FORM(pt, pt_file)

static const struct form st_form = { "model.safetensors", "model.safetensors.index.json",
                                     st_open_any, st_close_any, st_count_any, st_at_any,
                                     st_find_any };
static const struct form pt_form = { "pytorch_model.bin", "pytorch_model.bin.index.json",
                                     pt_open_any, pt_close_any, pt_count_any, pt_at_any,
                                     pt_find_any };

/* The files of a folder. */
struct st_folder {
    const struct form *form;
    void **files;
    char **paths;
    int n_files;
};

static void st_folder_close(void *state)
{
    struct st_folder *w = state;

    if (!w)
        return;
    for (int i = 0; i < w->n_files; i++) {
        w->form->close(w->files[i]);
        free(w->paths[i]);
    }
    free(w->files);
    free(w->paths);
    free(w);
}

/* Opens folder/name as the next file. The arrays have room for it. */
static int add_file(struct st_folder *w, const char *folder, const char *name, struct err *e)
{
    w->files[w->n_files] = NULL;
    w->paths[w->n_files] = path_join(folder, name);
    /* Counted before it is opened, so that st_folder_close frees the path on failure too. */
    w->n_files++;
    return w->form->open(&w->files[w->n_files - 1], w->paths[w->n_files - 1], e);
}

/* Room for n files; calloc leaves every pointer NULL. */
static int make_room(struct st_folder *w, size_t n, struct err *e)
{
    w->files = calloc(n + 1, sizeof *w->files);
    w->paths = calloc(n + 1, sizeof *w->paths);
    return w->files && w->paths ? 0 : err_set(e, E_SYS, "out of memory");
}

static int by_string(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Views of all tensors of all files. */
static int gather(const struct st_folder *w, struct weights_files *f, struct err *e)
{
    int64_t n = 0;

    /* First the number of all tensors, then one array for them, sorted by name. */
    for (int i = 0; i < w->n_files; i++)
        n += w->form->count(w->files[i]);
    if (!(f->all = malloc(((size_t)n + 1) * sizeof *f->all)))
        return err_set(e, E_SYS, "out of memory");
    for (int i = 0; i < w->n_files; i++)
        for (int64_t k = 0; k < w->form->count(w->files[i]); k++)
            f->all[f->n++] = *w->form->at(w->files[i], k);
    return weights_sort(f, e);
}

/* Each file that the index's weight_map names, once. */
static int open_indexed(struct st_folder *w, const char *folder, const struct js *map,
                        struct err *e)
{
    size_t n = json_object_size(map->obj), k = 0;
    const char **names = malloc((n + 1) * sizeof *names), *key;
    json_t *v;
    int rc = names ? 0 : err_set(e, E_SYS, "out of memory");

    json_object_foreach(map->obj, key, v) {
        const char *name = json_string_value(v);
        /* A name from the index must not lead out of the folder, nor to a hidden file. */
        if (rc == 0 && (!name || !*name || strchr(name, '/') || *name == '.'))
            rc = err_set(e, E_DATA, "'%s': %s'%.200s' does not name a file of this folder",
                         map->file, map->path, key);
        if (rc == 0)
            names[k++] = name;
    }
    if (rc == 0) {
        qsort(names, k, sizeof *names, by_string);
        /* Sorted, so equal names are neighbours: n counts the different ones, kept in front. */
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

/* The part behind the last '/'. path_join has put one there. */
static const char *file_name(const char *path) { return strrchr(path, '/') + 1; }

/* The file that has a tensor: the one of this name, if that does. */
static const char *file_of(const struct st_folder *w, const char *tensor, const char *name)
{
    /* The first file that has it, unless the file of that name does too. */
    const char *found = NULL;

    for (int i = 0; i < w->n_files; i++)
        if (w->form->find(w->files[i], tensor) &&
            (!found || strcmp(file_name(w->paths[i]), name) == 0))
            found = file_name(w->paths[i]);
    return found;
}

/* Every entry of the index must be true: the tensor is in the file that the index names.
 * open_indexed has checked that every value is a string. */
static int check_index(const struct st_folder *w, const struct js *map, struct err *e)
{
    const char *key;
    json_t *v;

    json_object_foreach(map->obj, key, v) {
        const char *name = json_string_value(v), *found = file_of(w, key, name);

        if (!found)
            return err_set(e, E_DATA, "'%s': tensor '%.200s' is not in '%s'", map->file, key,
                           name);
        if (strcmp(found, name) != 0)
            return err_set(e, E_DATA, "'%s': tensor '%.200s' is not in '%s' but in '%s'",
                           map->file, key, name, found);
    }
    return 0;
}

/* Says what makes a model folder. */
static int no_weights(const char *folder, struct err *e)
{
    char *lora = path_join(folder, "adapter_config.json");
    bool adapter = path_exists(lora);

    free(lora);
    err_set(e, E_NOINPUT, "'%s' has neither %s nor %s", folder, st_form.one, st_form.index);
    if (adapter)
        return err_hint(e, "this is an adapter: give it with --adapter, and its base with --model");
    return err_hint(e, "a model folder has config.json and the weights as *.safetensors");
}

/* One file, or several with an index. Where both are there, the one file counts. */
static int open_files(struct st_folder *w, struct weights_files *f, const char *folder,
                      struct err *e)
{
    char *one = path_join(folder, w->form->one), *index = path_join(folder, w->form->index);
    struct js o = {0}, map;
    int rc;

    if (path_exists(one)) {
        if ((rc = make_room(w, 1, e)) == 0)
            rc = add_file(w, folder, w->form->one, e);
        if (rc == 0)
            rc = gather(w, f, e);
    } else if (!path_exists(index)) {
        rc = no_weights(folder, e);
    } else {
        /* The index belongs to o, so map and the names in it are valid until js_free. */
        rc = js_load(&o, index, JS_MAX_BYTES, e);
        if (rc == 0)
            rc = js_object(&o, "weight_map", JS_MUST, &map, e);
        if (rc == 0 && (rc = open_indexed(w, folder, &map, e)) == 0 &&
            (rc = gather(w, f, e)) == 0)
            rc = check_index(w, &map, e);
    }
    js_free(&o);
    free(one);
    free(index);
    return rc;
}

/* The first file that has hashes of the files beside it; all of a folder have the same. */
static int compare_beside(const struct st_folder *w, struct weights_files *f, const char *folder,
                          struct err *e)
{
    const char *list = NULL;
    int rc;

    for (int i = 0; i < w->n_files && !list && w->form == &st_form; i++)
        list = st_metadata(w->files[i], BESIDE_KEY);
    rc = beside_changed(list, folder, &f->changed, e);
    return rc < 0 || !f->changed.len ? rc : buf_add(&f->changed, "", 1, e);
}

/* config.json first: the weights cannot be judged without it. */
static int open_form(struct weights_files *f, const char *folder, const struct form *form, struct err *e)
{
    char *path = path_join(folder, "config.json");
    struct st_folder *w = NULL;
    int rc = config_read(&f->config, path, e);

    free(path);
    /* Only a missing config.json needs the hint: a bad one has a message of its own. */
    if (rc == E_NOINPUT)
        err_hint(e, "a model folder has config.json and the weights as *.safetensors");
    if (rc == 0 && !(f->state = w = calloc(1, sizeof *w)))
        rc = err_set(e, E_SYS, "out of memory");
    if (rc < 0)
        return rc;
    w->form = form;
    rc = open_files(w, f, folder, e);
    return rc < 0 ? rc : compare_beside(w, f, folder, e);
}

/* The folder has weights of this form. */
static bool finds_form(const char *folder, const struct form *form)
{
    char *one = path_join(folder, form->one), *index = path_join(folder, form->index);
    bool found = path_exists(one) || path_exists(index);

    free(one);
    free(index);
    return found;
}

static int st_folder_open(struct weights_files *f, const char *folder, struct err *e)
{
    return open_form(f, folder, &st_form, e);
}
static bool st_folder_finds(const char *folder) { return finds_form(folder, &st_form); }

static int pt_folder_open(struct weights_files *f, const char *folder, struct err *e)
{
    return open_form(f, folder, &pt_form, e);
}
static bool pt_folder_finds(const char *folder) { return finds_form(folder, &pt_form); }

const struct weights_reader safetensors_reader = {
    .name = "safetensors",
    .finds = st_folder_finds,
    .open = st_folder_open,
    .close = st_folder_close,
};
const struct weights_reader pickle_reader = {
    .name = "pickle",
    .finds = pt_folder_finds,
    .open = pt_folder_open,
    .close = st_folder_close,
};
