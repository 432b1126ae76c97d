/* tests/test_prep.c - schemas, prompts, masks, and the pipeline of lprep as a function. */
#include "base/file.h"
#include "formats/tokens/stream.h"
#include "prep/prep.h"

#include <setjmp.h>
#include <stdarg.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define TINY "tests/data/tiny.model"

static char dir[64];

static int set_up(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/test_prep.XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
    struct err e = { 0 };

    (void)state;
    return dir_remove(dir, &e);
}

static int from_json(struct doc *d, const char *file, const char *row, struct err *e)
{
    struct doc_place at = { file, 7, 100 };
    struct doc_opts o = { 0 };

    *e = (struct err){ 0 };
    return doc_from_json(d, &at, row, strlen(row), &o, e);
}

/* Rows, and what they are taken for. */
static const struct {
    const char *file, *row;
    enum schema schema;
    const char *source, *text;
} schemas[] = {
    { "a.jsonl", "{\"text\":\"x\"}", SCHEMA_TEXT, "text", "x" },
    { "a.jsonl", "{\"id\":3,\"text\":\"x\",\"source\":\"dol\"}", SCHEMA_TEXT, "dol", "x" },
    { "a.jsonl", "{\"text\":\"x\",\"source\":\"http://a b\"}", SCHEMA_TEXT, "text", "x" },
    { "a.jsonl", "{\"text\":\"x\",\"meta\":{\"source\":\"s\",\"name\":\"n.txt:4\"}}",
      SCHEMA_LPREP, "s", "x" },
    { "z.jsonl", "{\"text\":\"x\",\"meta\":{\"timestamp\":\"\",\"yymm\":\"1\",\"arxiv_id\":"
                 "\"1\",\"language\":\"en\",\"url\":\"u\",\"source\":\"arxiv\"}}",
      SCHEMA_REDPAJAMA, "redpajama.arxiv", "x" },
    { "z.jsonl", "{\"text\":\"x\",\"meta\":{\"timestamp\":\"t\",\"url\":\"u\",\"language\":"
                 "\"en\",\"source\":\"c4\"}}", SCHEMA_REDPAJAMA, "redpajama.c4", "x" },
    { "z.jsonl", "{\"meta\":{\"short_book_title\":\"B\",\"publication_date\":1784,\"url\":"
                 "\"u\"},\"text\":\"x\"}", SCHEMA_REDPAJAMA, "redpajama.book", "x" },
    { "z.jsonl", "{\"text\":\"x\",\"meta\":{\"title\":\"T\",\"url\":\"u\",\"language\":"
                 "\"en\",\"timestamp\":\"2\"}}",
      SCHEMA_REDPAJAMA, "redpajama.wikipedia", "x" },
    { "z.jsonl", "{\"text\":\"x\",\"meta\":{\"content_hash\":\"h\",\"timestamp\":\"\","
                 "\"source\":\"github\",\"line_count\":1}}",
      SCHEMA_REDPAJAMA, "redpajama.github", "x" },
    { "z.jsonl", "{\"pred_label\":\"__label__\",\"pred_label_prob\":0.9,\"wiki_prob\":NaN,"
                 "\"text\":\"x\",\"source\":\"cc/2019-30/a/line1\"}",
      SCHEMA_REDPAJAMA, "redpajama.common_crawl", "x" },
    { "z.jsonl", "{\"text\":\"x\",\"meta\":\"{}\",\"red_pajama_subset\":\"books\"}",
      SCHEMA_REDPAJAMA, "redpajama.book", "x" },
    { "z.jsonl",
      "{\"text\":\"x\",\"meta\":\"{\\\"url\\\":\\\"u\\\",\\\"source\\\":\\\"c4\\\"}\"}",
      SCHEMA_REDPAJAMA, "redpajama.c4", "x" },
    { "in/wikipedia_sample.jsonl", "{\"text\":\"x\",\"meta\":\"{'a': 1}\"}",
      SCHEMA_REDPAJAMA, "redpajama.wikipedia", "x" },
    { "cc_2019-30_sample.jsonl", "{\"text\":\"x\",\"meta\":\"\"}",
      SCHEMA_REDPAJAMA, "redpajama.common_crawl", "x" },
    { "z.json", "{\"url\":\"u\",\"raw_content\":\"x\",\"cc_segment\":\"s\"}",
      SCHEMA_REDPAJAMA2, "redpajama2", "x" },
    { "z.jsonl", "{\"text\":\"x\",\"meta\":{\"config\":\"arxiv\",\"file\":\"f\"}}",
      SCHEMA_PROOF_PILE, "proof-pile", "x" },
    { "z.jsonl", "{\"text\":\"x\",\"meta\":{\"subset_name\":\"curated\",\"file\":\"f\"}}",
      SCHEMA_PROOF_PILE, "proof-pile", "x" },
    { "z.jsonl", "{\"text\":\"x\",\"meta\":{\"set_name\":\"MATH\"}}",
      SCHEMA_PROOF_PILE, "proof-pile", "x" },
    { "z.json", "{\"instruction\":\"do\",\"input\":\"\",\"output\":\"y\"}",
      SCHEMA_ALPACA, "alpaca", "do" },
    { "z.json", "{\"instruction\":\"do\",\"input\":null,\"output\":\"y\"}",
      SCHEMA_ALPACA, "alpaca", "do" },
    { "z.json", "{\"instruction\":\"do\",\"output\":\"y\",\"file\":3}",
      SCHEMA_LONGALPACA, "longalpaca", "do" },
    { "LongAlpaca-12k.json", "{\"instruction\":\"do\",\"input\":\"i\",\"output\":\"y\"}",
      SCHEMA_LONGALPACA, "longalpaca", "do" },
    { "z.jsonl", "{\"task\":\"passkey\",\"prompt\":\"is\",\"answers\":[\"7\"]}", SCHEMA_PROMPTS, "prompts", "is" },
    { "z.jsonl", "{\"prompt\":\"is\",\"answers\":[\"7\"],\"text\":\"x\"}", SCHEMA_TEXT, "text", "x" },
    { "z.jsonl", "{\"prompt\":\"is\",\"answers\":[\"7\"],\"meta\":{\"source\":\"s\",\"name\":\"n.txt:4\"}}",
      SCHEMA_LPREP, "s", "is" },
    { "z.jsonl", "{\"text\":\"1\",\"text\":\"2\"}", SCHEMA_TEXT, "text", "2" },
    { "z.jsonl", "{\"\\u0074ext\":\"e\\u00e9\"}", SCHEMA_TEXT, "text", "e\xC3\xA9" },
};

