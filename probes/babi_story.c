/* probes/babi_story.c - who went where with what, and a question about it. */
#include "probes/babi_story.h"

#include <stdio.h>
#include <string.h>

const char *const babi_places[BABI_PLACES] = {
    "bathroom", "bedroom", "garden", "hallway", "kitchen", "office",
};
static const char *const people[] = { "Daniel", "John", "Mary", "Sandra" };
static const char *const things[] = { "apple", "football", "milk" };
static const char *const walks[] = { "moved to", "went to", "went back to", "journeyed to", "travelled to" };
static const char *const takes[] = { "got", "grabbed", "picked up", "took" };
static const char *const drops[] = { "discarded", "dropped", "left", "put down" };
#define COUNT(list) (int)(sizeof(list) / sizeof *(list))
enum { PEOPLE = COUNT(people), THINGS = COUNT(things), NOWHERE = -1, NOBODY = -1, MOST_STAYS = 512, TRIES = 1000 };

/* Where a thing has been, as far as facts say: no place twice in a row. */
struct stay {
    int place, told; /* by which fact */
};
struct world {
    int place[PEOPLE];      /* in truth */
    int told[PEOPLE];       /* the fact that says so; NOWHERE: none does */
    int lies[THINGS];       /* in truth, where nobody has it */
    int holder[THINGS];
    struct stay stay[THINGS][MOST_STAYS];
    int stays[THINGS];
};

static int any(struct python_random *r, int n) { return (int)python_random_below(r, (uint64_t)n); }

static void begin(struct world *w, struct python_random *r)
{
    memset(w, 0, sizeof *w);
    for (int i = 0; i < PEOPLE; i++) {
        w->place[i] = any(r, BABI_PLACES);
        w->told[i] = NOWHERE;
    }
    for (int i = 0; i < THINGS; i++) {
        w->lies[i] = any(r, BABI_PLACES);
        w->holder[i] = NOBODY;
    }
}

static void note_stay(struct world *w, int thing, int who)
{
    int n = w->stays[thing];

    if (w->told[who] != NOWHERE && n < MOST_STAYS &&
        (n == 0 || w->stay[thing][n - 1].place != w->place[who]))
        w->stay[thing][w->stays[thing]++] = (struct stay){ w->place[who], w->told[who] };
}

static int walk(struct world *w, struct babi_story *s, struct python_random *r, struct err *e)
{
    const int who = any(r, PEOPLE), to = any(r, BABI_PLACES - 1);

    w->place[who] = to + (to >= w->place[who]);
    w->told[who] = s->n;
    for (int i = 0; i < THINGS; i++)
        if (w->holder[i] == who)
            note_stay(w, i, who);
    return buf_printf(&s->facts, e, "%s %s the %s.", people[who], walks[any(r, COUNT(walks))],
                      babi_places[w->place[who]]);
}

/* Somebody takes a thing where it lies, or puts one down; false: nobody can. */
static bool handle(struct world *w, struct babi_story *s, bool take, struct python_random *r, int *rc,
                   struct err *e)
{
    int can[PEOPLE * THINGS][2], n = 0, who, thing;

    for (int p = 0; p < PEOPLE; p++)
        for (int i = 0; i < THINGS; i++)
            if (take ? w->holder[i] == NOBODY && w->lies[i] == w->place[p] : w->holder[i] == p) {
                can[n][0] = p;
                can[n++][1] = i;
            }
    if (n == 0)
        return false;
    n = any(r, n);
    who = can[n][0];
    thing = can[n][1];
    w->holder[thing] = take ? who : NOBODY;
    w->lies[thing] = w->place[who];
    if (take)
        note_stay(w, thing, who);
    *rc = buf_printf(&s->facts, e, "%s %s the %s%s.", people[who],
                     take ? takes[any(r, COUNT(takes))] : drops[any(r, COUNT(drops))], things[thing],
                     any(r, 2) ? " there" : "");
    return true;
}

