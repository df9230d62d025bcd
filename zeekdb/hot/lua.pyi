from collections.abc import Callable
from typing import Any

class ScriptError(Exception):
    """A script failed. `message` is the whole error reply; `counted`: a command's error, counted when it failed."""

    message: str
    counted: bool

class Interpreter:
    """One Lua state with Redis's sandbox. Runs one script at a time, on the thread that holds the GIL."""

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
    def run_chunk(self, reference: int, keys: list[bytes], args: list[bytes], name: bytes, protocol: int) -> Any:
        """EVAL: with KEYS and ARGV as globals. The reply, for a client of that protocol; ScriptError."""
    def run_function(self, reference: int, keys: list[bytes], args: list[bytes], name: bytes, protocol: int) -> Any:
        """FCALL: with keys and arguments as parameters."""
    def load(self, reference: int) -> None:
        """Runs a library's code, which may only register functions. ScriptError."""
    def collect(self) -> None:
        """Runs the garbage collector to its end."""
    def step(self) -> None:
        """Lets it go on a little."""
