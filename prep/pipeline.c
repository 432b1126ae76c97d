/* prep/pipeline.c - lprep's threads: read, work, write in order; see prep.h.
 *
 * One thread reads batches of rows into a ring of RING slots, several threads parse and tokenise
 * them, and the caller's thread writes them in the order they were read in, so that the output is
 * the same for any number of threads. With two workers, at some moment:
 *
 *     slot      0         1      2        3        4        5
 *     batch   written    done   worker A  worker B  filled   (the reader fills it)
 *                        ^ written = 1              ^ taken = 4   ^ filled = 5
 *
 * Batch 1 is written next; had batch 2 been done before it, it would wait. What depends on order
 * is decided when a batch is written: copies of earlier documents, counts, --max-docs. Three
 * conditions wake a thread that waits: space (the reader), work (the workers), done (the writer).
 * The reader also stops at waiting_max bytes of records that are not written yet.
 */
#include "prep/prep.h"

#include "base/pool.h"
#include "formats/tokens/document.h"
#include "formats/tokens/stream.h"
#include "prep/output.h"
#include "prep/resume.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { RING = 128, SPARES = 16 };         /* batches under way, at most; buffers kept by */
#define WAITING_BYTES ((size_t)12 << 20)  /* of their records, for two threads */
#define WAITING_MORE ((size_t)4 << 20)    /* for each further one */
#define KEEP_BYTES ((size_t)256 << 10)    /* a larger buffer does not stay with its batch */
#define SPARE_BYTES ((size_t)16 << 20)    /* of such, kept for the next that is long */

/* What became of one row. Its frame, or line of JSON, stands in its batch's out. */
struct result {
    enum drop drop;
    struct err *err; /* DROP_BAD; rc is its code */
    int rc;
    enum schema schema;
    bool lost; /* as in struct doc */
    char source[DOC_SOURCE_MAX + 1];
    size_t at, n;
    int64_t tokens, masked, bytes, words;
    XXH128_hash_t key; /* with prep_opts.seen; and with near: */
    int64_t grams;
    uint64_t near[MINHASH_BANDS_MAX];
    size_t name_at; /* with prep_opts.removed: in the batch's names */
};

struct job {
    struct feed_batch in;
    struct result result[FEED_ROWS];
    struct buf out, names;
    size_t bytes; /* of the records, as counted in waiting_bytes */
    int rc;       /* of feed_read: < 0 ends all */
    bool done;
};

/* Three positions follow each other round the ring: written, taken, filled, at most RING apart.
 * All below the lock is guarded by it; a job belongs to the thread that took it until done. */
struct pipeline {
    const struct prep_opts *o;
    const struct tokenizer *t;
    struct token_info info;
    struct feed *feed;
    struct job *job; /* [RING] */
    pthread_mutex_t lock;
    pthread_cond_t space, work, done; /* a slot is free; a batch to work on; one is done */
    uint64_t filled, taken, written;
    size_t waiting_bytes, waiting_max, spare_bytes;
    struct buf spare[SPARES];
    int n_spare;
    bool ended, stop; /* no batch follows; all threads are to return */
    struct prep_load load;
};

/* Processor time of this thread. */
static double thread_s(void)
{
    struct timespec t;

    return clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) == 0 ? (double)t.tv_sec +
                                                             1e-9 * (double)t.tv_nsec : 0;
}

/* Under the lock. A buffer that grew for a long document serves the next long one: fresh memory
 * costs more than what is read into it. */
static void recycle(struct pipeline *p, struct buf *b)
{
    if (b->cap <= KEEP_BYTES)
        return;
    if (p->n_spare < SPARES && p->spare_bytes + b->cap <= SPARE_BYTES) {
        p->spare_bytes += b->cap;
        p->spare[p->n_spare++] = *b;
        *b = (struct buf){ 0 };
    } else {
        buf_free(b);
    }
}

/* Under the lock. A buffer without memory gets that of a spare one, if there is one. */
static void take_spare(struct pipeline *p, struct buf *b)
{
    if (b->cap > 0 || p->n_spare == 0)
        return;
    *b = p->spare[--p->n_spare];
    p->spare_bytes -= b->cap;
    b->len = 0;
}

