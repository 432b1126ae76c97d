/* eval/figures.c - the figures of a score; see score.h. */
#include "eval/score.h"

#include <math.h>

/* loss is a mean per token, in nats. Times tokens it is the loss of the whole text, which is
 * then divided by its words or bytes; M_LN2 turns nats into bits. */
double score_ppl(const struct score *s) { return exp(s->loss); }
double score_word_ppl(const struct score *s)
{
    return s->words > 0 ? exp(s->loss * (double)s->tokens / s->words) : 0;
}
double score_byte_ppl(const struct score *s)
{
    return s->bytes > 0 ? exp(s->loss * (double)s->tokens / s->bytes) : 0;
}
double score_bits_per_byte(const struct score *s)
{
    return s->bytes > 0 ? s->loss * (double)s->tokens / s->bytes / M_LN2 : 0;
}
