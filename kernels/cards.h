/* kernels/cards.h - GPUs by name: their memory, and what they may be expected to do in a second. */
#ifndef KERNELS_CARDS_H
#define KERNELS_CARDS_H
#include "kernels/kernels.h"
C_BEGIN

/* The words of an option that names one; card_at takes their places. */
#define CARDS "h200|h100|h100-pcie|a100-80|a100-40|l40s|a6000|rtx-4090|rtx-3090|b200"

struct card {
    const char *name;  /* as the driver says it, or a part of that */
    int sm;            /* compute capability, 10 * major + minor */
    double gib;        /* of memory, as the driver counts */
    double tflops;     /* of the data sheet: dense bf16, float32 sums */
    double memory_tb;  /* TB/s */
    double link_gb;    /* GB/s to and from the host, one way alone, of what its socket does */
    int sms;           /* multiprocessors */
};
const struct card *card_at(int place); /* of CARDS */
/* By the driver's name; NULL: not in the table. */
const struct card *card_named(const char *name);

/* The data sheet's figures at the shares of them that were measured on an H200. */
struct rates card_rates(const struct card *c);

/* What a driver says of a card; 0: it does not say. */
struct card_facts {
    const char *name;
    int arch;                  /* 90: of compute capability 9.0 */
    int sms, khz, memory_khz, bus_bits;
};
/* Its rates, none of them 0: by its name in the table, of a slice of such a card (MIG) the share of
 * its multiprocessors, else by its clocks or, where the driver does not tell them, usual ones. */
struct rates card_rates_of(const struct card_facts *f);

C_END
#endif
