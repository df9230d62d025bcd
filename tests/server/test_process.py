"""The program: command line, configuration file, signals, shutdown, log."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import ROOT, ZEEKDB, ZEEKDB_SERVER, Failure, Server, wait_for

Start = Callable[..., Server]


def directive(server: Server, name: str) -> str:
    with server.wire() as wire:
        return str(wire("CONFIG", "GET", name)[1].decode())


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(start_server: Start, signum: int) -> None:
    server = start_server()
    with server.wire() as wire:
        wire("SET", "k", "v")
        assert server.terminate(signum) == 0
        assert wire.closed()
    assert "ready to exit" in server.log().lower() or "bye" in server.log().lower()


def test_shutdown(start_server: Start) -> None:
    server = start_server()
    with server.wire() as wire:
        assert isinstance(wire("SHUTDOWN", "WHAT"), Failure)
        assert isinstance(wire("SHUTDOWN", "SAVE", "NOSAVE"), Failure)
        wire.send(b"SHUTDOWN NOSAVE\r\n")
        assert wire.closed()
    assert server.process.wait(10) == 0


def test_the_log_says_when_it_is_ready(start_server: Start) -> None:
    server = start_server()
    assert "Ready to accept connections" in wait_for(server.log)


def test_file_and_command_line_the_later_wins(start_server: Start, tmp_path: Path) -> None:
    extra = tmp_path / "extra.conf"
    extra.write_text("maxclients 77\n")
    path = tmp_path / "zeekdb.conf"
    path.write_text(f'# a comment\n\nmaxmemory 10mb\ntimeout 5\nrequirepass "a b"\ninclude {extra}\n')
    server = start_server(str(path), "--timeout", "0", "--loglevel", "debug")
    with server.wire() as wire:
        assert wire("AUTH", "a b") == "OK"
        get = {name: wire("CONFIG", "GET", name)[1] for name in ("maxmemory", "timeout", "maxclients", "loglevel")}
    assert get == {"maxmemory": b"10485760", "timeout": b"0", "maxclients": b"77", "loglevel": b"debug"}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("nosuchdirective 1", "nosuchdirective"),
        ("maxclients many", "maxclients"),
        ("port", "port"),
        ('requirepass "open', "requirepass"),
    ],
)
def test_a_wrong_directive_is_refused_with_its_line(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "zeekdb.conf"
    path.write_text(f"timeout 0\n{line}\n")
    ran = subprocess.run([*ZEEKDB, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=30)
    said = ran.stdout + ran.stderr
    assert ran.returncode == 1
    assert complaint in said
    assert "2" in said  # the line's number


def test_zeekdb_server_takes_redis_servers_command_line(start_server: Start, tmp_path: Path) -> None:
    path = tmp_path / "some.conf"
    path.write_text("timeout 9\n")
    server = start_server(str(path), "--save", "", "--appendonly", "no", "--bind", "127.0.0.1", program=ZEEKDB_SERVER)
    assert directive(server, "timeout") == "9"
    assert directive(server, "save") == ""


def test_zeekdb_server_reads_standard_input(start_server: Start) -> None:
    server = start_server("-", program=ZEEKDB_SERVER, stdin=b"timeout 11\nmaxclients 50\n")
    assert directive(server, "timeout") == "11"
    assert directive(server, "maxclients") == "50"


def test_versions_and_help() -> None:
    ran = subprocess.run([*ZEEKDB_SERVER, "--version"], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert ran.returncode == 0
    assert "v=" in ran.stdout
    ran = subprocess.run([*ZEEKDB_SERVER, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert "Usage:" in ran.stdout + ran.stderr


def test_the_shipped_configuration_is_what_holds_without_one(start_server: Start) -> None:
    plain = start_server()
    shipped = start_server(str(ROOT / "conf" / "zeekdb.conf"))
    with plain.wire() as one, shipped.wire() as two:
        defaults, given = one("CONFIG", "GET", "*"), two("CONFIG", "GET", "*")
    differs = {
        name: (value, dict(zip(given[::2], given[1::2], strict=True)).get(name))
        for name, value in zip(defaults[::2], defaults[1::2], strict=True)
        if name not in (b"port", b"dir") and dict(zip(given[::2], given[1::2], strict=True)).get(name) != value
    }
    assert not differs


def test_config_rewrite_survives_a_restart(start_server: Start, tmp_path: Path) -> None:
    path = tmp_path / "zeekdb.conf"
    path.write_text("# mine\ntimeout 3\n")
    server = start_server(str(path))
    with server.wire() as wire:
        assert wire("CONFIG", "SET", "timeout", 7, "maxmemory-policy", "allkeys-lru") == "OK"
        assert wire("CONFIG", "REWRITE") == "OK"
    text = path.read_text()
    assert "# mine" in text
    assert "timeout 7" in text
    server.terminate()
    again = start_server(str(path))
    assert directive(again, "timeout") == "7"
    assert directive(again, "maxmemory-policy") == "allkeys-lru"


def test_logfile_and_pidfile(start_server: Start, tmp_path: Path) -> None:
    server = start_server("--logfile", str(tmp_path / "log"), "--pidfile", str(tmp_path / "pid"))
    wait_for(lambda: "Ready to accept connections" in (tmp_path / "log").read_text())
    assert int((tmp_path / "pid").read_text()) == server.pid
    server.terminate()
    assert not os.path.exists(tmp_path / "pid")
