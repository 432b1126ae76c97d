/* prep/shuffle.h - documents set aside, then read back, as they came or in an order that a seed
 * names. */
#ifndef PREP_SHUFFLE_H
#define PREP_SHUFFLE_H
#include "base/err.h"
#include "formats/tokens/stream.h"
#include <stdbool.h>
C_BEGIN

/*
 * Documents and their index lie in files, so memory does not grow with their number, but for
 * 48 bytes of each of 2 Mi documents while they are read back; the disk holds every token once
 * more. The shuffled order is that of a hash of the seed and of the document as it would stand
 * in a stream (ids, labels, masks): a function of the documents as a set, whatever order they
 * came in. So it does not matter how many producers there were, nor which was first. Only copies
 * that agree in name and source too are neighbours.
 */
struct shuffle;
/* Unnamed temporary files in folder; NULL: $TMPDIR or /tmp. E_SYS. */
int shuffle_open(struct shuffle **s, const char *folder, struct err *e);
/* Files that stay, of which the first keep_docs documents are taken as added: E_DATA when these
 * are not there whole. E_CREATE, E_IO, E_SYS. */
int shuffle_open_at(struct shuffle **s, const char *docs_path, const char *index_path,
                    int64_t keep_docs, struct err *e);
void shuffle_close(struct shuffle *s); /* NULL is fine */
/* E_DATA, E_CREATE, E_IO. */
int shuffle_add(struct shuffle *s, const struct token_doc *doc, const struct token_info *info,
                struct err *e);
/* Puts them on disk. E_CREATE, E_IO. */
int shuffle_sync(struct shuffle *s, struct err *e);
int64_t shuffle_docs(const struct shuffle *s);
/* Once all are added: the order they are read in. range_docs: how many are sorted at once, about;
 * 0: 2 Mi. */
void shuffle_order(struct shuffle *s, bool shuffled, int64_t seed, int64_t range_docs);
/* 1 and the next document, valid until the next call; 0 at the end. E_IO; E_DATA for files that
 * were not ours to read. */
int shuffle_next(struct shuffle *s, const struct token_info *info, struct token_doc *doc,
                 struct err *e);

C_END
#endif
