/* tests/emulate/instructions.h - kernels/cuda/ptx.cuh on the CPU. */
#ifndef TESTS_EMULATE_INSTRUCTIONS_H
#define TESTS_EMULATE_INSTRUCTIONS_H

static inline void mma(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    struct emulate_call c = {};

    c.kind = EMULATE_MMA;
    c.sum = d;
    c.left = a;
    c.right[0] = b0;
    c.right[1] = b1;
    emulate(&c);
}
static inline void emulate_ldmatrix(enum emulate_kind kind, uint32_t x[4], uint32_t at)
{
    struct emulate_call c = {};

    c.kind = kind;
    c.out = x;
    c.at = at;
    emulate(&c);
}
static inline void ldmatrix(uint32_t x[4], uint32_t at)
{
    emulate_ldmatrix(EMULATE_LDMATRIX, x, at);
}
static inline void ldmatrix_turned(uint32_t x[4], uint32_t at)
{
    emulate_ldmatrix(EMULATE_TURNED, x, at);
}
static inline void copy16(uint32_t to, const void *from, bool there)
{
    emulate_copy(to, from, 16, there);
}
static inline void copy4(uint32_t to, const void *from, bool there)
{
    emulate_copy(to, from, 4, there);
}
static inline void copy16_near(uint32_t to, const void *from, bool there)
{
    emulate_copy(to, from, 16, there);
}
static inline void copies_wait(void) { emulate_copies_wait(0); }
static inline void copies_commit(void) { emulate_copies_commit(); }
template <int N> static inline void copies_wait_but(void) { emulate_copies_wait(N + 1); }
static inline uint32_t shared_address(const void *p)
{
    return (uint32_t)((const unsigned char *)p - room);
}
static inline float exp2_fast(float x)
{
    float y = exp2f(x);

    return y < 0x1p-126f ? 0 : y;
}
#endif
