"""Which plain keys the tensor region serves: globs, looked at in their order, each with a space of the region.

The engine asks for every SET, GET, MGET, EXISTS and DEL once there is a pattern, before it looks at the keyspace.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from zeekdb.hot.globs cimport glob_matches

memset(&NS, 0, sizeof(NS))


cdef int namespace_of(const uint8_t* key, size_t n) noexcept nogil:
    cdef uint32_t i
    for i in range(NS.count):
        if glob_matches(NS.patterns[i].text, NS.patterns[i].size, key, n, False):
            return <int>NS.patterns[i].space
    return -1


def set_namespaces(list patterns not None) -> None:
    cdef uint32_t i
    cdef Pattern* pattern
    cdef bytes text
    if len(patterns) > PATTERNS_MAX:
        raise ValueError("too many patterns")
    for i in range(NS.count):
        free(NS.patterns[i].text)
    NS.count = 0
    for text, space in patterns:
        pattern = &NS.patterns[NS.count]
        pattern.size = PyBytes_GET_SIZE(text)
        pattern.text = <uint8_t*>malloc(pattern.size + 1)
        memcpy(pattern.text, PyBytes_AS_STRING(text), pattern.size)
        pattern.space = space
        NS.count += 1


def space_of(bytes key not None) -> int | None:
    cdef int space = namespace_of(<const uint8_t*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
    return space if space >= 0 else None
