"""Commands about the connection itself: who it is, which database it sees, how it is answered."""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any, Final

from zeekdb.commands.args import INT64_MAX, parse_int, parse_range, show
from zeekdb.commands.context import Context
from zeekdb.commands.reply import Verbatim, help_lines
from zeekdb.commands.spec import ADMIN, ALLOW_BUSY, FAST, LOADING, NO_AUTH, NOSCRIPT, STALE, command, container
from zeekdb.config.options import NAMES
from zeekdb.errors import CommandError, SyntaxError_, WrongArity
from zeekdb.observe.info import REDIS_VERSION

if TYPE_CHECKING:
    from zeekdb.commands.ports import ClientPort, ServerPort

REDACTED: Final = b"(redacted)"
ALL_SHARDS = ("request_policy:all_shards", "response_policy:all_succeeded")
ALL_NODES = ("request_policy:all_nodes", "response_policy:all_succeeded")
VARIES = ("nondeterministic_output",)
KINDS: Final = {
    b"normal": "normal",
    b"slave": "replica",
    b"replica": "replica",
    b"master": "master",
    b"pubsub": "pubsub",
}
ALWAYS = NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY  # commands that answer in any state
PLAIN = NOSCRIPT | LOADING | STALE


def redacted(words: list[bytes]) -> list[bytes]:
    """A call as the slow log and MONITOR may show it: without passwords."""
    name = words[0].upper()
    if name == b"AUTH":
        return words[:1] + [REDACTED] * (len(words) - 1)
    if name == b"HELLO":
        auth_at = next((at for at, word in enumerate(words) if word.upper() == b"AUTH"), len(words))
        return [REDACTED if auth_at < at <= auth_at + 2 else word for at, word in enumerate(words)]
    if name == b"MIGRATE":
        secret_at: set[int] = set()
        for at, word in enumerate(words[6:], 6):
            if at not in secret_at and word.upper() in (b"AUTH", b"AUTH2"):
                secret_at |= {at + 1, at + 2} if word.upper() == b"AUTH2" else {at + 1}
            elif at not in secret_at and word.upper() == b"KEYS":
                break
        return [REDACTED if at in secret_at else word for at, word in enumerate(words)]
    if name == b"ACL" and len(words) > 2 and words[1].upper() == b"SETUSER":
        return words[:2] + [REDACTED] * (len(words) - 2)
    if name == b"CONFIG" and len(words) > 3 and words[1].upper() == b"SET":
        secret = {name for name, directive in NAMES.items() if directive.sensitive}
        return [
            REDACTED if at >= 3 and at % 2 and show(words[at - 1]).lower() in secret else word
            for at, word in enumerate(words)
        ]
    return words


# --- who is there -------------------------------------------------------------------------------------------------


@command(
    "PING", arity=-1, flags=FAST, group="connection", since="1.0.0", acl=("connection",), complexity="O(1)",
    tips=ALL_SHARDS, twin="ping",
)  # fmt: skip
def ping(ctx: Context, *message: bytes) -> Any:
    """Answers, with the message where there is one."""
    if len(message) > 1:
        raise WrongArity("ping")
    client = ctx.client
    if client.protocol == 2 and (client.subscriptions or client.pattern_subscriptions or client.shard_subscriptions):
        return [b"pong", message[0] if message else b""]
    return message[0] if message else "PONG"


@command(
    "ECHO", arity=2, flags=FAST | LOADING | STALE, group="connection", since="1.0.0", acl=("connection",),
    complexity="O(1)",
)  # fmt: skip
def echo(ctx: Context, message: bytes) -> bytes:
    """Returns the message."""
    return message


def authenticate(ctx: Context, command: bytes, user: bytes, password: bytes) -> None:
    """Log the connection in, or raise WRONGPASS."""
    if not ctx.server.acl.authenticate(ctx.client, user, password, command):
        raise CommandError("WRONGPASS invalid username-password pair or user is disabled.")


