"""Room in the arena where the free bytes suffice but no free extent does.

Extents of many sizes leave holes between them. Two ways to make one that is large enough, the cheapest first:

- *Empty* a run of neighbours: its blobs move to holes elsewhere. It costs the bytes in use in a stretch as long as what
  is wanted, but each blob needs a hole of its size elsewhere.
- *Slide* a run together: its blobs move down to where it begins, and its holes become one at its end. It needs nothing
  elsewhere and so cannot fail, but at one tenth free it costs nine times what is wanted.

Both are one search: two pointers go over the extents, the run between them has room enough, and the cheapest run wins.
A blob that may not move ends every run. The search goes SEARCH_STEPS extents far, and the next goes on from there.

A blob is its extent's header, and holders know it by that, so headers stay with their blobs: two extents exchange
places (`exchange`) rather than blobs their headers. blob.data is the one thing that changes.

What is wanted below BIG_MIN lies in a span, and the same is tried among the small extents of one span. Spans that are
less than half in use are emptied into others when the free bytes lie in them.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove
from zeekdb.hot.arena cimport (
    A, BIG_MIN, BIG_STEP, END, FREE, HELD, SPAN, Extent, arena_footprint, bin_out, extent_drop, find, give,
    link, make_free, reserve, take,
)
from zeekdb.hot.memory cimport FIXED, Blob

cdef extern from "<stdint.h>" nogil:
    const uint64_t UINT64_MAX

cdef enum:
    SEARCH_STEPS = 16384    # extents that one search looks at; up to a millisecond
    TRIES = 4               # searches for a run without small blobs that stay, which only a look at each of them tells
    STUCK_SEARCHES = 16     # for which a span is left out after that

    EMPTY = 0               # what shall be done to the run
    SLIDE = 1

ctypedef struct Search:
    int way
    size_t need
    size_t steps            # left
    Extent* first           # the run found, NULL: none
    Extent* last
    uint64_t cost           # bytes to be moved
    uint64_t limit          # the most it may cost

cdef uint32_t SEARCHES = 0


# ---------------------------------------------------------------- search


cdef inline bint stays(const Extent* e) noexcept nogil:
    return e.blob.refs != 1 or e.blob.flags & FIXED


cdef inline size_t room_of(const Search* s, const Extent* e) noexcept nogil:
    """What an extent adds to a run."""
    return 0 if s.way == SLIDE and not e.blob.flags & FREE else e.blob.capacity


cdef bint weigh(Search* s, Extent* e, uint64_t* cost) noexcept nogil:
    """What it costs to have an extent in the run; False when no run may go across it."""
    cost[0] = 0
    if e.blob.flags & FREE:
        return True
    if not e.blob.flags & SPAN:
        if stays(e):
            return False
        cost[0] = e.blob.capacity
        return True
    if e.blob.refs and SEARCHES - e.blob.refs < STUCK_SEARCHES:
        return False
    cost[0] = e.blob.capacity if s.way == SLIDE else e.blob.size
    return cost[0] <= s.limit


cdef bint span_stays(Extent* span) noexcept nogil:
    """Whether one of its blobs does. Searches leave it out for a while then."""
    cdef Extent* e = (<Extent*>span.next).right
    while not e.blob.flags & END:
        if not e.blob.flags & FREE and stays(e):
            span.blob.refs = SEARCHES if SEARCHES else 1
            return True
        e = e.right
    return False


cdef bint run_stays(Search* s) noexcept nogil:
    """Whether the run found cannot be had after all, for a small blob that the search did not look at."""
    cdef Extent* e = s.first
    while True:
        if e.blob.flags & SPAN and span_stays(e):
            return True
        if e == s.last:
            return False
        e = e.right


cdef Extent* search(Search* s, Extent* start) noexcept nogil:
    """The cheapest run of neighbours, from `start` round its list or as far as the steps go; where it came to."""
    cdef Extent* e = start
    cdef Extent* first = NULL
    cdef size_t total = 0
    cdef uint64_t cost = 0, here = 0, saved = 0
    while s.steps:
        s.steps -= 1
        if e.blob.flags & END or not weigh(s, e, &here):
            first = NULL
            total = cost = 0
        else:
            if first == NULL:
                first = e
            total += room_of(s, e)
            cost += here
            while total >= s.need + room_of(s, first):
                weigh(s, first, &saved)
                total -= room_of(s, first)
                cost -= saved
                first = first.right
            if total >= s.need and cost <= s.limit and cost < s.cost:
                s.first = first
                s.last = e
                s.cost = cost
                if cost == 0:
                    return e
        e = e.right
        if e == start:
            break
    return start if e.blob.flags & END else e


cdef bint search_big(Search* s) noexcept nogil:
    """Among the big extents; whether there is a run."""
    global SEARCHES
    cdef Extent* came_to
    cdef uint64_t cost = s.cost
    cdef int tries
    SEARCHES += 1
    for tries in range(TRIES):
        s.steps = SEARCH_STEPS // TRIES if tries else SEARCH_STEPS
        s.first = NULL
        s.cost = cost
        came_to = search(s, A.rover)
        if s.first == NULL or not run_stays(s):
            break
        s.first = NULL
    if not came_to.blob.flags & END:
        A.rover = came_to
    return s.first != NULL


cdef void search_spans(Search* s) noexcept nogil:
    """Among the small extents of each span that has the room."""
    cdef Extent* e = A.ends.right
    s.steps = SEARCH_STEPS
    while s.steps and not e.blob.flags & END:
        s.steps -= 1
        if e.blob.flags & SPAN and e.blob.capacity - e.blob.size >= s.need:
            search(s, (<Extent*>e.next).right)
        e = e.right


# ---------------------------------------------------------------- moves


cdef void shift(Extent* span, ssize_t delta) noexcept nogil:
    """The span's bytes lie elsewhere now."""
    cdef Extent* e = (<Extent*>span.next).right
    while not e.blob.flags & END:
        e.blob.data += delta
        e = e.right


