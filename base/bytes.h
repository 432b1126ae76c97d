/* base/bytes.h - little-endian integers, CRC32C, growable byte buffers, checked products. */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H
#include "base/err.h"
#include "base/utf8.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
C_BEGIN

/* n (1..8) bytes at p as an unsigned little-endian integer; p needs no alignment. */
static inline uint64_t get_le(const void *p, int n)
{
    const unsigned char *b = (const unsigned char *)p;
    uint64_t v = 0;

    for (int i = 0; i < n; i++)
        v |= (uint64_t)b[i] << (8 * i);
    return v;
}

static inline void put_le(void *p, uint64_t v, int n)
{
    unsigned char *b = (unsigned char *)p;

    for (int i = 0; i < n; i++)
        b[i] = (unsigned char)(v >> (8 * i));
}

/* CRC32C (Castagnoli, reflected 0x1EDC6F41; iSCSI's). Start with crc = 0 and feed the result
 * back to continue. crc32c("123456789") is 0xE3069283. Uses the fastest way that the processor
 * has: 0, a table; 1, the SSE4.2 instruction; 2, three of them at once (PCLMUL), 20 GB/s and
 * more. The sums are the same. crc32c_by, for tests: the given way or, if it lacks that, the
 * one below. */
uint32_t crc32c(uint32_t crc, const void *buf, size_t nbytes);
uint32_t crc32c_by(int way, uint32_t crc, const void *buf, size_t nbytes);

/* Asks for n bytes at p before they are needed, into the nearest cache or the one behind it: by
 * itself a processor fetches ahead to the end of a page only. p may be anything. */
static inline void bytes_fetch(const void *p, size_t n, bool nearest)
{
    for (size_t i = 0; i < n; i += 64) {
        if (nearest)
            __builtin_prefetch((const char *)p + i, 0, 3);
        else
            __builtin_prefetch((const char *)p + i, 0, 2);
    }
}

/* Room for one more item of 'each' bytes in a malloc'ed array that holds n of *cap items: twice as many, or
 * at first 'first'. at is the address of the pointer to it; what names the items in the message. E_SYS,
 * and all stays as it was. */
int array_grow(void *at, size_t *cap, size_t n, size_t each, size_t first, const char *what,
               struct err *e);

/* A growable byte string. Zero it before use; buf_free releases it. Growth that fails
 * returns E_SYS and leaves the content as it was. */
struct buf {
    char *p;
    size_t len, cap;
};
int buf_reserve(struct buf *b, size_t extra_bytes, struct err *e); /* room after len */
int buf_add(struct buf *b, const void *p, size_t nbytes, struct err *e);
int buf_printf(struct buf *b, struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void buf_free(struct buf *b);

/* a*b and a+b of sizes; false when the result does not fit. */
static inline bool mul_ok(size_t a, size_t b, size_t *r)
{
    return !__builtin_mul_overflow(a, b, r);
}
static inline bool add_ok(size_t a, size_t b, size_t *r)
{
    return !__builtin_add_overflow(a, b, r);
}

/* Words as word perplexity counts them: maximal runs of bytes other than ASCII white space. */
int64_t text_words(const char *s, size_t n);

C_END
#endif
