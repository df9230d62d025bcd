"""Running scripts: which commands they may call, what one that does not end may do, and how it is killed."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from zeekdb.commands.context import Context
from zeekdb.commands.spec import Command, Flag
from zeekdb.errors import CommandError
from zeekdb.hot.gates import GATE_ACL, GATE_MONITOR, GATE_OOM, GATE_TRACKING
from zeekdb.hot.script_runner import Runner
from zeekdb.hot.script_runs import Run
from zeekdb.scripting.functions import Libraries
from zeekdb.scripting.scripts import Scripts
from zeekdb.scripting.shebang import ScriptFlag, script_flags

if TYPE_CHECKING:
    from zeekdb.server.client import Client
    from zeekdb.server.server import Server

log = logging.getLogger("zeekdb")

KNOWN_MAX = 4096  # spellings of command names remembered
MAY_NOT_BLOCK = frozenset({"XREAD", "XREADGROUP"})  # they see to it themselves that they do not wait
TELLS_REPLICAS = frozenset({"PUBLISH", "SPUBLISH", "PFCOUNT"})  # though they write nothing
LOAD_LIMIT_S = 0.5  # for the code of a library to run
BUSY_EVERY_S = 0.002  # how often others are served while a script runs on
LOG_LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING - 5, logging.WARNING)
UNKILLABLE = (
    "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait the script "
    "termination or kill the server in a hard way using the SHUTDOWN NOSAVE command."
)


class ScriptClient:
    """A script as the commands see it: the client that runs it, but for protocol, database and what SELECT does."""

    no_touch = False
    reply_mode = "on"
    gate = 0  # what stands before the client's own commands was asked when the script began

    def __init__(self, server: Server) -> None:
        self.server = server
        self.real: Any = None
        self.protocol = 2
        self.db_index = 0
        self.ctx = Context(server.keyspace, server.keyspace.databases[0], self, server)
        self.ctx.deny_blocking = self.ctx.in_script = True

    def take_place(self, client: Client) -> None:
        """Begin where `client` is."""
        self.real = client
        if self.db_index != client.db_index:
            self.select(client.db_index)

    def select(self, index: int) -> None:
        """SELECT inside the script. The client's own database stays what it is."""
        self.db_index = index
        self.ctx.db = self.server.keyspace.databases[index]
        if self.server.runner.running is not None:
            self.server.runner.running.use_database(self.ctx.db)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


# Index, declaration, handler, flags, arity, and whether a script may call it without any question but its arity.
Callee = tuple[int, Command, Any, int, int, bool]


class Figures(NamedTuple):
    """What INFO and MEMORY STATS tell."""

    scripts: int
    libraries: int
    functions: int
    eval_bytes: int  # of the interpreter
    function_bytes: int
    script_bytes: int  # of source
    library_bytes: int


