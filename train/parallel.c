/* train/parallel.c - see parallel.h. */
#include "train/parallel.h"

#include "base/opt.h"

#include <inttypes.h>
#include <string.h>

static bool automatic(const struct settings *s)
{
    return s->cp_text && strcmp(s->cp_text, "auto") == 0;
}

int parallel_resolve(struct settings *s, int64_t ranks, struct err *e)
{
    int64_t cp = 1;

    if (s->cp_text && !automatic(s) && (!num_i64(s->cp_text, &cp) || cp < 1 || cp > 1024))
        return err_set(e, E_USAGE, "--cp '%.40s': must be auto or a number from 1 to 1024",
                       s->cp_text);
    if (!s->cp_text && s->dp)
        cp = ranks % s->dp ? 0 : ranks / s->dp;
    s->cp = automatic(s) ? 0 : cp;
    if (automatic(s) && s->dp)
        return err_set(e, E_USAGE, "--cp auto and --dp %" PRId64 ": give one of them", s->dp);
    if (s->cp == 0 ? s->dp && ranks % s->dp : ranks % cp || (s->dp && s->dp * cp != ranks)) {
        err_set(e, E_USAGE, "--%s %" PRId64 " does not fit %" PRId64 " rank%s", s->dp ? "dp" : "cp",
                s->dp ? s->dp : cp, ranks, ranks == 1 ? "" : "s");
        return err_hint(e, "--dp times --cp is the number of ranks");
    }
    if (s->cp != 1 && s->same_bits)
        return err_set(e, E_USAGE, "--same-on-any-ranks adds whole rows: it goes with --cp 1 only");
    if (s->cp > 1 && s->micro > 1)
        return err_set(e, E_USAGE, "--micro %" PRId64 ": ranks that share a sequence compute one at "
                       "a time", s->micro);
    return 0;
}

struct group parallel_rows(const struct group *g, int64_t cp)
{
    int64_t line = cp > 1 ? cp : 1;

    return (struct group){ .rank = (int)(g->rank / line), .size = (int)(g->size / line) };
}
