"""The tensor region at work: its models, what commands store and fetch, and whoever waits for that.

A command that finds its blocks in memory is answered at once. One that needs the tier below, or a codec's threads,
waits, its client's next commands behind it, and nobody else does. While the tier below fails the region forgets what it
has no room for, as it does without one. `below.py` moves the blocks, `coding.py` runs the codecs, `shared_memory.py`
hands the arena over.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from zeekdb.config.units import ConfigError
from zeekdb.errors import CommandError, Unavailable
from zeekdb.hot import arena, region
from zeekdb.hot.blobview import BlobView
from zeekdb.hot.kv_twins import set_exists_lease
from zeekdb.hot.namespaces import set_namespaces
from zeekdb.hot.replies import DEFERRED
from zeekdb.persistence.manifest import sync_folder
from zeekdb.server.below import Below
from zeekdb.server.coding import Coding, codec_of
from zeekdb.server.contexts import Contexts
from zeekdb.server.device_tier import DeviceTier
from zeekdb.server.fetching import Answer, Fetching
from zeekdb.server.levels import coded_by, database_of, make_levels, retune
from zeekdb.server.records import Records
from zeekdb.server.shared_memory import SharedMemory
from zeekdb.server.versions import Versions
from zeekdb.server.warming import Warming
from zeekdb.tensors.layout import Layout, Model
from zeekdb.tensors.models_file import load_models, save_models
from zeekdb.tensors.region import Region, Tenant, deadline_of
from zeekdb.tiers.stack import BITS, Stack
from zeekdb.tiers.tier import Flow, Name, TierStats

if TYPE_CHECKING:
    from zeekdb.commands.context import Context
    from zeekdb.server.client import Client
    from zeekdb.server.server import Server
    from zeekdb.tensors.codecs import Codec

log = logging.getLogger("zeekdb")

Value = bytes | BlobView | memoryview

STORE_WAIT_S: Final = 0.25  # how long a block waits for room that the tier below is making
STORES_BYTES_MAX: Final = 1 << 30  # of commands that wait for room or a codec; beyond, what has no room is dropped
SWEEPS_PER_TICK: Final = 8  # walks of 256 blocks for what has expired
RETUNED: Final = tuple(
    f"kv-{name}-{what}" for name in ("warm", "postgres", "objects") for what in ("min", "max", "ttl")
)  # directives
MODELS_FILE: Final = "models.json"


@dataclass(slots=True)
class Flows:
    """What commands moved of one model, and how long they took."""

    reads: Flow = field(default_factory=Flow)
    writes: Flow = field(default_factory=Flow)

    def figures(self) -> dict[str, float]:
        """Of both, in KV.STATS's names."""
        return {
            f"{name}_{key}": value
            for name, flow in (("read", self.reads), ("write", self.writes))
            for key, value in flow.figures().items()
            if key != "errors"
        }


def figures_of(stats: TierStats) -> dict[str, Any]:
    """A tier below, in KV.TIERS's names."""
    return {
        "name": stats.name.encode(), "state": stats.state.encode(), "error": stats.error.encode(),
        "blocks": stats.blocks, "bytes": stats.bytes, "used_bytes": stats.used_bytes,
        "limit_bytes": stats.limit_bytes, "misses": stats.misses, "corrupt": stats.corrupt, "deleted": stats.deleted,
        "dropped": stats.dropped, "moved": stats.moved, "queue_bytes": stats.queue_bytes, **stats.more,
        **{f"write_{key}": value for key, value in stats.write.figures().items()},
        **{f"read_{key}": value for key, value in stats.read.figures().items()},
    }  # fmt: skip


