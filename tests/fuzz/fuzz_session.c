/* tests/fuzz/fuzz_session.c - the reader of session files on any bytes; what it takes is touched. */
#include "formats/weights/session_file.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    unsigned char head[SESSION_HEAD_BYTES];
    struct session_head h;
    struct err e = { 0 };

    if (session_parse(&h, data, nbytes, &e) < 0)
        return 0;
    if (session_offset(&h, h.layers, 0) != nbytes)
        abort();
    for (int64_t l = 0; l < h.layers; l++)
        for (int part = 0; part < 4; part++) {
            size_t at = session_offset(&h, l, part), n = (size_t)h.tokens * session_row_bytes(&h, part);
            if (at > nbytes || n > nbytes - at)
                abort();
        }
    (void)session_verify(&h, data, nbytes, &e);
    session_head_put(&h, head);
    if (memcmp(head, data, sizeof head) != 0)
        abort(); /* every field stands for itself */
    return 0;
}
