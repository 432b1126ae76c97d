/* model/flops.h - the arithmetic that a model asks for, whoever does it. */
#ifndef MODEL_FLOPS_H
#define MODEL_FLOPS_H
#include "model/model.h"
C_BEGIN

/* Floating-point operations of the tokens that seg covers, of matrices and attention, with
 * nothing computed twice: forward alone for TRAIN_NONE, else with the backward. Frozen matrices
 * have no gradient of their own. LoRA pairs are not counted. */
double model_flops(const struct llama_config *c, enum train_mode mode,
                   const struct segments *seg);

C_END
#endif