@command(
    "AUTH", arity=-2, flags=ALWAYS, group="connection", since="1.0.0", acl=("connection",),
    complexity="O(1)", history=(("6.0.0", "Added ACL style (username and password)."),),
)  # fmt: skip
def auth(ctx: Context, *words: bytes) -> str:
    """Authenticates the connection."""
    if len(words) > 2:
        raise SyntaxError_
    if len(words) == 1 and ctx.server.acl.default.nopass:
        raise CommandError(
            "ERR AUTH <password> called without any password configured for the default user. "
            "Are you sure your configuration is correct?"
        )
    authenticate(ctx, b"AUTH", words[0] if len(words) == 2 else b"default", words[-1])
    return "OK"


@command(
    "HELLO", arity=-1, flags=ALWAYS, group="connection", since="6.0.0", acl=("connection",),
    complexity="O(1)",
    history=(("6.2.0", "`protover` is optional; without arguments the command tells about the connection."),),
)  # fmt: skip
def hello(ctx: Context, *words: bytes) -> dict[bytes, Any]:
    """Agrees on the protocol, logs in and names the connection in one step."""
    client, server = ctx.client, ctx.server
    protocol = client.protocol
    if words:
        protocol = parse_int(words[0], "ERR Protocol version is not an integer or out of range")
        if protocol not in (2, 3):
            raise CommandError("NOPROTO unsupported protocol version")
    login: tuple[bytes, bytes] | None = None
    name: bytes | None = None
    at = 1
    while at < len(words):
        option = words[at].upper()
        if option == b"AUTH" and at + 2 < len(words):
            login = (words[at + 1], words[at + 2])
            at += 3
        elif option == b"SETNAME" and at + 1 < len(words):
            name = checked_name(words[at + 1])
            at += 2
        else:
            raise CommandError(f"ERR Syntax error in HELLO option '{show(words[at])}'")
    if login:
        authenticate(ctx, b"HELLO", *login)
    if not client.authenticated:
        raise CommandError(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH "
            "<user> <pass> option can be used to authenticate the client and select the RESP protocol version at the "
            "same time"
        )
    if name is not None:
        client.name = name
    client.protocol = protocol
    return {
        b"server": b"redis",
        b"version": REDIS_VERSION.encode(),
        b"proto": protocol,
        b"id": client.id,
        b"mode": b"cluster" if server.config.cluster_enabled else b"standalone",
        b"role": b"replica" if server.replica.active else b"master",
        b"modules": [],
    }


@command(
    "SELECT", arity=2, flags=LOADING | STALE | FAST, group="connection", since="1.0.0", acl=("connection",),
    complexity="O(1)",
)  # fmt: skip
def select(ctx: Context, index: bytes) -> str:
    """Changes the database that the connection sees."""
    ctx.client.select(database_index(ctx, index))
    return "OK"


def database_index(ctx: Context, text: bytes, unreadable: str | None = None) -> int:
    """The number of a database, or Redis's error."""
    number = parse_int(text, unreadable)
    if not -(1 << 31) <= number < 1 << 31:
        raise CommandError(unreadable or "ERR value is out of range, value must between -2147483648 and 2147483647")
    if not 0 <= number < len(ctx.keyspace.databases):
        raise CommandError("ERR DB index is out of range")
    return number


@command(
    "QUIT", arity=-1, flags=ALWAYS, group="connection", since="1.0.0", acl=("connection",), complexity="O(1)",
    doc_flags=("deprecated",), replaced_by="just closing the connection", deprecated_since="7.2.0",
)  # fmt: skip
def quit_(ctx: Context, *ignored: bytes) -> str:
    """Closes the connection."""
    ctx.client.kill(after_reply=True)
    return "OK"


@command(
    "RESET", arity=1, flags=ALWAYS, group="connection", since="6.2.0", acl=("connection",), complexity="O(1)"
)
def reset(ctx: Context) -> str:
    """Takes everything back that commands have set on the connection."""
    ctx.client.reset()
    return "RESET"


# --- CLIENT -------------------------------------------------------------------------------------------------------

container("CLIENT", group="connection", since="2.4.0", summary="A container for client connection commands")


