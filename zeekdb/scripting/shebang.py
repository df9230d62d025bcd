"""The first line of a script or library: `#!lua name=… flags=no-writes,allow-oom`."""

from __future__ import annotations

from typing import Final

from zeekdb.config.file import split_arguments
from zeekdb.errors import CommandError


class ScriptFlag:
    """What a script says of itself, with Redis's names (`NO_WRITES` is `no-writes`)."""

    NO_WRITES: Final = 1
    ALLOW_OOM: Final = 2
    ALLOW_STALE: Final = 4
    NO_CLUSTER: Final = 8
    ALLOW_CROSS_SLOT_KEYS: Final = 16
    COMPATIBLE: Final = 32  # none of ours: no first line, so the old rules hold


FLAGS: Final = {
    name.lower().replace("_", "-"): value
    for name, value in vars(ScriptFlag).items()
    if name.isupper() and name != "COMPATIBLE"
}


def flag_words(flags: int) -> list[str]:
    """As FUNCTION LIST prints them."""
    return [name for name, value in FLAGS.items() if flags & value]


def script_flags(body: bytes) -> tuple[int, bytes]:
    """An EVAL script's flags and its Lua code. CommandError."""
    if not body.startswith(b"#!"):
        return ScriptFlag.COMPATIBLE, body
    head, newline, _ = body.partition(b"\n")
    if not newline:
        raise CommandError("ERR Invalid script shebang")
    words = head.split()
    if words[0] != b"#!lua":
        raise CommandError(f"ERR Unexpected engine in script shebang: {words[0].decode('utf-8', 'surrogateescape')}")
    flags = 0
    for word in words[1:]:
        text = word.decode("utf-8", "surrogateescape")
        if not text.startswith("flags="):
            raise CommandError(f"ERR Unknown lua shebang option: {text}")
        for name in filter(None, text.removeprefix("flags=").split(",")):
            if name not in FLAGS:
                raise CommandError(f"ERR Unexpected flag in script shebang: {name}")
            flags |= FLAGS[name]
    return flags, body[len(head) :]  # the line stays, empty, so that errors name the right one


def library_header(code: bytes) -> tuple[str, str, bytes]:
    """A library's engine, its name and its Lua code. CommandError."""
    if not code.startswith(b"#!"):
        raise CommandError("ERR Missing library metadata")
    head, newline, _ = code.partition(b"\n")
    if not newline:
        raise CommandError("ERR Invalid library metadata")
    words = split_arguments(head[2:].decode("utf-8", "surrogateescape"))
    if words is None:
        raise CommandError("ERR Invalid library metadata")
    engine = words.pop(0) if words and not head[2:3].isspace() else ""
    name = ""
    for word in words:
        key, equals, value = word.partition("=")
        if key.lower() != "name" or not equals:
            raise CommandError(f"ERR Invalid metadata value given: {word}")
        if name:
            raise CommandError("ERR Invalid metadata value, name argument was given multiple times")
        name = value
    if not name:
        raise CommandError("ERR Library name was not given")
    return engine, name, code[len(head) :]
