/* eval/keys.c - lists of key tokens, and their file; see keys.h. */
#include "eval/keys.h"

#include "base/bytes.h"
#include "base/json.h"
#include "base/opt.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MAX_BYTES ((size_t)1 << 30)

void keys_free(struct keys *k)
{
    for (int64_t i = 0; i < k->n; i++)
        free(k->v[i].at);
    free(k->v);
    *k = (struct keys){ 0 };
}

int keys_add(struct keys *k, int64_t ctx, int64_t doc, const int64_t *at, int64_t n, struct err *e)
{
    size_t cap = (size_t)k->cap, bytes;
    int64_t *copy;
    int rc = array_grow(&k->v, &cap, (size_t)k->n, sizeof *k->v, 64, "documents", e);

    k->cap = (int64_t)cap;
    if (rc < 0)
        return rc;
    if (!mul_ok((size_t)n + 1, sizeof *at, &bytes) || !(copy = malloc(bytes)))
        return err_set(e, E_SYS, "out of memory for %" PRId64 " key tokens", n);
    if (n)
        memcpy(copy, at, (size_t)n * sizeof *at);
    k->v[k->n++] = (struct key_list){ ctx, doc, copy, n };
    return 0;
}

const struct key_list *keys_find(const struct keys *k, int64_t ctx, int64_t doc)
{
    for (int64_t i = 0; i < k->n; i++)
        if (k->v[i].ctx == ctx && k->v[i].doc == doc)
            return &k->v[i];
    return NULL;
}

int keys_write(const struct keys *k, const char *path, struct err *e)
{
    json_t *o = json_object(), *lists = json_array();
    char hash[24];
    int rc;

    snprintf(hash, sizeof hash, "%016" PRIx64, k->data_hash);
    json_object_set_new(o, "leval", json_string(LONGLORA_VERSION));
    json_object_set_new(o, "kind", json_string("key tokens"));
    json_object_set_new(o, "by", json_string(k->by));
    json_object_set_new(o, "data_hash", json_string(hash));
    json_object_set_new(o, "short", json_integer(k->short_ctx));
    json_object_set_new(o, "slide", json_integer(k->slide));
    for (int64_t i = 0; i < k->n; i++) {
        json_t *at = json_array();

        for (int64_t t = 0; t < k->v[i].n; t++)
            json_array_append_new(at, json_integer(k->v[i].at[t]));
        json_array_append_new(lists, json_pack("{s:I, s:I, s:o}", "ctx", (json_int_t)k->v[i].ctx, "document",
                                               (json_int_t)k->v[i].doc, "tokens", at));
    }
    json_object_set_new(o, "lists", lists);
    rc = js_save(o, path, e);
    json_decref(o);
    return rc;
}

/* Ascending, as whoever adds their losses goes through them once. */
static int read_list(struct keys *k, const struct js *o, struct err *e)
{
    int64_t ctx, doc, *at, last = -1;
    json_t *tokens;
    size_t n;
    int rc;

    if ((rc = js_i64(o, "ctx", JS_MUST, 2, (int64_t)1 << 40, &ctx, e)) < 0 ||
        (rc = js_i64(o, "document", JS_MUST, 0, (int64_t)1 << 40, &doc, e)) < 0 ||
        (rc = js_array(o, "tokens", JS_MUST, &tokens, e)) < 0)
        return rc;
    n = json_array_size(tokens);
    if (!(at = malloc((n + 1) * sizeof *at)))
        return err_set(e, E_SYS, "out of memory for %zu key tokens", n);
    for (size_t i = 0; i < n && rc == 0; i++) {
        at[i] = json_integer_value(json_array_get(tokens, i));
        if (at[i] <= last || at[i] >= ctx || at[i] < 1)
            rc = err_set(e, E_DATA, "'%s': field '%stokens' is not ascending within the context", o->file, o->path);
        last = at[i];
    }
    if (rc == 0)
        rc = keys_add(k, ctx, doc, at, (int64_t)n, e);
    free(at);
    return rc;
}

static int read_fields(struct keys *k, const struct js *o, struct err *e)
{
    const char *kind = "", *by = "", *hash = "";
    json_t *lists;
    int rc = js_str(o, "kind", JS_MAY, &kind, e);

    if (rc == 0 && strcmp(kind, "key tokens") != 0)
        return err_set(e, E_DATA, "'%s' has no key tokens of leval --longppl", o->file);
    if (rc < 0 || (rc = js_str(o, "by", JS_MUST, &by, e)) < 0 ||
        (rc = js_str(o, "data_hash", JS_MUST, &hash, e)) < 0 ||
        (rc = js_i64(o, "short", JS_MUST, 1, (int64_t)1 << 40, &k->short_ctx, e)) < 0 ||
        (rc = js_i64(o, "slide", JS_MUST, 1, (int64_t)1 << 40, &k->slide, e)) < 0 ||
        (rc = js_array(o, "lists", JS_MUST, &lists, e)) < 0)
        return rc;
    snprintf(k->by, sizeof k->by, "%s", by);
    k->data_hash = strtoull(hash, NULL, 16);
    for (size_t i = 0; i < json_array_size(lists) && rc == 0; i++) {
        struct js item;

        if ((rc = js_item(o, "lists", lists, i, &item, e)) == 0)
            rc = read_list(k, &item, e);
    }
    return rc;
}

int keys_read(struct keys *k, const char *path, struct err *e)
{
    struct js o;
    int rc = js_load(&o, path, FILE_MAX_BYTES, e);

    if (rc < 0)
        return rc;
    rc = read_fields(k, &o, e);
    js_free(&o);
    return rc;
}
