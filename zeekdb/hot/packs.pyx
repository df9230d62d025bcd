"""Listpacks, ziplists and zipmaps: how Redis keeps small collections, and how its files hold them.

A listpack is a head (size, count), elements and a byte 0xFF. An element is its encoding, its bytes, and the length of
both once more, readable backwards. A ziplist (before Redis 7) has in front of each element the length of the one before
instead; a zipmap (before 2.6) is length, key, length, spare, value. The readers take nothing on trust: every length is
held against what is left, and what is said twice has to agree.
"""

from libc.stdint cimport INT32_MAX, INT32_MIN, int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from zeekdb.hot.packed cimport packed_need, packed_write
from zeekdb.hot.rdbwire cimport DAMAGED, Text, fail, get_string
from zeekdb.hot.wire cimport format_int, parse_int

cdef enum:
    DIGITS_MAX = 20
    ZIPLIST_HEAD = 10       # 4 bytes of size, 4 of the last element's place, 2 of count
    ZIPMAP_MANY = 254       # a zipmap's count that says nothing
    WIDE = 254              # a length of four bytes follows


# --- writing --------------------------------------------------------------------------------------------------------

cdef void listpack_add_int(Buffer* b, int64_t v) noexcept nogil:
    cdef uint8_t* begin = buffer_room(b, 16)
    cdef uint8_t* at = begin
    cdef uint64_t bits = <uint64_t>v
    cdef int width = 0
    if 0 <= v <= 127:
        at[0] = <uint8_t>v
        at += 1
    elif -4096 <= v <= 4095:
        at[0] = <uint8_t>(0xC0 | ((bits >> 8) & 0x1F))
        at[1] = <uint8_t>bits
        at += 2
    else:
        if -32768 <= v <= 32767:
            at[0], width = 0xF1, 2
        elif -8388608 <= v <= 8388607:
            at[0], width = 0xF2, 3
        elif INT32_MIN <= v <= INT32_MAX:
            at[0], width = 0xF3, 4
        else:
            at[0], width = 0xF4, 8
        memcpy(at + 1, &bits, width)
        at += 1 + width
    at = put_back(at, at - begin)
    b.size += at - begin


cdef void listpack_add_text(Buffer* b, const uint8_t* p, size_t n) noexcept nogil:
    cdef uint8_t* begin = buffer_room(b, n + 10)
    cdef uint8_t* at = begin
    cdef uint32_t wide = <uint32_t>n
    if n < 64:
        at[0] = <uint8_t>(0x80 | n)
        at += 1
    elif n < 4096:
        at[0] = <uint8_t>(0xE0 | (n >> 8))
        at[1] = <uint8_t>n
        at += 2
    else:
        at[0] = 0xF0
        memcpy(at + 1, &wide, 4)
        at += 5
    memcpy(at, p, n)
    at += n
    at = put_back(at, at - begin)
    b.size += at - begin


cdef void listpack_add(Buffer* b, const uint8_t* p, size_t n) noexcept nogil:
    cdef int64_t v
    if 0 < n <= DIGITS_MAX and (48 <= p[0] <= 57 or p[0] == 45) and parse_int(p, n, &v):
        listpack_add_int(b, v)
    else:
        listpack_add_text(b, p, n)


cdef void listpack_end(Buffer* b, uint64_t count) noexcept nogil:
    cdef uint32_t size
    cdef uint16_t n = <uint16_t>(count if count < COUNT_UNKNOWN else COUNT_UNKNOWN)
    buffer_room(b, 1)[0] = LISTPACK_END
    b.size += 1
    size = <uint32_t>b.size
    memcpy(b.data, &size, 4)
    memcpy(b.data + 4, &n, 2)


# --- reading --------------------------------------------------------------------------------------------------------

cdef inline uint32_t load16(const uint8_t* p) noexcept nogil:
    return p[0] | (<uint32_t>p[1] << 8)


