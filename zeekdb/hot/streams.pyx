"""Streams for Python and for the keyspace: the door over a log, and what hangs from it.

The consumer groups are Python objects in a dict of the stream's own (`zeekdb.types.stream_groups`): they are few, and
what grows with use, the lists of pending entries, is a structure of the hot room again. The log holds the one
reference to the dict; destroying and copying a stream with groups takes the GIL.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from zeekdb.hot.keyspace cimport TypeOps, register_type
from zeekdb.hot.memory cimport mem_footprint
from zeekdb.hot.streamlog cimport (
    ENTRY_DEAD, ENTRY_SAME, TOTAL_MAX, Cursor, Id, Log, cursor_any, cursor_block, cursor_from, cursor_next, cursor_prev,
    cursor_until, id_compare, log_append, log_begin_block, log_copy, log_free, log_limits, log_new, log_next,
    log_nodes, log_put, log_remove, log_trim,
)
from zeekdb.hot.streampack cimport get_text
from zeekdb.hot.table cimport T_STREAM
from zeekdb.hot.wire cimport Arg, format_int

from typing import Any, NamedTuple

cdef object LOW = (1 << 64) - 1


class StoredEntry(NamedTuple):
    """An entry as a block holds it."""

    id: int
    dead: bool
    fields: list[bytes] | None
    values: list[bytes]


class StoredBlock(NamedTuple):
    """A block as it is: its id, the names of its first entry's fields, all entries, tombstones included."""

    id: int
    names: list[bytes]
    entries: list[StoredEntry]


def set_limits(*, uint64_t size, uint64_t entries):
    log_limits(size, entries)


# --- what the keyspace asks of a type ---------------------------------------------------------------------------------

cdef void* stream_create() noexcept nogil:
    return log_new()


cdef bint stream_destroy(void* self, size_t* budget) noexcept nogil:
    cdef Log* log = <Log*>self
    if log.groups != NULL:
        with gil:
            groups = <object>log.groups
            log.groups = NULL
            Py_DECREF(groups)
    return log_free(log, budget)


cdef void* copied_groups(void* groups) noexcept:
    """A deep copy of the dict, owned; NULL when there is no memory for it."""
    try:
        twin = {name: group.copy() for name, group in (<dict>groups).items()}
    except MemoryError:
        return NULL
    Py_INCREF(twin)
    return <void*>twin


cdef void* stream_copy(void* self) noexcept nogil:
    cdef Log* log = <Log*>self
    cdef void* groups = NULL
    cdef Log* copy
    if log.groups != NULL:
        with gil:
            groups = copied_groups(log.groups)
        if groups == NULL:
            return NULL
    copy = log_copy(log)
    copy.groups = groups
    return copy


cdef uint64_t stream_length(void* self) noexcept nogil:
    return (<Log*>self).length


cdef size_t weigh_groups(void* groups) noexcept:
    cdef size_t total = (<object>groups).__sizeof__()
    for name, group in (<dict>groups).items():
        total += name.__sizeof__() + group.__sizeof__()
    return total


cdef size_t stream_memory(void* self) noexcept nogil:
    cdef Log* log = <Log*>self
    cdef size_t total = mem_footprint(sizeof(Log)) + log.capacity * sizeof(void*) + log.bytes
    if log.groups != NULL:
        with gil:
            total += weigh_groups(log.groups)
    return total


cdef size_t stream_effort(void* self) noexcept nogil:
    return (<Log*>self).blocks + 1


# --- ids and words between Python and C -------------------------------------------------------------------------------

cdef inline object number_of(const Id* id):
    return (<object>id.ms << 64) | <object>id.seq


cdef inline int id_of(object number, Id* id) except -1:
    id.ms = <uint64_t>(number >> 64)
    id.seq = <uint64_t>(number & LOW)
    return 0


