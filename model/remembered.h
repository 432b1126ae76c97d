/* model/remembered.h - where data and adapters come from, for commands that do not say it. */
#ifndef MODEL_REMEMBERED_H
#define MODEL_REMEMBERED_H
#include "base/err.h"
#include "formats/tokens/document.h"
C_BEGIN

/*
 * Data remembers the model that it was tokenised for: lprep names a tokenizer that lies beside a
 * config.json by its absolute path. An adapter remembers its base and its data: ltrain's
 * options.json has them, and the folder that their paths start from.
 *
 * Both are read from files that somebody else may have written: a path that is found is only
 * opened as a model or as data, as if the command had named it.
 */

/* The folder of the model that data (what messages call it) was made for, malloc'ed. E_USAGE
 * where it names none; E_NOINPUT where that is not there any more: both say what to do. */
int remembered_model(char **folder, const struct token_info *info, const char *data,
                     struct err *e);

/* What the run that made a folder was given; NULL: nothing. */
struct remembered {
    char *model, *data, *val;
};
/* From folder/options.json. Nothing is remembered where there is none, or none that can be read.
 * E_SYS. */
int remembered_run(struct remembered *r, const char *folder, struct err *e);
void remembered_free(struct remembered *r);
/* E_NOINPUT naming path, which 'by' remembers as its base, where no model is there. */
int remembered_there(const char *path, const char *by, struct err *e);
/* Both are there and are one folder. */
bool remembered_same(const char *a, const char *b);

C_END
#endif
