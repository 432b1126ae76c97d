/* gen/ask.h - what one question is: files, a prompt, and the ids that they are. */
#ifndef GEN_ASK_H
#define GEN_ASK_H
#include "gen/asked.h"
C_BEGIN

/* Ids of what the options ask with: files, the prompt, the chat's texts round them. *files: of its
 * beginning, so many bytes are the files'. One of no prompt and no file reads standard input. E_NOINPUT, E_DATA,
 * E_USAGE. */
struct question {
    struct buf text;             /* files, then the prompt */
    size_t files_bytes;
    int32_t *ids;
    int64_t n, files_n;          /* files_n: ids that the files alone begin with */
};
int question_read(struct question *q, const struct opening *g, struct err *e);
void question_free(struct question *q);
/* A file's text behind what is there. E_NOINPUT, E_DATA (not UTF-8), E_SYS. */
int question_add_file(struct buf *out, const char *path, struct err *e);

C_END
#endif
