"""`learned`: a model predicts from a key's past how long it will not be used, and the key with the longest wait goes.

Time is counted in accesses, in ticks of a 64th of the number of keys, so that nothing depends on how fast requests
come. An entry's field holds the tick of the last use (16 bits), the number of uses (4) and the logarithm of the time
between the last two (4); an evicted key's ghost brings uses and time back when the key comes back.

The model has two stages. Uses and interval choose one of 256 leaves; a leaf predicts the logarithm of the wait,
linearly in the logarithm of the time since the last use. It is fitted (least squares, pulled towards the fit over all
leaves) to the accesses of a ring: those of a fixed part of all keys, chosen by hash, that cover four times as many
accesses as there are keys. A wait that ends beyond two turnovers counts as that long. The idea of predicting a relaxed
form of Belady's choice from such features is that of LRB (Song et al., NSDI 2020); that a sample of the keys in front
of a cache made smaller in the same proportion behaves as the whole does, that of SHARDS (Waldspurger et al., FAST 2015).

Nobody trusts the model blindly: before it is replaced, a thread replays the accesses that came since through two small
caches, one that it rules and one with LRU. While the model's is not the better one, LRU chooses.
"""

from libc.math cimport log2
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset
from zeekdb.hot.ghosts cimport Ghosts, ghost_put, ghost_take, ghosts_resize
from zeekdb.hot.recency cimport BY_POLICY, FIELD, Policy, set_field
from zeekdb.hot.table cimport Entry, entry_key, hash_bytes

cdef enum:
    LEAVES = 256
    TURNOVER = 64           # ticks in which there are as many accesses as keys
    SPAN = 4                # turnovers that the ring covers
    HORIZON = 2 * TURNOVER  # longer waits are as long
    LONGEST = 2 * HORIZON   # what such a wait counts as
    RING = 65536            # accesses
    TABLE = 2 * RING
    RING_MIN = 256
    GAPS = 128              # ticks; longer intervals are all the last class
    AGES = 4096             # ticks whose logarithms are at hand
    CANDIDATES = 16         # sample in the replays
    OBSERVED = 8            # ticks of an age that are counted at most
    PRIOR = 200             # observations that the fit over all leaves counts as in each

ctypedef struct Access:
    uint32_t id             # a part of the key's hash
    uint32_t tick
    uint8_t leaf            # after this access

ctypedef struct Model:
    float base[LEAVES]
    float slope[LEAVES]

ctypedef struct Sums:
    double n, x, y, xx, xy

cdef Ghosts GHOSTS
cdef uint64_t KEYS = 0      # when the measures below were taken
cdef uint32_t TICK = 0
cdef uint32_t UNIT = 1      # accesses in a tick
cdef uint32_t LEFT = 1      # until the next one

cdef Access* SEEN = NULL    # the ring
cdef uint32_t SIZE = RING_MIN
cdef uint32_t HEAD = 0
cdef uint32_t COUNT = 0
cdef uint32_t FRESH = 0     # accesses since the last `begin`
cdef uint32_t THRESHOLD = 0xFFFFFFFF  # keys whose hash's upper half is not above it are recorded

cdef Model MODELS[2]
cdef Model* MODEL = NULL    # the one in use; whole whenever it is set
cdef bint IN_USE = False    # otherwise LRU chooses
cdef Access* ASIDE = NULL   # what `fit` works on, nobody else
cdef uint32_t ASIDE_COUNT = 0
cdef uint32_t ASIDE_KEYS = 0  # the size of the small caches
cdef bint FITTING = False
cdef uint64_t FITS = 0
cdef double MODEL_RATIO = 0, LRU_RATIO = 0  # hit ratios, half of the last, a quarter of the one before …
cdef float LOG[AGES]
cdef uint8_t GAP[GAPS]
memset(&GHOSTS, 0, sizeof(GHOSTS))
for i in range(AGES):
    LOG[i] = log2(i + 1)
for i in range(GAPS):
    GAP[i] = <uint8_t>(1 + log2(i + 1) * 2)


cdef inline float log_of(uint32_t age) noexcept nogil:
    return LOG[age] if age < AGES else <float>log2(age + 1)


# ------------------------------------------------------------ what is seen


