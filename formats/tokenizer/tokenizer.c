/* formats/tokenizer/tokenizer.c - see tokenizer.h: the door to the two engines. */
#include "base/hash.h"
#include "formats/tokenizer/tokenizer.h"

#include "base/file.h"
#include "base/magic.h"
#include "formats/tokenizer/splib.h"
#include "formats/tokenizer/spm.h"
#include "formats/tokenizer/spmodel.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define MODEL_FILE "tokenizer.model"

struct tokenizer {
    struct spm *own;
    struct splib *library; /* NULL: own makes the ids */
    char *path, *bytes;    /* the model's file, for whoever wants the library after all */
    size_t n_bytes;
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

/* The remedy: a tokenizer.model that lies beside it. */
static int hint_model(const char *name, struct err *e)
{
    const char *slash = strrchr(name, '/');
    char *folder = slash ? strndup(name, (size_t)(slash - name) + 1) : strdup("."),
         *beside = folder ? path_join(folder, MODEL_FILE) : NULL;

    if (beside && path_is_file(beside) && strcmp(slash ? slash + 1 : name, MODEL_FILE) != 0)
        err_hint(e, "use the SentencePiece model beside it: -t %s", beside);
    else
        err_hint(e, "-t takes a SentencePiece tokenizer.model, as Llama 2 has");
    free(beside);
    free(folder);
    return E_DATA;
}

/* Says what was given in place of a model, where that is known. */
static int no_model(const void *bytes, size_t n, const char *name, struct err *e)
{
    const struct magic_form *m = magic_of(bytes, n, true);
    const char *text = magic_text(bytes, n);

    if (m && m->form != MAGIC_SENTENCEPIECE)
        err_set(e, E_DATA, "'%s' is %s, not a SentencePiece model", name, m->name);
    else if (text && strcmp(text, "JSON") == 0)
        err_set(e, E_DATA, "'%s' is JSON, not a SentencePiece model", name);
    return hint_model(name, e);
}

int tokenizer_parse(struct tokenizer **out, const void *bytes, size_t n, const char *name,
                    struct err *e)
{
    struct tokenizer *t = calloc(1, sizeof *t);
    int rc;

    *out = NULL;
    if (!t)
        return err_set(e, E_SYS, "out of memory");
    rc = spm_parse(&t->own, bytes, n, name, e);
    if (rc == 0 && (!(t->path = strdup(name)) || !(t->bytes = malloc(n))))
        rc = err_set(e, E_SYS, "out of memory for a model of %zu bytes", n);
    if (rc < 0) {
        tokenizer_close(t);
        return rc == E_DATA ? no_model(bytes, n, name, e) : rc;
    }
    memcpy(t->bytes, bytes, n);
    t->n_bytes = n;
    hash_hex(XXH3_128bits(bytes, n), t->fingerprint);
    *out = t;
    return 0;
}

int tokenizer_open(struct tokenizer **t, const char *path, struct err *e)
{
    char *bytes = NULL, *inside = path_is_dir(path) ? path_join(path, MODEL_FILE) : NULL;
    size_t n = 0;
    int rc;

    *t = NULL;
    if (inside && !path_exists(inside)) {
        rc = err_set(e, E_NOINPUT, "the folder '%s' has no " MODEL_FILE, path);
        err_hint(e, "it is a SentencePiece model, as Llama 2 has; tokenizer.json and tiktoken's "
                    "vocabularies are not read");
    } else if ((rc = file_read(inside ? inside : path, SPMODEL_MAX_BYTES, &bytes, &n, e)) == 0) {
        rc = tokenizer_parse(t, bytes, n, inside ? inside : path, e);
    }
    free(bytes);
    free(inside);
    return rc;
}

int tokenizer_use(struct tokenizer *t, enum tokenizer_engine engine, struct err *e)
{
    int rc = 0;

    if (engine == TOKENIZER_SENTENCEPIECE && !t->library) {
        /* The library reads the model only when it is asked for: it takes time and memory. */
        if ((rc = splib_parse(&t->library, t->bytes, t->n_bytes, e)) < 0 && e)
            err_within(e, "'%s'", t->path);
    } else if (engine == TOKENIZER_OWN) {
        splib_free(t->library);
        t->library = NULL;
    }
    return rc;
}

void tokenizer_close(struct tokenizer *t)
{
    if (!t)
        return;
    spm_free(t->own);
    splib_free(t->library);
    free(t->path);
    free(t->bytes);
    free(t);
}

int64_t tokenizer_vocab(const struct tokenizer *t) { return spm_vocab(t->own); }
int32_t tokenizer_bos(const struct tokenizer *t) { return spm_bos(t->own); }
int32_t tokenizer_eos(const struct tokenizer *t) { return spm_eos(t->own); }
const char *tokenizer_path(const struct tokenizer *t) { return t->path; }
const char *tokenizer_fingerprint(const struct tokenizer *t) { return t->fingerprint; }
/* In the order of cost: the file's fingerprint, then what the file means, then the other
 * file, if it can still be read. A path that now holds another file than the data names
 * says nothing. */
bool tokenizer_made(const struct tokenizer *t, const char *fingerprint, const char *path)
{
    char own[FINGERPRINT_HEX + 1], theirs[FINGERPRINT_HEX + 1];
    struct tokenizer *other = NULL;
    struct err e = { 0 };
    bool same = strcmp(t->fingerprint, fingerprint) == 0;

    if (same || tokenizer_meaning(t, own, &e) < 0)
        return same;
    same = strcmp(own, fingerprint) == 0;
    if (!same && *path && tokenizer_open(&other, path, &e) == 0)
        same = strcmp(other->fingerprint, fingerprint) == 0 &&
               tokenizer_meaning(other, theirs, &e) == 0 && strcmp(own, theirs) == 0;
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
    return spmodel_meaning(t->bytes, t->n_bytes, out, e);
}

const char *tokenizer_piece(const struct tokenizer *t, int32_t id)
{
    return spm_piece(t->own, id, NULL);
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
    if ((rc = spm_encode(t->own, c, text, nbytes, &out, e)) < 0) {
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
    if ((rc = spm_decode(t->own, ids, n, &out, e)) == 0)
        rc = buf_add(&out, "", 1, e);
    if (rc < 0) {
        buf_free(&out);
        return rc;
    }
    *text = out.p;
    *nbytes = out.len - 1;
    return 0;
}