def checked_name(name: bytes) -> bytes:
    """A name that keeps CLIENT LIST's lines whole."""
    if not all(33 <= byte <= 126 for byte in name):
        raise CommandError("ERR Client names cannot contain spaces, newlines or special characters.")
    return name


def client_flags(client: ClientPort) -> str:
    """The letters of the `flags` field."""
    tracked = client.tracked
    letters = "".join(
        letter
        for letter, holds in (
            ("O", client.is_monitor),
            ("S", client.kind == "replica" and not client.is_monitor),
            ("M", client.kind == "master"),
            ("P", client.subscriptions or client.pattern_subscriptions or client.shard_subscriptions),
            ("x", client.in_multi),
            ("b", client.is_blocked),
            ("c", client.closing),
            ("U", client.is_unix),
            ("e", client.no_evict),
            ("T", client.no_touch),
            ("t", tracked is not None),
            ("R", tracked is not None and tracked.redirect_broken),
            ("B", tracked is not None and tracked.broadcast),
        )
        if holds
    )
    return letters or "N"


def client_line(client: ClientPort, now_s: float, running: int = 0) -> str:
    """One line of CLIENT LIST; `running`: bytes of the command under way, which Redis counts as input not yet done."""
    fields: tuple[tuple[str, object], ...] = (
        ("id", client.id),
        ("addr", client.addr),
        ("laddr", client.laddr),
        ("fd", client.fd),
        ("name", show(client.name)),
        ("age", max(0, int(now_s - client.created_s))),
        ("idle", max(0, int(now_s - client.last_interaction_s))),
        ("flags", client_flags(client)),
        ("db", client.db_index),
        ("sub", client.subscriptions),
        ("psub", client.pattern_subscriptions),
        ("ssub", client.shard_subscriptions),
        ("multi", client.queued_commands),
        ("qbuf", client.query_buffer_used + running),
        ("qbuf-free", client.query_buffer_free),
        ("argv-mem", client.argv_memory),
        ("multi-mem", client.multi_memory),
        ("rbs", client.reply_buffer_size),
        ("rbp", client.reply_buffer_peak),
        ("obl", client.reply_buffer_used),
        ("oll", client.reply_list_length),
        ("omem", client.reply_list_memory),
        ("tot-mem", client.memory),
        ("events", "rw" if client.reply_list_length else "r"),
        ("cmd", client.last_command),
        ("user", client.user),
        ("redir", -1 if client.tracked is None else client.tracked.redirect),
        ("resp", client.protocol),
        ("lib-name", show(client.lib_name)),
        ("lib-ver", show(client.lib_ver)),
    )
    return " ".join(f"{name}={value}" for name, value in fields) + "\n"


def lines_of(ctx: Context, clients: list[ClientPort], *call: bytes) -> Verbatim:
    """CLIENT LIST's reply to a call."""
    now_s = time.time()
    running = sum(len(b"$%d\r\n%b\r\n" % (len(word), word)) for word in (b"CLIENT", *call)) + len(b"*1\r\n")
    lines = [client_line(client, now_s, running if client is ctx.client else 0) for client in clients]
    return Verbatim("txt", "".join(lines).encode("utf-8", "surrogateescape"))


def client_kind(word: bytes) -> str:
    """A TYPE argument."""
    kind = KINDS.get(word.lower())
    if kind is None:
        raise CommandError(f"ERR Unknown client type '{show(word)}'")
    return kind


def switch(word: bytes) -> bool:
    """ON or OFF."""
    if word.upper() not in (b"ON", b"OFF"):
        raise SyntaxError_
    return word.upper() == b"ON"


@command(
    "CLIENT|ID", arity=2, flags=PLAIN, group="connection", since="5.0.0", acl=("connection",), complexity="O(1)"
)
def client_id(ctx: Context) -> int:
    """Returns the connection's number."""
    number: int = ctx.client.id
    return number


@command(
    "CLIENT|INFO", arity=2, flags=PLAIN, group="connection", since="6.2.0", acl=("connection",), complexity="O(1)",
    tips=VARIES,
)  # fmt: skip
def client_info(ctx: Context) -> Verbatim:
    """Returns what CLIENT LIST says of this connection."""
    return lines_of(ctx, [ctx.client], b"INFO")


