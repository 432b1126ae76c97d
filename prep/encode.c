/* prep/encode.c - see prep_encode and prep_info in prep.h. */
#include "prep/prep.h"

#include "base/file.h"
#include "base/gguf.h"
#include "base/utf8.h"
#include "formats/tokens/document.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* BOS and EOS as ids round what was encoded, never as text. On success *ids became out's. */
static int frame(const struct tokenizer *t, int32_t **ids, int64_t n, bool bos, bool eos,
                 struct token_doc *out, struct err *e)
{
    int32_t *v = realloc(*ids, ((size_t)n + 2) * sizeof *v); /* two more: BOS and EOS */
    int64_t first = bos && tokenizer_bos(t) >= 0;

    if (!v)
        return err_set(e, E_SYS, "out of memory for %lld tokens", (long long)n);
    *ids = NULL;
    if (first) {
        memmove(v + 1, v, (size_t)n * sizeof *v);
        v[0] = tokenizer_bos(t);
    }
    n += first;
    if (eos && tokenizer_eos(t) >= 0)
        v[n++] = tokenizer_eos(t);
    out->ids = (uint32_t *)v;
    out->n_ids = n;
    return 0;
}

/* What is said of the text that the tokens were made of: bytes, words, hash. */
static void describe(struct token_doc *out, const char *p, size_t n)
{
    out->text_bytes = (int64_t)n;
    out->text_words = text_words(p, n);
    out->text_hash = XXH3_64bits(p ? p : "", n);
}

/* The reference masks as many labels as the prompt alone has tokens. Where its last token would
 * merge into the output that is one too many, so the ids are compared. */
static int encode_instruction(const struct tokenizer *t, const struct doc *d,
                              const struct prep_opts *o, struct token_doc *out,
                              int64_t *masked, struct err *e)
{
    struct buf whole = { 0 };
    int32_t *ids = NULL, *prompt = NULL;
    int64_t n = 0, n_prompt = 0, same = 0, bos = tokenizer_bos(t) >= 0;
    size_t prompt_bytes = 0;
    int rc;

    /* whole is the prompt, then the output. It is encoded
     * twice: up to the prompt's end, and all of it. */
    if ((rc = doc_prompt(d, o->prompt, &whole, e)) == 0) {
        prompt_bytes = whole.len;
        rc = buf_add(&whole, d->output.p, d->output.len, e);
    }
    if (rc == 0)
        rc = tokenizer_encode(t, whole.p, prompt_bytes, &prompt, &n_prompt, e);
    if (rc == 0)
        rc = tokenizer_encode(t, whole.p, whole.len, &ids, &n, e);
    while (rc == 0 && same < n && same < n_prompt && ids[same] == prompt[same])
        same++;
    if (rc == 0 && (rc = frame(t, &ids, n, true, !o->no_eos, out, e)) == 0) {
        *masked = bos + same;
        describe(out, whole.p, whole.len);
    }
    free(prompt);
    free(ids);
    buf_free(&whole);
    return rc;
}

/* Instructions get BOS whatever --add-bos says, as the reference has it. */
int prep_encode(const struct tokenizer *t, const struct doc *d, const struct prep_opts *o,
                struct token_doc *out, int64_t *masked, struct err *e)
{
    int32_t *ids;
    int64_t n;
    int rc;

    *out = (struct token_doc){ .source = d->source, .name = d->name };
    *masked = 0;
    if (d->instruct) {
        rc = encode_instruction(t, d, o, out, masked, e);
    } else if ((rc = tokenizer_encode(t, d->text.p, d->text.len, &ids, &n, e)) == 0) {
        rc = frame(t, &ids, n, o->add_bos, !o->no_eos, out, e);
        describe(out, d->text.p, d->text.len);
        free(ids);
    }
    return rc < 0 ? err_within(e, "'%s'", d->name) : 0;
}

/* A path that a label holds as it is: UTF-8, nothing that a terminal would obey, short enough. */
static bool exact_label(const char *path, size_t cap)
{
    size_t n = strlen(path);
    bool plain = n < cap && utf8_valid(path, n, NULL);

    for (size_t i = 0; i < n && plain; i++)
        plain = (unsigned char)path[i] >= ' ' && path[i] != 0x7F;
    return plain;
}

/* The absolute path of a file in a model's folder, which a config.json shows, or of a GGUF; else NULL. The folder
 * alone is resolved: the files of Hugging Face's cache are links to where no model is. */
static char *path_in_model(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    char *config = folder ? path_join(folder, "config.json") : NULL;
    char *whole = config && path_is_file(config) ? realpath(folder, NULL) : NULL;
    char *out = gguf_is(path) ? realpath(path, NULL) : whole ? path_join(whole, slash ? slash + 1 : path) : NULL;

    free(folder);
    free(config);
    free(whole);
    return out;
}

bool prep_tokenizer_name(const char *path, char *out, size_t cap)
{
    const char *slash = strrchr(path, '/');
    char *whole = path_in_model(path);
    bool kept = whole && exact_label(whole, cap);

    /* A path that is too long is cut to the file's name. */
    label_clean(out, cap - 1, kept ? whole : !slash || strlen(path) < cap ? path : slash + 1);
    kept = kept || !whole;
    free(whole);
    return kept;
}

int prep_info(const struct tokenizer *t, const struct prep_opts *o, struct token_info *info,
              struct err *e)
{
    const char *path = tokenizer_path(t);

    *info = (struct token_info){ .vocab = (uint32_t)tokenizer_vocab(t), .bos = tokenizer_bos(t),
                                 .eos = tokenizer_eos(t), .adds_bos = o->add_bos,
                                 .adds_eos = !o->no_eos };
    info->width = token_width(info->vocab);
    memcpy(info->fingerprint, tokenizer_fingerprint(t), FINGERPRINT_HEX + 1);
    prep_tokenizer_name(path, info->tokenizer, sizeof info->tokenizer);
    if (info->eos < 0 && !o->no_eos) {
        err_set(e, E_CONFIG, "the tokenizer '%s' has no EOS token", path);
        return err_hint(e, "--no-eos does without; documents are then not separated");
    }
    return info->bos < 0 && o->add_bos
               ? err_set(e, E_CONFIG, "--add-bos: the tokenizer '%s' has no BOS token", path)
               : 0;
}
