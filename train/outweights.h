/* train/outweights.h - the file of a model that was trained whole (internal to outdir.c). */
#ifndef TRAIN_OUTWEIGHTS_H
#define TRAIN_OUTWEIGHTS_H
#include "formats/weights/safetensors.h"
#include "model/model.h"
#include "train/settings.h"

/* Writes OUT/model.safetensors, a piece at a time, the trained tensors in type. Of a multimodal base (s->model) the
 * names are its files', and what it has beside its language model is copied. The file appears under
 * its name only when it is complete; a failure leaves none. */
int outweights_write(const struct settings *s, struct device *d, struct model *m, const struct tensor_type *type,
                     const struct st_note *notes, struct err *e);

#endif
