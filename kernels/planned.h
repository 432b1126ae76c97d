/* kernels/planned.h - a GPU that is not here: sizes and rates, enough to plan by. */
#ifndef KERNELS_PLANNED_H
#define KERNELS_PLANNED_H
#include "kernels/cards.h"
C_BEGIN

/* The host's memory that such a plan may take, when nobody says: three quarters of 128 GiB. */
#define PLANNED_HOST_BYTES ((size_t)96 << 30)

/* A device like "cuda" on card c, with memory_bytes (0: the card's), all of it free but what
 * opening would take. It has no memory and no ops (planned is set): model_plan is what it is
 * for. Scratch sizes are those of the CUDA device with cuDNN. E_SYS. */
int device_open_planned(struct device *d, const struct card *c, size_t memory_bytes,
                        struct err *e);

C_END
#endif
