/* tests/fuzz/fuzz_manifest.c - manifest.json of any bytes; what is taken is written and read
 * again, and must come out the same. */
#include "formats/tokens/manifest.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    struct manifest *m, *again;
    struct err e = {0};
    char *one, *two;

    char *copy = malloc(nbytes ? nbytes : 1);

    memcpy(copy, data, nbytes);
    if (manifest_parse(&m, copy, nbytes, "fuzz", &e) < 0) {
        free(copy);
        return 0;
    }
    free(copy);
    for (int i = 0; i < m->n_splits; i++)
        for (int64_t k = 0; k < m->splits[i].n_shards; k++)
            if (strchr(m->splits[i].shards[k].file, '/'))
                abort();
    if (!(one = manifest_text(m)) || manifest_parse(&again, one, strlen(one), "again", &e) < 0 ||
        !(two = manifest_text(again)) || strcmp(one, two) != 0)
        abort();
    manifest_free(m);
    manifest_free(again);
    free(one);
    free(two);
    return 0;
}
