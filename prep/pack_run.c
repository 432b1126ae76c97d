/* prep/pack_run.c - token streams to shards; see pack.h. Publishing is in publish.c.
 *
 * A document has two ways. Placed, it goes to the open shard of its split at once. Set aside,
 * it waits in a file until all input was read, and is placed then. That is how documents are
 * shuffled, and how a killed run can be continued: the journal says what the file holds.
 */
#include "prep/pack_impl.h"
#include "base/file.h"
#include "formats/tokens/document.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* After the commands that made what is appended to, with ";" between. */
static int add_command(struct manifest *m, char **v, int n, struct err *e)
{
    char **grown = realloc(m->command, ((size_t)m->n_command + (size_t)n + 2) * sizeof *grown);
    int between = m->n_command > 0;

    if (!grown)
        return err_set(e, E_SYS, "out of memory");
    m->command = grown;
    /* i is -1 first where a ";" is to stand before the words. */
    for (int i = -between; i < n; i++) {
        const char *word = i < 0 ? ";" : v[i];
        size_t k = strlen(word);
        if (!(m->command[m->n_command] = malloc(k + 1)))
            return err_set(e, E_SYS, "out of memory");
        label_clean(m->command[m->n_command++], k, word);
    }
    return 0;
}

/* The manifest that is appended to becomes ours. */
static int take_manifest(struct pack *p, struct err *e)
{
    struct manifest *m;
    int rc = manifest_read(&m, p->o->folder, e);

    if (rc < 0)
        return rc;
    manifest_free(p->m);
    p->m = m;
    /* Another seed would draw other splits: what was trained on could be validated on. */
    if (p->o->seed >= 0 && p->o->seed != m->seed) {
        err_set(e, E_CONFIG, "'%s' was made with seed %lld, not %lld", p->o->folder,
                (long long)m->seed, (long long)p->o->seed);
        return err_hint(e, "--append uses the data set's seed: leave --seed out");
    }
    p->seed = m->seed;
    if (!p->o->merge)
        /* One part that is not shuffled makes the whole not shuffled. */
        m->shuffled &= p->o->shuffle;
    p->first = strdup(p->o->folder);
    return p->first ? 0 : err_set(e, E_SYS, "out of memory");
}

/* The manifest gets train, split 0, and a split for each rule, in the order given. With
 * --merge the splits are those of the data sets, which come later. */
static int name_splits(struct pack *p, struct err *e)
{
    const struct split_rules *rules = &p->o->rules;

    for (int i = 0; i <= rules->n && !p->o->merge; i++)
        if (!(p->split[i] = manifest_add_split(p->m, split_name(rules, i))))
            return err_set(e, E_CONFIG, "'%s' would have more than %d splits", p->o->folder,
                           MANIFEST_MAX_SPLITS);
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
    p->seed = p->m->seed = o->seed < 0 ? 0 : o->seed;
    p->m->shuffled = o->shuffle;
    /* Before folder_open, which would make the folder. */
    if (o->append && (rc = dir_check(o->folder, e)) < 0)
        err_within(e, "--append");
    if (rc == 0 && o->folder)
        rc = folder_open(&p->folder, o->folder, o->force || o->append, e);
    if (rc == 0 && o->append)
        rc = take_manifest(p, e);
    if (rc == 0 && (rc = name_splits(p, e)) == 0)
        rc = add_command(p->m, o->command, o->n_command, e);
    if (rc < 0) {
        pack_abandon(p);
        return rc;
    }
    *out = p;
    return 0;
}

/* The next shard of split k: a temporary in the folder, or standard output. */
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

/* A name is SPLIT-NUMBER-HASH.shard, where HASH is the first 16 digits of the shard's hash:
 * different shards do not get the same name. */
int pack_list_shard(struct pack *p, struct manifest_split *s, struct manifest_shard *h,
                    int64_t temp, const char *from, struct err *e)
{
    int rc;

    for (int i = 0; i < p->m->n_splits; i++)
        for (int64_t k = 0; k < p->m->splits[i].n_shards; k++)
            if (strcmp(p->m->splits[i].shards[k].hash, h->hash) == 0)
                return err_set(e, E_DATA, "%s has the same documents as '%s'", from,
                               p->m->splits[i].shards[k].file);
    snprintf(h->file, sizeof h->file, "%s-%05lld-%.16s.shard", s->name, (long long)s->n_shards,
             h->hash);
    if ((rc = folder_name_temp(p->folder, temp, h->file, e)) < 0)
        return rc;
    return manifest_add_shard(s, h, e);
}

