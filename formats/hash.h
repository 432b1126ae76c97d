/* formats/hash.h - XXH3-128 as the files name it: 32 lower-case hex digits, high half first. */
#ifndef FORMATS_HASH_H
#define FORMATS_HASH_H
#include <inttypes.h>
#include <stdio.h>
#include <xxhash.h>

static inline void hash_hex(XXH128_hash_t h, char hex[33])
{
    snprintf(hex, 33, "%016" PRIx64 "%016" PRIx64, (uint64_t)h.high64, (uint64_t)h.low64);
}
#endif