@command(
    "CLIENT|LIST", arity=-2, flags=ADMIN | PLAIN, group="connection", since="2.4.0", acl=("connection",), tips=VARIES,
    complexity="O(N) where N is the number of client connections",
    history=(
        ("2.8.12", "Added unique client `id` field."), ("5.0.0", "Added optional `TYPE` filter."),
        ("6.0.0", "Added `user` field."),
        ("6.2.0", "Added `argv-mem`, `tot-mem`, `laddr` and `redir` fields and the optional `ID` filter."),
        ("7.0.0", "Added `resp`, `multi-mem`, `rbs` and `rbp` fields."), ("7.0.3", "Added `ssub` field."),
    ),
)  # fmt: skip
def client_list(ctx: Context, *words: bytes) -> Verbatim:
    """Returns a line for every connection, or for those of a type or with certain ids."""
    server: ServerPort = ctx.server
    if not words:
        return lines_of(ctx, list(server.clients()), b"LIST")
    option = words[0].upper()
    if option == b"TYPE" and len(words) == 2:
        kind = client_kind(words[1])
        return lines_of(ctx, [client for client in server.clients() if client.kind == kind], b"LIST", *words)
    if option == b"ID" and len(words) > 1:
        found = [server.client(parse_int(word, "ERR Invalid client ID")) for word in words[1:]]
        return lines_of(ctx, [client for client in found if client is not None], b"LIST", *words)
    raise SyntaxError_


def kill_filter(
    words: tuple[bytes, ...], users: Container[bytes]
) -> tuple[list[Callable[[ClientPort], bool]], bool]:
    """CLIENT KILL's new form: tests that a client must pass, and whether to spare the caller."""
    tests: list[Callable[[ClientPort], bool]] = []
    skip_me = True
    if len(words) % 2:
        raise SyntaxError_
    for option, word in zip(words[::2], words[1::2], strict=True):
        match option.upper():
            case b"ID":
                number = parse_range(word, 1, INT64_MAX, "ERR client-id should be greater than 0")
                tests.append(lambda client, number=number: client.id == number)  # type: ignore[misc]
            case b"TYPE":
                kind = client_kind(word)
                tests.append(lambda client, kind=kind: client.kind == kind)  # type: ignore[misc]
            case b"ADDR":
                tests.append(lambda client, text=show(word): client.addr == text)  # type: ignore[misc]
            case b"LADDR":
                tests.append(lambda client, text=show(word): client.laddr == text)  # type: ignore[misc]
            case b"USER":
                if word not in users:
                    raise CommandError(f"ERR No such user '{show(word)}'")
                tests.append(lambda client, user=show(word): client.user == user)  # type: ignore[misc]
            case b"SKIPME" if word.upper() in (b"YES", b"NO"):
                skip_me = word.upper() == b"YES"
            case _:
                raise SyntaxError_
    return tests, skip_me


@command(
    "CLIENT|KILL", arity=-3, flags=ADMIN | PLAIN, group="connection", since="2.4.0", acl=("connection",),
    complexity="O(N) where N is the number of client connections",
    history=(
        ("2.8.12", "Added new filter format."), ("2.8.12", "`ID` option."),
        ("3.2.0", "Added `master` type in for `TYPE` option."),
        ("5.0.0", "Replaced `slave` `TYPE` with `replica`. `slave` still supported for backward compatibility."),
        ("6.2.0", "`LADDR` option."),
    ),
)  # fmt: skip
def client_kill(ctx: Context, *words: bytes) -> int | str:
    """Closes connections: the one from an address, or all that pass the filters."""
    old_form = len(words) == 1
    if old_form:
        tests: list[Callable[[ClientPort], bool]] = [lambda client, text=show(words[0]): client.addr == text]  # type: ignore[misc]
        skip_me = False
    else:
        tests, skip_me = kill_filter(words, ctx.server.acl.users)
    server: ServerPort = ctx.server
    found = [client for client in server.clients() if all(test(client) for test in tests)]
    if skip_me:
        found = [client for client in found if client is not ctx.client]
    for client in found:
        client.kill(after_reply=client is ctx.client)
    if not old_form:
        return len(found)
    if not found:
        raise CommandError("ERR No such client")
    return "OK"


