from typing import Any

from zeekdb.hot.engine import Engine
from zeekdb.hot.lua import Interpreter
from zeekdb.hot.script_runs import Run

def key_count(words: tuple[bytes, ...], unreadable: str = ...) -> int:
    """How many keys a call has, of whose words the first says so. CommandError."""

class Runner:
    """The interpreters, for scripts and for functions, and the one run that is under way."""

    engine: Engine
    eval_lua: Interpreter
    function_lua: Interpreter
    running: Run | None
    allows_all: bool  # scripts may call what they otherwise may not
    def __init__(self, engine: Engine, memory_limit: int) -> None: ...
    def run(
        self, client: Any, is_function: bool, reference: int, name: bytes, flags: int, read_only: bool, nkeys: int,
        words: tuple[bytes, ...],
    ) -> Any:
        """The reply of a script or function; `words` is the whole call, of which `nkeys` from the fourth on are keys.

        ScriptError; CommandError when `prepare` does not let it run.
        """
    def prepare(self, run: Run) -> None:
        """To be overridden: called first, unless the script may do all and nobody listens. CommandError."""
    def finish(self, run: Run) -> None:
        """To be overridden: called last, if `prepare` was, or a call went through Python, or it was slow."""
