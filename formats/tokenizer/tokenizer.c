/* formats/tokenizer/tokenizer.c - see tokenizer.h: the one door to all kinds. */
#include "base/hash.h"
#include "formats/tokenizer/tokenizer.h"

#include "base/file.h"
#include "base/json.h"
#include "base/magic.h"
#include "formats/tokenizer/chat.h"
#include "formats/tokenizer/engine.h"
#include "formats/tokenizer/gguf_vocab.h"
#include "formats/tokenizer/hft.h"
#include "formats/tokenizer/splib.h"
#include "formats/tokenizer/spmodel.h"

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODEL_FILE "tokenizer.model"
#define JSON_FILE "tokenizer.json"

struct tokenizer {
    const struct tokenizer_engine *engine;
    void *self;            /* what the engine made of the file */
    struct splib *library; /* NULL: self makes the ids */
    char *path, *bytes;    /* the model's file, for whoever wants the library after all */
    size_t n_bytes;
    bool adds_bos, adds_eos; /* transformers' encode */
    char lacks[64]; /* a token that transformers takes from tokenizer_config.json alone; "" for none */
    char fingerprint[FINGERPRINT_HEX + 1];
};

/* One cache a thread, freed when the thread ends. */
static pthread_key_t cache_key;
static pthread_once_t cache_once = PTHREAD_ONCE_INIT;
static int cache_rc;

static void free_cache(void *c) { spm_cache_close(c); }
static void make_key(void) { cache_rc = pthread_key_create(&cache_key, free_cache); }

/* The cache is made when the thread first encodes; all models share it. */
static int thread_cache(struct spm_cache **c, struct err *e)
{
    int rc;

    pthread_once(&cache_once, make_key);
    if (cache_rc)
        return err_set(e, E_SYS, "cannot make a key for threads: %s", strerror(cache_rc));
    if ((*c = pthread_getspecific(cache_key)))
        return 0;
    if ((rc = spm_cache_open(c, e)) < 0)
        return rc;
    if ((rc = pthread_setspecific(cache_key, *c))) {
        spm_cache_close(*c);
        return err_set(e, E_SYS, "cannot keep a thread's cache: %s", strerror(rc));
    }
    return 0;
}

/* The folder of a file; malloc'ed. */
static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
}

/* A file of this name in the folder of another; malloc'ed. */
static char *tokenizer_beside(const char *path, const char *name)
{
    char *folder = folder_of(path), *file = folder ? path_join(folder, name) : NULL;

    free(folder);
    return file;
}

/* Remedies go below what is wrong. */
static int parse_failed(const void *bytes, size_t n, const char *name, struct err *e)
{
    const struct magic_form *m = magic_of(bytes, n, true);
    const char *slash = strrchr(name, '/'), *file = slash ? slash + 1 : name;
    char *beside;

    /* Says what was given, where that is known. */
    if (m && m->form != MAGIC_SENTENCEPIECE && m->form != MAGIC_TOKENIZER_JSON &&
        m->form != MAGIC_TIKTOKEN)
        err_set(e, E_DATA, "'%s' is %s, not a tokenizer", name, m->name);
    beside = strcmp(file, MODEL_FILE) ? tokenizer_beside(name, MODEL_FILE) : NULL;
    if (beside && path_is_file(beside))
        err_hint(e, "use the SentencePiece model beside it: -t %s", beside);
    else if (!strstr(e->msg, "\n"))
        err_hint(e, "-t takes a model's folder, a tokenizer.json, a SentencePiece model or a rank file "
                    "of tiktoken");
    free(beside);
    return E_DATA;
}

int tokenizer_parse(struct tokenizer **out, const void *bytes, size_t n, const char *name,
                    struct err *e)
{
    struct tokenizer *t = calloc(1, sizeof *t);
    struct err mine = { 0 };
    int rc;

