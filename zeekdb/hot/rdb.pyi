from zeekdb.hot.keyspace import Database

VERSION: int  # of the format that is written: RDB 10
VERSION_MAX: int  # of what is read

class DamagedValue(ValueError):
    """Bytes that are no value. `empty`: they are one of a collection of nothing, which a loader leaves out."""

    empty: bool

def encode(db: Database, key: bytes, compress: bool = True) -> bytes | None:
    """The value of a key: the byte of its type, then Redis's serialisation (RDB 10). None when the key is absent.
    ValueError when its type has no form there."""

def dump(db: Database, key: bytes, compress: bool = True) -> bytes | None:
    """What DUMP replies: `encode`, two bytes of version, eight of CRC-64."""

def footer(payload: bytes) -> bytes:
    """The ten bytes that follow a payload, of a value or of functions."""

def check(data: bytes) -> None:
    """CommandError when a payload's version is newer than what is read, or its CRC differs."""

def verify(data: bytes) -> bytes:
    """The payload before its footer. CommandError as above."""

def skip_checksums(skip: bool) -> None:
    """Whether checksums are taken as they are: for tests that throw damaged payloads at a server."""

def decode(
    db: Database,
    key: bytes,
    data: bytes,
    start: int = 0,
    stop: int | None = None,
    whole: bool = False,
    deadline_ms: int = 0,
    string_max: int = 1 << 32,
    type: int = -1,
) -> int:
    """Stores what `encode` or a redis-server up to 7.4 made of a value, over whatever the key holds; where the value
    ended in `data`. Deadline 0: none. DamagedValue (and nothing is changed) when data[start:stop] begins with no value,
    or (`whole`) goes on behind it. `type`: the type's byte, where it does not stand in front of the value."""

def round_trip(db: Database, key: bytes, compress: bool = True) -> bool:
    """Replaces the value by what its serialisation says, with the deadline and the LRU or LFU field it has. False when
    the key is absent."""

def encode_string(text: bytes, compress: bool = True) -> bytes:
    """A string as Redis's files hold it: as an integer or LZF where that is shorter."""

def decode_string(data: bytes, offset: int = 0) -> tuple[bytes, int]:
    """The string that begins at an offset, and where it ends. DamagedValue."""

def encode_length(n: int) -> bytes:
    """A length as Redis's files hold it, 0 to 2^64 - 1."""

def decode_length(data: bytes, offset: int = 0) -> tuple[int, int]:
    """The length at an offset, and where it ends. DamagedValue."""

def unpack(kind: str, data: bytes) -> list[bytes] | None:
    """The elements of a "listpack", "ziplist" or "zipmap"; None when it is damaged. For tests and tools."""

