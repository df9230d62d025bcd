"""From EVAL and FCALL to the interpreter and back: what every script costs, so it is done here."""

from libc.stdint cimport int64_t, uint8_t
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from zeekdb.hot.engine cimport Engine
from zeekdb.hot.lua cimport Interpreter
from zeekdb.hot.script_runs cimport Run
from zeekdb.hot.wire cimport parse_int

from zeekdb.errors import CommandError


def key_count(tuple words not None, str unreadable="ERR value is not an integer or out of range"):
    cdef bytes text = words[0]
    cdef int64_t count
    if not parse_int(<uint8_t*>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text), &count):
        raise CommandError(unreadable)
    if count >= len(words):
        raise CommandError("ERR Number of keys can't be greater than number of args")
    if count < 0:
        raise CommandError("ERR Number of keys can't be negative")
    return count


cdef class Runner:
    """See script_runner.pyi."""

    cdef readonly Engine engine
    cdef readonly Interpreter eval_lua
    cdef readonly Interpreter function_lua
    cdef readonly Run running
    cdef public bint allows_all

    def __init__(self, Engine engine not None, size_t memory_limit):
        self.engine = engine
        self.eval_lua = Interpreter(memory_limit)
        self.function_lua = Interpreter(memory_limit)

    def run(self, client, bint is_function, int reference, bytes name, int flags, bint read_only, int nkeys, tuple words not None):
        cdef Interpreter lua = self.function_lua if is_function else self.eval_lua
        cdef Run run = Run.begin(self.engine, client, name, words, flags, is_function, read_only)
        if not 0 <= nkeys < len(words) - 2:
            raise ValueError("keys")
        if self.allows_all:
            run.plain = False
        if run.read_only or not run.plain:
            self.prepare(run)
        self.running = lua.run = run
        try:
            return lua.execute(reference, words, 3, nkeys, name, run.protocol(), is_function)
        finally:
            self.running = lua.run = None
            if run.placed or run.slow or not run.plain:
                self.finish(run)

    def prepare(self, Run run):
        """What has to be asked and told before the script runs; CommandError when it must not."""

    def finish(self, Run run):
        """What has to be told when it has run."""
