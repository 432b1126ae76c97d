/* tests/fuzz/fuzz_source.c - any bytes as a file or an archive: members are read or refused. */
#include "formats/text/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

/* What little input can unpack to without end: enough is enough. */
#define MAX_READ ((int64_t)4 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    static const char *const all = "*";
    static char buf[1 << 16];
    struct source_member m;
    struct source *s;
    struct err e = { 0 };
    char path[64];
    const char *operand = path;
    int fd = memfd_create("fuzz", MFD_CLOEXEC), rc = 1;
    int64_t n, total = 0;

    if (fd < 0 || write(fd, data, nbytes) != (ssize_t)nbytes)
        abort();
    snprintf(path, sizeof path, "/dev/fd/%d", fd);
    if (source_open(&s, &operand, 1, &all, 1, NULL, &e) < 0)
        abort();
    while (rc == 1 && total < MAX_READ && (rc = source_next(s, &m, &e)) == 1) {
        if (strpbrk(m.name, "\n\033") || strncmp(m.name, path, strlen(path)) != 0)
            abort();
        while (total < MAX_READ && (n = source_read(s, buf, sizeof buf, &e)) > 0)
            total += n;
        total++;
    }
    source_close(s);
    close(fd);
    return 0;
}
