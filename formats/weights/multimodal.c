/* formats/weights/multimodal.c - the models that are known, and what their text_config leaves out; see
 * multimodal.h. To add one, add an entry. */
#include "formats/weights/multimodal.h"

#include "base/json.h"
#include "formats/weights/arch.h"
#include "formats/weights/naming.h"

#include <string.h>

static const struct multimodal known[] = {
    { "gemma3", "gemma3_text", true, true, "4.50", naming_llava, NULL },
    { "mistral3", "mistral", false, true, "4.50", naming_llava, NULL },
    { "llava", "llama", false, false, "4.36", naming_llava, NULL },
    { "llava_next", "llama", false, false, "4.39", naming_llava, NULL },
    { "llava_next_video", "llama", false, false, "4.42", naming_llava, NULL },
    { "llava_onevision", "qwen2", false, false, "4.45", naming_llava, NULL },
    { "video_llava", "llama", false, false, "4.42", naming_llava, NULL },
    { "vipllava", "llama", false, false, "4.37", naming_llava, NULL },
    { "got_ocr2", "qwen2", false, true, "4.49", naming_llava, NULL },
    { "internvl", "qwen2", false, true, "4.52", naming_llava, NULL },
    { "idefics2", "mistral", false, false, "4.40", naming_idefics, NULL },
    { "idefics3", "llama", false, false, "4.46", naming_idefics, NULL },
    { "smolvlm", "llama", false, false, "4.50", naming_idefics, NULL },
    { .model_type = "paligemma", .why = "it reads its prompt in both directions" },
    { .model_type = "mllama", .why = "it has layers of cross-attention to pictures" },
    { .model_type = "llama4", .why = "it has experts, and attention in chunks" },
    { .model_type = "gemma3n", .why = "its layers have embeddings of their own" },
    { .model_type = "aya_vision", .why = "its language model is Cohere's, which is none of the families here" },
};
enum { KNOWN = sizeof known / sizeof *known };

const struct multimodal *multimodal_nth(int i) { return i >= 0 && i < KNOWN ? &known[i] : NULL; }

const struct multimodal *multimodal_find(const char *model_type)
{
    for (int i = 0; i < KNOWN; i++)
        if (strcmp(known[i].model_type, model_type) == 0)
            return &known[i];
    return NULL;
}

/* What is not there, or null. */
static int fill(const struct js *text, const char *key, json_t *v, struct err *e)
{
    if (js_has(text, key)) {
        json_decref(v);
        return 0;
    }
    return json_object_set_new(text->obj, key, v) == 0 ? 0 : err_set(e, E_SYS, "out of memory");
}

static int fill_sizes(const struct missing *m, const struct js *text, struct err *e)
{
    const struct { const char *key; int64_t v; } sizes[] = {
        { "vocab_size", m->vocab }, { "hidden_size", m->dim }, { "intermediate_size", m->ffn },
        { "num_hidden_layers", m->layers }, { "num_attention_heads", m->heads },
    };
    int rc = 0;

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes && rc == 0; i++)
        if (sizes[i].v)
            rc = fill(text, sizes[i].key, json_integer(sizes[i].v), e);
    return rc;
}

/* The top's ids count before those of text_config. */
static int take_ids(const struct js *top, const struct js *text, struct err *e)
{
    static const char *const keys[] = { "bos_token_id", "eos_token_id" };

    for (int i = 0; i < 2; i++)
        if (js_has(top, keys[i]) && json_object_set(text->obj, keys[i], json_object_get(top->obj, keys[i])) < 0)
            return err_set(e, E_SYS, "out of memory");
    return 0;
}

int multimodal_fill(const struct multimodal *m, const struct js *top, const struct js *text, struct err *e)
{
    const struct arch *a;
    const char *type = m->text;
    int rc;

    if (js_has(text, "text_config"))
        return err_set(e, E_CONFIG, "'%s': %stext_config: a model within a model within a model is not supported",
                       text->file, text->path);
    if ((rc = js_str(text, "model_type", JS_MAY, &type, e)) < 0 ||
        (rc = fill(text, "model_type", json_string(type), e)) < 0)
        return rc;
    if (m->only && strcmp(type, m->text) != 0)
        return err_set(e, E_CONFIG, "'%s': %smodel_type '%.60s' is not supported, a model of model_type %s has %s",
                       text->file, text->path, type, m->model_type, m->text);
    if (!(a = arch_find(type))) /* whose reader says so */
        return 0;
    return (rc = fill_sizes(&a->missing, text, e)) < 0 ? rc : take_ids(top, text, e);
}
