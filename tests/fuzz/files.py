"""Fuzzes what reads files at start: RDB images, append-only files and their manifests, from both servers, damaged.

Such a file has to be refused with a message, or give databases that hold together: all of them can be read and written
to an image again. Checksums are right, wrong or absent; what is loaded takes no more memory than the file explains.

    python -m tests.fuzz.files --seed 7 --count 100000
"""

from __future__ import annotations

import resource
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.crash.loading import Loader, Refused
from tests.differential.generators import FAMILIES, story
from tests.fuzz.payloads import STEP_S, content, damaged
from tests.fuzz.plays import arguments, guarded
from tests.support import REDIS, ZEEKDB, Server, encode, wait_for
from zeekdb.errors import CommandError
from zeekdb.hot.crc64 import crc64
from zeekdb.hot.rdb import DamagedValue
from zeekdb.persistence import rdb
from zeekdb.persistence.manifest import BadManifest, Manifest

NAME = "appendonly.aof"
COMMANDS = 400  # of which a sound file is made
VARIANTS = 40  # damaged ones of each sound file
EXPLAINED = 1 << 24, 300  # bytes that may be used: so many, and so many for each byte of the file (LZF's best)
RESIDENT = 3 << 30  # bytes of the process at any time; a sanitizer's share included
LEFT_OUT = {"acl", "transaction", "scripting"}
# What an append-only file never holds, and what would do more than change data.
UNWANTED = {b"HELLO", b"QUIT", b"RESET", b"DEBUG", b"SHUTDOWN", b"CLIENT", b"CONFIG", b"MONITOR", b"SWAPDB"}
MANIFEST = f'file {NAME}.1.base.rdb seq 1 type b\nfile {NAME}.1.incr.aof seq 1 type i\nfile "a\\x20b" seq 2 type h\n'

Sound = tuple[bytes, ...]


def written(program: tuple[str, ...], seed: int) -> tuple[bytes, bytes]:
    """An RDB file and an increment that a server has made of a story."""
    families = tuple(name for name in FAMILIES if name not in LEFT_OUT)
    commands = [command for command in story(seed, COMMANDS, families) if command[0].upper() not in UNWANTED]
    plain = {"LD_PRELOAD": "", "PYTHONMALLOC": ""}  # a sanitizer is for who reads
    with Server("--appendonly", "yes", "--save", "", program=program, environment=plain) as server:
        with server.wire(30) as wire:
            wire.pipeline([("SELECT", 0), *commands])
            wire("FUNCTION", "LOAD", "#!lua name=l\nredis.register_function('f', function() return 1 end)")
            wait_for(lambda: wire("SAVE") == "OK")
            wait_for(lambda: b"aof_rewrite_in_progress:0" in wire("INFO", "persistence"))
        server.terminate()
        increments = sorted((server.directory / "appendonlydir").glob("*.incr.aof"))
        return (server.directory / "dump.rdb").read_bytes(), max((path.read_bytes() for path in increments), key=len)


