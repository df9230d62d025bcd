"""A proxy between a client and a server that fails in the ways networks and servers fail, on request.

It knows nothing of what is said through it, so it stands before PostgreSQL, Redis and HTTP alike; either side may be
TCP or a Unix socket. It runs an event loop in a thread of its own, and each change of mode has happened when the call
returns. A mode holds for connections that are open already and for new ones:

    pass    bytes go both ways
    dead    nobody listens: connections are refused, and open ones are reset
    hang    connections are accepted and nothing is answered; what is said meanwhile arrives late, at the next `pass`
    slow    every chunk arrives `delay_s` later, each way
    cut     the server's bytes stop after `cut_bytes` more of each connection, which is then closed
    answer  whatever a client says is answered with `reply` (`-NOAUTH …`, `HTTP/1.1 403 …`), once for each chunk that
            arrives; the server hears nothing of it

TCP's port stays ours while nobody listens: a second socket is bound to it and never listens.

    python -m tests.rigs.proxy HOST PORT

is one in a process of its own, for programs that measure: it says its port, then takes a mode (and a number) per line.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from tests.support import DEADLINE_S, ROOT

Address = tuple[str, int] | str
Mode = Literal["pass", "dead", "hang", "slow", "cut", "answer"]
HELD_BYTES_MAX = 64 << 20  # of one connection and direction, under way in `slow`; then its sender waits


class _Side(asyncio.Protocol):
    """One end of a connection."""

    def __init__(self, link: _Link, is_client: bool) -> None:
        self.link, self.is_client = link, is_client
        self.transport: asyncio.Transport | None = None
        self.early: list[bytes] = []  # what came before the other end was there
        self.held_bytes = 0  # sent by us, not yet handed to the other end
        self.ended = False  # nothing more comes from here
        self.last_due_s = 0.0  # when the last of what is held goes on

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.link.up(self)

    def data_received(self, data: bytes) -> None:
        self.link.data(self, data)

    def connection_lost(self, error: Exception | None) -> None:
        self.link.lost(self, error)

    def pause_writing(self) -> None:
        other = self.link.other(self)
        if other.transport is not None and not other.transport.is_closing():
            other.transport.pause_reading()

    def resume_writing(self) -> None:
        other = self.link.other(self)
        if other.transport is not None and not other.transport.is_closing():
            self.link.flow(other)


class _Link:
    """A client, the server's end for it, and what happens between."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.client, self.server = _Side(self, True), _Side(self, False)
        self.cut_left = proxy.cut_bytes

    def other(self, side: _Side) -> _Side:
        return self.server if side.is_client else self.client

    def up(self, side: _Side) -> None:
        proxy = self.proxy
        if side.is_client:
            proxy.links.add(self)
            proxy.connections += 1
            if proxy.mode == "dead":
                self.abort()
                return
            proxy.spawn(self.dial())
        other = self.other(side)
        early, other.early = other.early, []
        for data in early:
            self.data(other, data)
        self.flow(side)

    async def dial(self) -> None:
        loop, target = asyncio.get_running_loop(), self.proxy.target
        try:
            if isinstance(target, str):
                await loop.create_unix_connection(lambda: self.server, target)
            else:
                await loop.create_connection(lambda: self.server, *target)
        except OSError:
            self.abort()

    def flow(self, side: _Side) -> None:
        """Let the side be read, or not, as the mode and what is under way say."""
        if side.transport is None or side.transport.is_closing():
            return
        if self.proxy.mode == "hang" or side.held_bytes > HELD_BYTES_MAX:
            side.transport.pause_reading()
        else:
            side.transport.resume_reading()

    def data(self, side: _Side, data: bytes) -> None:
        proxy, other = self.proxy, self.other(side)
        if side.is_client and proxy.mode == "answer":
            proxy.answered += 1
            assert side.transport is not None
            side.transport.write(proxy.reply)
            if proxy.closes:
                side.transport.close()
            return
        if other.transport is None:
            side.early.append(data)
            return
        if side.is_client:
            proxy.bytes_up += len(data)
        else:
            if proxy.mode == "cut":
                data, whole = data[: self.cut_left], len(data) <= self.cut_left
                self.cut_left -= len(data)
                if not whole:
                    proxy.cuts += 1
                    proxy.bytes_down += len(data)
                    other.transport.write(data)
                    other.transport.close()
                    assert side.transport is not None
                    side.transport.abort()
                    return
            proxy.bytes_down += len(data)
        if proxy.mode != "slow" and not side.held_bytes:
            other.transport.write(data)
            return
        side.held_bytes += len(data)  # in order: also what comes after `slow` waits for what was said in it
        delay_s = proxy.delay_s if proxy.mode == "slow" else 0
        due = max(asyncio.get_running_loop().time() + delay_s, side.last_due_s)
        side.last_due_s = due + 1e-6
        asyncio.get_running_loop().call_at(due, self.late, side, data)
        self.flow(side)

    def late(self, side: _Side, data: bytes) -> None:
        side.held_bytes -= len(data)
        other = self.other(side)
        if other.transport is not None and not other.transport.is_closing():
            other.transport.write(data)
            if side.ended and not side.held_bytes:
                other.transport.close()
        self.flow(side)

    def lost(self, side: _Side, error: Exception | None) -> None:
        side.ended = True
        other = self.other(side)
        if other.transport is not None and not other.transport.is_closing() and not side.held_bytes:
            other.transport.abort() if error else other.transport.close()
        if other.ended or other.transport is None:
            self.proxy.links.discard(self)

    def abort(self) -> None:
        for side in (self.client, self.server):
            if side.transport is not None:
                side.transport.abort()
        self.proxy.links.discard(self)


