/* prep/contam.c - see contam.h. */
#include "prep/contam.h"

#include "prep/grams.h"

#include <stdlib.h>

enum { BLOCK = 256 }; /* n-grams at once */

struct contam {
    int words;
    uint64_t *slot; /* [size], a power of two; 0 is empty */
    uint64_t size, used;
};

int contam_open(struct contam **out, int words, struct err *e)
{
    struct contam *c = calloc(1, sizeof *c);

    *out = NULL;
    if (!c || !(c->slot = calloc(1024, sizeof *c->slot))) {
        free(c);
        return err_set(e, E_SYS, "out of memory");
    }
    c->size = 1024;
    c->words = words;
    *out = c;
    return 0;
}

void contam_close(struct contam *c)
{
    if (!c)
        return;
    free(c->slot);
    free(c);
}

int64_t contam_grams(const struct contam *c) { return (int64_t)c->used; }

/* The slot of an n-gram, or the empty one where it would stand: at its low bits, or the
 * first free slot after that. The table is never full, so this ends. */
static uint64_t place(const uint64_t *slot, uint64_t size, uint64_t gram)
{
    uint64_t i = gram & (size - 1);

    while (slot[i] && slot[i] != gram)
        i = (i + 1) & (size - 1);
    return i;
}

/* Twice as many slots; every n-gram finds its new place. */
static int grow(struct contam *c, struct err *e)
{
    uint64_t *slot = calloc(c->size * 2, sizeof *slot);

    if (!slot)
        return err_set(e, E_SYS, "out of memory for %lld n-grams of --decontaminate",
                       (long long)c->size);
    for (uint64_t i = 0; i < c->size; i++)
        if (c->slot[i])
            slot[place(slot, c->size * 2, c->slot[i])] = c->slot[i];
    free(c->slot);
    c->slot = slot;
    c->size *= 2;
    return 0;
}

int contam_add(struct contam *c, const struct doc *d, struct err *e)
{
    const struct buf *part[] = { &d->text, &d->input, &d->output };
    uint64_t gram[BLOCK];
    struct grams g;
    int64_t n;
    int rc;

    for (int k = 0; k < (d->instruct ? 3 : 1); k++) {
        grams_start(&g, part[k]->p, part[k]->len, c->words);
        while ((n = grams_next(&g, gram, BLOCK)) > 0)
            for (int64_t i = 0; i < n; i++) {
                /* 0 means an empty slot, so that a hash of 0 is stored as 1. */
                uint64_t v = gram[i] + !gram[i], at = place(c->slot, c->size, v);
                c->used += !c->slot[at];
                c->slot[at] = v;
                /* At most half full, so that a search is a few steps. */
                if (2 * c->used > c->size && (rc = grow(c, e)) < 0)
                    return rc;
            }
    }
    return 0;
}

bool contam_shares(const struct contam *c, const struct doc *d)
{
    const struct buf *part[] = { &d->text, &d->input, &d->output };
    uint64_t gram[BLOCK];
    struct grams g;
    int64_t n;

    for (int k = 0; k < (d->instruct ? 3 : 1); k++) {
        grams_start(&g, part[k]->p, part[k]->len, c->words);
        while ((n = grams_next(&g, gram, BLOCK)) > 0)
            for (int64_t i = 0; i < n; i++)
                /* One n-gram in common is enough. */
                if (c->slot[place(c->slot, c->size, gram[i] + !gram[i])])
                    return true;
    }
    return false;
}
