/* kernels/rate.h - how fast a device multiplies matrices: what other speeds are held against. */
#ifndef KERNELS_RATE_H
#define KERNELS_RATE_H
#include "kernels/kernels.h"
C_BEGIN

/* Floating-point operations a second of one product of square matrices, the best of a few;
 * as large as tell a device's rate, smaller where room bytes do not hold three of them. Takes
 * some 20 ms, and gives its memory back. E_DEVICE, E_SYS. */
int rate_matrix(struct device *d, size_t room, double *flop_s, struct err *e);

C_END
#endif
