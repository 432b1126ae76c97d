/* tests/fuzz/fuzz_magic.c - any bytes as a file's beginning, or as all of it. */
#include "base/magic.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    const struct magic_form *whole = magic_of(data, nbytes, true),
                            *begun = magic_of(data, nbytes, false);

    if ((whole && !whole->name[0]) || (begun && !begun->remedy[0]))
        abort();
    /* What is text by its bytes is no form that has none of text's bytes. */
    if (magic_text(data, nbytes) && magic_binary(data, nbytes))
        abort();
    return 0;
}
