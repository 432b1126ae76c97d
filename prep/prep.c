/* prep/prep.c - see prep.h. */
#include "prep/prep.h"

#include "base/pool.h"

#include "base/file.h"
#include "formats/shard.h"
#include "formats/stream.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { RING = 512 };                     /* documents under way, at most */
#define WAITING_BYTES ((size_t)32 << 20) /* of their text */
#define KEEP_BYTES ((size_t)32 << 10)    /* a larger buffer is not kept for the next document */
#define OUT_BYTES ((size_t)256 << 10)    /* of JSON lines are written at once */

struct job {
    struct doc doc;
    size_t bytes;           /* of the doc's texts, as counted in waiting_bytes */
    struct token_doc tokens;
    int64_t masked;
    struct buf json;
    bool done;
    int rc;
    struct err err;
};

/* Three positions follow each other round the ring: written, taken, filled, at most RING apart.
 * All below the lock is guarded by it; a job belongs to the thread that took it until done. */
struct line {
    const struct prep_opts *o;
    const struct tokenizer *t;
    struct feed *feed;
    struct job *job; /* [RING] */
    pthread_mutex_t lock;
    pthread_cond_t room, work, done;
    uint64_t filled, taken, written;
    size_t waiting_bytes;
    bool ended, stop; /* nothing more is filled; leave as soon as you can */
};

void prep_counts_free(struct prep_counts *c)
{
    free(c->source);
    *c = (struct prep_counts){ 0 };
}

/* A buffer that grew for one long document is given back before the next. */
static void calm(struct buf *b)
{
    if (b->cap > KEEP_BYTES)
        buf_free(b);
}

/* The reading thread. An error takes its place in the line, behind what came before it. */
static void *read_docs(void *arg)
{
    struct line *l = arg;
    int rc = 1;

    while (rc == 1) {
        struct job *j;

        pthread_mutex_lock(&l->lock);
        while (!l->stop && (l->filled == l->written + RING ||
                            (l->waiting_bytes >= WAITING_BYTES && l->filled > l->written)))
            pthread_cond_wait(&l->room, &l->lock);
        j = &l->job[l->filled % RING];
        rc = l->stop ? 0 : 1;
        pthread_mutex_unlock(&l->lock);
        if (rc == 1) {
            calm(&j->doc.text);
            calm(&j->doc.input);
            calm(&j->doc.output);
            j->err = (struct err){ 0 };
            j->rc = rc = feed_next(l->feed, &j->doc, &j->err);
            j->bytes = j->doc.text.len + j->doc.input.len + j->doc.output.len;
            j->done = rc < 0;
        }
        pthread_mutex_lock(&l->lock);
        if (rc != 0) {
            l->filled++;
            l->waiting_bytes += j->bytes;
        }
        if (rc != 1)
            l->ended = true;
        if (rc == 1)
            pthread_cond_signal(&l->work);
        else
            pthread_cond_broadcast(&l->work); /* so that all see the end */
        pthread_cond_signal(&l->done);
        pthread_mutex_unlock(&l->lock);
    }
    return NULL;
}

