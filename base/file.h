/* base/file.h - mapping, whole writes, and replacing a file so that a crash leaves old or new. */
#ifndef BASE_FILE_H
#define BASE_FILE_H
#include "base/err.h"
#include "base/tree.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
C_BEGIN

/* Git LFS's pointers are no files: file_map and file_read refuse them (E_DATA, with the remedy).
 * Nothing waits for whoever may write into a pipe that has a file's name.
 * Maps a whole regular file for reading; the caller gives it to file_unmap. E_NOINPUT when it cannot be
 * opened, E_DATA when it is empty, a folder or a pipe. */
int file_map(const char *path, const void **map, size_t *nbytes, struct err *e);
void file_unmap(const void *map, size_t nbytes);

/* Reads at most max_bytes of a regular file, or of a pipe that the shell made (/dev/fd/63), into malloc'ed memory with a NUL after the last byte;
 * the caller frees. E_NOINPUT, E_DATA when it is larger. */
int file_read(const char *path, size_t max_bytes, char **text, size_t *nbytes, struct err *e);

/* Writes all of buf, going on after EINTR and short writes. name is for the message. E_IO. */
int file_write_all(int fd, const void *buf, size_t nbytes, const char *name, struct err *e);

/* The same at a place of the file; threads may do so at once. */
int file_write_at(int fd, int64_t at, const void *buf, size_t nbytes, const char *name,
                  struct err *e);

/* A file that is written piece by piece, through fd, and takes path's place whole: all of it
 * or, after a crash, what was there before (fsync, rename, fsync of the folder). A link is
 * followed, and a device or a pipe written into. Owns its descriptor until published or
 * abandoned; publish abandons what it cannot publish. E_CREATE, E_IO. */
struct file_out {
    int fd;
    bool into, named; /* path itself is open; tmp is there */
    char path[4096], tmp[4096];
};
int file_out_open(struct file_out *o, const char *path, struct err *e);
int file_out_publish(struct file_out *o, struct err *e);
void file_out_abandon(struct file_out *o);
/* The same for content that is at hand. */
int file_replace(const char *path, const void *buf, size_t nbytes, struct err *e);

/* fsync of the file or folder at path. E_IO. */
int file_sync(const char *path, struct err *e);
/* rename, then fsync of the parent folder of 'to'. E_CREATE. */
int file_publish(const char *from, const char *to, struct err *e);
/* Swaps two folders or files of one parent, both of which exist: in one step where the file
 * system can, so that a crash finds the old or the new under each name. E_CREATE, and they are
 * as they were; E_IO, and they are swapped, but perhaps not on disk. */
int file_swap(const char *a, const char *b, struct err *e);
/* Byte-for-byte copy of a regular file, which appears whole as file_out's do. E_NOINPUT, E_CREATE, E_IO. */
int file_copy(const char *from, const char *to, struct err *e);

/* Makes a folder and its missing parents; one that exists is fine. E_CREATE. */
int dir_make(const char *path, struct err *e);

/* 0 where path is a folder; E_NOINPUT: it is not there, cannot be looked at, or is no folder. */
int dir_check(const char *path, struct err *e);
bool path_is_dir(const char *path);
bool path_is_file(const char *path); /* a regular one */
bool path_exists(const char *path);
/* dir/name in malloc'ed memory (never NULL: out of memory aborts, as it is a few bytes). */
char *path_join(const char *dir, const char *name);

C_END
#endif