    *out = NULL;
    e = e ? e : &mine;
    if (!t)
        return err_set(e, E_SYS, "out of memory");
    t->engine = engine_of(bytes, n, name);
    rc = t->engine->parse(&t->self, bytes, n, name, e);
    if (rc == 0 && (!(t->path = strdup(name)) || !(t->bytes = malloc(n + 1))))
        rc = err_set(e, E_SYS, "out of memory for a model of %zu bytes", n);
    if (rc == 0) {
        memcpy(t->bytes, bytes, n);
        t->n_bytes = n;
        hash_hex(XXH3_128bits(bytes, n), t->fingerprint);
        t->engine->adds(t->self, &t->adds_bos, &t->adds_eos);
        if (t->engine->by_meaning)
            rc = tokenizer_meaning(t, t->fingerprint, e);
    }
    if (rc < 0) {
        tokenizer_close(t);
        return rc == E_DATA ? parse_failed(bytes, n, name, e) : rc;
    }
    *out = t;
    return 0;
}

/* "bos_token": "<s>", or {"content": "<s>", ...}, or null; absent, id stays as it is. */
static int config_token(const struct tokenizer *t, const struct js *o, const char *key, int32_t *id,
                        struct err *e)
{
    json_t *v = json_object_get(o->obj, key);
    const char *text = json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);

    if (!v)
        return 0;
    *id = text ? t->engine->find(t->self, text, strlen(text)) : -1;
    if (text && *id < 0)
        return err_set(e, E_DATA, "'%s': field '%s': '%.60s' is no token of '%s'", o->file, key, text,
                       t->path);
    return 0;
}

/* Classes of transformers that put BOS and EOS round a text themselves, whatever the file says. */
static const struct adding {
    const char *name; /* or with "Fast" behind it */
    bool bos, eos;
} adding[] = {
    { "LlamaTokenizer", true, false },  { "CodeLlamaTokenizer", true, false },
    { "GemmaTokenizer", true, false },  { "CohereTokenizer", true, false },
    { "GPTNeoXTokenizer", false, false },
};

/* The class's word, then that of the fields add_bos_token and add_eos_token, which other classes leave to
 * the template of a tokenizer.json (transformers 4.57). */
static int config_adds(struct tokenizer *t, const struct js *o, struct err *e)
{
    const char *name = json_string_value(json_object_get(o->obj, "tokenizer_class"));
    bool follows = !name || !t->engine->set;
    int rc;

    for (size_t i = 0; name && i < sizeof adding / sizeof *adding; i++) {
        size_t n = strlen(adding[i].name);

        if (strncmp(name, adding[i].name, n) == 0 && (!name[n] || strcmp(name + n, "Fast") == 0)) {
            t->adds_bos = adding[i].bos;
            t->adds_eos = adding[i].eos;
            follows = true;
        }
    }
    if (!follows)
        return 0;
    if ((rc = js_bool(o, "add_bos_token", JS_MAY, &t->adds_bos, e)) < 0 ||
        (rc = js_bool(o, "add_eos_token", JS_MAY, &t->adds_eos, e)) < 0)
        return rc;
    /* null is no, where a class would do it of itself */
    t->adds_bos = t->adds_bos && !json_is_null(json_object_get(o->obj, "add_bos_token"));
    t->adds_eos = t->adds_eos && !json_is_null(json_object_get(o->obj, "add_eos_token"));
    return 0;
}

/* A token as a text or as {"content": text}, if the tokenizer has none such. */
static void note_lack(struct tokenizer *t, const json_t *token)
{
    const char *text = json_string_value(json_is_object(token) ? json_object_get(token, "content") : token);

    if (text && *text && !*t->lacks && t->engine->find(t->self, text, strlen(text)) < 0)
        snprintf(t->lacks, sizeof t->lacks, "%s", text);
}

/* Tokens that transformers adds to those of the tokenizer.json. */
static void find_lacks(struct tokenizer *t, const struct js *o)
{
    static const char *const lists[] = { "added_tokens_decoder", "extra_special_tokens",
                                         "additional_special_tokens" };
    static const char *const single[] = { "unk_token", "sep_token", "pad_token", "cls_token", "mask_token" };
    json_t *token;
    const char *key;
    size_t k;

    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        json_t *list = json_object_get(o->obj, lists[i]);

        json_object_foreach(list, key, token)
            note_lack(t, token);
        json_array_foreach(list, k, token)
            note_lack(t, token);
    }
    for (size_t i = 0; i < sizeof single / sizeof *single; i++)
        note_lack(t, json_object_get(o->obj, single[i]));
}

