/* base/memory.c - see memory.h. */
#include "base/memory.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The number after key in a file of such lines; 0 where there is none. */
static size_t field_in(const char *path, const char *key)
{
    FILE *f = fopen(path, "re");
    char line[128];
    unsigned long long n = 0;

    while (f && n == 0 && fgets(line, sizeof line, f))
        if (strncmp(line, key, strlen(key)) == 0)
            sscanf(line + strlen(key), " %llu", &n);
    if (f)
        fclose(f);
    return (size_t)n;
}

/* A whole file that holds one number; SIZE_MAX where it says "max" or is not there. */
static size_t number_in(const char *path)
{
    FILE *f = fopen(path, "re");
    unsigned long long n;
    bool ok = f && fscanf(f, "%llu", &n) == 1;

    if (f)
        fclose(f);
    return ok ? (size_t)n : SIZE_MAX;
}

/* A group of processes with a limit; what it holds of files that were not read lately is as good
 * as free. */
struct group {
    const char *limit, *use, *stat, *files;
};

static size_t left_in(const struct group *g)
{
    size_t limit = number_in(g->limit), used = number_in(g->use), files;

    if (limit == SIZE_MAX || used == SIZE_MAX)
        return SIZE_MAX;
    files = field_in(g->stat, g->files);
    used = used > files ? used - files : 0;
    return limit > used ? limit - used : 0;
}

size_t memory_free_bytes(void)
{
    static const struct group groups[] = {
        { "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current",
          "/sys/fs/cgroup/memory.stat", "inactive_file" },
        { "/sys/fs/cgroup/memory/memory.limit_in_bytes",
          "/sys/fs/cgroup/memory/memory.usage_in_bytes", "/sys/fs/cgroup/memory/memory.stat",
          "total_inactive_file" },
    };
    size_t left = field_in("/proc/meminfo", "MemAvailable:") * 1024;

    if (left == 0)
        left = (size_t)sysconf(_SC_AVPHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < 2; i++) {
        size_t here = left_in(&groups[i]);
        left = here < left ? here : left;
    }
    return left;
}
