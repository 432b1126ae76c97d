/* tools/info_journal.c - what an unfinished lpack has on disk, described and verified; see info.h.
 *
 * lpack.journal is a token stream without documents and END (stream.md); the documents that its
 * marks count lie in lpack.docs, and where they lie in lpack.index (journal.h, shuffle.c). */
#include "tools/info.h"

#include "base/file.h"
#include "formats/tokens/manifest.h"
#include "formats/tokens/stream.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of an entry of the index: 8 bytes where the document begins, 4 its bytes, 4 its CRC32C, 8 its
 * XXH3-64. */
enum { ENTRY_BYTES = 24 };

struct journal {
    int64_t marks, inputs, docs;
    char *recipe;
};

/* Behind the last whole frame may stand what was being written when the run was killed. */
static int read_marks(struct stream_reader *r, struct journal *j, struct err *e)
{
    struct stream_item it;
    int kind;

    while ((kind = stream_next(r, &it, e)) > 0) {
        if (kind == STREAM_RUN && !j->recipe && !(j->recipe = strdup(it.run.recipe)))
            return err_set(e, E_SYS, "out of memory");
        if (kind != STREAM_MARK)
            continue;
        j->marks++;
        j->inputs += it.mark.n_inputs;
        for (int64_t i = 0; i < it.mark.tally.n; i++)
            j->docs += it.mark.tally.v[i].docs; /* the stream's tally has checked that it fits */
    }
    return kind < 0 && !stream_cut(r) ? kind : 0;
}

static int read_journal(const char *path, struct journal *j, struct err *e)
{
    struct stream_reader *r = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc;

    if (fd < 0)
        return err_sys(e, E_NOINPUT, "cannot open '%s'", path);
    if ((rc = stream_open(&r, fd, path, e)) == 0)
        rc = read_marks(r, j, e);
    stream_close(r);
    close(fd);
    return rc;
}

/* The documents that the marks count, one behind the other. *bytes: of them all. */
static int check_docs(const char *index, size_t n_index, const char *docs, size_t n_docs, int64_t n,
                      const char *folder, int64_t *bytes, struct err *e)
{
    size_t at = 0;

    if (n < 0 || (uint64_t)n > n_index / ENTRY_BYTES)
        return err_set(e, E_DATA, "'%s/lpack.index' has %zu documents, the journal counts %lld",
                       folder, n_index / ENTRY_BYTES, (long long)n);
    for (int64_t i = 0; i < n; i++) {
        const char *entry = index + i * ENTRY_BYTES;
        size_t k = (size_t)get_le(entry + 8, 4);

        if (get_le(entry, 8) != at || k > n_docs - at ||
            crc32c(0, docs + at, k) != get_le(entry + 12, 4) ||
            XXH3_64bits(docs + at, k) != get_le(entry + 16, 8)) {
            err_set(e, E_DATA, "'%s': document %lld in lpack.docs is not what lpack.index says",
                    folder, (long long)i);
            return err_hint(e, "start over: rm '%s/" MANIFEST_JOURNAL "'", folder);
        }
        at += k;
    }
    *bytes = (int64_t)at;
    return 0;
}

static int verify_docs(const char *folder, int64_t n, int64_t *bytes, struct err *e)
{
    char *index = path_join(folder, "lpack.index"), *docs = path_join(folder, "lpack.docs");
    const void *map[2] = { NULL, NULL };
    size_t size[2] = { 0, 0 };
    int rc = 0;

    if (n > 0 && (rc = file_map(index, &map[0], &size[0], e)) == 0)
        rc = file_map(docs, &map[1], &size[1], e);
    if (rc == 0)
        rc = check_docs(map[0], size[0], map[1], size[1], n, folder, bytes, e);
    file_unmap(map[0], size[0]);
    file_unmap(map[1], size[1]);
    free(index);
    free(docs);
    return rc;
}

/* Its lines: an option each. */
static json_t *lines(const char *text)
{
    json_t *list = json_array();

    for (size_t n; text && *text; text += n + (text[n] == '\n')) {
        n = strcspn(text, "\n");
        json_array_append_new(list, json_stringn(text, n));
    }
    return list;
}

int info_journal(const char *path, const struct info_options *o, json_t *out, struct err *e)
{
    char *folder = info_folder(path), *journal = folder ? path_join(folder, MANIFEST_JOURNAL) : NULL;
    struct journal j = { 0 };
    int64_t bytes = 0;
    int rc = folder ? read_journal(journal, &j, e) : err_set(e, E_SYS, "out of memory");

    if (rc == 0 && o->verify)
        rc = verify_docs(folder, j.docs, &bytes, e);
    if (rc == 0) {
        json_object_set_new(out, "form", json_string("journal of an unfinished lpack"));
        json_object_set_new(out, "marks", json_integer(j.marks));
        json_object_set_new(out, "inputs", json_integer(j.inputs));
        json_object_set_new(out, "documents", json_integer(j.docs));
        json_object_set_new(out, "recipe", lines(j.recipe));
        if (o->verify)
            json_object_set_new(out, "verified", json_integer(bytes));
    }
    free(j.recipe);
    free(journal);
    free(folder);
    return rc;
}