/* The reading thread. An error is a batch too, so that what came before it is written first. */
static void *read_batches(void *arg)
{
    struct pipeline *p = arg;
    int rc = 1;

    while (rc == 1) {
        struct job *j;

        pthread_mutex_lock(&p->lock);
        /* A batch longer than waiting_max is still let in when no other is under way, or the
         * reader would wait for ever. */
        while (!p->stop && (p->filled == p->written + RING ||
                            (p->waiting_bytes >= p->waiting_max && p->filled > p->written)))
            pthread_cond_wait(&p->space, &p->lock);
        j = &p->job[p->filled % RING];
        rc = p->stop ? 0 : 1;
        take_spare(p, &j->in.raw);
        pthread_mutex_unlock(&p->lock);
        if (rc == 1)
            j->rc = rc = feed_read(p->feed, &j->in);
        pthread_mutex_lock(&p->lock);
        p->load.read_s = thread_s();
        /* 0 is the end and fills no slot; an error fills one. */
        if (rc != 0) {
            p->filled++;
            p->waiting_bytes += j->bytes = j->in.raw.len;
        }
        if (rc != 1)
            p->ended = true;
        if (rc == 1)
            pthread_cond_signal(&p->work);
        else
            pthread_cond_broadcast(&p->work); /* so that all see the end */
        pthread_cond_signal(&p->done);
        pthread_mutex_unlock(&p->lock);
    }
    return NULL;
}

/* The document's frame or line, behind those of the batch's other rows. */
static int put_doc(struct pipeline *p, const struct doc *d, struct result *r, struct buf *out,
                   struct err *e)
{
    struct token_doc tokens = { 0 };
    struct mask_run run = { 0, 0 };
    int rc;

    if (p->o->text) {
        r->bytes = (int64_t)(d->text.len + d->input.len + d->output.len);
        return doc_to_json(d, out, e);
    }
    if ((rc = prep_encode(p->t, d, p->o, &tokens, &r->masked, e)) == 0) {
        /* Masked tokens are the prompt, which is always at the front: one run is enough. */
        run.count = r->masked;
        tokens.runs = &run;
        tokens.n_runs = r->masked > 0;
        r->tokens = tokens.n_ids;
        r->bytes = tokens.text_bytes;
        r->words = tokens.text_words;
        if (tokens.n_ids < p->o->min_tokens)
            r->drop = DROP_FEW_TOKENS;
        else if (p->o->max_tokens > 0 && tokens.n_ids > p->o->max_tokens)
            r->drop = DROP_MANY_TOKENS;
        else
            rc = stream_frame(&p->info, &tokens, out, e);
    }
    free((void *)tokens.ids);
    return rc;
}

/* What is asked of a document's words. */
static enum drop examine(const struct prep_opts *o, const struct doc *d, struct result *r)
{
    if (o->contam && contam_shares(o->contam, d))
        return DROP_CONTAMINATED;
    if (o->seen)
        r->key = dedup_key(d);
    if (o->seen && o->near)
        r->grams = minhash_keys(o->near, d, r->near);
    return KEPT;
}

/* Parses and encodes row i. Its errors are kept for the writer, who meets them in the order
 * of the input, whatever thread was faster. */
static void work_row(struct pipeline *p, struct job *j, int i, struct doc *d)
{
    struct result *r = &j->result[i];
    struct err e = { 0 };
    int rc = feed_parse(&p->o->feed, &j->in, i, d, &e);

    *r = (struct result){ .at = j->out.len, .schema = d->schema, .lost = d->lost };
    memcpy(r->source, d->source, sizeof r->source);
    if (rc == 0)
        rc = (int)examine(p->o, d, r);
    if (rc > 0) {
        r->drop = (enum drop)rc;
    } else if (rc < 0 || (rc = put_doc(p, d, r, &j->out, &e)) < 0) {
        r->drop = DROP_BAD;
        r->rc = rc;
        if ((r->err = malloc(sizeof e)))
            *r->err = e;
    }
    r->n = j->out.len - r->at;
    if (!p->o->removed)
        return;
    r->name_at = j->names.len;
    if (buf_add(&j->names, d->name, strlen(d->name) + 1, &e) < 0) {
        r->drop = DROP_BAD;
        r->rc = E_SYS;
    }
}

