"""The index's door for the tier above host memory: which blocks lie in slots of a device's memory.

Here is what is known; the memory, the copies and their order are `server.device_tier`'s. A copy takes a while, and the
block may be gone, or another, when it ends: whoever began it shows space, key, size and checksum again.
"""

from cpython.buffer cimport PyBUF_WRITE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t
from zeekdb.hot.arena cimport A
from zeekdb.hot.blobview cimport BlobView, view_blob
from zeekdb.hot.blocks cimport (
    RG, Block, block_find, block_link, block_of, block_remove, block_slot, block_take_host, is_expired, is_kept,
)
from zeekdb.hot.device_slots cimport (
    Device, device_at, device_free, device_leave, device_new, device_put, device_take_wanted,
)
from zeekdb.hot.grades cimport grade_returned
from zeekdb.hot.memory cimport blob_retain
from zeekdb.hot.region_parts cimport key_of
from zeekdb.hot.table cimport Entry

cdef enum:
    PASSED_MAX = 1024        # blocks that have to stay are passed over so often in search of one that may go


cdef Device* device_for(uint32_t index) except NULL:
    cdef Device* device = device_at(index)
    if device == NULL:
        raise IndexError("no such device")
    return device


cdef Entry* find(uint32_t index, bytes key) noexcept:
    """NULL also where there is no such space any more."""
    if index >= RG.nspaces or RG.spaces[index] == NULL:
        return NULL
    return block_find(RG.spaces[index], <const uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))


cdef void let_go(Device* device, uint32_t slot) noexcept nogil:
    """The block leaves the device, and the index where nothing else has it."""
    cdef Entry* e = device.slot[slot].entry
    cdef Block* b = block_of(e)
    if b.blob == NULL and b.place == 0:
        block_remove(e)
        return
    device_leave(device, slot, b.lease_end)


# ---------------------------------------------------------------- devices


def open_device(uint32_t slots, uint32_t size) -> int:
    cdef Device* device = device_new(slots, size)
    if device == NULL:
        raise MemoryError("too many models on devices")
    return device.index


def close_device(uint32_t index) -> int:
    cdef Device* device = device_for(index)
    cdef uint32_t i
    cdef uint32_t blocks = device.used
    for i in range(device.slots):
        if device.slot[i].entry != NULL:
            let_go(device, i)
    for i in range(RG.nspaces):
        if RG.spaces[i] != NULL and RG.spaces[i].device == device:
            RG.spaces[i].device = NULL
    device_free(device)
    return blocks


def assign(uint32_t space, uint32_t device) -> None:
    if space >= RG.nspaces or RG.spaces[space] == NULL:
        raise IndexError("no such space")
    RG.spaces[space].device = device_for(device)


def device_stats(uint32_t index) -> dict[str, int]:
    cdef Device* device = device_for(index)
    return {
        "slots": device.slots, "bytes_each": device.size, "blocks": device.used, "bytes": <uint64_t>device.used * device.size, "hits": device.hits,
        "waiting": device.wanted_count,
    }


def arena_memory() -> memoryview | None:
    if A.base == NULL:
        return None
    return PyMemoryView_FromMemory(<char*>A.base, A.size, PyBUF_WRITE)


# ---------------------------------------------------------------- up


def take_wanted(uint32_t index):
    cdef Device* device = device_for(index)
    cdef Entry* e
    cdef Block* b
    while True:
        e = device_take_wanted(device)
        if e == NULL:
            return None
        b = block_of(e)
        if b.blob != NULL and block_slot(e) == 0 and not is_expired(b):
            return b.space, key_of(e), view_blob(b.blob), b.checksum


def candidate(uint32_t space, bytes key not None):
    cdef Entry* e = find(space, key)
    cdef Block* b
    if e == NULL or RG.spaces[space].device == NULL:
        return None
    b = block_of(e)
    if b.blob == NULL or block_slot(e) or b.size != RG.spaces[space].device.size:
        return None
    return view_blob(b.blob), b.checksum


