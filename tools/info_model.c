/* tools/info_model.c - models, adapters, safetensors and tokenizers, described and verified. */
#include "tools/info.h"

#include "base/block_hash.h"
#include "base/file.h"
#include "base/log.h"
#include "formats/weights/multimodal.h"
#include "formats/weights/adapter.h"
#include "formats/weights/adapter_files.h"
#include "base/json.h"
#include "formats/weights/beside.h"
#include "formats/tokenizer/chat.h"
#include "formats/tokenizer/tokenizer.h"
#include "formats/weights/safetensors.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void set(json_t *o, const char *key, json_t *v) { json_object_set_new(o, key, v); }
static void set_int(json_t *o, const char *key, int64_t v) { set(o, key, json_integer(v)); }
static void set_text(json_t *o, const char *key, const char *v) { set(o, key, json_string(v)); }

/* Every value of a float tensor must be finite, whether or not the file has hashes: one flipped exponent bit ruins a model. */
static int scan_tensor(const struct tensor *t, struct err *e)
{
    enum { STEP = 4096 };
    float v[STEP];

    if (!type_real(t->type))
        return 0;
    for (int64_t i = 0; i < t->count; i += STEP) {
        int64_t n = t->count - i < STEP ? t->count - i : STEP, bad = 0;
        tensor_to_f32(t, i, n, v, NULL);
        /* Counting has no branches and is fast; only a block with a bad value is gone through
         * again to find it. NaN fails every comparison, so it is found too. */
        for (int64_t k = 0; k < n; k++)
            bad += !(fabsf(v[k]) < INFINITY);
        for (int64_t k = 0; k < n && bad; k++)
            if (!(fabsf(v[k]) < INFINITY)) {
                err_set(e, E_NO, "'%s': tensor '%.200s' is %f at element %lld", t->file,
                        t->name, (double)v[k], (long long)(i + k));
                return err_hint(e, "the file is damaged, or training diverged: do not use it");
            }
    }
    return 0;
}

/* A hash of 64 bits as everywhere. */
static json_t *hex(uint64_t hash)
{
    char digits[HASH_HEX + 1];

    snprintf(digits, sizeof digits, "%016" PRIx64, hash);
    return json_string(digits);
}

/* One tensor's row for --verbose. hash: where all of it was read. */
static void add_tensor(json_t *list, const struct tensor *t, const uint64_t *hash)
{
    json_t *shape = json_array();

    for (int i = 0; i < t->dims; i++)
        json_array_append_new(shape, json_integer(t->shape[i]));
    json_array_append_new(list, json_pack("{ss ss so so*}", "name", tensor_file_name(t), "type",
                                          t->type->name, "shape", shape, "xxh3",
                                          hash ? hex(*hash) : NULL));
}

/* What the tensors of one or many files add up to. */
enum { TYPES = 64 }; /* more than the forms have */
struct tally {
    int64_t n, bytes, values, hashed; /* hashed: tensors whose file says what their hash is */
    struct { const struct tensor_type *type; int64_t n; } by_type[TYPES]; /* as they came */
    json_t *list; /* NULL: not wanted */
    bool verify;
};

/* One more tensor: counts, its line in the list and, with --verify, its hash, which *hash becomes
 * (unless NULL), and a look at its values. */
static int tally_add(struct tally *y, const struct tensor *t, uint64_t *hash, struct err *e)
{
    uint64_t is = y->verify ? block_hash(t->data, t->nbytes) : 0;
    int i = 0;

    y->n++;
    y->bytes += (int64_t)t->nbytes;
    y->values += t->count;
    y->hashed += t->hashed;
    /* The types are few, so a search is enough. Two of one name are two orders of the rows. */
    while (i < TYPES - 1 && y->by_type[i].n &&
           strcmp(y->by_type[i].type->name, t->type->name) != 0)
        i++;
    y->by_type[i].type = t->type;
    y->by_type[i].n++;
    if (y->list)
        add_tensor(y->list, t, y->verify ? &is : NULL);
    if (!y->verify)
        return 0;
    if (hash)
        *hash = is;
    return tensor_agrees(t, is, e) < 0 ? E_DATA : scan_tensor(t, e);
}