class Tensors:
    """Fills `commands.ports.TensorsPort`."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.region = Region()
        self.arena_bytes = 0
        self.below = Below(self.region)
        self.shared = SharedMemory()
        self.gpu = DeviceTier(self)
        self.contexts = Contexts(self)
        self.records = Records()
        self.fetching = Fetching(self)
        self.versions = Versions(self)
        self.warming = Warming(self)
        self.models_path: Path | None = None
        self.coding = Coding(self._room)
        self.flows: dict[bytes, Flows] = {}
        self.reading: dict[Client, asyncio.Task[None]] = {}  # what is read for nobody is not read
        self.tasks: set[asyncio.Task[None]] = set()  # of commands that wait, at most one of a client
        self.stores_bytes = 0
        self.sweep_at = 0
        self.stopping = False

    # ------------------------------------------------------------ coming and going

    async def start(self) -> None:
        """Maps the arena, and opens the tier below. Unavailable: a directory or a directive that cannot be used."""
        config = self.server.config
        if config.kv_memory:
            arena.arena_open(config.kv_memory)
            self.arena_bytes = arena.arena_stats()["size"]
            if config.kv_prefault:
                arena.arena_fault_in()
        contexts = asyncio.ensure_future(self.contexts.start())  # an engine of its own takes a second
        try:
            await self._open_below()
        finally:
            await contexts
        await self.gpu.start()
        config.on_change("kv-ssd-uses", self.tick)
        config.on_change("kv-namespace", self._name_spaces)
        try:
            self._name_spaces()
        except ConfigError as error:
            raise Unavailable(f"kv-namespace: {error}") from None
        config.on_change("kv-exists-lease", self._promise)
        self._promise()

    async def _open_below(self) -> None:
        """Unavailable: a directory or a directive that cannot be used."""
        config = self.server.config
        if config.kv_ssd_path:
            path = Path(config.kv_ssd_path)
            try:
                os.makedirs(path, exist_ok=True)
            except OSError as error:
                raise Unavailable(f"kv-ssd-path: can't make {path}: {error.strerror}") from None
            for model in load_models(path / MODELS_FILE):
                self.region.declare(model)
            self.models_path = path / MODELS_FILE
        elif any((config.kv_warm_url, config.kv_postgres_url, config.kv_objects_url)):
            self.models_path = Path(config.dir) / f"kv-{MODELS_FILE}"
            for model in load_models(self.models_path):
                self.region.declare(model)
        levels, ssd_owner = make_levels(config, self.below, self._layout_of)
        if levels:
            ssd_owner.stack = Stack(levels, self.below)
            await self.below.open(ssd_owner.stack, self.arena_bytes)
            for name in RETUNED:
                config.on_change(name, lambda: retune(levels, config))
            self.tick()
        if config.kv_postgres_url:
            await self.records.open(config, database_of(levels, config))
            self.records.coded = coded_by(levels)
            self.below.on_placed = self.records.placed
            self.below.fleet.catalogue = self.records.find
            self.below.fleet.list_catalogue = self.records.list
            for name in ("kv-log-sample", "kv-log-days", "kv-versions"):
                config.on_change(name, lambda: self.records.retune(config))
            if config.kv_warming:
                self.warming.start(self.records.popular, config.kv_warming, config.kv_warming_bytes)
        self.below.fleet.adopt_max = config.kv_adopt
        self.below.fleet.adopt_soon()

    def _layout_of(self, name: bytes) -> Layout | None:
        """Of blocks that are kept as they come."""
        model = self.region.models.get(name)
        return model.layout if model is not None and model.codec == "raw" else None

    def _promise(self) -> None:
        set_exists_lease(self.server.config.kv_exists_lease)

    def _name_spaces(self) -> None:
        """Gives each pattern of `kv-namespace` its space; a model that was not declared takes blocks of any size."""
        patterns = []
        for pattern, name in self.server.config.kv_namespace:
            try:
                if name not in self.region.models:
                    self.declare(Model(name))
                if self.region.models[name].codec != "raw":
                    raise ConfigError("plain keys can't belong to a model with a codec")
                patterns.append((pattern, self.region.tenant(name, b"").space))
            except CommandError as error:
                raise ConfigError(error.message.removeprefix("ERR ")) from None
        set_namespaces(patterns)

    async def stop(self) -> None:
        """Writes what waits for the tier below, and lets go of everything. The clients are gone."""
        self.stopping = True
        set_namespaces([])
        if self.tasks:
            await asyncio.wait(self.tasks)
        await self.warming.stop()
        await self.contexts.stop()
        await self.versions.close()
        await self.gpu.stop()
        await self.below.close()
        await self.records.close()
        self.models_path = None  # the file stays as it is
        self.shared.close()
        for name in list(self.region.models):
            self._forget(name)
        region.release_late()
        gc.collect()  # clients, and what they held
        arena.arena_close()
        self.arena_bytes = 0

    def forget_client(self, client: Client) -> None:
        """The connection has ended."""
        self.shared.forget_client(client)
        self.gpu.forget_client(client)
        client.blocked_call = []  # which may hold large values until somebody collects the garbage
        task = self.reading.pop(client, None)
        if task is not None:
            task.cancel()

    def tick(self) -> None:
        """Ten times a second: makes room ahead of need, removes what has expired, goes on with writing."""
        config = self.server.config
        self.below.tick(config.kv_ssd_uses)
        self.records.tick()
        self.contexts.tick(self.server.loop.time())
        self.gpu.tick()
        if self.arena_bytes:
            region.relieve(self.arena_bytes * (100 - config.kv_watermark) // 100)
        self._sweep()
        self.below.write_soon()

    def _sweep(self) -> None:
        tenants = list(self.region.by_space.values())
        for _ in range(min(SWEEPS_PER_TICK, len(tenants))):
            self.sweep_at = (self.sweep_at + 1) % len(tenants)
            tenant = tenants[self.sweep_at]
            tenant.cursor, gone = region.sweep(tenant.space, tenant.cursor)
            self.below.forget_here(tenant, gone)  # shared tiers and the catalogue know its deadline

    # ------------------------------------------------------------ models

    def declare(self, model: Model) -> None:
        """KV.MODEL SET."""
        if model.codec != "raw" and self._has_plain_keys(model.name):
            raise CommandError("ERR kv-namespace gives keys to this model, which can't have a codec")
        self.region.declare(model)
        self.gpu.declare(model)
        self._save_models()
        self.below.fleet.adopt_soon()

    def _has_plain_keys(self, name: bytes) -> bool:
        return any(name == each for _, each in self.server.config.kv_namespace)

    def forget(self, ctx: Context, name: bytes) -> Any:
        """KV.MODEL DEL; how many blocks there were, once none of them can come back."""
        if self._has_plain_keys(name):
            raise CommandError(f"ERR kv-namespace gives keys to model '{name.decode('utf-8', 'surrogateescape')}'")
        blocks, buried = self._forget(name)
        self.contexts.forget(name)
        return self._once(ctx, buried, blocks)

    def _forget(self, name: bytes) -> tuple[int, asyncio.Future[None] | None]:
        blocks, buried = 0, None
        self.flows.pop(name, None)
        for tenant in self.region.forget(name):
            count, below = region.close_space(tenant.space)
            buried = self.below.forget(tenant, below) or buried
            blocks += count
        self.gpu.forget(name)
        self._save_models()
        return blocks, buried

    def _save_models(self) -> None:
        if self.models_path is not None:
            try:
                save_models(self.models_path, self.region.models.values())
                sync_folder(self.models_path.parent)
            except OSError as error:
                log.warning("Can't write %s: %s", self.models_path, error.strerror)

    # ------------------------------------------------------------ storing

    def store_now(
        self, tenant: Tenant, keys: list[bytes], values: Sequence[Value], deadline_s: int = 0,
        group: bytes | None = None, parent: bytes | None = None, first_token: int = -1,
    ) -> list[int]:  # fmt: skip
        """Stores blocks as far as there is room, see `region.put`. `first_token`: of the first; -1: not known."""
        begin_ns = time.perf_counter_ns()
        said: list[int] = region.put(tenant.space, keys, list(values), deadline_s, group, parent)
        size = sum(len(value) for value, each in zip(values, said, strict=True) if each >= 0)
        took_ns = time.perf_counter_ns() - begin_ns
        self.flow(tenant).writes.record(size, took_ns)
        self.records.stored(tenant, keys, said, parent, first_token, took_ns)
        self.below.write_soon()
        self.below.fleet.stored(tenant, keys, said)
        self.contexts.stored(tenant, keys, values, said, parent)
        return said

    def store(
        self, ctx: Context, tenant: Tenant, keys: list[bytes], values: Sequence[Value], deadline_s: int,
        group: bytes | None, parent: bytes | None, first_token: int = -1,
    ) -> Any:  # fmt: skip
        """The same as a command's reply, which waits for a model's codec, and where the tier below is making room."""
        codec = codec_of(tenant)
        size = sum(map(len, values))
        if codec is not None:
            if ctx.deny_blocking:
                raise CommandError("ERR blocks of a model with a codec can't be stored inside a transaction")
            if self._is_crowded(size):
                return [-1] * len(keys)
            work = self._store_encoded(tenant, codec, keys, values, deadline_s, group, parent, first_token)
            return self.defer(ctx.client, self._counted(size, work))
        said = self.store_now(tenant, keys, values, deadline_s, group, parent, first_token)
        if -1 not in said or ctx.deny_blocking or not self.below.is_making_room() or self._is_crowded(size):
            return said
        later = self._store_later(tenant, keys, values, deadline_s, group, said)
        return self.defer(ctx.client, self._counted(size, later))

    def _is_crowded(self, size: int) -> bool:
        return self.stores_bytes > 0 and self.stores_bytes + size > STORES_BYTES_MAX

    async def _counted(self, size: int, work: Coroutine[Any, Any, Any]) -> Any:
        self.stores_bytes += size
        try:
            return await work
        finally:
            self.stores_bytes -= size

    async def _room(self, tenant: Tenant, size: int) -> BlobView | None:
        """Room for a block, for which the tier below may have to make some first."""
        end_s = self.server.loop.time() + STORE_WAIT_S
        while self.below.is_open(tenant):
            view: BlobView | None = region.reserve(size, tenant.space)
            if view is not None or not await self.below.wait_for_room(end_s):
                return view
        return None

    async def _store_encoded(
        self, tenant: Tenant, codec: Codec, keys: list[bytes], values: Sequence[Value], deadline_s: int,
        group: bytes | None, parent: bytes | None, first_token: int,
    ) -> list[int]:  # fmt: skip
        said = [0 if region.count_present(tenant.space, [key]) else -1 for key in keys]
        missing = [at for at, each in enumerate(said) if each == -1]
        encoded = await self.coding.encode(tenant, codec, [values[at] for at in missing])
        if not self.below.is_open(tenant) or tenant.model.codec != codec.name:
            return said
        fits = [(at, view) for at, view in zip(missing, encoded, strict=True) if view is not None]
        if fits and fits[0][0]:
            parent = keys[fits[0][0] - 1]
        stored = [at for at, _ in fits]
        again = self.store_now(
            tenant, [keys[at] for at in stored], [view for _, view in fits], deadline_s, group, parent,
            first_token if stored == list(range(len(keys))) else -1,
        )  # fmt: skip
        for at, each in zip(stored, again, strict=True):
            said[at] = each
        return said

    async def _store_later(
        self, tenant: Tenant, keys: list[bytes], values: Sequence[Value], deadline_s: int, group: bytes | None,
        said: list[int],
    ) -> list[int]:  # fmt: skip
        end_s = self.server.loop.time() + STORE_WAIT_S
        while -1 in said and await self.below.wait_for_room(end_s) and self.below.is_open(tenant):
            late = [at for at, each in enumerate(said) if each == -1]
            parent = keys[late[0] - 1] if late[0] else None
            again = self.store_now(
                tenant, [keys[at] for at in late], [values[at] for at in late], deadline_s, group, parent
            )
            for at, each in zip(late, again, strict=True):
                said[at] = each
        return said

    def replace(
        self, ctx: Context, tenant: Tenant, key: bytes, value: Value, deadline_s: int | None, group: bytes | None
    ) -> Any:  # fmt: skip
        """SET: OK, and the block under this key is this one from now on, or none, where there is no room."""
        if deadline_s is None:
            deadline_s = deadline_of(tenant.model.ttl_s)
        work: Coroutine[Any, Any, Any]
        if not ctx.deny_blocking and self.versions.is_kept_from(tenant, key):
            work = self.versions.replace_below(ctx, tenant, key, value, deadline_s, group, "SET")
            return self.defer(ctx.client, self._counted(len(value), work))
        said = self.versions.replace(ctx, tenant, key, value, deadline_s, group, "SET")
        if said >= 0 or ctx.deny_blocking or not self.below.is_making_room() or self._is_crowded(len(value)):
            return "OK"
        work = self.replace_later(tenant, key, value, deadline_s, group)
        return self.defer(ctx.client, self._counted(len(value), work))

    def replace_now(self, tenant: Tenant, key: bytes, value: Value, deadline_s: int, group: bytes | None) -> int:
        """See region.replace; what was below goes there too."""
        known = region.describe(tenant.space, key)
        is_sooner = known is not None and 0 < deadline_s < (known["deadline_s"] or deadline_s + 1)
        if known is not None and known["place"] is not None and is_sooner:
            self._remove(tenant, [key], is_told=False)  # what is below would live longer, after a restart
        return self._replace(tenant, key, value, deadline_s, group)

    def _replace(self, tenant: Tenant, key: bytes, value: Value, deadline_s: int, group: bytes | None) -> int:
        is_known = region.describe(tenant.space, key) is not None
        said, below = region.replace(tenant.space, key, value, deadline_s, group)
        if said:  # else it is the same block
            self.below.forget(tenant, [(key, below)], is_fleet=is_known)
        self.below.write_soon()
        self.below.fleet.stored(tenant, [key], [said])
        return said

    async def replace_later(
        self, tenant: Tenant, key: bytes, value: Value, deadline_s: int, group: bytes | None
    ) -> str:  # fmt: skip
        """Where there was no room: once the tiers below have made some, if they do."""
        end_s = self.server.loop.time() + STORE_WAIT_S
        while await self.below.wait_for_room(end_s) and self.below.is_open(tenant):
            if self._replace(tenant, key, value, deadline_s, group) >= 0:
                break
        return "OK"

    # ------------------------------------------------------------ removing

    def remove(self, tenant: Tenant, keys: list[bytes]) -> int:
        """Blocks leave every tier, the one below in time; how many there were."""
        return self._remove(tenant, keys)[0]

    def delete(self, ctx: Context, tenant: Tenant, keys: list[bytes]) -> Any:
        """The same as a command's reply, which comes once they cannot come back."""
        count, buried = self._remove(tenant, keys)
        return self._once(ctx, buried, count)

    def _remove(
        self, tenant: Tenant, keys: list[bytes], is_told: bool = True
    ) -> tuple[int, asyncio.Future[None] | None]:
        gone = region.remove(tenant.space, keys)
        if is_told:
            self.records.removed(tenant, keys)
        self.contexts.removed(tenant, keys)
        if not self.below.fleet.is_active:
            return len(gone), self.below.forget(tenant, gone)
        here = dict(gone)  # a block that this node does not know goes as well, wherever it is
        return len(gone), self.below.forget(tenant, [(key, here.get(key)) for key in keys], is_fleet=True)

    def _once(self, ctx: Context, buried: asyncio.Future[None] | None, reply: int) -> Any:
        """The reply, but not before."""
        if buried is None or ctx.deny_blocking:
            return reply

        async def wait() -> int:
            await asyncio.shield(buried)
            return reply

        return self.defer(ctx.client, wait(), is_read=True)

    # ------------------------------------------------------------ fetching

    def fetch(
        self, ctx: Context, tenant: Tenant, keys: list[bytes], answer: Answer, is_block: bool = True
    ) -> Any:  # fmt: skip
        """See Fetching."""
        return self.fetching.fetch(ctx, tenant, keys, answer, is_block)

    def look_up(
        self, ctx: Context, tenant: Tenant, keys: list[bytes], wait_ms: int, answer: Callable[[Tenant], Any]
    ) -> Any:  # fmt: skip
        """See Fetching."""
        return self.fetching.look_up(ctx, tenant, keys, wait_ms, answer)

    def flow(self, tenant: Tenant) -> Flows:
        """Of a model that is gone meanwhile nothing is kept."""
        return self.flows.setdefault(tenant.model.name, Flows()) if self.below.is_open(tenant) else Flows()

    def prefetch(self, tenant: Tenant, keys: list[bytes]) -> int:
        """Begins to bring up what is below; how many blocks."""
        return self.below.prefetch(tenant, keys)

    def demote(self, tenant: Tenant, keys: list[bytes]) -> int:
        """KV.DEMOTE."""
        count, rest = self.gpu.demote(tenant, keys)
        count += self.below.demote(tenant, rest)
        self.below.write_soon()
        return count

    async def object_url(self, tenant: Tenant, key: bytes, seconds: int) -> str | None:
        """KV.URL."""
        level = self.below.tier.by_name.get("objects") if self.below.tier is not None else None
        if level is None:
            raise CommandError("ERR no object storage is configured, kv-objects-url names one")
        tier: Any = level.tier
        url: str | None = await tier.url(Name(tenant.model.name, tenant.salt, key), seconds)
        return url

    # ------------------------------------------------------------ waiting

    def defer(self, client: Client, work: Coroutine[Any, Any, Any], is_read: bool = False) -> Any:
        """The command's reply comes when the work is done; the client's next command waits for it."""
        task = self.server.loop.create_task(self._finish(client, work))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        task.add_done_callback(lambda _: work.close())  # of one that was cancelled before it began
        if is_read:
            self.reading[client] = task
        return DEFERRED

    def defer_read(self, client: Client, work: Coroutine[Any, Any, Any]) -> Any:
        """The same for commands that ask whatever answers late: what is read for nobody is not read."""
        return self.defer(client, work, is_read=True)

    async def _finish(self, client: Client, work: Coroutine[Any, Any, Any]) -> None:
        try:
            reply = await work
        except CommandError as error:
            self.server.dispatcher.count_late_error(client, error)
            reply = error
        except Exception as error:
            self.server.dispatcher.report_bug(client, client.last_command_index, error)
            reply = CommandError("ERR internal error, see the server's log")
        self.reading.pop(client, None)
        client.blocked_call = []  # the values that it has stored may leave
        if not client.closed:
            client.finish(reply)
            self.server.settle()

    # ------------------------------------------------------------ figures

    def stats(self, name: bytes | None) -> dict[str, Any]:
        """KV.STATS: of the whole region, or of one model over all its tenants."""
        if name is not None:
            self.region.model(name)
        tenants = [each for each in self.region.by_space.values() if name is None or each.model.name == name]
        sums: dict[str, Any] = {"tenants": len(tenants), **region.space_stats(None)}
        for tenant in tenants:
            for key, value in region.space_stats(tenant.space).items():
                sums[key] += value
        if name is not None:
            return sums | self.gpu.figures(name) | self.flows.get(name, Flows()).figures()
        sums |= self.gpu.figures(None)
        attached = len(self.shared.attached)
        sums |= {"models": len(self.region.models), **region.totals(), "attached_clients": attached}
        return sums | self.below.fleet.figures() if self.below.fleet.stack is not None else sums

    def is_catalogue_up(self) -> bool:
        """Whether it answers."""
        catalogue = self.records.tier()
        return catalogue is not None and catalogue.state == "ok"

    def where(self, tenant: Tenant, key: bytes) -> list[str]:
        """KV.WHERE."""
        known = region.describe(tenant.space, key)
        if known is None:
            return []
        above = ["gpu"] * (known["slot"] is not None) + ["host"] * known["in_host"]
        return above + [name for name, bit in BITS.items() if (known["place"] or 0) & bit]

    def tiers(self) -> list[dict[str, Any]]:
        """KV.TIERS."""
        totals = self.stats(None)
        arena_stats = arena.arena_stats()
        host = {
            "name": b"host", "state": b"ok" if self.arena_bytes else b"off", "blocks": totals["host_blocks"],
            "bytes": totals["host_bytes"], "used_bytes": arena_stats["used"],
            "limit_bytes": self.arena_bytes, "faulted_bytes": arena_stats["faulted"],
        }  # fmt: skip
        device = self.gpu.tier()
        tiers = [host] if device is None else [device, host]
        below = self.below.tier.tier_stats() if self.below.tier is not None else []
        catalogue = self.records.tier()
        tiers += map(figures_of, [*below, catalogue] if catalogue is not None else below)
        if (vectors := self.contexts.tier()) is not None:
            tiers.append(vectors)
        return tiers
