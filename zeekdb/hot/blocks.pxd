# The tensor region's index: blocks by key, leases, eviction. See blocks.pyx.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from zeekdb.hot.device_slots cimport Device, device_find
from zeekdb.hot.grades cimport GRADES
from zeekdb.hot.memory cimport Blob
from zeekdb.hot.table cimport Entry, Table, entry_value

cdef enum:
    PLACE_BITS = 59      # of a place that a tier chooses; those above name the tiers, the lowest of them the one that chose

# Where a block hangs.
cdef enum:
    NOWHERE = 0          # not in host memory, pinned, or on its way to a lower tier
    ORDER = 1            # its space's order of eviction
    LEASED = 2           # the wheel of leases
    SPILLING = 3         # waits to be written to the tier below
    HELD = 4             # nowhere either, by the command that stores it: what comes behind it does not push it out

# What an entry of a space's table holds beside its key.
ctypedef packed struct Block:
    Entry* older
    Entry* newer
    Entry* mate          # the next of its group, the last one's is the group's entry; NULL: it is in none
    Blob* blob           # in host memory; NULL: not there
    uint64_t checksum
    uint64_t place       # in the tier below, plus one; 0: not there
    uint32_t size        # bytes
    uint16_t space
    uint32_t lease_end   # in ticks; 0: no lease was given
    uint32_t deadline_s  # Unix time; 0: none
    uint32_t used        # on the clock of blocks stored: the last use
    uint16_t leases
    uint16_t pins
    uint8_t queue
    uint8_t grade        # uses since it was stored, see grades.pyx

# What an entry of a space's table of groups holds beside the name.
ctypedef packed struct Group:
    Entry* first
    Entry* last
    uint32_t count

ctypedef struct Queue:
    Entry* oldest
    Entry* newest
    uint64_t count

# The blocks of one tenant of one model.
ctypedef struct Space:
    Table table
    Table groups
    Queue order[GRADES]
    uint32_t index
    Device* device       # its model's slots; NULL: none
    uint64_t quota       # bytes in host memory; 0: no limit
    uint64_t bytes       # in host memory
    uint64_t host_blocks
    uint64_t spilled_blocks
    uint64_t spilled_bytes
    uint64_t hits
    uint64_t misses
    uint64_t stored
    uint64_t shared
    uint64_t dropped
    uint64_t evicted
    uint64_t expired
    uint64_t spilled     # written to the tier below
    uint64_t promoted    # read from it
    uint64_t bytes_in
    uint64_t bytes_out

cdef enum:
    TICK_LOG = 4         # a tick is 16 ms
    WHEEL = 4096         # ticks that the wheel of leases spans: 65 s; a longer lease goes round again
    BLOCK_MAX = 0x7FFFFFFF   # bytes
    GROUP_MAX = 1024     # blocks; walks over a group are part of a command

# A blob whose block has gone while a client of the same host may still be reading it.
ctypedef struct Late:
    Blob* blob
    uint32_t end         # of the lease, in ticks

ctypedef struct Region:
    Space** spaces
    uint32_t nspaces
    Queue wheel[WHEEL]
    uint32_t wheel_at    # ticks up to which leases have ended
    uint64_t leased
    Queue spill
    uint64_t spill_bytes # in that queue or being written
    uint64_t spill_limit # 0: there is no tier below
    uint8_t spill_grade  # a block is worth to be written from this grade on
    uint8_t own_grade    # from this grade on a block is worth a place in the first tier, whoever else has it; 0: never
    uint64_t away        # of the bits of a place that name tiers: those that cannot be asked now
    Entry* kept          # the parent of what is being stored; NULL: none
    Late* late
    uint32_t lates
    uint32_t lates_capacity
    uint32_t now         # ticks
    int64_t begin_ms     # of tick 0
    uint32_t now_s
    uint32_t next_space  # for the choice among many

cdef Region RG

cdef inline Block* block_of(const Entry* e) noexcept nogil:
    return <Block*>entry_value(e)

