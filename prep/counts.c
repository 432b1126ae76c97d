/* prep/counts.c - prep_counts_of in prep.h: what was counted, by source. */
#include "prep/prep.h"

#include "formats/tokens/shard.h"

void prep_counts_free(struct prep_counts *c)
{
    tally_free(&c->by);
    *c = (struct prep_counts){ 0 };
}

/* A shard has room for so many: the last of them stands for all that come after. */
int prep_counts_of(struct prep_counts *c, const char *name, struct tally_source **s,
                   struct err *e)
{
    if (c->by.n >= SHARD_MAX_SOURCES - 1 && !tally_find(&c->by, name))
        name = "other";
    return tally_of(&c->by, name, s, e);
}
