# The append-only file's tail, written and synced by a thread of its own. See aoflog.pyx.
from libc.stdint cimport int64_t, uint8_t, uint64_t
from zeekdb.hot.threads cimport pthread_cond_t, pthread_mutex_t, pthread_t

cdef enum:
    SYNC_NO = 0
    SYNC_EVERY_SECOND = 1
    SYNC_ALWAYS = 2

# A line `#TS:<Unix seconds>` that stands in the file before the journal's byte at `position`. It is no byte of the
# journal: no position counts it, only the file's size does.
ctypedef struct Annotation:
    uint64_t position
    int64_t second_s

# Shared by the loop and the thread; positions are those of the journal.
ctypedef struct Tail:
    pthread_mutex_t lock
    pthread_cond_t wanted        # the thread waits for it
    pthread_cond_t settled       # whoever waits for the thread does
    uint8_t* pending             # [taken, appended)
    size_t pending_size
    size_t pending_capacity
    uint64_t appended
    uint64_t written
    uint64_t synced
    int fd
    int next_fd                  # to go on with from `switch_at`; -1: none
    uint64_t switch_at
    int mode
    bint pause_sync              # while a rewrite keeps the disk busy, if the directive says so
    int error                    # errno of what fails, 0 while all is well
    bint sync_failed             # what the files hold is not known
    bint stop
    bint busy                    # the thread is at work outside the lock, or holds bytes not written yet
    int64_t sync_us              # how long a sync takes, averaged
    int64_t unsynced_since_us    # when the oldest byte not synced was appended; 0: none
    int64_t size                 # bytes of the current file
    bint timestamps              # aof-timestamp-enabled
    int64_t noted_s              # the last second that the current file names, or will; 0: none
    Annotation* annotations      # those from `first_annotation` on are not, or not wholly, in the file
    size_t first_annotation
    size_t annotation_count
    size_t annotation_capacity
    size_t annotation_done       # bytes of the first of them that are
    uint64_t delayed             # appends that found the last sync still under way
    int bell                     # eventfd: rung when `synced` or `error` changed

cdef class AofLog:
    cdef Tail t
    cdef pthread_t thread
    cdef bint running

    # Whole commands and transactions.
    cdef bint commit(self, const uint8_t* data, size_t n) noexcept nogil
    cdef void append(self, const uint8_t* data, size_t n) noexcept nogil
    cdef void enqueue(self, const uint8_t* data, size_t n, bint annotated) noexcept nogil