def placed(uint32_t index, uint32_t slot, uint32_t space, bytes key not None, uint64_t check) -> bool:
    cdef Device* device = device_for(index)
    cdef Entry* e = find(space, key)
    cdef Block* b
    if e == NULL or RG.spaces[space].device != device:
        return False
    b = block_of(e)
    if block_slot(e) or b.size != device.size or b.checksum != check:
        return False
    device_put(device, slot, e)
    return True


# ---------------------------------------------------------------- down


def take_left(uint32_t index) -> list[int]:
    cdef Device* device = device_for(index)
    cdef uint32_t i, resting = 0
    cdef list slots = []
    for i in range(device.left_count):
        if device.left[i].end <= RG.now:
            slots.append(device.left[i].slot)
        else:
            device.left[resting] = device.left[i]
            resting += 1
    device.left_count = resting
    return slots


def victim(uint32_t index):
    cdef Device* device = device_for(index)
    cdef uint32_t at = device.oldest, passed = 0
    cdef Block* b
    while at and passed < PASSED_MAX:
        b = block_of(device.slot[at - 1].entry)
        if not is_kept(b):
            return b.space, key_of(device.slot[at - 1].entry), b.blob == NULL and b.place == 0
        at = device.slot[at - 1].newer
        passed += 1
    return None


def held(uint32_t space, bytes key not None):
    cdef Entry* e = find(space, key)
    cdef Block* b
    cdef uint32_t slot = block_slot(e) if e != NULL else 0
    if slot == 0:
        return None
    b = block_of(e)
    return slot - 1, b.size, b.checksum


def leave(uint32_t space, bytes key not None) -> bool:
    cdef Entry* e = find(space, key)
    cdef Block* b
    cdef uint32_t slot = block_slot(e) if e != NULL else 0
    if slot == 0:
        return False
    b = block_of(e)
    if is_kept(b) or (b.blob == NULL and b.place == 0):
        return False
    let_go(RG.spaces[space].device, slot - 1)
    return True


def may_leave(uint32_t space, bytes key not None) -> bool:
    cdef Entry* e = find(space, key)
    return e != NULL and block_slot(e) and not is_kept(block_of(e))


def lost(uint32_t space, bytes key not None, uint32_t slot) -> bool:
    cdef Entry* e = find(space, key)
    if e == NULL or block_slot(e) != slot + 1:
        return False
    let_go(RG.spaces[space].device, slot)
    return True


def arrived(uint32_t space, bytes key not None, BlobView view not None, uint64_t check, bint asked) -> bool:
    cdef Entry* e = find(space, key)
    cdef Block* b
    if e == NULL:
        return False
    b = block_of(e)
    if b.blob != NULL or b.size != <uint32_t>view.size or b.checksum != check:
        return False
    view.writable = False
    block_take_host(e, blob_retain(view.blob))
    if asked:
        b.grade = grade_returned(b.grade)
    block_link(e)
    return True


# ---------------------------------------------------------------- for attached clients


def locate(uint32_t space, list keys not None, uint32_t per_slab, uint32_t stride) -> bytes:
    cdef Py_ssize_t i, n = len(keys)
    cdef bytes places = PyBytes_FromStringAndSize(NULL, 32 * n)
    cdef uint64_t* at = <uint64_t*>PyBytes_AS_STRING(places)
    cdef Entry* e
    cdef Block* b
    cdef uint32_t slot
    for i in range(n):
        e = find(space, keys[i])
        slot = block_slot(e) if e != NULL else 0
        if slot == 0:
            at[4 * i] = UINT64_MAX
            at[4 * i + 1] = at[4 * i + 2] = at[4 * i + 3] = 0
            continue
        b = block_of(e)
        at[4 * i] = (slot - 1) // per_slab
        at[4 * i + 1] = <uint64_t>((slot - 1) % per_slab) * stride
        at[4 * i + 2] = b.size
        at[4 * i + 3] = b.checksum
    return places
