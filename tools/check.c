/* tools/check.c - see check.h. Each rule is a function: what is looked at, and who minds. */
#include "tools/check.h"

#include "base/bytes.h"
#include "base/file.h"
#include "base/gguf.h"
#include "base/json.h"
#include "formats/weights/gguf_arch.h"
#include "formats/weights/multimodal.h"
#include "formats/weights/safetensors.h"
#include "formats/weights/tensors.h"
#include "formats/weights/weights.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const programs[] = { "vLLM", "llama.cpp", "PEFT", "transformers" };

const char *check_word(enum check_kind k)
{
    static const char *const words[] = { "note", "differs", "ignored", "refused" };

    return words[k];
}

void check_free(struct check_list *l)
{
    free(l->v);
    *l = (struct check_list){ 0 };
}

static int add(struct check_list *l, enum check_kind kind, struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static int add(struct check_list *l, enum check_kind kind, struct err *e, const char *fmt, ...)
{
    va_list args;

    if (array_grow(&l->v, &l->cap, (size_t)l->n, sizeof *l->v, 8, "findings", e) < 0)
        return E_SYS;
    l->v[l->n].kind = kind;
    va_start(args, fmt);
    vsnprintf(l->v[l->n].text, sizeof l->v->text, fmt, args);
    va_end(args);
    l->n++;
    l->worst = kind > l->worst ? kind : l->worst;
    return 0;
}

static bool is_scaled(const struct rope_config *r)
{
    return r->type != ROPE_DEFAULT && !(r->type == ROPE_LINEAR && r->factor == 1);
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), k = strlen(end);

    return k <= n && strcmp(s + n - k, end) == 0;
}

/* ---- a model's configuration ---- */

/* The kinds of RoPE that came later, by the first version that computes them; caps (Gemma 2: 4.57 does so without a
 * word, 5.24 takes no sdpa). */
static int transformers_config(struct check_list *l, const struct llama_config *c, struct err *e)
{
    const struct rope_config *r = &c->rope;
    int rc = 0;

    if (r->type == ROPE_YARN || r->type == ROPE_LLAMA3 || r->type == ROPE_LONGROPE)
        rc = add(l, CHECK_NOTE, e, "RoPE of type %s: transformers 4.43 or later", config_rope_name(r->type));
    if (rc == 0 && r->type == ROPE_YARN &&
        fabs((double)c->context - r->factor * (double)r->original_context) > 0.5)
        rc = add(l, CHECK_DIFFERS, e, "max_position_embeddings %lld is not factor %g x "
                 "original_max_position_embeddings %lld: versions take yarn's factor from one or the other",
                 (long long)c->context, r->factor, (long long)r->original_context);
    else if (rc == 0 && r->type == ROPE_YARN)
        rc = add(l, CHECK_NOTE, e, "before 4.51 yarn's ramp is that of the extended context");
    if (rc == 0 && r->type == ROPE_DYNAMIC)
        rc = add(l, CHECK_NOTE, e, "after a long text dynamic's frequencies stay those of the longest so far");
    if (rc == 0 && c->cap.scores > 0)
        rc = add(l, CHECK_DIFFERS, e, "transformers 4 leave out attn_logit_softcapping where they choose the attention "
                 "(sdpa): give attn_implementation=\"eager\"");
    return rc;
}

static int vllm_rope(struct check_list *l, const struct llama_config *c, struct err *e)
{
    long long n = (long long)config_reach(c);

    switch (c->rope.type) {
    case ROPE_LINEAR:
        return add(l, CHECK_DIFFERS, e, "the context is taken times the factor: give --max-model-len %lld", n);
    case ROPE_DYNAMIC:
        return add(l, CHECK_DIFFERS, e, "dynamic RoPE has the frequencies of %lld tokens at every length", n);
    case ROPE_LONGROPE:
        return add(l, CHECK_DIFFERS, e, "longrope's scale comes from the contexts: give --max-model-len %lld",
                   n);
    case ROPE_YARN:
        return c->rope.attention_factor > 0
                   ? add(l, CHECK_DIFFERS, e, "older versions take no attention_factor of yarn") : 0;
    default:
        return 0;
    }
}

