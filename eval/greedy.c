/* eval/greedy.c - see greedy.h. */
#include "eval/greedy.h"

#include "model/extend.h"

#include <math.h>
#include <stdlib.h>

struct talk {
    struct session *s;
    struct turn *t;
    int64_t n, most;
    int32_t eos;
    float *logits;       /* [n][vocab], of the prompts that go on, in order */
    struct piece *piece; /* [n]: the last token of each of those */
    int32_t *last;       /* [n], of every prompt */
    int64_t live;
};

/* The next token of text i by its logits: those that go on are the first 'live' pieces. */
static int choose(struct talk *k, int64_t i, const float *logits, struct err *e)
{
    struct turn *t = &k->t[i];
    int32_t id = likeliest(logits, k->s->config.vocab);

    if (id < 0 || isinf(logits[id]))
        return err_set(e, E_DATA, "the model gives no number for the next token");
    if (id == k->eos)
        return 0;
    t->reply[t->replied++] = k->last[i] = id;
    if (t->replied < k->most)
        k->piece[k->live++] = (struct piece){ i, 1, &k->last[i] };
    return 0;
}

/* Prompts one after another, each into a text of its own. */
static int read_prompts(struct talk *k, struct err *e)
{
    int rc = 0;

    for (int64_t i = 0; i < k->n && rc == 0; i++) {
        struct piece p = { i, k->t[i].n, k->t[i].ids };

        model_text_cut(k->s->model, i, 0);
        k->t[i].replied = 0;
        rc = model_extend(k->s->model, &(struct extend){ 1, &p, k->logits, false }, e);
        if (rc == 0 && k->most > 0)
            rc = choose(k, i, k->logits, e);
    }
    return rc;
}

int greedy_replies(struct session *s, int32_t eos, struct turn *t, int64_t n, int64_t most,
                   struct err *e)
{
    struct talk k = { .s = s, .t = t, .n = n, .most = most, .eos = eos };
    size_t bytes;
    int rc = 0;

    if (!mul_ok((size_t)n * sizeof *k.logits, (size_t)s->config.vocab, &bytes) ||
        !(k.logits = malloc(bytes)) || !(k.piece = malloc((size_t)n * sizeof *k.piece)) ||
        !(k.last = malloc((size_t)n * sizeof *k.last)))
        rc = err_set(e, E_SYS, "out of memory");
    if (rc == 0)
        rc = read_prompts(&k, e);
    while (rc == 0 && k.live > 0) {
        int64_t go = k.live;

        rc = model_extend(s->model, &(struct extend){ go, k.piece, k.logits, false }, e);
        k.live = 0; /* a piece is written no further than it was read */
        for (int64_t i = 0; i < go && rc == 0; i++)
            rc = choose(&k, k.piece[i].seq, k.logits + i * s->config.vocab, e);
    }
    free(k.logits);
    free(k.piece);
    free(k.last);
    return rc;
}

/* A head may have more rows than the tokenizer has pieces: such an id has no text. */
int greedy_text(const struct tokenizer *t, const int32_t *ids, int64_t n, struct buf *out,
                struct err *e)
{
    struct tokenizer_stream *s;
    int rc = tokenizer_stream_open(&s, t, e);

    if (rc < 0)
        return rc;
    for (int64_t i = 0; i < n && rc == 0; i++)
        if (ids[i] < tokenizer_vocab(t))
            rc = tokenizer_stream_next(s, ids[i], out, e);
    if (rc == 0)
        rc = tokenizer_stream_end(s, out, e);
    tokenizer_stream_close(s);
    return rc;
}
