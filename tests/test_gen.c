/* tests/test_gen.c - what a model goes on with: sampling, stop strings, terminals, conversations, and
 * greedy texts against transformers' (tests/make_gen_golden.py). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/log.h"
#include "base/perm.h"
#include "base/tree.h"
#include "gen/turns.h"
#include "gen/reply.h"
#include "gen/said.h"
#include "gen/screen.h"
#include "gen/stops.h"
#include "model/extend.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct err err;
#define OK(call) do { if ((call) < 0) fail_msg("%s", err.msg); } while (0)

/* --- sampling */

enum { VOCAB = 12, DRAWS = 20000 };

/* The distribution that the options ask for, by their definitions. */
static void truth(const struct sampling *o, const float *logits, double *p)
{
    int by[VOCAB];
    double sum = 0, most = -INFINITY, kept = 0;
    int n = VOCAB;

    for (int i = 0; i < VOCAB; i++)
        by[i] = i, most = fmax(most, (double)logits[i]);
    for (int i = 0; i < VOCAB; i++) /* by descending logit */
        for (int k = i + 1; k < VOCAB; k++)
            if (logits[by[k]] > logits[by[i]]) {
                int t = by[i];
                by[i] = by[k], by[k] = t;
            }
    for (int i = 0; i < VOCAB; i++)
        p[i] = exp(((double)logits[i] - most) / o->temperature);
    if (o->top_k && o->top_k < n)
        n = (int)o->top_k;
    for (int i = 0; i < n; i++)
        sum += p[by[i]];
    for (int i = 0; i < n; i++) {
        if (kept >= o->top_p * sum)
            n = i;
        else
            kept += p[by[i]];
    }
    sum = 0;
    for (int i = 0; i < VOCAB; i++)
        if (i >= n || p[by[i]] < o->min_p)
            p[by[i]] = 0;
        else
            sum += p[by[i]];
    for (int i = 0; i < VOCAB; i++)
        p[i] /= sum;
}

/* Chi-square of many draws against the definition; 45 is beyond 1 in 10^5 for 11 degrees of freedom. */
static void draws(struct sampling o, bool repeats)
{
    float logits[VOCAB], x[VOCAB];
    int64_t count[VOCAB] = { 0 };
    double p[VOCAB], chi = 0;
    struct sampler *s;
    int32_t id;

    for (int i = 0; i < VOCAB; i++)
        logits[i] = (float)(1.5 * normal_at(3, (uint64_t)i));
    truth(&o, logits, p);
    for (int i = 0; i < DRAWS; i++) {
        /* a text's first token, or one text's tokens */
        if (i == 0 || !repeats)
            OK(sampler_open(&s, &o, VOCAB, (uint64_t)i, &err));
        memcpy(x, logits, sizeof x);
        OK(sampler_pick(s, x, &id, NULL, &err));
        count[id]++;
        if (i == DRAWS - 1 || !repeats)
            sampler_close(s);
    }
    for (int i = 0; i < VOCAB; i++) {
        double want = p[i] * DRAWS;
        if (want == 0)
            assert_int_equal(count[i], 0);
        else
            chi += ((double)count[i] - want) * ((double)count[i] - want) / want;
    }
    if (chi > 45)
        fail_msg("chi-square %g at temperature %g, top_k %d, top_p %g, min_p %g", chi, o.temperature,
                 (int)o.top_k, o.top_p, o.min_p);
}

static void test_what_is_drawn_has_its_distribution(void **state)
{
    struct sampling o;

    (void)state;
    sampling_defaults(&o);
    o.seed = 11;
    for (int texts = 0; texts < 2; texts++) {
        o.top_k = 0, o.top_p = 1, o.min_p = 0, o.temperature = 1;
        draws(o, texts);
        o.temperature = 0.6, draws(o, texts);
        o.top_k = 5, draws(o, texts);
        o.top_p = 0.8, draws(o, texts);
        o.top_k = 0, draws(o, texts);
        o.temperature = 1.7, o.min_p = 0.2, draws(o, texts);
        o.top_p = 1, draws(o, texts);
    }
}

