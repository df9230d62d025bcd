# Listpacks, and what came before them: ziplists and zipmaps. See packs.pyx.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from zeekdb.hot.rdbwire cimport Buffer, Reader, buffer_room

# --- writing listpacks: listpack_begin, elements, listpack_end

cdef enum:
    LISTPACK_HEAD = 6       # 4 bytes of size, 2 of count
    LISTPACK_END = 0xFF
    COUNT_UNKNOWN = 0xFFFF  # in a head: too many to count, walk

cdef inline void listpack_begin(Buffer* b) noexcept nogil:
    b.size = 0
    buffer_room(b, LISTPACK_HEAD)
    b.size = LISTPACK_HEAD

cdef inline size_t back_size(size_t n) noexcept nogil:
    """Bytes of the length behind an element of n bytes. The limits are Redis's, one less than 14, 21, 28 bits hold."""
    if n <= 127:
        return 1
    if n < 16383:
        return 2
    if n < 2097151:
        return 3
    return 4 if n < 268435455 else 5

cdef inline uint8_t* put_back(uint8_t* at, size_t n) noexcept nogil:
    """The length behind an element, seven bits a byte, to be read from its end."""
    cdef size_t size = back_size(n)
    cdef size_t i
    if size == 1:
        at[0] = <uint8_t>n
        return at + 1
    for i in range(size):
        at[size - 1 - i] = <uint8_t>((n & 127) | (128 if i < size - 1 else 0))
        n >>= 7
    return at + size

cdef void listpack_add_int(Buffer* b, int64_t v) noexcept nogil
cdef void listpack_add(Buffer* b, const uint8_t* p, size_t n) noexcept nogil     # as an integer where it spells one
cdef void listpack_add_text(Buffer* b, const uint8_t* p, size_t n) noexcept nogil
cdef void listpack_end(Buffer* b, uint64_t count) noexcept nogil

# --- reading all three

cdef enum PackKind:
    LISTPACK
    ZIPLIST
    ZIPMAP

# An element: bytes in the pack, or those of an integer in `digits`. Stays where it is.
ctypedef struct Piece:
    const uint8_t* p
    size_t n
    bint is_int
    int64_t number
    uint8_t[24] digits

ctypedef struct Pack:
    PackKind kind
    const uint8_t* begin
    const uint8_t* at
    const uint8_t* end      # of the elements
    const uint8_t* last     # where the element before began (ziplists)
    uint64_t count          # elements read so far
    uint32_t promised       # COUNT_UNKNOWN: none
    bint value_next         # zipmaps: a value follows, which has spare bytes

cdef bint pack_open(Pack* k, PackKind kind, const uint8_t* p, size_t n) noexcept nogil   # False: damaged
# 1: the next element; 0: there is none and the pack is sound to its end; -1: damaged.
cdef int pack_next(Pack* k, Piece* piece) noexcept nogil

# The next string, which is a pack. It may lie in the reader's first buffer: nothing else may use that meanwhile.
cdef bint open_pack(Reader* r, Pack* pack, PackKind kind) noexcept nogil
# All strings of a pack into the reader's run, packed as our structures do (packed.pxd); how many, and the longest.
cdef bint fill_run(Reader* r, Pack* pack, uint64_t* strings, size_t* longest) noexcept nogil
