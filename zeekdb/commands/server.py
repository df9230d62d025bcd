"""Commands about the server: its configuration, figures, logs, databases, and its end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from zeekdb import __version__
from zeekdb.commands.args import INT64_MAX, parse_int, parse_range, show
from zeekdb.commands.connection import ALL_NODES, database_index
from zeekdb.commands.context import Context
from zeekdb.commands.reply import Verbatim, help_lines
from zeekdb.commands.spec import (
    ADMIN,
    ALLOW_BUSY,
    FAST,
    LOADING,
    NO_MULTI,
    NOSCRIPT,
    READONLY,
    STALE,
    WRITE,
    KeySpec,
    command,
    container,
)
from zeekdb.errors import CommandError, SyntaxError_
from zeekdb.hot import compaction
from zeekdb.observe import info

if TYPE_CHECKING:
    from zeekdb.commands.ports import ClientPort, ServerPort

VARIES = ("nondeterministic_output",)
SHARDS_SUCCEED = ("request_policy:all_shards", "response_policy:all_succeeded")
SHARDS_SPECIAL = ("nondeterministic_output", "request_policy:all_shards", "response_policy:special")
NODES_SPECIAL = ("nondeterministic_output", "request_policy:all_nodes", "response_policy:special")
ANY_STATE = LOADING | STALE
SAMPLES_MAX = 1 << 30  # elements that MEMORY USAGE looks at: all of them, for what fits into memory
ADMINISTRATION = ADMIN | NOSCRIPT | LOADING | STALE
LOCAL: Final = ("127.", "[::1]:", "::1:")


def is_local(client: ClientPort) -> bool:
    """Whether the connection comes from this machine."""
    return client.is_unix or client.addr.startswith(LOCAL)


# --- figures ------------------------------------------------------------------------------------------------------


@command(
    "INFO", arity=-1, flags=ANY_STATE, group="server", since="1.0.0", acl=("dangerous",), complexity="O(1)",
    tips=SHARDS_SPECIAL, history=(("7.0.0", "Added support for taking multiple section arguments."),),
)  # fmt: skip
def info_(ctx: Context, *sections: bytes) -> Verbatim:
    """Tells how the server is doing, by sections."""
    text = info.build(ctx.server, ctx.keyspace, map(show, sections))
    return Verbatim("txt", text.encode("utf-8", "surrogateescape"))


@command(
    "DBSIZE", arity=1, flags=READONLY | FAST, group="server", since="1.0.0", acl=("keyspace",), complexity="O(1)",
    tips=("request_policy:all_shards", "response_policy:agg_sum"),
)  # fmt: skip
def dbsize(ctx: Context) -> int:
    """Returns how many keys the database has."""
    return len(ctx.db)


@command("TIME", arity=1, flags=ANY_STATE | FAST, group="server", since="2.6.0", complexity="O(1)", tips=VARIES)
def time_(ctx: Context) -> list[bytes]:
    """Returns the server's clock: seconds and microseconds."""
    now_us = time.time_ns() // 1000
    return [b"%d" % (now_us // 1_000_000), b"%d" % (now_us % 1_000_000)]


@command(
    "LASTSAVE", arity=1, flags=ANY_STATE | FAST, group="server", since="1.0.0", acl=("admin", "dangerous"),
    complexity="O(1)", tips=VARIES,
)  # fmt: skip
def lastsave(ctx: Context) -> int:
    """Returns when the data was last saved, in Unix seconds."""
    return int(ctx.server.last_save_s)


@command(
    "ROLE", arity=1, flags=NOSCRIPT | ANY_STATE | FAST, group="server", since="2.8.12", acl=("admin", "dangerous"),
    complexity="O(1)",
)  # fmt: skip
def role(ctx: Context) -> list[Any]:
    """Returns the server's part in replication."""
    primary, replica = ctx.server.primary, ctx.server.replica
    if replica.active:
        return [b"slave", replica.host.encode(), replica.port, replica.state.encode(), replica.offset]
    replicas = [
        [(each.address or each.client.addr.rsplit(":", 1)[0]).encode(), b"%d" % each.port, b"%d" % each.acknowledged]
        for each in primary.replicas.values()
    ]
    return [b"master", primary.offset, replicas]


@command("LOLWUT", arity=-1, flags=READONLY | FAST, group="server", since="5.0.0", complexity="O(1)")
def lolwut(ctx: Context, *words: bytes) -> Verbatim:
    """Draws a little and tells the version."""
    seed = 5
    if len(words) >= 2 and words[0].upper() == b"VERSION":
        seed = parse_int(words[1])
    return Verbatim("txt", skyline(seed).encode())


def skyline(seed: int, columns: int = 64, rows: int = 7) -> str:
    """Blocks of a cache, as towers; the same seed builds the same town."""
    state = (seed * 2654435761 + 12345) & 0xFFFFFFFF
    heights = []
    for _ in range(columns):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        heights.append((state >> 24) % rows)
    towers = ["".join("█" if height >= row else " " for height in heights).rstrip() for row in range(rows, 0, -1)]
    return "\n".join([*towers, "▔" * columns, f"Redis ver. {info.REDIS_VERSION} (ZeekDB {__version__})"]) + "\n"


# --- databases ----------------------------------------------------------------------------------------------------


FLUSH_HISTORY = (
    ("4.0.0", "Added the `ASYNC` flushing mode modifier."),
    ("6.2.0", "Added the `SYNC` flushing mode modifier."),
)


def check_flush_options(options: tuple[bytes, ...]) -> None:
    """ASYNC and SYNC mean the same here: the keys are gone at once, their memory is freed in slices."""
    if len(options) > 1 or (options and options[0].upper() not in (b"ASYNC", b"SYNC")):
        raise SyntaxError_


@command(
    "FLUSHDB", arity=-1, flags=WRITE, group="server", since="1.0.0", acl=("keyspace", "dangerous"),
    complexity="O(1); the memory is freed in the background", tips=SHARDS_SUCCEED,
    history=FLUSH_HISTORY,
)  # fmt: skip
def flushdb(ctx: Context, *options: bytes) -> str:
    """Removes every key of the database."""
    check_flush_options(options)
    ctx.keyspace.dirty += ctx.keyspace.clear([ctx.db])
    return "OK"


@command(
    "FLUSHALL", arity=-1, flags=WRITE, group="server", since="1.0.0", acl=("keyspace", "dangerous"),
    complexity="O(N) where N is the number of databases; the memory is freed in the background", tips=SHARDS_SUCCEED,
    history=FLUSH_HISTORY,
)  # fmt: skip
def flushall(ctx: Context, *options: bytes) -> str:
    """Removes every key of every database."""
    check_flush_options(options)
    ctx.keyspace.dirty += ctx.keyspace.clear(ctx.keyspace.databases) + 1
    return "OK"


@command(
    "SWAPDB", arity=3, flags=WRITE | FAST, group="server", since="4.0.0", acl=("keyspace", "dangerous"),
    complexity="O(1); clients of either database see the other's keys from then on",
)  # fmt: skip
def swapdb(ctx: Context, first: bytes, second: bytes) -> str:
    """Exchanges two databases."""
    parse_range(first, -(1 << 31), (1 << 31) - 1, "ERR invalid first DB index")
    parse_range(second, -(1 << 31), (1 << 31) - 1, "ERR invalid second DB index")
    one, two = database_index(ctx, first), database_index(ctx, second)
    if one != two:
        ctx.keyspace.swap(one, two)
    ctx.keyspace.dirty += 1
    return "OK"


# --- its life -----------------------------------------------------------------------------------------------------


@command("MONITOR", arity=1, flags=ADMINISTRATION, group="server", since="1.0.0", complexity="O(1)")
def monitor(ctx: Context) -> str:
    """Shows the connection every command that the server runs."""
    ctx.client.become_monitor()
    return "OK"


@command(
    "SHUTDOWN", arity=-1, flags=ADMINISTRATION | NO_MULTI | ALLOW_BUSY, group="server", since="1.0.0",
    complexity="O(N) when saving, where N is the total number of keys in all databases, otherwise O(1)",
    history=(("7.0.0", "Added the `NOW`, `FORCE` and `ABORT` modifiers."),),
)  # fmt: skip
def shutdown(ctx: Context, *options: bytes) -> Any:
    """Ends the server, with or without saving."""
    from zeekdb.hot.replies import NO_REPLY

    words = {option.upper() for option in options}
    if words - {b"NOSAVE", b"SAVE", b"NOW", b"FORCE", b"ABORT"} or {b"NOSAVE", b"SAVE"} <= words:
        raise SyntaxError_
    if b"ABORT" in words:
        if len(words) > 1:
            raise SyntaxError_
        if not ctx.server.abort_shutdown():
            raise CommandError("ERR No shutdown in progress.")
        return "OK"
    save = True if b"SAVE" in words else False if b"NOSAVE" in words else None
    ctx.server.request_shutdown(save, b"NOW" in words, b"FORCE" in words)
    return NO_REPLY


# --- CONFIG -------------------------------------------------------------------------------------------------------

container("CONFIG", group="server", since="2.0.0", summary="A container for server configuration commands")


@command(
    "CONFIG|GET", arity=-3, flags=ADMINISTRATION, group="server", since="2.0.0",
    complexity="O(N) when N is the number of configuration parameters provided",
    history=(("7.0.0", "Added the ability to pass multiple pattern parameters in one call"),),
)  # fmt: skip
def config_get(ctx: Context, *patterns: bytes) -> dict[bytes, bytes]:
    """Returns the directives that match a pattern, with their values."""
    found: dict[str, str] = ctx.server.config.get(*map(show, patterns))
    return {name.encode(): text.encode("utf-8", "surrogateescape") for name, text in found.items()}


@command(
    "CONFIG|SET", arity=-4, flags=ADMINISTRATION, group="server", since="2.0.0", tips=ALL_NODES,
    complexity="O(N) when N is the number of configuration parameters provided",
    history=(("7.0.0", "Added the ability to set multiple parameters in one call."),),
)  # fmt: skip
def config_set(ctx: Context, *words: bytes) -> str:
    """Sets directives, all of them or none."""
    if len(words) % 2:
        raise SyntaxError_
    pairs = zip(map(show, words[::2]), map(show, words[1::2]), strict=True)
    ctx.server.config.set(pairs, local=is_local(ctx.client))
    return "OK"


@command(
    "CONFIG|REWRITE", arity=2, flags=ADMINISTRATION, group="server", since="2.8.0", complexity="O(1)", tips=ALL_NODES
)
def config_rewrite(ctx: Context) -> str:
    """Writes the directives in force into the configuration file."""
    ctx.server.config.rewrite()
    return "OK"


@command(
    "CONFIG|RESETSTAT", arity=2, flags=ADMINISTRATION, group="server", since="2.0.0", complexity="O(1)",
    tips=ALL_NODES,
)  # fmt: skip
def config_resetstat(ctx: Context) -> str:
    """Sets the counters that INFO shows back to zero."""
    ctx.server.reset_stats()
    return "OK"


@command("CONFIG|HELP", arity=2, flags=ANY_STATE, group="server", since="5.0.0", complexity="O(1)")
def config_help(ctx: Context) -> list[str]:
    """Lists the subcommands."""
    return help_lines(
        "CONFIG",
        "GET <pattern>",
        "    Return parameters matching the glob-like <pattern> and their values.",
        "SET <directive> <value>",
        "    Set the configuration <directive> to <value>.",
        "RESETSTAT",
        "    Reset statistics reported by the INFO command.",
        "REWRITE",
        "    Rewrite the configuration file.",
    )


# --- SLOWLOG ------------------------------------------------------------------------------------------------------

container("SLOWLOG", group="server", since="2.2.12", summary="A container for slow log commands")


@command(
    "SLOWLOG|GET", arity=-2, flags=ADMIN | ANY_STATE, group="server", since="2.2.12",
    complexity="O(N) where N is the number of entries returned",
    tips=("request_policy:all_nodes", "nondeterministic_output"),
    history=(("4.0.0", "Added client IP address, port and name to the reply."),),
)  # fmt: skip
def slowlog_get(ctx: Context, count: bytes = b"10", *rest: bytes) -> list[Any]:
    """Returns the newest entries of the slow log."""
    if rest:
        raise CommandError("ERR unknown subcommand or wrong number of arguments for 'get'. Try SLOWLOG HELP.")
    number = parse_range(count, -1, INT64_MAX, "ERR count should be greater than or equal to -1")
    return [
        [entry.id, entry.time_s, entry.duration_us, entry.arguments, entry.client_address.encode(), entry.client_name]
        for entry in ctx.server.slowlog.get(number)
    ]


@command(
    "SLOWLOG|LEN", arity=2, flags=ADMIN | ANY_STATE, group="server", since="2.2.12", complexity="O(1)",
    tips=("request_policy:all_nodes", "response_policy:agg_sum", "nondeterministic_output"),
)  # fmt: skip
def slowlog_len(ctx: Context) -> int:
    """Returns how many entries the slow log has."""
    return len(ctx.server.slowlog)


@command(
    "SLOWLOG|RESET", arity=2, flags=ADMIN | ANY_STATE, group="server", since="2.2.12",
    complexity="O(N) where N is the number of entries in the slowlog", tips=ALL_NODES,
)  # fmt: skip
def slowlog_reset(ctx: Context) -> str:
    """Empties the slow log."""
    ctx.server.slowlog.reset()
    return "OK"


@command("SLOWLOG|HELP", arity=2, flags=ANY_STATE, group="server", since="6.2.0", complexity="O(1)")
def slowlog_help(ctx: Context) -> list[str]:
    """Lists the subcommands."""
    return help_lines(
        "SLOWLOG",
        "GET [<count>]",
        "    Return top <count> entries from the slowlog (default: 10, -1 mean all).",
        "    Entries are made of:",
        "    id, timestamp, time in microseconds, arguments array, client IP and port,",
        "    client name",
        "LEN",
        "    Return the length of the slowlog.",
        "RESET",
        "    Reset the slowlog.",
    )


# --- LATENCY ------------------------------------------------------------------------------------------------------

container("LATENCY", group="server", since="2.8.13", summary="A container for latency diagnostics commands")


@command(
    "LATENCY|LATEST", arity=2, flags=ADMINISTRATION, group="server", since="2.8.13", complexity="O(1)",
    tips=NODES_SPECIAL,
)  # fmt: skip
def latency_latest(ctx: Context) -> list[Any]:
    """Returns the newest spike of every event."""
    events = ctx.server.latency.events
    return [[name.encode(), *series.samples[-1], series.max_ms] for name, series in events.items()]


@command(
    "LATENCY|HISTORY", arity=3, flags=ADMINISTRATION, group="server", since="2.8.13", complexity="O(1)",
    tips=NODES_SPECIAL,
)  # fmt: skip
def latency_history(ctx: Context, event: bytes) -> list[Any]:
    """Returns the spikes of an event: when, and how many milliseconds."""
    series = ctx.server.latency.events.get(show(event))
    return [list(sample) for sample in series.samples] if series else []


@command(
    "LATENCY|RESET", arity=-2, flags=ADMINISTRATION, group="server", since="2.8.13", complexity="O(1)",
    tips=("request_policy:all_nodes", "response_policy:agg_sum"),
)  # fmt: skip
def latency_reset(ctx: Context, *events: bytes) -> int:
    """Forgets the spikes of some events, or of all."""
    forgotten: int = ctx.server.latency.reset(*map(show, events))
    return forgotten


@command(
    "LATENCY|GRAPH", arity=3, flags=ADMINISTRATION, group="server", since="2.8.13", complexity="O(1)",
    tips=NODES_SPECIAL,
)  # fmt: skip
def latency_graph(ctx: Context, event: bytes) -> Verbatim:
    """Draws the spikes of an event."""
    if show(event) not in ctx.server.latency.events:
        raise CommandError(f"ERR No samples available for event '{show(event)}'")
    return Verbatim("txt", ctx.server.latency.graph(show(event)).encode())


@command(
    "LATENCY|DOCTOR", arity=2, flags=ADMINISTRATION, group="server", since="2.8.13", complexity="O(1)",
    tips=NODES_SPECIAL,
)  # fmt: skip
def latency_doctor(ctx: Context) -> Verbatim:
    """Says in words what the spikes suggest."""
    report = ctx.server.latency.doctor(bool(ctx.server.config.latency_monitor_threshold))
    return Verbatim("txt", report.encode())


@command(
    "LATENCY|HISTOGRAM", arity=-2, flags=ADMINISTRATION, group="server", since="7.0.0", tips=NODES_SPECIAL,
    complexity="O(N) where N is the number of commands with latency information being retrieved.",
)  # fmt: skip
def latency_histogram(ctx: Context, *names: bytes) -> dict[bytes, Any]:
    """Returns how long commands took, as cumulative counts by powers of two of microseconds."""
    server: ServerPort = ctx.server
    wanted = [show(name).lower() for name in names]
    found: dict[bytes, Any] = {}
    for name, stats in server.command_stats().items():
        histogram = stats.histogram
        if histogram is None or (wanted and name not in wanted and name.partition("|")[0] not in wanted):
            continue
        rows = dict(histogram.cumulative_us())
        found[name.encode()] = {b"calls": histogram.total, b"histogram_usec": rows}
    return found


@command("LATENCY|HELP", arity=2, flags=ANY_STATE, group="server", since="2.8.13", complexity="O(1)")
def latency_help(ctx: Context) -> list[str]:
    """Lists the subcommands."""
    return help_lines(
        "LATENCY",
        "DOCTOR",
        "    Return a human readable latency analysis report.",
        "GRAPH <event>",
        "    Return an ASCII latency graph for the <event> class.",
        "HISTORY <event>",
        "    Return time-latency samples for the <event> class.",
        "LATEST",
        "    Return the latest latency samples for all events.",
        "RESET [<event> ...]",
        "    Reset latency data of one or more <event> classes.",
        "    (default: reset all data for all event classes)",
        "HISTOGRAM [COMMAND ...]",
        "    Return a cumulative distribution of latencies in the format of a histogram for the specified "
        "command names.",
        "    If no commands are specified then all histograms are replied.",
    )


# --- MEMORY -------------------------------------------------------------------------------------------------------

EMPTY_BYTES: Final = 5 << 20  # below this the doctor has nothing to say, as in Redis
CLIENT_BYTES_LARGE: Final = 200 << 10

container("MEMORY", group="server", since="4.0.0", summary="A container for memory diagnostics commands")


@command(
    "MEMORY|USAGE", arity=-3, flags=READONLY, keys=(KeySpec(("RO",), index=2),), group="server", since="4.0.0",
    complexity="O(N) where N is the number of samples.",
)  # fmt: skip
def memory_usage(ctx: Context, key: bytes, *options: bytes) -> int | None:
    """Returns how many bytes a key and its value take."""
    samples = 5
    if len(options) % 2:
        raise SyntaxError_
    for option, word in zip(options[::2], options[1::2], strict=True):
        if option.upper() != b"SAMPLES":
            raise SyntaxError_
        samples = parse_int(word)
        if samples < 0:
            raise SyntaxError_
    return ctx.db.memory_of(key, min(samples, SAMPLES_MAX))


@command("MEMORY|STATS", arity=2, group="server", since="4.0.0", complexity="O(1)", tips=SHARDS_SPECIAL)
def memory_stats(ctx: Context) -> dict[bytes, Any]:
    """Tells what the memory is used for."""
    memory = info.memory_figures(ctx.server, ctx.keyspace)
    used, startup, rss = memory["used"], memory["startup"], memory["rss"]
    keys = sum(map(len, ctx.keyspace.databases))
    net = max(0, used - startup)
    ratio = rss / used if used else 0.0
    stats: dict[str, Any] = {
        "peak.allocated": memory["peak"],
        "total.allocated": used,
        "startup.allocated": startup,
        "replication.backlog": 0,
        "clients.slaves": 0,
        "clients.normal": memory["clients"],
        "cluster.links": 0,
        "aof.buffer": 0,
        "lua.caches": 0,
        "functions.caches": 0,
    }
    for db in ctx.keyspace.databases:
        if len(db):
            stats[f"db.{db.index}"] = {
                b"overhead.hashtable.main": db.table_stats().get("overhead", 0),
                b"overhead.hashtable.expires": 0,
                b"overhead.hashtable.slot-to-keys": 0,
            }
    stats |= {
        "overhead.total": memory["overhead"],
        "keys.count": keys,
        "keys.bytes-per-key": net // keys if keys else 0,
        "dataset.bytes": memory["dataset"],
        "dataset.percentage": 100.0 * memory["dataset"] / net if net else 0.0,
        "peak.percentage": 100.0 * used / memory["peak"] if memory["peak"] else 0.0,
        "allocator.allocated": used,
        "allocator.active": used,
        "allocator.resident": rss,
        "allocator-fragmentation.ratio": 1.0,
        "allocator-fragmentation.bytes": 0,
        "allocator-rss.ratio": ratio,
        "allocator-rss.bytes": rss - used,
        "rss-overhead.ratio": 1.0,
        "rss-overhead.bytes": 0,
        "fragmentation": ratio,
        "fragmentation.bytes": rss - used,
    }
    return {name.encode(): value for name, value in stats.items()}


@command("MEMORY|DOCTOR", arity=2, group="server", since="4.0.0", complexity="O(1)", tips=SHARDS_SPECIAL)
def memory_doctor(ctx: Context) -> Verbatim:
    """Says in words what is odd about the use of memory."""
    memory = info.memory_figures(ctx.server, ctx.keyspace)
    if memory["used"] < EMPTY_BYTES:
        text = (
            "Hi Sam, this instance is empty or is using very little memory, my issues detector can't be used in these "
            "conditions. Please, leave for your mission on Earth and fill it with some data. The new Sam and I will be "
            "back to our programming as soon as I finished rebooting.\n"
        )
        return Verbatim("txt", text.encode())
    findings = []
    if memory["peak"] > 1.5 * memory["used"]:
        findings.append(" * Peak memory: this instance once used over 150% of what it uses now, and may reuse that.")
    if memory["rss"] > 1.4 * memory["used"] and memory["rss"] - memory["used"] > 10 << 20:
        findings.append(" * High total RSS: the process holds over 140% of what the data takes.")
    clients = list(ctx.server.clients())
    if clients and memory["clients"] / len(clients) > CLIENT_BYTES_LARGE:
        findings.append(" * Big client buffers: clients hold over 200 kB each. CLIENT LIST shows which.")
    if not findings:
        text = (
            "Hi Sam, I can't find any memory issue in your instance. "
            "I can only account for what occurs on this base.\n"
        )
    else:
        text = "Sam, I detected a few issues in this instance memory implants:\n\n" + "\n\n".join(findings)
        text += "\n\nI'm here to keep you safe, Sam. I want to help you.\n"
    return Verbatim("txt", text.encode())


@command(
    "MEMORY|MALLOC-STATS", arity=2, group="server", since="4.0.0", tips=SHARDS_SPECIAL,
    complexity="Depends on how much memory is allocated, could be slow",
)  # fmt: skip
def memory_malloc_stats(ctx: Context) -> bytes:
    """Returns the allocator's own statistics, where it has any."""
    return b"Stats not supported for the current allocator"


@command(
    "MEMORY|PURGE", arity=2, group="server", since="4.0.0", tips=SHARDS_SUCCEED,
    complexity="Depends on how much memory is allocated, could be slow",
)  # fmt: skip
def memory_purge(ctx: Context) -> str:
    """Gives free memory back to the system, where the allocator can."""
    import ctypes

    compaction.urge()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return "OK"


@command("MEMORY|HELP", arity=2, flags=ANY_STATE, group="server", since="4.0.0", complexity="O(1)")
def memory_help(ctx: Context) -> list[str]:
    """Lists the subcommands."""
    return help_lines(
        "MEMORY",
        "DOCTOR",
        "    Return memory problems reports.",
        "MALLOC-STATS",
        "    Return internal statistics report from the memory allocator.",
        "PURGE",
        "    Attempt to purge dirty pages for reclamation by the allocator.",
        "STATS",
        "    Return information about the memory usage of the server.",
        "USAGE <key> [SAMPLES <count>]",
        "    Return memory in bytes used by <key> and its value. Nested values are",
        "    sampled up to <count> times (default: 5, 0 means sample all).",
    )