cdef inline Group* group_of(const Entry* e) noexcept nogil:
    """NULL: the entry is a block's."""
    return <Group*>entry_value(e) if e.vlen == sizeof(Group) else NULL

cdef inline Entry* block_mate(const Entry* e) noexcept nogil:
    """The next in the ring of its group; NULL: it is in none."""
    cdef Entry* mate = block_of(e).mate
    return mate if mate == NULL or group_of(mate) == NULL else group_of(mate).first

cdef inline Entry* block_group(const Entry* e) noexcept nogil:
    """The group's entry; NULL: it is in none."""
    cdef Entry* mate = block_of(e).mate
    while mate != NULL and group_of(mate) == NULL:
        mate = block_of(mate).mate
    return mate

cdef inline uint32_t block_slot(const Entry* e) noexcept nogil:
    """Where it lies in its model's device memory, plus one; 0: not there."""
    cdef Device* device = RG.spaces[block_of(e).space].device
    return device_find(device, e) if device != NULL else 0

cdef inline uint64_t ghost_hash(const Space* space, uint64_t h) noexcept nogil:
    """A key's hash among those of all spaces."""
    return h ^ (space.index + 1) * <uint64_t>0x9E3779B97F4A7C15ULL

cdef inline bint is_expired(const Block* b) noexcept nogil:
    return b.deadline_s != 0 and b.deadline_s <= RG.now_s

cdef inline bint is_away(const Entry* e) noexcept nogil:
    """Whether only tiers have the block that cannot be asked now: whoever looks it up had better not count on it."""
    cdef Block* b = block_of(e)
    if RG.away == 0 or b.blob != NULL or b.place == 0 or block_slot(e):
        return False
    return ((b.place - 1) & ~RG.away) >> PLACE_BITS == 0

cdef inline bint is_kept(const Block* b) noexcept nogil:
    """Somebody relies on it."""
    return b.pins != 0 or b.lease_end > RG.now

cdef inline uint32_t lease_end(int64_t ms) noexcept nogil:
    """In ticks, of a lease that is given now; one tick more: of the running one, any part may be over."""
    return RG.now + <uint32_t>(((ms + (1 << TICK_LOG) - 1) >> TICK_LOG) + 1)

cdef void region_clock(int64_t now_ms) noexcept nogil
cdef Space* space_new() noexcept nogil                            # NULL: too many
cdef void space_free(Space* space) noexcept nogil
cdef Entry* block_find(Space* space, const uint8_t* key, size_t n) noexcept nogil   # NULL when absent or expired
cdef Entry* block_find_any(Space* space, const uint8_t* key, size_t n) noexcept nogil   # also when expired
cdef Entry* block_new(Space* space, const uint8_t* key, size_t n, uint64_t h) noexcept nogil
cdef void block_take_host(Entry* e, Blob* blob) noexcept nogil    # the blob is the block's from now on; links it nowhere
cdef void block_link(Entry* e) noexcept nogil                     # hangs it where it belongs, as the newest
cdef void block_link_below(Entry* e, Entry* parent) noexcept nogil
cdef void block_unlink(Entry* e) noexcept nogil
cdef void block_drop_host(Entry* e) noexcept nogil                # its bytes leave host memory; the entry stays
cdef void block_remove(Entry* e) noexcept nogil
cdef void block_lease(Entry* e, uint32_t end) noexcept nogil
cdef void block_join(Entry* e, const uint8_t* group, size_t n) noexcept nogil  # alone, where the group is full
cdef bint block_spill(Entry* e) noexcept nogil                    # False: there is no room below for now
cdef bint block_can_go(Entry* e) noexcept nogil                   # nobody relies on it or its group, and there is room below
cdef bint evict_block(Space* space) noexcept nogil                # of the space, or of any; False: nothing can go
cdef Blob* region_room(size_t size) noexcept nogil                # NULL: no room could be made
cdef bint quota_room(Space* space, size_t size) noexcept nogil
cdef void late_end(bint all_of_them) noexcept nogil               # blobs that nobody may be reading any more are given back
cdef void leases_end() noexcept nogil                             # blocks whose leases have ended may go again