static void test_what_is_drawn_depends_on_seed_text_and_number(void **state)
{
    float logits[VOCAB], x[VOCAB];
    int32_t ids[3][64], id;
    struct sampling o;

    (void)state;
    sampling_defaults(&o);
    o.temperature = 1;
    for (int i = 0; i < VOCAB; i++)
        logits[i] = (float)(i % 3);
    for (int run = 0; run < 3; run++) {
        struct sampler *s;
        o.seed = run == 2;
        OK(sampler_open(&s, &o, VOCAB, 5, &err));
        for (int i = 0; i < 64; i++) {
            memcpy(x, logits, sizeof x);
            OK(sampler_pick(s, x, &id, NULL, &err));
            ids[run][i] = id;
        }
        sampler_close(s);
    }
    assert_memory_equal(ids[0], ids[1], sizeof ids[0]);
    assert_memory_not_equal(ids[0], ids[2], sizeof ids[0]);
}

static void test_the_likeliest(void **state)
{
    float x[] = { 1, 3, NAN, 3, -INFINITY, 2 }, bad[] = { NAN, NAN };
    struct sampling o;
    struct sampler *s;
    double logprob;
    int32_t id;

    (void)state;
    sampling_defaults(&o);
    OK(sampler_open(&s, &o, 6, 0, &err));
    OK(sampler_pick(s, x, &id, &logprob, &err));
    assert_int_equal(id, 1); /* of equal ones the first */
    assert_true(fabs(logprob + log(2 + exp(-2) + exp(-1))) < 1e-6);
    sampler_close(s);
    o.repetition = 2;
    OK(sampler_open(&s, &o, 6, 0, &err));
    sampler_saw(s, 1), sampler_saw(s, 99);
    x[1] = x[3] = 3;
    OK(sampler_pick(s, x, &id, NULL, &err));
    assert_int_equal(id, 3);
    sampler_close(s);
    OK(sampler_open(&s, &o, 2, 0, &err));
    assert_int_equal(sampler_pick(s, bad, &id, NULL, &err), E_DATA);
    sampler_close(s);
    o = (struct sampling){ .repetition = 1, .top_p = 0.5 };
    assert_int_equal(sampling_check(&o, &err), E_USAGE);
}

/* --- text */

/* A text that comes a byte at a time: what may be shown never grows by what is then cut. */
static void stops(const char *whole, const char *want, bool stopped, int n, const char *const *stop)
{
    struct buf text = { 0 };
    char shown[100] = "";
    size_t given = 0;
    bool now = false;

    for (const char *p = whole; !now; p++) {
        size_t ready;
        if (*p)
            OK(buf_add(&text, p, 1, &err));
        ready = stops_ready(stop, n, &text, given, !*p, &now);
        strncat(shown, text.p + given, ready);
        given += ready;
        if (!*p)
            break;
    }
    assert_string_equal(shown, want);
    assert_int_equal(now, stopped);
    assert_int_equal(text.len, strlen(want));
    buf_free(&text);
}

static void test_stop_strings(void **state)
{
    static const char *const one[] = { "END" }, *const two[] = { "aab", "b!" }, *const none[] = { "" };

    (void)state;
    stops("hello END there", "hello ", true, 1, one);
    stops("hello EN there", "hello EN there", false, 1, one);
    stops("EEND", "E", true, 1, one);
    stops("ends EN", "ends EN", false, 1, one);
    stops("aaab!", "a", true, 2, two);
    stops("ab!", "a", true, 2, two);
    stops("abc", "abc", false, 1, none);
}

static void cleaned(const char *text, const char *want)
{
    struct buf out = { 0 };

    OK(screen_clean(text, strlen(text), &out, &err));
    OK(buf_add(&out, "", 1, &err));
    assert_string_equal(out.p, want);
    buf_free(&out);
}

