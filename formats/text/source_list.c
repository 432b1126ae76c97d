/* formats/text/source_list.c - see source_list.h. */
#include "formats/text/source_list.h"

#include "base/bytes.h"
#include "base/file.h"
#include "base/must.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

/* A tree of real folders is not so deep; the walk calls itself once a level. */
#define MAX_FOLDERS_DEEP 64

/* What the names of files and of members of archives say of their kind. Case does not
 * matter. */
static const struct {
    const char *ending;
    enum source_kind kind;
} known[] = {
    { "txt", SOURCE_TEXT },    { "text", SOURCE_TEXT },    { "tex", SOURCE_TEXT },
    { "md", SOURCE_TEXT },     { "rst", SOURCE_TEXT },     { "json", SOURCE_JSON },
    { "jsonl", SOURCE_LINES }, { "ndjson", SOURCE_LINES }, { "parquet", SOURCE_TABLE },
    { "arrow", SOURCE_TABLE },
};

/* Forms that hold text, but not as it stands: for a hint in a message, not for choosing
 * files. */
static const struct {
    const char *ending, *what;
} no_text[] = {
    { "csv", "a CSV table" },    { "tsv", "a TSV table" },    { "html", "an HTML page" },
    { "htm", "an HTML page" },   { "xhtml", "an HTML page" }, { "xml", "an XML document" },
    { "warc", "WARC records" },  { "wet", "WARC records" },
};

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

/* The length of a name without one ending that only says how it is packed. */
static size_t unpacked_len(const char *name)
{
    static const char *const packed[] = { ".gz", ".zst", ".xz" };
    size_t n = strlen(name);

    for (size_t i = 0; i < sizeof packed / sizeof *packed; i++) {
        size_t k = strlen(packed[i]);
        if (n > k && strcasecmp(name + n - k, packed[i]) == 0)
            return n - k;
    }
    return n;
}

/* Whether the first n bytes of name end in "." and ending, with something before the dot. */
static bool ends_in(const char *name, size_t n, const char *ending)
{
    size_t k = strlen(ending);

    return n > k && name[n - k - 1] == '.' && strncasecmp(name + n - k, ending, k) == 0;
}

/* Names without an ending that is listed are unknown: the bytes decide, text if they are not
 * JSON. */
enum source_kind source_kind(const char *name)
{
    size_t n = unpacked_len(name);

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (ends_in(name, n, known[i].ending))
            return known[i].kind;
    return SOURCE_UNKNOWN;
}

const char *source_no_text(const char *name)
{
    size_t n = unpacked_len(name);

    for (size_t i = 0; i < sizeof no_text / sizeof *no_text; i++)
        if (ends_in(name, n, no_text[i].ending))
            return no_text[i].what;
    return NULL;
}

bool source_is_archive(const char *name)
{
    return ends_in(name, unpacked_len(name), "tar") || ends_in(name, strlen(name), "zip") ||
           ends_in(name, strlen(name), "tgz") || ends_in(name, strlen(name), "txz");
}

bool source_wanted(const struct source_list *l, const char *name)
{
    const char *base = base_name(name);

    /* Hidden files and names that end in a slash are never wanted, not even by an include
     * glob. */
    if (base[0] == '.' || base[0] == '\0')
        return false;
    for (int i = 0; i < l->n_include; i++)
        /* Unlike in a shell, '*' also matches a '/' here (flags 0), so a pattern
         * with a folder in it reaches its subfolders too. */
        if (fnmatch(l->include[i], strchr(l->include[i], '/') ? name : base, 0) == 0)
            return true;
    return l->n_include == 0 && source_kind(name) != SOURCE_UNKNOWN;
}

/* Takes over path; NULL is standard input, which has no st. */
static int add(struct source_list *l, char *path, const struct stat *st, struct err *e)
{
    struct source_item item = { .path = path };

    if (array_grow(&l->v, &l->cap, (size_t)l->n, sizeof *l->v, 64, "files", e) < 0) {
        free(path);
        return E_SYS;
    }
    /* Without st, or for a pipe, bytes stays 0, which means that the size is not known. */
    if (st && S_ISREG(st->st_mode)) {
        item.bytes = st->st_size;
        item.regular = true;
        item.mtime_ns = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
    }
    l->v[l->n++] = item;
    return 0;
}

