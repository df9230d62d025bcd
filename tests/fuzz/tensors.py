"""What the fuzzer sends to the tensor region: its commands, with arguments that lie.

Two models: `o` of opaque blocks, `l` with a layout whose blocks are large enough to be received in the arena. Plain
keys that begin with `t:` are the region's as well.
"""

from __future__ import annotations

import struct
from random import Random

from tests.support import Wire, encode, wait_for

DIRECTIVES = ("--kv-memory", "8mb", "--kv-namespace", "t:*", "plain", "--kv-lease-max", "60000")
LAYOUT = ("LAYERS", 2, "HEADS", 4, "DIM", 128, "DTYPE", "f16", "BLOCK", 16)
ROW_BYTES = 4 * 128 * 2
BLOCK_BYTES = 2 * 2 * 16 * ROW_BYTES
COUNTS = ("0", "-1", "65536", "65537", "4294967297", "x", "", "01", "9223372036854775808")
NUMBERS = ("0", "1", "-1", "2", "3", "16", "60000", "60001", "2147483648", "4294967296", "9223372036854775807", "x", "")
SIZES = (0, 1, 64, 1000, 65_533, 65_534, 65_536, 70_000, 200_000)
BY_KEYS = ("KV.MGET", "KV.LOOKUP", "KV.UNLOCK", "KV.EXISTS", "KV.DEL", "KV.PIN", "KV.UNPIN", "KV.PREFETCH", "KV.DEMOTE")
MODEL_OPTIONS = ("LAYERS", "HEADS", "DIM", "DTYPE", "BLOCK", "PARTS", "CODEC", "TTL", "QUOTA", "BOGUS")


def key(dice: Random) -> bytes:
    kind = dice.random()
    if kind < 0.9:
        return b"b%d" % dice.randrange(30)
    return dice.choice((b"", b"\0k0:0:1:1:s", b"\0k0:9:1:x:s", b"k" * 4096, b"k" * 4097, b"LEASE", b"1"))


def data(dice: Random) -> bytes:
    return b"d" * (BLOCK_BYTES if dice.random() < 0.3 else dice.choice(SIZES))


def tokens(dice: Random) -> bytes:
    """Prefixes of a few contexts."""
    count = dice.choice((0, 1, 15, 16, 17, 48, 64))
    first = 1000 * dice.randrange(3)
    return struct.pack(f"<{count}I", *range(first, first + count))[: -1 if dice.random() < 0.05 else None]


def options(dice: Random, *known: str) -> list[str | bytes]:
    """Some of them, now and then twice, unknown or without a value."""
    made: list[str | bytes] = []
    for name in known:
        if dice.random() < 0.25:
            made.append(name if dice.random() < 0.8 else name.lower())
            if name != "LOCATE" and dice.random() < 0.97:
                lies = name in ("TTL", "LEASE") and dice.random() < 0.3
                made.append(dice.choice(NUMBERS) if lies else b"%d" % dice.randrange(1, 4))
    return made * 2 if dice.random() < 0.02 else made


def count(dice: Random, right: int) -> str:
    return str(right) if dice.random() < 0.95 else dice.choice(COUNTS)


