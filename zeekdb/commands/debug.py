"""DEBUG: what test suites need to look at and to turn. `enable-debug-command` says who may.

Subcommands are rows of a table here rather than declarations, because Redis declares DEBUG as one command.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import struct
import time
from collections.abc import Callable
from typing import Any

from zeekdb.commands.args import UINT64_MASK, parse_int, parse_range, show, to_float
from zeekdb.commands.context import Context
from zeekdb.commands.reply import BigNumber, Push, Verbatim, help_lines
from zeekdb.commands.server import is_local
from zeekdb.commands.spec import ADMIN, LOADING, NOSCRIPT, REGISTRY, STALE, command
from zeekdb.config.units import parse_memory
from zeekdb.errors import CommandError, NoSuchKey
from zeekdb.hot import rdb
from zeekdb.hot.keyspace import Database, glob_match
from zeekdb.persistence import payload
from zeekdb.types import Hash, List, Set, Stream, ZSet
from zeekdb.types.stream_groups import MAX_ID

log = logging.getLogger("zeekdb")

POPULATE_MAX = 100_000_000
SLEEP_S_MAX = 3600.0
REFUSED = (
    'ERR DEBUG command not allowed. If the enable-debug-command option is set to "local", you can run it from a local '
    "connection, otherwise you need to set this option in the configuration file, and then restart the server."
)


# --- digests, as Redis computes them: equal data have equal digests, here and there ---------------------------------


class Digest:
    """Redis's 20 bytes: `mix` depends on the order of what is mixed in, `fold` does not."""

    def __init__(self) -> None:
        self.value = 0

    def fold(self, data: bytes) -> None:
        """digest ^= SHA1(data)"""
        self.value ^= int.from_bytes(hashlib.sha1(data, usedforsecurity=False).digest(), "big")

    def mix(self, data: bytes) -> None:
        """digest = SHA1(digest ^ SHA1(data))"""
        self.fold(data)
        whole = hashlib.sha1(self.value.to_bytes(20, "big"), usedforsecurity=False).digest()
        self.value = int.from_bytes(whole, "big")

    def fold_pair(self, first: bytes, second: bytes) -> None:
        """Fold an element that has two parts."""
        inner = Digest()
        inner.mix(first)
        inner.mix(second)
        self.fold(inner.value.to_bytes(20, "big"))

    def hex(self) -> str:
        """40 digits."""
        return f"{self.value:040x}"


def mix_value(digest: Digest, db: Database, key: bytes) -> None:
    """Mix a key's type, value and whether it expires into a digest."""
    value = db.peek(key)
    if value is None:
        return
    kinds: list[type] = [bytes, List, Set, ZSet, Hash, type(None), Stream]  # Redis's numbers; 5 is for all others
    number = next((at for at, kind in enumerate(kinds) if isinstance(value, kind)), 5)
    digest.mix(struct.pack(">I", number))
    if isinstance(value, bytes):
        digest.mix(value)
    elif isinstance(value, List):
        for item in value.range(0, len(value) - 1):
            digest.mix(item)
    elif isinstance(value, Set):
        for member in value.members():
            digest.fold(member)
    elif isinstance(value, Hash):
        for field, content in value.items():
            digest.fold_pair(field, content)
    elif isinstance(value, ZSet):
        for name, score in value.pairs():
            digest.fold_pair(name, b"%.17g" % score)
    elif isinstance(value, Stream):
        for id, fields in value.entries(0, MAX_ID):
            for text in (b"%d.%d" % (id >> 64, id & UINT64_MASK), *fields):
                digest.mix(text)
    if db.deadline(key) > 0:
        digest.fold(b"!!expire!!")


def dataset_digest(databases: list[Database]) -> str:
    """DEBUG DIGEST."""
    whole = Digest()
    for db in databases:
        if not len(db):
            continue
        whole.mix(struct.pack(">I", db.index))
        for key in db.keys(None):
            one = Digest()
            one.mix(key)
            mix_value(one, db, key)
            whole.fold(one.value.to_bytes(20, "big"))
    return whole.hex()


def digest(ctx: Context) -> str:
    """DIGEST"""
    return dataset_digest(ctx.keyspace.databases)


def digest_value(ctx: Context, *keys: bytes) -> list[str]:
    """DIGEST-VALUE [key ...]"""
    digests = []
    for key in keys:
        one = Digest()
        mix_value(one, ctx.db, key)
        digests.append(one.hex())
    return digests


# --- looking ------------------------------------------------------------------------------------------------------


