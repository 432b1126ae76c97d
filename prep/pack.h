/* prep/pack.h - what lpack does: token streams to a data set folder, or to one shard. */
#ifndef PREP_PACK_H
#define PREP_PACK_H
#include "base/err.h"
#include "formats/tokens/manifest.h"
#include "formats/tokens/stream.h"
#include "prep/split.h"
#include <stdbool.h>
#include <stdint.h>
C_BEGIN

struct pack_options {
    const char *folder;      /* NULL: one shard to fd */
    int fd;
    struct split_rules rules; /* none with fd */
    int64_t shard_tokens;    /* a shard ends before the document that would exceed it */
    bool shuffle, force;     /* force: a data set in the folder is replaced */
    bool append;             /* to the data set in the folder, which must be there */
    bool journal;            /* with folder: a stream that says so can be gone on with (journal.h) */
    bool merge;              /* of pack_set alone: splits are those of the sets */
    int64_t seed;            /* 0 .. MANIFEST_SEED_MAX; -1: that of what is appended to, or 0 */
    char **command;          /* for the manifest; made UTF-8 with '?' */
    int n_command;
    /* Called after each document, read (writing false) or written; waited_s: of all the time so far,
     * for streams to be written. May be NULL. */
    void (*progress)(void *ctx, bool writing, int64_t docs, int64_t tokens, double waited_s);
    void *progress_ctx;
};

/*
 * The folder's data set is the old one, or none, until pack_finish returns 0, and then the
 * new one, whatever happens in between: shards are written under temporary names, and
 * manifest.json is replaced last. What a killed run left is removed by the next, but for a
 * journal (journal.h): that is gone on with, or refused, or with force removed.
 */
struct pack;
/* Makes and locks the folder. E_CREATE (a data set is there and force is not; another lpack
 * is at work there; cannot create), E_SYS; with append E_NOINPUT, E_DATA, and E_CONFIG for
 * another seed: documents would change sides. *o must outlive the pack. */
int pack_open(struct pack **p, const struct pack_options *o, struct err *e);
/* Takes all documents of one stream. E_DATA, E_IO, E_CONFIG (made with another tokenizer than
 * the streams before). After a failure only pack_abandon is left. */
int pack_stream(struct pack *p, int fd, const char *name, struct err *e);
/* The same for documents that come from elsewhere: an input, then its documents. */
int pack_input(struct pack *p, const struct token_info *info, const char *name, struct err *e);
int pack_doc(struct pack *p, const struct token_doc *d, struct err *e);
/* Takes the shards of a data set folder as they are, under their splits' names: pack_write links
 * them where it can, else copies, every byte checked. Where all sets were shuffled they are put in
 * the order of their hashes, else in that of the sets. With append and merge alone.
 * E_NOINPUT, E_DATA (damage; a shard that is there already), E_CONFIG as pack_stream. */
int pack_set(struct pack *p, const char *folder, struct err *e);
/* Writes what was set aside for the shuffle and finishes all shards; E_USAGE when there was no
 * stream; E_IO, E_CREATE. What remains after it is short: a caller whose signal handler uses
 * p blocks signals from here to the end of pack_finish or pack_abandon. */
int pack_write(struct pack *p, struct err *e);
/* pack_write if that was not called, then publishes, frees p. *m, if not NULL, gets the manifest, which the
 * caller frees (with fd too, where it has one split and one nameless shard). On failure all
 * is as pack_abandon leaves it. */
int pack_finish(struct pack *p, struct manifest **m, struct err *e);
/* Removes the temporaries, and the folder if pack_open made it and no journal is in it; frees.
 * Returns how many inputs a journal has. NULL is fine. */
int64_t pack_abandon(struct pack *p);
/* The first half of pack_abandon alone, for a signal handler: async-signal-safe. */
void pack_remove_temporaries(const struct pack *p);

C_END
#endif
