# Room in the arena where free bytes lie scattered, by moving blobs. See arena_room.pyx.

# Whether arena_blob(size) finds room now, after at most so many bytes were moved. Blobs that are FIXED or have
# refs > 1 stay. About a millisecond when it searches in vain, so ask it rarely and evict meanwhile.
cdef bint arena_make_room(size_t size, size_t move_bytes_max) noexcept nogil
