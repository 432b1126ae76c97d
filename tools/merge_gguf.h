/* tools/merge_gguf.h - a merged model, or an adapter alone, as one GGUF file (internal). */
#ifndef TOOLS_MERGE_GGUF_H
#define TOOLS_MERGE_GGUF_H
#include "base/gguf.h"
#include "tools/merge_tensor.h"

/*
 * The plan's model at path, tensor by tensor, published by merge_gguf_publish and else not there.
 * each: as merger_write has it, by the places of the base's tensors in w. Matrices are of type o->gguf, but
 * that of Q4_0 embedding and head are Q8_0, and rows that are no whole blocks F16; norms and biases are
 * F32. E_CONFIG for what llama.cpp would compute in another way.
 */
struct merge_gguf {
    struct gguf_out out;
    bool open;
};
int merge_gguf_build(struct merge_gguf *m, const struct merge_options *o, const struct merge_plan *p,
                     struct merger *g, const struct weights *w, uint64_t *each, const char *path,
                     struct merge_report *r, struct err *e);
int merge_gguf_publish(struct merge_gguf *m, struct err *e);
void merge_gguf_abandon(struct merge_gguf *m);

/* The pairs of an adapter as llama.cpp's LoRA. E_CONFIG where it has trained more than pairs. */
int merge_gguf_adapter(const struct merge_options *o, const struct adapter *a, const char *path,
                       struct merge_report *r, struct err *e);

#endif
