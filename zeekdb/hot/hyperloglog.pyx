"""How many different elements were seen, in 12 KiB at most: HyperLogLog over a plain string.

An element's hash picks one of 16384 registers with 14 bits; the register keeps the longest run of zeros that the
other 50 bits ever began with, plus one. The string is Redis's own, byte for byte, so that values move between servers:

    "HYLL" | encoding (0 dense, 1 sparse) | 3 unused | cardinality, 8 bytes, the last one's high bit: out of date
    dense:  16384 registers of 6 bits, the first in the lowest bits of the first byte
    sparse: runs of registers: 00nnnnnn, n + 1 of them 0; 01nnnnnn nnnnnnnn, n + 1 of them 0; 1vvvvvnn, n + 1 are v + 1

A sparse string grows by splitting a run in two or three, and turns dense at a register above 32 or when it would
outgrow hll-sparse-max-bytes. Which runs are merged again, and when, is part of the format too: equal histories must
make equal bytes.

DANGER: the string may be anything, for SET and SETRANGE write it as well. Every run is checked against the end of the
string and against the 16384 registers before it is used; what does not fit is a corrupted object, an error.

Sources: P. Flajolet et al., "HyperLogLog" (2007); S. Heule et al., "HyperLogLog in Practice" (2013), for the hash's
width; O. Ertl, "New cardinality estimation algorithms for HyperLogLog sketches" (2017), for the estimator, which needs
no correction tables; A. Appleby's MurmurHash64A.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.math cimport INFINITY, sqrt
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memmove, memset

from zeekdb.errors import CommandError

cdef extern from "math.h" nogil:
    long long llround(double)

cdef enum:
    INDEX_BITS = 14
    REGISTERS = 16384
    HASH_BITS = 50  # of the hash, beside the index
    REGISTER_MAX = 63
    HEADER = 16
    DENSE_SIZE = 12304  # HEADER + REGISTERS * 6 / 8
    DENSE = 0
    SPARSE = 1
    ZERO_RUN_MAX = 64  # in one byte
    VALUE_RUN_MAX = 4
    VALUE_MAX = 32  # in a sparse string
    SPLIT_MAX = 5  # bytes that one run may become
    MERGE_RUNS_MAX = 5  # runs looked at after a change

cdef double ALPHA = 0.721347520444481703680
cdef enum Change:
    SAME, RAISED, TOO_LARGE, CORRUPT

ctypedef struct Run:
    uint32_t length  # registers
    uint8_t value
    uint8_t size  # bytes

ctypedef struct Sketch:
    uint8_t* data  # header and all; in a buffer that has room for a dense string or SPLIT_MAX more bytes
    size_t size


def corrupted():
    """The error for strings that no HyperLogLog leaves behind."""
    return CommandError("INVALIDOBJ Corrupted HLL object detected")


# --- hashing ------------------------------------------------------------------------------------------------------


cdef uint64_t murmur(const uint8_t* p, size_t n) noexcept nogil:
    """MurmurHash64A, with Redis's seed, of little-endian words."""
    cdef uint64_t m = 0xC6A4A7935BD1E995ULL
    cdef uint64_t h = 0xADC83B19ULL ^ (n * m)
    cdef uint64_t k
    cdef size_t i
    while n >= 8:
        memcpy(&k, p, 8)
        k *= m
        k ^= k >> 47
        k *= m
        h = (h ^ k) * m
        p += 8
        n -= 8
    if n:
        for i in range(n):
            h ^= <uint64_t>p[i] << (8 * i)
        h *= m
    h ^= h >> 47
    h *= m
    return h ^ (h >> 47)


cdef uint8_t pattern(const uint8_t* p, size_t n, uint32_t* index) noexcept nogil:
    """An element's register and what it should hold at least."""
    cdef uint64_t h = murmur(p, n)
    cdef uint8_t count = 1
    index[0] = <uint32_t>(h & (REGISTERS - 1))
    h = h >> INDEX_BITS | 1ULL << HASH_BITS
    while not h & 1:
        count += 1
        h >>= 1
    return count


# --- dense registers ----------------------------------------------------------------------------------------------


cdef inline uint8_t dense_get(const uint8_t* registers, uint32_t index) noexcept nogil:
    """DANGER: index below REGISTERS, and behind `registers` all of DENSE_SIZE - HEADER bytes."""
    cdef uint32_t at = index * 6 // 8, shift = index * 6 & 7
    cdef uint32_t word = registers[at]
    if shift > 2:  # the last register's does not reach beyond the last byte
        word |= <uint32_t>registers[at + 1] << 8
    return <uint8_t>(word >> shift & REGISTER_MAX)


