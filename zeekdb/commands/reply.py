"""Replies that no plain Python type says, and the shape of HELP. What the plain types become: `zeekdb.hot.replies`."""

from __future__ import annotations

from zeekdb.hot.replies import NULL_ARRAY, BigNumber, Error, NullArray, Pairs, Push, SpelledDouble, Verbatim

__all__ = ["NULL_ARRAY", "BigNumber", "Error", "NullArray", "Pairs", "Push", "SpelledDouble", "Verbatim", "help_lines"]


def help_lines(container: str, *lines: str) -> list[str]:
    """What `<container> HELP` replies: simple strings, the heading and the HELP entry included."""
    return [
        f"{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        *lines,
        "HELP",
        "    Prints this help.",
    ]
