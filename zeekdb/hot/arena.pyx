"""The host arena: the memory of the tensor region's blocks, one memfd that local clients map as well.

A stretch of it is an Extent. All that is known of extents lies outside the arena (clients can write to what they map),
each with its neighbours by address; free neighbours become one at once, and free extents stand in bins by size. The
bins are those of TLSF (Masmano et al. 2004): the first that surely fits is found from two bit maps. Unlike there, the
bin that the size itself belongs to is looked through first (PROBES at most), so that blocks of one size fill the arena
to the last byte: what one leaves the next takes, whole.

Two levels share this. Big extents have multiples of 4 KiB, for clients and devices that copy in pages. Shorter blobs
are cut, in steps of 64 bytes, from spans, which are big extents of about SPAN_BYTES; a span goes back when it is empty.
Size classes on pages (pages.pyx) were no choice here: a thousand classes of 64 bytes would hold a span each.

Low addresses first: a free extent is cut at its low end, and what was never used stands in the last bin. So the part in
use grows upwards, and a thread keeps AHEAD bytes beyond it faulted in (MADV_POPULATE_WRITE; a fault a page in the loop
costs more than the copy into it). Nothing is taken from the system before the first blob. The steps are short because
each holds up whoever maps memory meanwhile. Where the loop is faster, the thread leaps ahead of it, and it has the
loop's priority: the loop would wait for it at a page that both want (74 ms once, with a nicer thread). Huge pages are
asked for, but kernels as they come refuse them for memfds (`shmem_enabled` is `never`): there was none to measure.

The file's size is sealed, or a client that cut it short would end the server with SIGBUS. Arena bytes are not in
mem_used: only the extents' headers are.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport EINTR, EINVAL, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from posix.unistd cimport close, ftruncate
from zeekdb.hot.checksum cimport checksum_of
from zeekdb.hot.memory cimport blob_home, blob_release, blob_retain, mem_alloc, mem_free

import os

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_t:
        pass
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    int pthread_create(pthread_t* thread, const void* attributes, void* (*start)(void*) noexcept nogil, void* argument)
    int pthread_join(pthread_t thread, void** result)
    int pthread_mutex_init(pthread_mutex_t* lock, const void* attributes)
    int pthread_mutex_lock(pthread_mutex_t* lock)
    int pthread_mutex_unlock(pthread_mutex_t* lock)
    int pthread_cond_init(pthread_cond_t* condition, const void* attributes)
    int pthread_cond_signal(pthread_cond_t* condition)
    int pthread_cond_wait(pthread_cond_t* condition, pthread_mutex_t* lock)

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <fcntl.h>
    #include <sys/mman.h>
    #ifndef MADV_POPULATE_WRITE
    #define MADV_POPULATE_WRITE 23
    #endif
    static int arena_file(void) { return memfd_create("zeekdb-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING); }
    static int seal_size(int fd) { return fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL); }
    static void *map_shared(int fd, size_t size) {
        void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
        if (base == MAP_FAILED)
            return NULL;
        madvise(base, size, MADV_DONTDUMP);
        madvise(base, size, MADV_HUGEPAGE);  /* where the system allows them for shared memory: "advise" */
        return base;
    }
    static int populate(void *at, size_t n) { return madvise(at, n, MADV_POPULATE_WRITE) ? errno : 0; }
    /* Writes to each page what it holds; the loop may be writing there, which an exchange that compares cannot spoil. */
    static void touch_pages(unsigned char *at, size_t n) {
        for (size_t i = 0; i < n; i += 4096) {
            unsigned char v = __atomic_load_n(at + i, __ATOMIC_RELAXED);
            __atomic_compare_exchange_n(at + i, &v, v, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
        }
    }
    #define ctz64(x) ((unsigned)__builtin_ctzll(x))
    #define log2_of(x) (63u - (unsigned)__builtin_clzll(x))
    """
    int arena_file()
    int seal_size(int fd)
    void* map_shared(int fd, size_t size)
    int munmap(void* at, size_t n)
    int populate(void* at, size_t n) nogil
    void touch_pages(unsigned char* at, size_t n) nogil
    uint32_t ctz64(uint64_t x) nogil
    uint32_t log2_of(uint64_t x) nogil

