/* formats/spmodel.h - checks a SentencePiece model file before the library sees it. */
#ifndef FORMATS_SPMODEL_H
#define FORMATS_SPMODEL_H
#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
C_BEGIN

/* libsentencepiece trusts what it loads: trie offsets, string pools, recursion by piece length
 * (issues 1263, 1265, 1267, 1269 there). So the protobuf is walked here first. */
#define SPMODEL_MAX_BYTES ((size_t)64 << 20)
#define SPMODEL_MAX_PIECES ((int64_t)4 << 20)
#define SPMODEL_MAX_PIECE_BYTES 4096

struct spmodel {
    int64_t pieces;
    int type;             /* 1 unigram, 2 BPE, 3 word, 4 char */
    bool byte_fallback, dummy_prefix, strip_spaces, escape_spaces, space_is_suffix, charsmap;
    bool space_piece;     /* U+2581 alone is a normal piece */
    bool before_space[256]; /* some piece has this byte right before U+2581 */
};

/* Walks all n bytes: wire format, sizes against the bytes left, piece types, finite scores, and
 * the double-array tries of the normalisers (every reachable unit inside the array, every leaf
 * inside a NUL-terminated pool, at most 32 leaves on a path). Allocates nothing but one byte a
 * trie unit. E_DATA, without the file's name. */
int spmodel_check(struct spmodel *m, const void *bytes, size_t n, struct err *e);

/* True when text may be cut before any space whose byte before is ASCII, no space and not in
 * before_space, each later part encoded alone without that space (the dummy prefix stands for
 * it), and the ids joined: no merge can cross such a cut. BPE with an identity normaliser. */
bool spmodel_cuts_at_spaces(const struct spmodel *m);

C_END
#endif
