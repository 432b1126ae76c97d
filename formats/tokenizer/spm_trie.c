/* formats/tokenizer/spm_trie.c - the double-array trie of spm_impl.h, built without recursion. */
#include "formats/tokenizer/spm_impl.h"

#include <stdlib.h>
#include <string.h>

#define MAX_UNITS ((size_t)16 << 20)
#define OPEN_BLOCKS 4
#define MAX_FAILURES 8 /* then a block is left as full as it is: building stays linear */

/* A block is 256 units. All children of a node lie in one block, as base ^ c changes only
 * the low 8 bits, so placing them is a search in a bitmap of 256 bits. The last few blocks
 * are open: they may take more. */
struct block { /* 256 units, some of them still free */
    size_t index;
    uint64_t used[4];
    unsigned n_free, failures;
};

struct builder {
    struct spm_trie *t;
    size_t cap;
    struct block open[OPEN_BLOCKS];
    int n_open;
};

struct range { /* strings lo..hi-1 share their first depth bytes, which lead to node */
    size_t lo, hi;
    uint32_t depth, node;
};

static bool is_used(const struct block *b, unsigned i)
{
    return b->used[i >> 6] >> (i & 63) & 1;
}

/* A new block, in place of the oldest when as many are open as may be. */
static struct block *new_block(struct builder *b, struct err *e)
{
    size_t n = b->t->n;

    if (n + 256 > MAX_UNITS) {
        err_set(e, E_DATA, "the pieces need a trie of more than %zu units", MAX_UNITS);
        return NULL;
    }
    if (n + 256 > b->cap) {
        size_t cap = b->cap ? 2 * b->cap : 1024;
        struct spm_unit *p = realloc(b->t->units, cap * sizeof *p);

        if (!p) {
            err_set(e, E_SYS, "out of memory for a trie of %zu units", cap);
            return NULL;
        }
        b->t->units = p;
        b->cap = cap;
    }
    for (size_t i = n; i < n + 256; i++)
        b->t->units[i] = (struct spm_unit){ 0, UINT32_MAX, -1 };
    b->t->n = n + 256;
    if (b->n_open == OPEN_BLOCKS)
        memmove(b->open, b->open + 1, sizeof *b->open * (size_t)--b->n_open);
    b->open[b->n_open] = (struct block){ .index = n >> 8, .n_free = 256 };
    return &b->open[b->n_open++];
}

/* A base in the block at which all labels fall on free units, or -1. */
static int fit(const struct block *b, const unsigned char *labels, unsigned n)
{
    /* Each free unit is tried as the place of the first label, which gives the base. */
    for (unsigned w = 0; w < 4; w++)
        for (uint64_t free_bits = ~b->used[w]; free_bits; free_bits &= free_bits - 1) {
            unsigned base = (w * 64 + (unsigned)__builtin_ctzll(free_bits)) ^ labels[0], k = 1;

            while (k < n && !is_used(b, base ^ labels[k]))
                k++;
            if (k == n)
                return (int)base;
        }
    return -1;
}

/* Makes the children of node. */
static int place(struct builder *b, uint32_t node, const unsigned char *labels, unsigned n,
                 struct err *e)
{
    struct block *in = NULL;
    uint32_t base;
    int low = -1;

    /* The newest block first. One that is full or failed too often is closed. */
    for (int i = b->n_open - 1; i >= 0 && low < 0; i--) {
        in = &b->open[i];
        if (in->n_free >= n && (low = fit(in, labels, n)) < 0)
            in->failures++;
        if (low < 0 && (in->n_free == 0 || in->failures > MAX_FAILURES)) {
            memmove(in, in + 1, sizeof *in * (size_t)(b->n_open - 1 - i));
            b->n_open--;
        }
    }
    if (low < 0) {
        if (!(in = new_block(b, e))) /* e may be NULL: then any code */
            return e ? e->code : E_SYS;
        low = fit(in, labels, n); /* a new block takes any 256 labels */
    }
    base = (uint32_t)(in->index << 8) | (uint32_t)low;
    b->t->units[node].base = base;
    for (unsigned k = 0; k < n; k++) {
        unsigned i = (unsigned)low ^ labels[k];

        in->used[i >> 6] |= (uint64_t)1 << (i & 63);
        b->t->units[base ^ labels[k]].parent = node;
    }
    in->n_free -= n;
    return 0;
}

/* Gives r's node its value and children, and puts their ranges on the stack. Example: "a",
 * "ab", "ac", "b" at depth 0 give the labels a and b, with the ranges 0 to 3 and 3 to 4; at
 * depth 1 the first range begins with "a" itself, which is the node's value. */
static int grow(struct builder *b, const struct spm_string *s, struct range r,
                struct range *stack, size_t *top, struct err *e)
{
    unsigned char labels[256];
    size_t first[257];
    unsigned n = 0;
    int rc;

    /* Sorted by bytes, a string that ends here comes first in the range, and there is one
     * at most. */
    if (s[r.lo].n == r.depth)
        b->t->units[r.node].value = s[r.lo++].value;
    for (size_t i = r.lo; i < r.hi; i++) {
        unsigned char c = (unsigned char)s[i].p[r.depth];

        if (n == 0 || labels[n - 1] != c) {
            first[n] = i;
            labels[n++] = c;
        }
    }
    if (n == 0)
        return 0;
    first[n] = r.hi;
    if ((rc = place(b, r.node, labels, n, e)) < 0)
        return rc;
    for (unsigned k = 0; k < n; k++)
        stack[(*top)++] = (struct range){ first[k], first[k + 1], r.depth + 1,
                                          b->t->units[r.node].base ^ labels[k] };
    return 0;
}

int spm_trie_build(struct spm_trie *t, const struct spm_string *s, size_t n, struct err *e)
{
    struct builder b = { .t = t };
    struct range *stack;
    size_t top = 0;
    int rc = 0;

    *t = (struct spm_trie){ 0 };
    if (n == 0)
        return 0;
    if (!(stack = malloc((n + 1) * sizeof *stack))) /* ranges on it never overlap */
        return err_set(e, E_SYS, "out of memory for a trie of %zu strings", n);
    if (!new_block(&b, e)) {
        free(stack);
        return e ? e->code : E_SYS;
    }
    b.open[0].used[0] = 1; /* the root */
    b.open[0].n_free--;
    stack[top++] = (struct range){ 0, n, 0, 0 };
    while (top > 0 && rc == 0)
        rc = grow(&b, s, stack[--top], stack, &top, e);
    free(stack);
    if (rc < 0) {
        free(t->units);
        *t = (struct spm_trie){ 0 };
    }
    return rc;
}

int32_t spm_trie_find(const struct spm_trie *t, const char *p, size_t n)
{
    int64_t node = 0;

    if (!t->units)
        return -1;
    for (size_t i = 0; i < n; i++)
        if ((node = spm_trie_step(t, node, (unsigned char)p[i])) < 0)
            return -1;
    return t->units[node].value;
}

size_t spm_trie_longest(const struct spm_trie *t, const char *p, size_t n)
{
    size_t longest = 0;
    int64_t node = 0;

    for (size_t i = 0; t->units && i < n; i++) {
        if ((node = spm_trie_step(t, node, (unsigned char)p[i])) < 0)
            break;
        if (t->units[node].value >= 0)
            longest = i + 1;
    }
    return longest;
}
