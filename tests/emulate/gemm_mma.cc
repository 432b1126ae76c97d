/* tests/emulate/gemm_mma.cc - compiles it for the CPU. */
#include "kernels/cuda/gemm_mma.cu"
