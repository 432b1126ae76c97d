/* gen/reply.h - one reply of a model: tokens chosen, as text that comes. */
#ifndef GEN_REPLY_H
#define GEN_REPLY_H
#include "base/bytes.h"
#include "formats/tokenizer/tokenizer.h"
#include "gen/sampler.h"
C_BEGIN

struct reply_options {
    struct sampling sampling;
    int64_t max_tokens;         /* 0: none are made */
    const char *const *stop;    /* strings; not part of the text */
    int n_stop;
    bool ignore_eos;            /* go on behind the token that ends a text */
};

enum reply_end { REPLY_GOES_ON, REPLY_EOS, REPLY_STOP, REPLY_LENGTH };
const char *reply_end_word(enum reply_end why); /* "eos", "stop", "length" */

struct reply {
    const struct reply_options *o;
    const struct tokenizer *t;
    struct sampler *sampler;
    struct tokenizer_stream *stream;
    struct buf text;            /* all that is certain; a stop string is cut off */
    size_t given;               /* of it, what may be shown: the rest may begin a stop string */
    int32_t *ids;               /* chosen, n of them; one that ends the text is not among them */
    double *logprobs;           /* of each */
    int64_t n, cap;
    enum reply_end end;
};

/* Zero it before. number: of the text, for its random numbers (sampler.h). ids: the prompt, for the
 * penalty of what was there. E_SYS. */
int reply_open(struct reply *r, const struct reply_options *o, const struct tokenizer *t,
               int64_t vocab, uint64_t number, const int32_t *ids, int64_t n, struct err *e);
void reply_close(struct reply *r);
/* The next token, of the logits float32 [vocab], which are overwritten. Afterwards end says whether
 * there is another; then *id is the one that the model is to be given. E_DATA, E_SYS. */
int reply_next(struct reply *r, float *logits, int32_t *id, struct err *e);

C_END
#endif
