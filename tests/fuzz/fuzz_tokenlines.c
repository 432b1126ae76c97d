/* tests/fuzz/fuzz_tokenlines.c - a line of any bytes; what was read is written and read. */
#include "formats/tokens/document.h"
#include "formats/tokens/tokenlines.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

static void again(const struct tokenline_read *r)
{
    const struct token_doc *d = &r->doc;
    struct tokenline_read back = {0};
    struct buf b = {0};
    struct err e = {0};

    if (tokenline_begin(&b, d, &e) < 0 ||
        tokenline_ids(&b, (const int32_t *)d->ids, d->n_ids, true, &e) < 0 ||
        tokenline_finish(&b, d->runs, d->n_runs, NULL, 0, &e) < 0 ||
        tokenline_read(&back, b.p, b.len, "again", &e) != TOKENLINE_DOC)
        abort();
    if (back.doc.n_ids != d->n_ids || back.doc.n_runs != d->n_runs ||
        memcmp(back.doc.ids, d->ids, (size_t)d->n_ids * 4) != 0 ||
        back.doc.text_hash != d->text_hash || strcmp(back.doc.name, d->name) != 0 ||
        strcmp(back.doc.source, d->source) != 0)
        abort();
    tokenline_free(&back);
    buf_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    struct tokenline_read r = {0};
    struct err e = {0};
    int kind = tokenline_read(&r, (const char *)data, nbytes, "fuzz", &e);

    if (kind == TOKENLINE_DOC)
        again(&r);
    else if (kind < 0 && (kind != E_DATA || !e.msg[0]))
        abort();
    tokenline_free(&r);
    return 0;
}
