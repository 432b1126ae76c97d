/* formats/weights/checkpoint_json.c - the manifest of a checkpoint, written and read: see
 * checkpoint.h. */
#include "formats/weights/checkpoint.h"
#include "base/hash.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT "longlora-checkpoint"
#define VERSION 1
#define SELF "  \"manifest_xxh3_128\": \"" /* the last field; its hash covers all before it */

/* Written by hand and not by the JSON library, as the hash at the end covers the bytes before
 * it exactly as they stand. The device's name is the one string that may need escapes. */
int checkpoint_format(const struct checkpoint *c, struct buf *out, struct err *e)
{
    char hex[33], *device = NULL;
    json_t *s = json_string(c->device);
    int rc = 0;

    if (!s || !(device = json_dumps(s, JSON_ENCODE_ANY)))
        rc = err_set(e, E_BUG, "the device's name is not UTF-8");
    if (rc == 0)
        rc = buf_printf(out, e,
                        "{\n  \"format\": \"" FORMAT "\",\n  \"version\": %d,\n"
                        "  \"step\": %" PRId64 ",\n  \"tokens\": %" PRId64 ",\n"
                        "  \"updates\": %" PRId64 ",\n  \"skipped\": %" PRId64 ",\n"
                        "  \"streak\": %" PRId64 ",\n  \"data_xxh3\": \"%016" PRIx64 "\",\n"
                        "  \"device\": %s,\n  \"run\": %s,\n  \"files\": [",
                        VERSION, c->step, c->tokens, c->updates, c->skipped, c->streak,
                        c->data_hash, device, c->run ? c->run : "{}");
    for (int i = 0; rc == 0 && i < c->n_files; i++)
        rc = buf_printf(out, e,
                        "%s\n    {\"name\": \"%s\", \"bytes\": %" PRId64
                        ", \"xxh3_128\": \"%s\"}",
                        i ? "," : "", c->file[i].name, c->file[i].nbytes, c->file[i].xxh3);
    if (rc == 0)
        rc = buf_printf(out, e, "\n  ],\n");
    if (rc == 0) {
        hash_hex(XXH3_128bits(out->p, out->len), hex);
        rc = buf_printf(out, e, SELF "%s\"\n}\n", hex);
    }
    free(device);
    json_decref(s);
    return rc;
}

/* Exactly n lower-case hex digits; NULL is none. */
static bool is_hex(const char *s, size_t n)
{
    if (!s || strlen(s) != n)
        return false;
    return strspn(s, "0123456789abcdef") == n;
}

/* Letters, digits, '.', '-' and '_', and no dot in front. */
static bool is_plain(const char *name)
{
    static const char ok[] = "abcdefghijklmnopqrstuvwxyz"
                             "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";

    return name && *name && *name != '.' && strspn(name, ok) == strlen(name);
}

/* A whole number of at least 0. A field that is missing is none. */
static int get_count(const json_t *o, const char *key, int64_t *v, const char *name,
                     struct err *e)
{
    const json_t *j = json_object_get(o, key);

    if (!json_is_integer(j) || json_integer_value(j) < 0)
        return err_set(e, E_DATA, "'%s': '%s' is not a count", name, key);
    *v = json_integer_value(j);
    return 0;
}

/* The list of files: each with a plain name, given once, a size and a hash. */
static int parse_files(struct checkpoint *c, const json_t *files, const char *name,
                       struct err *e)
{
    size_t n = json_array_size(files);

    if (!json_is_array(files) || n == 0 || n > CHECKPOINT_MAX_FILES)
        return err_set(e, E_DATA, "'%s': 'files' is not a list of 1 to %d files", name,
                       CHECKPOINT_MAX_FILES);
    for (size_t i = 0; i < n; i++) {
        const json_t *o = json_array_get(files, i);
        const char *f = json_string_value(json_object_get(o, "name"));
        const char *hex = json_string_value(json_object_get(o, "xxh3_128"));
        struct checkpoint_file *to = &c->file[i];

        if (!is_plain(f) || strlen(f) >= sizeof to->name)
            return err_set(e, E_DATA, "'%s': file %zu has no plain name", name, i);
        for (size_t k = 0; k < i; k++)
            if (strcmp(c->file[k].name, f) == 0)
                return err_set(e, E_DATA, "'%s': file '%s' is named twice", name, f);
        if (!is_hex(hex, 32))
            return err_set(e, E_DATA, "'%s': '%s' has no hash of 32 hex digits", name, f);
        if (get_count(o, "bytes", &to->nbytes, name, e) < 0)
            return e ? e->code : E_DATA;
        memcpy(to->name, f, strlen(f) + 1);
        memcpy(to->xxh3, hex, 33);
    }
    c->n_files = (int)n;
    return 0;
}

