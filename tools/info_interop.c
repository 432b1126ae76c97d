/* tools/info_interop.c - token files of other programs, described; see info.h. */
#include "tools/info.h"

#include "formats/tokens/interop.h"

int info_interop(const char *path, enum info_kind kind, json_t *out, struct err *e)
{
    bool megatron = kind == INFO_MEGATRON;
    struct interop_file x;
    int rc = interop_open(&x, megatron ? INTEROP_MEGATRON : INTEROP_LLMC, path, e);

    if (rc == 0) {
        json_object_set_new(out, "form",
                            json_string(megatron ? "Megatron's tokens" : "llm.c's tokens"));
        if (megatron)
            json_object_set_new(out, "documents", json_integer(x.f.n_docs));
        json_object_set_new(out, "tokens", json_integer(x.f.n_ids));
        json_object_set_new(out, "token_bytes", json_integer(x.f.width));
        json_object_set_new(out, "import", json_string(megatron ? "lpack --import megatron"
                                                                : "lpack --import llmc"));
    }
    interop_close(&x);
    return rc;
}