/* A working thread. */
static void *work_batches(void *arg)
{
    struct pipeline *p = arg;
    struct doc d = { 0 };
    struct job *j = NULL;
    double told_s = 0;

    for (;;) {
        double s = thread_s();

        pthread_mutex_lock(&p->lock);
        p->load.encode_s += s - told_s;
        told_s = s;
        /* This thread's last batch is handed over here,
         * so that one locking serves both batches. */
        if (j) {
            recycle(p, &j->in.raw);
            recycle(p, &d.text);
            recycle(p, &d.input);
            recycle(p, &d.output);
            j->done = true;
            pthread_cond_signal(&p->done);
        }
        while (!p->stop && p->taken == p->filled && !p->ended)
            pthread_cond_wait(&p->work, &p->lock);
        if (p->stop || p->taken == p->filled)
            break;
        j = &p->job[p->taken++ % RING];
        if (j->bytes > KEEP_BYTES) /* a long batch of records makes a long output */
            take_spare(p, &j->out);
        pthread_mutex_unlock(&p->lock);
        j->out.len = j->names.len = 0;
        for (int i = 0; i < j->in.n; i++)
            work_row(p, j, i, &d);
    }
    pthread_mutex_unlock(&p->lock);
    doc_free(&d);
    return NULL;
}

/* The rows [*from, to) of a batch, whose frames follow each other. */
static int flush_rows(struct output *out, const struct job *j, int *from, int to, struct err *e)
{
    size_t at = *from < to ? j->result[*from].at : 0, n = 0;
    int64_t docs = 0, tokens = 0;

    for (; *from < to; ++*from) {
        const struct result *r = &j->result[*from];
        n += r->n;
        docs += r->drop == KEPT;
        tokens += r->tokens;
    }
    return output_add(out, j->out.p + at, n, docs, tokens, e);
}

/* The frame of a document whose source is counted with others', made anew. */
static int put_renamed(struct output *out, const struct pipeline *p, const struct job *j,
                       const struct result *r, const char *source, struct err *e)
{
    struct doc_space space = { 0 };
    struct token_doc doc;
    /* A frame is a prefix, the document, and 4 bytes of checksum. */
    int rc = doc_decode(&space, j->out.p + r->at + STREAM_PREFIX_BYTES,
                        r->n - STREAM_PREFIX_BYTES - 4, &p->info, &doc, e);

    if (rc == 0) {
        doc.source = source;
        rc = stream_write(out->stream, &doc, e);
    }
    doc_space_free(&space);
    return rc;
}

/* Adds a row to three counts: of all documents,
 * of its source, and of what the next mark tells. */
static int count(struct prep_counts *c, struct tally_source *own, struct output *out,
                 const struct result *r, struct err *e)
{
    struct tally_source *s[3] = { &c->all, own };
    int rc = tally_of(&out->since, own->name, &s[2], e);

    for (int i = 0; i < 3 && rc == 0; i++) {
        s[i]->dropped[r->drop] += r->drop != KEPT;
        s[i]->docs += r->drop == KEPT;
        s[i]->tokens += r->tokens;
        s[i]->masked += r->masked;
        s[i]->bytes += r->bytes;
        s[i]->words += r->words;
    }
    return rc;
}

/* What a bad row means: 0 to go on. */
static int bad_row(struct pipeline *p, const struct result *r, const char *name, struct err *e)
{
    int rc;

    if (!r->err)
        return err_set(e, E_SYS, "out of memory");
    *e = *r->err;
    if (!p->o->feed.skip_errors || r->rc != E_DATA)
        return r->rc;
    *e = (struct err){ 0 };
    rc = feed_warn(p->feed, r->err->msg, e);
    return rc == 0 && p->o->removed ? removed_bad(p->o->removed, name, r->err->msg, e) : rc;
}

/* In the order of the input: what is a copy of a document that was kept becomes DROP_COPY or
 * DROP_NEAR. What is kept counts the probability that it would have been taken for one. */
static int drop_copy(const struct prep_opts *o, struct result *r, const char *name,
                     struct output *out, struct prep_counts *c, struct err *e)
{
    XXH128_hash_t key[DEDUP_KEYS_MAX] = { r->key };
    int n = r->grams > 0 ? 1 + o->near->bands : 1, rc = 0;
    double chance = dedup_error(o->seen, n);
    uint32_t of;

    /* Bands differ in high64, so that equal hashes in different bands do not meet. */
    for (int i = 1; i < n; i++)
        key[i] = (XXH128_hash_t){ r->near[i - 1], (uint64_t)i };
    r->drop = dedup_doc(o->seen, key, n, o->removed ? removed_next(o->removed) : 0, &of);
    if (r->drop != KEPT)
        return o->removed
                   ? removed_copy(o->removed, name, r->source, r->drop, of, chance, e)
                   : 0;
    if (n > 1)
        chance += minhash_chance(o->near, r->grams, c->all.docs);
    tally_false_copy(&c->by, chance);
    tally_false_copy(&out->since, chance);
    for (int i = 0; i < n && rc == 0; i++)
        rc = output_key(out, key[i], e);
    return rc == 0 && o->removed ? removed_kept(o->removed, name, e) : rc;
}

