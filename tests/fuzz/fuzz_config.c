/* tests/fuzz/fuzz_config.c - config.json of any bytes; what is taken must be within bounds. */
#include "formats/weights/config.h"
#include "formats/weights/weights.h"
#include "model/rope.h"

#include <math.h>
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
    /* every frequency is a number at any length */
    for (int64_t len = 1; len <= (int64_t)1 << 31; len *= 2) {
        static float freq[1024];

        if (!isfinite(rope_inv_freq(&c.rope, config_rotary(&c), len, freq)))
            abort();
        for (int64_t i = 0; i < config_rotary(&c) / 2; i++)
            if (!isfinite(freq[i]))
                abort();
    }
    if (config_reach(&c) < c.context || params != config_params(&c) || c.heads % c.kv_heads || c.head_dim % 2)
        abort();
    return 0;
}