def encoding_of(ctx: Context, key: bytes) -> str:
    """OBJECT ENCODING's word; NoSuchKey."""
    word = REGISTRY["OBJECT"].subcommands["ENCODING"].handler(ctx, key)
    if word is None:
        raise NoSuchKey
    return show(word)


def object_(ctx: Context, key: bytes) -> str:
    """OBJECT key: as it lies there, also when it is due."""
    now_ms = ctx.keyspace.now_ms()
    ctx.keyspace.set_clock(0)
    try:
        return _describe_object(ctx, key)
    finally:
        ctx.keyspace.set_clock(now_ms)


def _describe_object(ctx: Context, key: bytes) -> str:
    encoding = encoding_of(ctx, key)
    size, idle_s = ctx.db.memory_of(key, 0) or 0, ctx.db.idle_s(key) or 0
    clock = (int(time.time()) - idle_s) & 0xFFFFFF
    text = (
        f"Value at:0x{id(ctx.db):012x} refcount:1 encoding:{encoding} serializedlength:{size} "
        f"lru:{clock} lru_seconds_idle:{idle_s}"
    )
    if encoding == "quicklist":
        count = len(ctx.db.peek(key))
        fill = ctx.server.config.list_max_listpack_size
        text += (
            f" ql_nodes:1 ql_avg_node:{count:.2f} ql_listpack_max:{fill} ql_compressed:0 ql_uncompressed_size:{size}"
        )
    return text


def sdslen(ctx: Context, key: bytes) -> str:
    """SDSLEN key"""
    if ctx.db.peek(key) is None:
        raise NoSuchKey
    value = ctx.db.peek(key)
    if not isinstance(value, bytes):
        raise CommandError("ERR Not an sds encoded string.")
    size = ctx.db.memory_of(key, 0) or 0
    return (
        f"key_sds_len:{len(key)}, key_sds_avail:0, key_zmalloc: {len(key)}, "
        f"val_sds_len:{len(value)}, val_sds_avail:0, val_zmalloc: {size - len(key)}"
    )


def packed(word: str, named: str) -> Callable[..., str]:
    """LISTPACK key, QUICKLIST key [0|1]: Redis prints the bytes on its standard output; here only the check is left."""

    def show_packed(ctx: Context, key: bytes, level: bytes = b"0") -> str:
        if not encoding_of(ctx, key).startswith(word):  # listpackex too
            raise CommandError(f"ERR Not a {word} encoded object.")
        return f"{named} structure printed on stdout"

    return show_packed


def table_report(title: str, used: int, slots: int) -> str:
    """A hash table's figures in Redis's form."""
    if not used:
        return f"[{title}]\nNo stats available for empty dictionaries\n"
    return f"[{title}]\nHash table 0 stats (main hash table):\n table size: {slots}\n number of elements: {used}\n"


def htstats(ctx: Context, index: bytes, full: bytes = b"") -> Verbatim:
    """HTSTATS dbid [full]"""
    number = parse_int(index)
    if not 0 <= number < len(ctx.keyspace.databases):
        raise CommandError("ERR Out of range database")
    db = ctx.keyspace.databases[number]
    stats = db.table_stats()
    volatile = db.volatile_count()
    text = table_report("Dictionary HT", len(db), stats.get("slots", 0))
    text += table_report("Expires HT", volatile, volatile)
    return Verbatim("txt", text.encode())


def htstats_key(ctx: Context, key: bytes, full: bytes = b"") -> Verbatim:
    """HTSTATS-KEY key [full]"""
    encoding = encoding_of(ctx, key)
    if encoding not in ("hashtable", "skiplist"):
        raise CommandError("ERR The value stored at the specified key is not represented using an hash table")
    count = len(ctx.db.peek(key))
    return Verbatim("txt", table_report("Dictionary HT", count, 1 << max(2, (count - 1).bit_length())).encode())


PROTOCOL: dict[bytes, Any] = {
    b"STRING": b"Hello World",
    b"INTEGER": 12345,
    b"DOUBLE": 3.141,
    b"BIGNUM": BigNumber(1234567999999999999999999999999999999),
    b"NULL": None,
    b"ARRAY": [0, 1, 2],
    b"SET": frozenset({0, 1, 2}),
    b"MAP": {0: False, 1: True, 2: False},
    b"VERBATIM": Verbatim("txt", b"This is a verbatim\nstring"),
    b"TRUE": True,
    b"FALSE": False,
}