cdef void exchange(Extent* e, Extent* d) noexcept nogil:
    """Two extents of one size swap their places."""
    cdef Extent* el = e.left
    cdef Extent* er = e.right
    cdef Extent* dl = d.left
    cdef Extent* dr = d.right
    e.blob.data, d.blob.data = d.blob.data, e.blob.data
    e.span, d.span = d.span, e.span
    if er == d:
        link(el, d)
        link(d, e)
        link(e, dr)
    elif dr == e:
        link(dl, e)
        link(e, d)
        link(d, er)
    else:
        link(el, d)
        link(d, er)
        link(dl, e)
        link(e, dr)


cdef Extent* move_out(Extent* e, bint opens) noexcept nogil:
    """The blob moves to a hole elsewhere; what is in its place, HELD, or NULL when there is no hole."""
    # a big one that was trimmed may be short, but it stays a big one
    cdef Extent* d = take(False, e.blob.capacity) if e.span == NULL else reserve(e.blob.capacity, opens)
    if d == NULL:
        return NULL
    memcpy(d.blob.data, e.blob.data, e.blob.capacity)
    if e.span != NULL:
        e.span.blob.size -= e.blob.capacity
        d.span.blob.size += e.blob.capacity
    exchange(e, d)
    d.blob.flags = HELD
    A.moved_blobs += 1
    A.moved_bytes += d.blob.capacity
    return d


cdef void hold(Extent* e) noexcept nogil:
    """A free extent, or a span's free ones, shall not be where blobs move to."""
    cdef Extent* small
    if e.blob.flags & FREE:
        bin_out(e)
        e.blob.flags = HELD
        if e.span == NULL:
            A.taken += e.blob.capacity
    elif e.blob.flags & SPAN:
        small = (<Extent*>e.next).right
        while not small.blob.flags & END:
            hold(small)
            small = small.right


cdef Extent* unhold(Extent* e) noexcept nogil:
    """What was held is free; what the extent is part of now."""
    cdef Extent* small
    if e.blob.flags & HELD:
        return give(e)
    if e.blob.flags & SPAN:
        small = (<Extent*>e.next).right
        while not small.blob.flags & END:
            if small.blob.flags & HELD:
                small = give(small)
                if small.span == NULL:
                    return small  # the span was empty and is no more
            small = small.right
    return e


cdef bint empty_span(Extent* span, bint opens) noexcept nogil:
    cdef Extent* small = (<Extent*>span.next).right
    while not small.blob.flags & END:
        if not small.blob.flags & HELD:
            small = move_out(small, opens)
            if small == NULL:
                return False
        small = small.right
    return True


