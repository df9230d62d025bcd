"""Looking ahead into collections: the cache lines that the commands of a batch will need behind their keys' entries.

A field of a large hash lies behind four addresses: the key's bucket, its entry, the hash's bucket, the field's entry.
One command waits for each in turn; a batch asks for the first of all commands, then for the second of all, and so on.
Nothing here has an effect: a key that is not there yet, or is something else by then, costs a vain request.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from zeekdb.hot.hashes cimport hash_is_large, hash_prefetch, hash_prefetch_entry
from zeekdb.hot.kinds cimport Kind
from zeekdb.hot.members cimport prefetch
from zeekdb.hot.sets cimport set_is_large, set_prefetch, set_prefetch_entry
from zeekdb.hot.shards cimport ks_glance
from zeekdb.hot.table cimport T_HASH, T_SET, T_ZSET, Entry, entry_box, entry_type, hash_bytes
from zeekdb.hot.zsets cimport zset_is_large, zset_prefetch, zset_prefetch_entry

cdef enum:
    BATCH_MAX = 128
    FEW = 4                  # commands that are not worth the trouble

ctypedef struct Lookup:
    void* box
    Arg* member
    uint64_t hash            # of the member, in a large collection
    uint8_t type


cdef inline bint ask(Lookup* found) noexcept nogil:
    """For the bucket, or for all that a small collection is; whether there is more to ask for."""
    cdef bint large
    if found.type == T_HASH:
        large = hash_is_large(found.box)
    elif found.type == T_SET:
        large = set_is_large(found.box)
    else:
        large = zset_is_large(found.box)
    if large:
        found.hash = hash_bytes(found.member.p, found.member.n)
    if found.type == T_HASH:
        hash_prefetch(found.box, found.hash)
    elif found.type == T_SET:
        set_prefetch(found.box, found.hash)
    else:
        zset_prefetch(found.box, found.hash)
    return large


cdef void look_into(Db* db, const Request* requests, Arg* args, uint32_t n) noexcept nogil:
    cdef Lookup[BATCH_MAX] lookups
    cdef Lookup* found
    cdef Kind* kind
    cdef Entry* e
    cdef Arg* argv
    cdef uint32_t i, used = 0, large = 0
    if n < FEW:
        return
    for i in range(n):
        kind = <Kind*>requests[i].kind
        if kind == NULL or kind.member == 0 or requests[i].argc <= <uint32_t>kind.member:
            continue
        argv = &args[requests[i].first]
        e = ks_glance(db, argv[1].p, argv[1].n, argv[1].hash)
        if e == NULL or entry_type(e) < T_SET or entry_type(e) > T_HASH:
            continue
        found = &lookups[used]
        used += 1
        found.box = entry_box(e)
        found.type = entry_type(e)
        found.member = &argv[kind.member]
        found.hash = 0
        prefetch(found.box)
    for i in range(used):
        if ask(&lookups[i]):
            lookups[large] = lookups[i]
            large += 1
    for i in range(large):
        found = &lookups[i]
        if found.type == T_HASH:
            hash_prefetch_entry(found.box, found.hash)
        elif found.type == T_SET:
            set_prefetch_entry(found.box, found.hash)
        else:
            zset_prefetch_entry(found.box, found.hash)
