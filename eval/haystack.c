/* eval/haystack.c - see haystack.h. */
#include "eval/haystack.h"

#include "base/json.h"
#include "formats/text/records.h"
#include "formats/text/source.h"

#include <inttypes.h>
#include <string.h>

/* A member's bytes; of a text no more than can be taken and the rest of a character. */
struct member {
    struct source *source;
    const struct records *records;
    size_t left;
};

static int64_t read_member(void *ctx, void *p, size_t n, struct err *e)
{
    struct member *m = ctx;
    int64_t got;

    if (m->left < n && records_mode(m->records) == RECORDS_TEXT)
        n = m->left;
    if (n == 0)
        return 0;
    if ((got = source_read(m->source, p, n, e)) > 0)
        m->left -= (size_t)got < m->left ? (size_t)got : m->left;
    return got;
}

/* One more text, cut between characters where it is too much. */
static int add_text(struct buf *out, const char *p, size_t n, const char *name, struct err *e)
{
    size_t at = 0;
    int rc = 0;

    if (n >= 3 && memcmp(p, "\xEF\xBB\xBF", 3) == 0)
        p += 3, n -= 3;
    if (n > HAYSTACK_MOST - out->len)
        for (n = HAYSTACK_MOST - out->len; n > 0 && ((unsigned char)p[n] & 0xC0) == 0x80;)
            n--;
    if (!utf8_valid(p, n, &at)) {
        err_set(e, E_DATA, "'%s' is not UTF-8 text: wrong at byte %zu", name, at);
        return err_hint(e, "convert it: iconv -t utf-8");
    }
    if (out->len > 0 && out->p[out->len - 1] != '\n')
        rc = buf_add(out, "\n", 1, e);
    return rc < 0 ? rc : buf_add(out, p, n, e);
}

static int add_object(struct buf *out, const struct record *r, const char *name, struct err *e)
{
    const char *text = NULL;
    struct js o;
    int rc = js_parse(&o, r->p, r->n, name, e);

    if (rc < 0)
        return rc;
    if ((rc = js_str(&o, "text", JS_MUST, &text, e)) == 0)
        rc = add_text(out, text, strlen(text), name, e);
    js_free(&o);
    return rc;
}

/* One member: a text, or JSON objects. */
static int add_member(struct buf *out, struct records *r, struct source *s,
                      const struct source_member *m, struct err *e)
{
    enum record_mode mode = m->kind == SOURCE_TEXT ? RECORDS_TEXT
                            : m->kind == SOURCE_JSON ? RECORDS_JSON
                            : m->kind == SOURCE_LINES ? RECORDS_LINES : RECORDS_AUTO;
    struct member from = { s, r, HAYSTACK_MOST - out->len + 8 };
    struct record rec;
    int rc;

    records_start(r, mode, (size_t)1 << 30, read_member, &from);
    while (out->len < HAYSTACK_MOST && (rc = records_next(r, &rec, e)) != 0) {
        if (rc < 0)
            return err_within(e, "'%s'", m->name);
        rc = records_mode(r) == RECORDS_TEXT ? add_text(out, rec.p, rec.n, m->name, e)
                                             : add_object(out, &rec, m->name, e);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int haystack_read(struct buf *out, const struct opt_list *files, struct err *e)
{
    static const struct source_advice advice = { "name another --haystack", NULL };
    struct records r = { 0 };
    struct source_member m;
    struct source *s;
    int rc = source_open(&s, files->v, files->n, NULL, 0, &advice, e);

    if (rc < 0)
        return rc;
    while (out->len < HAYSTACK_MOST && (rc = source_next(s, &m, e)) == 1)
        if ((rc = add_member(out, &r, s, &m, e)) < 0)
            break;
    records_free(&r);
    source_close(s);
    if (rc >= 0 && out->len == 0)
        return err_set(e, E_DATA, "'%s' holds no text", files->v[0]);
    return rc < 0 ? rc : 0;
}
