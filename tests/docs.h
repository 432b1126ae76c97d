/* tests/docs.h - made-up documents for the tests of streams, shards and data sets. */
#ifndef TESTS_DOCS_H
#define TESTS_DOCS_H
#include "base/perm.h"
#include "formats/tokens/document.h"
#include "formats/tokens/stream.h"
#include <stdio.h>
#include <string.h>

#define MADE_MAX_IDS 4096

/* A document and the memory it points to. */
struct made {
    struct token_doc doc;
    uint32_t ids[MADE_MAX_IDS];
    struct mask_run runs[3];
    char source[32], name[64];
};

static inline struct token_info made_info(uint32_t vocab)
{
    struct token_info t = { .width = token_width(vocab), .vocab = vocab, .bos = 1, .eos = 2,
                            .adds_eos = true, .fingerprint = "0123456789abcdef0123456789abcdef",
                            .tokenizer = "made.model" };
    return t;
}

/* Document i of the series that seed names: every 7th is empty, every 3rd has masks. */
static inline void make_doc(struct made *m, int64_t i, uint64_t seed, uint32_t vocab,
                            int64_t max_ids)
{
    uint64_t r = mix64(mix64(seed) + (uint64_t)i);
    int64_t n = i % 7 == 3 ? 0 : 1 + (int64_t)(r % (uint64_t)max_ids);

    memset(m, 0, sizeof *m);
    for (int64_t k = 0; k < n; k++)
        m->ids[k] = (uint32_t)(mix64(r + (uint64_t)k) % vocab);
    snprintf(m->source, sizeof m->source, "source%d", (int)(r % 3));
    snprintf(m->name, sizeof m->name, "made.tar:dir%d/d\xc3\xb6" "c%lld.txt", (int)(i % 2),
             (long long)i);
    m->doc = (struct token_doc){ .ids = m->ids, .n_ids = n, .runs = m->runs,
                                 .source = m->source, .name = m->name,
                                 .text_hash = mix64(r), .text_bytes = 4 * n, .text_words = n };
    if (i % 3 == 0 && n >= 8) {
        m->runs[0] = (struct mask_run){ 0, 2 };
        m->runs[1] = (struct mask_run){ 4, 1 };
        m->runs[2] = (struct mask_run){ n - 1, 1 };
        m->doc.n_runs = 3;
    }
}

static inline int same_doc(const struct token_doc *a, const struct token_doc *b)
{
    return a->n_ids == b->n_ids && a->n_runs == b->n_runs && a->text_hash == b->text_hash &&
           a->text_bytes == b->text_bytes && a->text_words == b->text_words &&
           strcmp(a->source, b->source) == 0 && strcmp(a->name, b->name) == 0 &&
           memcmp(a->ids, b->ids, (size_t)a->n_ids * sizeof *a->ids) == 0 &&
           memcmp(a->runs, b->runs, (size_t)a->n_runs * sizeof *a->runs) == 0;
}
#endif
