"""What tests of the tensor region over its SSD tier share: a connection with words of its own, a disk that obeys."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from tests.support import Failure, Server, Wire, wait_for

MIB = 1 << 20
GPU, HOST, SSD = 1, 2, 3


@lru_cache(maxsize=1024)
def payload(seed: int, size: int = MIB) -> bytes:
    """The bytes of a block, random and always the same."""
    return random.Random(seed).randbytes(size)


class Kv:
    """A connection to the blocks of one model."""

    def __init__(self, server: Server, model: str = "m", timeout_s: float = 30) -> None:
        self.wire: Wire = server.wire(timeout_s)
        self.model = model

    def __enter__(self) -> Kv:
        return self

    def __exit__(self, *_: object) -> None:
        self.wire.close()

    def __call__(self, command: str, *words: bytes | str | int) -> Any:
        return self.wire(command, *words)

    def declare(self, *options: str | int) -> Kv:
        assert self("KV.MODEL", "SET", self.model, *options) == "OK"
        return self

    def of_keys(self, command: str, keys: Sequence[str | bytes], *options: str | int) -> Any:
        """`command model options n key …`."""
        reply = self(command, self.model, *options, len(keys), *keys)
        assert not isinstance(reply, Failure), reply
        return reply

    def store(self, blocks: dict[str, bytes], *options: str | int) -> list[int]:
        words = [word for pair in blocks.items() for word in pair]
        reply = self("KV.MSET", self.model, *options, len(blocks), *words)
        assert isinstance(reply, list), reply
        return reply

    def get(self, keys: Sequence[str | bytes], *options: str | int) -> list[bytes | None]:
        reply: list[bytes | None] = self.of_keys("KV.MGET", keys, *options)
        return reply

    def where(self, keys: Sequence[str | bytes], *options: str | int) -> list[int]:
        """The tier of each."""
        return list(self.of_keys("KV.LOOKUP", keys, *options)[2])

    def sink(self, keys: Sequence[str | bytes], *options: str | int) -> None:
        """All of them go below."""

        def is_below() -> bool:
            for key in keys:
                self.of_keys("KV.DEMOTE", [key], *options)
            return set(self.where(keys, *options)) <= {SSD}

        wait_for(is_below, 20, "all blocks are on the SSD")

    def tier(self, name: str = "ssd") -> dict[str, Any]:
        """What KV.TIERS says of one."""
        for words in self("KV.TIERS"):
            fields = {key.decode(): value for key, value in zip(words[::2], words[1::2], strict=True)}
            if fields["name"] == name.encode():
                return fields
        raise AssertionError(f"no tier {name}")

    def stats(self, *model: str) -> dict[str, Any]:
        words = self("KV.STATS", *model)
        return {key.decode(): value for key, value in zip(words[::2], words[1::2], strict=True)}

    def info(self, field: str) -> int:
        """Of INFO."""
        return int(self("INFO").split(f"\r\n{field}:".encode())[1].split(b"\r\n")[0])


# ---- a disk that does as it is told --------------------------------------------------------------------------------

SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
struct iovec;
static int told(const char *what, int *error) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("TELL_THE_DISK"), what);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    if (fscanf(file, "%d", error) != 1) *error = 0;
    fclose(file);
    return 1;
}
static int obey(const char *what) {
    int error = 0;
    while (told(what, &error)) {
        if (error) { errno = error; return -1; }
        usleep(1000);
    }
    return 0;
}
#define FORWARD(name, what) \\
    ssize_t name(int fd, const struct iovec *parts, int count, off64_t at, int flags) { \\
        if (obey(what)) return -1; \\
        return ((ssize_t (*)(int, const struct iovec *, int, off64_t, int))dlsym(RTLD_NEXT, #name)) \\
            (fd, parts, count, at, flags); \\
    }
FORWARD(preadv2, "read")
FORWARD(preadv64v2, "read")
FORWARD(preadv, "read")
FORWARD(preadv64, "read")
FORWARD(pwritev2, "write")
FORWARD(pwritev64v2, "write")
FORWARD(pwritev, "write")
FORWARD(pwritev64, "write")
int fdatasync(int fd) {
    if (obey("write")) return -1;
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
"""


class Disk:
    """What preadv, pwritev and fdatasync of a server do: hang, fail, or go on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "disk-orders"
        self.folder.mkdir()
        source, self.library = folder / "shim.c", folder / "shim.so"
        source.write_text(SHIM)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(self.library), str(source), "-ldl"], check=True)

    @property
    def environment(self) -> dict[str, str]:
        """For the server."""
        return {"LD_PRELOAD": str(self.library), "TELL_THE_DISK": str(self.folder)}

    def hang(self, what: str) -> None:
        """"read" or "write": until told to go on."""
        (self.folder / what).write_text("0")

    def fail(self, what: str, error: int) -> None:
        """With this errno."""
        (self.folder / what).write_text(str(error))

    def go_on(self, what: str) -> None:
        """As any disk."""
        (self.folder / what).unlink(missing_ok=True)
