"""Blocks between host memory and the tier below: what is to be written, what was, and what comes back.

A block leaves through the queue of those that wait (`take_spilling`), stays in memory until the tier has it (`spilled`),
and comes back into room that was reserved for it (`reserve`, `promote`). The tier moves and loses blocks as it likes, and
says so. `region` hands these functions on.

A place is 63 bits. The upper four say which of the tiers below have the block (bit 59: the one whose own places the
lower bits are; where it has not, they are the checksum's). So one number is all that is kept of a block in any of them.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from zeekdb.hot.blobview cimport BlobView, view_blob
from zeekdb.hot.blocks cimport (
    BLOCK_MAX, NOWHERE, ORDER, PLACE_BITS, RG, SPILLING, Block, Space, block_can_go, block_drop_host, block_group, block_join, block_link,
    block_mate, block_new, block_of, block_remove, block_slot, block_spill, block_take_host, block_unlink, is_kept, quota_room,
    region_room,
)
from zeekdb.hot.grades cimport grade_returned
from zeekdb.hot.memory cimport Blob, blob_release, blob_retain
from zeekdb.hot.region_parts cimport find, find_any, key_of, space_at
from zeekdb.hot.table cimport Entry, hash_bytes, table_find

cdef uint64_t LOCAL_BITS = (<uint64_t>1 << PLACE_BITS) - 1
cdef uint64_t PLACED = <uint64_t>1 << PLACE_BITS

cdef class Pending:
    """A block on its way to the tier below: what the tier is to write, and whose it is."""

    cdef readonly uint32_t space
    cdef readonly bytes key
    cdef readonly BlobView view
    cdef readonly uint64_t checksum
    cdef readonly uint32_t deadline_s
    cdef readonly bytes group
    cdef readonly object place


def demote(uint32_t index, list keys not None) -> int:
    """Blocks that nobody relies on leave host memory: at once where the tier below has them, else once it has."""
    cdef Space* space = space_at(index)
    cdef Entry* e
    cdef Block* b
    cdef int count = 0
    for key in keys:
        e = find(space, key)
        if e == NULL or block_of(e).queue != ORDER or not block_can_go(e):
            continue
        b = block_of(e)
        if b.place and ((b.place - 1) >> PLACE_BITS == 0 or ((b.place - 1) & ~RG.away) >> PLACE_BITS):
            block_drop_host(e)
            count += 1
        elif b.place == 0 and block_spill(e):
            count += 1
    return count


def take_spilling(uint64_t bytes_max) -> list[Pending]:
    """The next blocks to be written below; each comes back through `spilled`."""
    cdef Entry* e
    cdef Block* b
    cdef Pending pending
    cdef list batch = []
    cdef uint64_t taken = 0
    while RG.spill.oldest != NULL and taken < bytes_max:
        e = RG.spill.oldest
        b = block_of(e)
        block_unlink(e)
        RG.spill_bytes += b.size  # until it is written
        taken += b.size
        pending = Pending.__new__(Pending)
        pending.space = b.space
        pending.key = key_of(e)
        pending.view = view_blob(b.blob)
        pending.checksum = b.checksum
        pending.deadline_s = b.deadline_s
        pending.place = <object>(b.place - 1) if b.place else None
        pending.group = key_of(block_group(e)) if b.mate != NULL else None
        batch.append(pending)
    return batch


cdef bint is_relied_on(Entry* e) noexcept nogil:
    """Whether the block or one of its group is leased or pinned."""
    cdef Entry* other = e
    while True:
        if is_kept(block_of(other)):
            return True
        other = block_mate(other)
        if other == NULL or other == e:
            return False


def spilled(Pending pending not None, place) -> bool:
    """The tier below has written the block (`place`) or not (None). False: the block is gone, or another, meanwhile."""
    cdef Space* space
    cdef Entry* e
    cdef Block* b
    cdef uint64_t old
    RG.spill_bytes -= pending.view.size
    if pending.space >= RG.nspaces or RG.spaces[pending.space] == NULL:
        return False
    space = RG.spaces[pending.space]
    e = find(space, pending.key)
    if e == NULL or block_of(e).blob != pending.view.blob:
        return False
    b = block_of(e)
    if place is not None:
        old = b.place - 1
        if b.place and (<uint64_t>place >> PLACE_BITS == 0 or <uint64_t>place & old & PLACED and place != (old & LOCAL_BITS | PLACED)):
            if b.queue == NOWHERE and b.pins == 0:
                block_link(e)
            return False  # it was pinned and unpinned, and so written twice, or it has been moved since
        space.spilled += 1
        if b.place == 0:
            space.spilled_blocks += 1
            space.spilled_bytes += b.size
        b.place = merged(b, <uint64_t>place) + 1
    if b.queue == SPILLING and place is not None:  # the same, and the second time is not needed
        block_unlink(e)
    if b.queue != NOWHERE or b.pins:
        return True
    if place is not None and not is_relied_on(e):
        space.evicted += 1
        block_drop_host(e)
    else:
        block_link(e)
    return True


def reserve(uint64_t size, index=None):
    """Room in host memory for a block that is yet to come: a writable view, None where no room can be made."""
    cdef Space* space = space_at(index) if index is not None else NULL
    cdef Blob* blob
    cdef BlobView view
    if size > BLOCK_MAX or space != NULL and not quota_room(space, size):
        return None
    blob = region_room(size if size else 1)
    if blob == NULL:
        return None
    blob.size = size
    view = view_blob(blob, True)
    blob_release(blob)
    return view


def promote(uint32_t index, bytes key not None, BlobView view not None) -> bool:
    """The block's bytes have been read into `view`; False: it is not there any more, or in memory already."""
    cdef Space* space = space_at(index)
    cdef Entry* e = find(space, key)
    if e == NULL or block_of(e).blob != NULL or block_of(e).size != <uint32_t>view.size:
        return False
    view.writable = False
    block_take_host(e, blob_retain(view.blob))
    space.promoted += 1
    block_of(e).grade = grade_returned(block_of(e).grade)
    block_link(e)
    return True


