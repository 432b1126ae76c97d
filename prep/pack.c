/* prep/pack.c - token streams to shards; see pack.h. Publishing is in publish.c. */
#include "prep/pack.h"
#include "formats/document.h"
#include "prep/publish.h"
#include "prep/shuffle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct pack {
    const struct pack_options *o;
    struct manifest *m;
    struct folder *folder; /* NULL when writing to fd */
    struct shuffle *shuffle;
    struct shard_writer *w[SPLIT_MAX + 1]; /* the open shard of each split */
    int fd[SPLIT_MAX + 1];
    int64_t temp[SPLIT_MAX + 1]; /* number of its temporary */
    char *first; /* name of the first stream; NULL before it */
    int64_t docs, tokens;
    bool written;
};

static int copy_command(struct manifest *m, char **v, int n, struct err *e)
{
    if (!(m->command = calloc((size_t)n + 1, sizeof *m->command)))
        return err_set(e, E_SYS, "out of memory");
    for (int i = 0; i < n; i++) {
        size_t k = strlen(v[i]);
        if (!(m->command[i] = malloc(k + 1)))
            return err_set(e, E_SYS, "out of memory");
        label_clean(m->command[i], k, v[i]);
        m->n_command++;
    }
    return 0;
}

int pack_open(struct pack **out, const struct pack_options *o, struct err *e)
{
    struct pack *p = calloc(1, sizeof *p);
    int rc = 0;

    *out = NULL;
    if (!p || !(p->m = manifest_new())) {
        free(p);
        return err_set(e, E_SYS, "out of memory");
    }
    p->o = o;
    p->m->seed = o->seed;
    p->m->shuffled = o->shuffle;
    p->m->n_splits = o->rules.n + 1;
    for (int i = 0; i <= o->rules.n; i++)
        snprintf(p->m->splits[i].name, sizeof p->m->splits[i].name, "%s",
                 split_name(&o->rules, i));
    if ((rc = copy_command(p->m, o->command, o->n_command, e)) == 0 && o->folder)
        rc = folder_open(&p->folder, o->folder, o->force, e);
    if (rc == 0 && o->shuffle)
        rc = shuffle_open(&p->shuffle, o->folder, e);
    if (rc < 0) {
        pack_abandon(p);
        return rc;
    }
    *out = p;
    return 0;
}

static int open_shard(struct pack *p, int k, struct err *e)
{
    int rc;

    if (!p->folder)
        return shard_create(&p->w[k], p->o->fd, "standard output", &p->m->info, NULL, e);
    if ((p->fd[k] = folder_temp(p->folder, &p->temp[k], e)) < 0)
        return p->fd[k];
    rc = shard_create(&p->w[k], p->fd[k], p->o->folder, &p->m->info, p->o->folder, e);
    if (rc < 0)
        close(p->fd[k]);
    return rc;
}

/* Finishes the open shard of split k and adds it to the manifest. */
static int close_shard(struct pack *p, int k, struct err *e)
{
    struct manifest_split *s = &p->m->splits[k];
    struct manifest_shard h = {0};
    struct shard_sums sums;
    int rc = shard_finish(p->w[k], &sums, e);

    p->w[k] = NULL;
    if (p->folder && rc == 0)
        rc = folder_sync_temp(p->folder, p->fd[k], e);
    if (p->folder)
        close(p->fd[k]);
    if (rc < 0)
        return rc;
    h.bytes = sums.bytes;
    h.docs = sums.docs;
    h.tokens = sums.tokens;
    h.footer_hash = sums.footer_hash;
    memcpy(h.hash, sums.hash, sizeof h.hash);
    if (p->folder) {
        snprintf(h.file, sizeof h.file, "%s-%05lld-%.16s.shard", s->name, (long long)s->n_shards,
                 h.hash);
        rc = folder_name_temp(p->folder, p->temp[k], h.file, e);
    }
    return rc < 0 ? rc : manifest_add_shard(s, &h, e);
}

