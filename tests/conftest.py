"""Fixtures: a ZeekDB per module, a fresh one on request, connections that close themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.rigs.shared import fleet, rigs
from tests.support import Server, Wire

__all__ = ["fleet", "rigs"]  # fixtures


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A ZeekDB with default settings that the tests of one module share."""
    with Server() as running:
        yield running
        assert "Traceback" not in running.log(), running.log()


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    """A connection to the shared server, whose databases are empty."""
    with server.wire() as connection:
        assert connection("FLUSHALL") == "OK"
        yield connection


@pytest.fixture
def start_server() -> Iterator[Callable[..., Server]]:
    """Starts servers with arguments of the test's own (see `Server`); they end with the test."""
    running: list[Server] = []

    def start(*arguments: str, **options: Any) -> Server:
        running.append(Server(*arguments, **options))
        return running[-1]

    yield start
    for each in running:
        each.stop()
