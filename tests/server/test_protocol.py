"""The wire as clients meet it: versions, inline commands, pipelines, broken and hostile input."""

from __future__ import annotations

import contextlib
import random
import socket

import pytest

from tests.support import Failure, NullArray, Server, Simple, Verbatim, Wire, encode, wait_for


def test_resp2_is_what_a_new_connection_speaks(wire: Wire) -> None:
    assert wire("HGETALL", "absent") == []
    assert wire("GET", "absent") is None
    assert wire("LPOP", "absent", 2) == NullArray()
    wire("HSET", "h", "f", "v")
    assert wire("HGETALL", "h") == [b"f", b"v"]
    assert isinstance(wire("PING"), Simple)


def test_hello_changes_the_protocol_and_says_who_is_there(wire: Wire) -> None:
    reply = wire("HELLO", 3)
    assert isinstance(reply, dict)
    assert reply[b"server"] == b"redis"
    assert reply[b"proto"] == 3
    assert reply[b"mode"] == b"standalone"
    assert reply[b"role"] == b"master"
    assert reply[b"modules"] == []
    assert isinstance(reply[b"id"], int)
    wire("HSET", "h", "f", "v")
    assert wire("HGETALL", "h") == {b"f": b"v"}
    assert wire("SMEMBERS", "absent") == []
    assert wire("GET", "absent") is None
    wire("ZADD", "z", "1.5", "m")
    assert wire("ZSCORE", "z", "m") == 1.5
    assert wire("ZRANGE", "z", 0, -1, "WITHSCORES") == [[b"m", 1.5]]
    assert isinstance(wire("LOLWUT"), Verbatim)
    back = wire("HELLO", 2)
    assert isinstance(back, list)
    assert back[4:6] == [b"proto", 2]
    assert wire("ZSCORE", "z", "m") == b"1.5"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("4",), "NOPROTO unsupported protocol version"),
        (("x",), "ERR Protocol version is not an integer or out of range"),
        (("3", "SETNAME"), "ERR Syntax error in HELLO option 'SETNAME'"),
        (("3", "WHAT"), "ERR Syntax error in HELLO option 'WHAT'"),
        (("3", "AUTH", "default", "wrong"), "OK"),  # nopass: any password does
    ],
)
def test_hello_refuses(wire: Wire, arguments: tuple[str, ...], error: str) -> None:
    reply = wire("HELLO", *arguments)
    assert reply == error if isinstance(reply, Failure) else error == "OK"


def test_hello_sets_the_name_and_without_version_keeps_the_protocol(wire: Wire) -> None:
    assert wire("HELLO", 3, "SETNAME", "worker")[b"proto"] == 3
    assert wire("CLIENT", "GETNAME") == b"worker"
    assert wire("HELLO")[b"proto"] == 3


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"PING\r\n", "PONG"),
        (b"PING\n", "PONG"),
        (b"  ping  \r\n", "PONG"),
        (b"\r\n\r\nPING\r\n", "PONG"),
        (b'SET k "a b\\x41\\n"\r\nGET k\r\n', "OK"),
        (b"ECHO 'it\\'s'\r\n", b"it's"),
        (b'ECHO ""\r\n', b""),
    ],
)
def test_inline_commands(wire: Wire, line: bytes, reply: object) -> None:
    wire.send(line)
    assert wire.read() == reply
    if line.startswith(b"SET"):
        assert wire.read() == b"a bA\n"


def test_empty_and_null_arrays_are_passed_over(wire: Wire) -> None:
    wire.send(b"*0\r\n*-1\r\n" + encode("PING"))
    assert wire.read() == "PONG"


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"*x\r\n", "ERR Protocol error: invalid multibulk length"),
        (b"*2147483648\r\n", "ERR Protocol error: invalid multibulk length"),
        (b"*99999999999999999999\r\n", "ERR Protocol error: invalid multibulk length"),
        (b"*1\r\n:1\r\n", "ERR Protocol error: expected '$', got ':'"),
        (b"*1\r\n\r\n", "ERR Protocol error: expected '$', got ' '"),
        (b"*1\r\n$x\r\n", "ERR Protocol error: invalid bulk length"),
        (b"*1\r\n$-1\r\n", "ERR Protocol error: invalid bulk length"),
        (b"*2\r\n$3\r\nGET\r\n$99999999999\r\n", "ERR Protocol error: invalid bulk length"),
        (b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870913\r\n", "ERR Protocol error: invalid bulk length"),
        (b"SET k \"open\r\n", "ERR Protocol error: unbalanced quotes in request"),
        (b"x" * 70000, "ERR Protocol error: too big inline request"),
        (b"*" + b"1" * 70000, "ERR Protocol error: too big mbulk count string"),
        (b"*1\r\n$" + b"1" * 70000, "ERR Protocol error: too big bulk count string"),
    ],
)
def test_what_is_no_command_gets_redis_s_error_and_the_door(wire: Wire, data: bytes, error: str) -> None:
    with contextlib.suppress(ConnectionError):
        wire.send(data)
    reply = wire.read()
    assert isinstance(reply, Failure)
    assert reply == error
    assert wire.closed()


