/* model/preset.c - see preset.h. */
#include "model/preset.h"

#include "base/perm.h"
#include "formats/weights/arch.h"

#include <stdlib.h>

void preset_config(struct llama_config *c, int shape)
{
    static const struct {
        int64_t vocab, dim, ffn, layers, heads, kv_heads, context;
        double theta;
        const char *family; /* NULL: llama */
        int64_t head_dim;   /* 0: dim / heads */
        int64_t window, full; /* of all layers but each full-th */
    } all[] = {
        /* Llama 2 with 7, 13 and 70 billion parameters, Llama 3 with 8 and 70, Qwen 3 with 8, Gemma 2 with 2
         * and 9, the text part of Gemma 3 with 4 */
        { 32000, 4096, 11008, 32, 32, 32, 4096, 1e4, NULL, 0, 0, 0 },
        { 32000, 5120, 13824, 40, 40, 40, 4096, 1e4, NULL, 0, 0, 0 },
        { 32000, 8192, 28672, 80, 64, 8, 4096, 1e4, NULL, 0, 0, 0 },
        { 128256, 4096, 14336, 32, 32, 8, 8192, 5e5, NULL, 0, 0, 0 },
        { 128256, 8192, 28672, 80, 64, 8, 8192, 5e5, NULL, 0, 0, 0 },
        { 151936, 4096, 12288, 36, 32, 8, 40960, 1e6, "qwen3", 0, 0, 0 },
        { 256000, 2304, 9216, 26, 8, 4, 8192, 1e4, "gemma2", 256, 4096, 2 },
        { 256000, 3584, 14336, 42, 16, 8, 8192, 1e4, "gemma2", 256, 4096, 2 },
        { 262208, 2560, 10240, 34, 8, 4, 131072, 1e6, "gemma3_text", 256, 1024, 6 },
    };
    const struct arch *a = all[shape].family ? arch_find(all[shape].family) : arch_nth(0);
    const struct missing *m = &a->missing;

    *c = (struct llama_config){
        .vocab = all[shape].vocab, .dim = all[shape].dim, .ffn_dim = all[shape].ffn,
        .layers = all[shape].layers, .heads = all[shape].heads,
        .kv_heads = all[shape].kv_heads, .head_dim = all[shape].head_dim ? all[shape].head_dim : all[shape].dim / all[shape].heads,
        .context = all[shape].context, .norm_eps = 1e-5, .bos = 1, .eos = 2,
        .arch = a, .init_range = 0.02, .rope = { .type = ROPE_DEFAULT, .theta = all[shape].theta },
        .activation = a->block.activation, .window = all[shape].window, .tied = m->tied,
        .cap = { m->cap_scores, m->cap_logits }, .local_theta = a->block.local_rope ? 1e4 : 0,
    };
    for (int64_t i = all[shape].full - 1; i >= 0 && i < c->layers; i += all[shape].full)
        c->full.bits[0] |= (uint64_t)1 << i;
    if (a->block.local_rope)
        c->rope = (struct rope_config){ .type = ROPE_LINEAR, .theta = all[shape].theta, .factor = 8 };
}

/* A batch of arbitrary tokens for measurements: each is the target of the one before it. */
int preset_batch(struct batch *b, int64_t n_seqs, int64_t ctx, int64_t vocab,
                const struct segments *seg, struct err *e)
{
    int64_t n = n_seqs * ctx;
    int32_t *ids = malloc((size_t)n * sizeof *ids), *targets = malloc((size_t)n * sizeof *ids);

    *b = (struct batch){ .n_seqs = n_seqs, .len = ctx, .ids = ids, .targets = targets,
                         .seg = seg };
    if (!ids || !targets)
        return err_set(e, E_SYS, "out of memory for %lld tokens", (long long)n);
    /* mixed bits of the position: the same tokens in every run, in no visible order */
    for (int64_t i = 0; i < n; i++)
        ids[i] = (int32_t)(mix64((uint64_t)i) % (uint64_t)vocab);
    for (int64_t i = 0; i < n; i++)
        /* the last token of a sequence has no next one: -1 is not scored */
        targets[i] = i % ctx == ctx - 1 ? -1 : ids[i + 1];
    return 0;
}

void preset_batch_free(struct batch *b)
{
    free((void *)(uintptr_t)b->ids);
    free((void *)(uintptr_t)b->targets);
    b->ids = b->targets = NULL;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

void preset_sort(double *seconds, int64_t n)
{
    qsort(seconds, (size_t)n, sizeof *seconds, by_value);
}
