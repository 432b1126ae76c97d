/* formats/weights/adapter_files.c - see adapter_files.h. */
#include "formats/weights/adapter_files.h"

#include "base/file.h"
#include "formats/weights/pt_file.h"
#include "formats/weights/safetensors.h"

#include <stdlib.h>
#include <string.h>

enum { MAIN, BESIDE, FILES };

struct adapter_files {
    struct st_file *st[FILES];
    struct pt_file *pt[FILES];
    char *path[FILES];
    struct adapter_entry *at;
    int64_t n;
};

/* ---- names ---- */

static bool is(const char *p, size_t n, const char *word)
{
    return strlen(word) == n && memcmp(p, word, n) == 0;
}

/* peft's words before the name of an adapter. */
static bool before_adapter(const char *p, size_t n)
{
    return is(p, n, "lora_A") || is(p, n, "lora_B") || is(p, n, "lora_embedding_A") ||
           is(p, n, "lora_embedding_B") || is(p, n, "lora_magnitude_vector") ||
           is(p, n, "modules_to_save");
}

/* malloc'ed; NULL: no memory. Word by word, between the dots. */
static char *our_name(const char *name)
{
    const size_t prefix = strlen(ADAPTER_PREFIX);
    const char *was = "", *p = name;
    char *out = malloc(strlen(name) + prefix + 1), *to = out;
    size_t was_n = 0;

    if (!out)
        return NULL;
    if (strncmp(p, ADAPTER_PREFIX, prefix) == 0)
        p += prefix;
    memcpy(to, ADAPTER_PREFIX, prefix);
    to += prefix;
    for (size_t n; *p; p += n + (p[n] == '.')) {
        n = strcspn(p, ".");
        if (!(is(p, n, "base_layer") || is(p, n, "modules_to_save") ||
              (is(p, n, "default") && before_adapter(was, was_n)) ||
              (is(p, n, "weight") && was_n && is(was, was_n, "lora_magnitude_vector")))) {
            if (to > out + prefix)
                *to++ = '.';
            memcpy(to, p, n);
            to += n;
        }
        /* the adapter's name is passed over, so that what stands before it still counts */
        if (!is(p, n, "default"))
            was = p, was_n = n;
    }
    *to = '\0';
    return out;
}

static bool ends_in(const char *s, const char *end)
{
    size_t n = strlen(s), k = strlen(end);

    return k <= n && strcmp(s + n - k, end) == 0;
}

/* A matrix [rows][cols] of an embedding's pair as [cols][rows], under the name that it has then. */
static int turn_over(struct adapter_entry *x, struct err *e)
{
    static const char part[] = "lora_embedding_A";
    size_t at = strlen(x->name) - strlen(part);
    int64_t rows = x->t.shape[0], cols = x->t.shape[1];
    bool a = x->name[strlen(x->name) - 1] == 'A';
    float *from = malloc((size_t)x->t.count * sizeof *from + 1),
          *to = malloc((size_t)x->t.count * sizeof *to + 1);
    int rc = from && to ? 0 : err_set(e, E_SYS, "out of memory");

    if (rc == 0 && x->t.dims != 2)
        rc = err_set(e, E_CONFIG, "'%s': tensor '%.200s' is no matrix", x->t.file, x->t.name);
    if (rc == 0 && (rc = tensor_check(&x->t, e)) == 0)
        rc = tensor_to_f32(&x->t, 0, x->t.count, from, e);
    if (rc == 0) {
        for (int64_t i = 0; i < rows; i++)
            for (int64_t k = 0; k < cols; k++)
                to[k * rows + i] = from[i * cols + k];
        x->t = (struct tensor){ .name = x->t.name, .type = &type_f32, .dims = 2,
                                .shape = { cols, rows }, .count = x->t.count, .data = to,
                                .nbytes = (size_t)x->t.count * sizeof *to, .file = x->t.file };
        x->turned = to;
        to = NULL;
        /* shorter than what stood there */
        strcpy(x->name + at, a ? "lora_B.weight" : "lora_A.weight");
    }
    free(from);
    free(to);
    return rc;
}