/* Row i of a batch whose turn has come; the rows [*from, i) have not been written yet. */
static int write_row(struct pipeline *p, struct job *j, int i, int *from, struct output *out,
                     struct prep_counts *c, struct err *e)
{
    struct result *r = &j->result[i];
    const char *name = p->o->removed ? j->names.p + r->name_at : NULL;
    struct tally_source *s;
    int rc = 0;

    if (r->drop == DROP_BAD && (rc = bad_row(p, r, name, e)) < 0)
        return rc;
    if (p->o->removed && r->drop != KEPT && r->drop != DROP_BAD &&
        (rc = removed_other(p->o->removed, name, r->source, r->drop, e)) < 0)
        return rc;
    if (p->o->seen && r->drop == KEPT && (rc = drop_copy(p->o, r, name, out, c, e)) < 0)
        return rc;
    if (r->drop == DROP_COPY || r->drop == DROP_NEAR) { /* its frame stands among the others */
        if ((rc = flush_rows(out, j, from, i, e)) < 0)
            return rc;
        *from = i + 1;
    }
    /* A document that is left out counts in no sum but its reason's. */
    if (r->drop != KEPT)
        r->tokens = r->masked = r->bytes = r->words = 0;
    if (r->drop == DROP_BAD) {
        c->all.dropped[DROP_BAD]++;
        c->by.bad_docs++;
        out->since.bad_docs++;
        return 0;
    }
    if ((rc = prep_counts_of(c, r->source, &s, e)) < 0 ||
        (rc = count(c, s, out, r, e)) < 0 || r->drop != KEPT)
        return rc;
    feed_kept(p->feed, r->schema, r->source, r->lost);
    /* One source too many: it was counted as "other", and the stream must say the same. */
    if (out->stream && strcmp(s->name, r->source) != 0) {
        if ((rc = flush_rows(out, j, from, i, e)) == 0)
            rc = put_renamed(out, p, j, r, s->name, e);
        *from = i + 1;
    }
    return rc;
}

/* A batch whose turn has come; 1 when no more documents are wanted. */
static int write_batch(struct pipeline *p, struct job *j, struct output *out, struct prep_counts *c,
                       struct err *e)
{
    int64_t max = p->o->feed.max_docs;
    int rc = feed_begin(p->feed, &j->in, e), from = 0, i;
    bool full = max && c->all.docs == max;

    /* Only now: what there is to say of an input is written before the mark that it is done. */
    if (rc == 0)
        rc = output_done(out, j->in.at, e);
    for (i = 0; i < j->in.n && rc == 0 && !full; i++) {
        rc = write_row(p, j, i, &from, out, c, e);
        full = max && c->all.docs == max;
    }
    if (rc == 0)
        rc = flush_rows(out, j, &from, i, e);
    if (rc == 0 && j->in.rc < 0 && !full) {
        *e = j->in.err;
        if (j->rc < 0) /* everything ends, not the file alone */
            return j->rc;
        c->by.bad_files++;
        out->since.bad_files++;
        *e = (struct err){ 0 };
        rc = feed_warn(p->feed, j->in.err.msg, e);
    }
    return rc < 0 ? rc : full;
}

static void clear_results(struct job *j)
{
    for (int i = 0; i < j->in.n; i++) {
        free(j->result[i].err);
        j->result[i].err = NULL;
    }
}

/* The caller's thread: writes the next batch as soon as it is done. 1: no more is wanted. */
static int write_batches(struct pipeline *p, struct output *out, struct prep_counts *c,
                         struct err *e)
{
    double start_s = thread_s();
    struct prep_load load;
    struct job *j;
    bool more;
    int rc = 0, end;