def protocol(ctx: Context, kind: bytes) -> Any:
    """PROTOCOL type"""
    word = kind.upper()
    if word == b"ATTRIB":
        if ctx.client.protocol == 3:
            ctx.client.write_raw(b"|1\r\n$14\r\nkey-popularity\r\n*2\r\n$7\r\nkey:123\r\n:90\r\n")
        return b"Some real reply following the attribute"
    if word == b"PUSH":
        if ctx.client.protocol == 2:
            raise CommandError("ERR RESP2 is not supported by this command")
        ctx.client.write(Push([b"server-cpu-usage", 42]))
        return b"Some real reply following the push reply"
    if word not in PROTOCOL:
        raise CommandError(
            "ERR Wrong protocol type name. Please use one of the following: "
            "string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false"
        )
    return PROTOCOL[word]


# --- turning ------------------------------------------------------------------------------------------------------


def truth(word: bytes) -> bool:
    """C's atoi, as a yes or no."""
    return word.strip() not in (b"", b"0") and word.strip().lstrip(b"+-").isdigit()


def set_active_expire(ctx: Context, word: bytes) -> str:
    """SET-ACTIVE-EXPIRE 0|1"""
    ctx.keyspace.active_expire = truth(word)
    return "OK"


def pause_cron(ctx: Context, word: bytes) -> str:
    """PAUSE-CRON 0|1"""
    ctx.server.cron_paused = truth(word)
    return "OK"


def sleep(ctx: Context, seconds: bytes) -> str:
    """SLEEP seconds"""
    time.sleep(min(max(to_float(seconds) or 0.0, 0.0), SLEEP_S_MAX))
    return "OK"


def packed_threshold(ctx: Context, size: bytes) -> str:
    """QUICKLIST-PACKED-THRESHOLD size"""
    try:
        fits = parse_memory(show(size)) < 4 << 30
    except ValueError:
        fits = False
    if not fits:
        raise CommandError("ERR argument must be a memory value bigger than 1 and smaller than 4gb")
    return "OK"


def change_repl_id(ctx: Context) -> str:
    """CHANGE-REPL-ID"""
    ctx.server.replication_id = secrets.token_hex(20)
    return "OK"


def populate(ctx: Context, count: bytes, prefix: bytes = b"key", size: bytes = b"0") -> str:
    """POPULATE count [prefix] [size]"""
    message = "ERR value is out of range, must be positive"
    number, length = parse_range(count, 0, POPULATE_MAX, message), parse_range(size, 0, 512 << 20, message)
    for at in range(number):
        key, value = b"%b:%d" % (prefix, at), b"value:%d" % at
        if not ctx.db.exists(key):
            ctx.db.set(key, value[:length].ljust(length, b"\0") if length else value)
    return "OK"


def reload(ctx: Context, *options: bytes) -> str:
    """RELOAD [MERGE] [NOFLUSH] [NOSAVE]: save the data, drop them, load the file."""
    words = {option.upper() for option in options}
    if words - {b"MERGE", b"NOFLUSH", b"NOSAVE"}:
        raise CommandError("ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.")
    ctx.server.saving.reload(b"NOSAVE" not in words, b"NOFLUSH" not in words, b"MERGE" in words)
    ctx.effect()
    return "OK"


def allow_all_in_scripts(ctx: Context, word: bytes) -> str:
    """SET-DISABLE-DENY-SCRIPTS 0|1: whether scripts may call what they may not."""
    ctx.server.runner.allows_all = truth(word)
    return "OK"


def load_again(ctx: Context) -> str:
    """LOADAOF: every value goes through its serialisation."""
    payload.reload(ctx.keyspace, ctx.server.config.rdbcompression)
    return "OK"


def skip_checksums(ctx: Context, word: bytes) -> str:
    """SET-SKIP-CHECKSUM-VALIDATION 0|1"""
    rdb.skip_checksums(truth(word))
    return "OK"


def log_message(ctx: Context, message: bytes) -> str:
    """LOG message"""
    log.warning("DEBUG LOG: %s", show(message))
    return "OK"


def error(ctx: Context, message: bytes) -> Any:
    """ERROR message"""
    raise CommandError(show(message))


def reply_buffer(ctx: Context, what: bytes, value: bytes) -> str:
    """REPLYBUFFER PEAK-RESET-TIME|RESIZING value: accepted; reply buffers here grow and shrink by themselves."""
    if what.upper() not in (b"PEAK-RESET-TIME", b"RESIZING"):
        raise CommandError("ERR unknown subcommand or wrong number of arguments for 'REPLYBUFFER'. Try DEBUG HELP.")
    return "OK"


def string_match(ctx: Context, pattern: bytes, text: bytes) -> int:
    """STRINGMATCH-LEN pattern text"""
    return int(glob_match(pattern, text))


def accepted(ctx: Context, *words: bytes) -> str:
    """What has nothing to turn here."""
    return "OK"


