/* formats/weights/adapter.c - see adapter.h.
 *
 * An adapter is a folder as peft writes it. A module is either stored whole (norms, embedding,
 * head) or has a LoRA pair A and B, and is then W + scale B A. Which module has what stands in
 * adapter_config.json; the file of tensors must have exactly those. */
#include "formats/weights/adapter.h"

#include "base/file.h"
#include "formats/weights/adapter_config.h"
#include "formats/weights/adapter_files.h"
#include "formats/weights/beside.h"
#include "formats/weights/multimodal.h"
#include "formats/weights/reader.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_FILE "adapter_config.json"
#define MODEL_FILE "config.json"
#define BASE_KEY "longlora_base" /* weights_hash of the base, 16 digits */

struct adapter {
    struct adapter_config config;
    struct llama_config model;
    bool has_model; /* it has its own config.json */
    struct adapter_files *files;
    uint64_t loose;         /* roles of whole tensors that the configuration does not name */
    int64_t idle;           /* tensors of pairs of what is no text, which add nothing */
    struct buf changed;     /* names of files that are not as they were written */
};

/* Tensors that a module has in the file: 1 whole, 2 a pair, 3 with magnitudes. */
static int parts_of(const struct adapter_config *a, enum role role, int64_t layer)
{
    return (a->saved & ROLE_BIT(role) ? 1 : 0) +
           (adapter_rank(a, role, layer) ? 2 + (int)a->dora : 0);
}

/* The same of an adapter whose layers are alike. */
static int parts(const struct tensor_def *d, const void *ctx) { return parts_of(ctx, d->role, 0); }

/* The tensor that thing i belongs to, of an adapter whose layers are not alike: counted through. def
 * NULL: how many there are in all. */
static int64_t walk(const struct adapter_config *a, const struct llama_config *c, int64_t i,
                    const struct tensor_def **def, int64_t *layer, int *which)
{
    const struct arch *arch = config_arch(c);
    const struct tensor_def *d = arch->tensors, *end = d + arch->n_tensors, *first, *past;
    int64_t n = 0;

    for (first = d; first < end && !tensor_of_layer(first); first++)
        ;
    for (past = first; past < end && tensor_of_layer(past); past++)
        ;
    for (int64_t l = -1; l <= c->layers; l++) { /* the top, every layer, the top again */
        const struct tensor_def *to = l < 0 ? first : l < c->layers ? past : end;
        for (d = l < 0 ? d : l < c->layers ? first : past; d < to; d++) {
            int k = parts_of(a, d->role, tensor_of_layer(d) ? l : -1);
            if (def && i < n + k) {
                *def = d;
                *layer = tensor_of_layer(d) ? l : -1;
                *which = (int)(i - n);
                return n;
            }
            n += k;
        }
    }
    return n;
}

int64_t adapter_tensors(const struct adapter_config *a, const struct llama_config *c)
{
    return a->pairs ? walk(a, c, 0, NULL, NULL, NULL) : tensors_count(c, parts, a);
}

/* A bias, of a matrix or a norm, has no pair. */
static bool only_whole(const struct tensor_spec *s)
{
    return role_form(s->role) == FORM_BIAS || role_form(s->role) == FORM_SHIFT;
}

/* The name of a part in the file: prefix, module, and .lora_A or .lora_B before .weight. */
static void part_name(char *name, size_t cap, const struct tensor_spec *s, int part)
{
    static const char *const mid[] = { ".weight", ".lora_A.weight", ".lora_B.weight",
                                       ".lora_magnitude_vector" };
    /* A matrix or a norm ends in ".weight"; a bias is only ever whole. */
    size_t n = strlen(s->name) - strlen(".weight");

    if (only_whole(s))
        snprintf(name, cap, ADAPTER_PREFIX "%s", s->name);
    else
        snprintf(name, cap, ADAPTER_PREFIX "%.*s%s", (int)n, s->name, mid[part]);
}

/* Tensor i of the file. Part 0 is a whole tensor; part 1 is A, [rank][in]; part 2 is B,
 * [out][rank]; part 3 is [out]. */
