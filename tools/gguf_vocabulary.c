/* tools/gguf_vocabulary.c - see gguf_vocabulary.h. */
#include "tools/gguf_vocabulary.h"

#include "base/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Scores of llama.cpp's converter for what a SentencePiece model does not have. */
#define ADDED_SCORE (-1000.0F)
#define UNUSED_SCORE (-10000.0F)

int vocabulary_open(struct vocabulary *v, int64_t n, struct err *e)
{
    v->n = n;
    v->v = calloc((size_t)n + 1, sizeof *v->v);
    return v->v ? 0 : err_set(e, E_SYS, "out of memory for %lld tokens", (long long)n);
}

void vocabulary_free(struct vocabulary *v)
{
    for (int64_t i = 0; v->v && i < v->n; i++)
        free(v->v[i].text);
    free(v->v);
    *v = (struct vocabulary){ 0 };
}

int vocabulary_set(struct vocabulary *v, int64_t id, const char *text, size_t n, float score, int type,
                   struct err *e)
{
    struct vocabulary_token *t;

    if (id < 0 || id >= v->n)
        return 0;
    t = &v->v[id];
    free(t->text);
    if (!(t->text = malloc(n + 1)))
        return err_set(e, E_SYS, "out of memory for a token");
    memcpy(t->text, text, n);
    t->text[n] = '\0';
    t->n = n;
    t->score = score;
    t->type = type;
    return 0;
}

static bool begins_and_ends(const char *s, const char *begin, const char *end)
{
    size_t n = strlen(s), a = strlen(begin), b = strlen(end);

    return n >= a + b && memcmp(s, begin, a) == 0 && memcmp(s + n - b, end, b) == 0;
}

/* Some models do not mark these as special. */
static bool looks_special(const char *s)
{
    return strcmp(s, "<pad>") == 0 || strcmp(s, "<mask>") == 0 || strcmp(s, "<2mass>") == 0 ||
           strcmp(s, "[@BOS@]") == 0 || begins_and_ends(s, "<|", "|>") ||
           begins_and_ends(s, "<\xEF\xBD\x9C", "\xEF\xBD\x9C>") || begins_and_ends(s, "<unused", ">");
}

int vocabulary_add(struct vocabulary *v, int64_t id, const char *text, bool special, struct err *e)
{
    static const char mark[] = "\xE2\x96\x81"; /* of a space: such tokens have spaces here */
    int type = special || looks_special(text) ? PIECE_CONTROL : PIECE_USER;
    char *plain = malloc(strlen(text) + 1), *to = plain;
    int rc;

    if (!plain)
        return err_set(e, E_SYS, "out of memory for a token");
    for (const char *p = text; *p; p++)
        if (type == PIECE_USER && strncmp(p, mark, 3) == 0) {
            *to++ = ' ';
            p += 2;
        } else {
            *to++ = *p;
        }
    rc = vocabulary_set(v, id, plain, (size_t)(to - plain), ADDED_SCORE, type, e);
    free(plain);
    return rc;
}

int vocabulary_json(struct js *o, char **path, const char *folder, const char *name, struct err *e)
{
    *o = (struct js){ 0 };
    *path = path_join(folder, name);
    return path_is_file(*path) ? js_load(o, *path, JS_MAX_BYTES, e) : 0;
}

/* {"<pad>": 32000} */
static int read_added(struct vocabulary *v, const struct js *o, struct err *e)
{
    const char *text;
    json_t *id;

    json_object_foreach(o->obj, text, id) {
        int rc = json_is_integer(id) ? 0 : err_set(e, E_DATA, "'%s': '%.60s' has no id", o->file, text);

        if (rc == 0)
            rc = vocabulary_set(v, json_integer_value(id), text, strlen(text), ADDED_SCORE, PIECE_USER, e);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* {"32000": {"content": "<pad>", "special": true}} */
static int read_decoder(struct vocabulary *v, const struct js *o, struct err *e)
{
    struct js all;
    const char *key;
    json_t *t;
    int rc = js_object(o, "added_tokens_decoder", JS_MAY, &all, e);

    if (rc < 0 || !all.obj)
        return rc;
    json_object_foreach(all.obj, key, t) {
        const char *text = json_string_value(json_object_get(t, "content"));
        char *end;
        long id = strtol(key, &end, 10);

        if (!text || *end || end == key)
            return err_set(e, E_DATA, "'%s': field '%s%.20s' is no token with an id", o->file, all.path,
                           key);
        if ((rc = vocabulary_add(v, id, text, json_is_true(json_object_get(t, "special")), e)) < 0)
            return rc;
    }
    return 0;
}

int vocabulary_added(struct vocabulary *v, const char *folder, struct err *e)
{
    struct js o;
    char *path;
    int rc = vocabulary_json(&o, &path, folder, "added_tokens.json", e);

    if (rc == 0 && o.obj)
        rc = read_added(v, &o, e);
    js_free(&o);
    free(path);
    if (rc < 0)
        return rc;
    rc = vocabulary_json(&o, &path, folder, "tokenizer_config.json", e);
    if (rc == 0 && o.obj)
        rc = read_decoder(v, &o, e);
    js_free(&o);
    free(path);
    return rc;
}

int vocabulary_fill(struct vocabulary *v, struct err *e)
{
    int rc = 0;

    for (int64_t i = 0; i < v->n && rc == 0; i++) {
        char name[32];
        int n = snprintf(name, sizeof name, "[PAD%lld]", (long long)i);

        if (!v->v[i].text)
            rc = vocabulary_set(v, i, name, (size_t)n, UNUSED_SCORE, PIECE_UNUSED, e);
    }
    return rc;
}
