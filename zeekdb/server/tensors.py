"""The tensor region at work: its memory, the tier below it, and whoever waits for that tier.

Blocks go down by themselves: what the index wants to let go of, and what has earned it, waits in a queue of bounded
size, from which it is written in batches; it leaves memory once it is written. Blocks come up when they are asked for:
the command waits, everybody else does not. While the tier below fails the region forgets what it has no room for, as it
does without one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from array import array
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from zeekdb.errors import CommandError, Unavailable
from zeekdb.hot import arena, region
from zeekdb.hot.blobview import BlobView
from zeekdb.hot.checksum import checksum
from zeekdb.hot.kv_twins import set_exists_lease
from zeekdb.hot.namespaces import set_namespaces
from zeekdb.hot.replies import DEFERRED, NO_REPLY
from zeekdb.server.coding import Coding, codec_of
from zeekdb.server.device_tier import DeviceTier
from zeekdb.tensors.layout import Model
from zeekdb.tensors.models_file import load_models, save_models
from zeekdb.tensors.region import Region, Tenant
from zeekdb.tiers.ssd import SsdTier
from zeekdb.tiers.tier import Budget, Flow, Get, Held, Meta, Put, Tier

if TYPE_CHECKING:
    from zeekdb.commands.context import Context
    from zeekdb.server.client import Client
    from zeekdb.server.server import Server
    from zeekdb.tensors.codecs import Codec

log = logging.getLogger("zeekdb")

Value = bytes | BlobView | memoryview
Answer = Callable[[list[Any]], Any]

SPILL_SHARE: Final = 8  # of the arena's bytes, one in so many may wait to be written below
SPILL_BATCH_BYTES: Final = 32 << 20
SPILLERS: Final = 2  # batches written at a time
PROMOTE_BYTES: Final = 256 << 20  # read from below at a time, over all commands
STORE_WAIT_S: Final = 0.25  # how long a block waits for room that the tier below is making
RESERVED_SHARE: Final = 4  # of the arena's bytes, one in so many may be reserved by one client
RESERVED_MAX: Final = 4096  # pieces
SWEEPS_PER_TICK: Final = 8  # walks of 256 blocks for what has expired
MODELS_FILE: Final = "models.json"


@dataclass(slots=True)
class Attached:
    """A client that has the arena mapped: room that it reserved and has not committed."""

    reserved: dict[int, BlobView] = field(default_factory=dict)  # by offset
    bytes: int = 0


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


class Tensors:
    """Fills `commands.ports.TensorsPort`, and is the tiers' `Owner`."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.region = Region()
        self.arena_bytes = 0
        self.below: Tier | None = None
        self.models_path: Path | None = None
        self.attached: dict[Client, Attached] = {}
        self.promoting: dict[tuple[int, bytes], asyncio.Future[BlobView | None]] = {}
        self.promotion = Budget(PROMOTE_BYTES)
        self.coding = Coding()
        self.gpu = DeviceTier(self)
        self.flows: dict[bytes, Flows] = {}
        self.to_write = asyncio.Event()
        self.room = asyncio.Event()
        self.tasks: set[asyncio.Task[Any]] = set()
        self.spillers: list[asyncio.Task[None]] = []
        self.spilling = False
        self.sweep_at = 0
        self.stopping = False

    # ------------------------------------------------------------ coming and going

    async def start(self) -> None:
        """Maps the arena, and opens the tier below. Unavailable: a directory that cannot be used."""
        config = self.server.config
        if config.kv_memory:
            arena.arena_open(config.kv_memory)
            self.arena_bytes = arena.arena_stats()["size"]
            if config.kv_prefault:
                arena.arena_fault_in()
        if config.kv_ssd_path:
            await self._open_below()
        await self.gpu.start()
        config.on_change("kv-namespace", self._name_spaces)
        self._name_spaces()
        config.on_change("kv-exists-lease", self._promise)
        self._promise()

    async def _open_below(self) -> None:
        config = self.server.config
        path = Path(config.kv_ssd_path)
        path.mkdir(parents=True, exist_ok=True)
        self.models_path = path / MODELS_FILE
        for model in load_models(self.models_path):
            self.region.declare(model)
        tier = SsdTier(path, config.kv_ssd_size, self, checksum)
        await tier.open()
        async for found in tier.scan():
            for meta, place in found:
                self._adopt(meta, place)
        self.below = tier
        self.spillers = [self._spawn(self._spill()) for _ in range(SPILLERS)]
        self.tick()

    def _promise(self) -> None:
        set_exists_lease(self.server.config.kv_exists_lease)

    def _name_spaces(self) -> None:
        """Gives each pattern of `kv-namespace` its space; a model that was not declared takes blocks of any size."""
        patterns = []
        for pattern, name in self.server.config.kv_namespace:
            if name not in self.region.models:
                self.declare(Model(name))
            patterns.append((pattern, self.region.tenant(name, b"").space))
        set_namespaces(patterns)

    async def stop(self) -> None:
        """Writes what waits for the tier below, and lets go of everything."""
        self.stopping = True
        set_namespaces([])
        for task in self.spillers:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        if self.below is not None:
            await self._write(1 << 62)
            await self.below.close()
            self.below = None
        await self.gpu.stop()
        self.attached.clear()
        self.models_path = None  # the next start needs what was declared
        for name in list(self.region.models):
            self.forget(name)
        arena.arena_close()
        self.arena_bytes = 0

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def _adopt(self, meta: Meta, place: int) -> None:
        """A block that was there before the server was."""
        if meta.model not in self.region.models:
            self.region.declare(Model(meta.model))
        tenant = self.region.tenant(meta.model, meta.salt)
        region.adopt(tenant.space, meta.key, meta.size, meta.checksum, place, meta.deadline, meta.group or None)
        self.region.adopt_range(tenant, meta.key)

    def tick(self) -> None:
        """Ten times a second: makes room ahead of need, removes what has expired, goes on with writing."""
        config = self.server.config
        if not self.arena_bytes:
            return
        self.gpu.tick()
        tier = self.below
        healthy = tier is not None and tier.stats().state == "ok"
        if healthy != self.spilling:
            self.spilling = healthy
            region.configure_spilling(self.arena_bytes // SPILL_SHARE if healthy else 0, config.kv_ssd_uses)
        region.relieve(self.arena_bytes * (100 - config.kv_watermark) // 100)
        self._sweep()
        if region.totals()["waiting_blocks"]:
            self.to_write.set()

    def _sweep(self) -> None:
        tenants = list(self.region.by_space.values())
        for _ in range(min(SWEEPS_PER_TICK, len(tenants))):
            self.sweep_at = (self.sweep_at + 1) % len(tenants)
            tenant = tenants[self.sweep_at]
            tenant.cursor, gone = region.sweep(tenant.space, tenant.cursor)
            self._forget_below(tenant, gone)

    # ------------------------------------------------------------ models

    def declare(self, model: Model) -> None:
        """KV.MODEL SET."""
        self.region.declare(model)
        self.gpu.declare(model)
        self._save_models()

    def forget(self, name: bytes) -> int:
        """KV.MODEL DEL; how many blocks there were."""
        if any(name == each for _, each in self.server.config.kv_namespace) and not self.stopping:
            raise CommandError(f"ERR kv-namespace gives keys to model '{name.decode('utf-8', 'surrogateescape')}'")
        blocks = 0
        self.flows.pop(name, None)
        for tenant in self.region.forget(name):
            count, below = region.close_space(tenant.space)
            self._forget_below(tenant, below)
            blocks += count
        self.gpu.forget(name)
        self._save_models()
        return blocks

    def _save_models(self) -> None:
        if self.models_path is not None:
            try:
                save_models(self.models_path, self.region.models.values())
            except OSError as error:
                log.warning("Can't write %s: %s", self.models_path, error.strerror)

    # ------------------------------------------------------------ storing

    def store_now(
        self, tenant: Tenant, keys: list[bytes], values: Sequence[Value], deadline_s: int = 0,
        group: bytes | None = None, parent: bytes | None = None,
    ) -> list[int]:  # fmt: skip
        """Stores blocks as far as there is room, see `region.put`."""
        begin_ns = time.perf_counter_ns()
        said: list[int] = region.put(tenant.space, keys, list(values), deadline_s, group, parent)
        self._flow(tenant).writes.record(sum(map(len, values)), time.perf_counter_ns() - begin_ns)
        if self.spilling:
            self.to_write.set()
        return said

    def store(
        self, ctx: Context, tenant: Tenant, keys: list[bytes], values: Sequence[Value], deadline_s: int,
        group: bytes | None, parent: bytes | None,
    ) -> Any:  # fmt: skip
        """The same as a command's reply: of a model with a codec, and where the tier below is making room, it waits."""
        codec = codec_of(tenant)
        if codec is not None:
            return self._encoded(ctx, tenant, codec, keys, values, deadline_s, group, parent)
        said = self.store_now(tenant, keys, values, deadline_s, group, parent)
        if -1 not in said or not self.spilling or ctx.deny_blocking or not region.totals()["spilling_bytes"]:
            return said
        return self._defer(ctx.client, self._store_later(tenant, keys, values, deadline_s, group, said))

    def _encoded(
        self, ctx: Context, tenant: Tenant, codec: Codec, keys: list[bytes], values: Sequence[Value], deadline_s: int,
        group: bytes | None, parent: bytes | None,
    ) -> Any:  # fmt: skip
        if ctx.deny_blocking:
            raise CommandError("ERR blocks of a model with a codec can't be stored inside a transaction")
        return self._defer(
            ctx.client, self._store_encoded(tenant, codec, keys, values, deadline_s, group, parent)
        )

    async def _store_encoded(
        self, tenant: Tenant, codec: Codec, keys: list[bytes], values: Sequence[Value], deadline_s: int,
        group: bytes | None, parent: bytes | None,
    ) -> list[int]:  # fmt: skip
        said = [0 if region.count_present(tenant.space, [key]) else -1 for key in keys]
        missing = [at for at, each in enumerate(said) if each == -1]
        encoded = await self.coding.encode(tenant, codec, [values[at] for at in missing])
        if tenant.space not in self.region.by_space:
            return said
        fits = [(at, view) for at, view in zip(missing, encoded, strict=True) if view is not None]
        if fits and fits[0][0]:
            parent = keys[fits[0][0] - 1]
        stored = [at for at, _ in fits]
        again = self.store_now(
            tenant, [keys[at] for at in stored], [view for _, view in fits], deadline_s, group, parent
        )
        for at, each in zip(stored, again, strict=True):
            said[at] = each
        return said

    async def _store_later(
        self, tenant: Tenant, keys: list[bytes], values: Sequence[Value], deadline_s: int, group: bytes | None,
        said: list[int],
    ) -> list[int]:  # fmt: skip
        loop = asyncio.get_running_loop()
        end_s = loop.time() + STORE_WAIT_S
        while -1 in said and (left_s := end_s - loop.time()) > 0 and tenant.space in self.region.by_space:
            self.room.clear()
            self.to_write.set()
            try:
                async with asyncio.timeout(left_s):
                    await self.room.wait()
            except TimeoutError:
                break
            late = [at for at, each in enumerate(said) if each == -1]
            again = self.store_now(
                tenant, [keys[at] for at in late], [values[at] for at in late], deadline_s, group,
                keys[late[0] - 1] if late[0] else None,
            )  # fmt: skip
            for at, each in zip(late, again, strict=True):
                said[at] = each
        return said

    def replace(
        self, tenant: Tenant, key: bytes, value: Value, deadline_s: int | None, group: bytes | None
    ) -> None:  # fmt: skip
        """SET: the block under this key is this one from now on, or none, where there is no room."""
        if deadline_s is None:
            deadline_s = int(time.time()) + tenant.model.ttl_s if tenant.model.ttl_s else 0
        _, below = region.replace(tenant.space, key, value, deadline_s, group)
        self._forget_below(tenant, [(key, below)])
        if self.spilling:
            self.to_write.set()

    def remove(self, tenant: Tenant, keys: list[bytes]) -> int:
        """Blocks leave every tier; how many there were."""
        gone = region.remove(tenant.space, keys)
        self._forget_below(tenant, gone)
        return len(gone)

    def _forget_below(self, tenant: Tenant, gone: list[tuple[bytes, int | None]]) -> None:
        """Blocks that have left the index leave the tier below."""
        if self.below is None:
            return
        held = [Held(self._meta(tenant, key), place) for key, place in gone if place is not None]
        if held:
            self._spawn(self.below.delete(held))

    @staticmethod
    def _meta(tenant: Tenant, key: bytes, size: int = 0, check: int = 0) -> Meta:
        return Meta(tenant.model.name, tenant.salt, key, size, check)

    # ------------------------------------------------------------ between memory and the tier below

    async def _spill(self) -> None:
        while True:
            await self.to_write.wait()
            if not await self._write(SPILL_BATCH_BYTES):
                self.to_write.clear()

    async def _write(self, bytes_max: int) -> int:
        """Writes what waits; how many blocks."""
        batch = region.take_spilling(bytes_max)
        if not batch or self.below is None:
            return 0
        items = []
        for each in batch:
            tenant = self.region.by_space[each.space]
            meta = Meta(
                tenant.model.name, tenant.salt, each.key, len(each.view), each.checksum, each.deadline_s,
                each.group or b"", tenant.model.codec,
            )  # fmt: skip
            items.append(Put(meta, memoryview(each.view)))
        try:
            places = await self.below.put(items)
        except BaseException:
            for each in batch:
                region.spilled(each, None)
            raise
        for each, item, place in zip(batch, items, places, strict=True):
            if not region.spilled(each, place) and place is not None:
                self._spawn(self.below.delete([Held(item.meta, place)]))
        self.room.set()
        return len(batch)

    def fetch(
        self, ctx: Context, tenant: Tenant, keys: list[bytes], answer: Answer, is_block: bool = True
    ) -> Any:  # fmt: skip
        """A command's reply, `answer(blocks)`, None standing for one that is not there; it may wait for the tier below.

        `is_block`: what is named are blocks of the model's layout, which its codec has encoded.
        """
        begin_ns = time.perf_counter_ns()
        found: list[Any] = region.get(tenant.space, keys)
        below = [at for at, each in enumerate(found) if type(each) is int]
        codec = codec_of(tenant) if is_block else None
        for at in below:
            if ctx.deny_blocking or (self.below is None and found[at] >= 0):
                found[at] = None
        below = [at for at in below if found[at] is not None]
        if not below and codec is None:
            self._note_read(tenant, found, begin_ns)
            return answer(found)
        if ctx.deny_blocking:
            raise CommandError("ERR blocks of a model with a codec can't be read inside a transaction")
        return self._defer(ctx.client, self._fetch_later(tenant, keys, found, below, codec, answer, begin_ns))

    async def _fetch_later(
        self, tenant: Tenant, keys: list[bytes], found: list[Any], below: list[int], codec: Codec | None, answer: Answer,
        begin_ns: int,
    ) -> Any:  # fmt: skip
        if below:
            views = await self.promote(tenant, [keys[at] for at in below])
            for at, view in zip(below, views, strict=True):
                found[at] = view
        if codec is not None:
            found = await self.coding.decode(codec, found)
        self._note_read(tenant, found, begin_ns)
        return answer(found)

    def _flow(self, tenant: Tenant) -> Flows:
        return self.flows.setdefault(tenant.model.name, Flows())

    def _note_read(self, tenant: Tenant, found: list[BlobView | None], begin_ns: int) -> None:
        size = sum(len(each) for each in found if each is not None)
        self._flow(tenant).reads.record(size, time.perf_counter_ns() - begin_ns)

    def prefetch(self, tenant: Tenant, keys: list[bytes]) -> int:
        """Begins to bring up what is below; how many blocks."""
        found = region.get(tenant.space, keys, False)
        wanted = [key for key, each in zip(keys, found, strict=True) if type(each) is int and each >= 0]
        if wanted and self.below is not None:
            self._spawn(self.promote(tenant, wanted))
        return len(wanted)

    def demote(self, tenant: Tenant, keys: list[bytes]) -> int:
        """KV.DEMOTE."""
        count, rest = self.gpu.demote(tenant, keys)
        count += region.demote(tenant.space, rest)
        self.to_write.set()
        return count

    async def promote(self, tenant: Tenant, keys: list[bytes]) -> list[BlobView | None]:
        """Blocks from below or from the GPU, in memory from then on where there is room.

        None for one that is not there, or not whole.
        """
        loop = asyncio.get_running_loop()
        mine: list[bytes] = []
        futures: list[asyncio.Future[BlobView | None]] = []
        for key in keys:
            place = (tenant.space, key)
            if place not in self.promoting:
                self.promoting[place] = loop.create_future()
                mine.append(key)
            futures.append(self.promoting[place])
        try:
            if mine:
                await self._read(tenant, mine)
        finally:
            for key in mine:
                future = self.promoting.pop((tenant.space, key))
                if not future.done():
                    future.set_result(None)
        return list(await asyncio.gather(*futures))

    async def _read(self, tenant: Tenant, keys: list[bytes]) -> None:
        """Fills the futures of these blocks, as many at a time as the budget allows."""
        keys = await self.gpu.bring(tenant, keys, self.promoting)
        at = 0
        while self.below is not None and at < len(keys):
            batch: list[tuple[bytes, BlobView, Get]] = []
            size = 0
            while at < len(keys) and size < SPILL_BATCH_BYTES:
                key = keys[at]
                at += 1
                known = region.describe(tenant.space, key)
                if known is None or known["place"] is None:
                    continue
                view = region.reserve(known["size"], tenant.space)
                if view is None:
                    continue  # everything is leased: a miss
                size += known["size"]
                meta = self._meta(tenant, key, known["size"], known["checksum"])
                batch.append((key, view, Get(meta, known["place"], memoryview(view))))
            if not batch:
                continue
            await self.promotion.take(size)
            try:
                whole = await self.below.get([get for _, _, get in batch])
            finally:
                self.promotion.give(size)
            if tenant.space not in self.region.by_space:
                return
            for (key, view, get), is_whole in zip(batch, whole, strict=True):
                get.into.release()
                if not is_whole:
                    region.place_lost(tenant.space, key, get.place)
                    continue
                region.promote(tenant.space, key, view)
                self.promoting[(tenant.space, key)].set_result(view)

    # ------------------------------------------------------------ the tiers' owner

    def is_live(self, meta: Meta, place: int) -> bool:
        return self._at_place(meta, place)[0]

    def is_worth(self, meta: Meta, place: int) -> bool:
        return self._at_place(meta, place)[1]

    def _at_place(self, meta: Meta, place: int) -> tuple[bool, bool]:
        tenant = self.region.tenants.get((meta.model, meta.salt))
        return region.has_place(tenant.space, meta.key, place) if tenant is not None else (False, False)

    def moved(self, meta: Meta, old_place: int, new_place: int) -> bool:
        tenant = self.region.tenants.get((meta.model, meta.salt))
        return tenant is not None and region.place_moved(tenant.space, meta.key, old_place, new_place)

    def dropped(self, meta: Meta, place: int) -> None:
        tenant = self.region.tenants.get((meta.model, meta.salt))
        if tenant is not None:
            region.place_lost(tenant.space, meta.key, place)

    # ------------------------------------------------------------ waiting

    def _defer(self, client: Client, work: Coroutine[Any, Any, Any]) -> Any:
        """The command's reply comes when the work is done; the client's next command waits for it."""
        self._spawn(self._finish(client, work))
        return DEFERRED

    async def _finish(self, client: Client, work: Coroutine[Any, Any, Any]) -> None:
        try:
            reply = await work
        except CommandError as error:
            reply = error
        except Exception as error:
            self.server.dispatcher.report_bug(client, client.last_command_index, error)
            reply = CommandError("ERR internal error, see the server's log")
        if not client.closed:
            client.finish(reply)
            self.server.settle()

    # ------------------------------------------------------------ shared memory

    def is_attached(self, client: Client) -> bool:
        """Whether the client has the arena mapped."""
        return client in self.attached

    def attach(self, client: Client) -> Any:
        """Sends the arena's descriptor with the reply's first byte."""
        if not client.is_unix:
            raise CommandError("ERR KV.ATTACH needs a connection over the Unix socket")
        if not self.arena_bytes:
            raise CommandError("ERR there is no host arena, see kv-memory")
        if client.output_bytes:
            raise CommandError("ERR KV.ATTACH can't be pipelined")
        text = b"*2\r\n:%d\r\n:%d\r\n" % (self.arena_bytes, self.server.config.kv_lease_max)
        with socket.socket(fileno=os.dup(client.fd)) as sock:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [arena.arena_fd()]))
            try:
                sock.sendmsg([text], [rights])
            except OSError as error:
                raise CommandError(f"ERR can't hand the arena over: {error.strerror}") from None
        self.attached.setdefault(client, Attached())
        return NO_REPLY

    def reserve(self, client: Client, sizes: list[int]) -> list[int]:
        """Room for blocks that the client writes itself: offsets, -1 where there is none."""
        mine = self._attached(client)
        offsets = []
        for size in sizes:
            allowed = mine.bytes + size <= self.arena_bytes // RESERVED_SHARE and len(mine.reserved) < RESERVED_MAX
            view = region.reserve(size) if allowed else None
            if view is None:
                offsets.append(-1)
                continue
            offset = region.fix(view)
            mine.reserved[offset] = view
            mine.bytes += size
            offsets.append(offset)
        return offsets

    def _attached(self, client: Client) -> Attached:
        try:
            return self.attached[client]
        except KeyError:
            raise CommandError("ERR the connection has not called KV.ATTACH") from None

    def reserved(self, client: Client, offsets: list[int]) -> list[BlobView]:
        """What was reserved there. CommandError."""
        mine = self._attached(client)
        if len(set(offsets)) < len(offsets) or any(offset not in mine.reserved for offset in offsets):
            raise CommandError("ERR nothing was reserved at this offset")
        return [mine.reserved[offset] for offset in offsets]

    def release(self, client: Client, offsets: list[int]) -> None:
        """The client writes there no more."""
        mine = self._attached(client)
        for offset in offsets:
            mine.bytes -= len(mine.reserved.pop(offset))

    def forget_client(self, client: Client) -> None:
        """The connection has ended: what it had reserved is free again."""
        self.attached.pop(client, None)
        self.gpu.forget_client(client)

    # ------------------------------------------------------------ figures

    def stats(self, name: bytes | None) -> dict[str, Any]:
        """KV.STATS: of the whole region, or of one model over all its tenants."""
        if name is not None:
            self.region.model(name)
        tenants = [each for each in self.region.by_space.values() if name is None or each.model.name == name]
        sums: dict[str, Any] = {"tenants": len(tenants)}
        for tenant in tenants:
            for key, value in region.space_stats(tenant.space).items():
                sums[key] = sums.get(key, 0) + value
        if name is not None:
            return sums | self.gpu.figures(name) | self.flows.get(name, Flows()).figures()
        sums |= self.gpu.figures(None)
        return sums | {"models": len(self.region.models), **region.totals(), "attached_clients": len(self.attached)}

    def tiers(self) -> list[dict[str, Any]]:
        """KV.TIERS."""
        totals = self.stats(None)
        arena_stats = arena.arena_stats()
        host = {
            "name": b"host", "state": b"ok" if self.arena_bytes else b"off", "blocks": totals.get("host_blocks", 0),
            "bytes": totals.get("host_bytes", 0), "used_bytes": arena_stats["used"],
            "limit_bytes": self.arena_bytes, "faulted_bytes": arena_stats["faulted"],
        }  # fmt: skip
        device = self.gpu.tier()
        tiers = [host] if device is None else [device, host]
        if self.below is not None:
            stats = self.below.stats()
            tiers.append({
                "name": stats.name.encode(), "state": stats.state.encode(), "error": stats.error.encode(),
                "blocks": totals.get("ssd_blocks", 0), "bytes": totals.get("ssd_bytes", 0),
                "used_bytes": stats.used_bytes, "limit_bytes": stats.limit_bytes, "misses": stats.misses,
                "corrupt": stats.corrupt, "dropped": stats.dropped, "moved": stats.moved, "queue_bytes": stats.queue_bytes,
                **{f"write_{key}": value for key, value in stats.write.figures().items()},
                **{f"read_{key}": value for key, value in stats.read.figures().items()},
            })  # fmt: skip
        return tiers

