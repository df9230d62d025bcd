# What a connection has queued between MULTI and EXEC. See queue.pyx.
from libc.stdint cimport uint8_t, uint32_t
from zeekdb.hot.kinds cimport Kind
from zeekdb.hot.wire cimport Arg

ctypedef struct CommandQueue:
    uint8_t* data            # the commands one after the other, packed
    size_t size
    size_t capacity
    uint32_t count
    uint32_t most_args       # of the command that has most
    uint32_t flags           # of all commands, or-ed
    bint failed              # some command could not be queued: EXEC will refuse

cdef void queue_add(CommandQueue* q, Kind* kind, const Arg* argv, uint32_t argc) noexcept nogil
cdef void queue_free(CommandQueue* q) noexcept nogil
# The command at *at, whose arguments point into the queue; moves *at to the next one. How many arguments.
cdef uint32_t queue_next(const CommandQueue* q, size_t* at, Kind** kind, Arg* argv) noexcept nogil
