"""Lua's patterns: find, match, gmatch and gsub, as the manual of Lua 5.1 (section 5.4.1) describes them.

Lua's own matcher can try for hours without running one instruction of the script, so nobody would ask whether the
script may go on; and it recurses on the C stack as often as the pattern has items. This one counts its steps and looks
at the clock after some, and its recursion is bounded by DEPTH_MAX. Plain searches take time in proportion to the text.
"""

from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int64_t
from libc.string cimport memcmp
from zeekdb.hot.lua_api cimport (
    LUA_GLOBALSINDEX, LUA_TFUNCTION, LUA_TNIL, LUA_TNUMBER, LUA_TSTRING, LUA_TTABLE, api, is_type, lua_State, pop,
    push_text, raise_text,
)
from zeekdb.hot.lua_guard cimport look
from zeekdb.hot.lua_text cimport Text, add, add_byte, begin_text

cdef extern from "<string.h>" nogil:
    void* memmem(const void* text, size_t n, const void* part, size_t m)
    char* strpbrk(const char* text, const char* any)

cdef extern from "<ctype.h>" nogil:
    int isalpha(int c)
    int iscntrl(int c)
    int isdigit(int c)
    int islower(int c)
    int ispunct(int c)
    int isspace(int c)
    int isupper(int c)
    int isalnum(int c)
    int isxdigit(int c)
    int tolower(int c)

cdef enum:
    CAPTURES_MAX = 32
    DEPTH_MAX = 2000         # items of a pattern that can be repeated, and captures, tried at the same time
    STEPS = 65536            # between two looks at the clock, well under a millisecond
    UNFINISHED = -1          # lengths of captures that have none
    POSITION = -2

ctypedef struct Match:
    lua_State* L
    const char* begin
    const char* end
    int64_t steps
    int depth
    int level                # captures, finished or not
    const char* starts[CAPTURES_MAX]
    ptrdiff_t lengths[CAPTURES_MAX]


cdef inline void count(Match* m, int64_t steps) noexcept nogil:
    m.steps += steps
    if m.steps >= STEPS:
        m.steps = 0
        look(m.L)


# ---------------------------------------------------------------- one character


cdef const char* class_end(Match* m, const char* p) noexcept nogil:
    """What follows the single-character class at p."""
    cdef char c = p[0]
    p += 1
    if c == b"%":
        if p[0] == 0:
            raise_text(m.L, b"malformed pattern (ends with '%')")
        return p + 1
    if c != b"[":
        return p
    if p[0] == b"^":
        p += 1
    while True:  # a ] in the first place stands for itself
        if p[0] == 0:
            raise_text(m.L, b"malformed pattern (missing ']')")
        c = p[0]
        p += 1
        if c == b"%" and p[0] != 0:
            p += 1
        if p[0] == b"]":
            return p + 1


cdef bint in_class(int c, int name) noexcept nogil:
    """%a and its kin; in upper case what is not in it."""
    cdef int lower = tolower(name)
    cdef bint found
    if lower == b"a":
        found = isalpha(c) != 0
    elif lower == b"c":
        found = iscntrl(c) != 0
    elif lower == b"d":
        found = isdigit(c) != 0
    elif lower == b"l":
        found = islower(c) != 0
    elif lower == b"p":
        found = ispunct(c) != 0
    elif lower == b"s":
        found = isspace(c) != 0
    elif lower == b"u":
        found = isupper(c) != 0
    elif lower == b"w":
        found = isalnum(c) != 0
    elif lower == b"x":
        found = isxdigit(c) != 0
    elif lower == b"z":
        found = c == 0
    else:
        return name == c
    return found if islower(name) else not found


cdef bint in_set(Match* m, int c, const char* p, const char* last) noexcept nogil:
    """[…] from p to its closing bracket at `last`."""
    cdef bint found = True
    count(m, last - p)
    if p[1] == b"^":
        found = False
        p += 1
    p += 1
    while p < last:
        if p[0] == b"%":
            p += 1
            if in_class(c, <unsigned char>p[0]):
                return found
        elif p[1] == b"-" and p + 2 < last:
            p += 2
            if <unsigned char>(p - 2)[0] <= c <= <unsigned char>p[0]:
                return found
        elif <unsigned char>p[0] == c:
            return found
        p += 1
    return not found


