/* tools/gguf_tokens.c - see gguf_tokens.h. */
#include "tools/gguf_tokens.h"

#include "base/file.h"
#include "base/log.h"
#include "formats/tokenizer/chat.h"
#include "formats/tokenizer/gguf_vocab.h"
#include "formats/tokenizer/hft.h"
#include "formats/tokenizer/tokenizer.h"
#include "formats/tokenizer/words.h"
#include "tools/gguf_vocabulary.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY(k) "tokenizer.ggml." k

/* What is gathered of a folder before anything is written. */
struct source {
    struct gguf_head *h;
    const char *folder;
    struct vocabulary v;
    int64_t bos, eos, unk, pad;
    bool add_bos, add_eos;
    struct err *e;
};

/* ---- the lists ---- */

static void put_tokens(struct gguf_head *h, const struct vocabulary *v)
{
    gguf_put_array(h, KEY("tokens"), GGUF_STRING, (uint64_t)v->n);
    for (int64_t i = 0; i < v->n; i++)
        gguf_add_string(h, v->v[i].text, v->v[i].n);
}

static void put_scores(struct gguf_head *h, const struct vocabulary *v)
{
    gguf_put_array(h, KEY("scores"), GGUF_F32, (uint64_t)v->n);
    for (int64_t i = 0; i < v->n; i++)
        gguf_add_raw(h, &v->v[i].score, 4);
}

static void put_types(struct gguf_head *h, const struct vocabulary *v)
{
    gguf_put_array(h, KEY("token_type"), GGUF_I32, (uint64_t)v->n);
    for (int64_t i = 0; i < v->n; i++) {
        unsigned char b[4];

        put_le(b, (uint64_t)v->v[i].type, 4);
        gguf_add_raw(h, b, 4);
    }
}

static void put_id(struct gguf_head *h, const char *key, int64_t id, int64_t vocab)
{
    if (id >= 0 && id < vocab)
        gguf_put_u32(h, key, (uint32_t)id);
}

static void put_ids(struct source *s)
{
    put_id(s->h, KEY("bos_token_id"), s->bos, s->v.n);
    put_id(s->h, KEY("eos_token_id"), s->eos, s->v.n);
    put_id(s->h, KEY("unknown_token_id"), s->unk, s->v.n);
    put_id(s->h, KEY("padding_token_id"), s->pad, s->v.n);
    gguf_put_bool(s->h, KEY("add_bos_token"), s->add_bos);
    gguf_put_bool(s->h, KEY("add_eos_token"), s->add_eos);
}

/* ---- SentencePiece ---- */

struct pieces {
    struct source *s;
    int64_t next;
};

static int add_piece(void *ctx, const char *text, size_t n, float score, enum spmodel_type type,
                     struct err *e)
{
    struct pieces *p = ctx;

    if (type == PIECE_UNKNOWN && p->s->unk < 0)
        p->s->unk = p->next;
    return vocabulary_set(&p->s->v, p->next++, text, n, score, type, e);
}

/* What llama.cpp does not have of a model. */
static int check_spm(const struct spmodel *m, const char *path, struct err *e)
{
    const char *what = m->type != 2 ? "is not of type BPE"
                       : m->norm[SPMODEL_ENCODES].units ? "has a table of characters"
                       : m->space_is_suffix ? "puts spaces behind words" : NULL;

    return what ? err_set(e, E_CONFIG, "'%s' %s, and llama.cpp would cut text in another way", path, what)
                : 0;
}

static void put_pieces(struct source *s, bool prefix)
{
    gguf_put_string(s->h, KEY("model"), "llama", 5);
    gguf_put_string(s->h, KEY("pre"), "default", 7);
    put_tokens(s->h, &s->v);
    put_scores(s->h, &s->v);
    put_types(s->h, &s->v);
    if (!prefix)
        gguf_put_bool(s->h, KEY("add_space_prefix"), false);
}

