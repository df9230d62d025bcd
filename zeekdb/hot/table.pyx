"""The hash table of the keyspace's shards and of large collections.

Layout. Buckets of 64 bytes hold 8 slots; a slot is a 14-bit tag, a bit that marks guests, and a 48-bit pointer, so that
a lookup touches one cache line and then, in most cases, only the entry it wants. An entry's spot is its hash times an
odd number of the table's own, its bucket `spot * buckets >> 64`: the table is ordered by spot and may have any number
of buckets, not only powers of two. With the hash itself for a spot, what comes out of one table in order would fill
another from its beginning, through ever longer rows of full buckets, while most of it stays empty: COPY, or SADD of
what SMEMBERS gave, took time in the square of the members.

Overflow. An entry whose home bucket is full is a guest of the next one with room; every full bucket that it passes is
flagged (bit 63 of its first slot), and a search goes on exactly as long as it sees the flag. Whoever takes an entry out
of a flagged bucket fetches a guest back into the hole, or clears the flag when none had passed: flags that only ever
came would, in a cache whose keys come and go, soon cover the table. At the load limit of 4/5 a miss reads 1.9 lines
(1.5 at 3/4, but 3.9 at 7/8, measured), over the range that growth leaves 1.4.

Growth is by one half. A resize moves buckets in order of spots; with `boundary` the first spot not moved yet, a spot
below it lives in `next` and any other in `now`, so a lookup never has to try both. Shards begin at different sizes
(`salt`), so that they do not all resize at the same time, and so that memory per key does not swing with the count.
What a resize has moved goes back to the system on the way: to unmap tens of megabytes at once takes milliseconds.

Scanning goes by spots, not by bucket number: whatever is in the table all the while is met exactly where its spot is,
however often the table is resized between two calls.

Rejected: doubling (half of the slots empty after it), chains (8 bytes and a cache miss more an entry), linear hashing
(buckets not yet split are twice as full as the others).
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset
from zeekdb.hot.memory cimport mem_alloc, mem_free, mem_keyed, mem_lines, mem_map, mem_unmap

import os

cdef extern from *:
    """
    #include <sys/mman.h>
    #include <stdint.h>
    #if defined(__SSE2__)
    #include <emmintrin.h>
    /* Bit i: slot i carries the tag. The tags are bits 16-29 of the slots' high halves. */
    static inline uint32_t match_tags(const uint64_t *bucket, uint32_t tag) {
        const __m128 *b = (const __m128 *)bucket;
        __m128i low = _mm_castps_si128(_mm_shuffle_ps(_mm_loadu_ps((const float *)b), _mm_loadu_ps((const float *)(b + 1)), 0xDD));
        __m128i high = _mm_castps_si128(_mm_shuffle_ps(_mm_loadu_ps((const float *)(b + 2)), _mm_loadu_ps((const float *)(b + 3)), 0xDD));
        __m128i want = _mm_set1_epi32((int)(tag << 18));
        low = _mm_cmpeq_epi32(_mm_slli_epi32(_mm_srli_epi32(low, 16), 18), want);
        high = _mm_cmpeq_epi32(_mm_slli_epi32(_mm_srli_epi32(high, 16), 18), want);
        return (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(_mm_packs_epi32(low, high), _mm_setzero_si128())) & 0xFF;
    }
    #else
    static inline uint32_t match_tags(const uint64_t *bucket, uint32_t tag) {
        uint32_t mask = 0;
        for (int i = 0; i < 8; i++) mask |= (uint32_t)(((bucket[i] >> 48) & 0x3FFF) == tag) << i;
        return mask;
    }
    #endif
    static inline int lowest_bit(uint32_t mask) { return __builtin_ctz(mask); }
    static inline unsigned long long mul_high(unsigned long long a, unsigned long long b) {
        return (unsigned long long)(((unsigned __int128)a * b) >> 64); }
    static inline unsigned long long mul_fold(unsigned long long a, unsigned long long b) {
        unsigned __int128 m = (unsigned __int128)a * b; return (unsigned long long)m ^ (unsigned long long)(m >> 64); }
    static inline unsigned long long first_hash_of(unsigned long long bucket, unsigned long long buckets) {
        /* the smallest spot h with (h * buckets) >> 64 == bucket */
        unsigned __int128 n = ((unsigned __int128)bucket << 64) + buckets - 1;
        return (unsigned long long)(n / buckets); }
    """
    uint32_t match_tags(const uint64_t* bucket, uint32_t tag) nogil
    int lowest_bit(uint32_t mask) nogil
    uint64_t mul_high(uint64_t a, uint64_t b) nogil
    uint64_t mul_fold(uint64_t a, uint64_t b) nogil
    uint64_t first_hash_of(uint64_t bucket, uint64_t buckets) nogil
    void __builtin_prefetch(const void* p) nogil
    int madvise(void* addr, size_t length, int advice) nogil
    int MADV_DONTNEED

cdef enum:
    SLOTS = 8
    AT_ONCE = 64             # tables up to this many buckets are resized in one go
    STEP = 4                 # buckets moved by an insert or removal while a resize is under way
    MAPPED_MIN = 1024        # buckets: from here on slot arrays are mappings, zero pages until touched
    RELEASE = 4096           # moved buckets whose memory is given back at a time

cdef uint64_t POINTER = 0xFFFFFFFFFFFFULL
cdef uint64_t FLAG = 0x8000000000000000ULL   # in a bucket's first slot: a guest passed
cdef uint64_t GUEST = 0x4000000000000000ULL  # the entry's home is another bucket
cdef uint64_t SEED[4]
SEED[0], SEED[1], SEED[2], SEED[3] = (int.from_bytes(os.urandom(8), "little") | 1 for _ in range(4))


def seed_hash(a: int, b: int, c: int, d: int) -> None:
    """Fix the hash's seed: for tests that must repeat. Only while every table is empty."""
    SEED[0], SEED[1], SEED[2], SEED[3] = a | 1, b | 1, c | 1, d | 1