static void test_a_terminal_is_not_told_anything(void **state)
{
    (void)state;
    cleaned("a\tb\nc \xC3\xA4 \xE6\x97\xA5", "a\tb\nc \xC3\xA4 \xE6\x97\xA5");
    cleaned("\x1b[2J", "\xEF\xBF\xBD[2J");
    cleaned("a\rb\bc\x7f", "a\xEF\xBF\xBD" "b\xEF\xBF\xBD" "c\xEF\xBF\xBD");
    cleaned("\xC2\x9B" "31m", "\xEF\xBF\xBD" "31m"); /* C1 */
    cleaned("\x9b" "31m", "\xEF\xBF\xBD" "31m");
    cleaned("\xE2\x80\xAE" "abc\xE2\x81\xA9", "\xEF\xBF\xBD" "abc\xEF\xBF\xBD");
    cleaned("\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
}

/* --- conversations: the texts, with BOS as <s> and EOS as </s>, whole after decoding the ids */

static void said(enum chat_form c, int n, const char *want)
{
    static const struct message m[] = { { TURN_SYSTEM, "Be brief.", 9 }, { TURN_USER, " Hi! ", 5 },
                                        { TURN_ASSISTANT, "Hello.", 6 }, { TURN_USER, "Bye", 3 } };
    struct tokenizer *t;
    struct buf text = { 0 };
    int32_t *ids;
    int64_t k;

    OK(tokenizer_open(&t, "tests/data/tiny.model", &err));
    OK(turns_ids(c, t, true, n == 1 ? m + 1 : m, n == 1 ? 1 : 4, &ids, &k, &err));
    for (int64_t i = 0, from = 0; i <= k; i++) {
        bool mark = i < k && (ids[i] == tokenizer_bos(t) || ids[i] == tokenizer_eos(t));
        char *part;
        size_t bytes;

        if (i < k && !mark)
            continue;
        OK(tokenizer_decode(t, ids + from, i - from, &part, &bytes, &err));
        OK(buf_add(&text, part, bytes, &err));
        free(part);
        if (mark)
            OK(buf_printf(&text, &err, ids[i] == tokenizer_bos(t) ? "<s>" : "</s>"));
        from = i + 1;
    }
    OK(buf_add(&text, "", 1, &err));
    assert_string_equal(text.p, want);
    buf_free(&text);
    free(ids);
    tokenizer_close(t);
}

static void test_conversations(void **state)
{
    static const struct message turned[] = { { TURN_ASSISTANT, "x", 1 } };
    struct tokenizer *t;
    int32_t *ids;
    int64_t n;

    (void)state;
    said(CHAT_OTHER, 1, "<s> Hi! ");
    said(CHAT_LLAMA2, 1, "<s>[INST] Hi! [/INST]");
    said(CHAT_LLAMA2, 4, "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi! [/INST] Hello. </s>"
         "<s>[INST] Bye [/INST]");
    said(CHAT_MISTRAL, 4, "<s>[INST] Be brief.\n\n Hi!  [/INST]Hello.</s>[INST] Bye [/INST]");
    said(CHAT_GEMMA, 1, "<s><start_of_turn>user\nHi!<end_of_turn>\n<start_of_turn>model\n");
    said(CHAT_GEMMA, 4, "<s><start_of_turn>user\nBe brief.\n\nHi!<end_of_turn>\n<start_of_turn>model\nHello."
         "<end_of_turn>\n<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n");
    said(CHAT_CHATML, 4, "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi! <|im_end|>\n"
         "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
         "<|im_start|>assistant\n");
    said(CHAT_LLAMA3, 1, "<s><|start_header_id|>user<|end_header_id|>\n\nHi!<|eot_id|>"
         "<|start_header_id|>assistant<|end_header_id|>\n\n");
    said(CHAT_ALPACA, 1, "<s>Below is an instruction that describes a task. Write a response that "
         "appropriately completes the request.\n\n### Instruction:\nHi!\n\n### Response:\n");
    assert_string_equal(turns_stop(CHAT_CHATML), "<|im_end|>");
    OK(tokenizer_open(&t, "tests/data/tiny.model", &err));
    assert_int_equal(turns_ids(CHAT_CHATML, t, true, turned, 1, &ids, &n, &err), E_USAGE);
    tokenizer_close(t);
}

/* By what stands in a model's template; an unknown one is told apart from none. */
static void test_templates_are_recognised(void **state)
{
    static const struct { const char *json; enum chat_form c; bool known; } t[] = {
        { "{}", CHAT_OTHER, true },
        { "{\"chat_template\":\"{{ x }}\"}", CHAT_OTHER, false },
        { "{\"chat_template\":\"'<|im_start|>' + m\"}", CHAT_CHATML, true },
        { "{\"chat_template\":\"'[INST] ' + '<<SYS>>'\"}", CHAT_LLAMA2, true },
        { "{\"chat_template\":\"bos_token + '[INST] '\"}", CHAT_MISTRAL, true },
        { "{\"chat_template\":\"### Instruction:### Response:\"}", CHAT_ALPACA, true },
        { "{\"chat_template\":\"'<start_of_turn>' + role + '<end_of_turn>'\"}", CHAT_GEMMA, true },
        { "{\"chat_template\":[{\"name\":\"tool\",\"template\":\"<|im_start|>\"},"
          "{\"name\":\"default\",\"template\":\"<|start_header_id|><|eot_id|>\"}]}", CHAT_LLAMA3, true },
        { "{\"chat_template\":\"<|im_start|> or [INST]\"}", CHAT_OTHER, false } };
    char folder[] = "/tmp/longlora-chat-XXXXXX", *path, *jinja;
    enum chat_form c;
    bool known;

    (void)state;
    assert_non_null(mkdtemp(folder));
    path = path_join(folder, "tokenizer_config.json");
    OK(turns_recognise(folder, &c, &known, &err)); /* no such file */
    assert_true(c == CHAT_OTHER && known);
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        OK(file_replace(path, t[i].json, strlen(t[i].json), &err));
        OK(turns_recognise(folder, &c, &known, &err));
        assert_int_equal(c, t[i].c);
        assert_int_equal(known, t[i].known);
    }
    jinja = path_join(folder, "chat_template.jinja"); /* goes before the field */
    OK(file_replace(jinja, "<|im_start|>", 12, &err));
    OK(turns_recognise(folder, &c, &known, &err));
    assert_true(c == CHAT_CHATML && known);
    assert_int_equal(unlink(jinja), 0);
    OK(file_replace(path, "{", 1, &err));
    assert_int_equal(turns_recognise(folder, &c, &known, &err), E_DATA);
    OK(dir_remove(folder, &err));
    free(path);
    free(jinja);
}

