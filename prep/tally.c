/* prep/tally.c - prep_counts_of in prep.h: what was counted, by source. */
#include "prep/prep.h"

#include "formats/shard.h"

#include <stdlib.h>
#include <string.h>

void prep_counts_free(struct prep_counts *c)
{
    free(c->source);
    *c = (struct prep_counts){ 0 };
}

static int64_t source_place(const struct prep_counts *c, const char *name, bool *found)
{
    int64_t lo = 0, hi = c->n_sources;

    while (lo < hi) {
        int64_t mid = (lo + hi) / 2;
        int order = strcmp(c->source[mid].name, name);
        if ((*found = order == 0))
            return mid;
        if (order < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    *found = false;
    return lo;
}

/* A shard has room for so many: the last of them stands for all that come after. */
struct prep_source *prep_counts_of(struct prep_counts *c, const char *name, struct err *e)
{
    bool found;
    int64_t at = source_place(c, name, &found);
    struct prep_source *v;

    if (!found && c->n_sources >= SHARD_MAX_SOURCES - 1) {
        name = "other";
        at = source_place(c, name, &found);
    }
    if (found)
        return &c->source[at];
    if (!(v = realloc(c->source, (size_t)(c->n_sources + 1) * sizeof *v))) {
        err_set(e, E_SYS, "out of memory for %lld sources", (long long)c->n_sources);
        return NULL;
    }
    c->source = v;
    memmove(v + at + 1, v + at, (size_t)(c->n_sources++ - at) * sizeof *v);
    v[at] = (struct prep_source){ 0 };
    memcpy(v[at].name, name, strlen(name) + 1);
    return &v[at];
}
