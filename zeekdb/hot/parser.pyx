"""The RESP parser: bytes in, commands out, no I/O.

`parse` takes one command from the bytes at hand and leaves its arguments as places in those bytes. Where a command is
incomplete, its place is kept in the connection's Intake, so that a command which comes in a thousand pieces is read
once. An argument of SLAB_MIN bytes and up that is not there yet gets a blob, into which the caller receives the rest
(blob_want bytes, CRLF included, which has no place in the blob) and which SET then adopts: large values are never
copied again.

Every length is a stranger's word: it is checked against a limit before it is used, and a half command holds memory
only for what has arrived.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memchr, memcpy
from zeekdb.hot.arena cimport arena_sum
from zeekdb.hot.checksum cimport Checksum, checksum_final, checksum_init, checksum_update
from zeekdb.hot.memory cimport ARENA, SLAB_MIN, Blob, blob_new, blob_release, mem_alloc, mem_free, mem_resize
from zeekdb.hot.wire cimport Arg, parse_int

cdef enum:
    INLINE_LIMIT = 65536          # bytes of an inline command or of a length line, as in Redis
    ARGS_LIMIT = 2147483647
    ARGS_LIMIT_UNKNOWN = 10       # before AUTH
    BULK_LIMIT_UNKNOWN = 16384

cdef enum:
    LINE_BAD = -1
    LINE_MORE = 0
    LINE_OK = 1


cdef inline int read_length(uint8_t** at, uint8_t* end, int64_t* value) noexcept nogil:
    """The number of a `*` or `$` line; `at` stands behind the type byte and is moved behind CRLF."""
    cdef uint8_t* p = at[0]
    cdef uint8_t* cr
    cdef int64_t v = 0
    cdef uint8_t d
    while p < end and p - at[0] < 10:
        d = p[0] - 48
        if d > 9:
            break
        v = v * 10 + d
        p += 1
    if p + 1 < end and p[0] == 13 and p > at[0] and (at[0][0] != 48 or p - at[0] == 1):
        value[0] = v
        at[0] = p + 2
        return LINE_OK
    cr = <uint8_t*>memchr(at[0], 13, end - at[0])
    if cr == NULL or cr + 1 >= end:
        return LINE_MORE
    if not parse_int(at[0], cr - at[0], value):
        return LINE_BAD
    at[0] = cr + 2
    return LINE_OK


cdef inline Arg* next_arg(Parser* b) noexcept nogil:
    cdef Arg* arg
    if b.args_used == b.args_capacity:
        b.args = <Arg*>realloc(b.args, b.args_capacity * 2 * sizeof(Arg))
        b.args_capacity *= 2
    arg = &b.args[b.args_used]
    b.args_used += 1
    return arg


cdef int refuse(Parser* b, const char* why, uint8_t byte) noexcept nogil:
    b.fault = why
    b.fault_byte = byte
    return FAULT


cdef int parse(Parser* b, Intake* c, uint8_t* data, size_t size, size_t* used, Request* r) noexcept nogil:
    """The next command of data[used:size]. MORE keeps the state of a half command in the connection."""
    cdef uint8_t* start = data + used[0]
    cdef uint8_t* end = data + size
    cdef uint8_t* p = start
    cdef int64_t left, n = -1
    cdef uint8_t* start_line
    cdef int line
    cdef Arg* arg
    r.start = used[0]
    r.first = b.args_used
    r.argc = 0
    if c.args_left >= 0:
        left = c.args_left
        n = c.bulk
        if c.blob != NULL:  # complete: receive_blob has seen to it
            left -= 1
            n = -1
        p = recall_half(b, c, start)
    else:
        if p >= end:
            return MORE
        if p[0] != 42:
            return parse_inline(b, c, start, end, used, r)
        p += 1
        line = read_length(&p, end, &left)
        if line == LINE_MORE:
            return refuse(b, b"too big mbulk count string", 0) if end - start > INLINE_LIMIT else MORE
        if line == LINE_BAD or left > ARGS_LIMIT:
            return refuse(b, b"invalid multibulk length", 0)
        if left > ARGS_LIMIT_UNKNOWN and c.limited:
            return refuse(b, b"unauthenticated multibulk length", 0)
        if left <= 0:
            used[0] = p - data
            return COMMAND
    while left > 0:
        if n < 0:
            if p >= end:
                return keep_half(b, c, r, start, p, left, -1)
            if p[0] != 36:
                return refuse(b, b"expected '$', got '%c'", p[0])
            start_line = p
            p += 1
            line = read_length(&p, end, &n)
            if line == LINE_MORE:
                if end - p > INLINE_LIMIT:
                    return refuse(b, b"too big bulk count string", 0)
                return keep_half(b, c, r, start, start_line, left, -1)
            if line == LINE_BAD or n < 0 or n > b.bulk_limit:
                return refuse(b, b"invalid bulk length", 0)
            if n > BULK_LIMIT_UNKNOWN and c.limited:
                return refuse(b, b"unauthenticated bulk length", 0)
        if end - p < n + 2:
            if n >= SLAB_MIN:
                begin_blob(b, c, &b.args[r.first], b.args_used - r.first, p, end, n)
            return keep_half(b, c, r, start, p, left, n)
        arg = next_arg(b)
        arg.p = p
        arg.n = n
        arg.blob = NULL
        p += n + 2
        n = -1
        left -= 1
    r.argc = b.args_used - r.first
    used[0] = p - data
    forget_half(c)
    return COMMAND


cdef void begin_blob(
    Parser* b, Intake* c, const Arg* argv, uint32_t argc, uint8_t* p, uint8_t* end, int64_t n,
) noexcept nogil:
    """What is there of a large argument moves to a blob; the rest will be received into it."""
    c.blob = b.place(argv, argc, n) if b.place != NULL else NULL
    if c.blob == NULL:
        c.blob = blob_new(n)
    c.blob_want = n + 2
    memcpy(c.blob.data, p, min(end - p, n))  # and perhaps CR, which has no place in it
    c.blob.size = end - p
    c.expect_big = True
    if c.blob.flags & ARENA:
        c.sum = <Checksum*>mem_alloc(sizeof(Checksum))
        checksum_init(c.sum)
        count_received(c, 0)


cdef void count_received(Intake* c, size_t before) noexcept nogil:
    """The checksum of what has just come, which the processor's cache still has."""
    cdef size_t length = c.blob_want - 2, now = min(c.blob.size, length)
    if c.sum == NULL or before >= now:
        return
    checksum_update(c.sum, c.blob.data + before, now - before)
    if now == length:
        arena_sum(c.blob, checksum_final(c.sum))
        mem_free(c.sum, sizeof(Checksum))
        c.sum = NULL


