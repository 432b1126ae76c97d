/* formats/weights/checkpoint.h - a training checkpoint: a folder published whole, found by looking. */
#ifndef FORMATS_WEIGHTS_CHECKPOINT_H
#define FORMATS_WEIGHTS_CHECKPOINT_H
#include "base/bytes.h"
#include "base/err.h"
#include <stdint.h>
C_BEGIN

/*
 * root/step-00000100/ holds state.safetensors and MANIFEST.json, which names size and XXH3-128
 * of every other file, and ends in a hash of itself. Layout: formats/weights/checkpoint.md.
 *
 * Publishing: the folder is filled as step-00000100.tmp, all of it is fsynced, the manifest
 * last, then it is renamed and root is fsynced. Removing: the manifest goes first. So a folder
 * that has the final name and a manifest is whole, whenever the writer was killed.
 */
#define CHECKPOINT_MANIFEST "MANIFEST.json"
#define CHECKPOINT_MAX_FILES 16
#define CHECKPOINT_MAX_MANIFEST (1 << 20) /* bytes; a larger one is refused */

struct checkpoint_file {
    char name[64];
    int64_t nbytes;
    char xxh3[33]; /* as xxh128sum prints it */
};
struct checkpoint {
    int64_t step;    /* steps done */
    int64_t tokens;  /* tokens seen */
    int64_t updates; /* optimizer steps: step less what was skipped */
    int64_t skipped; /* steps whose loss or gradient was not finite */
    int64_t streak;  /* of those, how many stand at the end without a good one between */
    uint64_t data_hash;
    char device[320]; /* name and detail, for people: other hardware rounds differently */
    char *run;        /* JSON object: the settings that change results; malloc'ed */
    struct checkpoint_file file[CHECKPOINT_MAX_FILES];
    int n_files;
};
/* The step in a folder's name "step-00000100"; -1: it is no checkpoint's. */
int64_t checkpoint_step(const char *name);
void checkpoint_free(struct checkpoint *c); /* its run; then zeroes it */

/* The manifest's bytes to a checkpoint: E_DATA naming field and file. Names of other than
 * letters, digits, '.', '-', '_', with a leading dot, or given twice are refused. c is zero or
 * valid afterwards either way. */
int checkpoint_parse(struct checkpoint *c, const char *json, size_t nbytes, const char *name,
                     struct err *e);
int checkpoint_format(const struct checkpoint *c, struct buf *out, struct err *e);

/* An empty folder root/step-N.tmp; *folder is its malloc'ed path. E_CREATE, E_IO. */
int checkpoint_begin(const char *root, int64_t step, char **folder, struct err *e);
/* Hashes what the caller put there, writes the manifest and publishes; c->file is filled in.
 * On failure the folder is removed and the older checkpoints stand. E_IO, E_CREATE. */
int checkpoint_commit(const char *root, struct checkpoint *c, struct err *e);
/* Removes what checkpoint_begin made, after the caller failed. */
void checkpoint_abandon(const char *root, int64_t step);
/* Keeps the newest 'keep' (at least 1) of those at or before step. E_IO. */
int checkpoint_prune(const char *root, int64_t step, int64_t keep, struct err *e);
/* Removes what killed writers and removers left: *.tmp, and folders without a manifest. */
int checkpoint_sweep(const char *root, struct err *e);

/* The newest checkpoint whose manifest and files agree: 1 and *c, *folder (malloc'ed); 0 where
 * there is none (or no root). One that fails is told to bad(ctx, path, why) and the one before
 * is tried; once a good one is found, those that failed are renamed to step-N.bad. E_DATA when
 * there were some and all failed: then nothing is renamed. */
typedef void checkpoint_bad_fn(void *ctx, const char *folder, const struct err *why);
int checkpoint_find(const char *root, struct checkpoint *c, char **folder,
                    checkpoint_bad_fn *bad, void *ctx, struct err *e);
/* The manifest alone of the newest checkpoint that has a good one, its other files unread: 1; 0 and
 * an empty *c where there is none; E_SYS. */
int checkpoint_newest(const char *root, struct checkpoint *c, struct err *e);
/* Every file of a folder against its manifest. E_DATA. */
int checkpoint_verify(const char *folder, struct checkpoint *c, struct err *e);

C_END
#endif
