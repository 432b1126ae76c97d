/* formats/tokens/info_json.c - see info_json.h. */
#include "formats/tokens/info_json.h"
#include "formats/tokens/document.h"

#include <stdio.h>
#include <string.h>

/* The JSON of the token information, as manifests and NDJSON heads have it. info_from_json
 * takes the same fields, all of which must be there. */
json_t *info_to_json(const struct token_info *t)
{
    return json_pack("{sssssIsisisisbsb}", "name", t->tokenizer, "fingerprint", t->fingerprint,
                     "vocab", (json_int_t)t->vocab, "token_bytes", (int)t->width, "bos",
                     (int)t->bos, "eos", (int)t->eos, "adds_bos", (int)t->adds_bos, "adds_eos",
                     (int)t->adds_eos);
}

int info_from_json(struct token_info *t, const struct js *top, struct err *e)
{
    struct js o;
    const char *name, *print;
    int64_t vocab, width, bos, eos;
    int rc;

    if ((rc = js_object(top, "tokenizer", JS_MUST, &o, e)) < 0 ||
        (rc = js_str(&o, "name", JS_MUST, &name, e)) < 0 ||
        (rc = js_str(&o, "fingerprint", JS_MUST, &print, e)) < 0 ||
        (rc = js_i64(&o, "vocab", JS_MUST, 1, INT32_MAX, &vocab, e)) < 0 ||
        /* 3 passes here and is refused by info_check below. */
        (rc = js_i64(&o, "token_bytes", JS_MUST, 2, 4, &width, e)) < 0 ||
        (rc = js_i64(&o, "bos", JS_MUST, -1, INT32_MAX, &bos, e)) < 0 ||
        (rc = js_i64(&o, "eos", JS_MUST, -1, INT32_MAX, &eos, e)) < 0 ||
        (rc = js_bool(&o, "adds_bos", JS_MUST, &t->adds_bos, e)) < 0 ||
        (rc = js_bool(&o, "adds_eos", JS_MUST, &t->adds_eos, e)) < 0)
        return rc;
    /* The limits above make sure that none of these casts changes the value. */
    t->vocab = (uint32_t)vocab;
    t->width = (uint32_t)width;
    t->bos = (int32_t)bos;
    t->eos = (int32_t)eos;
    if (strlen(name) >= sizeof t->tokenizer || strlen(print) >= sizeof t->fingerprint)
        return err_set(e, E_DATA, "'%s': field 'tokenizer': a string is too long", top->file);
    snprintf(t->tokenizer, sizeof t->tokenizer, "%s", name);
    snprintf(t->fingerprint, sizeof t->fingerprint, "%s", print);
    return info_check(t, e) < 0 ? err_within(e, "'%s': field 'tokenizer'", top->file) : 0;
}
