/* prep/journal.c - which inputs of an unfinished run are safely on disk; see journal.h.
 *
 * lpack writes documents to lpack.docs as they come. When an input is done, lprep sends a mark,
 * and this file adds it to lpack.journal, but only after the documents before it are synced:
 *
 *     stream   doc doc doc MARK(a.txt) doc doc MARK(b.txt) doc  <- killed here
 *     docs     doc doc doc             doc doc             doc
 *     journal              MARK(a.txt)         MARK(b.txt)
 *
 * The next run reads the journal, skips a.txt and b.txt, and truncates lpack.docs to the five
 * documents that the marks cover. A sync is slow, so that marks wait in memory and several are
 * written after one sync; a crash then loses the inputs since the last sync, never less than the
 * journal says.
 */
#include "prep/journal.h"
#include "base/file.h"
#include "base/log.h"
#include "formats/tokens/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#define MARKS MANIFEST_JOURNAL
#define DOCS "lpack.docs"
#define INDEX "lpack.index"
#define WAITING_BYTES ((size_t)4 << 20) /* of marks, at most */
#define SELDOM 20.0                     /* times as long as a sync takes, between two */
#define SOON_S 0.02

/* The hash of the folder's manifest, 0 where there is none. A journal that was begun with
 * another manifest is of a run that has been published since. */
static int manifest_hash(const char *folder, uint64_t *hash, struct err *e)
{
    char *path = path_join(folder, MANIFEST_FILE), *text = NULL;
    size_t n = 0;
    int rc = path_exists(path) ? file_read(path, (size_t)64 << 20, &text, &n, e) : 0;

    *hash = 0;
    if (text)
        *hash = XXH3_64bits(text, n) | 1; /* 0 is none */
    free(text);
    free(path);
    return rc;
}

static int open_marks(const char *folder, int *fd, struct err *e)
{
    char *path = path_join(folder, MARKS);
    int rc = 0;

    /* O_NONBLOCK: a pipe of that name would otherwise wait for a writer. */
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0 && errno != ENOENT && errno != ENOTDIR)
        rc = err_sys(e, E_NOINPUT, "cannot open '%s'", path);
    free(path);
    return rc;
}

/* RUN and the marks; what is cut or damaged ends them. */
static int look(struct journal_state *s, struct stream_reader *r, int64_t max_marks,
                struct err *e)
{
    struct stream_item it;
    struct err ignored = {0};
    int64_t marks = 0, docs = 0, files = 0;
    int kind;

    if ((kind = stream_next(r, &it, &ignored)) != STREAM_RUN)
        return kind == E_SYS || kind == E_IO ? kind : 0;
    s->there = it.run.manifest == s->manifest;
    if (!(s->recipe = strdup(it.run.recipe)))
        return err_set(e, E_SYS, "out of memory");
    while ((max_marks < 0 || marks < max_marks) &&
           (kind = stream_next(r, &it, &ignored)) == STREAM_MARK) {
        marks++;
        files += it.mark.n_inputs;
        for (int64_t i = 0; i < it.mark.tally.n; i++)
            docs += it.mark.tally.v[i].docs; /* stream_tally has checked that it fits */
        /* A mark without inputs stands inside an input, where no run can begin again. */
        if (it.mark.n_inputs == 0)
            continue;
        s->marks = marks;
        s->files = files;
        s->docs = docs;
        s->bytes = stream_offset(r);
    }
    s->there &= s->marks > 0;
    if (kind == E_SYS || kind == E_IO) {
        *e = ignored;
        return kind;
    }
    return 0;
}

int journal_look(struct journal_state *s, const char *folder, int64_t max_marks, struct err *e)
{
    struct stream_reader *r = NULL;
    uint64_t manifest;
    int fd = -1, rc;

    *s = (struct journal_state){ .there = false };
    if ((rc = manifest_hash(folder, &s->manifest, e)) < 0 ||
        (rc = open_marks(folder, &fd, e)) < 0 || fd < 0)
        return rc;
    if ((rc = stream_open(&r, fd, MARKS, e)) == 0) {
        s->info = *stream_info(r);
        rc = look(s, r, max_marks, e);
        if (rc == 0 && s->there && stream_version(r) != STREAM_VERSION) {
            rc = err_set(e, E_CONFIG, "the journal in '%s' has version %d, from an older lpack: "
                         "this one continues version %d", folder, stream_version(r),
                         STREAM_VERSION);
            err_hint(e, "start over: rm '%s/" MARKS "'", folder);
        }
    } else if (rc == E_DATA) {
        rc = 0; /* it was killed before that was written */
    }
    stream_close(r);
    close(fd);
    if (rc < 0 || !s->there) {
        manifest = s->manifest;
        journal_state_free(s);
        s->manifest = manifest;
    }
    return rc;
}

void journal_state_free(struct journal_state *s)
{
    free(s->recipe);
    *s = (struct journal_state){ .there = false };
}

int journal_each(const struct journal_state *s, const char *folder, journal_fn *fn, void *ctx,
                 struct err *e)
{
    struct stream_reader *r = NULL;
    struct stream_item it;
    int64_t marks = 0;
    int fd = -1, rc = open_marks(folder, &fd, e);

