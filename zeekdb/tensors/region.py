"""The tensor region: models, their tenants, and the three ways to name a block.

By *key*: the client's own name for a chunk. By *tokens*: blocks are named by a chain of hashes over token ids, so that
contexts with a common prefix name the same blocks and hold them once. By *position*: model, sequence, layer and token
range, with versions.

A tenant is a model and a salt; it has a space of its own in the index (`zeekdb.hot.region`), so equal keys under
different salts are different blocks.
"""

from __future__ import annotations

import hashlib
import math
import time
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from operator import attrgetter
from typing import Final

from zeekdb.errors import CommandError
from zeekdb.hot import region, region_device
from zeekdb.tensors.layout import Model

KEY_BYTES_MAX: Final = 16_384
SALT_BYTES_MAX: Final = 256
DEADLINE_S_MAX: Final = (1 << 32) - 1  # the index keeps Unix seconds in 32 bits
MODELS_MAX: Final = 1024
DIGEST_BYTES: Final = 16  # of a block's name by tokens: collisions would serve one context another's keys and values
TOKEN_BYTES: Final = 4
RANGES_MAX: Final = 65_536  # token ranges of one sequence and layer
TIDIED: Final = 4  # ranges looked at for each that is added: those whose blocks were evicted are forgotten in time


class NoSuchModel(CommandError):
    """The model was never declared."""

    def __init__(self, name: bytes) -> None:
        super().__init__(f"ERR no such model '{name.decode('utf-8', 'surrogateescape')}', KV.MODEL SET declares it")


@dataclass(slots=True)
class Tenant:
    """One model's blocks under one salt."""

    model: Model
    salt: bytes
    space: int
    positions: dict[tuple[bytes, int], list[Range]] = field(default_factory=dict)  # of each sequence and layer
    cursor: int = 0  # of the walk for what has expired
    tidy_at: int = 0  # of the walk for ranges whose blocks are gone, in the first list of `positions`


@dataclass(slots=True, frozen=True, order=True)
class Range:
    """Tokens of one sequence and layer that were stored together, their keys and values as two blocks."""

    begin: int
    end: int
    version: int

    def names(self, sequence: bytes, layer: int) -> tuple[bytes, bytes]:
        """The blocks' names: of the keys and of the values."""
        stem = b"%d:%d:%d:%d:%b" % (layer, self.begin, self.end, self.version, sequence)
        return b"\0k" + stem, b"\0v" + stem


@dataclass(slots=True, frozen=True)
class Piece:
    """What answers a part of a token range: tokens `begin` to `end` out of `source`."""

    begin: int
    end: int
    source: Range


def deadline_of(ttl_s: int) -> int:
    """Unix seconds at which a block that is stored now may be gone; 0: never, as of a `ttl_s` of 0."""
    return min(math.ceil(time.time()) + ttl_s, DEADLINE_S_MAX) if ttl_s else 0


def position_of(name: bytes) -> tuple[int, int, int, int, bytes] | None:
    """(layer, begin, end, version, sequence) of a block's name, if it is one by position."""
    parts = name[2:].split(b":", 4)
    if not name.startswith((b"\0k", b"\0v")) or len(parts) < 5 or not all(part.isdigit() for part in parts[:4]):
        return None
    layer, begin, end, version = map(int, parts[:4])
    return layer, begin, end, version, parts[4]


def newest_cover(ranges: Sequence[Range], begin: int, end: int) -> list[Piece]:
    """Disjoint pieces of [begin, end) in order, each from the newest of the ranges that hold it.

    `ranges` are in their order; the time is n·log n for n of them that reach into it.
    """
    relevant = [each for each in ranges if each.begin < end and each.end > begin]
    holders: list[tuple[int, int, Range]] = []  # a heap, the newest first; the ended go once they are at its top
    pieces: list[Piece] = []
    at, following = begin, 0
    while at < end:
        while following < len(relevant) and relevant[following].begin <= at:
            each = relevant[following]
            heappush(holders, (-each.version, each.end, each))
            following += 1
        while holders and holders[0][1] <= at:
            heappop(holders)
        upto = min(end, relevant[following].begin) if following < len(relevant) else end
        if holders:
            source = holders[0][2]
            upto = min(upto, source.end)
            if pieces and pieces[-1].source is source and pieces[-1].end == at:
                pieces[-1] = Piece(pieces[-1].begin, upto, source)
            else:
                pieces.append(Piece(at, upto, source))
        at = upto
    return pieces