cdef inline size_t put_decimal(uint8_t* at, uint64_t value) noexcept:
    cdef size_t n = 0
    if value > 9223372036854775807ULL:  # format_int takes signed ones
        n = format_int(at, <long long>(value // 10))
        at[n] = 48 + <uint8_t>(value % 10)
        return n + 1
    return format_int(at, <long long>value)


cdef inline bytes text_of(const Id* id):
    cdef uint8_t text[48]
    cdef size_t n = put_decimal(text, id.ms)
    text[n] = 45
    n += 1
    n += put_decimal(text + n, id.seq)
    return PyBytes_FromStringAndSize(<char*>text, n)


def format_id(number):
    cdef Id id
    id_of(number, &id)
    return text_of(&id)


cdef Arg* args_of(object words) except NULL:
    """Borrows the bytes of the words; to be freed."""
    cdef Py_ssize_t i, n = len(words)
    cdef Arg* args = <Arg*>malloc((n + 1) * sizeof(Arg))
    cdef size_t total = 0
    if args == NULL:
        raise MemoryError
    for i in range(n):
        word = words[i]
        if type(word) is not bytes:
            free(args)
            raise TypeError("fields and values are bytes")
        args[i].p = <uint8_t*>PyBytes_AS_STRING(word)
        args[i].n = PyBytes_GET_SIZE(word)
        total += args[i].n
    if total > TOTAL_MAX:
        free(args)
        raise ValueError("an entry of over 1 GiB")
    return args


cdef inline const uint8_t* take_text(list into, const uint8_t* at) except NULL:
    cdef size_t n
    at = get_text(at, &n)
    into.append(PyBytes_FromStringAndSize(<const char*>at, n))
    return at + n


cdef list texts(const uint8_t* at, uint64_t n):
    cdef list found = []
    cdef uint64_t i
    for i in range(n):
        at = take_text(found, at)
    return found


cdef class Names:
    """The names of a block's fields, made once for all its entries."""

    cdef const uint8_t* at
    cdef list names

    cdef list flat(self, const Cursor* c):
        """Field, value, field, value …"""
        cdef list found = []
        cdef const uint8_t* at = c.body
        cdef uint64_t i
        if c.names == NULL:
            return texts(at, 2 * c.fields)
        if c.names != self.at:
            self.at = c.names
            self.names = texts(c.names, c.fields)
        for i in range(c.fields):
            found.append(self.names[i])
            at = take_text(found, at)
        return found


# --- the door ---------------------------------------------------------------------------------------------------------

cdef class Stream:
    cdef Log* log

    def __init__(self):
        raise TypeError("streams belong to a database: Database.create")

    @property
    def encoding(self):
        return "stream"

    def __len__(self):
        return self.log.length

    @property
    def last_id(self):
        return number_of(&self.log.last)

    @last_id.setter
    def last_id(self, number):
        id_of(number, &self.log.last)

    @property
    def first_id(self):
        return number_of(&self.log.head)

    @first_id.setter
    def first_id(self, number):
        id_of(number, &self.log.head)

    @property
    def max_deleted_id(self):
        return number_of(&self.log.deleted)

    @max_deleted_id.setter
    def max_deleted_id(self, number):
        id_of(number, &self.log.deleted)

    @property
    def entries_added(self):
        return self.log.added

    @entries_added.setter
    def entries_added(self, uint64_t added):
        self.log.added = added

    @property
    def groups(self):
        if self.log.groups == NULL:
            groups = {}
            Py_INCREF(groups)
            self.log.groups = <void*>groups
        return <object>self.log.groups

    @property
    def block_count(self):
        return self.log.blocks

    def node_count(self):
        return log_nodes(self.log)

    # ------------------------------------------------------------ changing

    def next_id(self, uint64_t now_ms):
        cdef Id id
        return number_of(&id) if log_next(self.log, now_ms, &id) else None

    def append(self, number, words not None):
        cdef Id id
        cdef Arg* args
        id_of(number, &id)
        if id_compare(&id, &self.log.last) <= 0:
            raise ValueError("ids ascend")
        if not len(words) or len(words) % 2:
            raise ValueError("fields come with their values")
        args = args_of(words)
        log_append(self.log, &id, args, len(words) // 2)
        free(args)

    def remove(self, number):
        cdef Id id
        id_of(number, &id)
        return log_remove(self.log, &id)

    def trim_to_length(self, uint64_t length, bint whole_blocks=False, uint64_t most=0):
        return log_trim(self.log, length, NULL, whole_blocks, most)

    def trim_below(self, number, bint whole_blocks=False, uint64_t most=0):
        cdef Id id
        id_of(number, &id)
        return log_trim(self.log, 0, &id, whole_blocks, most)

    # ------------------------------------------------------------ reading

    cdef list collect(self, start, end, uint64_t count, bint reverse, bint texts):
        cdef Id low, high
        cdef Cursor c
        cdef Names names = Names.__new__(Names)
        cdef list found = []
        cdef bint more
        id_of(start, &low)
        id_of(end, &high)
        more = cursor_until(&c, self.log, &high) if reverse else cursor_from(&c, self.log, &low)
        while more and (id_compare(&c.id, &low) >= 0 if reverse else id_compare(&c.id, &high) <= 0):
            if texts:
                found.append([text_of(&c.id), names.flat(&c)])
            else:
                found.append((number_of(&c.id), names.flat(&c)))
            if count and <uint64_t>len(found) == count:
                break
            more = cursor_prev(&c) if reverse else cursor_next(&c)
        return found

    def entries(self, start, end, uint64_t count=0, bint reverse=False):
        return self.collect(start, end, count, reverse, False)

    def range(self, start, end, uint64_t count=0, bint reverse=False):
        return self.collect(start, end, count, reverse, True)

    def __contains__(self, number):
        cdef Id id
        cdef Cursor c
        id_of(number, &id)
        return cursor_from(&c, self.log, &id) and id_compare(&c.id, &id) == 0

    def get(self, number):
        cdef Id id
        cdef Cursor c
        cdef Names names = Names.__new__(Names)
        id_of(number, &id)
        if not cursor_from(&c, self.log, &id) or id_compare(&c.id, &id) != 0:
            return None
        return names.flat(&c)

    def last_entry_id(self):
        cdef Id most
        cdef Cursor c
        most.ms = most.seq = <uint64_t>-1
        return number_of(&c.id) if cursor_until(&c, self.log, &most) else 0

    # ------------------------------------------------------------ for serialisers

    def next_block(self, after=-1):
        cdef Id id
        cdef Cursor c
        cdef list entries = []
        cdef const uint8_t* at
        if after >= 0:
            id_of(after, &id)
        if not cursor_block(&c, self.log, &id if after >= 0 else NULL):
            return None
        while cursor_any(&c):
            if c.flags & ENTRY_SAME:
                fields, values = None, texts(c.body, c.fields)
            else:
                flat = texts(c.body, 2 * c.fields)
                fields, values = flat[::2], flat[1::2]
            entries.append(StoredEntry(number_of(&c.id), bool(c.flags & ENTRY_DEAD), fields, values))
        at = c.at - c.block.size
        return StoredBlock(number_of(&c.master), texts(at, c.block.names), entries)

    def add_block(self, block not None):
        cdef Id id, most
        cdef Cursor c
        cdef Arg* args
        most.ms = most.seq = <uint64_t>-1
        above = number_of(&c.id) if cursor_until(&c, self.log, &most) else -1
        if block.id <= above or not block.names:
            raise ValueError("blocks ascend, and have names")
        above = block.id - 1
        for entry in block.entries:
            if entry.id <= above or entry.id >> 128:
                raise ValueError("ids ascend from the block's")
            if len(entry.values) != len(block.names if entry.fields is None else entry.fields) or not entry.values:
                raise ValueError("fields come with their values")
            above = entry.id
        if all(entry.dead for entry in block.entries):
            return
        id_of(block.id, &id)
        args = args_of(block.names)
        log_begin_block(self.log, &id, args, 1, len(block.names))
        free(args)
        for entry in block.entries:
            self.store(entry)

    cdef int store(self, entry) except -1:
        cdef Id id
        cdef uint64_t fields = len(entry.values)
        cdef Arg* args
        id_of(entry.id, &id)
        if entry.fields is None:
            args = args_of(entry.values)
        else:
            args = args_of([word for pair in zip(entry.fields, entry.values) for word in pair])
        flags = (ENTRY_DEAD if entry.dead else 0) | (ENTRY_SAME if entry.fields is None else 0)
        log_put(self.log, &id, args, 1, fields, flags)
        free(args)
        return 0


cdef object wrap(void* self):
    cdef Stream door = Stream.__new__(Stream)
    door.log = <Log*>self
    return door


cdef TypeOps ops
ops.create = stream_create
ops.destroy = stream_destroy
ops.copy = stream_copy
ops.length = stream_length
ops.memory = stream_memory
ops.effort = stream_effort
ops.wrap = wrap
register_type(T_STREAM, &ops, Stream)
