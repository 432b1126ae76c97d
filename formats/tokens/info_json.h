/* formats/tokens/info_json.h - token information as the object 'tokenizer' of JSON files. */
#ifndef FORMATS_TOKENS_INFO_JSON_H
#define FORMATS_TOKENS_INFO_JSON_H
#include "base/json.h"
#include "formats/tokens/stream.h"
C_BEGIN

/* The keys stand in manifest.md. NULL when memory is short. */
json_t *info_to_json(const struct token_info *info);
/* Reads top's field 'tokenizer'. E_DATA naming file and field. */
int info_from_json(struct token_info *info, const struct js *top, struct err *e);

C_END
#endif
