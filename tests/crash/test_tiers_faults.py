"""A server whose remote tiers fail: no client hears of it, nothing acknowledged is lost, and the server says how it is.

One remote tier at a time, behind a proxy, below host memory and an SSD that have room for everything; clients store,
read, look up and delete meanwhile, and check every reply. Each fault begins and ends under load.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.crash.faults import (
    ENGINE,
    NETWORK,
    SECRET,
    Load,
    ObjectsRemote,
    PostgresRemote,
    Remote,
    WarmRemote,
    watch,
)
from tests.kv import Kv
from tests.rigs.redis import redis
from tests.rigs.s3 import SECRET_KEY
from tests.rigs.shared import Rigs
from tests.support import Server, wait_for
from zeekdb.tiers.guard import FAILURES_TO_OPEN

UNDER_WAY = 8  # calls at most, when the fault begins
STEADY = ("dead", "hang", "slow")
RECOVERY_S = 10.0  # from the end of a fault to a closed breaker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def warm(rigs: Rigs) -> WarmRemote:
    server = rigs.ends.enter_context(redis(password=SECRET))
    return WarmRemote(rigs.proxy(("127.0.0.1", server.port)), server)


def postgres(rigs: Rigs) -> PostgresRemote:
    server = rigs.postgres()
    database = rigs.database()
    remote = PostgresRemote(rigs.proxy(server.address), server, database)
    rigs.ends.callback(server.sql, f"DROP ROLE {remote.role}")
    rigs.ends.callback(server.drop, database)  # first, as the role owns what is in it
    return remote


def objects(rigs: Rigs) -> ObjectsRemote:
    server = rigs.s3()
    return ObjectsRemote(rigs.proxy(server.address), server, server.bucket())


REMOTES: dict[str, Callable[[Rigs], Remote]] = {"warm": warm, "postgres": postgres, "objects": objects}


@pytest.fixture(params=list(REMOTES))
def remote(request: pytest.FixtureRequest, rigs: Rigs) -> Remote:
    return REMOTES[request.param](rigs)


@pytest.fixture
def server(remote: Remote, tmp_path: Path, start_server: Callable[..., Server]) -> Iterator[Server]:
    """Memory for a part of the load, an SSD for all of it, and the remote tier for whatever it gets."""
    running = start_server(
        "--save", "", "--kv-memory", "8mb", "--kv-ssd-path", str(tmp_path / "ssd"), "--kv-ssd-size", "1gb",
        "--kv-ssd-uses", "1", *remote.directives(),
    )  # fmt: skip
    yield running
    log = running.log()
    assert "Traceback" not in log and "never awaited" not in log and "never retrieved" not in log, log
    assert SECRET not in log and SECRET_KEY not in log, "a secret is in the log"


def breakers(tier: dict[str, Any]) -> list[bytes]:
    """The states of its breakers: objects have one for reading and one for writing."""
    return [tier[name] for name in ("breaker", "write_breaker") if name in tier]


def is_well(tier: dict[str, Any]) -> bool:
    return tier["state"] == b"ok" and set(breakers(tier)) == {b"closed"}


def is_down(tier: dict[str, Any]) -> bool:
    return tier["state"] == b"failing" and bool({b"open", b"half-open"} & set(breakers(tier)))


def says_no_secret(kv: Kv) -> None:
    """Neither KV.TIERS, nor INFO, nor CONFIG GET."""
    for reply in (kv("KV.TIERS"), kv("INFO", "everything"), kv("CONFIG", "GET", "kv-*")):
        assert SECRET not in repr(reply) and SECRET_KEY not in repr(reply)


def info_state(kv: Kv, name: str) -> str:
    """The tier's state, as INFO says it."""
    heads = (f"tensors_tier_{name}:", f"tier_{name}:")
    lines = [line for line in kv("INFO", "everything").decode().splitlines() if line.startswith(heads)]
    assert len(lines) == 1, f"INFO has {len(lines)} lines of {name}"
    return dict(field.split("=", 1) for field in lines[0].split(":", 1)[1].split(","))["state"]