cdef inline void dense_put(uint8_t* registers, uint32_t index, uint8_t value) noexcept nogil:
    """DANGER: as `dense_get`."""
    cdef uint32_t at = index * 6 // 8, shift = index * 6 & 7
    registers[at] = <uint8_t>((registers[at] & ~(REGISTER_MAX << shift)) | value << shift)
    if shift > 2:
        registers[at + 1] = <uint8_t>(
            (registers[at + 1] & ~(REGISTER_MAX >> (8 - shift))) | value >> (8 - shift)
        )


cdef Change dense_raise(uint8_t* registers, uint32_t index, uint8_t value) noexcept nogil:
    if dense_get(registers, index) >= value:
        return SAME
    dense_put(registers, index, value)
    return RAISED


# --- sparse runs --------------------------------------------------------------------------------------------------


cdef inline bint read_run(const uint8_t* p, size_t left, Run* run) noexcept nogil:
    """The run at p; False when it is cut off."""
    cdef uint8_t byte
    if not left:
        return False
    byte = p[0]
    run.size = 1
    run.value = 0
    if byte & 0x80:
        run.value = (byte >> 2 & 31) + 1
        run.length = (byte & 3) + 1
    elif byte & 0x40:
        if left < 2:
            return False
        run.size = 2
        run.length = (<uint32_t>(byte & 63) << 8 | p[1]) + 1
    else:
        run.length = (byte & 63) + 1
    return True


cdef inline uint8_t value_run(uint8_t value, uint32_t length) noexcept nogil:
    return <uint8_t>(0x80 | (value - 1) << 2 | (length - 1))


cdef size_t write_run(uint8_t* p, uint8_t value, uint32_t length) noexcept nogil:
    """Bytes written, none for an empty run."""
    if not length:
        return 0
    if value:
        p[0] = value_run(value, length)
        return 1
    length -= 1
    if length < ZERO_RUN_MAX:
        p[0] = <uint8_t>length
        return 1
    p[0] = <uint8_t>(0x40 | length >> 8)
    p[1] = <uint8_t>(length & 255)
    return 2


cdef Change sparse_raise(Sketch* sketch, uint32_t index, uint8_t value, size_t size_max) noexcept nogil:
    """Raise a register to a value, if it is lower. The sketch has room for SPLIT_MAX more bytes."""
    cdef Run run
    cdef uint8_t[8] split
    cdef uint32_t first = 0
    cdef size_t at = HEADER, before = HEADER, size
    if value > VALUE_MAX:
        return TOO_LARGE
    while True:
        if not read_run(sketch.data + at, sketch.size - at, &run):
            return CORRUPT
        if index < first + run.length:
            break
        first += run.length
        before = at
        at += run.size
    if run.value >= value:
        return SAME
    if run.length == 1 and run.size == 1:
        sketch.data[at] = value_run(value, 1)
    else:
        size = write_run(split, run.value, index - first)
        size += write_run(split + size, value, 1)
        size += write_run(split + size, run.value, first + run.length - 1 - index)
        if size > run.size:
            if sketch.size + size - run.size > size_max:
                return TOO_LARGE
        memmove(sketch.data + at + size, sketch.data + at + run.size, sketch.size - at - run.size)
        memcpy(sketch.data + at, split, size)
        sketch.size = sketch.size + size - run.size
    merge_runs(sketch, before)
    return RAISED


cdef void merge_runs(Sketch* sketch, size_t at) noexcept nogil:
    """Join runs of equal values from a place on; only a few, for no more than that can have become equal."""
    cdef Run run, following
    cdef int left
    for left in range(MERGE_RUNS_MAX):
        if not read_run(sketch.data + at, sketch.size - at, &run):
            return
        if (
            run.value
            and read_run(sketch.data + at + 1, sketch.size - at - 1, &following)
            and following.value == run.value
            and run.length + following.length <= VALUE_RUN_MAX
        ):
            sketch.data[at + 1] = value_run(run.value, run.length + following.length)
            memmove(sketch.data + at, sketch.data + at + 1, sketch.size - at - 1)
            sketch.size -= 1
            continue  # the joined run may fit the next one as well
        at += run.size


cdef bint sparse_to_registers(const uint8_t* data, size_t size, uint8_t* registers) noexcept nogil:
    """Raise REGISTERS bytes to the values of a sparse string; False when it does not describe that many."""
    cdef Run run
    cdef size_t at = HEADER
    cdef uint32_t first = 0, index
    while at < size:
        if not read_run(data + at, size - at, &run) or first + run.length > REGISTERS:
            return False
        if run.value:
            for index in range(first, first + run.length):
                if registers[index] < run.value:
                    registers[index] = run.value
        first += run.length
        at += run.size
    return first == REGISTERS


# --- sketches -----------------------------------------------------------------------------------------------------


