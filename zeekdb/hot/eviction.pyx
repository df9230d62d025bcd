"""Eviction: while more memory is used than `maxmemory` allows, the keys go that the policy says.

It runs between commands, in the engine, for a bounded time; what it does not get done the next batch goes on with. Keys
are compared in samples: entries that lie side by side in a table, which is ordered by hash, are as good as random, and
one of several is found at the price of a cache line or two. volatile-ttl needs no sample: the expiry heaps know.

A victim's memory must be free before the next one is chosen, or too many would go: values that are freed in slices are
worked off here.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from zeekdb.hot.clock cimport steady_us
from zeekdb.hot.compaction cimport DBS, NDBS, compact_step, configure as compact_in
from zeekdb.hot.journal cimport J, journal_gone
from zeekdb.hot.keyspace cimport Db, G, Shard, ks_delete
from zeekdb.hot.memory cimport mem_alloc, mem_free
from zeekdb.hot.learned cimport LEARNED_POLICY
from zeekdb.hot.notes cimport N, note_key
from zeekdb.hot.queues cimport FIFO_POLICY, S3FIFO_POLICY
from zeekdb.hot.recency cimport ANY_POLICY, LFU_POLICY, LRU_POLICY, Policy, random_bits, recency_choose
from zeekdb.hot.shards cimport ks_free
from zeekdb.hot.table cimport Entry, entry_key, hash_bytes, table_random, table_scan

import logging

cdef enum:
    GAPS = 4194304           # bytes of them that are tolerated
    SAMPLE_FACTOR = 3        # entries looked at for each of maxmemory-samples
    FREE_SLICE = 64          # elements of a large value freed at a time
    COMMAND_US = 100         # more time for each command that is waiting to be run
    BUDGET_MAX_US = 4000
    TENACITY_US = 50         # for each of maxmemory-eviction-tenacity

memset(&E, 0, sizeof(E))
cdef object KEYSPACE = None

# The best one of a sample.
ctypedef struct Choice:
    Entry* entry
    uint64_t score
    uint32_t seen


cdef Policy* policy_of(str name) except NULL:
    if name == "lru" or name == "ttl":
        return &LRU_POLICY
    if name == "lfu":
        return &LFU_POLICY
    if name == "random":
        return &ANY_POLICY
    if name == "fifo":
        return &FIFO_POLICY
    if name == "s3fifo":
        return &S3FIFO_POLICY
    if name == "learned":
        return &LEARNED_POLICY
    raise ValueError(name)


cdef void compare(Entry* e, uint64_t hash, void* arg) noexcept nogil:
    cdef Choice* choice = <Choice*>arg
    cdef uint64_t score = E.policy.score(e)
    choice.seen += 1
    if choice.entry == NULL or score > choice.score:
        choice.entry, choice.score = e, score


cdef Entry* sample_all(Shard* s) noexcept nogil:
    cdef Choice choice
    cdef uint32_t wanted = E.samples * SAMPLE_FACTOR
    cdef uint64_t cursor
    if E.policy.score == NULL:
        return table_random(&s.table, random_bits)
    memset(&choice, 0, sizeof(choice))
    cursor = random_bits() & ((<uint64_t>1 << 48) - 1)
    cursor = table_scan(&s.table, cursor, wanted, compare, &choice)
    while choice.seen < wanted and choice.seen < s.table.used:
        cursor = table_scan(&s.table, cursor, wanted - choice.seen, compare, &choice)
    return choice.entry


cdef Entry* sample_volatile(Shard* s) noexcept nogil:
    cdef Choice choice
    cdef uint32_t i, wanted = min(E.samples * SAMPLE_FACTOR, s.due.used)
    if E.policy.score == NULL:
        return s.due.heap[random_bits() % s.due.used].entry
    memset(&choice, 0, sizeof(choice))
    for i in range(wanted):
        compare(s.due.heap[random_bits() % s.due.used].entry, 0, &choice)
    return choice.entry


cdef inline uint64_t candidates(const Shard* s) noexcept nogil:
    return s.due.used if E.volatile_only else s.table.used


cdef Entry* soonest(Db** owner) noexcept nogil:
    """The key that would expire first."""
    cdef int i
    cdef uint32_t k
    cdef Shard* s
    cdef Entry* found = NULL
    cdef int64_t when = 0
    for i in range(NDBS):
        if DBS[i].shards == NULL:
            continue
        for k in range(DBS[i].nshards):
            s = &DBS[i].shards[k]
            if s.due.used and (found == NULL or s.due.heap[0].when_ms < when):
                found, when = s.due.heap[0].entry, s.due.heap[0].when_ms
                owner[0] = DBS[i]
    return found


cdef uint64_t count() noexcept nogil:
    """The keys that may go."""
    cdef uint64_t total = 0
    cdef int i
    cdef uint32_t k
    for i in range(NDBS):
        if DBS[i].shards != NULL:
            for k in range(DBS[i].nshards):
                total += candidates(&DBS[i].shards[k])
    return total


cdef Entry* choose(Db** owner) noexcept nogil:
    """The next victim; NULL when no key may go."""
    cdef uint64_t total, place
    cdef int i
    cdef uint32_t k
    cdef Shard* s
    if E.by_deadline:
        return soonest(owner)
    total = count()
    if total == 0:
        return NULL
    if E.policy.resize != NULL:
        E.policy.resize(total)
    place = random_bits() % total  # every key's shard is as likely as the shard is full
    for i in range(NDBS):
        if DBS[i].shards == NULL:
            continue
        for k in range(DBS[i].nshards):
            s = &DBS[i].shards[k]
            if place < candidates(s):
                owner[0] = DBS[i]
                return sample_volatile(s) if E.volatile_only else sample_all(s)
            place -= candidates(s)
    return NULL


cdef void report(Db* db, const uint8_t* key, size_t n) noexcept nogil:
    with gil:
        try:
            for listener in KEYSPACE.subscribers:
                listener(KEYSPACE.databases[db.index], PyBytes_FromStringAndSize(<const char*>key, n), "evicted")
        except Exception:
            logging.getLogger("zeekdb").exception("a listener failed when a key was evicted")


cdef bint HEARD = False      # whether anybody listens to the journal's events


cdef void remove(Db* db, Entry* e) noexcept nogil:
    cdef size_t n
    cdef uint8_t* key = entry_key(e, &n)
    cdef uint8_t* copy = <uint8_t*>mem_alloc(n if n else 1)
    cdef uint64_t h = hash_bytes(key, n)
    memcpy(copy, key, n)
    G.evicted += 1
    if N.interests:
        note_key(db.index, copy, n, h)
    if ks_delete(db, copy, n, h):
        if J.open:
            journal_gone(db.index, copy, n)
        if HEARD:
            report(db, copy, n)
    mem_free(copy, n if n else 1)


cdef void evict(uint32_t commands) noexcept nogil:
    cdef int64_t now = steady_us(), budget = E.budget_us
    if budget < BUDGET_MAX_US:
        budget = min(budget + commands * COMMAND_US, <int64_t>BUDGET_MAX_US)
    if E.exceeded_us == 0:
        E.exceeded_us = now
    evict_until(now + budget)
    if not over_limit():
        within_limit()


cdef void within_limit() noexcept nogil:
    E.total_us += steady_us() - E.exceeded_us
    E.exceeded_us = 0


cdef void evict_until(int64_t end) noexcept nogil:
    cdef Db* db = NULL
    cdef Entry* e
    cdef uint32_t done = 0
    global HEARD
    with gil:
        HEARD = bool(KEYSPACE.subscribers)
    E.stuck = False
    while over_limit():
        if G.lazyfree_pending:
            ks_free(FREE_SLICE)
        elif counted_use() <= E.limit and compact_step():
            pass  # the blocks would fit, but not their pages
        elif counted_use() <= E.limit and counted_resident() <= E.ceiling + E.limit // 100:
            return  # for now; nobody has to go for that
        else:
            e = choose(&db) if E.policy != NULL else NULL
            if e == NULL:
                E.stuck = True
                return
            if E.policy.spare == NULL or E.by_deadline or not E.policy.spare(e):
                if E.policy.gone != NULL:
                    E.policy.gone(e)
                remove(db, e)
        done += 1
        if done & 15 == 0 and steady_us() > end:
            return


def configure(
    keyspace not None, size_t limit, str policy not None, int samples, int tenacity, size_t gaps=GAPS
):
    global KEYSPACE
    KEYSPACE = keyspace
    compact_in(keyspace)
    scope, _, name = policy.partition("-")
    E.limit = limit
    E.ceiling = limit + gaps
    E.floor = limit - limit // 10
    E.policy = policy_of(name) if name else NULL
    E.by_deadline = name == "ttl"
    recency_choose(E.policy if name else &LRU_POLICY)
    E.volatile_only = scope == "volatile"
    E.samples = samples
    E.budget_us = TENACITY_US * tenacity if tenacity < 100 else <int64_t>1 << 40
    E.stuck = False


def make_room():
    if E.policy != NULL and E.policy.resize != NULL:
        E.policy.resize(count())
    if over_limit():
        evict(0)
    else:
        E.stuck = False
        if E.exceeded_us:
            within_limit()


def exceeded_ms():
    cdef int64_t current = steady_us() - E.exceeded_us if E.exceeded_us else 0
    return current // 1000, (E.total_us + current) // 1000


def is_stuck():
    return E.stuck and over_limit()
