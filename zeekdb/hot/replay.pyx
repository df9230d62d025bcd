"""Commands from a file instead of a socket: the append-only file, read back through the engine and its twins."""

from libc.stdint cimport int64_t, uint8_t, uint32_t
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


def replay(Engine engine not None, Link owner not None, data not None, size_t at):
    cdef const uint8_t[::1] view = data
    cdef uint8_t* base = <uint8_t*>&view[0]
    cdef size_t size = view.shape[0], used = at, whole = at, group = at, mark
    cdef Conn* c = owner.c
    cdef uint32_t n, i, done
    cdef int state = COMMAND
    cdef int64_t now_ms = G.now_ms
    cdef str verdict = "whole"
    c.intake.limited = False
    G.now_ms = 1  # nothing expires but by the commands that say so
    try:
        while used < size and verdict == "whole":
            if base[used] == b"#":  # an annotation
                while used < size and base[used] != b"\n" and base[used] != 0:
                    used += 1
                if used == size:
                    verdict = "torn"
                    break
                if base[used] == 0:  # a hole begins in it
                    verdict = "it does not follow the protocol"
                    break
                used += 1
                if c.gate & C_MULTI == 0:
                    whole = used
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
                    whole = engine.requests[i].start if c.gate & C_MULTI == 0 else group
                    verdict = "Unknown command" if engine.requests[i].kind == NULL else "a command that ends the connection"
                    break
                if (<Kind*>engine.requests[i].kind).role == BEGINS:
                    group = engine.requests[i].start
            else:
                whole = used if c.gate & C_MULTI == 0 else group
                if state == MORE:
                    verdict = "torn"
                elif state == FAULT:
                    verdict = "it does not follow the protocol"
                elif used < size and n < BATCH and base[used] != b"*" and base[used] != b"#":
                    verdict = "a command was expected"
        if verdict == "whole" and c.gate & C_MULTI:
            whole, verdict = group, "torn"
    finally:
        engine.parser.args_used = 0
        G.now_ms = now_ms
        engine.close(c)
        engine.bury()
    return whole, verdict
