/* kernels/cuda/cuda_clock.c - times of queued ops, from pairs of events. */
#include "kernels/cuda/cuda.h"

#include <stdlib.h>

enum { PAIRS = 8192 };

struct cuda_clock {
    bool all, open;       /* open: a run of matrix ops goes on, on running */
    bool skips;           /* the op under way is not timed */
    cudaStream_t running;
    int n; /* pairs in use; beyond PAIRS nothing more is timed until they are read */
    cudaEvent_t from[PAIRS], to[PAIRS];
    int kind[PAIRS];
    bool made[PAIRS];
    double s[CUDA_KINDS], flop[CUDA_KINDS];
    int64_t calls[CUDA_KINDS];
};

#define NAME(name, matrix, words) #name,
#define IS_MATRIX(name, matrix, words) matrix,
static const char *const names[CUDA_KINDS] = {
    OPS(NAME) "copy/zero", "wait for copies", "wait for ranks", "to the host", "from the host", "between GPUs"
};
/* The matrix ops, the exchanges and what they keep ops waiting are timed always. */
static const bool is_matrix[CUDA_KINDS] = { OPS(IS_MATRIX) false };

int clock_open(struct cuda_clock **k)
{
    *k = calloc(1, sizeof **k);
    return *k ? 0 : E_SYS;
}

void clock_close(struct cuda_clock *k)
{
    for (int i = 0; k && i < PAIRS; i++)
        if (k->made[i]) {
            cudaEventDestroy(k->from[i]);
            cudaEventDestroy(k->to[i]);
        }
    free(k);
}

/* Whether an op of this kind gets a pair of events: those always, others while profiling. */
static bool timed(const struct cuda_clock *k, int kind)
{
    bool always = is_matrix[kind] || kind == CUDA_LINK || kind == CUDA_WAIT_LINK;

    return (k->all || always) && k->n < PAIRS;
}

/* Matrix ops one after the other are timed as one: on the GPU an event takes time too. */
void clock_rest(struct cuda_clock *k)
{
    if (k->open)
        cudaEventRecord(k->to[k->n++], k->running);
    k->open = false;
}

/* Without events an op is not timed, and has not failed: CUDA forgets that they could not be. */
static bool make_pair(struct cuda_clock *k, int i)
{
    if (cudaEventCreate(&k->from[i]) == cudaSuccess) {
        if (cudaEventCreate(&k->to[i]) == cudaSuccess)
            return true;
        cudaEventDestroy(k->from[i]);
    }
    (void)cudaGetLastError();
    return false;
}

/* Begins a pair, unless the op goes on with a run of matrix ops whose pair is open. */
void clock_start(struct cuda_clock *k, int kind, cudaStream_t s)
{
    int i;

    if (k->open && is_matrix[kind])
        return;
    clock_rest(k);
    i = k->n;
    if (!timed(k, kind))
        return;
    /* events are made when first wanted and used again from then on */
    if (!k->made[i]) {
        k->made[i] = make_pair(k, i);
        if (!k->made[i])
            return;
    }
    cudaEventRecord(k->from[i], s);
}

/* Of an op that takes as long as its events would, unless everything is timed. */
bool clock_skip(struct cuda_clock *k, int kind, cudaStream_t s)
{
    bool event = k->all || k->open;

    if (k->all) {
        clock_start(k, kind, s);
        return event;
    }
    clock_rest(k);
    k->skips = true;
    return event;
}

/* Counts the op. Its pair stays open, because the next op may go on with it; clock_rest ends
 * it. */
void clock_stop(struct cuda_clock *k, int kind, double flop, cudaStream_t s)
{
    k->calls[kind]++;
    k->flop[kind] += flop;
    if (k->skips || k->open || !timed(k, kind) || !k->made[k->n]) {
        k->skips = false;
        return;
    }
    k->kind[k->n] = kind;
    k->running = s;
    k->open = true;
    /* each op by itself while profiling */
    if (k->all || !is_matrix[kind])
        clock_rest(k);
}

/* The pair goes to place j, and what is there to its place. */
static void swap_pairs(struct cuda_clock *k, int i, int j)
{
    cudaEvent_t from = k->from[i], to = k->to[i];
    int kind = k->kind[i];

    k->from[i] = k->from[j], k->to[i] = k->to[j], k->kind[i] = k->kind[j];
    k->from[j] = from, k->to[j] = to, k->kind[j] = kind;
}

/* Reads the pairs that are complete, and frees them for new ones. cuda_sync has waited for all but
 * exchanges under way, whose pairs stay. Returns the seconds of the matrix ops and adds those of the
 * exchanges to *link_s, and what ops waited for them to *wait_s. */
double clock_collect(struct cuda_clock *k, double *link_s, double *wait_s)
{
    double matrix = 0;
    int left = 0;

    for (int i = 0; i < k->n; i++) {
        float ms;
        cudaError_t r = cudaEventElapsedTime(&ms, k->from[i], k->to[i]);

        if (r != cudaSuccess)
            (void)cudaGetLastError();
        if (r == cudaErrorNotReady)
            swap_pairs(k, i, left++);
        if (r != cudaSuccess)
            continue;
        k->s[k->kind[i]] += 1e-3 * (double)ms;
        matrix += is_matrix[k->kind[i]] ? 1e-3 * (double)ms : 0;
        *link_s += k->kind[i] == CUDA_LINK ? 1e-3 * (double)ms : 0;
        *wait_s += k->kind[i] == CUDA_WAIT_LINK ? 1e-3 * (double)ms : 0;
    }
    k->n = left;
    return matrix;
}

/* Also switches the timing of all kinds on or off, for what comes next. */
int clock_report(struct cuda_clock *k, bool all, struct op_time *t, int max)
{
    clock_rest(k);
    k->all = all;
    for (int i = 0; i < CUDA_KINDS && i < max; i++)
        /* the last kinds run beside the ops, so that their times do not add up with them */
        t[i] = (struct op_time){ names[i], k->calls[i], k->s[i], k->flop[i], i >= CUDA_SEND };
    return CUDA_KINDS;
}
