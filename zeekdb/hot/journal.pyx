"""The journal: what replicas and the AOF are told.

Every change becomes a command whose effect is the same anywhere and any time. A call that changes something is told in
its own words, unless it has said itself what it comes to: an expiry as a moment, a random choice as what was chosen.
Keys that expire are told as DEL, in their place. What belongs together (a transaction, a script, a call of several
effects) stands between MULTI and EXEC.

Calls are nested: EXEC and scripts make others. Each is framed by `journal_begin` and `journal_end`; whoever makes the
call asks `journal_wants` in between and tells the words. Twins do all this without Python.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove
from zeekdb.hot.memory cimport mem_free, mem_resize
from zeekdb.hot.wire cimport format_int, put_length

cdef enum:
    KEPT = 1 << 20           # bytes of the buffer that stay for the next turn
    MULTI_SIZE = 15          # bytes of MULTI as it is written

J.selected = -1          # all else is zero from the start; shards.pyx may have set `dirty` by now


cdef uint8_t* room(size_t n) noexcept nogil:
    cdef size_t capacity
    if J.size + n > J.capacity:
        capacity = max(J.size + n, J.capacity * 2, <size_t>4096)
        J.data = <uint8_t*>mem_resize(J.data, J.capacity, capacity)
        J.capacity = capacity
    return J.data + J.size


cdef void put(const char* text, size_t n) noexcept nogil:
    memcpy(room(n), text, n)
    J.size += n
    J.end += n


cdef void put_count(uint8_t kind, uint64_t n) noexcept nogil:
    cdef uint8_t* at = room(24)
    cdef size_t size = put_length(at, kind, n) - at
    J.size += size
    J.end += size


cdef void journal_word(const uint8_t* p, size_t n) noexcept nogil:
    put_count(36, n)
    put(<const char*>p, n)
    put(b"\r\n", 2)


cdef void journal_int(int64_t value) noexcept nogil:
    cdef uint8_t text[24]
    journal_word(text, format_int(text, value))


cdef void journal_command(int db, uint32_t words) noexcept nogil:
    if db != J.selected:
        J.selected = db
        put_count(42, 2)
        journal_literal(b"SELECT")
        journal_int(db)
        if J.units == 0:
            J.mark = J.size
    J.units += 1
    J.told = True
    put_count(42, words)


cdef void journal_gone(int db, const uint8_t* key, size_t n) noexcept nogil:
    cdef bint told = J.told
    if J.depth == 0:
        J.units = 0
    journal_command(db, 2)
    journal_literal(b"DEL")
    journal_word(key, n)
    J.told = told


cdef void journal_begin(Telling* t) noexcept nogil:
    if J.depth == 0:
        J.mark = J.size
        J.units = 0
        J.apart = False
    J.depth += 1
    t.dirty = J.dirty[0]
    t.told = J.told
    J.told = False


cdef bint journal_wants(Telling* t) noexcept nogil:
    return J.dirty[0] != t.dirty and not J.told and J.open


cdef void journal_end(Telling* t) noexcept nogil:
    J.told = t.told
    if J.depth:
        J.depth -= 1
    if J.depth == 0 and J.units > 1 and not J.apart:
        put(b"*1\r\n$4\r\nEXEC\r\n", MULTI_SIZE - 1)
        room(MULTI_SIZE)
        memmove(J.data + J.mark + MULTI_SIZE, J.data + J.mark, J.size - J.mark)
        memcpy(J.data + J.mark, b"*1\r\n$5\r\nMULTI\r\n", MULTI_SIZE)
        J.size += MULTI_SIZE
        J.end += MULTI_SIZE


cdef void journal_take() noexcept nogil:
    J.size = J.mark = 0
    if J.capacity > KEPT:
        mem_free(J.data, J.capacity)
        J.data = NULL
        J.capacity = 0


# ---------------------------------------------------------------- for Python


cdef class Call:
    """See journal.pyi."""

    cdef Telling telling
    cdef bint open

    def __enter__(self):
        self.open = J.open
        if self.open:
            journal_begin(&self.telling)
        return self

    def __exit__(self, *_):
        if self.open:
            journal_end(&self.telling)

    @property
    def wants(self):
        return self.open and journal_wants(&self.telling)


def tell(int db, words not None):
    cdef bytes word
    if not J.open:
        return
    if not words:
        J.told = True
        return
    if J.depth == 0:
        J.units = 0
    journal_command(db, len(words))
    for word in words:
        journal_word(<const uint8_t*>PyBytes_AS_STRING(word), PyBytes_GET_SIZE(word))


def is_open():
    return J.open


def set_open(bint value):
    J.open = value
    J.selected = -1


def forget_database():
    J.selected = -1


def end():
    return J.end


def take():
    cdef bytes data = PyBytes_FromStringAndSize(<char*>J.data, J.size)
    journal_take()
    return data
