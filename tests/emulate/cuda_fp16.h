/* tests/emulate/cuda_fp16.h - nothing of it is needed. */
