/* prep/removed.h - the list of documents that were left out, and of what each is a copy. */
#ifndef PREP_REMOVED_H
#define PREP_REMOVED_H
#include "base/err.h"
#include "formats/tokens/tally.h"
#include <stdbool.h>
#include <stdint.h>
C_BEGIN

/*
 * A line of JSON for each, in the order of the input:
 *   {"name": "b.jsonl:7", "source": "web", "reason": "near_copies", "of": "a.jsonl:3"}
 * name: as in token streams; reason: as in --stats. Copies have "of", the name of the kept
 * document that had the text first, or the first band that agrees; null where only the filter of
 * --dedup has it, which keeps no names (then "probability" says how likely a document that is no
 * copy is to be taken for one there), or where an earlier run kept it (--resume). Bad documents
 * have "error" and no source.
 * Names of kept documents wait in a temporary file. One thread at a time.
 */
struct removed;
/* append: behind what the file holds. E_CREATE, E_SYS. */
int removed_open(struct removed **r, const char *path, bool append, struct err *e);
/* rc, or why the list cannot be written. NULL is fine. */
int removed_close(struct removed *r, int rc, struct err *e);
/* The number that the next document gets if it is kept; 0: none, after 2^32 - 1 of them. */
uint32_t removed_next(const struct removed *r);
int removed_kept(struct removed *r, const char *name, struct err *e);
/* of: such a number, or 0 where it is not known; probability < 0: not told. */
int removed_copy(struct removed *r, const char *name, const char *source, enum drop why,
                 uint32_t of, double probability, struct err *e);
int removed_other(struct removed *r, const char *name, const char *source, enum drop why,
                  struct err *e);
int removed_bad(struct removed *r, const char *name, const char *error, struct err *e);

C_END
#endif