/* ---- files ---- */

/* The first of these that is in the folder; the last name counts where none is. */
static int open_one(struct adapter_files *f, int which, const char *folder, const char *const names[],
                    int n, struct err *e)
{
    for (int i = 0; i < n; i++) {
        free(f->path[which]);
        f->path[which] = path_join(folder, names[i]);
        if (path_exists(f->path[which]))
            return ends_in(names[i], ".bin") ? pt_open(&f->pt[which], f->path[which], e)
                                             : st_open(&f->st[which], f->path[which], e);
    }
    free(f->path[which]);
    f->path[which] = NULL;
    return E_NOINPUT;
}

static int64_t count_of(const struct adapter_files *f, int which)
{
    return f->st[which] ? st_count(f->st[which]) : f->pt[which] ? pt_count(f->pt[which]) : 0;
}

static int add(struct adapter_files *f, int which, struct err *e)
{
    for (int64_t i = 0; i < count_of(f, which); i++) {
        struct adapter_entry *x = &f->at[f->n];
        int rc;

        x->t = f->st[which] ? *st_at(f->st[which], i) : *pt_at(f->pt[which], i);
        x->beside = which == BESIDE;
        if (!(x->name = our_name(x->t.name)))
            return err_set(e, E_SYS, "out of memory");
        f->n++;
        if ((ends_in(x->name, ".lora_embedding_A") || ends_in(x->name, ".lora_embedding_B")) &&
            (rc = turn_over(x, e)) < 0)
            return rc;
    }
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct adapter_entry *)a)->name, ((const struct adapter_entry *)b)->name);
}

static int sort(struct adapter_files *f, struct err *e)
{
    if (f->n)
        qsort(f->at, (size_t)f->n, sizeof *f->at, by_name);
    for (int64_t i = 1; i < f->n; i++)
        if (strcmp(f->at[i - 1].name, f->at[i].name) == 0)
            return err_set(e, E_DATA, "tensor '%.200s' of '%s' is the same as '%.200s' of '%s'",
                           f->at[i - 1].t.name, f->at[i - 1].t.file, f->at[i].t.name, f->at[i].t.file);
    return 0;
}

static int gather(struct adapter_files *f, struct err *e)
{
    int64_t n = count_of(f, MAIN) + count_of(f, BESIDE);
    int rc;

    if (!(f->at = calloc((size_t)n + 1, sizeof *f->at)))
        return err_set(e, E_SYS, "out of memory");
    if ((rc = add(f, MAIN, e)) < 0 || (rc = add(f, BESIDE, e)) < 0)
        return rc;
    return sort(f, e);
}

/* A module's name, behind peft's prefix, begins so. */
static bool has_prefix(const void *set, const char *prefix, const char **first)
{
    const struct adapter_files *f = set;

    for (int64_t i = 0; i < f->n; i++) {
        *first = f->at[i].name + strlen(ADAPTER_PREFIX);
        if (strncmp(*first, prefix, strlen(prefix)) == 0)
            return true;
    }
    return false;
}

/* The head of a family that has another name for it in other versions of transformers. */
static bool is_other_head(const struct arch *a, const char *name)
{
    const char *also = a->block.head_also;
    size_t n = also ? strlen(also) - strlen("weight") : 0; /* with the dot */

    return n && strncmp(name, also, n) == 0;
}

