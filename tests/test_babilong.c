/* tests/test_babilong.c - facts between sentences: each prompt is read again, its facts are taken out of
 * the text, and the answer is worked out from them backwards. */
#include "base/file.h"
#include "probes/babi_story.h"
#include "probes/probe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct tokenizer *tokenizer;
static char *text;
static size_t text_bytes;

static int set_up(void **state)
{
    struct err e = { 0 };

    (void)state;
    return tokenizer_open(&tokenizer, "demo/base/tokenizer.model", &e) < 0 ||
           file_read("tests/data/tiny.txt", 1 << 20, &text, &text_bytes, &e) < 0;
}

static int tear_down(void **state)
{
    (void)state;
    tokenizer_close(tokenizer);
    free(text);
    return 0;
}

/* One fact: somebody walks to a place, takes a thing or puts it down. */
enum { WALK, TAKE, DROP };
struct fact {
    char who[16], what[16];
    int act;
};
static struct fact facts[600];
static int n_facts;

static const struct {
    const char *verb;
    int act;
} verbs[] = {
    { "moved to", WALK }, { "went to", WALK }, { "went back to", WALK }, { "journeyed to", WALK },
    { "travelled to", WALK }, { "got", TAKE }, { "grabbed", TAKE }, { "picked up", TAKE }, { "took", TAKE },
    { "discarded", DROP }, { "dropped", DROP }, { "left", DROP }, { "put down", DROP },
};

/* A fact that begins at p, or nothing. */
static bool read_fact(const char *p, struct fact *f)
{
    char rest[64];
    int n = 0;

    if (sscanf(p, "%15[A-Z-a-z] %n", f->who, &n) != 1 || !strstr("Daniel John Mary Sandra", f->who))
        return false;
    for (size_t v = 0; v < sizeof verbs / sizeof *verbs; v++) {
        size_t k = strlen(verbs[v].verb);

        if (strncmp(p + n, verbs[v].verb, k) == 0 &&
            sscanf(p + n + k, " the %15[a-z]%63[ a-z.]", f->what, rest) == 2 &&
            (rest[0] == '.' || strncmp(rest, " there.", 7) == 0)) {
            f->act = verbs[v].act;
            return true;
        }
    }
    return false;
}

static void read_facts(const char *context)
{
    n_facts = 0;
    for (const char *p = context; *p; p++)
        if ((p == context || p[-1] == ' ') && *p >= 'A' && *p <= 'Z' && read_fact(p, &facts[n_facts]))
            assert_true(++n_facts < 600);
}

/* The last place that somebody walked to before fact t, or NULL. */
static const char *walked(const char *who, int t)
{
    while (--t >= 0)
        if (facts[t].act == WALK && strcmp(facts[t].who, who) == 0)
            return facts[t].what;
    return NULL;
}

/* Where a thing is before fact t, by what came last. */
static const char *lies(const char *thing, int t)
{
    for (int i = t - 1; i >= 0; i--)
        if (facts[i].act != WALK && strcmp(facts[i].what, thing) == 0) {
            const char *at = walked(facts[i].who, facts[i].act == TAKE ? t : i);

            return at ? at : lies(thing, i);
        }
    return NULL;
}

/* The place before the only stay at another; how many such stays there are. */
static int before(const char *thing, const char *place, const char **answer)
{
    const char *last = NULL;
    int times = 0;

    for (int t = 1; t <= n_facts; t++) {
        const char *now = lies(thing, t);

        if (!now || (last && strcmp(now, last) == 0))
            continue;
        if (strcmp(now, place) == 0) {
            *answer = last;
            times++;
        }
        last = now;
    }
    return times;
}

static const char *answer_of(int task, const char *question)
{
    char thing[32], place[32];
    const char *answer = NULL;

    if (task == 1) {
        assert_int_equal(sscanf(question, "Where is %31[A-Za-z]?", thing), 1);
        return walked(thing, n_facts);
    }
    if (task == 2) {
        assert_int_equal(sscanf(question, "Where is the %31[a-z]?", thing), 1);
        return lies(thing, n_facts);
    }
    assert_int_equal(sscanf(question, "Where was the %31[a-z] before the %31[a-z]?", thing, place), 2);
    assert_int_equal(before(thing, place, &answer), 1);
    return answer;
}

static void check_others(const struct probe *p, const char *question)
{
    const char *o = p->others.p;
    int named = 0;

    for (int i = 0; i < BABI_PLACES; i++)
        named += strstr(question, babi_places[i]) != NULL;
    assert_int_equal(p->n_others, BABI_PLACES - 1 - named);
    for (int64_t i = 0; i < p->n_others; i++, o += strlen(o) + 1) {
        assert_string_not_equal(o, p->answers.p);
        assert_null(strstr(question, o));
    }
}