cdef bint to_registers(const uint8_t* data, size_t size, uint8_t* registers) noexcept nogil:
    """The same for either encoding."""
    cdef uint32_t index
    cdef uint8_t value
    if data[4] == SPARSE:
        return sparse_to_registers(data, size, registers)
    if size != DENSE_SIZE:
        return False
    for index in range(REGISTERS):
        value = dense_get(data + HEADER, index)
        if registers[index] < value:
            registers[index] = value
    return True


cdef bint make_dense(Sketch* sketch) noexcept nogil:
    """Turn a sparse sketch dense, in a buffer that has room for it. The header's other fields stay."""
    cdef uint8_t[REGISTERS] registers
    cdef uint32_t index
    memset(registers, 0, REGISTERS)
    if not to_registers(sketch.data, sketch.size, registers):
        return False
    memset(sketch.data + HEADER, 0, DENSE_SIZE - HEADER)
    for index in range(REGISTERS):
        dense_put(sketch.data + HEADER, index, registers[index])
    sketch.data[4] = DENSE
    sketch.size = DENSE_SIZE
    return True


cdef Change raise_register(Sketch* sketch, uint32_t index, uint8_t value, size_t size_max) noexcept nogil:
    """Raise a register, turning the sketch dense where that is due."""
    cdef Change change
    if sketch.data[4] == SPARSE:
        change = sparse_raise(sketch, index, value, size_max)
        if change != TOO_LARGE:
            return change
        if not make_dense(sketch):
            return CORRUPT
    return dense_raise(sketch.data + HEADER, index, value)


cdef inline void forget_count(Sketch* sketch) noexcept nogil:
    sketch.data[15] |= 0x80


cdef double tau(double x) noexcept nogil:
    """Ertl's correction for registers at their maximum; x from 0 to 1."""
    cdef double before, y = 1.0, z = 1 - x
    if x == 0 or x == 1:
        return 0
    while True:
        x = sqrt(x)
        before = z
        y *= 0.5
        z -= (1 - x) * (1 - x) * y
        if before == z:
            return z / 3


cdef double sigma(double x) noexcept nogil:
    """Ertl's correction for registers at zero; x from 0 to 1."""
    cdef double before, y = 1, z = x
    if x == 1:
        return INFINITY
    while True:
        x *= x
        before = z
        z += x * y
        y += y
        if before == z:
            return z


cdef uint64_t estimate(const uint8_t* registers) noexcept nogil:
    """How many elements made these registers."""
    cdef uint32_t[256] histogram
    cdef uint32_t index
    cdef int value
    cdef double m = REGISTERS, z
    memset(histogram, 0, sizeof(histogram))
    for index in range(REGISTERS):
        histogram[registers[index]] += 1
    z = m * tau((m - histogram[HASH_BITS + 1]) / m)
    for value in range(HASH_BITS, 0, -1):
        z += histogram[value]
        z *= 0.5
    z += m * sigma(histogram[0] / m)
    if z == 0:  # registers that no hash fills: beyond all numbers
        return 1ULL << 63
    return <uint64_t>llround(ALPHA * m * m / z)


# --- doors --------------------------------------------------------------------------------------------------------


cdef class Room:
    """A buffer that a sketch may grow in."""

    cdef Sketch sketch
    cdef bytearray buffer
    cdef size_t size_max

    def __cinit__(self, bytes value, size_t elements, size_t size_max):
        cdef size_t size = PyBytes_GET_SIZE(value)
        cdef size_t growth = (SPLIT_MAX - 1) * elements if elements < DENSE_SIZE else (SPLIT_MAX - 1) * DENSE_SIZE
        self.size_max = size_max
        self.buffer = bytearray(max(size + growth + SPLIT_MAX, DENSE_SIZE))
        self.sketch.data = <uint8_t*>self.buffer
        self.sketch.size = size
        memcpy(self.sketch.data, PyBytes_AS_STRING(value), size)

    cdef Change put(self, uint32_t index, uint8_t value):
        """Raise a register."""
        cdef Py_ssize_t size = len(self.buffer)
        if self.sketch.size + SPLIT_MAX > <size_t>size:  # DANGER: growing moves the data
            self.buffer.extend(bytes(size))
            self.sketch.data = <uint8_t*>self.buffer
        return raise_register(&self.sketch, index, value, self.size_max)

    cdef bytes taken(self):
        return PyBytes_FromStringAndSize(<char*>self.sketch.data, self.sketch.size)


def empty():
    """A sketch that has seen nothing."""
    return b"HYLL\x01" + bytes(11) + b"\x7f\xff"


def is_valid(bytes value not None):
    """Whether a string looks like a sketch; the runs of a sparse one are checked when they are used."""
    cdef size_t size = PyBytes_GET_SIZE(value)
    cdef const char* data = PyBytes_AS_STRING(value)
    if size < HEADER or memcmp(data, b"HYLL", 4):
        return False
    return data[4] == SPARSE or (data[4] == DENSE and size == DENSE_SIZE)


