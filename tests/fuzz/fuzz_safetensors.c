/* tests/fuzz/fuzz_safetensors.c - the safetensors reader on any bytes; what it takes is touched. */
#include "formats/weights/safetensors.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    struct err e = {0};
    struct st_file *f;
    size_t total = 0;

    if (st_parse(&f, data, nbytes, "fuzz", &e) < 0)
        return 0;
    for (int64_t i = 0; i < st_count(f); i++) {
        const struct tensor *t = st_at(f, i);
        const unsigned char *p = t->data;
        unsigned sum = 0;
        for (size_t k = 0; k < t->nbytes; k++)
            sum += p[k];
        total += t->nbytes + (sum > 1u << 31);
        if (st_find(f, t->name) != t)
            abort();
    }
    if (total > nbytes)
        abort(); /* overlap */
    (void)st_metadata(f, "format");
    st_close(f);
    return 0;
}
