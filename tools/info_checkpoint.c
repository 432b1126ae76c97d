/* tools/info_checkpoint.c - checkpoints of a training, described and verified; see info.h. */
#include "tools/info.h"

#include "base/file.h"
#include "formats/weights/checkpoint.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

static void set(json_t *o, const char *key, json_t *v) { json_object_set_new(o, key, v); }

/* Its manifest, which holds a hash of itself; with verify also every file that it names. */
static int read_one(const char *folder, bool verify, struct checkpoint *c, struct err *e)
{
    char *path, *text;
    size_t n;
    int rc;

    if (verify)
        return checkpoint_verify(folder, c, e);
    path = path_join(folder, CHECKPOINT_MANIFEST);
    if ((rc = file_read(path, CHECKPOINT_MAX_MANIFEST, &text, &n, e)) == 0) {
        rc = checkpoint_parse(c, text, n, path, e);
        free(text);
    }
    free(path);
    return rc;
}

static int64_t bytes_of(const struct checkpoint *c)
{
    int64_t sum = 0;

    for (int i = 0; i < c->n_files; i++)
        sum += c->file[i].nbytes;
    return sum;
}

int info_checkpoint(const char *path, const struct info_options *o, json_t *out, struct err *e)
{
    struct checkpoint c = { 0 };
    int rc = read_one(path, o->verify, &c, e);

    if (rc < 0)
        return rc;
    set(out, "form", json_string("checkpoint"));
    set(out, "step", json_integer(c.step));
    set(out, "tokens", json_integer(c.tokens));
    set(out, "updates", json_integer(c.updates));
    set(out, "skipped", json_integer(c.skipped));
    set(out, "device", json_string(c.device));
    set(out, "run", json_loads(c.run, 0, NULL));
    set(out, "files", json_integer(c.n_files));
    set(out, "bytes", json_integer(bytes_of(&c)));
    if (o->verify)
        set(out, "verified", json_integer(bytes_of(&c)));
    checkpoint_free(&c);
    return 0;
}

int info_checkpoints(const char *folder, const struct info_options *o, json_t *out, struct err *e)
{
    char *root = path_join(folder, "checkpoints");
    DIR *d = opendir(root);
    const struct dirent *f;
    int64_t n = 0;
    int rc = 0;

    while (rc == 0 && d && (f = readdir(d))) {
        char *path = path_join(root, f->d_name), *manifest = path_join(path, CHECKPOINT_MANIFEST);
        struct checkpoint c = { 0 };

        /* What is half written or half removed has no manifest, and what failed is called so. */
        if (checkpoint_step(f->d_name) >= 0 && path_exists(manifest)) {
            rc = o->verify ? read_one(path, true, &c, e) : 0;
            checkpoint_free(&c);
            n++;
        }
        free(manifest);
        free(path);
    }
    if (d)
        closedir(d);
    if (rc == 0 && n)
        set(out, "checkpoints", json_integer(n));
    free(root);
    return rc;
}
