/* formats/weights/weights.c - see weights.h. */
#include "formats/weights/weights.h"

#include "base/bytes.h"
#include "base/file.h"
#include "base/gguf.h"
#define XXH_STATIC_LINKING_ONLY /* for a state on the stack */
#include "base/hash.h"
#include "formats/weights/multimodal.h"
#include "formats/weights/naming.h"
#include "formats/weights/vocab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct weights {
    struct weights_files f; /* all sorted by name */
    const struct weights_reader *reader;
    void *resized[2]; /* embedding and head of another vocabulary */
    const struct naming *naming;
    char *names;       /* the family's own of all tensors, where they have others */
    struct buf beside; /* weights_beside */
};

/* Forms of a model folder, the first that is found. A folder that has none is told what is
 * missing by the first of all. */
static const struct weights_reader *const readers[] = { &safetensors_reader, &pickle_reader,
                                                       &gguf_reader };

void weights_close(struct weights *w)
{
    if (!w)
        return;
    w->reader->close(w->f.state);
    free(w->resized[0]);
    free(w->resized[1]);
    free(w->f.all);
    free(w->names);
    buf_free(&w->f.changed);
    buf_free(&w->beside);
    free(w);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct tensor *)a)->name, ((const struct tensor *)b)->name);
}

/* NULL where the weights have no tensor of that name. */
const struct tensor *weights_find(const struct weights *w, const char *name)
{
    struct tensor key = { .name = name };

    return w->f.n ? bsearch(&key, w->f.all, (size_t)w->f.n, sizeof key, by_name) : NULL;
}

/* Sorts by name, for bsearch, and refuses a tensor that two files have. */
int weights_sort(struct weights_files *f, struct err *e)
{
    struct tensor *t = f->all;

    if (f->n)
        qsort(t, (size_t)f->n, sizeof *t, by_name);
    for (int64_t i = 1; i < f->n; i++)
        if (strcmp(t[i - 1].name, t[i].name) == 0)
            return err_set(e, E_DATA, "tensor '%.200s' is both in '%s' and in '%s'", t[i].name,
                           t[i - 1].file, t[i].file);
    return 0;
}

/* A head under another version's name gets that of the family's description. */
static int take_other_head(struct weights *w, struct err *e)
{
    const struct arch *a = config_arch(&w->f.config);
    const struct tensor_def *d = a->tensors + a->n_tensors - 1;
    struct tensor *t;

    for (; d->role != ROLE_HEAD; d--) /* each family has one */
        continue;
    if (!a->block.head_also || weights_find(w, d->name) ||
        !(t = (struct tensor *)(uintptr_t)weights_find(w, a->block.head_also)))
        return 0;
    t->name = d->name;
    return weights_sort(&w->f, e);
}

