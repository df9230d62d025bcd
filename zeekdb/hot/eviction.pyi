from zeekdb.hot.keyspace import Keyspace

def configure(
    keyspace: Keyspace, limit: int, policy: str, samples: int, tenacity: int, gaps: int = 4 << 20
) -> None:
    """maxmemory (bytes; 0: no limit), maxmemory-policy, maxmemory-samples, maxmemory-eviction-tenacity.

    `gaps`: bytes of unused memory in pages that are tolerated.
    """

def make_room() -> None:
    """Evicts for a while, if there is reason to."""

def is_stuck() -> bool:
    """Whether more memory is used than allowed and nothing may go."""

def exceeded_ms() -> tuple[int, int]:
    """How long more has been used than allowed: this time (0 when not), and altogether, in ms."""
