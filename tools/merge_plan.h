/* tools/merge_plan.h - which tensors a merged model has, and in which files (internal). */
#ifndef TOOLS_MERGE_PLAN_H
#define TOOLS_MERGE_PLAN_H
#include "formats/weights/adapter.h"
#include "formats/weights/weights.h"
#include "tools/merge.h"

/* One tensor of the result. Its values are x.whole's, where there is one, else base's; then
 * x's pair is added. */
struct merge_item {
    const char *name;
    const struct tensor *base;
    struct adapter_change x;        /* what the adapter has for it */
    const struct tensor_type *type; /* of the result */
    size_t nbytes;
    int file;
    bool beside;                    /* no text: a multimodal model's (weights.h) */
};
struct merge_plan {
    struct merge_item *items; /* by file, then wide types first, then model order */
    int64_t n;
    int files;
    struct llama_config config; /* of the result */
    char *names;                /* of the tensors that config_tensor lists */
};

int merge_plan_make(struct merge_plan *p, const struct merge_options *o,
                    const struct weights *w, const struct adapter *a, struct merge_report *r,
                    struct err *e);
void merge_plan_free(struct merge_plan *p);

#endif
