"""A 64-bit checksum for bulk data: blocks in memory, on the wire to other processes, and on the device.

It finds damage, not forgery: whoever knows it can make two blocks with one sum. It stands in files, so what follows
is fixed for good; a change needs another name.

`fold(a, b)` is the 128-bit product's upper half exclusive-or its lower half: one multiplication mixes 16 bytes. The
bytes are read as little-endian 64-bit words, sixteen to a stripe of 128 bytes. Lane i of eight begins as K[8 + i] and
takes its 16 bytes of every stripe (words x, y):

    lane = fold(x ^ K[i], y ^ lane)

so that eight multiplications are under way at a time and order matters within a lane. The last stripe is filled up
with zeroes if the length is no multiple of 128. At the end

    sum = length * K[16];  for every lane: sum = fold(sum ^ lane, K[i]) + lane
    sum ^= sum >> 32;  sum *= K[16];  sum ^= sum >> 29

The length tells a short stripe from one that ends in zeroes. K is SplitMix64's output (Steele, Lea, Flood 2014) for
the counters 1 to 17 with seed 0. The multiplication that folds is wyhash's idea (Wang Yi 2019); CRC-64 with tables
makes 2 GB/s where this is limited by memory.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

cdef extern from *:
    """
    #include <endian.h>
    #include <stdint.h>
    #include <string.h>
    static const uint64_t K[17] = {
        0xE220A8397B1DCDAFULL, 0x6E789E6AA1B965F4ULL, 0x06C45D188009454FULL, 0xF88BB8A8724C81ECULL,
        0x1B39896A51A8749BULL, 0x53CB9F0C747EA2EAULL, 0x2C829ABE1F4532E1ULL, 0xC584133AC916AB3CULL,
        0x3EE5789041C98AC3ULL, 0xF3B8488C368CB0A6ULL, 0x657EECDD3CB13D09ULL, 0xC2D326E0055BDEF6ULL,
        0x8621A03FE0BBDB7BULL, 0x8E1F7555983AA92FULL, 0xB54E0F1600CC4D19ULL, 0x84BB3F97971D80ABULL,
        0x7D29825C75521255ULL,
    };
    static inline uint64_t word(const uint8_t *p) { uint64_t w; memcpy(&w, p, 8); return le64toh(w); }
    static inline uint64_t fold(uint64_t a, uint64_t b) {
        unsigned __int128 product = (unsigned __int128)a * b;
        return (uint64_t)(product >> 64) ^ (uint64_t)product;
    }
    #define LANE(i) l##i = fold(word(p + 16 * i) ^ K[i], word(p + 16 * i + 8) ^ l##i)
    /* Lanes as locals: kept in registers through the loop. */
    static void fold_stripes(uint64_t *lanes, const uint8_t *p, size_t stripes) {
        uint64_t l0 = lanes[0], l1 = lanes[1], l2 = lanes[2], l3 = lanes[3];
        uint64_t l4 = lanes[4], l5 = lanes[5], l6 = lanes[6], l7 = lanes[7];
        for (; stripes; stripes--, p += 128) {
            LANE(0); LANE(1); LANE(2); LANE(3); LANE(4); LANE(5); LANE(6); LANE(7);
        }
        lanes[0] = l0; lanes[1] = l1; lanes[2] = l2; lanes[3] = l3;
        lanes[4] = l4; lanes[5] = l5; lanes[6] = l6; lanes[7] = l7;
    }
    #undef LANE
    static uint64_t finish(const uint64_t *lanes, uint64_t length) {
        uint64_t sum = length * K[16];
        for (int i = 0; i < 8; i++)
            sum = fold(sum ^ lanes[i], K[i]) + lanes[i];
        sum ^= sum >> 32;
        sum *= K[16];
        return sum ^ sum >> 29;
    }
    """
    const uint64_t[17] K
    void fold_stripes(uint64_t* lanes, const uint8_t* p, size_t stripes) nogil
    uint64_t finish(const uint64_t* lanes, uint64_t length) nogil


cdef inline void fold_rest(uint64_t* lanes, const uint8_t* p, size_t n) noexcept nogil:
    """The last stripe, if it is a short one."""
    cdef uint8_t[STRIPE] padded
    if n:
        memcpy(padded, p, n)
        memset(padded + n, 0, STRIPE - n)
        fold_stripes(lanes, padded, 1)


cdef void checksum_init(Checksum* c) noexcept nogil:
    memcpy(c.lanes, &K[LANES], sizeof(c.lanes))
    c.total = 0


cdef void checksum_update(Checksum* c, const uint8_t* p, size_t n) noexcept nogil:
    cdef size_t held = c.total % STRIPE
    cdef size_t part = min(n, STRIPE - held)
    c.total += n
    if held:
        memcpy(c.held + held, p, part)
        if held + part < STRIPE:
            return
        fold_stripes(c.lanes, c.held, 1)
        p += part
        n -= part
    fold_stripes(c.lanes, p, n // STRIPE)
    memcpy(c.held, p + n // STRIPE * STRIPE, n % STRIPE)


cdef uint64_t checksum_final(const Checksum* c) noexcept nogil:
    cdef uint64_t[LANES] lanes
    memcpy(lanes, c.lanes, sizeof(lanes))
    fold_rest(lanes, c.held, c.total % STRIPE)
    return finish(lanes, c.total)


cdef uint64_t checksum_of(const uint8_t* p, size_t n) noexcept nogil:
    cdef uint64_t[LANES] lanes
    memcpy(lanes, &K[LANES], sizeof(lanes))
    fold_stripes(lanes, p, n // STRIPE)
    fold_rest(lanes, p + n // STRIPE * STRIPE, n % STRIPE)
    return finish(lanes, n)


cdef class Sum:
    """See checksum.pyi."""

    cdef Checksum state

    def __cinit__(self):
        checksum_init(&self.state)

    def update(self, data):
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        with nogil:
            checksum_update(&self.state, <const uint8_t*>view.buf, <size_t>view.len)
        PyBuffer_Release(&view)

    def value(self):
        return checksum_final(&self.state)


def checksum(data):
    cdef Py_buffer view
    cdef uint64_t sum
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    with nogil:
        sum = checksum_of(<const uint8_t*>view.buf, <size_t>view.len)
    PyBuffer_Release(&view)
    return sum
