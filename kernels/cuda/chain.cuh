/* kernels/cuda/chain.cuh - kernels that begin while the one in front of them ends (programmatic dependent
 * launch, PTX's griddepcontrol; sm_90 and later). */
#ifndef KERNELS_CUDA_CHAIN_CUH
#define KERNELS_CUDA_CHAIN_CUH
#include "kernels/cuda/cuda.h"

/*
 * A token's step is some 350 kernels of a few microseconds. One after the other, each waits for the last block of the
 * one in front and for its own launch, while the card's memory rests. A kernel of the chain begins earlier:
 *
 *     chain_next()     first: the kernel behind may be launched, once all blocks are here or through
 *     chain_wait()     the kernel in front is through, and what it wrote is seen
 *
 * Every thread calls chain_wait before it reads or writes anything that any op writes; also where it has nothing to
 * do, for a kernel waits for the one in front alone: that all those before are through it owes to that one's
 * waiting. (So arrays that the kernel in front reads are not overwritten either.) Blocks that wait hold
 * their places, but all of the kernel in front have theirs by then.
 *
 * chain_launch launches such a kernel, early where the last thing on the stream is another (chain_link, cuda.h);
 * chain_launch_with one that has so many bytes of shared memory that its launch names.
 */
#ifdef __CUDACC__ /* else: tests/emulate/instructions.h */
static __device__ __forceinline__ void chain_next(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
static __device__ __forceinline__ void chain_wait(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

template <typename... P, typename... A>
static void chain_launch_with(struct cuda *c, void (*kernel)(P...), dim3 blocks, unsigned threads, size_t shared_bytes,
                              const A &...args)
{
    cudaLaunchAttribute early = {};
    cudaLaunchConfig_t how = {};

    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    how.gridDim = blocks, how.blockDim = dim3(threads), how.dynamicSmemBytes = shared_bytes, how.stream = c->stream;
    how.attrs = &early, how.numAttrs = chain_link(c);
    (void)cudaLaunchKernelEx(&how, kernel, P(args)...); /* cuda_end asks what became of it */
}
template <typename... P, typename... A>
static void chain_launch(struct cuda *c, void (*kernel)(P...), dim3 blocks, unsigned threads, const A &...args)
{
    chain_launch_with(c, kernel, blocks, threads, 0, args...);
}
#endif
#endif
