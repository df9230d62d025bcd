from collections.abc import Sequence

class Hash:
    """A hash of the keyspace. The door owns nothing: it is good until its key is removed."""

    @property
    def encoding(self) -> str:
        """OBJECT ENCODING's word: "listpack", "listpackex" (of threes, with deadlines) or "hashtable"."""
    @property
    def timed(self) -> bool:
        """Whether fields may have deadlines (`Database.time_fields`)."""
    def __len__(self) -> int:
        """Fields that are due but not removed yet count, and for nothing else here are they there."""
    def __contains__(self, field: bytes) -> bool: ...
    def get(self, field: bytes) -> bytes | None: ...
    def get_many(self, fields: Sequence[bytes]) -> list[bytes | None]: ...
    def strlen(self, field: bytes) -> int:
        """Bytes of the field's value, 0 when absent."""
    def put(self, field: bytes, value: bytes) -> bool:
        """True when the field was created, False when it was there. It has no deadline then."""
    def change(self, field: bytes, value: bytes) -> bool:
        """As `put`, but a field that is there keeps its deadline."""
    def put_many(self, pairs: Sequence[bytes]) -> int:
        """Field, value, field, value …; how many fields were created."""
    def remove(self, field: bytes) -> bool: ...
    def fields(self) -> list[bytes]: ...
    def values(self) -> list[bytes]: ...
    def flat(self) -> list[bytes]:
        """Field, value, field, value …"""
    def items(self) -> list[tuple[bytes, bytes]]: ...
    def to_dict(self) -> dict[bytes, bytes]: ...
    def scan(self, cursor: int, count: int) -> tuple[int, list[bytes]]:
        """The next cursor (0: through) and field, value, field, value …; a small hash comes whole."""
    def random(self) -> tuple[bytes, bytes] | None:
        """Any pair, each as likely as the other; None when empty. `Database.expire_fields` comes first."""
    def sample(self, count: int) -> list[tuple[bytes, bytes]]:
        """`count` different pairs, or all of them. `Database.expire_fields` comes first."""
    def deadline(self, field: bytes) -> int:
        """-2 absent, -1 without deadline, otherwise Unix ms."""
    def set_deadline(self, field: bytes, deadline_ms: int) -> bool:
        """0 clears it. False when the field is absent. ValueError: over 48 bits, or without `Database.time_fields`."""
    def first_deadline(self) -> int:
        """Of all fields, Unix ms; 0 for none."""
    def faults(self) -> int:
        """Broken invariants of the deadlines: for tests."""
    def items_with_deadlines(self) -> list[tuple[bytes, bytes, int]]:
        """Field, value, deadline in Unix ms, 0 for none."""

def set_limits(*, entries: int | None = None, value: int | None = None) -> None:
    """hash-max-listpack-entries (fields) and hash-max-listpack-value (bytes). Present hashes stay as they are."""
