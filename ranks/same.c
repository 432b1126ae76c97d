/* ranks/same.c - see same.h. */
#include "ranks/same.h"

#include <stdlib.h>
#include <string.h>

enum { MOST = 1 << 20 };

/* At most so much of a line is shown. */
static int length(const char *line)
{
    size_t n = strcspn(line, "\n");

    return n < 200 ? (int)n : 200;
}

/* Both stand at the beginning of a line that differs. */
static int differ(const char *mine, const char *zeros, struct err *e)
{
    int name = (int)strcspn(mine, " \n");

    if (*mine && strncmp(mine, zeros, (size_t)name + 1) == 0)
        return err_set(e, E_CONFIG, "'%.*s' is %.*s here and %.*s for rank 0", name, mine,
                       length(mine + name + 1), mine + name + 1, length(zeros + name + 1),
                       zeros + name + 1);
    return err_set(e, E_CONFIG, "'%.*s' here is '%.*s' for rank 0", length(mine), mine,
                   length(zeros), zeros);
}

static int compare(const char *mine, const char *zeros, struct err *e)
{
    while (*mine || *zeros) {
        size_t n = strcspn(mine, "\n"), k = strcspn(zeros, "\n");

        if (n != k || memcmp(mine, zeros, n) != 0)
            return differ(mine, zeros, e);
        mine += n + (mine[n] == '\n');
        zeros += k + (zeros[k] == '\n');
    }
    return 0;
}

int ranks_same(struct group *g, const char *mine, struct err *e)
{
    uint64_t n = strlen(mine) + 1;
    char *zeros = NULL;
    int rc;

    if (g->size == 1)
        return 0;
    if ((rc = g->broadcast(g, 0, &n, sizeof n, e)) < 0)
        return rc;
    if (n > MOST || !(zeros = calloc(1, n)))
        rc = err_set(e, n > MOST ? E_BUG : E_SYS, "no room for what rank 0 was started with");
    if ((rc = group_meet(g, rc, NULL, e)) == 0) {
        if (g->rank == 0)
            memcpy(zeros, mine, n);
        if ((rc = g->broadcast(g, 0, zeros, n, e)) == 0) {
            zeros[n - 1] = '\0';
            rc = group_meet(g, compare(mine, zeros, e), NULL, e);
        }
    }
    free(zeros);
    return rc;
}
