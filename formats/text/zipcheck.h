/* formats/text/zipcheck.h - whether a zip archive is what its directory says. */
#ifndef FORMATS_TEXT_ZIPCHECK_H
#define FORMATS_TEXT_ZIPCHECK_H
#include "base/err.h"
#include <stdint.h>
C_BEGIN

/* In a zip bomb members share their bytes: the directory names one place again and again, so
 * that a small file unpacks to any size; and what one reader takes from the directory, another
 * takes from the members' own headers. E_DATA for members that overlap each other or the
 * directory, or whose headers differ from it in name, method, sizes or checksum, or a directory
 * of over 64 MiB; 0 otherwise, also where there is no directory, which the reader will say.
 * E_IO, E_SYS. Reads by offset: fd stays where it is. */
int zip_check(int fd, int64_t bytes, const char *name, struct err *e);

C_END
#endif
