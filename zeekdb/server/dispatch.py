"""From a parsed command to its handler: registration, the slow path behind the gates, and error accounting."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from zeekdb.commands.kv_plain import PLAIN, PLAIN_TWINS
from zeekdb.commands.spec import REGISTRY, Command, Flag
from zeekdb.errors import CommandError, Refused, WrongArity
from zeekdb.hot.engine import Engine
from zeekdb.hot.gates import (
    GATE_ACL,
    GATE_AUTH,
    GATE_BUSY,
    GATE_LOADING,
    GATE_MONITOR,
    GATE_OOM,
    GATE_PAUSED,
    GATE_READONLY,
    GATE_REPLY,
    GATE_SUBSCRIBED,
    GATE_TRACKING,
)
from zeekdb.hot.journal import Call, tell
from zeekdb.hot.replies import DEFERRED, NO_REPLY

if TYPE_CHECKING:
    from zeekdb.server.client import Client
    from zeekdb.server.server import Server

log = logging.getLogger("zeekdb")

AT_ONCE = frozenset({"EXEC", "DISCARD", "MULTI", "WATCH", "QUIT", "RESET"})  # inside a transaction too
WHILE_SUBSCRIBED = frozenset({
    "SUBSCRIBE", "UNSUBSCRIBE", "PSUBSCRIBE", "PUNSUBSCRIBE", "SSUBSCRIBE", "SUNSUBSCRIBE", "PING", "QUIT", "RESET",
})  # fmt: skip
ROLES = {"MULTI": "begins", "EXEC": "executes"}  # what the engine may do itself
# What calls are to the journal: what others run inside them is told, not they; or they come upon keys of any kind, and
# the expiries that they find have nothing to do with each other.
JOURNAL_ROLES = {
    **dict.fromkeys(("EXEC", "EVAL", "EVALSHA", "FCALL", "EVAL_RO", "EVALSHA_RO", "FCALL_RO"), "nests"),
    **dict.fromkeys(("SCAN", "RANDOMKEY", "KEYS", "DBSIZE"), "wanders"),
}
ERROR_KINDS_MAX = 128  # distinct error codes counted, so that made-up codes cannot grow the table


def key_range(spec: Command) -> tuple[int, int, int]:
    """(first, last, step) of the keys that the engine hashes ahead; only plain ranges have one."""
    if len(spec.keys) != 1:
        return (0, 0, 0)
    keys = spec.keys[0]
    if keys.keyword or keys.count_at >= 0 or keys.unknown:
        return (0, 0, 0)
    last = keys.index + keys.last if keys.last >= 0 else keys.last
    return (keys.index, last, keys.step)


def flags_of(spec: Command, args: list[bytes]) -> int:
    """The flags of a call: the subcommand's, where it names one."""
    if spec.subcommands and len(args) > 1:
        return spec.subcommands.get(args[1].decode("latin-1").upper(), spec).flags
    return spec.flags


def printed(word: bytes, length_max: int = 128) -> str:
    """A client's word inside an error, as C prints it: up to a NUL, and not too long."""
    return word.split(b"\0", 1)[0][:length_max].decode("utf-8", "surrogateescape")