def chain(tokens: bytes, block_tokens: int) -> list[bytes]:
    """The names of a context's whole blocks: `tokens` are little-endian uint32; what is left over names nothing.

    Each name is BLAKE2b over the name before it and the block's tokens: it stands for all tokens up to its end.
    """
    step = block_tokens * TOKEN_BYTES
    name = b""
    names = []
    for at in range(0, len(tokens) - step + 1, step):
        name = hashlib.blake2b(name + tokens[at : at + step], digest_size=DIGEST_BYTES).digest()
        names.append(name)
    return names


class Region:
    """Models and tenants. The blocks themselves are the index's."""

    def __init__(self) -> None:
        self.models: dict[bytes, Model] = {}
        self.tenants: dict[tuple[bytes, bytes], Tenant] = {}
        self.by_space: dict[int, Tenant] = {}
        self.devices: dict[bytes, int] = {}  # of models that have slots on a GPU, see hot/region_device.pyi
        self.last_version = 0
        self.nobody: int | None = None  # a space without blocks, for salts that nobody has stored under

    # ------------------------------------------------------------ models

    def model(self, name: bytes) -> Model:
        """NoSuchModel."""
        try:
            return self.models[name]
        except KeyError:
            raise NoSuchModel(name) from None

    def declare(self, model: Model) -> None:
        """Declares a model, or changes what may change of one that has blocks: TTL and quota."""
        old = self.models.get(model.name)
        if old is None and len(self.models) >= MODELS_MAX:
            raise CommandError(f"ERR there are {MODELS_MAX} models already")
        tenants = list(self.tenants_of(model.name))
        is_other = old is not None and (old.layout, old.codec) != (model.layout, model.codec)
        if is_other and any(region.space_stats(tenant.space)["blocks"] for tenant in tenants):
            shown = model.name.decode("utf-8", "surrogateescape")
            raise CommandError(f"ERR model '{shown}' has blocks of another layout, KV.MODEL DEL removes them")
        self.models[model.name] = model
        for tenant in tenants:
            tenant.model = model
            region.configure_space(tenant.space, model.quota_bytes)

    def forget(self, name: bytes) -> list[Tenant]:
        """Removes a model: the tenants, whose spaces the caller closes. NoSuchModel."""
        self.model(name)
        gone = list(self.tenants_of(name))
        del self.models[name]
        for tenant in gone:
            del self.tenants[(name, tenant.salt)]
            del self.by_space[tenant.space]
        return gone

    def tenants_of(self, name: bytes) -> Iterator[Tenant]:
        """Of one model, all salts."""
        return (tenant for (model, _), tenant in self.tenants.items() if model == name)

    # ------------------------------------------------------------ tenants

    def tenant(self, name: bytes, salt: bytes) -> Tenant:
        """The tenant, with a space of its own from its first use on. NoSuchModel."""
        found = self.tenants.get((name, salt))
        if found is not None:
            return found
        model = self.model(name)
        if len(salt) > SALT_BYTES_MAX:
            raise CommandError(f"ERR a salt has at most {SALT_BYTES_MAX} bytes")
        try:
            space = region.open_space(model.quota_bytes)
        except MemoryError:
            raise CommandError("ERR too many tenants") from None
        if name in self.devices:
            region_device.assign(space, self.devices[name])
        tenant = Tenant(model, salt, space)
        self.tenants[(name, salt)] = tenant
        self.by_space[space] = tenant
        return tenant

    def reader(self, name: bytes, salt: bytes) -> Tenant:
        """The tenant for a command that stores nothing: to name a salt does not make one. NoSuchModel."""
        found = self.tenants.get((name, salt))
        if found is not None:
            return found
        if not salt:
            return self.tenant(name, salt)  # one for each model, which counts what was missed
        if self.nobody is None:
            self.nobody = region.open_space()
        return Tenant(self.model(name), salt, self.nobody)

    def adopt_tenant(self, name: bytes, salt: bytes, codec: str) -> Tenant | None:
        """Whose block it is that was there before the server was; None: its model keeps blocks in another form.

        A model that is not known any more takes blocks of any size, as they came. CommandError.
        """
        if name not in self.models and codec == "raw":
            self.declare(Model(name))
        found = self.models.get(name)
        return self.tenant(name, salt) if found is not None and found.codec == codec else None

    # ------------------------------------------------------------ by position

    def add_range(self, tenant: Tenant, sequence: bytes, layer: int, begin: int, end: int) -> Range:
        """A new version of these tokens; ranges that it covers whole are forgotten by `covered`."""
        self._tidy(tenant)
        ranges = tenant.positions.setdefault((sequence, layer), [])
        if len(ranges) >= RANGES_MAX:
            raise CommandError(f"ERR a sequence has at most {RANGES_MAX} ranges a layer")
        self.last_version += 1
        added = Range(begin, end, self.last_version)
        insort(ranges, added)
        return added

    @staticmethod
    def _tidy(tenant: Tenant) -> None:
        """Goes on with the walk over all ranges; nobody tells when a block is evicted."""
        if not tenant.positions:
            return
        place, ranges = next(iter(tenant.positions.items()))
        at = tenant.tidy_at
        looked_at = ranges[at : at + TIDIED]
        live = [each for each in looked_at if Region.is_known(tenant, *place, each)]
        if len(live) < len(looked_at):
            ranges[at : at + TIDIED] = live
        tenant.tidy_at = at + len(live)
        if tenant.tidy_at >= len(ranges):  # to the end of the dictionary, or out of it
            tenant.tidy_at = 0
            del tenant.positions[place]
            if ranges:
                tenant.positions[place] = ranges

    def adopt_range(self, tenant: Tenant, name: bytes) -> None:
        """A block of keys by position that was there before the server was."""
        place = position_of(name) if name.startswith(b"\0k") else None
        if place is None:
            return
        layer, begin, end, version, sequence = place
        added, ranges = Range(begin, end, version), tenant.positions.setdefault((sequence, layer), [])
        at = bisect_left(ranges, added)
        if ranges[at : at + 1] != [added] and len(ranges) < RANGES_MAX:  # it may have been there before
            ranges.insert(at, added)
        self.last_version = max(self.last_version, version)

    @staticmethod
    def is_known(tenant: Tenant, sequence: bytes, layer: int, each: Range) -> bool:
        """Whether the index has both of its blocks, also in tiers that cannot be asked just now."""
        return all(region.describe(tenant.space, name) is not None for name in each.names(sequence, layer))

    @staticmethod
    def covered(tenant: Tenant, sequence: bytes, layer: int, by: Range) -> list[Range]:
        """Takes out the older ranges that `by` covers whole: nothing would be answered from them any more."""
        ranges = tenant.positions[(sequence, layer)]
        low = bisect_left(ranges, by.begin, key=attrgetter("begin"))
        high = bisect_left(ranges, by.end, key=attrgetter("begin"))
        within = ranges[low:high]
        old = [each for each in within if each is not by and each.end <= by.end]
        if old:
            ranges[low:high] = [each for each in within if each is by or each.end > by.end]
        return old

    @staticmethod
    def drop_range(tenant: Tenant, sequence: bytes, layer: int, gone: Range) -> None:
        """A range whose blocks are not there any more."""
        ranges = tenant.positions.get((sequence, layer), [])
        at = bisect_left(ranges, gone)
        if at < len(ranges) and ranges[at] == gone:
            del ranges[at]
        if not ranges:
            tenant.positions.pop((sequence, layer), None)