def test_commands_before_a_protocol_error_are_answered(wire: Wire) -> None:
    wire.send(encode("SET", "k", "1") + encode("INCR", "k") + b"*1\r\n!\r\n" + encode("INCR", "k"))
    assert [wire.read(), wire.read()] == ["OK", 2]
    assert isinstance(wire.read(), Failure)
    assert wire.closed()


def test_every_cut_of_a_command_is_the_same_command(wire: Wire, server: Server) -> None:
    data = encode("SET", "key", "v" * 50) + encode("GET", "key") + b"PING\r\n" + encode("ECHO", b"\r\n$5\r\n")
    expected = ["OK", b"v" * 50, "PONG", b"\r\n$5\r\n"]
    for cut in range(1, len(data)):
        wire.send(data[:cut])
        wire.send(data[cut:])
        assert [wire.read() for _ in expected] == expected, cut
    for byte in data:  # one at a time
        wire.send(bytes([byte]))
    assert [wire.read() for _ in expected] == expected


def test_a_pipeline_of_any_depth_is_answered_in_order(wire: Wire) -> None:
    n = 20_000
    replies = wire.pipeline([("INCR", "n") for _ in range(n)])
    assert replies == list(range(1, n + 1))


def test_back_pressure_a_client_that_does_not_read_bounds_the_server(server: Server, wire: Wire) -> None:
    """Replies far beyond the socket's buffers: the server stops reading until the client does."""
    wire("SET", "big", b"x" * 100_000)
    before = server.rss_bytes()
    count = 3000  # 300 MB of replies, all asked for before the first is read
    with server.wire() as slow:
        slow.socket.setblocking(False)
        data = memoryview(encode("GET", "big") * count)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < len(data):
                sent += slow.socket.send(data[sent:])
        assert wire("PING") == "PONG"  # nobody else notices
        slow.socket.settimeout(20)
        received = 0
        whole = sent // len(encode("GET", "big"))
        while received < whole:
            assert slow.read() == b"x" * 100_000
            received += 1
        growth = server.rss_bytes() - before
    assert growth < 600_000_000


def test_many_small_pipelines_interleaved(server: Server, wire: Wire) -> None:
    wires = [server.wire() for _ in range(50)]
    for step in range(20):
        for number, each in enumerate(wires):
            each.send(encode("SET", f"k{number}", step) + encode("GET", f"k{number}"))
        for each in wires:
            assert each.read() == "OK"
            assert each.read() == str(step).encode()
    for each in wires:
        each.close()


def test_a_slow_sender_holds_up_nobody(server: Server, wire: Wire) -> None:
    with server.wire() as slow:
        for byte in encode("SET", "slow", "value"):
            slow.send(bytes([byte]))
            assert wire("PING") == "PONG"
        assert slow.read() == "OK"
    assert wire("GET", "slow") == b"value"


def test_half_a_command_and_goodbye_changes_nothing(server: Server, wire: Wire) -> None:
    for cut in (1, 5, 20, 30):
        with server.wire() as leaver:
            leaver.send(encode("SET", "never", "v" * 100)[:cut])
    with server.wire() as leaver:
        leaver.send(b"*3\r\n$3\r\nSET\r\n$5\r\nnever\r\n$33554432\r\n" + b"x" * 100_000)
    assert wire("EXISTS", "never") == 0


def test_a_length_that_lies_reserves_nothing(server: Server, wire: Wire) -> None:
    """512 MB are promised by twenty connections at once; none of it is taken before it comes."""
    before = server.rss_bytes()
    liars = [server.wire() for _ in range(20)]
    for liar in liars:
        liar.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\n" + b"x" * 1000)
    for liar in liars:
        liar.send(b"x" * 1000)
    assert wire("PING") == "PONG"
    assert server.rss_bytes() - before < 200_000_000
    for liar in liars:
        liar.close()
    assert wire("EXISTS", "k") == 0


def test_a_count_that_lies_reserves_nothing(server: Server, wire: Wire) -> None:
    before = server.rss_bytes()
    liars = [server.wire() for _ in range(20)]
    for liar in liars:
        liar.send(b"*1048576\r\n$4\r\nMSET\r\n$1\r\nk\r\n")
    assert wire("PING") == "PONG"
    assert server.rss_bytes() - before < 200_000_000
    for liar in liars:
        liar.close()


def test_random_bytes_end_at_worst_the_connection_that_sent_them(server: Server, wire: Wire) -> None:
    dice = random.Random(20_260)
    for _ in range(50):
        with server.wire() as noisy, contextlib.suppress(ConnectionError, EOFError, ValueError):
            noisy.send(dice.randbytes(dice.randrange(1, 2000)))
            noisy.socket.shutdown(socket.SHUT_WR)
            noisy.closed()
    assert wire("PING") == "PONG"


