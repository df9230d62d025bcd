"""Strings of Redis's serialisation, and the buffers they go to. The small elements are in rdbwire.pxd."""

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport abort, free, realloc
from libc.string cimport memcpy, memmove, memset
from zeekdb.hot.lzf cimport LZF_RATIO_MAX, lzf_pack, lzf_unpack
from zeekdb.hot.wire cimport format_int, parse_int

cdef enum:
    FIRST = 512             # bytes of a new buffer
    CODED_INT8 = 0
    CODED_INT16 = 1
    CODED_INT32 = 2
    CODED_LZF = 3


# --- buffers --------------------------------------------------------------------------------------------------------

cdef bint buffer_try(Buffer* b, size_t need) noexcept nogil:
    cdef size_t capacity
    cdef void* data
    if b.capacity - b.size >= need:
        return True
    if need > (<size_t>1 << 62) - b.size:
        return False
    capacity = b.capacity * 2 if b.capacity else FIRST
    if capacity < b.size + need:
        capacity = b.size + need
    data = realloc(b.data, capacity)
    if data == NULL:
        return False
    b.data = <uint8_t*>data
    b.capacity = capacity
    return True


cdef void buffer_grow(Buffer* b, size_t need) noexcept nogil:
    if not buffer_try(b, need):
        abort()


cdef void buffer_free(Buffer* b) noexcept nogil:
    free(b.data)
    memset(b, 0, sizeof(Buffer))


cdef void writer_free(Writer* w) noexcept nogil:
    buffer_free(&w.out)
    buffer_free(&w.pack)


cdef void reader_free(Reader* r) noexcept nogil:
    buffer_free(&r.texts[0])
    buffer_free(&r.texts[1])
    buffer_free(&r.texts[2])
    buffer_free(&r.run)
    buffer_free(&r.seen)


# --- strings out ----------------------------------------------------------------------------------------------------

cdef inline bint put_integer(Writer* w, const uint8_t* p, size_t n) noexcept nogil:
    """A string that spells an integer of up to 32 bits; False for any other."""
    cdef int64_t v
    cdef uint8_t* at
    cdef int16_t v16
    cdef int32_t v32
    if not parse_int(p, n, &v) or not -2147483648 <= v <= 2147483647:
        return False
    at = buffer_room(&w.out, 5)
    if -128 <= v <= 127:
        at[0] = 0xC0 | CODED_INT8
        at[1] = <uint8_t>v
        w.out.size += 2
    elif -32768 <= v <= 32767:
        at[0] = 0xC0 | CODED_INT16
        v16 = <int16_t>v
        memcpy(at + 1, &v16, 2)
        w.out.size += 3
    else:
        at[0] = 0xC0 | CODED_INT32
        v32 = <int32_t>v
        memcpy(at + 1, &v32, 4)
        w.out.size += 5
    return True


cdef bint put_compressed(Writer* w, const uint8_t* p, size_t n) noexcept nogil:
    """False, and nothing is written, where LZF does not pay."""
    cdef size_t begin = w.out.size, packed
    cdef uint8_t* to
    put_byte(w, 0xC0 | CODED_LZF)
    # The stream goes behind the largest head and moves up to the real one.
    to = buffer_room(&w.out, n + 18) + 18
    packed = lzf_pack(&w.lzf, p, n, to, n - 4)
    if packed == 0:
        w.out.size = begin
        return False
    put_length(w, packed)
    put_length(w, n)
    memmove(w.out.data + w.out.size, to, packed)
    w.out.size += packed
    return True


cdef void put_blob(Writer* w, const uint8_t* p, size_t n) noexcept nogil:
    if w.compress and n >= COMPRESS_MIN and put_compressed(w, p, n):
        return
    put_length(w, n)
    buffer_put(&w.out, p, n)


cdef void put_string(Writer* w, const uint8_t* p, size_t n) noexcept nogil:
    if n <= INT_DIGITS_MAX and put_integer(w, p, n):
        return
    put_blob(w, p, n)


# --- strings in -----------------------------------------------------------------------------------------------------

cdef inline bint get_integer(Reader* r, uint64_t kind, Text* text) noexcept nogil:
    cdef const uint8_t* p
    cdef int16_t v16
    cdef int32_t v32
    cdef int64_t v
    if not get_bytes(r, <size_t>1 << kind, &p):
        return False
    if kind == CODED_INT8:
        v = <int8_t>p[0]
    elif kind == CODED_INT16:
        memcpy(&v16, p, 2)
        v = v16
    else:
        memcpy(&v32, p, 4)
        v = v32
    text.n = format_int(text.digits, v)
    text.p = text.digits
    return True


cdef bint get_packed(Reader* r, uint64_t* packed, uint64_t* size, const uint8_t** p) noexcept nogil:
    """The head of an LZF string, and where its stream begins."""
    if not get_length(r, packed) or not get_length(r, size):
        return False
    if packed[0] > left(r):
        return fail(r, TORN, b"it ends inside a compressed string")
    if size[0] > packed[0] * LZF_RATIO_MAX or size[0] > r.string_max:
        return fail(r, DAMAGED, b"a compressed string that claims too much")
    return get_bytes(r, packed[0], p)


cdef bint get_string(Reader* r, Text* text, int place) noexcept nogil:
    cdef uint64_t n, size
    cdef bint coded
    cdef Buffer* to = &r.texts[place]
    if not get_coded(r, &n, &coded):
        return False
    if not coded:
        if n > left(r):
            return fail(r, TORN, b"it ends inside a string")
        if n > r.string_max:
            return fail(r, DAMAGED, b"a string that is too long")
        text.n = n
        return get_bytes(r, n, &text.p)
    if n <= CODED_INT32:
        return get_integer(r, n, text)
    if n != CODED_LZF:
        return fail(r, DAMAGED, b"no string begins like this")
    if not get_packed(r, &n, &size, &text.p):
        return False
    to.size = 0
    if not buffer_try(to, size):
        return fail(r, NO_MEMORY, b"no memory for a compressed string")
    if size == 0 or not lzf_unpack(text.p, n, to.data, size):  # nobody compresses nothing
        return fail(r, DAMAGED, b"a damaged compressed string")
    text.p = to.data
    text.n = size
    return True
