"""The process: wires the keyspace, the engine, the commands and the listeners together, and ends them cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import pkgutil
import resource
import secrets
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

import zeekdb.commands
from zeekdb.commands.args import show
from zeekdb.commands.connection import redacted
from zeekdb.commands.introspection import is_container
from zeekdb.commands.spec import Command, Flag
from zeekdb.config.units import ConfigError, quoted
from zeekdb.errors import CommandError, Unavailable
from zeekdb.hot import eviction, learned
from zeekdb.hot.engine import Engine
from zeekdb.hot.gates import (
    GATE_BUSY,
    GATE_JOURNAL,
    GATE_LOADING,
    GATE_MONITOR,
    GATE_OOM,
    GATE_PAUSED,
    GATE_READONLY,
    GATE_SLOWLOG,
)
from zeekdb.hot.keyspace import Keyspace
from zeekdb.observe.latency import LatencyMonitor
from zeekdb.observe.slowlog import SlowLog
from zeekdb.observe.stats import Sampler, Stats
from zeekdb.persistence import rdb, rdb_file
from zeekdb.persistence.manifest import Manifest
from zeekdb.server.acl.store import Acl
from zeekdb.server.aof import AppendOnly
from zeekdb.server.aof_loading import AofLoader, CannotLoad
from zeekdb.server.blocking import Blocking
from zeekdb.server.client import CONNECTION_BYTES, Client
from zeekdb.server.client_memory import ClientMemory
from zeekdb.server.cron import Cron
from zeekdb.server.dispatch import Dispatcher
from zeekdb.server.listener import Listeners
from zeekdb.server.loading import Loading
from zeekdb.server.migration import Migration
from zeekdb.server.notifications import Notifications
from zeekdb.server.propagation import Propagation
from zeekdb.server.pubsub import PubSub
from zeekdb.server.replica import Replica
from zeekdb.server.replication import Primary
from zeekdb.server.saving import Saving
from zeekdb.server.scripts import TELLS_REPLICAS, ScriptRunner
from zeekdb.server.small_values import LIMITS, limit_small_values
from zeekdb.server.snapshots import Snapshots
from zeekdb.server.tensors import Tensors
from zeekdb.server.tracking import Tracking
from zeekdb.server.transactions import Watches, note_exec

if TYPE_CHECKING:
    from zeekdb.config.config import Config

log = logging.getLogger("zeekdb")

MEMORY_DIRECTIVES = (
    "maxmemory", "maxmemory-policy", "maxmemory-samples", "maxmemory-eviction-tenacity", "lfu-decay-time",
    "lfu-log-factor", "replica-ignore-maxmemory",
)  # fmt: skip
SPARE_DESCRIPTORS = 32  # beside the clients': files, listeners, the loop's own
END_S = 5.0  # how long tasks may take to end at shutdown
SHUTDOWN_FLUSH_S = 0.05  # how long replies may take to leave at shutdown


def load_commands() -> None:
    """Import every family, so that its declarations are registered."""
    for module in pkgutil.iter_modules(zeekdb.commands.__path__):
        importlib.import_module(f"zeekdb.commands.{module.name}")


class Server:
    """Fills `commands.ports.ServerPort`."""

    def __init__(self, config: Config) -> None:
        load_commands()
        self.config = config
        self.keyspace = Keyspace(config.databases, config.shards)
        self.engine = Engine(self.keyspace)
        self.stats = Stats()
        self.sampler = Sampler()
        self.error_stats: dict[str, int] = {}
        self.slowlog = SlowLog()
        self.latency = LatencyMonitor()
        self.run_id = secrets.token_hex(20)
        self.replication_id = secrets.token_hex(20)
        self.start_s = time.time()
        self.last_save_s = self.start_s
        self.cron_paused = False
        self.client_table: dict[int, Client] = {}
        self.last_client_id = 0
        self.monitors: set[Client] = set()
        self.pause_end_ms = 0
        self.pause_writes_only = False
        self.busy_reason = ""  # why others have to wait, while a script runs on
        self.current_client: Client | None = None  # whose changes are being reported
        self.acl = Acl(self)
        config.user_lines = self.acl.config_lines
        self.watches = Watches(self.keyspace)
        self.blocking = Blocking(self)
        self.pubsub = PubSub(self)
        self.notifications = Notifications(self)
        self.tracking = Tracking(self)
        self.propagation = Propagation(self)
        self.primary = Primary(self, self.image)
        self.replica = Replica(self)
        self.snapshots = Snapshots(self)
        self.saving = Saving(self)
        self.appendonly = AppendOnly(self)
        self.loader = Loading(self)
        interested = (self.watches, self.blocking, self.tracking)
        self.key_listeners = [each.touched for each in interested]
        self.keyspace.database_listeners.extend(each.database_changes for each in interested)
        self.migration = Migration(self)
        self.tensors = Tensors(self)
        self.runner = ScriptRunner(self)
        self.dispatcher = Dispatcher(self, self.engine)
        self.engine.on_due = self.command_done
        self.engine.on_exec = note_exec
        self.engine.on_close = self._closed
        self.engine.on_output_limit = self.output_exceeded
        self.exit_code = 0
        self.loop: asyncio.AbstractEventLoop
        self.listeners_: Listeners
        self._later: list[tuple[Any, tuple[Any, ...]]] = []
        self.client_memory = ClientMemory(self)
        self.client_memory.tick()
        self._apply_config()
        self.startup_memory = self.keyspace.memory_used()

    # ------------------------------------------------------------ configuration

    def _apply_config(self) -> None:
        """Gives every part its directives, now and whenever CONFIG SET changes them."""
        config = self.config
        hooks: list[tuple[tuple[str, ...], Any]] = [
            (LIMITS, lambda: limit_small_values(config)),
            (("slowlog-log-slower-than", "slowlog-max-len", "latency-monitor-threshold"), self._watch_slow),
            (("proto-max-bulk-len", "client-query-buffer-limit", "client-output-buffer-limit"), self._limit_clients),
            (MEMORY_DIRECTIVES, self.choose_policy),
            (("maxmemory-clients", "maxmemory"), self.client_memory.configure),
            (("requirepass",), self.acl.set_default_password),
            (("min-replicas-to-write", "min-replicas-max-lag"), self.update_gates),
            (("lua-memory-limit",), self._limit_scripts),
            (("notify-keyspace-events",), self.notifications.configure),
            (("tracking-table-max-keys",), self.tracking.trim),
            (("appendfsync", "no-appendfsync-on-rewrite", "aof-timestamp-enabled"), self.appendonly.configure),
            (("save", "stop-writes-on-bgsave-error"), self.update_gates),
            (("snapshot-schedule",), self.saving.plan),
        ]
        for names, hook in hooks:
            for name in names:
                config.on_change(name, hook)
            hook()
        config.on_change("port", lambda: self._rebind("Unable to listen on this port. Check server logs."))
        config.on_change("bind", lambda: self._rebind("Failed to bind to specified addresses."))
        config.on_change("maxclients", self._raise_descriptor_limit)
        config.on_change("appendonly", self._switch_appendonly)

    def _limit_scripts(self) -> None:
        self.runner.eval_lua.memory_limit = self.runner.function_lua.memory_limit = self.config.lua_memory_limit

    def _watch_slow(self) -> None:
        slower_us = self.config.slowlog_log_slower_than
        latency_us = self.config.latency_monitor_threshold * 1000
        limits = [us for us in (slower_us if slower_us > 0 else 0, latency_us) if us]
        self.engine.slow_us = min(limits, default=0)
        if slower_us == 0:
            self.engine.slow_us = 0.001
        self.update_gates()

    def _limit_clients(self) -> None:
        self.engine.bulk_limit = self.config.proto_max_bulk_len
        self.engine.query_limit = self.config.client_query_buffer_limit
        for client in self.client_table.values():
            self.limit_output(client)

    def limit_output(self, client: Client) -> None:
        """Of unsent bytes, in the engine; what waits behind a full copy is counted by who puts it there."""
        client.output_limit = 0 if client.copying else self.output_limits(client)[0]

    def choose_policy(self) -> None:
        config = self.config
        self.keyspace.set_lfu(config.lfu_decay_time, config.lfu_log_factor)
        limit = 0 if self.replica.active and config.replica_ignore_maxmemory else config.maxmemory
        eviction.configure(
            self.keyspace, limit, config.maxmemory_policy, config.maxmemory_samples, config.maxmemory_eviction_tenacity
        )
        self.update_gates()

    def update_gates(self) -> None:
        """Sets the engine's gate word: one bit for each thing that must look at every command."""
        gate = 0
        if self.monitors:
            gate |= GATE_MONITOR
        if self.pause_end_ms:
            gate |= GATE_PAUSED
        if 0 <= self.config.slowlog_log_slower_than < 1000:
            gate |= GATE_SLOWLOG  # runs of twins are timed together: too coarse for so fine a threshold
        if self.keyspace.subscribers:
            gate |= GATE_JOURNAL
        if self.busy_reason:
            gate |= GATE_BUSY
        if self.config.min_replicas_to_write or self.replica.active or self.appendonly.error or self.saving.refusal():
            gate |= GATE_READONLY
        if self.is_out_of_memory():
            gate |= GATE_OOM
        self.engine.gate = GATE_LOADING if self.loading else gate

    @property
    def loading(self) -> bool:
        """Whether data are being loaded, so that only what needs none is answered."""
        return self.loader.active

    def write_refusal(self) -> str | None:
        """Why nobody may write now, if so."""
        config = self.config
        if self.replica.active and config.replica_read_only:
            return "READONLY You can't write against a read only replica."
        wanted = config.min_replicas_to_write if config.min_replicas_max_lag else 0
        if wanted and self.primary.good_replicas() < wanted:
            return "NOREPLICAS Not enough good replicas to write."
        return self.saving.refusal() or self.appendonly.refusal()

    def is_stale(self) -> bool:
        """Whether reads are refused too: a replica without its primary, if the directive says so."""
        return self.replica.active and not self.replica.link_up and not self.config.replica_serve_stale_data

    def is_out_of_memory(self) -> bool:
        """Whether more memory is used than `maxmemory` allows, and nothing may be evicted."""
        return eviction.is_stuck()

    def eviction_figures(self) -> list[tuple[str, float]]:
        """For INFO: times in ms, and what the learned policy has learned."""
        current_ms, total_ms = eviction.exceeded_ms()
        figures: list[tuple[str, float]] = [
            ("total_eviction_exceeded_time", total_ms),
            ("current_eviction_exceeded_time", current_ms),
        ]
        if self.config.maxmemory_policy.endswith("learned"):
            figures += [(f"learned_policy_{name}", round(value, 4)) for name, value in learned.stats().items()]
        return figures

    # ------------------------------------------------------------ after a command

    def read_notes(self) -> None:
        """Tells those who asked about keys which of them were changed."""
        databases = self.keyspace.databases
        for index, key in self.keyspace.take_notes():
            for listener in self.key_listeners:
                listener(databases[index], key)

    def command_done(self, client: Client | None) -> None:
        """The end of a command, transaction or script (or timer) that has changed what somebody asked about."""
        self.current_client = client
        self.keyspace.due = False
        self.read_notes()
        self.blocking.serve()
        self.tracking.command_done(client)
        self.keyspace.due = False
        self.current_client = None

    def image(self, only_functions: bool = False, aof_base: bool = False) -> bytes:
        """All data as an RDB file, or the functions alone."""
        databases = [] if only_functions else self.keyspace.databases
        return rdb.image(databases, self.runner.libraries.records(), aof_base)

    def settle(self) -> None:
        """After something that was no command of a client: the same, and the output goes out."""
        if self.keyspace.due:
            self.command_done(None)
        self.engine.settle()

    # ------------------------------------------------------------ while a script runs on

    def while_busy(self, client: Client, reason: str) -> None:
        """Called now and then by what holds the loop too long on behalf of `client`: the others get `reason`."""
        self.busy_reason = reason
        self.update_gates()
        try:
            self.listeners_.accept_waiting()
            self.engine.busy_turn(client)
        finally:
            self.busy_reason = ""
            self.update_gates()

    # ------------------------------------------------------------ clients

    def admit(self, fd: int, addr: str, laddr: str, is_unix: bool) -> None:
        """A connection that was let in."""
        self.last_client_id += 1
        client = Client(self, self.last_client_id, addr, laddr, is_unix)
        try:
            client.attach(self.engine, fd)
        except OSError:
            os.close(fd)
            return
        client.hold(CONNECTION_BYTES)
        client.select(0)
        self.acl.admit(client)
        self.limit_output(client)
        self.client_table[client.id] = client
        self.stats.total_connections_received += 1

    def _closed(self, client: Client) -> None:
        self.client_table.pop(client.id, None)
        self.blocking.forget(client)
        self.pubsub.forget(client)
        self.tracking.disable(client)
        self.primary.forget(client)
        self.tensors.forget_client(client)
        self.watches.drop(client)
        client.hold(-client.extra_bytes)
        if client in self.monitors:
            self.monitors.discard(client)
            self.update_gates()

    def clients(self) -> list[Client]:
        """All connections, oldest first."""
        return list(self.client_table.values())

    def client(self, client_id: int) -> Client | None:
        return self.client_table.get(client_id)

    def client_count(self) -> int:
        return len(self.client_table)

    def is_protected(self) -> bool:
        """Whether strangers are kept out: protected mode without a password."""
        return bool(self.config.protected_mode) and self.acl.default.nopass

    def output_limits(self, client: Client) -> tuple[int, int, int]:
        """(hard bytes, soft bytes, soft seconds) of the client's class."""
        return self.config.output_buffer_limit(client.kind)

    def check_output(self, client: Client, now_s: float) -> None:
        """The soft limit: too much unsent output for too long ends the connection."""
        _, soft, seconds = self.output_limits(client)
        if not soft or client.unsent_bytes <= soft:
            client.over_limit_since_s = 0.0
        elif not client.over_limit_since_s:
            client.over_limit_since_s = now_s
        elif now_s - client.over_limit_since_s > seconds:
            self.output_exceeded(client)
            client.close()

    def output_exceeded(self, client: Client) -> None:
        """Its connection ends, because it does not read; the caller or the engine closes it."""
        log.warning("Client id=%d addr=%s closed for overcoming of output buffer limits.", client.id, client.addr)
        self.stats.client_output_buffer_limit_disconnections += 1

    def feed_monitors(self, client: Any, args: list[bytes], source: str = "") -> None:
        """One line for each MONITOR client; `source` "lua" stands for a script."""
        now = time.time()
        words = " ".join(quoted(show(bytes(arg))) for arg in redacted(args))  # a large one is a BlobView
        line = f"{now:.6f} [{client.db_index} {source or client.addr}] {words}"
        for monitor in list(self.monitors):
            if monitor is not client:
                monitor.write(line)

    # ------------------------------------------------------------ CLIENT PAUSE

    def pause(self, until_ms: int, writes_only: bool) -> None:
        if self.pause_end_ms:
            until_ms = max(until_ms, self.pause_end_ms)
            writes_only = writes_only and self.pause_writes_only
        self.pause_end_ms, self.pause_writes_only = until_ms, writes_only
        self.update_gates()
        self._end_pause_in_time()

    def _end_pause_in_time(self) -> None:
        """Ends the pause if it is over, and looks again when it should be: the loop's clock is not quite this one."""
        left_s = self.pause_end_ms / 1000 - time.time()
        if not self.pause_end_ms:
            return
        if left_s <= 0:
            self.unpause()
        else:
            self.loop.call_later(left_s + 0.001, self._end_pause_in_time)

    def unpause(self) -> None:
        self.pause_end_ms = 0
        self.update_gates()
        for client in self.clients():
            self.dispatcher.release(client)
        self.keyspace.due = True  # waiters were not served meanwhile
        self.settle()

    def pause_holds(self, client: Client, spec: Command, args: list[bytes]) -> bool:
        """Whether a pause holds this command back."""
        if spec.name == "CLIENT" and len(args) > 1 and args[1].upper() in (b"UNPAUSE", b"PAUSE"):
            return False
        if not self.pause_writes_only:
            return True
        if spec.name == "EXEC":
            calls = client.queued_calls()
            return any(self._may_change(self.dispatcher.specs[index], call) for index, call in calls)
        return self._may_change(spec, args)

    def _may_change(self, spec: Command, args: list[bytes]) -> bool:
        """Whether a call may change something here or on replicas."""
        if spec.name in ("EVAL", "EVALSHA", "FCALL"):
            return self.runner.may_write(spec.name, args)
        if spec.subcommands and len(args) > 1:
            spec = spec.subcommands.get(args[1].decode("latin-1").upper(), spec)
        return bool(spec.flags & (Flag.WRITE | Flag.MAY_REPLICATE)) or spec.name in TELLS_REPLICAS

    def pause_holds_blocked(self, client: Client) -> bool:
        """Whether a pause keeps a waiting client from timing out."""
        return bool(self.pause_end_ms) and not self.pause_writes_only

    # ------------------------------------------------------------ observation

    def command_stats(self) -> Mapping[str, Any]:
        from zeekdb.observe.stats import CommandCounters

        stats: dict[str, Any] = {}
        per_us = self.engine.ticks_per_us
        for index, name in enumerate(self.dispatcher.names):
            if is_container(self.dispatcher.specs[index]):
                continue  # its subcommands are counted
            calls, us, rejected, failed, histogram = self.engine.command_stats(index)
            if calls or rejected or failed:
                counters = CommandCounters(calls, int(us), rejected, failed, histogram, per_us)
                stats[name] = counters.added_to(stats[name]) if name in stats else counters
        return stats

    def reset_stats(self) -> None:
        self.stats.reset()
        self.engine.reset_stats()
        self.error_stats.clear()
        self.sampler = Sampler()
        keyspace = self.keyspace
        keyspace.hits = keyspace.misses = keyspace.expired = keyspace.evicted = keyspace.lazyfreed = 0
        keyspace.expired_fields = 0

    def note_slow(self, client: Client, spec: Command, args: list[bytes], us: float) -> None:
        """A call over the slowlog's or the latency monitor's threshold."""
        slower_us = self.config.slowlog_log_slower_than
        if slower_us >= 0 and us >= slower_us and not spec.flags & Flag.SKIP_SLOWLOG:
            self.slowlog.add(redacted(args), int(us), client.addr, client.name, self.config.slowlog_max_len)
        threshold_ms = self.config.latency_monitor_threshold
        if threshold_ms and us >= threshold_ms * 1000:
            self.latency.add("fast-command" if spec.flags & Flag.FAST else "command", int(us / 1000))

    def sample(self) -> None:
        """Ten times a second: rates for INFO, and the largest memory seen."""
        stats, engine = self.stats, self.engine
        stats.total_commands_processed = engine.total_commands
        stats.total_net_input_bytes = engine.total_in
        stats.total_net_output_bytes = engine.total_out
        stats.total_reads_processed = engine.reads
        stats.total_writes_processed = engine.writes
        stats.total_error_replies = engine.error_replies
        stats.peak_memory = max(stats.peak_memory, self.keyspace.memory_used())
        self.sampler.sample(time.monotonic(), stats)

    # ------------------------------------------------------------ life

    def listeners(self) -> list[tuple[str, list[str], int]]:
        """What the server listens on."""
        found: list[tuple[str, list[str], int]] = []
        if self.listeners_.tcp:
            addresses = [sock.getsockname()[0] for sock in self.listeners_.tcp]
            found.append(("tcp", addresses, self.listeners_.tcp[0].getsockname()[1]))
        if self.listeners_.unix:
            found.append(("unix", [sock.getsockname() for sock in self.listeners_.unix], 0))
        return found

    def _rebind(self, complaint: str) -> None:
        """Listen elsewhere. The old sockets go first: they may hold what the new ones ask for."""
        self.listeners_.close_tcp()
        if not self.config.port:
            return
        try:
            self.listeners_.open_tcp(list(self.config.bind), self.config.port, self.config.tcp_backlog)
        except OSError as error:
            log.warning("%s", error.strerror or error)
            raise ConfigError(complaint) from None

    def _raise_descriptor_limit(self) -> None:
        """Make room for maxclients; fewer when the system says so, as Redis does."""
        wanted = self.config.maxclients + SPARE_DESCRIPTORS
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft >= wanted:
            return
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
        except (ValueError, OSError):
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
            soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            if soft < wanted:
                log.warning("maxclients reduced to %d: open file limit is %d", soft - SPARE_DESCRIPTORS, soft)
                self.config.maxclients = soft - SPARE_DESCRIPTORS

    def spawn_later(self, callback: Any, *args: Any) -> None:
        """Call soon, after this batch."""
        self.loop.call_soon(callback, *args)

    def request_shutdown(self, save: bool | None, now: bool, force: bool) -> None:
        """Stop after this command. Data are saved if it says so, or if there are save points and it says nothing."""
        if (save or (save is None and self.config.save)) and not self.loading:  # then the file has more than we
            self.saving.give_up()
            self.primary.copies.give_up()
            self.appendonly.give_up()
            try:
                self.saving.save()
            except CommandError:
                if not force:
                    raise CommandError("ERR Errors trying to SHUTDOWN. Check logs.") from None
        log.warning("User requested shutdown...")
        self.loop.call_soon(self._stop)

    def abort_shutdown(self) -> bool:
        return False

    def _stop(self) -> None:
        self.settle()
        self.loop.stop()

    def run(self) -> int:
        """Serve until told to stop; the exit status."""
        self.loop = uvloop.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.listeners_ = Listeners(self, self.loop)
        self._raise_descriptor_limit()
        config = self.config
        if not self.acl.load_at_start():
            return 1
        try:
            if config.port:
                self.listeners_.open_tcp(list(config.bind), config.port, config.tcp_backlog)
            if config.unixsocket:
                self.listeners_.open_unix(config.unixsocket, config.unixsocketperm, config.tcp_backlog)
        except OSError as error:
            log.warning("%s", error.strerror or error)
            self.listeners_.close()
            return 1
        if not config.port and not config.unixsocket:
            log.warning("Configured to not listen anywhere, exiting.")
            return 1
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self._signalled, number)
        self.loop.add_reader(self.engine.fileno(), self.engine.turn)
        if not self._load():
            return self.exit_code
        for folder in (Path(str(config.dir)), self.appendonly.directory):
            if swept := rdb_file.sweep(folder):
                log.warning("%d unfinished files that a crash has left in %s were removed", swept, folder)
        if config.replicaof:
            self.replica.follow(config.replicaof[0], int(config.replicaof[1]))
        cron = Cron(self, self.loop)
        cron.start()
        self._announce()
        try:
            self.loop.run_forever()
        finally:
            cron.stop()
            self._end()
        return self.exit_code

    def _load(self) -> bool:
        """What the last run has left, while clients are told so; False when the server has to end."""
        self.loader.begin()
        loading = self.loop.create_task(self._load_at_start())
        try:
            loaded = self.loop.run_until_complete(loading)
        except RuntimeError:
            if loading.done():
                raise
            loading.cancel()  # the loop was stopped: SHUTDOWN or a signal
            with contextlib.suppress(asyncio.CancelledError):
                self.loop.run_until_complete(loading)
            self._end()
            return False
        finally:
            self.loader.end()
        if not loaded:
            self.exit_code = 1
        return loaded

    async def _load_at_start(self) -> bool:
        """The tensor region, then the append-only file if there shall be one, the snapshot otherwise."""
        try:
            await self.tensors.start()
        except (Unavailable, OSError) as error:
            log.critical("Fatal error: %s. Exiting.", error)
            return False
        if not self.config.appendonly:
            return await self.saving.load_at_start()
        try:
            manifest = await AofLoader(self).load()
            if manifest is None and not await self.saving.load_at_start():  # it was turned on since: nothing gets lost
                return False
            self.appendonly.open_at_start(manifest or Manifest())
        except (CannotLoad, OSError) as error:
            log.critical("Fatal error: %s. Exiting.", error)
            return False
        self.keyspace.dirty = 0
        return True

    def _switch_appendonly(self) -> None:
        """CONFIG SET appendonly. ConfigError."""
        if self.loading:
            raise ConfigError("Redis is loading the dataset in memory")
        if not self.config.appendonly:
            self.appendonly.turn_off()
            return
        try:
            self.appendonly.turn_on()
        except OSError as error:
            log.warning("The append-only file cannot be opened: %s", error)
            raise ConfigError("Unable to turn on AOF. Check server logs.") from None

    def replayer(self) -> Client:
        """Whoever runs what the append-only file says; for one file."""
        client = Client(self, 0, "", "", False)
        client.attach(self.engine, -1)
        client.select(0)
        client.account, client.logged_in = self.acl.default, True
        return client

    def _announce(self) -> None:
        if self.config.port:
            log.warning("Ready to accept connections tcp")
        if self.config.unixsocket:
            log.warning("Ready to accept connections unix")

    def _signalled(self, number: int) -> None:
        log.warning("Received %s scheduling shutdown...", signal.Signals(number).name)
        asked = self.config.shutdown_on_sigint if number == signal.SIGINT else self.config.shutdown_on_sigterm
        save = True if "save" in asked else False if "nosave" in asked else None
        try:
            self.request_shutdown(save, "now" in asked, "force" in asked)
        except CommandError:
            log.warning("Errors trying to shut down the server. Check the logs for more information.")

    def _end(self) -> None:
        self.loop.remove_reader(self.engine.fileno())
        self.listeners_.close()
        self.migration.close()
        for client in self.clients():
            client.close()
        self.engine.settle()
        self.loop.run_until_complete(self.tensors.stop())
        self.snapshots.end()
        tasks = asyncio.all_tasks(self.loop)  # who was writing a file removes it, unless the disk holds it up
        for task in tasks:
            task.cancel()
        if tasks:
            self.loop.run_until_complete(asyncio.wait(tasks, timeout=END_S))
        self.appendonly.close()
        if self.config.pidfile:
            with contextlib.suppress(OSError):
                os.unlink(self.config.pidfile)
        log.warning("ZeekDB is now ready to exit, bye bye...")
        self.loop.close()


def serve(config: Config) -> int:
    """Run a server with `config`; returns the process's exit status."""
    # The loop is the server's only busy thread: it need not be asked for the GIL two hundred times a second.
    sys.setswitchinterval(0.02)
    return Server(config).run()
