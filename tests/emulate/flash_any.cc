/* tests/emulate/flash_any.cc - compiles it for the CPU. */
#include "kernels/cuda/flash_any.cu"
