/* formats/tokenizer/gguf_vocab.c - see gguf_vocab.h. */
#include "formats/tokenizer/gguf_vocab.h"

#include "base/jsonscan.h"
#include "formats/tokenizer/spmodel.h"
#include "formats/tokenizer/words.h"

#include <stdio.h>
#include <string.h>

/* The first of a pattern is what is written. */
const struct gguf_pre gguf_pres[] = {
    { "gpt-2", "", false, false, "null" },
    { "llama-bpe", "Llama 3", false, true, "null" },
    { "smaug-bpe", "Llama 3", false, false, "null" },
    { "qwen2", "Qwen 2", false, false, "{\"type\":\"NFC\"}" },
    { "tekken", "tekken", false, true, "null" },
    { "gpt-4o", "o200k", false, false, "null" },
    { "smollm", "", true, false, "null" },
    { "llama3", "Llama 3", false, true, "null" },
    { "llama-v3", "Llama 3", false, true, "null" },
    { "dbrx", "Llama 3", false, false, "null" },
    { "stablelm2", "Qwen 2", false, false, "null" },
    { "deepseek-r1-qwen", "Qwen 2", false, false, "null" },
    { "llama4", "o200k", false, false, "null" },
    { "olmo", "", false, false, "null" },
    { "phi-2", "", false, false, "null" },
    { "starcoder", "", true, false, "null" },
    { "refact", "", true, false, "null" },
};
const int gguf_n_pres = sizeof gguf_pres / sizeof *gguf_pres;

/* The keys of the file. */
struct source {
    const struct gguf *g;
    const struct gguf_value *tokens, *types, *scores, *merges;
    int64_t n;
    int64_t bos, eos, unk, pad;
    bool sentences; /* it is SentencePiece's kind */
    struct err *e;
};

static int read_ids(struct source *s)
{
    int rc;

    s->bos = s->eos = s->unk = s->pad = -1;
    if ((rc = gguf_i64(s->g, "tokenizer.ggml.bos_token_id", "", false, 0, s->n - 1, &s->bos, s->e)) < 0 ||
        (rc = gguf_i64(s->g, "tokenizer.ggml.eos_token_id", "", false, 0, s->n - 1, &s->eos, s->e)) < 0 ||
        (rc = gguf_i64(s->g, "tokenizer.ggml.unknown_token_id", "", false, 0, s->n - 1, &s->unk,
                       s->e)) < 0)
        return rc;
    return gguf_i64(s->g, "tokenizer.ggml.padding_token_id", "", false, 0, s->n - 1, &s->pad, s->e);
}

/* One length for all lists. */
static int read_lists(struct source *s)
{
    int rc = gguf_array(s->g, "tokenizer.ggml.tokens", true, GGUF_STRING, &s->tokens, s->e);

    if (rc < 0 ||
        (rc = gguf_array(s->g, "tokenizer.ggml.token_type", false, GGUF_I32, &s->types, s->e)) < 0 ||
        (rc = gguf_array(s->g, "tokenizer.ggml.scores", false, GGUF_F32, &s->scores, s->e)) < 0 ||
        (rc = gguf_array(s->g, "tokenizer.ggml.merges", false, GGUF_STRING, &s->merges, s->e)) < 0)
        return rc;
    s->n = (int64_t)s->tokens->n;
    if (s->n < 1 || s->n > SPMODEL_MAX_PIECES)
        return err_set(s->e, E_DATA, "'%s': key 'tokenizer.ggml.tokens' at byte %zu has %lld tokens",
                       gguf_name(s->g), s->tokens->at, (long long)s->n);
    if ((s->types && (int64_t)s->types->n != s->n) || (s->scores && (int64_t)s->scores->n != s->n))
        return err_set(s->e, E_DATA, "'%s': tokenizer.ggml.tokens, scores and token_type have other lengths",
                       gguf_name(s->g));
    return read_ids(s);
}

/* As the format's own; anything else counts as normal, as in llama.cpp. llama.cpp's converter gives <unk> the type of
 * a control symbol where tokenizer_config.json lists it. */
static enum spmodel_type kind_of(const struct source *s, int64_t i)
{
    int64_t t = s->types ? gguf_int_at(s->types, (uint64_t)i) : PIECE_NORMAL;

