/* formats/tokenizer/hft_read.c - a tokenizer.json as a whole; see hft.h. */
#include "formats/tokenizer/hft_impl.h"

#include <stdlib.h>
#include <string.h>

struct hft *hft_new(struct err *e)
{
    struct hft *t = calloc(1, sizeof *t);

    if (!t) {
        err_set(e, E_SYS, "out of memory");
        return NULL;
    }
    t->unk = t->bos = t->eos = -1;
    return t;
}

static void free_steps(struct hft_step *s, int n)
{
    for (int i = 0; i < n; i++) {
        free(s[i].text);
        free(s[i].to);
        free(s[i].regex);
        pattern_free(s[i].pattern);
    }
}

void hft_free(struct hft *t)
{
    if (!t)
        return;
    spm_free(t->v);
    free(t->map.slot);
    free(t->raw);
    free(t->raw_text);
    free(t->pair);
    free(t->score);
    free(t->tokens.units);
    for (size_t i = 0; i < t->n_added; i++)
        free((char *)t->added[i].content);
    free(t->added);
    hft_finder_free(&t->before);
    hft_finder_free(&t->after);
    free_steps(t->norm, HFT_MAX_STEPS);
    free_steps(t->cut, HFT_MAX_STEPS);
    free(t);
}

/* What each token stands for: the bytes of its characters if all are of the byte alphabet, else its
 * text; of an added token that is normalised, the text that it is found by. */
static int add_raw(const struct hft *t, const char *p, size_t n, struct buf *out, struct err *e)
{
    size_t len = out->len;
    int rc = buf_reserve(out, n + 1, e);

    if (rc < 0)
        return rc;
    for (size_t i = 0, k; t->decode.bytes && i < n; i += k) {
        int b = hft_byte(unicode_at(p + i, &k));

        if (b < 0) {
            out->len = len;
            break;
        }
        out->p[out->len++] = (char)b;
        if (i + k == n)
            return buf_add(out, "", 1, e);
    }
    return (rc = buf_add(out, p, n, e)) < 0 ? rc : buf_add(out, "", 1, e);
}

int hft_make_raw(struct hft *t, struct err *e)
{
    const struct hft_added **added = calloc((size_t)t->v->vocab, sizeof *added);
    struct buf b = { 0 }, text = { 0 };
    int rc = 0;

    t->raw = malloc((size_t)t->v->vocab * sizeof *t->raw);
    if (!added || !t->raw)
        rc = err_set(e, E_SYS, "out of memory for %lld tokens", (long long)t->v->vocab);
    for (size_t i = 0; i < t->n_added && rc == 0; i++)
        if (t->added[i].normalized && t->n_norm > 0)
            added[t->added[i].id] = &t->added[i];
    for (int64_t id = 0; id < t->v->vocab && rc == 0; id++) {
        const struct spm_string *s = &t->v->piece[id];
        size_t len = b.len;

        text.len = 0;
        if (added[id] && (rc = hft_normalize(t, s->p, s->n, &text, e)) == 0)
            rc = add_raw(t, text.p, text.len, &b, e);
        else if (rc == 0)
            rc = add_raw(t, s->p, s->n, &b, e);
        t->raw[id] = (struct spm_string){ NULL, (uint32_t)(b.len - len - (rc == 0)), 0 };
    }
    t->raw_text = b.p; /* it grew, and moved */
    for (size_t id = 0, at = 0; rc == 0 && id < (size_t)t->v->vocab; id++) {
        t->raw[id].p = b.p + at;
        at += t->raw[id].n + 1;
    }
    buf_free(&text);
    free(added);
    return rc;
}

/* The parts of the file by their names. */
enum { VERSION, ADDED, NORMALIZER, PRE_TOKENIZER, POST_PROCESSOR, DECODER, MODEL, PARTS };

