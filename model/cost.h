/* model/cost.h - what a micro-batch takes: time of its ops, of computing again, of copies. */
#ifndef MODEL_COST_H
#define MODEL_COST_H
#include "model/inside.h"

/* Seconds, where the device's rates are known; else numbers to compare with each other only. */
struct cost {
    double forward, backward;   /* of a layer that saves all its activations */
    double again[SAVE_LEVELS];  /* what a layer of that level computes again, more */
    double top;                 /* all that is not a layer's: embedding, loss, optimizer */
    double bare, bare_back;     /* of forward and backward: exchanges of ranks that no ops hide */
    double bare_again[SAVE_LEVELS];
    double out, in;             /* bytes a second to and from the host's memory; 0: it cannot */
    bool known;
};
/* The device says its rates; 0 of one of them is a driver that does not tell. */
bool cost_known(const struct device *d);
void cost_of(const struct model *m, struct cost *c); /* m has been laid out */

/* Bytes that travel in a micro-batch. */
struct traffic {
    double sent;     /* activations: out in the forward, in again in the backward */
    double forward;  /* weights in, for the forward */
    double backward; /* weights in, for the backward */
};
/* Time of the ops alone, without copies. saved[k]: of layers layers, how many save up to level k;
 * back: forward and backward. Never more than the lower bound, nor that than the simulation. */
double cost_of_ops(const struct cost *c, const int64_t saved[SAVE_LEVELS], int64_t layers, bool back);
/* The least that it can take: all copies beside ops, as far as those last. saved[k]: of layers
 * layers, how many keep up to level k. back: forward and backward. */
double cost_lower_bound(const struct cost *c, const struct traffic *t,
                        const int64_t saved[SAVE_LEVELS], int64_t layers, bool back);
/* What it will take, with ops and copies waiting for each other: offload.c runs on clocks. m has
 * been spread; it is left so but for its rings. nbytes: of an item of each ring. */
double cost_simulated(struct model *m, const struct cost *c, const struct traffic *t,
                      const size_t nbytes[RINGS], const int64_t saved[SAVE_LEVELS], bool back);
#endif