    if (t == PIECE_CONTROL && i == s->unk && s->sentences)
        return PIECE_UNKNOWN;
    return t >= PIECE_NORMAL && t <= PIECE_BYTE ? (enum spmodel_type)t : PIECE_NORMAL;
}

/* ---- SentencePiece's protobuf ---- */

static int add_varint(struct buf *b, uint64_t v, struct err *e)
{
    unsigned char s[10];
    size_t n = 0;

    do
        s[n++] = (unsigned char)((v & 127) | (v > 127 ? 128 : 0));
    while (v >>= 7);
    return buf_add(b, s, n, e);
}
/* A field of bytes. */
static int add_bytes(struct buf *b, int field, const void *p, size_t n, struct err *e)
{
    int rc = add_varint(b, (uint64_t)field << 3 | 2, e);

    return rc < 0 || (rc = add_varint(b, n, e)) < 0 ? rc : buf_add(b, p, n, e);
}
static int add_whole(struct buf *b, int field, uint64_t v, struct err *e)
{
    int rc = add_varint(b, (uint64_t)field << 3, e);

    return rc < 0 ? rc : add_varint(b, v, e);
}

/* Spaces of user-defined tokens stand as such in the file; the model has marks for them. */
static int add_marked(struct buf *b, const char *s, size_t n, struct err *e)
{
    int rc = 0;

    for (size_t i = 0; i < n && rc == 0; i++)
        rc = s[i] == ' ' ? buf_add(b, "\xE2\x96\x81", 3, e) : buf_add(b, s + i, 1, e);
    return rc;
}

static int add_piece(struct buf *out, struct buf *one, struct buf *text, const struct source *s,
                     int64_t i, size_t *at)
{
    float score = s->scores ? (float)gguf_float_at(s->scores, (uint64_t)i) : 0;
    enum spmodel_type kind = kind_of(s, i);
    unsigned char raw[5] = { 2 << 3 | 5 };
    uint32_t bits;
    size_t n;
    const char *p = gguf_next_string(s->tokens, at, &n);
    int rc;

    memcpy(&bits, &score, sizeof bits);
    put_le(raw + 1, bits, 4);
    one->len = text->len = 0;
    rc = kind == PIECE_USER ? add_marked(text, p, n, s->e) : buf_add(text, p, n, s->e);
    if (rc < 0 || (rc = add_bytes(one, 1, text->p, text->len, s->e)) < 0 ||
        (rc = buf_add(one, raw, sizeof raw, s->e)) < 0 ||
        (rc = add_whole(one, 3, (uint64_t)kind, s->e)) < 0)
        return rc;
    return add_bytes(out, 1, one->p, one->len, s->e);
}

/* A field that names a special token, and one that says its id; none: -1, in ten bytes. */
static int add_special(struct buf *b, const struct source *s, int id_field, int name_field, int64_t id)
{
    size_t at = 0, n = 0;
    const char *p = "";
    int rc = add_whole(b, id_field, (uint64_t)id, s->e);

    for (int64_t i = 0; i <= id; i++)
        p = gguf_next_string(s->tokens, &at, &n);
    return rc < 0 || id < 0 ? rc : add_bytes(b, name_field, p, n, s->e);
}

static int add_specs(struct buf *out, const struct source *s)
{
    struct buf trainer = { 0 }, norm = { 0 };
    bool prefix = true, collapse = false, bytes = false;
    int rc;

    for (int64_t i = 0; i < s->n && !bytes; i++)
        bytes = kind_of(s, i) == PIECE_BYTE;
    if ((rc = gguf_bool(s->g, "tokenizer.ggml.add_space_prefix", false, &prefix, s->e)) == 0 &&
        (rc = gguf_bool(s->g, "tokenizer.ggml.remove_extra_whitespaces", false, &collapse, s->e)) == 0 &&
        (rc = add_whole(&trainer, 3, 2, s->e)) == 0 && (rc = add_whole(&trainer, 35, bytes, s->e)) == 0 &&
        (rc = add_special(&trainer, s, 40, 45, s->unk)) == 0 &&
        (rc = add_special(&trainer, s, 41, 46, s->bos)) == 0 &&
        (rc = add_special(&trainer, s, 42, 47, s->eos)) == 0 &&
        (rc = add_special(&trainer, s, 43, 48, s->pad)) == 0 &&
        (rc = add_bytes(&norm, 1, "identity", 8, s->e)) == 0 &&
        (rc = add_whole(&norm, 3, prefix, s->e)) == 0 && (rc = add_whole(&norm, 4, collapse, s->e)) == 0 &&
        (rc = add_whole(&norm, 5, 1, s->e)) == 0 &&
        (rc = add_bytes(out, 2, trainer.p, trainer.len, s->e)) == 0)
        rc = add_bytes(out, 3, norm.p, norm.len, s->e);
    buf_free(&trainer);
    buf_free(&norm);
    return rc;
}

