/* kernels/wires.h - what carries data between ranks, by name: to foretell what their sums take. */
#ifndef KERNELS_WIRES_H
#define KERNELS_WIRES_H
#include "base/err.h"
#include <stdbool.h>
#include <stdint.h>
C_BEGIN

/* Between the GPUs of a host, and between hosts. */
#define WIRES "nvlink5|nvlink4|nvlink3|pcie5|pcie4|800g|400g|200g|100g|10g"

/* Bytes a second, one way while as much comes the other way: of a name of WIRES, or "25g". False:
 * neither. */
bool wire_rate(const char *text, double *rate);
/* The usual one of a card (its name as in struct card) among those of its host. */
const char *wire_of_card(const char *card);

/* Seconds until a ring of so many ranks has added arrays of nbytes: each of its wires carries
 * 2 (ranks - 1) / ranks of them, and all wait for the slowest. */
double wire_sum_s(double nbytes, int64_t ranks, double rate);

C_END
#endif
