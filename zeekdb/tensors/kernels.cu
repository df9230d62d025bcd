/* The codecs of codecs.py for GPUs: the same bytes, one pass over a block in device memory.
 *
 * Compiled at run time, once for each pair of types, with
 *   FROM, TO    f32, f16, bf16 or f8 (encode_* read FROM, decode_* write TO)
 *   VEC         elements a thread handles at a time, 8 or 1. 8 wants counts that divide by 8: then a warp reads whole
 *               lines, and an address is calculated for 16 bytes instead of two.
 * Blocks, plain and encoded, begin at addresses that divide by 16.
 * Only C that a host compiler takes as well: the tests run these kernels there, thread by thread, against numpy.
 *
 * What decides over a bit: no fused multiply-add (the intrinsics forbid it), no flushing of subnormal numbers (the
 * compiler's default), rintf for ties to even, and the order of operations, which is numpy's. floats.py has the theory of
 * the conversions. "One pass": int8 needs a row or channel twice, for its largest and for its codes; the second time it
 * comes from the first or second cache, where the thread that has just read it left it.
 */

typedef unsigned char f8_t;
typedef unsigned short f16_t, bf16_t;
typedef unsigned int f32_t;

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define FROM_T JOIN(FROM, _t)
#define TO_T JOIN(TO, _t)
#define WIDEN JOIN(widen_, FROM)
#define NARROW JOIN(narrow_, TO)

#define LARGEST JOIN(LARGEST_, FROM) /* finite number, as f32 */
#define LARGEST_f32 0x7F7FFFFFu
#define LARGEST_f16 0x477FE000u
#define LARGEST_bf16 0x7F7F0000u
#define LARGEST_f8 0x43E00000u
#define MAGNITUDE 0x7FFFFFFFu
#define INFINITE 0x7F800000u
#define SCALE_MAX 0x1.020406p+121f
#define TINY 0x1p-119f
#define NAN_CODE (-128)
#define LANES 16 /* threads that share a row, or a column */

/* --- conversions: to and from the bits of an f32 --- */

__device__ __forceinline__ unsigned widen_f32(f32_t code) { return code; }
__device__ __forceinline__ unsigned widen_bf16(bf16_t code) { return (unsigned)code << 16; }

__device__ __forceinline__ unsigned widen_f16(f16_t code) {
    unsigned sign = (unsigned)(code & 0x8000) << 16, plain = code & 0x7FFFu;
    if (plain >= 0x7C00u) return sign | (plain > 0x7C00u ? 0x7FC00000u : INFINITE);
    return sign | __float_as_uint(__fmul_rn(__uint_as_float(plain << 13), 0x1p112f));
}

__device__ __forceinline__ unsigned widen_f8(f8_t code) {
    unsigned sign = (unsigned)(code & 0x80) << 24, plain = code & 0x7Fu;
    if (plain == 0x7Fu) return sign | 0x7FC00000u;
    return sign | __float_as_uint(__fmul_rn(__uint_as_float(plain << 20), 0x1p120f));
}

__device__ __forceinline__ f32_t narrow_f32(unsigned bits) { return bits; }

__device__ __forceinline__ bf16_t narrow_bf16(unsigned bits) {
    unsigned sign = bits >> 16 & 0x8000u, plain = bits & MAGNITUDE;
    if (plain > INFINITE) return (bf16_t)(sign | 0x7FC0u);
    if (plain >= 0x7F7F8000u) return (bf16_t)(sign | (plain == INFINITE ? 0x7F80u : 0x7F7Fu));
    return (bf16_t)(sign | (plain + 0x7FFFu + (plain >> 16 & 1u)) >> 16);
}

__device__ __forceinline__ f16_t narrow_f16(unsigned bits) {
    unsigned sign = bits >> 16 & 0x8000u, plain = bits & MAGNITUDE;
    if (plain > INFINITE) return (f16_t)(sign | 0x7E00u);
    if (plain >= 0x477FF000u) return (f16_t)(sign | (plain == INFINITE ? 0x7C00u : 0x7BFFu));
    if (plain < 0x38800000u) /* under 2^-14: the last place is 2^-24, as 0.5 has it */
        return (f16_t)(sign | (__float_as_uint(__fadd_rn(__uint_as_float(plain), 0.5f)) - 0x3F000000u));
    return (f16_t)(sign | (plain + 0xFFFu + (plain >> 13 & 1u) - (112u << 23)) >> 13);
}

