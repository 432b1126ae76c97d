/* tests/fuzz/fuzz_hft.c - any bytes as a tokenizer.json and as a rank file; one that loads must work. */
#include "formats/tokenizer/hft.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

static void use(const struct hft *t)
{
    static const char text[] = "the nation's  so\ndedicated \xC3\xA9" "e\xCC\x81 \xFF 12 \xE2\x96\x81x<s> AB<|end|> ";
    static struct spm_cache *c;
    struct spm_ids ids = { 0 };
    struct buf back = { 0 };
    struct err e = { 0 };
    char hex[33];

    if (!c && spm_cache_open(&c, &e) < 0)
        return;
    if (hft_encode(t, c, text, sizeof text - 1, &ids, &e) == 0) {
        for (int64_t i = 0; i < ids.len; i++)
            if (ids.p[i] < 0 || ids.p[i] >= hft_vocab(t) || !hft_piece(t, ids.p[i]))
                abort();
        if (hft_decode(t, ids.p, ids.len, &back, &e) < 0 && e.code != E_SYS)
            abort();
    }
    if (hft_meaning(t, hex, &e) == 0 && strlen(hex) != 32)
        abort();
    spm_ids_free(&ids);
    buf_free(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    struct hft *t;
    struct err e = { 0 };

    for (int ranks = 0; ranks < 2; ranks++) {
        if ((ranks ? hft_parse_ranks : hft_parse)(&t, data, nbytes, "fuzz", &e) < 0) {
            if (e.code == 0 || !e.msg[0])
                abort();
            continue;
        }
        use(t);
        hft_free(t);
    }
    return 0;
}
