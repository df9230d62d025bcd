"""The server that client libraries talk to. With ZEEKDB_TEST_SERVER=redis-server the tests themselves are tested."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support import Server

Need = Callable[..., None]


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    """One server for all clients; every test empties it first."""
    with Server("--save", "", "--appendonly", "no") as running:
        yield running
        assert "Traceback" not in running.log(), running.log()


@pytest.fixture
def need(server: Server) -> Need:
    """Skips the test where the server does not know these commands."""

    def check(*commands: str) -> None:
        with server.wire() as wire:
            found = wire("COMMAND", "INFO", *commands)
        missing = [name for name, info in zip(commands, found, strict=True) if not info or isinstance(info, bool)]
        if missing:
            pytest.skip(f"the server has no {', '.join(missing)}")

    return check