@pytest.mark.parametrize("fault", NETWORK)
def test_the_network_fails(server: Server, remote: Remote, fault: str) -> None:
    with Kv(server).declare() as kv:
        watch(kv, remote.name, is_well, 20, "the tier is open")
        with Load(server) as load:
            load.goes_on()
            wait_for(lambda: remote.blocks() > 0, 20, "blocks reach the tier")
            before = watch(kv, remote.name, is_well, 20, "all is well under load")
            remote.break_(fault)

            def opened_in_time(tier: dict[str, Any]) -> bool:
                failures = tier["failures"] - before["failures"]
                opens = tier["breaker_opens"] - before["breaker_opens"]
                if fault in STEADY:  # every call fails, but for what was answered before and is read after
                    most = FAILURES_TO_OPEN * len(breakers(tier)) + UNDER_WAY
                    assert opens or failures < most, f"still closed: {tier}"
                return is_down(tier)

            down = watch(kv, remote.name, opened_in_time, 30, "the breaker opens")
            assert down["error"]
            wait_for(lambda: info_state(kv, remote.name) == "failing", what="INFO says so, too")
            says_no_secret(kv)
            load.goes_on()
            remote.heal()
            watch(kv, remote.name, is_well, RECOVERY_S, "the breaker closes by itself")
            assert info_state(kv, remote.name) == "ok"
            written = kv.tier(remote.name)["write_count"]
            load.goes_on()
            watch(kv, remote.name, lambda tier: tier["write_count"] > written, 20, "blocks reach the tier again")
        load.check_all()


@pytest.mark.parametrize("fault", ENGINE)
def test_the_engine_says_no(server: Server, remote: Remote, fault: str) -> None:
    with Kv(server).declare() as kv:
        watch(kv, remote.name, is_well, 20, "the tier is open")
        with Load(server) as load:
            load.goes_on()
            wait_for(lambda: remote.blocks() > 0, 20, "blocks reach the tier")
            remote.break_(fault)
            down = watch(kv, remote.name, lambda tier: tier["state"] == b"failing", 30, "it says that it fails")
            assert down["error"]
            wait_for(lambda: info_state(kv, remote.name) == "failing", what="INFO says so, too")
            says_no_secret(kv)
            load.goes_on()
            remote.heal()
            watch(kv, remote.name, is_well, RECOVERY_S, "it is well again")
            written = kv.tier(remote.name)["write_count"]
            load.goes_on()
            watch(kv, remote.name, lambda tier: tier["write_count"] > written, 20, "blocks reach the tier again")
        load.check_all()


@pytest.mark.parametrize("fault", ["dead", "hang", "auth"])
def test_a_start_with_a_tier_that_fails(
    remote: Remote, tmp_path: Path, start_server: Callable[..., Server], fault: str
) -> None:  # fmt: skip
    """The server starts without it, serves, and uses it from the moment that it answers."""
    if fault == "auth" and isinstance(remote, WarmRemote):
        remote.server("CONFIG", "SET", "requirepass", "another")
        remote.server.password = "another"
    else:
        remote.break_(fault)
    words = ["--save", "", "--kv-memory", "8mb", "--kv-ssd-path", str(tmp_path / "ssd"), "--kv-ssd-size", "1gb"]
    server = start_server(*words, "--kv-ssd-uses", "1", *remote.directives())
    with Kv(server).declare() as kv, Load(server) as load:
        load.goes_on()
        watch(kv, remote.name, lambda tier: tier["state"] == b"failing", 30, "it says that it fails")
        remote.heal()
        watch(kv, remote.name, is_well, RECOVERY_S, "it is well")
        load.goes_on()
        wait_for(lambda: remote.blocks() > 0, 20, "blocks reach the tier")
    load.check_all()
    assert SECRET not in server.log() and "Traceback" not in server.log(), server.log()


@pytest.mark.parametrize("fault", ["dead", "hang", "slow"])
def test_an_end_while_a_tier_fails(server: Server, remote: Remote, fault: str) -> None:
    """SIGTERM ends the server in time, whatever waits to be written to the tier that is not there."""
    with Kv(server).declare() as kv, Load(server) as load:
        watch(kv, remote.name, is_well, 20, "the tier is open")
        load.goes_on()
        remote.break_(fault)
        load.goes_on(20)
        load.stop()
        load.check()
    assert server.terminate(deadline_s=20) == 0


def test_the_load_sees_what_is_wrong(start_server: Callable[..., Server], tmp_path: Path) -> None:
    """A load without a fault passes; one that is lied to does not."""
    server = start_server(
        "--save", "", "--kv-memory", "8mb", "--kv-ssd-path", str(tmp_path / "ssd"), "--kv-ssd-size", "1gb",
        "--kv-ssd-uses", "1",
    )  # fmt: skip
    with Kv(server).declare() as kv:
        with Load(server) as load:
            load.goes_on()
        load.check_all()
        client = load.clients[0]
        name = next(iter(client.there))
        kv.of_keys("KV.DEL", [name])
        with pytest.raises(AssertionError, match="acknowledged, and is gone"):
            client.check_all()
        kv.store({name: b"other"})
        with pytest.raises(AssertionError, match="other bytes"):
            client.check_all()
        del client.there[name]
        with pytest.raises(AssertionError, match="there again"):
            client.check_all()
