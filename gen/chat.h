/* gen/chat.h - conversations as the text that a model was trained on. */
#ifndef GEN_CHAT_H
#define GEN_CHAT_H
#include "base/bytes.h"
#include "formats/tokenizer/tokenizer.h"
C_BEGIN

/* none: messages as they stand, one after another. */
#define CHATS "none|llama2|alpaca|chatml|llama3|mistral"
enum chat { CHAT_NONE, CHAT_LLAMA2, CHAT_ALPACA, CHAT_CHATML, CHAT_LLAMA3, CHAT_MISTRAL, CHATS_N };
const char *chat_name(enum chat c);

enum chat_role { CHAT_SYSTEM, CHAT_USER, CHAT_ASSISTANT };
struct message {
    enum chat_role role;
    const char *text; /* UTF-8; white space at its ends goes where the template trims it */
    size_t n;
};

/* By the chat_template of tokenizer_config.json in a model's folder: *c is one of these where the
 * template has its marks, else CHAT_NONE, and *known false where there is a template that is none of them.
 * E_DATA (JSON). */
int chat_recognise(const char *folder, enum chat *c, bool *known, struct err *e);

/* Ids of a conversation, up to where the assistant's next reply begins; a system message comes first if
 * at all. BOS and EOS stand where the template has them; CHAT_NONE begins with BOS where the
 * tokenizer has one and bos is set. *ids is malloc'ed. E_USAGE: roles that do not follow one another.
 * E_DATA, E_SYS. */
int chat_ids(enum chat c, const struct tokenizer *t, bool bos, const struct message *m, int n,
             int32_t **ids, int64_t *n_ids, struct err *e);

/* What ends an assistant's reply beside EOS; NULL: nothing else. */
const char *chat_stop(enum chat c);

C_END
#endif