static void test_schemas(void **state)
{
    struct doc d = { 0 };
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++) {
        if (from_json(&d, schemas[i].file, schemas[i].row, &e) < 0)
            fail_msg("%s: %s", schemas[i].row, e.msg);
        if (d.schema != schemas[i].schema || strcmp(d.source, schemas[i].source) != 0)
            fail_msg("%s: is '%s' from '%s'", schemas[i].row, schema_name(d.schema), d.source);
        assert_int_equal(d.text.len, strlen(schemas[i].text));
        assert_memory_equal(d.text.p, schemas[i].text, d.text.len);
        if (d.schema == SCHEMA_LPREP)
            assert_string_equal(d.name, "n.txt:4");
        else if (i == 0)
            assert_string_equal(d.name, "a.jsonl:7");
    }
    doc_free(&d);
}

static void test_rows_that_are_refused(void **state)
{
    static const char *const t[][2] = {
        { "{\"body\":\"x\",\"id\":1}", "the keys are: body, id" },
        { "{}", "the keys are: none" },
        { "{\"instruction\":\"x\"}", "the keys are: instruction" },
        { "{\"text\":3}", "key 'text' is a number, not a string" },
        { "{\"text\":null}", "key 'text' is null" },
        { "{\"text\":\"\xFF\"}", "key 'text': invalid UTF-8 (byte 0xFF) at byte 0" },
        { "{\"text\":\"\\ud800\"}", "lone surrogate" },
        { "{\"text\":\"x\"", "cut short" },
        { "{\"text\":\"x\",\"meta\":{\"a\":}}", "bad JSON at byte 24" },
        { "[\"text\"]", "not an object" },
        { "{\"instruction\":\"x\",\"output\":[1]}", "key 'output' is an array" },
        { "{\"prompt\":\"x\",\"answers\":\"y\"}", "the keys are: prompt, answers" },
        { "{\"prompt\":\"x\",\"answers\":[]}", "key 'answers' has none" },
        { "{\"prompt\":\"x\",\"answers\":[\"y\",3]}", "key 'answers' has a number" },
        { "{\"prompt\":[],\"answers\":[\"y\"]}", "key 'prompt' is an array" },
        { "{\"prompt\":\"x\",\"answers\":[\"\xFF\"]}", "key 'answers': invalid UTF-8 (byte 0xFF) at byte 0" },
    };
    struct doc d = { 0 };
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        assert_int_equal(from_json(&d, "f.jsonl", t[i][0], &e), E_DATA);
        if (!strstr(e.msg, t[i][1]) || !strstr(e.msg, "'f.jsonl' line 7"))
            fail_msg("%s: '%s'", t[i][0], e.msg);
    }
    doc_free(&d);
}

