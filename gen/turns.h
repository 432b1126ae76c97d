/* gen/turns.h - conversations as the text that a model was trained on. */
#ifndef GEN_TURNS_H
#define GEN_TURNS_H
#include "base/bytes.h"
#include "formats/tokenizer/chat.h"
#include "formats/tokenizer/tokenizer.h"
C_BEGIN

/* How turns are written, as an option has it. CHAT_OTHER is none: messages as they stand, one after another. */
#define TURNS_OPTION(id, name) "|" name
#define TURNS_NONE "none"
#define TURNS_FORMS TURNS_NONE CHAT_FORMS(TURNS_OPTION)
const char *turns_name(enum chat_form f);

enum turn_role { TURN_SYSTEM, TURN_USER, TURN_ASSISTANT };
struct message {
    enum turn_role role;
    const char *text; /* UTF-8; white space at its ends goes where the template trims it */
    size_t n;
};

/* By the chat template of a model's folder: *f is its form, CHAT_OTHER where it has none or one that is
 * none of these, and then *known is false. Errors of chat_template. */
int turns_recognise(const char *folder, enum chat_form *f, bool *known, struct err *e);

/* Ids of a conversation, up to where the assistant's next reply begins; a system message comes first if
 * at all. BOS and EOS stand where the form has them; CHAT_OTHER begins with BOS where the tokenizer has
 * one and bos is set. *ids is malloc'ed. E_USAGE: roles that do not follow one another. E_DATA, E_SYS. */
int turns_ids(enum chat_form f, const struct tokenizer *t, bool bos, const struct message *m, int n,
              int32_t **ids, int64_t *n_ids, struct err *e);

/* What ends an assistant's reply beside EOS; NULL: nothing else. */
const char *turns_stop(enum chat_form f);

C_END
#endif
