/* gen/ask.c - see ask.h. */
#include "gen/ask.h"

#include "base/file.h"
#include "base/utf8.h"
#include "gen/told.h"

#include <stdlib.h>
#include <string.h>

/* All of a pipe or file. */
static int read_all(FILE *f, struct buf *out, struct err *e)
{
    char piece[1 << 16];
    size_t n;
    int rc = 0;

    while (rc == 0 && (n = fread(piece, 1, sizeof piece, f)) > 0)
        rc = buf_add(out, piece, n, e);
    return rc == 0 && ferror(f) ? err_sys(e, E_IO, "cannot read standard input") : rc;
}

int question_add_file(struct buf *out, const char *path, struct err *e)
{
    char *text;
    size_t n;
    int rc = file_read(path, (size_t)1 << 32, &text, &n, e);

    if (rc < 0)
        return rc;
    if (!utf8_valid(text, n, NULL))
        rc = err_set(e, E_DATA, "'%s' is not UTF-8 text", path);
    else
        rc = buf_add(out, text, n, e);
    free(text);
    return rc;
}

static int add_words(struct question *q, const struct asked *o, struct err *e)
{
    bool none = o->words == 0 && o->files.n == 0;
    int rc = 0;

    if (o->words && q->files_bytes)
        rc = buf_add(&q->text, "\n\n", 2, e);
    if (none || (o->words == 1 && strcmp(o->word[0], "-") == 0)) {
        if ((rc = rc == 0 ? read_all(stdin, &q->text, e) : rc) == 0 && q->text.len &&
            q->text.p[q->text.len - 1] == '\n')
            q->text.len--; /* echo's */
    } else {
        for (int i = 0; i < o->words && rc == 0; i++) {
            rc = i ? buf_add(&q->text, " ", 1, e) : 0;
            if (rc == 0)
                rc = buf_add(&q->text, o->word[i], strlen(o->word[i]), e);
        }
    }
    return rc;
}

/* Ids of the first n bytes of the text, as the options have them. */
static int make_ids(const struct question *q, const struct opening *g, size_t n, int32_t **ids,
                    int64_t *count, struct err *e)
{
    const char *system = g->o->system;
    struct message m[2] = { { TURN_SYSTEM, system, system ? strlen(system) : 0 } };

    m[system != NULL] = (struct message){ TURN_USER, q->text.p ? q->text.p : "", n };
    return turns_ids(g->chat, g->t, !g->o->no_bos, m, 1 + (system != NULL), ids, count, e);
}

/* Of several ranks the first reads. */
static int read_text(struct question *q, const struct opening *g, struct err *e)
{
    struct group *ranks = opening_ranks(g);
    int64_t files_bytes;
    int rc = 0;

    for (int i = 0; i < g->o->files.n && ranks->rank == 0 && rc == 0; i++)
        rc = question_add_file(&q->text, g->o->files.v[i], e);
    files_bytes = (int64_t)q->text.len;
    q->files_bytes = q->text.len;
    if (rc == 0 && ranks->rank == 0)
        rc = add_words(q, g->o, e);
    if ((rc = told_number(ranks, rc, &files_bytes, e)) < 0)
        return rc;
    q->files_bytes = (size_t)files_bytes;
    return told_bytes(ranks, 0, &q->text, 0, e);
}

int question_read(struct question *q, const struct opening *g, struct err *e)
{
    int32_t *files = NULL;
    int64_t n = 0;
    int rc;

    *q = (struct question){ 0 };
    rc = read_text(q, g, e);
    if (rc == 0 && !utf8_valid(q->text.p, q->text.len, NULL))
        rc = err_set(e, E_DATA, "the prompt is not UTF-8 text");
    if (rc == 0)
        rc = make_ids(q, g, q->text.len, &q->ids, &q->n, e);
    if (rc == 0 && q->n == 0) {
        err_set(e, E_USAGE, "the prompt is empty, and this model's texts have no first token");
        rc = err_hint(e, "give some text");
    }
    if (rc == 0 && q->files_bytes)
        rc = make_ids(q, g, q->files_bytes, &files, &n, e);
    while (rc == 0 && q->files_n < n && q->files_n < q->n && files[q->files_n] == q->ids[q->files_n])
        q->files_n++;
    free(files);
    return rc;
}

void question_free(struct question *q)
{
    buf_free(&q->text);
    free(q->ids);
}
