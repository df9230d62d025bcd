"""The tier above host memory: hot blocks lie in slots of a GPU's memory too, where others read them in place.

Each model named in `kv-gpu` has slots of its own, of exactly a block's size as it is kept (encoded, where it has a
codec). A block that is used for the third time, its storing counted, becomes wanted on the device and is copied there,
beside what the host has, while nobody waits. Host memory may then let go of its copy: the block stays, the device has
it, and it comes back down when a command asks for its bytes. So the two are a hierarchy, and neither must hold what the
other holds.

What leaves a slot is the block used least recently on which nobody relies. If nothing else has it, it is copied down
first; where host memory has no room for it, or too many copies wait, everything stays as it is: a promotion is a
favour, never a duty. What is doubtful is a miss here as well: bytes that come down are held against the block's
checksum.

Encoding and decoding stay the host's: the GPU belongs to the model that runs there. Whoever attaches reads what is in
the slot and decodes on its own stream (`tensors.codecs_gpu`).

Everything here runs on the loop but three things that take long, and run in threads: opening memory, page-locking the
host arena (once, for all models), and checksums. Copies are the arena's threads'."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from zeekdb.errors import CommandError, Unavailable
from zeekdb.hot import region, region_device
from zeekdb.hot.blobview import BlobView, new_blob
from zeekdb.hot.checksum import checksum
from zeekdb.tensors.layout import Layout, Model
from zeekdb.tensors.region import Tenant
from zeekdb.tiers.tier import Budget, Flow

if TYPE_CHECKING:
    from zeekdb.server.client import Client
    from zeekdb.server.tensors import Tensors
    from zeekdb.tensors.device import DeviceArena

log = logging.getLogger("zeekdb")

UPLOADS_MAX: Final = 8  # promotions under way, of one model
DOWNLOADS_MAX: Final = 32  # the same downwards: fewer than an arena lets wait, so what is asked for finds room
DOWN_BYTES: Final = 256 << 20  # copied down at a time, over all models
PREFETCH_MAX: Final = 4096  # blocks of one model that KV.PREFETCH … GPU may have waiting
VICTIMS_MAX: Final = 16  # blocks that leave, or were to leave, for one promotion
RETRY_S: Final = 5.0  # nothing is promoted for so long after the device has failed
ABSENT: Final = b"\xff" * 8 + b"\0" * 24  # of LOCATE, for a block that is not on the device


@dataclass(eq=False)
class DeviceModel:
    """One model's slots."""

    name: bytes
    layout: Layout
    codec: str
    memory_bytes: int  # of the device
    arena: DeviceArena | None = None  # None: not open, see `error`
    index: int = -1  # among region_device's
    error: str = ""
    closed: bool = False
    retry_at_s: float = 0.0
    uploading: int = 0
    prefetching: int = 0
    demoting: set[tuple[int, bytes]] = field(default_factory=set)  # spaces and keys, on their way down by KV.DEMOTE
    refused: int = 0  # promotions that found no slot
    corrupt: int = 0
    up: Flow = field(default_factory=Flow)
    down: Flow = field(default_factory=Flow)
    upload_turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(UPLOADS_MAX))
    download_turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(DOWNLOADS_MAX))
    making_room: asyncio.Lock = field(default_factory=asyncio.Lock)

    def is_kept_as(self, model: Model) -> bool:
        """Whether the slots fit the model's blocks."""
        return (self.layout, self.codec) == (model.layout, model.codec)

    def figures(self) -> dict[str, Any]:
        """In KV.STATS's names."""
        stats = region_device.device_stats(self.index) if self.arena is not None else {}
        return {
            "gpu_blocks": stats.get("blocks", 0), "gpu_bytes": stats.get("bytes", 0),
            "gpu_slots": stats.get("slots", 0), "gpu_hits": stats.get("hits", 0),
            "gpu_promoted": self.up.count, "gpu_demoted": self.down.count,
        }  # fmt: skip