class Files:
    """Sound files, and what becomes of damaged copies of them."""

    def __init__(self, seed: int) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="zeekdb-fuzz-"))
        programs = [ZEEKDB] + [REDIS] * bool(shutil.which(REDIS[0]))
        made = [written(program, seed + number) for number in range(2) for program in programs]
        self.images = [image for image, _ in made]
        self.increments = [increment for _, increment in made]
        self.loader = Loader()
        self.seen: Counter[str] = Counter()

    def small(self, dice: Random, image: bytes) -> bytes:
        """An image of a few keys of another, as this server writes it: damage then hits more often what matters."""
        self.loader.empty()
        rdb.load(self.loader.server.keyspace, image)
        for db in self.loader.databases:
            for key in db.keys():  # noqa: SIM118
                if dice.random() < 0.9:
                    db.remove(key)
        return rdb.image(self.loader.databases, self.loader.libraries() if dice.random() < 0.3 else b"")

    def image(self, dice: Random) -> None:
        """Variants of an RDB file, loaded as DEBUG RELOAD and a start do it."""
        sound = dice.choice(self.images)
        if dice.random() < 0.7:
            sound = self.small(dice, sound)
        self.loader.empty()
        self.add_image(sound)
        for _ in range(VARIANTS):
            bad = damaged(dice, sound[:-8])
            outcome = dice.random()
            bad += crc64(bad).to_bytes(8, "little") if outcome < 0.45 else bytes(8) if outcome < 0.9 else sound[-8:]
            self.try_one("image", bad, lambda data=bad: self.add_image(data))  # type: ignore[misc]

    def add_image(self, data: bytes) -> None:
        """DamagedValue, CommandError."""
        loaded = rdb.load(self.loader.server.keyspace, data, replace=True, keep_expired=len(data) % 2 == 0)
        for code in loaded.libraries:
            self.loader.server.runner.load(code, True)

    def increment(self, dice: Random) -> None:
        """Variants of an append-only file, with an image in front or not."""
        whole = dice.choice(self.increments)
        starts = [at for at in range(0, len(whole), 97) if whole[at : at + 1] == b"*"] or [0]
        begin = dice.choice(starts) if dice.random() < 0.5 else 0
        sound = whole[begin : begin + int(2 ** dice.uniform(4, 14))]
        preamble = dice.random() < 0.3
        if preamble:
            sound = self.small(dice, dice.choice(self.images)) + sound
        for _ in range(VARIANTS):
            bad = damaged(dice, sound)
            if dice.random() < 0.1:
                bad += dice.choice((bytes(600), encode("SET", "a", "b"), b"*3\r\n$3\r\nSET\r\n$9999\r\n", b"#TS:1\r\n"))
            self.try_one("increment", bad, lambda data=bad: self.load_file(data))  # type: ignore[misc]

    def load_file(self, data: bytes) -> None:
        """As the only file of an append-only file. Refused."""
        folder = self.place / "appendonlydir"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / f"{NAME}.manifest").write_text(f"file {NAME}.1.base.aof seq 1 type b\n")
        (folder / f"{NAME}.1.base.aof").write_bytes(data)
        self.loader.load(self.place)

    def manifest(self, dice: Random) -> None:
        """Variants of a manifest."""
        for _ in range(VARIANTS):
            text = damaged(dice, MANIFEST.encode() * dice.choice((1, 1, 3))).decode("utf-8", "surrogateescape")

            def parse(text: str = text) -> None:
                manifest = Manifest.parse(text)
                again = Manifest.parse(manifest.text())
                assert (again.base, again.increments, again.history) == (
                    manifest.base, manifest.increments, manifest.history,
                )  # fmt: skip

            self.try_one("manifest", b"", parse)

    def try_one(self, what: str, data: bytes, load: Callable[[], None]) -> None:
        """It is refused, or what it gives holds together."""
        self.loader.empty()
        before = self.loader.server.keyspace.memory_used()
        try:
            load()
            self.seen[f"{what}: taken"] += 1
        except (DamagedValue, CommandError, Refused, BadManifest) as why:
            self.seen[f"{what}: refused" if str(why) else f"{what}: refused without a word"] += 1
        if what == "manifest":
            return
        used = self.loader.server.keyspace.memory_used() - before
        assert used < EXPLAINED[0] + EXPLAINED[1] * len(data), f"{used} bytes of memory for {len(data)} of a file"
        assert self.loader.faults() == 0
        for db in self.loader.databases:
            for key in db.keys():  # noqa: SIM118
                content(db.peek(key))
        assert rdb.image(self.loader.databases)


def fuzz(seed: int, count: int, seconds: float = float("inf"), only: int | None = None) -> Counter[str]:
    """So many damaged files, or until the time is over; what became of them."""
    end = time.monotonic() + seconds
    files = Files(seed)
    number = only or 0
    try:
        while files.seen.total() < count and time.monotonic() < end:
            dice = Random(f"{seed}/{number}")
            with guarded(f"file {number} of seed {seed}", STEP_S):
                dice.choices((files.image, files.increment, files.manifest), (6, 4, 1))[0](dice)
            number += 1
            resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            assert resident < RESIDENT, f"{resident >> 20} MiB resident after file {number - 1} of seed {seed}"
            if only is not None:
                break
    finally:
        shutil.rmtree(files.place)
    return files.seen


def main() -> None:
    """Parse the arguments and fuzz."""
    seen = fuzz(*arguments("Fuzz the readers of files", "files"))
    print(f"files: {seen.total()} damaged ones without a finding: {dict(sorted(seen.items()))}", flush=True)


if __name__ == "__main__":
    main()
