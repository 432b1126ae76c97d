/* train/defaults.h - what a command of ltrain leaves out and its data remembers. */
#ifndef TRAIN_DEFAULTS_H
#define TRAIN_DEFAULTS_H
#include "train/settings.h"
C_BEGIN

/* The model that the data was tokenised for, where neither --model nor --init nor --shape is given;
 * the folder of the results where there is no -o: "adapter", of a full model "model". said (cap
 * bytes): both, for people, or "". The strings live as long as the process. Errors of opening the
 * data; E_USAGE, E_NOINPUT (remembered.h); E_CREATE: that folder is there and is not ltrain's. */
int defaults_take(struct settings *s, char *said, size_t cap, struct err *e);

C_END
#endif