cdef inline bint is_single(Match* m, const char* s, const char* p, const char* after) noexcept nogil:
    """Whether the character at s is what the class from p to `after` says."""
    cdef int c
    if s >= m.end:
        return False
    c = <unsigned char>s[0]
    if p[0] == b".":
        return True
    if p[0] == b"%":
        return in_class(c, <unsigned char>p[1])
    if p[0] == b"[":
        return in_set(m, c, p, after - 1)
    return <unsigned char>p[0] == c


# ---------------------------------------------------------------- items


cdef const char* balanced(Match* m, const char* s, const char* p) noexcept nogil:
    cdef int open = 1
    if p[0] == 0 or p[1] == 0:
        raise_text(m.L, b"unbalanced pattern")
    if s >= m.end or s[0] != p[0]:
        return NULL
    s += 1
    while s < m.end:
        count(m, 1)
        if s[0] == p[1]:
            open -= 1
            if open == 0:
                return s + 1
        elif s[0] == p[0]:
            open += 1
        s += 1
    return NULL


cdef const char* most_first(Match* m, const char* s, const char* p, const char* after) noexcept nogil:
    """`*` and the rest of `+`."""
    cdef ptrdiff_t i = 0
    cdef const char* found
    while is_single(m, s + i, p, after):
        i += 1
        count(m, 1)
    while i >= 0:
        found = match_rest(m, s + i, after + 1)
        if found != NULL:
            return found
        i -= 1
    return NULL


cdef const char* fewest_first(Match* m, const char* s, const char* p, const char* after) noexcept nogil:
    """`-`."""
    cdef const char* found
    while True:
        found = match_rest(m, s, after + 1)
        if found != NULL:
            return found
        if not is_single(m, s, p, after):
            return NULL
        s += 1


cdef const char* open_capture(Match* m, const char* s, const char* p, ptrdiff_t what) noexcept nogil:
    cdef const char* found
    if m.level >= CAPTURES_MAX:
        raise_text(m.L, b"too many captures")
    m.starts[m.level], m.lengths[m.level] = s, what
    m.level += 1
    found = match_rest(m, s, p)
    if found == NULL:
        m.level -= 1
    return found


cdef const char* close_capture(Match* m, const char* s, const char* p) noexcept nogil:
    cdef const char* found
    cdef int i = m.level - 1
    while i >= 0 and m.lengths[i] != UNFINISHED:
        i -= 1
    if i < 0:
        raise_text(m.L, b"invalid pattern capture")
    m.lengths[i] = s - m.starts[i]
    found = match_rest(m, s, p)
    if found == NULL:
        m.lengths[i] = UNFINISHED
    return found


cdef const char* captured_again(Match* m, const char* s, int i) noexcept nogil:
    """%1 and its kin."""
    cdef size_t n
    i -= 49
    if i < 0 or i >= m.level or m.lengths[i] == UNFINISHED:
        raise_text(m.L, b"invalid capture index")
    if m.lengths[i] == POSITION:
        return NULL
    n = m.lengths[i]
    count(m, n)
    return s + n if <size_t>(m.end - s) >= n and memcmp(m.starts[i], s, n) == 0 else NULL


cdef bint at_frontier(Match* m, const char* s, const char* p, const char* after) noexcept nogil:
    cdef int before = 0 if s == m.begin else <unsigned char>(s - 1)[0]
    return not in_set(m, before, p, after - 1) and in_set(m, <unsigned char>s[0], p, after - 1)


cdef const char* match_rest(Match* m, const char* s, const char* p) noexcept nogil:
    """Where the text that the pattern at p matches ends, if it begins at s; NULL: it does not match."""
    cdef const char* found
    m.depth += 1
    if m.depth > DEPTH_MAX:
        raise_text(m.L, b"pattern too complex")
    found = match_items(m, s, p)
    m.depth -= 1
    return found


