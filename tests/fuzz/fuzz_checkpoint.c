/* tests/fuzz/fuzz_checkpoint.c - a checkpoint's manifest of any bytes, as it is and signed. */
#include "formats/weights/checkpoint.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

static void parse(const char *text, size_t nbytes)
{
    struct checkpoint c, again;
    struct buf b = { 0 };
    struct err e = { 0 };

    if (checkpoint_parse(&c, text, nbytes, "fuzz", &e) < 0) {
        if (c.run)
            abort();
        return;
    }
    for (int i = 0; i < c.n_files; i++)
        if (strchr(c.file[i].name, '/') || c.file[i].name[0] == '.')
            abort();
    if (checkpoint_format(&c, &b, &e) < 0 ||
        checkpoint_parse(&again, b.p, b.len, "again", &e) < 0 || again.step != c.step)
        abort();
    checkpoint_free(&again);
    checkpoint_free(&c);
    buf_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    struct buf b = { 0 };
    XXH128_hash_t h = XXH3_128bits(data, nbytes);

    parse((const char *)data, nbytes);
    /* The hash in the last line would stop nearly everything: sign the bytes too. */
    if (buf_add(&b, data, nbytes, NULL) == 0 &&
        buf_printf(&b, NULL, "  \"manifest_xxh3_128\": \"%016llx%016llx\"\n}\n",
                   (unsigned long long)h.high64, (unsigned long long)h.low64) == 0)
        parse(b.p, b.len);
    buf_free(&b);
    return 0;
}
