"""A file written from a thread that never takes the GIL.

The loop fills a buffer and swaps it for the one that has been written. Neither waits for the other: a Python thread
would, whenever it is preempted while it holds the GIL, and with it everybody whom the loop serves.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EBADF, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memset
from zeekdb.hot.crc64 cimport crc64_update
from zeekdb.hot.rdbwire cimport Buffer, buffer_free, buffer_put
from zeekdb.hot.threads cimport (
    pthread_cond_broadcast, pthread_cond_destroy, pthread_cond_init, pthread_cond_wait, pthread_create, pthread_join,
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
)

import os

cdef extern from *:
    """
    #define _GNU_SOURCE
    #include <fcntl.h>
    #include <sched.h>
    #include <sys/resource.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    #include <time.h>
    /* Begins to write back what is in the cache, from this thread: left to the kernel's, it comes in long bursts. */
    static inline void write_back(int fd, long long at, long long n) {
    #ifdef SYNC_FILE_RANGE_WRITE
        sync_file_range(fd, at, n, SYNC_FILE_RANGE_WRITE);
    #endif
    }
    static inline void pause_us(long us) { struct timespec t = { 0, us * 1000 }; nanosleep(&t, NULL); }
    /* SCHED_BATCH: who waits for a processor takes it from nobody. */
    static inline void stand_back(int niceness) {
        struct sched_param none = { 0 };
    #ifdef SCHED_BATCH
        sched_setscheduler(0, SCHED_BATCH, &none);
    #endif
        (void)none;
        setpriority(PRIO_PROCESS, syscall(SYS_gettid), niceness);
    }
    """
    void stand_back(int niceness) nogil
    void pause_us(long us) nogil
    void write_back(int fd, int64_t at, int64_t n) nogil
    ssize_t c_write "write"(int fd, const void* data, size_t n) nogil
    int fdatasync(int fd) nogil

cdef enum:
    NICENESS = 10
    KEPT = 1 << 22          # bytes of the buffer that stay
    AT_ONCE = 1 << 15       # bytes between checksum and write, while they are in the cache
    PAUSE_US = 100           # after so many, which takes about as long


cdef int write_piece(Pen* p) noexcept nogil:
    """0, or errno."""
    cdef size_t done = 0, n, most
    cdef ssize_t got
    while done < p.piece.size:
        most = min(p.piece.size - done, <size_t>AT_ONCE)
        if p.checksums:
            p.crc = crc64_update(p.crc, p.piece.data + done, most)
        n = done + most
        while done < n:
            got = c_write(p.fd, p.piece.data + done, n - done)
            if got < 0:
                if errno == EINTR or errno == EAGAIN:
                    continue
                return errno
            done += got
        if p.paces:
            write_back(p.fd, <int64_t>(p.size + done - most), <int64_t>most)
            pause_us(PAUSE_US)
    p.size += p.piece.size
    p.unsynced += p.piece.size
    if p.unsynced >= p.sync_every:
        p.unsynced = 0
        if fdatasync(p.fd) < 0:
            return errno
    return 0


cdef void* run(void* argument) noexcept nogil:
    cdef Pen* p = <Pen*>argument
    cdef int error
    stand_back(NICENESS)
    pthread_mutex_lock(&p.lock)
    while True:
        while not p.busy and not p.stops:
            pthread_cond_wait(&p.changed, &p.lock)
        if not p.busy:
            break
        pthread_mutex_unlock(&p.lock)
        error = write_piece(p) if p.error == 0 else p.error
        pthread_mutex_lock(&p.lock)
        p.error = error
        p.busy = False
        p.piece.size = 0
        if p.piece.capacity > KEPT:
            buffer_free(&p.piece)
        pthread_cond_broadcast(&p.changed)
    pthread_mutex_unlock(&p.lock)
    return NULL


cdef class FileWriter:
    """See filewriter.pyi."""

    def __cinit__(self, int fd, bint checksums, uint64_t sync_every, bint paces=False):
        memset(&self.pen, 0, sizeof(Pen))
        self.pen.fd = fd
        self.pen.checksums = checksums
        self.pen.paces = paces
        self.pen.sync_every = sync_every
        pthread_mutex_init(&self.pen.lock, NULL)
        pthread_cond_init(&self.pen.changed, NULL)
        if pthread_create(&self.thread, NULL, run, &self.pen):
            raise OSError(errno, "no thread to write a file with")
        self.running = True

    def __dealloc__(self):
        self.close()
        buffer_free(&self.pen.piece)
        pthread_mutex_destroy(&self.pen.lock)
        pthread_cond_destroy(&self.pen.changed)

    cdef bint offer(self, Buffer* piece) except -1:
        cdef Buffer swapped
        cdef bint closed
        if self.busy:
            return False
        with nogil:
            pthread_mutex_lock(&self.pen.lock)
            closed = self.pen.stops
            if not closed:
                swapped = self.pen.piece
                self.pen.piece = piece[0]
                piece[0] = swapped
                self.pen.busy = True
                pthread_cond_broadcast(&self.pen.changed)
            pthread_mutex_unlock(&self.pen.lock)
        if closed:  # nobody would ever write it: a thread was still at it when the file was dropped
            raise OSError(EBADF, os.strerror(EBADF))
        return True

    @property
    def busy(self):
        cdef bint busy
        cdef int error
        pthread_mutex_lock(&self.pen.lock)
        busy, error = self.pen.busy, self.pen.error
        pthread_mutex_unlock(&self.pen.lock)
        if error:
            raise OSError(error, os.strerror(error))
        return busy

    @property
    def crc(self):
        return self.pen.crc

    cdef void wait(self) noexcept:
        with nogil:
            pthread_mutex_lock(&self.pen.lock)
            while self.pen.busy:
                pthread_cond_wait(&self.pen.changed, &self.pen.lock)
            pthread_mutex_unlock(&self.pen.lock)

    def put(self, bytes data not None):
        cdef Buffer piece
        memset(&piece, 0, sizeof(piece))
        self.wait()
        buffer_put(&piece, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        try:
            self.offer(&piece)
        finally:
            buffer_free(&piece)
        self.wait()
        self.busy  # for what went wrong

    def close(self):
        if not self.running:
            return
        self.running = False
        with nogil:
            pthread_mutex_lock(&self.pen.lock)
            self.pen.stops = True
            pthread_cond_broadcast(&self.pen.changed)
            pthread_mutex_unlock(&self.pen.lock)
            pthread_join(self.thread, NULL)
