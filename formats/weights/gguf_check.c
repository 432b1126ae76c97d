/* formats/weights/gguf_check.c - what llama.cpp cannot compute of a model; see gguf_arch.h. Each rule is a
 * function, after what src/models of llama.cpp loads and computes for the family. */
#include "formats/weights/gguf_arch.h"

#include <math.h>
#include <string.h>

/* Of phi3 it reads the key, warns, and goes on without a window (src/models/phi3.cpp, since its pull request
 * 13676 of May 2025; before, the layers that had one changed from version to version). */
static int check_window(const struct llama_config *c, const struct gguf_arch *a, struct err *e)
{
    bool any = false, other = false, read = strcmp(a->name, "phi3") == 0;

    for (int64_t i = 0; i < c->layers && a->full; i++) {
        any |= config_window(c, i) > 0;
        other |= (config_window(c, i) == 0) != ((i + 1) % a->full == 0);
    }
    if (other && any)
        return err_set(e, E_CONFIG, "layer_types is another than llama.cpp has for '%s', where one layer in %lld is "
                       "without a window", a->name, (long long)a->full);
    if (c->window == 0 || c->window >= config_reach(c) || a->full)
        return 0;
    err_set(e, E_CONFIG, "the model has a window of %lld tokens, which llama.cpp %s '%s': "
            "beyond it texts would be computed in another way", (long long)c->window,
            read ? "reads and then leaves out for" : "does not have for", a->name);
    return err_hint(e, "use the folder with vLLM or transformers");
}

/* By the first tensor that is one too many. */
static int check_tensors(const struct llama_config *c, const struct gguf_arch *a, struct err *e)
{
    uint64_t missing = a->needs & ~arch_roles(config_arch(c));
    struct tensor_spec s;

    if (missing & (ROLE_BIT(ROLE_QKV_BIAS) | ROLE_BIT(ROLE_O_BIAS)))
        return err_set(e, E_CONFIG, "the model has no attention_bias, which llama.cpp needs for '%s'", a->name);
    if (!c->tied && a->embed_head)
        return err_set(e, E_CONFIG, "the model has no tie_word_embeddings, and llama.cpp takes the embedding for the "
                       "head of '%s'", a->name);
    if (c->tied && a->needs & ROLE_BIT(ROLE_HEAD))
        return err_set(e, E_CONFIG, "the model has tie_word_embeddings, and llama.cpp needs a head of its own "
                       "for '%s'", a->name);
    for (int64_t i = 0; i < config_tensors(c); i++) {
        config_tensor(c, i, &s);
        if (a->lacks & ROLE_BIT(s.role))
            return err_set(e, E_CONFIG, "the model has biases ('%s') that llama.cpp does not have for '%s'",
                           s.name, a->name);
    }
    return 0;
}

static int check_sizes(const struct llama_config *c, const struct gguf_arch *a, struct err *e)
{
    if (a->square && c->heads * c->head_dim != c->dim)
        return err_set(e, E_CONFIG, "%lld heads of %lld channels (head_dim) are not hidden_size %lld, which "
                       "llama.cpp takes for '%s'", (long long)c->heads, (long long)c->head_dim,
                       (long long)c->dim, a->name);
    return 0;
}

/* It has silu for most, and for others the tanh form of gelu alone, which differs from gelu by less than 5e-4
 * a value: that is let pass. */
static int check_activation(const struct llama_config *c, const struct gguf_arch *a, struct err *e)
{
    if (a->gelu == (c->activation != ACT_SILU))
        return 0;
    return err_set(e, E_CONFIG, "hidden_act is another than llama.cpp has for '%s'", a->name);
}

static int check_no_rope(const struct llama_config *c, const struct gguf_arch *a, struct err *e)
{
    for (int64_t i = 0; i < c->layers; i++)
        if (layer_in(&c->no_rope, i) != (a->unturned > 0 && (i + 1) % a->unturned == 0))
            return err_set(e, E_CONFIG, "layer %lld is %s RoPE, and llama.cpp leaves it out of each %lldth layer "
                           "of '%s', no other", (long long)i, layer_in(&c->no_rope, i) ? "without" : "with",
                           (long long)a->unturned, a->name);
    return 0;
}

/* Caps and the divisor of scores are its own of a family, and a cap cannot be left out. */
static int check_scores(const struct llama_config *c, const struct gguf_arch *a, struct err *e)
{
    const struct block *b = &config_arch(c)->block;
    double by = a->whole_layers && c->layers == a->whole_layers ? (double)c->dim / (double)c->heads
                                                               : (double)c->head_dim;

    if (b->query_scalar && fabs(c->times.scores * sqrt(by) - 1) > 1e-6)
        return err_set(e, E_CONFIG, "query_pre_attn_scalar is not %g, which llama.cpp takes for '%s'", by, a->name);
    if (b->cap_scores && (c->cap.scores == 0 || c->cap.logits == 0))
        return err_set(e, E_CONFIG, "a softcapping is null, and llama.cpp always caps for '%s'", a->name);
    if (!b->cap_scores && c->cap.logits > 0)
        return err_set(e, E_CONFIG, "final_logit_softcapping is not in llama.cpp for '%s'", a->name);
    return 0;
}

static int check_rope(const struct llama_config *c, const struct gguf_arch *a, struct err *e)
{
    struct gguf_rope r;
    int rc = gguf_rope_of(&r, &c->rope, config_rotary(c), e);

    if (rc == 0 && c->local_theta > 0 && strcmp(r.type, "none") != 0 && strcmp(r.type, "linear") != 0)
        return err_set(e, E_CONFIG, "RoPE of type %s would be that of layers with a window too, in llama.cpp",
                       config_rope_name(c->rope.type));
    if (rc < 0 || (r.lists & ~a->lists) == 0)
        return rc;
    err_set(e, E_CONFIG, "RoPE of type %s needs a list of factors, which llama.cpp does not read for '%s'",
            config_rope_name(c->rope.type), a->name);
    return err_hint(e, "train with another --rope (linear, plain yarn), or write a folder for transformers or "
                       "vLLM");
}

int gguf_check(const struct llama_config *c, struct err *e)
{
    const struct gguf_arch *a = gguf_arch_of(c);
    int rc;

    if (!a) {
        err_set(e, E_CONFIG, "models of the family '%s' are not written to GGUF",
                config_arch(c)->model_type);
        return err_hint(e, "write a folder, and use llama.cpp's convert_hf_to_gguf.py");
    }
    if ((rc = check_window(c, a, e)) < 0 || (rc = check_tensors(c, a, e)) < 0 ||
        (rc = check_sizes(c, a, e)) < 0 || (rc = check_activation(c, a, e)) < 0 ||
        (rc = check_no_rope(c, a, e)) < 0 || (rc = check_scores(c, a, e)) < 0)
        return rc;
    return check_rope(c, a, e);
}