cdef inline uint64_t read8(const uint8_t* p) noexcept nogil:
    cdef uint64_t v
    memcpy(&v, p, 8)
    return v


cdef inline uint64_t read4(const uint8_t* p) noexcept nogil:
    cdef uint32_t v
    memcpy(&v, p, 4)
    return v


cdef uint64_t hash_bytes(const uint8_t* p, size_t n) noexcept nogil:
    """A seeded multiply-and-fold hash: 16 bytes a step, the rest read overlapping."""
    cdef uint64_t a = 0, b = 0, h = SEED[0] ^ n
    cdef size_t left = n
    if n > 16:
        while left > 16:
            h = mul_fold(read8(p) ^ SEED[1], read8(p + 8) ^ h)
            p += 16
            left -= 16
        a = read8(p + left - 16)
        b = read8(p + left - 8)
    elif n >= 8:
        a = read8(p)
        b = read8(p + n - 8)
    elif n >= 4:
        a = read4(p)
        b = read4(p + n - 4)
    elif n:
        a = (<uint64_t>p[0] << 16) | (<uint64_t>p[n >> 1] << 8) | p[n - 1]
    h = mul_fold(a ^ SEED[1], b ^ h)
    return mul_fold(h ^ SEED[2], SEED[3] ^ n)


# ---------------------------------------------------------------- entries


cdef inline Entry* build(
    uint8_t type, const uint8_t* key, size_t klen, const uint8_t* value, size_t vlen, uint8_t flags,
    void* (*alloc)(size_t) noexcept nogil,
) noexcept nogil:
    """A fresh entry. With EXPIRES in the flags the caller fills deadline and heap place."""
    cdef size_t head = sizeof(Entry)
    cdef Entry* e
    cdef uint8_t* p
    cdef uint32_t wide
    if klen >= 255:
        flags |= LONG_KEY
        head += 4
    if flags & EXPIRES:
        head += 12
    e = <Entry*>alloc(head + klen + vlen)
    e.meta = <uint32_t>type << 24
    e.flags = flags
    e.klen = <uint8_t>klen if klen < 255 else 255
    e.vlen = <uint16_t>vlen
    p = <uint8_t*>e + sizeof(Entry)
    if flags & LONG_KEY:
        wide = <uint32_t>klen
        memcpy(p, &wide, 4)
        p += 4
    if flags & EXPIRES:
        memset(p, 0, 12)
        p += 12
    memcpy(p, key, klen)
    if value != NULL:
        memcpy(p + klen, value, vlen)
    return e


