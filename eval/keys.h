/* eval/keys.h - key tokens: those of a text that a model tells only by what is far before them. */
#ifndef EVAL_KEYS_H
#define EVAL_KEYS_H
#include "base/err.h"
#include <stdbool.h>
#include <stdint.h>
C_BEGIN

/*
 * PKU-ML/LongPPL, longppl.py, find_key_token (Fang et al. 2024, arXiv:2410.23771; Apache-2.0): token t of a
 * document is one if full < 2 and short - full > 2, where full is its loss with all tokens before it, and
 * short with those from the start of a window: windows begin every 'slide' tokens, are short_ctx + slide long,
 * and tell of their last slide tokens. Nats.
 */
#define KEYS_ALPHA 2.0f /* short - full above this */
#define KEYS_BETA 2.0f  /* full below this: there -beta, with beta -2 */
static inline bool key_token(float loss_short, float loss_full)
{
    return loss_short - loss_full > KEYS_ALPHA && loss_full < KEYS_BETA;
}

/* The key tokens of documents at contexts, for other models to be measured at. Zero it; keys_free. */
struct keys {
    struct key_list {
        int64_t ctx, doc;
        int64_t *at; /* [n], ascending: tokens of the document, from 0 */
        int64_t n;
    } *v; /* [n]: by context, then by document */
    int64_t n, cap;
    char by[128];       /* the model that found them */
    uint64_t data_hash;
    int64_t short_ctx, slide;
};
void keys_free(struct keys *k);
/* A copy of n tokens, as the last list. E_SYS. */
int keys_add(struct keys *k, int64_t ctx, int64_t doc, const int64_t *at, int64_t n, struct err *e);
/* NULL: there is none for that context and document. */
const struct key_list *keys_find(const struct keys *k, int64_t ctx, int64_t doc);

/* To a file and back: JSON, as leval(1) says. The text is untrusted. E_CREATE, E_IO; E_NOINPUT, E_DATA. */
int keys_write(const struct keys *k, const char *path, struct err *e);
int keys_read(struct keys *k, const char *path, struct err *e);

C_END
#endif