cdef bint empty_run(Extent* first, Extent* last, bint opens) noexcept nogil:
    """Moves the run's blobs elsewhere; False when one found no place, and then some may have moved."""
    cdef uint8_t* end = last.blob.data + last.blob.capacity
    cdef Extent* e = first
    cdef Extent* moved
    cdef bint emptied = True
    while True:
        hold(e)
        if e == last:
            break
        e = e.right
    e = first
    while emptied and not e.blob.flags & END and e.blob.data < end:
        if e.blob.flags & SPAN:
            emptied = empty_span(e, opens)
        elif not e.blob.flags & HELD:
            moved = move_out(e, opens)
            emptied = moved != NULL
            if emptied:
                if e == first:
                    first = moved
                e = moved
        e = e.right
    e = first
    while not e.blob.flags & END and e.blob.data < end:
        e = unhold(e).right
    return emptied


cdef void slide_run(Extent* first, Extent* last) noexcept nogil:
    """The run's blobs move down to its beginning, and its holes become one behind them."""
    cdef Extent* after = last.right
    cdef Extent* tail = first.left
    cdef Extent* hole = NULL
    cdef Extent* e = first
    cdef Extent* next
    cdef uint8_t* at = first.blob.data
    cdef size_t room = 0
    while e != after:
        next = e.right
        if e.blob.flags & FREE:
            bin_out(e)
            room += e.blob.capacity
            if hole == NULL:
                hole = e
            else:
                extent_drop(e, hole)
        else:
            if e.blob.data != at:
                memmove(at, e.blob.data, e.blob.capacity)
                if e.blob.flags & SPAN:
                    shift(e, at - e.blob.data)
                e.blob.data = at
                A.moved_blobs += 1
                A.moved_bytes += e.blob.capacity
            at += e.blob.capacity
            link(tail, e)
            tail = e
        e = next
    hole.blob.data = at
    hole.blob.capacity = room
    link(tail, hole)
    link(hole, after)
    make_free(hole)


# ---------------------------------------------------------------- room


cdef void squeeze_spans(size_t budget) noexcept nogil:
    """Spans less than half in use are emptied into the others."""
    cdef Extent* e = A.ends.right
    cdef Extent* next
    cdef Search s
    cdef size_t steps = SEARCH_STEPS
    cdef uint64_t cost = 0
    s.way = EMPTY
    s.steps = SEARCH_STEPS
    while steps and s.steps and not e.blob.flags & END:
        steps -= 1
        s.limit = budget
        next = e.right
        if e.blob.flags & SPAN and 2 * e.blob.size <= e.blob.capacity and weigh(&s, e, &cost) \
                and not span_stays(e):
            budget -= cost
            if next.blob.flags & FREE:  # or it may be gone
                next = next.right
            if not empty_run(e, e, False):
                return
        e = next


cdef void begin(Search* s, int way, size_t need, uint64_t limit) noexcept nogil:
    s.way = way
    s.need = need
    s.first = s.last = NULL
    s.cost = UINT64_MAX
    s.limit = limit


cdef void spend(size_t* budget, uint64_t moved_before) noexcept nogil:
    budget[0] -= min(budget[0], A.moved_bytes - moved_before)


cdef bint make_big_room(size_t need, size_t budget) noexcept nogil:
    cdef Search s
    cdef uint64_t moved = A.moved_bytes
    if find(False, need) != NULL:
        return True
    begin(&s, EMPTY, need, budget)
    if search_big(&s) and empty_run(s.first, s.last, True):
        return True
    spend(&budget, moved)
    if A.size - A.taken < need:
        moved = A.moved_bytes
        squeeze_spans(budget)
        if find(False, need) != NULL:
            return True
        spend(&budget, moved)
    begin(&s, SLIDE, need, budget)
    if not search_big(&s):
        return False
    slide_run(s.first, s.last)
    return True


cdef inline size_t whole_steps(size_t need) noexcept nogil:
    """What a big extent has that such a footprint is cut from."""
    return (need + BIG_STEP - 1) & ~<size_t>(BIG_STEP - 1)


cdef bint arena_make_room(size_t size, size_t move_bytes_max) noexcept nogil:
    cdef size_t need = arena_footprint(size)
    cdef Search s
    if size > A.size or A.size - A.used < need:
        return False
    if need < BIG_MIN:
        if find(True, need) != NULL:
            return True
        begin(&s, SLIDE, need, move_bytes_max)
        if find(False, whole_steps(need)) == NULL:
            search_spans(&s)
        if s.first != NULL:
            slide_run(s.first, s.last)
            return True
    return make_big_room(whole_steps(need), move_bytes_max)


# ---------------------------------------------------------------- doors


def make_room(size_t size, size_t move_bytes_max):
    return arena_make_room(size, move_bytes_max)
