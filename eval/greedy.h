/* eval/greedy.h - what a model says to prompts, always the likeliest token; several at once. */
#ifndef EVAL_GREEDY_H
#define EVAL_GREEDY_H
#include "formats/tokenizer/tokenizer.h"
#include "model/session.h"
C_BEGIN

/* A prompt and its reply. ids is the caller's; reply has room for most. */
struct turn {
    const int32_t *ids;
    int64_t n;
    int32_t *reply;
    int64_t replied;   /* tokens of it; EOS, which ends one, is not among them */
};

/* Replies of up to most tokens to n prompts, no more than the cache of s has texts. What they are
 * depends on which prompts go together only as rounding does. E_CONFIG (no room), E_DATA (an id, or a
 * model that gives no number), E_DEVICE, E_SYS. */
int greedy_replies(struct session *s, int32_t eos, struct turn *t, int64_t n, int64_t most,
                   struct err *e);
/* The text of a reply, behind what out has. */
int greedy_text(const struct tokenizer *t, const int32_t *ids, int64_t n, struct buf *out,
                struct err *e);

C_END
#endif
