/* eval/figures.c - the figures of a score; see score.h. */
#include "eval/score.h"

#include <math.h>

double score_ppl(const struct score *s) { return exp(s->loss); }
double score_word_ppl(const struct score *s)
{
    return s->words > 0 ? exp(s->text_nll / s->words) : 0;
}
double score_byte_ppl(const struct score *s)
{
    return s->bytes > 0 ? exp(s->text_nll / s->bytes) : 0;
}
double score_bits_per_byte(const struct score *s)
{
    return s->bytes > 0 ? s->text_nll / s->bytes / M_LN2 : 0; /* nats to bits */
}