cdef Entry* entry_new(uint8_t type, const uint8_t* key, size_t klen, const uint8_t* value, size_t vlen, uint8_t flags) noexcept nogil:
    return build(type, key, klen, value, vlen, flags, mem_alloc)


cdef Entry* keyed_new(uint8_t type, const uint8_t* key, size_t klen, const uint8_t* value, size_t vlen, uint8_t flags) noexcept nogil:
    return build(type, key, klen, value, vlen, flags, mem_keyed)


cdef void entry_free(Entry* e) noexcept nogil:
    mem_free(e, entry_size(e))


# ---------------------------------------------------------------- slot arrays


cdef void half_open(Half* half, uint64_t buckets) noexcept nogil:
    cdef size_t size = buckets * SLOTS * 8
    half.buckets = buckets
    if buckets >= MAPPED_MIN:
        half.slots = <uint64_t*>mem_map(size)
    else:
        half.slots = <uint64_t*>mem_lines(size)
        memset(half.slots, 0, size)


cdef void half_close(Half* half) noexcept nogil:
    if half.slots == NULL:
        return
    if half.buckets >= MAPPED_MIN:
        mem_unmap(half.slots, half.buckets * SLOTS * 8)
    else:
        mem_free(half.slots, half.buckets * SLOTS * 8)
    half.slots = NULL
    half.buckets = 0


cdef uint64_t TABLES = 0  # made so far


cdef void table_init(Table* t, uint64_t salt) noexcept nogil:
    global TABLES
    memset(t, 0, sizeof(Table))
    t.salt = salt
    TABLES += 1
    t.mix = mul_fold(TABLES ^ SEED[1], SEED[3]) | 1


cdef void table_free(Table* t) noexcept nogil:
    half_close(&t.now)
    half_close(&t.next)
    t.used = 0
    t.moved = 0


cdef size_t table_memory(Table* t) noexcept nogil:
    return (t.now.buckets + t.next.buckets) * SLOTS * 8


# ---------------------------------------------------------------- lookups


cdef inline Half* half_of(Table* t, uint64_t spot) noexcept nogil:
    if t.next.slots != NULL and mul_high(spot, t.now.buckets) < t.moved:
        return &t.next
    return &t.now


cdef inline bint same_key(const Entry* e, const uint8_t* key, size_t n) noexcept nogil:
    cdef size_t m
    cdef uint8_t* k
    if e.klen != n and n < 255:
        return False
    k = entry_key(e, &m)
    return m == n and memcmp(k, key, n) == 0


cdef inline uint32_t tag_of(uint64_t spot) noexcept nogil:
    """Bits that choose neither bucket nor shard; 0 is an empty slot's."""
    cdef uint32_t tag = (spot >> 16) & 0x3FFF
    return tag + (tag == 0)


cdef uint64_t* table_find(Table* t, const uint8_t* key, size_t n, uint64_t h) noexcept nogil:
    cdef Half* half
    cdef uint64_t home, b
    cdef uint32_t tag, hits
    cdef uint64_t* bucket
    cdef uint64_t* slot
    if t.now.slots == NULL:
        return NULL
    h *= t.mix
    half = half_of(t, h)
    home = b = mul_high(h, half.buckets)
    tag = tag_of(h)
    while True:
        bucket = half.slots + b * SLOTS
        hits = match_tags(bucket, tag)
        while hits:
            slot = bucket + lowest_bit(hits)
            if same_key(<Entry*>(slot[0] & POINTER), key, n):
                return slot
            hits &= hits - 1
        if not bucket[0] & FLAG:
            return NULL
        b += 1
        if b == half.buckets:
            b = 0
        if b == home:
            return NULL


cdef void table_prefetch_bucket(Table* t, uint64_t h) noexcept nogil:
    cdef Half* half
    if t.now.slots != NULL:
        h *= t.mix
        half = half_of(t, h)
        __builtin_prefetch(half.slots + mul_high(h, half.buckets) * SLOTS)


