/* formats/weights/adapter.c - see adapter.h.
 *
 * An adapter is a folder as peft writes it. A module is either stored whole (norms, embedding,
 * head) or has a LoRA pair A and B, and is then W + scale B A. Which module has what stands in
 * adapter_config.json; the file of tensors must have exactly those. */
#include "formats/weights/adapter.h"

#include "base/block_hash.h"
#include "base/file.h"
#include "formats/weights/adapter_config.h"
#include "formats/weights/beside.h"
#include "formats/weights/safetensors.h"

#include <dirent.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* peft wraps the model twice, and its names in the file show it. */
#define PREFIX "base_model.model."
#define TENSORS_FILE "adapter_model.safetensors"
#define CONFIG_FILE "adapter_config.json"
#define MODEL_FILE "config.json"
#define BASE_KEY "longlora_base" /* weights_hash of the base, 16 digits */

struct adapter {
    struct adapter_config config;
    struct llama_config model;
    bool has_model; /* it has its own config.json */
    struct st_file *file;
    struct buf changed; /* names of files that are not as they were written */
};

/* The factor of B A: alpha / r, or alpha / sqrt(r) with rsLoRA. */
double adapter_scale(const struct adapter_config *a)
{
    return a->alpha / (a->rslora ? sqrt((double)a->rank) : (double)a->rank);
}

/* Tensors that a module has in the file: 1 whole, 2 a pair. */
static int parts(const struct tensor_def *d, const void *ctx)
{
    const struct adapter_config *a = ctx;

    return (a->saved & ROLE_BIT(d->role) ? 1 : 0) + (a->targets & ROLE_BIT(d->role) ? 2 : 0);
}

int64_t adapter_tensors(const struct adapter_config *a, const struct llama_config *c)
{
    return tensors_count(c, parts, a);
}

/* The name of a part in the file: prefix, module, and .lora_A or .lora_B before .weight. */
static void part_name(char *name, size_t cap, const struct tensor_spec *s, int part)
{
    static const char *const mid[] = { "", ".lora_A", ".lora_B" };
    /* Of the biases only those of norms are in adapters, and these have no pair. */
    const char *end = role_form(s->role) == FORM_SHIFT ? ".bias" : ".weight";
    size_t n = strlen(s->name) - strlen(end);

    snprintf(name, cap, PREFIX "%.*s%s%s", (int)n, s->name, mid[part], end);
}

/* Tensor i of the file. Part 0 is a whole tensor; part 1 is A, [rank][in]; part 2 is B,
 * [out][rank]. */
void adapter_tensor(const struct adapter_config *a, const struct llama_config *c, int64_t i,
                    struct adapter_tensor *t)
{
    struct tensor_spec s;
    int64_t layer;
    int which;
    const struct tensor_def *d = tensors_at(c, i, parts, a, &layer, &which);

    tensor_spec_of(c, d->role, layer, &s);
    *t = (struct adapter_tensor){ .role = d->role, .layer = layer,
                                  .part = a->targets & ROLE_BIT(d->role) ? which + 1 : 0 };
    part_name(t->name, sizeof t->name, &s, t->part);
    t->dims = s.dims;
    /* A row of A for each rank, a column of B for each rank; whole tensors keep their shape. */
    t->shape[0] = t->part == 1 ? a->rank : s.shape[0];
    t->shape[1] = t->part == 2 ? a->rank : s.shape[1];
    t->count = t->shape[0] * (t->dims == 2 ? t->shape[1] : 1);
}

static bool same_shape(const struct tensor *f, const struct adapter_tensor *t)
{
    bool same = f->dims == t->dims;

    for (int k = 0; k < t->dims && same; k++)
        same = f->shape[k] == t->shape[k];
    return same;
}

/* Nothing but the rows of embedding and head differs, of all that the adapter has. */
static bool only_vocab_differs(const struct adapter *a, const struct llama_config *c)
{
    struct adapter_tensor t;
    const struct tensor *f;

    for (int64_t i = 0; i < adapter_tensors(&a->config, c); i++) {
        adapter_tensor(&a->config, c, i, &t);
        f = st_find(a->file, t.name);
        if (!f || (!same_shape(f, &t) &&
                   ((t.role != ROLE_EMBED && t.role != ROLE_HEAD) || f->dims != t.dims ||
                    f->shape[1] != t.shape[1])))
            return false;
    }
    return true;
}

static int hint_other_base(bool only_vocab, int64_t theirs, int64_t ours, struct err *e)
{
    if (!only_vocab)
        return err_hint(e, "the adapter was trained on another base model");
    return err_hint(e, "all but the vocabulary agrees: the adapter's has %lld tokens, the base's %lld; if "
                    "it is that base, resize its embedding and head as for the training", (long long)theirs,
                    (long long)ours);
}