#define LONGROPE_BY_CONTEXT "longrope's list is chosen by the context that -c gives, not by the text's length: " \
                            "above the original context all texts get the long one"

/* What convert_hf_to_gguf.py of llama.cpp makes of the folder. */
static int llama_cpp_rope(struct check_list *l, const struct llama_config *c, struct err *e)
{
    const struct rope_config *r = &c->rope;

    if (r->type == ROPE_DYNAMIC)
        return add(l, CHECK_IGNORED, e, "RoPE of type dynamic: there is none in llama.cpp");
    if (r->type == ROPE_LONGROPE && strcmp(config_arch(c)->model_type, "phi3") != 0)
        return add(l, CHECK_IGNORED, e, "longrope's lists of factors are not converted for %s: lmerge -o "
                   "FILE.gguf writes them", config_arch(c)->model_type);
    if (r->type == ROPE_LONGROPE)
        return add(l, CHECK_DIFFERS, e, LONGROPE_BY_CONTEXT);
    if (r->type == ROPE_YARN && (r->attention_factor > 0 || r->mscale > 0))
        return add(l, CHECK_IGNORED, e, "yarn's attention_factor is converted to a key that is not read for "
                   "%s: lmerge -o FILE.gguf writes one that is", config_arch(c)->model_type);
    if (r->type == ROPE_YARN && (r->beta_fast != 32 || r->beta_slow != 1 || r->smooth))
        return add(l, CHECK_IGNORED, e, "yarn's beta_fast, beta_slow and truncate: lmerge -o FILE.gguf writes "
                   "what they come to");
    return 0;
}

/* The first versions of transformers that know a family. */
static const struct {
    const char *model_type, *version;
} families[] = {
    { "llama", "4.28" }, { "mistral", "4.34" }, { "qwen2", "4.37" }, { "qwen3", "4.51" },
    { "gemma", "4.38" }, { "gemma2", "4.42" }, { "gemma3_text", "4.50" },
};

/* llama.cpp has windows for the family. */
static bool has_windows(const struct llama_config *c)
{
    const struct gguf_arch *a = gguf_arch_of(c);

    return a && a->full > 0;
}

/* What it cannot compute, but for a window, which it leaves out, and RoPE, which is judged alone. */
static int llama_cpp_family(struct check_list *l, const struct llama_config *c, struct err *e)
{
    struct llama_config plain = *c;
    struct err why = { 0 };

    if (!has_windows(c))
        plain.window = 0;
    if (c->rope.type == ROPE_DYNAMIC || gguf_check(&plain, &why) == 0)
        return c->activation == ACT_GELU ? add(l, CHECK_NOTE, e, "gelu is computed by its tanh form, which "
                                               "changes losses in the fourth digit") : 0;
    return add(l, CHECK_REFUSED, e, "%.*s", (int)strcspn(why.msg, "\n"), why.msg);
}

/* A model with more than text: who knows its class, and where the rest goes. */
static int check_within(struct check_list *l, enum check_program p, const struct llama_config *c, struct err *e)
{
    const struct multimodal *m = c->multimodal;

    if (!m)
        return 0;
    if (p == CHECK_TRANSFORMERS || p == CHECK_PEFT)
        return add(l, CHECK_NOTE, e, "model_type %s: transformers %s or later; its language model is judged here", m->model_type,
                   m->since);
    if (p == CHECK_LLAMA_CPP)
        return add(l, CHECK_NOTE, e, "model_type %s: the language model is converted; what it has beside becomes a file of "
                   "its own (convert_hf_to_gguf.py --mmproj)", m->model_type);
    return add(l, CHECK_NOTE, e, "model_type %s: its language model is judged here", m->model_type);
}

static int check_config(struct check_list *l, enum check_program p, const struct llama_config *c,
                        struct err *e)
{
    const char *type = config_arch(c)->model_type;
    int rc = check_within(l, p, c, e);