    while (rc == 0) {
        pthread_mutex_lock(&p->lock);
        j = &p->job[p->written % RING];
        /* With nothing filled it waits for a batch or the end, else for its batch's workers. */
        while (p->written == p->filled ? !p->ended : !j->done)
            pthread_cond_wait(&p->done, &p->lock);
        more = p->written < p->filled;
        pthread_mutex_unlock(&p->lock);
        if (!more)
            break;
        rc = write_batch(p, j, out, c, e);
        clear_results(j);
        pthread_mutex_lock(&p->lock);
        recycle(p, &j->out);
        j->done = false;
        p->written++;
        p->waiting_bytes -= j->bytes;
        pthread_cond_signal(&p->space);
        load = p->load;
        pthread_mutex_unlock(&p->lock);
        feed_progress(p->feed, &c->read);
        load.write_s = thread_s() - start_s;
        if (rc == 0 && p->o->tick)
            p->o->tick(p->o->tick_ctx, c, &load);
    }
    if (rc >= 0 && (end = feed_end(p->feed, e)) < 0)
        rc = end;
    return rc;
}

/* Starts the threads, writes, and waits for all of them. */
static int run_pipeline(struct pipeline *p, int threads, struct output *out, struct prep_counts *c,
                        struct err *e)
{
    pthread_t *team = calloc((size_t)threads + 1, sizeof *team);
    int rc = 0, n = 0;

    if (!team)
        return err_set(e, E_SYS, "out of memory for %d threads", threads);
    for (; n <= threads && rc == 0; n += rc == 0)
        rc = pthread_create(&team[n], NULL, n ? work_batches : read_batches, p); /* 0 reads */
    rc = rc ? err_set(e, E_SYS, "cannot start %d threads: %s", threads, strerror(rc))
            : write_batches(p, out, c, e);
    /* After an error, or with enough documents, threads
     * still wait or work: they are to return now. */
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->space);
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    while (n > 0)
        pthread_join(team[--n], NULL);
    free(team);
    return rc;
}

static void free_pipeline(struct pipeline *p)
{
    feed_close(p->feed);
    for (int i = 0; i < RING; i++) {
        clear_results(&p->job[i]);
        feed_batch_free(&p->job[i].in);
        buf_free(&p->job[i].out);
        buf_free(&p->job[i].names);
    }
    while (p->n_spare > 0)
        buf_free(&p->spare[--p->n_spare]);
    free(p->job);
}

/* The stream, or lines, of what is not in a journal yet. */
static int run_out(struct pipeline *p, int threads, struct output *out, struct prep_counts *c,
                   struct err *e)
{
    const struct prep_opts *o = p->o;
    struct source *s = feed_source(p->feed);
    bool all; /* inputs were read to their ends */
    int rc = 0;

    out->source = s;
    if (o->resume && (rc = resume_enter(o->resume, s, &p->info, c, o->seen, e)) == 0) {
        out->marked = o->resume->files;
        source_skip(s, out->marked);
    }
    if (rc < 0)
        return rc;
    rc = output_open(out, o->text ? NULL : &p->info, o->resume ? &o->resume->run : NULL, e);
    if (rc == 0)
        rc = run_pipeline(p, threads, out, c, e);
    all = rc == 0;
    if (rc >= 0 && o->whole && (rc = output_flush(out, e)) == 0) {
        feed_progress(p->feed, &c->read);
        rc = o->whole(o->whole_ctx, c, e);
    }
    return output_close(out, all, rc < 0 ? rc : 0, e);
}

int prep_run(const char *const *operands, int n, const struct prep_opts *o,
             const struct tokenizer *t, int fd, const char *name, struct prep_counts *c,
             struct err *e)
{
    struct pipeline p = { .o = o, .t = t, .lock = PTHREAD_MUTEX_INITIALIZER,
                      .space = PTHREAD_COND_INITIALIZER, .work = PTHREAD_COND_INITIALIZER,
                      .done = PTHREAD_COND_INITIALIZER };
    struct output out = { .fd = fd, .name = name };
    int rc, threads = o->threads;

    *c = (struct prep_counts){ 0 };
    if (threads <= 0)
        threads = pool_processors();
    p.load.encoders = threads;
    p.waiting_max = WAITING_BYTES + (threads > 2 ? (size_t)(threads - 2) * WAITING_MORE : 0);
    if (!(p.job = calloc(RING, sizeof *p.job)))
        return err_set(e, E_SYS, "out of memory");
    if ((rc = o->text ? 0 : prep_info(t, o, &p.info, e)) == 0 &&
        (rc = feed_open(&p.feed, operands, n, &o->feed, e)) == 0) {
        rc = run_out(&p, threads, &out, c, e);
        feed_progress(p.feed, &c->read);
    }
    free_pipeline(&p);
    return rc;
}