def note_fetched(uint32_t index, int hits, int misses, uint64_t bytes_out) -> None:
    """See region_below.pyi."""
    cdef Space* space = space_at(index)
    space.hits += hits
    space.misses += misses
    space.bytes_out += bytes_out


def adopt(uint32_t index, bytes key not None, uint32_t size, uint64_t check, uint64_t place, uint32_t deadline_s=0, bytes group=None) -> bool:
    """At the start: a block that the tier below has. False: the key is there already."""
    cdef Space* space = space_at(index)
    cdef const uint8_t* name = <const uint8_t*>PyBytes_AS_STRING(key)
    cdef size_t n = PyBytes_GET_SIZE(key)
    cdef uint64_t h = hash_bytes(name, n)
    cdef Entry* e
    cdef Block* b
    if table_find(&space.table, name, n, h) != NULL:
        return False
    e = block_new(space, name, n, h)
    b = block_of(e)
    b.size = size
    b.checksum = check
    b.place = place + 1
    b.deadline_s = deadline_s
    space.spilled_blocks += 1
    space.spilled_bytes += size
    if group is not None:
        block_join(e, <const uint8_t*>PyBytes_AS_STRING(group), PyBytes_GET_SIZE(group))
    return True


cdef uint64_t merged(const Block* b, uint64_t place) noexcept nogil:
    """The block's place once it is at `place` as well."""
    cdef uint64_t old = b.place - 1 if b.place else 0
    cdef uint64_t levels = (old | place) & ~LOCAL_BITS
    if b.place == 0 or place & PLACED:
        return levels | place & LOCAL_BITS
    return levels | old & LOCAL_BITS


