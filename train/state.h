/* train/state.h - trained values and moments to a checkpoint and back. */
#ifndef TRAIN_STATE_H
#define TRAIN_STATE_H
#include "base/err.h"
#include "formats/weights/checkpoint.h"
#include "kernels/kernels.h"
#include "model/model.h"
C_BEGIN

/* Publishes root/step-N from the device's memory, then removes all but the newest 'keep'. c
 * holds everything but the files. E_IO, E_CREATE: the older ones stand. Where the moments are
 * sharded, rank 0 calls this and every other rank state_send; what fails on one rank is brought
 * to the meeting that follows. The bytes are those of a single process. */
int state_save(struct device *d, const struct trained *t, const char *root,
               struct checkpoint *c, int64_t keep, struct err *e);
int state_send(struct device *d, const struct trained *t, struct err *e);
/* folder/state.safetensors into the device's memory; the caller calls model_sync_trained.
 * E_DATA when it is not the state of such a model. */
int state_load(struct device *d, const struct trained *t, const char *folder, struct err *e);

/* n floats from device memory to a writer, a piece at a time. */
struct st_writer;
int state_write(struct device *d, struct st_writer *w, const float *from, int64_t n,
                struct err *e);

C_END
#endif
