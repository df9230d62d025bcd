"""What commands need of the server and of a connection: the doors that `server/` and the hot room's engine fill.

Everything here is read or called by `commands/connection.py`, `server.py`, `introspection.py`, `debug.py` and by the
INFO sections; nothing else of the server is theirs to know. Attributes may be properties over C structures. Times
named `_s` are Unix seconds (float), `_ms` Unix milliseconds (int); sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from zeekdb.config.config import Config
    from zeekdb.observe.histogram import Histogram
    from zeekdb.observe.latency import LatencyMonitor
    from zeekdb.observe.slowlog import SlowLog
    from zeekdb.observe.stats import Sampler


class CommandStats(Protocol):
    """Counters of one command or subcommand since start or CONFIG RESETSTAT."""

    @property
    def calls(self) -> int: ...
    @property
    def usec(self) -> int: ...
    @property
    def rejected_calls(self) -> int:
        """Refused before they ran: arity, ACL, out of memory …"""
    @property
    def failed_calls(self) -> int:
        """Ran and answered with an error."""
    @property
    def histogram(self) -> Histogram | None:
        """Durations; None when latency-tracking is off or nothing was recorded."""


class StatsPort(Protocol):
    """The server's counters, as INFO stats names them. `observe.stats.Stats` is the plain implementation."""

    total_connections_received: int
    total_commands_processed: int
    total_net_input_bytes: int
    total_net_output_bytes: int
    total_reads_processed: int
    total_writes_processed: int
    rejected_connections: int
    total_error_replies: int
    unexpected_error_replies: int
    client_query_buffer_limit_disconnections: int
    client_output_buffer_limit_disconnections: int
    evicted_clients: int
    peak_memory: int  # bytes: the largest keyspace.memory_used() seen
    eventloop_cycles: int
    eventloop_duration_us: int
    eventloop_duration_cmd_us: int
    keys_expired_per_cycle_max_reached: int  # expire cycles that used up their budget


class ClientPort(Protocol):
    """A connection."""

    id: int
    fd: int
    name: bytes  # b"" when unset
    lib_name: bytes
    lib_ver: bytes
    addr: str  # "127.0.0.1:50412", "/path/to.sock:0"
    laddr: str
    user: str  # "default"
    account: Any  # the user: zeekdb.server.acl.rules.User
    channels: Collection[bytes]  # subscribed to; patterns and shard_channels likewise
    patterns: Collection[bytes]
    shard_channels: Collection[bytes]
    authenticated: bool
    protocol: int  # 2 or 3; assigning switches
    db_index: int
    created_s: float
    last_interaction_s: float
    last_command: str  # "client|list"; "NULL" before the first
    kind: str  # "normal", "replica", "master", "pubsub"
    is_monitor: bool
    is_blocked: bool
    is_unix: bool
    in_multi: bool
    in_exec: bool  # EXEC runs what was queued
    no_evict: bool
    no_touch: bool
    reply_mode: str  # "on", "off", "skip"
    closing: bool  # killed, or to be closed after its reply
    tracked: Any  # server.tracking.Tracked of a client that caches, None of any other
    subscriptions: int
    pattern_subscriptions: int
    shard_subscriptions: int
    queued_commands: int  # in MULTI; -1 outside
    watched_keys: int
    query_buffer_used: int
    query_buffer_free: int
    argv_memory: int  # arguments of commands not yet executed
    multi_memory: int
    reply_buffer_size: int
    reply_buffer_peak: int
    reply_buffer_used: int  # in the fixed buffer
    reply_list_length: int  # replies queued behind it
    reply_list_memory: int
    memory: int  # all of the above and the connection itself

    def kill(self, after_reply: bool = False) -> None:
        """Close at once, or once the replies so far are written. Never raises, also when called twice."""

    def set_reply_mode(self, mode: str) -> None:
        """"on" (this command's reply is sent), "off" (no replies from this one on), "skip" (none for the next)."""

    def write(self, reply: Any) -> None:
        """Send a reply or push of its own, before the one that the handler returns."""

    def write_raw(self, data: bytes) -> None:
        """The same with bytes that are RESP already."""

    def select(self, index: int) -> None:
        """Switch database; `index` was checked. Contexts made for this connection follow."""

    def reset(self) -> None:
        """RESET: leaves MULTI, WATCH, subscriptions, MONITOR, tracking, reply modes and the name; RESP2, database 0,
        and unauthenticated where a password is required."""

    def become_monitor(self) -> None:
        """Feed this connection every command from now on. Idempotent."""

    def unblock(self, error: bool) -> bool:
        """End a blocking command as by timeout, or with -UNBLOCKED; False when it does not block."""


class SharedMemoryPort(Protocol):
    """The host arena in the hands of local clients. See server/shared_memory.py."""

    def is_attached(self, client: Any) -> bool: ...
    def attach(self, client: Any, lease_max_ms: int) -> Any:
        """Hands the arena's descriptor over; the reply is sent with it. CommandError."""

    def reserve(self, client: Any, sizes: list[int]) -> list[int]: ...
    def reserved(self, client: Any, offsets: list[int]) -> list[Any]: ...
    def release(self, client: Any, offsets: list[int]) -> None: ...