/* A tensor of the file against what the base model needs: shape, and a type to compute with. */
static int check_tensor(const struct adapter *a, const struct llama_config *c, const struct tensor *f,
                        const struct adapter_tensor *t, const char *path, struct err *e)
{
    if (!same_shape(f, t)) {
        err_set(e, E_CONFIG, "'%s': tensor '%s' is [%lld, %lld], the base model needs [%lld, "
                "%lld]", path, t->name, (long long)f->shape[0],
                (long long)(f->dims > 1 ? f->shape[1] : 1), (long long)t->shape[0],
                (long long)(t->dims > 1 ? t->shape[1] : 1));
        return hint_other_base(only_vocab_differs(a, c), f->shape[0], c->vocab, e);
    }
    if (!type_real(f->type))
        return err_set(e, E_CONFIG, "'%s': tensor '%s' is of type %s, must be F32, F16 or BF16",
                       path, t->name, f->type->name);
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* A tensor of the file that is none of the n expected (sorted): its name, or NULL. */
static const char *unexpected(const struct st_file *f, char **names, int64_t n)
{
    for (int64_t i = 0; i < st_count(f); i++) {
        const char *name = st_at(f, i)->name;
        if (!bsearch(&name, names, (size_t)n, sizeof *names, by_name))
            return name;
    }
    return NULL;
}

/* Every expected tensor is there in its shape, and there is no other. */
static int check_file(const struct adapter *a, const struct llama_config *c, const char *path,
                      struct err *e)
{
    int64_t n = adapter_tensors(&a->config, c), missing = 0;
    char **names = calloc((size_t)n + 1, sizeof *names), first[160] = "";
    const struct tensor *f;
    struct adapter_tensor t;
    const char *odd;
    int rc = names ? 0 : err_set(e, E_SYS, "out of memory");

    for (int64_t i = 0; i < n && rc == 0; i++) {
        adapter_tensor(&a->config, c, i, &t);
        if (!(names[i] = strdup(t.name)))
            rc = err_set(e, E_SYS, "out of memory");
        else if ((f = st_find(a->file, t.name)))
            rc = check_tensor(a, c, f, &t, path, e);
        else if (missing++ == 0)
            /* The message names the first one that is missing and counts the others. */
            memcpy(first, t.name, sizeof first);
    }
    if (rc == 0 && missing > 0) {
        rc = err_set(e, E_DATA, "'%s': tensor '%s' is missing (%lld of %lld are)", path, first,
                     (long long)missing, (long long)n);
        err_hint(e, "adapter_config.json lists it, for a base of %lld layers",
                 (long long)c->layers);
    }
    /* Only a complete file is searched for tensors too many, so that the first message is the
     * one that helps. */
    if (rc == 0) {
        qsort(names, (size_t)n, sizeof *names, by_name);
        if ((odd = unexpected(a->file, names, n))) {
            rc = err_set(e, E_CONFIG, "'%s': tensor '%.200s' is in none of target_modules and "
                         "modules_to_save", path, odd);
            err_hint(e, "adapter_config.json must name its module");
        }
    }
    for (int64_t i = 0; names && i < n; i++)
        free(names[i]);
    free(names);
    return rc;
}

/* config.json beside the adapter: the extended model. Sizes must be the base's. */
static int read_model(struct adapter *a, const char *folder, const struct llama_config *c,
                      struct err *e)
{
    char *path = path_join(folder, MODEL_FILE);
    const struct llama_config *m = &a->model;
    bool same; /* but for the vocabulary */
    int rc = 0;

    a->model = *c;
    a->has_model = path_exists(path);
    if (a->has_model && (rc = config_read(&a->model, path, e)) == 0) {
        same = m->dim == c->dim && m->ffn_dim == c->ffn_dim && m->layers == c->layers &&
               m->heads == c->heads && m->kv_heads == c->kv_heads && m->head_dim == c->head_dim &&
               m->rotary_dim == c->rotary_dim && config_arch(m)->tensors == config_arch(c)->tensors;
        if (!same || m->vocab != c->vocab) {
            rc = err_set(e, E_CONFIG, "'%s' is of a model with other sizes or tensors than the base",
                         path);
            hint_other_base(same, m->vocab, c->vocab, e);
        }
    }
    /* Until come_apart has seen the tensors. */
    a->model.tied = c->tied;
    free(path);
    return rc;
}

/* An adapter that holds the embedding or the head of a tied base makes them two tensors, so the
 * model is tied no longer: unless it holds both, and they are the same. */
static void come_apart(struct adapter *a)
{
    static const enum role role[] = { ROLE_EMBED, ROLE_HEAD };
    const struct tensor *t[2], *unused;
    struct tensor_spec s;

    for (int i = 0; i < 2; i++) {
        tensor_spec_of(&a->model, role[i], -1, &s);
        adapter_find(a, &s, &t[i], &unused, &unused);
    }
    a->model.tied &= (!t[0] && !t[1]) ||
                     (t[0] && t[1] && t[0]->type == t[1]->type && t[0]->nbytes == t[1]->nbytes &&
                      memcmp(t[0]->data, t[1]->data, t[0]->nbytes) == 0);
}

/* What the file of tensors says of the files beside it, and of the base. */
static int read_notes(struct adapter *a, const char *folder, struct err *e)
{
    const char *base = st_metadata(a->file, BASE_KEY);
    int rc = beside_changed(st_metadata(a->file, BESIDE_KEY), folder, &a->changed, e);

    a->config.base_hash = base ? strtoull(base, NULL, 16) : 0;
    return rc < 0 || !a->changed.len ? rc : buf_add(&a->changed, "", 1, e);
}

/* Opens the adapter's tensors and checks them against the base c. */
static int open_tensors(struct adapter *a, const char *folder, const struct llama_config *c,
                        struct err *e)
{
    char *path = path_join(folder, TENSORS_FILE),
         *old = path_join(folder, "adapter_model.bin");
    int rc = st_open(&a->file, path, e);

    /* The older format can run code when it is loaded, so it is not read. */
    if (rc == E_NOINPUT && path_exists(old))
        err_hint(e, "the adapter is in adapter_model.bin: save it as safetensors");
    if (rc == 0 && (rc = check_file(a, c, path, e)) == 0)
        rc = read_notes(a, folder, e);
    free(path);
    free(old);
    return rc;
}

/* Trained values that other programs put beside the pairs, in files that are not read: without
 * them the model is another one. */
static int refuse_beside(const char *folder, struct err *e)
{
    static const char *const names[] = { "trainable_params.bin", "trainable_params.safetensors",
                                         "non_lora_trainables.bin" };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = path_join(folder, names[i]);
        bool there = path_exists(path);

        if (there)
            err_set(e, E_CONFIG, "'%s' holds weights trained beside the LoRA pairs (embedding, "
                                 "norms), which this tool cannot read", path);
        free(path);
        if (there)
            return err_hint(e, "merge it with the program that made it, or remove that file to "
                               "use the pairs alone");
    }
    return 0;
}

