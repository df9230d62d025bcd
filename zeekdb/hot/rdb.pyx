"""Python's door to Redis's serialisation of values: rdbwrite.pyx and rdbread.pyx do the work."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from zeekdb.hot.crc64 cimport crc64_update
from zeekdb.hot.keyspace cimport Db, db_pointer, ks_deadline, ks_delete, ks_find
from zeekdb.hot.packs cimport LISTPACK, ZIPLIST, ZIPMAP, Pack, Piece, pack_next, pack_open
from zeekdb.hot.rdbread cimport Value, rdb_read, value_drop, value_store
from zeekdb.hot.rdbtypes cimport RDB_VERSION, RDB_VERSION_MAX
from zeekdb.hot.rdbwire cimport (
    EMPTY, SOUND, Reader, Text, Writer, get_byte, get_length, get_string, put_byte, put_fixed, put_length, put_string,
    reader_free, writer_free,
)
from zeekdb.hot.rdbwrite cimport rdb_type, rdb_version, rdb_write
from zeekdb.hot.recency cimport FIELD, set_field
from zeekdb.hot.shards cimport ks_expire_fields
from zeekdb.hot.table cimport Entry, hash_bytes

from zeekdb.errors import CommandError

VERSION = RDB_VERSION
VERSION_MAX = RDB_VERSION_MAX

cdef enum:
    FOOTER = 10             # bytes behind a payload: two of version, eight of CRC
    KEEP_MAX = 1 << 20      # bytes of a buffer that is kept for the next value

# The event loop's own. A snapshot in a thread has its own pair.
cdef Writer WRITER
cdef Reader READER
memset(&WRITER, 0, sizeof(WRITER))
memset(&READER, 0, sizeof(READER))


class DamagedValue(ValueError):
    def __init__(self, message, empty=False):
        super().__init__(message)
        self.empty = empty


cdef inline uint8_t* raw(bytes text) noexcept:
    return <uint8_t*>PyBytes_AS_STRING(text)


cdef void open_writer(bint compress) noexcept:
    if WRITER.out.capacity > KEEP_MAX or WRITER.pack.capacity > KEEP_MAX:
        writer_free(&WRITER)
    WRITER.out.size = 0
    WRITER.compress = compress


cdef bytes written():
    return PyBytes_FromStringAndSize(<char*>WRITER.out.data, WRITER.out.size)


cdef int open_reader(const uint8_t* p, size_t n, size_t offset, uint64_t string_max) except -1:
    if offset > n:
        raise DamagedValue("it begins behind its end")
    if READER.texts[0].capacity + READER.texts[1].capacity + READER.run.capacity + READER.seen.capacity > KEEP_MAX:
        reader_free(&READER)
    READER.at = p + offset
    READER.end = p + n
    READER.fault = SOUND
    READER.string_max = string_max
    return 0


cdef damage():
    return DamagedValue((<bytes>READER.why).decode(), READER.fault == EMPTY)


cdef Entry* find(Db* db, bytes key) noexcept:
    """The entry, without fields that are due: a hash that has no others must not be written."""
    cdef uint64_t h = hash_bytes(raw(key), PyBytes_GET_SIZE(key))
    ks_expire_fields(db, raw(key), PyBytes_GET_SIZE(key), h)
    return ks_find(db, raw(key), PyBytes_GET_SIZE(key), h)


cdef int write_entry(Entry* e, bint compress, bint modern=False) except -1:
    open_writer(compress)
    WRITER.modern = modern
    put_byte(&WRITER, rdb_type(&WRITER, e))
    if not rdb_write(&WRITER, e):
        raise ValueError("a value of a type that has no form in a file")
    return 0


def encode(db not None, bytes key not None, bint compress=True):
    cdef Entry* e = find(db_pointer(db), key)
    if e == NULL:
        return None
    write_entry(e, compress)
    return written()


def dump(db not None, bytes key not None, bint compress=True):
    cdef Entry* e = find(db_pointer(db), key)
    cdef uint64_t crc
    if e == NULL:
        return None
    write_entry(e, compress)
    put_byte(&WRITER, rdb_version(WRITER.out.data[0]))
    put_byte(&WRITER, 0)
    crc = crc64_update(0, WRITER.out.data, WRITER.out.size)
    put_fixed(&WRITER, crc)
    return written()


def footer(bytes payload not None):
    cdef size_t n = PyBytes_GET_SIZE(payload)
    open_writer(False)
    put_byte(&WRITER, RDB_VERSION)
    put_byte(&WRITER, 0)
    put_fixed(&WRITER, crc64_update(crc64_update(0, raw(payload), n), WRITER.out.data, 2))
    return written()


cdef bint trusting = False


def skip_checksums(bint skip):
    global trusting
    trusting = skip


def check(bytes data not None):
    cdef size_t n = PyBytes_GET_SIZE(data)
    cdef uint64_t crc
    if n >= FOOTER and raw(data)[n - 10] <= RDB_VERSION_MAX and raw(data)[n - 9] == 0:
        memcpy(&crc, raw(data) + n - 8, 8)
        if trusting or crc == crc64_update(0, raw(data), n - 8):
            return
    raise CommandError("ERR DUMP payload version or checksum are wrong")


def verify(bytes data not None):
    check(data)
    return data[:PyBytes_GET_SIZE(data) - FOOTER]


cdef Entry* read_entry(Db* db, bytes key, bint whole, int64_t deadline_ms, int given_type=-1) except NULL:
    cdef Value value
    cdef uint8_t type = given_type & 0xFF
    cdef size_t n = PyBytes_GET_SIZE(key)
    cdef uint64_t h = hash_bytes(raw(key), n)
    if (given_type < 0 and not get_byte(&READER, &type)) or not rdb_read(&READER, type, &value):
        raise damage()
    if whole and READER.at != READER.end:
        value_drop(&value)
        raise DamagedValue("more follows behind the value")
    ks_delete(db, raw(key), n, h)  # another value would pass on how often it was used
    return value_store(&value, db, raw(key), n, h, deadline_ms)


def decode(
    db not None, bytes key not None, bytes data not None, size_t start=0, stop=None, bint whole=False,
    int64_t deadline_ms=0, uint64_t string_max=1 << 32, int type=-1,
):
    open_reader(raw(data), PyBytes_GET_SIZE(data) if stop is None else stop, start, string_max)
    if READER.end > raw(data) + PyBytes_GET_SIZE(data):
        raise DamagedValue("it ends behind its end")
    read_entry(db_pointer(db), key, whole, deadline_ms, type)
    return READER.at - raw(data)


def round_trip(db not None, bytes key not None, bint compress=True):
    cdef Db* pointer = db_pointer(db)
    cdef Entry* e = find(pointer, key)
    cdef uint32_t field
    cdef int64_t deadline
    if e == NULL:
        return False
    field = e.meta & FIELD
    deadline = ks_deadline(e)
    write_entry(e, compress, True)
    open_reader(WRITER.out.data, WRITER.out.size, 0, <uint64_t>-1)
    e = read_entry(pointer, key, True, deadline)
    set_field(e, field)
    return True


def encode_string(bytes text not None, bint compress=True):
    open_writer(compress)
    put_string(&WRITER, raw(text), PyBytes_GET_SIZE(text))
    return written()


def decode_string(bytes data not None, size_t offset=0):
    cdef Text text
    open_reader(raw(data), PyBytes_GET_SIZE(data), offset, <uint64_t>-1)
    if not get_string(&READER, &text, 0):
        raise damage()
    return PyBytes_FromStringAndSize(<const char*>text.p, text.n), READER.at - raw(data)


def encode_length(uint64_t n):
    open_writer(False)
    put_length(&WRITER, n)
    return written()


def decode_length(bytes data not None, size_t offset=0):
    cdef uint64_t n
    open_reader(raw(data), PyBytes_GET_SIZE(data), offset, <uint64_t>-1)
    if not get_length(&READER, &n):
        raise damage()
    return n, READER.at - raw(data)


def unpack(str kind not None, bytes data not None):
    cdef Pack pack
    cdef Piece piece
    cdef int got
    cdef list found = []
    kinds = {"listpack": LISTPACK, "ziplist": ZIPLIST, "zipmap": ZIPMAP}
    if not pack_open(&pack, kinds[kind], raw(data), PyBytes_GET_SIZE(data)):
        return None
    while True:
        got = pack_next(&pack, &piece)
        if got <= 0:
            return found if got == 0 else None
        found.append(PyBytes_FromStringAndSize(<const char*>piece.p, piece.n))
