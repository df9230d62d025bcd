"""Commands from a file instead of a socket: the append-only file, read back through the engine and its twins."""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from zeekdb.hot.clock cimport steady_us
from zeekdb.hot.engine cimport BATCH, Engine
from zeekdb.hot.keyspace cimport G
from zeekdb.hot.kinds cimport BEGINS, Kind
from zeekdb.hot.parser cimport COMMAND, FAULT, MORE, Parser, Request, parse
from zeekdb.hot.sockets cimport Conn, Link
from zeekdb.hot.wire cimport Arg

cdef enum:
    C_MULTI = 8              # gates.GATE_MULTI


cdef bint ends_well(Parser* b, Request* r) noexcept nogil:
    """Whether it has words, and its line end behind each: a socket's reader has no need to look, but a disk has holes."""
    cdef uint32_t i
    cdef Arg* arg
    for i in range(r.argc):
        arg = &b.args[r.first + i]
        if arg.p[arg.n] != 13 or arg.p[arg.n + 1] != 10:
            return False
    return r.argc > 0


cdef class Replay:
    """See replay.pyi."""

    cdef Engine engine
    cdef Link owner
    cdef const uint8_t[::1] view
    cdef readonly size_t at          # where the next command begins
    cdef readonly size_t whole
    cdef size_t group                # where the transaction under way begins
    cdef readonly str verdict
    cdef bint open

    def __init__(self, Engine engine not None, Link owner not None, data not None, size_t at):
        self.engine = engine
        self.owner = owner
        self.view = data
        self.at = self.whole = self.group = at
        self.verdict = "whole"
        self.open = True
        owner.c.intake.limited = False

    def close(self):
        if self.open:
            self.open = False
            self.view = None
            self.engine.close(self.owner.c)
            self.engine.bury()

    def step(self, int64_t budget_us):
        cdef Engine engine = self.engine
        cdef int64_t now_ms = G.now_ms
        cdef unsigned int gate = engine.gate
        if not self.open:
            raise ValueError("the file was closed")
        G.now_ms = 1  # nothing expires but by the commands that say so
        engine.gate = 0
        try:
            return self.run_for(budget_us)
        finally:
            engine.parser.args_used = 0
            engine.gate = gate
            G.now_ms = now_ms

    cdef bint run_for(self, int64_t budget_us) except -1:
        cdef Engine engine = self.engine
        cdef size_t size = self.view.shape[0], used = self.at, mark
        cdef uint8_t* base = <uint8_t*>&self.view[0] if size else NULL
        cdef Conn* c = self.owner.c
        cdef uint32_t n, i, done
        cdef int state
        cdef int64_t end_us = steady_us() + budget_us if budget_us else 0
        while used < size and self.verdict == "whole":
            if end_us and steady_us() > end_us:
                self.at = used
                return False
            if base[used] == b"#":  # an annotation
                while used < size and base[used] != b"\n" and base[used] != 0:
                    used += 1
                if used == size:
                    self.verdict = "torn"
                    break
                if base[used] == 0:  # a hole begins in it
                    self.verdict = "it does not follow the protocol"
                    break
                used += 1
                if c.gate & C_MULTI == 0:
                    self.whole = used
                continue
            n = 0
            engine.parser.args_used = 0
            state = COMMAND
            while n < BATCH and used < size and base[used] == b"*":
                mark = used
                state = parse(&engine.parser, &c.intake, base, size, &used, &engine.requests[n])
                if state == COMMAND and not ends_well(&engine.parser, &engine.requests[n]):
                    state = FAULT
                if state != COMMAND:
                    used = mark
                    break
                n += 1
            done = engine.run(c, n) if n else 0
            engine.rewind(c, 0, 0)
            for i in range(n):
                if engine.requests[i].kind == NULL or i >= done:
                    self.whole = engine.requests[i].start if c.gate & C_MULTI == 0 else self.group
                    self.verdict = (
                        "Unknown command" if engine.requests[i].kind == NULL else "a command that ends the connection"
                    )
                    break
                if (<Kind*>engine.requests[i].kind).role == BEGINS:
                    self.group = engine.requests[i].start
            else:
                self.whole = used if c.gate & C_MULTI == 0 else self.group
                if state == MORE:
                    self.verdict = "torn"
                elif state == FAULT:
                    self.verdict = "it does not follow the protocol"
                elif used < size and n < BATCH and base[used] != b"*" and base[used] != b"#":
                    self.verdict = "a command was expected"
        if self.verdict == "whole" and c.gate & C_MULTI:
            self.whole, self.verdict = self.group, "torn"
        self.at = used
        return True