/* Finishes the open shard of split k and adds it to the manifest. */
static int close_shard(struct pack *p, int k, struct err *e)
{
    struct manifest_split *s = p->split[k];
    struct manifest_shard h = {0};
    struct shard_sums sums;
    int rc = shard_finish(p->w[k], &sums, e);

    p->w[k] = NULL; /* shard_finish has freed it */
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
    return p->folder ? pack_list_shard(p, s, &h, p->temp[k], "what was read", e)
                     : manifest_add_shard(s, &h, e);
}

/* Writes a document to the open shard of its split. A shard ends before the document that
 * would make it too long; a document that is longer than a shard gets one of its own. */
static int place(struct pack *p, const struct token_doc *d, struct err *e)
{
    int rc, k = split_of(&p->o->rules, p->seed, d);
    struct manifest_split *s = p->split[k];
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
    /* text_bytes is what a stream says, so that a hostile one may make the sum overflow. */
    if (__builtin_add_overflow(s->text_bytes, d->text_bytes, &s->text_bytes))
        return err_set(e, E_DATA, "the sum of text bytes overflows");
    s->text_words += d->text_words; /* at most the bytes */
    s->docs++;
    s->tokens += d->n_ids;
    return 0;
}

/* The first input says what the others must agree with. */
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
    /* Standard output is one shard, which is there even if no document follows. */
    return p->folder ? 0 : open_shard(p, 0, e);
}

static int refuse_journal(const struct pack *p, struct err *e)
{
    err_set(e, E_CREATE, "'%s' holds the journal of a run that did not finish", p->o->folder);
    return err_hint(e, "run the same command again to continue it, or lpack -f to start over");
}

/* What a mark of the earlier run counted counts in this one too. */
static int add_mark(void *ctx, const struct stream_mark *m, struct err *e)
{
    struct pack *p = ctx;

    for (int64_t i = 0; i < m->tally.n; i++)
        p->tokens += m->tally.v[i].tokens; /* for the progress; it may wrap for all we care */
    return tally_add_dropped(&p->m->left_out, &m->tally, e);
}

/* The run goes on behind what a journal has, which must have just that. */
static int go_on(struct pack *p, const struct stream_run *run, struct err *e)
{
    struct journal_state s;
    int rc = journal_look(&s, p->o->folder, run->marks, e);

    /* lprep read the journal before: what it found must still be there, of the same run. */
    if (rc == 0 && (!s.there || s.marks != run->marks || s.docs != run->docs ||
                    strcmp(s.recipe, run->recipe) != 0 || s.manifest != run->manifest)) {
        rc = err_set(e, E_DATA, "'%s' has no journal of the run that this stream continues",
                     p->o->folder);
        err_hint(e, "give lprep --resume and lpack -o the same folder");
    }
    if (rc == 0)
        rc = info_agree(&s.info, "its journal", &p->m->info, p->first, e);
    if (rc == 0)
        rc = journal_each(&s, p->o->folder, add_mark, p, e);
    if (rc == 0)
        rc = journal_open(&p->journal, p->o->folder, &s, &p->m->info, run, &p->aside, e);
    p->docs = p->marked = run->docs;
    journal_state_free(&s);
    return rc;
}

/* Once, before the first document. It is either set aside with a journal (a stream that can
 * be continued), set aside without one (a shuffle alone), or placed at once. */
int pack_settle(struct pack *p, const struct stream_run *run, struct err *e)
{
    bool keeps = p->folder && p->o->journal && run;
    struct journal_state s = { .there = false };
    int rc = 0;

    p->settled = true;
    if (run && run->marks > 0 && !keeps)
        return err_set(e, E_USAGE, "a stream that continues a run must be the only input of "
                                   "lpack -o");
    if (keeps && run->marks > 0)
        return go_on(p, run, e);
    /* A new run would write over the documents of one that could still be continued. */
    if (p->folder && (rc = journal_look(&s, p->o->folder, -1, e)) == 0 && s.there && !p->o->force)
        rc = refuse_journal(p, e);
    journal_state_free(&s);
    if (rc < 0)
        return rc;
    if (keeps)
        return journal_open(&p->journal, p->o->folder, NULL, &p->m->info, run, &p->aside, e);
    if (p->folder)
        journal_remove(p->o->folder);
    return p->o->shuffle ? shuffle_open(&p->aside, p->o->folder, e) : 0;
}

int pack_input(struct pack *p, const struct token_info *info, const char *name, struct err *e)
{
    p->n_inputs++;
    return agree(p, info, name, e);
}

int pack_doc(struct pack *p, const struct token_doc *d, struct err *e)
{
    int rc = p->settled ? 0 : pack_settle(p, NULL, e);

    if (rc < 0)
        return rc;
    rc = p->aside ? shuffle_add(p->aside, d, &p->m->info, e) : place(p, d, e);
    p->docs++;
    p->tokens += d->n_ids;
    if (rc == 0 && p->o->progress)
        p->o->progress(p->o->progress_ctx, !p->aside, p->docs, p->tokens, p->waited_s);
    return rc;
}

