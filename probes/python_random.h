/* probes/python_random.h - the random numbers of Python's random and of numpy's RandomState, to the
 * bit: what other projects' prompts were made with. */
#ifndef PROBES_PYTHON_RANDOM_H
#define PROBES_PYTHON_RANDOM_H
#include "base/err.h"
#include <stddef.h>
#include <stdint.h>
C_BEGIN

/* MT19937 (Matsumoto and Nishimura 1998). Python and numpy fill it differently from a seed, and make
 * other numbers of its words; one state serves both. Names of Python's and numpy's own functions
 * stand behind each; as in Python 3.11 and 3.12, and numpy 1.17 to 2. */
struct python_random {
    uint32_t word[624];
    int at;
};
void python_random_seed(struct python_random *r, uint64_t seed); /* random.seed, random.Random */
void numpy_random_seed(struct python_random *r, uint32_t seed);  /* numpy.random.seed */

uint32_t python_random_word(struct python_random *r); /* the next 32 bits: getrandbits(32) */
double python_random_real(struct python_random *r);   /* random(): [0, 1), 53 bits; numpy's too */
/* getrandbits(32 n), least word first. */
void python_random_bits(struct python_random *r, uint32_t *words, int n);
/* randrange(n), and so choice() of n things; n in 1 .. 2^63. */
uint64_t python_random_below(struct python_random *r, uint64_t n);
/* randint(low, high), high included; low <= high. */
int64_t python_random_int(struct python_random *r, int64_t low, int64_t high);
/* choices() of n things, once; n in 1 .. 2^53. */
int64_t python_random_choices(struct python_random *r, int64_t n);
/* sample(range(n), k): k different numbers below n, in the order drawn; 0 <= k <= n, else E_BUG. E_SYS. */
int python_random_sample(struct python_random *r, int64_t n, int64_t k, int64_t *out, struct err *e);
/* shuffle() of n items of 'each' bytes. */
void python_random_shuffle(struct python_random *r, void *items, int64_t n, size_t each);

/* numpy.random.randint(low, high), high not included, high - low in 1 .. 2^32. */
int64_t numpy_random_int(struct python_random *r, int64_t low, int64_t high);

C_END
#endif
