/* A GPU's threads on the host, for kernels.cu: enough of CUDA C for a C compiler, and a scheduler.
 *
 * A block's threads are coroutines. Each runs until it waits for the others (__syncthreads, a shuffle) or ends; then the
 * next one does. After a round all have arrived, as the kernels wait the same number of times in every thread that has
 * not ended. Blocks run one after the other. Shared memory is filled with rubbish before each, as on a device.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define THREADS_MAX 1024
#define STACK_BYTES 32768

#define __global__
#define __device__ static
#define __forceinline__ inline
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))

typedef struct { unsigned x; } dim;
static dim threadIdx, blockIdx, blockDim;

static ucontext_t scheduler, threads[THREADS_MAX];
static char stacks[THREADS_MAX][STACK_BYTES];
static int ended[THREADS_MAX];
static unsigned exchanged[THREADS_MAX];

static void __syncthreads(void) {
    unsigned mine = threadIdx.x;
    swapcontext(&threads[mine], &scheduler);
    threadIdx.x = mine;
}

static unsigned __shfl_xor_sync(unsigned mask, unsigned value, int step) {
    unsigned found, mine = threadIdx.x;
    if (mask != ~0u) abort();
    exchanged[mine] = value;
    __syncthreads();
    if (ended[mine ^ step]) abort(); /* undefined on a device */
    found = exchanged[mine ^ step];
    __syncthreads();
    return found;
}

static float __uint_as_float(unsigned bits) { float number; memcpy(&number, &bits, 4); return number; }
static unsigned __float_as_uint(float number) { unsigned bits; memcpy(&bits, &number, 4); return bits; }
static float __fmul_rn(float a, float b) { return a * b; }
static float __fadd_rn(float a, float b) { return a + b; }
static float __fdiv_rn(float a, float b) { return a / b; }

static void thread(void); /* the kernel with its arguments, see host_gpu.py */

static void coroutine(int mine) {
    threadIdx.x = mine;
    thread();
    ended[mine] = 1;
}

static void run_blocks(unsigned blocks, unsigned size) {
    blockDim.x = size;
    for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++) {
        for (unsigned at = 0; at < size; at++) {
            ended[at] = 0;
            getcontext(&threads[at]);
            threads[at].uc_stack.ss_sp = stacks[at];
            threads[at].uc_stack.ss_size = STACK_BYTES;
            threads[at].uc_link = &scheduler;
            makecontext(&threads[at], (void (*)(void))coroutine, 1, (int)at);
        }
        for (unsigned left = size; left;) {
            left = 0;
            for (unsigned at = 0; at < size; at++)
                if (!ended[at]) {
                    swapcontext(&scheduler, &threads[at]);
                    left += !ended[at];
                }
        }
    }
}