cdef enum:
    SPAN_BYTES = 1048576    # at most; what a span of whole blobs has
    PROBES = 32             # extents of a bin that are looked at for one that fits
    FAULT_STEP = 2097152    # bytes faulted in by one call
    AHEAD = 268435456       # bytes faulted in beyond what was ever in use

# Shared with the thread that faults the arena in.
ctypedef struct Faulting:
    pthread_mutex_t lock
    pthread_cond_t changed
    pthread_t thread
    uint8_t* base
    size_t wanted           # bytes from the base on
    size_t passed           # up to where the loop itself has touched what it used
    size_t done
    int error               # errno of what ended the thread
    bint stops

cdef Faulting F
memset(&A, 0, sizeof(A))
memset(&F, 0, sizeof(F))
A.fd = -1


# ---------------------------------------------------------------- bins


cdef inline void bin_place(bint small, size_t size, uint32_t* row, uint32_t* column) noexcept nogil:
    cdef size_t n = size // (SMALL_STEP if small else BIG_STEP)
    cdef uint32_t top
    row[0] = 0
    column[0] = <uint32_t>n
    if n >= COLUMNS:
        top = log2_of(n)
        row[0] = top - 4
        column[0] = <uint32_t>(n >> (top - 5)) & (COLUMNS - 1)


cdef void bin_in(Extent* e) noexcept nogil:
    cdef uint32_t row, column
    cdef Bins* b = &A.bins[e.span != NULL]
    bin_place(e.span != NULL, e.blob.capacity, &row, &column)
    e.prev = NULL
    e.next = b.heads[row][column]
    if e.next != NULL:
        e.next.prev = e
    b.heads[row][column] = e
    b.columns[row] |= <uint32_t>1 << column
    b.rows |= <uint64_t>1 << row


cdef void bin_out(Extent* e) noexcept nogil:
    cdef uint32_t row, column
    cdef Bins* b
    if e.next != NULL:
        e.next.prev = e.prev
    if e.prev != NULL:
        e.prev.next = e.next
        return
    b = &A.bins[e.span != NULL]
    bin_place(e.span != NULL, e.blob.capacity, &row, &column)
    b.heads[row][column] = e.next
    if e.next == NULL:
        b.columns[row] &= ~(<uint32_t>1 << column)
        if b.columns[row] == 0:
            b.rows &= ~(<uint64_t>1 << row)


cdef Extent* find(bint small, size_t need) noexcept nogil:
    cdef Bins* b = &A.bins[small]
    cdef uint32_t row, column
    cdef int i
    cdef uint64_t above
    cdef Extent* e
    bin_place(small, need, &row, &column)
    e = b.heads[row][column]
    for i in range(PROBES):
        if e == NULL or e.blob.capacity >= need:
            break
        e = e.next
    if e != NULL and e.blob.capacity >= need:
        return e
    above = b.columns[row] & ~((<uint64_t>2 << column) - 1)
    if above == 0:
        above = b.rows & ~((<uint64_t>2 << row) - 1)
        if above == 0:
            return NULL
        row = ctz64(above)
        above = b.columns[row]
    return b.heads[row][ctz64(above)]


# ---------------------------------------------------------------- extents


cdef Extent* extent_new(uint8_t* data, size_t capacity, Extent* span, uint32_t flags) noexcept nogil:
    cdef Extent* e = <Extent*>mem_alloc(sizeof(Extent))
    memset(e, 0, sizeof(Extent))
    e.blob.data = data
    e.blob.capacity = capacity
    e.blob.flags = flags
    e.span = span
    return e


cdef void extent_drop(Extent* e, Extent* instead) noexcept nogil:
    """Forgets a header whose bytes are another's now."""
    if A.rover == e:
        A.rover = instead
    mem_free(e, sizeof(Extent))


