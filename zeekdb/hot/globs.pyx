"""Redis's globs: `*`, `?`, `[a-z]`, `[^x]` and backslash, with its way of reading what is not quite a pattern."""

from libc.stdint cimport uint8_t


cdef inline uint8_t fold(uint8_t b, bint nocase) noexcept nogil:
    return b + 32 if nocase and 65 <= b <= 90 else b


cdef size_t match_class(const uint8_t* p, size_t n, uint8_t b, bint nocase, bint* hit) noexcept nogil:
    """A `[...]` whose `[` stands at p[0]: how many bytes it takes, and whether b is in it."""
    cdef size_t i = 1
    cdef bint negated = False, found = False
    cdef uint8_t low, high
    if i < n and p[i] == 94:
        negated = True
        i += 1
    while True:
        if i >= n:
            i -= 1  # unterminated: Redis takes what is there
            break
        if p[i] == 92 and i + 1 < n:
            i += 1
            if fold(p[i], nocase) == b:
                found = True
        elif p[i] == 93:
            break
        elif i + 2 < n and p[i + 1] == 45:
            low, high = p[i], p[i + 2]
            if low > high:
                low, high = high, low
            low, high = fold(low, nocase), fold(high, nocase)
            if low <= b <= high:
                found = True
            i += 2
        elif fold(p[i], nocase) == b:
            found = True
        i += 1
    hit[0] = found != negated
    return i + 1


cdef bint glob_matches(const uint8_t* p, size_t n, const uint8_t* t, size_t m, bint nocase) noexcept nogil:
    """Without recursion: a mismatch goes back to the last star only, so the work is at most n * m."""
    cdef size_t i = 0, j = 0, star_i = 0, star_j = 0, taken
    cdef bint star = False, hit
    cdef uint8_t b
    if m == 0:
        return n == 0 or (n == 1 and p[0] == 42)  # Redis finds the empty key by `*`, not by `**`
    while j < m:
        b = fold(t[j], nocase)
        if i < n:
            if p[i] == 42:
                while i < n and p[i] == 42:
                    i += 1
                if i == n:
                    return True
                star, star_i, star_j = True, i, j
                continue
            taken = 1
            if p[i] == 63:
                hit = True
            elif p[i] == 91:
                taken = match_class(p + i, n - i, b, nocase, &hit)
            elif p[i] == 92 and i + 1 < n:
                taken = 2
                hit = fold(p[i + 1], nocase) == b
            else:
                hit = fold(p[i], nocase) == b
            if hit:
                i += taken
                j += 1
                continue
        if not star:
            return False
        star_j += 1
        i, j = star_i, star_j
    while i < n and p[i] == 42:
        i += 1
    return i >= n
