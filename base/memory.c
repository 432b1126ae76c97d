/* base/memory.c - see memory.h. */
#include "base/memory.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The number after key in a file of such lines, or with no key what it begins with; SIZE_MAX where
 * there is none. */
static size_t number_in(const char *folder, const char *name, const char *key)
{
    char path[3 * PATH_MAX], line[128];
    unsigned long long n;
    bool found = false;
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    f = fopen(path, "re");
    while (f && !found && fgets(line, sizeof line, f))
        /* "MemAvailable:   1234 kB" with that key, or the line "1234" with none. "max", the
         * word for no limit, is no number and leaves SIZE_MAX. */
        found = strncmp(line, key, strlen(key)) == 0 &&
                sscanf(line + strlen(key), " %llu", &n) == 1;
    if (f)
        fclose(f);
    return found ? (size_t)n : SIZE_MAX;
}

/* Groups of processes, by the kernel's two versions of them. */
struct version {
    const char *folder, *controller; /* of the tree; in /proc/self/cgroup */
    const char *limit, *use, *files;
};

/* What a group holds of files that were not read lately is as good as free. */
static size_t left_in(const char *folder, const struct version *v)
{
    size_t limit = number_in(folder, v->limit, ""), used = number_in(folder, v->use, ""), files;

    if (limit == SIZE_MAX || used == SIZE_MAX)
        return SIZE_MAX;
    files = number_in(folder, "memory.stat", v->files);
    /* The kernel can drop those pages at once. Without the figure all that is used counts. */
    used = files < used ? used - files : files == SIZE_MAX ? used : 0;
    return limit > used ? limit - used : 0;
}

/* Is controller one of a list with commas? */
static bool listed(const char *list, const char *controller)
{
    size_t n = strlen(controller);

    /* p stands at a name, then behind the next comma. An empty list has one empty name, which
     * is how version 2 writes its line. */
    for (const char *p = list; p; p = (p = strchr(p, ',')) ? p + 1 : NULL)
        if (strncmp(p, controller, n) == 0 && (p[n] == ',' || p[n] == '\0'))
            return true;
    return false;
}

/* The group that lines of "number:controllers:group" put the process in; "" where they do not. */
static void own_group(const char *lines, const char *controller, char *group, size_t cap)
{
    FILE *f = fopen(lines, "re");
    char line[PATH_MAX];

    *group = '\0';
    while (f && fgets(line, sizeof line, f)) {
        /* Of "4:memory:/job/7" the group is "/job/7". */
        char *list = strchr(line, ':'), *at = list ? strchr(list + 1, ':') : NULL;

        if (!at)
            continue;
        *at++ = '\0';
        at[strcspn(at, "\n")] = '\0';
        if (listed(list + 1, controller))
            snprintf(group, cap, "%s", at);
    }
    if (f)
        fclose(f);
}

/* A container may show its group as the root of the tree and name it as the machine does: then
 * the lower folders are not there. */
size_t memory_left_in_groups(const char *tree, const char *lines)
{
    static const struct version versions[] = {
        { "", "", "memory.max", "memory.current", "inactive_file " },
        { "/memory", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
          "total_inactive_file " },
    };
    char group[PATH_MAX], folder[2 * PATH_MAX];
    size_t left = SIZE_MAX;

    for (int i = 0; i < 2; i++) {
        char *end = group;

        own_group(lines, versions[i].controller, group, sizeof group);
        /* From the own group up to the root: each limit on the way holds for all below it. */
        while (end) {
            size_t here;

            snprintf(folder, sizeof folder, "%s%s%s", tree, versions[i].folder, group);
            here = left_in(folder, &versions[i]);
            left = here < left ? here : left;
            if ((end = strrchr(group, '/')))
                *end = '\0';
        }
    }
    return left;
}

size_t memory_free_bytes(void)
{
    size_t kib = number_in("/proc", "meminfo", "MemAvailable:"), left = kib * 1024;
    size_t groups = memory_left_in_groups("/sys/fs/cgroup", "/proc/self/cgroup");

    /* Older kernels do not estimate what is available; pages that are free now are less. */
    if (kib == SIZE_MAX)
        left = (size_t)sysconf(_SC_AVPHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    return groups < left ? groups : left;
}
