/* tests/emulate/flash_keys.cc - compiles it for the CPU. */
#include "kernels/cuda/flash_keys.cu"
