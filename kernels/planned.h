/* kernels/planned.h - a GPU that is not here: sizes, rates and clocks, enough to plan by. */
#ifndef KERNELS_PLANNED_H
#define KERNELS_PLANNED_H
#include "kernels/cards.h"
C_BEGIN

/* Free memory of the host that such a card is taken to stand in. */
#define PLANNED_HOST_BYTES ((size_t)128 << 30)

/* A device like "cuda" on card c, with memory_bytes (0: the card's), all of it free but what
 * opening would take. It has no memory and no ops (they are NULL): model_plan is what it is
 * for. Scratch sizes are those of the CUDA device with cuDNN. E_SYS. */
int device_open_planned(struct device *d, const struct card *c, size_t memory_bytes,
                        struct err *e);

/* The queues of a device that is not here: clocks. Times are seconds; now[q]: when all that was
 * queued on q so far will be done. What the ops take the caller adds to now[QUEUE_OPS]. */
struct clocks {
    double now[QUEUES], fence[FENCES];
    double send_byte_s, fetch_byte_s; /* how long a byte takes, out and in */
};
/* Makes d such a device on c, to run what queues copies and fences: send, fetch, mark and await
 * move the clocks and touch no memory; there are no ops. d needs no closing. */
void device_open_clocks(struct device *d, struct clocks *c);

C_END
#endif
