# Connections, parsing and execution: the reactor that turns readable sockets into replies.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from zeekdb.hot.parser cimport Intake
from zeekdb.hot.wire cimport Port, Twin

# What the engine knows of a command; the rest is in its declaration.
ctypedef struct Kind:
    uint8_t name[32]     # upper case
    uint8_t name_size
    int arity
    uint32_t flags
    int first_key        # places of keys by range, for hashing ahead; first_key 0: none
    int last_key
    int key_step
    Twin twin
    void* handler        # borrowed: Engine.handlers keeps it
    int index
    uint64_t calls
    uint64_t ticks       # time stamp counter, spent in calls
    uint64_t rejected
    uint64_t failed
    uint64_t histogram[40]  # calls by log2 of their ticks

ctypedef struct Conn:
    Port port            # first: a twin's Port* is the connection
    int fd
    uint32_t gate        # not 0: the slow path decides
    bint closing         # close once the output is sent
    bint closed
    bint blocked         # no further command until resumed
    bint writable_wanted
    bint readable_off
    bint queued          # waits in the engine's list of connections to process again
    # input not consumed yet
    uint8_t* data
    size_t size
    size_t capacity
    Intake intake
    void* owner          # the Python Connection, borrowed
    size_t output_limit
    uint64_t commands
    uint64_t net_in
    uint64_t net_out
    int64_t seen_ms      # last interaction
    int last_kind
    void* next_dead