def help_(ctx: Context) -> list[str]:
    """HELP"""
    return help_lines(
        "DEBUG",
        "CHANGE-REPL-ID",
        "    Change the replication IDs of the instance.",
        "DIGEST",
        "    Output a hex signature representing the current DB content.",
        "DIGEST-VALUE <key> [<key> ...]",
        "    Output a hex signature of the values of all the specified keys.",
        "ERROR <string>",
        "    Return a protocol error with <string> as message.",
        "HTSTATS <dbid> [full]",
        "    Return hash table statistics of the specified database.",
        "HTSTATS-KEY <key> [full]",
        "    Like HTSTATS but for the hash table stored at <key>'s value.",
        "LISTPACK <key>",
        "    Check that the value at <key> is a listpack.",
        "LOG <message>",
        "    Write <message> to the server log.",
        "OBJECT <key>",
        "    Show low level info about `key` and associated value.",
        "PAUSE-CRON <0|1>",
        "    Stop periodic cron job processing.",
        "POPULATE <count> [<prefix>] [<size>]",
        "    Create <count> string keys named key:<num>, or <prefix>:<num>.",
        "PROTOCOL <type>",
        "    Reply with a test value of the specified type. <type> can be: string,",
        "    integer, double, bignum, null, array, set, map, attrib, push, verbatim,",
        "    true, false.",
        "RELOAD [option ...]",
        "    Serialise every value and load it back.",
        "SET-ACTIVE-EXPIRE <0|1>",
        "    Setting it to 0 disables expiring keys in background when they are not",
        "    accessed (otherwise the usual behavior). Setting it to 1 reenables back the",
        "    default.",
        "SLEEP <seconds>",
        "    Stop the server for <seconds>. Decimals allowed.",
    )


# name -> (handler, fewest arguments, most arguments)
SUBCOMMANDS: dict[bytes, tuple[Callable[..., Any], int, int]] = {
    b"CHANGE-REPL-ID": (change_repl_id, 0, 0),
    b"CONFIG-REWRITE-FORCE-ALL": (lambda ctx: ctx.server.config.rewrite() or "OK", 0, 0),
    b"DICT-RESIZING": (accepted, 1, 1),
    b"DIGEST": (digest, 0, 0),
    b"DIGEST-VALUE": (digest_value, 0, 1 << 30),
    b"ERROR": (error, 1, 1),
    b"HELP": (help_, 0, 0),
    b"HTSTATS": (htstats, 1, 2),
    b"HTSTATS-KEY": (htstats_key, 1, 2),
    b"JMAP": (accepted, 0, 0),
    b"LISTPACK": (packed("listpack", "Listpack"), 1, 1),
    b"LOADAOF": (load_again, 0, 0),
    b"LOG": (log_message, 1, 1),
    b"OBJECT": (object_, 1, 1),
    b"PAUSE-CRON": (pause_cron, 1, 1),
    b"POPULATE": (populate, 1, 3),
    b"PROTOCOL": (protocol, 1, 1),
    b"QUICKLIST": (packed("quicklist", "Quicklist"), 1, 2),
    b"QUICKLIST-PACKED-THRESHOLD": (packed_threshold, 1, 1),
    b"RELOAD": (reload, 0, 1 << 30),
    b"REPLYBUFFER": (reply_buffer, 2, 2),
    b"SDSLEN": (sdslen, 1, 1),
    b"SET-ACTIVE-EXPIRE": (set_active_expire, 1, 1),
    b"SET-DISABLE-DENY-SCRIPTS": (allow_all_in_scripts, 1, 1),
    b"SET-SKIP-CHECKSUM-VALIDATION": (skip_checksums, 1, 1),
    b"SLEEP": (sleep, 1, 1),
    b"STRINGMATCH-LEN": (string_match, 2, 2),
}


@command(
    "DEBUG", arity=-2, flags=ADMIN | NOSCRIPT | LOADING | STALE, group="server", since="1.0.0",
    complexity="Depends on subcommand and on the data.", doc_flags=("syscmd",),
)  # fmt: skip
def debug(ctx: Context, subcommand: bytes, *words: bytes) -> Any:
    """Looks into the server and turns what tests turn."""
    allowed = ctx.server.config.enable_debug_command
    if allowed == "no" or (allowed == "local" and not is_local(ctx.client)):
        raise CommandError(REFUSED)
    handler, fewest, most = SUBCOMMANDS.get(subcommand.upper(), (accepted, 1, 0))
    if not fewest <= len(words) <= most:
        raise CommandError(
            f"ERR unknown subcommand or wrong number of arguments for '{show(subcommand)}'. Try DEBUG HELP."
        )
    return handler(ctx, *words)
