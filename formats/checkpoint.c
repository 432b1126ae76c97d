/* formats/checkpoint.c - see checkpoint.h. */
#include "formats/checkpoint.h"

#include "base/file.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define FORMAT "longlora-checkpoint"
#define VERSION 1
#define SELF "  \"manifest_xxh3_128\": \"" /* the last field; its hash covers all before it */

void checkpoint_free(struct checkpoint *c)
{
    free(c->run);
    memset(c, 0, sizeof *c);
}

static void hex_of(XXH128_hash_t h, char hex[33])
{
    snprintf(hex, 33, "%016" PRIx64 "%016" PRIx64, (uint64_t)h.high64, (uint64_t)h.low64);
}

static void hash_hex(const void *p, size_t nbytes, char hex[33])
{
    hex_of(XXH3_128bits(p, nbytes), hex);
}

/* ---- the manifest ---- */

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
        hash_hex(out->p, out->len, hex);
        rc = buf_printf(out, e, SELF "%s\"\n}\n", hex);
    }
    free(device);
    json_decref(s);
    return rc;
}

static bool is_hex(const char *s, size_t n)
{
    if (!s || strlen(s) != n)
        return false;
    return strspn(s, "0123456789abcdef") == n;
}

/* Letters, digits, '.', '-' and '_', and no dot in front. */
static bool is_plain(const char *name)
{
    static const char ok[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";

    return name && *name && *name != '.' && strspn(name, ok) == strlen(name);
}

static int get_count(const json_t *o, const char *key, int64_t *v, const char *name,
                     struct err *e)
{
    const json_t *j = json_object_get(o, key);

    if (!json_is_integer(j) || json_integer_value(j) < 0)
        return err_set(e, E_DATA, "'%s': '%s' is not a count", name, key);
    *v = json_integer_value(j);
    return 0;
}

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
    if (c->updates > c->step || c->skipped > c->step || c->streak > c->skipped)
        return err_set(e, E_DATA, "'%s': more updates or skipped steps than steps", name);
    if (!is_hex(hash, 16))
        return err_set(e, E_DATA, "'%s': 'data_xxh3' is not 16 hex digits", name);
    c->data_hash = strtoull(hash, NULL, 16);
    if (!device || strlen(device) >= sizeof c->device)
        return err_set(e, E_DATA, "'%s': 'device' is missing or too long", name);
    memcpy(c->device, device, strlen(device) + 1);
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
    hash_hex(json, nbytes - tail, hex);
    if (memcmp(json + nbytes - 36, hex, 32) != 0)
        return err_set(e, E_DATA, "'%s' was changed: its own hash does not agree", name);
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
    if ((rc = check_self(json, nbytes, name, e)) < 0)
        return rc;
    if (!(o = json_loadb(json, nbytes, JSON_REJECT_DUPLICATES, &why)))
        return err_set(e, E_DATA, "'%s' line %d: %s", name, why.line, why.text);
    if ((rc = parse_object(c, o, name, e)) < 0)
        checkpoint_free(c);
    json_decref(o);
    return rc;
}

/* ---- folders ---- */

static char *step_path(const char *root, int64_t step, const char *suffix)
{
    char name[64];

    snprintf(name, sizeof name, "step-%08" PRId64 "%s", step, suffix);
    return path_join(root, name);
}

/* The step in "step-00000100", or -1 for any other name. */
static int64_t step_of(const char *name)
{
    int64_t step;
    char back[64];

    if (strncmp(name, "step-", 5) != 0 || !isdigit((unsigned char)name[5]) ||
        strlen(name) > 5 + 18 || strspn(name + 5, "0123456789") != strlen(name + 5))
        return -1;
    step = strtoll(name + 5, NULL, 10);
    snprintf(back, sizeof back, "step-%08" PRId64, step);
    return strcmp(back, name) == 0 ? step : -1;
}

static int newest_first(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? 1 : x > y ? -1 : 0;
}

/* The steps that have a folder in root, newest first, malloc'ed; *n is 0 without a root. */
static int list_steps(const char *root, int64_t **steps, int64_t *n, struct err *e)
{
    DIR *d = opendir(root);
    int64_t cap = 0, *grown;
    struct dirent *f;

    *steps = NULL, *n = 0;
    if (!d)
        return errno == ENOENT ? 0 : err_sys(e, E_IO, "cannot list '%s'", root);
    while ((f = readdir(d))) {
        int64_t step = step_of(f->d_name);
        if (step < 0)
            continue;
        if (*n == cap) {
            cap = cap ? 2 * cap : 16;
            if (!(grown = realloc(*steps, (size_t)cap * sizeof *grown))) {
                closedir(d);
                free(*steps);
                *steps = NULL;
                return err_set(e, E_SYS, "out of memory");
            }
            *steps = grown;
        }
        (*steps)[(*n)++] = step;
    }
    closedir(d);
    if (*n)
        qsort(*steps, (size_t)*n, sizeof **steps, newest_first);
    return 0;
}

