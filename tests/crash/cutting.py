"""An append-only file cut at every byte, and a folder damaged at random: what is whole is loaded, or refused by name.

    python -m tests.crash.cutting --cuts                 every byte of the last 64 KiB, and of the base
    python -m tests.crash.cutting --damages 5000         files missing, emptied, with a bit flipped

A file cut at any place must give exactly the state after its last whole command (or transaction), and no cut may
change a byte of what is in the folder but where it says so.
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

from tests.crash.loading import Loader, Refused
from tests.differential.generators import FAMILIES, story
from tests.fuzz.payloads import content
from tests.support import Server, wait_for
from zeekdb.server.replica import parse_command

NAME = "appendonly.aof"
LAST = 65536  # bytes that are cut off one by one
LEFT_OUT = {"acl"}
UNWANTED = (b"FLUSHALL", b"FLUSHDB", b"SWAPDB", b"DEBUG", b"SHUTDOWN", b"HELLO", b"QUIT", b"RESET", b"MONITOR")

State = dict[tuple[int, bytes], Any]


def make(place: Path, seed: int, size: int = LAST) -> Path:
    """A folder with a base and an increment of more than so many bytes, of all kinds of commands; a server's `dir`."""
    families = tuple(name for name in FAMILIES if name not in LEFT_OUT)
    dice = Random(seed)
    options = ("--dir", str(place), "--appendonly", "yes", "--appendfsync", "no", "--auto-aof-rewrite-percentage", "0")
    with Server(*options, "--save", "") as server, server.wire(30) as wire:
        wire.pipeline([command for command in story(seed, 1000, families) if command[0].upper() not in UNWANTED])
        wire("DISCARD")
        assert wire("BGREWRITEAOF") == "Background append only file rewriting started"
        wait_for(lambda: b"aof_rewrite_in_progress:0" in wire("INFO", "persistence"))
        while last(place).stat().st_size < size:
            for command in story(dice.getrandbits(30), 200, families):
                if command[0].upper() not in UNWANTED:
                    wire.pipeline([command])
            whole = [("MULTI",), ("INCR", "n"), ("RPUSH", "many", *range(dice.randrange(9))), ("SELECT", 1)]
            wire.pipeline([("DISCARD",), *whole, ("SET", "s", "x" * dice.randrange(999)), ("SELECT", 0), ("EXEC",)])
            wire("EVAL", "redis.call('incr', 'a') redis.call('append', 'b', ARGV[1]) return 1", 0, "y" * 40)
        server.terminate()
    return place


def last(place: Path) -> Path:
    """The file that was appended to."""
    files = [path for path in (place / "appendonlydir").iterdir() if path.name.endswith(".incr.aof")]
    return max(files, key=lambda path: int(path.name.split(".")[2]))


def state(loader: Loader) -> State:
    """Everything that was loaded, comparable."""
    found: State = {}
    for db in loader.databases:
        names = db.keys()
        found.update({(db.index, key): (content(db.peek(key)), db.deadline(key)) for key in names})
    found[-1, b"functions"] = loader.libraries()
    return found


def ends(data: bytes) -> list[int]:
    """Where one could stop reading and nothing would be missing: behind every command outside transactions."""
    at, found, inside, buffer = 0, [0], False, bytearray(data)
    while at < len(data):
        parsed = parse_command(buffer, at)
        assert parsed is not None
        words, at = parsed
        inside = words[0].upper() == b"MULTI" or (inside and words[0].upper() != b"EXEC")
        if not inside:
            found.append(at)
    return found


class Cutting:
    """One folder, cut and damaged."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.folder = place / "appendonlydir"
        self.strict = Loader(aof_load_truncated="no")
        self.seen: Counter[str] = Counter()

    def refusal(self) -> str:
        """Loads the folder; why it does not load, if so."""
        try:
            self.strict.load(self.place)
        except Refused as why:
            return str(why) or "without a word"
        return ""

    def cut_last(self, cuts: Iterable[int]) -> None:
        """The last file ends at these places, the largest first."""
        file = last(self.place)
        whole = file.read_bytes()
        stops = ends(whole)
        states: dict[int, State] = {}
        for cut in cuts:
            with file.open("r+b") as opened:
                opened.truncate(cut)
            stop = max(each for each in stops if each <= cut)
            why = self.refusal()
            said = re.search(r"unexpected end of file .*the last whole command ends at offset (\d+)", why)
            assert bool(said) == (cut != stop), f"cut at {cut}, the last command ends at {stop}: {why or 'loaded'}"
            assert said is None or int(said[1]) == stop, f"cut at {cut}: {why}; it ends at {stop}"
            self.seen["torn" if why else "whole"] += 1
            assert file.stat().st_size == cut
            now = state(self.strict)
            assert states.setdefault(stop, now) == now, f"cut at {cut}: not the state after {stop}"
        file.write_bytes(whole)

    def cut_base(self, cuts: Iterable[int]) -> None:
        """The base ends at these places: it is always refused."""
        base = next(self.folder.glob("*.base.rdb"))
        whole = base.read_bytes()
        for cut in cuts:
            with base.open("r+b") as opened:
                opened.truncate(cut)
            assert base.name in self.refusal(), f"the base cut at {cut} was loaded"
            self.seen["base refused"] += 1
            assert base.stat().st_size == cut
        base.write_bytes(whole)

    def damage(self, dice: Random) -> None:
        """One file is missing, emptied, or has a bit flipped; it is refused by name, or all of it is there.

        A flipped bit in a value is a value, and nobody can tell; but nothing may be cut off or changed on the disk,
        unless it is the last command that is broken.
        """
        files = sorted(self.folder.iterdir())
        path = dice.choice(files)
        whole = path.read_bytes()
        kind = dice.choice(("missing", "emptied", "flipped", "flipped", "flipped", "flipped"))
        if kind == "missing":
            path.unlink()
        else:
            changed = bytearray(whole if kind == "flipped" else b"")
            if changed:
                changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
            path.write_bytes(changed)
        before = {each.name: each.read_bytes() for each in self.folder.iterdir()}
        self.strict.config.aof_load_truncated = True
        why = self.refusal()
        self.strict.config.aof_load_truncated = False
        assert not why or self.folder.name in why, why
        self.seen[f"{kind} {path.suffix}: {'refused' if why else 'loaded'}"] += 1
        after = {each.name: each.read_bytes() for each in self.folder.iterdir()}
        for name, data in before.items():
            if data == after.get(name):
                continue
            assert name == last(self.place).name, f"{path.name} {kind}: {name} was changed"
            assert data.startswith(after[name]), f"{path.name} {kind}: {name} was changed"
            assert len(after[name]) >= ends(whole)[-2], f"{path.name} {kind}: whole commands were cut off"
            self.seen["the last command cut off"] += 1
        for name in after.keys() - before.keys():
            (self.folder / name).unlink()
        for name, data in {**before, path.name: whole}.items():
            (self.folder / name).write_bytes(data)


def main() -> None:
    """The long forms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", action="store_true")
    parser.add_argument("--damages", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="zeekdb-cutting-"))
    begin_s = time.monotonic()
    cutting = Cutting(make(place, options.seed))
    if options.cuts:
        size = last(place).stat().st_size
        cutting.cut_last(range(size, max(size - LAST, 0) - 1, -1))
        base = next(cutting.folder.glob("*.base.rdb"))
        cutting.cut_base(range(base.stat().st_size - 1, -1, -1))
    dice = Random(options.seed)
    for _ in range(options.damages):
        cutting.damage(dice)
    print(f"{time.monotonic() - begin_s:.0f} s: {dict(cutting.seen)}", flush=True)
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
