/* tests/fuzz/fuzz_spm_model.c - a tokenizer model of any bytes, and what is taken encodes. */
#include "formats/tokenizer/spm.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    static const char text[] = " the  nation\n\xE2\x96\x81x \xFF\xE4\xBD\xA0 aaab cabc <s>\0 d";
    static struct spm_cache *cache;
    struct spm_ids fast = { 0 }, whole = { 0 };
    struct buf back = { 0 };
    struct err e = { 0 };
    struct spm *m;
    int a, b;

    if (!cache && spm_cache_open(&cache, &e) < 0)
        return 0;
    if (spm_parse(&m, data, nbytes, "fuzz", &e) < 0)
        return 0;
    for (int k = 0; k < 2; k++) { /* a text of our own, then the model's own bytes */
        const char *p = k ? (const char *)data : text;
        size_t n = k ? (nbytes < 4096 ? nbytes : 4096) : sizeof text - 1;

        fast.len = whole.len = 0;
        a = spm_encode(m, cache, p, n, &fast, &e);
        b = spm_encode_whole(m, cache, p, n, &whole, &e);
        if ((a < 0) != (b < 0) || fast.len != whole.len ||
            (fast.len && memcmp(fast.p, whole.p, (size_t)fast.len * sizeof *fast.p) != 0))
            abort();
        back.len = 0;
        if (spm_decode(m, fast.p, fast.len, &back, &e) < 0 && e.code == E_DATA && m &&
            !strstr(e.msg, "normal form"))
            abort();
    }
    spm_ids_free(&fast);
    spm_ids_free(&whole);
    buf_free(&back);
    spm_free(m);
    return 0;
}