cdef void table_prefetch_entry(Table* t, uint64_t h) noexcept nogil:
    cdef Half* half
    cdef uint64_t* bucket
    cdef uint8_t* entry
    cdef uint32_t hits
    if t.now.slots == NULL:
        return
    h *= t.mix
    half = half_of(t, h)
    bucket = half.slots + mul_high(h, half.buckets) * SLOTS
    hits = match_tags(bucket, tag_of(h))
    if hits:
        entry = <uint8_t*>(bucket[lowest_bit(hits)] & POINTER)
        __builtin_prefetch(entry)
        __builtin_prefetch(entry + 64)


# ---------------------------------------------------------------- changes


cdef void place(Half* half, Entry* e, uint64_t spot) noexcept nogil:
    """Into the first free slot from the home bucket on; there is one, the load is below 1."""
    cdef uint64_t b = mul_high(spot, half.buckets)
    cdef uint64_t what = (<uint64_t>tag_of(spot) << 48) | <uint64_t>e
    cdef uint64_t* bucket
    cdef uint64_t* slot
    cdef uint32_t empty
    while True:
        bucket = half.slots + b * SLOTS
        empty = match_tags(bucket, 0)
        if empty:
            slot = bucket + lowest_bit(empty)
            slot[0] = (slot[0] & FLAG) | what
            return
        bucket[0] |= FLAG
        what |= GUEST
        b += 1
        if b == half.buckets:
            b = 0


cdef inline uint64_t hash_of(const Entry* e) noexcept nogil:
    cdef size_t n
    cdef uint8_t* k = entry_key(e, &n)
    return hash_bytes(k, n)


cdef void move_bucket(Table* t, uint64_t b) noexcept nogil:
    """Every entry whose home is bucket b of `now` goes to `next`. The flags stay: guests of earlier buckets may be
    gone, but a search that goes too far is soon over with the resize."""
    cdef uint64_t at = b, spot, slot
    cdef uint64_t* bucket
    cdef int i
    while True:
        bucket = t.now.slots + at * SLOTS
        for i in range(SLOTS):
            slot = bucket[i]
            if slot & POINTER and (slot & GUEST != 0) == (at != b):
                spot = hash_of(<Entry*>(slot & POINTER)) * t.mix
                if at == b or mul_high(spot, t.now.buckets) == b:
                    bucket[i] = slot & FLAG if i == 0 else 0
                    place(&t.next, <Entry*>(slot & POINTER), spot)
        if not bucket[0] & FLAG:
            return
        at += 1
        if at == t.now.buckets:
            at = 0
        if at == b:
            return


cdef void prefetch_moves(Table* t, uint64_t b) noexcept nogil:
    cdef uint64_t* bucket
    cdef int i
    if b < t.now.buckets:
        bucket = t.now.slots + b * SLOTS
        for i in range(SLOTS):
            if bucket[i] & POINTER:
                __builtin_prefetch(<void*>(bucket[i] & POINTER))
    if b + 2 < t.now.buckets:
        __builtin_prefetch(t.now.slots + (b + 2) * SLOTS)


cdef bint table_step(Table* t, size_t buckets) noexcept nogil:
    if t.next.slots == NULL:
        return False
    while buckets and t.moved < t.now.buckets:
        prefetch_moves(t, t.moved + 1)
        move_bucket(t, t.moved)
        t.moved += 1
        buckets -= 1
        # Moved memory goes back in pieces; the first bucket may still hold guests of the last one, so it stays.
        if t.moved % RELEASE == 0 and t.now.buckets >= MAPPED_MIN and t.moved >= 2 * RELEASE:
            madvise(t.now.slots + (t.moved - RELEASE) * SLOTS, RELEASE * SLOTS * 8, MADV_DONTNEED)
    if t.moved < t.now.buckets:
        return True
    half_close(&t.now)
    t.now = t.next
    t.next.slots = NULL
    t.next.buckets = 0
    t.moved = 0
    return False


cdef void begin_resize(Table* t, uint64_t buckets) noexcept nogil:
    half_open(&t.next, buckets)
    t.moved = 0
    if t.now.buckets <= AT_ONCE:
        table_step(t, t.now.buckets)


cdef inline uint64_t grown(const Table* t) noexcept nogil:
    cdef uint64_t buckets = t.now.buckets + (t.now.buckets + 1) // 2
    if t.salt and AT_ONCE // 2 < t.now.buckets <= AT_ONCE:
        buckets += t.now.buckets * (t.salt & 15) * 3 // 64  # shards part ways here: evenly over one step of growth
    return buckets