/* What lies beside a tokenizer has the last word on BOS and EOS: of a tokenizer.json which they are, of
 * all kinds whether they are added. */
static int read_config(struct tokenizer *t, struct err *e)
{
    int32_t bos = tokenizer_bos(t), eos = tokenizer_eos(t);
    char *path = tokenizer_beside(t->path, TOKENIZER_CONFIG_FILE);
    struct js o = { 0 };
    int rc = 0;

    if (!path)
        return err_set(e, E_SYS, "out of memory");
    if (path_is_file(path) && (rc = js_load(&o, path, TOKENIZER_CONFIG_MAX_BYTES, e)) == 0 &&
        (rc = config_adds(t, &o, e)) == 0 && t->engine->set &&
        (rc = config_token(t, &o, "bos_token", &bos, e)) == 0 &&
        (rc = config_token(t, &o, "eos_token", &eos, e)) == 0) {
        t->engine->set(t->self, bos, eos);
        find_lacks(t, &o);
    }
    js_free(&o);
    free(path);
    return rc;
}

static char *tiktoken_in(const char *folder)
{
    DIR *d = opendir(folder);
    struct dirent *f;
    char *path = NULL;

    while (d && !path && (f = readdir(d))) {
        size_t n = strlen(f->d_name);

        if (n > 9 && strcmp(f->d_name + n - 9, ".tiktoken") == 0)
            path = path_join(folder, f->d_name);
    }
    if (d)
        closedir(d);
    return path;
}

/* A GGUF model is its own tokenizer. */
char *tokenizer_in_folder(const char *folder)
{
    static const char *const names[] = { JSON_FILE, MODEL_FILE };

    if (gguf_is(folder))
        return strdup(folder);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = path_join(folder, names[i]);

        if (path_exists(path))
            return path;
        free(path);
    }
    return tiktoken_in(folder);
}

/* What the keys of a GGUF say, as the file that they were made from. */
static int open_gguf(struct tokenizer **t, const char *path, struct err *e)
{
    struct gguf_vocab v = { 0 };
    struct gguf *g;
    int rc = gguf_open(&g, path, e);

    if (rc == 0 && (rc = gguf_vocab_read(&v, g, e)) == 0 &&
        (rc = tokenizer_parse(t, v.bytes.p, v.bytes.len, path, e)) == 0 && (*t)->engine->set)
        (*t)->engine->set((*t)->self, v.bos, v.eos);
    buf_free(&v.bytes);
    gguf_close(g);
    return rc;
}

int tokenizer_open(struct tokenizer **t, const char *path, struct err *e)
{
    const size_t max = HFT_MAX_BYTES > SPMODEL_MAX_BYTES ? HFT_MAX_BYTES : SPMODEL_MAX_BYTES;
    char *bytes = NULL, *inside = path_is_dir(path) ? tokenizer_in_folder(path) : NULL;
    size_t n = 0;
    int rc;

    *t = NULL;
    if (!inside && path_is_dir(path)) {
        rc = err_set(e, E_NOINPUT, "the folder '%s' has no tokenizer", path);
        err_hint(e, "it is called " JSON_FILE ", " MODEL_FILE " or *.tiktoken");
    } else if (!inside && gguf_is(path)) {
        rc = open_gguf(t, path, e);
    } else if ((rc = file_read(inside ? inside : path, max, &bytes, &n, e)) == 0 &&
               (rc = tokenizer_parse(t, bytes, n, inside ? inside : path, e)) == 0) {
        rc = read_config(*t, e);
    }
    if (rc < 0) {
        tokenizer_close(*t);
        *t = NULL;
    }
    free(bytes);
    free(inside);
    return rc;
}

int tokenizer_template(const struct tokenizer *t, char **text, size_t *n, struct err *e)
{
    char *folder = folder_of(t->path);
    int rc = folder ? chat_template(folder, text, n, e) : err_set(e, E_SYS, "out of memory");

    if (!folder) {
        *text = NULL;
        *n = 0;
    }
    free(folder);
    return rc;
}

static bool same_meaning(const struct tokenizer *a, const struct tokenizer *b);