class Device:
    """How memory on a device, or what stands in for it, is had. Slow: called in threads."""

    kind = b"cuda"
    number = 0

    def open(self, slots: int, slot_bytes: int) -> DeviceArena:
        """Unavailable."""
        from zeekdb.tensors.device_cupy import CupyArena

        return CupyArena(slots, slot_bytes, device=self.number)

    def find(self) -> None:
        """Unavailable, and why, where there is none."""
        try:
            from zeekdb.tensors.device_cupy import device_count
        except ImportError as error:
            raise Unavailable(f"CuPy is not installed ({error}): pip install 'zeekdb[gpu]'") from None
        if not device_count():
            raise Unavailable("no GPU")

    def lock(self, memory: memoryview) -> Callable[[], None]:
        """Page-locks the host arena; what undoes it. Unavailable."""
        import numpy as np

        from zeekdb.tensors.device import address_of
        from zeekdb.tensors.device_cupy import page_lock, page_unlock

        host = np.frombuffer(memory, np.uint8)
        page_lock(host, self.number)
        address = address_of(host)
        return lambda: page_unlock(address, self.number)


class TwinDevice(Device):
    """Host memory."""

    kind = b"twin"

    def open(self, slots: int, slot_bytes: int) -> DeviceArena:
        from zeekdb.tensors.device import HostTwin

        return HostTwin(slots, slot_bytes)

    def find(self) -> None:
        """Always there."""

    def lock(self, memory: memoryview) -> Callable[[], None]:
        return lambda: None


