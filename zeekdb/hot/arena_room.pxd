# Room in the arena where free bytes lie scattered, by moving blobs or by naming those to evict. See arena_room.pyx.
from libc.stdint cimport uint64_t
from zeekdb.hot.memory cimport Blob

# What it costs to lose a blob; UINT64_MAX: it must stay. Asked up to twice a search, and must say the same.
ctypedef uint64_t (*Price)(Blob* blob, void* arg) noexcept nogil

# Whether arena_blob(size) finds room now, after at most so many bytes were moved. Blobs that are FIXED or have
# refs > 1 stay. About a millisecond when it searches in vain, so ask it once a blob and evict then.
cdef bint arena_make_room(size_t size, size_t move_bytes_max) noexcept nogil

# The cheapest run of blobs after whose release arena_blob(size) finds room: how many there are, of which the first
# `most` are in `out`; 0: none was found. Without a price each costs its bytes. FIXED blobs and those with refs > 1
# are never among them.
cdef size_t arena_window(size_t size, Price price, void* arg, Blob** out, size_t most) noexcept nogil