/* A mark says that inputs are done, and how many documents they had: as many as must have
 * come. Without a journal it is only counted, by the stream's reader. */
static int pack_mark(struct pack *p, const struct stream_mark *m, struct err *e)
{
    if (!p->journal)
        return 0;
    for (int64_t i = 0; i < m->tally.n; i++)
        p->marked += m->tally.v[i].docs;
    if (m->n_inputs && p->marked != p->docs)
        return err_set(e, E_DATA, "a mark counts %lld documents, but %lld were read",
                       (long long)p->marked, (long long)p->docs);
    return journal_mark(p->journal, m, p->aside, e);
}

int pack_stream(struct pack *p, int fd, const char *name, struct err *e)
{
    struct stream_reader *r;
    struct stream_item it;
    int rc = stream_open(&r, fd, name, e);
    double before = p->waited_s; /* of earlier streams */

    if (rc < 0)
        return rc;
    rc = pack_input(p, stream_info(r), name, e);
    while (rc == 0 && (rc = stream_next(r, &it, e)) > 0) {
        p->waited_s = before + stream_waited_s(r);
        if (rc == STREAM_DOC)
            rc = pack_doc(p, &it.doc, e);
        else if (rc == STREAM_MARK)
            rc = pack_mark(p, &it.mark, e);
        /* What is left is RUN: it comes first in a
         * stream, and only the first stream may continue. */
        else if (!p->settled)
            rc = pack_settle(p, &it.run, e);
        else if (it.run.marks > 0)
            rc = err_set(e, E_USAGE, "'%s' continues an interrupted run: give it to lpack -o as the "
                                     "only input", name);
        else
            rc = 0;
    }
    if (rc == 0)
        rc = tally_add_dropped(&p->m->left_out, stream_tally(r), e);
    stream_close(r);
    return rc;
}

/* What was set aside goes to its shards. */
static int place_all(struct pack *p, struct err *e)
{
    int64_t docs = 0, tokens = 0;
    struct token_doc d;
    int rc;

    shuffle_order(p->aside, p->o->shuffle, p->seed, 0);
    while ((rc = shuffle_next(p->aside, &p->m->info, &d, e)) == 1) {
        if ((rc = place(p, &d, e)) < 0)
            return rc;
        tokens += d.n_ids;
        if (p->o->progress)
            p->o->progress(p->o->progress_ctx, true, ++docs, tokens, p->waited_s);
    }
    return rc;
}

int pack_write(struct pack *p, struct err *e)
{
    int rc = p->n_inputs ? 0 : err_set(e, E_USAGE, "no token stream was given");

    if (rc == 0 && !p->settled)
        rc = pack_settle(p, NULL, e);
    /* All is read, but writing shards may still be killed: the journal has everything first. */
    if (rc == 0 && p->journal)
        rc = journal_sync(p->journal, p->aside, e);
    if (rc == 0)
        rc = p->aside ? place_all(p, e) : pack_link_taken(p, e);
    for (int k = 0; k <= p->o->rules.n && rc == 0; k++)
        if (p->w[k])
            rc = close_shard(p, k, e);
    p->written = true;
    return rc;
}

int pack_finish(struct pack *p, struct manifest **m, struct err *e)
{
    int rc = p->written ? 0 : pack_write(p, e);

    /* From publishing on the journal counts for nothing, so it goes only after that. */
    if (rc == 0 && p->folder && (rc = folder_publish(p->folder, p->m, e)) == 0) {
        journal_close(p->journal, NULL);
        p->journal = NULL;
        journal_remove(p->o->folder);
    }
    if (rc == 0 && m) {
        *m = p->m;
        p->m = NULL;
    }
    pack_abandon(p); /* after publishing it has nothing to remove */
    return rc;
}

int64_t pack_abandon(struct pack *p)
{
    int64_t inputs;

    if (!p)
        return 0;
    for (int k = 0; k <= SPLIT_MAX; k++)
        if (p->w[k]) {
            shard_abandon(p->w[k]);
            if (p->folder)
                close(p->fd[k]);
        }
    /* Before the documents are closed: the journal may still sync them, for the next run. */
    inputs = journal_close(p->journal, p->aside);
    shuffle_close(p->aside);
    folder_close(p->folder);
    manifest_free(p->m);
    pack_free_taken(p);
    free(p->first);
    free(p);
    return inputs;
}

void pack_remove_temporaries(const struct pack *p)
{
    if (p->folder)
        folder_remove_temporaries(p->folder);
}