static int find_parts(const char *bytes, size_t n, struct hft_value part[PARTS], struct err *e)
{
    static const char *const names[PARTS] = { "version", "added_tokens", "normalizer",
                                              "pre_tokenizer", "post_processor", "decoder",
                                              "model" };
    struct json_object scan = json_scan(bytes, n);
    struct json_value key, v;
    bool tekken = false;
    int rc;

    for (int i = 0; i < PARTS; i++)
        part[i] = (struct hft_value){ .start = bytes, .path = names[i] };
    for (; (rc = json_next(&scan, &key, &v, e)) == 1; tekken |= json_is(&key, "vocab"))
        for (int i = 0; i < PARTS; i++)
            if (json_is(&key, names[i])) {
                if (part[i].v.p)
                    return hft_bad(bytes, key.p, e, "field '%s' is there twice", names[i]);
                if (v.type != JK_NULL)
                    part[i].v = v;
            }
    if (rc == 0 && !part[MODEL].v.p && tekken) {
        err_set(e, E_DATA, "tokens without a model, as a tekken.json or vocab.json has them, are not supported");
        return err_hint(e, "use the tokenizer.json of that model");
    }
    if (rc == 0 && !part[MODEL].v.p)
        return hft_bad(bytes, bytes + n, e, "field 'model' is missing");
    if (rc == 0 && part[VERSION].v.p && !json_is(&part[VERSION].v, "1.0"))
        return hft_bad(bytes, part[VERSION].v.p, e, "field 'version' must be \"1.0\"");
    return rc;
}

static int read_all(struct hft *t, const char *bytes, size_t n, struct err *e)
{
    struct hft_value part[PARTS];
    int rc = unicode_open(e);

    if (rc == 0 && n > HFT_MAX_BYTES)
        rc = err_set(e, E_DATA, "%zu bytes, at most %zu", n, HFT_MAX_BYTES);
    if (rc < 0 || (rc = find_parts(bytes, n, part, e)) < 0 ||
        (rc = hft_read_added(t, &part[ADDED], e)) < 0 ||
        (rc = hft_read_steps(t, &part[NORMALIZER], &part[PRE_TOKENIZER], e)) < 0 ||
        (rc = hft_read_model(t, &part[MODEL], &part[ADDED], e)) < 0 ||
        (rc = hft_read_decoder(t, &part[DECODER], e)) < 0 || (rc = hft_make_raw(t, e)) < 0 ||
        (rc = hft_make_finders(t, e)) < 0)
        return rc;
    return hft_read_template(t, &part[POST_PROCESSOR], e);
}

int hft_finish(struct hft **out, struct hft *t, int rc, const char *name, struct err *e)
{
    if (rc < 0 && e)
        err_within(e, "'%s'", name);
    if (rc < 0)
        hft_free(t);
    *out = rc < 0 ? NULL : t;
    return rc;
}

int hft_parse(struct hft **out, const void *bytes, size_t n, const char *name, struct err *e)
{
    struct hft *t = hft_new(e);
    int rc = t ? read_all(t, bytes, n, e) : e ? e->code : E_SYS;

    return hft_finish(out, t, rc, name, e);
}

int64_t hft_vocab(const struct hft *t) { return t->v->vocab; }
int32_t hft_bos(const struct hft *t) { return t->bos; }
int32_t hft_eos(const struct hft *t) { return t->eos; }
void hft_set_marks(struct hft *t, int32_t bos, int32_t eos)
{
    t->bos = bos;
    t->eos = eos;
}
const char *hft_piece(const struct hft *t, int32_t id) { return spm_piece(t->v, id, NULL); }

int32_t hft_find(const struct hft *t, const char *text, size_t n)
{
    int32_t id = hft_map_find(&t->map, text, n);

    for (size_t i = 0; id < 0 && i < t->n_added; i++)
        if (t->added[i].n == n && memcmp(t->added[i].content, text, n) == 0)
            id = t->added[i].id;
    return id;
}
