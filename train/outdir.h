/* train/outdir.h - the folder a run leaves: who may write there, and its final files. */
#ifndef TRAIN_OUTDIR_H
#define TRAIN_OUTDIR_H
#include "base/err.h"
#include "formats/tokens/dataset.h"
#include "model/model.h"
#include "train/settings.h"
#include <stdbool.h>
C_BEGIN

/* Makes OUT and locks it against another ltrain (*lock: close it at the end), removes what
 * killed writers left, and with s->force what an earlier run left. E_CREATE: locked, cannot be
 * made, or holds a model that is not ltrain's (s->force: it is replaced) or checkpoints that are
 * not (they never are); E_USAGE: it is the folder of the base or of the data. */
int outdir_open(const struct settings *s, int *lock, struct err *e);

/* LoRA modes: the adapter. Full: a model folder, tokenizer files copied from the base, or for
 * a fresh model the one --tokenizer names or the data was made with. Each file by rename, the
 * configuration last. */
int outdir_results(const struct settings *s, struct device *d, struct model *m,
                   const struct token_info *info, struct err *e);
/* 'from' is a tokenizer, and the one that the data of info was made with (or any, where that is
 * allowed): what outdir_results will ask of --tokenizer. E_NOINPUT, E_DATA, E_CONFIG. */
int outdir_tokenizer(const struct settings *s, const struct token_info *info, const char *from,
                     struct err *e);
/* The final files of such a run are there, in the type of --dtype. */
bool outdir_done(const struct settings *s);

C_END
#endif