cdef inline uint32_t load32(const uint8_t* p) noexcept nogil:
    cdef uint32_t v
    memcpy(&v, p, 4)
    return v


cdef bint pack_open(Pack* k, PackKind kind, const uint8_t* p, size_t n) noexcept nogil:
    k.kind = kind
    k.begin = p
    k.end = p + n - 1
    k.count = 0
    k.last = NULL
    k.value_next = False
    k.promised = COUNT_UNKNOWN
    if kind == LISTPACK:
        if n < LISTPACK_HEAD + 1 or load32(p) != n or p[n - 1] != LISTPACK_END:
            return False
        k.promised = load16(p + 4)
        k.at = p + LISTPACK_HEAD
    elif kind == ZIPLIST:
        if n < ZIPLIST_HEAD + 1 or load32(p) != n or p[n - 1] != LISTPACK_END:
            return False
        k.promised = load16(p + 8)
        k.at = p + ZIPLIST_HEAD
    else:
        if n < 2 or p[n - 1] != LISTPACK_END:
            return False
        if p[0] < ZIPMAP_MANY:
            k.promised = 2 * p[0]
        k.at = p + 1
    return True


cdef int pack_next(Pack* k, Piece* piece) noexcept nogil:
    cdef int got
    if k.at == k.end:
        if k.promised != COUNT_UNKNOWN and k.promised != k.count:
            return -1
        if k.kind == ZIPMAP and k.value_next:
            return -1
        if k.kind == ZIPLIST and load32(k.begin + 4) != (k.last if k.last != NULL else k.begin + ZIPLIST_HEAD) - k.begin:
            return -1
        return 0
    if k.kind == LISTPACK:
        got = next_of_listpack(k, piece)
    elif k.kind == ZIPLIST:
        got = next_of_ziplist(k, piece)
    else:
        got = next_of_zipmap(k, piece)
    k.count += 1
    return got


cdef inline void spell(Piece* piece, int64_t v) noexcept nogil:
    piece.is_int = True
    piece.number = v
    piece.p = piece.digits
    piece.n = format_int(piece.digits, v)


cdef inline int64_t signed(const uint8_t* p, int width) noexcept nogil:
    cdef uint64_t bits = 0
    memcpy(&bits, p, width)
    return <int64_t>(bits << (64 - 8 * width)) >> (64 - 8 * width)


cdef inline int int_width(uint8_t first) noexcept nogil:
    """Bytes of a listpack's integer by its first byte from 0xF1 on; 0 for none."""
    if first == 0xF1:
        return 2
    if first == 0xF2:
        return 3
    if first == 0xF3:
        return 4
    return 8 if first == 0xF4 else 0


cdef inline int next_of_listpack(Pack* k, Piece* piece) noexcept nogil:
    cdef const uint8_t* at = k.at
    cdef size_t room = k.end - at, head, n = 0, i, size
    cdef uint8_t first = at[0]
    cdef uint64_t back = 0
    cdef int width = 0
    if first < 0x80:
        spell(piece, first)
        head = 1
    elif first < 0xC0:
        head, n = 1, first & 0x3F
    elif first < 0xE0:
        if room < 2:
            return -1
        spell(piece, <int64_t>(<uint64_t>(((first & 0x1F) << 8) | at[1]) << 51) >> 51)
        head = 2
    elif first < 0xF0:
        if room < 2:
            return -1
        head, n = 2, ((first & 0x0F) << 8) | at[1]
    elif first == 0xF0:
        if room < 5:
            return -1
        head, n = 5, load32(at + 1)
    else:
        width = int_width(first)
        if width == 0 or room < <size_t>(1 + width):
            return -1
        spell(piece, signed(at + 1, width))
        head = 1 + width
    if 0x80 <= first < 0xC0 or 0xE0 <= first <= 0xF0:
        if n > room - head:
            return -1
        piece.is_int = False
        piece.p = at + head
        piece.n = n
    n += head
    size = back_size(n)
    if size > room - n:
        return -1
    at += n
    for i in range(size):
        back = (back << 7) | (at[i] & 127)
        if (at[i] >= 128) != (i > 0):  # all but the first say that one more stands before them
            return -1
    if back != n:
        return -1
    k.at = at + size
    return 1


