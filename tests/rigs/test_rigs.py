"""The rigs are what they say: servers that answer, roles, passwords, TLS, and a proxy whose faults are faults."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.rigs.postgres import postgres
from tests.rigs.process import listens
from tests.rigs.proxy import Proxy, ProxyProcess
from tests.rigs.redis import MASTER, redis, sentinel_set
from tests.rigs.shared import Rigs
from tests.support import ROOT, Failure, Wire, wait_for


def test_a_shared_redis_is_empty_for_each_test(rigs: Rigs) -> None:
    assert rigs.redis()("DBSIZE") == 0
    assert rigs.redis()("SET", "k", "v") == "OK"
    assert rigs.redis()("GET", "k") == b"v", "asked again in the same test, it is not emptied again"


def test_a_shared_redis_was_emptied(rigs: Rigs) -> None:
    assert rigs.redis()("DBSIZE") == 0


def test_a_redis_of_our_own(rigs: Rigs) -> None:
    with redis(password="p", maxmemory="2mb") as server:
        with Wire(server.address) as wire:
            assert str(wire("GET", "k")).startswith("NOAUTH")
        assert isinstance(server("SET", "k", b"x" * (4 << 20)), (Failure, str))
        server.process.kill()
        assert not server.answers()
        server.start()
        assert server.answers()
        folder = server.process.folder
    assert not folder.exists()
    with redis(unix=True) as server:
        assert server("PING") == "PONG"
        assert server.url.startswith("unix:///")
    with redis(tls=rigs.certificates()) as server:
        assert server("PING") == "PONG"
        assert server.url.startswith("rediss://")


def test_sentinel_and_cluster(rigs: Rigs) -> None:
    assert rigs.sentinels().primary()("SET", "k", "v") == "OK"
    cluster = rigs.cluster()
    said = [node("SET", "k", "v") for node in cluster.nodes]
    assert said.count("OK") == 1
    assert sum(str(each).startswith("MOVED") for each in said) == len(cluster.nodes) - 1
    with rigs.zeekdb().wire() as wire:
        assert wire("DBSIZE") == 0


def test_a_replica_follows_a_dead_primary() -> None:
    with sentinel_set(replicas=1, sentinels=3) as set_:
        old = set_.primary()
        new = set_.fail_over()
        assert new is not old
        with Wire(set_.addresses[-1]) as wire:
            assert wire("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)


async def test_postgres(rigs: Rigs) -> None:
    asyncpg = pytest.importorskip("asyncpg")
    server = rigs.postgres()
    name = rigs.database()
    assert server.sql("SELECT current_database()", name) == [[name]]
    for url in (server.url(name), server.tcp_url(name)):
        connection = await asyncpg.connect(url)
        assert await connection.fetchval("SELECT current_database()") == name
        await connection.close()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(server.tcp_url(name, password="wrong"))
    with pytest.raises(RuntimeError, match="syntax error"):
        server.sql("no SQL at all")


@pytest.mark.slow
async def test_postgres_with_tls_dies_and_comes_back(rigs: Rigs) -> None:
    asyncpg = pytest.importorskip("asyncpg")
    with postgres(tls=rigs.certificates()) as server:
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await asyncpg.connect(server.tcp_url(), ssl=False)
        connection = await asyncpg.connect(server.tcp_url())
        assert await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        await connection.close()
        server.kill()
        assert not server.answers()
        server.start()
        assert server.answers()


def test_s3(rigs: Rigs) -> None:
    server = rigs.s3()
    bucket = server.bucket()
    assert server.ask("PUT", f"/{bucket}/a%20b", b"body")[0] == 200
    assert server.ask("GET", f"/{bucket}/a%20b") == (200, b"body")
    assert server.ask("GET", f"/{server.bucket()}/a%20b")[0] == 404


def test_what_runs_ends_with_the_run(tmp_path: Path) -> None:
    """A run of tests that is killed leaves no servers behind."""
    code = (
        "import os; from tests.rigs.redis import Redis\n"
        "server = Redis(); print(server.port, server.process.folder, flush=True); os.read(0, 1)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout
    port, folder = child.stdout.readline().decode().split()
    assert listens(("127.0.0.1", int(port)))
    child.kill()
    child.communicate()
    wait_for(lambda: not listens(("127.0.0.1", int(port))), what="the server has ended too")
    (Path(folder) / "log").unlink()
    Path(folder).rmdir()


# ---- the proxy -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unix", [False, True])
def test_pass_dead_and_pass_again(rigs: Rigs, unix: bool) -> None:
    proxy = rigs.proxy(rigs.redis().address, unix=unix)
    with Wire(proxy.address) as wire:
        assert wire("PING") == "PONG"
        assert wire("SET", "k", b"x" * 5_000_000) == "OK"
        assert wire("GET", "k") == b"x" * 5_000_000
        proxy.dead()
        with pytest.raises((ConnectionError, EOFError)):
            wire("PING")
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        Wire(proxy.address)
    proxy.passing()
    with Wire(proxy.address) as wire:
        assert wire("PING") == "PONG"
    assert proxy.connections == 2
    assert proxy.bytes_up > 5_000_000 < proxy.bytes_down


def test_to_a_unix_socket() -> None:
    with redis(unix=True) as server, Proxy(server.address) as proxy, Wire(proxy.address) as wire:
        assert wire("PING") == "PONG"


def test_hang_answers_late(rigs: Rigs) -> None:
    proxy = rigs.proxy(rigs.redis().address)
    with Wire(proxy.address) as old:
        assert old("PING") == "PONG"
        proxy.hang()
        old.send(b"PING\r\n")
        assert old.quiet(0.1)
        with Wire(proxy.address) as new:
            new.send(b"PING\r\n")
            assert new.quiet(0.1)
            proxy.passing()
            assert (old.read(), new.read()) == ("PONG", "PONG")


def test_slow_keeps_order(rigs: Rigs) -> None:
    proxy = rigs.proxy(rigs.redis().address)
    with Wire(proxy.address) as wire:
        assert wire("PING") == "PONG"
        proxy.slow(0.2)
        begin = time.monotonic()
        wire.send(b"ECHO 1\r\n")
        wire.send(b"ECHO 2\r\n")
        assert wire.read() == b"1"
        assert time.monotonic() - begin >= 0.4
        assert wire.read() == b"2"
        wire.send(b"ECHO 3\r\n")
        proxy.passing()
        wire.send(b"ECHO 4\r\n")
        assert (wire.read(), wire.read()) == (b"3", b"4")


def test_cut_in_mid_reply(rigs: Rigs) -> None:
    proxy = rigs.proxy(rigs.redis().address)
    with Wire(proxy.address) as wire:
        assert wire("SET", "k", b"x" * 1000) == "OK"
        proxy.cut(500)
        wire.send(b"GET k\r\n")
        assert len(wire.file.read()) == 500
    with Wire(proxy.address) as wire:
        assert wire("PING") == "PONG", "what is short passes"
    assert proxy.cuts == 1
    proxy.passing()
    with Wire(proxy.address) as wire:
        assert wire("GET", "k") == b"x" * 1000


def test_an_answer_of_the_tests_own(rigs: Rigs) -> None:
    proxy = rigs.proxy(rigs.redis().address)
    with Wire(proxy.address) as wire:
        proxy.answer(b"-NOAUTH Authentication required.\r\n")
        assert str(wire("PING")).startswith("NOAUTH")
        proxy.passing()
        assert wire("PING") == "PONG"
    assert proxy.answered == 1


def test_a_port_that_is_dead_stays_ours(rigs: Rigs) -> None:
    proxy = rigs.proxy(rigs.redis().address)
    proxy.dead()
    with socket.socket() as other, contextlib.suppress(OSError):
        other.bind(("127.0.0.1", proxy.port))
        other.listen()
        raise AssertionError("somebody else has taken the port")
    assert not os.path.exists("socket")


def test_a_proxy_in_a_process_of_its_own(rigs: Rigs) -> None:
    proxy = ProxyProcess("127.0.0.1", rigs.redis().port)
    try:
        with Wire(("127.0.0.1", proxy.port)) as wire:
            assert wire("PING") == "PONG"
            proxy("slow", 0.1)
            begin = time.monotonic()
            assert wire("PING") == "PONG"
            assert time.monotonic() - begin >= 0.2
            proxy("dead")
            with pytest.raises((ConnectionError, EOFError)):
                wire("PING")
        proxy("passing")
        with Wire(("127.0.0.1", proxy.port)) as wire:
            assert wire("PING") == "PONG"
    finally:
        proxy.close()
