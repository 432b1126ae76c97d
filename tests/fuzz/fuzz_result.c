/* tests/fuzz/fuzz_result.c - a result of leval of any bytes: read, shown, charted, written. */
#include "eval/result.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    struct result *r = malloc(2 * sizeof *r), *back = r + 1;
    const struct result_chart how = { .utf8 = true, .width = 80 };
    struct buf b = { 0 };
    struct err e = { 0 };

    if (r && result_parse(r, (const char *)data, nbytes, "fuzz", &e) == 0) {
        if (results_table(&b, r, 1, &e) < 0 || results_json(&b, r, 1, &e) < 0)
            abort();
        results_chart(&b, NULL, &how, r, 1, &e); /* may have nothing to draw */
        b.len = 0;
        if (result_json(&b, r, &e) < 0 || result_parse(back, b.p, b.len, "back", &e) < 0 ||
            back->n != r->n || strcmp(back->of.label, r->of.label) != 0)
            abort();
        for (int64_t i = 0; i < r->n; i++)
            if ((back->row[i].loss != r->row[i].loss && r->row[i].loss == r->row[i].loss) || back->row[i].ctx != r->row[i].ctx)
                abort();
    }
    buf_free(&b);
    free(r);
    return 0;
}
