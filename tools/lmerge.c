/* tools/lmerge.c - merges an adapter into its base model: option handling and wiring. */
#include "base/file.h"
#include "base/gguf.h"
#include "base/log.h"
#include "base/opt.h"
#include "base/json.h"
#include "formats/weights/gguf_types.h"
#include "model/model_rows.h"
#include "tools/check.h"
#include "tools/merge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static volatile sig_atomic_t stop; /* the signal that came */

/* The first lets what is being built be removed; before that, and the second, end the process. */
static void on_signal(int sig)
{
    bool second = stop && sig != SIGXCPU; /* that one comes again every second */

    stop = sig;
    if (second || !merge_building()) {
        signal(sig, SIG_DFL);
        raise(sig);
    }
}

/* The summary for programs; sizes and counts are whole numbers. */
static void print_json(const struct merge_options *o, const struct merge_report *r)
{
    json_t *j = json_pack("{ss ss ss ss sI sI sI sI sI sI sb sI sf sI sI}", "model", o->base,
                          "adapter", o->adapter, "out", o->out, "dtype", r->dtype,
                          "context", (json_int_t)r->context, "params", (json_int_t)r->params,
                          "files", (json_int_t)r->files, "merged", (json_int_t)r->merged,
                          "replaced", (json_int_t)r->replaced, "copied", (json_int_t)r->copied,
                          "untied", (int)r->untied, "bytes", (json_int_t)r->bytes,
                          "max_delta", r->max_delta,
                          "delta_entries", (json_int_t)r->delta_entries,
                          "unchanged_entries", (json_int_t)r->unchanged);
    char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;

    if (text)
        puts(text);
    free(text);
    json_decref(j);
}

static void print_text(const struct merge_options *o, const struct merge_report *r)
{
    char size[16];

    printf("%s: %lld parameters, %s, context %lld, %s in %lld file%s\n", o->out,
           (long long)r->params, r->dtype, (long long)r->context,
           fmt_bytes((double)r->bytes, size, sizeof size), (long long)r->files,
           r->files == 1 ? "" : "s");
    printf("tensors: %lld merged, %lld replaced, %lld copied\n", (long long)r->merged,
           (long long)r->replaced, (long long)r->copied);
    /* The base's head was its embedding; in the result they are two tensors. */
    if (r->untied)
        printf("untied: lm_head keeps the base's embedding, as in training\n");
    if (*r->advice)
        printf("note: %s\n", r->advice);
    if (r->delta_entries)
        printf("change: max |dW| %.3g; %.2f%% of the merged entries unchanged by rounding\n",
               r->max_delta, 100.0 * (double)r->unchanged / (double)r->delta_entries);
}

/* One line a finding, or one object a path. */
static void print_check(const char *path, const char *program, const struct check_list *l, bool json)
{
    json_t *list = json_array(), *j;
    char *text;

    for (int i = 0; i < l->n; i++) {
        const struct check_finding *f = &l->v[i];

        if (!json)
            printf("%s: %s: %s\n", path, check_word(f->kind), f->text);
        json_array_append_new(list, json_pack("{ss ss}", "kind", check_word(f->kind), "text", f->text));
    }
    if (!json && l->worst == CHECK_NOTE)
        printf("%s: nothing is lost in %s\n", path, program);
    j = json_pack("{ss ss sb so}", "path", path, "program", program, "complete",
                  (int)(l->worst == CHECK_NOTE), "findings", list);
    if (json && j && (text = json_dumps(j, JSON_COMPACT))) {
        puts(text);
        free(text);
    }
    json_decref(j);
}

/* All paths are looked at; the first error ends it. E_NO where something would be lost. */
static int run_check(int program, const char *base, int n, char **paths, bool json, bool quiet,
                     struct err *e)
{
    static const char *const words[] = { "vllm", "llama.cpp", "peft", "transformers" };
    bool lost = false;
    int rc = n > 0 ? 0 : err_set(e, E_USAGE, "--check needs a model, an adapter or a GGUF file to look at");

    for (int i = 0; i < n && rc == 0; i++) {
        struct check_list l = { 0 };

        if ((rc = check_path(&l, (enum check_program)program, paths[i], base, e)) == 0 && !quiet)
            print_check(paths[i], words[program], &l, json);
        lost |= rc == 0 && l.worst != CHECK_NOTE;
        check_free(&l);
    }
    return rc < 0 || !lost ? rc : err_set(e, E_NO, "%s would not take all of it", words[program]);
}

/* There is no context that would tell the factor. */
static int check_rope(const struct rope_ask *a, struct err *e)
{
    int rc = rope_check(a, e);

    if (rc == 0 && a->kind > 0 && a->factor == 0 && a->theta == 0) {
        err_set(e, E_USAGE, "--rope needs --rope-factor here");
        rc = err_hint(e, "the context that the adapter was trained at by that of its base");
    }
    return rc;
}

static bool is_gguf_name(const char *out)
{
    size_t n = out ? strlen(out) : 0;

    return n > 5 && strcmp(out + n - 5, ".gguf") == 0;
}