    if (rc == 0)
        rc = p == CHECK_VLLM ? vllm_rope(l, c, e) : p == CHECK_LLAMA_CPP ? llama_cpp_rope(l, c, e)
                                                                         : transformers_config(l, c, e);

    if (rc == 0 && p == CHECK_LLAMA_CPP)
        rc = llama_cpp_family(l, c, e);
    if (rc == 0 && p == CHECK_LLAMA_CPP && c->window > 0 && c->window < config_reach(c) &&
        gguf_arch_of(c) && !has_windows(c))
        rc = add(l, CHECK_IGNORED, e, "the window of %lld tokens: attention goes over the whole text",
                 (long long)c->window);
    for (size_t i = 0; i < sizeof families / sizeof *families && rc == 0; i++)
        if (p == CHECK_TRANSFORMERS && !c->multimodal && strcmp(families[i].model_type, type) == 0)
            rc = add(l, CHECK_NOTE, e, "model_type %s: transformers %s or later", type, families[i].version);
    return rc;
}

/* vLLM takes no float16 of Gemma 2 and 3, whose values leave its range. */
static int check_dtype(struct check_list *l, enum check_program p, const struct llama_config *c,
                       const char *config, struct err *e)
{
    bool gemma = config_arch(c)->block.query_scalar;
    const char *dtype = "";
    struct js o;
    int rc = js_load(&o, config, JS_MAX_BYTES, e);

    if (rc == 0 && (rc = js_str(&o, "torch_dtype", JS_MAY, &dtype, e)) == 0 &&
        (rc = js_str(&o, "dtype", JS_MAY, &dtype, e)) == 0 && p == CHECK_VLLM) {
        if (strcmp(dtype, "float32") == 0)
            rc = add(l, CHECK_DIFFERS, e, "float32 weights are computed with in %s: give --dtype float32, or "
                     "merge with --dtype bfloat16", gemma ? "bfloat16" : "float16");
        else if (strcmp(dtype, "float16") == 0 && gemma)
            rc = add(l, CHECK_REFUSED, e, "float16 for model_type %s: merge with --dtype bfloat16",
                     config_arch(c)->model_type);
    }
    js_free(&o);
    return rc;
}

static int check_tokenizer(struct check_list *l, enum check_program p, const char *folder, struct err *e)
{
    char *path = weights_tokenizer_path(folder);
    int rc = path ? 0 : add(l, p == CHECK_PEFT ? CHECK_NOTE : CHECK_DIFFERS, e,
                            "no tokenizer.json and no tokenizer.model: %s takes token ids alone", programs[p]);

    free(path);
    return rc;
}

static int check_model(struct check_list *l, enum check_program p, const char *folder, struct err *e)
{
    char *config = path_join(folder, "config.json");
    struct llama_config c;
    struct err why = { 0 };
    int rc = config_read(&c, config, &why);

    if (rc == E_CONFIG) {
        rc = add(l, CHECK_NOTE, e, "not judged: %.*s", (int)strcspn(why.msg, "\n"), why.msg);
    } else if (rc < 0) {
        if (e)
            *e = why;
    } else if ((rc = check_config(l, p, &c, e)) == 0 && (rc = check_dtype(l, p, &c, config, e)) == 0) {
        rc = check_tokenizer(l, p, folder, e);
    }
    free(config);
    return rc;
}

/* ---- an adapter ---- */

/* What the tensors are that are no halves of pairs. */
struct trained {
    int norms, ends, magnitudes, others; /* ends: embedding and head */
    char unlisted[120];                  /* one that modules_to_save does not name */
};

/* PEFT loads a whole tensor only where modules_to_save names its module. */
static bool is_listed(const struct js *o, const char *name)
{
    json_t *list = json_object_get(o->obj, "modules_to_save"), *v;
    const char *end = strrchr(name, '.');
    size_t i, n = end ? (size_t)(end - name) : strlen(name);

    json_array_foreach(list, i, v) {
        const char *s = json_string_value(v);
        size_t k = s ? strlen(s) : 0;

        if (k && k <= n && memcmp(name + n - k, s, k) == 0)
            return true;
    }
    return false;
}

