"""The log: Redis's levels over `logging`, Redis's line format, a file that may be rotated under us.

    12345:M 02 Jan 2026 10:11:12.123 * Ready to accept connections

is process id, role (M primary, S replica, C child or before start, X sentinel), local time, level, message.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path

VERBOSE = 15
NOTICE = 25
LEVELS = {"debug": logging.DEBUG, "verbose": VERBOSE, "notice": NOTICE, "warning": logging.WARNING, "nothing": 100}
SIGNS = {logging.DEBUG: ".", VERBOSE: "-", NOTICE: "*"}

logger = logging.getLogger("zeekdb")
role = "M"  # replication changes it


class RedisFormatter(logging.Formatter):
    """Lines as redis-server writes them."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%d %b %Y %H:%M:%S", time.localtime(record.created))
        sign = "#" if record.levelno >= logging.WARNING else SIGNS.get(record.levelno, "-")
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return f"{os.getpid()}:{role} {clock}.{int(record.msecs):03d} {sign} {text}"


class Appender(logging.Handler):
    """Appends to a file that it opens for each line, as Redis does, so that log rotation needs no signal."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = Path(path).absolute()
        with self.path.open("a", encoding="utf-8", errors="surrogateescape"):
            pass  # a path that cannot be written is refused at the start, not at the first line

    def emit(self, record: logging.LogRecord) -> None:
        try:
            with self.path.open("a", encoding="utf-8", errors="surrogateescape") as file:
                file.write(self.format(record) + "\n")
        except OSError:
            pass  # a full disk must not stop the server; the next line tries again


def configure(level: str = "notice", logfile: str = "") -> None:
    """Set up logging for the process; again at any time. `logfile` empty: standard output. OSError."""
    handler: logging.Handler = Appender(logfile) if logfile else logging.StreamHandler(sys.stdout)
    handler.setFormatter(RedisFormatter())
    logging.addLevelName(VERBOSE, "VERBOSE")
    logging.addLevelName(NOTICE, "NOTICE")
    for old in list(logger.handlers):
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.propagate = False
    set_level(level)


def set_level(level: str) -> None:
    """By its name in redis.conf."""
    logger.setLevel(LEVELS[level])


def notice(message: str, *arguments: object) -> None:
    """Log at Redis's notice level."""
    logger.log(NOTICE, message, *arguments)


def verbose(message: str, *arguments: object) -> None:
    """Log at Redis's verbose level."""
    logger.log(VERBOSE, message, *arguments)
