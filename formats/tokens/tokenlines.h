/* formats/tokens/tokenlines.h - documents of token ids as JSON, one a line. */
#ifndef FORMATS_TOKENS_TOKENLINES_H
#define FORMATS_TOKENS_TOKENLINES_H
#include "base/bytes.h"
#include "base/err.h"
#include "formats/tokens/stream.h"
C_BEGIN

/* The keys stand in tokenlines.md. A file is a head, documents, and an end that counts them. */

/* Writing, a line or a part of one at the end of out. E_SYS; E_DATA (a text, not NULL, that is
 * not UTF-8). A document's ids come in pieces between tokenline_begin, which looks at all of
 * doc but ids and runs, and tokenline_finish. */
int tokenline_head(struct buf *out, const struct token_info *info, struct err *e);
int tokenline_begin(struct buf *out, const struct token_doc *doc, struct err *e);
int tokenline_ids(struct buf *out, const int32_t *ids, int64_t n, bool first, struct err *e);
int tokenline_finish(struct buf *out, const struct mask_run *runs, int64_t n_runs,
                     const char *text, size_t text_bytes, struct err *e);
int tokenline_end(struct buf *out, int64_t docs, int64_t tokens, struct err *e);

enum tokenline { TOKENLINE_HEAD = 1, TOKENLINE_DOC, TOKENLINE_END };
/* What a line said; zero it before the first, free it with tokenline_free. */
struct tokenline_read {
    struct token_info info;  /* HEAD */
    struct token_doc doc;    /* DOC: valid until the next line; ids not held against a vocab */
    int64_t docs, tokens;    /* END */
    struct buf ids, runs, source, name;
};
/* One line; name is for messages. What kind it was, or E_DATA, E_SYS. */
int tokenline_read(struct tokenline_read *r, const char *line, size_t n, const char *name,
                   struct err *e);
void tokenline_free(struct tokenline_read *r);

C_END
#endif