static void test_text_files(void **state)
{
    static const char *const pg19[] = { "pg19/test/10.txt", "a.tar:validation/7.txt",
                                        "train/00123.txt" };
    static const char *const plain[] = { "x.txt", "train/a1.txt", "train/.txt", "x/1.txt/a" };
    struct doc_opts o = { 0 };
    struct doc_place at = { "f.txt", 0, 0 };
    struct doc d = { 0 };
    struct err e = { 0 };

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        at.name = pg19[i];
        assert_int_equal(doc_from_text(&d, &at, "\xEF\xBB\xBFx\xEF\xBB\xBF\r\n", 9, &o, &e), 0);
        assert_string_equal(d.source, "pg19");
        assert_string_equal(d.name, pg19[i]);
        assert_int_equal(d.text.len, 6); /* byte for byte, but for the mark at its start */
    }
    for (size_t i = 0; i < 4; i++) {
        at.name = plain[i];
        assert_int_equal(doc_from_text(&d, &at, "x", 1, &o, &e), 0);
        assert_string_equal(d.source, "text");
    }
    assert_int_equal(doc_from_text(&d, &at, "ab\xFF" "c\xC3", 5, &o, &e), E_DATA);
    assert_non_null(strstr(e.msg, "(byte 0xFF) at byte 2"));
    assert_non_null(strstr(e.msg, "--utf8 replace"));
    o.replace = true;
    o.source = "mine";
    assert_int_equal(doc_from_text(&d, &at, "ab\xFF" "c\xC3", 5, &o, &e), 0);
    assert_int_equal(d.text.len, 9);
    assert_memory_equal(d.text.p, "ab\xEF\xBF\xBD" "c\xEF\xBF\xBD", 9);
    assert_string_equal(d.source, "mine");
    char binary[64];
    for (size_t i = 0; i < sizeof binary; i++)
        binary[i] = i % 2 ? (char)0xFF : (char)(i % 8);
    assert_int_equal(doc_from_text(&d, &at, binary, sizeof binary, &o, &e), E_DATA);
    assert_non_null(strstr(e.msg, "binary data"));
    assert_null(strstr(e.msg, "--utf8"));
    doc_free(&d);
}