class TensorsPort(Protocol):
    """The tensor region with its tiers; values are `bytes`, `BlobView` or `memoryview`. See server/tensors.py."""

    shared: SharedMemoryPort
    region: Any  # the models and tenants: zeekdb.tensors.region.Region
    versions: Any  # of blocks that are overwritten: zeekdb.server.versions.Versions
    gpu: Any  # the tier above host memory: zeekdb.server.device_tier.DeviceTier
    contexts: Any  # the vectors of contexts: zeekdb.server.contexts.Contexts

    def declare(self, model: Any) -> None:
        """KV.MODEL SET. CommandError."""

    def forget(self, ctx: Any, name: bytes) -> Any:
        """KV.MODEL DEL's reply: how many blocks there were; perhaps after a while. CommandError."""

    def store(
        self, ctx: Any, tenant: Any, keys: list[bytes], values: Any, deadline_s: int, group: bytes | None,
        parent: bytes | None, first_token: int = -1,
    ) -> Any:  # fmt: skip
        """A command's reply: 1, 0 or -1 for each block, perhaps after a while."""

    def store_now(self, tenant: Any, keys: list[bytes], values: Any, deadline_s: int = 0) -> list[int]: ...
    def fetch(self, ctx: Any, tenant: Any, keys: list[bytes], answer: Any, is_block: bool = True) -> Any:
        """A command's reply: `answer(blocks)`, None for one that is not there; perhaps after a while."""

    def look_up(self, ctx: Any, tenant: Any, keys: list[bytes], wait_ms: int, answer: Any) -> Any:
        """A command's reply, `answer(tenant)`; after a while where others are asked for what is missing."""

    def replace(
        self, ctx: Any, tenant: Any, key: bytes, value: Any, deadline_s: int | None, group: bytes | None
    ) -> Any:  # fmt: skip
        """A command's reply, OK; perhaps after a while."""

    def remove(self, tenant: Any, keys: list[bytes]) -> int: ...
    def delete(self, ctx: Any, tenant: Any, keys: list[bytes]) -> Any:
        """A command's reply: how many there were; after a while where the tier below had some."""

    def defer_read(self, client: Any, work: Any) -> Any:
        """A command's reply: what the coroutine answers, after a while; the client's next command waits for it."""

    def prefetch(self, tenant: Any, keys: list[bytes]) -> int: ...
    def demote(self, tenant: Any, keys: list[bytes]) -> int: ...
    def defer(self, client: Any, work: Any, is_read: bool = False) -> Any:
        """What a command returns whose reply is `work`'s result; its client's next command waits for it."""

    def is_catalogue_up(self) -> bool:
        """Whether versions can be asked for."""

    def where(self, tenant: Any, key: bytes) -> list[str]:
        """The names of the tiers that have a block, the fastest first."""

    async def object_url(self, tenant: Any, key: bytes, seconds: int) -> str | None:
        """A URL of the block's object; None: there is none. CommandError, Unavailable."""

    def stats(self, name: bytes | None) -> dict[str, Any]: ...
    def tiers(self) -> list[dict[str, Any]]: ...


class ServerPort(Protocol):
    """The process."""

    config: Config
    acl: Any  # the users: zeekdb.server.acl.store.Acl
    tensors: TensorsPort
    stats: StatsPort
    error_stats: dict[str, int]  # "WRONGTYPE" -> replies; the engine counts
    slowlog: SlowLog
    latency: LatencyMonitor
    sampler: Sampler  # ops per second and friends; cron feeds it
    run_id: str  # 40 hex digits
    replication_id: str  # the same form
    start_s: float
    startup_memory: int  # keyspace.memory_used() before the first key
    last_save_s: float
    cron_paused: bool  # DEBUG PAUSE-CRON
    loading: bool  # while the append-only file is read the keyspace's clock stands still, so that nothing expires

    def clients(self) -> Iterable[ClientPort]:
        """All connections, oldest first; a copy, safe while connections close."""

    def client(self, client_id: int) -> ClientPort | None: ...
    def listeners(self) -> list[tuple[str, list[str], int]]:
        """What the server listens on: ("tcp", ["127.0.0.1", "::1"], 6379), ("unix", ["/run/z.sock"], 0)."""

    def sample(self) -> None:
        """Bring `stats` up to date and feed the sampler."""

    def command_stats(self) -> Mapping[str, CommandStats]:
        """By full lower-case name ("get", "client|list"); commands never called may be absent."""

    def reset_stats(self) -> None:
        """CONFIG RESETSTAT: zeroes stats, keyspace counters (hits, misses, expired, evicted), command and error
        statistics and the sampler."""

    def pause(self, until_ms: int, writes_only: bool) -> None:
        """CLIENT PAUSE. While an earlier pause lasts, the later end and the stricter mode hold."""

    def unpause(self) -> None: ...
    def request_shutdown(self, save: bool | None, now: bool, force: bool) -> None:
        """Stop the server after this command; None: save as the `save` directive says. CommandError when refused."""

    def abort_shutdown(self) -> bool:
        """False when none is under way."""

    def spawn_later(self, callback: Any, *args: Any) -> None:
        """Call soon, after this batch: for work that must not run inside the command."""
