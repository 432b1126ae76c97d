/* formats/text/source.h - streams of members out of files, folders, globs, archives, a pipe. */
#ifndef FORMATS_TEXT_SOURCE_H
#define FORMATS_TEXT_SOURCE_H
#include "base/bytes.h"
#include "formats/text/source_list.h"
#include <stddef.h>
C_BEGIN

/*
 * Operands: a file; a folder, walked in byte order of names, hidden files passed over and links
 * to folders followed; a quoted glob; "-" for standard input, as is no operand at all.
 * A file named as an operand is always read. Out of folders and archives come the names that an
 * include glob matches, or, without any, the kinds of text, JSON and tables listed in
 * source_list.c; how many others there were is counted, and told.
 * gzip, zstd, xz, tar and zip are known by their bytes (base/magic.h), whatever the name, and are
 * streamed: nothing is ever unpacked, and a member's name is only a name. zstd windows reach to
 * 2^27; checksums of all of them are held to.
 * A zip whose members overlap (zipcheck.h) is refused before anything of it is read. Wherever 32
 * MiB in a row, headers of members among them, come of less than a 500th of that, what is read
 * is refused as a bomb at that point.
 */
struct source_member {
    enum source_kind kind;
    bool archived;    /* from a tar or zip archive */
    const char *file; /* path as it was given or found, or "standard input" */
    const char *name; /* file, or "file:member" with bytes unfit for a message made '?' */
};

struct source;
/* Expands the operands. include: globs, matched against the whole name if they hold a '/' and
 * against its last part otherwise. E_NOINPUT for what is not there, is not readable, or holds
 * nothing that would be read. advice (source_list.h): what messages may name, NULL for nothing. The
 * strings must outlive the source. */
int source_open(struct source **s, const char *const *operands, int n, const char *const *include,
                int n_include, const struct source_advice *advice, struct err *e);
void source_close(struct source *s);

/* The files, in the order they are read in: how many, and one of them (source_list.h). Then: the
 * first n of them are not read; to be called before source_next. */
int64_t source_files(const struct source *s);
const struct source_item *source_file(const struct source *s, int64_t i);
void source_skip(struct source *s, int64_t n);
/* The number of the file that the last member was in. */
int64_t source_at(const struct source *s);

/* 1 and the next member, 0 when there is none left, or E_DATA (archive cut short or damaged),
 * E_NOINPUT, E_IO. What is unread of the last member is passed over. After an error the next
 * call goes on with the next file. m is valid until the next call. */
int source_next(struct source *s, struct source_member *m, struct err *e);

/* Up to cap bytes of the current member: how many, 0 at its end, or an error as above, naming
 * file and member. */
int64_t source_read(struct source *s, void *buf, size_t cap, struct err *e);

/* Trades buf for lines, without control characters, on what of archives was not read since the
 * last call: links, members without a name, archives of which nothing was. */
void source_notes(struct source *s, struct buf *to);

struct source_progress {
    int64_t files, files_done;
    int64_t bytes, bytes_done;  /* on disk; bytes is 0 where a size is unknown */
    int64_t passed_over;        /* members of archives that are no text by name */
    int64_t in_folders;         /* and files in folders, the first of which is called so: */
    char first[200];
};
/* May be called by another thread. */
void source_progress(const struct source *s, struct source_progress *p);

C_END
#endif
