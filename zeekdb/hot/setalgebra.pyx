"""Union, intersection and difference of sets, without a Python object but for results.

An intersection walks the smallest set and keeps the members that all others contain, a difference walks the first and
keeps those that none contains: one walk, `wanted` tells which.
"""

from libc.stdint cimport uint8_t, uint64_t
from zeekdb.hot.members cimport Harvest, harvest, harvest_to, harvested
from zeekdb.hot.memory cimport mem_alloc, mem_free
from zeekdb.hot.packed cimport Emit
from zeekdb.hot.sets cimport Set, set_add, set_contains_h, set_each, set_is_large, set_length, set_remove, set_walk
from zeekdb.hot.table cimport hash_bytes


ctypedef struct Sieve:
    void** others
    size_t count
    bint wanted
    bint hashed         # some of the others are large: hash each member, once
    uint64_t kept
    uint64_t limit      # 0: none
    Emit emit           # NULL: count only
    void* arg


cdef bint sift(const uint8_t* p, size_t n, void* arg) noexcept nogil:
    cdef Sieve* sieve = <Sieve*>arg
    cdef uint64_t h = hash_bytes(p, n) if sieve.hashed else 0
    cdef size_t i
    for i in range(sieve.count):
        if set_contains_h(sieve.others[i], p, n, h) != sieve.wanted:
            return False
    sieve.kept += 1
    if sieve.emit != NULL:
        sieve.emit(p, n, sieve.arg)
    return sieve.kept == sieve.limit


cdef void add_to(const uint8_t* p, size_t n, void* arg) noexcept nogil:
    set_add(arg, p, n)


cdef void remove_from(const uint8_t* p, size_t n, void* arg) noexcept nogil:
    set_remove(arg, p, n)


cdef uint64_t sift_all(Set first, list others, bint wanted, uint64_t limit, Emit emit, void* arg) except? 0:
    cdef Sieve sieve
    cdef Set other
    cdef size_t i
    cdef size_t count = len(others)
    cdef size_t room = (count or 1) * sizeof(void*)
    sieve.others = <void**>mem_alloc(room)
    sieve.count = count
    sieve.wanted = wanted
    sieve.hashed = False
    sieve.kept = 0
    sieve.limit = limit
    sieve.emit = emit
    sieve.arg = arg
    try:
        for i in range(count):
            other = others[i]
            sieve.others[i] = other.box
            sieve.hashed |= set_is_large(other.box)
        set_walk(first.box, sift, &sieve)
    finally:
        mem_free(sieve.others, room)
    return sieve.kept


cdef uint64_t intersect(object sets, uint64_t limit, Emit emit, void* arg) except? 0:
    cdef list ordered = sorted(sets, key=len)
    cdef Set first = ordered.pop(0)
    return sift_all(first, ordered, True, limit, emit, arg)


def common_members(sets not None):
    cdef list items = []
    cdef Harvest into = harvest_to(items)
    intersect(sets, 0, harvest, &into)
    return harvested(items, &into)


def common_count(sets not None, uint64_t limit=0):
    return intersect(sets, limit, NULL, NULL)


def intersection(sets not None):
    cdef Set result = Set()
    intersect(sets, 0, add_to, result.box)
    return result


def union(sets not None):
    cdef Set result = Set()
    cdef Set source
    for source in sets:
        set_each(source.box, add_to, result.box)
    return result


def difference(Set first not None, others not None):
    cdef Set result = Set()
    cdef Set other
    cdef uint64_t length = set_length(first.box)
    cdef uint64_t total = length
    for other in others:
        total += set_length(other.box)
    # Looking up each member in all the others, at half the price since the first hit ends it, or removing all the
    # members of the others from a copy of the first? Redis's rule.
    if length * (1 + <uint64_t>len(others)) // 2 <= total:
        sift_all(first, sorted(others, key=len, reverse=True), False, 0, add_to, result.box)
        return result
    set_each(first.box, add_to, result.box)
    for other in others:
        set_each(other.box, remove_from, result.box)
    return result
