/* tests/emulate/flash_single.cc - compiles it for the CPU. */
#include "kernels/cuda/flash_single.cu"
