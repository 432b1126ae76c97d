/* model/offload.c - offloaded activations and streamed weights: copied beside the ops. */
#include "model/inside.h"

/*
 * A ring is a row of items of which the device holds two at a time: item i in slot i % 2. Say that
 * all of 5 layers have their inputs offloaded (items 0 to 4), and follow slot 0 through a step:
 *
 *   forward    layer 0 writes and reads item 0; its copy out is queued. Before layer 2's input is
 *              written to the slot, the ops wait for that copy, and so on.
 *   backward   item 4 is still there: the last two are never sent. Once layer 4 is done with it the
 *              copy of item 2 is queued; layer 2 waits for it; then comes item 0.
 *
 * Weights are the same the other way round: only ever brought, first in the order of the layers,
 * then backwards, two layers ahead of their use. Where items come from is the ring's source
 * (struct ring_source): host memory, or whatever else can fill a slot.
 *
 * Copies run on queues of their own (enum queue), ordered by two fences a slot: OPS_DONE, the ops
 * queued so far are done with the slot, which a copy waits for; COPY_DONE, which the ops wait for
 * before they touch the slot again, but no earlier. That a fetch finds in host memory what was
 * sent there follows: the slot went to another item in between, and the ops waited for the sending
 * before that. A fence that is missing shows in tests/test_offload.c.
 *
 * The planner runs this very code on a device that only has clocks (model/cost.c).
 */
enum { OPS_DONE, COPY_DONE, SLOT_FENCES };

_Static_assert(RINGS * 2 * SLOT_FENCES <= FENCE_LINK, "a fence for each use");

static unsigned char *host_of(const struct ring *r, int64_t item)
{
    return r->host ? r->host + (size_t)item * r->nbytes : NULL; /* NULL: when planning */
}

static int host_bring(struct device *d, const struct ring *r, int64_t item, void *slot)
{
    return d->fetch(d, slot, host_of(r, item), r->nbytes);
}

static int host_store(struct device *d, const struct ring *r, int64_t item, const void *slot)
{
    return d->send(d, host_of(r, item), slot, r->nbytes);
}

const struct ring_source ring_host = { .bring_on = QUEUE_IN, .bring = host_bring,
                                       .store_on = QUEUE_OUT, .store = host_store };

static int fence_of(const struct model *m, const struct ring *r, int slot, int which)
{
    return ((int)(r - m->ring) * 2 + slot) * SLOT_FENCES + which;
}

/* The ops wait for the last copy to or from the item's slot. */
static void wait_for(struct model *m, int ring, int64_t item)
{
    struct ring *r = &m->ring[ring];
    int slot = item & 1;

    if (item < 0 || !r->moving[slot] || m->rc < 0)
        return;
    m->rc = m->d->await(m->d, QUEUE_OPS, fence_of(m, r, slot, COPY_DONE));
    r->moving[slot] = false;
}

/* Queues an item's way into its slot, or out of it, behind the ops that use the slot. */
static void move(struct model *m, struct ring *r, int64_t item, bool in)
{
    struct device *d = m->d;
    const struct ring_source *s = r->source;
    enum queue q = in ? s->bring_on : s->store_on;
    int slot = item & 1;

    if (m->rc == 0)
        m->rc = d->mark(d, QUEUE_OPS, fence_of(m, r, slot, OPS_DONE));
    if (m->rc == 0)
        m->rc = d->await(d, q, fence_of(m, r, slot, OPS_DONE));
    if (m->rc == 0 || (in && s->always)) {
        int rc = in ? s->bring(d, r, item, r->slot[slot]) : s->store(d, r, item, r->slot[slot]);

        m->rc = m->rc < 0 ? m->rc : rc;
    }
    if (m->rc == 0)
        m->rc = d->mark(d, q, fence_of(m, r, slot, COPY_DONE));
    r->moving[slot] = true;
    r->holds[slot] = item;
}

static void send(struct model *m, int ring, int64_t item)
{
    struct ring *r = &m->ring[ring];

    if (item >= 0 && item < r->n - 2) /* the last two stay in their slots */
        move(m, r, item, false);
}