class Dispatcher:
    """Registers the declared commands with the engine and stands behind its gates."""

    def __init__(self, server: Server, engine: Engine) -> None:
        self.server = server
        self.engine = engine
        self.specs: list[Command] = []
        self.handlers: list[Callable[..., Any]] = []
        self.names: list[str] = []
        self.by_name: dict[bytes, int] = {}
        self.subcommands: dict[int, dict[bytes, int]] = {}  # of containers: index of each subcommand
        for spec in REGISTRY.values():
            self._register(spec)
        for name, handler in PLAIN.items():
            self._register_plain(name, handler)
        engine.on_gate = self.gated
        engine.on_unknown = self.unknown
        engine.on_error = self.count_error
        engine.on_bug = self.report_bug
        engine.on_slow = self.report_slow

    def _register(self, spec: Command) -> None:
        name = self.server.config.renamed_commands.get(spec.name, spec.name)  # rename-command; "" removes it
        if not name:
            return
        subcommands: dict[bytes, int] = {}
        handler = self._container(spec, subcommands) if spec.subcommands else spec.handler
        index = self.engine.register(name.upper(), spec.arity, int(spec.flags), key_range(spec), handler, spec.twin)
        self._note(spec, handler)
        self.by_name[name.upper().encode()] = index
        if spec.subcommands:
            self.subcommands[index] = subcommands
        elif spec.name not in AT_ONCE and not spec.flags & Flag.NO_MULTI:
            self.engine.set_role(index, "queues")
        elif spec.name in ROLES:
            self.engine.set_role(index, ROLES[spec.name])
        if spec.name in JOURNAL_ROLES:
            self.engine.set_journal_role(index, JOURNAL_ROLES[spec.name])

    def _register_plain(self, name: str, handler: Callable[..., Any]) -> None:
        """A handler that stands in where a key is the tensor region's: for ACLs it is the command itself.

        It is no write, which a full or read-only server would refuse; CLIENT PAUSE WRITE holds it back all the same.
        """
        index = self.by_name.get(self.server.config.renamed_commands.get(name, name).upper().encode())
        if index is None:
            return
        flags = self.specs[index].flags
        if flags & Flag.WRITE:
            flags = flags & ~(Flag.WRITE | Flag.DENYOOM) | Flag.MAY_REPLICATE
        spec = replace(self.specs[index], flags=flags, twin=PLAIN_TWINS.get(name, ""))
        title = f"KV.PLAIN|{name}"
        flags = spec.flags | (Flag.BLOBS if name == "SET" else 0)
        plain = self.engine.register(title, spec.arity, flags, key_range(spec), handler, spec.twin, callable=False)
        self._note(spec, handler)
        self.engine.set_role(plain, "queues")
        self.engine.set_plain(index, plain)

    def _note(self, spec: Command, handler: Callable[..., Any]) -> None:
        self.specs.append(spec)
        self.handlers.append(handler)
        self.names.append(spec.lower)

    def _container(self, spec: Command, indexes: dict[bytes, int]) -> Callable[..., Any]:
        for name, sub in spec.subcommands.items():
            indexes[name.encode()] = self.engine.register(
                sub.name, sub.arity, int(sub.flags), (0, 0, 0), sub.handler, "", callable=False
            )
            self._note(sub, sub.handler)

        def handle(ctx: Any, *args: bytes) -> Any:
            if not args:
                return spec.handler(ctx)
            index = indexes.get(args[0].upper())
            if index is None:
                word = printed(args[0])
                raise CommandError(f"ERR unknown subcommand '{word}'. Try {spec.name} HELP.")
            sub = self.specs[index]
            if sub.arity != len(args) + 1 and (sub.arity > 0 or len(args) + 1 < -sub.arity):
                self.engine.count_call(index, 0.0, rejected=True)
                raise WrongArity(sub.lower)
            ctx.client.last_command_index = index
            begin = time.perf_counter()
            failed = True
            try:
                reply = sub.handler(ctx, *args[1:])
                failed = False
                return reply
            finally:
                self.engine.count_call(index, (time.perf_counter() - begin) * 1e6, failed=failed)

        return handle

    def last_name(self, client: Client) -> str:
        """"get", "client|list"; "NULL" before the first command."""
        index = client.last_command_index
        if index < 0:
            return "NULL"
        return self.names[index]

    # ------------------------------------------------------------ behind the gates

    def gated(self, client: Client, index: int, args: list[bytes]) -> Any:
        """A command while some gate is set: refuse it, hold it back, queue it, show it to monitors, or run it."""
        spec = self.specs[index]
        refusal = self._refusal(client, index, spec, args)
        if refusal is not None:
            if client.in_multi:
                client.queue_failed = True
                if spec.name == "EXEC":
                    client.transaction.end()
                    refusal = Refused(f"EXECABORT Transaction discarded because of: {refusal.message}")
            silence = self._answer(client, refusal)  # raises, unless the client wants no replies
            self.engine.count_outcome(index, failed=False, rejected=True)
            return silence
        gates = self.engine.gate
        if gates & GATE_PAUSED and not client.in_exec and self.server.pause_holds(client, spec, args):
            client.waiting = (index, args)
            self.engine.count_outcome(index, failed=False, rejected=False)
            return DEFERRED
        if client.in_multi and spec.name not in AT_ONCE:
            client.queue_command(index, args)
            self.engine.count_outcome(index, failed=False, rejected=False)
            return self._answer(client, "QUEUED")
        try:
            return self.run(client, index, args)
        finally:  # afterwards: what a transaction or a script has run comes before itself
            if gates & GATE_MONITOR and not flags_of(spec, args) & (Flag.SKIP_MONITOR | Flag.ADMIN):
                self.server.feed_monitors(client, args)

    def run(self, client: Client, index: int, args: list[bytes]) -> Any:
        """The handler's reply, or its CommandError where the reply mode wants none."""
        silent = client.reply_mode
        keyspace = self.server.keyspace
        keyspace.touching = not client.no_touch
        try:
            reply = self.perform(self.specs[index], client, args, self.handlers[index])
        except CommandError as error:
            if silent == "on":
                raise
            self.engine.count_outcome(index, failed=True, rejected=False)
            self.count_error(client, index, error)
            reply = error
        finally:
            keyspace.touching = True
        try:
            return self._answer(client, reply, silent)
        finally:
            del reply  # of an error the frames would hold the arguments, and this one the error

    @staticmethod
    def run_told(spec: Command, db_index: int, args: list[bytes], run: Callable[[], Any]) -> Any:
        """A call that is made outside the engine: what it changes is told to the journal."""
        with Call() as call:
            try:
                return run()
            finally:
                if call.wants and JOURNAL_ROLES.get(spec.name) != "nests":
                    tell(db_index, args)

    def perform(self, spec: Command, client: Any, args: list[bytes], handler: Callable[..., Any]) -> Any:
        """The handler's reply, for a client's command or a script's; tracking remembers what it reads."""
        reply = handler(client.ctx, *args[1:])
        if client.gate & GATE_TRACKING:
            if spec.flags & Flag.READONLY and spec.group != "scripting":
                self.server.tracking.remember(client, spec, args)
            self.server.tracking.command_ended(client, spec)
        return reply

    def _answer(self, client: Client, reply: Any, silent: str | None = None) -> Any:
        """What goes out under CLIENT REPLY's modes; of a command that waits, when it has waited (`Client.finish`)."""
        if reply is DEFERRED:
            return reply
        before = client.reply_mode if silent is None else silent
        if before == "skip" and client.reply_mode == "skip":  # CLIENT REPLY ON ends it and is answered
            client.set_reply_mode("on")
            return NO_REPLY
        if client.gate & GATE_REPLY and client.reply_mode != "on":
            return NO_REPLY
        if isinstance(reply, CommandError):
            raise reply
        return reply

    def _refusal(self, client: Client, index: int, spec: Command, args: list[bytes]) -> CommandError | None:
        """Why the command must not run now, in the order in which Redis asks."""
        if index in self.subcommands and len(args) > 1:
            sub = self.subcommands[index].get(args[1].upper())
            if sub is None:
                return Refused(f"ERR unknown subcommand '{printed(args[1])}'. Try {spec.name} HELP.")
            spec = self.specs[sub]
        if spec.arity != len(args) and (spec.arity > 0 or len(args) < -spec.arity):
            return Refused(WrongArity(spec.lower).message)
        if client.gate & GATE_AUTH and not spec.flags & Flag.NO_AUTH:
            return Refused("NOAUTH Authentication required.")
        if client.in_multi and spec.flags & Flag.NO_MULTI and spec.name not in AT_ONCE:
            return Refused("ERR Command not allowed inside a transaction")
        if client.gate & GATE_ACL:
            denied = self.server.acl.check(client, spec, args)
            if denied is not None:
                return denied
        if client.in_exec:  # the state of the server was asked about when EXEC began
            return None
        flags = client.queue_flags if spec.name == "EXEC" and client.in_multi else spec.flags
        if self.engine.gate & GATE_READONLY and flags & Flag.WRITE and (why := self.server.write_refusal()):
            return Refused(why)
        if self.engine.gate & GATE_READONLY and self.server.is_stale() and not self._all_have(Flag.STALE, client, spec):
            return Refused("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.")
        if self.engine.gate & GATE_OOM and flags & Flag.DENYOOM and self.server.is_out_of_memory():
            return Refused("OOM command not allowed when used memory > 'maxmemory'.")
        if client.gate & GATE_SUBSCRIBED and client.protocol == 2 and spec.name not in WHILE_SUBSCRIBED:
            return Refused(
                f"ERR Can't execute '{spec.lower}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are "
                "allowed in this context"
            )
        if self.engine.gate & GATE_LOADING and client.fd >= 0 and not self._all_have(Flag.LOADING, client, spec):
            return Refused("LOADING Redis is loading the dataset in memory")
        if self.engine.gate & GATE_BUSY and not spec.flags & Flag.ALLOW_BUSY:
            return Refused(self.server.busy_reason)
        return None

    def _all_have(self, flag: int, client: Client, spec: Command) -> bool:
        """Whether the command has the flag; EXEC, if all that it runs has."""
        if spec.name == "EXEC" and client.in_multi:
            return all(self.specs[index].flags & flag for index, _ in client.queued_calls())
        return bool(spec.flags & flag)

    def late_refusal(self, client: Client) -> CommandError | None:
        """Why a command that waits must not go on: its user has changed meanwhile."""
        if not client.gate & GATE_ACL:
            return None
        spec = self.specs[client.last_command_index]
        return self.server.acl.check(client, spec, [spec.name.encode(), *client.blocked_call[1:]])

    def release(self, client: Client) -> None:
        """Runs the command that a pause has held back, and lets the connection go on."""
        if client.waiting is None or client.closed:
            return
        index, args = client.waiting
        client.waiting = None
        try:
            reply = self.run_told(self.specs[index], client.db_index, args, lambda: self.gated(client, index, args))
        except CommandError as error:
            self.count_error(client, index, error)
            reply = error.with_traceback(None)
        except Exception as error:
            self.report_bug(client, index, error)
            reply = CommandError("ERR internal error, see the server's log")
        if reply is DEFERRED:
            client.blocked_call = args
        else:
            client.resume(reply)

    def count_late_error(self, client: Client, error: CommandError) -> None:
        """An error that ends the waiting of a blocked command."""
        self.engine.error_replies += 1
        index = client.last_command_index
        if index >= 0 and isinstance(error, Refused):
            self.engine.count_outcome(index, failed=False, rejected=True)
        elif index >= 0:
            self.engine.count_late_failure(index)
        self.count_error(client, index, error)

    # ------------------------------------------------------------ accounting

    def unknown(self, client: Client, args: list[bytes]) -> Any:
        """Raises what Redis says to a command it does not know."""
        if client.in_multi:
            client.queue_failed = True
        if client.gate & GATE_AUTH:
            raise CommandError("NOAUTH Authentication required.")
        shown = ""
        for arg in args[1:]:
            if len(shown) >= 128:
                break
            shown += f"'{printed(arg, 128 - len(shown))}' "
        name = printed(args[0])
        raise CommandError(f"ERR unknown command '{name}', with args beginning with: {shown}")

    def index_of(self, name: bytes) -> int | None:
        """Where a command stands in `specs` and `handlers`, by its name in any case."""
        return self.by_name.get(name.upper())

    def count_inner_error(self, error: CommandError) -> None:
        """A command that failed inside a script: the script itself may go on."""
        self.engine.error_replies += 1
        self._count_code(error)

    def count_error(self, client: Client, index: int, error: CommandError) -> None:
        """INFO errorstats."""
        if getattr(error, "counted", False):
            self.engine.error_replies -= 1
        else:
            self._count_code(error)

    def _count_code(self, error: CommandError) -> None:
        code = error.message.split(" ", 1)[0]
        errors = self.server.error_stats
        if code in errors or len(errors) < ERROR_KINDS_MAX:
            errors[code] = errors.get(code, 0) + 1

    def report_bug(self, client: Client, index: int, error: BaseException) -> None:
        """Our own fault: the log gets all of it."""
        name = self.names[index] if index >= 0 else "?"
        log.error("internal error in command '%s' of client %d", name, client.id, exc_info=error)
        self.server.stats.unexpected_error_replies += 1

    def report_slow(self, client: Client, index: int, args: list[bytes], us: float) -> None:
        """SLOWLOG and the latency monitor."""
        self.server.note_slow(client, self.specs[index], args, us)
