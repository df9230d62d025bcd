# Connections, parsing and execution: the reactor that turns readable sockets into replies.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from zeekdb.hot.memory cimport Blob
from zeekdb.hot.keyspace cimport Db
from zeekdb.hot.wire cimport Arg, Out, Port, Twin

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

# One command of a batch: its arguments are batch.args[first:first + argc].
ctypedef struct Request:
    Kind* kind
    uint32_t first
    uint32_t argc
    size_t start         # place in the input

ctypedef struct Conn:
    Port port            # first: a twin's Port* is the connection
    int fd
    uint32_t gate        # not 0: the slow path decides
    bint closing         # close once the output is sent
    bint closed
    bint blocked         # no further command until resumed
    bint writable_wanted
    bint readable_off
    bint expect_big      # the last command carried a blob
    bint queued          # waits in the engine's list of connections to process again
    # input not consumed yet
    uint8_t* data
    size_t size
    size_t capacity
    # a command half received: places relative to the begin of `data`
    Arg* args            # p holds the offset until the command is complete
    uint32_t argc
    uint32_t args_capacity
    int64_t args_left    # -1: between commands
    int64_t bulk         # length announced of the next argument, -1: none
    size_t parsed        # bytes of `data` that the parser has passed
    size_t half_end      # bytes of `data` to keep when the rest went to the blob; 0: all
    size_t blob_bytes    # bytes in blobs of the half command, received
    Blob* blob           # receiving in place
    size_t blob_want     # bytes including CRLF
    void* owner          # the Python Connection, borrowed
    size_t output_limit
    uint64_t commands
    uint64_t net_in
    uint64_t net_out
    int64_t seen_ms      # last interaction
    int last_kind
    void* next_dead
