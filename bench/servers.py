"""What the bench programs share: servers started and stopped, their CPU time and memory, medians, tables."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
READY_S = 15.0


def free_port() -> int:
    """A port that nobody listens on, below those that outgoing connections take."""
    while True:
        port = random.randrange(12_000, 30_000)
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)):
                return port


class Server:
    """A server process under measurement. `kind` is "redis", "zeekdb", or "plain" for bench/plain_blocks.py.

    ZEEKDB_PYTHON names the interpreter that runs ours, for a program whose own environment cannot.
    """

    def __init__(self, kind: str, *arguments: str) -> None:
        self.kind = kind
        self.port = free_port()
        self.unix = os.path.join(tempfile.mkdtemp(prefix="bench-"), "s.sock")
        ours = os.environ.get("ZEEKDB_PYTHON", sys.executable)
        program = ["redis-server"] if kind == "redis" else [ours, "-m", "zeekdb", "serve"]
        options = ["--port", str(self.port), "--save", "", "--appendonly", "no", "--unixsocket", self.unix]
        if kind == "plain":
            program, options = [sys.executable, "bench/plain_blocks.py"], [str(self.port)]
        self.process = subprocess.Popen(
            [*program, *options, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + READY_S
        while True:
            try:
                if self.call("PING") == b"+PONG":
                    return
            except OSError:
                pass
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.process.kill()
                raise RuntimeError(f"{kind} did not start")
            time.sleep(0.05)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the process."""
        self.process.terminate()
        self.process.wait(30)

    def connect(self) -> socket.socket:
        """A TCP connection without Nagle's delay."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=120)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def call(self, *words: str) -> bytes:
        """One command on a connection of its own; the first line of its reply."""
        with self.connect() as sock:
            sock.sendall(encode(*(word.encode() for word in words)))
            return sock.makefile("rb").readline().rstrip(b"\r\n")

    def info(self, section: str, name: str) -> str:
        """A field out of a section of INFO; KeyError where there is none."""
        with self.connect() as sock, sock.makefile("rb") as replies:
            sock.sendall(encode(b"INFO", section.encode()))
            text = replies.read(int(replies.readline()[1:])).decode()
        return dict(line.partition(":")[::2] for line in text.splitlines())[name]

    def cpu_s(self) -> float:
        """User and system time of all threads so far, in seconds; from schedstat, which counts nanoseconds."""
        total = 0
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except (OSError, IndexError, ValueError):
                continue
        if total:
            return total / 1e9
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss(self) -> int:
        """Resident bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found
        return int(found.group(1)) * 1024


def encode(*words: bytes) -> bytes:
    """A command in RESP."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def median(values: Iterable[float]) -> float:
    """The median; 0 of nothing."""
    found = [value for value in values if value is not None]
    return statistics.median(found) if found else 0.0


def machine() -> str:
    """One line that says where the figures come from."""
    cpu = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    redis = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"v=(\S+)", redis)
    return (
        f"{cpu}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}, "
        f"redis-server {version.group(1) if version else '?'}"
    )


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join("---" for _ in head) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def save(name: str, data: object) -> Path:
    """Keeps the figures as bench/results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    whole = {"machine": machine(), "date": time.strftime("%Y-%m-%d"), "data": data}
    path.write_text(json.dumps(whole, indent=1) + "\n")
    return path


def command_line(doc: str | None) -> argparse.ArgumentParser:
    """A parser for a program whose docstring is `doc`, with the option that `publish` wants to know of."""
    parser = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    parser.add_argument("--write", action="store_true", help="keep the figures and put the tables into bench/README.md")
    return parser


def publish(name: str, data: object, text: str, write: bool) -> None:
    """Shows the text; with `--write`, keeps the figures and puts the text into bench/README.md."""
    print(text)
    if write:
        save(name, data)
        write_block(ROOT / "bench" / "README.md", name.replace("_", "-"), text)


def write_block(path: Path, name: str, text: str) -> None:
    """Replaces what stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->` in a document."""
    page = path.read_text()
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if begin not in page:
        page = page.rstrip() + f"\n\n{begin}\n{end}\n"
    head, rest = page.split(begin, 1)
    _, tail = rest.split(end, 1)
    path.write_text(f"{head}{begin}\n{text.strip()}\n{end}{tail}")
