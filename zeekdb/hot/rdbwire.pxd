# The elements of Redis's serialisation: numbers, lengths and strings, into a growing buffer and out of given bytes.
#
# A length takes 1 byte (00 and 6 bits), 2 (01 and 14 bits), 5 (0x80 and 32 bits) or 9 (0x81 and 64 bits), big endian.
# 11 and 6 bits begin a string that is no plain one: an integer of 8, 16 or 32 bits (0, 1, 2) or LZF (3: its size, the
# size of its content, the stream). Everything else is little endian.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from zeekdb.hot.lzf cimport Lzf

cdef extern from *:
    """
    #define zeek_be32(x) __builtin_bswap32(x)
    #define zeek_be64(x) __builtin_bswap64(x)
    """
    uint32_t swap32 "zeek_be32"(uint32_t x) nogil
    uint64_t swap64 "zeek_be64"(uint64_t x) nogil

# Bytes from malloc, so that any thread may grow and free them.
ctypedef struct Buffer:
    uint8_t* data
    size_t size
    size_t capacity

cdef bint buffer_try(Buffer* b, size_t need) noexcept nogil    # room for `need` more bytes; False without memory
cdef void buffer_grow(Buffer* b, size_t need) noexcept nogil   # the same; aborts without memory, as mem_alloc does
cdef void buffer_free(Buffer* b) noexcept nogil

cdef inline uint8_t* buffer_room(Buffer* b, size_t need) noexcept nogil:
    """Room for `need` more bytes; the caller adds to the size what it wrote."""
    if b.capacity - b.size < need:
        buffer_grow(b, need)
    return b.data + b.size

cdef inline void buffer_put(Buffer* b, const void* p, size_t n) noexcept nogil:
    memcpy(buffer_room(b, n), p, n)
    b.size += n

# --- writing

cdef enum:
    COMPRESS_MIN = 21       # bytes of a string from which LZF is tried
    INT_DIGITS_MAX = 11     # of a string that may be a 32-bit integer

ctypedef struct Writer:
    Buffer out
    Buffer pack             # a listpack under construction
    bint compress           # rdbcompression
    bint modern             # what redis-server 7.2 reads (RDB 11), not 7.0
    Lzf lzf

cdef void writer_free(Writer* w) noexcept nogil
cdef void put_string(Writer* w, const uint8_t* p, size_t n) noexcept nogil       # as an integer or LZF where that is shorter
cdef void put_blob(Writer* w, const uint8_t* p, size_t n) noexcept nogil         # the same for bytes that are no integer

cdef inline void put_byte(Writer* w, uint8_t byte) noexcept nogil:
    buffer_room(&w.out, 1)[0] = byte
    w.out.size += 1

cdef inline void put_fixed(Writer* w, uint64_t v) noexcept nogil:
    """Eight bytes, little endian: deadlines and the like."""
    buffer_put(&w.out, &v, 8)

cdef inline void put_double(Writer* w, double v) noexcept nogil:
    buffer_put(&w.out, &v, 8)

cdef inline void put_length(Writer* w, uint64_t n) noexcept nogil:
    cdef uint8_t* at = buffer_room(&w.out, 9)
    cdef uint32_t wide
    cdef uint64_t wider
    if n < 64:
        at[0] = <uint8_t>n
        w.out.size += 1
    elif n < 16384:
        at[0] = <uint8_t>(0x40 | (n >> 8))
        at[1] = <uint8_t>n
        w.out.size += 2
    elif n <= 0xFFFFFFFFULL:
        at[0] = 0x80
        wide = swap32(<uint32_t>n)
        memcpy(at + 1, &wide, 4)
        w.out.size += 5
    else:
        at[0] = 0x81
        wider = swap64(n)
        memcpy(at + 1, &wider, 8)
        w.out.size += 9

# --- reading

cdef enum Fault:
    SOUND = 0
    TORN                    # the bytes end too early
    DAMAGED                 # they say what cannot be
    EMPTY                   # a collection of nothing, which Redis once wrote: a key to be left out
    UNKNOWN                 # a type that this version does not know, or a module's
    NO_MEMORY

# A string that was read: in the given bytes, in one of the reader's buffers, or in `digits`. Stays where it was made.
ctypedef struct Text:
    const uint8_t* p
    size_t n
    uint8_t[24] digits

ctypedef struct Reader:
    const uint8_t* at
    const uint8_t* end
    Fault fault
    const char* why         # a sentence about it
    uint64_t string_max     # bytes of the longest string that is taken
    Buffer[3] texts         # what was compressed: two for values, one for the key before them
    Buffer run              # a packed collection under construction
    Buffer seen             # see `reader_seen`

cdef void reader_free(Reader* r) noexcept nogil
cdef bint get_string(Reader* r, Text* text, int place) noexcept nogil            # place: the buffer to use, 0 to 2

cdef inline bint fail(Reader* r, Fault fault, const char* why) noexcept nogil:
    """Notes the first fault; always False."""
    if r.fault == SOUND:
        r.fault = fault
        r.why = why
    return False

cdef inline size_t left(Reader* r) noexcept nogil:
    return <size_t>(r.end - r.at)

cdef inline bint get_bytes(Reader* r, size_t n, const uint8_t** p) noexcept nogil:
    if left(r) < n:
        return fail(r, TORN, b"it ends inside a value")
    p[0] = r.at
    r.at += n
    return True

cdef inline bint get_byte(Reader* r, uint8_t* byte) noexcept nogil:
    if r.at == r.end:
        return fail(r, TORN, b"it ends inside a value")
    byte[0] = r.at[0]
    r.at += 1
    return True

cdef inline bint get_fixed(Reader* r, uint64_t* v) noexcept nogil:
    cdef const uint8_t* p
    if not get_bytes(r, 8, &p):
        return False
    memcpy(v, p, 8)
    return True

cdef inline bint get_double(Reader* r, double* v) noexcept nogil:
    cdef const uint8_t* p
    if not get_bytes(r, 8, &p):
        return False
    memcpy(v, p, 8)
    return True

cdef inline bint get_coded(Reader* r, uint64_t* n, bint* coded) noexcept nogil:
    """A length, or (coded) what kind of string follows."""
    cdef const uint8_t* p
    cdef uint8_t first
    cdef uint32_t wide
    cdef uint64_t wider
    coded[0] = False
    if not get_byte(r, &first):
        return False
    if first < 0x40:
        n[0] = first
        return True
    if first < 0x80:
        if not get_bytes(r, 1, &p):
            return False
        n[0] = (<uint64_t>(first & 0x3F) << 8) | p[0]
        return True
    if first >= 0xC0:
        coded[0] = True
        n[0] = first & 0x3F
        return True
    if first == 0x80:
        if not get_bytes(r, 4, &p):
            return False
        memcpy(&wide, p, 4)
        n[0] = swap32(wide)
        return True
    if first != 0x81:
        return fail(r, DAMAGED, b"no length begins like this")
    if not get_bytes(r, 8, &p):
        return False
    memcpy(&wider, p, 8)
    n[0] = swap64(wider)
    return True

cdef inline bint get_length(Reader* r, uint64_t* n) noexcept nogil:
    cdef bint coded
    if not get_coded(r, n, &coded):
        return False
    return fail(r, DAMAGED, b"a string where a length should be") if coded else True

cdef inline bint get_count(Reader* r, size_t least, uint64_t* n) noexcept nogil:
    """How many elements follow, each of which takes at least so many bytes: no promise that the bytes do not keep."""
    if not get_length(r, n):
        return False
    return fail(r, DAMAGED, b"more elements than bytes") if n[0] > left(r) // least else True
