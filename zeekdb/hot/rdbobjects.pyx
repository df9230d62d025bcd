"""Values that are Python objects, as records of Redis's modules.

A module record is the module's id (nine characters of six bits, then ten bits of version), opcodes with values, and an
opcode 0. Redis's tools step over records of modules that they do not know. Ours hold one string, which the type's codec
makes and reads: `register_object`.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint8_t, uint64_t
from zeekdb.hot.rdbwire cimport (
    DAMAGED, UNKNOWN, Text, fail, get_bytes, get_double, get_length, get_string, put_blob, put_length,
)

import logging

cdef enum:
    VERSION_BITS = 10
    OPCODE_END = 0
    OPCODE_SIGNED = 1
    OPCODE_UNSIGNED = 2
    OPCODE_FLOAT = 3
    OPCODE_DOUBLE = 4
    OPCODE_STRING = 5

cdef str LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
cdef dict BY_TYPE = {}      # type_name -> (id, encode)
cdef dict BY_MODULE = {}    # id without version -> decode


def register_object(str type_name not None, str module not None, int version, encode, decode):
    cdef uint64_t name = 0
    if len(module) != 9 or not 0 <= version < 1 << VERSION_BITS:
        raise ValueError("a module's name has nine characters, its version ten bits")
    for letter in module:
        name = (name << 6) | <uint64_t>LETTERS.index(letter)
    BY_TYPE[type_name] = (name << VERSION_BITS | <uint64_t>version, encode)
    BY_MODULE[name] = decode


cdef bint object_write(Writer* w, void* self) noexcept with gil:
    cdef uint64_t module
    cdef bytes data
    try:
        module, encode = BY_TYPE[(<object>self).type_name]
        data = encode(<object>self)
    except Exception:
        logging.getLogger("zeekdb").exception("a value of type %r cannot be serialised", type(<object>self))
        return False
    put_length(w, module)
    put_length(w, OPCODE_STRING)
    put_blob(w, <const uint8_t*>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    put_length(w, OPCODE_END)
    return True


cdef bint skip_values(Reader* r) noexcept nogil:
    """Steps over a record, to know whether it is whole."""
    cdef uint64_t opcode, number
    cdef const uint8_t* p
    cdef double score
    cdef Text text
    while True:
        if not get_length(r, &opcode):
            return False
        if opcode == OPCODE_END:
            return True
        if opcode == OPCODE_SIGNED or opcode == OPCODE_UNSIGNED:
            if not get_length(r, &number):
                return False
        elif opcode == OPCODE_FLOAT:
            if not get_bytes(r, 4, &p):
                return False
        elif opcode == OPCODE_DOUBLE:
            if not get_double(r, &score):
                return False
        elif opcode != OPCODE_STRING or not get_string(r, &text, 0):
            return fail(r, DAMAGED, b"no value of a module begins like this")


cdef void* object_read(Reader* r) noexcept with gil:
    cdef uint64_t module, opcode, end
    cdef Text text
    if not get_length(r, &module):
        return NULL
    decode = BY_MODULE.get(module >> VERSION_BITS)
    if decode is None:
        if skip_values(r):
            fail(r, UNKNOWN, b"a value of a module that is not here")
        return NULL
    if not get_length(r, &opcode) or opcode != OPCODE_STRING or not get_string(r, &text, 0):
        fail(r, DAMAGED, b"a module record that is not one string")
        return NULL
    if not get_length(r, &end) or end != OPCODE_END:
        fail(r, DAMAGED, b"a module record without an end")
        return NULL
    try:
        value = decode(PyBytes_FromStringAndSize(<const char*>text.p, text.n), module & 1023)
    except ValueError:
        fail(r, DAMAGED, b"a damaged module record")
        return NULL
    except Exception:
        logging.getLogger("zeekdb").exception("a record of a module cannot be read")
        fail(r, DAMAGED, b"a module record that cannot be read")
        return NULL
    Py_INCREF(value)
    return <void*>value