static bool has_manifest(const char *folder)
{
    char *m = path_join(folder, CHECKPOINT_MANIFEST);
    bool yes = path_exists(m);

    free(m);
    return yes;
}

/* Manifest first: from then on nobody takes what is left for a checkpoint. */
static int remove_folder(const char *folder, struct err *e)
{
    char *m = path_join(folder, CHECKPOINT_MANIFEST);
    int rc = 0;

    if (unlink(m) == 0)
        rc = file_sync(folder, e);
    else if (errno != ENOENT && errno != ENOTDIR)
        rc = err_sys(e, E_IO, "cannot remove '%s'", m);
    free(m);
    return rc < 0 ? rc : dir_remove(folder, e);
}

int checkpoint_begin(const char *root, int64_t step, char **folder, struct err *e)
{
    int rc = dir_make(root, e);

    *folder = step_path(root, step, ".tmp");
    if (rc == 0)
        rc = dir_remove(*folder, e);
    if (rc == 0)
        rc = dir_make(*folder, e);
    if (rc < 0) {
        free(*folder);
        *folder = NULL;
    }
    return rc;
}

/* Read, not mapped: the pages of a large state would count as the process's memory. */
static int hash_fd(int fd, const char *path, XXH3_state_t *h, struct checkpoint_file *f,
                   struct err *e)
{
    static const size_t step = 1 << 20;
    char *buf = malloc(step);
    XXH128_hash_t sum;
    ssize_t k;

    if (!buf)
        return err_set(e, E_SYS, "out of memory");
    f->nbytes = 0;
    XXH3_128bits_reset(h);
    while ((k = read(fd, buf, step)) != 0) {
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0) {
            free(buf);
            return err_sys(e, E_IO, "cannot read '%s'", path);
        }
        XXH3_128bits_update(h, buf, (size_t)k);
        f->nbytes += k;
    }
    free(buf);
    sum = XXH3_128bits_digest(h);
    hex_of(sum, f->xxh3);
    return 0;
}

static int hash_file(const char *folder, const char *name, struct checkpoint_file *f,
                     struct err *e)
{
    char *path = path_join(folder, name);
    XXH3_state_t *h = XXH3_createState();
    int rc, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        rc = err_sys(e, E_NOINPUT, "cannot open '%s'", path);
    else
        rc = h ? hash_fd(fd, path, h, f, e) : err_set(e, E_SYS, "out of memory");
    if (fd >= 0)
        close(fd);
    XXH3_freeState(h);
    free(path);
    return rc;
}

static int hash_all(const char *folder, struct checkpoint *c, struct err *e)
{
    DIR *d = opendir(folder);
    struct dirent *f;
    int rc = 0;

    if (!d)
        return err_sys(e, E_IO, "cannot list '%s'", folder);
    c->n_files = 0;
    while (rc == 0 && (f = readdir(d))) {
        struct checkpoint_file *to = &c->file[c->n_files];
        if (f->d_name[0] == '.')
            continue;
        if (c->n_files == CHECKPOINT_MAX_FILES || strlen(f->d_name) >= sizeof to->name) {
            rc = err_set(e, E_BUG, "'%s' holds more than a checkpoint may", folder);
            break;
        }
        memcpy(to->name, f->d_name, strlen(f->d_name) + 1);
        rc = hash_file(folder, to->name, to, e);
        c->n_files++;
    }
    closedir(d);
    return rc;
}

int checkpoint_commit(const char *root, struct checkpoint *c, struct err *e)
{
    char *tmp = step_path(root, c->step, ".tmp"), *final = step_path(root, c->step, "");
    char *manifest = path_join(tmp, CHECKPOINT_MANIFEST);
    struct buf text = { 0 };
    int rc = hash_all(tmp, c, e);

    if (rc == 0)
        rc = checkpoint_format(c, &text, e);
    if (rc == 0)
        rc = file_replace(manifest, text.p, text.len, e);
    if (rc == 0)
        rc = file_sync(tmp, e);
    if (rc == 0)
        rc = remove_folder(final, e); /* one of the same step, if any, says the same */
    if (rc == 0)
        rc = file_publish(tmp, final, e);
    if (rc < 0)
        dir_remove(tmp, NULL);
    buf_free(&text);
    free(manifest);
    free(final);
    free(tmp);
    return rc;
}

void checkpoint_abandon(const char *root, int64_t step)
{
    char *tmp = step_path(root, step, ".tmp");

    dir_remove(tmp, NULL);
    free(tmp);
}