static int make_spm(struct buf *out, const struct source *s)
{
    struct buf one = { 0 }, text = { 0 };
    size_t at = 0;
    int rc = s->scores ? 0 : err_set(s->e, E_DATA, "'%s': key 'tokenizer.ggml.scores' is missing",
                                     gguf_name(s->g));

    for (int64_t i = 0; i < s->n && rc == 0; i++)
        rc = add_piece(out, &one, &text, s, i, &at);
    buf_free(&one);
    buf_free(&text);
    return rc < 0 ? rc : add_specs(out, s);
}

/* ---- tokenizer.json ---- */

static int add_text(struct buf *b, const char *s, struct err *e) { return buf_add(b, s, strlen(s), e); }

static int add_string(struct buf *b, const char *s, size_t n, struct err *e)
{
    int rc = buf_add(b, "\"", 1, e);

    for (size_t i = 0; i < n && rc == 0; i++) {
        unsigned char c = (unsigned char)s[i];

        rc = c == '"' || c == '\\' ? buf_printf(b, e, "\\%c", c)
             : c < 0x20            ? buf_printf(b, e, "\\u%04x", c)
                                   : buf_add(b, s + i, 1, e);
    }
    return rc < 0 ? rc : buf_add(b, "\"", 1, e);
}

static const char *pattern_of(const char *words);

static const struct gguf_pre *find_pre(const struct source *s)
{
    const char *name = "";
    size_t n = 0;

    if (gguf_string(s->g, "tokenizer.ggml.pre", "", false, &name, &n, s->e) < 0)
        return NULL;
    for (int i = 0; i < gguf_n_pres; i++)
        if (strlen(gguf_pres[i].name) == n && memcmp(gguf_pres[i].name, name, n) == 0)
            return &gguf_pres[i];
    err_set(s->e, E_CONFIG, "'%s': tokenizer.ggml.pre '%.*s' is not known here", gguf_name(s->g),
            n < 60 ? (int)n : 60, name);
    err_hint(s->e, "give the tokenizer of the model's folder with -t");
    return NULL;
}

