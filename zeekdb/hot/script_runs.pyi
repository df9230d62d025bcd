from typing import Any

class Run:
    """A script or function under way."""

    client: Any
    name: bytes  # SHA-1 of the script, or the function's name
    call: tuple[bytes, ...]  # all words of the command
    flags: int  # scripting.shebang.ScriptFlag
    is_function: bool
    begin_s: float  # time.monotonic
    served_s: float  # when others were served last while it ran on
    read_only: bool
    out_of_memory: bool  # when it began
    plain: bool  # nothing stands between the script and what it calls
    placed: bool  # the server's ScriptClient stands for this run
    wrote: bool  # has called a command that writes
    read: bool  # has called one that reads, while that is of interest
    killed: bool
    slow: bool
    def use_database(self, database: Any) -> None:
        """SELECT inside the script."""
    @property
    def duration_ms(self) -> int: ...
    @property
    def kill_word(self) -> str:
        """FUNCTION or SCRIPT."""
