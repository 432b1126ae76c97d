/* gen/talk.h - prompts answered: one, a conversation, or many from a file. */
#ifndef GEN_TALK_H
#define GEN_TALK_H
#include "gen/ask.h"
C_BEGIN

/* Answers q on standard output; the session is loaded. */
int talk_once(struct opening *g, const struct question *q, struct err *e);
/* Lines of standard input, each answered with all before in mind, until its end. */
int talk_on(struct opening *g, struct err *e);
/* many.c: prompts of o->batch, a JSON object a line, to standard output. E_DATA where some could not be
 * answered: their lines say why. */
int talk_many(struct opening *g, struct err *e);

C_END
#endif
