"""LMCache, as its authors publish it, against redis-server and ZeekDB: `make compat-lmcache`.

Three of its own checks run in an environment of its own (`--python`): `basic_check` with a remote backend and with a
whole storage manager, over `redis://` and over `resp://`, and with the multiprocess mode's adapter `{"type": "resp"}`;
those that heed `--obj-size` also with values as large as real blocks. LMCache prints a table and exits with 0 always,
so the table is read: every operation of every key must have passed. What the server counted is read as well, since a
check that LMCache answers from its own memory says nothing about the server.

Over either URL LMCache 0.5.6 hangs in its own `close` once it has printed the table (an executor waits for the event
loop that it runs on), whatever the server is; so the process is ended when the table is complete.

    make compat-lmcache                                  redis-server first, then ZeekDB, then bench/lmcache.py
    make compat-lmcache LMCACHE_VENV=/somewhere/else     with an environment that is there already
    python -m tests.compat.lmcache --server zeekdb --options '--maxmemory 4gb'
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support import REDIS, ROOT, ZEEKDB, Server, Wire

PYTHON = ROOT / ".venv-lmcache" / "bin" / "python"
PLAIN = ("--save", "", "--appendonly", "no")
# How ZeekDB serves LMCache from the tensor region, once it has one; `*@*` is every key that LMCache makes.
MODEL = "lmcache"
REGION = ("--kv-namespace", "*@*", MODEL, "--kv-memory", "4gb", "--kv-prefault", "yes")

KEYS = 5
# Elements of bfloat16. basic_check's blocks are of 256 tokens of two elements: test_remote always stores such, and
# resp:// reads no others back, whatever was stored.
SMALL, LARGE = 512, 2 << 20
SETTLE_S = 0.5  # LMCache looks for a key over redis:// before its own SET of it is on the wire
CHECK_S_MAX = 90.0
OUTPUT_LINES_MAX = 400
ROW = re.compile(r"^\| (\S.*?) *\|(?: *[\d.]+ \|){3} +(\d+)/(\d+) \|")
# The table's rows of basic_check: absent keys, stores, present keys, loads.
OPERATIONS = 4


@dataclass(frozen=True)
class Check:
    """One run of basic_check: its mode, how it reaches the server, and the commands that must have arrived per key."""

    mode: str
    scheme: str
    at_least: dict[str, int]
    elements: int = SMALL

    @property
    def name(self) -> str:
        """As it is printed."""
        return f"{self.mode} {self.scheme} {self.elements * 2 >> 10} KiB"


# redis:// keeps two keys per block, `…kv_bytes` and `…metadata`, and asks EXISTS for the second alone.
TWO_KEYS = {"exists": 2, "set": 2, "get": 2}
ONE_KEY = {"exists": 2, "set": 1, "get": 1}
CHECKS = (
    Check("test_remote", "redis://", TWO_KEYS),
    Check("test_storage_manager", "redis://", TWO_KEYS),
    Check("test_storage_manager", "redis://", TWO_KEYS, LARGE),
    Check("test_remote", "resp://", ONE_KEY),
    Check("test_storage_manager", "resp://", ONE_KEY),
    Check("test_l2_adapter", '{"type":"resp"}', ONE_KEY),
    Check("test_l2_adapter", '{"type":"resp"}', ONE_KEY, LARGE),
)


# ---- LMCache's side ------------------------------------------------------------------------------------------------


def adapter(port: int) -> str:
    """The multiprocess mode's adapter for a server on this port."""
    return json.dumps({"type": "resp", "host": "127.0.0.1", "port": port, "num_workers": 8})


def configuration(scheme: str, port: int) -> str:
    """LMCache's configuration file (YAML). No copy in LMCache's own memory, or GET would never reach the server."""
    return "\n".join((
        "chunk_size: 256",
        "local_cpu: false",
        "max_local_cpu_size: 0.5",
        f'remote_url: "{scheme}127.0.0.1:{port}"',
        'remote_serde: "naive"',
        "save_unfull_chunk: false",
        f"extra_config: {{save_chunk_meta: {str(scheme == 'redis://').lower()}}}",
        "",
    ))  # fmt: skip


