/* kernels/cpu/cpu_few.h - matrix products with few rows, and with matrices of bfloat16. */
#ifndef KERNELS_CPU_CPU_FEW_H
#define KERNELS_CPU_CPU_FEW_H
#include "kernels/cpu/cpu.h"
#include "kernels/product.h"
C_BEGIN

/* Few rows times a matrix of float32 or bfloat16 that is read once: what bounds it is memory. */
bool cpu_few_takes(const struct op_gemm *g);
void cpu_few(struct device *d, const struct op_gemm *g);

/* Matrices of bfloat16, any number of rows. */
extern const struct mat_product cpu_bf16;

C_END
#endif