def is_sparse(bytes value not None):
    """Of a valid sketch."""
    return value[4] == SPARSE


def cached_count(bytes value not None):
    """The count that the header holds; None when it is out of date."""
    if value[15] & 0x80:
        return None
    return int.from_bytes(value[8:16], "little")


def add(bytes value not None, elements, size_t sparse_bytes_max):
    """(the sketch, how many registers were raised: -1 when it turned out to be corrupt)."""
    cdef uint32_t index
    cdef uint8_t count
    cdef Change change
    cdef bytes element
    cdef Py_ssize_t raised = 0
    cdef Room room = Room(value, len(elements), sparse_bytes_max)
    for element in elements:
        count = pattern(<const uint8_t*>PyBytes_AS_STRING(element), PyBytes_GET_SIZE(element), &index)
        change = room.put(index, count)
        if change == CORRUPT:
            return room.taken(), -1
        raised += change == RAISED
    if raised:
        forget_count(&room.sketch)
    return room.taken(), raised


cdef int read_all(values, uint8_t* registers) except -1:
    cdef bytes value
    memset(registers, 0, REGISTERS)
    for value in values:
        if not to_registers(<const uint8_t*>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), registers):
            raise corrupted()
    return 0


def count(values):
    """How many different elements the sketches have seen together. CommandError when one is corrupt."""
    cdef uint8_t[REGISTERS] registers
    read_all(values, registers)
    return estimate(registers)


def merge(bytes target not None, sources, size_t sparse_bytes_max):
    """The target with all that the sources have seen. CommandError when one is corrupt."""
    cdef uint8_t[REGISTERS] registers
    cdef uint32_t index
    cdef Room room = Room(target, DENSE_SIZE, sparse_bytes_max)
    read_all(sources, registers)
    if room.sketch.data[4] == SPARSE and not all(map(is_sparse, sources)) and not make_dense(&room.sketch):
        raise corrupted()
    for index in range(REGISTERS):
        if registers[index]:
            room.put(index, registers[index])
    forget_count(&room.sketch)
    return room.taken()


def to_dense(bytes value not None):
    """The same sketch, dense. CommandError when it is corrupt."""
    cdef Room room = Room(value, 0, 0)
    if room.sketch.data[4] == SPARSE and not make_dense(&room.sketch):
        raise corrupted()
    return room.taken()


def registers(bytes value not None):
    """All registers. CommandError when the sketch is corrupt."""
    cdef uint8_t[REGISTERS] found
    read_all((value,), found)
    return [found[index] for index in range(REGISTERS)]


def decode(bytes value not None):
    """The runs of a sparse sketch as PFDEBUG prints them, as far as they go."""
    cdef Run run
    cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(value)
    cdef size_t at = HEADER, size = PyBytes_GET_SIZE(value)
    cdef list runs = []
    while at < size and read_run(data + at, size - at, &run):
        if run.value:
            runs.append(b"v:%d,%d" % (run.value, run.length))
        else:
            runs.append(b"%c:%d" % (b"Z" if run.size == 2 else b"z", run.length))
        at += run.size
    return b" ".join(runs)


def selftest(int cycles, uint64_t elements):
    """PFSELFTEST: registers against plain bytes, then estimates against the truth. What failed, None when nothing."""
    cdef uint8_t[DENSE_SIZE] packed
    cdef uint8_t[REGISTERS] plain
    cdef uint64_t state = 1, n, told, step = 1
    cdef uint32_t index
    cdef uint8_t value
    cdef double error_max
    cdef int cycle
    memset(packed, 0, DENSE_SIZE)
    for cycle in range(cycles):
        for index in range(REGISTERS):
            state = state * 6364136223846793005ULL + 1442695040888963407ULL
            plain[index] = <uint8_t>(state >> 58)
            dense_put(packed + HEADER, index, plain[index])
        for index in range(REGISTERS):
            if dense_get(packed + HEADER, index) != plain[index]:
                return "TESTFAILED Register %d should be %d" % (index, plain[index])
    memset(packed, 0, DENSE_SIZE)
    memset(plain, 0, REGISTERS)
    for n in range(1, elements + 1):
        state = n * 0x9E3779B97F4A7C15ULL
        value = pattern(<const uint8_t*>&state, 8, &index)
        dense_raise(packed + HEADER, index, value)
        if n == step:
            for index in range(REGISTERS):
                plain[index] = dense_get(packed + HEADER, index)
            told = estimate(plain)
            error_max = 6 * 1.04 / sqrt(REGISTERS) * n  # six times the standard error
            if abs(<double>told - <double>n) > max(error_max, 1.0):
                return "TESTFAILED Too big error. card:%d estimate:%d" % (n, told)
            step *= 10
    return None
