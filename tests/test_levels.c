/* tests/test_levels.c - loops that are compiled for several processors: the same bits at each level of
 * simd_level(), which a process asks once, so that each has its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/levels.h"
#include "formats/weights/gguf_types.h"
#include "tools/merge.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Calls 'wrong' at each level: 0, or which of its comparisons is wrong. */
static void at_each_level(int (*wrong)(void))
{
    static const char *const levels[] = { "none", "avx2", "avx512" };

    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        pid_t child = fork();
        int status;

        assert_true(child >= 0);
        if (child == 0) {
            setenv("LONGLORA_SIMD", levels[i], 1);
            _exit(wrong());
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        if (status)
            fail_msg("%s: comparison %d", levels[i], WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    }
}

static uint32_t state;
static uint32_t next(void) { return state = state * 1664525u + 1013904223u, state >> 8; }

/* ---- ggml's blocks, written as plainly as it says what they are ---- */

static void plain_q8_0(const float *f, unsigned char *p)
{
    float most = 0, d, by;
    uint16_t half;

    for (int i = 0; i < GGUF_BLOCK; i++)
        most = fmaxf(most, fabsf(f[i]));
    d = most / 127;
    by = d != 0 ? 1 / d : 0;
    half = f32_to_f16(d);
    memcpy(p, &half, 2);
    for (int i = 0; i < GGUF_BLOCK; i++) {
        float q = roundf(f[i] * by);
        p[2 + i] = isfinite(q) ? (unsigned char)(int8_t)q : 0; /* a scale that is 0 in the file */
    }
}

static int nibble(float f, float by)
{
    double q = (double)f * (double)by + 8.5;

    return !isfinite(q) ? 0 : q > 15 ? 15 : (int)q;
}

static void plain_q4_0(const float *f, unsigned char *p)
{
    float at = 0, d, by;
    uint16_t half;

    for (int i = 0; i < GGUF_BLOCK; i++)
        at = fabsf(f[i]) > fabsf(at) ? f[i] : at;
    d = at / -8;
    by = d != 0 ? 1 / d : 0;
    half = f32_to_f16(d);
    memcpy(p, &half, 2);
    for (int i = 0; i < GGUF_BLOCK / 2; i++)
        p[2 + i] = (unsigned char)(nibble(f[i], by) | nibble(f[i + GGUF_BLOCK / 2], by) << 4);
}

/* Blocks of each kind: what trained weights look like; halves, to be rounded either way; ties for the
 * largest, of both signs; the values just beside halves; of every size, to the least; few values. */
static void fill_block(float *f, int kind)
{
    float most = ldexpf(1 + (float)(next() % 4096) / 4096, (int)(next() % 12) - 6);

    for (int i = 0; i < GGUF_BLOCK; i++) {
        float u = (float)((int)(next() % 65536) - 32768) / 32768;
        int whole = (int)(next() % 17) - 8;

        switch (kind) {
        case 0: f[i] = u * 0.05F; break;
        case 1: f[i] = (float)(next() % 512) / 2 - 127; break;
        case 2: f[i] = next() % 8 ? u * most : next() % 2 ? most : -most; break;
        case 3: f[i] = nextafterf(((float)whole + 0.5F) * most / 8, next() % 2 ? 100 : -100); break;
        case 4: f[i] = float_of(next() << 8 ^ next()); break;
        case 5: f[i] = ldexpf(u, -126 - (int)(next() % 24)); break;
        default: f[i] = next() % 4 ? 0 : next() % 2 ? u : -0.0F; break;
        }
        if (!isfinite(f[i]) || (kind == 3 && fabsf(f[i]) > most))
            f[i] = 0;
    }
    if (kind == 3)
        f[next() % GGUF_BLOCK] = next() % 2 ? most : -most;
}

enum { BLOCKS = 131, VALUES = BLOCKS * GGUF_BLOCK }; /* more than are computed at a time, and odd */

static int wrong_blocks(void)
{
    static float f[VALUES + 1];
    static unsigned char q8[BLOCKS * GGUF_Q8_BYTES], q4[BLOCKS * GGUF_Q4_BYTES];
    unsigned char want[GGUF_Q8_BYTES];

    state = 7;
    for (int round = 0; round < 300; round++) {
        float *at = f + round % 2; /* not aligned either */

        for (int b = 0; b < BLOCKS; b++)
            fill_block(at + b * GGUF_BLOCK, (round + b) % 7);
        if (!gguf_narrow(&type_q8_0, at, VALUES, q8) || !gguf_narrow(&type_q4_0, at, VALUES, q4))
            return 1;
        for (int b = 0; b < BLOCKS; b++) {
            plain_q8_0(at + b * GGUF_BLOCK, want);
            if (memcmp(want, q8 + b * GGUF_Q8_BYTES, GGUF_Q8_BYTES))
                return 2 + (round + b) % 7;
            plain_q4_0(at + b * GGUF_BLOCK, want);
            if (memcmp(want, q4 + b * GGUF_Q4_BYTES, GGUF_Q4_BYTES))
                return 12 + (round + b) % 7;
        }
    }
    return 0;
}

static void test_blocks_are_ggmls(void **s) { (void)s, at_each_level(wrong_blocks); }

/* One value that is not finite, anywhere, is told; other blocks are as they were. */
static int wrong_not_finite(void)
{
    static const uint32_t odd[] = { 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00000, 0x7F800001 };
    static float f[VALUES];
    static unsigned char q[2][BLOCKS * GGUF_Q8_BYTES];
    const struct tensor_type *types[] = { &type_q8_0, &type_q4_0 };

    state = 8;
    for (int round = 0; round < 600; round++) {
        const struct tensor_type *t = types[round % 2];
        int at = (int)(next() % VALUES), block = at / GGUF_BLOCK;
        size_t before = (size_t)block * t->block_bytes, after = before + t->block_bytes;

        for (int b = 0; b < BLOCKS; b++)
            fill_block(f + b * GGUF_BLOCK, round % 7);
        if (!gguf_narrow(t, f, VALUES, q[0]))
            return 1;
        f[at] = float_of(odd[next() % 5]);
        if (gguf_narrow(t, f, VALUES, q[1]))
            return 2;
        if (memcmp(q[0], q[1], before) || memcmp(q[0] + after, q[1] + after, BLOCKS * t->block_bytes - after))
            return 3;
    }
    return 0;
}

static void test_what_is_not_finite_is_told(void **s) { (void)s, at_each_level(wrong_not_finite); }

/* ---- floats, and the merge ---- */

static int wrong_floats(void)
{
    static uint16_t half[65537], back[65537];
    static float f[65537];

    for (int t = DT_F16; t <= (int)DT_BF16; t++) {
        for (int i = 0; i < 65537; i++)
            half[i] = (uint16_t)i;
        floats_widen((enum dtype)t, half, 65537, f);
        for (int i = 0; i < 65537; i++) {
            float one = t == DT_F16 ? f16_to_f32(half[i]) : bf16_to_f32(half[i]);
            if (memcmp(&one, &f[i], 4))
                return 1;
        }
        for (int round = 0; round < 40; round++) {
            for (int i = 0; i < 65537; i++)
                f[i] = float_of(next() << 8 ^ next());
            floats_narrow((enum dtype)t, f, 65537, back);
            for (int i = 0; i < 65537; i++)
                if (back[i] != (t == DT_F16 ? f32_to_f16(f[i]) : f32_to_bf16(f[i])))
                    return 2;
        }
    }
    return 0;
}

static void test_halves_are_those_of_one(void **s) { (void)s, at_each_level(wrong_floats); }

static int wrong_merge(void)
{
    enum { ROWS = 5, COLS = 701, STRIDE = 709, RANK = 11 };
    static float w[ROWS * COLS], want[ROWS * COLS], a[RANK * STRIDE], b[ROWS * RANK];
    float most = 0;

    state = 9;
    for (int i = 0; i < RANK * STRIDE; i++)
        a[i] = (float)(next() % 4096) / 3000 - 0.7F;
    for (int i = 0; i < ROWS * RANK; i++)
        b[i] = (float)(next() % 4096) / 7000 - 0.3F;
    for (int i = 0; i < ROWS * COLS; i++)
        want[i] = w[i] = (float)(next() % 4096) / 4100 - 0.5F;
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLS; c++) {
            volatile float sum = 0, product; /* one operation at a time */
            for (int k = 0; k < RANK; k++) {
                product = b[r * RANK + k] * a[k * STRIDE + c];
                sum = sum + product;
            }
            product = 1.7F * sum;
            most = fmaxf(most, fabsf(product));
            want[r * COLS + c] += product;
        }
    if (merge_rows(w, b, a, ROWS, COLS, STRIDE, RANK, 1.7F) != most)
        return 1;
    if (memcmp(w, want, sizeof w))
        return 2;
    w[700] = -w[700];
    w[1402] = INFINITY;
    return merge_not_finite(DT_F32, w, ROWS * COLS) != 1 ? 3
           : merge_same(DT_F32, w, want, ROWS * COLS) != ROWS * COLS - 2 ? 4 : 0;
}

static void test_merged_rows_are_those_of_the_formula(void **s) { (void)s, at_each_level(wrong_merge); }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_are_ggmls),
        cmocka_unit_test(test_what_is_not_finite_is_told),
        cmocka_unit_test(test_halves_are_those_of_one),
        cmocka_unit_test(test_merged_rows_are_those_of_the_formula),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
