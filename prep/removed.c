/* prep/removed.c - see removed.h. */
#include "prep/removed.h"

#include "base/bytes.h"
#include "base/jsonscan.h"
#include "base/spool.h"
#include "formats/tokens/document.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct removed {
    FILE *f;
    char *path;
    struct spool *names, *ends; /* of name i: where it ends in names, 8 bytes */
    uint64_t n;
    struct buf line;
};

int removed_open(struct removed **out, const char *path, bool append, struct err *e)
{
    struct removed *r = calloc(1, sizeof *r);
    int rc = 0;

    *out = NULL;
    if (!r || !(r->path = strdup(path)))
        rc = err_set(e, E_SYS, "out of memory");
    else if (!(r->f = fopen(path, append ? "ae" : "we")))
        rc = err_sys(e, E_CREATE, "cannot create '%s'", path);
    else
        setvbuf(r->f, NULL, _IOLBF, 0); /* there before the mark that its input is done */
    if (rc == 0 && (rc = spool_open(&r->names, NULL, e)) == 0)
        rc = spool_open(&r->ends, NULL, e);
    if (rc < 0)
        return removed_close(r, rc, e);
    *out = r;
    return 0;
}

int removed_close(struct removed *r, int rc, struct err *e)
{
    if (!r)
        return rc;
    /* ferror tells of earlier lines that could not be written. */
    if (r->f) {
        bool bad = ferror(r->f);
        if ((fclose(r->f) != 0 || bad) && rc == 0)
            rc = err_sys(e, E_IO, "cannot write '%s'", r->path);
    }
    spool_close(r->names);
    spool_close(r->ends);
    buf_free(&r->line);
    free(r->path);
    free(r);
    return rc;
}

uint32_t removed_next(const struct removed *r)
{
    return r->n < UINT32_MAX ? (uint32_t)(r->n + 1) : 0;
}

int removed_kept(struct removed *r, const char *name, struct err *e)
{
    unsigned char end[8];
    /* Names stand one behind the other without an
     * end mark; r->ends says where each one ends. */
    int rc = spool_add(r->names, name, strlen(name), e);

    put_le(end, (uint64_t)spool_bytes(r->names), 8);
    if (rc == 0 && (rc = spool_add(r->ends, end, sizeof end, e)) == 0)
        r->n++;
    return rc;
}

/* The name of document 'of', whose ends stand at of - 2 and of - 1. */
static int name_of(const struct removed *r, uint32_t of, char name[DOC_NAME_MAX + 1],
                   struct err *e)
{
    unsigned char at[16] = { 0 };
    /* The first name begins at 0: at[0..8) stays 0, and only its end is read. */
    size_t n = of > 1 ? 16 : 8, len;
    int rc = spool_read(r->ends, 8 * ((int64_t)of - (of > 1 ? 2 : 1)), at + 16 - n, n, e);

    len = (size_t)(get_le(at + 8, 8) - get_le(at, 8));
    if (rc == 0 && len <= DOC_NAME_MAX)
        rc = spool_read(r->names, (int64_t)get_le(at, 8), name, len, e);
    name[rc == 0 && len <= DOC_NAME_MAX ? len : 0] = '\0';
    return rc;
}

/* ', "key": "value"', or the beginning of the line. */
static int add(struct removed *r, const char *key, const char *value, struct err *e)
{
    int rc = buf_printf(&r->line, e, "%s\"%s\": ", r->line.len ? ", " : "{", key);

    return rc < 0 ? rc : json_quote(&r->line, value, strlen(value), e);
}

/* Begins a line with what all of them have: name, source (unless NULL) and reason. */
static int begin(struct removed *r, const char *name, const char *source, enum drop why,
                 struct err *e)
{
    int rc;

    r->line.len = 0;
    if ((rc = add(r, "name", name, e)) < 0 || (source && (rc = add(r, "source", source, e)) < 0))
        return rc;
    return add(r, "reason", drop_name(why), e);
}

/* Closes the line and writes it. The file is line buffered: it goes out at once. */
static int end(struct removed *r, struct err *e)
{
    int rc = buf_printf(&r->line, e, "}\n");

    if (rc == 0 && fwrite(r->line.p, 1, r->line.len, r->f) != r->line.len)
        rc = err_sys(e, E_IO, "cannot write '%s'", r->path);
    return rc;
}

int removed_copy(struct removed *r, const char *name, const char *source, enum drop why,
                 uint32_t of, double probability, struct err *e)
{
    char first[DOC_NAME_MAX + 1];
    int rc = begin(r, name, source, why, e);

    /* of is 0 where only the filter of --dedup has the key, or where an earlier run kept the
     * document: no name is known then. */
    if (rc == 0 && of > 0 && (rc = name_of(r, of, first, e)) == 0)
        rc = add(r, "of", first, e);
    else if (rc == 0 && of == 0)
        rc = buf_printf(&r->line, e, ", \"of\": null");
    if (rc == 0 && of == 0 && probability >= 0)
        rc = buf_printf(&r->line, e, ", \"probability\": %.3g", probability);
    return rc == 0 ? end(r, e) : rc;
}

int removed_other(struct removed *r, const char *name, const char *source, enum drop why,
                  struct err *e)
{
    int rc = begin(r, name, source, why, e);

    return rc == 0 ? end(r, e) : rc;
}

int removed_bad(struct removed *r, const char *name, const char *error, struct err *e)
{
    int rc = begin(r, name, NULL, DROP_BAD, e);

    if (rc == 0 && (rc = add(r, "error", error, e)) == 0)
        rc = end(r, e);
    return rc;
}
