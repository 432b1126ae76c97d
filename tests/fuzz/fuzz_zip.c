/* tests/fuzz/fuzz_zip.c - any bytes as a zip archive: its directory is judged or passed over. */
#include "formats/text/zipcheck.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    struct err e = { 0 };
    int fd = memfd_create("fuzz", MFD_CLOEXEC), rc;

    if (fd < 0 || write(fd, data, nbytes) != (ssize_t)nbytes)
        abort();
    rc = zip_check(fd, (int64_t)nbytes, "fuzz.zip", &e);
    if (rc != 0 && (rc != E_DATA || !strstr(e.msg, "'fuzz.zip'")))
        abort();
    if (lseek(fd, 0, SEEK_CUR) != (off_t)nbytes)
        abort();
    close(fd);
    return 0;
}
