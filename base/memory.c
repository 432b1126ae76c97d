/* base/memory.c - see memory.h. */
#include "base/memory.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The number after key in /proc/meminfo, in bytes; 0 where there is none. */
static size_t meminfo(const char *key)
{
    FILE *f = fopen("/proc/meminfo", "re");
    char line[128];
    unsigned long long kib = 0;

    while (f && kib == 0 && fgets(line, sizeof line, f))
        if (strncmp(line, key, strlen(key)) == 0)
            sscanf(line + strlen(key), " %llu", &kib);
    if (f)
        fclose(f);
    return (size_t)kib * 1024;
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

size_t memory_free_bytes(void)
{
    static const char *const group[][2] = {
        { "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current" },
        { "/sys/fs/cgroup/memory/memory.limit_in_bytes",
          "/sys/fs/cgroup/memory/memory.usage_in_bytes" },
    };
    size_t left = meminfo("MemAvailable:");

    if (left == 0)
        left = (size_t)sysconf(_SC_AVPHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < 2; i++) {
        size_t max = number_in(group[i][0]), used = number_in(group[i][1]);
        if (max != SIZE_MAX && used != SIZE_MAX && (max > used ? max - used : 0) < left)
            left = max > used ? max - used : 0;
    }
    return left;
}
