/* base/gnuplot.c - runs gnuplot on a script; see gnuplot.h. */
#include "base/gnuplot.h"

#include "base/file.h"
#include "base/plot.h"

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static int no_gnuplot(struct err *e)
{
    err_set(e, E_SYS, "a plot file needs gnuplot, which is not on PATH");
    return err_hint(e, "install the package gnuplot-nox, or leave --plot out");
}

/* Looks for gnuplot as the shell would, without starting it; tools ask before long work. */
int plot_check(struct err *e)
{
    const char *p = getenv("PATH");

    /* Each folder of PATH; the last one has no ':' behind it to step over. */
    for (size_t n; p && *p; p += n + (p[n] == ':')) {
        char path[4096];

        n = strcspn(p, ":");
        snprintf(path, sizeof path, "%.*s/gnuplot", n ? (int)(n < 4000 ? n : 4000) : 1,
                 n ? p : "."); /* an empty entry is the folder one is in */
        if (access(path, X_OK) == 0 && !path_is_dir(path))
            return 0;
    }
    return no_gnuplot(e);
}

/* A gnuplot string in single quotes: nothing is special in it but the quote itself, which
 * becomes U+2019 (gnuplot 5.4 misreads a doubled one at the string's start). */
int gnuplot_quote(struct buf *b, const char *s, struct err *e)
{
    struct buf clean = { 0 };
    int rc = buf_add_clean(&clean, s ? s : "", e);

    if (rc == 0)
        rc = buf_add(b, "'", 1, e);
    for (size_t i = 0; i < clean.len && rc == 0; i++)
        rc = clean.p[i] == '\'' ? buf_add(b, "\u2019", 3, e) : buf_add(b, clean.p + i, 1, e);
    buf_free(&clean);
    return rc < 0 ? rc : buf_add(b, "'", 1, e);
}

/* "set NAME 'text'", in which '_' and '^' are plain characters and not gnuplot's markup. */
int gnuplot_set(struct buf *b, const char *name, const char *text, struct err *e)
{
    int rc = buf_printf(b, e, "set %s ", name);

    if (rc == 0)
        rc = gnuplot_quote(b, text, e);
    return rc < 0 ? rc : buf_printf(b, e, " noenhanced\n");
}

/* The line that makes gnuplot write the form that path's name ends in; PNG for all others. */
const char *gnuplot_terminal(const char *path)
{
    const char *dot = strrchr(path, '.');

    if (dot && strcasecmp(dot, ".svg") == 0)
        return "set terminal svg size 900,560 background 'white'\n";
    if (dot && strcasecmp(dot, ".pdf") == 0)
        return "set terminal pdfcairo size 9,5.6\n";
    /* Debian's gnuplot-nox has pngcairo; builds without Cairo have png. */
    return "if (strstrt(GPVAL_TERMINALS, 'pngcairo') > 0) {\n"
           "  set terminal pngcairo size 1000,620 font ',13'\n"
           "} else {\n  set terminal png size 1000,620\n}\n";
}

/* All of an open temporary file, from its start. */
static int slurp(FILE *f, struct buf *b, struct err *e)
{
    char part[16384];
    size_t n;
    int rc = 0;

    rewind(f);
    while (rc == 0 && (n = fread(part, 1, sizeof part, f)) > 0)
        rc = buf_add(b, part, n, e);
    return rc == 0 && ferror(f) ? err_sys(e, E_IO, "cannot read gnuplot's output") : rc;
}

/* Runs gnuplot on the script in 'in'. Files in place of pipes: nothing can block. */
static int run(FILE *in, FILE *out, FILE *bad, struct err *e)
{
    /* -d: no start-up file of the user's has a say. */
    char *argv[] = { (char[]){ "gnuplot" }, (char[]){ "-d" }, NULL };
    posix_spawn_file_actions_t act;
    int rc, status;
    pid_t pid;

    if (posix_spawn_file_actions_init(&act) != 0)
        return err_set(e, E_SYS, "out of memory");
    posix_spawn_file_actions_adddup2(&act, fileno(in), STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&act, fileno(out), STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&act, fileno(bad), STDERR_FILENO);
    rc = posix_spawnp(&pid, "gnuplot", &act, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&act);
    /* The start itself failed: gnuplot does not exist, or it cannot be run. */
    if (rc == ENOENT)
        return no_gnuplot(e);
    if (rc != 0) {
        errno = rc;
        return err_sys(e, E_SYS, "cannot start gnuplot");
    }
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return err_sys(e, E_SYS, "cannot wait for gnuplot");
    /* No message yet: what gnuplot said is read by the caller. */
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : E_SYS;
}

/* Runs the script and takes the picture from gnuplot's output; on failure the first 300 bytes
 * of what gnuplot said become the message. */
static int render(const struct buf *text, struct buf *image, struct err *e)
{
    FILE *in = tmpfile(), *out = tmpfile(), *bad = tmpfile();
    struct buf said = { 0 };
    int rc = 0;

    if (!in || !out || !bad)
        rc = err_sys(e, E_IO, "cannot make a temporary file");
    else if (fwrite(text->p, 1, text->len, in) != text->len || fflush(in) != 0 ||
             lseek(fileno(in), 0, SEEK_SET) < 0)
        rc = err_sys(e, E_IO, "cannot write a temporary file");
    else if ((rc = run(in, out, bad, e)) == 0)
        rc = slurp(out, image, e);
    /* gnuplot may end well without having drawn anything. */
    if (rc == 0 && image->len == 0)
        rc = E_SYS;
    /* Only where nobody has set a message before. */
    if (rc == E_SYS && e && e->code == 0 && slurp(bad, &said, NULL) == 0) {
        size_t n = said.len < 300 ? said.len : 300;

        for (size_t i = 0; i < n; i++)
            if ((unsigned char)said.p[i] < 0x20)
                said.p[i] = ' ';
        err_set(e, E_SYS, "gnuplot failed: %.*s", (int)n, n ? said.p : "");
    }
    buf_free(&said);
    for (int i = 0; i < 3; i++) {
        FILE *f = i == 0 ? in : i == 1 ? out : bad;

        if (f)
            fclose(f);
    }
    return rc;
}

int gnuplot_draw(const struct buf *script, const char *path, struct err *e)
{
    struct buf image = { 0 };
    /* The caller's e may be NULL or hold an older error, and 'render' asks
     * whether there is one. */
    struct err own = { 0 };
    int rc = render(script, &image, &own);

    if (rc == 0)
        rc = file_replace(path, image.p, image.len, &own);
    buf_free(&image);
    if (rc < 0 && e)
        *e = own;
    return rc;
}
