/* probes/babi_story.h - who went where with what, and a question about it, as bAbI's first three tasks ask. */
#ifndef PROBES_BABI_STORY_H
#define PROBES_BABI_STORY_H
#include "base/bytes.h"
#include "probes/python_random.h"
#include <stdbool.h>
C_BEGIN

enum { BABI_PLACES = 6, BABI_LEAST = 3 };
extern const char *const babi_places[BABI_PLACES]; /* of which one is the answer */

/*
 * A small world after Weston et al. 2015, arXiv:1502.05698, section 4: people walk, take things, put them
 * down. task 1: where is somebody; 2: where is a thing; 3: where was it before another place. Facts are
 * drawn here, none is from that data set; they tell the answer without doubt: of task 3's place the thing
 * was there once. Zero it before; babi_free releases it.
 */
struct babi_story {
    struct buf facts;     /* n sentences, each ended by a NUL */
    int n;
    char question[80];
    const char *answer;   /* of babi_places */
    int told;             /* the fact that names it */
};
/* At most so many facts, BABI_LEAST or more. E_SYS, E_BUG. */
int babi_tell(struct babi_story *s, int task, int most, struct python_random *r, struct err *e);
void babi_free(struct babi_story *s);

C_END
#endif
