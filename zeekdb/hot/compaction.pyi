from zeekdb.hot.keyspace import Keyspace

def configure(keyspace: Keyspace) -> None:
    """Whose values are moved."""

def urge() -> None:
    """A round begins now, however small the gaps are; `work` goes on with it."""

def work(budget_us: int) -> bool:
    """Goes on with a round, or begins one if there is reason to; True while there is more to do."""