__device__ __forceinline__ f8_t narrow_f8(unsigned bits) {
    unsigned sign = bits >> 24 & 0x80u, plain = bits & MAGNITUDE;
    if (plain > INFINITE) return (f8_t)(sign | 0x7Fu);
    if (plain >= 0x43E00000u) return (f8_t)(sign | 0x7Eu); /* 448 and more */
    if (plain < 0x3C800000u) /* under 2^-6: the last place is 2^-9, as 2^14 has it */
        return (f8_t)(sign | (__float_as_uint(__fadd_rn(__uint_as_float(plain), 0x1p14f)) - 0x46800000u));
    return (f8_t)(sign | (plain + 0x7FFFFu + (plain >> 20 & 1u) - (120u << 23)) >> 20);
}

/* --- several elements at once --- */

typedef struct __align__(VEC * sizeof(FROM_T) < 16 ? VEC * sizeof(FROM_T) : 16) { FROM_T at[VEC]; } from_vec;
typedef struct __align__(VEC * sizeof(TO_T) < 16 ? VEC * sizeof(TO_T) : 16) { TO_T at[VEC]; } to_vec;
typedef struct __align__(VEC) { signed char at[VEC]; } code_vec;

/* --- float to float: n elements --- */

extern "C" __global__ void convert(const FROM_T *in, TO_T *out, long long n) {
    long long at = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * VEC;
    if (at >= n) return;
    from_vec from = *(const from_vec *)(in + at);
    to_vec to;
    for (int k = 0; k < VEC; k++) to.at[k] = NARROW(WIDEN(from.at[k]));
    *(to_vec *)(out + at) = to;
}

/* --- int8 ---
 * A plane has `rows` × `columns` elements; encoded, `head` bytes (its scales and zeros), the codes, and zeros up to
 * `stride` bytes. The zeros are not written here.
 */

/* The larger of two magnitudes; the top bit says that infinity was met. */
__device__ __forceinline__ unsigned larger(unsigned a, unsigned b) {
    unsigned x = a & MAGNITUDE, y = b & MAGNITUDE;
    return (x > y ? x : y) | ((a | b) & ~MAGNITUDE);
}

__device__ __forceinline__ unsigned largest_of(from_vec from, unsigned found) {
    for (int k = 0; k < VEC; k++) {
        unsigned plain = WIDEN(from.at[k]) & MAGNITUDE;
        found = larger(found, plain < INFINITE ? plain : plain == INFINITE ? ~MAGNITUDE : 0u);
    }
    return found;
}

/* The scale, and what to multiply with, from what `larger` found. */
__device__ __forceinline__ float scale_of(unsigned found, float *inverse) {
    float largest = __uint_as_float(found & MAGNITUDE);
    if (largest < TINY) largest = found & ~MAGNITUDE ? __uint_as_float(LARGEST) : 0.0f;
    *inverse = largest > 0.0f ? __fdiv_rn(127.0f, largest) : 0.0f;
    return fminf(__fdiv_rn(largest, 127.0f), SCALE_MAX);
}

__device__ __forceinline__ signed char code_of(FROM_T code, float inverse) {
    unsigned bits = WIDEN(code);
    if ((bits & MAGNITUDE) > INFINITE) return NAN_CODE;
    float number = rintf(__fmul_rn(__uint_as_float(bits), inverse));
    return (signed char)(int)fminf(fmaxf(number, -127.0f), 127.0f);
}

