/* formats/text/gunzip.c - see gunzip.h. */
#include "formats/text/gunzip.h"

#include "base/must.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

/* What is handed out at once, as large as the blocks that the file is read in. */
#define OUT_BYTES ((size_t)128 << 10)
#define INPUT_MAX ((int64_t)1 << 30) /* zlib counts in 32 bits */

/* A gzip file may be several members, one behind the other; they unpack to one stream. */
struct gunzip {
    gunzip_read_fn *read;
    void *ctx;
    z_stream z;
    bool between; /* members: the last one was whole */
    int64_t given; /* bytes of the file so far */
    unsigned char out[OUT_BYTES];
};

/* zlib's memory: must_calloc ends the program when there is none. */
static void *take(void *ctx, unsigned n, unsigned each)
{
    (void)ctx;
    return must_calloc(n, each);
}

static void give(void *ctx, void *p)
{
    (void)ctx;
    free(p);
}

struct gunzip *gunzip_open(gunzip_read_fn *read, void *ctx)
{
    struct gunzip *g = malloc(sizeof *g);

    if (!g)
        return NULL;
    g->read = read;
    g->ctx = ctx;
    g->between = false;
    g->given = 0;
    memset(&g->z, 0, sizeof g->z);
    g->z.zalloc = take; /* zlib would call data damaged that it has no memory for */
    g->z.zfree = give;
    /* 15: a window of 2^15 bytes; + 16: a gzip header and its checksum are demanded. */
    if (inflateInit2(&g->z, 15 + 16) == Z_OK) /* the largest window, gzip alone */
        return g;
    free(g);
    return NULL;
}

void gunzip_close(struct gunzip *g)
{
    if (!g)
        return;
    inflateEnd(&g->z);
    free(g);
}

/* The next block of the file, once the last is used up: its bytes, 0 at the end, below 0 on
 * an error. zlib keeps a pointer into the block, which must last until the next refill. */
static int64_t refill(struct gunzip *g)
{
    const void *block = NULL;
    int64_t n = g->read(g->ctx, &block);

    if (n > INPUT_MAX)
        return -1;
    if (n > 0) {
        g->z.next_in = (unsigned char *)(uintptr_t)block; /* zlib only reads it */
        g->z.avail_in = (unsigned)n;
        g->given += n;
    }
    return n;
}

/* What zlib was given and has not used does not count: a bomb's ratio needs it exact. */
int64_t gunzip_packed(const struct gunzip *g) { return g->given - g->z.avail_in; }

/* What follows a whole member: 1 another one, 0 the end, which zeros may fill up; else bad. */
static int next_member(struct gunzip *g, const char **why)
{
    int64_t n;

    for (;;) {
        /* Some writers fill a file up to a whole block with zeros. */
        while (g->z.avail_in > 0 && *g->z.next_in == 0) {
            g->z.next_in++;
            g->z.avail_in--;
        }
        if (g->z.avail_in > 0)
            break;
        if ((n = refill(g)) <= 0)
            return (int)n;
    }
    /* 1F is the first byte of every gzip header; inflate checks the rest of it. */
    if (*g->z.next_in == 0x1F && inflateReset(&g->z) == Z_OK) {
        g->between = false;
        return 1;
    }
    *why = "something follows its gzip data";
    return -1;
}

int64_t gunzip_next(struct gunzip *g, const void **block, const char **why)
{
    int64_t n;
    int rc;

    *why = NULL;
    *block = g->out;
    g->z.next_out = g->out;
    g->z.avail_out = OUT_BYTES;
    /* Fills the whole of out if it can; the input or a member may end in the middle. */
    while (g->z.avail_out > 0) {
        size_t made = OUT_BYTES - g->z.avail_out;
        if (g->between) {
            if (made > 0)
                return (int64_t)made; /* what was good is handed out first */
            if ((rc = next_member(g, why)) <= 0)
                return rc;
        }
        if (g->z.avail_in == 0) {
            if ((n = refill(g)) < 0)
                return n;
            if (n == 0) {
                *why = "its gzip data end too early";
                return -1;
            }
        }
        /* Z_BUF_ERROR only says that there was nothing to do; the loop brings more input. */
        rc = inflate(&g->z, Z_NO_FLUSH);
        if (rc == Z_STREAM_END) {
            g->between = true;
        } else if (rc != Z_OK && rc != Z_BUF_ERROR) {
            *why = g->z.msg ? g->z.msg : "its gzip data are bad";
            return -1;
        }
    }
    return (int64_t)(OUT_BYTES - g->z.avail_out);
}
