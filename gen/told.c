/* gen/told.c - see told.h. */
#include "gen/told.h"

int told_number(struct group *g, int rc, int64_t *n, struct err *e)
{
    rc = group_meet(g, rc, NULL, e);
    return rc < 0 ? rc : g->broadcast(g, 0, n, sizeof *n, e);
}

int told_bytes(struct group *g, int rc, struct buf *b, size_t at, struct err *e)
{
    int64_t n = rc < 0 ? 0 : (int64_t)(b->len - at);

    if ((rc = told_number(g, rc, &n, e)) < 0 || n == 0)
        return rc;
    if (g->rank != 0) {
        b->len = at;
        if ((rc = buf_reserve(b, (size_t)n, e)) == 0)
            b->len = at + (size_t)n;
    }
    rc = group_meet(g, rc, NULL, e);
    return rc < 0 ? rc : g->broadcast(g, 0, b->p + at, (size_t)n, e);
}