/* The folder within that is an adapter: as PATH/checkpoint-500, whose highest number is taken, or
 * PATH/adapter. malloc'ed, or NULL. */
static char *adapter_within(const char *folder)
{
    DIR *d = opendir(folder);
    const struct dirent *f;
    char *best = NULL;

    while (d && (f = readdir(d))) {
        char *inner = path_join(folder, f->d_name), *config = path_join(inner, CONFIG_FILE);

        if (f->d_name[0] != '.' && path_is_file(config) && (!best || strverscmp(inner, best) > 0)) {
            free(best);
            best = inner;
            inner = NULL;
        }
        free(config);
        free(inner);
    }
    if (d)
        closedir(d);
    return best;
}

/* What a folder without adapter_config.json may be. */
static int hint_missing(const char *folder, struct err *e)
{
    char *root = path_join(folder, "checkpoints"), *within = adapter_within(folder);

    /* A folder of checkpoints without an adapter is a training that has not ended. */
    if (path_is_dir(root))
        err_hint(e, "training into this folder has not finished: run its command again");
    else if (within)
        err_hint(e, "there is an adapter one folder down: give '%s'", within);
    else
        err_hint(e, "an adapter has adapter_config.json and adapter_model.safetensors");
    free(root);
    free(within);
    return e ? e->code : E_NOINPUT;
}

/* The settings come first: they say which tensors the file must have. */
int adapter_open(struct adapter **out, const char *folder, const struct llama_config *c,
                 struct err *e)
{
    const uint64_t ends = ROLE_BIT(ROLE_EMBED) | ROLE_BIT(ROLE_HEAD);
    struct adapter *a;
    char *path;
    int rc;

    *out = NULL;
    if (!path_is_dir(folder)) {
        err_set(e, E_NOINPUT, "'%s' is not a folder", folder);
        return err_hint(e, "an adapter has adapter_config.json and adapter_model.safetensors");
    }
    if (!(a = calloc(1, sizeof *a)))
        return err_set(e, E_SYS, "out of memory");
    path = path_join(folder, CONFIG_FILE);
    rc = adapter_config_load(&a->config, config_arch(c), path, e);
    if (a->config.tying && c->tied && (a->config.saved & ends))
        a->config.saved |= ends;
    free(path);
    if (rc == E_NOINPUT)
        hint_missing(folder, e);
    if (rc == 0 && (rc = refuse_beside(folder, e)) == 0 &&
        (rc = read_model(a, folder, c, e)) == 0 && (rc = open_tensors(a, folder, c, e)) == 0)
        come_apart(a);
    if (rc < 0)
        adapter_close(a);
    else
        *out = a;
    return rc;
}

