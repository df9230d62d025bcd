"""Random scripts and function libraries: commands from within, conversions both ways, the libraries, errors.

What a script finds out is shown by a function of its own, with the keys of tables in order, because Lua's have none.
Left out is what both servers' Lua would do for long, and `error({})` outside a pcall, which ends redis-server 7.0.15.
"""

from __future__ import annotations

import random
from typing import Any

from tests.differential.grammar import Pools

SHOW = (
    b"local function show(v, d) d = d or 0 if d > 8 then return '...' end local t = type(v) if t == 'table' then "
    b"local r = {} for k, x in pairs(v) do r[#r + 1] = show(k, d + 1) .. '=' .. show(x, d + 1) end table.sort(r) "
    b"return '{' .. table.concat(r, ',') .. '}' elseif t == 'string' then return string.format('%q', v) "
    b"elseif t == 'number' then return string.format('%.17g', v) elseif t == 'boolean' or t == 'nil' then "
    b"return tostring(v) end return t end "
)

FUNCTIONS = str.split("""
    string.byte string.char string.find string.find string.format string.gsub string.gsub string.len string.lower
    string.match string.match string.rep string.reverse string.sub string.upper tonumber type select unpack rawequal
    rawget table.concat table.maxn table.getn ipairs next math.abs math.ceil math.floor math.fmod math.max math.min
    math.modf math.pow math.frexp math.ldexp math.sqrt cjson.encode cjson.decode cjson.decode cmsgpack.pack
    cmsgpack.unpack cmsgpack.unpack_one cmsgpack.unpack_limit struct.pack struct.pack struct.unpack struct.unpack
    struct.size bit.tobit bit.band bit.bor bit.bxor bit.bnot bit.lshift bit.rshift bit.arshift bit.rol bit.ror
    bit.bswap bit.tohex redis.error_reply redis.status_reply redis.sha1hex redis.call redis.pcall redis.setresp
    getmetatable assert error loadstring
""")

VALUES = str.split("""
    nil true false 0 1 -1 2 3 4 7 31 32 255 256 1.5 -0.5 1e15 2^31 -2^31 2^32 2^53 1e300 -7 65 100 '' 'a' 'abc' 'hello'
    'k=v' 'a,b,,c' '10' '0x1F' '-5' '1e2' '\\0\\1\\255' 'x\\0y' ('ab'):rep(20) ('x'):rep(300) '(%w+)' '(%w)=(%w)' '%d*'
    '[a-c]+' '[^,]*' '^a' 'c$' '.-b' '()' '%f[%w]%w' '%bab' '(.)%1' '[' '%' '(' ')' '%1' '[]]' '[%a-]' 'a?b*c+' '%s%d'
    '%5.2f' '%x' '%q' '%-5s|' '%c' '%i' '%g' '%e' '%%' '%y' {} {1,2,3} {'a','b'} {1,nil,3} {a=1} {{}} {{1},{2}} {[3]=1}
    {[1]=1,[2]=2,[5]=3} {err='ERR\\32x'} {ok='fine'} '[1,2,3]' '{"a":[true,false,null]}' '"\\\\u00e9\\\\n"' '[1,]'
    '{"a"}' '[' 'nul' '1.5e3' '"abc' '[{},[]]' '\\146\\1\\163abc' '\\129\\161a\\1' '\\203' '\\192' '\\218\\0\\1a'
    '\\220\\0\\2\\1\\2' '\\208\\128' '\\202\\63\\128\\0\\0' '<i4' '>I2' 'bBhH' 'f' 'd' 's' 'c3' 'c0' '!4bi4' '>d<d' 'i3'
    'i33' 'L' 'x' ' ' 'z' 'abcdefgh' 'count' '#' cjson.null redis.call KEYS ARGV 'get' 'set' 'echo' 'incr' 'ping'
""")

