"""A server and clients made of plain objects, for the commands that look at them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.unit.commands.harness import Bench
from zeekdb.commands.compatibility import load_declarations
from zeekdb.config.config import Config
from zeekdb.hot.gates import GATE_AUTH
from zeekdb.observe.latency import LatencyMonitor
from zeekdb.observe.slowlog import SlowLog
from zeekdb.observe.stats import CommandCounters, Sampler, Stats
from zeekdb.server.acl.store import Acl
from zeekdb.server.scripts import Figures

load_declarations()


class FakeClient(SimpleNamespace):
    """Fills `commands.ports.ClientPort`; `deeds` keeps what was asked of it."""

    def __init__(self, number: int, **fields: Any) -> None:
        defaults: dict[str, Any] = {
            "id": number, "fd": number + 7, "name": b"", "lib_name": b"", "lib_ver": b"", "user": "default", "gate": 0,
            "addr": f"127.0.0.1:{5000 + number}", "laddr": "127.0.0.1:6379", "protocol": 2,
            "db_index": 0, "created_s": 0.0, "last_interaction_s": 0.0, "last_command": "client|list",
            "kind": "normal", "reply_mode": "on", "deeds": [],
            "in_exec": False, "tracked": None, "channels": (), "patterns": (), "shard_channels": (),
        }  # fmt: skip
        for flag in ("is_monitor", "is_blocked", "is_unix", "in_multi", "no_evict", "no_touch", "closing"):
            defaults[flag] = False
        for count in (
            "subscriptions", "pattern_subscriptions", "shard_subscriptions", "watched_keys", "query_buffer_used",
            "query_buffer_free", "argv_memory", "multi_memory", "reply_buffer_size", "reply_buffer_peak",
            "reply_buffer_used", "reply_list_length", "reply_list_memory", "memory",
        ):  # fmt: skip
            defaults[count] = 0
        super().__init__(**{**defaults, "queued_commands": -1, **fields})

    @property
    def authenticated(self) -> bool:
        return not self.gate & GATE_AUTH

    def kill(self, after_reply: bool = False) -> None:
        self.deeds.append(("kill", after_reply))

    def set_reply_mode(self, mode: str) -> None:
        self.reply_mode = mode

    def select(self, index: int) -> None:
        self.db_index = index

    def reset(self) -> None:
        self.deeds.append("reset")

    def become_monitor(self) -> None:
        self.is_monitor = True

    def unblock(self, error: bool) -> bool:
        self.deeds.append(("unblock", error))
        return True


class FakeServer:
    """Fills `commands.ports.ServerPort`."""

    def __init__(self) -> None:
        self.config = Config()
        self.acl: Any = Acl(self)  # type: ignore[arg-type]
        self.stats = Stats()
        self.error_stats = {"ERR": 2}
        self.slowlog = SlowLog(lambda: 1000.0)
        self.latency = LatencyMonitor(lambda: 1000.0)
        self.sampler = Sampler()
        self.run_id = self.replication_id = "0" * 40
        self.start_s = self.last_save_s = 0.0
        self.startup_memory = 0
        self.cron_paused = False
        self.migration = SimpleNamespace(cached=0)
        nothing = SimpleNamespace(audiences={})
        self.pubsub = SimpleNamespace(channels=nothing, patterns=nothing, shard_channels=nothing)
        self.tracking = SimpleNamespace(clients={}, readers={}, prefixes={}, items=lambda: 0)
        self.replica = SimpleNamespace(active=False)
        self.appendonly = SimpleNamespace(log=None, fields=lambda: [("aof_enabled", 0)])
        self.snapshots = SimpleNamespace(current=None)
        self.saving = SimpleNamespace(
            in_progress=False, next_s=0.0, last_ok=True, last_seconds=-1, current_seconds=-1, saves=0, loaded_keys=0,
            expired_keys=0, reload=lambda *how: None,
        )  # fmt: skip
        self.primary = SimpleNamespace(replicas={}, backlog=None, offset=0)
        self.loading = False
        self.client_memory = SimpleNamespace(normal=0, replicas=0)
        self.loader = SimpleNamespace(active=False, fields=list)
        self.tensors = SimpleNamespace(
            region=SimpleNamespace(models={}), tiers=list, stats=lambda name: {}, warming=SimpleNamespace(figures=dict)
        )
        self.runner = SimpleNamespace(figures=lambda: Figures(0, 0, 0, 0, 0, 0, 0))
        self.table: dict[int, FakeClient] = {}
        self.deeds: list[Any] = []
        self.counters: dict[str, CommandCounters] = {}

    def clients(self) -> list[FakeClient]:
        return list(self.table.values())

    def client(self, number: int) -> FakeClient | None:
        return self.table.get(number)

    def listeners(self) -> list[tuple[str, list[str], int]]:
        return [("tcp", ["127.0.0.1", "::1"], 6379)]

    def sample(self) -> None:
        pass

    def eviction_figures(self) -> list[tuple[str, float]]:
        return []

    def command_stats(self) -> dict[str, CommandCounters]:
        return self.counters

    def reset_stats(self) -> None:
        self.stats.reset()

    def pause(self, until_ms: int, writes_only: bool) -> None:
        self.deeds.append(("pause", writes_only))

    def unpause(self) -> None:
        self.deeds.append("unpause")

    def request_shutdown(self, save: bool | None, now: bool, force: bool) -> None:
        self.deeds.append(("shutdown", save, now, force))

    def abort_shutdown(self) -> bool:
        return False


class Desk(Bench):
    """A bench whose server and clients (`clients` of them, the first one speaking) are there to be looked at."""

    def __init__(self, clients: int = 1, protocol: int = 2) -> None:
        super().__init__(protocol)
        self.server = FakeServer()
        for number in range(1, clients + 1):
            self.server.table[number] = FakeClient(number, protocol=protocol)
            self.server.acl.admit(self.server.table[number])
        self.me = self.server.table[1]
        self.ctx.server = self.server
        self.ctx.client = self.me

    def require(self, password: str) -> None:
        """requirepass, and the first client as one that has just come."""
        self.server.config.requirepass = password
        self.server.acl.set_default_password()
        self.server.acl.admit(self.me)