cdef void drop_blob(Intake* c) noexcept nogil:
    if c.blob != NULL:
        blob_release(c.blob)
        c.blob = NULL
    if c.sum != NULL:
        mem_free(c.sum, sizeof(Checksum))
        c.sum = NULL


cdef int keep_half(Parser* b, Intake* c, Request* r, uint8_t* start, uint8_t* p, int64_t left, int64_t bulk) noexcept nogil:
    """Keeps the parser's place, so that a command that comes in a thousand pieces is read once."""
    cdef uint32_t i, argc = b.args_used - r.first
    cdef uint32_t capacity
    if argc > c.args_capacity:
        capacity = argc + argc // 2 + 4
        c.args = <Arg*>mem_resize(c.args, c.args_capacity * sizeof(Arg), capacity * sizeof(Arg))
        c.args_capacity = capacity
    for i in range(argc):
        c.args[i] = b.args[r.first + i]
        if c.args[i].blob == NULL:
            c.args[i].p = <uint8_t*><size_t>(c.args[i].p - start)
    c.argc = argc
    c.args_left = left
    c.bulk = bulk
    c.parsed = p - start
    c.half_end = c.parsed if c.blob != NULL else 0
    b.args_used = r.first
    return MORE


cdef uint8_t* recall_half(Parser* b, Intake* c, uint8_t* start) noexcept nogil:
    """Puts the arguments of a half command back; a blob just completed becomes the next."""
    cdef uint32_t i
    cdef Arg* arg
    for i in range(c.argc):
        arg = next_arg(b)
        arg[0] = c.args[i]
        if arg.blob == NULL:
            arg.p = start + <size_t>arg.p
        else:
            b.blobs_held = True
    c.half_end = 0
    if c.blob != NULL:
        arg = next_arg(b)
        c.blob.size -= 2
        arg.p = c.blob.data
        arg.n = c.blob.size
        arg.blob = c.blob
        c.blob_bytes += c.blob.size
        c.blob = NULL
        b.blobs_held = True
    return start + c.parsed


