/* tests/fuzz/replay.c - a main for a fuzz target: its seeds and their close neighbours. */
#include "base/err.h"
#include "base/file.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

enum { NEIGHBOURS = 48, MAX_SEED_BYTES = 1 << 24 };

/* In a block of exactly nbytes, so that AddressSanitizer sees one byte too many. */
static void feed(const uint8_t *data, size_t nbytes, size_t flip_at)
{
    uint8_t *copy = malloc(nbytes ? nbytes : 1);

    if (!copy)
        exit(71);
    memcpy(copy, data, nbytes);
    if (flip_at < nbytes)
        copy[flip_at] ^= (uint8_t)(1u << (flip_at % 8));
    LLVMFuzzerTestOneInput(copy, nbytes);
    free(copy);
}

/* usage: replay SEED...; each file as it is, cut at NEIGHBOURS places, and with one bit
 * turned at as many (every byte of a small file). Ends by returning: a finding is a crash. */
int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        struct err e = { 0 };
        char *seed;
        size_t nbytes, step;

        if (file_read(argv[i], MAX_SEED_BYTES, &seed, &nbytes, &e) < 0) {
            fprintf(stderr, "replay: %s\n", e.msg);
            return -e.code;
        }
        feed((uint8_t *)seed, nbytes, SIZE_MAX);
        step = nbytes / NEIGHBOURS + 1;
        for (size_t at = 0; at < nbytes; at += step) {
            feed((uint8_t *)seed, at, SIZE_MAX);
            feed((uint8_t *)seed, nbytes, at);
        }
        free(seed);
    }
    return 0;
}
