/* base/hash.h - XXH3: as the files name it, and as fast as the library can. */
#ifndef BASE_HASH_H
#define BASE_HASH_H
#include <inttypes.h>
#include <stdio.h>
#include <xxhash.h>

#define FINGERPRINT_HEX 32 /* digits of an XXH3-128 that names a tokenizer, lower-case hex */

/* XXH3-128 as 32 lower-case hex digits, high half first. */
static inline void hash_hex(XXH128_hash_t h, char hex[33])
{
    snprintf(hex, 33, "%016" PRIx64 "%016" PRIx64, (uint64_t)h.high64, (uint64_t)h.low64);
}

/* The library's versions for the processor it finds itself on, twice as fast as the plain ones;
 * NULL where it was built without them, as it is for other processors than x86. */
XXH_errorcode XXH3_64bits_update_dispatch(XXH3_state_t *s, const void *p, size_t n)
    __attribute__((weak));
XXH_errorcode XXH3_128bits_update_dispatch(XXH3_state_t *s, const void *p, size_t n)
    __attribute__((weak));
XXH64_hash_t XXH3_64bits_dispatch(const void *p, size_t n) __attribute__((weak));

/* XXH3_64bits; XXH3_64bits_update and XXH3_128bits_update. */
static inline uint64_t hash64_of(const void *p, size_t n)
{
    return (XXH3_64bits_dispatch ? XXH3_64bits_dispatch : XXH3_64bits)(p, n);
}
static inline void hash64_add(XXH3_state_t *s, const void *p, size_t n)
{
    (XXH3_64bits_update_dispatch ? XXH3_64bits_update_dispatch : XXH3_64bits_update)(s, p, n);
}
static inline void hash128_add(XXH3_state_t *s, const void *p, size_t n)
{
    (XXH3_128bits_update_dispatch ? XXH3_128bits_update_dispatch
                                  : XXH3_128bits_update)(s, p, n);
}
#endif