/* What a row has beside instruction, input and output. */
static void test_rows_of_turns(void **state)
{
    static const char *const lost[] = {
        "{\"instruction\":\"i\",\"output\":\"o\",\"system\":\"s\"}",
        "{\"instruction\":\"i\",\"output\":\"o\",\"history\":[[\"a\",\"b\"]]}",
    };
    static const char *const none[] = {
        "{\"instruction\":\"i\",\"output\":\"o\",\"system\":\"\",\"history\":[]}",
        "{\"instruction\":\"i\",\"output\":\"o\",\"system\":null,\"history\":null}",
        "{\"text\":\"t\",\"system\":\"s\"}",
    };
    static const char *const refused[][2] = {
        { "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}", "a conversation" },
        { "{\"id\":\"1\",\"conversations\":[{\"from\":\"human\"}]}", "a conversation" },
        { "{\"prompt\":\"Q\",\"chosen\":\"A\",\"rejected\":\"B\"}", "a preference" },
        { "{\"n\":1,\"tokens\":[1]}", "no key 'text'" },
    };
    struct doc d = { 0 };
    struct err e;

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(from_json(&d, "f.jsonl", lost[i], &e), 0);
        assert_true(d.lost);
    }
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(from_json(&d, "f.jsonl", none[i], &e), 0);
        assert_false(d.lost);
    }
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(from_json(&d, "f.jsonl", refused[i][0], &e), E_DATA);
        if (!strstr(e.msg, refused[i][1]) || strstr(e.msg, "--field"))
            fail_msg("%s: '%s'", refused[i][0], e.msg);
    }
    doc_free(&d);
}

/* The reference's templates, typed in here once more from its supervised-fine-tune.py. */
static void test_prompts(void **state)
{
    static const char *const row[2] = {
        "{\"instruction\":\"Do it.\",\"output\":\"Done\"}",
        "{\"instruction\":\"Do it.\",\"input\":\"here\",\"output\":\"Done\"}"
    };
    static const char *const want[2][2] = {
        { "[INST]Do it.[/INST]",
          "[INST] <<SYS>>\nYou are a helpful, respectful and honest assistant. Always answer "
          "as helpfully as possible, while being safe.  Your answers should not include any "
          "harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. Please "
          "ensure that your responses are socially unbiased and positive in nature.\n\nIf a "
          "question does not make any sense, or is not factually coherent, explain why instead "
          "of answering something not correct. If you don't know the answer to a question, "
          "please don't share false information.\n<</SYS>> \n\n Do it. \nhere [/INST]" },
        { "Below is an instruction that describes a task. Write a response that appropriately "
          "completes the request.\n\n### Instruction:\nDo it.\n\n### Response:",
          "Below is an instruction that describes a task, paired with an input that provides "
          "further context. Write a response that appropriately completes the request.\n\n"
          "### Instruction:\nDo it.\n\n### Input:\nhere\n\n### Response:" },
    };
    struct doc d = { 0 };
    struct buf b = { 0 };
    struct err e;

    (void)state;
    for (int prompt = 0; prompt < 2; prompt++)
        for (int input = 0; input < 2; input++) {
            b.len = 0;
            assert_int_equal(from_json(&d, "f.json", row[input], &e), 0);
            assert_int_equal(doc_prompt(&d, prompt ? PROMPT_ALPACA : PROMPT_LLAMA2, &b, &e), 0);
            assert_int_equal(b.len, strlen(want[prompt][input]));
            assert_memory_equal(b.p, want[prompt][input], b.len);
        }
    doc_free(&d);
    buf_free(&b);
}