/* --- whole texts */

static struct session_options of(const char *model, int64_t chunk, struct cache_options cache)
{
    static char path[200];
    struct session_options o = { .model = path, .seed = 7,
                                 .machine = { .device = "cpu", .threads = 2, .host_bytes = -1 } };

    snprintf(path, sizeof path, "tests/data/model/%s", model);
    model_defaults(&o.plan);
    o.plan.mode = TRAIN_NONE;
    o.plan.ctx = chunk;
    o.plan.cache = cache;
    return o;
}

static int64_t ints(const json_t *a, int32_t *v)
{
    for (size_t i = 0; i < json_array_size(a); i++)
        v[i] = (int32_t)json_integer_value(json_array_get(a, i));
    return (int64_t)json_array_size(a);
}

/* Greedy tokens behind a prompt, given piece tokens at a time; tokens and logprobs are as they should. */
static void goes_on(const char *what, struct session_options *o, const json_t *c, const json_t *tokens,
                    const json_t *logprobs, double penalty, int64_t piece)
{
    int32_t prompt[64], want[64], id;
    int64_t n = ints(json_object_get(c, "prompt"), prompt), more = ints(tokens, want);
    struct sampling so;
    struct session s = { 0 };
    struct sampler *sampler;
    float logits[512];

    sampling_defaults(&so);
    so.repetition = penalty;
    OK(session_open(&s, o, &err));
    OK(sampler_open(&sampler, &so, s.config.vocab, 0, &err));
    for (int64_t i = 0; i < n; i += piece)
        OK(session_extend(&s, prompt + i, n - i < piece ? n - i : piece, logits, &err));
    for (int64_t i = 0; i < n; i++)
        sampler_saw(sampler, prompt[i]);
    for (int64_t i = 0; i < more; i++) {
        double logprob, is = json_real_value(json_array_get(logprobs, (size_t)i));

        OK(sampler_pick(sampler, logits, &id, &logprob, &err));
        if (id != want[i] || (logprobs && fabs(logprob - is) > 1e-4))
            fail_msg("%s of %s: token %d is %d with %.6f, should be %d with %.6f", what, o->model,
                     (int)i, id, logprob, want[i], is);
        OK(session_extend(&s, &id, 1, logits, &err));
    }
    sampler_close(sampler);
    session_close(&s);
}

