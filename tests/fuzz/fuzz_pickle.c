/* tests/fuzz/fuzz_pickle.c - files of torch.save, and pickles alone, of any bytes: every value of a
 * tensor that is accepted can be read. */
#include "formats/weights/pickle.h"
#include "formats/weights/pt_file.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

/* Reads all that a tensor says to have. */
static unsigned read_all(const struct tensor *t)
{
    const unsigned char *p = t->data;
    unsigned sum = 0;

    for (size_t i = 0; i < t->nbytes; i++)
        sum += p[i];
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    static volatile unsigned sink;
    struct pt_file *f;
    struct pickle p;
    struct err e = { 0 };

    if (pt_parse(&f, data, nbytes, "fuzz", &e) == 0) {
        for (int64_t i = 0; i < pt_count(f); i++) {
            const struct tensor *t = pt_at(f, i);
            if (t->dims < 0 || t->dims > TENSOR_DIMS || t->count < 0 || pt_find(f, t->name) != t)
                abort();
            sink += read_all(t);
        }
        pt_close(f);
    }
    if (pickle_read(&p, data, nbytes, "fuzz", &e) == 0) {
        for (size_t i = 0; i < p.n; i++)
            if (p.at[i].offset < 0 || p.at[i].count < 0 ||
                p.at[i].count > p.at[i].stored - p.at[i].offset)
                abort();
        pickle_free(&p);
    }
    return 0;
}