/* A prompt of leval's stands alone; its answers follow behind a blank each, but for one it ends in. */
static void test_prompts_with_answers(void **state)
{
    static const char *const t[][3] = {
        { "{\"prompt\":\"key is\",\"answers\":[\"71\"]}", "key is", " 71" },
        { "{\"prompt\":\"they are: \",\"answers\":[\"A\",\"B\"],\"input\":\"no\"}", "they are: ", "A B" },
        { "{\"prompt\":\"is:\",\"answers\":[\" x\"]}", "is:", "  x" },
        { "{\"prompt\":\"is: \",\"answers\":[\" x\"]}", "is: ", " x" },
        { "{\"prompt\":\"\",\"answers\":[\"x\\n\",\"\"]}", "", " x\n " },
    };
    struct doc d = { 0 }, back = { 0 };
    struct buf b = { 0 };
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++)
        for (int prompt = 0; prompt < 2; prompt++) {
            b.len = 0;
            assert_int_equal(from_json(&d, "f.jsonl", t[i][0], &e), 0);
            assert_int_equal(doc_prompt(&d, prompt ? PROMPT_ALPACA : PROMPT_LLAMA2, &b, &e), 0);
            assert_int_equal(b.len, strlen(t[i][1]));
            assert_memory_equal(b.p, t[i][1], b.len);
            assert_int_equal(d.output.len, strlen(t[i][2]));
            assert_memory_equal(d.output.p, t[i][2], d.output.len);
            b.len = 0;
            assert_int_equal(doc_to_json(&d, &b, &e), 0);
            assert_int_equal(buf_add(&b, "", 1, &e), 0);
            assert_int_equal(from_json(&back, "f.jsonl", b.p, &e), 0);
            assert_true(back.bare && back.instruct);
            assert_int_equal(back.text.len, d.text.len);
            assert_int_equal(back.output.len, d.output.len);
            assert_memory_equal(back.output.p, d.output.p, d.output.len);
        }
    doc_free(&d);
    doc_free(&back);
    buf_free(&b);
}

static void test_json_reads_back(void **state)
{
    struct doc d = { 0 }, back = { 0 };
    struct buf b = { 0 };
    struct err e;

    (void)state;
    for (int i = 0; i < 2; i++) {
        b.len = 0;
        assert_int_equal(from_json(&d, "f.jsonl",
                                   i ? "{\"instruction\":\"a\\n\\\"\",\"output\":\"\\u0001\"}"
                                     : "{\"text\":\"x\\ty\\u0000\",\"meta\":{\"set_name\":1}}",
                                   &e), 0);
        assert_int_equal(doc_to_json(&d, &b, &e), 0);
        assert_int_equal(b.p[b.len - 1], '\n');
        assert_int_equal(buf_add(&b, "", 1, &e), 0);
        assert_int_equal(from_json(&back, "other.jsonl", b.p, &e), 0);
        assert_int_equal(back.schema, SCHEMA_LPREP);
        assert_string_equal(back.source, d.source);
        assert_string_equal(back.name, d.name);
        assert_int_equal(back.instruct, d.instruct);
        assert_int_equal(back.text.len, d.text.len);
        assert_memory_equal(back.text.p, d.text.p, d.text.len);
        assert_int_equal(back.output.len, d.output.len);
    }
    doc_free(&d);
    doc_free(&back);
    buf_free(&b);
}

static struct tokenizer *tiny(void)
{
    struct tokenizer *t;
    struct err e = { 0 };

    assert_int_equal(tokenizer_open(&t, TINY, &e), 0);
    return t;
}

static void encode(struct tokenizer *t, const char *row, const struct prep_opts *o,
                   struct doc *d, struct token_doc *out, int64_t *masked)
{
    struct err e = { 0 };

    assert_int_equal(from_json(d, "f.jsonl", row, &e), 0);
    assert_int_equal(prep_encode(t, d, o, out, masked, &e), 0);
}