cdef void learned_resize(uint64_t keys) noexcept nogil:
    """All is measured in turnovers; a cache of another size has others."""
    global KEYS, UNIT, LEFT, SIZE, HEAD, COUNT, FRESH, THRESHOLD
    cdef uint64_t span
    if 2 * keys < 3 * KEYS and 3 * keys > 2 * KEYS:
        return
    ghosts_resize(&GHOSTS, 2 * keys)
    KEYS = keys
    UNIT = <uint32_t>(keys // TURNOVER) + 1
    LEFT = UNIT
    span = max(SPAN * keys, <uint64_t>RING_MIN)
    SIZE = <uint32_t>min(span, <uint64_t>RING)
    THRESHOLD = <uint32_t>(<double>SIZE / span * 4294967295.0)
    HEAD = COUNT = FRESH = 0


cdef inline void tick() noexcept nogil:
    global TICK, LEFT
    LEFT -= 1
    if LEFT == 0:
        LEFT = UNIT
        TICK += 1


cdef inline void record(uint64_t hash, uint32_t leaf) noexcept nogil:
    global HEAD, COUNT, FRESH
    cdef uint64_t mixed = hash * <uint64_t>0x9E3779B97F4A7C15ULL
    if <uint32_t>(mixed >> 32) > THRESHOLD:
        return
    SEEN[HEAD].id = <uint32_t>hash
    SEEN[HEAD].tick = TICK
    SEEN[HEAD].leaf = <uint8_t>leaf
    HEAD = HEAD + 1 if HEAD + 1 < SIZE else 0
    FRESH += 1
    if COUNT < SIZE:
        COUNT += 1


cdef inline uint32_t gap_class(uint32_t ticks) noexcept nogil:
    return GAP[ticks] if ticks < GAPS else 15


cdef inline uint64_t hash_of(const Entry* e) noexcept nogil:
    cdef size_t n
    cdef const uint8_t* key = entry_key(e, &n)
    return hash_bytes(key, n)


cdef void learned_touch(Entry* e) noexcept nogil:
    cdef uint32_t uses = (e.meta >> 4) & 15, leaf
    tick()
    leaf = min(uses + 1, <uint32_t>15) << 4 | gap_class((TICK - (e.meta >> 8)) & 0xFFFF)
    set_field(e, (TICK & 0xFFFF) << 8 | leaf)
    record(hash_of(e), leaf)


cdef uint32_t learned_fresh(uint64_t hash) noexcept nogil:
    cdef uint32_t leaf = 0
    cdef int ghost = ghost_take(&GHOSTS, hash)
    tick()
    if ghost >= 0:  # 4 bits of uses, 12 of the tick of the last one
        leaf = min(<uint32_t>(ghost >> 12) + 1, <uint32_t>15) << 4 | gap_class((TICK - <uint32_t>ghost) & 0xFFF)
    record(hash, leaf)
    return (TICK & 0xFFFF) << 8 | leaf


cdef void learned_gone(const Entry* e) noexcept nogil:
    ghost_put(&GHOSTS, hash_of(e), <uint16_t>(((e.meta >> 4) & 15) << 12 | ((e.meta >> 8) & 0xFFF)))


cdef uint64_t learned_score(const Entry* e) noexcept nogil:
    cdef uint32_t age = (TICK - (e.meta >> 8)) & 0xFFFF, leaf = e.meta & 0xFF
    cdef float wait
    if not IN_USE:
        return age
    wait = MODEL.base[leaf] + MODEL.slope[leaf] * log_of(age)
    return <uint64_t>((wait + 64) * 65536) if wait > -64 else 0


# ------------------------------------------------------------ learning, in a thread

# The accesses set aside, by the place among all keys that each one's key has.
ctypedef struct Replay:
    uint32_t* key           # per access: 0, 1, 2 … in the order of the first
    uint32_t keys
    uint32_t* place         # per key: its place among the cached ones, plus 1
    uint32_t* cached        # per place: the last access to the key there


cdef bint replay_begin(Replay* r) noexcept nogil:
    cdef uint32_t i, at, id
    cdef uint32_t* table = <uint32_t*>calloc(TABLE, sizeof(uint32_t))   # the first access to a key, plus 1
    r.key = <uint32_t*>malloc(RING * sizeof(uint32_t))
    r.place = <uint32_t*>malloc(RING * sizeof(uint32_t))
    r.cached = <uint32_t*>malloc(RING * sizeof(uint32_t))
    r.keys = 0
    if table == NULL or r.key == NULL or r.place == NULL or r.cached == NULL:
        free(table)
        return False
    for i in range(ASIDE_COUNT):
        id = ASIDE[i].id
        at = (id * <uint32_t>2654435769U) >> 15
        while table[at] and ASIDE[table[at] - 1].id != id:
            at = (at + 1) & (TABLE - 1)
        if table[at]:
            r.key[i] = r.key[table[at] - 1]
        else:
            table[at] = i + 1
            r.key[i] = r.keys
            r.keys += 1
    free(table)
    return True


cdef double hit_ratio(Replay* r, const Model* model) noexcept nogil:
    """Of the accesses through a small cache that the model rules, or LRU when there is none; it fills first."""
    cdef uint64_t state = 88172645463325252ULL
    cdef uint32_t i, k, place, used = 0, worst, hits = 0, begin = ASIDE_COUNT // 4
    cdef Access* a
    cdef Access* b
    cdef float score, highest
    memset(r.place, 0, RING * sizeof(uint32_t))
    for i in range(ASIDE_COUNT):
        a = &ASIDE[i]
        place = r.place[r.key[i]]
        if place:
            hits += i >= begin
            r.cached[place - 1] = i
            continue
        if used < ASIDE_KEYS:
            worst = used
            used += 1
        else:
            worst, highest = 0, -1e30
            for k in range(CANDIDATES):
                state ^= state << 13
                state ^= state >> 7
                state ^= state << 17
                place = <uint32_t>(((state >> 32) * used) >> 32)
                b = &ASIDE[r.cached[place]]
                score = <float>(a.tick - b.tick)
                if model != NULL:
                    score = model.base[b.leaf] + model.slope[b.leaf] * log_of(a.tick - b.tick)
                if score > highest:
                    worst, highest = place, score
            r.place[r.key[r.cached[worst]]] = 0
        r.cached[worst] = i
        r.place[r.key[i]] = worst + 1
    return <double>hits / (ASIDE_COUNT - begin) if ASIDE_COUNT > begin else 0


cdef inline void observe(Sums* s, double x, double y, double weight) noexcept nogil:
    s.n += weight
    s.x += weight * x
    s.y += weight * y
    s.xx += weight * x * x
    s.xy += weight * x * y


cdef void solve(const Sums* s, float* base, float* slope) noexcept nogil:
    cdef double spread = s.n * s.xx - s.x * s.x
    slope[0] = <float>((s.n * s.xy - s.x * s.y) / spread) if spread > 1e-6 * s.n * s.n else 0
    base[0] = <float>((s.y - slope[0] * s.x) / s.n)


cdef bint learn(Replay* r, Model* model) noexcept nogil:
    """A key is observed at ages that double, from each access to the next; an age counts by how long it lasts."""
    cdef Sums sums[LEAVES + 1]
    cdef Sums s
    cdef Sums* total = &sums[LEAVES]
    cdef uint32_t* next = r.place       # per key: its next access, plus 1
    cdef uint32_t i, leaf, last
    cdef double low, high, age, wait, left, seen, share
    if ASIDE_COUNT == 0:
        return False
    memset(sums, 0, sizeof(sums))
    memset(next, 0, RING * sizeof(uint32_t))
    last = ASIDE[ASIDE_COUNT - 1].tick
    i = ASIDE_COUNT
    while i:
        i -= 1
        wait = 1e18
        if next[r.key[i]]:
            wait = ASIDE[next[r.key[i]] - 1].tick - ASIDE[i].tick
        next[r.key[i]] = i + 1
        seen = last - ASIDE[i].tick
        low, high = 0, 1
        while low < wait:
            age = (low + min(high, wait)) / 2
            if age + HORIZON > seen:
                break
            left = wait - age if wait - age <= HORIZON else LONGEST
            observe(&sums[ASIDE[i].leaf], log2(age + 1), log2(left + 1), min(min(high, wait) - low, <double>OBSERVED))
            low, high = high, high * 2
    for leaf in range(LEAVES):
        total.n += sums[leaf].n
        total.x += sums[leaf].x
        total.y += sums[leaf].y
        total.xx += sums[leaf].xx
        total.xy += sums[leaf].xy
    if total.n < PRIOR:
        return False
    share = PRIOR / total.n
    for leaf in range(LEAVES):
        s = sums[leaf]
        s.n += share * total.n
        s.x += share * total.x
        s.y += share * total.y
        s.xx += share * total.xx
        s.xy += share * total.xy
        solve(&s, &model.base[leaf], &model.slope[leaf])
    return True


cdef void fit_aside() noexcept nogil:
    global MODEL, IN_USE, FITS, MODEL_RATIO, LRU_RATIO
    cdef Replay r
    cdef Model* spare = &MODELS[1] if MODEL == &MODELS[0] else &MODELS[0]
    if replay_begin(&r):
        if MODEL != NULL:
            MODEL_RATIO = MODEL_RATIO / 2 + hit_ratio(&r, MODEL) / 2
            LRU_RATIO = LRU_RATIO / 2 + hit_ratio(&r, NULL) / 2
            IN_USE = MODEL_RATIO > LRU_RATIO * 1.002
        if learn(&r, spare):
            MODEL = spare
            FITS += 1
    free(r.key)
    free(r.place)
    free(r.cached)


def begin():
    global ASIDE_COUNT, ASIDE_KEYS, FITTING, FRESH
    cdef uint32_t first
    if FITTING or COUNT < SIZE // 2 or FRESH < SIZE // SPAN:
        return False
    first = SIZE - HEAD if COUNT == SIZE else 0
    if first:
        memcpy(ASIDE, SEEN + HEAD, first * sizeof(Access))
    memcpy(ASIDE + first, SEEN, (COUNT - first) * sizeof(Access))
    ASIDE_COUNT = COUNT
    ASIDE_KEYS = max(<uint32_t>(KEYS * (THRESHOLD / 4294967295.0)), <uint32_t>1)
    FRESH = 0
    FITTING = True
    return True


def fit():
    global FITTING
    with nogil:
        fit_aside()
    FITTING = False


def stats():
    return {"fits": FITS, "using_model": int(IN_USE), "model_hit_ratio": MODEL_RATIO, "lru_hit_ratio": LRU_RATIO}


SEEN = <Access*>calloc(RING, sizeof(Access))
ASIDE = <Access*>calloc(RING, sizeof(Access))
if SEEN == NULL or ASIDE == NULL:
    raise MemoryError
LEARNED_POLICY = Policy(BY_POLICY, learned_fresh, learned_touch, learned_score, NULL, learned_gone, learned_resize)
