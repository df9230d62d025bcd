"""What a region's methods say to the server, without I/O.

Each call is a generator of steps: an `Exchange` with the server, a `Job` to be done here (a copy), a `Connected` to
know which connection there is. Whoever drives it (`region.Region`, `asynchronous.AsyncRegion`) sends each step's result
in. So that the two forms cannot differ, everything but waiting is here.

Large calls are cut into batches of at most BATCH_KEYS keys and, through the socket, about BATCH_BYTES bytes: neither
side ever holds more than that for one call. Stored batches name the last key of the one before as their parent, so that
the server knows them for one context.

Local memory. An exchange that is bound to a link (a connection and what is mapped through it) fails with LinkLost when
the link is another by then: places are good for the link that named them. What fails that way, or turns out not to have
been under lease all the time, is done again over the socket, where the server itself takes care of its memory.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, TypeVar

import numpy as np

from zeekdb.client.buffers import copy_all, memory_of
from zeekdb.client.leases import Array, Lease, Mapping, View, end_of
from zeekdb.client.wire import Sinks, Word, WrongSize
from zeekdb.errors import CommandError, OutOfRange, Unavailable

BATCH_KEYS: Final = 4096  # of one command; the server takes 65,536, and a client may reserve as many pieces
BATCH_BYTES: Final = 64 << 20  # of one command, if that is more than one block
COMMIT_BYTES: Final = 32 << 20  # the same of KV.COMMIT: the server sums them up while everybody else waits
RESERVED_SHARE: Final = 8  # of the arena's bytes, one in so many is reserved at a time; the server allows one in four
COPY_LEASE_MS: Final = 10_000  # for a copy out of the arena
NOWHERE: Final = (1 << 64) - 1  # the place of a block that is not in host memory
STORED, SHARED, DROPPED = 1, 0, -1

T = TypeVar("T")
Key = bytes | str
Tokens = Any  # bytes (u32 little-endian), or integers: a sequence, an array, a tensor


class LinkLost(Unavailable):
    """The connection is not the one that a step was bound to."""


@dataclass(slots=True, eq=False)
class Link:
    """A connection as calls know it."""

    mapping: Mapping | None = None


@dataclass(slots=True)
class Exchange:
    """A command and its reply. `link`: only on this one, and never again; else once more on a new connection if the old
    one breaks and `is_repeatable`."""

    words: Sequence[Word]
    sinks: Sinks = ()
    link: Link | None = None
    is_repeatable: bool = True


@dataclass(slots=True)
class Job:
    """Work without I/O that may take a while, `nbytes` being copied."""

    run: Callable[[], object]
    nbytes: int


@dataclass(slots=True)
class Connected:
    """Asks for the link, which is made if there is none."""


@dataclass(slots=True)
class Abandon:
    """Ends the link if it is this one still: what was reserved through it is free then."""

    link: Link


Step = Exchange | Job | Connected | Abandon
Steps = Generator[Step, Any, T]


def names(keys: Iterable[Key]) -> list[bytes]:
    """Keys as the server knows them."""
    return [key.encode() if isinstance(key, str) else key for key in keys]


def tokens_of(tokens: Tokens) -> bytes:
    """Token ids as the server takes them: u32, little-endian. OverflowError for one outside 32 bits."""
    if isinstance(tokens, bytes):
        return tokens
    if hasattr(tokens, "tolist"):
        tokens = tokens.tolist()
    found = array("I", tokens)
    return np.frombuffer(found, np.uint32).astype("<u4").tobytes()


@dataclass(slots=True)
class Found:
    """A lookup before it becomes the caller's."""

    prefix: int
    present: Array
    tiers: Array
    leased: list[bytes]
    end_s: float