void adapter_close(struct adapter *a)
{
    if (!a)
        return;
    st_close(a->file);
    buf_free(&a->changed);
    free(a);
}

const struct adapter_config *adapter_config(const struct adapter *a) { return &a->config; }
const char *adapter_changed(const struct adapter *a) { return a->changed.p; }
bool adapter_has_model(const struct adapter *a) { return a->has_model; }
const struct llama_config *adapter_model_config(const struct adapter *a) { return &a->model; }

/* Looks up all three names; what the file does not have becomes NULL. */
void adapter_find(const struct adapter *a, const struct tensor_spec *s,
                  const struct tensor **whole, const struct tensor **lora_a,
                  const struct tensor **lora_b)
{
    const struct tensor **to[] = { whole, lora_a, lora_b };
    char name[160];

    for (int part = 0; part < 3; part++) {
        *to[part] = NULL;
        /* A matrix's bias is never in an adapter, and its name does not end in ".weight". */
        if (role_form(s->role) == FORM_BIAS)
            continue;
        part_name(name, sizeof name, s, part);
        *to[part] = st_find(a->file, name);
    }
}

/* Writes all tensors of an adapter in float32. values gives those of tensor i. */
static int write_tensors(const char *path, const struct adapter_config *a,
                         const struct llama_config *c, const struct st_note *notes,
                         const float *(*values)(void *ctx, int64_t i), void *ctx, struct err *e)
{
    int64_t n = adapter_tensors(a, c);
    struct adapter_tensor *t = calloc((size_t)n + 1, sizeof *t);
    struct st_decl *d = calloc((size_t)n + 1, sizeof *d);
    struct st_writer *w = NULL;
    int rc = t && d ? 0 : err_set(e, E_SYS, "out of memory");

    for (int64_t i = 0; i < n && rc == 0; i++) {
        adapter_tensor(a, c, i, &t[i]);
        d[i] = (struct st_decl){ .name = t[i].name, .type = &type_f32, .dims = t[i].dims,
                                 .shape = { t[i].shape[0], t[i].shape[1] } };
    }
    if (rc == 0)
        rc = st_create_noted(&w, path, d, n, notes, e);
    /* st_writer takes the data in the order of the declarations. */
    for (int64_t i = 0; i < n && rc == 0; i++)
        rc = st_write_f32(w, values(ctx, i), t[i].count, e);
    if (rc == 0)
        rc = st_finish(w, e);
    else
        st_abandon(w);
    free(t);
    free(d);
    return rc;
}

static int put_text(const char *folder, const char *name, const char *text, struct err *e)
{
    char *path = path_join(folder, name);
    int rc = file_replace(path, text, strlen(text), e);

    free(path);
    return rc;
}

/* adapter_config.json comes last: adapter_open takes a folder without it for unfinished. The tensors
 * come first, and hold the hashes of both. */
int adapter_write(const char *folder, const struct adapter_config *a,
                  const struct llama_config *c, const char *like,
                  const float *(*values)(void *ctx, int64_t i), void *ctx, struct err *e)
{
    char *tensors = path_join(folder, TENSORS_FILE), *config = NULL, *model = NULL;
    char base[HASH_HEX + 1];
    struct beside files = { 0 };
    struct buf list = { 0 };
    int rc = adapter_config_text(a, CONFIG_FILE, &config, e);

    snprintf(base, sizeof base, "%016" PRIx64, a->base_hash);
    if (rc == 0 && (rc = config_text(c, like, "float32", MODEL_FILE, &model, e)) == 0 &&
        (rc = beside_add(&files, CONFIG_FILE, config, strlen(config), e)) == 0 &&
        (rc = beside_add(&files, MODEL_FILE, model, strlen(model), e)) == 0 &&
        (rc = beside_value(&files, &list, e)) == 0) {
        /* The base's comes last: where it is not known, the list ends before it. */
        const struct st_note notes[] = { { BESIDE_KEY, list.p },
                                         { a->base_hash ? BASE_KEY : NULL, base }, { NULL, NULL } };
        rc = write_tensors(tensors, a, c, notes, values, ctx, e);
    }
    if (rc == 0 && (rc = put_text(folder, MODEL_FILE, model, e)) == 0)
        rc = put_text(folder, CONFIG_FILE, config, e);
    beside_free(&files);
    buf_free(&list);
    free(config);
    free(tensors);
    free(model);
    return rc;
}