COMMANDS = str.split("""
    'set','s1','v' | 'set',KEYS[1],ARGV[1] | 'get','s1' | 'get','none' | 'incr','s2' | 'incrbyfloat','s2','1.5' |
    'append','s3','x' | 'strlen','s3' | 'hset','h1','a','1' | 'hget','h1','a' | 'hgetall','h4' | 'hset','h4','f','v' |
    'rpush','l1','a','b' | 'lrange','l1','0','-1' | 'lpop','l1' | 'lpop','none' | 'sadd','t4','x' | 'smembers','t4' |
    'zadd','z1','1','m' | 'zscore','z1','m' | 'zrange','z4','0','-1','withscores' | 'zadd','z4','2','q' | 'del','s1' |
    'type','l1' | 'exists','s1','s2' | 'ttl','s1' | 'expire','s1','1000' | 'mget','s1','none','h1' | 'lpush','s1','x' |
    'ping' | 'echo','e' | 'select','1' | 'dbsize' | 'multi' | 'eval','return 1','0' | 'subscribe','c' | 'nosuch' |
    'get' | 'get','a','b' | 'blpop','none','0' | 'blpop','l1','0' | 'setrange','s3','1','z' | 'getrange','s3','0','2' |
    'incrby','s2',3 | 'incrby','s2',1.5 | 'set','s2',10 | 'set','s1',1e20 | 'set','s1',-0.25 | 'object','help','x' |
    'hello','3' | 'bitcount','s1' | 'zmpop','1','z4','min' | 'debug','sleep','0' | 'watch','k' | 'publish','c','m'
""", "|")


def _value(r: random.Random) -> str:
    return r.choice(VALUES)


def _call(r: random.Random) -> str:
    function = r.choice(FUNCTIONS)
    arguments = [_value(r) for _ in range(r.choice((0, 1, 1, 2, 2, 2, 3, 3, 4)))]
    if function == "string.rep":
        arguments = [_value(r), str(r.randint(-2, 20))]
    if function in ("redis.call", "redis.pcall"):
        arguments = [r.choice(COMMANDS).strip()]
    return f"{function}({', '.join(arguments)})"


def _shown(r: random.Random) -> str:
    function, _, arguments = _call(r).partition("(")
    comma = ", " if arguments != ")" else ""
    return f"return show({{pcall({function}{comma}{arguments}}})"


def _reply(r: random.Random, depth: int = 0) -> str:
    """What a script may return, of every kind."""
    draw = r.randrange(16 if depth < 3 else 9)
    if draw >= 12:
        return "{" + ", ".join(_reply(r, depth + 1) for _ in range(r.randint(0, 4))) + "}"
    return [
        "nil", "true", "false", str(r.randint(-5, 5)), "3.99", "'text'", "-2.5", "1e19", "{ok = 'STATUS'}",
        "{err = 'MY error'}", "{double = 3.5}", "{map = {a = " + _reply(r, depth + 1) + "}}" if depth < 3 else "1",
    ][draw]  # fmt: skip


def _body(r: random.Random) -> bytes:
    command = r.choice(COMMANDS).strip()
    draw = r.randrange(12)
    if draw < 4:
        return SHOW + _shown(r).encode()
    text = {
        4: f"return redis.call({command})",
        5: f"return redis.pcall({command})",
        6: f"redis.setresp({r.choice('23')}) return redis.call({command})",
        7: f"return {_reply(r)}",
        8: f"redis.setresp(3) return {_reply(r)}",
        9: f"local x = redis.pcall({command}) local y = redis.call({r.choice(COMMANDS).strip()}) return {{x, y}}",
        10: r.choice((
            "error('boom')", "error('boom', 0)", "error({err = 'ERR mine'})", "return x", "x = 1", "return KEYS",
            "ARGV = 1",
            "return ARGV", "return {KEYS[1], ARGV[2], #KEYS, #ARGV}", "return redis.error_reply('E x')", "retur 1",
            "return redis.status_reply('S')", "return _G.redis.call('ping')", "return redis.sha1hex(ARGV[1] or '')",
            "return {pcall(error, {err = 'E'})}", "redis.call('set', 's1', 'a') error('after')", "string.x = 1",
            "for i = 1, 10 do redis.call('rpush', 'l2', i) end return redis.call('lrange', 'l2', 0, -1)",
            "return redis.call('set', KEYS[1], ARGV[1])", "redis.set_repl(redis.REPL_ALL) return redis.REPL_ALL",
            "return coroutine.wrap(function() coroutine.yield(1) end)()", "return tostring(nil) .. 1",
        )),
        11: "return select(2, pcall(function() local a = " + _value(r) + " return a.b end)) == nil",
    }[draw]  # fmt: skip
    return text.encode()