static void check_prompt(const struct probe_kind *k, int task, struct probe *p, int64_t length)
{
    struct err e = { 0 };
    char *context, *end, *question;

    assert_int_equal(buf_add(&p->prompt, "", 1, &e), 0);
    context = strstr(p->prompt.p, "\n\n<context>\n");
    assert_non_null(context);
    context += 12;
    end = strstr(context, "\n</context>\n\nQuestion: ");
    assert_non_null(end);
    question = end + 23;
    *end = 0;
    read_facts(context);
    assert_int_equal(p->n, 1);
    if (strcmp(answer_of(task, question), p->answers.p) != 0)
        fail_msg("%s: '%s' is %s, not %s", k->name, question, answer_of(task, question), p->answers.p);
    check_others(p, question);
    assert_true(p->tokens + k->reply <= length && p->tokens + k->reply >= length - 40);
    assert_true(p->depth > 0 && p->depth < 1);
    assert_non_null(memmem(p->prompt.p + (size_t)(p->depth * (double)p->prompt.len), 80, p->answers.p,
                           task == 3 ? 0 : strlen(p->answers.p)));
}

static struct probe_ask ask(int64_t length, uint64_t seed, int64_t number)
{
    return (struct probe_ask){ .length = length, .seed = seed, .number = number, .depth = -1,
                               .tokenizer = tokenizer, .source = { text, text_bytes, NULL } };
}

static void test_answers_follow_from_the_facts(void **state)
{
    const int64_t lengths[] = { 700, 1024, 4096 };
    struct probe p = { 0 };
    struct err e = { 0 };
    int most = 0;

    (void)state;
    for (int task = 1; task <= 3; task++)
        for (int l = 0; l < 3; l++) {
            char name[32];
            struct probe_ask a = ask(lengths[l], 42, 150);
            struct probes *s;

            snprintf(name, sizeof name, "babilong_qa%d", task);
            if (probes_open(&s, probe_kind_named(name), &a, &e) < 0)
                fail_msg("%s", e.msg);
            for (int i = 0; i < 150; i++) {
                assert_int_equal(probes_next(s, &p, &e), 0);
                check_prompt(probe_kind_named(name), task, &p, lengths[l]);
                most = n_facts > most ? n_facts : most;
            }
            probes_close(s);
        }
    assert_true(most > 20);
    probe_free(&p);
}

/* Facts, counted without a text, as the stories of bAbI have them. */
static void test_stories_have_the_facts_asked_for(void **state)
{
    static const int range[3][2] = { { 2, 10 }, { 2, 60 }, { 4, 100 } };
    struct babi_story s = { .n = 0 };
    struct python_random r;
    struct err e = { 0 };

    (void)state;
    python_random_seed(&r, 3);
    for (int task = 1; task <= 3; task++)
        for (int i = 0; i < 2000; i++) {
            assert_int_equal(babi_tell(&s, task, 512, &r, &e), 0);
            assert_true(s.n >= range[task - 1][0] && s.n <= range[task - 1][1]);
            assert_true(s.told >= 0 && s.told < s.n);
            assert_int_equal(babi_tell(&s, task, 3, &r, &e), 0);
            assert_true(s.n <= 3);
        }
    babi_free(&s);
}

static void test_only_the_answer_counts(void **state)
{
    static const struct {
        const char *output;
        double score;
    } cases[] = {
        { " The most recent location of Mary is kitchen.", 1 }, { "KITCHEN", 1 },
        { "The kitchen or the garden.", 0 }, { "kitchen. Then the garden", 1 },
        { "<example>kitchen", 0 }, { "kitchen <CONTEXT> garden", 1 }, { "", 0 }, { ".kitchen", 0 },
        { "She is in the office", 0 },
    };
    const struct probe_kind *k = probe_kind_named("babilong_qa1");
    struct probe p = { 0 };
    struct err e = { 0 };

    (void)state;
    assert_int_equal(probe_answer(&p, "kitchen", 7, &e), 0);
    assert_int_equal(probe_other(&p, "garden", 6, &e), 0);
    assert_int_equal(probe_other(&p, "office", 6, &e), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (probe_score(k, &p, cases[i].output, strlen(cases[i].output)) != cases[i].score)
            fail_msg("'%s'", cases[i].output);
    probe_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_follow_from_the_facts),
        cmocka_unit_test(test_stories_have_the_facts_asked_for),
        cmocka_unit_test(test_only_the_answer_counts),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