    if (rc < 0 || fd < 0)
        return rc < 0 ? rc : err_set(e, E_DATA, "the journal in '%s' is gone", folder);
    rc = stream_open(&r, fd, MARKS, e);
    while (rc >= 0 && marks < s->marks && (rc = stream_next(r, &it, e)) > 0)
        if (rc == STREAM_MARK) {
            marks++;
            rc = fn(ctx, &it.mark, e);
        }
    stream_close(r);
    close(fd);
    return rc < 0 ? rc : 0;
}

struct journal {
    char *folder;
    int fd;
    struct buf waiting; /* marks that are not in the file yet */
    bool failed, begun; /* begun: a mark that names inputs is in the file */
    int64_t files, safe_files;
    double synced_s, took_s;
};

void journal_remove(const char *folder)
{
    static const char *const name[] = { MARKS, DOCS, INDEX };

    for (size_t i = 0; i < sizeof name / sizeof *name; i++) { /* in this order: see journal.h */
        char *path = path_join(folder, name[i]);
        unlink(path);
        free(path);
    }
}

/* The journal with its RUN alone, in place of what stood there. */
static int begin(struct journal *j, const char *path, const struct token_info *info,
                 const struct stream_run *run, struct err *e)
{
    struct stream_writer *w;
    int rc;

    journal_remove(j->folder);
    j->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (j->fd < 0)
        return err_sys(e, E_CREATE, "cannot create '%s'", path);
    if ((rc = stream_create(&w, j->fd, path, info, e)) < 0)
        return rc;
    if ((rc = stream_run(w, run, e)) == 0)
        rc = stream_flush(w, e);
    /* No END: marks are added behind what is there. */
    stream_abandon(w);
    return rc;
}

/* Opens the journal of an earlier run and cuts off what stands behind the marks that count. */
static int go_on(struct journal *j, const char *path, const struct journal_state *s,
                 struct err *e)
{
    j->fd = open(path, O_WRONLY | O_CLOEXEC);
    if (j->fd < 0)
        return err_sys(e, E_CREATE, "cannot open '%s'", path);
    if (ftruncate(j->fd, s->bytes) < 0 || lseek(j->fd, s->bytes, SEEK_SET) < 0)
        return err_sys(e, E_IO, "cannot truncate '%s'", path);
    j->files = j->safe_files = s->files;
    return 0;
}

int journal_open(struct journal **out, const char *folder, const struct journal_state *s,
                 const struct token_info *info, const struct stream_run *run,
                 struct shuffle **aside, struct err *e)
{
    struct journal *j = calloc(1, sizeof *j);
    char *path = path_join(folder, MARKS), *docs = path_join(folder, DOCS),
         *index = path_join(folder, INDEX);
    int rc = 0;

    *out = NULL;
    *aside = NULL;
    if (!j || !(j->folder = strdup(folder))) {
        free(j);
        j = NULL;
        rc = err_set(e, E_SYS, "out of memory");
    }
    if (rc == 0) {
        j->fd = -1;
        j->begun = s != NULL;
        rc = s ? go_on(j, path, s, e) : begin(j, path, info, run, e);
    }
    if (rc == 0)
        rc = shuffle_open_at(aside, docs, index, s ? s->docs : 0, e);
    if (rc == 0)
        rc = file_sync(folder, e); /* their names */
    if (rc < 0 && s)
        err_hint(e, "start over: rm '%s'", path);
    if (rc < 0) {
        shuffle_close(*aside);
        *aside = NULL;
        if (j)
            j->failed = true;
        journal_close(j, NULL);
        j = NULL;
    }
    *out = j;
    free(path);
    free(docs);
    free(index);
    return rc;
}

/* The documents first, then the marks that speak of them: a mark on disk is always true. */
int journal_sync(struct journal *j, struct shuffle *aside, struct err *e)
{
    double start_s = now_s();
    int rc = shuffle_sync(aside, e);

    if (rc == 0)
        rc = file_write_all(j->fd, j->waiting.p, j->waiting.len, j->folder, e);
    if (rc == 0 && fdatasync(j->fd) < 0)
        rc = err_sys(e, E_IO, "cannot sync the journal in '%s'", j->folder);
    j->failed = rc < 0;
    j->waiting.len = 0;
    j->synced_s = now_s();
    j->took_s = j->synced_s - start_s;
    if (rc == 0) {
        j->safe_files = j->files;
        j->begun |= j->files > 0;
    }
    return rc;
}

/* Marks wait for a sync until 20 times as long has passed as the last sync took, but at
 * least 20 ms, or until there are 4 MiB of them. */
int journal_mark(struct journal *j, const struct stream_mark *m, struct shuffle *aside,
                 struct err *e)
{
    double after_s = SELDOM * j->took_s;
    int rc = stream_mark_frame(m, &j->waiting, e);

    if (rc < 0)
        return rc;
    j->files += m->n_inputs;
    if (after_s < SOON_S)
        after_s = SOON_S;
    if (now_s() - j->synced_s < after_s && j->waiting.len < WAITING_BYTES)
        return 0;
    return journal_sync(j, aside, e);
}

int64_t journal_close(struct journal *j, struct shuffle *aside)
{
    int64_t safe;

    if (!j)
        return 0;
    if (aside && !j->failed && j->waiting.len)
        journal_sync(j, aside, NULL);
    safe = j->safe_files;
    if (j->fd >= 0)
        close(j->fd);
    /* Without a mark that names inputs nothing could be continued. */
    if (!j->begun)
        journal_remove(j->folder);
    buf_free(&j->waiting);
    free(j->folder);
    free(j);
    return safe;
}