/* An adapter of ours holds a whole head under both names, for each version: the same twice is one. */
static void drop_twins(struct adapter_files *f)
{
    int64_t n = 0;

    qsort(f->at, (size_t)f->n, sizeof *f->at, by_name);
    for (int64_t i = 0; i < f->n; i++) {
        const struct adapter_entry *was = n ? &f->at[n - 1] : NULL, *x = &f->at[i];

        if (was && strcmp(was->name, x->name) == 0 && was->t.type == x->t.type && was->t.dims == x->t.dims &&
            memcmp(was->t.shape, x->t.shape, (size_t)x->t.dims * sizeof *x->t.shape) == 0 &&
            memcmp(was->t.data, x->t.data, x->t.nbytes) == 0) {
            free(f->at[i].name);
            free(f->at[i].turned);
        } else {
            f->at[n++] = f->at[i];
        }
    }
    f->n = n;
}

int adapter_files_own(struct adapter_files *f, const struct arch *a, const struct naming *within,
                      const struct naming **n, struct err *e)
{
    const size_t prefix = strlen(ADAPTER_PREFIX);
    int rc = naming_choose(a, within, has_prefix, f, f->path[MAIN], n, e);
    bool twins = false;

    for (int64_t i = 0; rc == 0 && i < f->n; i++) {
        const char *name = f->at[i].name + prefix;
        const struct naming *its = is_other_head(a, name) ? &namings_of(a, NULL)[0] : *n;
        size_t cap = strlen(name) + 64;
        char *own;

        twins |= its != *n;
        if (!its)
            continue;
        if (!(own = malloc(prefix + cap)))
            return err_set(e, E_SYS, "out of memory");
        memcpy(own, ADAPTER_PREFIX, prefix + 1);
        if (naming_own(a, its, name, own + prefix, cap)) {
            free(f->at[i].name);
            f->at[i].name = own;
        } else {
            free(own);
        }
    }
    if (rc == 0 && twins && f->n)
        drop_twins(f);
    return rc < 0 ? rc : sort(f, e);
}

int adapter_files_open(struct adapter_files **out, const char *folder, struct err *e)
{
    static const char *const main[] = { "adapter_model.safetensors", "adapter_model.bin" },
        *const beside[] = { "trainable_params.safetensors", "trainable_params.bin",
                            "non_lora_trainables.bin" };
    struct adapter_files *f = calloc(1, sizeof *f);
    int rc = f ? 0 : err_set(e, E_SYS, "out of memory");

    *out = NULL;
    if (rc == 0 && (rc = open_one(f, MAIN, folder, main, 2, e)) == E_NOINPUT && !f->path[MAIN])
        err_set(e, E_NOINPUT, "'%s' has neither %s nor %s", folder, main[0], main[1]);
    if (rc == 0 && (rc = open_one(f, BESIDE, folder, beside, 3, e)) == E_NOINPUT && !f->path[BESIDE])
        rc = 0;
    if (rc == 0)
        rc = gather(f, e);
    if (rc < 0)
        adapter_files_close(f);
    else
        *out = f;
    return rc;
}

void adapter_files_close(struct adapter_files *f)
{
    if (!f)
        return;
    for (int64_t i = 0; i < f->n; i++) {
        free(f->at[i].name);
        free(f->at[i].turned);
    }
    free(f->at);
    for (int i = 0; i < FILES; i++) {
        st_close(f->st[i]);
        pt_close(f->pt[i]);
        free(f->path[i]);
    }
    free(f);
}

int64_t adapter_files_count(const struct adapter_files *f) { return f->n; }
const struct adapter_entry *adapter_files_at(const struct adapter_files *f, int64_t i)
{
    return &f->at[i];
}
const char *adapter_files_path(const struct adapter_files *f) { return f->path[MAIN]; }
const char *adapter_files_note(const struct adapter_files *f, const char *key)
{
    return f->st[MAIN] ? st_metadata(f->st[MAIN], key) : NULL;
}

const struct tensor *adapter_files_find(const struct adapter_files *f, const char *name)
{
    struct adapter_entry key = { .name = (char *)(uintptr_t)name };
    const struct adapter_entry *x = f->n ? bsearch(&key, f->at, (size_t)f->n, sizeof key, by_name) : NULL;

    return x ? &x->t : NULL;
}