/* The next fact: of four, one takes and less than one puts down, if that is possible. */
static int add_fact(struct world *w, struct babi_story *s, int task, struct python_random *r, struct err *e)
{
    const int what = task == 1 ? 0 : any(r, 16);
    int rc = 0;

    if (what < 8 || !handle(w, s, what < 13, r, &rc, e))
        rc = walk(w, s, r, e);
    if (rc == 0 && (rc = buf_add(&s->facts, "", 1, e)) == 0)
        s->n++;
    return rc;
}

static bool ask_person(const struct world *w, struct babi_story *s, struct python_random *r)
{
    int can[PEOPLE], n = 0, who;

    for (int p = 0; p < PEOPLE; p++)
        if (w->told[p] != NOWHERE)
            can[n++] = p;
    if (n == 0)
        return false;
    who = can[any(r, n)];
    snprintf(s->question, sizeof s->question, "Where is %s?", people[who]);
    s->answer = babi_places[w->place[who]];
    s->told = w->told[who];
    return true;
}

static bool ask_thing(const struct world *w, struct babi_story *s, struct python_random *r)
{
    int can[THINGS], n = 0, thing;
    const struct stay *last;

    for (int i = 0; i < THINGS; i++)
        if (w->stays[i] > 0)
            can[n++] = i;
    if (n == 0)
        return false;
    thing = can[any(r, n)];
    last = &w->stay[thing][w->stays[thing] - 1];
    snprintf(s->question, sizeof s->question, "Where is the %s?", things[thing]);
    s->answer = babi_places[last->place];
    s->told = last->told;
    return true;
}

/* Of stays that have one before them, those at a place where the thing was only then. */
static bool ask_before(const struct world *w, struct babi_story *s, struct python_random *r)
{
    int can[THINGS * BABI_PLACES][2], n = 0, thing, at;

    for (int i = 0; i < THINGS; i++)
        for (int k = 1; k < w->stays[i]; k++) {
            int times = 0;

            for (int j = 0; j < w->stays[i]; j++)
                times += w->stay[i][j].place == w->stay[i][k].place;
            if (times == 1) {
                can[n][0] = i;
                can[n++][1] = k;
            }
        }
    if (n == 0)
        return false;
    n = any(r, n);
    thing = can[n][0];
    at = can[n][1];
    snprintf(s->question, sizeof s->question, "Where was the %s before the %s?", things[thing],
             babi_places[w->stay[thing][at].place]);
    s->answer = babi_places[w->stay[thing][at - 1].place];
    s->told = w->stay[thing][at - 1].told;
    return true;
}

/* bAbI asks five times in a story, and each question makes one of its own with all facts before it. */
static int facts_wanted(int task, int most, struct python_random *r)
{
    int n = 0;

    for (int q = any(r, 5); q >= 0; q--)
        n += task == 1 ? 2 : task == 2 ? 2 + any(r, 7) : 4 + any(r, 13);
    return n < most ? n : most;
}

int babi_tell(struct babi_story *s, int task, int most, struct python_random *r, struct err *e)
{
    bool (*const ask)(const struct world *, struct babi_story *, struct python_random *) =
        task == 1 ? ask_person : task == 2 ? ask_thing : ask_before;
    struct world w;
    int rc = 0;

    for (int try = 0; try < TRIES; try++) {
        const int wanted = facts_wanted(task, most, r);

        begin(&w, r);
        s->facts.len = 0;
        s->n = 0;
        while (s->n < most) {
            if ((rc = add_fact(&w, s, task, r, e)) < 0)
                return rc;
            if (s->n >= wanted && ask(&w, s, r))
                return 0;
        }
    }
    return err_set(e, E_BUG, "no story of %d facts for task %d", most, task);
}

void babi_free(struct babi_story *s)
{
    buf_free(&s->facts);
    *s = (struct babi_story){ .n = 0 };
}
