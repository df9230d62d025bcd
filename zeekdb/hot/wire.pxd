# RESP on the way out and the shape of a command on the way in: shared by the engine and the twins.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy
from zeekdb.hot.memory cimport Blob
from zeekdb.hot.keyspace cimport Db

# One argument: bytes in the read buffer, or a blob that was received in place. `hash` is set for keys.
ctypedef struct Arg:
    uint8_t* p
    size_t n
    uint64_t hash
    Blob* blob

# A part of a blob, to send from where it lies, after the byte `at` of the stream of small bytes.
ctypedef struct Part:
    size_t at
    Blob* blob
    size_t sent          # up to there of the blob, wherever the part began
    size_t end

# Replies not sent yet: small bytes in one buffer, large values as references beside it.
ctypedef struct Out:
    uint8_t* data
    size_t size
    size_t capacity
    size_t sent          # small bytes already sent
    Part* parts
    uint32_t nparts
    uint32_t parts_capacity
    uint32_t first_part  # parts before it are sent
    bint lent            # data is the engine's scratch buffer
    uint64_t part_bytes  # bytes in parts not sent yet

# What a twin sees of its connection.
ctypedef struct Port:
    Out out
    Db* db
    uint8_t protocol     # 2 or 3

cdef enum:
    PART_MIN = 16384     # values from this size on are sent from where they lie
    TWIN_PASS = 0        # the Python handler shall do it (nothing was changed or written)
    TWIN_DONE = 1

ctypedef int (*Twin)(Port* port, Arg* argv, int argc) noexcept nogil

cdef void out_grow(Out* out, size_t need) noexcept nogil
cdef void out_blob(Out* out, Blob* blob) noexcept nogil       # as a bulk string; keeps a reference while unsent
cdef void out_span(Out* out, Blob* blob, size_t begin, size_t end) noexcept nogil  # these bytes alone, likewise
cdef size_t format_int(uint8_t* at, int64_t value) noexcept nogil  # at most 20 bytes; returns how many
cdef bint parse_int(const uint8_t* p, size_t n, int64_t* value) noexcept nogil  # Redis's string2ll
cdef size_t format_double(uint8_t* at, double value) noexcept nogil  # shortest round trip in Redis's style, at most 32 bytes
cdef size_t spell_double(uint8_t* at, double value) noexcept nogil  # any digits that read back the same, at most 32 bytes; quicker
cdef bint parse_double(const uint8_t* p, size_t n, double* value) noexcept nogil  # False for nan and junk

cdef inline uint8_t* out_room(Out* out, size_t need) noexcept nogil:
    """Room for `need` more bytes; the caller adds to out.size what it wrote."""
    if out.size + need > out.capacity:
        out_grow(out, need)
    return out.data + out.size

cdef inline void out_raw(Out* out, const char* text, size_t n) noexcept nogil:
    memcpy(out_room(out, n), text, n)
    out.size += n

cdef inline uint8_t* put_length(uint8_t* at, uint8_t kind, uint64_t n) noexcept nogil:
    """Writes `kind`, the number and CRLF: at most 23 bytes."""
    at[0] = kind
    if n < 10:
        at[1] = 48 + <uint8_t>n
        at += 2
    elif n < 100:
        at[1] = 48 + <uint8_t>(n // 10)
        at[2] = 48 + <uint8_t>(n % 10)
        at += 3
    else:
        at += 1 + format_int(at + 1, <int64_t>n)
    at[0] = 13
    at[1] = 10
    return at + 2

cdef inline void out_length(Out* out, uint8_t kind, uint64_t n) noexcept nogil:
    out.size = put_length(out_room(out, 24), kind, n) - out.data

cdef inline void out_int(Out* out, int64_t value) noexcept nogil:
    cdef uint8_t* at = out_room(out, 24)
    if 0 <= value:
        at = put_length(at, 58, <uint64_t>value)
    else:
        at[0] = 58
        at += 1 + format_int(at + 1, value)
        at[0] = 13
        at[1] = 10
        at += 2
    out.size = at - out.data

cdef inline void out_bulk(Out* out, const uint8_t* p, size_t n) noexcept nogil:
    cdef uint8_t* at = put_length(out_room(out, n + 26), 36, n)
    if n <= 16:  # the common short value: two overlapping moves instead of a call
        if n >= 8:
            memcpy(at, p, 8)
            memcpy(at + n - 8, p + n - 8, 8)
        else:
            if n & 4:
                memcpy(at, p, 4)
                memcpy(at + n - 4, p + n - 4, 4)
            elif n & 2:
                memcpy(at, p, 2)
                memcpy(at + n - 2, p + n - 2, 2)
            elif n:
                at[0] = p[0]
    else:
        memcpy(at, p, n)
    at += n
    at[0] = 13
    at[1] = 10
    out.size = at + 2 - out.data

cdef inline void out_null(Out* out, uint8_t protocol) noexcept nogil:
    if protocol == 3:
        out_raw(out, b"_\r\n", 3)
    else:
        out_raw(out, b"$-1\r\n", 5)

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void* iov_base
        size_t iov_len

cdef enum:
    IOVECS = 64

cdef inline size_t out_pending(Out* out) noexcept nogil:
    """Bytes not sent yet."""
    return out.size - out.sent + out.part_bytes

cdef size_t fill_vectors(Out* out, iovec* vectors, size_t most) noexcept nogil  # the next pieces to send, IOVECS at most; how many
cdef void advance(Out* out, size_t n) noexcept nogil               # books n bytes as sent
cdef void shift_parts(Out* out) noexcept nogil                      # forgets the small bytes sent