cdef void forget_half(Intake* c) noexcept nogil:
    if c.args_left >= 0:
        c.args_left = -1
        c.argc = 0
        c.half_end = 0
        c.blob_bytes = 0
        if c.args_capacity:
            mem_free(c.args, c.args_capacity * sizeof(Arg))
            c.args = NULL
            c.args_capacity = 0


cdef void drop_half(Parser* b, Intake* c) noexcept nogil:
    """A command that turned out wrong: its large arguments go."""
    cdef uint32_t i
    for i in range(b.args_used):
        if b.args[i].blob != NULL:
            blob_release(b.args[i].blob)
    b.args_used = 0
    b.blobs_held = False
    forget_half(c)


cdef void release_blobs(Parser* b, Request* first) noexcept nogil:
    """Drops the arguments' blobs that no twin has adopted. Only the first command of a batch can have some."""
    cdef uint32_t i
    for i in range(first.argc):
        if b.args[i].blob != NULL:
            blob_release(b.args[i].blob)
            b.args[i].blob = NULL
    b.blobs_held = False


cdef int parse_inline(Parser* b, Intake* c, uint8_t* start, uint8_t* end, size_t* used, Request* r) noexcept nogil:
    """A line of words, as typed into telnet; quotes and escapes as in Redis."""
    cdef uint8_t* lf = <uint8_t*>memchr(start, 10, end - start)
    cdef uint8_t* p = start
    cdef uint8_t* stop
    cdef Arg* arg
    if lf == NULL:
        return refuse(b, b"too big inline request", 0) if end - start > INLINE_LIMIT else MORE
    stop = lf - 1 if lf > start and lf[-1] == 13 else lf
    while True:
        while p < stop and is_space(p[0]):
            p += 1
        if p >= stop:
            break
        arg = next_arg(b)
        arg.blob = NULL
        p = inline_word(p, stop, arg)
        if p == NULL:
            return refuse(b, b"unbalanced quotes in request", 0)
    r.argc = b.args_used - r.first
    used[0] += lf + 1 - start
    return COMMAND


cdef inline bint is_space(uint8_t b) noexcept nogil:
    return b == 32 or 9 <= b <= 13 or b == 0


cdef inline int hex_digit(uint8_t b) noexcept nogil:
    if 48 <= b <= 57:
        return b - 48
    b |= 32
    if 97 <= b <= 102:
        return b - 87
    return -1


cdef uint8_t* inline_word(uint8_t* p, uint8_t* end, Arg* arg) noexcept nogil:
    """One word, unquoted in place; where it ends, or NULL for unbalanced quotes."""
    cdef uint8_t* to = p
    cdef uint8_t quote = 0
    cdef uint8_t b
    arg.p = p
    while p < end:
        b = p[0]
        if quote:
            if b == quote:
                if p + 1 < end and not is_space(p[1]):
                    return NULL  # a closing quote must end the word
                quote = 0
                p += 1
                break
            if b == 92 and quote == 34 and p + 3 < end and p[1] == 120 and hex_digit(p[2]) >= 0 and hex_digit(p[3]) >= 0:
                to[0] = <uint8_t>(hex_digit(p[2]) * 16 + hex_digit(p[3]))
                p += 4
            elif b == 92 and quote == 34 and p + 1 < end:
                b = p[1]
                to[0] = 10 if b == 110 else 13 if b == 114 else 9 if b == 116 else 8 if b == 98 else 7 if b == 97 else b
                p += 2
            elif b == 92 and quote == 39 and p + 1 < end and p[1] == 39:
                to[0] = 39
                p += 2
            else:
                to[0] = b
                p += 1
            to += 1
            continue
        if is_space(b):
            break
        if b == 34 or b == 39:
            quote = b
            p += 1
            continue
        to[0] = b
        to += 1
        p += 1
    if quote:
        return NULL
    arg.n = to - arg.p
    return p
