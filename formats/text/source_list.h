/* formats/text/source_list.h - the operands of a source, turned into a list of files. */
#ifndef FORMATS_TEXT_SOURCE_LIST_H
#define FORMATS_TEXT_SOURCE_LIST_H
#include "base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
C_BEGIN

enum source_kind {
    SOURCE_UNKNOWN, /* no name to judge by, or one that says nothing: look at the bytes */
    SOURCE_TEXT,
    SOURCE_JSON,    /* .json */
    SOURCE_LINES,   /* .jsonl, .ndjson */
    SOURCE_TABLE    /* .parquet, .arrow: data that nobody wants passed over */
};

/* What the program that reads can do about a file, for the second line of messages. NULL: nothing. */
struct source_advice {
    const char *leave_out; /* a damaged one: "leave it out with --on-error skip"; NULL: "leave it out" */
    const char *others;    /* names that are not read: "--include GLOB takes others" */
};

struct source_item {
    char *path;    /* NULL: standard input */
    int64_t bytes; /* of a regular file; else 0 */
    bool regular;
    int64_t mtime_ns; /* of a regular file, when the list was made */
    int error;        /* errno of a file or folder within a folder that cannot be looked at */
};
struct source_list {
    struct source_item *v;
    int64_t n;
    size_t cap;
    const char *const *include;
    int n_include;
    struct source_advice advice;
    /* Within folders: files that are none to be read by their names, and the first of them;
     * devices and pipes; folders that links lead to a second time. */
    int64_t passed_over, special, again;
    char first[256];
    struct source_folder {
        uint64_t device, inode;
    } *folders; /* those walked, of one operand, where their hash says; inode 0: none */
    int64_t n_folders, cap_folders;
};

/* What source.h says of source_open. The list is to be freed after an error too. */
int source_list_fill(struct source_list *l, const char *const *operands, int n, struct err *e);
void source_list_free(struct source_list *l);

/* By the name's ending: .tar, .tar.gz, .tgz, .zip ... */
bool source_is_archive(const char *name);
/* By the name's ending, leaving out .gz, .zst, .xz. */
enum source_kind source_kind(const char *name);
/* "a CSV table", "an HTML page" ... by the name's ending, what is no text as it stands; or NULL. */
const char *source_no_text(const char *name);
/* A member of an archive or a file in a folder by this name is read. */
bool source_wanted(const struct source_list *l, const char *name);

C_END
#endif