cdef bint is_at(const Block* b, uint64_t place) noexcept nogil:
    """Whether the block is in all tiers that the place names, and there in the first, if it is one of them.

    Of a place in others the lower bits are the checksum of the block that is meant, or 0: whichever.
    """
    cdef uint64_t here = b.place - 1
    cdef uint64_t local = place & LOCAL_BITS
    if b.place == 0 or place & ~LOCAL_BITS & ~here:
        return False
    if place & PLACED or place == local:
        return local == (here & LOCAL_BITS)
    return local == 0 or local == (b.checksum & LOCAL_BITS)


cdef Entry* find_placed(uint32_t index, bytes key, uint64_t place):
    cdef Entry* e
    if index >= RG.nspaces or RG.spaces[index] == NULL:
        return NULL
    e = find_any(RG.spaces[index], key)
    return e if e != NULL and is_at(block_of(e), place) else NULL


def recoded(uint32_t index, bytes key not None, uint64_t old, uint64_t new) -> bool:
    """What comes back of a block is what a lossy coding made of it: from now on that is the block."""
    cdef Entry* e
    if index >= RG.nspaces or RG.spaces[index] == NULL:
        return False
    e = find(RG.spaces[index], key)
    if e == NULL or block_of(e).checksum != old or block_of(e).blob != NULL or block_slot(e):
        return False
    block_of(e).checksum = new
    return True


def set_away(uint64_t levels) -> None:
    """Tiers, as bits of a place, that cannot be asked now."""
    RG.away = levels & ~LOCAL_BITS


def place_added(uint32_t index, bytes key not None, uint64_t check, uint64_t place) -> bool:
    """A tier below has the block as well. False: it is gone, or another block is under this key."""
    cdef Space* space
    cdef Entry* e
    cdef Block* b
    if index >= RG.nspaces or RG.spaces[index] == NULL:
        return False
    space = RG.spaces[index]
    e = find(space, key)
    if e == NULL or block_of(e).checksum != check:
        return False
    b = block_of(e)
    if b.place == 0:
        space.spilled_blocks += 1
        space.spilled_bytes += b.size
        if b.queue == SPILLING:  # nobody needs to write it now; what is in the order leaves as soon as it has to
            block_unlink(e)
            block_link(e)
    b.place = merged(b, place) + 1
    return True


def place_moved(uint32_t index, bytes key not None, uint64_t old, uint64_t new) -> bool:
    """The tier below has moved a block; False: it is none of ours any more."""
    cdef Entry* e = find_placed(index, key, old)
    if e == NULL:
        return False
    block_of(e).place = (((block_of(e).place - 1) & ~LOCAL_BITS & ~old) | new) + 1
    return True


def place_lost(uint32_t index, bytes key not None, uint64_t place) -> bool:
    """The tiers that the place names have the block no longer, or not whole."""
    cdef Space* space
    cdef Block* b
    cdef uint64_t levels
    cdef Entry* e = find_placed(index, key, place)
    if e == NULL:
        return False
    space = RG.spaces[index]
    b = block_of(e)
    levels = (b.place - 1) & ~LOCAL_BITS & ~place
    if levels:
        b.place = (levels | (b.place - 1 if levels & PLACED else b.checksum) & LOCAL_BITS) + 1
        return True
    space.spilled_blocks -= 1
    space.spilled_bytes -= b.size
    b.place = 0
    if b.blob == NULL and block_slot(e) == 0:
        block_remove(e)
    return True


def has_place(uint32_t index, bytes key not None, uint64_t place) -> tuple[bool, bool]:
    """(whether the block lies there, whether somebody relies on it or has used it more than once)."""
    cdef Entry* e
    if index >= RG.nspaces or RG.spaces[index] == NULL:
        return False, False
    e = find(RG.spaces[index], key)
    if e == NULL or not is_at(block_of(e), place):
        return False, False
    return True, is_kept(block_of(e)) or block_of(e).grade > 0
