"""Streams in Redis's serialisation: the log node by node, then the consumer groups.

A node is the id of its first entry (16 bytes, big endian) and a listpack: live entries, dead ones, the number and names
of the first entry's fields and 0; then for each entry flags (1: dead, 2: the fields are those of the node), the distance
of its id from the node's, its fields, and of how many elements it consists. A block of ours is a node and the other way
round; dead entries are left behind when reading. Consumer groups are Python objects, so this part takes the GIL.

Type 15 (before Redis 7.0) knows nothing of deleted entries and of counters, 21 (7.2) when a consumer was last served.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy
from zeekdb.hot.packed cimport packed_read
from zeekdb.hot.packs cimport (
    LISTPACK, Pack, fill_run, listpack_add, listpack_add_int, listpack_begin, listpack_end, open_pack,
)
from zeekdb.hot.rdbtypes cimport RDB_STREAM, RDB_STREAM_3
from zeekdb.hot.rdbwire cimport (
    DAMAGED, NO_MEMORY, Buffer, Text, buffer_put, buffer_try, fail, get_bytes, get_count, get_fixed, get_length,
    get_string, put_blob, put_fixed, put_length, put_string, swap64,
)
from zeekdb.hot.streamlog cimport (
    ENTRY_DEAD, ENTRY_SAME, TOTAL_MAX, Cursor, Id, Log, cursor_any, cursor_block, get_text, id_compare,
    log_begin_block, log_put,
)
from zeekdb.hot.wire cimport Arg, parse_int

import logging

cdef enum:
    ID_BYTES = 16
    ENTRY_WORDS = 4         # flags, two distances and how many elements; one more where the fields are its own

cdef object GROUP = None    # see use_groups
cdef object LOW = (1 << 64) - 1
cdef object MAX_ID = (1 << 128) - 1


def use_groups(cls):
    global GROUP
    GROUP = cls


# --- writing --------------------------------------------------------------------------------------------------------

cdef inline void put_raw_id(Buffer* b, const Id* id) noexcept nogil:
    cdef uint64_t[2] halves
    halves[0] = swap64(id.ms)
    halves[1] = swap64(id.seq)
    buffer_put(b, halves, ID_BYTES)


cdef inline void put_id(Writer* w, const Id* id) noexcept nogil:
    put_length(w, id.ms)
    put_length(w, id.seq)


cdef inline const uint8_t* pack_texts(Buffer* pack, const uint8_t* at, uint64_t count) noexcept nogil:
    cdef uint64_t i
    cdef size_t n
    for i in range(count):
        at = get_text(at, &n)
        listpack_add(pack, at, n)
        at += n
    return at


cdef uint64_t pack_block(Buffer* pack, Cursor* c) noexcept nogil:
    """The entries of a block; how many elements they are."""
    cdef uint64_t elements = 0
    while cursor_any(c):
        listpack_add_int(pack, c.flags)
        listpack_add_int(pack, <int64_t>(c.id.ms - c.master.ms))
        listpack_add_int(pack, <int64_t>(c.id.seq - c.master.seq))
        if c.flags & ENTRY_SAME:
            pack_texts(pack, c.body, c.fields)
            listpack_add_int(pack, <int64_t>c.fields + 3)
            elements += c.fields + ENTRY_WORDS
        else:
            listpack_add_int(pack, <int64_t>c.fields)
            pack_texts(pack, c.body, 2 * c.fields)
            listpack_add_int(pack, 2 * <int64_t>c.fields + 4)
            elements += 2 * c.fields + ENTRY_WORDS + 1
    return elements


cdef void write_blocks(Writer* w, Log* log) noexcept nogil:
    cdef Cursor c
    cdef Id before
    cdef uint64_t elements
    cdef bint more = cursor_block(&c, log, NULL)
    put_length(w, log.blocks)
    while more:
        put_length(w, ID_BYTES)
        put_raw_id(&w.out, &c.master)
        listpack_begin(&w.pack)
        listpack_add_int(&w.pack, c.block.live)
        listpack_add_int(&w.pack, c.block.dead)
        listpack_add_int(&w.pack, c.block.names)
        pack_texts(&w.pack, c.at - c.block.head, c.block.names)
        listpack_add_int(&w.pack, 0)
        elements = c.block.names + 4
        elements += pack_block(&w.pack, &c)
        listpack_end(&w.pack, elements)
        put_blob(w, w.pack.data, w.pack.size)
        before = c.master
        more = cursor_block(&c, log, &before)


cdef void stream_write(Writer* w, void* self) noexcept nogil:
    cdef Log* log = <Log*>self
    write_blocks(w, log)
    put_length(w, log.length)
    put_id(w, &log.last)
    put_id(w, &log.head)
    put_id(w, &log.deleted)
    put_length(w, log.added)
    if log.groups == NULL:
        put_length(w, 0)
    else:
        write_groups(w, log.groups)


cdef inline void id_of(object number, Id* id):
    id.ms = <uint64_t>(number >> 64)
    id.seq = <uint64_t>(number & LOW)


cdef inline void put_name(Writer* w, bytes name):
    put_string(w, <const uint8_t*>PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))


cdef void write_groups(Writer* w, void* groups) noexcept with gil:
    cdef Id id
    cdef int64_t read
    put_length(w, len(<dict>groups))
    for name, group in (<dict>groups).items():
        put_name(w, name)
        id_of(group.last_id, &id)
        put_id(w, &id)
        read = group.entries_read
        put_length(w, <uint64_t>read)
        put_length(w, len(group.pending))
        for number, _, time_ms, count in group.pending.range(0, MAX_ID):
            id_of(number, &id)
            put_raw_id(&w.out, &id)
            put_fixed(w, <uint64_t><int64_t>time_ms)
            put_length(w, count)
        put_length(w, len(group.consumers))
        for consumer in group.consumers.values():
            write_consumer(w, consumer)


cdef write_consumer(Writer* w, consumer):
    cdef Id id
    put_name(w, consumer.name)
    put_fixed(w, <uint64_t><int64_t>consumer.seen_ms)
    if w.modern:
        put_fixed(w, <uint64_t><int64_t>consumer.active_ms)
    put_length(w, len(consumer.pending))
    for number, _, _, _ in consumer.pending.range(0, MAX_ID):
        id_of(number, &id)
        put_raw_id(&w.out, &id)


# --- reading --------------------------------------------------------------------------------------------------------

cdef inline void load_raw_id(const uint8_t* p, Id* id) noexcept nogil:
    memcpy(&id.ms, p, 8)
    memcpy(&id.seq, p + 8, 8)
    id.ms = swap64(id.ms)
    id.seq = swap64(id.seq)


cdef inline bint get_raw_id(Reader* r, Id* id) noexcept nogil:
    cdef const uint8_t* p
    if not get_bytes(r, ID_BYTES, &p):
        return False
    load_raw_id(p, id)
    return True


cdef inline bint get_id(Reader* r, Id* id) noexcept nogil:
    return get_length(r, &id.ms) and get_length(r, &id.seq)


# The elements of a node.
ctypedef struct Words:
    Arg* args
    uint64_t count
    uint64_t at


cdef inline bint take_int(Words* words, int64_t* v) noexcept nogil:
    cdef Arg* arg
    if words.at == words.count:
        return False
    arg = &words.args[words.at]
    words.at += 1
    return parse_int(arg.p, arg.n, v)


cdef inline Arg* take(Words* words, uint64_t n) noexcept nogil:
    """The next n elements; NULL when they are not there, or longer than an entry may be."""
    cdef Arg* args = &words.args[words.at]
    cdef uint64_t i, total = 0
    if n > words.count - words.at:
        return NULL
    for i in range(n):
        total += args[i].n
    words.at += n
    return args if total <= TOTAL_MAX else NULL


cdef bint open_node(Reader* r, Words* words) noexcept nogil:
    """The elements of the listpack that comes next, all of them as text."""
    cdef Pack pack
    cdef size_t longest, n
    cdef const uint8_t* at
    cdef uint64_t i
    if not open_pack(r, &pack, LISTPACK) or not fill_run(r, &pack, &words.count, &longest):
        return False
    if r.run.size > 0xFFFFFFFFU:
        return fail(r, DAMAGED, b"a node of a stream that is too long")
    r.seen.size = 0
    if not buffer_try(&r.seen, words.count * sizeof(Arg) + 1):
        return fail(r, NO_MEMORY, b"no memory for a node of a stream")
    words.args = <Arg*>r.seen.data
    words.at = 0
    at = r.run.data
    for i in range(words.count):
        at = packed_read(at, &n)
        words.args[i].p = <uint8_t*>at
        words.args[i].n = n
        at += n
    return True


cdef bint read_entries(Words* words, Log* log, const Id* master, Id* last, Arg* names, int64_t fields, uint64_t* dead) noexcept nogil:
    """The entries of a node; those that live go to a new block."""
    cdef int64_t flags, ms, seq, own, size
    cdef bint begun = False
    cdef Arg* args
    cdef Id id
    while words.at < words.count:
        if not take_int(words, &flags) or not take_int(words, &ms) or not take_int(words, &seq):
            return False
        if flags & ~(ENTRY_DEAD | ENTRY_SAME):
            return False
        own = fields
        if not flags & ENTRY_SAME and (not take_int(words, &own) or own < 1 or own > <int64_t>words.count):
            return False
        args = take(words, own if flags & ENTRY_SAME else 2 * own)
        if args == NULL or not take_int(words, &size) or size != (own + 3 if flags & ENTRY_SAME else 2 * own + 4):
            return False
        if flags & ENTRY_DEAD:
            dead[0] += 1
            continue
        id.ms = master.ms + <uint64_t>ms
        id.seq = master.seq + <uint64_t>seq
        if id_compare(&id, master) < 0 or id_compare(&id, last) <= 0:  # 0-0, where `last` begins, is no id
            return False
        if not begun:
            log_begin_block(log, master, names, 1, fields)
            begun = True
        if log.length == 0:
            log.head = id
        log_put(log, &id, args, 1, own, <unsigned int>flags & ENTRY_SAME)
        last[0] = id
    return True


cdef bint read_node(Reader* r, Log* log, Id* last) noexcept nogil:
    cdef Text key
    cdef Words words
    cdef Id master
    cdef int64_t live, dead, fields, end
    cdef uint64_t before = log.length, buried = 0
    cdef Arg* names
    if not get_string(r, &key, 0):
        return False
    if key.n != ID_BYTES:
        return fail(r, DAMAGED, b"a node of a stream whose key is no id")
    load_raw_id(key.p, &master)
    if not open_node(r, &words):
        return False
    if log.length and id_compare(&master, last) <= 0:
        return fail(r, DAMAGED, b"nodes of a stream that do not ascend")
    if not take_int(&words, &live) or not take_int(&words, &dead) or not take_int(&words, &fields):
        return fail(r, DAMAGED, b"a node of a stream without a head")
    names = take(&words, fields) if 0 < fields <= <int64_t>words.count else NULL
    if names == NULL or not take_int(&words, &end) or end != 0:
        return fail(r, DAMAGED, b"a node of a stream without fields")
    if not read_entries(&words, log, &master, last, names, fields, &buried):
        return fail(r, DAMAGED, b"a damaged entry of a stream")
    if live < 0 or <uint64_t>live != log.length - before or dead < 0 or <uint64_t>dead != buried:
        return fail(r, DAMAGED, b"a node of a stream that counts wrongly")
    return True


cdef bint stream_read(Reader* r, uint8_t type, void* self) noexcept nogil:
    cdef Log* log = <Log*>self
    cdef uint64_t nodes, length, groups, i
    cdef Id last, first
    last.ms = last.seq = 0
    if not get_count(r, ID_BYTES + 8, &nodes):
        return False
    for i in range(nodes):
        if not read_node(r, log, &last):
            return False
    if not get_length(r, &length) or not get_id(r, &log.last):
        return False
    if length != log.length or (length and id_compare(&log.last, &last) < 0):
        return fail(r, DAMAGED, b"a stream that counts wrongly")
    log.added = length
    if type != RDB_STREAM:
        if not get_id(r, &first) or not get_id(r, &log.deleted) or not get_length(r, &log.added):
            return False
        if log.added < length or log.added > <uint64_t>9223372036854775807:
            return fail(r, DAMAGED, b"a stream that counts wrongly")
    if not get_count(r, 5, &groups):
        return False
    return True if groups == 0 else read_groups(r, type, log, groups)


cdef bint read_groups(Reader* r, uint8_t type, Log* log, uint64_t count) noexcept with gil:
    cdef dict groups = {}
    cdef uint64_t i
    try:
        for i in range(count):
            if not read_group(r, type, groups):
                return False
        if type == RDB_STREAM:
            for group in groups.values():
                group.entries_read = place_of(log, group.last_id)
    except Exception:
        logging.getLogger("zeekdb").exception("consumer groups cannot be read")
        return fail(r, DAMAGED, b"consumer groups that cannot be read")
    Py_INCREF(groups)
    log.groups = <void*>groups
    return True


cdef int64_t place_of(Log* log, object id) except -2:
    """How many entries there are up to an id, as far as the oldest format lets one know; -1: it does not."""
    head, last = number_of(&log.head), number_of(&log.last)
    if log.length == 0 or id < head:
        return 0
    if id == head:
        return 1
    return <int64_t>log.length if id == last else -1


cdef inline object number_of(const Id* id):
    return (<object>id.ms << 64) | <object>id.seq


cdef inline bytes bytes_of(const Text* text):
    return PyBytes_FromStringAndSize(<const char*>text.p, text.n)


cdef bint read_group(Reader* r, uint8_t type, dict groups) except -1:
    cdef Text text
    cdef Id id
    cdef uint64_t read = <uint64_t>-1, pending, consumers, time_ms, count, i
    cdef dict waiting = {}
    if not get_string(r, &text, 0):
        return False
    name = bytes_of(&text)
    if name in groups:
        return fail(r, DAMAGED, b"a consumer group twice")
    if not get_id(r, &id) or (type != RDB_STREAM and not get_length(r, &read)):
        return False
    group = groups[name] = GROUP(number_of(&id), <int64_t>read if <int64_t>read >= 0 else -1)
    if not get_count(r, ID_BYTES + 9, &pending):
        return False
    for i in range(pending):
        if not get_raw_id(r, &id) or not get_fixed(r, &time_ms) or not get_length(r, &count):
            return False
        waiting[number_of(&id)] = (<int64_t>time_ms, count)
    if <uint64_t>len(waiting) != pending:
        return fail(r, DAMAGED, b"a pending entry twice")
    if not get_count(r, 10, &consumers):
        return False
    for i in range(consumers):
        if not read_consumer(r, type, group, waiting):
            return False
    return True if not waiting else fail(r, DAMAGED, b"a pending entry without a consumer")


cdef bint read_consumer(Reader* r, uint8_t type, group, dict waiting) except -1:
    """A consumer; what is pending for it leaves `waiting`."""
    cdef Text text
    cdef Id id
    cdef uint64_t seen_ms, active_ms, pending, i
    if not get_string(r, &text, 0) or not get_fixed(r, &seen_ms):
        return False
    name = bytes_of(&text)
    if name in group.consumers:
        return fail(r, DAMAGED, b"a consumer twice")
    active_ms = seen_ms
    if type == RDB_STREAM_3 and not get_fixed(r, &active_ms):
        return False
    consumer = group.add_consumer(name, <int64_t>seen_ms, <int64_t>active_ms)
    if not get_count(r, ID_BYTES, &pending):
        return False
    for i in range(pending):
        if not get_raw_id(r, &id):
            return False
        number = number_of(&id)
        found = waiting.pop(number, None)
        if found is None:
            return fail(r, DAMAGED, b"a pending entry of a consumer that the group has not")
        group.pending.put(number, consumer.number, found[0], found[1])
        consumer.pending.put(number, consumer.number, 0, 0)
    return True
