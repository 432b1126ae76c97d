/* tests/fuzz/fuzz_filter.c - a path of keys, a line end, and any bytes as the row it looks in. */
#include "base/bytes.h"
#include "prep/filter.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    const char *nl = nbytes ? memchr(data, '\n', nbytes) : NULL;
    size_t k = nl ? (size_t)(nl - (const char *)data) : 0, n = nbytes - k - 1;
    struct buf out = { 0 };
    char path[512], *row;
    int rc;

    if (!nl || k >= sizeof path)
        return 0;
    memcpy(path, data, k);
    path[k] = '\0';
    if (!(row = malloc(n ? n : 1)))
        abort();
    memcpy(row, nl + 1, n);
    rc = filter_find(row, n, path, &out, NULL);
    if (rc != 0 && rc != 1)
        abort();
    if (rc == 0 && out.len != 0)
        abort();
    if (rc == 1 && utf8_valid(row, n, NULL) && !utf8_valid(out.p ? out.p : "", out.len, NULL))
        abort();
    free(row);
    buf_free(&out);
    return 0;
}
