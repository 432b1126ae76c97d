/* formats/tokenizer/chat.c - see chat.h. */
#include "formats/tokenizer/chat.h"

#include "base/bytes.h"
#include "base/file.h"
#include "base/json.h"
#include "formats/tokenizer/engine.h"

#include <stdlib.h>
#include <string.h>

#define MAX_BYTES ((size_t)1 << 20)

#define NAME(id, name) [CHAT_##id] = name,
static const char *const names[] = { [CHAT_OTHER] = "other", CHAT_FORMS(NAME) };

const char *chat_form_name(enum chat_form f) { return names[f]; }

static bool has(const char *text, size_t n, const char *mark)
{
    return memmem(text, n, mark, strlen(mark)) != NULL;
}

enum chat_form chat_form_of(const char *text, size_t n)
{
    const bool marks[CHAT_FORMS_N] = {
        [CHAT_LLAMA2] = has(text, n, "[INST]") && has(text, n, "<<SYS>>"),
        [CHAT_MISTRAL] = has(text, n, "[INST]") && !has(text, n, "<<SYS>>"),
        [CHAT_CHATML] = has(text, n, "<|im_start|>"),
        [CHAT_LLAMA3] = has(text, n, "<|start_header_id|>") && has(text, n, "<|eot_id|>"),
        [CHAT_GEMMA] = has(text, n, "<start_of_turn>") && has(text, n, "<end_of_turn>"),
        [CHAT_ALPACA] = has(text, n, "### Instruction:") && has(text, n, "### Response:"),
    };
    enum chat_form found = CHAT_OTHER;
    int count = 0;

    for (size_t i = 1; i < CHAT_FORMS_N; i++)
        if (marks[i]) {
            found = (enum chat_form)i;
            count++;
        }
    return count == 1 ? found : CHAT_OTHER;
}

/* The template of a configuration; NULL for none. Borrowed from o. */
static int find_template(const struct js *o, const char **text, struct err *e)
{
    json_t *v = json_object_get(o->obj, "chat_template"), *one;
    size_t i;

    *text = json_string_value(v);
    if (!v || *text || json_is_null(v))
        return 0;
    json_array_foreach(v, i, one) {
        const char *name = json_string_value(json_object_get(one, "name")),
                   *is = json_string_value(json_object_get(one, "template"));

        if (!name || !is)
            return err_set(e, E_DATA, "'%s': field 'chat_template[%zu]' is no name and template", o->file,
                           i);
        if (strcmp(name, "default") == 0)
            *text = is;
    }
    return json_is_array(v) ? 0 : err_set(e, E_DATA, "'%s': field 'chat_template' is neither a text nor a "
                                          "list", o->file);
}

static int from_config(const char *path, char **text, size_t *n, struct err *e)
{
    const char *is;
    struct js o = { 0 };
    int rc = js_load(&o, path, TOKENIZER_CONFIG_MAX_BYTES, e);

    if (rc == 0 && (rc = find_template(&o, &is, e)) == 0 && is) {
        *n = strlen(is);
        if (*n > MAX_BYTES)
            rc = err_set(e, E_DATA, "'%s': a chat template of %zu bytes, at most %zu", path, *n, MAX_BYTES);
        else if (!(*text = strdup(is)))
            rc = err_set(e, E_SYS, "out of memory for a chat template of %zu bytes", *n);
    }
    js_free(&o);
    return rc;
}

static int from_file(const char *path, char **text, size_t *n, struct err *e)
{
    size_t bad;
    int rc = file_read(path, MAX_BYTES, text, n, e);
    char *longer;

    if (rc < 0)
        return rc;
    if (!utf8_valid(*text, *n, &bad))
        return err_set(e, E_DATA, "'%s': byte %zu is not UTF-8", path, bad);
    if (!(longer = realloc(*text, *n + 1)))
        return err_set(e, E_SYS, "out of memory for a chat template of %zu bytes", *n);
    *text = longer;
    longer[*n] = '\0';
    return 0;
}

int chat_template(const char *folder, char **text, size_t *n, struct err *e)
{
    char *jinja = path_join(folder, "chat_template.jinja"), *config = path_join(folder, TOKENIZER_CONFIG_FILE);
    int rc = 0;

    *text = NULL;
    *n = 0;
    if (!jinja || !config)
        rc = err_set(e, E_SYS, "out of memory");
    else if (path_is_file(jinja))
        rc = from_file(jinja, text, n, e);
    else if (path_is_file(config))
        rc = from_config(config, text, n, e);
    free(jinja);
    free(config);
    if (rc < 0) {
        free(*text);
        *text = NULL;
        *n = 0;
    }
    return rc;
}
