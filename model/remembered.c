/* model/remembered.c - see remembered.h. */
#include "model/remembered.h"

#include "base/file.h"
#include "base/gguf.h"
#include "base/json.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { RECORD_BYTES = 1 << 20 }; /* no options.json is longer */

static bool is_model(const char *folder)
{
    char *config = path_join(folder, "config.json");
    bool yes = (config && path_is_file(config)) || gguf_is(folder);

    free(config);
    return yes;
}

int remembered_there(const char *path, const char *by, struct err *e)
{
    if (is_model(path))
        return 0;
    err_set(e, E_NOINPUT, "'%.300s' was made for the model in '%s', where none is now", by, path);
    return err_hint(e, "give --model FOLDER: where it has moved to");
}

int remembered_model(char **folder, const struct token_info *info, const char *data, struct err *e)
{
    const char *path = info->tokenizer, *end = strrchr(path, '/');
    int rc;

    *folder = NULL;
    if (*path == '/' && gguf_is(path)) /* the model and its tokenizer are one file */
        return (*folder = strdup(path)) ? 0 : err_set(e, E_SYS, "out of memory");
    if (*path == '/' && end > path && !(*folder = strndup(path, (size_t)(end - path))))
        return err_set(e, E_SYS, "out of memory");
    if (*folder && is_model(*folder))
        return 0;
    if (!*folder || path_exists(path)) { /* a tokenizer alone, or none */
        err_set(e, E_USAGE, "no --model given, and '%.300s' does not say for which it was made",
                data);
        rc = err_hint(e, "give --model FOLDER; data that 'lprep -t FOLDER' makes remembers it");
    } else {
        err_set(e, E_NOINPUT, "'%.300s' was made with '%s', and no model is there now", data, path);
        rc = err_hint(e, "give --model FOLDER: where it has moved to");
    }
    free(*folder);
    *folder = NULL;
    return rc;
}

/* A path of the record, from the folder that the command was given in. */
static int take(char **out, const struct js *options, const char *key, const char *from,
                struct err *e)
{
    const char *path = NULL;

    if (js_str(options, key, JS_MAY, &path, NULL) < 0 || !path || !*path)
        return 0;
    *out = *path == '/' || !from ? strdup(path) : path_join(from, path);
    return *out ? 0 : err_set(e, E_SYS, "out of memory");
}

int remembered_run(struct remembered *r, const char *folder, struct err *e)
{
    char *path = path_join(folder, "options.json");
    struct js record, options = { .obj = NULL };
    struct err why = { 0 };
    const char *from = NULL;
    int rc;

    *r = (struct remembered){ 0 };
    if (!path)
        return err_set(e, E_SYS, "out of memory");
    rc = js_load(&record, path, RECORD_BYTES, &why);
    if (rc == E_SYS) {
        *e = why;
    } else if (rc < 0) {
        rc = 0;
    } else {
        if (js_str(&record, "folder", JS_MAY, &from, NULL) == 0 &&
            js_object(&record, "options", JS_MAY, &options, NULL) == 0 && options.obj &&
            (rc = take(&r->model, &options, "model", from, e)) == 0 &&
            (rc = take(&r->data, &options, "data", from, e)) == 0)
            rc = take(&r->val, &options, "val", from, e);
        js_free(&record);
    }
    free(path);
    return rc;
}

void remembered_free(struct remembered *r)
{
    free(r->model);
    free(r->data);
    free(r->val);
    *r = (struct remembered){ 0 };
}

bool remembered_same(const char *a, const char *b)
{
    struct stat x, y;

    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}
