"""The commands of a transaction between MULTI and EXEC: copied as they were parsed, without a Python object.

A command is its kind, the number of its arguments, and for each argument its length and bytes. The pieces are read by
memcpy: nothing in the buffer is aligned.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memset
from zeekdb.hot.kinds cimport Kind
from zeekdb.hot.memory cimport mem_free, mem_resize
from zeekdb.hot.wire cimport Arg


cdef inline uint8_t* put(uint8_t* at, const void* p, size_t n) noexcept nogil:
    memcpy(at, p, n)
    return at + n


cdef void queue_add(CommandQueue* q, Kind* kind, const Arg* argv, uint32_t argc) noexcept nogil:
    cdef size_t need = sizeof(Kind*) + sizeof(uint32_t) + argc * sizeof(size_t)
    cdef size_t capacity
    cdef uint32_t i
    cdef uint8_t* at
    for i in range(argc):
        need += argv[i].n
    if q.size + need > q.capacity:
        capacity = max(q.size + need, q.capacity * 2, <size_t>256)
        q.data = <uint8_t*>mem_resize(q.data, q.capacity, capacity)
        q.capacity = capacity
    at = put(q.data + q.size, &kind, sizeof(Kind*))
    at = put(at, &argc, sizeof(uint32_t))
    for i in range(argc):
        at = put(at, &argv[i].n, sizeof(size_t))
        at = put(at, argv[i].p, argv[i].n)
    q.size += need
    q.count += 1
    q.most_args = max(q.most_args, argc)
    q.flags |= kind.flags


cdef void queue_free(CommandQueue* q) noexcept nogil:
    mem_free(q.data, q.capacity)
    memset(q, 0, sizeof(CommandQueue))


cdef uint32_t queue_next(const CommandQueue* q, size_t* at, Kind** kind, Arg* argv) noexcept nogil:
    cdef uint8_t* p = <uint8_t*>q.data + at[0]
    cdef uint32_t argc = 0, i
    memcpy(kind, p, sizeof(Kind*))
    p += sizeof(Kind*)
    memcpy(&argc, p, sizeof(uint32_t))
    p += sizeof(uint32_t)
    for i in range(argc):
        memcpy(&argv[i].n, p, sizeof(size_t))
        argv[i].p = p + sizeof(size_t)
        argv[i].blob = NULL
        argv[i].hash = 0
        p = argv[i].p + argv[i].n
    at[0] = p - q.data
    return argc
