"""The door to Lua: conversions, errors, time, memory, and that nothing which one script does is seen by the next."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.scripting.lua_desk import Desk
from zeekdb.errors import CommandError
from zeekdb.hot.lua import ScriptError
from zeekdb.hot.replies import BigNumber, Error, Pairs, Verbatim


@pytest.fixture
def desk() -> Desk:
    return Desk()


# --- conversions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "reply"),
    [
        ("return 1", 1), ("return 3.99", 3), ("return -3.99", -3), ("return 'x\\0y'", b"x\0y"), ("return true", 1),
        ("return false", None), ("return nil", None), ("return", None), ("return {1, 'a', {2}}", [1, b"a", [2]]),
        ("return {1, nil, 3}", [1]), ("return {}", []), ("return {ok = 'FINE'}", "FINE"), ("return KEYS", [b"k1",
        b"k2"]),
        ("return {double = 1.5}", 1.5), ("return 2^63", -(2**63)), ("return 0/0", -(2**63)), ("return print", None),
        ("return string.len", None), ("return {string.len}", [None]),
    ],
)  # fmt: skip
def test_what_scripts_return(desk: Desk, source: str, reply: Any) -> None:
    if "print" in source:
        assert "nonexistent global variable 'print'" in desk.fails(source)
        return
    found = desk.run(source)
    assert found == reply
    assert type(found) is type(reply)


def test_resp3_from_scripts(desk: Desk) -> None:
    assert desk.run("redis.setresp(3) return {true, false}", protocol=3) == [True, False]
    pairs = desk.run("return {map = {a = 1}}")
    assert isinstance(pairs, Pairs)
    assert list(pairs.items) == [(b"a", 1)]
    assert list(desk.run("return {set = {a = true}}")) == [b"a"]
    big = desk.run("return {big_number = '12'}")
    assert isinstance(big, BigNumber)
    text = desk.run("return {verbatim_string = {string = 'x', format = 'txt'}}")
    assert isinstance(text, Verbatim)
    assert text.data == b"x"


@pytest.mark.parametrize(
    ("reply", "two", "three"),
    [
        (b"x", "string:x", "string:x"), (5, "number:5", "number:5"), (None, "boolean:false", "nil:nil"),
        (True, "number:1", "boolean:true"), ("OK", "{ok=string:OK}", "{ok=string:OK}"), (1.5, "string:1.5",
        "{double=number:1.5}"),
        ({b"a": 1}, "{1=string:a,2=number:1}", "{map={a=number:1}}"),
        ([b"a", None], "{1=string:a,2=boolean:false}", "{1=string:a}"),
        ({b"a"}, "{1=string:a}", "{set={a=boolean:true}}"),
    ],
)  # fmt: skip
def test_what_commands_answer(desk: Desk, reply: Any, two: str, three: str) -> None:
    show = """
        local function show(v)
          if type(v) ~= 'table' then return type(v) .. ':' .. tostring(v) end
          local r = {}
          for k, x in pairs(v) do r[#r + 1] = tostring(k) .. '=' .. show(x) end
          table.sort(r)
          return '{' .. table.concat(r, ',') .. '}'
        end
        return show(redis.call('x'))
    """
    desk.reply = lambda _: reply
    assert desk.run(show) == two.encode()
    assert desk.run("redis.setresp(3)" + show) == three.encode()


def test_arguments_of_calls(desk: Desk) -> None:
    desk.run("return redis.call('a', 1, 1.5, -2, 1e20, 'x\\0y')")
    assert desk.calls == [[b"a", b"1", b"1.5", b"-2", b"1e+20", b"x\0y"]]
    assert "must be strings or integers" in desk.fails("return redis.call('a', {})")
    assert "at least one argument" in desk.fails("return redis.call()")


def test_replies_find_room_beside_many_arguments(desk: Desk) -> None:
    deep: list[Any] = []
    for _ in range(50):
        deep = [deep, {b"a": [1]}]
    desk.reply = lambda _: deep
    desk.run("local t = {} for i = 1, 7990 do t[i] = i end redis.setresp(3) redis.call(unpack(t))")


# --- errors -----------------------------------------------------------------------------------------------------------


def test_errors(desk: Desk) -> None:
    assert desk.fails("error('boom')") == "ERR user_script:1: boom script: f_name, on @user_script:1."
    assert desk.fails("\n\nerror({err = 'MY own'})") == "MY own script: f_name, on @user_script:3."
    assert desk.fails("return {err = 'MY own'}") == "MY own"
    assert "user_script:1:" in desk.fails("retur 1")
    assert "nonexistent global variable 'x'" in desk.fails("return x")

    def fail(_: list[bytes]) -> Any:
        raise CommandError("WRONGTYPE of key")

    desk.reply = fail
    with pytest.raises(ScriptError) as caught:
        desk.run("return redis.call('x')")
    assert caught.value.message.startswith("WRONGTYPE of key script: f_name")
    assert caught.value.counted
    assert desk.run("return redis.pcall('x').err") == b"WRONGTYPE of key"
    assert desk.run("return {pcall(redis.call, 'x')}") == [None, b"WRONGTYPE of key"]
    desk.reply = lambda _: Error("ERR nested")
    assert desk.fails("return redis.call('x')").startswith("ERR nested")


def test_errors_of_every_type(desk: Desk) -> None:
    for value in ("nil", "1", "true", "{}", "{err = {}}", "error", "_G", "string", "coroutine.create(error)"):
        assert desk.fails(f"error({value})").startswith("ERR")
    assert desk.run("return rawget(string, 'line') == nil and rawget(_G, 'source') == nil") == 1


def test_replies_too_deep_or_too_large(desk: Desk) -> None:
    assert desk.fails("local t = {} t[1] = t return t") == "ERR reached lua stack limit"
    assert "reply of a script is too large" in desk.fails("local t = {1} for i = 1, 60 do t = {t, t} end return t")
    large = "local s = ('x'):rep(1e7) local t = {} for i = 1, 7000 do t[i] = s end return redis.call(unpack(t))"
    assert "too large" in desk.fails(large)


# --- the sandbox ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "rawset(_G, 'x', 1)", "rawset(string, 'x', 1)", "_G.x = 1", "x = 1", "string.x = 1", "setmetatable(_G, {})",
        "setmetatable(string, {})", "table.insert(string, 1)", "table.sort(redis)", "getmetatable('').__index = {}",
        "getmetatable('').__index.rep = 1", "rawset(getmetatable(''), '__index', 1)", "redis.call = 1", "bit.band = 1",
        "setmetatable(getmetatable(_G), {})", "table.remove(cjson)", "rawset(math, 'pi', 3)", "KEYS = 1",
    ],
)  # fmt: skip
def test_globals_cannot_be_changed(source: str) -> None:
    for _ in range(5):  # however many interpreters there are
        desk = Desk()
        assert desk.fails(source)
        assert desk.run("return {rawget(_G, 'x') == nil, ('x'):rep(2), type(redis.call)}") == [1, b"xx", b"function"]


def test_an_own_table_is_not_taken_for_a_protected_one() -> None:
    for _ in range(20):
        Desk()
    assert Desk().run("local t for i = 1, 1e5 do t = {} rawset(t, 1, 1) table.insert(t, 2) end return #t") == 2


def test_globals_can_be_walked(desk: Desk) -> None:
    assert desk.run("local n = 0 for k in pairs(string) do n = n + 1 end return n > 10") == 1
    assert desk.run("local n = 0 for k in next, _G do n = n + 1 end return n > 20") == 1
    assert desk.run("return rawget(_G, 'string').rep('x', 2)") == b"xx"


@pytest.mark.parametrize("name", ["io", "debug", "require", "dofile", "loadfile", "setfenv", "getfenv", "newproxy"])
def test_what_is_not_there(desk: Desk, name: str) -> None:
    assert f"nonexistent global variable '{name}'" in desk.fails(f"return {name}")
    assert desk.run("local n = 0 for k in pairs(os) do n = n + 1 end return n") == 1


def test_compiled_code_is_refused(desk: Desk) -> None:
    assert desk.run("return loadstring(string.dump(function() end)) == nil") == 1
    assert desk.run("local n = 0 return load(function() n = n + 1 return n == 1 and '\\27Lua' or nil end) == nil") == 1
    assert desk.run("return loadstring('return 7')()") == 7
    with pytest.raises(ScriptError):
        desk.lua.compile(b"\x1bLua", b"@x")


def test_functions_that_lua_51_writes_too_far_for(desk: Desk) -> None:
    names = ", ".join(f"p{number}" for number in range(11))
    source = f"local function f({names}, ...) return ... end"
    assert desk.fails(source) == "too many parameters before '...'"
    assert "too many parameters" in desk.fails(f"local t = {{function() return function() {source} end end}}")
    assert desk.run(f"local f, why = loadstring('{source}') return why") == b"too many parameters before '...'"
    fewer = names.rpartition(",")[0]
    assert desk.run(f"local function f({fewer}, ...) return select('#', ...) end return f(unpack({{}}, 1, 15))") == 5
    assert desk.run(f"local function f({names}, p12) return p1 end return f(7, 8)") == 8
    every = "local a, b = 1.5, 'x' local c = function() return a, b, true, nil, {} end return #tostring(c) > 0"
    assert desk.run(every) == 1


# --- time and memory --------------------------------------------------------------------------------------------------

ENDLESS = [
    "while true do end",
    "while true do pcall(function() while true do end end) end",
    "xpcall(function() while true do end end, function() while true do end end)",
    "local function f() while true do pcall(coroutine.wrap(function() f() end)) end end f()",
    "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
    "return ('a'):rep(50000):find(('a-'):rep(100) .. 'b')",
    "return ('x'):rep(1e6):find('[' .. ('y'):rep(1e6) .. ']*z')",
    "local t = {} for i = 1, 1e6 do t[i] = i end for i = 1, 1e6 do t[i] = nil end while true do next(t) end",
    "local t = {1} for i = 1, 60 do t = {t, t} end return cjson.encode(t)",
    "local t = {} for i = 1, 2e5 do t[i] = i end while true do table.insert(t, 1, 0) end",
    "local s = ('x'):rep(5e6) while true do local a = s .. 'x' end",
    "while true do collectgarbage() end",
]


@pytest.mark.parametrize("source", ENDLESS)
def test_nothing_outlives_the_end(desk: Desk, source: str) -> None:
    desk.limit_s = 0.02
    assert desk.fails(source).startswith("ERR killed")
    desk.limit_s = 20
    counts = "local n = 0 for i = 1, 1e5 do n = n + 1 end return coroutine.wrap(function() return n end)()"
    assert desk.run(counts) == 100_000


def test_what_would_take_for_ever_is_refused(desk: Desk) -> None:
    assert desk.run("return string.rep('', 2147483647)") == b""
    assert "out of bounds" in desk.fails("table.insert({}, -2147483648, 1)")
    assert "pattern too complex" in desk.fails("return ('a'):rep(9999):find(('a?'):rep(9999))")
    assert desk.run("return ('a'):rep(1e6):find(('a'):rep(5e5) .. 'b', 1, true)") is None


@pytest.mark.parametrize(
    "source",
    [
        "return string.rep('x', 1e9)", "local s = 'x' while true do s = s .. s end",
        "local t = {} while true do t[#t + 1] = {} end",
        "local t = {} while true do t[#t + 1] = coroutine.create(function() end) end",
        "local t = {} for i = 1, 100 do t[i] = t end return cmsgpack.pack(t)",
    ],
)  # fmt: skip
def test_memory_has_a_limit_and_the_next_script_has_all_of_it(desk: Desk, source: str) -> None:
    for _ in range(2):
        assert "not enough memory" in desk.fails(source)
    assert desk.run("return #string.rep('x', 2e7)") == 20_000_000
    desk.lua.collect()
    assert desk.lua.memory_used < 1 << 20


def test_the_collector_stays_on(desk: Desk) -> None:
    desk.run("collectgarbage('stop') collectgarbage('setpause', 1000000)")
    assert desk.run("for i = 1, 1000 do local s = ('x'):rep(1e6) .. i end return 1") == 1


# --- coroutines, xpcall and patterns, which are ours ------------------------------------------------------------------


def test_coroutines(desk: Desk) -> None:
    assert desk.run("local c = coroutine.create(function(a) local b = coroutine.yield(a + 1) return b * 2 end) "
                    "local r = {coroutine.resume(c, 1)} local s = {coroutine.resume(c, 5)} "
                    "return {r[2], s[2], coroutine.status(c), select(2, coroutine.resume(c))}") == [
        2, 10, b"dead", b"cannot resume dead coroutine"]  # fmt: skip
    assert desk.run("local c = coroutine.wrap(function() error('x') end) return select(2, pcall(c))").endswith(b": x")
    assert desk.run("local c c = coroutine.create(function() return coroutine.resume(c) end) "
                    "return select(3, coroutine.resume(c))") == b"cannot resume running coroutine"  # fmt: skip
    assert "stack overflow" in desk.fails("local function f() return coroutine.wrap(f)() end f()")
    assert desk.run("return coroutine.wrap(function() return redis.call('a') end)()") == [b"a"]


def test_xpcall(desk: Desk) -> None:
    assert desk.run("return {xpcall(function() return 1, 2 end, error)}") == [1, 1, 2]
    assert desk.run("return {xpcall(function() error('a', 0) end, function(e) return e .. '!' end)}") == [None, b"a!"]
    assert desk.run("return {xpcall(function() error('a', 0) end, error)}") == [None, b"a"]


@pytest.mark.parametrize(
    ("call", "reply"),
    [
        ("('hello world'):find('o w')", [5, 7]), ("('hello'):find('l')", [3, 3]), ("('hello'):find('xyz')", [None]),
        ("('hello'):find('')", [1, 0]), ("('hello'):find('', 10)", [6, 5]), ("('hello'):find('h', -3)", [None]),
        ("('a+b'):find('+', 1, true)", [2, 2]), ("('key = val'):match('(%w+)%s*=%s*(%w+)')", [b"key", b"val"]),
        ("('hello'):match('()ll()')", [3, 5]), ("('abc'):match('^b')", [None]), ("('abc'):match('c$')", [b"c"]),
        ("('THE (quick) fox'):find('%((%a+)%)')", [5, 11, b"quick"]), ("('x(a(b)c)y'):match('%b()')", [b"(a(b)c)"]),
        ("('THE (quick) fox'):gsub('%f[%a]%a+', 'W')", [b"W (W) W", 3]), ("('abab'):match('(.)b%1')", [b"a"]),
        ("('hello'):gsub('', '-')", [b"-h-e-l-l-o-", 6]), ("('hello'):gsub('l', {l = 'L'})", [b"heLLo", 2]),
        ("('hello'):gsub('(h)(e)', '%2%1%0%%')", [b"ehhe%llo", 1]), ("('abc'):gsub('%w', '%0%0', 2)", [b"aabbc", 2]),
        ("('abc'):gsub('.', function(c) if c == 'b' then return 1 end end)", [b"a1c", 3]),
        ("('a]b'):match('[]]')", [b"]"]),
        ("('a-b'):match('[a-]+')", [b"a-"]), ("('x9'):match('[^%d]')", [b"x"]), ("('aaa'):match('a-')", [b""]),
        ("('aaab'):match('a-b')", [b"aaab"]), ("('ab'):match('ab?c?')", [b"ab"]), ("('\\0a'):match('%z(.)')", [b"a"]),
        ("('\\255'):match('[\\200-\\255]')", [b"\xff"]),
    ],
)  # fmt: skip
def test_patterns(desk: Desk, call: str, reply: list[Any]) -> None:
    assert desk.run(f"local t = {{{call}}} for i = 1, #t do if t[i] == nil then t[i] = false end end return t") == (
        [] if reply == [None] else reply
    )


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("[", "missing ']'"), ("%", "ends with '%'"), ("(", "unfinished capture"), (")", "invalid pattern capture"),
        ("%1", "invalid capture index"), ("%f", "missing '['"), ("%b", "unbalanced pattern"),
        ("(" * 33, "too many captures"),
    ],
)  # fmt: skip
def test_damaged_patterns(desk: Desk, pattern: str, why: str) -> None:
    assert why in desk.fails(f"return ('aaa'):match('{pattern}')")
