/* formats/tokens/mark.h - what a token stream says between its documents: its run, and how far it is. */
#ifndef FORMATS_TOKENS_MARK_H
#define FORMATS_TOKENS_MARK_H
#include "base/bytes.h"
#include "base/err.h"
#include "formats/tokens/tally.h"
#include <stdint.h>
#include <xxhash.h>
C_BEGIN

/* The layouts of the payloads stand in stream.md. */
#define MARK_BYTES_MAX ((uint64_t)1 << 26)

/* RUN: which run this is, and where it goes on. */
struct stream_run {
    int64_t marks, docs; /* of the same run before, which are not in this stream */
    uint64_t manifest;   /* XXH3-64 of the manifest that the output had, 0: it had none */
    const char *recipe;  /* UTF-8, lines "option value": what the documents depend on */
};

/* An input that was read to its end. */
struct stream_input {
    const char *path;
    int64_t bytes, mtime_ns; /* when it was begun */
};

/* MARK: what came since the mark before. With inputs, the run can go on behind it. */
struct stream_mark {
    struct tally tally;
    struct stream_input *inputs;
    int64_t n_inputs;
    const unsigned char *keys; /* 16 bytes each, low64 first: added to the set of --dedup */
    int64_t n_keys;
};
XXH128_hash_t mark_key(const struct stream_mark *m, int64_t i);

/* Append the payloads. Labels are cleaned, paths taken as they are. E_DATA for a path above
 * 65535 bytes, a payload above MARK_BYTES_MAX; E_SYS. */
int run_encode(struct buf *b, const struct stream_run *r, struct err *e);
int mark_encode(struct buf *b, const struct stream_mark *m, struct err *e);

/* Where a decoded frame lives, until the next one. Zero it before use. */
struct mark_space {
    struct buf text, inputs;
    struct tally tally;
};
/* E_DATA for a payload that breaks a rule of stream.md; E_SYS. */
int run_decode(struct mark_space *s, const void *payload, size_t nbytes, struct stream_run *r,
               struct err *e);
int mark_decode(struct mark_space *s, int version, const void *payload, size_t nbytes,
                struct stream_mark *m, struct err *e); /* version: of the stream */
void mark_space_free(struct mark_space *s);

C_END
#endif
