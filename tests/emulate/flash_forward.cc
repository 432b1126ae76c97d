/* tests/emulate/flash_forward.cc - compiles it for the CPU. */
#include "kernels/cuda/flash_forward.cu"
