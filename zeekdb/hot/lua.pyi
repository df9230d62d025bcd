from collections.abc import Callable
from typing import Any

from zeekdb.errors import CommandError
from zeekdb.hot.script_runs import Run

class ScriptError(CommandError):
    """A script failed. `counted`: a command's error, counted when that failed."""

    counted: bool

class Interpreter:
    """One Lua state with Redis's sandbox. Runs one script at a time, on the thread that holds the GIL."""

    run: Run | None  # whose script it is: the direct way to the twins
    on_call: Callable[[list[bytes]], Any]
    on_register: Callable[[bytes, int, list[bytes], bytes | None], None]
    on_log: Callable[[int, str], None]
    on_permission: Callable[[list[bytes]], bool]
    on_time: Callable[[], bytes | None]
    def __init__(self, memory_limit: int) -> None: ...
    @property
    def protocol(self) -> int:
        """2, or 3 once the running script has asked for it."""
    @property
    def memory_used(self) -> int: ...
    memory_limit: int
    def compile(self, source: bytes, name: bytes) -> int:
        """A reference to the compiled chunk; `name` as "@user_script". ScriptError with the compiler's message."""
    def release(self, reference: int) -> None:
        """Forgets a chunk or function."""
    def execute(
        self, reference: int, words: tuple[bytes, ...], first: int, nkeys: int, name: bytes, protocol: int,
        as_arguments: bool,
    ) -> Any:
        """Runs a chunk or function: `nkeys` words from `first` on are its keys, what follows its arguments.

        It gets them as parameters, or as the globals KEYS and ARGV. The reply, for a client of that protocol.
        ScriptError.
        """
    def load(self, reference: int) -> None:
        """Runs a library's code, which may only register functions. ScriptError."""
    def collect(self) -> None:
        """Runs the garbage collector to its end."""
    def step(self) -> None:
        """Lets it go on a little."""
