/* tests/test_masks.c - ids and masks of every row of the instruction data, held against the
 * procedure of the reference (make_mask_golden.py, whose words these are). */
#include "base/file.h"
#include "formats/text/source.h"
#include "formats/tokenizer/spmodel.h"
#include "prep/prep.h"
#include "tests/spmtest.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* CRC-32 as zlib's. */
static uint32_t crc32_of(uint32_t crc, const void *p, size_t n)
{
    static uint32_t table[256];
    const unsigned char *b = p;

    for (uint32_t i = 0; i < 256 && !table[255]; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = c >> 1 ^ (c & 1 ? 0xEDB88320u : 0);
        table[i] = c;
    }
    crc = ~crc;
    for (size_t i = 0; i < n; i++)
        crc = table[(crc ^ b[i]) & 255] ^ crc >> 8;
    return ~crc;
}

struct mask_tally {
    const struct tokenizer *t;
    struct prep_opts o;
    int64_t rows, ids, masked, merged;
    uint32_t crc;
    struct buf prompt;
};

static int add_row(void *ctx, const struct doc *d, struct err *e)
{
    struct mask_tally *y = ctx;
    struct token_doc out;
    int32_t *alone;
    int64_t n_alone, same;
    char line[96];

    y->prompt.len = 0;
    assert_true(d->instruct);
    assert_int_equal(prep_encode(y->t, d, &y->o, &out, &same, e), 0);
    assert_int_equal(doc_prompt(d, y->o.prompt, &y->prompt, e), 0);
    assert_int_equal(tokenizer_encode(y->t, y->prompt.p, y->prompt.len, &alone, &n_alone, e), 0);
    n_alone++; /* BOS */
    assert_true(same == n_alone || same == n_alone - 1);
    snprintf(line, sizeof line, "%lld %lld %lld %08x\n", (long long)out.n_ids,
             (long long)n_alone, (long long)same,
             (unsigned)crc32_of(0, out.ids, (size_t)out.n_ids * 4));
    if (getenv("MASKS_VERBOSE"))
        fputs(line, stderr);
    y->crc = crc32_of(y->crc, line, strlen(line));
    y->rows++;
    y->ids += out.n_ids;
    y->masked += n_alone;
    y->merged += same < n_alone;
    free((void *)out.ids);
    free(alone);
    return 0;
}

static void check_file(const struct tokenizer *t, const char *data, const char *want)
{
    struct feed_opts plain = { .max_record_bytes = 16 << 20 };
    struct mask_tally y = { .t = t };
    struct err e = { 0 };
    char name[64], template[16], path[1024], got[160];
    const char *operand = path;

    assert_int_equal(sscanf(want, "%63s %15s", name, template), 2);
    y.o.prompt = strcmp(template, "alpaca") == 0 ? PROMPT_ALPACA : PROMPT_LLAMA2;
    snprintf(path, sizeof path, "%s/alpaca/%s", data, name);
    if (feed_each(&operand, 1, &plain, add_row, &y, &e) < 0)
        fail_msg("%s", e.msg);
    snprintf(got, sizeof got, "%s %s %lld %lld %lld %lld %08x", name, template,
             (long long)y.rows, (long long)y.ids, (long long)y.masked, (long long)y.merged,
             (unsigned)y.crc);
    assert_string_equal(got, want);
    buf_free(&y.prompt);
}

static void test_every_row(void **state)
{
    const char *data = getenv("LONGLORA_DATA");
    struct buf model = { 0 };
    struct tokenizer *t;
    struct err e = { 0 };
    char *golden;
    int lines = 0;

    (void)state;
    if (!data)
        skip();
    assert_int_equal(read_some(&model, SPMODEL_MAX_BYTES, data,
                               "tokenizers/llama2/tokenizer.model.zst", "*", &e), 0);
    assert_int_equal(tokenizer_parse(&t, model.p, model.len, "llama2", &e), 0);
    assert_int_equal(file_read("tests/data/mask_golden.txt", 1 << 16, &golden, NULL, &e), 0);
    for (char *line = strtok(golden, "\n"); line; line = strtok(NULL, "\n"), lines++)
        check_file(t, data, line);
    assert_int_equal(lines, 6);
    free(golden);
    tokenizer_close(t);
    buf_free(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_every_row) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
