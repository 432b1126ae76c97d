/* eval/leval.c - leval: perplexity at each of several contexts, and tables of its results. */
#include "base/file.h"
#include "base/log.h"
#include "base/opt.h"
#include "base/plot.h"
#include "eval/bench_eval.h"
#include "model/preset.h"

#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

struct args {
    struct ppl_options ppl;
    const char *file, *ctx, *rope, *plot, *title, *out;
    int protocol, form, device, shape;
    bool table, bench, by_position, chart, json, force, quiet, verbose;
};

static const char *const devices[] = { "auto", "cpu", "cuda" };

/* An output file must be new, or with -f a regular file. */
static int check_output(const char *path, bool force, struct err *e)
{
    char dir[PATH_MAX];
    struct stat st;

    if (!path)
        return 0;
    if (stat(path, &st) < 0) { /* a folder that is missing is told before the work, not after */
        snprintf(dir, sizeof dir, "%s", path);
        return access(dirname(dir), W_OK) == 0
                   ? 0 : err_sys(e, E_CREATE, "cannot write '%s'", path);
    }
    if (!S_ISREG(st.st_mode))
        return err_set(e, E_CREATE, "'%s' is not a regular file", path);
    if (force)
        return 0;
    err_set(e, E_CREATE, "'%s' exists", path);
    return err_hint(e, "-f replaces it");
}

/* What would be passed over in silence is refused. */
static int check_bench(const struct args *a, int operands, struct err *e)
{
    if (a->table || a->file || operands || !a->ppl.model == (a->shape < 0))
        return err_set(e, E_USAGE, "--bench takes sizes, one of --shape and --model, and no data");
    if (!a->ppl.adapter && !a->out && !a->plot && !a->chart && !a->by_position)
        return 0;
    err_set(e, E_USAGE, "--bench measures speed alone, without --%s",
            a->ppl.adapter ? "adapter" : a->out ? "output" : a->plot ? "plot"
            : a->chart ? "chart" : "by-position");
    return err_hint(e, "its lines are on standard output, with --json for programs");
}

static int check_args(struct args *a, int operands, struct err *e)
{
    double f;
    char *end;
    int n;

    if (a->bench) {
        if (check_bench(a, operands, e) < 0)
            return E_USAGE;
    } else if (a->shape >= 0) {
        return err_set(e, E_USAGE, "--shape names sizes, not weights: it is for --bench");
    } else if (a->table) {
        if (a->file || a->ppl.model || operands == 0)
            return err_set(e, E_USAGE, "--table takes result files and no --ppl or --model");
        if (a->by_position)
            return err_set(e, E_USAGE, "--by-position is for --ppl, not for --table");
    } else {
        if (!a->file || !a->ppl.model) {
            err_set(e, E_USAGE, "no %s given", a->file ? "--model DIR" : "--ppl FILE");
            return err_hint(e, "leval --help shows examples");
        }
        if (operands)
            return err_set(e, E_USAGE, "--ppl takes one file; files after it are for --table");
    }
    if (a->ctx) {
        if ((n = num_tokens_list(a->ctx, a->ppl.ctx, RESULT_ROWS, e)) < 0)
            return n;
        a->ppl.n_ctx = n;
    }
    for (int64_t i = 0; i < a->ppl.n_ctx; i++)
        if (a->ppl.ctx[i] < 2 || a->ppl.ctx[i] > (int64_t)1 << 31)
            return err_set(e, E_USAGE, "--ctx %lld is not 2 to 2048m",
                           (long long)a->ppl.ctx[i]);
    if (strcmp(a->rope, "auto") == 0)
        f = -1;
    else if (!num_f64(a->rope, &f) || (f != 0 && !(f >= 1 && f <= 65536)))
        return err_set(e, E_USAGE, "--rope-factor '%s' is not 0, auto or 1 to 65536", a->rope);
    a->ppl.rope_factor = f;
    if (a->out && strcmp(a->out, "-") == 0)
        a->out = NULL;
    end = a->plot ? strrchr(a->plot, '.') : NULL;
    if (a->plot && (!end || (strcasecmp(end, ".png") != 0 && strcasecmp(end, ".svg") != 0 &&
                             strcasecmp(end, ".pdf") != 0)))
        return err_set(e, E_USAGE, "--plot '%s' does not end in .png, .svg or .pdf", a->plot);
    if ((n = check_output(a->out, a->force, e)) < 0 ||
        (n = check_output(a->plot, a->force, e)) < 0)
        return n;
    return a->plot ? plot_check(e) : 0;
}

static int columns(void)
{
    struct winsize w;

    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0)
        return w.ws_col < 100 ? w.ws_col : 100;
    return 80;
}