/* The tokens that are found in a text as they stand. */
static int add_added(struct buf *b, const struct source *s)
{
    bool first = true;
    size_t at = 0, n;
    int rc = add_text(b, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[",
                      s->e);

    for (int64_t i = 0; i < s->n && rc == 0; i++) {
        const char *p = gguf_next_string(s->tokens, &at, &n);
        enum spmodel_type kind = kind_of(s, i);

        if (kind != PIECE_CONTROL && kind != PIECE_USER)
            continue;
        rc = buf_printf(b, s->e, "%s{\"id\":%lld,\"content\":", first ? "" : ",", (long long)i);
        if (rc == 0 && (rc = add_string(b, p, n, s->e)) == 0)
            rc = buf_printf(b, s->e, ",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
                            "\"normalized\":false,\"special\":%s}", kind == PIECE_CONTROL ? "true" : "false");
        first = false;
    }
    return rc < 0 ? rc : add_text(b, "]", s->e);
}

static int add_steps(struct buf *b, const struct source *s, const struct gguf_pre *pre)
{
    static const char bytes[] = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
                                "\"trim_offsets\":true,\"use_regex\":%s}";
    const char *pattern = *pre->words ? pattern_of(pre->words) : "";
    int rc = buf_printf(b, s->e, ",\"normalizer\":%s,\"pre_tokenizer\":", pre->normalizer);

    if (rc == 0 && *pattern) {
        if ((rc = add_text(b, "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":"
                              "{\"Regex\":", s->e)) == 0 &&
            (rc = add_string(b, pattern, strlen(pattern), s->e)) == 0 &&
            (rc = add_text(b, "},\"behavior\":\"Isolated\",\"invert\":false},", s->e)) == 0 &&
            (rc = buf_printf(b, s->e, bytes, "false")) == 0)
            rc = add_text(b, "]}", s->e);
    } else if (rc == 0 && pre->digits) {
        if ((rc = add_text(b, "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\","
                              "\"individual_digits\":true},", s->e)) == 0 &&
            (rc = buf_printf(b, s->e, bytes, "true")) == 0)
            rc = add_text(b, "]}", s->e);
    } else if (rc == 0) {
        rc = buf_printf(b, s->e, bytes, "true");
    }
    return rc < 0 ? rc : add_text(b, ",\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\","
                                  "\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true}",
                                  s->e);
}

/* All tokens but those added behind the last that merges make. */
static int add_model(struct buf *b, const struct source *s, const struct gguf_pre *pre)
{
    int64_t last = s->n;
    size_t at = 0, n;
    int rc = buf_printf(b, s->e, ",\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"
                        "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,"
                        "\"fuse_unk\":false,\"byte_fallback\":false,\"ignore_merges\":%s,\"vocab\":{",
                        pre->whole ? "true" : "false");

    while (last > 0 && kind_of(s, last - 1) != PIECE_NORMAL)
        last--;
    for (int64_t i = 0; i < last && rc == 0; i++) {
        const char *p = gguf_next_string(s->tokens, &at, &n);

        if ((rc = i ? buf_add(b, ",", 1, s->e) : 0) == 0 && (rc = add_string(b, p, n, s->e)) == 0)
            rc = buf_printf(b, s->e, ":%lld", (long long)i);
    }
    if (rc == 0)
        rc = add_text(b, "},\"merges\":[", s->e);
    at = 0;
    for (uint64_t i = 0; s->merges && i < s->merges->n && rc == 0; i++) {
        const char *p = gguf_next_string(s->merges, &at, &n);

        if ((rc = i ? buf_add(b, ",", 1, s->e) : 0) == 0)
            rc = add_string(b, p, n, s->e);
    }
    return rc < 0 ? rc : add_text(b, "]}}", s->e);
}

/* add_bos: what llama.cpp does where the file says nothing. */
static int make_json(struct buf *out, const struct source *s, bool *add_bos)
{
    const struct gguf_pre *pre = find_pre(s);
    int rc;

    if (!pre)
        return s->e->code;
    *add_bos = pre->whole;
    if ((rc = add_added(out, s)) == 0 && (rc = add_steps(out, s, pre)) == 0)
        rc = add_model(out, s, pre);
    return rc;
}

static const char *pattern_of(const char *words)
{
    const struct words *w = words_named(words);

    return w ? words_pattern(w) : "";
}

int gguf_vocab_read(struct gguf_vocab *v, const struct gguf *g, struct err *e)
{
    struct err mine = { 0 };
    struct source s = { .g = g, .e = e ? e : &mine };
    const char *model = "";
    size_t n = 0;
    int rc;

    *v = (struct gguf_vocab){ .bos = -1, .eos = -1, .add_bos = true };
    if ((rc = gguf_string(g, "tokenizer.ggml.model", "", true, &model, &n, e)) < 0 ||
        (rc = read_lists(&s)) < 0)
        return rc;
    if (n == 5 && memcmp(model, "llama", n) == 0) {
        v->file = "tokenizer.model";
        s.sentences = true;
        if (s.unk < 0) /* as llama.cpp has it where the file does not say */
            s.unk = 0;
        rc = make_spm(&v->bytes, &s);
    } else if (n == 4 && memcmp(model, "gpt2", n) == 0) {
        v->file = "tokenizer.json";
        rc = make_json(&v->bytes, &s, &v->add_bos);
    } else {
        rc = err_set(e, E_CONFIG, "'%s': tokenizer.ggml.model '%.*s' is not supported", gguf_name(g),
                     n < 40 ? (int)n : 40, model);
    }
    if (rc == 0)
        rc = gguf_bool(g, "tokenizer.ggml.add_bos_token", false, &v->add_bos, e);
    v->bos = (int32_t)s.bos;
    v->eos = (int32_t)s.eos;
    return rc;
}
