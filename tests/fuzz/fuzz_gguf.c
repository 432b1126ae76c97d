/* tests/fuzz/fuzz_gguf.c - GGUF on any bytes: the container, then a model, then a tokenizer of it. */
#include "base/gguf.h"
#include "formats/tokenizer/gguf_vocab.h"
#include "formats/tokenizer/tokenizer.h"
#include "formats/weights/gguf_config.h"
#include "formats/weights/gguf_types.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

/* Every byte that a view claims is touched, and no two tensors share one. */
static void touch(const struct gguf *g, size_t nbytes)
{
    size_t total = 0;
    volatile unsigned sum = 0;

    for (int64_t i = 0; i < gguf_tensors(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);

        for (size_t k = 0; k < t->nbytes; k++)
            sum += t->data[k];
        total += t->nbytes;
        if (gguf_tensor_find(g, t->name) != t)
            abort();
    }
    for (int64_t i = 0; i < gguf_values(g); i++) {
        const struct gguf_value *v = gguf_value_at(g, i);
        size_t at = 0, n;

        for (size_t k = 0; k < v->nbytes; k++)
            sum += v->p[k];
        for (uint64_t k = 0; v->type == GGUF_STRING && k < v->n; k++)
            gguf_next_string(v, &at, &n);
        if (gguf_find(g, v->key) != v || (v->type == GGUF_STRING && at != v->nbytes))
            abort();
        total += v->nbytes;
    }
    if (total > nbytes)
        abort(); /* overlap */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    struct err e = { 0 };
    struct gguf *g;
    struct llama_config c;
    const struct gguf_arch *a;
    struct gguf_vocab v;
    struct tokenizer *t;
    float f[32];

    if (gguf_parse(&g, data, nbytes, "fuzz", &e) < 0)
        return 0;
    touch(g, nbytes);
    if (gguf_config_read(&c, &a, g, &e) == 0)
        (void)gguf_check(&c, &e);
    for (int64_t i = 0; i < gguf_tensors(g); i++) {
        const struct tensor_type *type = gguf_type(gguf_tensor_at(g, i)->type);

        if (type && type->plain == DT_OTHER)
            type->to_f32(gguf_tensor_at(g, i)->data, NULL, 32, 0, 32, f);
    }
    if (gguf_vocab_read(&v, g, &e) == 0 &&
        tokenizer_parse(&t, v.bytes.p, v.bytes.len, "fuzz", &e) == 0)
        tokenizer_close(t);
    buf_free(&v.bytes);
    gguf_close(g);
    return 0;
}