/* The fields of the manifest. On failure the caller frees what c already has. */
static int parse_object(struct checkpoint *c, const json_t *o, const char *name, struct err *e)
{
    const char *format = json_string_value(json_object_get(o, "format"));
    const char *hash = json_string_value(json_object_get(o, "data_xxh3"));
    const char *device = json_string_value(json_object_get(o, "device"));
    const json_t *run = json_object_get(o, "run");
    int64_t version = 0;

    if (!format || strcmp(format, FORMAT) != 0)
        return err_set(e, E_DATA, "'%s' is not a checkpoint's manifest", name);
    if (get_count(o, "version", &version, name, e) < 0)
        return E_DATA;
    if (version != VERSION)
        return err_set(e, E_DATA, "'%s': checkpoint version %" PRId64 ", this reads %d", name,
                       version, VERSION);
    if (get_count(o, "step", &c->step, name, e) < 0 ||
        get_count(o, "tokens", &c->tokens, name, e) < 0 ||
        get_count(o, "updates", &c->updates, name, e) < 0 ||
        get_count(o, "skipped", &c->skipped, name, e) < 0 ||
        get_count(o, "streak", &c->streak, name, e) < 0)
        return E_DATA;
    /* Each step either updates the weights or is skipped; a streak is made of skipped steps. */
    if (c->updates > c->step || c->skipped > c->step || c->streak > c->skipped)
        return err_set(e, E_DATA, "'%s': more updates or skipped steps than steps", name);
    if (!is_hex(hash, 16))
        return err_set(e, E_DATA, "'%s': 'data_xxh3' is not 16 hex digits", name);
    c->data_hash = strtoull(hash, NULL, 16);
    if (!device || strlen(device) >= sizeof c->device)
        return err_set(e, E_DATA, "'%s': 'device' is missing or too long", name);
    memcpy(c->device, device, strlen(device) + 1);
    /* 17 digits give every double back as it was: the settings are compared with a new
     * run's. */
    if (!json_is_object(run) || !(c->run = json_dumps(run, JSON_REAL_PRECISION(17))))
        return err_set(e, E_DATA, "'%s': 'run' is not an object", name);
    return parse_files(c, json_object_get(o, "files"), name, e);
}

/* The hash in the last field is of every byte before that field. */
static int check_self(const char *json, size_t nbytes, const char *name, struct err *e)
{
    const size_t tail = sizeof SELF - 1 + 32 + 4; /* field, hash, quote \n } \n */
    char hex[33];

    if (nbytes < tail || memcmp(json + nbytes - tail, SELF, sizeof SELF - 1) != 0 ||
        memcmp(json + nbytes - 4, "\"\n}\n", 4) != 0)
        return err_set(e, E_DATA, "'%s' was cut short or is not a checkpoint's manifest", name);
    hash_hex(XXH3_128bits(json, nbytes - tail), hex);
    if (memcmp(json + nbytes - 36, hex, 32) != 0)
        return err_set(e, E_DATA, "'%s' was changed: its own hash does not match", name);
    return 0;
}

int checkpoint_parse(struct checkpoint *c, const char *json, size_t nbytes, const char *name,
                     struct err *e)
{
    json_error_t why;
    json_t *o;
    int rc;

    memset(c, 0, sizeof *c);
    if (nbytes > CHECKPOINT_MAX_MANIFEST)
        return err_set(e, E_DATA, "'%s' has %zu bytes, a manifest at most %d", name, nbytes,
                       CHECKPOINT_MAX_MANIFEST);
    /* First of all: damage is found before anything in the text is believed. */
    if ((rc = check_self(json, nbytes, name, e)) < 0)
        return rc;
    if (!(o = json_loadb(json, nbytes, JSON_REJECT_DUPLICATES, &why)))
        return err_set(e, E_DATA, "'%s' line %d: %s", name, why.line, why.text);
    if ((rc = parse_object(c, o, name, e)) < 0)
        checkpoint_free(c);
    json_decref(o);
    return rc;
}
