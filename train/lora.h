/* train/lora.h - which LoRA pairs a run trains, and what beside them, by its options. */
#ifndef TRAIN_LORA_H
#define TRAIN_LORA_H
#include "train/settings.h"
C_BEGIN

/* The lists of --targets, --rank-pattern, --alpha-pattern and --trainable, without a model: words and
 * names, numbers. E_USAGE naming the word. */
int lora_check(const struct settings *s, struct err *e);
/* The same for the modules of c, into o: targets, pairs (which s owns, until lora_free), rslora, whole,
 * dropout. E_USAGE for what is no module of c's. */
int lora_resolve(struct settings *s, const struct llama_config *c, struct model_options *o,
                 struct err *e);
void lora_free(struct settings *s);
/* A LoRA mode that trains the embedding or the head, which a base may have in one. */
bool lora_trains_ends(const struct settings *s);

C_END
#endif
