"""What tests over real sockets share: servers started and ended, a wire that hides nothing, and the one way to wait.

A server runs as a subprocess on a free port, its log in a file; it is ready when it answers a PING. `Wire` is a plain
socket with a decoder that keeps what Redis keeps apart: simple strings, bulk strings, doubles, maps, sets, pushes.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
DEADLINE_S = 10.0

T = TypeVar("T")


def wait_for(condition: Callable[[], T], deadline_s: float = DEADLINE_S, what: str = "") -> T:
    """The condition's first true value, asked again and again until the deadline; the only sleep that tests have."""
    end = time.monotonic() + deadline_s
    pause_s = 0.001
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"still not so after {deadline_s} s: {what or condition}")
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.05)
    return value


def free_port() -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ---- the wire ------------------------------------------------------------------------------------------------------


class Simple(str):
    """A simple string (`+OK`), where a bulk string is `bytes`."""


class Failure(str):
    """An error reply, code included."""


class Push(list[Any]):
    """An out-of-band RESP3 message."""


class Verbatim(bytes):
    """A verbatim string, its three-letter format still in front."""


class Big(int):
    """A RESP3 big number."""


class SetReply(list[Any]):
    """A RESP3 set, in the order it came."""


class NullArray:
    """The null array of RESP2 (`*-1`)."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NullArray)

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "*-1"


def encode(*args: bytes | str | int | float) -> bytes:
    """A command as an array of bulk strings."""
    parts = [a if isinstance(a, bytes) else str(a).encode() for a in args]
    return b"".join([b"*%d\r\n" % len(parts), *(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts)])


class Wire:
    """A connection that sends exact bytes and decodes exact replies."""

    def __init__(self, address: tuple[str, int] | str, timeout_s: float = DEADLINE_S) -> None:
        family = socket.AF_UNIX
        if not isinstance(address, str):
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(timeout_s)
        self.socket.connect(address)
        if family != socket.AF_UNIX:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb", buffering=1 << 16)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close both directions; harmless when the server was first."""
        self.file.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Exactly these bytes."""
        self.socket.sendall(data)

    def __call__(self, *args: bytes | str | int | float) -> Any:
        """Send one command and read one reply."""
        self.send(encode(*args))
        return self.read()

    def pipeline(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """All commands in one write, then all replies."""
        self.send(b"".join(encode(*command) for command in commands))
        return [self.read() for _ in commands]

    def read(self) -> Any:
        """The next reply. EOFError when the server has closed."""
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError("connection closed")
        kind, rest = line[:1], line[1:-2]
        if kind in _SCALARS:
            return _SCALARS[kind](rest)
        n = int(rest)
        if kind in b"$=!":
            if n < 0:
                return None
            data = self.file.read(n + 2)
            if len(data) != n + 2:
                raise EOFError("connection closed inside a reply")
            return Verbatim(data[:-2]) if kind == b"=" else Failure(data[:-2].decode()) if kind == b"!" else data[:-2]
        if kind == b"*" and n < 0:
            return NullArray()
        if kind in b"%|":
            pairs = [(self.read(), self.read()) for _ in range(n)]
            return {_hashable(k): v for k, v in pairs} if kind == b"%" else self.read()
        if kind in _SEQUENCES:
            return _SEQUENCES[kind](self.read() for _ in range(n))
        raise ValueError(f"no such reply: {line!r}")

    def closed(self) -> bool:
        """True once the server has ended the connection; what it said before is thrown away."""
        try:
            while self.file.read(1):
                pass
        except ConnectionError:
            pass
        return True

    def quiet(self, wait_s: float = 0.05) -> bool:
        """True when nothing comes within a moment."""
        before = self.socket.gettimeout()
        self.socket.settimeout(wait_s)
        try:
            return not self.socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(before)


_SCALARS: dict[bytes, Callable[[bytes], Any]] = {
    b"+": lambda s: Simple(s.decode("utf-8", "surrogateescape")),
    b"-": lambda s: Failure(s.decode("utf-8", "surrogateescape")),
    b":": int,
    b",": float,
    b"#": lambda s: s == b"t",
    b"_": lambda s: None,
    b"(": Big,
}
_SEQUENCES: dict[bytes, type[list[Any]]] = {b"*": list, b"~": SetReply, b">": Push}


def _hashable(key: Any) -> Any:
    return tuple(_hashable(k) for k in key) if isinstance(key, list) else key


# ---- servers -------------------------------------------------------------------------------------------------------

# ZEEKDB_TEST_SERVER names another program: with redis-server, the tests themselves are tested.
ZEEKDB = tuple(shlex.split(os.environ.get("ZEEKDB_TEST_SERVER", ""))) or (sys.executable, "-m", "zeekdb", "serve")
ZEEKDB_SERVER = (sys.executable, "-c", "from zeekdb.cli import server_main; server_main()")
REDIS = ("redis-server",)


class Server:
    """A ZeekDB or redis-server process of a test's own, with a directory for its files and its log."""

    def __init__(
        self,
        *arguments: str,
        program: tuple[str, ...] = ZEEKDB,
        port: int | None = None,
        unix: bool = False,
        environment: dict[str, str] | None = None,
        stdin: bytes | None = None,
        wait: bool = True,
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="zeekdb-test-"))
        self.unix = str(self.directory / "socket") if unix else ""
        self.port = 0 if unix else port or free_port()
        self.log_file = self.directory / "log"
        place = ["--unixsocket", self.unix, "--port", "0"] if unix else ["--port", str(self.port)]
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [*program, *arguments, *place],
                cwd=self.directory,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(environment or {})},
                start_new_session=True,
            )
        if stdin is not None:
            assert self.process.stdin
            self.process.stdin.write(stdin)
            self.process.stdin.close()
        if wait:
            try:
                wait_for(self.answers, 30, "the server answers PING")
            except BaseException:
                print(self.log())
                self.stop()
                raise

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def address(self) -> tuple[str, int] | str:
        """Where it listens."""
        return self.unix or ("127.0.0.1", self.port)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid

    def answers(self) -> bool:
        """Whether it accepts, answers and has loaded its data; an error when the process has ended."""
        if self.process.poll() is not None:
            raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self.log()}")
        try:
            with Wire(self.address, 5) as wire:
                reply = wire("PING")
                return isinstance(reply, str) and not reply.startswith("LOADING")
        except (OSError, EOFError):
            return False

    def wire(self, timeout_s: float = DEADLINE_S) -> Wire:
        """A new connection."""
        return Wire(self.address, timeout_s)

    def log(self) -> str:
        """What it has written so far."""
        return self.log_file.read_text(errors="replace")

    def rss_bytes(self) -> int:
        """Resident memory now."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("the process is gone")

    def terminate(self, signum: int = signal.SIGTERM, deadline_s: float = DEADLINE_S) -> int:
        """Send a signal and wait for the end; the exit status."""
        self.process.send_signal(signum)
        return self.process.wait(deadline_s)

    def stop(self) -> None:
        """End it however it is, and remove its directory."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(DEADLINE_S)
        shutil.rmtree(self.directory, ignore_errors=True)


@contextlib.contextmanager
def redis_server(*arguments: str, unix: bool = False) -> Iterator[Server]:
    """The reference server, without persistence."""
    with Server("--save", "", "--appendonly", "no", *arguments, program=REDIS, unix=unix) as server:
        yield server