static void sort_name(struct trained *t, const struct js *o, const char *name)
{
    bool norm = strstr(name, "norm") != NULL,
         end = strstr(name, "embed_tokens.weight") || strstr(name, "lm_head.weight") ||
               strstr(name, "embed_in.weight") || strstr(name, "embed_out.weight");

    if (strstr(name, ".lora_A.") || strstr(name, ".lora_B.") || strstr(name, ".lora_embedding_"))
        return;
    if (strstr(name, "lora_magnitude_vector")) {
        t->magnitudes++;
        return;
    }
    *(norm ? &t->norms : end ? &t->ends : &t->others) += 1;
    if (!*t->unlisted && !is_listed(o, name))
        snprintf(t->unlisted, sizeof t->unlisted, "%.119s", name);
}

static int read_trained(struct trained *t, const struct js *o, const char *folder, struct err *e)
{
    char *path = path_join(folder, "adapter_model.safetensors");
    struct st_file *f = NULL;
    int rc = path_is_file(path) ? st_open(&f, path, e) : 0;

    *t = (struct trained){ 0 };
    for (int64_t i = 0; rc == 0 && f && i < st_count(f); i++)
        sort_name(t, o, st_at(f, i)->name);
    st_close(f);
    free(path);
    return rc;
}

/* No program reads RoPE from an adapter: it is that of the base. */
static int adapter_rope(struct check_list *l, enum check_program p, const struct js *o,
                        const char *folder, const char *base, struct err *e)
{
    char *own = path_join(folder, "config.json"), *its;
    const char *named = base;
    struct llama_config c, b;
    int rc = 0;

    if (!named && js_str(o, "base_model_name_or_path", JS_MAY, &named, NULL) < 0)
        named = NULL;
    its = path_join(named ? named : "", "config.json");
    if (path_is_file(own) && config_read(&c, own, NULL) == 0) {
        bool known = named && path_is_file(its) && config_read(&b, its, NULL) == 0;

        if (known ? !config_rope_same(&c.rope, &b.rope) : is_scaled(&c.rope))
            rc = add(l, CHECK_IGNORED, e, "RoPE that the adapter was trained with (%s): %s has the base's; merge "
                     "it, or put it into the base's config.json", config_rope_name(c.rope.type), programs[p]);
    }
    free(own);
    free(its);
    return rc;
}

static int vllm_adapter(struct check_list *l, const struct js *o, const struct trained *t, struct err *e)
{
    static const char *const must[] = { "r", "lora_alpha", "target_modules" };
    int64_t rank = 0, most = 8;
    json_t *saved = json_object_get(o->obj, "modules_to_save");
    bool dora = json_is_true(json_object_get(o->obj, "use_dora"));
    int rc = js_i64(o, "r", JS_MAY, 1, INT32_MAX, &rank, e);

    for (int i = 0; i < 3 && rc == 0; i++)
        if (!js_has(o, must[i]))
            rc = add(l, CHECK_REFUSED, e, "adapter_config.json has no %s", must[i]);
    if (rc == 0 && saved && !json_is_null(saved))
        rc = add(l, CHECK_REFUSED, e, "modules_to_save: only null is supported; merge the adapter");
    else if (rc == 0 && t->ends)
        rc = add(l, CHECK_IGNORED, e, "the trained embedding or head is passed over; merge the adapter");
    if (rc == 0 && t->norms)
        rc = add(l, CHECK_REFUSED, e, "trained norms are no LoRA weights; merge the adapter");
    if (rc == 0 && (dora || t->magnitudes))
        rc = add(l, CHECK_REFUSED, e, "DoRA is not supported; merge the adapter");
    while (most < rank)
        most *= 2;
    if (rc == 0 && rank > 16)
        rc = add(l, CHECK_REFUSED, e, "rank %lld is above the usual limit of 16: give --max-lora-rank %lld",
                 (long long)rank, (long long)most);
    return rc;
}

