"""The tensor region's index: what is there, who may still rely on it, and what goes first.

A *space* holds the blocks of one tenant (salt) of one model in a table of its own, so that the salt costs nothing per
block and no tenant sees another's. A block is an entry of that table: its key, and a `Block` for a value, which says
where the bytes are: in the host arena (`blob`), in the tier below (`place`), in a slot of device memory (`block_slot`), or
in several of them. It leaves the index when none has it.

What may go. A block in host memory hangs in exactly one queue: its space's order of eviction, the wheel of leases, or
the queue of those that wait to be written to the tier below; a pinned one, or one that is being written, in none. So
what is in the order can go, and to find the next is a few steps, however many blocks are leased: a block under lease is
not there. Which goes first is told in grades.pyx. The wheel brings it back when the lease ends, as the newest.

Prefixes. A block is of use only while all blocks before it in its context are there. Contexts are touched from their
tail to their head, and a tail that is stored later is hung below (older than) the parent that is named with it: any
use of a block is then also a younger use of its parent, so tails go before heads without a word about who is whose
parent. Ranks of one chunk form a group, which leaves together or stays.

Rejected: a reference count per lease holder (a client that dies would leave it behind; a lease has an end instead); a
heap of lease ends (log n for each lookup).
"""

from libc.string cimport memset
from zeekdb.hot.arena cimport A, arena_blob
from zeekdb.hot.arena_room cimport arena_make_room
from zeekdb.hot.device_slots cimport Device, device_forget
from zeekdb.hot.grades cimport GR, GRADES, grade_age, grade_evicted
from zeekdb.hot.memory cimport FIXED, blob_release, mem_alloc, mem_free, mem_resize
from zeekdb.hot.table cimport (
    T_MODULE, entry_free, entry_key, entry_new, hash_bytes, slot_entry, table_find, table_free, table_init, table_insert,
    table_scan, table_take,
)

cdef enum:
    SPACES_MAX = 65536       # tenants of all models together
    TRIES_MAX = 64           # blocks that the tier below has no room for are passed over so often
    PASSED_MAX = 16384       # and those whose groups have to stay
    ROUNDS_MAX = 65536       # evictions for one block, or for one quota
    MOVE_MAX = 67108864      # bytes moved at a time for one block's room
    SPACES_LOOKED_AT = 32    # when the one with the oldest block is chosen among many
    SPACES_PASSED = 1024     # and those of which none can go, once one was found
    LEASES_AT_ONCE = 65536   # that end in one call, a few milliseconds

    # Whether a block can go.
    GOES = 0
    STAYS = 1                # somebody relies on it, or on one of its group
    WAITS = 2                # for room in the tier below

memset(&RG, 0, sizeof(RG))
RG.spill_grade = 1