cdef void table_insert(Table* t, Entry* e, uint64_t h) noexcept nogil:
    if t.now.slots == NULL:
        half_open(&t.now, 2)
    if t.next.slots != NULL:
        table_step(t, STEP)
    elif (t.used + 1) * 5 > t.now.buckets * SLOTS * 4:
        begin_resize(t, grown(t))
    h *= t.mix
    place(half_of(t, h), e, h)
    t.used += 1


cdef void table_replace(uint64_t* slot, Entry* e) noexcept nogil:
    slot[0] = (slot[0] & ~POINTER) | <uint64_t>e


cdef Entry* table_take(Table* t, uint64_t* slot) noexcept nogil:
    cdef Entry* e = <Entry*>(slot[0] & POINTER)
    cdef Half* half = half_with(t, slot)
    cdef uint64_t place = slot - half.slots
    slot[0] = slot[0] & FLAG if place % SLOTS == 0 else 0
    t.used -= 1
    # what a resize is about to move needs no order any more
    if half.slots[place - place % SLOTS] & FLAG and (half is &t.next or t.next.slots == NULL):
        fetch_back(half, place // SLOTS, slot, t.mix)
    if t.next.slots != NULL:
        table_step(t, STEP)
    elif t.now.buckets > 4 and t.used * 8 < t.now.buckets * SLOTS:
        begin_resize(t, t.used // 4 + 2)
    return e


cdef inline Half* half_with(Table* t, const uint64_t* slot) noexcept nogil:
    if t.next.slots != NULL and t.next.slots <= slot < t.next.slots + t.next.buckets * SLOTS:
        return &t.next
    return &t.now


cdef inline uint64_t distance(uint64_t a, uint64_t b, uint64_t buckets) noexcept nogil:
    """Buckets from a on to b, around the end."""
    return b - a if b >= a else b + buckets - a


cdef void fetch_back(Half* half, uint64_t hole, uint64_t* slot, uint64_t mix) noexcept nogil:
    """Fills the hole in a flagged bucket with a guest that had passed it, then the hole that this makes, and so on.

    Guests that passed lie in the unbroken run of flagged buckets behind the hole, or in the first one after that run.
    If there is none the flag is cleared: a flag means that somebody passed, and only a full bucket is passed.
    """
    cdef uint64_t b = hole, home, what
    cdef uint64_t* bucket
    cdef int i
    while True:
        b += 1
        if b == half.buckets:
            b = 0
        if b == hole:
            break
        bucket = half.slots + b * SLOTS
        for i in range(SLOTS):
            what = bucket[i]
            if not what & GUEST:
                continue
            home = mul_high(hash_of(<Entry*>(what & POINTER)) * mix, half.buckets)
            if distance(home, b, half.buckets) < distance(hole, b, half.buckets):
                continue  # its home lies between
            slot[0] = (slot[0] & FLAG) | (what & ~(FLAG | GUEST)) | (GUEST if home != hole else 0)
            bucket[i] = what & FLAG if i == 0 else 0
            if not bucket[0] & FLAG:
                return
            hole = b
            slot = &bucket[i]
            break
        else:
            if not bucket[0] & FLAG:
                break
    half.slots[hole * SLOTS] &= ~FLAG


# ---------------------------------------------------------------- walks


cdef Entry* table_random(Table* t, uint64_t (*rand)() noexcept nogil) noexcept nogil:
    cdef uint64_t slots, place_, slot
    if t.used == 0:
        return NULL
    if t.next.slots != NULL and t.used * 64 < t.now.buckets * SLOTS:
        table_step(t, 64)  # a resize that lags behind many removals would make the search long
    while True:
        slots = (t.now.buckets + t.next.buckets) * SLOTS
        place_ = mul_high(rand(), slots)
        if place_ < t.now.buckets * SLOTS:
            slot = t.now.slots[place_]
        else:
            slot = t.next.slots[place_ - t.now.buckets * SLOTS]
        if slot & POINTER:
            return <Entry*>(slot & POINTER)


cdef size_t visit_bucket(
    Half* half, uint64_t mix, uint64_t b, uint64_t low, EntryVisitor visit, void* arg
) noexcept nogil:
    """The entries of home bucket b with a spot of at least `low`; how many."""
    cdef uint64_t at = b, h, slot
    cdef uint64_t* bucket
    cdef size_t n = 0
    cdef int i
    while True:
        bucket = half.slots + at * SLOTS
        for i in range(SLOTS):
            slot = bucket[i]
            if slot & POINTER and (slot & GUEST != 0) == (at != b):
                h = hash_of(<Entry*>(slot & POINTER))
                if h * mix >= low and (at == b or mul_high(h * mix, half.buckets) == b):
                    visit(<Entry*>(slot & POINTER), h, arg)
                    n += 1
        if not bucket[0] & FLAG:
            return n
        at += 1
        if at == half.buckets:
            at = 0
        if at == b:
            return n


cdef enum:
    AHEAD = 4


cdef void prefetch_visit(Half* half, uint64_t b) noexcept nogil:
    cdef uint64_t* bucket
    cdef int i
    if b + AHEAD < half.buckets:
        __builtin_prefetch(half.slots + (b + AHEAD) * SLOTS)
    if b < half.buckets:
        bucket = half.slots + b * SLOTS
        for i in range(SLOTS):
            if bucket[i] & POINTER:
                __builtin_prefetch(<void*>(bucket[i] & POINTER))
                __builtin_prefetch(<void*>((bucket[i] & POINTER) + 64))


cdef uint64_t table_scan(Table* t, uint64_t cursor, size_t count, EntryVisitor visit, void* arg) noexcept nogil:
    # The cursor is the spot to go on from without its low 16 bits; what is met twice for it is allowed. Clients that
    # keep numbers as doubles hold cursors up to 2^53 exactly: 48 bits leave room for a shard's number.
    cdef uint64_t begin = cursor << 16
    cdef uint64_t low = begin, b, after, boundary
    cdef size_t n = 0, looked = 0
    cdef Half* half
    cdef bint last
    if t.used == 0:
        return 0
    # The last condition: cleared low bits must not take the cursor back to where it was.
    while (n < count and (looked // 10 < count or looked < 64)) or (low & ~<uint64_t>0xFFFF) <= begin:
        half = half_of(t, low)
        b = mul_high(low, half.buckets)
        prefetch_visit(half, b + 3)
        n += visit_bucket(half, t.mix, b, low, visit, arg)
        looked += 1
        last = b + 1 == half.buckets
        after = 0 if last else first_hash_of(b + 1, half.buckets)
        if half == &t.next:
            # Beyond the boundary the old buckets hold: go on exactly there, lest what lies between be missed.
            boundary = first_hash_of(t.moved, t.now.buckets)
            if last or after > boundary:
                after = boundary
                last = False
        if last:
            return 0
        low = after
    return low >> 16


cdef uint64_t faults_of(Half* half, uint64_t mix, bint settled) noexcept nogil:
    """Broken promises: entries that a search would not find, flags without need, wrong marks."""
    cdef uint64_t b, home, at, faults = 0, slot
    cdef uint64_t* bucket
    cdef Entry* e
    cdef int i
    for b in range(half.buckets):
        bucket = half.slots + b * SLOTS
        if settled and bucket[0] & FLAG and match_tags(bucket, 0):
            faults += 1
        for i in range(SLOTS):
            slot = bucket[i]
            e = <Entry*>(slot & POINTER)
            if e == NULL:
                faults += slot & ~(FLAG if i == 0 else 0) != 0
                continue
            home = mul_high(hash_of(e) * mix, half.buckets)
            faults += (home != b) != (slot & GUEST != 0)
            faults += (slot >> 48) & 0x3FFF != tag_of(hash_of(e) * mix)
            at = home
            while at != b:
                faults += not half.slots[at * SLOTS] & FLAG
                at = at + 1 if at + 1 < half.buckets else 0
    return faults


cdef uint64_t table_faults(Table* t) noexcept nogil:
    cdef uint64_t used = 0, place
    cdef uint64_t faults = faults_of(&t.now, t.mix, t.next.slots == NULL) + faults_of(&t.next, t.mix, True)
    for place in range(t.now.buckets * SLOTS):
        used += t.now.slots[place] & POINTER != 0
    for place in range(t.next.buckets * SLOTS):
        used += t.next.slots[place] & POINTER != 0
    return faults + (used != t.used)
