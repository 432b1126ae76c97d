/* prep/pack_set.c - data sets joined to one, shard by shard; see pack_set in pack.h. */
#include "prep/pack_impl.h"
#include "base/bytes.h"
#include "base/file.h"
#include "formats/tokens/dataset.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A shard of another data set, to be linked once all sets have been read. */
struct taken {
    char *path;
    int split; /* of p->m */
    struct manifest_shard h;
};

void pack_free_taken(struct pack *p)
{
    for (int64_t i = 0; i < p->n_taken; i++)
        free(p->taken[i].path);
    free(p->taken);
}

/* Remembers a shard for pack_link_taken. Nothing is linked or copied yet. */
static int take_shard(struct pack *p, int split, const char *folder,
                      const struct manifest_shard *h, struct err *e)
{
    if (array_grow(&p->taken, &p->cap_taken, (size_t)p->n_taken, sizeof *p->taken, 64, "shards", e) < 0)
        return E_SYS;
    p->taken[p->n_taken++] = (struct taken){ path_join(folder, h->file), split, *h };
    return 0;
}

/* All shards of one split go to ours of that name, and so do its counts and sources. */
static int take_split(struct pack *p, const struct manifest_split *from, const char *folder,
                      struct err *e)
{
    struct manifest_split *s = manifest_add_split(p->m, from->name);
    int64_t id = 0;
    int rc = 0;

    if (!s)
        return err_set(e, E_CONFIG, "'%s' would have more than %d splits", p->o->folder,
                       MANIFEST_MAX_SPLITS);
    for (int64_t i = 0; i < from->n_shards && rc == 0; i++)
        rc = take_shard(p, (int)(s - p->m->splits), folder, &from->shards[i], e);
    for (int64_t i = 0; i < from->sources.n && rc == 0 && id >= 0; i++)
        id = source_add(&s->sources, from->sources.v[i].name, from->sources.v[i].docs,
                        from->sources.v[i].tokens, from->sources.v[i].text_bytes, e);
    if (rc < 0 || id < 0)
        return rc < 0 ? rc : (int)id;
    if (__builtin_add_overflow(s->docs, from->docs, &s->docs) ||
        __builtin_add_overflow(s->tokens, from->tokens, &s->tokens) ||
        __builtin_add_overflow(s->text_bytes, from->text_bytes, &s->text_bytes) ||
        __builtin_add_overflow(s->text_words, from->text_words, &s->text_words))
        return err_set(e, E_DATA, "the counts of split '%s' overflow", s->name);
    return 0;
}

int pack_set(struct pack *p, const char *folder, struct err *e)
{
    struct manifest *m;
    struct dataset *d;
    int rc = manifest_read(&m, folder, e);

    if (rc < 0)
        return rc;
    /* The smallest seed of all sets is kept, which does not depend on their order; with
     * --append it is that of the set that is appended to. */
    if (!p->first)
        p->m->seed = m->seed, p->m->shuffled = m->shuffled;
    if (!p->o->append && m->seed < p->m->seed)
        p->m->seed = m->seed;
    p->m->shuffled &= m->shuffled;
    rc = pack_input(p, &m->info, folder, e);
    if (rc == 0 && !p->settled)
        rc = pack_settle(p, NULL, e);
    for (int i = 0; i < m->n_splits && rc == 0; i++)
        if ((rc = dataset_open(&d, folder, m->splits[i].name, 0, e)) == 0) { /* it adds up */
            dataset_close(d);
            rc = take_split(p, &m->splits[i], folder, e);
        }
    if (rc == 0)
        rc = tally_add_dropped(&p->m->left_out, &m->left_out, e);
    manifest_free(m);
    return rc;
}

/* Brings a shard into our folder and reads all
 * of it: damage is found before it is published. */
static int link_shard(struct pack *p, const struct taken *t, struct err *e)
{
    char *temp = NULL, name[300];
    struct manifest_shard h = t->h;
    int64_t number;
    int rc = folder_take(p->folder, t->path, &number, e);

    if (rc == 0) {
        temp = folder_temp_path(p->folder, number);
        if ((rc = manifest_verify_shard(&h, temp, e)) < 0)
            err_within(e, "'%s'", t->path);
    }
    snprintf(name, sizeof name, "'%.250s'", t->path);
    if (rc == 0)
        rc = pack_list_shard(p, &p->m->splits[t->split], &h, number, name, e);
    free(temp);
    p->docs += h.docs;
    p->tokens += h.tokens;
    if (p->o->progress)
        p->o->progress(p->o->progress_ctx, true, p->docs, p->tokens, p->waited_s);
    return rc;
}

/* Hashes differ in any two shards that are taken: pack_list_shard refuses the second. */
static int by_hash(const void *a, const void *b)
{
    return strcmp(((const struct taken *)a)->h.hash, ((const struct taken *)b)->h.hash);
}

static int by_source(const void *a, const void *b)
{
    return strcmp(((const struct source_count *)a)->name, ((const struct source_count *)b)->name);
}

/* train, and then by name, as a data set of one machine has it where rules are given so. */
static int by_split(const void *a, const void *b)
{
    const char *x = ((const struct manifest_split *)a)->name;
    const char *y = ((const struct manifest_split *)b)->name;
    int train = (strcmp(y, "train") == 0) - (strcmp(x, "train") == 0);

    return train ? train : strcmp(x, y);
}

/* Where all sets were shuffled the order means nothing, so that everything is sorted: the
 * result is then the same whatever order the sets were named in. */
int pack_link_taken(struct pack *p, struct err *e)
{
    bool any_order = p->m->shuffled && p->n_taken;
    int rc = 0;

    if (any_order)
        qsort(p->taken, (size_t)p->n_taken, sizeof *p->taken, by_hash);
    for (int64_t i = 0; i < p->n_taken && rc == 0; i++)
        rc = link_shard(p, &p->taken[i], e);
    for (int i = 0; i < p->m->n_splits && any_order; i++) {
        struct source_table *t = &p->m->splits[i].sources;
        if (t->n)
            qsort(t->v, (size_t)t->n, sizeof *t->v, by_source);
    }
    if (any_order && !p->o->append)
        qsort(p->m->splits, (size_t)p->m->n_splits, sizeof *p->m->splits, by_split);
    return rc;
}
