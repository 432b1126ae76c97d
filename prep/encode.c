/* prep/encode.c - see prep_encode in prep.h. */
#include "prep/prep.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* BOS and EOS as ids round what was encoded, never as text. */
static int frame(const struct tokenizer *t, const int32_t *ids, int64_t n, bool bos, bool eos,
                 struct token_doc *out, struct err *e)
{
    uint32_t *v = malloc(((size_t)n + 2) * sizeof *v);
    int64_t k = 0;

    if (!v)
        return err_set(e, E_SYS, "out of memory for %lld tokens", (long long)n);
    if (bos && tokenizer_bos(t) >= 0)
        v[k++] = (uint32_t)tokenizer_bos(t);
    for (int64_t i = 0; i < n; i++)
        v[k++] = (uint32_t)ids[i];
    if (eos && tokenizer_eos(t) >= 0)
        v[k++] = (uint32_t)tokenizer_eos(t);
    out->ids = v;
    out->n_ids = k;
    return 0;
}

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

    if ((rc = doc_prompt(d, o->prompt, &whole, e)) == 0) {
        prompt_bytes = whole.len;
        rc = buf_add(&whole, d->output.p, d->output.len, e);
    }
    if (rc == 0)
        rc = tokenizer_encode(t, whole.p, prompt_bytes, &prompt, &n_prompt, e);
    if (rc == 0)
        rc = tokenizer_encode(t, whole.p, whole.len, &ids, &n, e);
    if (rc == 0)
        rc = frame(t, ids, n, true, !o->no_eos, out, e);
    if (rc == 0) {
        while (same < n && same < n_prompt && ids[same] == prompt[same])
            same++;
        *masked = bos + same;
        describe(out, whole.p, whole.len);
    }
    free(prompt);
    free(ids);
    buf_free(&whole);
    return rc;
}

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
        rc = frame(t, ids, n, o->add_bos, !o->no_eos, out, e);
        describe(out, d->text.p, d->text.len);
        free(ids);
    }
    return rc < 0 ? err_within(e, "'%s'", d->name) : 0;
}