@contextlib.contextmanager
def lmcache(python: Path, arguments: list[str], deadline_s: float, config: str = "") -> Iterator[Iterator[str]]:
    """A program of LMCache's environment and the lines that it prints, ended with the block or at the deadline.

    It runs in a directory of its own, so that nothing of this repository can be imported in LMCache's place.
    """
    with tempfile.TemporaryDirectory(prefix="lmcache-") as place:
        (Path(place) / "lmcache.yaml").write_text(config)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("LMCACHE_", "PYTHONPATH"))}
        environment |= {"PYTHONUNBUFFERED": "1", "LMCACHE_TRACK_USAGE": "false", "LMCACHE_DISABLE_BANNER": "1"}
        if config:
            environment["LMCACHE_CONFIG_FILE"] = "lmcache.yaml"
        process = subprocess.Popen(
            [str(python), *arguments],
            cwd=place, env=environment, text=True, errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        watch = threading.Timer(deadline_s, process.kill)
        watch.start()
        try:
            assert process.stdout
            yield iter(process.stdout)
        finally:
            process.kill()
            process.wait()
            watch.cancel()
            assert process.stdout
            process.stdout.close()


def run(check: Check, python: Path, port: int) -> tuple[list[tuple[str, int, int]], list[str]]:
    """(operation, keys that passed, keys) of every row of the table, and the lines printed."""
    arguments = ["-m", "lmcache.v1.basic_check", "--mode", check.mode, "--num-keys", str(KEYS)]
    arguments += ["--obj-size", str(check.elements), "--settle-time", str(SETTLE_S)]
    config = ""
    if check.scheme.startswith("{"):
        arguments += ["--l2-adapter", adapter(port)]
    else:
        config = configuration(check.scheme, port)
    rows: list[tuple[str, int, int]] = []
    lines: list[str] = []
    with lmcache(python, arguments, CHECK_S_MAX, config) as output:
        for line in output:
            lines.append(line.rstrip())
            if found := ROW.match(line):
                rows.append((found[1], int(found[2]), int(found[3])))
            if len(rows) == OPERATIONS or len(lines) == OUTPUT_LINES_MAX:
                break
    return rows, lines


# ---- the server's side ---------------------------------------------------------------------------------------------


def prepare(wire: Wire, options: tuple[str, ...]) -> None:
    """Declare the models that the options' namespaces name. RuntimeError when the server refuses one."""
    for n, word in enumerate(options):
        if word == "--kv-namespace":
            reply = wire("KV.MODEL", "SET", options[n + 2])
            if reply != "OK":
                raise RuntimeError(f"KV.MODEL SET {options[n + 2]}: {reply}")


def counted(wire: Wire) -> dict[str, tuple[int, int]]:
    """Command → (calls, failed or rejected calls) since CONFIG RESETSTAT."""
    pattern = r"cmdstat_(\S+?):calls=(\d+),.*rejected_calls=(\d+),failed_calls=(\d+)"
    text = wire("INFO", "commandstats").decode()
    return {name: (int(calls), int(a) + int(b)) for name, calls, a, b in re.findall(pattern, text)}


def judge(check: Check, rows: list[tuple[str, int, int]], calls: dict[str, tuple[int, int]]) -> list[str]:
    """What is wrong with a run; nothing when all is well."""
    wrong = [f"{passed} of {keys}: {what}" for what, passed, keys in rows if passed != keys or keys != KEYS]
    if len(rows) != OPERATIONS:
        wrong.append(f"{len(rows)} of {OPERATIONS} rows printed")
    for command, times in check.at_least.items():
        seen, failed = calls.get(command, (0, 0))
        if seen < times * KEYS:
            wrong.append(f"{seen} {command.upper()} arrived, not {times * KEYS}")
        if failed:
            wrong.append(f"{failed} {command.upper()} failed")
    return wrong


def check_all(kind: str, python: Path, options: tuple[str, ...]) -> int:
    """Every check against one server; how many failed."""
    failures = 0
    with Server(*PLAIN, *options, program=REDIS if kind == "redis" else ZEEKDB) as server, server.wire() as wire:
        prepare(wire, options)
        for check in CHECKS:
            wire("FLUSHALL")
            wire("CONFIG", "RESETSTAT")
            rows, lines = run(check, python, server.port)
            wrong = judge(check, rows, counted(wire))
            if "--kv-namespace" in options and wire("DBSIZE"):
                wrong.append("blocks stand in the keyspace, not in the region")
            print(f"{kind:7} {check.name:46} {'; '.join(wrong) or 'ok'}", flush=True)
            if wrong:
                failures += 1
                print(*(f"    {line}" for line in lines[-30:]), sep="\n")
    return failures


def arguments_of(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """What this program and bench/lmcache.py are told in the same words."""
    parser.add_argument("--python", type=Path, default=PYTHON, help="the interpreter of LMCache's environment")
    parser.add_argument("--options", default=shlex.join(REGION), help="options of ZeekDB alone, as on its command line")
    return parser.parse_args()


def main() -> int:
    """1 when a check failed, against either server."""
    parser = argparse.ArgumentParser(description="LMCache's own checks")
    parser.add_argument("--server", choices=("redis", "zeekdb", "both"), default="both")
    given = arguments_of(parser)
    if not given.python.exists():
        sys.exit(f"no LMCache there, `make compat-lmcache` makes its environment: {given.python}")
    options = tuple(shlex.split(given.options))
    kinds = ("redis", "zeekdb") if given.server == "both" else (given.server,)
    failures = sum(check_all(kind, given.python, options if kind == "zeekdb" else ()) for kind in kinds)
    print(f"{failures} failed" if failures else "all pass")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
