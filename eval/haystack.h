/* eval/haystack.h - the text that probes hide their answers in, out of files. */
#ifndef EVAL_HAYSTACK_H
#define EVAL_HAYSTACK_H
#include "base/bytes.h"
#include "base/opt.h"
C_BEGIN

#define HAYSTACK_MOST ((size_t)64 << 20) /* bytes that are taken; the rest is not read */

/* Text of files, folders, archives, compressed or not (formats/text/source.h), in their order, a line
 * end between two: all of a text, "text" of JSON objects. E_NOINPUT; E_DATA (not UTF-8, nothing). */
int haystack_read(struct buf *out, const struct opt_list *files, struct err *e);

C_END
#endif
