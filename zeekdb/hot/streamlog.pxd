# The log of a stream: entries ordered by id, packed into blocks. See streamlog.pyx.
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from zeekdb.hot.streampack cimport get_text  # for whoever reads names and bodies
from zeekdb.hot.wire cimport Arg

# The id of an entry: 128 bits, compared as one number.
ctypedef struct Id:
    uint64_t ms
    uint64_t seq

# One allocation: this header, the field names of its first entry, then the entries.
ctypedef struct Block:
    uint32_t capacity   # bytes of the data, the header not counted
    uint32_t size       # bytes used, names included
    uint32_t head       # bytes of the names
    uint32_t names      # how many
    uint32_t live       # entries
    uint32_t dead       # tombstones
    uint32_t weight     # what the block would take as a node of Redis, its two counters left out

ctypedef struct Slot:
    Id id               # of the block: its first entry's, alive or dead
    Block* block

# A piece of the ordered array of blocks: this header, then slots, of which those from `first` on are taken.
ctypedef struct Chunk:
    uint32_t first
    uint32_t count
    uint32_t capacity

ctypedef struct Log:
    Chunk** chunks      # those from `first` on are there, none is empty
    uint32_t first
    uint32_t count
    uint32_t capacity
    uint32_t full_size  # bytes of the block that was filled last: what the next one will need
    uint64_t length     # entries
    uint64_t blocks
    uint64_t added      # entries ever
    Id last             # the largest id ever; not below that of any entry
    Id head             # of the first entry, 0-0 when empty
    Id deleted          # the largest id that was ever deleted by name
    size_t bytes        # that blocks and chunks take
    void* groups        # the consumer groups' dict, owned; NULL without any

# A place in a log, at an entry. It is good until the log is changed.
ctypedef struct Cursor:
    Log* log
    Block* block        # NULL: through
    uint32_t chunk
    uint32_t slot
    Id master           # the block's id
    const uint8_t* at   # the entry's end, or backwards its beginning
    Id id               # the entry: its id,
    uint32_t flags
    uint64_t fields     # its fields,
    const uint8_t* names  # their names where the block has them: packed strings; NULL where they precede each value
    const uint8_t* body   # and values

cdef enum:
    ENTRY_DEAD = 1
    ENTRY_SAME = 2      # its fields are those of the block's first entry
    TOTAL_MAX = 1073741824  # bytes of an entry's fields and values, 1 GiB; as in Redis

cdef inline int id_compare(const Id* a, const Id* b) noexcept nogil:
    if a.ms != b.ms:
        return 1 if a.ms > b.ms else -1
    if a.seq != b.seq:
        return 1 if a.seq > b.seq else -1
    return 0

cdef void log_limits(uint64_t bytes_max, uint64_t entries_max) noexcept nogil  # of a block; 0: none
cdef uint64_t log_entries_max() noexcept nogil
cdef Log* log_new() noexcept nogil
cdef bint log_free(Log* log, size_t* budget) noexcept nogil     # as TypeOps.destroy; the groups are the caller's
cdef Log* log_copy(Log* log) noexcept nogil                     # without groups
# The id of an entry added at `now_ms` that is given none; False when the log has used the last one.
cdef bint log_next(Log* log, uint64_t now_ms, Id* id) noexcept nogil
# `words` is field, value, field, value …, 2 * fields of them, TOTAL_MAX bytes at most; the id is larger than `last`.
cdef void log_append(Log* log, const Id* id, const Arg* words, uint64_t fields) noexcept nogil
cdef bint log_remove(Log* log, const Id* id) noexcept nogil     # False when there is no such entry
# How many entries went: the oldest ones, until `length` are left, or all below `below` (exactly one of the two is
# asked: `below` NULL for the first). `whole`: only whole blocks; `most`: not more entries than that (0: no limit).
cdef uint64_t log_trim(Log* log, uint64_t length, const Id* below, bint whole, uint64_t most) noexcept nogil
cdef uint64_t log_nodes(Log* log) noexcept nogil                # nodes of Redis's radix tree over these blocks

# Each sets the cursor at a live entry or says False.
cdef bint cursor_from(Cursor* c, Log* log, const Id* id) noexcept nogil     # the first at or above
cdef bint cursor_until(Cursor* c, Log* log, const Id* id) noexcept nogil    # the last at or below
cdef bint cursor_next(Cursor* c) noexcept nogil
cdef bint cursor_prev(Cursor* c) noexcept nogil

# For serialisers: blocks as they are, tombstones included.
# Before the first entry of the first block above an id (NULL: of all).
cdef bint cursor_block(Cursor* c, Log* log, const Id* after) noexcept nogil
cdef bint cursor_any(Cursor* c) noexcept nogil      # the next entry of this block, dead ones too
# Opens a block at the end; each name is `step` words after the one before.
cdef void log_begin_block(Log* log, const Id* id, const Arg* names, uint64_t step, uint64_t fields) noexcept nogil
# An entry into the last block: with ENTRY_SAME its values, otherwise name, value …; `step` as above.
cdef void log_put(
    Log* log, const Id* id, const Arg* words, uint64_t step, uint64_t fields, uint32_t flags
) noexcept nogil