void adapter_tensor(const struct adapter_config *a, const struct llama_config *c, int64_t i,
                    struct adapter_tensor *t)
{
    const struct tensor_def *d;
    struct tensor_spec s;
    int64_t layer, rank;
    int which;

    if (a->pairs)
        walk(a, c, i, &d, &layer, &which);
    else
        d = tensors_at(c, i, parts, a, &layer, &which);
    tensor_spec_of(c, d->role, layer, &s);
    rank = adapter_rank(a, d->role, layer);
    *t = (struct adapter_tensor){ .role = d->role, .layer = layer, .part = rank ? which + 1 : 0 };
    part_name(t->name, sizeof t->name, &s, t->part);
    t->dims = t->part == 3 ? 1 : s.dims;
    /* A row of A for each rank, a column of B for each rank; whole tensors keep their shape. */
    t->shape[0] = t->part == 1 ? rank : s.shape[0];
    t->shape[1] = t->part == 2 ? rank : s.shape[1];
    t->count = t->shape[0] * (t->dims == 2 ? t->shape[1] : 1);
}

static bool same_shape(const struct tensor *f, const struct adapter_tensor *t)
{
    bool same = f->dims == t->dims;

    for (int k = 0; k < t->dims && same; k++)
        same = f->shape[k] == t->shape[k];
    return same;
}

