/* gen/talk.h - prompts answered: one, a conversation, or many from a file. */
#ifndef GEN_TALK_H
#define GEN_TALK_H
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

/* Answers q on standard output; the session is loaded. */
int talk_once(struct opening *g, const struct question *q, struct err *e);
/* Lines of standard input, each answered with all before in mind, until its end. */
int talk_on(struct opening *g, struct err *e);
/* many.c: prompts of o->batch, a JSON object a line, to standard output. E_DATA where some could not be
 * answered: their lines say why. */
int talk_many(struct opening *g, struct err *e);

C_END
#endif