static void test_bos_and_eos(void **state)
{
    struct tokenizer *t = tiny();
    struct doc d = { 0 };
    struct err e = { 0 };
    int32_t *ids;
    int64_t n, masked;

    (void)state;
    assert_int_equal(tokenizer_encode(t, "the nation </s>", 15, &ids, &n, &e), 0);
    for (int k = 0; k < 4; k++) {
        struct prep_opts o = { .add_bos = k & 1, .no_eos = k & 2 };
        struct token_doc out;
        int64_t bos = k & 1, eos = !(k & 2);

        encode(t, "{\"text\":\"the nation </s>\"}", &o, &d, &out, &masked);
        assert_int_equal(out.n_ids, n + bos + eos);
        assert_int_equal(masked, 0);
        for (int64_t i = 0; i < n; i++)
            assert_int_equal(out.ids[bos + i], ids[i]);
        assert_true(!bos || out.ids[0] == 1);
        assert_true(!eos || out.ids[n + bos] == 2);
        for (int64_t i = 0; i < n; i++) /* the text "</s>" is text */
            assert_true(ids[i] > 2);
        assert_int_equal(out.text_bytes, 15);
        assert_int_equal(out.text_words, 3);
        free((void *)out.ids);
    }
    free(ids);
    doc_free(&d);
    tokenizer_close(t);
}

static void test_mask_covers_the_prompt(void **state)
{
    static const char *const rows[] = {
        "{\"instruction\":\"Name the nation.\",\"output\":\"This nation\"}",
        "{\"instruction\":\"Say it\",\"input\":\"again\",\"output\":\"\"}",
        "{\"instruction\":\"\",\"output\":\"x.y\"}",
        "{\"prompt\":\"The nation is\",\"answers\":[\"71\"]}",
    };
    struct tokenizer *t = tiny();
    struct doc d = { 0 };

    (void)state;
    for (size_t k = 0; k < 4; k++) {
        struct prep_opts o = { .no_eos = k == 2 };
        struct token_doc out;
        struct buf prompt = { 0 };
        struct err e = { 0 };
        char *text;
        int32_t *ids;
        int64_t n, masked;
        size_t bytes;

        encode(t, rows[k], &o, &d, &out, &masked);
        assert_int_equal(doc_prompt(&d, PROMPT_LLAMA2, &prompt, &e), 0);
        assert_int_equal(tokenizer_encode(t, prompt.p, prompt.len, &ids, &n, &e), 0);
        assert_int_equal(out.ids[0], 1);
        assert_int_equal(masked, 1 + n); /* "]" merges with nothing in these */
        for (int64_t i = 0; i < n; i++)
            assert_int_equal(out.ids[1 + i], ids[i]);
        assert_int_equal(out.text_bytes, prompt.len + d.output.len);
        assert_true(k == 2 || out.ids[out.n_ids - 1] == 2);
        assert_int_equal(tokenizer_decode(t, (const int32_t *)out.ids + masked,
                                          out.n_ids - masked, &text, &bytes, &e), 0);
        assert_true(bytes == d.output.len || (k == 3 && bytes == d.output.len - 1)); /* a decoder drops its first blank */
        free(text);
        free(ids);
        buf_free(&prompt);
        free((void *)out.ids);
    }
    doc_free(&d);
    tokenizer_close(t);
}

/* A model in which the prompt's last byte merges with the output's first: the token that holds
 * both is no part of the prompt, although the prompt alone has as many tokens. */