static int put_spm(struct source *s, const char *path)
{
    struct pieces all = { s, 0 };
    struct spmodel m;
    char *bytes;
    size_t n;
    int rc = file_read(path, SPMODEL_MAX_BYTES, &bytes, &n, s->e);

    if (rc < 0)
        return rc;
    if ((rc = spmodel_read(&m, bytes, n, add_piece, &all, s->e)) < 0)
        err_within(s->e, "'%s'", path);
    else if (m.pieces > s->v.n)
        log_warn("'%s' has %lld tokens, the model %lld: those above are left out", path,
                 (long long)m.pieces, (long long)s->v.n);
    if (rc == 0 && (rc = check_spm(&m, path, s->e)) == 0 &&
        (rc = vocabulary_added(&s->v, s->folder, s->e)) == 0 &&
        (rc = vocabulary_fill(&s->v, s->e)) == 0) {
        put_pieces(s, m.norm[SPMODEL_ENCODES].dummy_prefix);
        if (m.norm[SPMODEL_ENCODES].strip_spaces) {
            gguf_put_bool(s->h, KEY("remove_extra_whitespaces"), true);
            log_warn("'%s' takes repeated spaces for one, and llama.cpp does not", path);
        }
    }
    free(bytes);
    return rc;
}

/* ---- tokenizer.json ---- */

/* What the pre-tokenizer says: a pattern, "" for GPT-2's, and whether digits are cut off first. */
static bool read_step(json_t *step, const char **pattern, bool *digits, bool *bytes)
{
    const char *type = json_string_value(json_object_get(step, "type"));
    json_t *p = json_object_get(json_object_get(step, "pattern"), "Regex");

    if (!type)
        return false;
    if (strcmp(type, "Split") == 0 && json_is_string(p) && !*pattern)
        *pattern = json_string_value(p);
    else if (strcmp(type, "Digits") == 0 && json_is_true(json_object_get(step, "individual_digits")))
        *digits = true;
    else if (strcmp(type, "ByteLevel") == 0 && !json_is_true(json_object_get(step, "add_prefix_space"))) {
        *bytes = true;
        if (!json_is_false(json_object_get(step, "use_regex")) && !*pattern)
            *pattern = "";
    } else {
        return false;
    }
    return true;
}

/* The entry of the table that cuts text as this file does; NULL: none. */
static const struct gguf_pre *find_pre(json_t *root)
{
    json_t *pre = json_object_get(root, "pre_tokenizer"), *list = json_object_get(pre, "pretokenizers");
    bool whole = json_is_true(json_object_get(json_object_get(root, "model"), "ignore_merges"));
    bool digits = false, bytes = false;
    const char *pattern = NULL;
    const struct words *w;

    for (size_t i = 0; i < json_array_size(list); i++)
        if (!read_step(json_array_get(list, i), &pattern, &digits, &bytes))
            return NULL;
    if (!list && !read_step(pre, &pattern, &digits, &bytes))
        return NULL;
    if (!bytes || !pattern)
        return NULL;
    w = *pattern ? words_known(pattern, strlen(pattern)) : NULL;
    if (*pattern && !w)
        return NULL;
    pattern = w ? words_name(w) : "";
    if (strcmp(pattern, words_name(&words_gpt2)) == 0)
        pattern = "";
    for (int i = 0; i < gguf_n_pres; i++)
        if (strcmp(gguf_pres[i].words, pattern) == 0 && gguf_pres[i].digits == digits &&
            gguf_pres[i].whole == whole)
            return &gguf_pres[i];
    return NULL;
}

/* Added tokens win over those of the model. */
static int read_added(struct source *s, json_t *root)
{
    json_t *t;
    size_t i;
    int rc = 0;

    json_array_foreach(json_object_get(root, "added_tokens"), i, t) {
        const char *text = json_string_value(json_object_get(t, "content"));

        if (rc == 0 && text)
            rc = vocabulary_add(&s->v, json_integer_value(json_object_get(t, "id")), text,
                                json_is_true(json_object_get(t, "special")), s->e);
    }
    return rc < 0 ? rc : vocabulary_fill(&s->v, s->e);
}

static int read_tokens(struct source *s, json_t *root, const char *path)
{
    json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab"), *id;
    const char *text;
    int rc = 0;

    json_object_foreach(vocab, text, id)
        if (rc == 0)
            rc = json_is_integer(id) ? vocabulary_set(&s->v, json_integer_value(id), text, strlen(text), 0,
                                                      PIECE_NORMAL, s->e)
                                     : err_set(s->e, E_DATA, "'%s': token '%.60s' has no id", path, text);
    return rc < 0 ? rc : read_added(s, root);
}