cdef inline int next_of_ziplist(Pack* k, Piece* piece) noexcept nogil:
    cdef const uint8_t* at = k.at
    cdef size_t room = k.end - at, head, n
    cdef size_t before = k.at - k.last if k.last != NULL else 0
    cdef uint8_t first
    cdef int width
    if at[0] < WIDE:
        if at[0] != before:
            return -1
        at += 1
        room -= 1
    else:
        if at[0] != WIDE or room < 5 or load32(at + 1) != before:
            return -1
        at += 5
        room -= 5
    if room == 0:
        return -1
    first = at[0]
    if first < 0xC0:
        if first < 0x40:
            head, n = 1, first & 0x3F
        elif first < 0x80:
            if room < 2:
                return -1
            head, n = 2, (<size_t>(first & 0x3F) << 8) | at[1]
        else:
            if first != 0x80 or room < 5:
                return -1
            head = 5
            n = (<size_t>at[1] << 24) | (<size_t>at[2] << 16) | (<size_t>at[3] << 8) | at[4]
        if n > room - head:
            return -1
        piece.is_int = False
        piece.p = at + head
        piece.n = n
        at += head + n
    elif 0xF1 <= first <= 0xFD:
        spell(piece, first - 0xF1)
        at += 1
    else:
        width = 2 if first == 0xC0 else 4 if first == 0xD0 else 8 if first == 0xE0 else 3 if first == 0xF0 else 1
        if (width == 1 and first != 0xFE) or room < <size_t>(1 + width):
            return -1
        spell(piece, signed(at + 1, width))
        at += 1 + width
    k.last = k.at
    k.at = at
    return 1


cdef inline int next_of_zipmap(Pack* k, Piece* piece) noexcept nogil:
    cdef const uint8_t* at = k.at
    cdef size_t room = k.end - at, n, spare = 0
    if at[0] < WIDE:
        n = at[0]
        at += 1
        room -= 1
    else:
        if at[0] != WIDE or room < 5:
            return -1
        n = load32(at + 1)
        at += 5
        room -= 5
    if k.value_next:
        if room == 0:
            return -1
        spare = at[0]
        at += 1
        room -= 1
    if n > room or spare > room - n:
        return -1
    piece.is_int = False
    piece.p = at
    piece.n = n
    k.at = at + n + spare
    k.value_next = not k.value_next
    return 1


# --- in a file or payload -------------------------------------------------------------------------------------------

cdef bint open_pack(Reader* r, Pack* pack, PackKind kind) noexcept nogil:
    """A string that is a pack. It may lie in the reader's first buffer: nothing else may use that meanwhile."""
    cdef Text text
    if not get_string(r, &text, 0):
        return False
    return True if pack_open(pack, kind, text.p, text.n) else fail(r, DAMAGED, b"a damaged head of a packed collection")


cdef bint fill_run(Reader* r, Pack* pack, uint64_t* strings, size_t* longest) noexcept nogil:
    """All strings of a pack, packed as our structures do."""
    cdef Piece piece
    cdef int got
    r.run.size = 0
    strings[0] = 0
    longest[0] = 0
    while True:
        got = pack_next(pack, &piece)
        if got <= 0:
            break
        packed_write(buffer_room(&r.run, packed_need(piece.n)), piece.p, piece.n)
        r.run.size += packed_need(piece.n)
        strings[0] += 1
        if piece.n > longest[0]:
            longest[0] = piece.n
    return True if got == 0 else fail(r, DAMAGED, b"a damaged packed collection")