static void check_model(const json_t *c)
{
    const char *name = json_string_value(json_object_get(c, "model"));
    const json_t *tokens = json_object_get(c, "tokens"), *w, *lp = json_object_get(c, "logprobs");
    size_t i;

    for (int64_t chunk = 3; chunk <= 64; chunk += 30) {
        struct session_options o = of(name, chunk, (struct cache_options){ .rows = 64, .seqs = 1 });
        goes_on("greedy text", &o, c, tokens, lp, 1, chunk);
    }
    {
        struct session_options o = of(name, 64, (struct cache_options){ 0 });
        goes_on("greedy text without a cache", &o, c, tokens, lp, 1, 64);
        goes_on("penalised text", &o, c, json_object_get(c, "penalised"), NULL, 1.3, 64);
    }
    json_array_foreach(json_object_get(c, "windows"), i, w) {
        struct cache_options cache = { .seqs = 1, .sinks = json_integer_value(json_object_get(w, "sinks")),
                                       .window = json_integer_value(json_object_get(w, "window")) };
        for (int64_t spare = 1; spare <= 9; spare += 4) {
            struct session_options o;
            cache.rows = cache.sinks + cache.window + spare;
            o = of(name, 16, cache);
            goes_on("a window", &o, c, json_object_get(w, "tokens"), json_object_get(w, "logprobs"), 1, 1);
        }
    }
}

static void test_texts_are_those_of_transformers(void **state)
{
    json_t *root = json_load_file("tests/data/gen.json", 0, NULL), *c;
    size_t i;

    (void)state;
    assert_true(json_array_size(json_object_get(root, "cases")) >= 3);
    json_array_foreach(json_object_get(root, "cases"), i, c)
        check_model(c);
    json_decref(root);
}

/* Another text that begins as the one before: what is alike stays, and gives the same. */
static void test_texts_that_begin_alike(void **state)
{
    struct session_options o = of("gqa", 8, (struct cache_options){ .rows = 40, .seqs = 1 });
    float fresh[512], kept[512];
    struct session s = { 0 };
    struct said on = { 0 };
    int32_t ids[30];

    (void)state;
    for (int i = 0; i < 30; i++)
        ids[i] = i * 7 % 40;
    OK(session_open(&s, &o, &err));
    OK(said_become(&on, &s, ids, 30, fresh, &err));
    ids[20] = 1;
    OK(said_become(&on, &s, ids, 25, NULL, &err));
    assert_int_equal(s.n, 25);
    ids[20] = 20 * 7 % 40;
    OK(said_become(&on, &s, ids, 30, kept, &err));
    for (int i = 0; i < s.config.vocab; i++)
        assert_true(fabs((double)fresh[i] - (double)kept[i]) < 1e-5);
    OK(said_become(&on, &s, ids, 30, kept, &err)); /* the very same */
    for (int i = 0; i < s.config.vocab; i++)
        assert_true(fabs((double)fresh[i] - (double)kept[i]) < 1e-5);
    assert_int_equal(said_become(&on, &s, ids, 41, kept, &err), E_CONFIG);
    free(on.ids);
    session_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_drawn_has_its_distribution),
        cmocka_unit_test(test_what_is_drawn_depends_on_seed_text_and_number),
        cmocka_unit_test(test_the_likeliest),
        cmocka_unit_test(test_stop_strings),
        cmocka_unit_test(test_a_terminal_is_not_told_anything),
        cmocka_unit_test(test_conversations),
        cmocka_unit_test(test_templates_are_recognised),
        cmocka_unit_test(test_texts_are_those_of_transformers),
        cmocka_unit_test(test_texts_that_begin_alike),
    };

    log_init("test_gen", -1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
