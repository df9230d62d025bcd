from collections.abc import Iterable
from types import TracebackType

class Call:
    """Frames a call that is made outside the engine: `with Call() as call: …`."""

    def __enter__(self) -> Call: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    @property
    def wants(self) -> bool:
        """Whether the call has changed something and not said what it comes to: its words are to be told."""

def tell(db: int, words: Iterable[bytes]) -> None:
    """A command of what the call under way comes to; without words: it comes to nothing."""

def is_open() -> bool:
    """Whether somebody listens."""

def set_open(value: bool) -> None: ...
def forget_database() -> None:
    """What comes next begins with a SELECT."""

def end() -> int:
    """Bytes ever told."""

def take() -> bytes:
    """What was told since the last time. Not while a call is under way."""