cdef const char* match_items(Match* m, const char* s, const char* p) noexcept nogil:
    cdef const char* after
    cdef const char* found
    while p[0]:
        if p[0] == b"(":
            return open_capture(m, s, p + 2, POSITION) if p[1] == b")" else open_capture(m, s, p + 1, UNFINISHED)
        if p[0] == b")":
            return close_capture(m, s, p + 1)
        if p[0] == b"$" and p[1] == 0:
            return s if s == m.end else NULL
        if p[0] == b"%" and p[1] == b"b":
            s = balanced(m, s, p + 2)
            if s == NULL:
                return NULL
            p += 4
            continue
        if p[0] == b"%" and p[1] == b"f":
            p += 2
            if p[0] != b"[":
                raise_text(m.L, b"missing '[' after '%f' in pattern")
            after = class_end(m, p)
            if not at_frontier(m, s, p, after):
                return NULL
            p = after
            continue
        if p[0] == b"%" and isdigit(<unsigned char>p[1]):
            s = captured_again(m, s, <unsigned char>p[1])
            if s == NULL:
                return NULL
            p += 2
            continue
        after = class_end(m, p)
        count(m, after - p)
        if after[0] == b"*":
            return most_first(m, s, p, after)
        if after[0] == b"-":
            return fewest_first(m, s, p, after)
        if after[0] == b"+":
            return most_first(m, s + 1, p, after) if is_single(m, s, p, after) else NULL
        if after[0] == b"?":
            if is_single(m, s, p, after):
                found = match_rest(m, s + 1, after + 1)
                if found != NULL:
                    return found
            p = after + 1
            continue
        if not is_single(m, s, p, after):
            return NULL
        s += 1
        p = after
    return s


cdef inline const char* match_at(Match* m, const char* s, const char* p) noexcept nogil:
    count(m, 1)
    m.level = m.depth = 0
    return match_rest(m, s, p)


# ---------------------------------------------------------------- captures


cdef int push_capture(Match* m, int i, const char* s, const char* e) noexcept nogil:
    """The i-th; the whole match when there are none."""
    if i >= m.level:
        if i:
            return raise_text(m.L, b"invalid capture index")
        api.pushlstring(m.L, s, e - s)
    elif m.lengths[i] == UNFINISHED:
        return raise_text(m.L, b"unfinished capture")
    elif m.lengths[i] == POSITION:
        api.pushnumber(m.L, <double>(m.starts[i] - m.begin + 1))
    else:
        api.pushlstring(m.L, m.starts[i], m.lengths[i])
    return 1


cdef int push_captures(Match* m, const char* s, const char* e) noexcept nogil:
    """All; the whole match when there are none and s is given."""
    cdef int i, n = 1 if m.level == 0 and s != NULL else m.level
    api.checkstack_or_raise(m.L, n, b"too many captures")
    for i in range(n):
        push_capture(m, i, s, e)
    return n


# ---------------------------------------------------------------- what scripts call


cdef int64_t whole(lua_State* L, int at, int64_t otherwise) noexcept nogil:
    cdef double value
    if api.type(L, at) <= LUA_TNIL:
        return otherwise
    value = api.checknumber(L, at)
    return <int64_t>value if -9e18 < value < 9e18 else -(<int64_t>1 << 62)


cdef int find_or_match(lua_State* L, bint finds) noexcept nogil:
    cdef Match m
    cdef size_t n = 0, k = 0
    cdef const char* found
    cdef const char* s
    cdef const char* p
    cdef int64_t begin
    cdef bint anchored
    m.L, m.steps = L, 0
    m.begin = api.checklstring(L, 1, &n)
    m.end = m.begin + n
    p = api.checklstring(L, 2, &k)
    begin = whole(L, 3, 1)
    begin = begin - 1 if begin >= 0 else begin + <int64_t>n
    s = m.begin + (0 if begin < 0 else (n if <size_t>begin > n else <size_t>begin))
    if finds and (api.toboolean(L, 4) or strpbrk(p, b"^$*+?.([%-") == NULL):
        found = <const char*>memmem(s, m.end - s, p, k)
        if found == NULL:
            api.pushnil(L)
            return 1
        api.pushnumber(L, <double>(found - m.begin + 1))
        api.pushnumber(L, <double>(found - m.begin + k))
        return 2
    anchored = p[0] == b"^"
    p += anchored
    while s <= m.end:
        found = match_at(&m, s, p)
        if found != NULL:
            if not finds:
                return push_captures(&m, s, found)
            api.pushnumber(L, <double>(s - m.begin + 1))
            api.pushnumber(L, <double>(found - m.begin))
            return push_captures(&m, NULL, NULL) + 2
        if anchored:
            break
        s += 1
    api.pushnil(L)
    return 1


cdef int match_find(lua_State* L) noexcept nogil:
    return find_or_match(L, True)


cdef int match_match(lua_State* L) noexcept nogil:
    return find_or_match(L, False)