static void test_mask_compares_ids(void **state)
{
    static const char piece[] = "\x0A\x09\x0A\x02:x\x15\0\0\0"; /* score 0: merges first */
    struct prep_opts o = { .prompt = PROMPT_ALPACA };
    struct doc d = { 0 };
    struct buf b = { 0 }, prompt = { 0 };
    struct token_doc out;
    struct tokenizer *t;
    struct err e = { 0 };
    int64_t n, masked;
    int32_t *ids;
    char *bytes;
    size_t size;

    (void)state;
    assert_int_equal(file_read(TINY, 1 << 20, &bytes, &size, &e), 0);
    assert_int_equal(buf_add(&b, bytes, size, &e), 0);
    assert_int_equal(buf_add(&b, piece, sizeof piece, &e), 0);
    assert_int_equal(tokenizer_parse(&t, b.p, b.len, "merging", &e), 0);
    encode(t, "{\"instruction\":\"a\",\"output\":\"x\"}", &o, &d, &out, &masked);
    assert_int_equal(doc_prompt(&d, PROMPT_ALPACA, &prompt, &e), 0);
    assert_int_equal(tokenizer_encode(t, prompt.p, prompt.len, &ids, &n, &e), 0);
    assert_string_equal(tokenizer_piece(t, (int32_t)out.ids[n]), ":x");
    assert_int_equal(out.n_ids, n + 2); /* BOS, EOS, and as many as the prompt alone */
    assert_int_equal(masked, n);        /* BOS and all of the prompt but its last token */
    free(ids);
    free((void *)out.ids);
    free(bytes);
    buf_free(&b);
    buf_free(&prompt);
    doc_free(&d);
    tokenizer_close(t);
}

