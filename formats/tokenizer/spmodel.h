/* formats/tokenizer/spmodel.h - reads and checks a SentencePiece model file. */
#ifndef FORMATS_TOKENIZER_SPMODEL_H
#define FORMATS_TOKENIZER_SPMODEL_H
#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
C_BEGIN

/* libsentencepiece trusts what it loads: trie offsets, string pools, recursion by piece length
 * (issues 1263, 1265, 1267, 1269 there). So the protobuf is walked here, for it and for us. */
#define SPMODEL_MAX_BYTES ((size_t)64 << 20)
#define SPMODEL_MAX_PIECES ((int64_t)4 << 20)
#define SPMODEL_MAX_PIECE_BYTES 4096

#define SPMODEL_MAX_CHARSMAP_BYTES ((size_t)8 << 20)
#define SPMODEL_MAX_RULE_BYTES 255 /* what one rule of a normaliser may put in */

/* Bytes inside the model that was read; p is NULL where the model says nothing. */
struct spmodel_text {
    const char *p;
    size_t n;
};

/* A normalizer_spec. trie: units of 4 bytes, Darts-clone's; units 0: no character table. */
struct spmodel_norm {
    bool dummy_prefix, strip_spaces, escape_spaces;
    const unsigned char *trie;
    size_t units;
    const char *pool; /* what the leaves point to: strings, each ended by a NUL */
    size_t pool_bytes;
};

enum { SPMODEL_UNK, SPMODEL_BOS, SPMODEL_EOS, SPMODEL_PAD, SPMODEL_NAMES };
enum { SPMODEL_ENCODES, SPMODEL_DECODES }; /* the normaliser and the denormaliser */

struct spmodel {
    int64_t pieces;
    int type; /* 1 unigram, 2 BPE, 3 word, 4 char */
    bool byte_fallback, space_is_suffix;
    struct spmodel_norm norm[2];
    struct spmodel_text names[SPMODEL_NAMES], unk_surface;
};

enum spmodel_type { /* of a piece */
    PIECE_NORMAL = 1, PIECE_UNKNOWN, PIECE_CONTROL, PIECE_USER, PIECE_UNUSED, PIECE_BYTE
};
/* Called for each piece in the order of the ids, with what has been found sound so far; text
 * is 1 to SPMODEL_MAX_PIECE_BYTES bytes inside the model. A negative return stops. */
typedef int spmodel_piece_fn(void *ctx, const char *text, size_t n, float score,
                             enum spmodel_type type, struct err *e);

/* Walks all n bytes: wire format, sizes against the bytes left, piece types, finite scores, and
 * the double-array tries of the normalisers (every reachable unit inside the array, every leaf
 * inside a NUL-terminated pool and short, at most 32 leaves on a path). Allocates nothing but
 * 5 bytes a trie unit. E_DATA, without the file's name. */
/* tokenizer_meaning in tokenizer.h, of the bytes of a file. E_DATA, E_SYS. */
int spmodel_meaning(const void *bytes, size_t n, char hex[33], struct err *e);
int spmodel_check(struct spmodel *m, const void *bytes, size_t n, struct err *e);
/* The same, and hands over every piece; m then points into bytes. */
int spmodel_read(struct spmodel *m, const void *bytes, size_t n, spmodel_piece_fn *fn,
                 void *ctx, struct err *e);

C_END
#endif
