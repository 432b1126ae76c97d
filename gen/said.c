/* gen/said.c - see said.h. */
#include "gen/said.h"

#include "base/log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 8192 }; /* ids between two looks at the progress */

static int room(struct said *s, int64_t n, struct err *e)
{
    int64_t cap = s->cap ? s->cap : 256;
    int32_t *ids;

    while (cap < n)
        cap *= 2;
    if (cap == s->cap)
        return 0;
    if (!(ids = realloc(s->ids, (size_t)cap * sizeof *ids)))
        return err_set(e, E_SYS, "out of memory for %" PRId64 " tokens", n);
    s->ids = ids;
    s->cap = cap;
    return 0;
}

static int64_t common(const struct said *s, const int32_t *ids, int64_t n)
{
    int64_t i = 0;

    while (i < n && i < s->n && s->ids[i] == ids[i])
        i++;
    return i;
}

int said_become(struct said *s, struct session *on, const int32_t *ids, int64_t n, float *logits,
                struct err *e)
{
    int64_t same = common(s, ids, n), piece;
    int rc = room(s, n, e);

    if (rc < 0)
        return rc;
    /* the last one is given again where its logits are wanted */
    if (same == n && logits && n > 0)
        same--;
    if (same < s->n) {
        session_rewind(on, same);
        same = on->n; /* 0, of a text that keeps a window */
    }
    s->n = same;
    for (int64_t at = same; at < n && rc == 0; at += piece) {
        piece = n - at < PIECE ? n - at : PIECE;
        if (n - same > PIECE)
            log_progress("reading: %" PRId64 " of %" PRId64 " tokens", at, n);
        rc = session_extend(on, ids + at, piece, at + piece == n ? logits : NULL, e);
        if (rc == 0) {
            memcpy(s->ids + at, ids + at, (size_t)piece * sizeof *ids);
            s->n = at + piece;
        }
    }
    if (n - same > PIECE)
        log_progress("%s", "");
    return rc;
}

int said_add(struct said *s, struct session *on, int32_t id, float *logits, struct err *e)
{
    int rc = room(s, s->n + 1, e);

    if (rc == 0 && (rc = session_extend(on, &id, 1, logits, e)) == 0)
        s->ids[s->n++] = id;
    return rc;
}