static int place(struct pack *p, const struct token_doc *d, struct err *e)
{
    int rc, k = split_of(&p->o->rules, p->o->seed, d);
    struct manifest_split *s = &p->m->splits[k];
    int64_t id;

    if (p->folder && p->w[k] && shard_writer_docs(p->w[k]) > 0 &&
        d->n_ids > p->o->shard_tokens - shard_writer_tokens(p->w[k]) &&
        (rc = close_shard(p, k, e)) < 0)
        return rc;
    if (!p->w[k] && (rc = open_shard(p, k, e)) < 0)
        return rc;
    if ((rc = shard_write(p->w[k], d, e)) < 0)
        return rc;
    if ((id = source_add(&s->sources, d->source, 1, d->n_ids, d->text_bytes, e)) < 0)
        return (int)id;
    if (__builtin_add_overflow(s->text_bytes, d->text_bytes, &s->text_bytes))
        return err_set(e, E_DATA, "the sum of text bytes overflows");
    s->text_words += d->text_words; /* at most the bytes */
    s->docs++;
    s->tokens += d->n_ids;
    return 0;
}

/* The first stream says what the others must agree with. */
static int agree(struct pack *p, const struct token_info *info, const char *name, struct err *e)
{
    if (p->first) {
        if (info_agree(&p->m->info, p->first, info, name, e) == 0)
            return 0;
        return err_hint(e, "a data set has one tokenizer: make all of its streams with the same");
    }
    p->m->info = *info;
    if (!(p->first = strdup(name)))
        return err_set(e, E_SYS, "out of memory");
    return p->folder ? 0 : open_shard(p, 0, e);
}

int pack_stream(struct pack *p, int fd, const char *name, struct err *e)
{
    struct stream_reader *r;
    struct token_doc d;
    int rc = stream_open(&r, fd, name, e);

    if (rc < 0)
        return rc;
    rc = agree(p, stream_info(r), name, e);
    while (rc == 0 && (rc = stream_read(r, &d, e)) == 1) {
        p->docs++;
        p->tokens += d.n_ids;
        rc = p->shuffle ? shuffle_add(p->shuffle, &d, &p->m->info, e) : place(p, &d, e);
        if (p->o->progress)
            p->o->progress(p->o->progress_ctx, !p->shuffle, p->docs, p->tokens);
    }
    stream_close(r);
    return rc;
}

static int place_shuffled(struct pack *p, struct err *e)
{
    int64_t n = shuffle_docs(p->shuffle), tokens = 0;
    struct token_doc d;
    int rc;

    for (int64_t i = 0; i < n; i++) {
        if ((rc = shuffle_read(p->shuffle, i, p->o->seed, &p->m->info, &d, e)) < 0 ||
            (rc = place(p, &d, e)) < 0)
            return rc;
        tokens += d.n_ids;
        if (p->o->progress)
            p->o->progress(p->o->progress_ctx, true, i + 1, tokens);
    }
    return 0;
}

int pack_write(struct pack *p, struct err *e)
{
    int rc = p->first ? 0 : err_set(e, E_USAGE, "no token stream was given");

    if (rc == 0 && p->shuffle)
        rc = place_shuffled(p, e);
    for (int k = 0; k <= p->o->rules.n && rc == 0; k++)
        if (p->w[k])
            rc = close_shard(p, k, e);
    p->written = true;
    return rc;
}

int pack_finish(struct pack *p, struct manifest **m, struct err *e)
{
    int rc = p->written ? 0 : pack_write(p, e);

    if (rc == 0 && p->folder)
        rc = folder_publish(p->folder, p->m, e);
    if (rc == 0 && m) {
        *m = p->m;
        p->m = NULL;
    }
    pack_abandon(p); /* after publishing it has nothing to remove */
    return rc;
}

void pack_abandon(struct pack *p)
{
    if (!p)
        return;
    for (int k = 0; k <= SPLIT_MAX; k++)
        if (p->w[k]) {
            shard_abandon(p->w[k]);
            if (p->folder)
                close(p->fd[k]);
        }
    shuffle_close(p->shuffle);
    folder_close(p->folder);
    manifest_free(p->m);
    free(p->first);
    free(p);
}

void pack_remove_temporaries(const struct pack *p)
{
    if (p->folder)
        folder_remove_temporaries(p->folder);
}
