/* tests/spmtest.h - texts and models for the tests and the benchmark of formats/tokenizer/spm.h. */
#ifndef TESTS_SPMTEST_H
#define TESTS_SPMTEST_H
#include "base/bytes.h"
#include "formats/text/source.h"
#include "formats/tokenizer/spm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Appends what a source under folder gives, at most max_bytes in all in out, unpacked. */
static inline int read_some(struct buf *out, size_t max_bytes, const char *folder,
                            const char *name, const char *glob, struct err *e)
{
    struct source_member m;
    struct source *s;
    char path[1024];
    const char *operand = path;
    int64_t n = 0;
    int rc;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    if ((rc = source_open(&s, &operand, 1, &glob, glob != NULL, NULL, e)) < 0)
        return rc;
    while (out->len < max_bytes && (rc = source_next(s, &m, e)) == 1) {
        do {
            size_t room = max_bytes - out->len < 65536 ? max_bytes - out->len : 65536;

            if ((rc = buf_reserve(out, room, e)) < 0)
                break;
            n = room ? source_read(s, out->p + out->len, room, e) : 0;
            out->len += n > 0 ? (size_t)n : 0;
        } while (n > 0);
    }
    source_close(s);
    return rc < 0 ? rc : 0;
}

static inline uint32_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* Pieces of the model one after another, space marks as spaces. */
static inline int add_pieces(struct buf *out, const struct spm *m, size_t bytes, uint64_t seed,
                             struct err *e)
{
    int rc = 0;

    while (out->len < bytes && rc == 0) {
        int32_t id = (int32_t)(next_random(&seed) % (uint32_t)spm_vocab(m));
        const char *p = spm_piece(m, id, NULL);

        if (p[0] == '<')
            continue;
        if (strncmp(p, "\xE2\x96\x81", 3) == 0) {
            rc = buf_add(out, " ", 1, e);
            p += 3;
        }
        if (rc == 0)
            rc = buf_add(out, p, strlen(p), e);
    }
    return rc;
}
#endif
