"""redis-server's command line: a file, directives as options, standard input."""

from __future__ import annotations

import sys
from collections.abc import Callable

from zeekdb.config.config import Config
from zeekdb.config.file import load, split_arguments
from zeekdb.config.units import quoted


class Refused(Exception):
    """A command line that cannot be served; the text says why."""


def configured(words: list[str], read_stdin: Callable[[], str] = lambda: sys.stdin.read()) -> Config:
    """The configuration that a command line describes. FileError, Refused."""
    if words and words[0] in ("--test-memory", "--check-system"):
        raise Refused(f"{words[0]} is redis-server's own; use memtest86 or the like for testing memory.")
    path, from_stdin, options = split_command_line(words)
    config = Config()
    try:
        load(config, path, read_stdin() if from_stdin else "", options)
    except OSError as error:
        raise Refused(f"Fatal error, can't open config file '{config.path}': {error.strerror}") from None
    return config


def split_command_line(words: list[str]) -> tuple[str, bool, str]:
    """(file, whether to read standard input too, directives as text of a configuration file).

    Redis's own rule: what begins with -- where a name can stand is a directive, all that follows up to the next one
    are its values, `--port 7000` may be one word, and a bare --save without value means `save ""`.
    """
    path = ""
    if words and not words[0].startswith("-"):
        path, words = words[0], words[1:]
    from_stdin, lines, name_may_stand = False, [], True
    for at, word in enumerate(words):
        if word == "-" and at in (0, len(words) - 1):
            from_stdin = True
        elif name_may_stand and word.startswith("--"):
            if word.lower().strip() == "--sentinel":
                raise Refused("Sentinel mode is redis-sentinel's; it can watch this server as it watches Redis.")
            lines.append(word[2:])
            following = words[at + 1] if at + 1 < len(words) else None
            whole = len(split_arguments(word) or []) != 1
            empty_save = word.lower() == "--save" and (following is None or following.startswith("--"))
            if empty_save:
                lines[-1] += ' ""'
            name_may_stand = whole or empty_save
        else:
            if not lines:
                lines.append("")
            lines[-1] += " " + quoted(word)
            name_may_stand = True
    return path, from_stdin, "\n".join(lines)
