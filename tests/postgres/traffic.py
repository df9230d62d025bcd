"""Traffic that a seed makes: blocks and accesses as rows of the catalogue, and as Python objects to compute with."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

from zeekdb.tiers.envelope import digest
from zeekdb.tiers.tier import Name

NOW = datetime(2026, 3, 5, 10, 17, 23, 456789, tzinfo=UTC)
NASTY = (
    b"it's; DROP TABLE zeekdb.kv_cache_metadata; --", b'"quoted" \\ back\\slash', b"a:b/c?d=e&f#g %s $1 {0}",
    b"\x00nul\x00\x00", b"\xff\xfe not UTF-8 \x80", "größe — 日本語".encode(), b"\n\r\t\x1b[31m", b"n" * 10_240,
    b"n" * 10_239 + b"m", b"E'\\047'", b"\\000", b"",
)  # fmt: skip
TIERS = ("host", "ssd", "warm", "postgres", "objects", "none")


@dataclass
class Block:
    """A row of kv_cache_metadata."""

    name: Name
    checksum: int
    size: int
    plain_size: int
    stored_size: int
    created: datetime
    access_count: int = 0
    layer: tuple[int, int] = (0, 0)
    tokens: tuple[int, int] = (0, 0)
    sequence: bytes = b""
    levels: tuple[str, ...] = ()
    deadline: int = 0
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> bytes:
        return bytes.fromhex(digest(self.name))


@dataclass
class Access:
    """A row of kv_cache_access_log."""

    at: datetime
    block: Block
    kind: str
    tier: str
    hit: bool
    latency_us: int
    request: int
    size: int | None = None  # as the log has it


COLUMNS = ("digest", "created_at", "updated_at", "accessed_at", "access_count", "size", "plain_size", "stored_size",
           "checksum", "deadline", "layer_from", "layer_to", "token_from", "token_to", "model", "salt", "key",
           "sequence", "levels", "metadata")  # fmt: skip
LOG_COLUMNS = ("at", "request_id", "latency_us", "bytes", "hit", "digest", "access_type", "tier", "model", "salt")


def make_blocks(dice: random.Random, count: int, models: tuple[bytes, ...], now: datetime = NOW) -> list[Block]:
    """Blocks of sequences: each of a model, some layers and a piece of 256 tokens or, overlapping the next, 300."""
    made = []
    for number in range(count):
        first = dice.randrange(0, 64) * 256
        layer = dice.randrange(0, 8) * 4
        size = dice.randrange(1, 1 << 20)
        made.append(
            Block(
                Name(dice.choice(models), dice.choice((b"", b"acme", b"\x00'")), b"key-%d" % number),
                dice.getrandbits(64) - (1 << 63),
                size,
                dice.choice((0, size, size * 2)),
                dice.choice((0, dice.randrange(1, size + 1))),
                now - timedelta(seconds=dice.uniform(0, 3 * 86_400)),
                int(dice.paretovariate(0.8)) % 5000 if dice.random() < 0.7 else 0,
                (layer, layer + dice.choice((1, 4))),
                (first, first + dice.choice((256, 256, 300))),
                b"seq-%d" % dice.randrange(4) if dice.random() < 0.9 else b"",
                tuple(sorted(dice.sample(("warm", "postgres", "objects"), dice.randrange(0, 3)))),
                metadata={"topic": dice.choice(("law", "code")), "user": {"id": dice.randrange(5)}},
            )
        )
    return made


def make_accesses(
    dice: random.Random, count: int, blocks: list[Block], *, span_s: float = 3 * 86_400, now: datetime = NOW
) -> list[Access]:
    """Accesses of the time before `now`, in order; the last hours have more than their share."""
    made = []
    for number in range(count):
        ago = dice.uniform(0, span_s if dice.random() < 0.4 else 4 * 3600)
        tier = dice.choice(TIERS)
        kind = dice.choice(("read", "read", "read", "lookup", "write", "delete"))
        scale = {"host": 20, "ssd": 800, "warm": 2500, "postgres": 6000, "objects": 15_000, "none": 5}[tier]
        latency = int(dice.lognormvariate(0, 1.0) * scale)
        hit = tier != "none" and dice.random() < 0.8
        block = dice.choice(blocks)
        size = block.size if dice.random() < 0.9 else None
        made.append(Access(now - timedelta(seconds=ago), block, kind, tier, hit, latency, number, size))
    return sorted(made, key=lambda access: access.at)


async def store_blocks(connection: Any, blocks: list[Block]) -> None:
    """By COPY, as a writer does."""
    rows = [
        (b.digest, b.created, b.created, b.created, b.access_count, b.size, b.plain_size, b.stored_size, b.checksum,
         b.deadline, *b.layer, *b.tokens, b.name.model, b.name.salt, b.name.key, b.sequence, list(b.levels),
         json.dumps(b.metadata))
        for b in blocks
    ]  # fmt: skip
    await connection.copy_records_to_table(
        "kv_cache_metadata", schema_name="zeekdb", columns=COLUMNS, records=rows, timeout=60
    )


async def store_accesses(connection: Any, accesses: list[Access]) -> None:
    """By COPY, after the days' partitions."""
    days = [access.at.date() for access in accesses]
    await connection.execute("SELECT zeekdb.ensure_log_partitions($1, $2)", min(days), max(days))
    rows = [
        (a.at, a.request, a.latency_us, a.size, a.hit, a.block.digest, a.kind, a.tier, *a.block.name[:2])
        for a in accesses
    ]
    await connection.copy_records_to_table(
        "kv_cache_access_log", schema_name="zeekdb", columns=LOG_COLUMNS, records=rows, timeout=60
    )


def percentile(values: list[int], share: float) -> int:
    """The smallest of the values that at least this share of them does not exceed."""
    ordered = sorted(values)
    return next(value for rank, value in enumerate(ordered, 1) if rank >= Fraction(str(share)) * len(ordered))