@command(
    "CLIENT|SETNAME", arity=3, flags=PLAIN, group="connection", since="2.6.9", acl=("connection",), complexity="O(1)",
    tips=ALL_NODES,
)  # fmt: skip
def client_setname(ctx: Context, name: bytes) -> str:
    """Names the connection; an empty name takes it back."""
    ctx.client.name = checked_name(name)
    return "OK"


@command(
    "CLIENT|GETNAME", arity=2, flags=PLAIN, group="connection", since="2.6.9", acl=("connection",), complexity="O(1)"
)
def client_getname(ctx: Context) -> bytes | None:
    """Returns the connection's name."""
    return ctx.client.name or None


@command(
    "CLIENT|SETINFO", arity=4, flags=PLAIN, group="connection", since="7.2.0", acl=("connection",), complexity="O(1)",
    tips=ALL_NODES,
)  # fmt: skip
def client_setinfo(ctx: Context, attribute: bytes, value: bytes) -> str:
    """Tells the server which library the client is made with."""
    field = {b"LIB-NAME": "lib_name", b"LIB-VER": "lib_ver"}.get(attribute.upper())
    if field is None:
        raise CommandError(f"ERR Unrecognized option '{show(attribute)}'")
    if not all(33 <= byte <= 126 for byte in value):
        raise CommandError(f"ERR {show(attribute)} cannot contain spaces, newlines or special characters.")
    setattr(ctx.client, field, value)
    return "OK"


@command(
    "CLIENT|NO-EVICT", arity=3, flags=ADMIN | PLAIN, group="connection", since="7.0.0", acl=("connection",),
    complexity="O(1)",
)  # fmt: skip
def client_no_evict(ctx: Context, word: bytes) -> str:
    """Spares the connection when clients are evicted for memory, or no longer."""
    ctx.client.no_evict = switch(word)
    return "OK"


@command(
    "CLIENT|NO-TOUCH", arity=3, flags=PLAIN, group="connection", since="7.2.0", acl=("connection",), complexity="O(1)"
)
def client_no_touch(ctx: Context, word: bytes) -> str:
    """Lets the connection's commands leave no trace in the keys' LRU and LFU, or again."""
    ctx.client.no_touch = switch(word)
    return "OK"


@command(
    "CLIENT|CAPA", arity=-3, flags=PLAIN, group="connection", since="8.0.0", acl=("connection",), complexity="O(1)"
)
def client_capa(ctx: Context, *capabilities: bytes) -> str:
    """Tells what the client understands; no reply depends on any of it, so all is welcome."""
    return "OK"


def parse_timeout_ms(text: bytes) -> int:
    """A timeout in milliseconds as the moment it ends."""
    timeout_ms = parse_int(text, "ERR timeout is not an integer or out of range")
    if timeout_ms < 0:
        raise CommandError("ERR timeout is negative")
    now_ms = int(time.time() * 1000)
    if timeout_ms > INT64_MAX - now_ms:
        raise CommandError("ERR timeout is out of range")
    return now_ms + timeout_ms


@command(
    "CLIENT|PAUSE", arity=-3, flags=ADMIN | PLAIN, group="connection", since="3.0.0", acl=("connection",),
    complexity="O(1)", history=(("6.2.0", "`CLIENT PAUSE WRITE` mode added along with the `mode` option."),),
)  # fmt: skip
def client_pause(ctx: Context, timeout: bytes, mode: bytes = b"ALL", *rest: bytes) -> str:
    """Holds commands back for some time: all of them, or those that write."""
    if rest:
        raise CommandError("ERR unknown subcommand or wrong number of arguments for 'pause'. Try CLIENT HELP.")
    if mode.upper() not in (b"ALL", b"WRITE"):
        raise CommandError("ERR CLIENT PAUSE mode must be WRITE or ALL")
    ctx.server.pause(parse_timeout_ms(timeout), mode.upper() == b"WRITE")
    return "OK"


