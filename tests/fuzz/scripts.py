"""Fuzzes the interpreter with hostile scripts: known tricks, random calls of everything, damaged source.

    python -m tests.fuzz.scripts --minutes 5 --seed 7
    python -m tests.fuzz.scripts --seed 7 --first 123 --count 1

After each script the process must live, the sandbox's globals must be what they were, and a simple script must
answer. Scripts run in a process of their own, so that one that ends it is known by its number.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import logging
import multiprocessing
import random
import sys
import time
from multiprocessing.sharedctypes import Synchronized
from typing import Any

from tests.fuzz.tricks import TRICKS, VALUES
from zeekdb.errors import CommandError
from zeekdb.hot.lua import Interpreter, ScriptError

MEMORY_LIMIT = 64 << 20
SCRIPT_LIMIT_S = 0.05
HELD_MAX_S = 4.0  # CPU seconds of one script: what no look at the clock interrupts
SCRIPTS_PER_INTERPRETER = 2000

# Every global and what it holds, to the ground, with the addresses of functions; KEYS and ARGV are new each time.
WALK = b"""
local found, seen = {}, {}
local function walk(path, value)
  if value == KEYS or value == ARGV then return end
  found[#found + 1] = path .. ' ' .. tostring(value)
  local inner = getmetatable(value)
  if inner ~= nil and not seen[inner] then
    seen[inner] = true
    found[#found + 1] = path .. ' meta ' .. tostring(inner)
    if type(inner) == 'table' then
      for k, v in pairs(inner) do walk(path .. '!' .. tostring(k), v) end
    end
  end
  if type(value) == 'table' and not seen[value] then
    seen[value] = true
    for k, v in pairs(value) do walk(path .. '.' .. tostring(k), v) end
    for _, k in ipairs({1, 'line', 'source', 'err', 'x', '__index'}) do
      found[#found + 1] = path .. '/' .. k .. ' ' .. tostring(rawget(value, k))
    end
  end
end
walk('_G', _G)
walk('""', '')
table.sort(found)
return table.concat(found, '\\n')
"""
SIMPLE = b"return {KEYS[1], ARGV[1] + 1, ('x'):rep(3), #{1, 2}, redis.call('echo', 'y'), cjson.encode({1})}"
ANSWER = [b"k", 2, b"xxx", 2, b"y", b"[1]"]


class Finding(Exception):
    """The sandbox did not hold."""


class Room:
    """One interpreter, and what it must stay."""

    def __init__(self) -> None:
        self.lua = Interpreter(MEMORY_LIMIT)
        self.lua.on_call = self._call
        self.lua.on_register = lambda *_: None
        self.lua.on_log = lambda *_: None
        self.lua.on_permission = lambda _: True
        self.lua.on_time = self._time
        self.end_s = 0.0
        self.walk = self.lua.compile(WALK, b"@walk")
        self.simple = self.lua.compile(SIMPLE, b"@simple")
        self.globals = self.run(self.walk)
        assert isinstance(self.globals, bytes), self.globals

    def _time(self) -> bytes | None:
        return b"ERR time" if time.monotonic() > self.end_s else None

    @staticmethod
    def _call(words: list[bytes]) -> Any:
        match words[0].lower():
            case b"echo":
                return words[-1]
            case b"deep":
                reply: list[Any] = []
                for _ in range(20):
                    reply = [reply, {b"a": 1.5}, None, {1, 2}]
                return reply
            case b"fail":
                raise CommandError("ERR asked to fail\r\nhere")
            case b"broken":
                raise RuntimeError("a bug in a command")
        return words

    def run(self, reference: int, protocol: int = 2) -> Any:
        """The reply, or the error as text."""
        self.end_s = time.monotonic() + SCRIPT_LIMIT_S
        try:
            return self.lua.execute(reference, (b"k", b"1"), 0, 1, b"f_fuzz", protocol, False)
        except ScriptError as error:
            return error.message

    def try_script(self, source: bytes, protocol: int) -> None:
        """Finding when afterwards something is not as it was."""
        begin_s = time.process_time()
        try:
            reference = self.lua.compile(source, b"@user_script")
        except ScriptError:
            pass
        else:
            self.run(reference, protocol)
            self.lua.release(reference)
        if time.process_time() - begin_s > HELD_MAX_S:
            raise Finding(f"held for {time.process_time() - begin_s:.1f} s")
        self.end_s = time.monotonic() + 60
        try:
            answer = self.lua.execute(self.simple, (b"k", b"1"), 0, 1, b"f_simple", 2, False)
            walked = self.lua.execute(self.walk, (b"k", b"1"), 0, 1, b"f_walk", 2, False)
        except ScriptError as error:
            raise Finding(f"afterwards: {error.message}") from None
        if answer != ANSWER:
            raise Finding(f"a simple script answers {answer}")
        if walked != self.globals:
            old, new = set(self.globals.split(b"\n")), set(walked.split(b"\n"))
            raise Finding(f"the globals are not what they were: -{sorted(old - new)} +{sorted(new - old)}")


# --- scripts ----------------------------------------------------------------------------------------------------------

FUNCTIONS = str.split("""
    assert error getmetatable ipairs load loadstring next pairs pcall rawequal rawget rawset select setmetatable
    tonumber tostring type unpack xpcall collectgarbage gcinfo
    string.byte string.char string.dump string.find string.format string.gmatch string.gsub string.len string.lower
    string.match string.rep string.reverse string.sub string.upper
    table.concat table.foreach table.foreachi table.getn table.insert table.maxn table.remove table.setn table.sort
    math.abs math.ceil math.floor math.fmod math.frexp math.ldexp math.log math.max math.min math.modf math.pow
    math.random math.randomseed math.sqrt math.huge
    coroutine.create coroutine.resume coroutine.running coroutine.status coroutine.wrap coroutine.yield
    cjson.encode cjson.decode cjson.encode_sparse_array cjson.encode_max_depth cjson.decode_max_depth
    cjson.encode_number_precision cjson.encode_keep_buffer cjson.encode_invalid_numbers cjson.decode_invalid_numbers
    cjson.new cmsgpack.pack cmsgpack.unpack cmsgpack.unpack_one cmsgpack.unpack_limit struct.pack struct.unpack
    struct.size bit.tobit bit.band bit.bor bit.bxor bit.bnot bit.lshift bit.rshift bit.arshift bit.rol bit.ror
    bit.bswap bit.tohex redis.call redis.pcall redis.error_reply redis.status_reply redis.sha1hex redis.log
    redis.setresp redis.set_repl redis.acl_check_cmd redis.breakpoint redis.debug redis.register_function os.clock
""")
OPERATORS = ["+", "-", "*", "/", "%", "^", "..", "==", "~=", "<", "<=", ">", ">=", "and", "or"]
EVENTS = str.split("index newindex call add concat eq lt le len unm tostring gc mode metatable")
TOKENS = str.split("""
    and break do else elseif end false for function if in local nil not or repeat return then true until while
    ( ) { } [ ] [[ ]] [==[ ]==] = == ~= < <= > >= + - * / % ^ # , ; : . .. ... " ' \\ \\n \\0 -- --[[ 0x 1e309 1 a b _G
    self string.rep V KEYS ARGV redis.call""")


def _operand(dice: random.Random) -> str:
    return dice.choice(VALUES) if dice.random() < 0.5 else f"V[{dice.randrange(1, 9)}]"


def _call(dice: random.Random) -> str:
    arguments = ", ".join(_operand(dice) for _ in range(dice.choice((0, 1, 1, 2, 2, 3, 4))))
    return f"{dice.choice(FUNCTIONS)}({arguments})"


def _statement(dice: random.Random, depth: int = 0) -> str:
    target = f"V[{dice.randrange(1, 9)}]"
    match dice.randrange(11 if depth < 3 else 7):
        case 0 | 1 | 2 | 3:
            return f"pcall(function() {target} = {_call(dice)} end)"
        case 4:
            operation = f"{_operand(dice)} {dice.choice(OPERATORS)} {_operand(dice)}"
            return f"pcall(function() {target} = {operation} end)"
        case 5:
            event = dice.choice(EVENTS)
            handler = dice.choice((_operand(dice), f"function(...) return {_call(dice)} end"))
            return f"pcall(setmetatable, {target}, {{__{event} = {handler}, __index = {_operand(dice)}}})"
        case 6:
            return f"pcall(function() ({_operand(dice)})[{_operand(dice)}] = {_operand(dice)} end)"
        case 7:
            inner = _statement(dice, depth + 1)
            return f"for i = 1, {dice.choice(('3', '100', '1e9'))} do {inner} end"
        case 8:
            inner = _statement(dice, depth + 1)
            return f"pcall(coroutine.wrap(function(...) {inner} coroutine.yield({_operand(dice)}) {inner} end))"
        case 9:
            return f"xpcall(function() {_statement(dice, depth + 1)} error({_operand(dice)}) end, {_operand(dice)})"
        case _:
            return f"pcall(string.gsub, {_operand(dice)}, '.', function(...) {_statement(dice, depth + 1)} end)"


def _program(dice: random.Random) -> str:
    lines = ["local V = {" + ", ".join(dice.choice(VALUES) for _ in range(8)) + "}"]
    lines += [_statement(dice) for _ in range(dice.choice((1, 3, 8, 20)))]
    ends = (f"return V[{dice.randrange(1, 9)}]", "return V", f"error({_operand(dice)})", _call(dice))
    lines.append(dice.choice(ends))
    return "\n".join(lines)


def _damaged(dice: random.Random, source: str) -> str:
    for _ in range(dice.choice((1, 1, 2, 5))):
        at = dice.randrange(len(source) + 1)
        match dice.randrange(4):
            case 0:
                source = source[:at] + " " + dice.choice(TOKENS) + " " + source[at:]
            case 1:
                source = source[:at] + source[at + dice.choice((1, 2, 10)) :]
            case 2:
                source = source[:at] + chr(dice.randrange(256)) + source[at + 1 :]
            case _:
                other = dice.randrange(len(source) + 1)
                source = source[:at] + source[other : other + 20] + source[at:]
    return source


def script(seed: int, number: int) -> bytes:
    """The script of that number; the tricks come first, as they are."""
    if number < len(TRICKS):
        return TRICKS[number].encode("latin-1", "replace")
    dice = random.Random(f"{seed} {number}")
    draw = dice.random()
    if draw < 0.65:
        text = _program(dice)
    elif draw < 0.75:
        text = _damaged(dice, _program(dice))
    elif draw < 0.85:
        text = _damaged(dice, dice.choice(TRICKS))
    elif draw < 0.9:
        text = " ".join(dice.choices(TOKENS, k=dice.choice((3, 30, 300))))
    else:
        text = dice.choice(TRICKS) + "\n" if dice.random() < 0.1 else ""
        text += f"pcall(function() {dice.choice(TRICKS)} end) {_program(dice)}"
    return text.encode("latin-1", "replace")


# --- running ----------------------------------------------------------------------------------------------------------


def play(seed: int, first: int, count: int, seconds: float = 1e9, told: Any = None) -> int:
    """So many scripts, or as many as the time allows; the number behind the last. `told` holds the one under way."""
    end = time.monotonic() + seconds
    room = Room()
    for number in range(first, first + count):
        if time.monotonic() > end:
            return number
        if told is not None:
            told.value = number
        if number % SCRIPTS_PER_INTERPRETER == SCRIPTS_PER_INTERPRETER - 1:
            room = Room()
        try:
            room.try_script(script(seed, number), 2 + number % 2)
        except Finding as finding:
            source = script(seed, number).decode("latin-1")
            raise Finding(f"{finding}\n--seed {seed} --first {number} --count 1:\n{source}") from None
    return first + count


def _child(seed: int, first: int, count: int, seconds: float, told: Synchronized[int]) -> None:
    faulthandler.enable()
    logging.disable()
    try:
        told.value = play(seed, first, count, seconds, told)
    except Finding as finding:
        print(finding, flush=True)
        sys.exit(1)


def run(seed: int, first: int, count: int, seconds: float) -> tuple[bool, int]:
    """In another process: whether all was well, and how far it came."""
    context = multiprocessing.get_context("spawn")
    told = context.Value("Q", first)
    process = context.Process(target=_child, args=(seed, first, count, seconds, told))
    process.start()
    process.join()
    if process.exitcode not in (0, 1):
        source = script(seed, told.value)
        print(f"status {process.exitcode} at --seed {seed} --first {told.value} --count 1:", flush=True)
        print(source.decode("latin-1"), hashlib.sha1(source).hexdigest())
    return process.exitcode == 0, told.value


def main() -> int:
    """Parse the arguments and play."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1 << 60)
    options = parser.parse_args()
    seconds = options.minutes * 60 if options.minutes else options.seconds
    if options.count < 1 << 60:
        seconds = 1e9
    well, number = run(options.seed, options.first, options.count, seconds)
    print(f"scripts: {number - options.first} from seed {options.seed}", flush=True)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