def by_key(dice: Random, model: str) -> list[str | bytes]:
    keys = [key(dice) for _ in range(dice.choice((1, 1, 2, 5, 40)))]
    if dice.random() < 0.45:
        pairs = [word for each in keys[:5] for word in (each, data(dice))]
        given = options(dice, "SALT", "TTL", "GROUP", "PARENT")
        return ["KV.MSET", model, *given, count(dice, len(pairs) // 2), *pairs]
    name = dice.choice(BY_KEYS)
    given = options(dice, "SALT", "LEASE", "LOCATE") if name == "KV.LOOKUP" else options(dice, "SALT")
    return [name, model, *given, count(dice, len(keys)), *keys]


def by_tokens(dice: Random, model: str) -> list[str | bytes]:
    context = tokens(dice)
    kind = dice.random()
    if kind < 0.5:
        whole = len(context) // 64 * BLOCK_BYTES
        tensors = [b"t" * (whole + dice.choice((0, 0, 0, 1, -1, BLOCK_BYTES)) if whole else 5)]
        if dice.random() < 0.3:
            tensors = [b"u" * BLOCK_BYTES for _ in range(len(context) // 64)]
        return ["KV.STORE", model, *options(dice, "SALT", "TTL", "GROUP"), context, *tensors]
    if kind < 0.75:
        layers = ["LAYERS", dice.choice(NUMBERS), dice.choice(NUMBERS)] if dice.random() < 0.5 else []
        return ["KV.FETCH", model, *options(dice, "SALT"), context, *layers]
    return ["KV.MATCH", model, *options(dice, "SALT"), context, *options(dice, "LEASE")]


def by_position(dice: Random, model: str) -> list[str | bytes]:
    begin = dice.randrange(40)
    end = begin + dice.choice((0, 1, 3, 16, 70))
    place = [b"s%d" % dice.randrange(3), str(dice.randrange(3)), str(begin), str(end)]
    if dice.random() < 0.1:
        place[dice.randrange(4)] = dice.choice(NUMBERS)
    if dice.random() < 0.4:
        return ["KV.GET", model, *options(dice, "SALT"), *place]
    size = (end - begin) * ROW_BYTES + (dice.random() < 0.1)
    return ["KV.PUT", model, *options(dice, "SALT", "TTL"), *place, b"k" * size, b"v" * size]


def others(dice: Random, model: str) -> list[str | bytes]:
    made = dice.choice((
        ["KV.STATS"], ["KV.STATS", model], ["KV.TIERS"], ["KV.MODEL", "LIST"], ["KV.MODEL", "GET", model],
        ["KV.TTL", model, key(dice)], ["KV.ATTACH"], ["KV.RESERVE", "2", dice.choice(NUMBERS), "70000"],
        ["KV.COMMIT", model, "1", key(dice), dice.choice(("0", "65536", "131072", "x", "9223372036854775807"))],
    ))  # fmt: skip
    if dice.random() < 0.2:
        words = [word for _ in range(dice.randrange(5)) for word in (dice.choice(MODEL_OPTIONS), dice.choice(NUMBERS))]
        made = ["KV.MODEL", "SET", dice.choice((model, "other")), *words]
    elif dice.random() < 0.05:
        made = ["KV.MODEL", "DEL", model]
    return made


def plain(dice: Random) -> list[str | bytes]:
    names = [b"t:%d%b" % (dice.randrange(8), dice.choice((b"", b"kv_bytes", b"metadata"))) for _ in range(3)]
    return dice.choice((
        ["SET", names[0], data(dice)], ["SET", names[0], data(dice)],
        ["SET", names[0], b"x", "EX", dice.choice(NUMBERS)], ["GET", names[0]],
        ["MGET", *names, "k1"], ["EXISTS", *names, "k1"], ["DEL", *names[:2]], ["UNLINK", names[0]],
    ))  # fmt: skip


def tensor_command(dice: Random) -> bytes:
    """One command on the wire."""
    model = dice.choice(("o", "l", "l", "plain", "none")) if dice.random() < 0.5 else "l"
    kind = dice.random()
    if kind < 0.4:
        made = by_key(dice, dice.choice(("o", model)))
    elif kind < 0.6:
        made = by_tokens(dice, model)
    elif kind < 0.75:
        made = by_position(dice, model)
    elif kind < 0.9:
        made = plain(dice)
    else:
        made = others(dice, model)
    if dice.random() < 0.03:
        del made[dice.randrange(1, len(made) + 1) :]
    if dice.random() < 0.02:
        made.insert(dice.randrange(len(made) + 1), data(dice))
    return encode(*made)


def fields(reply: list[bytes | int]) -> dict[bytes, int]:
    return dict(zip(reply[::2], reply[1::2], strict=True))  # type: ignore[arg-type]


def tidy_region(wire: Wire) -> None:
    """Between rounds: without models nothing may be left in the arena; then the models are there again."""
    assert wire("CONFIG", "SET", "kv-namespace", "") == "OK"
    for name in wire("KV.MODEL", "LIST"):
        wire("KV.MODEL", "DEL", name)
    wait_for(lambda: fields(wire("KV.TIERS")[0])[b"used_bytes"] == 0, 20, "the arena is empty")
    totals = fields(wire("KV.STATS"))
    assert (totals[b"leased_blocks"], totals[b"waiting_blocks"], totals[b"spilling_bytes"]) == (0, 0, 0)
    assert wire("CONFIG", "SET", "kv-namespace", "t:* plain") == "OK"
    wire("KV.MODEL", "SET", "o", "QUOTA", 3_000_000)
    wire("KV.MODEL", "SET", "l", *LAYOUT)
