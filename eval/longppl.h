/* eval/longppl.h - LongPPL: perplexity of the tokens that need what is far before them. */
#ifndef EVAL_LONGPPL_H
#define EVAL_LONGPPL_H
#include "eval/task.h"
C_BEGIN

/*
 * --ppl FILE --longppl: exp of the mean loss of key tokens (eval/keys.h) with all of the context before them,
 * over the first ctx tokens of every document that has more than the short context. Whose key tokens: those of
 * --key-tokens FILE where it is there, else those that this model itself finds, which are written to it.
 * Beyond the reference: the evaluator has this model's tokenizer, so that a key token is a token, not a stretch
 * of text; it is given the same ids, without a BOS of its own.
 */
extern const struct task task_longppl;

C_END
#endif