cdef void region_clock(int64_t now_ms) noexcept nogil:
    """Where the system's clock is set back, ticks stand still once and then go on: leases last what was promised."""
    if RG.begin_ms == 0:
        RG.begin_ms = now_ms - 1024
    if now_ms - RG.begin_ms < <int64_t>RG.now << TICK_LOG:
        RG.begin_ms = now_ms - (<int64_t>RG.now << TICK_LOG)
    RG.now = <uint32_t>((now_ms - RG.begin_ms) >> TICK_LOG)
    RG.now_s = <uint32_t>(now_ms // 1000)


# ---------------------------------------------------------------- queues


cdef void push_newest(Queue* q, Entry* e) noexcept nogil:
    cdef Block* b = block_of(e)
    b.newer = NULL
    b.older = q.newest
    if q.newest != NULL:
        block_of(q.newest).newer = e
    else:
        q.oldest = e
    q.newest = e
    q.count += 1


cdef void push_below(Queue* q, Entry* e, Entry* parent) noexcept nogil:
    """On the older side of one that hangs there."""
    cdef Block* b = block_of(e)
    cdef Block* p = block_of(parent)
    b.newer = parent
    b.older = p.older
    if p.older != NULL:
        block_of(p.older).newer = e
    else:
        q.oldest = e
    p.older = e
    q.count += 1


cdef void take_out(Queue* q, Entry* e) noexcept nogil:
    cdef Block* b = block_of(e)
    if b.older != NULL:
        block_of(b.older).newer = b.newer
    else:
        q.oldest = b.newer
    if b.newer != NULL:
        block_of(b.newer).older = b.older
    else:
        q.newest = b.older
    b.older = b.newer = NULL
    q.count -= 1


cdef inline Queue* wheel_of(const Block* b) noexcept nogil:
    return &RG.wheel[b.lease_end & (WHEEL - 1)]


cdef void block_unlink(Entry* e) noexcept nogil:
    cdef Block* b = block_of(e)
    if b.queue == ORDER:
        take_out(&RG.spaces[b.space].order[b.grade], e)
    elif b.queue == LEASED:
        take_out(wheel_of(b), e)
        RG.leased -= 1
    elif b.queue == SPILLING:
        take_out(&RG.spill, e)
        RG.spill_bytes -= b.size
    b.queue = NOWHERE


cdef void block_link(Entry* e) noexcept nogil:
    cdef Block* b = block_of(e)
    if b.blob == NULL or b.pins:
        return
    if b.lease_end > RG.now:
        b.queue = LEASED
        push_newest(wheel_of(b), e)
        RG.leased += 1
        return
    b.queue = ORDER
    b.used = GR.clock
    push_newest(&RG.spaces[b.space].order[b.grade], e)


cdef void block_link_below(Entry* e, Entry* parent) noexcept nogil:
    cdef Block* b = block_of(e)
    cdef Block* p = block_of(parent)
    if b.grade > p.grade:
        b.grade = p.grade
    if b.blob == NULL or b.pins or b.lease_end > RG.now or p.queue != ORDER or b.grade != p.grade:
        block_link(e)
        return
    b.queue = ORDER
    b.used = p.used
    push_below(&RG.spaces[b.space].order[b.grade], e, parent)


cdef void block_lease(Entry* e, uint32_t end) noexcept nogil:
    """Nothing takes the block before `end`; leases of several clients last as long as the last of them."""
    cdef Block* b = block_of(e)
    if b.lease_end <= RG.now:
        b.leases = 0
    if b.leases < 0xFFFF:
        b.leases += 1
    if end <= b.lease_end:
        return
    if b.queue == NOWHERE:  # pinned, being written, or not in memory: the lease alone counts
        b.lease_end = end
        return
    block_unlink(e)
    b.lease_end = end
    block_link(e)


cdef void release_late(Blob* blob, uint32_t end) noexcept nogil:
    """A block whose place was told under a lease is removed: its memory is nobody else's before the lease ends."""
    cdef uint32_t capacity
    if RG.lates == RG.lates_capacity:
        capacity = 2 * RG.lates_capacity if RG.lates_capacity else 64
        RG.late = <Late*>mem_resize(RG.late, RG.lates_capacity * sizeof(Late), capacity * sizeof(Late))
        RG.lates_capacity = capacity
    RG.late[RG.lates].blob = blob
    RG.late[RG.lates].end = end
    RG.lates += 1


cdef void late_end(bint all_of_them) noexcept nogil:
    cdef uint32_t i = 0
    while i < RG.lates:
        if all_of_them or RG.late[i].end <= RG.now:
            blob_release(RG.late[i].blob)
            RG.lates -= 1
            RG.late[i] = RG.late[RG.lates]
        else:
            i += 1
    if RG.lates == 0 and RG.late != NULL:
        mem_free(RG.late, RG.lates_capacity * sizeof(Late))
        RG.late = NULL
        RG.lates_capacity = 0


cdef void leases_end() noexcept nogil:
    cdef Queue* q
    cdef Entry* e
    cdef Entry* following
    cdef uint32_t ended = 0
    if RG.lates and RG.wheel_at < RG.now:
        late_end(False)
    if RG.now - RG.wheel_at > WHEEL:
        RG.wheel_at = RG.now - WHEEL
    while RG.wheel_at < RG.now:
        q = &RG.wheel[(RG.wheel_at + 1) & (WHEEL - 1)]
        e = q.oldest
        while e != NULL:
            following = block_of(e).newer
            if block_of(e).lease_end <= RG.now:
                if ended == LEASES_AT_ONCE:
                    return  # the next call goes on here
                ended += 1
                block_unlink(e)
                block_of(e).leases = 0
                block_of(e).blob.flags &= ~<uint32_t>FIXED  # nobody reads it where it lies any more
                block_link(e)
            e = following
        RG.wheel_at += 1


# ---------------------------------------------------------------- spaces and blocks


cdef Space* space_new() noexcept nogil:
    cdef Space* space
    cdef uint32_t i = 0
    while i < RG.nspaces and RG.spaces[i] != NULL:
        i += 1
    if i == RG.nspaces:
        if i == SPACES_MAX:
            return NULL
        RG.spaces = <Space**>mem_resize(RG.spaces, i * sizeof(void*), (i + 1) * sizeof(void*))
        RG.nspaces += 1
    space = <Space*>mem_alloc(sizeof(Space))
    memset(space, 0, sizeof(Space))
    space.index = i
    table_init(&space.table, i)
    table_init(&space.groups, i)
    RG.spaces[i] = space
    return space


ctypedef struct Found:
    Entry** entries
    uint64_t count


cdef void note_entry(Entry* e, uint64_t hash, void* arg) noexcept nogil:
    cdef Found* found = <Found*>arg
    found.entries[found.count] = e
    found.count += 1


cdef inline void leave_device(Entry* e) noexcept nogil:
    cdef Device* device = RG.spaces[block_of(e).space].device
    if device != NULL:
        device_forget(device, e, block_of(e).lease_end)


cdef void free_table(Table* table, bint blocks) noexcept nogil:
    """The entries, blocks or groups, once the walk is over: it looks at entries that it has passed."""
    cdef size_t size = (table.used + 1) * sizeof(void*)
    cdef Found found
    cdef uint64_t i
    found.entries = <Entry**>mem_alloc(size)
    found.count = 0
    table_scan(table, 0, <size_t>-1, note_entry, &found)
    for i in range(found.count):
        if blocks:
            leave_device(found.entries[i])
            if block_of(found.entries[i]).blob != NULL:
                block_drop_host(found.entries[i])
        entry_free(found.entries[i])
    mem_free(found.entries, size)
    table_free(table)


cdef void space_free(Space* space) noexcept nogil:
    free_table(&space.table, True)
    free_table(&space.groups, False)
    RG.spaces[space.index] = NULL
    mem_free(space, sizeof(Space))


cdef Entry* block_find_any(Space* space, const uint8_t* key, size_t n) noexcept nogil:
    cdef uint64_t* slot = table_find(&space.table, key, n, hash_bytes(key, n))
    return slot_entry(slot[0]) if slot != NULL else NULL


cdef Entry* block_find(Space* space, const uint8_t* key, size_t n) noexcept nogil:
    cdef Entry* e = block_find_any(space, key, n)
    return e if e != NULL and not is_expired(block_of(e)) else NULL


cdef Entry* block_new(Space* space, const uint8_t* key, size_t n, uint64_t h) noexcept nogil:
    cdef Block fresh
    cdef Entry* e
    memset(&fresh, 0, sizeof(fresh))
    fresh.space = space.index
    fresh.used = GR.clock
    e = entry_new(T_MODULE, key, n, <const uint8_t*>&fresh, sizeof(fresh), 0)
    table_insert(&space.table, e, h)
    return e


cdef void block_take_host(Entry* e, Blob* blob) noexcept nogil:
    cdef Block* b = block_of(e)
    cdef Space* space = RG.spaces[b.space]
    b.blob = blob
    blob.flags &= ~FIXED  # nobody but the index knows its place any more
    b.size = <uint32_t>blob.size
    space.bytes += b.size
    space.host_blocks += 1
    GR.blocks += 1


cdef void block_drop_host(Entry* e) noexcept nogil:
    cdef Block* b = block_of(e)
    cdef Space* space = RG.spaces[b.space]
    block_unlink(e)
    if b.blob.flags & FIXED and b.lease_end > RG.now:
        release_late(b.blob, b.lease_end)
    else:
        blob_release(b.blob)
    b.blob = NULL
    space.bytes -= b.size
    space.host_blocks -= 1
    GR.blocks -= 1


cdef void leave_group(Entry* e) noexcept nogil:
    cdef Block* b = block_of(e)
    cdef Entry* home = block_group(e)
    cdef Group* group
    cdef Entry* before = NULL
    cdef Table* groups
    cdef const uint8_t* name
    cdef size_t n = 0
    if home == NULL:
        return
    group = group_of(home)
    if group.count == 1:
        groups = &RG.spaces[b.space].groups
        name = entry_key(home, &n)
        entry_free(table_take(groups, table_find(groups, name, n, hash_bytes(name, n))))
    elif group.first == e:
        group.first = b.mate
        group.count -= 1
    else:
        before = group.first
        while block_of(before).mate != e:
            before = block_of(before).mate
        block_of(before).mate = b.mate
        if group.last == e:
            group.last = before
        group.count -= 1
    b.mate = NULL


cdef void block_join(Entry* e, const uint8_t* name, size_t n) noexcept nogil:
    cdef Table* groups = &RG.spaces[block_of(e).space].groups
    cdef uint64_t h = hash_bytes(name, n)
    cdef uint64_t* slot
    cdef Entry* home
    cdef Group* group
    cdef Group fresh
    leave_group(e)
    slot = table_find(groups, name, n, h)
    if slot == NULL:
        fresh.first = fresh.last = e
        fresh.count = 1
        home = entry_new(T_MODULE, name, n, <const uint8_t*>&fresh, sizeof(fresh), 0)
        table_insert(groups, home, h)
    else:
        home = slot_entry(slot[0])
        group = group_of(home)
        if group.count == GROUP_MAX:
            return
        block_of(group.last).mate = e
        group.last = e
        group.count += 1
    block_of(e).mate = home


cdef void block_remove(Entry* e) noexcept nogil:
    """Out of memory, off the device and out of the index. What is in the tier below is the caller's to take back."""
    cdef Block* b = block_of(e)
    cdef Space* space = RG.spaces[b.space]
    cdef const uint8_t* key
    cdef size_t n = 0
    leave_device(e)
    if b.blob != NULL:
        block_drop_host(e)
    if b.place:
        space.spilled_blocks -= 1
        space.spilled_bytes -= b.size
    leave_group(e)
    key = entry_key(e, &n)
    table_take(&space.table, table_find(&space.table, key, n, hash_bytes(key, n)))
    entry_free(e)


# ---------------------------------------------------------------- eviction


cdef bint block_spill(Entry* e) noexcept nogil:
    cdef Block* b = block_of(e)
    if RG.spill_limit == 0:
        return False
    block_unlink(e)
    b.queue = SPILLING
    push_newest(&RG.spill, e)
    RG.spill_bytes += b.size
    return True


cdef inline bint needs_writing(const Block* b, bint worth) noexcept nogil:
    """Other nodes' tiers may have it: what is used here is to be near."""
    if not worth or b.blob == NULL or is_expired(b):
        return False
    if b.place == 0:
        return True
    return RG.own_grade != 0 and b.grade + 1 >= RG.own_grade and not ((b.place - 1) >> PLACE_BITS) & 1


cdef bint worth_writing(Entry* e) noexcept nogil:
    """Whether the block and its group are to be found in the tier below later: all of them, or none."""
    cdef Block* b
    cdef Entry* other = e
    if RG.spill_limit == 0:
        return False
    while True:
        b = block_of(other)
        if b.place or b.grade >= RG.spill_grade:
            return True
        other = block_mate(other)
        if other == NULL or other == e:
            return False


cdef bint is_on_device(Entry* e) noexcept nogil:
    """Whether the block, or one of its group, lies in a slot."""
    cdef Entry* other = e
    if RG.spaces[block_of(e).space].device == NULL:
        return False
    while True:
        if block_slot(other):
            return True
        other = block_mate(other)
        if other == NULL or other == e:
            return False


cdef bint remove_group(Entry* e) noexcept nogil:
    """A group of which host memory has only what has no other place leaves the device as well, if nobody relies on it."""
    cdef Block* b
    cdef Entry* other = e
    cdef Entry* following
    cdef uint32_t count = group_of(block_group(e)).count, i
    for i in range(count):
        b = block_of(other)
        if b.place or is_kept(b) or other == RG.kept or (b.blob != NULL and b.queue != ORDER):
            return False
        other = block_mate(other)
    for i in range(count):
        following = block_mate(other)
        RG.spaces[block_of(other).space].evicted += 1
        block_remove(other)
        other = following
    return True


cdef bint let_go(Entry* e, bint worth) noexcept nogil:
    """Host memory is given up for the block; False: it has to be written to the tier below first, and will be."""
    cdef Block* b = block_of(e)
    cdef const uint8_t* key
    cdef size_t n = 0
    cdef uint32_t slot = block_slot(e)
    if needs_writing(b, worth):
        block_spill(e)
        return False
    if b.place == 0 and slot == 0 and is_on_device(e):
        block_unlink(e)  # what its group has on the device is worth nothing without it
        block_link(e)
        return False
    RG.spaces[b.space].evicted += 1
    if b.place or slot:
        block_drop_host(e)
        return True
    key = entry_key(e, &n)
    grade_evicted(ghost_hash(RG.spaces[b.space], hash_bytes(key, n)), b.grade)
    block_remove(e)
    return True


cdef int may_go(Entry* e, bint worth) noexcept nogil:
    cdef Block* b
    cdef Entry* other = e
    cdef uint64_t to_write = 0
    while True:
        b = block_of(other)
        if b.blob != NULL:
            if b.queue != ORDER or other == RG.kept:
                return STAYS
            if needs_writing(b, worth):
                to_write += b.size
        other = block_mate(other)
        if other == NULL or other == e:
            return GOES if to_write == 0 or RG.spill_bytes == 0 or RG.spill_bytes + to_write <= RG.spill_limit else WAITS


cdef bint block_can_go(Entry* e) noexcept nogil:
    return may_go(e, worth_writing(e)) == GOES


cdef bint let_group_go(Entry* e) noexcept nogil:
    """The block and those of its group that are in memory."""
    cdef Entry* other
    cdef Entry* following
    cdef bint gone = False, worth = worth_writing(e)
    cdef uint32_t count, i
    if block_of(e).mate == NULL:
        return let_go(e, worth)
    count = group_of(block_group(e)).count
    other = block_mate(e)
    for i in range(count):
        following = block_mate(other)
        if block_of(other).blob != NULL:
            gone |= let_go(other, worth)
        other = following
    return gone or (is_on_device(e) and remove_group(e))


cdef uint64_t renew_group(Queue* q, Entry* e) noexcept nogil:
    """The block and those of its group that hang in the same queue become the newest; how many."""
    cdef Entry* other = e
    cdef Block* b
    cdef uint8_t grade = block_of(e).grade
    cdef uint64_t count = 0
    while True:
        b = block_of(other)
        if b.queue == ORDER and b.grade == grade and other != RG.kept:
            take_out(q, other)
            b.used = GR.clock
            push_newest(q, other)
            count += 1
        other = block_mate(other)
        if other == e:
            return count


cdef Entry* oldest_that_goes(Queue* q) noexcept nogil:
    """Of one grade. A group that has to stay is as good as in use: it becomes the newest, and is not in the way."""
    cdef Entry* e = q.oldest
    cdef Entry* before = NULL
    cdef uint64_t left = min(q.count, <uint64_t>PASSED_MAX)
    cdef uint32_t tries = 0
    cdef int what
    while e != NULL and left:
        what = may_go(e, worth_writing(e))
        if what == GOES:
            return e
        if what == STAYS and block_of(e).mate != NULL and e != RG.kept:
            left -= min(left, renew_group(q, e))
        else:
            left -= 1
            tries += 1
            if tries == TRIES_MAX:
                break
            before = e
        e = block_of(before).newer if before != NULL else q.oldest
    return NULL


cdef Entry* oldest_of(Space* space, double* age) noexcept nogil:
    """Of the oldest of each grade that can go, the one that has lived the largest part of its grade's life."""
    cdef Entry* best = NULL
    cdef Entry* e
    cdef double own
    cdef int grade
    for grade in range(GRADES):
        e = oldest_that_goes(&space.order[grade])
        if e != NULL:
            own = grade_age(grade, block_of(e).used)
            if best == NULL or own > age[0]:
                best = e
                age[0] = own
    return best


cdef Entry* oldest() noexcept nogil:
    """The same among all spaces; among many, of some."""
    cdef Entry* best = NULL
    cdef Entry* e
    cdef Space* space
    cdef double age = 0, own = 0
    cdef uint32_t i, looked_at = 0, last = 0
    for i in range(RG.nspaces):
        space = RG.spaces[(RG.next_space + i) % RG.nspaces]
        e = oldest_of(space, &own) if space != NULL and space.host_blocks else NULL
        if e != NULL:
            if best == NULL or own > age:
                best = e
                age = own
            looked_at += 1
            last = space.index
        if looked_at == SPACES_LOOKED_AT or best != NULL and i >= SPACES_PASSED:
            RG.next_space = last  # a space that has some: the next search need not pass the empty ones again
            break
    return best


cdef bint evict_block(Space* space) noexcept nogil:
    cdef Entry* e
    cdef double age = 0
    cdef uint32_t tries
    leases_end()
    for tries in range(TRIES_MAX):  # what has to be written below first makes no room yet
        e = oldest_of(space, &age) if space != NULL else oldest()
        if e == NULL:
            return False
        if let_group_go(e):
            return True
    return False


cdef Blob* region_room(size_t size) noexcept nogil:
    """A blob of the arena, for which others leave."""
    cdef Blob* blob
    cdef uint32_t rounds
    cdef size_t enough = size, step = size  # bytes free that are worth a search, which takes a millisecond in vain
    if size > A.size or size > BLOCK_MAX:
        return NULL
    for rounds in range(ROUNDS_MAX):
        blob = arena_blob(size)
        if blob != NULL:
            return blob
        if A.size - A.used >= enough:
            if arena_make_room(size, MOVE_MAX):
                continue
            enough = A.size - A.used + step
            step *= 2
        if not evict_block(NULL):
            return NULL
    return NULL


cdef bint quota_room(Space* space, size_t size) noexcept nogil:
    """A space that has a quota makes room among its own blocks."""
    cdef uint32_t rounds = 0
    if space.quota == 0:
        return True
    if size > space.quota:
        return False
    while space.bytes + size > space.quota:
        if rounds == ROUNDS_MAX or not evict_block(space):
            return False
        rounds += 1
    return True