int tokenizer_note(const struct tokenizer *t, char *line, size_t size, struct err *e)
{
    char *model = t->engine->by_meaning ? tokenizer_beside(t->path, MODEL_FILE) : NULL;
    const char *also = "";
    struct tokenizer *other = NULL;
    struct err ignored = { 0 };
    int32_t bos = tokenizer_bos(t), eos = tokenizer_eos(t);
    const char *adds = tokenizer_adds_bos(t) ? (tokenizer_adds_eos(t) ? "BOS and EOS" : "BOS")
                       : tokenizer_adds_eos(t) ? "EOS" : "neither";
    char *chat = NULL;
    size_t n_chat = 0;

    (void)e;
    tokenizer_template(t, &chat, &n_chat, &ignored); /* one that cannot be read is none for this line */
    if (model && strcmp(model, t->path) != 0 && path_is_file(model))
        also = tokenizer_open(&other, model, &ignored) < 0 ? "; " MODEL_FILE " beside it was not read"
               : same_meaning(t, other) ? "; " MODEL_FILE " beside it means the same"
                                        : "; " MODEL_FILE " beside it gives other ids";
    snprintf(line, size, "'%s' (%s): %lld tokens, BOS %s%s%s, EOS %s%s%s%s; transformers "
             "adds %s%s%s%s%s%s", t->path,
             t->engine->form, (long long)tokenizer_vocab(t), bos < 0 ? "none" : "'",
             bos < 0 ? "" : tokenizer_piece(t, bos), bos < 0 ? "" : "'", eos < 0 ? "none" : "'",
             eos < 0 ? "" : tokenizer_piece(t, eos), eos < 0 ? "" : "'", also, adds,
             chat ? "; chat template: " : "", chat ? chat_form_name(chat_form_of(chat, n_chat)) : "",
             *t->lacks ? "; plain text here, a token of " TOKENIZER_CONFIG_FILE " to transformers: '" : "",
             t->lacks, *t->lacks ? "'" : "");
    text_clean(line, false);
    tokenizer_close(other);
    free(model);
    free(chat);
    return 0;
}

int tokenizer_use(struct tokenizer *t, enum tokenizer_maker maker, struct err *e)
{
    int rc = 0;

    if (maker == TOKENIZER_SENTENCEPIECE && t->engine->by_meaning) {
        rc = err_set(e, E_DATA, "'%s' is a %s, which libsentencepiece does not read", t->path,
                     t->engine->form);
    } else if (maker == TOKENIZER_SENTENCEPIECE && !t->library) {
        /* The library reads the model only when it is asked for: it takes time and memory. */
        if ((rc = splib_parse(&t->library, t->bytes, t->n_bytes, e)) < 0 && e)
            err_within(e, "'%s'", t->path);
    } else if (maker == TOKENIZER_OWN) {
        splib_free(t->library);
        t->library = NULL;
    }
    return rc;
}

void tokenizer_close(struct tokenizer *t)
{
    if (!t)
        return;
    if (t->self)
        t->engine->free(t->self);
    splib_free(t->library);
    free(t->path);
    free(t->bytes);
    free(t);
}

int64_t tokenizer_vocab(const struct tokenizer *t) { return t->engine->vocab(t->self); }
int32_t tokenizer_bos(const struct tokenizer *t) { return t->engine->bos(t->self); }
int32_t tokenizer_eos(const struct tokenizer *t) { return t->engine->eos(t->self); }
bool tokenizer_adds_bos(const struct tokenizer *t) { return t->adds_bos && tokenizer_bos(t) >= 0; }
bool tokenizer_adds_eos(const struct tokenizer *t) { return t->adds_eos && tokenizer_eos(t) >= 0; }
const char *tokenizer_path(const struct tokenizer *t) { return t->path; }
const char *tokenizer_form(const struct tokenizer *t) { return t->engine->form; }
const char *tokenizer_file(const struct tokenizer *t) { return t->engine->file; }
const char *tokenizer_fingerprint(const struct tokenizer *t) { return t->fingerprint; }

/* A fingerprint may be of the file, or one of two of what it does. */
struct meanings {
    char hex[2][FINGERPRINT_HEX + 1];
};

