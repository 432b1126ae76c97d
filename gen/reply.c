/* gen/reply.c - see reply.h. */
#include "gen/reply.h"

#include "gen/stops.h"

#include <stdlib.h>
#include <string.h>

const char *reply_end_word(enum reply_end why)
{
    static const char *const words[] = { "goes on", "eos", "stop", "length" };

    return words[why];
}

int reply_open(struct reply *r, const struct reply_options *o, const struct tokenizer *t,
               int64_t vocab, uint64_t number, const int32_t *ids, int64_t n, struct err *e)
{
    int rc;

    *r = (struct reply){ .o = o, .t = t, .end = o->max_tokens > 0 ? REPLY_GOES_ON : REPLY_LENGTH };
    if ((rc = sampler_open(&r->sampler, &o->sampling, vocab, number, e)) < 0 ||
        (rc = tokenizer_stream_open(&r->stream, t, e)) < 0) {
        reply_close(r);
        return rc;
    }
    for (int64_t i = 0; i < n; i++)
        sampler_saw(r->sampler, ids[i]);
    return 0;
}

void reply_close(struct reply *r)
{
    sampler_close(r->sampler);
    tokenizer_stream_close(r->stream);
    buf_free(&r->text);
    free(r->ids);
    free(r->logprobs);
    *r = (struct reply){ 0 };
}

static int keep(struct reply *r, int32_t id, double logprob, struct err *e)
{
    if (r->n == r->cap) {
        int64_t cap = r->cap ? 2 * r->cap : 64;
        int32_t *ids = realloc(r->ids, (size_t)cap * sizeof *ids);
        double *logprobs = ids ? realloc(r->logprobs, (size_t)cap * sizeof *logprobs) : NULL;

        r->ids = ids ? ids : r->ids;
        if (!ids || !logprobs)
            return err_set(e, E_SYS, "out of memory");
        r->logprobs = logprobs;
        r->cap = cap;
    }
    r->ids[r->n] = id;
    r->logprobs[r->n++] = logprob;
    return 0;
}

/* What may be shown grows; a stop string ends it. */
static void look(struct reply *r)
{
    bool stopped;

    r->given += stops_ready(r->o->stop, r->o->n_stop, &r->text, r->given,
                            r->end != REPLY_GOES_ON, &stopped);
    if (stopped)
        r->end = REPLY_STOP;
}

int reply_next(struct reply *r, float *logits, int32_t *id, struct err *e)
{
    double logprob;
    int rc = sampler_pick(r->sampler, logits, id, &logprob, e);

    if (rc < 0)
        return rc;
    if (*id == tokenizer_eos(r->t) && !r->o->ignore_eos) {
        r->end = REPLY_EOS;
    } else {
        /* a head may have more rows than the tokenizer has pieces: such an id has no text */
        if ((rc = keep(r, *id, logprob, e)) == 0 && *id < tokenizer_vocab(r->t))
            rc = tokenizer_stream_next(r->stream, *id, &r->text, e);
        look(r);
        if (r->end == REPLY_GOES_ON && r->n >= r->o->max_tokens)
            r->end = REPLY_LENGTH;
    }
    if (rc == 0 && (r->end == REPLY_EOS || r->end == REPLY_LENGTH)) {
        rc = tokenizer_stream_end(r->stream, &r->text, e);
        look(r);
    }
    return rc;
}