static int llama_cpp_adapter(struct check_list *l, const struct trained *t, struct err *e)
{
    int rc = 0;

    if (t->ends)
        rc = add(l, CHECK_REFUSED, e, "the trained embedding or head: convert_lora_to_gguf.py stops at it; merge "
                 "the adapter (lmerge -o FILE.gguf)");
    if (rc == 0 && t->norms)
        rc = add(l, CHECK_IGNORED, e, "trained norms are not read from an adapter; merge it (lmerge -o FILE.gguf)");
    if (rc == 0 && (t->magnitudes || t->others))
        rc = add(l, CHECK_REFUSED, e, "tensors that are no LoRA pairs (DoRA, biases); merge the adapter");
    if (rc == 0 && !t->ends && !t->norms)
        rc = add(l, CHECK_NOTE, e, "it takes a GGUF of it: lmerge --adapter-only -o ADAPTER.gguf");
    return rc;
}

/* Of a language model within a multimodal one its tensors are named as such a model's modules are. */
static int check_adapter_base(struct check_list *l, enum check_program p, const char *folder, struct err *e)
{
    char *config = path_join(folder, "config.json");
    struct llama_config c;
    int rc = 0;

    if (path_is_file(config) && config_read(&c, config, NULL) == 0 && c.multimodal &&
        (p == CHECK_PEFT || p == CHECK_TRANSFORMERS))
        rc = add(l, CHECK_NOTE, e, "its modules are those of a whole %s model from transformers 4.52 on: load the base with "
                 "AutoModelForImageTextToText", c.multimodal->model_type);
    free(config);
    return rc;
}

static int check_adapter(struct check_list *l, enum check_program p, const char *folder, const char *base,
                         struct err *e)
{
    char *config = path_join(folder, "adapter_config.json"),
         *embed = path_join(folder, "trainable_params.bin");
    struct trained t;
    struct js o = { 0 };
    int rc = js_load(&o, config, JS_MAX_BYTES, e);

    if (rc == 0 && (rc = read_trained(&t, &o, folder, e)) == 0 &&
        (rc = adapter_rope(l, p, &o, folder, base, e)) == 0)
        rc = p == CHECK_VLLM ? vllm_adapter(l, &o, &t, e)
             : p == CHECK_LLAMA_CPP ? llama_cpp_adapter(l, &t, e) : 0;
    if (rc == 0 && (p == CHECK_PEFT || p == CHECK_TRANSFORMERS) && *t.unlisted)
        rc = add(l, CHECK_IGNORED, e, "'%s' and what else is trained whole without a name in modules_to_save",
                 t.unlisted);
    if (rc == 0)
        rc = check_adapter_base(l, p, folder, e);
    if (rc == 0 && path_is_file(embed))
        rc = add(l, CHECK_IGNORED, e, "trainable_params.bin, LongLoRA's embedding and norms");
    js_free(&o);
    free(config);
    free(embed);
    return rc;
}

/* ---- a GGUF ---- */

static bool has_ending(const struct gguf *g, const char *end)
{
    for (int64_t i = 0; i < gguf_values(g); i++)
        if (ends_with(gguf_value_at(g, i)->key, end))
            return true;
    return false;
}

/* Keys that llama.cpp reads for a few architectures only. */
static int llama_cpp_keys(struct check_list *l, const struct gguf *g, struct err *e)
{
    static const char *const keys[] = { "llama.rope.scaling.yarn_attn_factor",
        "llama.rope.scaling.yarn_beta_fast", "llama.rope.scaling.yarn_beta_slow",
        "qwen2.rope.scaling.yarn_attn_factor", "qwen3.rope.scaling.yarn_attn_factor",
        "llama.attention.sliding_window", "phi3.attention.sliding_window" };
    const struct gguf_value *v;
    int rc = 0;

    for (size_t i = 0; i < sizeof keys / sizeof *keys && rc == 0; i++)
        if ((v = gguf_find(g, keys[i])) && (v->array || v->type != GGUF_U32 || gguf_int_at(v, 0) != 0))
            rc = add(l, CHECK_IGNORED, e, "key %s is not read for this architecture", keys[i]);
    if (rc == 0 && gguf_tensor_find(g, "rope_factors_long.weight"))
        rc = add(l, CHECK_DIFFERS, e, LONGROPE_BY_CONTEXT);
    if (rc == 0 && !gguf_find(g, "tokenizer.ggml.tokens"))
        rc = add(l, CHECK_DIFFERS, e, "no tokenizer: llama.cpp takes token ids alone");
    return rc;
}

