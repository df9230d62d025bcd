from collections.abc import Callable
from typing import Any

class CommandTable:
    """The commands as the engine knows them: found by name, counted and timed."""

    ticks_per_us: float
    def register(
        self,
        name: str,
        arity: int,
        flags: int,
        keys: tuple[int, int, int],
        handler: Callable[..., Any],
        twin: str,
        callable: bool = True,
    ) -> int:
        """Makes a command known; `keys` is (first, last, step) or (0, 0, 0). Its index."""
    def set_role(self, index: int, role: str) -> None:
        """What the command is to a transaction: "queues", "begins" or "executes"."""
    def set_plain(self, index: int, plain: int) -> None:
        """The command at `plain` stands in for the one at `index` where a key is the tensor region's."""
    def set_journal_role(self, index: int, role: str) -> None:
        """What the command's calls are to the journal: "nests" (what it runs is told) or "wanders" (see kinds.pxd)."""
    def use_twins(self, wanted: bool, twin_of: dict[str, str]) -> None:
        """Tests: run hot commands by their twins, or by their Python handlers."""
    def command_stats(self, index: int) -> tuple[int, float, int, int, list[int]]:
        """Calls, microseconds, rejected, failed, and calls by log2 of their ticks."""
    def count_call(self, index: int, us: float, failed: bool = False, rejected: bool = False) -> None: ...
    def run_counted(self, index: int, handler: Callable[..., Any], ctx: Any, db: int, words: list[bytes]) -> Any:
        """The handler's reply to a call made outside the engine, counted, timed and told; the words are used up."""
    def count_outcome(self, index: int, failed: bool, rejected: bool) -> None: ...
    def count_late_failure(self, index: int) -> None: ...
    def reset_command_stats(self) -> None: ...