class DeviceTier:
    """All models' slots. `Tensors` owns it, and starts its tasks."""

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = tensors
        self.device = Device()
        self.sizes: dict[bytes, int] = {}
        self.models: dict[bytes, DeviceModel] = {}
        self.state = "off"
        self.error = ""
        self.up = Flow()
        self.down = Flow()
        self.budget = Budget(DOWN_BYTES)
        self.attached: dict[Client, dict[bytes, DeviceModel]] = {}
        self.lowering: dict[tuple[int, bytes, int], asyncio.Task[BlobView | None]] = {}  # by space, key, checksum
        self.tasks: set[asyncio.Task[Any]] = set()
        self.closing: dict[bytes, asyncio.Task[None]] = {}  # the last memory that a model had
        self.unlock: Callable[[], None] | None = None
        self.is_locked = False

    # ------------------------------------------------------------ coming and going

    async def start(self) -> None:
        """Looks for the device. Without one the server goes on: blocks live in the other tiers."""
        config = self.tensors.server.config
        self.sizes = dict(config.kv_gpu)
        if not self.sizes:
            return
        if config.kv_gpu_twin:
            self.device = TwinDevice()
        if not self.tensors.arena_bytes:
            self._turn_off("there is no host arena, see kv-memory")
            return
        try:
            await asyncio.get_running_loop().run_in_executor(None, self.device.find)
        except Exception as error:  # a driver fails in many ways, and none is a reason not to serve
            self._turn_off(str(error) or type(error).__name__)
            return
        self.state = "opening"
        self._spawn(self._lock_host())

    def _turn_off(self, why: str) -> None:
        self.error = why
        log.warning("kv-gpu: blocks stay in host memory: %s", why)

    async def _lock_host(self) -> None:
        """Page-locks the host arena once; where that fails copies go through staging memory."""
        memory = region_device.arena_memory()
        assert memory is not None
        try:
            self.unlock = await asyncio.get_running_loop().run_in_executor(None, self.device.lock, memory)
            self.is_locked = True
        except Exception as error:
            log.warning("kv-gpu: the host arena can't be page-locked, copies will be slower: %s", error)
        if not self.tensors.stopping:
            self.state = "ok"
            for model in self.tensors.region.models.values():
                self.declare(model)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def stop(self) -> None:
        """Waits for the copies under way, and gives the memory back. `Tensors` is stopping: no others begin."""
        while self.tasks:
            await asyncio.wait(self.tasks)
        for name in list(self.models):
            self.forget(name)
        while self.tasks:
            await asyncio.wait(self.tasks)
        self.attached.clear()
        if self.unlock is not None:
            await asyncio.get_running_loop().run_in_executor(None, self.unlock)
            self.unlock = None
        self.state = "off"

    # ------------------------------------------------------------ models

    def declare(self, model: Model) -> None:
        """A model was declared: its slots are opened, or others where its blocks look different now."""
        if self.state != "ok" or model.name not in self.sizes:
            return
        old = self.models.get(model.name)
        if old is not None and old.is_kept_as(model):
            return
        if old is not None:
            self.forget(model.name)
        if model.layout is None:
            log.warning("kv-gpu: model '%s' has no layout, its blocks stay in host memory", _shown(model.name))
            return
        made = DeviceModel(model.name, model.layout, model.codec, self.sizes[model.name])
        self.models[model.name] = made
        self._spawn(self._open(made, model))

    async def _open(self, model: DeviceModel, declared: Model) -> None:
        from zeekdb.tensors.codecs import for_model
        from zeekdb.tensors.device import SLOT_ALIGN

        size = for_model(declared.codec, model.layout).encoded_size
        slots = model.memory_bytes // (-(-size // SLOT_ALIGN) * SLOT_ALIGN)
        loop = asyncio.get_running_loop()
        if before := self.closing.pop(model.name, None):
            await asyncio.wait([before])  # there may not be room for both
        if model.closed:
            return
        try:
            if not slots:
                raise Unavailable(f"{model.memory_bytes} bytes hold no block of {size}")
            arena = await loop.run_in_executor(None, self.device.open, slots, size)
        except Exception as error:
            model.error = str(error) or type(error).__name__
            log.warning("kv-gpu: blocks of model '%s' stay in host memory: %s", _shown(model.name), model.error)
            return
        memory = region_device.arena_memory()
        if model.closed or self.tensors.stopping or memory is None:
            await arena.close()
            return
        if self.is_locked:
            arena.register(memory, is_locked=True)
        model.index = region_device.open_device(slots, size)
        model.arena = arena
        self.tensors.region.devices[model.name] = model.index
        for tenant in self.tensors.region.tenants_of(model.name):
            region_device.assign(tenant.space, model.index)

    def forget(self, name: bytes) -> None:
        """A model is no more, or another."""
        model = self.models.pop(name, None)
        if model is None:
            return
        model.closed = True  # at once: its spaces are closed already, and their numbers may be others' soon
        arena, model.arena = model.arena, None
        if arena is not None:
            self.tensors.region.devices.pop(name, None)
            region_device.close_device(model.index)
            self.closing[name] = self._spawn(arena.close())

    def _of(self, tenant: Tenant) -> DeviceModel | None:
        model = self.models.get(tenant.model.name)
        return model if model is not None and model.arena is not None else None

    # ------------------------------------------------------------ up

    def tick(self) -> None:
        """Ten times a second: what became hot goes up."""
        for model in self.models.values():
            self._pump(model)

    def _pump(self, model: DeviceModel) -> None:
        """Begins promotions of what is wanted, as many as may be under way."""
        if model.arena is None or self.tensors.stopping:
            return
        self._collect(model)
        if time.monotonic() < model.retry_at_s:
            return
        while model.uploading < UPLOADS_MAX:
            wanted = region_device.take_wanted(model.index)
            if wanted is None:
                return
            model.uploading += 1
            self._spawn(self._pumped(model, *wanted))

    async def _pumped(self, model: DeviceModel, space: int, key: bytes, view: BlobView, check: int) -> None:
        try:
            await self._raise(model, space, key, view, check)
        finally:
            model.uploading -= 1
        self._pump(model)

    async def _raise(self, model: DeviceModel, space: int, key: bytes, view: BlobView, check: int) -> bool:
        """Copies a block to the device; False: it stays where it is."""
        async with model.upload_turns:
            slot = await self._slot(model)
            arena = model.arena
            if slot is None or arena is None:
                model.refused += 1
                return False
            begin_ns = time.perf_counter_ns()
            try:
                await arena.upload(slot, memoryview(view))
            except Unavailable as error:
                arena.give(slot)
                self._failed(model, model.up, self.up, error)
                return False
            wait_ns = time.perf_counter_ns() - begin_ns
            if model.closed or not region_device.placed(model.index, slot, space, key, check):
                arena.give(slot)
                return False
            self._moved(model, model.up, self.up, len(view), wait_ns)
            return True

    @staticmethod
    def _collect(model: DeviceModel) -> None:
        """Slots whose blocks are gone are free again."""
        assert model.arena is not None
        for slot in region_device.take_left(model.index):
            model.arena.give(slot)

    async def _slot(self, model: DeviceModel) -> int | None:
        """A free slot, for which others leave; None: they have to stay."""
        for _ in range(VICTIMS_MAX):
            if model.arena is None:
                return None
            self._collect(model)
            if (slot := model.arena.take()) is not None:
                return slot
            async with model.making_room:
                if not await self._make_room(model):
                    return None
        return None

    async def _make_room(self, model: DeviceModel) -> bool:
        """A block leaves, unless there is room again; False: none can."""
        if model.arena is None or model.arena.free:
            return model.arena is not None
        found = region_device.victim(model.index)
        if found is None:
            return False
        space, key, is_alone = found
        if is_alone and await self._lower(model, space, key, is_asked=False) is None:
            return False
        region_device.leave(space, key)
        return True

    @staticmethod
    def _moved(model: DeviceModel, own: Flow, whole: Flow, size: int, wait_ns: int) -> None:
        for flow in (own, whole):
            flow.record(size, wait_ns)
        model.error = ""

    @staticmethod
    def _failed(model: DeviceModel, own: Flow, whole: Flow, error: Unavailable) -> None:
        """ArenaBusy is no failure."""
        from zeekdb.tensors.device import ArenaBusy

        if isinstance(error, ArenaBusy) or model.closed:
            return
        own.errors += 1
        whole.errors += 1
        is_news = not model.error
        model.error = str(error)  # nothing keeps the exception: its frames hold the block
        if is_news:
            log.warning("kv-gpu: a copy of model '%s' failed: %s", _shown(model.name), model.error)
        model.retry_at_s = time.monotonic() + RETRY_S

    def prefetch(self, tenant: Tenant, keys: list[bytes]) -> int:
        """KV.PREFETCH … GPU: begins to bring up blocks, from wherever they are; how many."""
        model = self._of(tenant)
        if model is None or self.tensors.stopping:
            return 0
        size = region_device.device_stats(model.index)["bytes_each"]
        wanted: list[bytes] = []
        for key in dict.fromkeys(keys):
            if model.prefetching + len(wanted) >= PREFETCH_MAX:
                break
            known = region.describe(tenant.space, key)
            if known is not None and known["slot"] is None and known["size"] == size:
                wanted.append(key)
        if wanted:
            model.prefetching += len(wanted)
            self._spawn(self._prefetch(model, tenant, wanted))
        return len(wanted)

    async def _prefetch(self, model: DeviceModel, tenant: Tenant, keys: list[bytes]) -> None:
        left = len(keys)
        try:
            for batch in _batches(keys, UPLOADS_MAX):
                if model.closed or self.tensors.stopping:
                    return
                away = [key for key in batch if region_device.candidate(tenant.space, key) is None]
                if away:
                    async with self.tensors.below.bringing(tenant, away) as coming:
                        for each in coming:
                            if each is not None:
                                await each.view()
                found = [(key, region_device.candidate(tenant.space, key)) for key in batch]
                await asyncio.gather(*(self._raise(model, tenant.space, key, *it) for key, it in found if it))
                left -= len(batch)
                model.prefetching -= len(batch)
        finally:
            model.prefetching -= left

    # ------------------------------------------------------------ down

    async def bring(self, tenant: Tenant, keys: Sequence[bytes]) -> list[BlobView | None]:
        """The bytes of the blocks that the device has, copied down; None for all others."""
        model = self._of(tenant)
        if model is None:
            return [None] * len(keys)
        views: list[BlobView | None] = []
        for batch in _batches(keys, DOWNLOADS_MAX):
            copies = [self._copy_of(model, tenant.space, key) for key in batch]
            views += [await asyncio.shield(copy) if copy is not None else None for copy in copies]
        return views

    def _copy_of(self, model: DeviceModel, space: int, key: bytes) -> asyncio.Task[BlobView | None] | None:
        """A block on its way down, one copy however many ask. Who asked may be cancelled: it goes on for the others."""
        known = region_device.held(space, key)
        if known is None or self.tensors.stopping:
            return None
        name = (space, key, known[2])
        if name not in self.lowering:
            self.lowering[name] = self._spawn(self._lower(model, space, key, is_asked=True))
            self.lowering[name].add_done_callback(lambda _: self.lowering.pop(name))
        return self.lowering[name]

    async def _lower(self, model: DeviceModel, space: int, key: bytes, is_asked: bool) -> BlobView | None:
        """A block's bytes, copied down into host memory, which has them from then on if there is room.

        None: it is not there any more, or not whole, or nobody asked for it and there is no room.
        """
        known = region_device.held(space, key)
        if known is None:
            return None
        slot, size, check = known
        async with model.download_turns:
            await self.budget.take(size)
            try:
                if region_device.held(space, key) != known:
                    return None
                view: BlobView | None = region.reserve(size, space)
                is_placed = view is not None
                if view is None and is_asked:
                    view = new_blob(size)  # everything is leased: the bytes are the reply's alone
                arena = model.arena
                if view is None or arena is None or region_device.held(space, key) != known:
                    return None  # making room may have taken it
                if not await self._download(model, arena, slot, view, check):
                    region_device.lost(space, key, slot)
                    return None
            finally:
                self.budget.give(size)
        if is_placed:
            region_device.arrived(space, key, view, check, is_asked)
        return view

    async def _download(self, model: DeviceModel, arena: DeviceArena, slot: int, view: BlobView, check: int) -> bool:
        """Whether the bytes came down whole."""
        begin_ns = time.perf_counter_ns()
        try:
            await arena.download(slot, memoryview(view))
        except Unavailable as error:
            self._failed(model, model.down, self.down, error)
            return False
        wait_ns = time.perf_counter_ns() - begin_ns
        if await asyncio.get_running_loop().run_in_executor(None, checksum, memoryview(view)) != check:
            model.corrupt += 1
            log.warning("kv-gpu: a block of model '%s' has changed on the device", _shown(model.name))
            return False
        self._moved(model, model.down, self.down, len(view), wait_ns)
        return True

    def demote(self, tenant: Tenant, keys: list[bytes]) -> tuple[int, list[bytes]]:
        """KV.DEMOTE: (how many blocks leave the device, or will; the keys of what is not there)."""
        model = self._of(tenant)
        if model is None:
            return 0, keys
        count, others, alone = 0, [], []
        for key in dict.fromkeys(keys):
            if region_device.held(tenant.space, key) is None:
                others.append(key)
            elif region_device.leave(tenant.space, key):
                count += 1
            elif region_device.may_leave(tenant.space, key):
                alone.append(key)
        fresh = [key for key in alone if (tenant.space, key) not in model.demoting]  # asked again, none goes twice
        if fresh:
            model.demoting.update((tenant.space, key) for key in fresh)
            self._spawn(self._demote(model, tenant.space, fresh))
        return count + len(alone), others

    async def _demote(self, model: DeviceModel, space: int, keys: list[bytes]) -> None:
        try:
            for batch in _batches(keys, DOWNLOADS_MAX):
                if model.closed or self.tensors.stopping:
                    return
                await asyncio.gather(*(self._lower(model, space, key, is_asked=False) for key in batch))
                for key in batch:
                    if not model.closed:
                        region_device.leave(space, key)
        finally:
            model.demoting.difference_update((space, key) for key in keys)

    # ------------------------------------------------------------ attached clients

    def attach(self, client: Client, name: bytes) -> dict[str, Any]:
        """KV.ATTACH GPU: what it takes to open the slabs. CommandError."""
        self.tensors.region.model(name)
        if not client.is_unix:
            raise CommandError("ERR KV.ATTACH needs a connection over the Unix socket")
        model = self.models.get(name)
        if model is None or model.arena is None:
            raise CommandError(f"ERR model '{_shown(name)}' has no memory on a GPU, see kv-gpu and KV.TIERS")
        self.attached.setdefault(client, {})[name] = model
        arena = model.arena
        return {
            "kind": self.device.kind, "device": self.device.number, "slot-bytes": arena.slot_bytes,
            "slots": arena.slots, "codec": model.codec.encode(), "handles": arena.handles(),
        }  # fmt: skip

    def is_attached(self, client: Client, name: bytes) -> bool:
        """Whether the client has called KV.ATTACH GPU for the model."""
        return name in self.attached.get(client, ())

    def locate(self, client: Client, tenant: Tenant, keys: list[bytes]) -> bytes:
        """Where the blocks lie in the slabs that the client has; see docs/KV.md."""
        model = self.attached[client][tenant.model.name]
        if model.arena is None:  # what the client has is no more
            return ABSENT * len(keys)
        return region_device.locate(tenant.space, keys, model.arena.slots_per_slab, model.arena.stride)

    def forget_client(self, client: Client) -> None:
        """The connection has ended."""
        self.attached.pop(client, None)

    # ------------------------------------------------------------ figures

    def figures(self, name: bytes | None) -> dict[str, Any]:
        """For KV.STATS: of one model, or of all; nothing where there are none."""
        models = [each for each in self.models.values() if name in (None, each.name)]
        sums: dict[str, Any] = {}
        for model in models:
            for key, value in model.figures().items():
                sums[key] = sums.get(key, 0) + value
        return sums if name is not None or not self.sizes else sums | {"attached_gpu_clients": len(self.attached)}

    def tier(self) -> dict[str, Any] | None:
        """For KV.TIERS; None where the configuration has no kv-gpu."""
        if not self.sizes:
            return None
        models = list(self.models.values())
        errors = [model.error for model in models if model.error]
        state = self.state
        if state == "ok" and errors:
            state = "failing"
        elif state == "ok" and any(model.arena is None for model in models):
            state = "opening"
        sums = self.figures(None)
        return {
            "name": b"gpu", "state": state.encode(), "error": (self.error or "; ".join(errors)).encode(),
            "kind": self.device.kind, "page_locked": int(self.is_locked),
            "blocks": sums.get("gpu_blocks", 0), "bytes": sums.get("gpu_bytes", 0), "slots": sums.get("gpu_slots", 0),
            "limit_bytes": sum(self.sizes.values()), "hits": sums.get("gpu_hits", 0),
            "promotions": self.up.count, "demotions": self.down.count,
            "refused": sum(model.refused for model in models), "corrupt": sum(model.corrupt for model in models),
            **{f"write_{key}": value for key, value in self.up.figures().items()},
            **{f"read_{key}": value for key, value in self.down.figures().items()},
        }  # fmt: skip


def _batches(keys: Sequence[bytes], most: int) -> Iterator[Sequence[bytes]]:
    return (keys[at : at + most] for at in range(0, len(keys), most))


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