static void put(const char *name, const char *bytes, size_t n)
{
    char path[256];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

/* Runs the pipeline over one file of the folder into out.stream. */
static int run(const char *name, struct prep_opts *o, struct tokenizer *t,
               struct prep_counts *c, struct err *e)
{
    char path[256], out[256];
    const char *operand = path;
    int fd, rc;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    snprintf(out, sizeof out, "%s/out.stream", dir);
    fd = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    assert_true(fd >= 0);
    if (o->feed.max_record_bytes == 0)
        o->feed.max_record_bytes = 1 << 20;
    *e = (struct err){ 0 };
    rc = prep_run(&operand, 1, o, t, fd, "out", c, e);
    close(fd);
    return rc;
}

static int64_t read_back(int *last)
{
    struct stream_reader *r;
    struct token_doc doc;
    struct err e = { 0 };
    char out[256];
    int64_t docs = 0;
    int fd;

    snprintf(out, sizeof out, "%s/out.stream", dir);
    fd = open(out, O_RDONLY);
    assert_int_equal(stream_open(&r, fd, "out", &e), 0);
    while ((*last = stream_read(r, &doc, &e)) == 1)
        docs++;
    stream_close(r);
    close(fd);
    return docs;
}

static void test_same_for_any_number_of_threads(void **state)
{
    struct tokenizer *t = tiny();
    struct prep_opts o = { 0 };
    struct prep_counts c;
    struct buf b = { 0 };
    struct err e = { 0 };
    char out[256], *first = NULL, *bytes;
    size_t n_first = 0, n;
    int last;

    (void)state;
    for (int i = 0; i < 3000; i++)
        buf_printf(&b, &e, "{\"text\":\"%0*d the nation %d\",\"source\":\"s%d\"}\n", i % 300, 0,
                   i, i % 3);
    put("many.jsonl", b.p, b.len);
    snprintf(out, sizeof out, "%s/out.stream", dir);
    for (int threads = 1; threads <= 5; threads++) {
        o.threads = threads;
        assert_int_equal(run("many.jsonl", &o, t, &c, &e), 0);
        assert_int_equal(c.all.docs, 3000);
        assert_int_equal(c.by.n, 3);
        assert_string_equal(c.by.v[1].name, "s1");
        assert_int_equal(c.by.v[1].docs, 1000);
        assert_int_equal(file_read(out, 1 << 26, &bytes, &n, &e), 0);
        prep_counts_free(&c);
        if (!first) {
            assert_int_equal(read_back(&last), 3000);
            assert_int_equal(last, 0);
            first = bytes;
            n_first = n;
            continue;
        }
        assert_int_equal(n, n_first);
        assert_memory_equal(bytes, first, n);
        free(bytes);
    }
    free(first);
    buf_free(&b);
    tokenizer_close(t);
}

/* An error stops the stream without an END, and what stood before it is there. */
static void test_errors_leave_no_end(void **state)
{
    static const char rows[] = "{\"text\":\"one\"}\n{\"text\":\"\"}\n{\"text\":\"\xFF\"}\n"
                               "{\"no\":1}\n{\"text\":\"two words\"}\n";
    struct tokenizer *t = tiny();
    struct prep_opts o = { 0 };
    struct prep_counts c;
    struct err e;
    int last;

    (void)state;
    put("bad.jsonl", rows, sizeof rows - 1);
    for (o.threads = 1; o.threads <= 3; o.threads++) {
        assert_int_equal(run("bad.jsonl", &o, t, &c, &e), E_DATA);
        assert_non_null(strstr(e.msg, "bad.jsonl' line 3"));
        assert_in_range(read_back(&last), 0, 1);
        assert_int_equal(last, E_DATA);
        prep_counts_free(&c);
    }
    o.feed.skip_errors = true;
    assert_int_equal(run("bad.jsonl", &o, t, &c, &e), 0);
    assert_int_equal(read_back(&last), 2);
    assert_int_equal(last, 0);
    assert_int_equal(c.all.dropped[DROP_BAD], 2);
    assert_int_equal(c.all.dropped[DROP_EMPTY], 1);
    prep_counts_free(&c);
    o.feed.filter.min_chars = 5;
    assert_int_equal(run("bad.jsonl", &o, t, &c, &e), 0);
    assert_int_equal(c.all.dropped[DROP_SHORT], 1);
    assert_int_equal(c.all.docs, 1);
    prep_counts_free(&c);
    o.feed.filter.min_chars = 0;
    o.feed.max_docs = 1;
    o.feed.skip_errors = false; /* it stops before the bad row */
    assert_int_equal(run("bad.jsonl", &o, t, &c, &e), 0);
    assert_int_equal(read_back(&last), 1);
    prep_counts_free(&c);
    o.feed.max_docs = 0;
    o.feed.max_record_bytes = 16;
    assert_int_equal(run("bad.jsonl", &o, t, &c, &e), E_DATA);
    prep_counts_free(&c);
    tokenizer_close(t);
}

static void test_nested_keys(void **state)
{
    static const char row[] = "{\"text\":\"t\",\"meta\":{\"url\":\"u\\u0021\",\"n\":{\"x\":[1, 2]},"
                              "\"a.b\":7},\"m\":\"{\\\"k\\\":{\\\"z\\\":\\\"s\\\"}}\",\"meta.q\":0}";
    static const struct {
        const char *path, *want;
    } t[] = { { "text", "t" }, { "meta.url", "u!" }, { "meta.n.x", "[1, 2]" },
              { "meta.a.b", "7" }, { "m.k.z", "s" }, { "meta.q", "0" }, { "none", NULL },
              { "meta.none", NULL }, { "text.a", NULL }, { "meta.n.x.y", NULL }, { "", NULL } };
    struct buf b = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        b.len = 0;
        if (filter_find(row, sizeof row - 1, t[i].path, &b, NULL) != (t[i].want != NULL))
            fail_msg("%s", t[i].path);
        if (t[i].want && (b.len != strlen(t[i].want) || memcmp(b.p, t[i].want, b.len) != 0))
            fail_msg("%s: %.*s", t[i].path, (int)b.len, b.p);
    }
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_schemas),
        cmocka_unit_test(test_rows_that_are_refused),
        cmocka_unit_test(test_text_files),
        cmocka_unit_test(test_rows_of_turns),
        cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_prompts_with_answers),
        cmocka_unit_test(test_json_reads_back),
        cmocka_unit_test(test_bos_and_eos),
        cmocka_unit_test(test_mask_covers_the_prompt),
        cmocka_unit_test(test_mask_compares_ids),
        cmocka_unit_test(test_same_for_any_number_of_threads),
        cmocka_unit_test(test_errors_leave_no_end),
        cmocka_unit_test(test_nested_keys),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