def _script(r: random.Random) -> bytes:
    head = b""
    if r.random() < 0.05:
        head = r.choice([b"#!lua\n", b"#!lua flags=no-writes\n", b"#!lua flags=allow-oom,no-writes\n", b"#!js\n",
                         b"#!lua flags=x\n", b"#!lua name=x\n", b"#!lua"])  # fmt: skip
    return head + _body(r)


def _library(r: random.Random) -> bytes:
    name = r.choice([b"one", b"two", b"three"])
    function = r.choice([b"f", b"g", b"h", b"F"])
    flags = r.choice([b"", b"", b", flags={'no-writes'}", b", flags={'allow-oom', 'allow-stale'}", b", flags={'x'}",
                      b", description='what it does'"])  # fmt: skip
    body = b"function(keys, args) " + _body(r).replace(b"KEYS", b"keys").replace(b"ARGV", b"args") + b" end"
    draw = r.random()
    if draw < 0.1:
        return r.choice([b"", b"#!lua", b"#!lua\nreturn 1", b"#!lua name=one\nreturn 1", b"#!lua name=a-b\n",
        b"return 1",
                         b"#!js name=one\n", b"#!lua name=one x=y\n", b"#!lua name=one\nredis.call('ping')",
                         b"#!lua name=one name=two\n", b"#!lua name=one\nlocal x = y", b"#!lua name=one\nx = 1",
                         b"#!lua name=one\nredis.register_function('a b', function() end)",
                         b"#!lua name=one\nredis.register_function('f')"])  # fmt: skip
    if draw < 0.4:
        return b"#!lua name=" + name + b"\nredis.register_function('" + function + b"', " + body + b")"
    return (
        b"#!lua name=" + name + b"\nredis.register_function{function_name='" + function + b"', callback=" + body
        + flags + b"}"
    )  # fmt: skip


def _sha(r: random.Random) -> bytes:
    one = b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db"  # return 1
    return r.choice([one, one.upper(), b"0" * 40, b"x"])


POOLS: Pools = {
    "loaded_script": lambda r: b"return 1" if r.random() < 0.5 else _script(r),
    "script": _script, "library": _library, "sha": _sha,
    "function": lambda r: r.choice([b"f", b"g", b"h", b"F", b"none"]),
    "library_name": lambda r: r.choice([b"one", b"two", b"three", b"t*", b"*", b"none"]),
    "script_key": lambda r: r.choice([b"s1", b"s2", b"h1", b"l1", b"k", b""]),
    "script_word": lambda r: r.choice([b"1", b"v", b"", b"10", b"word", b"-1"]),
    "key_count": lambda r: r.choice([b"0", b"1", b"2", b"-1", b"9", b"x", b""]),
}  # fmt: skip

WEIGHT = 4
TEMPLATES = """
    EVAL <script> 0
    EVAL <script> 0 (<script_word>)+
    EVAL <script> 1 <script_key> <script_word>
    EVAL <script> 1 <script_key> <script_word>
    EVAL <script> #(<script_key>)+
    EVAL <script> <key_count> <script_key>
    EVAL_RO <script> 1 <script_key> <script_word>
    EVAL_RO <script> 0
    (EVALSHA|EVALSHA_RO) <sha> 0
    SCRIPT LOAD <loaded_script>
    SCRIPT EXISTS (<sha>)+
    SCRIPT (FLUSH|KILL|FOO)
    FUNCTION LOAD <library>
    FUNCTION LOAD REPLACE <library>
    FUNCTION LOAD REPLACE <library>
    FCALL <function> 1 <script_key> <script_word>
    FCALL <function> 0
    FCALL_RO <function> 1 <script_key> <script_word>
    FCALL <function> <key_count> <script_key>
    FUNCTION LIST [LIBRARYNAME <library_name>] [WITHCODE]
    FUNCTION DELETE <library_name>
    FUNCTION (STATS|KILL|FOO)
    FUNCTION FLUSH [SYNC|ASYNC|FOO]
"""


def same_libraries(command: tuple[bytes, ...], expected: Any, actual: Any) -> bool:
    """FUNCTION LIST, in whatever order."""

    def in_order(tree: Any) -> Any:
        if isinstance(tree, (list, tuple)):
            items = [in_order(item) for item in tree]
            return sorted(items, key=repr) if isinstance(tree, list) else tuple(items)
        return tree

    return command[1:2] != () and command[1].upper() == b"LIST" and in_order(expected) == in_order(actual)
