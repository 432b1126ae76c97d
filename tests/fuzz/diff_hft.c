/* tests/fuzz/diff_hft.c - ids for diff_hf.py: diff_hft TOKENIZER < TEXTS > IDS. A text is its length in
 * 4 bytes (little-endian) and its bytes; the answer the number of ids (-1: refused), the ids, and the
 * length and bytes of the text that they decode to. */
#include "formats/tokenizer/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>

static void put(const void *p, size_t n)
{
    if (n && fwrite(p, 1, n, stdout) != n)
        exit(74);
}

int main(int argc, char **argv)
{
    struct tokenizer *t;
    struct err e = { 0 };
    uint32_t n;

    if (argc != 2 || tokenizer_open(&t, argv[1], &e) < 0) {
        fprintf(stderr, "diff_hft: %s\n", e.msg);
        return 1;
    }
    while (fread(&n, 4, 1, stdin) == 1) {
        char *text = malloc(n + !n), *back = NULL; /* exactly n bytes: one too many is seen */
        int32_t *ids = NULL, count;
        int64_t n_ids;
        size_t n_back = 0;

        if (!text || fread(text, 1, n, stdin) != n)
            return 1;
        if (tokenizer_encode(t, text, n, &ids, &n_ids, &e) < 0 ||
            tokenizer_decode(t, ids, n_ids, &back, &n_back, &e) < 0)
            n_ids = -1;
        count = (int32_t)n_ids;
        put(&count, 4);
        if (n_ids >= 0) {
            put(ids, (size_t)n_ids * 4);
            n = (uint32_t)n_back;
            put(&n, 4);
            put(back, n_back);
        }
        fflush(stdout);
        free(text);
        free(ids);
        free(back);
    }
    tokenizer_close(t);
    return 0;
}
