/* tests/fuzz/fuzz_adapter.c - adapter_config.json of any bytes; the tensors it leads to. */
#include "formats/weights/adapter.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    const struct llama_config c = { .vocab = 96, .dim = 16, .ffn_dim = 32, .layers = 3,
                                    .heads = 4, .kv_heads = 2, .head_dim = 4 };
    struct adapter_config a;
    struct adapter_tensor t;
    struct err e = {0};

    if (adapter_config_parse(&a, NULL, NULL, c.layers, (const char *)data, nbytes, "fuzz", &e) < 0)
        return 0;
    for (int64_t i = 0; i < adapter_tensors(&a, &c); i++) {
        adapter_tensor(&a, &c, i, &t);
        if (t.count < 1 || strncmp(t.name, "base_model.model.", 17) != 0 ||
            t.role >= ROLES || !((t.part ? a.targets : a.saved) & ROLE_BIT(t.role)))
            abort();
    }
    adapter_config_free(&a);
    return 0;
}
