"""The `zeekdb` command, and `zeekdb-server` with redis-server's command line to the letter."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence

from zeekdb import __version__
from zeekdb.config.command_line import Refused, configured
from zeekdb.config.config import Config
from zeekdb.config.file import FileError
from zeekdb.config.units import ConfigError
from zeekdb.observe import log
from zeekdb.observe.info import REDIS_VERSION

PIDFILE_DEFAULT = "/var/run/zeekdb.pid"

USAGE = """\
Usage: zeekdb serve [FILE] [--directive value ...]
       zeekdb check FILE|FOLDER ... [--fix] [--json]
       zeekdb import FILE|FOLDER|URL [--to HOST:PORT] [--replace]
       zeekdb backup create|list|verify|restore|prune
       zeekdb tiers check [FILE] [--directive value ...] [--json]
       zeekdb migrate status|up|down URL|FILE
       zeekdb report NAME URL|FILE
       zeekdb --version
       zeekdb --help

serve takes what zeekdb-server takes: `zeekdb serve --help`. The others say more with --help, too.
"""

# The tools are imported when they are asked for: the server does not pay for them.
TOOLS = {
    "check": "zeekdb.tools.check",
    "import": "zeekdb.tools.importing",
    "backup": "zeekdb.tools.backup",
    "tiers": "zeekdb.tools.tiers",
    "migrate": "zeekdb.tools.migrate",
    "report": "zeekdb.tools.catalogue",
}

SERVER_USAGE = """\
Usage: {name} [/path/to/zeekdb.conf] [options] [-]
       {name} - (read config from stdin)
       {name} -v or --version
       {name} -h or --help

Examples:
       {name} (run the server with default conf)
       echo 'maxmemory 128mb' | {name} -
       {name} /etc/zeekdb/6379.conf
       {name} --port 7777
       {name} --port 7777 --save ""
       {name} /etc/myzeekdb.conf --loglevel verbose -
       {name} /etc/myzeekdb.conf --loglevel verbose
"""

LOGO = """
  ______         _    ____  ____
 |___  /___  ___| | _|  _ \\| __ )   ZeekDB {version}, Redis {redis}, {bits} bit
    / // _ \\/ _ \\ |/ / | | |  _ \\
   / /|  __/  __/   <| |_| | |_) |  Running in {mode} mode
  /____\\___|\\___|_|\\_\\____/|____/   Port: {port}
                                    PID: {pid}
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The zeekdb command; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if words[0] in ("-v", "-V", "--version", "version"):
        print(version())
        return 0
    if words[0] == "serve":
        return run_server(words[1:], "zeekdb serve")
    if words[0] in TOOLS:
        return run_tool(words[0], words[1:])
    print(f"zeekdb: there is no command '{words[0]}'\n\n{USAGE}", end="", file=sys.stderr)
    return 2


def run_tool(name: str, words: list[str]) -> int:
    """One of the tools; the exit status, 2 for a command line that makes no sense."""
    tool = importlib.import_module(TOOLS[name])
    before = None
    with contextlib.suppress(ValueError):  # not the main thread: whoever calls handles signals
        before = signal.signal(signal.SIGTERM, stop_tidily)
    try:
        status: int = tool.main(words)
    except SystemExit as stop:  # argparse has said what is wrong, or shown its help
        return stop.code if isinstance(stop.code, int) else 2
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
    return status


def stop_tidily(signum: int, frame: object) -> None:
    """Half-made files go away on the way out."""
    raise SystemExit(128 + signum)


def server_main(arguments: Sequence[str] | None = None) -> int:
    """zeekdb-server: redis-server's command line; returns the exit status."""
    return run_server(list(sys.argv[1:] if arguments is None else arguments), "zeekdb-server")


def version() -> str:
    """In the form that scripts pick redis-server's version from."""
    bits = 64 if sys.maxsize > 2**32 else 32
    return f"Redis server v={REDIS_VERSION} sha=00000000:0 malloc=libc bits={bits} build=zeekdb-{__version__}"


def run_server(words: list[str], name: str, serve: Callable[[Config], int] | None = None) -> int:
    """Read the configuration that the words name, and serve until told to stop."""
    if words and words[0] in ("-v", "--version"):
        print(version())
        return 0
    if words and words[0] in ("-h", "--help"):
        print(SERVER_USAGE.format(name=name), end="")
        return 0
    try:
        config = configured(words)
    except FileError as error:
        print(f"\n*** FATAL CONFIG FILE ERROR (ZeekDB {__version__}) ***\n{error}", file=sys.stderr)
        return 1
    except Refused as error:
        print(error, file=sys.stderr)
        return 1
    if serve is None:
        from zeekdb.server.server import serve as serve_for_real

        serve = serve_for_real
    try:
        prepare(config, bare=not words)
    except (OSError, ConfigError) as error:
        print(error, file=sys.stderr)
        return 1
    return serve(config)


# --- from a configuration to a process ----------------------------------------------------------------------------


def prepare(config: Config, *, bare: bool = False) -> None:
    """Make the process what the configuration says: folder, log, background, pidfile. OSError."""

    def enter_folder() -> None:
        try:
            os.chdir(config.dir)
        except OSError as error:
            raise ConfigError(error.strerror) from None
        config.dir = os.getcwd()

    enter_folder()
    config.on_change("dir", enter_folder)
    if config.daemonize:
        daemonize()
    log.configure(config.loglevel, config.logfile)
    config.on_change("loglevel", lambda: log.set_level(config.loglevel))
    write_pidfile(config)
    log.notice("ZeekDB is starting")
    log.notice("ZeekDB version=%s, redis_version=%s, pid=%d, just started", __version__, REDIS_VERSION, os.getpid())
    if bare:
        log.logger.warning(
            "Warning: no config file specified, using the default config. In order to specify a config file use "
            "zeekdb-server /path/to/zeekdb.conf"
        )
    else:
        log.notice("Configuration loaded")
    show_logo(config)
    log.notice("Server initialized")


def show_logo(config: Config) -> None:
    """The logo on a terminal or when asked for; test suites find the process id in it. Otherwise one line."""
    mode = "cluster" if config.cluster_enabled else "standalone"
    if config.always_show_logo or (not config.logfile and sys.stdout.isatty()):
        bits = 64 if sys.maxsize > 2**32 else 32
        logo = LOGO.format(
            version=__version__, redis=REDIS_VERSION, bits=bits, mode=mode, port=config.port, pid=os.getpid()
        )
        log.notice("%s", logo)
    else:
        log.notice("Running mode=%s, port=%d.", mode, config.port)


def daemonize() -> None:
    """Go to the background: a child in a session of its own, without a terminal."""
    if os.fork():
        os._exit(0)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    if null > 2:
        os.close(null)


def write_pidfile(config: Config) -> None:
    """Note the process id, where a pidfile is wanted; a folder that cannot be written is no reason to stop."""
    if config.daemonize and not config.pidfile:
        config.pidfile = PIDFILE_DEFAULT
    if config.pidfile:
        try:
            with open(config.pidfile, "w", encoding="ascii") as file:
                file.write(f"{os.getpid()}\n")
        except OSError as error:
            log.logger.warning("Failed to write PID file: %s", error.strerror)