/* "a b", or ["a", "b"]. */
static int put_merges(struct source *s, json_t *root, const char *path)
{
    json_t *list = json_object_get(json_object_get(root, "model"), "merges"), *m;
    struct buf pair = { 0 };
    size_t i;
    int rc = 0;

    gguf_put_array(s->h, KEY("merges"), GGUF_STRING, json_array_size(list));
    json_array_foreach(list, i, m) {
        const char *a = json_string_value(json_array_get(m, 0)), *b = json_string_value(json_array_get(m, 1)),
                   *both = json_string_value(m);

        pair.len = 0;
        if (rc == 0 && !both && !(a && b))
            rc = err_set(s->e, E_DATA, "'%s': merge %zu is no pair of tokens", path, i);
        if (rc == 0 && (rc = both ? buf_add(&pair, both, strlen(both), s->e)
                                  : buf_printf(&pair, s->e, "%s %s", a, b)) == 0)
            gguf_add_string(s->h, pair.p, pair.len);
    }
    buf_free(&pair);
    return rc;
}

/* A template that begins or ends with a special token. */
static void read_template(struct source *s, json_t *root)
{
    json_t *post = json_object_get(root, "post_processor"), *each, *list = json_array();
    size_t i;

    if (json_is_array(json_object_get(post, "processors"))) {
        json_array_foreach(json_object_get(post, "processors"), i, each)
            json_array_append(list, each);
    } else {
        json_array_append(list, post);
    }
    json_array_foreach(list, i, each) {
        json_t *single = json_object_get(each, "single");
        size_t n = json_array_size(single);

        if (n > 1) {
            s->add_bos = json_object_get(json_array_get(single, 0), "SpecialToken") != NULL;
            s->add_eos = json_object_get(json_array_get(single, n - 1), "SpecialToken") != NULL;
        }
    }
    json_decref(list);
}

static int put_bpe(struct source *s, json_t *root, const struct gguf_pre *pre, const char *path)
{
    int rc = read_tokens(s, root, path);

    if (rc < 0)
        return rc;
    read_template(s, root);
    gguf_put_string(s->h, KEY("model"), "gpt2", 4);
    gguf_put_string(s->h, KEY("pre"), pre->name, strlen(pre->name));
    put_tokens(s->h, &s->v);
    put_types(s->h, &s->v);
    return put_merges(s, root, path);
}

/* SentencePiece's kind: the pieces of the model that it would be. */
static int put_sentences(struct source *s, json_t *root, const char *path)
{
    struct pieces all = { s, 0 };
    enum hft_prefix prefix;
    struct hft *t;
    char *bytes;
    size_t n;
    int rc = file_read(path, HFT_MAX_BYTES, &bytes, &n, s->e);

    if (rc == 0)
        rc = hft_parse(&t, bytes, n, path, s->e);
    free(bytes);
    if (rc < 0)
        return rc;
    if ((rc = hft_pieces(t, &prefix, add_piece, &all, s->e)) == 0 && (rc = read_added(s, root)) == 0) {
        s->add_bos = true; /* as llama.cpp has it where nothing is said */
        read_template(s, root);
        put_pieces(s, prefix != HFT_PREFIX_NEVER);
        if (prefix == HFT_PREFIX_UNLESS)
            log_warn("'%s' puts no space before a text that begins with one, and llama.cpp does", path);
    }
    hft_free(t);
    return rc;
}

static int put_json(struct source *s, const char *path)
{
    const struct gguf_pre *pre;
    struct js o;
    int rc = js_load(&o, path, JS_MAX_BYTES, s->e);

    if (rc < 0)
        return rc;
    pre = find_pre(o.obj);
    rc = pre ? put_bpe(s, o.obj, pre, path) : put_sentences(s, o.obj, path);
    if (rc == E_CONFIG) {
        err_within(s->e, "'%s' cuts text in a way that llama.cpp has no name for here", path);
        err_hint(s->e, "known are SentencePiece's kind and byte-level BPE as of GPT-2, Llama 3, Qwen 2, SmolLM, "
                       "tekken and o200k; a tokenizer.model beside it is taken first");
    }
    js_free(&o);
    return rc;
}