@pytest.mark.parametrize("size", [65_535, 65_536, 1_000_000, 32 << 20])
def test_large_values_go_in_and_out_whole(wire: Wire, size: int) -> None:
    value = random.Random(size).randbytes(size)
    for _ in range(3):  # over itself
        assert wire("SET", "large", value) == "OK"
    assert wire("STRLEN", "large") == size
    assert wire("GET", "large") == value
    assert wire("GETRANGE", "large", size - 5, -1) == value[-5:]
    assert wire("APPEND", "large", b"tail") == size + 4
    assert wire("GET", "large") == value + b"tail"


@pytest.mark.parametrize("size", [65_536, 4 << 20])
def test_a_large_value_may_be_cut_anywhere_near_its_end(server: Server, wire: Wire, size: int) -> None:
    """Its line end has no place in the blob that it is received into, whether it comes with it or later."""
    value = random.Random(size).randbytes(size)
    command = encode("SET", "cut", value)
    head = len(command) - size - 2

    def received() -> int:
        fields = dict(field.split(b"=") for field in wire("CLIENT", "LIST", "ID", reader).split())
        return int(fields[b"qbuf"])

    with server.wire() as writer:
        reader = writer("CLIENT", "ID")
        for first, second in ((3, 2), (3, 1), (2, 1), (2, 0), (1, 0), (4, 3)):
            at = 0
            for left in (size // 2, first, second):
                writer.send(command[at : len(command) - left])
                at = len(command) - left
                if 0 < left <= 2:  # it wakes up for all but the line end
                    wait_for(lambda: received() >= at - head, what=f"the server has all but {left} bytes")  # noqa: B023
            writer.send(command[at:] + encode("STRLEN", "cut"))
            assert writer.read() == "OK"
            assert writer.read() == size
            assert wire("GET", "cut") == value
    assert wire("MEMORY", "USAGE", "cut") < size + 1024  # a power of two takes no more than it is


def test_a_large_value_overwritten_while_it_is_being_sent_arrives_as_it_was(server: Server, wire: Wire) -> None:
    old, new = b"a" * (8 << 20), b"b" * (8 << 20)
    wire("SET", "v", old)
    with server.wire() as reader:
        reader.send(encode("GET", "v") * 4)
        wait_for(lambda: reader.socket.recv(1, socket.MSG_PEEK), what="the first reply begins")
        wire("SET", "v", new)
        for _ in range(4):
            reply = reader.read()
            assert reply in (old, new)


def test_large_values_leave_when_deleted(server: Server, wire: Wire) -> None:
    value = b"x" * (32 << 20)
    wire("SET", "v", value)
    wire("DEL", "v")
    for _ in range(3):
        wire("SET", "v", value)
    base = server.rss_bytes()
    for _ in range(20):
        wire("SET", "v", value)
    assert server.rss_bytes() - base < 64 << 20


def test_reset_gives_back_a_new_connection(wire: Wire) -> None:
    wire("HELLO", 3, "SETNAME", "n")
    wire("SELECT", 5)
    assert wire("RESET") == "RESET"
    assert wire("HGETALL", "absent") == []
    assert "db=0" in wire("CLIENT", "INFO").decode()
    assert wire("CLIENT", "GETNAME") is None


def test_quit_answers_and_closes(wire: Wire) -> None:
    wire.send(encode("PING") + encode("QUIT") + encode("PING"))
    assert [wire.read(), wire.read()] == ["PONG", "OK"]
    assert wire.closed()


def test_select_and_its_errors(wire: Wire) -> None:
    wire("SET", "k", "zero")
    assert wire("SELECT", 15) == "OK"
    assert wire("GET", "k") is None
    assert wire("SELECT", 16) == "ERR DB index is out of range"
    assert wire("SELECT", "x") == "ERR value is not an integer or out of range"
    assert wire("SELECT", 0) == "OK"
    assert wire("GET", "k") == b"zero"


def test_unknown_commands_and_arity(wire: Wire) -> None:
    assert wire("NOSUCH", "a", "b") == "ERR unknown command 'NOSUCH', with args beginning with: 'a' 'b' "
    assert wire("GET") == "ERR wrong number of arguments for 'get' command"
    assert wire("GET", "a", "b") == "ERR wrong number of arguments for 'get' command"
    assert wire("CLIENT", "NOSUCH") == "ERR unknown subcommand 'NOSUCH'. Try CLIENT HELP."
    assert wire("CONFIG", "GET") == "ERR wrong number of arguments for 'config|get' command"
    long = wire("X" * 5000, "y" * 5000)
    assert len(long) < 400
    assert "\n" not in wire("A\r\nB", "c\r\nd")