class ScriptRunner(Runner):
    """Scripts and functions, and what they may do."""

    def __init__(self, server: Server) -> None:
        self.server = server
        super().__init__(server.engine, server.config.lua_memory_limit)
        for lua in (self.eval_lua, self.function_lua):
            lua.on_call = self.call
            lua.on_log = self._log
            lua.on_permission = self._permission
            lua.on_time = self._time
        self.scripts = Scripts(self.eval_lua)
        self.libraries = Libraries(self.function_lua)
        self.client = ScriptClient(server)
        self.load_begin_s = 0.0
        self.known: dict[bytes, Callee] = {}

    def figures(self) -> Figures:
        """Counts and sizes."""
        libraries = self.libraries.libraries.values()
        return Figures(
            len(self.scripts), len(libraries), len(self.libraries.functions), self.eval_lua.memory_used,
            self.function_lua.memory_used, self.scripts.memory, sum(len(library.code) for library in libraries),
        )  # fmt: skip

    def may_write(self, name: str, args: list[bytes]) -> bool:
        """Whether EVAL, EVALSHA or FCALL with these words may write; what cannot run does not."""
        if len(args) < 2:
            return False
        if name == "FCALL":
            function = self.libraries.functions.get(args[1].lower())
            return function is not None and not function.flags & ScriptFlag.NO_WRITES
        if name == "EVALSHA":
            script = self.scripts.find(args[1])
            return script is not None and not script.flags & ScriptFlag.NO_WRITES
        try:
            return not script_flags(args[1])[0] & ScriptFlag.NO_WRITES
        except CommandError:
            return False

    # ------------------------------------------------------------ running

    def prepare(self, run: Run) -> None:
        """Refuses what must not run now, and tells the monitors."""
        gate = self.engine.gate
        if gate & GATE_OOM:
            run.out_of_memory = self.server.is_out_of_memory()
        if not run.flags & ScriptFlag.COMPATIBLE:
            self._check_flags(run)
        if gate & GATE_MONITOR:
            self.server.feed_monitors(run.client, list(run.call))

    def finish(self, run: Run) -> None:
        """Remembers what a client that caches may have read."""
        self.client.real = None
        if run.read and run.client.gate & GATE_TRACKING:
            spec = self._find(run.call[0])[1]  # what it has read may be anything: its own keys stand for that
            self.server.tracking.remember(run.client, spec, list(run.call))
        if run.slow:
            log.warning("The slow script has ended after %d milliseconds.", run.duration_ms)

    def _check_flags(self, run: Run) -> None:
        """What a script with a first line of ours must not do now. CommandError."""
        flags = run.flags
        if run.read_only and not flags & ScriptFlag.NO_WRITES:
            raise CommandError("ERR Can not execute a script with write flag using *_ro command.")
        if not flags & ScriptFlag.NO_WRITES and (refusal := self.server.write_refusal()):
            raise CommandError(refusal)
        if run.out_of_memory and not flags & (ScriptFlag.ALLOW_OOM | ScriptFlag.NO_WRITES):
            raise CommandError(
                "OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'"
            )

    # ------------------------------------------------------------ commands

    def _find(self, name: bytes) -> Callee:
        """What a script calls by this name. CommandError."""
        known = self.known.get(name)
        if known is None:
            dispatcher = self.server.dispatcher
            index = dispatcher.index_of(name)
            if index is None:
                raise CommandError("ERR Unknown Redis command called from script")
            spec = dispatcher.specs[index]
            simple = not spec.subcommands and not spec.flags & (Flag.NOSCRIPT | Flag.BLOCKING)
            known = (index, spec, dispatcher.handlers[index], spec.flags, spec.arity, simple)
            if len(self.known) < KNOWN_MAX:
                self.known[name] = known
        return known

    def call(self, words: list[bytes]) -> Any:
        """redis.call: the reply. CommandError."""
        run, known = self.running, self.known.get(words[0])
        assert run is not None
        if not run.placed:
            run.placed = True
            self.client.take_place(run.client)
        if known is not None and run.plain and not run.read_only:
            index, _, handler, flags, arity, simple = known
            given = len(words)
            if simple and (arity == given or (arity < 0 and given >= -arity)):
                client = self.client
                client.protocol = self.function_lua.protocol if run.is_function else self.eval_lua.protocol
                if flags & Flag.WRITE:
                    run.wrote = True
                try:
                    return self.engine.run_counted(index, handler, client.ctx, client.db_index, words)
                except CommandError as error:
                    self.server.dispatcher.count_inner_error(error)
                    raise
        return self._call_with_care(run, words)

    def _call_with_care(self, run: Run, words: list[bytes]) -> Any:
        server = self.server
        index = -1
        try:
            index, spec, handler, flags, arity, _ = self._find(words[0])
            given = len(words)
            if spec.subcommands and given > 1:
                spec = spec.subcommands.get(words[1].decode("latin-1").upper(), spec)
                flags, arity = spec.flags, spec.arity
            if arity != given and (arity > 0 or given < -arity):
                raise CommandError("ERR Wrong number of args calling Redis command from script")
            if flags & (Flag.NOSCRIPT | Flag.BLOCKING) and spec.name not in MAY_NOT_BLOCK and not self.allows_all:
                raise CommandError("ERR This Redis command is not allowed from script")
            self._may_run(run, spec, words)
        except CommandError as error:
            if index >= 0:
                server.engine.count_call(index, 0.0, rejected=True)
            server.dispatcher.count_inner_error(error)
            raise
        run.read |= bool(flags & Flag.READONLY)
        client = self.client
        client.protocol = self.function_lua.protocol if run.is_function else self.eval_lua.protocol
        begin = time.perf_counter()
        failed = True
        try:
            reply = server.dispatcher.run_told(
                spec, client.db_index, words, lambda: server.dispatcher.perform(spec, client, words, handler)
            )
            failed = False
            return reply
        except CommandError as error:
            server.dispatcher.count_inner_error(error)
            raise
        finally:
            if "|" not in spec.name:  # a container counts for itself
                server.engine.count_call(index, (time.perf_counter() - begin) * 1e6, failed=failed)
            if server.engine.gate & GATE_MONITOR:
                server.feed_monitors(client, words, "lua")

    def _may_run(self, run: Run, spec: Command, words: list[bytes]) -> None:
        server = self.server
        if run.client.gate & GATE_ACL and (denied := server.acl.check(run.client, spec, words, "lua")) is not None:
            raise denied
        if run.read_only and spec.name in TELLS_REPLICAS:
            raise CommandError("ERR Write commands are not allowed from read-only scripts.")
        if spec.flags & Flag.WRITE:
            if run.read_only:
                raise CommandError("ERR Write commands are not allowed from read-only scripts.")
            if run.flags & ScriptFlag.COMPATIBLE and (message := server.write_refusal()):
                raise CommandError(message)
        if (
            run.out_of_memory and spec.flags & Flag.DENYOOM and not run.wrote
            and not run.flags & ScriptFlag.ALLOW_OOM
        ):  # fmt: skip
            raise CommandError("OOM command not allowed when used memory > 'maxmemory'.")
        if spec.flags & Flag.WRITE:
            run.wrote = True

    def _permission(self, words: list[bytes]) -> bool:
        run = self.running
        assert run is not None
        try:
            spec = self._find(words[0])[1]
        except CommandError:
            raise CommandError("ERR Invalid command passed to redis.acl_check_cmd()") from None
        if spec.subcommands and len(words) > 1:
            spec = spec.subcommands.get(words[1].decode("latin-1").upper(), spec)
        return self.server.acl.allows(run.client, spec, words)

    @staticmethod
    def _log(level: int, text: str) -> None:
        log.log(LOG_LEVELS[level], "%s", text)

    # ------------------------------------------------------------ time

    def load(self, code: bytes, replace: bool) -> str:
        """FUNCTION LOAD, within LOAD_LIMIT_S."""
        self.load_begin_s = time.monotonic()
        try:
            return self.libraries.load(code, replace)
        finally:
            self.load_begin_s = 0.0

    def _time(self) -> bytes | None:
        """Asked by the interpreter now and then: why the script must end, if it must."""
        now_s = time.monotonic()
        run = self.running
        if run is None:
            too_long = self.load_begin_s and now_s - self.load_begin_s > LOAD_LIMIT_S
            return b"ERR FUNCTION LOAD timeout" if too_long else None
        threshold_ms = self.server.config.busy_reply_threshold
        if threshold_ms <= 0 or (now_s - run.begin_s) * 1000 < threshold_ms:
            return None
        if not run.slow:
            run.slow = True
            log.warning(
                "Slow script detected: still in execution after %d milliseconds. You can try killing the script using "
                "the %s KILL command. Script name is: %s.",
                run.duration_ms, run.kill_word, run.name.decode("utf-8", "replace"),
            )  # fmt: skip
        if now_s - run.served_s > BUSY_EVERY_S:
            self.server.while_busy(run.client, self.busy_message(run))
            run.served_s = time.monotonic()
        if run.killed:
            log.warning("Lua script killed by user with %s KILL.", run.kill_word)
            return f"ERR Script killed by user with {run.kill_word} KILL.".encode()
        return None

    @staticmethod
    def busy_message(run: Run) -> str:
        """What others are told."""
        return (
            f"BUSY Redis is busy running a script. You can only call {run.kill_word} KILL or SHUTDOWN NOSAVE."
        )

    def kill(self, is_function: bool) -> None:
        """SCRIPT KILL and FUNCTION KILL. CommandError."""
        run = self.running
        if run is None:
            raise CommandError("NOTBUSY No scripts in execution right now.")
        if run.wrote:
            raise CommandError(UNKILLABLE)
        if run.is_function != is_function:
            raise CommandError(self.busy_message(run))
        run.killed = True
