/* tests/fuzz/fuzz_raw.c - a file of any bytes as a data set: raw ids, or a shard after all. */
#include "formats/tokens/dataset.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    static int fd = -1;
    struct dataset *d;
    struct dataset_doc doc;
    struct err e = {0};
    int32_t ids[257];
    uint8_t mask[257];
    char path[32];

    if (fd < 0 && (fd = memfd_create("fuzz", 0)) < 0)
        abort();
    if (ftruncate(fd, 0) < 0 || pwrite(fd, data, nbytes, 0) != (ssize_t)nbytes)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (dataset_open(&d, path, NULL, nbytes % 3 ? 32000 : 0, &e) < 0)
        return 0;
    for (int64_t i = 0; i < dataset_docs(d); i++) {
        if (dataset_doc(d, i, &doc, &e) < 0)
            abort();
        if (doc.n_ids && dataset_doc_at(d, doc.start) != i)
            abort();
    }
    for (int64_t at = 0; at < dataset_tokens(d); at += 257) {
        int64_t n = dataset_tokens(d) - at < 257 ? dataset_tokens(d) - at : 257;
        if (dataset_read(d, at, n, ids, mask, &e) < 0)
            break;
        for (int64_t i = 0; i < n; i++)
            if (ids[i] < 0 || (uint32_t)ids[i] >= dataset_info(d)->vocab || mask[i] > 1)
                abort();
    }
    dataset_verify(d, NULL, &e);
    dataset_close(d);
    return 0;
}
