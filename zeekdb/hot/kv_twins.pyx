"""Twins of plain keys that the tensor region serves: EXISTS, which an engine asks for each chunk of a prompt."""

from libc.stdint cimport int64_t
from zeekdb.hot.blocks cimport RG, Space, block_find, block_lease, is_away, lease_end
from zeekdb.hot.namespaces cimport namespace_of
from zeekdb.hot.region cimport use_all
from zeekdb.hot.table cimport Entry
from zeekdb.hot.wire cimport TWIN_DONE, TWIN_PASS, out_int

cdef enum:
    KEY_BYTES_MAX = 16384    # as commands/kv_plain.py has it

cdef int64_t EXISTS_LEASE_MS = 0


def set_exists_lease(int64_t ms) -> None:
    global EXISTS_LEASE_MS
    EXISTS_LEASE_MS = ms


cdef int twin_kv_exists(Port* port, Arg* argv, int argc) noexcept nogil:
    """Of one key; several may be the keyspace's too."""
    cdef int index = namespace_of(argv[1].p, argv[1].n) if argc == 2 else -1
    cdef Space* space
    cdef Entry* e
    if index < 0 or argv[1].n > KEY_BYTES_MAX:  # no key at all, as the handler will say
        return TWIN_PASS
    space = RG.spaces[index]
    e = block_find(space, argv[1].p, argv[1].n)
    if e == NULL or is_away(e):
        space.misses += 1
        out_int(&port.out, 0)
        return TWIN_DONE
    space.hits += 1
    use_all(e)
    if EXISTS_LEASE_MS:
        block_lease(e, lease_end(EXISTS_LEASE_MS))
    out_int(&port.out, 1)
    return TWIN_DONE