/* Writes the sums; out takes over the list of tensors. */
static void tally_show(const struct tally *y, json_t *out)
{
    json_t *types = json_object();

    set_int(out, "tensors", y->n);
    for (int i = 0; i < TYPES && y->by_type[i].n; i++)
        set_int(types, y->by_type[i].type->name, y->by_type[i].n);
    set(out, "types", types);
    set_int(out, "bytes", y->bytes);
    /* It was read to the end, or there would be no report. */
    if (y->verify)
        set_int(out, "verified", y->bytes);
    if (y->verify)
        set_int(out, "hashed_tensors", y->hashed);
    if (y->list)
        set(out, "list", y->list);
}

static struct tally tally_start(const struct info_options *o)
{
    return (struct tally){ .verify = o->verify, .list = o->verbose ? json_array() : NULL };
}

/* A file of tensors without a configuration. */
static int tensors_info(const char *path, const struct info_options *o, json_t *out,
                        struct err *e)
{
    struct tally y = tally_start(o);
    struct st_file *f;
    int rc = st_open(&f, path, e);

    for (int64_t i = 0; rc == 0 && i < st_count(f); i++)
        rc = tally_add(&y, st_at(f, i), NULL, e);
    if (rc < 0) {
        /* Nothing takes over the list of an unfinished report. */
        json_decref(y.list);
    } else {
        set_text(out, "form", "safetensors");
        set_int(out, "values", y.values);
        tally_show(&y, out);
    }
    st_close(f);
    return rc;
}

static void show_config(const struct llama_config *c, json_t *out)
{
    if (c->multimodal)
        set_text(out, "within", c->multimodal->model_type);
    set_int(out, "parameters", config_params(c));
    set_int(out, "context", config_reach(c));
    set_text(out, "rope", config_rope_name(c->rope.type));
    if (c->rope.type != ROPE_DEFAULT)
        set(out, "rope_factor", json_real(c->rope.factor));
    if (c->rope.original_context > 0)
        set_int(out, "rope_original_context", c->rope.original_context);
    if (config_rope_scale(&c->rope) != 1)
        set(out, "rope_scale", json_real(config_rope_scale(&c->rope)));
    set(out, "rope_theta", json_real(c->rope.theta));
    set_int(out, "layers", c->layers);
    set_int(out, "width", c->dim);
    set_int(out, "mlp_width", c->ffn_dim);
    set_int(out, "heads", c->heads);
    set_int(out, "kv_heads", c->kv_heads);
    set_int(out, "head_width", c->head_dim);
    set_int(out, "vocab", c->vocab);
    set(out, "tied", json_boolean(c->tied));
}

/* Every tensor of a model; *hash becomes that of all, where they were read. */
static int tally_model(struct tally *y, const struct weights *w, uint64_t *hash, struct err *e)
{
    int64_t n = weights_count(w);
    uint64_t *each = calloc((size_t)n + 1, sizeof *each);
    int rc = each ? 0 : err_set(e, E_SYS, "out of memory");

    for (int64_t i = 0; rc == 0 && i < n; i++)
        rc = tally_add(y, weights_at(w, i), &each[i], e);
    if (rc == 0 && y->verify)
        *hash = weights_hash(w, each);
    free(each);
    return rc;
}

