"""The warm tier: blocks that a fleet shares in Redis, Valkey, Dragonfly or ZeekDB, alone, behind Sentinel or a cluster.

`warm_layout.py` says how a block lies there, `warm_client.py` how commands get there and back, `warm_locks.py` how one
node loads what many want, `warm_channel.py` what nodes tell each other. This file is the tier over them:

    put       heads of what is there (GETRANGE); the same block is not written again → packed, in threads → chunks of
              large blocks → values and heads. So a put that was torn is no block.
    get       GET, or for large blocks the head and then its chunks, each copied to its place while the next are on
              their way; checked in threads
    find      heads, and whether chunks are all there (EXISTS)
    delete    head and chunks (UNLINK): about the name, whatever block it has now
    scan      SCAN of every primary, then heads

What the server evicts or expires is a miss; so is what does not agree with its checksums. Both are taken out, or the
next put of the block would think it there. Only commands are used that all of these servers have: no scripts.

*Refused writes.* A server that is full (OOM), read-only, or cannot save refuses writes and still reads. Then `put` says
None, for REFUSED_S without asking, the state is `failing` with the server's words until it takes a write again, and the
breaker stays closed. An error in reply to a read (no permission, say) is a failure like a lost connection.

What is bounded: bytes on their way (FLYING_BYTES; callers wait), pipelines under way, bytes and blocks of each,
connections. A timeout grows with what a pipeline carries, at SLOWEST_BYTES_PER_S.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Final, TypeVar

from zeekdb.tiers.envelope import Damaged, Sealed, digest
from zeekdb.tiers.guard import Guard, TierFailed
from zeekdb.tiers.packing import Packer, Payload, is_asked
from zeekdb.tiers.tier import (
    Budget,
    Flow,
    Get,
    Held,
    Meta,
    Name,
    Put,
    SharedTier,
    TierStats,
    name_of,
    place_of,
    settle,
)
from zeekdb.tiers.warm_channel import Channel, Listener
from zeekdb.tiers.warm_client import Command, LinkDown, Refusal, WarmClient, together
from zeekdb.tiers.warm_layout import (
    CHUNK_BYTES,
    CHUNK_GRACE_MS,
    HEAD_BYTES,
    HEAD_MAX,
    ORPHAN_MS,
    Head,
    Keys,
    head_size,
    read_head,
    write_head,
)
from zeekdb.tiers.warm_locks import LEASE_S, Locks

MIB: Final = 1 << 20
PREFIX: Final = b"zeekdb:"
BATCH_BYTES: Final = 8 * MIB  # of one pipeline
FLYING_BYTES: Final = 64 * MIB  # being written and read, together
AT_ONCE: Final = 4  # pipelines of each kind of call: enough to fill a network, and the loop has other turns between
SLOWEST_BYTES_PER_S: Final = 32 * MIB
REFUSED_S: Final = 1.0
THREADS: Final = 4
SCAN_COUNT: Final = 1000
SEEN_MAX: Final = 1 << 16  # keys of a scan remembered, as SCAN may name one twice
ON_LOOP_MAX: Final = 256 << 10  # bytes of blocks that are checked in one turn of the loop, about 0.1 ms
PAYLOAD_SLACK: Final = 64 << 10  # bytes that a coding may add to a block

T = TypeVar("T")
R = TypeVar("R")


class WarmTier(SharedTier):
    """See the module. `url`: see `warm_address.py`; ValueError. Sizes in bytes; `ttl_s` 0: while the server likes."""

    name = "warm"

    def __init__(
        self, url: str, packer: Packer | None = None, *, pool: int = 16, batch: int = 64, ttl_s: int = 86400,
        least: int = 0, most: int = 256 * MIB, timeout_s: float = 1.0, prefix: bytes = PREFIX,
        chunk_bytes: int = CHUNK_BYTES, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.packer = packer or Packer()
        self.is_lossy = self.packer.is_lossy
        self.client = WarmClient(url, pool=pool, timeout_s=timeout_s)
        self.batch = batch
        self.ttl_s = ttl_s
        self.least, self.most = least, most
        self.timeout_s = timeout_s
        self.chunk_bytes = chunk_bytes
        self.clock = clock
        self.keys = Keys(prefix)
        self.guard = Guard(
            self.name, self.client.probe, failures=(LinkDown,), timeout_s=timeout_s, scrub=self.client.scrub
        )  # fmt: skip
        self.channel = Channel(self.client, self.guard, prefix + b"channel")
        self.locks = Locks(self.client, self.keys, self.channel, self._ask, self._found)
        self.write, self.read = Flow(), Flow()
        self.misses = self.corrupt = self.deleted = self.present = self.torn = self.refused = 0
        self._blocks = self._bytes = 0  # that this node knows of
        self._flying = Budget(FLYING_BYTES)
        self._turns: dict[Callable[..., Any], asyncio.Semaphore] = {}  # by kind of call: none waits for others to end
        self._refusal = ""
        self._refused_until = 0.0
        self._running = 0
        self._idle = asyncio.Event()
        self._is_closed = self._is_shut = True
        self._threads: ThreadPoolExecutor | None = None

    # ---- life --------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Unavailable: redis-py is not installed. A server that does not answer is no reason not to begin."""
        _ = self.client.driver
        self._threads = self._threads or ThreadPoolExecutor(THREADS, "zeekdb-warm")
        self._is_closed = self._is_shut = False
        with suppress(TierFailed):
            await self.guard.call(self.client.probe, retry=False)

    @property
    def guards(self) -> Sequence[Guard]:
        """See SharedTier."""
        return (self.guard,)

    async def probe(self) -> None:
        """A PING to every primary. LinkDown."""
        await self.client.probe()

    @property
    def is_up(self) -> bool:
        """Also some time after a refusal: `stats` tells of it until a write is taken, so one has to be tried."""
        return not self._is_closed and self.guard.state == "closed" and time.monotonic() >= self._refused_until

    @property
    def is_readable(self) -> bool:
        """Also while it is full."""
        return not self._is_closed and self.guard.state == "closed"

    async def close(self) -> None:
        """See Tier."""
        self._is_closed = True
        while self._running:
            self._idle.clear()
            await self._idle.wait()
        self._is_shut = True
        await self.channel.close()
        await self.guard.close()
        await self.client.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False)
            self._threads = None

    def stats(self) -> TierStats:
        """See Tier. Blocks and bytes are what this node has scanned and put: others write there as well."""
        is_failing = bool(self._refusal) or self.guard.state != "closed"
        state = "closed" if self._is_closed else "failing" if is_failing else "ok"
        error = self._refusal if self.guard.state == "closed" and self._refusal else self.guard.last_error
        more = {
            **self.guard.figures(), **self.channel.figures(), "present": self.present, "torn": self.torn,
            "refused": self.refused, "locks": self.locks.taken, "lock_waits": self.locks.waited,
        }  # fmt: skip
        return TierStats(
            self.name, state, error, max(self._blocks, 0), max(self._bytes, 0), write=self.write, read=self.read,
            misses=self.misses, corrupt=self.corrupt, deleted=self.deleted, queue_bytes=self._flying.taken, more=more,
        )  # fmt: skip

    # ---- nodes -------------------------------------------------------------------------------------------------------

    def loading(self, names: Sequence[Name], lease_s: float = LEASE_S) -> AbstractAsyncContextManager[list[bool]]:
        """`async with tier.loading(names) as mine`: for each name, whether the caller is the one to load it."""
        return self.locks.loading(names, lease_s)

    async def wait_for(self, name: Name, timeout_s: float) -> Meta | None:
        """The block, once it was put; None: it took too long, nobody loads it any more, or nobody can be asked."""
        if self._is_closed:
            return None
        return await self.locks.wait_for(name, timeout_s)

    def announce(self, kind: str, metas: Iterable[Meta]) -> None:
        """Tell the other nodes what became of blocks here: stored, removed, replaced (by these). Never waits."""
        self.channel.announce(kind, [(digest(meta), meta.checksum, name_of(meta)) for meta in metas])

    def listen(self, listener: Listener) -> None:
        """Have the listener told what other nodes announce, and of gaps. This tier announces its own puts that replace
        a block, and its deletes."""
        self.channel.listen(lambda event: listener(event) if event.kind != "released" else None)

    # ---- put ---------------------------------------------------------------------------------------------------------

    async def put(self, items: Sequence[Put]) -> list[int | None]:
        """See Tier. Outside of `least` and `most`: not stored. Past its deadline: not written."""
        answers = await self._in_batches(items, [item.meta.size for item in items], self._put, None)
        return [place_of(item.meta) if is_there else None for item, is_there in zip(items, answers, strict=True)]

    async def _put(self, items: Sequence[Put]) -> list[bool | None]:
        began, now = time.perf_counter_ns(), self.clock()
        done: list[bool | None] = [None] * len(items)
        wanted = []
        for at, item in enumerate(items):
            if item.meta.deadline and item.meta.deadline <= now:
                done[at] = True
            elif self.least <= item.meta.size <= self.most and len(b"".join(item.meta[:3])) < HEAD_MAX:
                wanted.append(at)
        if not wanted or time.monotonic() < self._refused_until:
            self.refused += len(wanted)
            return done
        try:
            names = [digest(items[at].meta) for at in wanted]
            heads = dict(zip(wanted, await self._heads(names, whole=True), strict=True))
            fresh = [at for at in wanted if not _is_there(heads[at], items[at].meta)]
            for at in set(wanted) - set(fresh):
                done[at] = True
            self.present += len(wanted) - len(fresh)
            puts = [items[at] for at in fresh]
            is_raw = self.packer.coding == "raw"  # then there is nothing to do but the header
            packed = await self._spread(self._packed, puts, [0 if is_raw else put.meta.size for put in puts])
            await self._write(items, heads, {at: made for at, made in zip(fresh, packed, strict=True) if made}, done)
        except TierFailed:
            self.write.errors += sum(answer is None for answer in done)
            return done
        waited = time.perf_counter_ns() - began
        for at in fresh:
            if done[at]:
                self.write.record(items[at].meta.size, waited)
                self.locks.wake(digest(items[at].meta))
        return done

    def _packed(self, item: Put) -> tuple[Head, bytes, Payload] | None:
        """Head, its bytes, and the block's; None: no header holds its names."""
        sealed, payload = self.packer.pack(item.meta, item.data)
        try:
            return *write_head(sealed, self.chunk_bytes), payload
        except ValueError:
            return None

    async def _write(
        self, items: Sequence[Put], heads: dict[int, Head | None], packed: dict[int, tuple[Head, bytes, Payload]],
        done: list[bool | None],
    ) -> None:  # fmt: skip
        """Chunks, then what makes them blocks; then chunks of what was replaced go."""
        chunked = {at: made for at, made in packed.items() if made[0].chunks}
        failed = await self._write_chunks(items, chunked)
        values: list[tuple[int, Command, int]] = []
        for at, (head, data, payload) in packed.items():
            if at in failed:
                continue
            key, life = self.keys.block(digest(items[at].meta)), self._life_ms(items[at].meta)
            if head.chunks and not life:
                values += ((at, (b"PERSIST", chunk), 0) for chunk in self.keys.chunks(digest(items[at].meta), head))
            value = data if head.chunks else (data, payload)
            ttl: Command = (b"PX", b"%d" % life) if life else ()
            values.append((at, (b"SET", key, value, *ttl), 0 if head.chunks else head.sealed.stored_size))
        for some in _grouped(values, [size for _, _, size in values], BATCH_BYTES, len(values)):
            replies = await self._ask([command for _, command, _ in some], sum(size for _, _, size in some))
            for (at, words, _), reply in zip(some, replies, strict=True):
                if not self._is_taken(reply):
                    failed.add(at)
                elif words[0] == b"SET":
                    done[at] = True
        gone: list[bytes] = []
        replaced = []
        for at, (head, _, _) in packed.items():
            name, old = digest(items[at].meta), heads[at]
            if at in failed:
                gone += self.keys.chunks(name, head)
                continue
            self._blocks += old is None
            self._bytes += items[at].meta.size - (old.sealed.meta.size if old else 0)
            if old is not None and old.sealed.meta.checksum != items[at].meta.checksum:
                replaced.append(items[at].meta)
            if old is not None:
                now_there = set(self.keys.chunks(name, head))
                gone += [key for key in self.keys.chunks(name, old) if key not in now_there]
        self.write.errors += len(failed)
        self.refused += len(failed)
        await self._unlink(gone)
        if replaced:
            self.announce("replaced", replaced)

    async def _write_chunks(self, items: Sequence[Put], chunked: dict[int, tuple[Head, bytes, Payload]]) -> set[int]:
        """Those of which the server has refused some."""
        commands: list[tuple[int, Command, int]] = []
        for at, (head, _, payload) in chunked.items():
            life, view = self._life_ms(items[at].meta) or ORPHAN_MS, memoryview(payload)
            ttl: Command = (b"PX", b"%d" % (life + CHUNK_GRACE_MS))
            for number, key in enumerate(self.keys.chunks(digest(items[at].meta), head)):
                piece = view[number * head.chunk_bytes : (number + 1) * head.chunk_bytes]
                commands.append((at, (b"SET", key, piece, *ttl), piece.nbytes))
        failed: set[int] = set()
        for some in _grouped(commands, [size for _, _, size in commands], BATCH_BYTES, len(commands)):
            some = [one for one in some if one[0] not in failed]
            replies = await self._ask([command for _, command, _ in some], sum(size for _, _, size in some))
            failed |= {at for (at, _, _), reply in zip(some, replies, strict=True) if not self._is_taken(reply)}
        return failed

    def _life_ms(self, meta: Meta) -> int:
        """How long the block may stay; 0: for ever."""
        left = [self.ttl_s * 1000] if self.ttl_s else []
        if meta.deadline:
            left.append(max(int((meta.deadline - self.clock()) * 1000), 1))
        return min(left, default=0)

    def _is_taken(self, reply: Any) -> bool:
        """Whether a write was done. A refusal holds others back for a while."""
        if not isinstance(reply, Refusal):
            self._refused_until, self._refusal = 0.0, ""
            return True
        self._refusal = self.client.scrub(reply.text)
        self._refused_until = time.monotonic() + REFUSED_S
        return False

    # ---- get ---------------------------------------------------------------------------------------------------------

    async def get(self, items: Sequence[Get]) -> list[bool | None]:
        """See Tier."""
        return await self._in_batches(items, [item.meta.size for item in items], self._get, None)

    async def _get(self, items: Sequence[Get]) -> list[bool | None]:
        began = time.perf_counter_ns()
        done: list[bool | None] = [None] * len(items)
        try:
            await self._read(items, done)
        except TierFailed:
            self.read.errors += sum(answer is None for answer in done)
        waited = time.perf_counter_ns() - began
        for item, answer in zip(items, done, strict=True):
            if answer:
                self.read.record(item.meta.size, waited)
        self.misses += sum(answer is False for answer in done)
        return done

    async def _read(self, items: Sequence[Get], done: list[bool | None]) -> None:
        names = [digest(item.meta) for item in items]
        values: dict[int, memoryview] = {}
        large = [at for at, item in enumerate(items) if item.meta.size > self.chunk_bytes]
        small = [at for at, item in enumerate(items) if item.meta.size <= self.chunk_bytes]
        commands: list[Command] = [(b"GET", self.keys.block(names[at])) for at in small]
        found: dict[int, Head | None] = {}
        for at, reply in zip(small, await self._ask(commands, sum(items[at].meta.size for at in small)), strict=True):
            if isinstance(reply, bytes):
                values[at] = memoryview(reply)
            found[at] = self._head(reply)
        found |= zip(large, await self._heads([names[at] for at in large]), strict=True)
        inline: list[tuple[int, Sealed, memoryview]] = []
        for at, head in found.items():
            if head is None or not is_asked(head.sealed, items[at].meta):
                done[at] = False
            elif head.chunks or head.sealed.stored_size > items[at].meta.size + PAYLOAD_SLACK:
                done[at] = await self._read_chunks(items[at], names[at], head)
            else:
                if at not in values:  # another node's chunks are larger than ours
                    (reply,) = await self._ask([(b"GET", self.keys.block(names[at]))], items[at].meta.size)
                    values[at] = memoryview(reply if isinstance(reply, bytes) else b"")
                inline.append((at, head.sealed, values[at][head.size :]))

        def unpack(one: tuple[int, Sealed, memoryview]) -> bool:
            at, sealed, payload = one
            return self.packer.unpack(sealed, payload, items[at].into)

        sound = await self._spread(unpack, inline, [sealed.meta.size for _, sealed, _ in inline])
        for (at, _, _), is_sound in zip(inline, sound, strict=True):
            done[at] = is_sound
            if not is_sound:
                await self._take_out(names[at])

    async def _read_chunks(self, item: Get, name: str, head: Head) -> bool:
        """Chunks to their places, each pipeline while the last one is being copied."""
        sealed = head.sealed
        is_raw = sealed.coding == "raw"
        if sealed.stored_size > item.meta.size + PAYLOAD_SLACK or (is_raw and sealed.stored_size != item.into.nbytes):
            return False
        target = item.into if is_raw else memoryview(bytearray(sealed.stored_size))
        keys, each = self.keys.chunks(name, head), max(BATCH_BYTES // head.chunk_bytes, 1)
        copying: asyncio.Future[bool] | None = None
        try:
            for first in range(0, len(keys), each):
                some = keys[first : first + each]
                replies = await self._ask([(b"GET", key) for key in some], len(some) * head.chunk_bytes)
                room = target[first * head.chunk_bytes : (first + each) * head.chunk_bytes]
                is_whole, copying = copying is None or await settle(copying), None
                if not is_whole:
                    break
                loop = asyncio.get_running_loop()
                copying = loop.run_in_executor(self._threads, _copy, replies, room, head.chunk_bytes)
            else:
                is_whole = copying is None or await settle(copying)
        finally:
            if copying is not None and not copying.done():
                await settle(copying)
        if not is_whole:  # the server has evicted some of them
            self.torn += 1
            await self._unlink([self.keys.block(name)])
            return False

        def check(into: memoryview) -> bool:
            return self.packer.is_whole(sealed, into) if is_raw else self.packer.unpack(sealed, target, into)

        (is_sound,) = await self._spread(check, [item.into], [sealed.meta.size])
        if not is_sound:
            await self._take_out(name)
        return is_sound

    async def _take_out(self, name: str) -> None:
        """What is damaged, so that the next put writes it again."""
        self.corrupt += 1
        await self._unlink([self.keys.block(name)])

    # ---- the others --------------------------------------------------------------------------------------------------

    async def find(self, names: Sequence[Name]) -> list[Meta | None]:
        """See SharedTier."""
        return await self._in_batches(names, [0] * len(names), self._found_or_none, None)

    async def _found(self, names: Sequence[Name]) -> list[Meta | None]:
        """The same of one pipeline, with its failures."""
        now = self.clock()
        heads = await self._heads([digest(name) for name in names], whole=True)
        metas = [head.sealed.meta if head else None for head in heads]
        return [
            meta if meta and name_of(meta) == name and not 0 < meta.deadline <= now else None
            for meta, name in zip(metas, names, strict=True)
        ]

    async def _found_or_none(self, names: Sequence[Name]) -> list[Meta | None]:
        try:
            return await self._found(names)
        except TierFailed:
            return [None] * len(names)

    async def contains(self, items: Sequence[Held]) -> list[bool]:
        """See Tier."""
        return await self._in_batches(items, [0] * len(items), self._contains, False)

    async def _contains(self, items: Sequence[Held]) -> list[bool]:
        try:
            heads = await self._heads([digest(item.meta) for item in items], whole=True)
        except TierFailed:
            return [False] * len(items)
        return [_is_there(head, item.meta) for head, item in zip(heads, items, strict=True)]

    async def delete(self, items: Sequence[Held]) -> list[bool]:
        """See Tier."""
        gone = await self.drop(items)
        self.announce("removed", [item.meta for item, is_gone in zip(items, gone, strict=True) if is_gone])
        return gone

    async def drop(self, items: Sequence[Held]) -> list[bool]:
        """See SharedTier."""
        return await self._in_batches(items, [0] * len(items), self._delete, False)

    async def _delete(self, items: Sequence[Held]) -> list[bool]:
        names = [digest(item.meta) for item in items]
        try:
            heads = await self._heads(names)
            commands: list[Command] = [
                (b"UNLINK", self.keys.block(name), *(self.keys.chunks(name, head) if head else ()))
                for name, head in zip(names, heads, strict=True)
            ]
            replies = await self._ask(commands)
        except TierFailed:
            return [False] * len(items)
        gone = [not isinstance(reply, Refusal) for reply in replies]
        for head, is_gone in zip(heads, gone, strict=True):
            if is_gone and head is not None:
                self.deleted += 1
                self._blocks -= 1
                self._bytes -= head.sealed.meta.size
        return gone

    async def scan(self) -> AsyncIterator[list[Held]]:
        """See Tier. A server that fails meanwhile ends it. Of more than SEEN_MAX blocks, one may come twice."""
        seen: dict[bytes, None] = {}
        self._blocks = self._bytes = 0
        if self._is_closed:
            return
        with suppress(TierFailed):
            for where, _ in await self.guard.call(lambda: self.client.ask_each((b"PING",))):
                cursor = b"0"
                while True:
                    cursor, keys = await self._scan_page(where, cursor)
                    fresh = [key for key in dict.fromkeys(keys) if key not in seen]
                    for at in range(0, len(fresh), self.batch):
                        held = await self._scanned(fresh[at : at + self.batch])
                        if held:
                            yield held
                    seen |= dict.fromkeys(fresh)
                    while len(seen) > SEEN_MAX:
                        del seen[next(iter(seen))]
                    if cursor == b"0":
                        break

    async def _scan_page(self, where: Any, cursor: bytes) -> tuple[bytes, list[bytes]]:
        command: Command = (b"SCAN", cursor, b"MATCH", self.keys.pattern, b"COUNT", b"%d" % SCAN_COUNT)

        async def work() -> tuple[bytes, list[bytes]]:
            (reply,) = await self.client.ask_at(where, [command])
            if isinstance(reply, Refusal):
                raise LinkDown(reply.text)
            return bytes(reply[0]), reply[1]

        return await self.guard.call(work)

    async def _scanned(self, keys: Sequence[bytes]) -> list[Held]:
        now = self.clock()
        metas = [head.sealed.meta for head in await self._heads([self.keys.digest(key) for key in keys], True) if head]
        metas = [meta for meta in metas if not 0 < meta.deadline <= now]
        self._blocks += len(metas)
        self._bytes += sum(meta.size for meta in metas)
        return [Held(meta, place_of(meta)) for meta in metas]

    # ---- what they are made of ---------------------------------------------------------------------------------------

    async def _heads(self, names: Sequence[str], whole: bool = False) -> list[Head | None]:
        """The heads that lie under digests now; None: nothing, or nothing of ours, or (`whole`) some chunks lack."""
        if not names:
            return []
        keys = [self.keys.block(name) for name in names]
        replies = await self._ask([(b"GETRANGE", key, b"0", b"%d" % (HEAD_BYTES - 1)) for key in keys])
        long = [at for at, reply in enumerate(replies) if isinstance(reply, bytes) and head_size(reply) > HEAD_BYTES]
        if long:
            again = [(b"GETRANGE", keys[at], b"0", b"%d" % (head_size(replies[at]) - 1)) for at in long]
            for at, reply in zip(
                long, await self._ask(again, sum(map(head_size, (replies[at] for at in long)))), strict=True
            ):
                replies[at] = reply
        heads = [self._head(reply) for reply in replies]
        chunked = [at for at, head in enumerate(heads) if whole and head and head.chunks]
        if chunked:
            there: list[Command] = []
            for at in chunked:
                head = heads[at]
                assert head is not None
                there.append((b"EXISTS", *self.keys.chunks(names[at], head)))
            for at, words, count in zip(chunked, there, await self._ask(there), strict=True):
                if count != len(words) - 1:
                    heads[at] = None
        return heads

    def _head(self, reply: Any) -> Head | None:
        """The head that a reply begins with."""
        if not isinstance(reply, bytes) or not reply:
            return None
        try:
            return read_head(reply)
        except Damaged:
            self.corrupt += 1
            return None

    async def _ask(self, commands: Sequence[Command], size: int = 0) -> list[Any]:
        """One pipeline that carries `size` bytes. TierFailed, also when a command that reads is refused."""
        if not commands:
            return []
        if self._is_shut:
            raise TierFailed("the tier is closed")

        async def work() -> list[Any]:
            replies = await self.client.ask(commands)
            for words, reply in zip(commands, replies, strict=True):
                if isinstance(reply, Refusal) and reply.code != "WRONGTYPE" and words[0] in READS:
                    raise LinkDown(reply.text)
            return replies

        return await self.guard.call(work, timeout_s=self.timeout_s + size / SLOWEST_BYTES_PER_S)

    async def _unlink(self, keys: list[bytes]) -> None:
        """Best effort: what stays has a time to live, or makes room when the server needs it."""
        with suppress(TierFailed):
            for at in range(0, len(keys), SCAN_COUNT):
                await self._ask([(b"UNLINK", key) for key in keys[at : at + SCAN_COUNT]])

    async def _spread(self, work: Callable[[T], R], items: Sequence[T], sizes: Sequence[int]) -> list[R]:
        """The work on each item: on large ones in threads, on small ones here, where the loop has turns in between.

        A thread that works on many small ones lets go of the GIL for moments too short for the loop to take it, and
        keeps it waiting for all of them.
        """
        results: list[R] = []
        for some in _grouped(list(zip(items, sizes, strict=True)), sizes, ON_LOOP_MAX, self.batch):
            if sum(size for _, size in some) <= ON_LOOP_MAX:
                results += [work(item) for item, _ in some]
                await asyncio.sleep(0)
            else:
                loop = asyncio.get_running_loop()
                results += [await settle(loop.run_in_executor(self._threads, work, item)) for item, _ in some]
        return results

    async def _in_batches(
        self,
        items: Sequence[T],
        sizes: Sequence[int],
        work: Callable[[Sequence[T]], Awaitable[list[Any]]],
        otherwise: bool | None,
    ) -> list[Any]:
        """The answers of `work` on pieces of bounded size, AT_ONCE of them side by side."""
        if self._is_closed:
            return [otherwise] * len(items)
        turns = self._turns.setdefault(work, asyncio.Semaphore(AT_ONCE))

        async def one(some: Sequence[tuple[T, int]]) -> list[Any]:
            size = sum(size for _, size in some)
            async with turns:
                if size:
                    await self._flying.take(size)
                try:
                    return [otherwise] * len(some) if self._is_closed else await work([item for item, _ in some])
                finally:
                    self._flying.give(size)

        self._running += 1
        try:
            pairs = list(zip(items, sizes, strict=True))
            answers = await together(one(some) for some in _grouped(pairs, sizes, BATCH_BYTES, self.batch))
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()
        return [answer for some in answers for answer in some]


READS: Final = frozenset((b"GET", b"GETRANGE", b"EXISTS"))


def _is_there(head: Head | None, meta: Meta) -> bool:
    """Whether a head is that of this block."""
    return head is not None and is_asked(head.sealed, meta)


def _copy(replies: list[Any], room: memoryview, chunk_bytes: int) -> bool:
    """Chunks one after the other; False: one lacks, or is of another size."""
    for number, reply in enumerate(replies):
        piece = room[number * chunk_bytes : (number + 1) * chunk_bytes]
        if not isinstance(reply, bytes) or len(reply) != piece.nbytes:
            return False
        piece[:] = reply
    return True


def _grouped(items: Sequence[T], sizes: Sequence[int], most_bytes: int, most: int) -> Iterator[list[T]]:
    """Runs of items, none of more than so many bytes, unless by itself, and so many items."""
    some: list[T] = []
    total = 0
    for item, size in zip(items, sizes, strict=True):
        if some and (total + size > most_bytes or len(some) >= most):
            yield some
            some, total = [], 0
        some.append(item)
        total += size
    if some:
        yield some
