/* prep/journal.h - what of an unfinished run is on disk, so that the next one goes on from it. */
#ifndef PREP_JOURNAL_H
#define PREP_JOURNAL_H
#include "base/err.h"
#include "formats/tokens/stream.h"
#include "prep/shuffle.h"
#include <stdbool.h>
#include <stdint.h>
C_BEGIN

/*
 * While lpack packs a stream that begins with RUN, its folder holds three files more:
 *   lpack.journal  the stream less its documents and END (stream.md): RUN, then the marks of
 *                  documents that are on disk
 *   lpack.docs     those documents, and perhaps some that no mark in the journal covers
 *   lpack.index    where they lie
 * lprep --resume reads the journal, says in its RUN behind how many marks it goes on, and leaves
 * out the inputs that those name. lpack cuts the files there. A mark is added only once the
 * documents before it have been synced, so what the journal says holds after a crash too.
 *
 * A journal counts for nothing once the folder's manifest is another than when it was begun (the
 * run was published), or before its first mark that names inputs.
 */
struct journal_state {
    bool there;          /* all else is 0 where it is not */
    int64_t marks;       /* up to the last one that names inputs, or as many as were asked for */
    int64_t files, docs; /* inputs that those name; documents before them */
    int64_t bytes;       /* of the file, up to there */
    uint64_t manifest;   /* of the folder, whether there is a journal or not; as stream_run's */
    char *recipe;        /* malloc'ed */
    struct token_info info;
};
/* max_marks: look no farther; -1: to its end. E_IO, E_NOINPUT, E_SYS. */
int journal_look(struct journal_state *s, const char *folder, int64_t max_marks, struct err *e);
void journal_state_free(struct journal_state *s);
/* fn for each of the first s->marks marks. As fn failed, or E_IO. */
typedef int journal_fn(void *ctx, const struct stream_mark *m, struct err *e);
int journal_each(const struct journal_state *s, const char *folder, journal_fn *fn, void *ctx,
                 struct err *e);

/* Begins one, and opens the files where documents are set aside; s: goes on from there. The
 * folder is locked by the caller. *aside is the caller's. E_CREATE, E_IO, E_DATA (files that are
 * shorter than the journal says), E_SYS. */
struct journal;
int journal_open(struct journal **j, const char *folder, const struct journal_state *s,
                 const struct token_info *info, const struct stream_run *run,
                 struct shuffle **aside, struct err *e);
/* A mark of the documents that aside holds. Synced from time to time: so seldom that it takes at
 * most a twentieth of the time. E_IO, E_CREATE, E_SYS. */
int journal_mark(struct journal *j, const struct stream_mark *m, struct shuffle *aside,
                 struct err *e);
int journal_sync(struct journal *j, struct shuffle *aside, struct err *e); /* all, now */
/* Syncs what was not, if it may (aside not NULL), and removes a journal that counts for nothing.
 * Returns how many inputs are safe. NULL is fine. */
int64_t journal_close(struct journal *j, struct shuffle *aside);
void journal_remove(const char *folder);

C_END
#endif