cdef Extent* make_free(Extent* e) noexcept nogil:
    cdef Extent* other = e.left
    if other.blob.flags & FREE:
        bin_out(other)
        other.blob.capacity += e.blob.capacity
        link(other, e.right)
        extent_drop(e, other)
        e = other
    other = e.right
    if other.blob.flags & FREE:
        bin_out(other)
        e.blob.capacity += other.blob.capacity
        link(e, other.right)
        extent_drop(other, e)
    e.blob.flags = FREE
    if e.span != NULL and e.left == e.right:  # nothing else is in the span
        other = e.span
        mem_free(other.next, sizeof(Extent))
        mem_free(e, sizeof(Extent))
        return give(other)
    bin_in(e)
    return e


cdef Extent* give(Extent* e) noexcept nogil:
    if e.span == NULL:
        A.taken -= e.blob.capacity
    return make_free(e)


cdef void cut(Extent* e, size_t keep) noexcept nogil:
    """What is beyond `keep` bytes becomes free."""
    cdef Extent* rest = extent_new(e.blob.data + keep, e.blob.capacity - keep, e.span, 0)
    e.blob.capacity = keep
    link(rest, e.right)
    link(e, rest)
    make_free(rest)


cdef Extent* take(bint small, size_t need) noexcept nogil:
    cdef Extent* e = find(small, need)
    if e == NULL:
        return NULL
    bin_out(e)
    e.blob.flags = 0
    if e.blob.capacity > need:
        cut(e, need)
    if not small:
        A.taken += need
        if arena_offset(&e.blob) + need > A.high:
            climb(arena_offset(&e.blob) + need)
    return e


cdef bint open_span(size_t need) noexcept nogil:
    """A span for blobs of this footprint, for fewer of them where there is little room; False where there is none."""
    cdef size_t count = SPAN_BYTES // need
    cdef Extent* span = NULL
    cdef Extent* ends
    cdef Extent* e
    while count and span == NULL:
        span = take(False, (count * need + BIG_STEP - 1) & ~<size_t>(BIG_STEP - 1))
        count //= 2
    if span == NULL:
        return False
    span.blob.flags = SPAN
    span.blob.size = span.blob.refs = 0
    span.next = ends = extent_new(NULL, 0, span, END)
    e = extent_new(span.blob.data, span.blob.capacity, span, FREE)
    link(ends, e)
    link(e, ends)
    bin_in(e)
    return True


cdef Extent* reserve(size_t need, bint opens) noexcept nogil:
    cdef Extent* e
    if need >= BIG_MIN:
        return take(False, need)
    e = take(True, need)
    if e == NULL and opens and open_span(need):
        e = take(True, need)
    return e


# ---------------------------------------------------------------- blobs


cdef Blob* arena_blob(size_t capacity) noexcept nogil:
    cdef Extent* e
    cdef size_t need
    if capacity > A.size - A.used:
        return NULL
    need = arena_footprint(capacity)
    e = reserve(need, True)
    if e == NULL:
        return NULL
    if e.span != NULL:
        e.span.blob.size += need
    e.blob.refs = 1
    e.blob.size = 0
    e.blob.flags = ARENA | FIXED
    A.used += need
    A.blobs += 1
    return &e.blob


cdef void give_blob(Blob* blob) noexcept nogil:
    """blob_release's, for the last reference."""
    cdef Extent* e = <Extent*>blob
    if e.span != NULL:
        e.span.blob.size -= blob.capacity
    A.used -= blob.capacity
    A.blobs -= 1
    give(e)


cdef void arena_trim(Blob* blob, size_t size) noexcept nogil:
    cdef Extent* e = <Extent*>blob
    cdef size_t step = BIG_STEP if e.span == NULL else SMALL_STEP
    cdef size_t keep = max((size + step - 1) & ~(step - 1), step)
    cdef size_t less = blob.capacity - keep
    if keep >= blob.capacity:
        return
    A.used -= less
    if e.span != NULL:
        e.span.blob.size -= less
    else:
        A.taken -= less
    cut(e, keep)