static void show_changed(const char *names, json_t *out)
{
    if (names)
        set_text(out, "changed", names);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

/* A model's folder, or GGUF file; opening it checks that each tensor of the configuration is there. */
static int model_info(const char *path, const struct info_options *o, json_t *out,
                      struct err *e)
{
    struct tally y = tally_start(o);
    struct weights *w;
    uint64_t hash = 0;
    char *tokenizer;
    int rc = weights_open(&w, path, e);

    if (rc == 0)
        rc = tally_model(&y, w, &hash, e);
    if (rc < 0) {
        json_decref(y.list);
    } else {
        set_text(out, "form", "model");
        show_config(weights_config(w), out);
        if (weights_beside(w))
            set_text(out, "beside", weights_beside(w));
        tokenizer = weights_tokenizer_path(path);
        set(out, "tokenizer", tokenizer ? json_string(base_name(tokenizer)) : json_null());
        free(tokenizer);
        tally_show(&y, out);
        if (hash)
            set(out, "weights_xxh3", hex(hash));
        show_changed(weights_changed(w), out);
    }
    weights_close(w);
    return rc < 0 ? rc : info_checkpoints(path, o, out, e);
}

/* The names that peft uses for the modules whose roles are in the set. */
static json_t *modules(const struct arch *a, uint64_t roles)
{
    json_t *list = json_array();
    struct module m;

    for (int i = 0; i < a->n_tensors; i++)
        if ((roles & ROLE_BIT(a->tensors[i].role)) && tensor_module(&a->tensors[i], &m))
            json_array_append_new(list, json_string(m.last));
    return list;
}

static void show_adapter(const struct adapter_config *a, json_t *out)
{
    set_text(out, "form", "adapter");
    set_text(out, "base", a->base);
    set_int(out, "rank", a->rank);
    set(out, "alpha", json_real(a->alpha));
    set(out, "scale", json_real(adapter_scale(a)));
    set(out, "pairs_on", modules(a->arch, a->targets));
    set(out, "saved", modules(a->arch, a->saved));
}

/* Its own config.json says what its tensors should be; an adapter of peft's has none, and its
 * tensors are then only counted. */
static int adapter_info(const char *path, const struct info_options *o, json_t *out,
                        struct err *e)
{
    char *config = path_join(path, "adapter_config.json"),
         *model = path_join(path, "config.json");
    struct tally y = tally_start(o);
    struct adapter_config a = { 0 };
    struct adapter *whole = NULL;
    struct llama_config c;
    struct adapter_files *f = NULL;
    struct buf changed = { 0 };
    bool known = path_exists(model);
    int rc = known ? config_read(&c, model, e) : 0;

    if (rc == 0)
        /* With a configuration the adapter is opened as a merge would do it, which checks each shape. */
        rc = known ? adapter_open(&whole, path, &c, e) : adapter_config_load(&a, NULL, NULL, 0, config, e);
    if (rc == 0)
        rc = adapter_files_open(&f, path, e);
    for (int64_t i = 0; rc == 0 && i < adapter_files_count(f); i++)
        rc = tally_add(&y, &adapter_files_at(f, i)->t, NULL, e);
    /* Also where config.json is gone, without which adapter_open cannot be asked. */
    if (rc == 0 && (rc = beside_changed(adapter_files_note(f, BESIDE_KEY), path, &changed, e)) == 0 &&
        changed.len)
        rc = buf_add(&changed, "", 1, e);
    if (rc < 0) {
        json_decref(y.list);
    } else {
        show_adapter(whole ? adapter_config(whole) : &a, out);
        set_int(out, "trained", y.values);
        if (whole && adapter_config(whole)->base_hash)
            set(out, "base_xxh3", hex(adapter_config(whole)->base_hash));
        if (known) {
            json_t *m = json_object();
            show_config(&c, m);
            set(out, "model", m);
        }
        tally_show(&y, out);
        show_changed(changed.p, out);
    }
    buf_free(&changed);
    adapter_files_close(f);
    adapter_config_free(&a);
    adapter_close(whole);
    free(config);
    free(model);
    return rc < 0 ? rc : info_checkpoints(path, o, out, e);
}

static int tokenizer_info(const char *path, const struct info_options *o, json_t *out,
                          struct err *e)
{
    struct tokenizer *t;
    char *chat = NULL;
    size_t n = 0;
    int rc = tokenizer_open(&t, path, e);

    (void)o; /* opening one reads and checks all of it */
    if (rc < 0)
        return rc;
    set_text(out, "form", tokenizer_form(t));
    set_int(out, "vocab", tokenizer_vocab(t));
    set_int(out, "bos", tokenizer_bos(t));
    set_int(out, "eos", tokenizer_eos(t));
    json_object_set_new(out, "adds_bos", json_boolean(tokenizer_adds_bos(t)));
    json_object_set_new(out, "adds_eos", json_boolean(tokenizer_adds_eos(t)));
    set_text(out, "fingerprint", tokenizer_fingerprint(t));
    if ((rc = tokenizer_template(t, &chat, &n, e)) == 0 && chat)
        set_text(out, "chat_template", chat_form_name(chat_form_of(chat, n)));
    free(chat);
    tokenizer_close(t);
    return rc;
}

int info_model(const char *path, enum info_kind kind, const struct info_options *o, json_t *out,
               struct err *e)
{
    switch (kind) {
    case INFO_MODEL: return model_info(path, o, out, e);
    case INFO_ADAPTER: return adapter_info(path, o, out, e);
    case INFO_TENSORS: return tensors_info(path, o, out, e);
    case INFO_CHECKPOINT: return info_checkpoint(path, o, out, e);
    case INFO_RUN: set_text(out, "form", "unfinished training"); return info_checkpoints(path, o, out, e);
    default: return tokenizer_info(path, o, out, e);
    }
}