cdef int next_match(lua_State* L) noexcept nogil:
    """The iterator: text, pattern and where to go on are its own."""
    cdef Match m
    cdef size_t n = 0
    cdef const char* p = api.tolstring(L, LUA_GLOBALSINDEX - 2, NULL)
    cdef const char* s
    cdef const char* found
    m.L, m.steps = L, 0
    m.begin = api.tolstring(L, LUA_GLOBALSINDEX - 1, &n)
    m.end = m.begin + n
    s = m.begin + <size_t>api.tonumber(L, LUA_GLOBALSINDEX - 3)
    while s <= m.end:
        found = match_at(&m, s, p)
        if found != NULL:
            api.pushnumber(L, <double>(found - m.begin + (found == s)))  # an empty match goes on by one
            api.replace(L, LUA_GLOBALSINDEX - 3)
            return push_captures(&m, s, found)
        s += 1
    return 0


cdef int match_gmatch(lua_State* L) noexcept nogil:
    api.checklstring(L, 1, NULL)
    api.checklstring(L, 2, NULL)
    api.settop(L, 2)
    api.pushnumber(L, 0)
    api.pushcclosure(L, next_match, 3)
    return 1


cdef void add_replacement(Match* m, Text* t, const char* s, const char* e) noexcept nogil:
    """The string at 3, with its %1."""
    cdef size_t n = 0, k = 0, i = 0
    cdef const char* p = api.tolstring(m.L, 3, &n)
    cdef const char* text
    count(m, n)
    while i < n:
        if p[i] != b"%":
            add_byte(m.L, t, p[i])
        else:
            i += 1  # behind the last character there is a zero
            if not isdigit(<unsigned char>p[i]):
                add_byte(m.L, t, p[i])
            elif p[i] == b"0":
                add(m.L, t, s, e - s)
            else:
                push_capture(m, p[i] - 49, s, e)
                text = api.tolstring(m.L, -1, &k)
                add(m.L, t, text, k)
                pop(m.L, 1)
        i += 1


cdef int bad_value(lua_State* L) noexcept nogil:
    cdef int type = api.type(L, -1)
    api.where(L, 1)
    push_text(L, b"invalid replacement value (a ")
    push_text(L, b"table" if type == LUA_TTABLE else (b"function" if type == LUA_TFUNCTION else (
        b"boolean" if type == 1 else (b"thread" if type == 8 else b"userdata"))))
    push_text(L, b")")
    api.concat(L, 4)
    return api.error(L)


cdef void add_value(Match* m, Text* t, const char* s, const char* e) noexcept nogil:
    """What stands for the match."""
    cdef lua_State* L = m.L
    cdef int type = api.type(L, 3)
    cdef size_t n = 0
    cdef const char* text
    if type == LUA_TSTRING or type == LUA_TNUMBER:
        add_replacement(m, t, s, e)
        return
    if type == LUA_TFUNCTION:
        api.pushvalue(L, 3)
        api.call(L, push_captures(m, s, e), 1)
    else:
        push_capture(m, 0, s, e)
        api.gettable(L, 3)
    if not api.toboolean(L, -1):
        add(L, t, s, e - s)
    elif is_type(L, -1, LUA_TSTRING) or is_type(L, -1, LUA_TNUMBER):
        text = api.tolstring(L, -1, &n)
        add(L, t, text, n)
    else:
        bad_value(L)
    pop(L, 1)


cdef int match_gsub(lua_State* L) noexcept nogil:
    cdef Match m
    cdef Text t
    cdef size_t n = 0
    cdef const char* s = api.checklstring(L, 1, &n)
    cdef const char* p = api.checklstring(L, 2, NULL)
    cdef const char* e
    cdef int type = api.type(L, 3)
    cdef int64_t most = <int><int64_t>whole(L, 4, <int64_t>n + 1) if api.type(L, 4) > LUA_TNIL else <int64_t>n + 1
    cdef int64_t made = 0
    cdef bint anchored = p[0] == b"^"
    if type != LUA_TNUMBER and type != LUA_TSTRING and type != LUA_TFUNCTION and type != LUA_TTABLE:
        return api.argerror(L, 3, b"string/function/table expected")
    api.settop(L, 3)
    begin_text(L, &t)
    m.L, m.begin, m.end, m.steps = L, s, s + n, 0
    p += anchored
    while made < most:
        e = match_at(&m, s, p)
        if e != NULL:
            made += 1
            add_value(&m, &t, s, e)
        if e != NULL and e > s:
            s = e
        elif s < m.end:
            add_byte(L, &t, s[0])
            s += 1
        else:
            break
        if anchored:
            break
    add(L, &t, s, m.end - s)
    api.pushlstring(L, t.data, t.size)
    api.pushnumber(L, <double>made)
    return 2
