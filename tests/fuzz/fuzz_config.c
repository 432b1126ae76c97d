/* tests/fuzz/fuzz_config.c - config.json of any bytes; what is taken must be within bounds. */
#include "formats/weights/config.h"
#include "formats/weights/weights.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    struct llama_config c;
    struct tensor_spec s;
    struct err e = {0};
    int64_t n, params = 0;

    if (config_parse(&c, (const char *)data, nbytes, "fuzz", &e) < 0)
        return 0;
    n = config_tensors(&c);
    for (int64_t i = 0; i < n; i++) {
        config_tensor(&c, i, &s);
        if (s.count < 1)
            abort();
        params += s.count;
    }
    if (params != config_params(&c) || c.heads % c.kv_heads || c.head_dim % 2)
        abort();
    return 0;
}