class Calls:
    """The calls of one model and salt."""

    def __init__(
        self, model: Key, salt: Key = b"", threads: ThreadPoolExecutor | None = None, thread_count: int = 1
    ) -> None:  # fmt: skip
        self.model, self.salt = names((model, salt))
        self.threads = threads
        self.thread_count = thread_count
        self.copy: Callable[..., None] = copy_all

    def words(self, command: bytes, keys: Sequence[Word] = (), *options: bytes, step: int = 1) -> list[Word]:
        """`command m [SALT s] options n key …`"""
        salt = (b"SALT", self.salt) if self.salt else ()
        return [command, self.model, *salt, *options, b"%d" % (len(keys) // step), *keys]

    # ------------------------------------------------------------ asking

    def lookup(self, keys: Sequence[bytes], lease_ms: int) -> Steps[Found]:
        """KV.LOOKUP."""
        lease = (b"LEASE", b"%d" % lease_ms) if lease_ms else ()
        asked_s = time.monotonic()
        parts, tiers = [], []
        for at in range(0, len(keys), BATCH_KEYS):
            batch = keys[at : at + BATCH_KEYS]
            _, bitmap, tier = yield Exchange(self.words(b"KV.LOOKUP", batch, *lease))
            parts.append(_bits(bitmap, len(batch)))
            tiers.append(np.frombuffer(tier, np.uint8))
        present = np.concatenate(parts) if parts else np.zeros(0, bool)
        prefix = len(keys) if present.all() else int(present.argmin())
        leased = [keys[at] for at in np.flatnonzero(present).tolist()] if lease_ms else []
        tier_of = np.concatenate(tiers) if tiers else np.zeros(0, np.uint8)
        return Found(prefix, present, tier_of, leased, end_of(asked_s, lease_ms))

    def count(self, command: bytes, keys: Sequence[bytes], is_repeatable: bool = True) -> Steps[int]:
        """A command about keys that tells how many."""
        total = 0
        for at in range(0, len(keys), BATCH_KEYS):
            total += yield Exchange(self.words(command, keys[at : at + BATCH_KEYS]), is_repeatable=is_repeatable)
        return total

    def unlock(self, keys: Sequence[bytes]) -> Steps[int]:
        """KV.UNLOCK; on a connection that breaks the leases are left to end by themselves."""
        return (yield from self.count(b"KV.UNLOCK", keys, is_repeatable=False))

    def match(self, tokens: Tokens, lease_ms: int) -> Steps[tuple[int, int]]:
        """KV.MATCH."""
        lease = (b"LEASE", b"%d" % lease_ms) if lease_ms else ()
        found = yield Exchange([*self.words(b"KV.MATCH")[:-1], tokens_of(tokens), *lease])
        return found[0], found[1]

    # ------------------------------------------------------------ getting

    def get(self, keys: Sequence[bytes]) -> Steps[list[bytes | None]]:
        """KV.MGET, the bytes in memory of their own. The sizes are not known before: the caller chooses the keys."""
        found: list[bytes | None] = []
        for at in range(0, len(keys), BATCH_KEYS):
            found += yield Exchange(self.words(b"KV.MGET", keys[at : at + BATCH_KEYS]))
        return found

    def get_into(self, keys: Sequence[bytes], buffers: Sequence[Any], lease_ms: int) -> Steps[list[bool]]:
        """Blocks into the caller's memory: out of the mapping where there is one, else through the socket."""
        if len(keys) != len(buffers):
            raise ValueError(f"{len(keys)} keys and {len(buffers)} buffers")
        sinks = [memory_of(buffer, writable=True) for buffer in buffers]
        done = [False] * len(keys)
        link = yield Connected()
        left: Sequence[int] = range(len(keys))
        if link.mapping is not None:
            left = []
            for begin in range(0, len(keys), BATCH_KEYS):
                batch = range(begin, min(begin + BATCH_KEYS, len(keys)))
                left += yield from self._get_local(link, link.mapping, keys, sinks, batch, done, lease_ms)
        for begin, end in _batches([sinks[at] for at in left]):
            some = left[begin:end]
            reply = yield Exchange(self.words(b"KV.MGET", [keys[at] for at in some]), [sinks[at] for at in some])
            for at, item in zip(some, reply, strict=True):
                if type(item) is WrongSize:
                    raise _wrong_size(at, item, sinks[at])
                done[at] = item is True
        return done

    def _get_local(
        self, link: Link, mapping: Mapping, keys: Sequence[bytes], sinks: Sequence[memoryview], wanted: Sequence[int],
        done: list[bool], lease_ms: int,
    ) -> Steps[list[int]]:  # fmt: skip
        """Copies out of the mapping; which ones have to come through the socket."""
        try:
            found = yield from self._locate(link, mapping, [keys[at] for at in wanted], lease_ms)
        except LinkLost:
            return list(wanted)
        pairs, here, elsewhere = [], [], []
        for at, is_there, (offset, size, _) in zip(wanted, found.present, found.places, strict=True):
            if offset == NOWHERE:
                if is_there:
                    elsewhere.append(at)
                continue
            if size != len(sinks[at]):
                yield from self.unlock(found.leased)
                raise _wrong_size(at, size, sinks[at])
            pairs.append((sinks[at], mapping.piece(offset, size)))
            here.append(at)
        if pairs:
            nbytes = sum(len(target) for target, _ in pairs)
            yield Job(lambda: self.copy(pairs, self.threads, self.thread_count), nbytes)
        if found.leased:
            if time.monotonic() >= found.end_s:
                return here + elsewhere
            try:  # the leases of blocks that went meanwhile are not counted any more, see leases.py
                known = yield Exchange(self.words(b"KV.UNLOCK", found.leased), link=link)
            except LinkLost:
                known = -1
            if known != len(found.leased):
                return here + elsewhere
        for at in here:
            done[at] = True
        return elsewhere

    def _locate(self, link: Link, mapping: Mapping, keys: Sequence[bytes], lease_ms: int) -> Steps[Located]:
        asked_s = time.monotonic()
        lease_ms = min(lease_ms, mapping.lease_ms_max)
        words = self.words(b"KV.LOOKUP", keys, b"LEASE", b"%d" % lease_ms, b"LOCATE")
        _, bitmap, _, places = yield Exchange(words, link=link)
        present = _bits(bitmap, len(keys)).tolist()
        leased = [key for key, is_there in zip(keys, present, strict=True) if is_there]
        if not places:  # of a model with a codec: the server decodes
            return Located(present, [[NOWHERE, 0, 0]] * len(keys), leased, end_of(asked_s, lease_ms))
        table = np.frombuffer(places, "<u8").reshape(-1, 3).tolist()
        return Located(present, table, leased, end_of(asked_s, lease_ms))

    def views(
        self, keys: Sequence[bytes], lease_ms: int, lease_of: Callable[[list[bytes], float], Lease]
    ) -> Steps[Seen]:  # fmt: skip
        """Views of what is in the mapping, copies of what is elsewhere, None for what is not there."""
        link = yield Connected()
        seen: list[View | None] = [None] * len(keys)
        leased: list[bytes] = []
        end_s = end_of(time.monotonic(), lease_ms)
        lease = lease_of(leased, end_s)
        elsewhere = list(range(len(keys)))
        if link.mapping is not None:
            elsewhere = []
            if lease_ms > link.mapping.lease_ms_max:
                raise OutOfRange(f"ERR a lease is from 1 to {link.mapping.lease_ms_max} ms")
            for begin in range(0, len(keys), BATCH_KEYS):
                batch = keys[begin : begin + BATCH_KEYS]
                try:
                    found = yield from self._locate(link, link.mapping, batch, lease_ms)
                except LinkLost:
                    elsewhere += range(begin, begin + len(batch))
                    continue
                leased += found.leased
                for at, (offset, size, _) in enumerate(found.places, begin):
                    if offset != NOWHERE:
                        seen[at] = View(keys[at], link.mapping.piece(offset, size), lease)
                    elif found.present[at - begin]:
                        elsewhere.append(at)
        if elsewhere:
            blocks = yield from self.get([keys[at] for at in elsewhere])
            for at, block in zip(elsewhere, blocks, strict=True):
                seen[at] = View(keys[at], memoryview(block), None) if block is not None else None
        return seen, lease

    def fetch(self, tokens: Tokens, layers: tuple[int, int] | None, buffers: Sequence[Any] = ()) -> Steps[list[Any]]:
        """KV.FETCH: the blocks' bytes, or True for each that went into a buffer."""
        sinks = [memory_of(buffer, writable=True) for buffer in buffers]
        cut = (b"LAYERS", b"%d" % layers[0], b"%d" % layers[1]) if layers is not None else ()
        found: list[Any] = yield Exchange([*self.words(b"KV.FETCH")[:-1], tokens_of(tokens), *cut], sinks)
        for at, item in enumerate(found):
            if type(item) is WrongSize:
                raise _wrong_size(at, item, sinks[at])
        return found

    # ------------------------------------------------------------ storing

    def put_from(
        self, keys: Sequence[bytes], buffers: Sequence[Any], ttl_s: int, group: bytes | None, parent: bytes | None
    ) -> Steps[list[int]]:  # fmt: skip
        """Blocks out of the caller's memory: into the mapping where there is one, else through the socket."""
        if len(keys) != len(buffers):
            raise ValueError(f"{len(keys)} keys and {len(buffers)} buffers")
        sources = [memory_of(buffer) for buffer in buffers]
        said: list[int] = []
        link = yield Connected()
        limit = BATCH_BYTES
        if link.mapping is not None:
            limit = min(COMMIT_BYTES, link.mapping.size // RESERVED_SHARE)
        for begin, end in _batches(sources, limit):
            if link.mapping is not None:
                said += yield from self._put_local(
                    link, link.mapping, keys[begin:end], sources[begin:end], ttl_s, group, parent
                )
            else:
                said += yield from self._put(keys[begin:end], sources[begin:end], ttl_s, group, parent)
            parent = keys[end - 1]
        return said

    def _options(self, ttl_s: int, group: bytes | None, parent: bytes | None) -> list[bytes]:
        options: list[bytes] = []
        if ttl_s:
            options += [b"TTL", b"%d" % ttl_s]
        if group is not None:
            options += [b"GROUP", group]
        if parent is not None:
            options += [b"PARENT", parent]
        return options

    def _put(
        self, keys: Sequence[bytes], sources: Sequence[memoryview], ttl_s: int, group: bytes | None,
        parent: bytes | None,
    ) -> Steps[list[int]]:  # fmt: skip
        pairs = [word for pair in zip(keys, sources, strict=True) for word in pair]
        said: list[int] = yield Exchange(self.words(b"KV.MSET", pairs, *self._options(ttl_s, group, parent), step=2))
        return said

    def _put_local(
        self, link: Link, mapping: Mapping, keys: Sequence[bytes], sources: Sequence[memoryview], ttl_s: int,
        group: bytes | None, parent: bytes | None,
    ) -> Steps[list[int]]:  # fmt: skip
        """Reserves, copies, commits. For what got no room the server is asked through the socket: it may make some.

        What was reserved is committed or the connection ends: there is no other way to give it back.
        """
        if not all(map(len, sources)):  # there is no room of no size
            return (yield from self._put(keys, sources, ttl_s, group, parent))
        try:
            sizes = [b"%d" % len(source) for source in sources]
            offsets = yield Exchange([b"KV.RESERVE", b"%d" % len(sizes), *sizes], link=link)
        except LinkLost:
            return (yield from self._put(keys, sources, ttl_s, group, parent))
        try:
            pairs = [
                (mapping.piece(offset, len(source)), source)
                for offset, source in zip(offsets, sources, strict=True) if offset >= 0
            ]  # fmt: skip
            yield Job(lambda: self.copy(pairs, self.threads, self.thread_count), sum(map(len, sources)))
            said: list[int] = []
            for has_room, run in groupby(range(len(keys)), lambda at: bool(offsets[at] >= 0)):
                some = list(run)
                begin, end = some[0], some[-1] + 1
                above = keys[begin - 1] if begin else parent
                if has_room:
                    try:
                        said += yield from self._commit(link, keys[begin:end], offsets[begin:end], ttl_s, group, above)
                        continue
                    except LinkLost:
                        pass
                said += yield from self._put(keys[begin:end], sources[begin:end], ttl_s, group, above)
        except Exception:
            yield Abandon(link)
            raise
        return said

    def _commit(
        self, link: Link, keys: Sequence[bytes], offsets: list[int], ttl_s: int, group: bytes | None,
        parent: bytes | None,
    ) -> Steps[list[int]]:  # fmt: skip
        pairs = [word for key, offset in zip(keys, offsets, strict=True) for word in (key, b"%d" % offset)]
        words = self.words(b"KV.COMMIT", pairs, *self._options(ttl_s, group, parent), step=2)
        said: list[int] = yield Exchange(words, link=link)
        return said

    def store(self, tokens: Tokens, tensors: Any, ttl_s: int, group: bytes | None) -> Steps[list[int]]:
        """KV.STORE."""
        if not isinstance(tensors, list | tuple):
            tensors = [tensors]
        options = self._options(ttl_s, group, None)
        head = [*self.words(b"KV.STORE")[:-1], *options, tokens_of(tokens)]
        said: list[int] = yield Exchange([*head, *(memory_of(tensor) for tensor in tensors)])
        return said

    def declare(self, fields: dict[str, Any]) -> Steps[None]:
        """KV.MODEL SET."""
        words = [word for name, value in fields.items() for word in (name.upper().encode(), str(value).encode())]
        yield Exchange([b"KV.MODEL", b"SET", self.model, *words])


@dataclass(slots=True)
class Located:
    """Where blocks lie: `places` are [offset, size, checksum], the offset NOWHERE for what is not in host memory."""

    present: list[bool]
    places: list[list[int]]
    leased: list[bytes]
    end_s: float


Seen = tuple[list[View | None], Lease]


def _batches(memories: Sequence[memoryview], bytes_max: int = BATCH_BYTES) -> list[tuple[int, int]]:
    """[begin, end) of consecutive ones that go together."""
    found = []
    begin = size = 0
    for at, memory in enumerate(memories):
        if at > begin and (size + len(memory) > bytes_max or at - begin == BATCH_KEYS):
            found.append((begin, at))
            begin, size = at, 0
        size += len(memory)
    if begin < len(memories):
        found.append((begin, len(memories)))
    return found


def _bits(bitmap: bytes, count: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """[count] bool, bit i being byte i // 8's bit i % 8."""
    return np.unpackbits(np.frombuffer(bitmap, np.uint8), count=count, bitorder="little").view(np.bool_)


def _wrong_size(at: int, size: int, sink: memoryview) -> CommandError:
    return OutOfRange(f"ERR block {at} has {size} bytes, its buffer {len(sink)}")
