"""The tail of the append-only file: what the journal says is written and synced by a thread that needs no GIL.

The loop appends to a buffer and goes on; the thread takes whatever has gathered, writes it and syncs it, so that one
fdatasync serves everything that came meanwhile (group commit). Nothing is ever thrown away: when the disk refuses, the
thread tries again, from the byte where it stopped, and the server stops taking writes until it is through. After a
failed sync nobody knows what the file holds, so only a new file, after a rewrite, makes the log sound again.

With timestamps, a line that says the second goes before what is appended first in it. The clock is read when the loop
hands over, after a command has run and before its reply leaves: so whoever asks for the state of a second gets all that
was acknowledged in it, and nothing that was sent later. What is handed over is whole commands and transactions, so no
line stands inside one.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, realloc  # the hot room's allocator belongs to the loop's thread; buffers cross over
from libc.string cimport memcpy, memset
from zeekdb.hot.clock cimport wall_us
from zeekdb.hot.threads cimport (
    pthread_cond_broadcast, pthread_cond_init, pthread_cond_signal, pthread_cond_wait, pthread_create, pthread_join,
    pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
)

cdef extern from *:
    """
    #include <errno.h>
    #include <pthread.h>
    #include <stdio.h>
    #include <sys/eventfd.h>
    #include <time.h>
    #include <unistd.h>
    /* Waits until signalled or until that moment. */
    static inline int aof_wait_until(pthread_cond_t* condition, pthread_mutex_t* lock, long long us) {
        struct timespec t = { us / 1000000, us % 1000000 * 1000 };
        return pthread_cond_timedwait(condition, lock, &t); }
    static inline int aof_annotation_text(char* at, long long second_s) { return sprintf(at, "#TS:%lld\\r\\n", second_s); }
    static inline void aof_ring(int bell) { eventfd_write(bell, 1); }
    static inline int aof_bell(void) { return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC); }
    static inline void aof_answer(int bell) { eventfd_t n; eventfd_read(bell, &n); }
    """
    int aof_wait_until(pthread_cond_t* condition, pthread_mutex_t* lock, int64_t us) nogil
    void aof_ring(int bell) nogil
    int aof_bell() nogil
    void aof_answer(int bell) nogil
    int annotation_text "aof_annotation_text"(char* at, int64_t second_s) nogil
    ssize_t c_write "write"(int fd, const void* data, size_t n) nogil
    int fdatasync(int fd) nogil
    int c_close "close"(int fd) nogil

cdef enum:
    SECOND_US = 1000000
    QUICK_US = 300               # a sync that takes less is not worth a thread's turn
    RETRY_US = 200000            # between two tries while the disk refuses
    KEPT = 1 << 22               # bytes of the two buffers that stay

MODES = {"no": SYNC_NO, "everysec": SYNC_EVERY_SECOND, "always": SYNC_ALWAYS}


cdef bint write_all(Tail* t, int fd, const uint8_t* data, size_t n, size_t* done) noexcept nogil:
    """False when the disk refuses; what was written counts."""
    cdef ssize_t got
    while done[0] < n:
        got = c_write(fd, data + done[0], n - done[0])
        if got < 0:
            if errno == EINTR or errno == EAGAIN:
                continue
            return False
        done[0] += got
    return True


cdef void fail(Tail* t, int error) noexcept nogil:
    """Under the lock."""
    if t.error != error:
        t.error = error
        aof_ring(t.bell)


cdef inline void note_time(Tail* t, int64_t us) noexcept nogil:
    t.sync_us += (us - t.sync_us) // 8


cdef bint sync_now(Tail* t) noexcept nogil:
    """Under the lock, which it lets go of meanwhile. False when the disk refuses."""
    cdef int fd = t.fd, result
    cdef uint64_t written = t.written
    cdef int64_t begin = wall_us()
    t.busy = True
    pthread_mutex_unlock(&t.lock)
    result = fdatasync(fd)
    if result < 0:
        result = errno
    pthread_mutex_lock(&t.lock)
    t.busy = False
    note_time(t, wall_us() - begin)
    if result:
        t.sync_failed = True
        fail(t, result)
        return False
    t.synced = written
    t.unsynced_since_us = begin if t.appended > written else 0
    t.error = 0
    aof_ring(t.bell)
    pthread_cond_broadcast(&t.settled)
    return True


cdef bint switch_file(Tail* t) noexcept nogil:
    """Under the lock: the current file is complete; the next one becomes it. False when the disk refuses."""
    if not t.sync_failed and not sync_now(t):
        return False
    c_close(t.fd)
    t.fd, t.next_fd = t.next_fd, -1
    t.size = 0
    pthread_cond_broadcast(&t.settled)
    return True


cdef inline bint annotation_is_due(const Tail* t) noexcept nogil:
    """Whether what is appended now is the first of its second. A clock that was set back does not make it one."""
    return t.timestamps and wall_us() // SECOND_US > t.noted_s


cdef void note_second(Tail* t) noexcept nogil:
    """Under the lock: an annotation before what is appended next."""
    cdef size_t i
    if t.annotation_count == t.annotation_capacity and t.first_annotation:
        for i in range(t.first_annotation, t.annotation_count):
            t.annotations[i - t.first_annotation] = t.annotations[i]
        t.annotation_count -= t.first_annotation
        t.first_annotation = 0
    if t.annotation_count == t.annotation_capacity:
        t.annotation_capacity = max(t.annotation_capacity * 2, <size_t>4)
        t.annotations = <Annotation*>realloc(t.annotations, t.annotation_capacity * sizeof(Annotation))
    t.noted_s = wall_us() // SECOND_US
    t.annotations[t.annotation_count].position = t.appended
    t.annotations[t.annotation_count].second_s = t.noted_s
    t.annotation_count += 1


cdef inline bint annotation_is_next(const Tail* t) noexcept nogil:
    """Under the lock: whether one belongs behind what was written so far."""
    return t.first_annotation < t.annotation_count and t.annotations[t.first_annotation].position == t.written


cdef bint write_annotation(Tail* t) noexcept nogil:
    """Under the lock, which it lets go of meanwhile. False when the disk refuses; it goes on where it stopped then."""
    cdef char text[32]
    cdef size_t n = annotation_text(text, t.annotations[t.first_annotation].second_s)
    cdef size_t begin = t.annotation_done, done = t.annotation_done
    cdef bint good
    t.busy = True
    pthread_mutex_unlock(&t.lock)
    good = write_all(t, t.fd, <const uint8_t*>text, n, &done)
    pthread_mutex_lock(&t.lock)
    t.size += done - begin
    if good:
        t.first_annotation += 1
        done = 0
    t.annotation_done = done
    return good


cdef inline bint sync_is_due(Tail* t, int64_t now_us) noexcept nogil:
    if t.written == t.synced or t.sync_failed or t.mode == SYNC_NO or (t.pause_sync and t.mode != SYNC_ALWAYS):
        return False
    return t.mode == SYNC_ALWAYS or now_us - t.unsynced_since_us >= SECOND_US


cdef void* run(void* argument) noexcept nogil:
    cdef Tail* t = <Tail*>argument
    cdef uint8_t* work = NULL
    cdef size_t size = 0, capacity = 0, done = 0, most
    cdef uint64_t until
    cdef int64_t now_us
    cdef bint good
    pthread_mutex_lock(&t.lock)
    while True:
        if done == size and t.pending_size:
            work, t.pending = t.pending, work
            capacity, t.pending_capacity = t.pending_capacity, capacity
            size, t.pending_size, done = t.pending_size, 0, 0
        if t.next_fd >= 0 and t.written == t.switch_at:
            if not switch_file(t):
                aof_wait_until(&t.wanted, &t.lock, wall_us() + RETRY_US)
            continue
        if done < size and annotation_is_next(t) and not write_annotation(t):
            fail(t, errno)
            if t.stop:
                break
            aof_wait_until(&t.wanted, &t.lock, wall_us() + RETRY_US)
            continue
        if done < size:
            most = size
            if t.next_fd >= 0 and t.switch_at - t.written < size - done:
                most = done + <size_t>(t.switch_at - t.written)
            if t.first_annotation < t.annotation_count:
                until = t.annotations[t.first_annotation].position - t.written
                if until < most - done:
                    most = done + <size_t>until
            now_us = done
            t.busy = True
            pthread_mutex_unlock(&t.lock)
            good = write_all(t, t.fd, work, most, &done)
            pthread_mutex_lock(&t.lock)
            t.written += done - <size_t>now_us
            t.size += done - <size_t>now_us
            t.busy = done < size
            if not good:
                fail(t, errno)
                if t.stop:
                    break
                aof_wait_until(&t.wanted, &t.lock, wall_us() + RETRY_US)
                continue
            if t.error and not t.sync_failed:
                t.error = 0
                aof_ring(t.bell)
            pthread_cond_broadcast(&t.settled)
            if done == size and capacity > KEPT:
                free(work)
                work, capacity, size, done = NULL, 0, 0, 0
        now_us = wall_us()
        if sync_is_due(t, now_us) or (t.stop and t.written != t.synced and not t.sync_failed):
            if not sync_now(t):
                if t.stop:
                    break
                aof_wait_until(&t.wanted, &t.lock, wall_us() + RETRY_US)
            continue
        if t.pending_size or done < size or (t.next_fd >= 0 and t.written == t.switch_at):
            continue
        if t.stop:
            break
        if t.written != t.synced and t.mode == SYNC_EVERY_SECOND and not (t.pause_sync or t.sync_failed):
            aof_wait_until(&t.wanted, &t.lock, t.unsynced_since_us + SECOND_US)
        else:
            pthread_cond_wait(&t.wanted, &t.lock)
    pthread_mutex_unlock(&t.lock)
    free(work)
    return NULL


cdef class AofLog:
    """See aoflog.pyi."""

    def __cinit__(self, int fd, str mode not None, int64_t size, uint64_t position):
        memset(&self.t, 0, sizeof(Tail))
        pthread_mutex_init(&self.t.lock, NULL)
        pthread_cond_init(&self.t.wanted, NULL)
        pthread_cond_init(&self.t.settled, NULL)
        self.t.fd = fd
        self.t.next_fd = -1
        self.t.mode = MODES[mode]
        self.t.size = size
        self.t.appended = self.t.written = self.t.synced = position
        self.t.bell = aof_bell()
        if self.t.bell < 0 or pthread_create(&self.thread, NULL, run, &self.t):
            raise OSError("the thread of the append-only file cannot be started")
        self.running = True

    def __dealloc__(self):
        self.close()
        if self.t.bell >= 0:
            c_close(self.t.bell)
        free(self.t.pending)
        free(self.t.annotations)

    cdef bint commit(self, const uint8_t* data, size_t n) noexcept nogil:
        """Writes and syncs at once, where the disk is so quick that handing over would take longer.

        False when it is not, the thread is at work, or an annotation is due; nothing was written then.
        """
        cdef Tail* t = &self.t
        cdef size_t done = 0
        cdef int64_t begin
        if t.mode != SYNC_ALWAYS or t.sync_us > QUICK_US or annotation_is_due(t):
            return False
        pthread_mutex_lock(&t.lock)
        if t.busy or t.pending_size or t.next_fd >= 0 or t.error or t.sync_failed or t.written != t.synced:
            pthread_mutex_unlock(&t.lock)
            return False
        begin = wall_us()
        write_all(t, t.fd, data, n, &done)
        t.appended += done
        t.written += done
        t.size += done
        if done == n and fdatasync(t.fd) == 0:
            t.synced = t.written
            note_time(t, wall_us() - begin)
        elif done == n:
            t.sync_failed = True
            fail(t, errno)
        pthread_mutex_unlock(&t.lock)
        if done < n:  # the thread goes on, and finds out what is wrong
            self.enqueue(data + done, n - done, False)
        return True

    cdef void append(self, const uint8_t* data, size_t n) noexcept nogil:
        self.enqueue(data, n, annotation_is_due(&self.t))

    cdef void enqueue(self, const uint8_t* data, size_t n, bint annotated) noexcept nogil:
        cdef Tail* t = &self.t
        cdef size_t capacity
        pthread_mutex_lock(&t.lock)
        if t.pending_size + n > t.pending_capacity:
            capacity = max(t.pending_size + n, t.pending_capacity * 2, <size_t>65536)
            t.pending = <uint8_t*>realloc(t.pending, capacity)
            t.pending_capacity = capacity
        if annotated:
            note_second(t)
        memcpy(t.pending + t.pending_size, data, n)
        t.pending_size += n
        t.appended += n
        if t.unsynced_since_us == 0:
            t.unsynced_since_us = wall_us()
        pthread_cond_signal(&t.wanted)
        pthread_mutex_unlock(&t.lock)

    def close(self):
        """Writes and syncs what there is, as far as the disk lets it, and ends the thread."""
        if not self.running:
            return
        self.running = False
        pthread_mutex_lock(&self.t.lock)
        self.t.stop = True
        pthread_cond_signal(&self.t.wanted)
        pthread_mutex_unlock(&self.t.lock)
        with nogil:
            pthread_join(self.thread, NULL)
        c_close(self.t.fd)
        if self.t.next_fd >= 0:
            c_close(self.t.next_fd)

    def switch(self, int fd):
        cdef bint free_
        pthread_mutex_lock(&self.t.lock)
        free_ = self.t.next_fd < 0
        if free_:
            self.t.next_fd = fd
            self.t.switch_at = self.t.appended
            self.t.noted_s = 0  # every file says its times itself
        pthread_cond_signal(&self.t.wanted)
        pthread_mutex_unlock(&self.t.lock)
        if not free_:
            raise RuntimeError("the file before has not been taken up yet")

    def forgive(self):
        pthread_mutex_lock(&self.t.lock)
        self.t.sync_failed = False
        pthread_cond_signal(&self.t.wanted)
        pthread_mutex_unlock(&self.t.lock)

    def wait_switched(self, double timeout_s):
        cdef int64_t end = wall_us() + <int64_t>(timeout_s * SECOND_US)
        with nogil:
            pthread_mutex_lock(&self.t.lock)
            while self.t.next_fd >= 0 and wall_us() < end:
                aof_wait_until(&self.t.settled, &self.t.lock, end)
            pthread_mutex_unlock(&self.t.lock)
        return self.t.next_fd < 0

    def wait_synced(self, double timeout_s):
        cdef int64_t end = wall_us() + <int64_t>(timeout_s * SECOND_US)
        cdef uint64_t position = self.t.appended
        cdef int mode = self.t.mode
        with nogil:
            pthread_mutex_lock(&self.t.lock)
            self.t.mode = SYNC_ALWAYS
            pthread_cond_signal(&self.t.wanted)
            while self.t.synced < position and not self.t.error and wall_us() < end:
                aof_wait_until(&self.t.settled, &self.t.lock, end)
            self.t.mode = mode
            pthread_mutex_unlock(&self.t.lock)
        return self.t.synced >= position

    def fileno(self):
        return self.t.bell

    def answer(self):
        aof_answer(self.t.bell)

    @property
    def mode(self):
        return next(name for name, mode in MODES.items() if mode == self.t.mode)

    @mode.setter
    def mode(self, str value not None):
        pthread_mutex_lock(&self.t.lock)
        self.t.mode = MODES[value]
        pthread_cond_signal(&self.t.wanted)
        pthread_mutex_unlock(&self.t.lock)

    @property
    def pause_sync(self):
        return self.t.pause_sync

    @pause_sync.setter
    def pause_sync(self, bint value):
        pthread_mutex_lock(&self.t.lock)
        self.t.pause_sync = value
        pthread_cond_signal(&self.t.wanted)
        pthread_mutex_unlock(&self.t.lock)

    @property
    def timestamps(self):
        return self.t.timestamps

    @timestamps.setter
    def timestamps(self, bint value):
        self.t.timestamps = value  # of the loop only

    @property
    def error(self):
        return self.t.error

    @property
    def sync_failed(self):
        return self.t.sync_failed

    @property
    def appended(self):
        return self.t.appended

    @property
    def written(self):
        return self.t.written

    @property
    def synced(self):
        return self.t.synced

    @property
    def size(self):
        return self.t.size

    @property
    def pending(self):
        return self.t.appended - self.t.written

    @property
    def unsynced_s(self):
        cdef int64_t since = self.t.unsynced_since_us
        return (wall_us() - since) / 1e6 if since and self.t.appended != self.t.synced else 0.0
