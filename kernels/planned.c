/* kernels/planned.c - see planned.h. */
#include "kernels/planned.h"

#include "kernels/cuda/sizes.h"
#include "kernels/group.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A card that need not be here: what its memory and its kernels would take. */
struct planned {
    size_t memory_bytes;
    int sm;
    bool deterministic;
};

static struct planned *planned_of(const struct device *d) { return d->state; }

/* held_bytes counts what comes later, too; opening takes the rest of it. */
static size_t planned_free(struct device *d)
{
    size_t all = planned_of(d)->memory_bytes, opened = d->held_bytes - d->later_bytes;

    return all > opened ? all - opened : 0;
}

/* The CUDA device's own formulas, so that a plan made here is the one made on the card. */
static size_t planned_attention(const struct device *d, int64_t rows, int64_t heads,
                                int64_t kv_heads, int64_t dim)
{
    const struct planned *p = planned_of(d);

    return cuda_attention_bytes(true, p->sm, p->deterministic, rows, heads, kv_heads, dim);
}

static size_t planned_loss(const struct device *d, int64_t chunk, int64_t vocab)
{
    (void)d;
    return cuda_loss_bytes(chunk, vocab);
}

static void planned_be_deterministic(struct device *d) { planned_of(d)->deterministic = true; }

static void planned_close(struct device *d)
{
    free(d->state);
    d->state = NULL;
}

/* A copy begins when its queue is free, and an await holds its queue until the fence. */
static int clocks_send(struct device *d, void *host, const void *src, size_t nbytes)
{
    struct clocks *c = d->state;

    (void)host, (void)src;
    c->now[QUEUE_OUT] += (double)nbytes * c->send_byte_s;
    return 0;
}

static int clocks_fetch(struct device *d, void *dst, const void *host, size_t nbytes)
{
    struct clocks *c = d->state;

    (void)dst, (void)host;
    c->now[QUEUE_IN] += (double)nbytes * c->fetch_byte_s;
    return 0;
}

/* A fence is a time: when all that its queue had to do is done. */
static int clocks_mark(struct device *d, enum queue q, int fence)
{
    struct clocks *c = d->state;

    c->fence[fence] = c->now[q];
    return 0;
}

static int clocks_await(struct device *d, enum queue q, int fence)
{
    struct clocks *c = d->state;

    c->now[q] = c->now[q] > c->fence[fence] ? c->now[q] : c->fence[fence];
    return 0;
}

/* Only what offload.c calls; ops are added to the clock of their queue by cost.c. */
void device_open_clocks(struct device *d, struct clocks *c)
{
    *d = (struct device){ .name = "clocks", .state = c,
                          .send = clocks_send, .fetch = clocks_fetch, .mark = clocks_mark,
                          .await = clocks_await };
}

int device_open_planned(struct device *d, const struct card *c, size_t memory_bytes,
                        struct err *e)
{
    struct planned *p = calloc(1, sizeof *p);

    memset(d, 0, sizeof *d);
    if (!p)
        return err_set(e, E_SYS, "out of memory");
    p->memory_bytes = memory_bytes ? memory_bytes : (size_t)(c->gib * 0x1p30);
    p->sm = c->sm;
    d->name = "planned";
    snprintf(d->detail, sizeof d->detail, "%s, %.4g GiB", c->name,
             (double)p->memory_bytes / 0x1p30);
    d->act = DT_BF16;
    d->own_memory = true;
    d->most_head_dim = CUDA_MOST_HEAD_DIM;
    d->host_bytes = PLANNED_HOST_BYTES;
    d->later_bytes = CUDA_LATER_BYTES;
    d->held_bytes = CUDA_OPEN_BYTES + d->later_bytes;
    d->rates = card_rates(c);
    d->group = group_alone();
    d->state = p;
    d->free_bytes = planned_free;
    d->attention_scratch_bytes = planned_attention;
    d->loss_scratch_bytes = planned_loss;
    d->be_deterministic = planned_be_deterministic;
    d->close = planned_close;
    return 0;
}
