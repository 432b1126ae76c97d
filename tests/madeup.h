/* tests/madeup.h - a family that is described here alone: all that layer.c can branch on. */
#ifndef TESTS_MADEUP_H
#define TESTS_MADEUP_H
#include "formats/weights/arch.h"

#define MADE "net.blocks.#."
static const struct tensor_def made_tensors[] = {
    { "net.words.weight", ROLE_EMBED, SIZE_VOCAB, SIZE_DIM, true },
    { "net.out.weight", ROLE_HEAD, SIZE_VOCAB, SIZE_DIM, false },
    { MADE "pre.weight", ROLE_ATTN_NORM, SIZE_DIM, SIZE_NONE, true },
    { MADE "att.wv.weight", ROLE_V, SIZE_KV, SIZE_DIM, false },
    { MADE "att.wv.bias", ROLE_V_BIAS, SIZE_KV, SIZE_NONE, false },
    { MADE "att.wq.weight", ROLE_Q, SIZE_Q, SIZE_DIM, false },
    { MADE "att.wq.bias", ROLE_Q_BIAS, SIZE_Q, SIZE_NONE, false },
    { MADE "att.wk.weight", ROLE_K, SIZE_KV, SIZE_DIM, false },
    { MADE "att.wk.bias", ROLE_K_BIAS, SIZE_KV, SIZE_NONE, false },
    { MADE "att.qn.weight", ROLE_Q_NORM, SIZE_HEAD_DIM, SIZE_NONE, true },
    { MADE "att.kn.weight", ROLE_K_NORM, SIZE_HEAD_DIM, SIZE_NONE, true },
    { MADE "att.wo.weight", ROLE_O, SIZE_DIM, SIZE_Q, false },
    { MADE "att.wo.bias", ROLE_O_BIAS, SIZE_DIM, SIZE_NONE, false },
    { MADE "mid.weight", ROLE_MLP_NORM, SIZE_DIM, SIZE_NONE, true },
    { MADE "ffn.g.weight", ROLE_GATE, SIZE_FFN, SIZE_DIM, false },
    { MADE "ffn.g.bias", ROLE_GATE_BIAS, SIZE_FFN, SIZE_NONE, false },
    { MADE "ffn.u.weight", ROLE_UP, SIZE_FFN, SIZE_DIM, false },
    { MADE "ffn.u.bias", ROLE_UP_BIAS, SIZE_FFN, SIZE_NONE, false },
    { MADE "ffn.d.weight", ROLE_DOWN, SIZE_DIM, SIZE_FFN, false },
    { MADE "ffn.d.bias", ROLE_DOWN_BIAS, SIZE_DIM, SIZE_NONE, false },
    { "net.last.weight", ROLE_LAST_NORM, SIZE_DIM, SIZE_NONE, true },
};
enum { MADE_TENSORS = sizeof made_tensors / sizeof *made_tensors };
static const struct arch made_family = { "made", "MadeForCausalLM", made_tensors, MADE_TENSORS,
                                  { NORM_RMS, ACT_SILU, .rotary = 0.7, .windows = WINDOWS_ALL }, { .tied = false } };

#endif