static int deliver(const struct args *a, const struct buf *out, struct err *e)
{
    if (a->out)
        return file_replace(a->out, out->p, out->len, e);
    if (fwrite(out->p, 1, out->len, stdout) != out->len || fflush(stdout) != 0)
        return err_sys(e, E_IO, "cannot write standard output");
    return 0;
}

/* Table or JSON, with a chart below where one was asked for, then the plot: what took hours to
 * measure is out before anything to do with drawing can fail. */
static int put_results(const struct args *a, struct buf *out, const struct result *r, int64_t n,
                       bool text, struct err *e)
{
    struct result_chart h = { a->title, a->by_position, plot_utf8(),
                              !a->out && log_colour(STDOUT_FILENO), columns() };
    struct err why = { 0 };
    int rc = 0;

    if (text && (rc = buf_add(out, "\n", 1, &why)) == 0)
        rc = results_chart(out, NULL, &h, r, n, &why);
    if (rc == E_DATA) { /* perplexities that are all infinite leave nothing to draw */
        if (a->chart)
            log_warn("%s", why.msg);
    } else if (rc < 0) {
        *e = why;
        return rc;
    }
    if ((rc = deliver(a, out, e)) == 0 && a->plot &&
        (rc = results_chart(NULL, a->plot, &h, r, n, e)) == 0)
        log_info("plot written to '%s'", a->plot);
    return rc;
}

static int run_ppl(struct args *a, struct buf *out, struct err *e)
{
    struct result *r = malloc(sizeof *r);
    int rc = r ? ppl_run(r, &a->ppl, e) : err_set(e, E_SYS, "out of memory");

    if (rc == 0)
        rc = a->json ? result_json(out, r, e) : result_table(out, r, a->by_position, e);
    if (rc == 0)
        rc = put_results(a, out, r, 1, a->chart && !a->json, e);
    free(r);
    return rc;
}

static int run_table(const struct args *a, char **file, int n, struct buf *out, struct err *e)
{
    struct result *r = calloc((size_t)n, sizeof *r);
    int rc = r ? 0 : err_set(e, E_SYS, "out of memory");

    for (int k = 0; k < n && rc == 0; k++) {
        const char *differs;

        if ((rc = result_read(&r[k], file[k], e)) < 0)
            break;
        if (!r[k].label[0])
            snprintf(r[k].label, sizeof r[k].label, "%s", file[k]);
        if ((differs = results_differ(r, k)))
            log_warn("'%s' was measured with %s than '%s': not comparable", file[k], differs,
                     file[0]);
    }
    if (rc == 0)
        rc = a->json ? results_json(out, r, n, e) : results_table(out, r, n, e);
    if (rc == 0)
        rc = put_results(a, out, r, n, !a->json && !a->quiet, e);
    free(r);
    return rc;
}

static int run(struct args *a, char **operand, int n, struct err *e)
{
    struct buf out = { 0 };
    int rc = check_args(a, n, e);

    a->ppl.data.path = a->file;
    a->ppl.data.form = (enum corpus_form)a->form;
    a->ppl.data.force = a->force;
    a->ppl.protocol = (enum protocol)a->protocol;
    a->ppl.machine.device = devices[a->device];
    if (rc == 0)
        rc = a->bench ? bench_eval(&a->ppl, a->shape, a->json, stdout, e)
             : a->table ? run_table(a, operand, n, &out, e) : run_ppl(a, &out, e);
    buf_free(&out);
    return rc;
}

