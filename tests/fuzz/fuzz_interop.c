/* tests/fuzz/fuzz_interop.c - llm.c's file of any bytes; Megatron's pair of any bytes, the
 * first two of which say how many are the index. */
#include "base/bytes.h"
#include "formats/tokens/interop.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

/* Reads all documents; together they must be all ids. */
static void use(const struct interop *f)
{
    uint32_t ids[64];
    struct err e = {0};
    int64_t sum = 0, at, n;

    for (int64_t i = 0; i < f->n_docs; i++) {
        interop_doc(f, i, &at, &n);
        if (at != sum || n < 0 || n > f->n_ids - at)
            abort();
        for (int64_t k = 0; k < n; k += 64)
            if (interop_load(f, at + k, n - k < 64 ? n - k : 64, 32000, ids, &e) < 0 &&
                e.code != E_DATA)
                abort();
        sum += n;
    }
    if (sum != f->n_ids)
        abort();
}

/* In a block of its own, so that a byte too many is seen. */
static void *copy(const uint8_t *p, size_t n)
{
    uint8_t *c = malloc(n ? n : 1);

    memcpy(c, p, n);
    return c;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    struct interop f;
    struct err e = {0};
    size_t n;
    void *idx, *bin;

    if (llmc_parse(&f, data, nbytes, &e) == 0)
        use(&f);
    if (nbytes < 2)
        return 0;
    n = (size_t)get_le(data, 2) < nbytes - 2 ? (size_t)get_le(data, 2) : nbytes - 2;
    idx = copy(data + 2, n);
    bin = copy(data + 2 + n, nbytes - 2 - n);
    if (megatron_parse(&f, idx, n, bin, nbytes - 2 - n, &e) == 0)
        use(&f);
    else if (e.code != E_DATA || !e.msg[0])
        abort();
    free(idx);
    free(bin);
    return 0;
}