/* What cannot be looked at has its place in the list, where opening it will say why. */
static int add_bad(struct source_list *l, char *path, int error, struct err *e)
{
    int rc = add(l, path, NULL, e);

    if (rc == 0)
        l->v[l->n - 1].error = error;
    return rc;
}

/* The slot of folder f in the hash table: its own, or the free one where it belongs. The
 * table has a power of two slots and is at most half full, so the search ends. inode 0
 * marks a free slot. The constant is 2^64 divided by the golden ratio: the product's upper
 * bits are well mixed. */
static size_t place_of(const struct source_list *l, const struct source_folder *f)
{
    size_t mask = (size_t)l->cap_folders - 1, i = (size_t)(f->inode * 0x9E3779B97F4A7C15u >> 32);

    for (i &= mask; l->folders[i].inode; i = (i + 1) & mask)
        if (l->folders[i].inode == f->inode && l->folders[i].device == f->device)
            break;
    return i;
}

/* Doubles the table. Each folder is put in again, as its slot depends on the table's size.
 * On failure the old table stays. */
static int more_folders(struct source_list *l, struct err *e)
{
    struct source_folder *was = l->folders;
    int64_t cap = l->cap_folders;

    l->cap_folders = cap ? 2 * cap : 64;
    if (!(l->folders = calloc((size_t)l->cap_folders, sizeof *was))) {
        l->folders = was;
        l->cap_folders = cap;
        return err_set(e, E_SYS, "out of memory for a list of %lld folders", (long long)cap);
    }
    for (int64_t i = 0; i < cap; i++)
        if (was[i].inode)
            l->folders[place_of(l, &was[i])] = was[i];
    free(was);
    return 0;
}

/* 1 the first time that a folder is come to, else 0: links may lead round in circles. */
static int first_time(struct source_list *l, const struct stat *st, struct err *e)
{
    const struct source_folder f = { (uint64_t)st->st_dev, (uint64_t)st->st_ino };
    size_t at;
    int rc;

    if (2 * l->n_folders >= l->cap_folders && (rc = more_folders(l, e)) < 0)
        return rc;
    at = place_of(l, &f);
    if (l->folders[at].inode)
        return 0;
    l->folders[at] = f;
    l->n_folders++;
    return 1;
}

