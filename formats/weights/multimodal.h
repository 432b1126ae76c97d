/* formats/weights/multimodal.h - models with eyes or ears whose language model is one of a family here. */
#ifndef FORMATS_WEIGHTS_MULTIMODAL_H
#define FORMATS_WEIGHTS_MULTIMODAL_H
#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
C_BEGIN

/*
 * Such a model's config.json has that of the language model as "text_config", and its files have the
 * language model's tensors under a prefix (naming.h) beside those of a vision tower and a projector. Of
 * text alone it computes what the language model computes: that part is read, trained and written again;
 * all else stays as it is.
 */
struct naming;
struct multimodal {
    const char *model_type;
    const char *text;   /* model_type of text_config where that does not say */
    bool only;          /* and it can be no other */
    bool tied;          /* what a missing tie_word_embeddings of the top means to transformers 5 */
    const char *since;  /* first version of transformers that has it */
    const struct naming *names; /* of the language model's tensors; first those of its modules in memory */
    const char *why;    /* not NULL: it is refused, as this says */
};
static inline const struct naming *multimodal_names(const struct multimodal *m) { return m ? m->names : NULL; }
/* NULL: none is known by that name. */
const struct multimodal *multimodal_find(const char *model_type);
const struct multimodal *multimodal_nth(int i); /* NULL past the last */

struct js;
struct arch;
/* Puts into text, the object text_config of top, what transformers takes where the file does not say:
 * model_type, sizes, ids of the top. E_CONFIG where it has a text_config of its own, or is of another
 * family than the model's class can have. */
int multimodal_fill(const struct multimodal *m, const struct js *top, const struct js *text, struct err *e);

C_END
#endif
