/* tests/emulate/flash_back.cc - compiles it for the CPU. */
#include "kernels/cuda/flash_back.cu"