/* ---- what is beside ---- */

static int64_t id_of(const struct source *s, const json_t *token)
{
    const char *text = json_string_value(json_is_object(token) ? json_object_get(token, "content") : token);

    for (int64_t i = 0; text && i < s->v.n; i++)
        if (strcmp(s->v.v[i].text, text) == 0)
            return i;
    return -1;
}

/* tokenizer_config.json has the last word on what is added; and the chat template. */
static int read_config(struct source *s)
{
    struct js o;
    char *path, *chat = NULL;
    size_t n;
    int rc = vocabulary_json(&o, &path, s->folder, "tokenizer_config.json", s->e);

    if (rc == 0 && o.obj) {
        rc = js_bool(&o, "add_bos_token", JS_MAY, &s->add_bos, s->e);
        rc = rc < 0 ? rc : js_bool(&o, "add_eos_token", JS_MAY, &s->add_eos, s->e);
        s->pad = id_of(s, json_object_get(o.obj, "pad_token"));
        s->unk = s->unk < 0 ? id_of(s, json_object_get(o.obj, "unk_token")) : s->unk;
    }
    if (rc == 0 && (rc = chat_template(s->folder, &chat, &n, s->e)) == 0) {
        put_ids(s);
        if (chat)
            gguf_put_string(s->h, "tokenizer.chat_template", chat, n);
    }
    js_free(&o);
    free(path);
    free(chat);
    return rc;
}

/* All that another GGUF says of its tokenizer. */
static int copy_keys(struct gguf_head *h, const char *path, int64_t vocab, struct err *e)
{
    const struct gguf_value *tokens = NULL;
    struct gguf *g;
    int rc = gguf_open(&g, path, e);

    if (rc == 0 && (rc = gguf_array(g, KEY("tokens"), false, GGUF_STRING, &tokens, e)) == 0 && tokens &&
        (int64_t)tokens->n != vocab)
        rc = err_set(e, E_CONFIG, "'%s' has a tokenizer of %lld tokens, and the model has %lld", path,
                     (long long)tokens->n, (long long)vocab);

    for (int64_t i = 0; rc == 0 && i < gguf_values(g); i++)
        if (strncmp(gguf_value_at(g, i)->key, "tokenizer.", 10) == 0)
            gguf_put_value(h, gguf_value_at(g, i));
    gguf_close(g);
    return rc;
}

/* BOS and EOS as whoever opens the folder's tokenizer has them, else the configuration's. */
static int read_marks(struct source *s, const char *path, const struct llama_config *c)
{
    struct tokenizer *t;
    int rc = tokenizer_open(&t, path, s->e);

    if (rc < 0)
        return rc;
    s->bos = tokenizer_bos(t) >= 0 ? tokenizer_bos(t) : c->bos;
    s->eos = tokenizer_eos(t) >= 0 ? tokenizer_eos(t) : c->eos;
    tokenizer_close(t);
    return 0;
}

int gguf_put_tokenizer(struct gguf_head *h, const char *model, const struct llama_config *c,
                       bool *none, struct err *e)
{
    struct source s = { .h = h, .folder = model, .bos = -1, .eos = -1, .unk = -1, .pad = -1, .e = e };
    char *spm = path_join(model, "tokenizer.model"), *json = path_join(model, "tokenizer.json");
    bool has_spm = path_is_file(spm), has = has_spm || path_is_file(json);
    int rc = 0;

    *none = false;
    if (gguf_is(model)) {
        rc = copy_keys(h, model, c->vocab, e);
    } else if (!has) {
        *none = true;
        gguf_put_string(h, KEY("model"), "none", 4);
    } else if ((rc = vocabulary_open(&s.v, c->vocab, e)) == 0 &&
               (rc = read_marks(&s, has_spm ? spm : json, c)) == 0) {
        s.add_bos = has_spm; /* as llama.cpp has it where nothing is said */
        rc = has_spm ? put_spm(&s, spm) : put_json(&s, json);
        rc = rc < 0 ? rc : read_config(&s);
    }
    vocabulary_free(&s.v);
    free(spm);
    free(json);
    return rc;
}