static void fetch(struct model *m, int ring, int64_t item)
{
    struct ring *r = &m->ring[ring];

    if (item >= 0 && item < r->n)
        move(m, r, item, true);
}

/* The weights that the layer after the next one reads: at once, or behind what that one's ranks have
 * to tell each other first. */
static void fetch_weights(struct model *m, int64_t item)
{
    m->ahead = item;
    if (!m->ring[RING_WEIGHTS].source->behind)
        offload_ahead(m);
}

void offload_ahead(struct model *m)
{
    int64_t item = m->ahead;

    m->ahead = -1;
    fetch(m, RING_WEIGHTS, item);
}

void offload_forget(struct model *m)
{
    m->ring[RING_WEIGHTS].holds[0] = m->ring[RING_WEIGHTS].holds[1] = -1;
}

void offload_begin(struct model *m)
{
    struct ring *w = &m->ring[RING_WEIGHTS];

    m->ahead = -1;
    for (int k = 0; k < RINGS; k++)
        m->ring[k].moving[0] = m->ring[k].moving[1] = false;
    for (int i = 0; i < 2; i++)
        if (w->holds[i] != i)
            fetch(m, RING_WEIGHTS, i);
    for (int i = 0; i < 2; i++)
        fetch(m, RING_CACHE, i);
}

/* What the layer added to its part of the cache goes to the host's memory, and the slot is another
 * layer's. */
static void turn_cache(struct model *m, int64_t item)
{
    struct ring *r = &m->ring[RING_CACHE];

    move(m, r, item, false);
    if (m->rc == 0)
        m->rc = m->d->await(m->d, QUEUE_IN, fence_of(m, r, item & 1, COPY_DONE));
    fetch(m, RING_CACHE, item + 2);
}

/* Waits for what the layer reads, and for the slots that it writes to. */
static void before_forward(struct model *m, int64_t layer, bool back)
{
    const struct layer *l = &m->layers[layer];

    if (back)
        send(m, SAVE_INPUT, l->item[SAVE_INPUT]); /* complete since the layer before */
    wait_for(m, RING_WEIGHTS, l->item[RING_WEIGHTS]);
    wait_for(m, RING_CACHE, l->item[RING_CACHE]);
    if (layer + 1 < m->to) /* whose input this layer writes */
        wait_for(m, SAVE_INPUT, l[1].item[SAVE_INPUT]);
    for (int k = SAVE_ATTENTION; k < SAVE_LEVELS; k++)
        wait_for(m, k, l->item[k]);
}

static void after_forward(struct model *m, int64_t layer, bool back)
{
    const struct layer *l = &m->layers[layer];

    for (int k = SAVE_ATTENTION; back && k < SAVE_LEVELS; k++)
        send(m, k, l->item[k]);
    offload_ahead(m); /* where the layer had nothing to exchange */
    if (l->item[RING_WEIGHTS] >= 0)
        fetch_weights(m, l->item[RING_WEIGHTS] + 2);
    if (l->item[RING_CACHE] >= 0)
        turn_cache(m, l->item[RING_CACHE]);
}

void offload_forward(struct model *m, bool back, layer_fn *run, void *ctx)
{
    for (int64_t i = m->from; i < m->to; i++) {
        before_forward(m, i, back);
        run(m, i, ctx);
        after_forward(m, i, back);
    }
    offload_ahead(m);
}

void offload_backward(struct model *m, layer_fn *run, void *ctx)
{
    for (int64_t i = m->c.layers - 1; i >= 0; i--) {
        for (int k = 0; k < RINGS; k++)
            wait_for(m, k, m->layers[i].item[k]);
        run(m, i, ctx);
        offload_ahead(m);
        for (int k = 0; k < RINGS; k++)
            if (k != RING_WEIGHTS)
                fetch(m, k, m->layers[i].item[k] - 2);
        fetch_weights(m, m->layers[i].item[RING_WEIGHTS] - 2);
    }
    offload_ahead(m);
}