static int check_lora(struct check_list *l, enum check_program p, const struct gguf *g, struct err *e)
{
    if (p != CHECK_LLAMA_CPP)
        return add(l, CHECK_REFUSED, e, "a LoRA adapter in GGUF is for llama.cpp alone");
    for (int64_t i = 0; i < gguf_tensors(g); i++)
        if (ends_with(gguf_tensor_at(g, i)->name, "_norm.weight"))
            return add(l, CHECK_IGNORED, e, "trained norms ('%s') are not read from an adapter",
                       gguf_tensor_at(g, i)->name);
    return 0;
}

/* transformers, and vLLM by it, take sizes and the base of RoPE from the keys, and nothing else of it. */
static int others_gguf(struct check_list *l, enum check_program p, const struct gguf *g, struct err *e)
{
    double factor = 1;
    int rc = 0;

    for (int64_t i = 0; i < gguf_values(g); i++)
        if (ends_with(gguf_value_at(g, i)->key, ".rope.scaling.factor") &&
            gguf_value_at(g, i)->type == GGUF_F32 && !gguf_value_at(g, i)->array)
            factor = gguf_float_at(gguf_value_at(g, i), 0);
    if (p == CHECK_PEFT)
        return add(l, CHECK_NOTE, e, "PEFT reads adapters; the model is transformers' to read");
    if (factor != 1 || gguf_tensor_find(g, "rope_freqs.weight") ||
        gguf_tensor_find(g, "rope_factors_long.weight") || has_ending(g, ".rope.scaling.attn_factor"))
        rc = add(l, CHECK_IGNORED, e, "RoPE scaling: %s does not read it from a GGUF; use a folder (lmerge "
                 "--model FILE.gguf -o FOLDER)", programs[p]);
    return rc;
}

static int check_gguf(struct check_list *l, enum check_program p, const char *path, struct err *e)
{
    const char *type = "";
    struct weights *w = NULL;
    struct err why = { 0 };
    struct gguf *g;
    size_t n = 0;
    int rc = gguf_open(&g, path, e);

    if (rc == 0 && (rc = gguf_string(g, "general.type", "", false, &type, &n, e)) == 0) {
        if (n == 7 && memcmp(type, "adapter", n) == 0)
            rc = check_lora(l, p, g, e);
        else if ((rc = p == CHECK_LLAMA_CPP ? llama_cpp_keys(l, g, e) : others_gguf(l, p, g, e)) == 0 &&
                 weights_open(&w, path, &why) < 0)
            rc = add(l, CHECK_NOTE, e, "not judged: %.*s", (int)strcspn(why.msg, "\n"), why.msg);
    }
    weights_close(w);
    gguf_close(g);
    return rc;
}

int check_path(struct check_list *l, enum check_program p, const char *path, const char *base,
               struct err *e)
{
    char *adapter = path_join(path, "adapter_config.json"), *config = path_join(path, "config.json");
    int rc;

    if (gguf_is(path))
        rc = check_gguf(l, p, path, e);
    else if (path_is_file(adapter))
        rc = check_adapter(l, p, path, base, e);
    else if (path_is_file(config))
        rc = check_model(l, p, path, e);
    else
        rc = err_set(e, E_NOINPUT, "'%s' is no model, adapter or GGUF file", path);
    free(adapter);
    free(config);
    return rc;
}
