/* tests/fuzz/fuzz_sentences.c - any text cut into sentences, both ways: they lie in it, one behind the other,
 * and what is between two is white space. */
#include "base/bytes.h"
#include "probes/sentences.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

static void gap(const char *text, size_t from, size_t to)
{
    for (size_t n; from < to; from += n)
        if ((n = space_at(text + from, text + to)) == 0)
            abort();
}

static void cut(enum sentence_ends ends, const char *text, size_t n)
{
    struct sentences s = { 0 };
    size_t at = 0;

    if (sentences_cut(&s, ends, text, n, NULL) < 0)
        abort();
    for (int64_t i = 0; i < s.n; i++) {
        if (s.at[i].from < at || s.at[i].from >= s.at[i].to || s.at[i].to > n)
            abort();
        if (i > 0) /* white space before the first one is its own */
            gap(text, at, s.at[i].from);
        at = s.at[i].to;
    }
    gap(text, at, n);
    sentences_free(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    char *text = malloc(nbytes ? nbytes : 1);

    if (!text)
        abort();
    memcpy(text, data, nbytes);
    if (utf8_valid(text, nbytes, NULL)) {
        cut(SENTENCES_PLAIN, text, nbytes);
        cut(SENTENCES_ENGLISH, text, nbytes);
    }
    free(text);
    return 0;
}
