/* tests/fuzz/fuzz_stream.c - a token stream of any bytes, as they are and with every checksum
 * made right, so that the checks behind the checksums are reached too. */
#include "base/bytes.h"
#include "formats/tokens/document.h"
#include "formats/tokens/stream.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

static void read_all(int fd, const uint8_t *p, size_t n)
{
    struct stream_reader *r;
    struct stream_item it;
    struct err e = {0};
    uint64_t words = 0;
    int rc;

    if (ftruncate(fd, 0) < 0 || pwrite(fd, p, n, 0) != (ssize_t)n || lseek(fd, 0, SEEK_SET))
        abort();
    if ((rc = stream_open(&r, fd, "fuzz", &e)) < 0) {
        if (rc != E_DATA || !e.msg[0])
            abort();
        return;
    }
    while ((rc = stream_next(r, &it, &e)) > 0) {
        const struct token_doc d = rc == STREAM_DOC ? it.doc : (struct token_doc){ .source = "",
                                                                                 .name = "" };
        for (int64_t i = 0; rc == STREAM_MARK && i < it.mark.n_inputs; i++)
            words += strlen(it.mark.inputs[i].path) + (uint64_t)it.mark.inputs[i].bytes;
        for (int64_t i = 0; rc == STREAM_MARK && i < it.mark.n_keys; i++)
            words += mark_key(&it.mark, i).low64;
        if (rc == STREAM_RUN)
            words += strlen(it.run.recipe);
        if (ids_bad(d.ids, d.n_ids, stream_info(r)->vocab) >= 0)
            abort();
        for (int64_t i = 0; i < d.n_runs; i++)
            if (d.runs[i].start < 0 || d.runs[i].start + d.runs[i].count > d.n_ids)
                abort();
        words += strlen(d.source) + strlen(d.name);
    }
    if (rc != 0 && rc != E_DATA)
        abort();
    stream_close(r);
    (void)words;
}

static void seal(uint8_t *p, size_t n)
{
    if (n < 332)
        return;
    put_le(p + 328, crc32c(0, p, 328), 4);
    for (size_t at = 332; at + 20 <= n;) {
        size_t len = (size_t)get_le(p + at + 4, 8);
        put_le(p + at + 12, crc32c(0, p + at, 12), 4);
        if (len > n - at - 20)
            return;
        if (memcmp(p + at, "END ", 4) == 0 && len == 24)
            put_le(p + at + 32, XXH3_64bits(p, at), 8);
        put_le(p + at + 16 + len, crc32c(0, p + at + 16, len), 4);
        at += 20 + len;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    static int fd = -1;
    uint8_t *copy = malloc(nbytes + 1);

    if (fd < 0 && (fd = memfd_create("fuzz", 0)) < 0)
        abort();
    memcpy(copy, data, nbytes);
    read_all(fd, copy, nbytes);
    seal(copy, nbytes);
    read_all(fd, copy, nbytes);
    free(copy);
    return 0;
}