@command(
    "CLIENT|UNPAUSE", arity=2, flags=ADMIN | PLAIN, group="connection", since="6.2.0", acl=("connection",),
    complexity="O(N) Where N is the number of paused clients",
)  # fmt: skip
def client_unpause(ctx: Context) -> str:
    """Lets commands go on that CLIENT PAUSE holds back."""
    ctx.server.unpause()
    return "OK"


@command(
    "CLIENT|REPLY", arity=3, flags=PLAIN, group="connection", since="3.2.0", acl=("connection",), complexity="O(1)"
)
def client_reply(ctx: Context, mode: bytes) -> Any:
    """Says whether the connection wants replies: yes, no, or all but the next."""
    from zeekdb.hot.replies import NO_REPLY

    word = mode.lower().decode("ascii", "replace")
    if word not in ("on", "off", "skip"):
        raise SyntaxError_
    if word != "skip" or ctx.client.reply_mode != "off":
        ctx.client.set_reply_mode(word)
    return "OK" if word == "on" else NO_REPLY


@command(
    "CLIENT|UNBLOCK", arity=-3, flags=ADMIN | PLAIN, group="connection", since="5.0.0", acl=("connection",),
    complexity="O(log N) where N is the number of client connections",
)  # fmt: skip
def client_unblock(ctx: Context, number: bytes, reason: bytes = b"TIMEOUT", *rest: bytes) -> int:
    """Ends another connection's blocking command, as by timeout or with an error."""
    if rest:
        raise CommandError("ERR unknown subcommand or wrong number of arguments for 'unblock'. Try CLIENT HELP.")
    if reason.upper() not in (b"TIMEOUT", b"ERROR"):
        raise CommandError("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")
    client = ctx.server.client(parse_int(number))
    return int(client is not None and client.is_blocked and client.unblock(reason.upper() == b"ERROR"))


@command(
    "CLIENT|HELP", arity=2, flags=LOADING | STALE, group="connection", since="5.0.0", acl=("connection",),
    complexity="O(1)",
)  # fmt: skip
def client_help(ctx: Context) -> list[str]:
    """Lists the subcommands."""
    return help_lines(
        "CLIENT",
        "GETNAME",
        "    Return the name of the current connection.",
        "ID",
        "    Return the ID of the current connection.",
        "INFO",
        "    Return information about the current client connection.",
        "KILL <ip:port>",
        "    Kill connection made from <ip:port>.",
        "KILL <option> <value> [<option> <value> [...]]",
        "    Kill connections. Options are:",
        "    * ADDR (<ip:port>|<unixsocket>:0)",
        "      Kill connections made from the specified address",
        "    * LADDR (<ip:port>|<unixsocket>:0)",
        "      Kill connections made to specified local address",
        "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
        "      Kill connections by type.",
        "    * USER <username>",
        "      Kill connections authenticated by <username>.",
        "    * SKIPME (YES|NO)",
        "      Skip killing current connection (default: yes).",
        "LIST [options ...]",
        "    Return information about client connections. Options:",
        "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
        "      Return clients of specified type.",
        "UNPAUSE",
        "    Stop the current client pause, resuming traffic.",
        "PAUSE <timeout> [WRITE|ALL]",
        "    Suspend all, or just write, clients for <timeout> milliseconds.",
        "REPLY (ON|OFF|SKIP)",
        "    Control the replies sent to the current connection.",
        "SETNAME <name>",
        "    Assign the name <name> to the current connection.",
        "SETINFO <option> <value>",
        "    Set client meta attr. Options are:",
        "    * LIB-NAME: the client lib name.",
        "    * LIB-VER: the client lib version.",
        "UNBLOCK <clientid> [TIMEOUT|ERROR]",
        "    Unblock the specified blocked client.",
        "NO-EVICT (ON|OFF)",
        "    Protect current client connection from eviction.",
        "NO-TOUCH (ON|OFF)",
        "    Will not touch LRU/LFU stats when this mode is on.",
    )