/* A name in the files begins with the prefix; they are sorted. */
static bool has_prefix(const void *set, const char *prefix, const char **first)
{
    const struct weights *w = set;
    int64_t low = 0, high = w->f.n;

    while (low < high) {
        int64_t mid = low + (high - low) / 2;
        if (strcmp(w->f.all[mid].name, prefix) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    *first = low < w->f.n ? w->f.all[low].name : NULL;
    return *first && strncmp(*first, prefix, strlen(prefix)) == 0;
}

/* Tensors that the files name otherwise get the family's own names. */
static int take_own_names(struct weights *w, const char *folder, struct err *e)
{
    enum { LONGER = 32 }; /* than any part that takes another's place */
    const struct llama_config *c = &w->f.config;
    const struct arch *a = config_arch(c);
    size_t room = 1;
    char *to;
    int rc = naming_choose(a, multimodal_names(c->multimodal), has_prefix, w, folder, &w->naming, e);

    if (w->naming && !w->naming->body) /* the head alone is called otherwise: take_other_head */
        w->naming = NULL;
    if (rc < 0 || !w->naming)
        return rc;
    for (int64_t i = 0; i < w->f.n; i++)
        room += strlen(w->f.all[i].name) + LONGER;
    if (!(to = w->names = malloc(room)))
        return err_set(e, E_SYS, "out of memory");
    for (int64_t i = 0; i < w->f.n; i++) {
        struct tensor *t = &w->f.all[i];
        size_t cap = strlen(t->name) + LONGER;
        bool own = naming_own(a, w->naming, t->name, to, cap);

        /* a head may have the name that goes with another */
        for (const struct naming *n = multimodal_names(c->multimodal); n && n->body && !own; n++)
            own = naming_own(a, n, t->name, to, cap);
        if (own) {
            t->file_name = t->name;
            t->name = to;
            to += strlen(to) + 1;
        }
    }
    return weights_sort(&w->f, e);
}

/* Where nothing tells how the files name the tensors: as a model of this kind does in memory. */
static const struct naming *expected_naming(const struct weights *w)
{
    const struct multimodal *m = w->f.config.multimodal;

    return w->naming || !m ? w->naming : m->names;
}

/* The head alone: such is what models leave that are for embeddings. All: the names are others. */
static int hint_missing(const struct weights *w, int64_t missing, int64_t n, struct err *e)
{
    struct tensor_spec head;

    tensor_spec_of(&w->f.config, ROLE_HEAD, -1, &head);
    if (missing == 1 && !w->f.config.tied && !weights_find(w, head.name))
        return err_hint(e, "the model has no head and tie_word_embeddings is not true: it was saved without one, as "
                           "models for embeddings are, and gives no probabilities of tokens");
    if (missing == n && w->f.n > 0)
        return err_hint(e, "its tensors have other names than models of this family, as '%.100s'",
                        tensor_file_name(&w->f.all[0]));
    return err_hint(e, "config.json requires it: check that all files of the model are there");
}

/* Everything the configuration promises, by name, shape and type. */
static int check_complete(const struct weights *w, const char *folder, struct err *e)
{
    const struct tensor *t;
    struct tensor_spec s;
    /* The message names the first tensor that is missing and counts the others. */
    char first[160] = "";
    int64_t missing = 0, n = config_tensors(&w->f.config);
    int rc;

    for (int64_t i = 0; i < n; i++) {
        config_tensor(&w->f.config, i, &s);
        if (!weights_find(w, s.name)) {
            if (missing++ == 0)
                naming_put(config_arch(&w->f.config), expected_naming(w), s.name, first, sizeof first);
            continue;
        }
        if ((rc = weights_get(w, s.name, s.dims, s.shape, &t, e)) < 0)
            return rc;
        if (!type_real(t->type))
            return err_set(e, E_CONFIG, "'%s': tensor '%s' is of type %s, must be F32, F16 or "
                           "BF16", folder, s.name, t->type->name);
    }
    if (missing == 0)
        return 0;
    err_set(e, E_DATA, "'%s': tensor '%s' is missing (%lld of %lld are)", folder, first,
            (long long)missing, (long long)n);
    return hint_missing(w, missing, n, e);
}

/* Two heads: transformers 5 takes the file's, 4 and this engine the embedding. It does not matter
 * where they are equal. */
static int check_tied(const struct weights *w, const char *folder, struct err *e)
{
    enum { PIECE = 1 << 12 };
    struct tensor_spec spec;
    const struct tensor *embed, *head;
    float a[PIECE], b[PIECE];
    bool same;

    tensor_spec_of(&w->f.config, ROLE_HEAD, -1, &spec);
    if (!w->f.config.tied || !(head = weights_find(w, spec.name)))
        return 0;
    tensor_spec_of(&w->f.config, ROLE_EMBED, -1, &spec);
    embed = weights_find(w, spec.name);
    same = head->count == embed->count && type_real(head->type);
    /* Identical bytes of one type need no conversion. */
    if (same && head->type == embed->type && memcmp(head->data, embed->data, embed->nbytes) == 0)
        return 0;
    /* Types may differ, so the values are compared as float32, piece by piece. */
    for (int64_t i = 0, k; same && i < embed->count; i += k) {
        k = embed->count - i < PIECE ? embed->count - i : PIECE;
        same = tensor_to_f32(embed, i, k, a, NULL) == 0 &&
               tensor_to_f32(head, i, k, b, NULL) == 0 &&
               memcmp(a, b, (size_t)k * sizeof *a) == 0;
    }
    if (same)
        return 0;
    err_set(e, E_CONFIG, "'%s': config.json ties lm_head to the embedding, and '%s' has an lm_head "
            "with other values", folder, head->file);
    return err_hint(e, "set tie_word_embeddings to false to use it, or remove that tensor");
}

/* Versions of transformers differ in whether the top or text_config says that such a model is tied. */
static void tie_headless(struct weights *w)
{
    struct llama_config *c = &w->f.config;
    struct tensor_spec head;

    tensor_spec_of(c, ROLE_HEAD, -1, &head);
    c->tied |= c->tied_headless && !weights_find(w, head.name);
}

bool weights_is_beside(const struct weights *w, const struct tensor *t)
{
    char own[200];

    if (!w->f.config.multimodal || t->file_name)
        return false;
    return w->naming || !naming_own(config_arch(&w->f.config), NULL, t->name, own, sizeof own);
}

/* "vision_tower" of "model.vision_tower.encoder...": so many bytes from *part on. */
static size_t part_of(const char *name, const char **part)
{
    *part = strncmp(name, "model.", 6) == 0 ? name + 6 : name;
    return strcspn(*part, ".");
}

/* Sorted by name, so what belongs together stands together. */
static int count_beside(struct weights *w, struct err *e)
{
    int rc = 0;

    for (int64_t i = 0, k; i < w->f.n && rc == 0; i = k) {
        const char *part, *next;
        size_t n = part_of(w->f.all[i].name, &part);
        int64_t many = 0;

        for (k = i; k < w->f.n && part_of(w->f.all[k].name, &next) == n && memcmp(part, next, n) == 0; k++)
            many += weights_is_beside(w, &w->f.all[k]);
        if (many)
            rc = buf_printf(&w->beside, e, w->beside.len ? ", %lld of %.*s" : many == 1 ? "%lld tensor of %.*s"
                            : "%lld tensors of %.*s", (long long)many, (int)(n < 60 ? n : 60), part);
    }
    return rc < 0 || !w->beside.len ? rc : buf_add(&w->beside, "", 1, e);
}

/* Opens a folder, then checks it against its configuration: complete, of right shapes and
 * types. */
int weights_open_by(struct weights **out, const struct weights_reader *r, const char *folder,
                    struct err *e)
{
    struct weights *w;
    int rc;

    *out = NULL;
    if (!r->file && dir_check(folder, e) < 0)
        return err_hint(e, "a model is a folder with config.json and *.safetensors, or a GGUF file");
    if (!(w = calloc(1, sizeof *w)))
        return err_set(e, E_SYS, "out of memory");
    w->reader = r;
    if ((rc = r->open(&w->f, folder, e)) == 0 && (rc = take_own_names(w, folder, e)) == 0 &&
        (rc = take_other_head(w, e)) == 0) {
        tie_headless(w);
        rc = check_complete(w, folder, e);
    }
    if (rc == 0)
        rc = check_tied(w, folder, e);
    if (rc == 0)
        rc = count_beside(w, e);
    if (rc < 0)
        weights_close(w);
    else
        *out = w;
    return rc;
}

/* The first reader that finds its files, or the first of all, which then says what is
 * missing. */
int weights_open(struct weights **w, const char *folder, struct err *e)
{
    size_t i = 0;

    while (i < sizeof readers / sizeof *readers && !readers[i]->finds(folder))
        i++;
    return weights_open_by(w, readers[i < sizeof readers / sizeof *readers ? i : 0], folder, e);
}

int weights_resize(struct weights *w, int64_t vocab, struct err *e)
{
    static const enum role role[] = { ROLE_EMBED, ROLE_HEAD };
    int rc = 0;

    for (int i = 0; i < 2 && rc == 0 && vocab != w->f.config.vocab; i++) {
        struct tensor_spec s;
        struct tensor *t, out;
        void *memory;

        tensor_spec_of(&w->f.config, role[i], -1, &s);
        if (!(t = (struct tensor *)(uintptr_t)weights_find(w, s.name)))
            continue; /* a tied head */
        if ((rc = vocab_resize(t, vocab, &out, &memory, e)) == 0)
            *t = out;
        free(w->resized[i]);
        w->resized[i] = memory;
    }
    if (rc == 0)
        w->f.config.vocab = vocab;
    return rc;
}

const struct llama_config *weights_config(const struct weights *w) { return &w->f.config; }
int64_t weights_count(const struct weights *w) { return w->f.n; }
const struct tensor *weights_at(const struct weights *w, int64_t i) { return &w->f.all[i]; }

const struct naming *weights_naming(const struct weights *w) { return w->naming; }
const char *weights_beside(const struct weights *w) { return w->beside.p; }

const char *weights_changed(const struct weights *w) { return w->f.changed.p; }

uint64_t weights_hash(const struct weights *w, const uint64_t *each)
{
    XXH3_state_t h;
    uint64_t hash;

    XXH3_64bits_reset(&h);
    for (int64_t i = 0; i < w->f.n; i++) {
        const struct tensor *t = weights_at(w, i);
        unsigned char n[8];
        XXH3_64bits_update(&h, t->name, strlen(t->name) + 1);
        XXH3_64bits_update(&h, t->type->name, strlen(t->type->name) + 1);
        for (int k = 0; k <= t->dims; k++) { /* how many sizes, then each */
            put_le(n, k ? (uint64_t)t->shape[k - 1] : (uint64_t)t->dims, 8);
            XXH3_64bits_update(&h, n, 8);
        }
        put_le(n, each[i], 8);
        XXH3_64bits_update(&h, n, 8);
    }
    hash = XXH3_64bits_digest(&h);
    return hash ? hash : 1;
}

/* "[32000, 4096]" for messages. */
static const char *shape_text(int dims, const int64_t *shape, char *buf, size_t cap)
{
    size_t n = (size_t)snprintf(buf, cap, "[");

    for (int i = 0; i < dims && n < cap; i++)
        n += (size_t)snprintf(buf + n, cap - n, "%s%lld", i ? ", " : "", (long long)shape[i]);
    if (n < cap)
        snprintf(buf + n, cap - n, "]");
    return buf;
}

/* The tensor of that name, which must have the shape that the caller needs. */
int weights_get(const struct weights *w, const char *name, int dims, const int64_t *shape,
                const struct tensor **t, struct err *e)
{
    const struct tensor *f = weights_find(w, name);
    char is[200], want[200];
    bool same;

    if (!f)
        return err_set(e, E_DATA, "tensor '%s' is missing", name);
    same = f->dims == dims;
    for (int i = 0; i < dims && same; i++)
        same = f->shape[i] == shape[i];
    if (!same)
        return err_set(e, E_DATA, "'%s': tensor '%s' has shape %s, config.json wants %s",
                       f->file, name,
                       shape_text(f->dims, f->shape, is, sizeof is),
                       shape_text(dims, shape, want, sizeof want));
    *t = f;
    return 0;
}

/* malloc'ed, or NULL where the folder has none. */
char *weights_tokenizer_path(const char *folder)
{
    static const char *const names[] = { "tokenizer.json", "tokenizer.model" };

    if (gguf_is(folder)) /* which has it among its keys */
        return strdup(folder);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = path_join(folder, names[i]);

        if (path_exists(path))
            return path;
        free(path);
    }
    return NULL;
}
