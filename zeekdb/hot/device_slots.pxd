# Slots of device memory as the index knows them. See device_slots.pyx.
from libc.stdint cimport uint32_t, uint64_t
from zeekdb.hot.table cimport Entry

cdef enum:
    DEVICES_MAX = 1024
    WANTED_MAX = 128         # blocks that wait to be copied to one device; others ask again with their next use
    HOT_GRADE = 2            # from this grade on a use makes a block wanted there

ctypedef struct Slot:
    Entry* entry             # whose block lies there; NULL: nobody's
    uint32_t older           # slot plus one, 0: none
    uint32_t newer

# A slot whose block is gone.
ctypedef struct Left:
    uint32_t slot
    uint32_t end             # of the lease under which the block was removed, in ticks; 0: there was none

# The slots of one model.
ctypedef struct Device:
    uint32_t index
    uint32_t slots
    uint32_t size            # bytes of the blocks that fit: exactly so many
    uint32_t used
    uint32_t oldest          # by last use; slot plus one
    uint32_t newest
    uint32_t left_count
    uint32_t wanted_count
    uint64_t hits            # uses of blocks that lay there
    Slot* slot
    uint32_t* homes          # a table from entries to slots (plus one, 0: free), at most half full
    uint32_t homes_mask
    Left* left               # for whoever owns the memory
    Entry* wanted[WANTED_MAX]

cdef Device* device_new(uint32_t slots, uint32_t size) noexcept nogil   # NULL: too many
cdef Device* device_at(uint32_t index) noexcept nogil                   # NULL: no such one
cdef void device_free(Device* device) noexcept nogil                    # no block may lie there
cdef uint32_t device_find(const Device* device, const Entry* e) noexcept nogil  # the block's slot plus one; 0: it is not there
cdef void device_put(Device* device, uint32_t slot, Entry* e) noexcept nogil
cdef void device_use(Device* device, uint32_t slot) noexcept nogil
cdef void device_leave(Device* device, uint32_t slot, uint32_t end) noexcept nogil  # the slot is nobody's from now on
cdef void device_want(Device* device, Entry* e) noexcept nogil
cdef Entry* device_take_wanted(Device* device) noexcept nogil           # the first that asked; NULL: none
cdef void device_forget(Device* device, Entry* e, uint32_t end) noexcept nogil  # a block that is no more
