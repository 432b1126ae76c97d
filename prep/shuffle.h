/* prep/shuffle.h - documents set aside, then read back in an order that a seed names. */
#ifndef PREP_SHUFFLE_H
#define PREP_SHUFFLE_H
#include "base/err.h"
#include "formats/stream.h"
C_BEGIN

/* Documents and their index lie in unnamed temporary files, so memory does not grow with
 * their number; the disk holds every token once more. */
struct shuffle;
/* folder: for the temporary files; NULL: $TMPDIR or /tmp. E_SYS. */
int shuffle_open(struct shuffle **s, const char *folder, struct err *e);
void shuffle_close(struct shuffle *s); /* NULL is fine */
/* E_DATA, E_CREATE, E_IO. */
int shuffle_add(struct shuffle *s, const struct token_doc *doc, const struct token_info *info,
                struct err *e);
int64_t shuffle_docs(const struct shuffle *s);
/* The document at place i of the shuffled order, 0 <= i < shuffle_docs: that of perm_at(i, n,
 * seed). *doc is valid until the next call. E_IO. */
int shuffle_read(struct shuffle *s, int64_t i, int64_t seed, const struct token_info *info,
                 struct token_doc *doc, struct err *e);

C_END
#endif
