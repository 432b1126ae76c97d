/* eval/score.h - the perplexity of a model over a corpus at one context. */
#ifndef EVAL_SCORE_H
#define EVAL_SCORE_H
#include "base/err.h"
#include "eval/corpus.h"
#include "eval/windows.h"
#include "model/session.h"
#include <stdbool.h>
#include <stdint.h>
C_BEGIN

/* Bucket b holds predictions of tokens that have 2^b to 2^(b+1) - 1 tokens before them. */
enum { SCORE_BUCKETS = 40 };
struct score_bucket {
    double nll;
    int64_t n;
};

/* The same of one document; far: of predictions with at least three quarters of the context
 * before them. */
struct score_doc {
    int64_t doc;
    struct score_bucket all, far;
};
/* Documents that have windows, in their order. Zero it before use. */
struct score_docs {
    struct score_doc *v; /* owned; score_docs_free */
    int64_t n;
    size_t cap;
};
void score_docs_free(struct score_docs *d);

struct score {
    int64_t ctx, step, windows, windows_all; /* scored; of so many the protocol has */
    int64_t tokens;         /* predictions scored */
    int64_t masked;         /* others of the windows that were left out */
    int64_t read;           /* tokens the model was given */
    int64_t docs;           /* documents that scored tokens belong to */
    double nll;             /* sum over predictions, nats, float64 in order */
    double loss;            /* mean: over windows or batches of them (longlora), over tokens (others) */
    double text_nll;        /* as nll, without the BOS and EOS that no text stands behind */
    double bytes, words;    /* text behind the others; 0 unknown */
    bool text_exact;        /* whole documents; else shared out over their tokens */
    double seconds;
    double all_nll;         /* of LongPPL, whose figures above are of key tokens: all predictions, */
    int64_t all_tokens;     /* and how many; 0: another protocol */
    struct score_bucket bucket[SCORE_BUCKETS];
    const struct score_docs *by_doc; /* the caller's; NULL: not asked for */
};
/* exp(loss); inf where that is beyond a double. */
double score_ppl(const struct score *s);
/* Word perplexity exp(text_nll / words), the same by byte, and bits a byte: 0 unknown. */
double score_word_ppl(const struct score *s);
double score_byte_ppl(const struct score *s);
double score_bits_per_byte(const struct score *s);

/* Windows of the corpus under spec; join treats all documents as one stream (longlora always
 * does). E_DATA when there is nothing to score, naming what the data has. *longest_doc: tokens
 * of the longest stretch. */
int score_windows(struct window_list *l, struct corpus *c, const struct window_spec *spec,
                  bool join, int64_t *longest, struct err *e);

/* Called after every batch: windows and predictions so far, nll so far. */
typedef void score_progress(void *arg, const struct score *so_far);

/* Scores the windows: several at once, as many as rows hold, which are at most those (seqs *
 * ctx) that m was planned for. Always dense attention; a window shorter than others of its
 * batch is padded behind its end, where causality keeps it from mattering. The sums are float64
 * in the order of the windows, so equal inputs give equal bits for any number of threads. Over
 * a group of ranks (that of m's device) the batches are dealt out, and all ranks get the sums
 * of one. docs: gets the sums of each document, which windows must not cross; or NULL. E_DATA for
 * a loss that is not finite, naming the window. */
int score_run(struct score *s, struct score_docs *docs, struct session *m, int64_t rows,
              struct corpus *c, const struct window_spec *spec, const struct window_list *l,
              score_progress *progress, void *arg, struct err *e);

/* A window's length rounded up to one of about 12 an octave, to longest at most. */
int64_t score_length(int64_t len, int64_t longest);

C_END
#endif
