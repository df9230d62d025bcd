"""Which block lies in which slot of a device's memory, which was used last, and which would like to lie there.

The memory itself belongs to `tensors.device`; here are numbers. A slot that its block leaves, for whatever reason, is
noted in `left`, once: whoever owns the memory collects it from there and may give it to another; not before the lease ends under which the block was removed, since
its reader looks at the slot itself. So what removes blocks need not know of devices, and no slot has two blocks.

From a block to its slot there is a table of each device's own (open addressing, by the entry's address), so that a block
which lies on no device pays nothing, and one of a model without device memory is not even looked up.

The order of last use is a list threaded through the slots, exact and without a word per block. Rejected: the slot's number in
each block (8 of 112 bytes, for the few that have one); a place in the eviction order of the host (`blocks.pyx`): a block may hang there too, and the two memories fill up at different times.
"""

from libc.stdint cimport uintptr_t
from libc.string cimport memset
from zeekdb.hot.memory cimport mem_alloc, mem_free

cdef Device* devices[DEVICES_MAX]
memset(devices, 0, sizeof(devices))


cdef Device* device_new(uint32_t slots, uint32_t size) noexcept nogil:
    cdef Device* device
    cdef uint32_t i = 0
    while i < DEVICES_MAX and devices[i] != NULL:
        i += 1
    if i == DEVICES_MAX:
        return NULL
    device = <Device*>mem_alloc(sizeof(Device))
    memset(device, 0, sizeof(Device))
    device.index = i
    device.slots = slots
    device.size = size
    device.slot = <Slot*>mem_alloc(slots * sizeof(Slot))
    memset(device.slot, 0, slots * sizeof(Slot))
    device.left = <Left*>mem_alloc(slots * sizeof(Left))
    device.homes_mask = 15
    while device.homes_mask < 2 * slots:
        device.homes_mask = 2 * device.homes_mask + 1
    device.homes = <uint32_t*>mem_alloc((device.homes_mask + <size_t>1) * sizeof(uint32_t))
    memset(device.homes, 0, (device.homes_mask + <size_t>1) * sizeof(uint32_t))
    devices[i] = device
    return device


cdef Device* device_at(uint32_t index) noexcept nogil:
    return devices[index] if index < DEVICES_MAX else NULL


cdef void device_free(Device* device) noexcept nogil:
    devices[device.index] = NULL
    mem_free(device.slot, device.slots * sizeof(Slot))
    mem_free(device.left, device.slots * sizeof(Left))
    mem_free(device.homes, (device.homes_mask + <size_t>1) * sizeof(uint32_t))
    mem_free(device, sizeof(Device))


# ---------------------------------------------------------------- from blocks to slots


cdef inline uint32_t home_of(const Device* device, const Entry* e) noexcept nogil:
    return <uint32_t>(((<uint64_t><uintptr_t>e >> 4) * <uint64_t>0x9E3779B97F4A7C15ULL) >> 32) & device.homes_mask


cdef inline uint32_t home_at(const Device* device, const Entry* e) noexcept nogil:
    """Where the entry is, or would be."""
    cdef uint32_t at = home_of(device, e)
    while device.homes[at] and device.slot[device.homes[at] - 1].entry != e:
        at = (at + 1) & device.homes_mask
    return at


cdef uint32_t device_find(const Device* device, const Entry* e) noexcept nogil:
    return device.homes[home_at(device, e)]


cdef void move_out(Device* device, const Entry* e) noexcept nogil:
    """What stands behind moves up, so that no search ends at the gap."""
    cdef uint32_t gap = home_at(device, e), at = gap, home
    while True:
        device.homes[gap] = 0
        while True:
            at = (at + 1) & device.homes_mask
            if device.homes[at] == 0:
                return
            home = home_of(device, device.slot[device.homes[at] - 1].entry)
            if ((at - home) & device.homes_mask) >= ((at - gap) & device.homes_mask):
                break
        device.homes[gap] = device.homes[at]
        gap = at


# ---------------------------------------------------------------- the order of last use


cdef void push(Device* device, uint32_t slot) noexcept nogil:
    cdef Slot* s = &device.slot[slot]
    s.newer = 0
    s.older = device.newest
    if device.newest:
        device.slot[device.newest - 1].newer = slot + 1
    else:
        device.oldest = slot + 1
    device.newest = slot + 1


cdef void pull(Device* device, uint32_t slot) noexcept nogil:
    cdef Slot* s = &device.slot[slot]
    if s.older:
        device.slot[s.older - 1].newer = s.newer
    else:
        device.oldest = s.newer
    if s.newer:
        device.slot[s.newer - 1].older = s.older
    else:
        device.newest = s.older
    s.older = s.newer = 0


cdef void device_put(Device* device, uint32_t slot, Entry* e) noexcept nogil:
    device.homes[home_at(device, e)] = slot + 1
    device.slot[slot].entry = e
    device.used += 1
    push(device, slot)


cdef void device_use(Device* device, uint32_t slot) noexcept nogil:
    device.hits += 1
    pull(device, slot)
    push(device, slot)


cdef void device_leave(Device* device, uint32_t slot, uint32_t end) noexcept nogil:
    move_out(device, device.slot[slot].entry)
    pull(device, slot)
    device.slot[slot].entry = NULL
    device.used -= 1
    device.left[device.left_count].slot = slot
    device.left[device.left_count].end = end
    device.left_count += 1


cdef void device_want(Device* device, Entry* e) noexcept nogil:
    cdef uint32_t i
    if device.wanted_count == WANTED_MAX:
        return
    for i in range(device.wanted_count):
        if device.wanted[i] == e:
            return
    device.wanted[device.wanted_count] = e
    device.wanted_count += 1


cdef void unwant(Device* device, uint32_t at) noexcept nogil:
    cdef uint32_t i
    device.wanted_count -= 1
    for i in range(at, device.wanted_count):
        device.wanted[i] = device.wanted[i + 1]


cdef Entry* device_take_wanted(Device* device) noexcept nogil:
    cdef Entry* e
    if device.wanted_count == 0:
        return NULL
    e = device.wanted[0]
    unwant(device, 0)
    return e


cdef void device_forget(Device* device, Entry* e, uint32_t end) noexcept nogil:
    cdef uint32_t slot = device_find(device, e)
    cdef uint32_t i
    if slot:
        device_leave(device, slot - 1, end)
    for i in range(device.wanted_count):
        if device.wanted[i] == e:
            unwant(device, i)
            return
