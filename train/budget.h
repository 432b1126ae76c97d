/* train/budget.h - the memory that a run will take, said before it does, and what it took. */
#ifndef TRAIN_BUDGET_H
#define TRAIN_BUDGET_H
#include "base/err.h"
#include "model/session.h"
#include "train/settings.h"
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
C_BEGIN

/* Resident bytes of this process, now and at most so far; 0 where /proc does not say. */
int64_t budget_rss(void);
int64_t budget_peak_rss(void);

/* Bytes. The peak is the larger of loading (base weights are copied from mapped files, whose
 * pages count too) and training, when everything of the model's plan is in use. On a device with
 * memory of its own the plan alone is its peak, and the rest is the host's. */
struct budget {
    struct memory_plan model;
    size_t process; /* program, libraries, the matrix library's buffers: measured */
    size_t host;    /* rows of the data, pieces of a checkpoint on their way */
    size_t mapped;  /* the largest part of the base's files that is mapped at once */
    size_t peak;
    bool own_memory;   /* peak, free and capacity are of the device, host_peak of this process */
    size_t host_peak;
    size_t free; /* what the device could still give before the run took any */
    size_t capacity; /* what of that the model may take (model_capacity) */
    size_t held; /* what of a device's own memory this process has besides */
};

/* Called with the data open and the session planned, not loaded: measures the process after a
 * matrix product that makes the library take its buffers (not of a device that is only planned).
 * E_DEVICE. */
int budget_make(struct budget *b, struct session *s, size_t mapped, struct err *e);
/* What must stay resident where capacity was measured, and whether it is more than that. */
size_t budget_need(const struct budget *b);
bool budget_too_large(const struct budget *b);
/* Which layers save what: "all in 7 layers; q, k, v in 3 layers (up to attention offloaded); input
 * in 20 layers (offloaded); weights of 4 layers streamed". SAVED_CHARS hold a usual one. */
enum { SAVED_CHARS = 320 };
void budget_saved(const struct memory_plan *p, char *text, size_t cap);
/* A table for people. */
void budget_print(const struct budget *b, FILE *f);
json_t *budget_json(const struct budget *b);

C_END
#endif