/* A tensor of the file against what the base model needs: shape, and a type to compute with. */
static int check_tensor(const struct tensor *f, const struct adapter_tensor *t, struct err *e)
{
    if (!same_shape(f, t)) {
        err_set(e, E_CONFIG, "'%s': tensor '%s' is [%lld, %lld], the base model needs [%lld, "
                "%lld]", f->file, t->name, (long long)f->shape[0],
                (long long)(f->dims > 1 ? f->shape[1] : 1), (long long)t->shape[0],
                (long long)(t->dims > 1 ? t->shape[1] : 1));
        return err_hint(e, "the adapter was trained on another base model");
    }
    if (!type_real(f->type))
        return err_set(e, E_CONFIG, "'%s': tensor '%s' is of type %s, must be F32, F16 or BF16",
                       f->file, t->name, f->type->name);
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The tensor of the model that an entry holds whole; false: none. */
static bool whole_of(const struct llama_config *c, const char *entry, struct adapter_tensor *t)
{
    const struct arch *arch = config_arch(c);
    struct tensor_spec s;

    for (const struct tensor_def *d = arch->tensors; d < arch->tensors + arch->n_tensors; d++)
        for (int64_t l = 0; l < (tensor_of_layer(d) ? c->layers : 1); l++) {
            tensor_spec_of(c, d->role, tensor_of_layer(d) ? l : -1, &s);
            part_name(t->name, sizeof t->name, &s, 0);
            if (strcmp(t->name, entry) == 0) {
                t->role = s.role, t->layer = s.layer, t->part = 0, t->dims = s.dims;
                memcpy(t->shape, s.shape, sizeof t->shape);
                t->count = s.count;
                return true;
            }
        }
    return false;
}

static int changes_more(const struct llama_config *c, const struct adapter_entry *x, struct err *e)
{
    err_set(e, E_CONFIG, "'%s': tensor '%.200s' changes what is not the language model of %s", x->t.file, x->t.name,
            c->multimodal->model_type);
    return err_hint(e, "merge such an adapter with peft: here the language model alone is changed");
}

/* One of what is no text, of a base that has such: refused, but for halves of pairs whose B is all zeros. peft puts
 * pairs on all modules of a name, and training on text leaves those so. *idle: it is one. */
static int check_idle(struct adapter *a, const struct llama_config *c, const struct adapter_entry *x, bool *idle,
                      struct err *e)
{
    enum { PIECE = 1 << 12 };
    const char *half = strstr(x->name, ".lora_A.weight"), *b = strstr(x->name, ".lora_B.weight");
    float f[PIECE];
    struct adapter_tensor t;
    char whole[256];
    int rc = 0;

    half = half ? half : b;
    *idle = false;
    if (!c->multimodal)
        return 0;
    if (!half)
        return whole_of(c, x->name, &t) ? 0 : changes_more(c, x, e);
    snprintf(whole, sizeof whole, "%.*s.weight", (int)(half - x->name), x->name);
    if (whole_of(c, whole, &t))
        return 0;
    *idle = true;
    a->idle++;
    for (int64_t i = 0, n; b && rc == 0 && i < x->t.count; i += n) {
        n = x->t.count - i < PIECE ? x->t.count - i : PIECE;
        rc = tensor_to_f32(&x->t, i, n, f, e);
        for (int64_t k = 0; rc == 0 && k < n; k++)
            if (f[k] != 0)
                return changes_more(c, x, e);
    }
    return rc;
}

/* One that the configuration does not name. Of the main file peft makes such of embedding and head
 * (save_embedding_layers) and of biases; a second file holds what was trained beside peft. */
static int check_loose(struct adapter *a, const struct llama_config *c, const struct adapter_entry *x,
                       struct err *e)
{
    struct adapter_tensor t;
    bool known = whole_of(c, x->name, &t), fine, idle;
    int rc = check_idle(a, c, x, &idle, e);

    if (rc < 0 || idle)
        return rc;
    fine = known && (x->beside || t.role == ROLE_EMBED || t.role == ROLE_HEAD ||
                          (a->config.biases && role_form(t.role) == FORM_BIAS));

    if (!fine) {
        err_set(e, E_CONFIG, x->beside ? "'%s': tensor '%.200s' is none of the base model's"
                             : "'%s': tensor '%.200s' is in none of target_modules and modules_to_save",
                x->t.file, x->t.name);
        return x->beside ? E_CONFIG : err_hint(e, "adapter_config.json must name its module");
    }
    a->loose |= ROLE_BIT(t.role);
    return check_tensor(&x->t, &t, e);
}

/* Those of the file that are none of the n expected (sorted). */
static int check_others(struct adapter *a, const struct llama_config *c, char **names, int64_t n,
                        struct err *e)
{
    int rc = 0;

    for (int64_t i = 0; rc == 0 && i < adapter_files_count(a->files); i++) {
        const struct adapter_entry *x = adapter_files_at(a->files, i);
        if (!bsearch(&x->name, names, (size_t)n, sizeof *names, by_name))
            rc = check_loose(a, c, x, e);
    }
    return rc;
}

/* Every expected tensor is there in its shape, and there is no other but loose ones. */
static int check_file(struct adapter *a, const struct llama_config *c, struct err *e)
{
    int64_t n = adapter_tensors(&a->config, c), missing = 0;
    char **names = calloc((size_t)n + 1, sizeof *names), first[160] = "";
    const struct tensor *f;
    struct adapter_tensor t;
    int rc = names ? 0 : err_set(e, E_SYS, "out of memory");

    for (int64_t i = 0; i < n && rc == 0; i++) {
        adapter_tensor(&a->config, c, i, &t);
        if (!(names[i] = strdup(t.name)))
            rc = err_set(e, E_SYS, "out of memory");
        else if ((f = adapter_files_find(a->files, t.name)))
            rc = check_tensor(f, &t, e);
        else if (missing++ == 0)
            /* The message names the first one that is missing and counts the others. */
            memcpy(first, t.name, sizeof first);
    }
    if (rc == 0 && missing > 0) {
        rc = err_set(e, E_DATA, "'%s': tensor '%s' is missing (%lld of %lld are)",
                     adapter_files_path(a->files), first, (long long)missing, (long long)n);
        err_hint(e, "adapter_config.json lists it, for a base of %lld layers",
                 (long long)c->layers);
    }
    /* Only a complete file is searched for tensors too many, so that the first message is the
     * one that helps. */
    if (rc == 0) {
        qsort(names, (size_t)n, sizeof *names, by_name);
        rc = check_others(a, c, names, n, e);
    }
    for (int64_t i = 0; names && i < n; i++)
        free(names[i]);
    free(names);
    return rc;
}

/* Rows of the adapter's embedding or head: its vocabulary. 0: it has neither. */
static int64_t vocab_of(const struct adapter *a)
{
    static const enum role role[] = { ROLE_EMBED, ROLE_HEAD };

    for (int i = 0; i < 2; i++)
        for (int part = 0; part <= 2; part += 2) {
            const struct tensor *t;
            struct tensor_spec s;
            char name[160];

            tensor_spec_of(&a->model, role[i], -1, &s);
            part_name(name, sizeof name, &s, part);
            if ((t = adapter_files_find(a->files, name)) && t->dims == 2 && t->shape[0] > 0 &&
                t->shape[0] < 1 << 24)
                return t->shape[0];
        }
    return 0;
}

/* config.json beside the adapter: the extended model. Sizes must be the base's, but the vocabulary. */
static int read_model(struct adapter *a, const char *folder, const struct llama_config *c,
                      struct err *e)
{
    char *path = path_join(folder, MODEL_FILE);
    const struct llama_config *m = &a->model;
    bool same;
    int64_t vocab;
    int rc = 0;

    a->model = *c;
    a->has_model = path_exists(path);
    if (a->has_model && (rc = config_read(&a->model, path, e)) == 0) {
        same = m->dim == c->dim && m->ffn_dim == c->ffn_dim && m->layers == c->layers &&
               m->heads == c->heads && m->kv_heads == c->kv_heads && m->head_dim == c->head_dim &&
               m->rotary_dim == c->rotary_dim && config_arch(m)->tensors == config_arch(c)->tensors;
        if (!same) {
            err_set(e, E_CONFIG, "'%s' is of a model with other sizes or tensors than the base", path);
            rc = err_hint(e, "the adapter was trained on another base model");
        }
    }
    if (rc == 0 && (vocab = vocab_of(a)) > 0)
        a->model.vocab = a->has_model ? m->vocab : vocab;
    else if (rc == 0 && m->vocab != c->vocab) {
        err_set(e, E_CONFIG, "'%s' is of a model with a vocabulary of %lld tokens, and the base's has "
                "%lld", path, (long long)m->vocab, (long long)c->vocab);
        rc = err_hint(e, "the adapter was trained on another base model");
    }
    a->model.tied = c->tied; /* until come_apart has seen the tensors */
    a->model.multimodal = c->multimodal; /* the base's, whatever the adapter was trained within */
    free(path);
    return rc;
}

/* An adapter that changes the embedding or the head of a tied base makes them two tensors, so the
 * model is tied no longer: unless it holds both, and they are the same, or holds one that was trained
 * as both. */
static void come_apart(struct adapter *a)
{
    static const enum role role[] = { ROLE_EMBED, ROLE_HEAD };
    struct adapter_change x[2];
    struct tensor_spec s;
    bool same, pair, loose;

    for (int i = 0; i < 2; i++) {
        tensor_spec_of(&a->model, role[i], -1, &s);
        adapter_change(a, &s, &x[i]);
    }
    pair = x[0].a || x[1].a;
    same = x[0].whole && x[1].whole && x[0].whole->type == x[1].whole->type &&
           x[0].whole->nbytes == x[1].whole->nbytes &&
           memcmp(x[0].whole->data, x[1].whole->data, x[0].whole->nbytes) == 0;
    loose = !(x[0].whole && x[1].whole) && !((ROLE_BIT(ROLE_EMBED) | ROLE_BIT(ROLE_HEAD)) &
                                             a->config.saved & ~a->loose);
    a->model.tied &= !pair && (same || loose);
}

/* What the file of tensors says of the files beside it, and of the base. */
static int read_notes(struct adapter *a, const char *folder, struct err *e)
{
    const char *base = adapter_files_note(a->files, BASE_KEY);
    int rc = beside_changed(adapter_files_note(a->files, BESIDE_KEY), folder, &a->changed, e);

    a->config.base_hash = base ? strtoull(base, NULL, 16) : 0;
    return rc < 0 || !a->changed.len ? rc : buf_add(&a->changed, "", 1, e);
}

/* What the pairs of embedding and head cannot be together with. */
static int check_ends(const struct adapter *a, const struct llama_config *c, const char *path,
                      struct err *e)
{
    const uint64_t ends = ROLE_BIT(ROLE_EMBED) | ROLE_BIT(ROLE_HEAD), pairs = a->config.targets & ends;

    if (a->config.dora && (pairs & ROLE_BIT(ROLE_EMBED)))
        return err_set(e, E_CONFIG, "'%s': use_dora of an embedding is not supported", path);
    if (a->config.tying && c->tied && pairs)
        return err_set(e, E_CONFIG, "'%s': ensure_weight_tying of pairs is not supported", path);
    return 0;
}

/* Checks the adapter's tensors against the base c. */
static int check_tensors(struct adapter *a, const char *folder, const struct llama_config *c,
                         struct err *e)
{
    struct llama_config as = *c;
    int rc;

    as.vocab = a->model.vocab;
    rc = check_file(a, &as, e);
    a->config.saved |= a->loose;
    return rc < 0 ? rc : read_notes(a, folder, e);
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

    if (safetensors_reader.finds(folder) || pickle_reader.finds(folder))
        err_hint(e, "this is a model, not an adapter: give it with --model");
    /* A folder of checkpoints without an adapter is a training that has not ended. */
    else if (path_is_dir(root))
        err_hint(e, "training into this folder has not finished: run its command again");
    else if (within)
        err_hint(e, "there is an adapter one folder down: give '%s'", within);
    else
        err_hint(e, "an adapter has adapter_config.json and adapter_model.safetensors");
    free(root);
    free(within);
    return e ? e->code : E_NOINPUT;
}

/* The tensors, under the names that their modules have in a model of this family alone. */
static int open_files(struct adapter *a, const char *folder, const struct llama_config *c, const struct naming **n,
                      struct err *e)
{
    int rc = adapter_files_open(&a->files, folder, e);

    return rc < 0 ? rc : adapter_files_own(a->files, config_arch(c), multimodal_names(c->multimodal), n, e);
}

int adapter_open(struct adapter **out, const char *folder, const struct llama_config *c,
                 struct err *e)
{
    const uint64_t ends = ROLE_BIT(ROLE_EMBED) | ROLE_BIT(ROLE_HEAD);
    const struct naming *naming = NULL;
    struct adapter *a;
    char *path;
    int rc;

    *out = NULL;
    if (dir_check(folder, e) < 0)
        return err_hint(e, "an adapter has adapter_config.json and adapter_model.safetensors");
    if (!(a = calloc(1, sizeof *a)))
        return err_set(e, E_SYS, "out of memory");
    path = path_join(folder, CONFIG_FILE);
    /* the names of the tensors tell those of the modules, which the configuration's rules are for */
    rc = path_exists(path) ? open_files(a, folder, c, &naming, e) : 0;
    if (rc == 0)
        rc = adapter_config_load(&a->config, config_arch(c), naming, c->layers, path, e);
    a->config.multimodal = c->multimodal, a->config.layers = c->layers;
    if (a->config.tying && c->tied && (a->config.saved & ends))
        a->config.saved |= ends;
    if (rc == E_NOINPUT)
        hint_missing(folder, e);
    a->model = *c;
    if (rc == 0 && (rc = check_ends(a, c, path, e)) == 0 &&
        (rc = read_model(a, folder, c, e)) == 0 && (rc = check_tensors(a, folder, c, e)) == 0)
        come_apart(a);
    free(path);
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
    adapter_files_close(a->files);
    adapter_config_free(&a->config);
    buf_free(&a->changed);
    free(a);
}

const struct adapter_config *adapter_config(const struct adapter *a) { return &a->config; }
const char *adapter_changed(const struct adapter *a) { return a->changed.p; }
bool adapter_has_model(const struct adapter *a) { return a->has_model; }
const struct llama_config *adapter_model_config(const struct adapter *a) { return &a->model; }

uint64_t adapter_loose(const struct adapter *a) { return a->loose; }
int64_t adapter_idle(const struct adapter *a) { return a->idle; }

/* Looks up all names; what the file does not have becomes NULL. */
void adapter_change(const struct adapter *a, const struct tensor_spec *s, struct adapter_change *x)
{
    const struct tensor **to[] = { &x->whole, &x->a, &x->b, &x->magnitude };
    char name[160];

    *x = (struct adapter_change){ .scale = adapter_pair_scale(&a->config, s->role, s->layer) };
    for (int part = 0; part < 4; part++) {
        part_name(name, sizeof name, s, part);
        /* A bias has one part. */
        *to[part] = part && only_whole(s) ? NULL : adapter_files_find(a->files, name);
    }
}
