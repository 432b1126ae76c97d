/* eval/ppl_fill.c - what leval --ppl leaves out and data or adapter remember; see ppl.h. */
#include "eval/ppl.h"

#include "base/file.h"
#include "base/log.h"
#include "base/magic.h"
#include "formats/tokens/dataset.h"
#include "model/remembered.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OWN_ADAPTER "adapter" /* where ltrain writes one unless it is told otherwise */

/* Strings that options point to: as long as the process. */
static struct {
    struct remembered run;
    char *model;
} kept;

static bool is_shard(const char *path)
{
    char head[MAGIC_LOOK_BYTES];
    FILE *f = path_is_file(path) ? fopen(path, "re") : NULL;
    size_t n = f ? fread(head, 1, sizeof head, f) : 0;
    const struct magic_form *form = magic_of(head, n, false);

    if (f)
        fclose(f);
    return form && form->form == MAGIC_SHARD;
}

/* The model of data in our own forms; of any other an error that says how to name one. */
static int model_of_data(const struct ppl_options *p, struct err *e)
{
    static const struct token_info unknown;
    const char *path = p->data.path;
    struct dataset *d = NULL;
    int rc = 0;

    if (path_is_dir(path) || is_shard(path)) {
        struct err none = { 0 };

        rc = dataset_open(&d, path, p->data.split ? p->data.split : "validation", 0, &none);
        if (rc == E_CONFIG && !p->data.split)
            rc = dataset_open(&d, path, NULL, 0, e);
        else if (rc < 0)
            *e = none;
    }
    if (rc == 0)
        rc = remembered_model(&kept.model, d ? dataset_info(d) : &unknown, path, e);
    dataset_close(d);
    return rc;
}

/* The adapter that ltrain has finished here, of this model: what a command without any means. */
static int own_adapter(const char *model, bool *yes, struct err *e)
{
    struct remembered r = { 0 };
    int rc = path_exists(OWN_ADAPTER "/adapter_config.json") ? remembered_run(&r, OWN_ADAPTER, e) : 0;

    *yes = rc == 0 && r.model && remembered_same(r.model, model);
    remembered_free(&r);
    return rc;
}

/* Base and data of an adapter's run: held-out data before that of the training. */
static int fill_from_adapter(struct eval_options *o, struct ppl_options *p, struct err *e)
{
    const char *data;
    int rc = remembered_run(&kept.run, o->adapter, e);

    if (rc < 0)
        return rc;
    data = kept.run.val ? kept.run.val : kept.run.data;
    if (!o->model && kept.run.model) {
        if ((rc = remembered_there(kept.run.model, o->adapter, e)) < 0)
            return rc;
        o->model = kept.run.model;
        log_info("model '%s', from which '%s' was trained; --model chooses another", o->model,
                 o->adapter);
    }
    if (!p->data.path && data) {
        p->data.path = data;
        log_info("data '%s', %s '%s' was trained; --ppl chooses other", data,
                 kept.run.val ? "held out while" : "on which", o->adapter);
    }
    return 0;
}

int ppl_fill(struct eval_options *o, struct ppl_options *p, struct err *e)
{
    int rc = o->adapter && (!o->model || !p->data.path) ? fill_from_adapter(o, p, e) : 0;

    bool own = false;

    if (rc < 0 || o->model || !p->data.path || o->shape >= 0)
        return rc;
    if ((rc = model_of_data(p, e)) < 0 ||
        (!o->adapter && (rc = own_adapter(kept.model, &own, e)) < 0))
        return rc;
    o->model = kept.model;
    if (own)
        o->adapter = OWN_ADAPTER;
    log_info("model '%s', for which '%s' was made%s%s%s; --model chooses another", o->model,
             p->data.path, o->adapter ? ", with adapter '" : "", o->adapter ? o->adapter : "",
             o->adapter ? "'" : "");
    return 0;
}
