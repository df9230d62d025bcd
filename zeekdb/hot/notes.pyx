"""Which keys somebody waits for or remembers, and notes of their changes.

WATCH, blocked clients and client-side caching care about single keys. Were they told of every change, every write
would have to go through Python. So they announce the keys: a counting filter over key hashes lets writes pass that
concern nobody, twins included, and the others leave a note, which the server reads at the end of the command. The
filter may err: a note says that perhaps somebody asks about the key, and whoever reads it knows exactly.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint16_t, uint64_t
from libc.string cimport memcpy, memset
from zeekdb.hot.memory cimport mem_alloc, mem_free, mem_resize

cdef enum:
    PLACE_MAX = 0xFFFF       # a place this full stays full: it cannot be counted down any more


memset(&N, 0, sizeof(N))


cdef void note_add(uint64_t h) noexcept nogil:
    cdef uint16_t* place
    if N.filter == NULL:
        N.filter = <uint16_t*>mem_alloc(FILTER * sizeof(uint16_t))
        memset(N.filter, 0, FILTER * sizeof(uint16_t))
    place = &N.filter[h & (FILTER - 1)]
    if place[0] < PLACE_MAX:
        place[0] += 1
    N.interests += 1


cdef void note_drop(uint64_t h) noexcept nogil:
    cdef uint16_t* place = &N.filter[h & (FILTER - 1)]
    if place[0] < PLACE_MAX:
        place[0] -= 1
    N.interests -= 1
    if N.interests == 0:
        mem_free(N.filter, FILTER * sizeof(uint16_t))
        N.filter = NULL


cdef void note_down(int db, const uint8_t* key, size_t n) noexcept nogil:
    cdef Noted* noted
    cdef size_t capacity
    if N.used == N.capacity:
        capacity = N.capacity * 2 if N.capacity else 64
        N.noted = <Noted*>mem_resize(N.noted, N.capacity * sizeof(Noted), capacity * sizeof(Noted))
        N.capacity = capacity
    noted = &N.noted[N.used]
    noted.key = <uint8_t*>mem_alloc(n if n else 1)
    memcpy(noted.key, key, n)
    noted.n = n
    noted.db = db
    N.used += 1
    N.due = True


cdef list notes_take():
    cdef list taken = []
    cdef size_t i
    for i in range(N.used):
        taken.append((N.noted[i].db, PyBytes_FromStringAndSize(<char*>N.noted[i].key, N.noted[i].n)))
        mem_free(N.noted[i].key, N.noted[i].n if N.noted[i].n else 1)
    mem_free(N.noted, N.capacity * sizeof(Noted))
    N.noted = NULL
    N.used = N.capacity = 0
    return taken