/* An encoding thread. */
static void *encode_docs(void *arg)
{
    struct line *l = arg;

    for (;;) {
        struct job *j;

        pthread_mutex_lock(&l->lock);
        while (!l->stop && l->taken == l->filled && !l->ended)
            pthread_cond_wait(&l->work, &l->lock);
        if (l->stop || l->taken == l->filled) {
            pthread_mutex_unlock(&l->lock);
            return NULL;
        }
        j = &l->job[l->taken++ % RING];
        pthread_mutex_unlock(&l->lock);
        if (j->rc == 1) {
            j->json.len = 0;
            j->rc = l->o->text ? doc_to_json(&j->doc, &j->json, &j->err)
                               : prep_encode(l->t, &j->doc, l->o, &j->tokens, &j->masked,
                                             &j->err);
        }
        pthread_mutex_lock(&l->lock);
        j->done = true;
        pthread_cond_signal(&l->done);
        pthread_mutex_unlock(&l->lock);
    }
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
static struct prep_source *find_source(struct prep_counts *c, const char *name, struct err *e)
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

static void count(struct prep_counts *c, struct prep_source *own, const struct job *j, bool text)
{
    struct prep_source *s[2] = { &c->all, own };

    for (int i = 0; i < 2; i++) {
        s[i]->docs++;
        s[i]->tokens += j->tokens.n_ids;
        s[i]->masked += j->masked;
        s[i]->bytes += text ? (int64_t)j->bytes : j->tokens.text_bytes;
        s[i]->words += j->tokens.text_words;
    }
}

struct output {
    int fd;
    const char *name;
    struct stream_writer *stream; /* NULL: JSON lines */
    struct buf lines;
};

static int flush_lines(struct output *out, struct err *e)
{
    int rc = file_write_all(out->fd, out->lines.p, out->lines.len, out->name, e);

    out->lines.len = 0;
    return rc;
}

static int put(struct output *out, struct job *j, struct err *e)
{
    struct mask_run run = { 0, j->masked };
    int rc;

    if (out->stream) {
        j->tokens.runs = &run;
        j->tokens.n_runs = j->masked > 0;
        return stream_write(out->stream, &j->tokens, e);
    }
    rc = buf_add(&out->lines, j->json.p, j->json.len, e);
    return rc == 0 && out->lines.len >= OUT_BYTES ? flush_lines(out, e) : rc;
}

/* The caller's thread: what is next in line, as soon as it is done. */
static int write_docs(struct line *l, struct output *out, struct prep_counts *c, struct err *e)
{
    struct prep_source *source;
    struct job *j;
    bool more;
    int rc = 0;

    while (rc == 0) {
        pthread_mutex_lock(&l->lock);
        j = &l->job[l->written % RING];
        while (l->written == l->filled ? !l->ended : !j->done)
            pthread_cond_wait(&l->done, &l->lock);
        more = l->written < l->filled;
        pthread_mutex_unlock(&l->lock);
        if (!more)
            break;
        if ((rc = j->rc) < 0)
            *e = j->err;
        if (rc == 0 && !(source = find_source(c, j->doc.source, e)))
            rc = E_SYS;
        if (rc == 0) {
            j->tokens.source = source->name;
            if ((rc = put(out, j, e)) == 0)
                count(c, source, j, out->stream == NULL);
        }
        free((void *)j->tokens.ids);
        j->tokens = (struct token_doc){ 0 };
        j->masked = 0;
        calm(&j->json);
        pthread_mutex_lock(&l->lock);
        j->done = false;
        l->written++;
        l->waiting_bytes -= j->bytes;
        pthread_cond_signal(&l->room);
        pthread_mutex_unlock(&l->lock);
        feed_progress(l->feed, &c->read);
        if (rc == 0 && l->o->tick)
            l->o->tick(l->o->tick_ctx, c);
    }
    return rc;
}

/* Starts the threads, writes, and waits for all of them. */
static int run_line(struct line *l, int threads, struct output *out, struct prep_counts *c,
                    struct err *e)
{
    pthread_t *team = calloc((size_t)threads + 1, sizeof *team);
    int rc = 0, n = 0;

    if (!team)
        return err_set(e, E_SYS, "out of memory for %d threads", threads);
    for (; n <= threads && rc == 0; n += rc == 0)
        rc = pthread_create(&team[n], NULL, n ? encode_docs : read_docs, l);
    rc = rc ? err_set(e, E_SYS, "cannot start %d threads: %s", threads, strerror(rc))
            : write_docs(l, out, c, e);
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_broadcast(&l->room);
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    while (n > 0)
        pthread_join(team[--n], NULL);
    free(team);
    return rc;
}

static int token_info_of(const struct tokenizer *t, const struct prep_opts *o,
                         struct token_info *info, struct err *e)
{
    const char *path = tokenizer_path(t), *slash = strrchr(path, '/');

    *info = (struct token_info){ .vocab = (uint32_t)tokenizer_vocab(t), .bos = tokenizer_bos(t),
                                 .eos = tokenizer_eos(t), .adds_bos = o->add_bos,
                                 .adds_eos = !o->no_eos };
    info->width = token_width(info->vocab);
    memcpy(info->fingerprint, tokenizer_fingerprint(t), FINGERPRINT_HEX + 1);
    label_clean(info->tokenizer, sizeof info->tokenizer - 1,
                strlen(path) < sizeof info->tokenizer || !slash ? path : slash + 1);
    if (info->eos < 0 && !o->no_eos) {
        err_set(e, E_CONFIG, "the tokenizer '%s' has no EOS token", path);
        return err_hint(e, "--no-eos leaves it out; documents will then run into each other");
    }
    return info->bos < 0 && o->add_bos
               ? err_set(e, E_CONFIG, "--add-bos: the tokenizer '%s' has no BOS token", path)
               : 0;
}

static int open_output(struct output *out, const struct prep_opts *o, const struct tokenizer *t,
                       struct err *e)
{
    struct token_info info;
    int rc;

    if (o->text)
        return 0;
    if ((rc = token_info_of(t, o, &info, e)) < 0)
        return rc;
    return stream_create(&out->stream, out->fd, out->name, &info, e);
}

static int close_output(struct output *out, int rc, struct err *e)
{
    if (rc == 0)
        rc = out->stream ? stream_finish(out->stream, e) : flush_lines(out, e);
    else if (out->stream)
        stream_abandon(out->stream);
    buf_free(&out->lines);
    return rc;
}

int prep_run(const char *const *operands, int n, const struct prep_opts *o,
             const struct tokenizer *t, int fd, const char *name, struct prep_counts *c,
             struct err *e)
{
    struct line l = { .o = o, .t = t, .lock = PTHREAD_MUTEX_INITIALIZER,
                      .room = PTHREAD_COND_INITIALIZER, .work = PTHREAD_COND_INITIALIZER,
                      .done = PTHREAD_COND_INITIALIZER };
    struct output out = { .fd = fd, .name = name };
    int rc, threads = o->threads;

    *c = (struct prep_counts){ 0 };
    if (threads <= 0)
        threads = pool_processors();
    if (!(l.job = calloc(RING, sizeof *l.job)))
        return err_set(e, E_SYS, "out of memory");
    if ((rc = feed_open(&l.feed, operands, n, &o->feed, e)) == 0 &&
        (rc = open_output(&out, o, t, e)) == 0) {
        rc = run_line(&l, threads, &out, c, e);
        rc = close_output(&out, rc, e);
        c->left_out = *feed_counts(l.feed);
        feed_progress(l.feed, &c->read);
    }
    feed_close(l.feed);
    for (int i = 0; i < RING; i++) {
        doc_free(&l.job[i].doc);
        buf_free(&l.job[i].json);
        free((void *)l.job[i].tokens.ids);
    }
    free(l.job);
    return rc;
}
