/* tests/fuzz/fuzz_probed.c - results and journals of leval --tasks of any bytes: read, shown, written. */
#include "eval/answered.h"
#include "eval/probed.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

/* What was read is written and read again to the same. */
static void result(const char *text, size_t nbytes)
{
    const struct probed_how how = { 80, true, false };
    struct probed r, back;
    struct buf b = { 0 };
    struct err e = { 0 };

    if (probed_parse(&r, text, nbytes, "fuzz", &e) < 0)
        return;
    if (r.n <= 16) { /* each interval takes 10000 resamples */
        if (probed_table(&b, &r, &how, &e) < 0)
            abort();
        b.len = 0;
        if (probed_json(&b, &r, &e) < 0 || probed_parse(&back, b.p, b.len, "back", &e) < 0 || back.n != r.n)
            abort();
        for (int64_t i = 0; i < r.n; i++)
            if (back.cell[i].n != r.cell[i].n || back.cell[i].length != r.cell[i].length ||
                memcmp(back.cell[i].score, r.cell[i].score, (size_t)r.cell[i].n * sizeof(double)) != 0)
                abort();
        probed_free(&back);
    }
    probed_free(&r);
    buf_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    char *text = malloc(nbytes + 1);
    struct answered *a = NULL;
    struct err e = { 0 };
    double score = 0;

    if (!text)
        return 0;
    memcpy(text, data, nbytes);
    if (answered_parse(&a, "fuzz", text, nbytes, 99, &e) == 0 && answered_find(a, 1, &score) &&
        !(score >= 0 && score <= 1))
        abort();
    answered_close(a);
    result(text, nbytes);
    free(text);
    return 0;
}
