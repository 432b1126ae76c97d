/* prep/pack_impl.h - what pack_run.c and pack_set.c share. */
#ifndef PREP_PACK_IMPL_H
#define PREP_PACK_IMPL_H
#include "prep/journal.h"
#include "prep/pack.h"
#include "prep/publish.h"
#include "prep/shuffle.h"

struct pack {
    const struct pack_options *o;
    struct manifest *m;
    struct manifest_split *split[SPLIT_MAX + 1]; /* of m, by rule */
    int64_t seed;
    struct folder *folder; /* NULL when writing to fd */
    struct shuffle *aside;   /* documents that are not placed as they come, or NULL */
    struct journal *journal; /* of aside, or NULL */
    int64_t marked;          /* documents that marks have counted */
    bool settled;            /* whether there are these two */
    struct shard_writer *w[SPLIT_MAX + 1]; /* the open shard of each split */
    int fd[SPLIT_MAX + 1];
    int64_t temp[SPLIT_MAX + 1]; /* number of its temporary */
    char *first; /* what the others must agree with; NULL before it */
    int64_t n_inputs;
    int64_t docs, tokens;
    double waited_s; /* for streams to be written */
    bool written;
    struct taken *taken; /* shards of other sets that are to be linked, by pack_merge */
    int64_t n_taken;
    size_t cap_taken;
};

/* Before the first document: are they set aside, and is there a journal? run: NULL without. */
int pack_settle(struct pack *p, const struct stream_run *run, struct err *e);
/* Gives a finished temporary its name and lists it. A shard that is there already would be
 * trained on twice, or validated on too: a set given twice, or a run that was repeated. */
int pack_list_shard(struct pack *p, struct manifest_split *s, struct manifest_shard *h,
                    int64_t temp, const char *from, struct err *e);
/* Links what pack_set has taken, in an order that does not depend on that of the sets where all
 * of them were shuffled, and puts splits and sources in such an order. */
int pack_link_taken(struct pack *p, struct err *e);
void pack_free_taken(struct pack *p);

#endif
