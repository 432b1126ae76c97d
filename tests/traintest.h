/* tests/traintest.h - a scratch folder with ids that can be learned, for the tests of training.
 * Include after cmocka's own headers. */
#ifndef TESTS_TRAINTEST_H
#define TESTS_TRAINTEST_H
#include "base/bytes.h"
#include "base/file.h"
#include "base/perm.h"

#include <stdio.h>
#include <stdlib.h>

enum { CTX = 32, N_TOKENS = 32 * 40 + 7, VOCAB = 512 };
static char dir[] = "/tmp/train.XXXXXX";
static char raw[64]; /* N_TOKENS raw u16 ids */

static int setup(void **state)
{
    unsigned char bytes[2 * N_TOKENS];
    struct err e = { 0 };

    (void)state;
    if (!mkdtemp(dir))
        return -1;
    snprintf(raw, sizeof raw, "%s/d.bin", dir);
    for (int i = 0; i < N_TOKENS; i++) /* a text that can be learned: each id tells the next */
        put_le(bytes + 2 * i, (uint64_t)(3 + (i * 7 + (int)(mix64((uint64_t)i) % 3)) % 500), 2);
    return file_replace(raw, bytes, sizeof bytes, &e);
}

static int teardown(void **state)
{
    (void)state;
    return dir_remove(dir, NULL);
}
#endif
