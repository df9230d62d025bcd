# The RESP parser. See parser.pyx.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from zeekdb.hot.checksum cimport Checksum
from zeekdb.hot.memory cimport Blob
from zeekdb.hot.wire cimport Arg

# What the parser says.
cdef enum:
    MORE = 0
    COMMAND = 1
    FAULT = 2

# One command: its arguments are parser.args[first:first + argc].
ctypedef struct Request:
    void* kind           # the engine's
    uint32_t first
    uint32_t argc
    size_t start         # place in the input

# A connection's half command: places relative to where the command begins.
ctypedef struct Intake:
    Arg* args            # p holds the offset until the command is complete
    uint32_t argc
    uint32_t args_capacity
    int64_t args_left    # -1: between commands
    int64_t bulk         # length announced of the next argument, -1: none
    size_t parsed        # bytes that the parser has passed
    size_t half_end      # bytes to keep when the rest went to the blob; 0: all
    Blob* blob           # receiving in place; its size counts the CRLF too, for which it has no room
    size_t blob_want     # bytes including CRLF
    Checksum* sum        # of what has come of a blob in the arena, while it is in the cache; NULL: of none
    size_t blob_bytes    # in blobs already received
    bint expect_big      # the last command carried a blob
    bint limited         # nobody is logged in: few and short arguments only

# Where a large argument is received: the arguments before it tell; NULL: an ordinary blob.
ctypedef Blob* (*Placer)(const Arg* argv, uint32_t argc, size_t n) noexcept nogil

# What the connections share: the arguments of the batch at hand.
ctypedef struct Parser:
    Arg* args
    uint32_t args_capacity
    uint32_t args_used
    int64_t bulk_limit
    Placer place
    const char* fault    # after FAULT: what is wrong; a %c stands for fault_byte
    uint8_t fault_byte
    bint blobs_held      # some argument has a blob

cdef int parse(Parser* b, Intake* c, uint8_t* data, size_t size, size_t* used, Request* r) noexcept nogil
cdef void forget_half(Intake* c) noexcept nogil
cdef void count_received(Intake* c, size_t before) noexcept nogil   # the blob had so many bytes, line end included
cdef void drop_blob(Intake* c) noexcept nogil                       # what was being received, and its sum
cdef void drop_half(Parser* b, Intake* c) noexcept nogil
cdef void release_blobs(Parser* b, Request* first) noexcept nogil
