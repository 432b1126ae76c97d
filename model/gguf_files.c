/* model/gguf_files.c - see gguf_files.h. */
#include "model/gguf_files.h"

#include "base/file.h"
#include "base/json.h"
#include "formats/tokenizer/gguf_vocab.h"

#include <stdlib.h>
#include <string.h>

#define KEY(k) "tokenizer.ggml." k

static int put_file(const char *folder, const char *name, const void *p, size_t n,
                    struct beside *files, struct err *e)
{
    char *path = path_join(folder, name);
    int rc = file_replace(path, p, n, e);

    free(path);
    return rc < 0 ? rc : beside_add(files, name, p, n, e);
}

/* {"bos_token": ...}, by which transformers knows them. */
static int put_config(const struct gguf *g, const struct gguf_vocab *v, const char *folder,
                      struct beside *files, struct err *e)
{
    const int32_t ids[2] = { v->bos, v->eos };
    static const char *const keys[2] = { "bos_token", "eos_token" };
    const struct gguf_value *tokens;
    json_t *o = json_object();
    char *text;
    int rc = gguf_array(g, KEY("tokens"), true, GGUF_STRING, &tokens, e);

    for (int k = 0; k < 2 && rc == 0; k++) {
        size_t at = 0, n = 0;
        const char *p = "";

        for (int32_t i = 0; i <= ids[k]; i++)
            p = gguf_next_string(tokens, &at, &n);
        if (ids[k] >= 0)
            json_object_set_new(o, keys[k], json_stringn(p, n));
    }
    json_object_set_new(o, "add_bos_token", json_boolean(v->add_bos));
    json_object_set_new(o, "tokenizer_class",
                        json_string(strcmp(v->file, "tokenizer.json") ? "LlamaTokenizer"
                                                                      : "PreTrainedTokenizerFast"));
    text = js_text(o);
    if (rc == 0)
        rc = text ? put_file(folder, "tokenizer_config.json", text, strlen(text), files, e)
                  : err_set(e, E_SYS, "out of memory");
    free(text);
    json_decref(o);
    return rc;
}

int gguf_files(const char *path, const char *folder, struct beside *files, struct err *e)
{
    struct gguf_vocab v = { 0 };
    struct gguf *g;
    const char *chat = NULL;
    size_t n = 0;
    int rc = gguf_open(&g, path, e);

    if (rc == 0 && gguf_find(g, KEY("tokens")) && (rc = gguf_vocab_read(&v, g, e)) == 0 &&
        (rc = put_file(folder, v.file, v.bytes.p, v.bytes.len, files, e)) == 0)
        rc = put_config(g, &v, folder, files, e);
    if (rc == 0 && (rc = gguf_string(g, "tokenizer.chat_template", "", false, &chat, &n, e)) == 0 && chat)
        rc = put_file(folder, "chat_template.jinja", chat, n, files, e);
    buf_free(&v.bytes);
    gguf_close(g);
    return rc;
}