int main(int argc, char **argv)
{
    struct args a = { .rope = "0", .shape = -1,
                      .ppl = { .batch_tokens = 8192, .machine = { .host_bytes = -1 } } };
    const struct opt opts[] = {
        OPT_HEADING("what to measure"),
        { 0, "ppl", "FILE", OPT_STR, &a.file, 0, 0, "shards, raw u16 ids, or text; - is text" },
        { 'm', "model", "DIR", OPT_STR, &a.ppl.model, 0, 0, "model folder (Hugging Face)" },
        { 'a', "adapter", "DIR", OPT_STR, &a.ppl.adapter, 0, 0, "LoRA adapter for it (PEFT)" },
        { 'c', "ctx", "LIST", OPT_STR, &a.ctx, 0, 0, "contexts, 8k,16k [the model's own]" },
        { 0, "protocol", "longlora|stride|nonoverlap", OPT_ENUM, &a.protocol, 0, 0,
          "how windows are laid and averaged [longlora]" },
        { 0, "step", "N", OPT_TOKENS, &a.ppl.step, 1, 0x1p31,
          "tokens from window to window [256]" },
        { 0, "max-windows", "N", OPT_I64, &a.ppl.max_windows, 0, 0x1p52,
          "only so many, spread evenly; 0: all [0]" },
        { 0, "max-tokens", "N", OPT_TOKENS, &a.ppl.data.max_tokens, 0, 0x1p52,
          "only so many from the start of the data; 0: all [0]" },
        { 0, "join", NULL, OPT_FLAG, &a.ppl.join, 0, 0,
          "let windows cross documents (longlora always does)" },
        { 0, "rope-factor", "F", OPT_STR, &a.rope, 0, 0,
          "scale RoPE linearly: a number, auto, or 0: as it is [0]" },
        OPT_HEADING("the data"),
        { 0, "form", "auto|shards|raw|text", OPT_ENUM, &a.form, 0, 0,
          "what FILE is, where looking at it is not enough [auto]" },
        { 0, "split", "NAME", OPT_STR, &a.ppl.data.split, 0, 0,
          "split of a shards folder [validation, else train]" },
        { 't', "tokenizer", "FILE", OPT_STR, &a.ppl.data.tokenizer, 0, 0,
          "SentencePiece model for text [the model folder's]" },
        { 0, "add-bos", NULL, OPT_FLAG, &a.ppl.data.add_bos, 0, 0, "put a BOS before text" },
        OPT_HEADING("results"),
        { 'l', "label", "NAME", OPT_STR, &a.ppl.label, 0, 0,
          "name in tables and plots [the folder's]" },
        { 0, "by-position", NULL, OPT_FLAG, &a.by_position, 0, 0,
          "also perplexity by the number of tokens before" },
        { 0, "json", NULL, OPT_FLAG, &a.json, 0, 0, "one JSON object in place of the table" },
        { 'o', "output", "FILE", OPT_STR, &a.out, 0, 0, "write the result there [-]" },
        { 0, "table", NULL, OPT_FLAG, &a.table, 0, 0,
          "compare results: operands are files written by --json" },
        { 0, "chart", NULL, OPT_FLAG, &a.chart, 0, 0, "draw a chart below the table" },
        { 0, "plot", "FILE", OPT_STR, &a.plot, 0, 0, "draw to .png, .svg or .pdf by gnuplot" },
        { 0, "title", "TEXT", OPT_STR, &a.title, 0, 0, "title of chart and plot [perplexity]" },
        { 'f', "force", NULL, OPT_FLAG, &a.force, 0, 0,
          "replace output files; accept data of another tokenizer" },
        OPT_HEADING("the machine"),
        { 0, "device", "auto|cpu|cuda", OPT_ENUM, &a.device, 0, 0, "where to compute [auto]" },
        { 'j', "threads", "N", OPT_I64, &a.ppl.machine.threads, 0, 1024, "threads; 0: all processors [0]" },
        { 0, "gpu-memory", "SIZE", OPT_BYTES, &a.ppl.machine.device_bytes, 1, 0x1p50,
          "limit on GPU memory, 6g [what is free]" },
        { 0, "host-memory", "SIZE", OPT_BYTES, &a.ppl.machine.host_bytes, 0, 0x1p50,
          "limit on pinned host memory [three quarters of what is free]" },
        { 0, "batch-tokens", "N", OPT_TOKENS, &a.ppl.batch_tokens, 1, 0x1p31,
          "tokens computed at once, or one window [8k]" },
        { 0, "bench", NULL, OPT_FLAG, &a.bench, 0, 0,
          "measure scoring with random weights, without data" },
        { 0, "shape", SHAPES, OPT_ENUM, &a.shape, 0, 0, "for --bench: sizes by name" },
        { 'q', "quiet", NULL, OPT_FLAG, &a.quiet, 0, 0, "warnings and errors only" },
        { 'v', "verbose", NULL, OPT_FLAG, &a.verbose, 0, 0, "say more" },
        OPT_END
    };
    const struct cmd cmd = {
        "leval", "--ppl FILE --model DIR [--adapter DIR] [--ctx LIST] | --table FILE ... | --bench",
        "Perplexity of a model at each of several contexts, with dense attention.",
        "  leval --ppl pg19.val --model Llama-2-7b-hf --adapter adapter/ --ctx 8k,16k,32k\n"
        "  leval --ppl book.txt --model Llama-2-7b-hf --ctx 4k,8k --protocol stride --chart\n"
        "  leval --ppl shards/ --model base/ --ctx 512,1k,2k --json > base.json\n"
        "  leval --table base.json lora.json longlora.json --plot ppl.png\n"
        "  leval --bench --shape llama-2-7b --ctx 4k,32k\n", opts
    };
    struct err e = { 0 };
    bool done;
    int rc = opt_parse(&cmd, argc, argv, &done, &e);

    log_init(cmd.name, a.quiet ? -1 : a.verbose);
    if (rc >= 0 && !done)
        rc = run(&a, argv + 1, rc, &e);
    return cmd_exit(&cmd, rc, &e);
}