cdef size_t largest_free() noexcept nogil:
    """Bytes of the largest free extent."""
    cdef Bins* b = &A.bins[0]
    cdef size_t largest = 0
    cdef uint32_t row
    cdef Extent* e
    if b.rows == 0:
        return 0
    row = log2_of(b.rows)
    e = b.heads[row][log2_of(b.columns[row])]
    while e != NULL:  # of one bin: none is 4 % larger than another
        largest = max(largest, e.blob.capacity)
        e = e.next
    return largest


blob_home(give_blob)


# ---------------------------------------------------------------- faulting in


cdef void climb(size_t end) noexcept nogil:
    """More is in use than ever: the thread goes on, a step at a time."""
    A.high = end
    if F.wanted and end < F.passed + FAULT_STEP:
        return
    pthread_mutex_lock(&F.lock)
    F.wanted = max(F.wanted, min(A.size, end + AHEAD))
    F.passed = end
    pthread_cond_signal(&F.changed)
    pthread_mutex_unlock(&F.lock)


cdef void* fault_in(void* argument) noexcept nogil:
    cdef size_t at, n
    cdef int error
    pthread_mutex_lock(&F.lock)
    while not F.stops:
        if F.done >= F.wanted:
            pthread_cond_wait(&F.changed, &F.lock)
            continue
        at = max(F.done, F.passed // FAULT_STEP * FAULT_STEP)
        n = min(F.wanted - at, <size_t>FAULT_STEP)
        pthread_mutex_unlock(&F.lock)
        error = populate(F.base + at, n)
        if error == EINVAL:  # a kernel before 5.14
            touch_pages(F.base + at, n)
            error = 0
        pthread_mutex_lock(&F.lock)
        if error == 0:
            F.done = at + n
        elif error != EINTR:  # no memory is left, or no more is allowed: a touch would end the process
            F.error = error
            break
    pthread_mutex_unlock(&F.lock)
    return NULL


# ---------------------------------------------------------------- doors


cdef object failed(int error, str what, size_t size):
    return OSError(error, f"the arena of {size} bytes: {what}: {os.strerror(error)}")


def arena_open(size_t size):
    cdef int fd, error
    cdef void* base
    if A.base != NULL:
        raise RuntimeError("the arena is open")
    if size == 0:
        raise ValueError("an arena has at least one byte")
    size = (size + BIG_STEP - 1) & ~<size_t>(BIG_STEP - 1)
    fd = arena_file()
    if fd < 0:
        raise failed(errno, "no file in memory", size)
    if ftruncate(fd, size) or seal_size(fd):
        error = errno
        close(fd)
        raise failed(error, "its size could not be set", size)
    base = map_shared(fd, size)
    if base == NULL:
        error = errno
        close(fd)
        raise failed(error, "no mapping", size)
    F.base = <uint8_t*>base
    F.wanted = F.passed = F.done = 0
    F.stops = False
    F.error = 0
    pthread_mutex_init(&F.lock, NULL)
    pthread_cond_init(&F.changed, NULL)
    error = pthread_create(&F.thread, NULL, fault_in, NULL)
    if error:
        munmap(base, size)
        close(fd)
        raise failed(error, "no thread to fault it in", size)
    memset(&A, 0, sizeof(A))
    A.fd = fd
    A.base = <uint8_t*>base
    A.size = size
    A.ends.blob.flags = END
    A.rover = extent_new(A.base, size, NULL, FREE)
    link(&A.ends, A.rover)
    link(A.rover, &A.ends)
    bin_in(A.rover)


def arena_close():
    if A.base == NULL:
        return
    if A.blobs:
        raise RuntimeError(f"the arena still holds {A.blobs} blobs")
    with nogil:
        pthread_mutex_lock(&F.lock)
        F.stops = True
        pthread_cond_signal(&F.changed)
        pthread_mutex_unlock(&F.lock)
        pthread_join(F.thread, NULL)
    munmap(A.base, A.size)
    close(A.fd)
    mem_free(A.ends.right, sizeof(Extent))  # all of it is one again
    memset(&A, 0, sizeof(A))
    A.fd = -1


def arena_fault_in():
    if A.base == NULL:
        raise RuntimeError("the arena is closed")
    pthread_mutex_lock(&F.lock)
    F.wanted = A.size
    pthread_cond_signal(&F.changed)
    pthread_mutex_unlock(&F.lock)


def arena_fd():
    return A.fd


def arena_stats():
    cdef size_t faulted = 0
    cdef int error = 0
    if A.base != NULL:
        pthread_mutex_lock(&F.lock)
        faulted, error = F.done, F.error
        pthread_mutex_unlock(&F.lock)
    return {
        "size": A.size, "used": A.used, "free": A.size - A.used, "largest": largest_free(), "blobs": A.blobs,
        "high": A.high, "faulted": faulted, "fault_errno": error, "moved_blobs": A.moved_blobs,
        "moved_bytes": A.moved_bytes,
    }


cdef size_t audit(Extent* ends, uint8_t* at, uint8_t* end) except? 0:
    """Bytes in use in a list of extents, which must lie there without a gap."""
    cdef Extent* e = ends.right
    cdef size_t used = 0, inner
    while e != ends:
        assert e.left.right == e and e.blob.data == at and not e.blob.flags & (END | HELD)
        at += e.blob.capacity
        if e.blob.flags & FREE:
            assert not e.left.blob.flags & FREE and not e.right.blob.flags & FREE
        elif e.blob.flags & SPAN:
            inner = audit(e.next, e.blob.data, at)
            assert inner == e.blob.size and inner, f"{inner} of {e.blob.size} in use"
            used += inner
        else:
            assert e.blob.refs and e.blob.flags & ARENA and e.blob.size <= e.blob.capacity
            used += e.blob.capacity
        e = e.right
    assert at == end and ends.left.right == ends
    return used


def arena_audit():
    cdef Extent* e = A.ends.right
    cdef size_t taken = 0
    if A.base == NULL:
        return
    assert audit(&A.ends, A.base, A.base + A.size) == A.used
    while e != &A.ends:
        taken += 0 if e.blob.flags & FREE else e.blob.capacity
        e = e.right
    assert taken == A.taken


cdef class Block:
    """See arena.pyi."""

    cdef Blob* blob

    def __cinit__(self):
        self.blob = NULL

    def __dealloc__(self):
        self.release()

    @staticmethod
    def reserve(size_t size):
        cdef Block block
        cdef Blob* blob = arena_blob(size)
        if blob == NULL:
            return None
        block = Block()
        block.blob = blob
        return block

    cdef Blob* held(self) except NULL:
        if self.blob == NULL:
            raise ValueError("the block was released")
        return self.blob

    @property
    def offset(self):
        return arena_offset(self.held())

    @property
    def capacity(self):
        return self.held().capacity

    @property
    def size(self):
        return self.held().size

    @property
    def fixed(self):
        return self.held().flags & FIXED != 0

    @fixed.setter
    def fixed(self, bint value):
        self.held().flags = self.held().flags & ~<uint32_t>FIXED | (FIXED if value else 0)

    def write(self, data):
        cdef Py_buffer view
        cdef Blob* blob = self.held()
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            if <size_t>view.len > blob.capacity:
                raise ValueError(f"{view.len} bytes do not fit into {blob.capacity}")
            memcpy(blob.data, view.buf, view.len)
            blob.size = view.len
        finally:
            PyBuffer_Release(&view)

    def trim(self):
        arena_trim(self.held(), self.held().size)

    def checksum(self):
        return checksum_of(self.held().data, self.blob.size)

    def release(self):
        if self.blob != NULL:
            blob_release(self.blob)
            self.blob = NULL

    def __getbuffer__(self, Py_buffer* view, int flags):
        cdef Blob* blob = self.held()
        PyBuffer_FillInfo(view, self, blob.data, blob.size, 0, flags)
        view.internal = blob_retain(blob)

    def __releasebuffer__(self, Py_buffer* view):
        blob_release(<Blob*>view.internal)
