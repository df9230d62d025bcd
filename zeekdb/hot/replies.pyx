"""What Python handlers answer, in RESP: plain types, and the classes below where no plain type says it.

`None` null, `int` integer, `bytes` bulk string, `str` simple string, `list` and `tuple` array, `dict` map, `set` and
`frozenset` set, `float` double; in RESP2 a map is a flat array, a set an array and a double a bulk string.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from zeekdb.hot.blobview cimport BlobView, Spans
from zeekdb.hot.wire cimport Out, format_double, out_blob, out_bulk, out_int, out_length, out_null, out_raw, out_span

from zeekdb.errors import CommandError


cdef class NullArray:
    """The null of commands that otherwise answer an array: `*-1` in RESP2, `_` in RESP3. Use `NULL_ARRAY`."""

    def __repr__(self):
        return "NULL_ARRAY"


NULL_ARRAY = NullArray()


cdef class Verbatim:
    """Text with a three-letter format (`txt`, `mkd`): a verbatim string in RESP3, a bulk string in RESP2."""

    cdef readonly str format
    cdef readonly bytes data

    def __init__(self, str format not None, bytes data not None):
        self.format = format
        self.data = data


cdef class Push:
    """An out-of-band message: a push in RESP3, an array in RESP2."""

    cdef readonly list items

    def __init__(self, list items not None):
        self.items = items


cdef class Error:
    """An error inside an array (EXEC, scripts). Alone, an error is raised: `CommandError`."""

    cdef readonly str message

    def __init__(self, str message not None):
        self.message = message


cdef class BigNumber:
    """An integer beyond 64 bits: a big number in RESP3, a bulk string in RESP2."""

    cdef readonly object value

    def __init__(self, value):
        self.value = value


cdef class SpelledDouble:
    """A double in digits of the command's choice: a double in RESP3, a bulk string in RESP2."""

    cdef readonly bytes text

    def __init__(self, bytes text not None):
        self.text = text


cdef class Pairs:
    """Keys and values in an order that matters, or with keys that repeat: a map in RESP3, a flat array in RESP2."""

    cdef readonly list items

    def __init__(self, list items not None):
        self.items = items


class Deferred:
    """Returned by a handler whose reply comes later through `Connection.resume`."""


DEFERRED = Deferred()


class NoReply:
    """Returned by a handler that has written its replies itself, or owes none."""


NO_REPLY = NoReply()


cdef void write_error(Out* out, bytes message):
    # A line break in an error would let data pose as replies.
    cdef bytes clean = message.replace(b"\r", b" ").replace(b"\n", b" ")
    out_raw(out, b"-", 1)
    out_raw(out, PyBytes_AS_STRING(clean), PyBytes_GET_SIZE(clean))
    out_raw(out, b"\r\n", 2)


cdef int write_float(Out* out, double value, uint8_t protocol) except -1:
    cdef uint8_t text[40]
    cdef size_t n = format_double(text, value)
    if protocol == 3:
        out_raw(out, b",", 1)
        out_raw(out, <char*>text, n)
        out_raw(out, b"\r\n", 2)
    else:
        out_bulk(out, text, n)
    return 0


cdef int write_items(Out* out, object items, uint8_t protocol) except -1:
    for item in items:
        write_reply(out, item, protocol)
    return 0


cdef int write_pairs(Out* out, object pairs, size_t n, uint8_t protocol) except -1:
    out_length(out, 37 if protocol == 3 else 42, n if protocol == 3 else 2 * n)
    for key, value in pairs:
        write_reply(out, key, protocol)
        write_reply(out, value, protocol)
    return 0


cdef int write_spans(Out* out, list parts) except -1:
    cdef BlobView view
    cdef size_t size = 0, begin, end
    for view, begin, end in parts:
        if begin > end or end > <size_t>view.size:
            raise ValueError("a span beyond its blob")
        size += end - begin
    out_length(out, 36, size)
    for view, begin, end in parts:
        out_span(out, view.blob, begin, end)
    out_raw(out, b"\r\n", 2)
    return 0


cdef int write_special(Out* out, object reply, uint8_t protocol) except -1:
    cdef bytes text
    cdef Py_buffer view
    if isinstance(reply, float):
        return write_float(out, reply, protocol)
    if isinstance(reply, BlobView):
        out_blob(out, (<BlobView>reply).blob)
        return 0
    if isinstance(reply, Spans):
        return write_spans(out, (<Spans>reply).parts)
    if isinstance(reply, (set, frozenset)):
        out_length(out, 126 if protocol == 3 else 42, len(reply))
        return write_items(out, reply, protocol)
    if isinstance(reply, NullArray):
        if protocol == 3:
            out_raw(out, b"_\r\n", 3)
        else:
            out_raw(out, b"*-1\r\n", 5)
    elif isinstance(reply, Pairs):
        write_pairs(out, reply.items, len(reply.items), protocol)
    elif isinstance(reply, Push):
        out_length(out, 62 if protocol == 3 else 42, len(reply.items))
        write_items(out, reply.items, protocol)
    elif isinstance(reply, Verbatim):
        text = reply.data
        if protocol == 3:
            kind = reply.format.encode() if isinstance(reply.format, str) else reply.format
            text = kind + b":" + text
            out_length(out, 61, len(text))
            out_raw(out, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
            out_raw(out, b"\r\n", 2)
        else:
            out_bulk(out, <const uint8_t*>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    elif isinstance(reply, Error):
        write_error(out, reply.message.encode("utf-8", "surrogateescape"))
    elif isinstance(reply, CommandError):
        write_error(out, reply.message.encode("utf-8", "surrogateescape"))
    elif isinstance(reply, (BigNumber, SpelledDouble)):
        text = reply.text if isinstance(reply, SpelledDouble) else str(reply.value).encode()
        if protocol == 3:
            out_raw(out, b"," if isinstance(reply, SpelledDouble) else b"(", 1)
            out_raw(out, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
            out_raw(out, b"\r\n", 2)
        else:
            out_bulk(out, <const uint8_t*>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    elif isinstance(reply, bool):
        if protocol == 3:
            out_raw(out, b"#t\r\n" if reply else b"#f\r\n", 4)
        else:
            out_int(out, 1 if reply else 0)
    elif isinstance(reply, (bytearray, memoryview)):
        text = bytes(reply)
        out_bulk(out, <const uint8_t*>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
    else:
        raise TypeError(f"a handler returned {type(reply).__name__}")
    return 0


cdef int write_reply(Out* out, object reply, uint8_t protocol) except -1:
    """The RESP form of what a handler returned; the types are listed in docs/ARCHITECTURE.md."""
    cdef bytes text
    kind = type(reply)
    if reply is None:
        out_null(out, protocol)
    elif kind is bytes:
        out_bulk(out, <const uint8_t*>PyBytes_AS_STRING(reply), PyBytes_GET_SIZE(reply))
    elif kind is int:
        out_int(out, reply)
    elif kind is str:
        text = (<str>reply).encode("utf-8", "surrogateescape")
        out_raw(out, b"+", 1)
        out_raw(out, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
        out_raw(out, b"\r\n", 2)
    elif kind is list:
        out_length(out, 42, len(<list>reply))
        write_items(out, reply, protocol)
    elif kind is tuple:
        out_length(out, 42, len(<tuple>reply))
        write_items(out, reply, protocol)
    elif kind is dict:
        write_pairs(out, (<dict>reply).items(), len(<dict>reply), protocol)
    else:
        write_special(out, reply, protocol)
    return 0
