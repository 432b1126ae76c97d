/* tests/fuzz/fuzz_tokenizer.c - any bytes as a tokenizer; one that loads must work. */
#include "formats/tokenizer/tokenizer.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    static const char text[] = "the nation  so\ndedicated \xC3\xA9 \xFF 12 \xE2\x96\x81x";
    struct tokenizer *t;
    struct err e = { 0 };
    int32_t *ids;
    int64_t n;
    char *back;
    size_t n_back;

    if (tokenizer_parse(&t, data, nbytes, "fuzz", &e) < 0) {
        if (e.code == 0 || !e.msg[0])
            abort();
        return 0;
    }
    if (tokenizer_encode(t, text, sizeof text - 1, &ids, &n, &e) == 0) {
        for (int64_t i = 0; i < n; i++)
            if (ids[i] < 0 || ids[i] >= tokenizer_vocab(t) || !tokenizer_piece(t, ids[i]))
                abort();
        if (tokenizer_decode(t, ids, n, &back, &n_back, &e) == 0)
            free(back);
        free(ids);
    }
    tokenizer_close(t);
    return 0;
}