static bool read_meanings(const struct tokenizer *t, struct meanings *m)
{
    struct err e = { 0 };

    return t->engine->meaning(t->self, t->bytes, t->n_bytes, m->hex[0], m->hex[1], &e) == 0;
}

static bool has_meaning(const struct meanings *m, const char *hex)
{
    return strcmp(m->hex[0], hex) == 0 || (*hex && strcmp(m->hex[1], hex) == 0);
}

static bool same_meaning(const struct tokenizer *a, const struct tokenizer *b)
{
    struct meanings x, y;

    return read_meanings(a, &x) && read_meanings(b, &y) &&
           (has_meaning(&x, y.hex[0]) || (*y.hex[1] && has_meaning(&x, y.hex[1])));
}

/* In the order of cost: the file's fingerprint, then what the file means, then the other
 * file, if it can still be read. A path that now holds another file than the data names
 * says nothing. */
bool tokenizer_made(const struct tokenizer *t, const char *fingerprint, const char *path)
{
    struct tokenizer *other = NULL;
    struct err e = { 0 };
    struct meanings own;
    bool same = strcmp(t->fingerprint, fingerprint) == 0;

    if (same || !read_meanings(t, &own))
        return same;
    same = has_meaning(&own, fingerprint);
    if (!same && *path && tokenizer_open(&other, path, &e) == 0)
        same = strcmp(other->fingerprint, fingerprint) == 0 && same_meaning(t, other);
    tokenizer_close(other);
    return same;
}

bool tokenizer_alike(const char *fingerprint, const char *path, const char *fingerprint2,
                     const char *path2)
{
    struct tokenizer *t = NULL;
    struct err e = { 0 };
    bool same = strcmp(fingerprint, fingerprint2) == 0;

    if (same || !*path || tokenizer_open(&t, path, &e) < 0)
        return same;
    same = strcmp(t->fingerprint, fingerprint) == 0 && /* it is still the file that was named */
           tokenizer_made(t, fingerprint2, path2);
    tokenizer_close(t);
    return same;
}

int tokenizer_meaning(const struct tokenizer *t, char out[FINGERPRINT_HEX + 1], struct err *e)
{
    char second[FINGERPRINT_HEX + 1];

    return t->engine->meaning(t->self, t->bytes, t->n_bytes, out, second, e);
}

const char *tokenizer_piece(const struct tokenizer *t, int32_t id)
{
    return t->engine->piece(t->self, id);
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t nbytes, int32_t **ids,
                     int64_t *n, struct err *e)
{
    struct spm_ids out = { 0 };
    struct spm_cache *c;
    int32_t *fitted;
    int rc;

    *ids = NULL;
    *n = 0;
    if (nbytes > SPM_MAX_TEXT_BYTES)
        return err_set(e, E_DATA, "a text of %zu bytes is too long to tokenise at once (limit %zu)",
                       nbytes, SPM_MAX_TEXT_BYTES);
    if (t->library)
        return splib_encode(t->library, text, nbytes, ids, n, e);
    if ((rc = thread_cache(&c, e)) < 0)
        return rc;
    if ((rc = t->engine->encode(t->self, c, text, nbytes, &out, e)) < 0) {
        spm_ids_free(&out);
        return rc;
    }
    fitted = realloc(out.p, (size_t)out.len * sizeof *out.p + 1); /* it grew by doubling */
    if (!fitted) {
        spm_ids_free(&out);
        return err_set(e, E_SYS, "out of memory for %lld ids", (long long)out.len);
    }
    *ids = fitted;
    *n = out.len;
    return 0;
}

int tokenizer_decode(const struct tokenizer *t, const int32_t *ids, int64_t n, char **text,
                     size_t *nbytes, struct err *e)
{
    struct buf out = { 0 };
    int rc;

    *text = NULL;
    *nbytes = 0;
    /* The text has a NUL behind it, which *nbytes does not count. */
    if ((rc = t->engine->decode(t->self, ids, n, &out, e)) == 0)
        rc = buf_add(&out, "", 1, e);
    if (rc < 0) {
        buf_free(&out);
        return rc;
    }
    *text = out.p;
    *nbytes = out.len - 1;
    return 0;
}
