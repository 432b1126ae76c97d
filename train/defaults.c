/* train/defaults.c - see defaults.h. */
#include "train/defaults.h"

#include "base/file.h"
#include "formats/tokens/dataset.h"
#include "model/remembered.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int take_model(struct settings *s, struct err *e)
{
    static char *folder; /* as long as the process */
    struct dataset *d = NULL;
    int rc = (s->form ? dataset_open_raw : dataset_open)(&d, s->data, s->split, 0, e);

    free(folder);
    folder = NULL;
    if (rc == 0 && (rc = remembered_model(&folder, dataset_info(d), s->data, e)) == 0)
        s->model = folder;
    dataset_close(d);
    return rc;
}

/* Nobody named this folder: it must be new, empty or of a run of ours. */
static int check_folder(const char *out, struct err *e)
{
    char *record = path_join(out, "options.json");
    bool empty = true, ours = record && path_exists(record);
    DIR *d = opendir(out);
    struct dirent *f;

    free(record);
    while (d && empty && (f = readdir(d)))
        empty = strcmp(f->d_name, ".") == 0 || strcmp(f->d_name, "..") == 0;
    if (d)
        closedir(d);
    if (ours || (d ? empty : !path_exists(out)))
        return 0;
    err_set(e, E_CREATE, "'%s', where the results would go, is there and is not ltrain's", out);
    return err_hint(e, "name a folder: -o FOLDER");
}

/* "model '/m', for which 'shards' was made; results in 'adapter'; --model and -o choose others". */
static void say(const struct settings *s, bool model, bool out, char *said, size_t cap)
{
    size_t n = 0;

    if (model)
        n = (size_t)snprintf(said, cap, "model '%s', for which '%.300s' was made", s->model, s->data);
    if (out && n < cap)
        n += (size_t)snprintf(said + n, cap - n, "%sresults in '%s'", model ? "; " : "", s->out);
    if (n < cap)
        snprintf(said + n, cap - n, "; %s choose%s", model && out ? "--model and -o" : model
                 ? "--model" : "-o", model && out ? " others" : "s another");
}

int defaults_take(struct settings *s, char *said, size_t cap, struct err *e)
{
    bool model = s->data && !s->model && !s->init && s->shape < 0 && !s->bench;
    bool out = s->data && !s->out && !s->bench && !s->plan;
    int rc = model ? take_model(s, e) : 0;

    *said = '\0';
    if (rc == 0 && out) {
        s->out = s->mode == 0 || (s->mode < 0 && s->init) ? "model" : "adapter";
        rc = check_folder(s->out, e);
    }
    if (rc == 0 && (model || out))
        say(s, model, out, said, cap);
    return rc;
}