/* LANES threads a row, `total` rows in all planes. */
extern "C" __global__ void encode_token(const FROM_T *in, unsigned char *out, long long total, int rows, int columns,
                                        long long head, long long stride) {
    long long row = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    int lane = threadIdx.x % LANES;
    int mine = row < total; /* nobody leaves before the threads of a warp have exchanged what they found */
    const FROM_T *from = in + row * columns;
    unsigned found = 0;
    float inverse, scale;
    if (mine)
        for (int at = lane * VEC; at < columns; at += LANES * VEC)
            found = largest_of(*(const from_vec *)(from + at), found);
    for (int step = LANES / 2; step; step /= 2) found = larger(found, __shfl_xor_sync(~0u, found, step));
    if (!mine) return;
    unsigned char *plane = out + row / rows * stride;
    long long within = row % rows;
    scale = scale_of(found, &inverse);
    if (lane == 0) ((float *)plane)[within] = scale;
    for (int at = lane * VEC; at < columns; at += LANES * VEC) {
        from_vec some = *(const from_vec *)(from + at);
        code_vec codes;
        for (int k = 0; k < VEC; k++) codes.at[k] = code_of(some.at[k], inverse);
        *(code_vec *)(plane + head + within * columns + at) = codes;
    }
}

/* A block of threads takes LANES × VEC columns of one plane: thread (lane, column) every LANES-th row of its VEC columns.
 * blockDim is LANES × LANES. */
extern "C" __global__ void encode_channel(const FROM_T *in, unsigned char *out, int groups, int rows, int columns,
                                          long long head, long long stride) {
    __shared__ unsigned found[LANES][LANES * VEC];
    __shared__ float inverses[LANES * VEC];
    int lane = threadIdx.x / LANES, column = threadIdx.x % LANES * VEC;
    long long plane = blockIdx.x / groups, first = (long long)(blockIdx.x % groups) * (LANES * VEC) + column;
    int mine = first < columns;
    const FROM_T *from = in + plane * rows * columns + first;
    unsigned char *to = out + plane * stride;
    for (int k = 0; k < VEC; k++) found[lane][column + k] = 0;
    if (mine)
        for (int row = lane; row < rows; row += LANES) {
            from_vec some = *(const from_vec *)(from + (long long)row * columns);
            for (int k = 0; k < VEC; k++) {
                unsigned plain = WIDEN(some.at[k]) & MAGNITUDE;
                plain = plain < INFINITE ? plain : plain == INFINITE ? ~MAGNITUDE : 0u;
                found[lane][column + k] = larger(found[lane][column + k], plain);
            }
        }
    __syncthreads();
    for (int at = threadIdx.x; at < LANES * VEC; at += LANES * LANES) {
        unsigned most = 0;
        for (int other = 0; other < LANES; other++) most = larger(most, found[other][at]);
        float scale = scale_of(most, &inverses[at]);
        long long channel = (long long)(blockIdx.x % groups) * (LANES * VEC) + at;
        if (channel < columns) ((float *)to)[channel] = scale;
    }
    __syncthreads();
    if (!mine) return;
    for (int row = lane; row < rows; row += LANES) {
        from_vec some = *(const from_vec *)(from + (long long)row * columns);
        code_vec codes;
        for (int k = 0; k < VEC; k++) codes.at[k] = code_of(some.at[k], inverses[column + k]);
        *(code_vec *)(to + head + (long long)row * columns + first) = codes;
    }
}

/* `total` elements in all planes. A row's length divides by VEC: so all VEC elements have one row, and one plane. */
__device__ __forceinline__ void decode(const unsigned char *in, TO_T *out, long long total, long long items, int columns,
                                       long long head, long long stride, int by_channel) {
    long long at = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * VEC;
    if (at >= total) return;
    long long plane = at / items;
    unsigned within = (unsigned)(at % items), row = within / (unsigned)columns, column = within % (unsigned)columns;
    const float *scales = (const float *)(in + plane * stride);
    code_vec codes = *(const code_vec *)(in + plane * stride + head + within);
    to_vec to;
    for (int k = 0; k < VEC; k++) {
        float scale = scales[by_channel ? column + k : row];
        unsigned bits = __float_as_uint(__fmul_rn((float)codes.at[k], scale));
        to.at[k] = NARROW(codes.at[k] == NAN_CODE ? 0x7FC00000u : bits);
    }
    *(to_vec *)(out + at) = to;
}

extern "C" __global__ void decode_token(const unsigned char *in, TO_T *out, long long total, long long items, int columns,
                                        long long head, long long stride) {
    decode(in, out, total, items, columns, head, stride, 0);
}

extern "C" __global__ void decode_channel(const unsigned char *in, TO_T *out, long long total, long long items,
                                          int columns, long long head, long long stride) {
    decode(in, out, total, items, columns, head, stride, 1);
}