class Proxy:
    """See the module. A context manager; `address` is where clients go."""

    def __init__(self, target: Address, *, unix: bool = False, name: str = "socket") -> None:
        """`unix`: listen on a Unix socket called `name` (PostgreSQL's clients want `.s.PGSQL.PORT`) instead of TCP."""
        self.target = target
        self.mode: Mode = "pass"
        self.delay_s = 2.0
        self.cut_bytes = 0
        self.reply = b""
        self.closes = False
        self.connections = self.cuts = self.answered = 0
        self.bytes_up = self.bytes_down = 0
        self.links: set[_Link] = set()
        self._folder = Path(tempfile.mkdtemp(prefix="zeekdb-proxy-")) if unix else None
        self._listener: asyncio.AbstractServer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._holder: socket.socket | None = None
        if self._folder is None:
            self._holder = _bound(0)
            self.port = int(self._holder.getsockname()[1])
            self.address: Address = ("127.0.0.1", self.port)
        else:
            self.port = 0
            self.address = str(self._folder / name)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._do(self._listen)

    # ---- modes ---------------------------------------------------------------------------------------------------

    def passing(self) -> None:
        """All is well (again)."""
        self._set("pass")

    def dead(self) -> None:
        """Refuse, and reset what is open."""
        self._set("dead")

    def hang(self) -> None:
        """Accept, and answer nothing."""
        self._set("hang")

    def slow(self, delay_s: float = 2.0) -> None:
        """Each way so much later."""
        self._set("slow", delay_s=delay_s)

    def cut(self, after_bytes: int = 1) -> None:
        """Close in mid-reply: after so many bytes more of the server's on each connection."""
        self._set("cut", cut_bytes=after_bytes)

    def answer(self, reply: bytes, closes: bool = False) -> None:
        """Say this to whatever a client says, in the server's place; and end the connection."""
        self._set("answer", reply=reply, closes=closes)

    def reset_connections(self) -> None:
        """Open connections end in a reset; new ones are taken as the mode says."""

        async def work() -> None:
            for link in list(self.links):
                link.abort()

        self._do(work)

    def _set(self, mode: Mode, **values: object) -> None:
        async def work() -> None:
            for name, value in values.items():
                setattr(self, name, value)
            self.mode = mode
            if mode == "dead":
                await self._deafen()
                for link in list(self.links):
                    link.abort()
            else:
                await self._listen()
            for link in list(self.links):
                link.cut_left = self.cut_bytes
                link.flow(link.client)
                link.flow(link.server)

        self._do(work)

    # ---- the listener, in the proxy's thread -----------------------------------------------------------------------

    async def _listen(self) -> None:
        if self._listener is not None:
            return
        loop = asyncio.get_running_loop()

        def made() -> asyncio.Protocol:
            return _Link(self).client

        if isinstance(self.address, str):
            self._listener = await loop.create_unix_server(made, self.address)
        else:
            self._listener = await loop.create_server(made, sock=_bound(self.port), backlog=512)

    async def _deafen(self) -> None:
        if self._listener is None:
            return
        self._listener.close()
        self._listener = None
        if isinstance(self.address, str):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.address)

    def spawn(self, work: object) -> None:
        """Run a coroutine of a link."""
        task: asyncio.Task[None] = self._loop.create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _do(self, work: Callable[[], object]) -> None:
        asyncio.run_coroutine_threadsafe(work(), self._loop).result(DEADLINE_S)  # type: ignore[arg-type]

    # ---- the end -------------------------------------------------------------------------------------------------

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nobody listens any more, and the port is anybody's. Harmless when repeated."""
        if self._loop.is_closed():
            return
        self.dead()

        async def settle() -> None:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        self._do(settle)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_S)
        self._loop.close()
        if self._holder is not None:
            self._holder.close()
        if self._folder is not None:
            self._folder.rmdir()


def _bound(port: int) -> socket.socket:
    """A socket with this port, or any, that does not listen and lets another share the port."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", port))
    return made


class ProxyProcess:
    """A proxy in a process of its own, before a server on TCP: what measures does not share its interpreter."""

    def __init__(self, host: str, port: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.rigs.proxy", host, str(port)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self._read())

    def _read(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the proxy has ended")
        return line.strip()

    def __call__(self, mode: str, value: float | None = None) -> None:
        """`passing`, `dead`, `hang`, `slow` SECONDS, `cut` BYTES; it is so when this returns."""
        assert self.process.stdin
        self.process.stdin.write(f"{mode} {'' if value is None else value}\n")
        self.process.stdin.flush()
        assert self._read() == "ok"

    def close(self) -> None:
        """The end."""
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait(DEADLINE_S)


def main(words: list[str]) -> None:
    """See the module."""
    with Proxy((words[0], int(words[1]))) as proxy:
        print(proxy.port, flush=True)
        for line in sys.stdin:
            mode, *value = line.split()
            if mode == "cut":
                proxy.cut(int(float(value[0])) if value else 1)
            elif mode == "slow":
                proxy.slow(float(value[0]) if value else 2.0)
            else:
                {"passing": proxy.passing, "dead": proxy.dead, "hang": proxy.hang}[mode]()
            print("ok", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
