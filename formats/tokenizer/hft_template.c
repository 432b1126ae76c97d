/* formats/tokenizer/hft_template.c - which tokens a tokenizer.json puts around a text. */
#include "formats/tokenizer/hft_impl.h"

#include <stdlib.h>
#include <string.h>

/* The id of a special token of the template, by its text; -1 for none. */
static int token_id(const struct hft *t, const struct hft_value *o, const char *key, int32_t *id,
                    struct err *e)
{
    char *text;
    size_t n;
    int rc = hft_string(o, key, &text, &n, e);

    *id = rc == 0 && text ? hft_find(t, text, n) : -1;
    free(text);
    return rc;
}

/* [{"SpecialToken": {"id": ..}}, {"Sequence": ..}, ...]: the last before the text and the last behind. */
static int read_single(struct hft *t, const struct hft_value *single, struct err *e)
{
    struct json_object scan = json_scan(single->v.p, single->v.n);
    struct hft_value item = { .start = single->start, .path = "post_processor.single" }, token;
    bool behind = false;
    int rc;

    if (single->v.type != JK_ARRAY)
        return 0;
    while ((rc = json_next_element(&scan, &item.v, e)) == 1) {
        int32_t id;

        if ((rc = hft_field(&item, "SpecialToken", &token, e)) < 0)
            return rc;
        if (rc == 0) {
            behind = true;
            continue;
        }
        if ((rc = token_id(t, &token, "id", &id, e)) < 0)
            return rc;
        if (behind)
            t->eos = id;
        else
            t->bos = id;
    }
    return rc;
}

/* RobertaProcessing and BertProcessing: "cls": ["<s>", 0], "sep": ["</s>", 2]. */
static int read_pair(const struct hft *t, const struct hft_value *o, const char *key, int32_t *id,
                     struct err *e)
{
    struct json_object scan;
    struct json_value v;
    struct buf b = { 0 };
    struct hft_value f;
    int rc = hft_field(o, key, &f, e);

    if (rc <= 0 || f.v.type != JK_ARRAY)
        return rc < 0 ? rc : 0;
    scan = json_scan(f.v.p, f.v.n);
    if ((rc = json_next_element(&scan, &v, e)) == 1 && v.type == JK_STRING &&
        (rc = json_text(&v, false, &b, e)) == 0)
        *id = hft_find(t, b.p ? b.p : "", b.len);
    buf_free(&b);
    return rc < 0 ? rc : 0;
}

static int read_processor(struct hft *t, const struct hft_value *o, int depth, struct err *e)
{
    struct hft_value f, item = { .start = o->start, .path = "post_processor" };
    struct json_object scan;
    int rc;

    if ((rc = hft_field(o, "single", &f, e)) == 1)
        return read_single(t, &f, e);
    if (rc < 0 || (rc = read_pair(t, o, "cls", &t->bos, e)) < 0 ||
        (rc = read_pair(t, o, "sep", &t->eos, e)) < 0)
        return rc;
    if (depth > 4 || (rc = hft_field(o, "processors", &f, e)) <= 0 || f.v.type != JK_ARRAY)
        return rc < 0 ? rc : 0;
    scan = json_scan(f.v.p, f.v.n);
    while ((rc = json_next_element(&scan, &item.v, e)) == 1)
        if ((rc = read_processor(t, &item, depth + 1, e)) < 0)
            return rc;
    return rc;
}

/* Where the template has none: a special token that is known to be it. */
static int32_t usual(const struct hft *t, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < t->n_added; k++)
            if (t->added[k].special && strcmp(t->added[k].content, names[i]) == 0)
                return t->added[k].id;
    return -1;
}

int hft_read_template(struct hft *t, const struct hft_value *post, struct err *e)
{
    static const char *const bos[] = { "<s>", "<|begin_of_text|>", "<bos>", "<|startoftext|>",
                                       "<\xEF\xBD\x9C" "begin\xE2\x96\x81of\xE2\x96\x81sentence"
                                       "\xEF\xBD\x9C>" };
    static const char *const eos[] = { "</s>", "<|end_of_text|>", "<eos>", "<|endoftext|>",
                                       "<\xEF\xBD\x9C" "end\xE2\x96\x81of\xE2\x96\x81sentence"
                                       "\xEF\xBD\x9C>" };
    int rc = post->v.p ? read_processor(t, post, 0, e) : 0;

    if (rc < 0)
        return rc;
    t->adds_bos = t->bos >= 0;
    t->adds_eos = t->eos >= 0;
    if (t->bos < 0)
        t->bos = usual(t, bos, sizeof bos / sizeof *bos);
    if (t->eos < 0)
        t->eos = usual(t, eos, sizeof eos / sizeof *eos);
    return 0;
}

void hft_adds(const struct hft *t, bool *bos, bool *eos)
{
    *bos = t->adds_bos;
    *eos = t->adds_eos;
}
