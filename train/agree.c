/* train/agree.c - that all ranks were asked for the same run; see run.h. */
#include "base/bytes.h"
#include "ranks/same.h"
#include "train/run.h"

#include <inttypes.h>
#include <stdlib.h>

/* What decides the numbers, one line each: as a checkpoint keeps it. */
static int add_record(const json_t *run, struct buf *b, struct err *e)
{
    const char *key;
    json_t *v;
    int rc = 0;

    json_object_foreach((json_t *)(uintptr_t)run, key, v) {
        char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17) | JSON_SORT_KEYS);

        if (rc == 0)
            rc = text ? buf_printf(b, e, "%s %s\n", key, text)
                      : err_set(e, E_SYS, "out of memory");
        free(text);
    }
    return rc;
}

/* Beside it what decides which calls of the group are made, and when. */
int run_agree(const struct run *r, struct err *e)
{
    const struct settings *s = r->s;
    struct buf b = { 0 };
    int rc;

    if (r->group->size == 1)
        return 0;
    rc = buf_printf(&b, e, "version %s\ndata %016" PRIx64 "\nval %016" PRIx64 "\n"
                    "steps %" PRId64 "\nsave_every %" PRId64 "\nval_every %" PRId64 "\n"
                    "val_rows %" PRId64 "\nforce %d\ncp %" PRId64 "\nshares %" PRId64 "\n",
                    LONGLORA_VERSION,
                    r->data ? dataset_hash(r->data) : 0, r->val ? dataset_hash(r->val) : 0,
                    s->steps, s->save_every, s->val_every, s->val_rows, s->force, s->cp, s->shares);
    if (rc == 0 && (rc = add_record(r->run, &b, e)) == 0)
        rc = buf_add(&b, "", 1, e);
    if ((rc = group_meet(r->group, rc, NULL, e)) == 0)
        rc = ranks_same(r->group, b.p, e);
    buf_free(&b);
    return rc;
}
