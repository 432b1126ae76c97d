/* gen/stops.c - see stops.h. */
#include "gen/stops.h"

#include <string.h>

size_t stops_ready(const char *const *stop, int n, struct buf *text, size_t given, bool end,
                   bool *stopped)
{
    size_t ready = text->len;

    *stopped = false;
    for (int i = 0; i < n; i++) {
        size_t len = strlen(stop[i]);
        const char *at = text->len > given && len
                             ? memmem(text->p + given, text->len - given, stop[i], len) : NULL;

        if (at && (size_t)(at - text->p) <= ready) {
            ready = (size_t)(at - text->p);
            *stopped = true;
        }
    }
    if (*stopped) {
        text->len = ready;
        return ready - given;
    }
    /* the longest end of the text that begins some stop string */
    for (int i = 0; i < n && !end; i++) {
        size_t len = strlen(stop[i]), k = len ? len - 1 : 0;

        for (k = k < text->len - given ? k : text->len - given; k > 0; k--)
            if (memcmp(text->p + text->len - k, stop[i], k) == 0)
                break;
        if (text->len - k < ready)
            ready = text->len - k;
    }
    return ready - given;
}
