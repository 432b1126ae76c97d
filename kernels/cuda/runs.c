/* kernels/cuda/runs.c - see runs.h. */
#include "kernels/cuda/runs.h"

#include <stdlib.h>
#include <string.h>

/* lists of more segments are not searched; NEAR bounds the work for each segment */
enum { MOST = 4096, NEAR = 16 }; /* seconds tried for each first */

struct seg {
    int64_t first, len, keys_first, keys;
    bool used;
};

static bool alike(const struct seg *a, const struct seg *b)
{
    return a->len == b->len && a->keys == b->keys &&
           a->keys_first - a->first == b->keys_first - b->first;
}

/* The unused segment of that place that is like one, from index lo on; -1: none. */
static int64_t find(const struct seg *s, int64_t n, int64_t lo, int64_t first, const struct seg *one)
{
    int64_t hi = n;

    while (lo < hi) {
        int64_t mid = lo + (hi - lo) / 2;
        if (s[mid].first < first)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < n && s[lo].first == first && alike(&s[lo], one) && !s[lo].used ? lo : -1;
}

/* How many segments as long as i's follow each other from i on, in steps from i to j. */
static int64_t length_of(const struct seg *s, int64_t n, int64_t i, int64_t j)
{
    int64_t step = s[j].first - s[i].first, count = 1;

    for (int64_t at = j; at >= 0; at = find(s, n, at, s[at].first + step, &s[i]))
        count++;
    return count;
}

/* The longest even run that starts at i; its segments become used. */
static struct run take(struct seg *s, int64_t n, int64_t i)
{
    struct run r = { s[i].first, 1, s[i].len, s[i].len, s[i].keys_first, s[i].keys };
    int64_t at = i;

    /* tries the next few of the same length as the second of the run */
    for (int64_t j = i + 1, tried = 0; j < n && tried < NEAR; j++) {
        int64_t count;
        if (s[j].used || !alike(&s[j], &s[i]))
            continue;
        tried++;
        if ((count = length_of(s, n, i, j)) > r.n) {
            r.n = count;
            r.step = s[j].first - s[i].first;
        }
    }
    /* goes along the best run again, now for good */
    for (int64_t k = 0; k < r.n; k++) {
        at = find(s, n, at, r.first + k * r.step, &s[i]);
        s[at].used = true;
    }
    return r;
}

/* Splits a list into runs, greedily from its beginning. -1: more than cap are needed. */
int runs_find(const struct op_segments *list, struct run *runs, int cap)
{
    const int64_t *kv = list->kv ? list->kv : list->cu;
    struct seg *s;
    int64_t n = 0;
    int count = 0;

    if (list->n > MOST || !(s = malloc((size_t)(list->n > 0 ? list->n : 1) * sizeof *s)))
        return -1;
    for (int64_t i = 0; i < list->n; i++) {
        int64_t len = list->cu[i + 1] - list->cu[i], keys = kv[i + 1] - kv[i];

        if (len <= 0) /* empty segments have no rows and no part in this */
            continue;
        s[n++] = (struct seg){ list->cu[i], len, kv[i], keys, false };
        if ((list->first ? list->first[i] : 0) + len != keys)
            count = -1;
    }
    for (int64_t i = 0; i < n && count >= 0; i++)
        if (!s[i].used) {
            if (count == cap)
                count = -1;
            else
                runs[count++] = take(s, n, i);
        }
    free(s);
    return count;
}

/* Different lengths of segments that are not empty: at most most of them into len; -1: more. */
static int lengths_of(const struct op_segments *s, int64_t *len, int most)
{
    int n = 0;

    for (int64_t i = 0; i < s->n; i++) {
        int64_t x = s->cu[i + 1] - s->cu[i];
        int k = 0;
        while (k < n && len[k] != x)
            k++;
        if (x == 0 || k < n)
            continue;
        if (n == most)
            return -1;
        len[n++] = x;
    }
    return n;
}

static bool equal(const struct op_segments *a, const struct op_segments *b)
{
    return a->n == b->n && memcmp(a->cu, b->cu, (size_t)(a->n + 1) * sizeof *a->cu) == 0;
}

/* Keys of the segments of one half that have queries, which must be 'group' in all but the last, and
 * in the first of shifted ones half of it. *group 0: the first found is taken. */
static bool parts_steady(const struct op_segments *s, bool shifted, int64_t *group)
{
    int64_t last = s->n - 1, seen = 0;

    while (last > 0 && s->cu[last + 1] == s->cu[last])
        last--;
    for (int64_t i = 0; i < last; i++) {
        int64_t keys = s->kv[i + 1] - s->kv[i];

        if (s->cu[i + 1] == s->cu[i] || (shifted && seen++ == 0 && keys == *group / 2))
            continue;
        *group = *group ? *group : keys;
        if (keys != *group)
            return false;
    }
    return true;
}

/* Whether lists come from a fixed group size alone. Dense ones are equal, of one length;
 * those of shifted groups have whole groups in the first half and begin with half a group in
 * the second. Documents make other lengths. */
bool runs_steady(const struct op_segments half[2])
{
    int64_t one[2], two[3]; /* groups and what is left; half a group, groups and what is left */
    int64_t group = 0;
    int n;

    if (half[0].kv && half[1].kv)
        return parts_steady(&half[0], false, &group) && parts_steady(&half[1], true, &group);
    n = lengths_of(&half[0], one, 2);
    if (equal(&half[0], &half[1]))
        return n == 1;
    return n > 0 && lengths_of(&half[1], two, 3) > 0 && two[0] == one[0] / 2;
}
