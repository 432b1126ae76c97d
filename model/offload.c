/* model/offload.c - what lies in the host's memory, there and back beside the ops. */
#include "model/inside.h"

/*
 * Two fences a slot: the ops are done with it, its copy is done. A copy waits for the first, and
 * the ops wait for the second before they touch the slot again, but no earlier. That a fetch
 * finds in the host's memory what was sent follows: the slot went to another item in between,
 * before which the ops waited for the sending.
 */
enum { OPS_DONE, COPY_DONE, SLOT_FENCES };

_Static_assert(RINGS * 2 * SLOT_FENCES <= FENCES, "a fence for each use");

static int fence_of(const struct model *m, const struct ring *r, int slot, int which)
{
    return ((int)(r - m->ring) * 2 + slot) * SLOT_FENCES + which;
}

/* The ops go on when the copy that last touched the item's slot is done. */
static void settle(struct model *m, int ring, int64_t item)
{
    struct ring *r = &m->ring[ring];
    int slot = item & 1;

    if (item < 0 || !r->moving[slot] || m->rc < 0)
        return;
    m->rc = m->d->await(m->d, QUEUE_OPS, fence_of(m, r, slot, COPY_DONE));
    r->moving[slot] = false;
}

/* Queues the copy of an item between its slot and its place in the host's memory. */
static void move(struct model *m, struct ring *r, int64_t item, enum queue q)
{
    struct device *d = m->d;
    int slot = item & 1;
    void *host = r->host + (size_t)item * r->nbytes, *dev = r->slot[slot];

    if (m->rc == 0)
        m->rc = d->mark(d, QUEUE_OPS, fence_of(m, r, slot, OPS_DONE));
    if (m->rc == 0)
        m->rc = d->await(d, q, fence_of(m, r, slot, OPS_DONE));
    if (m->rc == 0)
        m->rc = q == QUEUE_OUT ? d->send(d, host, dev, r->nbytes)
                               : d->fetch(d, dev, host, r->nbytes);
    if (m->rc == 0)
        m->rc = d->mark(d, q, fence_of(m, r, slot, COPY_DONE));
    r->moving[slot] = true;
    r->holds[slot] = item;
}

static void send(struct model *m, int ring, int64_t item)
{
    struct ring *r = &m->ring[ring];

    if (item >= 0 && item < r->n - 2) /* the last two stay where they are */
        move(m, r, item, QUEUE_OUT);
}

static void fetch(struct model *m, int ring, int64_t item)
{
    struct ring *r = &m->ring[ring];

    if (item >= 0 && item < r->n)
        move(m, r, item, QUEUE_IN);
}

void offload_forget(struct model *m)
{
    m->ring[RING_WEIGHTS].holds[0] = m->ring[RING_WEIGHTS].holds[1] = -1;
}

void offload_begin(struct model *m)
{
    struct ring *w = &m->ring[RING_WEIGHTS];

    for (int k = 0; k < RINGS; k++)
        m->ring[k].moving[0] = m->ring[k].moving[1] = false;
    for (int i = 0; i < 2; i++)
        if (w->holds[i] != i)
            fetch(m, RING_WEIGHTS, i);
}

void offload_before_forward(struct model *m, int64_t layer, bool back)
{
    const struct layer *l = &m->layers[layer];

    if (back)
        send(m, SAVE_INPUT, l->item[SAVE_INPUT]); /* whole since the layer before */
    settle(m, RING_WEIGHTS, l->item[RING_WEIGHTS]);
    if (layer + 1 < m->c.layers) /* whose input this layer writes */
        settle(m, SAVE_INPUT, l[1].item[SAVE_INPUT]);
    for (int k = SAVE_ATTENTION; k < SAVE_LEVELS; k++)
        settle(m, k, l->item[k]);
}

void offload_after_forward(struct model *m, int64_t layer, bool back)
{
    const struct layer *l = &m->layers[layer];

    for (int k = SAVE_ATTENTION; back && k < SAVE_LEVELS; k++)
        send(m, k, l->item[k]);
    if (l->item[RING_WEIGHTS] >= 0)
        fetch(m, RING_WEIGHTS, l->item[RING_WEIGHTS] + 2);
}

void offload_before_backward(struct model *m, int64_t layer)
{
    for (int k = 0; k < RINGS; k++)
        settle(m, k, m->layers[layer].item[k]);
}

void offload_after_backward(struct model *m, int64_t layer)
{
    for (int k = 0; k < RINGS; k++)
        fetch(m, k, m->layers[layer].item[k] - 2);
}
