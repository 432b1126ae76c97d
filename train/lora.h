/* train/lora.h - which LoRA pairs a run trains, and what beside them, by its options. */
#ifndef TRAIN_LORA_H
#define TRAIN_LORA_H
#include "model/model.h"
C_BEGIN

/* Options of ltrain. Strings point into argv. */
struct lora_lists {
    const char *targets;       /* q,k,v,o */
    const char *rank_pattern, *alpha_pattern; /* down=16,layers.0.mlp.up_proj=4; NULL: none */
    const char *trainable;     /* embed,norm,head; NULL: what the mode says */
    bool rslora;
    double dropout;
    struct adapter_pairs *pairs; /* by lora_resolve, for the model; lora_free gives it back */
};

/* The lists, without a model: words and names, numbers. full: no LoRA. E_USAGE naming the word. */
int lora_check(const struct lora_lists *l, bool full, struct err *e);
/* The same for the modules of c, and o's mode, rank and alpha, into the rest of o: targets, pairs,
 * rslora, whole, dropout. E_USAGE for what is no module of c's. */
int lora_resolve(struct lora_lists *l, const struct llama_config *c, struct model_options *o,
                 struct err *e);
void lora_free(struct lora_lists *l);
/* A LoRA mode trains the embedding or the head, which a base may have in one. plus: lora+. */
bool lora_trains_ends(const struct lora_lists *l, bool plus);

C_END
#endif