/* The order of bytes, not of the locale: the same folder gives the same shards everywhere. */
static int by_bytes(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int not_hidden(const struct dirent *d) { return d->d_name[0] != '.'; }

static int add_folder(struct source_list *l, char *path, int depth, struct err *e);

/* It would be read by its name; one without an ending may be a folder. */
static bool may_hold_text(const struct source_list *l, const char *path)
{
    return source_wanted(l, path) || source_is_archive(path) || !strchr(base_name(path), '.');
}

/* Takes over path, of a file or folder within a folder. */
static int add_found(struct source_list *l, char *path, int depth, struct err *e)
{
    struct stat st;
    bool there = stat(path, &st) == 0;
    int rc = 0;

    /* A file that would not have been read anyway is no error when it cannot be looked at. */
    if (!there && may_hold_text(l, path)) /* a link that leads nowhere, or it went meanwhile */
        return add_bad(l, path, errno, e);
    if (there && S_ISDIR(st.st_mode)) {
        if ((rc = first_time(l, &st, e)) == 1)
            return add_folder(l, path, depth + 1, e);
        l->again += rc == 0;
    } else if (there && S_ISREG(st.st_mode) &&
               (source_wanted(l, path) || source_is_archive(path))) {
        return add(l, path, &st, e);
    } else if (there && !S_ISREG(st.st_mode)) {
        l->special++;
    } else if (l->passed_over++ == 0) {
        /* The first one's name is an example for the message. */
        snprintf(l->first, sizeof l->first, "%s", path);
    }
    free(path);
    return rc;
}

/* Takes over path. */
static int add_folder(struct source_list *l, char *path, int depth, struct err *e)
{
    struct dirent **names = NULL;
    int rc = 0, n = depth < MAX_FOLDERS_DEEP ? scandir(path, &names, not_hidden, by_bytes) : -1;

    /* A folder within the operand that cannot be read takes a place in the list and fails
     * there, where --on-error may skip it; the operand itself fails at once. */
    if (n < 0 && depth > 0 && depth < MAX_FOLDERS_DEEP)
        return add_bad(l, path, errno, e);
    if (n < 0)
        rc = depth < MAX_FOLDERS_DEEP
                 ? err_sys(e, E_NOINPUT, "cannot read the folder '%s'", path)
                 : err_set(e, E_NOINPUT, "folders nested deeper than %d at '%s'",
                           MAX_FOLDERS_DEEP, path);
    for (int i = 0; i < n; i++) {
        if (rc == 0)
            rc = add_found(l, path_join(path, names[i]->d_name), depth, e);
        free(names[i]);
    }
    free(names);
    free(path);
    return rc;
}

/* The folders that path stands in count as walked: a link to one of them leads back. */
static int first_folders(struct source_list *l, const char *path, struct err *e)
{
    char real[PATH_MAX];
    struct stat st;
    int rc = 0;

    /* Each operand has its own table: the same folder named twice is read twice. */
    free(l->folders);
    l->folders = NULL;
    l->n_folders = l->cap_folders = 0;
    if (!realpath(path, real))
        return err_sys(e, E_NOINPUT, "cannot open '%s'", path);
    /* Cuts the last part off the real path until nothing is left: /a/b, /a, then "" for the
     * root. */
    for (char *end; rc >= 0 && stat(real[0] ? real : "/", &st) == 0; *end = '\0') {
        rc = first_time(l, &st, e);
        if (!(end = strrchr(real, '/')))
            break;
    }
    return rc < 0 ? rc : 0;
}

static int add_path(struct source_list *l, const char *path, struct err *e)
{
    int64_t before = l->n;
    struct stat st;
    int rc;

    if (stat(path, &st) != 0)
        return err_sys(e, E_NOINPUT, "cannot open '%s'", path);
    if (!S_ISDIR(st.st_mode))
        return add(l, must_printf("%s", path), &st, e);
    /* A folder of which nothing would be read is an error: probably the wrong folder was
     * given. */
    if ((rc = first_folders(l, path, e)) < 0 ||
        (rc = add_folder(l, path_join(path, ""), 0, e)) < 0 || l->n > before)
        return rc;
    err_set(e, E_NOINPUT, "no text files in the folder '%s'", path);
    return err_hint(e, "by their names .txt, .tex, .md, .rst, .json, .jsonl and archives of them are text%s%s",
                    l->advice.others ? "; " : "", l->advice.others ? l->advice.others : "");
}

static int add_glob(struct source_list *l, const char *pattern, struct err *e)
{
    glob_t g;
    int rc = glob(pattern, 0, NULL, &g);

    if (rc == GLOB_NOMATCH)
        return err_set(e, E_NOINPUT, "no file matches '%s'", pattern);
    if (rc != 0)
        return err_set(e, E_SYS, "cannot expand '%s'", pattern);
    /* What a glob finds is read as if it had been named: a file always, a folder by its
     * names. */
    for (size_t i = 0; i < g.gl_pathc && rc == 0; i++)
        rc = add_path(l, g.gl_pathv[i], e);
    globfree(&g);
    return rc;
}

int source_list_fill(struct source_list *l, const char *const *operands, int n, struct err *e)
{
    int rc = 0;

    if (n == 0)
        return add(l, NULL, NULL, e);
    for (int i = 0; i < n && rc == 0; i++) {
        if (strcmp(operands[i], "-") == 0)
            rc = add(l, NULL, NULL, e);
        else if (strpbrk(operands[i], "*?[") && !path_exists(operands[i]))
            /* A file may really be called so: then it is no pattern. */
            rc = add_glob(l, operands[i], e);
        else
            rc = add_path(l, operands[i], e);
    }
    return rc;
}

void source_list_free(struct source_list *l)
{
    for (int64_t i = 0; i < l->n; i++)
        free(l->v[i].path);
    free(l->v);
    free(l->folders);
    *l = (struct source_list){ 0 };
}
