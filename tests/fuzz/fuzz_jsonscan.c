/* tests/fuzz/fuzz_jsonscan.c - any bytes as JSON: what is walked decodes or is refused. */
#include "base/jsonscan.h"
#include "formats/text/records.h"
#include "prep/doc.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

struct bytes {
    const uint8_t *p;
    size_t n, step;
};

static int64_t read_bytes(void *ctx, void *buf, size_t cap, struct err *e)
{
    struct bytes *b = ctx;
    size_t n = b->n < b->step ? b->n : b->step;

    (void)e;
    n = n < cap ? n : cap;
    memcpy(buf, b->p, n);
    b->p += n;
    b->n -= n;
    return (int64_t)n;
}

static void walk(const char *p, size_t n, struct buf *text)
{
    struct json_object o = json_scan(p, n);
    struct json_value key, v;
    struct err e = { 0 };
    int rc;

    while ((rc = json_next(&o, &key, &v, &e)) == 1) {
        if (v.type == JK_OBJECT)
            walk(v.p, v.n, text); /* at most 128 deep: json_next has seen to that */
        if (v.type != JK_STRING)
            continue;
        text->len = 0;
        if (json_text(&v, true, text, &e) < 0 || !utf8_valid(text->p, text->len, NULL))
            abort(); /* replacing never fails, and leaves UTF-8 */
        text->len = 0;
        json_text(&v, false, text, NULL);
    }
    if (rc == 0 && json_next(&o, &key, &v, &e) != 0)
        abort();
}

/* A document that was taken writes itself as a line that is taken, and as the same text. */
static void parse(const char *p, size_t n, struct doc *d, struct doc *back, struct buf *line)
{
    struct doc_opts o = { .replace = true };
    struct doc_place at = { "f.jsonl", 1, 0 };
    struct err e = { 0 };

    if (doc_from_json(d, &at, p, n, &o, &e) < 0)
        return;
    line->len = 0;
    if (doc_to_json(d, line, &e) < 0 ||
        doc_from_json(back, &at, line->p, line->len, &o, &e) < 0 ||
        back->text.len != d->text.len ||
        (d->text.len && memcmp(back->text.p, d->text.p, d->text.len) != 0))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    static const enum record_mode modes[] = { RECORDS_AUTO, RECORDS_JSON, RECORDS_LINES,
                                              RECORDS_VALUES };
    struct records r = { 0 };
    struct doc d = { 0 }, back = { 0 };
    struct buf text = { 0 };

    buf_reserve(&text, 1, NULL);
    for (size_t k = 0; k < 4; k++) {
        struct bytes b = { data, nbytes, k % 2 ? 7 : SIZE_MAX };
        struct record rec;
        struct err e = { 0 };

        records_start(&r, modes[k], 4096, read_bytes, &b);
        while (records_next(&r, &rec, &e) == 1) {
            walk(rec.p, rec.n, &text);
            parse(rec.p, rec.n, &d, &back, &text);
        }
    }
    records_free(&r);
    doc_free(&d);
    doc_free(&back);
    buf_free(&text);
    return 0;
}
