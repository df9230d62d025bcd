"""What a server answers that has no cluster, no replicas, no modules and no disk."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import zeekdb.commands.cluster
import zeekdb.commands.modules
import zeekdb.commands.persistence
import zeekdb.commands.replication  # noqa: F401
from tests.unit.commands.harness import Bench
from zeekdb.commands.spec import REGISTRY
from zeekdb.hot.replies import NO_REPLY

NO_CLUSTER = "ERR This instance has cluster support disabled"
SYNTAX = "ERR syntax error"
NOT_INTEGER = "ERR value is not an integer or out of range"


@pytest.fixture
def bench() -> Bench:
    made = Bench(enable_module_command="no")
    made.client.addr, made.client.is_unix = "10.0.0.1:5", False
    made.client.write_offset = made.client.wrote_end = 7
    made.ctx.server.appendonly = SimpleNamespace(log=None)
    made.ctx.server.primary = SimpleNamespace(
        announce=lambda client: SimpleNamespace(), acknowledge=lambda client, offset: None,
        acknowledged_by=lambda offset: 0, ask=lambda: None,
    )  # fmt: skip
    return made


def test_cluster(bench: Bench) -> None:
    subcommands = REGISTRY["CLUSTER"].subcommands
    assert len(subcommands) == 29
    for name, spec in subcommands.items():
        assert bench("CLUSTER", name, *["1"] * (abs(spec.arity) - 2)) == NO_CLUSTER
    for name in ("ASKING", "READONLY", "READWRITE"):
        assert bench(name) == NO_CLUSTER


def test_modules(bench: Bench) -> None:
    assert bench("MODULE", "LIST") == []
    assert bench("MODULE", "HELP")[0].startswith("MODULE <subcommand>")
    for call in (("LOAD", "/x"), ("LOADEX", "/x", "ARGS"), ("UNLOAD", "x")):
        assert bench("MODULE", *call).startswith("ERR MODULE command not allowed. If the enable-module-command")
    bench.config.enable_module_command = "local"
    assert bench("MODULE", "LOAD", "/x").startswith("ERR MODULE command not allowed.")
    bench.client.is_unix = True
    assert bench("MODULE", "LOAD", "/x") == "ERR Error loading the extension. Please check the server logs."
    assert bench("MODULE", "UNLOAD", "x") == "ERR Error unloading module: no such module with that name"


def test_bgsave_options(bench: Bench) -> None:
    assert bench("BGSAVE", "foo") == bench("BGSAVE", "SCHEDULE", "x") == SYNTAX


def test_failover(bench: Bench) -> None:
    for words in ((), ("TO", "h", 1), ("FORCE",), ("TO", "h", 1, "TIMEOUT", 10, "FORCE")):
        assert bench("FAILOVER", *words) == "ERR FAILOVER requires connected replicas."
    assert bench("FAILOVER", "ABORT") == "ERR No failover in progress."
    for words in (("FOO",), ("TO", "h"), ("FORCE", "FORCE"), ("ABORT", "x"), ("FORCE", "TO")):
        assert bench("FAILOVER", *words) == SYNTAX
    assert bench("FAILOVER", "TIMEOUT", 0) == "ERR FAILOVER timeout must be greater than 0"
    assert bench("FAILOVER", "TO", "h", "x") == bench("FAILOVER", "TIMEOUT", "x") == NOT_INTEGER


def test_replconf(bench: Bench) -> None:
    for pair in (("listening-port", 1), ("IP-ADDRESS", "::1"), ("capa", "eof", "capa", "psync2"), ("rdb-only", 1)):
        assert bench("REPLCONF", *pair) == "OK"
    assert bench("REPLCONF") == bench("REPLCONF", "rdb-filter-only", "functions") == "OK"
    assert bench("REPLCONF", "ack", 1) is bench("REPLCONF", "getack", "*") is NO_REPLY
    assert bench("REPLCONF", "a") == SYNTAX
    assert bench("REPLCONF", "a", "b") == "ERR Unrecognized REPLCONF option: a"
    assert bench("REPLCONF", "listening-port", "x") == NOT_INTEGER
    assert bench("REPLCONF", "rdb-filter-only", "x") == "ERR Unsupported rdb-filter-only option: x"
    assert bench("REPLCONF", "ip-address", "x" * 300).endswith("too long: 300 bytes")


def test_wait(bench: Bench) -> None:
    assert bench("WAIT", 0, 100) == bench("WAIT", -1, 0) == 0
    assert bench("WAIT", "x", 0) == NOT_INTEGER
    for name, counts in (("WAIT", (1,)), ("WAITAOF", (0, 1))):
        assert bench(name, *counts, "x") == "ERR timeout is not an integer or out of range"
        assert bench(name, *counts, -1) == "ERR timeout is negative"
        assert bench(name, *counts, (1 << 63) - 1) == "ERR timeout is out of range"
    assert bench("WAITAOF", 0, 0, 0) == [0, 0]
    assert bench("WAITAOF", 1, 0, 0) == (
        "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled."
    )
    assert bench("WAITAOF", 2, 0, 0) == "ERR value is out of range, value must between 0 and 1"
    assert bench("WAITAOF", 0, -1, 0) == "ERR value is out of range, must be positive"


def test_wait_waits(bench: Bench) -> None:
    waits: list[tuple[Any, ...]] = []

    def await_replicas(client: Any, attempt: Any, timeout_ms: int, otherwise: Any) -> None:
        waits.append((timeout_ms, attempt(b""), otherwise()))

    bench.ctx.server.blocking = SimpleNamespace(await_replicas=await_replicas)
    bench("WAIT", 1, 100)
    bench("WAITAOF", 0, 2, 0)
    assert waits == [(100, None, 0), (0, None, [0, 0])]
    bench.ctx.deny_blocking = True
    assert [bench("WAIT", 1, 0), bench("WAITAOF", 0, 1, 0)] == [0, [0, 0]]
