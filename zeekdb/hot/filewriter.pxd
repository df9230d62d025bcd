# Writes a file from a thread of its own. See filewriter.pyx.
from libc.stdint cimport uint64_t
from zeekdb.hot.rdbwire cimport Buffer
from zeekdb.hot.threads cimport pthread_cond_t, pthread_mutex_t, pthread_t

ctypedef struct Pen:
    pthread_mutex_t lock
    pthread_cond_t changed
    int fd
    Buffer piece            # what is being written
    bint busy
    bint stops
    int error               # errno of the first failure; nothing is written after it
    bint checksums
    bint paces              # it works in short bursts, so that nobody waits long for a processor
    uint64_t crc
    uint64_t size
    uint64_t unsynced
    uint64_t sync_every     # bytes

cdef class FileWriter:
    cdef Pen pen
    cdef pthread_t thread
    cdef bint running
    cdef void wait(self) noexcept
    cdef bint offer(self, Buffer* piece) except -1  # takes the bytes and leaves an empty buffer; False while busy
