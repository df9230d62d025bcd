"""The tensor region as Python sees it: blocks in spaces, by key.

`place_argument` is the parser's question where a large argument shall be received: of a command that stores blocks, in
the arena, so that storing it is a matter of taking it over. Blocks between host memory and the tier below are
region_below.pyx's.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport UINT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset
from zeekdb.hot.arena cimport SUMMED, A, Extent, arena_offset, arena_sum_of, arena_trim
from zeekdb.hot.blobview cimport BlobView, view_blob
from zeekdb.hot.blocks cimport (
    HELD, LEASED, NOWHERE, ORDER, RG, Block, Space, block_find_any, block_group, block_join, block_lease,
    block_link, block_link_below, block_mate, block_new, block_of, block_remove, block_slot, block_take_host,
    block_unlink, evict_block, ghost_hash, is_away, is_expired, is_kept, late_end, lease_end, leases_end, quota_room, region_clock,
    region_room, space_free, space_new,
)
from zeekdb.hot.checksum cimport checksum_of
from zeekdb.hot.device_slots cimport HOT_GRADE, device_use, device_want
from zeekdb.hot.grades cimport GR, GRADES, grade_stored
from zeekdb.hot.memory cimport ARENA, FIXED, Blob, blob_retain, mem_footprint
from zeekdb.hot.namespaces cimport NS, namespace_of
from zeekdb.hot.region_parts cimport find, find_any, key_of, space_at
from zeekdb.hot.table cimport (
    Entry, entry_size, hash_bytes, slot_entry, table_find, table_memory, table_prefetch_bucket,
    table_prefetch_entry, table_scan,
)
from zeekdb.hot.wire cimport Arg

from zeekdb.hot.region_below import (  # noqa: F401  # handed on
    Pending, adopt, demote, has_place, note_fetched, place_added, place_lost, place_moved, promote, recoded,
    reserve, set_away, spilled, take_spilling,
)

cdef enum:
    AHEAD = 128              # keys whose entries are fetched together
    MATES_MAX = 65536        # of groups, that one call touches as well
    DEVICE = 1               # what KV.LOOKUP says of a block in a slot of device memory, wherever else it may be
    HOST = 2                 # what KV.LOOKUP says of a block in host memory
    BELOW = 3                # and of one on the SSD alone


cdef bint is_word(const Arg* word, const char* upper, size_t n) noexcept nogil:
    cdef size_t i
    if word.n != n:
        return False
    for i in range(n):
        if (word.p[i] - 32 if 97 <= word.p[i] <= 122 else word.p[i]) != <uint8_t>upper[i]:
            return False
    return True


cdef Blob* place_argument(const Arg* argv, uint32_t argc, size_t n) noexcept nogil:
    if NS.count and argc == 2 and is_word(&argv[0], b"SET", 3) and namespace_of(argv[1].p, argv[1].n) >= 0:
        return region_room(n)
    if argc < 3 or argv[0].n < 6 or argv[0].p[2] != 46:  # KV.
        return NULL
    if is_word(&argv[0], b"KV.MSET", 7) or is_word(&argv[0], b"KV.STORE", 8) or is_word(&argv[0], b"KV.PUT", 6):
        return region_room(n)
    return NULL


cdef inline void use(Entry* e) noexcept nogil:
    """A block was asked for: it becomes the youngest, one grade higher. One under lease was asked for already."""
    cdef Block* b = block_of(e)
    cdef Space* space = RG.spaces[b.space]
    cdef uint32_t slot = block_slot(e)
    if slot:
        device_use(space.device, slot - 1)
    if b.queue != ORDER:
        return
    block_unlink(e)
    if b.grade < GRADES - 1:
        b.grade += 1
    block_link(e)
    if space.device != NULL and slot == 0 and b.grade >= HOT_GRADE and b.size == space.device.size:
        device_want(space.device, e)


cdef uint32_t use_all(Entry* e) noexcept nogil:
    """The block and its group, which go together, so they must not grow old apart; how many beside it."""
    cdef Entry* mate = block_mate(e)
    cdef uint32_t mates = 0
    use(e)
    while mate != NULL and mate != e:
        use(mate)
        mates += 1
        mate = block_mate(mate)
    return mates


cdef Blob* blob_for(object value) except? NULL:
    """The value in the arena, where it is already or whereto it is copied; NULL: no room. One reference."""
    cdef BlobView view
    cdef Blob* blob
    cdef Py_buffer buffer
    if isinstance(value, BlobView) and (<BlobView>value).blob.flags & ARENA:
        view = value
        blob = blob_retain(view.blob)
        arena_trim(blob, blob.size)
        return blob
    PyObject_GetBuffer(value, &buffer, PyBUF_SIMPLE)
    try:
        blob = region_room(buffer.len if buffer.len else 1)
        if blob != NULL:
            memcpy(blob.data, buffer.buf, buffer.len)
            blob.size = buffer.len
        return blob
    finally:
        PyBuffer_Release(&buffer)


def set_clock(int64_t now_ms) -> None:
    region_clock(now_ms)


def open_space(uint64_t quota=0) -> int:
    cdef Space* space = space_new()
    if space == NULL:
        raise MemoryError("too many tenants")
    space.quota = quota
    return space.index


def configure_space(uint32_t index, uint64_t quota) -> None:
    cdef Space* space = space_at(index)
    space.quota = quota
    quota_room(space, 0)


def configure_spilling(uint64_t limit, uint8_t uses, uint8_t own_uses=0) -> None:
    """See region.pyi."""
    RG.spill_limit = limit
    RG.spill_grade = uses - 1
    RG.own_grade = own_uses


cdef struct Places:
    Entry** entries
    uint64_t count


cdef void note_place(Entry* e, uint64_t hash, void* arg) noexcept nogil:
    cdef Places* found = <Places*>arg
    if block_of(e).place:
        found.entries[found.count] = e
        found.count += 1


def close_space(uint32_t index) -> tuple[int, list[tuple[bytes, int]]]:
    """Removes a space and its blocks: (how many there were, [(key, place), …] of those that the tier below has)."""
    cdef Space* space = space_at(index)
    cdef Places found
    cdef uint64_t i
    cdef list places = []
    cdef int blocks = <int>space.table.used
    found.count = 0
    found.entries = <Entry**>malloc((blocks + 1) * sizeof(void*))
    table_scan(&space.table, 0, <size_t>-1, note_place, &found)
    for i in range(found.count):
        places.append((key_of(found.entries[i]), <object>(block_of(found.entries[i]).place - 1)))
    free(found.entries)
    space_free(space)
    return blocks, places


# ---------------------------------------------------------------- storing


cdef bint is_same(const Block* b, object value) except -1:
    """Whether the block has these bytes; of one that is not in host memory its checksum tells."""
    cdef Py_buffer buffer
    cdef bint same
    PyObject_GetBuffer(value, &buffer, PyBUF_SIMPLE)
    if <uint64_t>buffer.len != b.size:
        same = False
    elif b.blob != NULL:
        same = memcmp(buffer.buf, b.blob.data, b.size) == 0
    else:
        same = checksum_of(<const uint8_t*>buffer.buf, b.size) == b.checksum
    PyBuffer_Release(&buffer)
    return same


cdef int bring_back(Space* space, Entry* e, object value) except -1:
    """A block that is in the tier below only is stored again: its bytes come back into host memory for nothing."""
    cdef Blob* blob
    cdef uint16_t pins
    if not is_same(block_of(e), value):
        return 0
    pins = block_of(e).pins
    block_of(e).pins = pins | 1  # making room may take a group off the device, and out of the index
    try:
        blob = blob_for(value) if quota_room(space, block_of(e).size) else NULL  # evict others
    finally:
        block_of(e).pins = pins
    if blob != NULL:
        block_take_host(e, blob)
    return 0


cdef int store_one(Space* space, bytes key, object value, uint32_t deadline_s, bytes group, Entry** entry) except -2:
    """1, 0 or -1, as `put`. What is stored, or was there and could go, is HELD."""
    cdef const uint8_t* name = <const uint8_t*>PyBytes_AS_STRING(key)
    cdef size_t n = PyBytes_GET_SIZE(key)
    cdef Entry* e = block_find_any(space, name, n)
    cdef Block* b = block_of(e) if e != NULL else NULL
    cdef Blob* blob
    cdef size_t size = len(value)
    entry[0] = e
    if e != NULL and is_expired(b):
        if not is_kept(b):
            block_remove(e)
            e = NULL
        elif is_same(b, value):
            b.deadline_s = deadline_s
        else:  # somebody still reads what was there
            space.dropped += 1
            return -1
    if e != NULL:
        if b.blob == NULL:
            bring_back(space, e, value)
        if b.queue == ORDER or b.queue == LEASED or b.blob != NULL and b.queue == NOWHERE and b.pins == 0 and (b.place or block_slot(e)):
            block_unlink(e)
            b.queue = HELD
        if deadline_s == 0 or (b.deadline_s and b.deadline_s < deadline_s):
            b.deadline_s = deadline_s
        space.shared += 1
        return 0
    blob = blob_for(value) if quota_room(space, size) else NULL
    if blob == NULL:
        space.dropped += 1
        return -1
    e = entry[0] = block_new(space, name, n, hash_bytes(name, n))
    block_take_host(e, blob)
    b = block_of(e)
    b.queue = HELD
    b.checksum = arena_sum_of(blob) if blob.flags & SUMMED else checksum_of(blob.data, blob.size)
    b.deadline_s = deadline_s
    if group is not None:
        block_join(e, <const uint8_t*>PyBytes_AS_STRING(group), PyBytes_GET_SIZE(group))
    space.stored += 1
    space.bytes_in += size
    GR.clock += 1
    return 1


def put(uint32_t index, list keys not None, list values not None, uint32_t deadline_s=0, bytes group=None, bytes parent=None) -> list[int]:
    """See region.pyi."""
    cdef Space* space = space_at(index)
    cdef Py_ssize_t i, n = len(keys)
    cdef Entry* e = NULL
    cdef list replies = []
    RG.kept = find(space, parent) if parent is not None else NULL
    try:
        for i in range(n):
            replies.append(store_one(space, keys[i], values[i], deadline_s, group, &e))
    finally:
        RG.kept = NULL
        order_context(space, keys, replies, parent)
    return replies


cdef void order_context(Space* space, list keys, list said, bytes parent):
    """The blocks of a context become younger from its tail to its head, none of a lower grade than what it leads to."""
    cdef Py_ssize_t i
    cdef Entry* e
    cdef Entry* above
    cdef Block* b
    cdef uint8_t floor = 0
    cdef bytes key
    for i in range(len(said) - 1, -1, -1):
        key = <bytes>keys[i]
        e = find_any(space, key)
        if e == NULL or block_of(e).queue != HELD:
            continue
        b = block_of(e)
        block_unlink(e)
        if <int>said[i] == 1:
            b.grade = grade_stored(ghost_hash(space, hash_bytes(<const uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))))
        floor = b.grade = max(b.grade, floor)
        block_link(e)
    above = find(space, parent) if parent is not None else NULL
    if above == NULL or block_of(above).queue != ORDER:
        return
    for i in range(len(said)):
        e = find(space, <bytes>keys[i])
        if e != NULL and e != above and block_of(e).queue == ORDER:
            block_unlink(e)
            block_link_below(e, above)
            above = e


def replace(uint32_t index, bytes key not None, value not None, uint32_t deadline_s=0, bytes group=None) -> tuple:
    """See region.pyi."""
    cdef Space* space = space_at(index)
    cdef Entry* e = find_any(space, key)
    old = None
    if e != NULL:
        if not is_expired(block_of(e)) and is_same(block_of(e), value):
            block_of(e).deadline_s = deadline_s
        else:
            old = block_of(e).place - 1 if block_of(e).place else None
            block_remove(e)
    return put(index, [key], [value], deadline_s, group)[0], old


# ---------------------------------------------------------------- asking


cdef void prefetch(Space* space, list keys, Py_ssize_t begin, Py_ssize_t end, uint64_t* hashes) noexcept:
    cdef Py_ssize_t i
    cdef bytes key
    for i in range(begin, end):
        key = <bytes>keys[i]
        hashes[i - begin] = hash_bytes(<const uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
        table_prefetch_bucket(&space.table, hashes[i - begin])
    for i in range(begin, end):
        table_prefetch_entry(&space.table, hashes[i - begin])


def lookup(uint32_t index, list keys not None, int64_t lease_ms=0, bint locate=False, bint touch=True) -> tuple:
    """See region.pyi."""
    cdef Space* space = space_at(index)
    cdef Py_ssize_t n = len(keys), i, prefix = -1, start
    cdef Entry** found = <Entry**>malloc((n + 1) * sizeof(void*))
    cdef uint64_t hashes[AHEAD]
    cdef bytes bitmap = PyBytes_FromStringAndSize(NULL, (n + 7) // 8)
    cdef bytes tiers = PyBytes_FromStringAndSize(NULL, n)
    cdef bytes places = PyBytes_FromStringAndSize(NULL, 24 * n) if locate else None
    cdef uint8_t* bits = <uint8_t*>PyBytes_AS_STRING(bitmap)
    cdef uint8_t* tier = <uint8_t*>PyBytes_AS_STRING(tiers)
    cdef uint64_t* at
    cdef Block* b
    cdef uint64_t* slot
    cdef bytes key
    cdef uint32_t end = 0, mates = 0
    if lease_ms:
        end = lease_end(lease_ms)
    memset(bits, 0, (n + 7) // 8)
    start = 0
    while start < n:
        prefetch(space, keys, start, min(start + AHEAD, n), hashes)
        for i in range(start, min(start + AHEAD, n)):
            key = <bytes>keys[i]
            slot = table_find(&space.table, <const uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), hashes[i - start])
            found[i] = slot_entry(slot[0]) if slot != NULL else NULL
            if found[i] != NULL and (is_expired(block_of(found[i])) or is_away(found[i])):
                found[i] = NULL
            if found[i] == NULL:
                tier[i] = 0
                if prefix < 0:
                    prefix = i
                continue
            b = block_of(found[i])
            tier[i] = DEVICE if block_slot(found[i]) else HOST if b.blob != NULL else BELOW
            bits[i >> 3] |= 1 << (i & 7)
        start += AHEAD
    if prefix < 0:
        prefix = n
    if touch:
        space.hits += prefix
        space.misses += n - prefix
    for i in range(n - 1, -1, -1):
        if found[i] == NULL:
            continue
        if touch and i < prefix:
            if mates < MATES_MAX:
                mates += use_all(found[i])
            else:
                use(found[i])
        if end:
            block_lease(found[i], end)  # its group stays with it
    if locate:
        at = <uint64_t*>PyBytes_AS_STRING(places)
        for i in range(n):
            b = block_of(found[i]) if found[i] != NULL else NULL
            if b == NULL or b.blob == NULL:
                at[3 * i] = UINT64_MAX
                at[3 * i + 1] = b.size if b != NULL else 0
                at[3 * i + 2] = 0
            else:
                b.blob.flags |= FIXED
                at[3 * i] = arena_offset(b.blob)
                at[3 * i + 1] = b.size
                at[3 * i + 2] = b.checksum
    free(found)
    return prefix, bitmap, tiers, places


def get(uint32_t index, list keys not None, bint touch=True) -> list:
    """See region.pyi."""
    cdef Space* space = space_at(index)
    cdef Py_ssize_t i, n = len(keys)
    cdef Entry* e
    cdef Block* b
    cdef list found = []
    for i in range(n):
        e = find(space, keys[i])
        if e == NULL:
            found.append(None)
            space.misses += touch
            continue
        b = block_of(e)
        if b.blob == NULL:
            found.append(-1 if block_slot(e) else <object>(b.place - 1))
            continue
        found.append(view_blob(b.blob))
        space.bytes_out += b.size if touch else 0
        space.hits += touch
    if touch:
        for i in range(n - 1, -1, -1):
            e = find(space, keys[i])
            if e != NULL:
                use(e)
    return found


def describe(uint32_t index, bytes key not None) -> dict | None:
    """See region.pyi."""
    cdef Entry* e = find(space_at(index), key)
    cdef Block* b
    if e == NULL:
        return None
    b = block_of(e)
    return {
        "size": b.size, "checksum": b.checksum, "place": <object>(b.place - 1) if b.place else None,
        "in_host": b.blob != NULL,
        "slot": <object>(block_slot(e) - 1) if block_slot(e) else None, "deadline_s": b.deadline_s, "leases": b.leases if b.lease_end > RG.now else 0,
        "pins": b.pins, "grade": b.grade, "group": key_of(block_group(e)) if b.mate != NULL else None,
        "queue": ("nowhere", "order", "leased", "spilling", "held")[b.queue],
    }


def count_present(uint32_t index, list keys not None) -> int:
    """How many of the keys are there, in whatever tier."""
    cdef Space* space = space_at(index)
    cdef int present = 0
    cdef Entry* e
    for key in keys:
        e = find(space, key)
        present += e != NULL and not is_away(e)
    return present


# ---------------------------------------------------------------- life of a block


def unlock(uint32_t index, list keys not None) -> int:
    """Gives one lease of each back; how many there were."""
    cdef Space* space = space_at(index)
    cdef Entry* e
    cdef Block* b
    cdef int given = 0
    for key in keys:
        e = find(space, key)
        if e == NULL:
            continue
        b = block_of(e)
        if b.lease_end <= RG.now or b.leases == 0:
            continue
        given += 1
        if b.leases < 0xFFFF:  # from there on they are not counted
            b.leases -= 1
        if b.leases == 0:
            if b.queue == LEASED:
                block_unlink(e)
                b.lease_end = 0
                b.blob.flags &= ~<uint32_t>FIXED  # as when it ends
                block_link(e)
            else:
                b.lease_end = 0
    return given


def pin(uint32_t index, list keys not None, bint pinned) -> int:
    """Pins blocks, or takes one pin of each back; how many were there (and pinned)."""
    cdef Space* space = space_at(index)
    cdef Entry* e
    cdef Block* b
    cdef int changed = 0
    for key in keys:
        e = find(space, key)
        if e == NULL:
            continue
        b = block_of(e)
        if pinned and b.pins < 0xFFFF:
            if b.queue != NOWHERE:
                block_unlink(e)
            b.pins += 1
            changed += 1
        elif not pinned and b.pins:
            b.pins -= 1
            changed += 1
            if b.pins == 0 and b.blob != NULL and b.queue == NOWHERE:
                block_link(e)
    return changed


def remove(uint32_t index, list keys not None) -> list[tuple[bytes, int | None]]:
    """Blocks leave every tier: (key, place in the tier below or None) of those that were there."""
    cdef Space* space = space_at(index)
    cdef Entry* e
    cdef Block* b
    cdef list gone = []
    for key in keys:
        e = find(space, key)
        if e == NULL:
            continue
        b = block_of(e)
        gone.append((key, <object>(b.place - 1) if b.place else None))
        block_remove(e)
    return gone


# ---------------------------------------------------------------- figures


def relieve(uint64_t free_bytes, int most=256) -> int:
    """Ends leases that are over; evicts until the arena has so many bytes free, `most` blocks at a time."""
    cdef int evicted = 0
    leases_end()
    while evicted < most and A.size - A.used < free_bytes and evict_block(NULL):
        evicted += 1
    return evicted


cdef struct Sweep:
    Entry* expired[64]
    uint32_t count


cdef void note_expired(Entry* e, uint64_t hash, void* arg) noexcept nogil:
    cdef Sweep* sweep = <Sweep*>arg
    if is_expired(block_of(e)) and sweep.count < 64 and not is_kept(block_of(e)):
        sweep.expired[sweep.count] = e
        sweep.count += 1


def sweep(uint32_t index, uint64_t cursor) -> tuple[int, list]:
    """Looks at some more blocks of a space and removes the expired: (next cursor, [(key, place), …])."""
    cdef Space* space = space_at(index)
    cdef Sweep found
    cdef uint32_t i
    cdef Block* b
    cdef list gone = []
    found.count = 0
    cursor = table_scan(&space.table, cursor, 256, note_expired, &found)
    for i in range(found.count):
        b = block_of(found.expired[i])
        gone.append((key_of(found.expired[i]), <object>(b.place - 1) if b.place else None))
        block_remove(found.expired[i])
        space.expired += 1
    return cursor, gone


cdef void add_size(Entry* e, uint64_t hash, void* arg) noexcept nogil:
    (<uint64_t*>arg)[0] += mem_footprint(entry_size(e))


cdef Space NO_SPACE


def space_stats(index: int | None) -> dict[str, int]:
    """Counters and sizes of a space; see region.pyi."""
    cdef Space* space = &NO_SPACE
    if index is not None:
        space = space_at(index)
    return {
        "blocks": space.table.used, "host_blocks": space.host_blocks, "host_bytes": space.bytes,
        "ssd_blocks": space.spilled_blocks, "ssd_bytes": space.spilled_bytes, "hits": space.hits,
        "misses": space.misses, "stored": space.stored, "shared": space.shared, "dropped": space.dropped,
        "evicted": space.evicted, "expired": space.expired, "spilled": space.spilled, "promoted": space.promoted,
        "bytes_in": space.bytes_in, "bytes_out": space.bytes_out, "quota": space.quota,
    }


def index_bytes(uint32_t index) -> int:
    """What the index of a space takes: tables, entries and the blobs' headers. A walk over all of it."""
    cdef Space* space = space_at(index)
    cdef uint64_t entries = 0
    table_scan(&space.table, 0, <size_t>-1, add_size, &entries)
    table_scan(&space.groups, 0, <size_t>-1, add_size, &entries)
    return entries + table_memory(&space.table) + table_memory(&space.groups) + space.host_blocks * mem_footprint(sizeof(Extent))


def totals() -> dict[str, int]:
    """Of the whole region: leased blocks, bytes that wait to be written below."""
    return {"leased_blocks": RG.leased, "waiting_blocks": RG.spill.count, "spilling_bytes": RG.spill_bytes}


def release_late() -> None:
    """At the end: no client reads any more, whatever its lease says."""
    late_end(True)


def fix(BlobView view not None) -> int:
    """Where a reserved blob lies in the arena's file; it stays there."""
    if not view.blob.flags & ARENA:
        raise ValueError("not in the arena")
    view.blob.flags |= FIXED
    return arena_offset(view.blob)