/* All three paths must be there; the first that is missing is named. */
static int check_options(const struct merge_options *o, int n, char **argv, struct err *e)
{
    /* A file of another kind needs no adapter: the model alone is converted. */
    bool converts = o->base && (o->to_gguf || gguf_is(o->base));
    const char *missing = !o->base ? "--model" : !o->adapter && !converts ? "--adapter" : "-o";

    if (n > 0)
        return err_set(e, E_USAGE, "unexpected operand '%.200s'", argv[1]);
    if (o->gguf && !o->to_gguf)
        return err_set(e, E_USAGE, "--gguf needs an output that ends in .gguf");
    if (o->adapter_only && !(o->to_gguf && o->adapter))
        return err_set(e, E_USAGE, "--adapter-only needs --adapter and an output that ends in .gguf");
    if (o->base && (o->adapter || converts) && o->out)
        return check_rope(&o->rope, e);
    err_set(e, E_USAGE, "no %s given", missing);
    return err_hint(e, "lmerge --model BASE --adapter ADAPTER -o OUT");
}

/* By the places of the words in --dtype and --gguf. With 'keep', the first, the type is not used:
 * keep_dtype says so. */
static void set_types(struct merge_options *o, int dtype, int gguf)
{
    static const struct tensor_type *const types[] = { &type_f32, &type_f32, &type_f16,
                                                       &type_bf16 };
    static const struct tensor_type *const matrices[] = { NULL, &type_f32, &type_f16, &type_bf16,
                                                          &type_q8_0, &type_q4_0 };

    o->to_gguf = is_gguf_name(o->out);
    o->gguf = matrices[gguf];
    o->keep_dtype = dtype == 0;
    o->type = types[dtype];
}

/* A signal that was ignored when the program began, as by nohup, stays ignored. */
static void catch_signals(void)
{
    static const int stops[] = { SIGINT, SIGTERM, SIGHUP, SIGXCPU };
    struct sigaction was, act = { .sa_handler = on_signal, .sa_flags = SA_RESTART };

    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++)
        if (sigaction(stops[i], NULL, &was) == 0 && was.sa_handler != SIG_IGN)
            sigaction(stops[i], &act, NULL);
}

int main(int argc, char **argv)
{
    bool quiet = false, verbose = false, json = false, done;
    struct merge_options o = { .shard_bytes = (int64_t)4 << 30, .stop = &stop };
    struct merge_report r;
    int64_t threads = 0;
    int dtype = 0, gguf = 0, check = 0, rc;
    const struct opt opts[] = {
        ROW_MODEL(&o.base),
        ROW_ADAPTER(&o.adapter),
        { 'o', "output", "DIR", OPT_STR, &o.out, 0, 0, "folder to make, or FILE.gguf" },
        ROW_FORCE(&o.force, "replace a model folder at -o"),
        { 0, "dtype", "keep|float32|float16|bfloat16", OPT_ENUM, &dtype, 0, 0,
          "type of the merged weights [keep: each as it is]" },
        { 0, "gguf", "auto|f32|f16|bf16|q8_0|q4_0", OPT_ENUM, &gguf, 0, 0,
          "of FILE.gguf: type of the matrices [auto: the base's, or f16]" },
        { 0, "adapter-only", NULL, OPT_FLAG, &o.adapter_only, 0, 0,
          "of FILE.gguf: the adapter's pairs alone, for llama.cpp's --lora" },
        ROWS_ROPE(&o.rope, 0, "what an adapter without config.json was trained with [auto]",
                  "by how much the context grew"),
        { 0, "shard-size", "BYTES", OPT_BYTES, &o.shard_bytes, 1, 1e15, "largest file [4g]" },
        { 0, "check", "none|" CHECK_PROGRAMS, OPT_ENUM, &check, 0, 0,
          "only say what it would refuse or ignore of PATH ... [none]" },
        ROW_THREADS(&threads),
        ROW_JSON(&json, "print the summary as JSON"),
        ROW_QUIET(&quiet, "print nothing but errors"),
        ROW_VERBOSE(&verbose, "say more"),
        OPT_END
    };
    const struct cmd cmd = {
        "lmerge", "--model DIR|FILE.gguf [--adapter DIR] -o DIR|FILE.gguf",
        "Merges an adapter into its base model and writes a Hugging Face model folder.",
        "  lmerge --model Llama-2-7b-hf --adapter adapter/ -o Llama-2-7b-100k/\n"
        "  lmerge --model base/ --adapter adapter/ -o model.gguf --gguf q8_0\n"
        "  lmerge --model model.gguf -o model/\n"
        "  lmerge --check vllm adapter/ merged/\n",
        opts, NULL
    };
    struct err e = {0};

    rc = opt_parse(&cmd, argc, argv, &done, &e);
    if (rc < 0 || done)
        return cmd_exit(&cmd, rc, &e);
    log_init(cmd.name, quiet ? -1 : verbose ? 1 : 0);
    if (check)
        return cmd_exit(&cmd, run_check(check - 1, o.base, rc, argv + 1, json, quiet, &e), &e);
    set_types(&o, dtype, gguf);
    o.threads = (int)threads;
    catch_signals();
    if ((rc = check_options(&o, rc, argv, &e)) == 0 && (rc = merge_run(&o, &r, &e)) == 0 &&
        (json || !quiet))
        json ? print_json(&o, &r) : print_text(&o, &r);
    /* The folder is removed by now, so the signal may take its usual effect. */
    if (stop && rc < 0) {
        log_warn("stopped, nothing written");
        signal(stop, SIG_DFL);
        raise(stop); /* so that the shell sees the signal */
    }
    return cmd_exit(&cmd, rc, &e);
}