int checkpoint_prune(const char *root, int64_t step, int64_t keep, struct err *e)
{
    int64_t *steps, n, kept = 0;
    int rc = list_steps(root, &steps, &n, e);

    for (int64_t i = 0; rc == 0 && i < n; i++) {
        char *folder = step_path(root, steps[i], "");
        if (steps[i] <= step && has_manifest(folder) && ++kept > (keep < 1 ? 1 : keep))
            rc = remove_folder(folder, e);
        free(folder);
    }
    free(steps);
    return rc;
}

int checkpoint_sweep(const char *root, struct err *e)
{
    DIR *d = opendir(root);
    struct dirent *f;
    int rc = 0;

    if (!d)
        return errno == ENOENT ? 0 : err_sys(e, E_IO, "cannot list '%s'", root);
    while (rc == 0 && (f = readdir(d))) {
        char *path = path_join(root, f->d_name), name[64];
        size_t n = strlen(f->d_name);
        bool tmp = false;

        if (n > 4 && n < sizeof name && strcmp(f->d_name + n - 4, ".tmp") == 0) {
            snprintf(name, sizeof name, "%.*s", (int)(n - 4), f->d_name);
            tmp = step_of(name) >= 0;
        }
        if (tmp || (step_of(f->d_name) >= 0 && !has_manifest(path)))
            rc = dir_remove(path, e);
        free(path);
    }
    closedir(d);
    return rc;
}

int checkpoint_verify(const char *folder, struct checkpoint *c, struct err *e)
{
    char *path = path_join(folder, CHECKPOINT_MANIFEST), *text = NULL;
    size_t nbytes;
    int rc = file_read(path, CHECKPOINT_MAX_MANIFEST, &text, &nbytes, e);

    memset(c, 0, sizeof *c);
    if (rc == 0)
        rc = checkpoint_parse(c, text, nbytes, path, e);
    for (int i = 0; rc == 0 && i < c->n_files; i++) {
        struct checkpoint_file found = { 0 }, *want = &c->file[i];
        if ((rc = hash_file(folder, want->name, &found, e)) < 0)
            break;
        if (found.nbytes != want->nbytes)
            rc = err_set(e, E_DATA, "'%s/%s' has %" PRId64 " bytes, its manifest says %" PRId64,
                         folder, want->name, found.nbytes, want->nbytes);
        else if (strcmp(found.xxh3, want->xxh3) != 0)
            rc = err_set(e, E_DATA, "'%s/%s' was changed: XXH3-128 is %s, its manifest says %s",
                         folder, want->name, found.xxh3, want->xxh3);
    }
    if (rc < 0)
        checkpoint_free(c);
    free(text);
    free(path);
    return rc;
}

/* Out of the way, so that it is neither tried again nor counted among those kept. */
static int set_aside(const char *root, int64_t step, struct err *e)
{
    char *from = step_path(root, step, ""), *to = step_path(root, step, ".bad");
    int rc = dir_remove(to, e);

    if (rc == 0)
        rc = file_publish(from, to, e);
    free(from);
    free(to);
    return rc;
}

int checkpoint_find(const char *root, struct checkpoint *c, char **folder,
                    checkpoint_bad_fn *bad, void *ctx, struct err *e)
{
    int64_t *steps, n, tried = 0;
    int rc = list_steps(root, &steps, &n, e);
    struct err why = { 0 };
    int64_t i;

    *folder = NULL;
    memset(c, 0, sizeof *c);
    for (i = 0; rc == 0 && i < n && !*folder; i++) {
        char *path = step_path(root, steps[i], "");
        if (!has_manifest(path)) {
            free(path);
            continue;
        }
        tried++;
        rc = checkpoint_verify(path, c, &why);
        if (rc == 0 && c->step != steps[i]) {
            rc = err_set(&why, E_DATA, "'%s': its manifest says step %" PRId64, path, c->step);
            checkpoint_free(c);
        }
        if (rc == 0) {
            *folder = path;
            break;
        }
        rc = 0;
        if (bad)
            bad(ctx, path, &why);
        free(path);
    }
    if (rc == 0 && tried && !*folder) {
        rc = err_set(e, E_DATA, "none of the %" PRId64 " checkpoints in '%s' is whole: %s", tried,
                     root, why.msg);
        err_hint(e, "start anew with -f, or restore the folder from a copy");
    }
    for (int64_t k = 0; rc == 0 && *folder && k < i; k++)
        rc = set_aside(root, steps[k], e);
    free(steps);
    if (rc < 0 && *folder) {
        checkpoint_free(c);
        free(*folder);
        *folder = NULL;
    }
    return rc < 0 ? rc : *folder != NULL;
}
