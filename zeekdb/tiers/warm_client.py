"""One client of a shared server, of what Sentinel guards, and of a cluster: batches of commands, binary throughout.

redis-py gives the connections (handshake, TLS, RESP2 and RESP3 by hiredis, kinds of error). Pools, redirections and
failover are here, because of what they must do for blocks:

- A block goes to the socket from where it lies, not copied. Whoever gives up in mid-command, by a timeout or a
  cancellation, must not leave a transport behind that still reads that memory: such a connection is *aborted*, and the
  caller gets its memory back when that is done (`discard`). redis-py's pools close in order, which goes on sending.
- Who finds no connection free waits; redis-py's cluster raises.
- One call answers for single servers, Sentinel and clusters alike, error replies among the replies (`Refusal`).

A batch is written whole, then its replies are read. That cannot lock up: all that is large goes one way per batch, and
replies of gets are read as they come. Everything here may be sent twice: a connection that turns out to be closed by
the server (restarted, idle for too long) before it said anything is replaced by a new one and the batch sent again.

    single     one node
    sentinel   one node, whose address is asked from the sentinels when it has failed, or says that it only reads; a
               new connection is believed when the server calls itself a primary (a sentinel may be behind)
    cluster    a node for each primary; MOVED corrects the map and asks for a new one, ASK goes where it says once,
               TRYAGAIN waits a little; a node that fails makes the map doubtful

Nothing is retried beyond that: the guard in front does so, with its waits and its breaker.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from zeekdb.config.urls import scrubber
from zeekdb.errors import Unavailable
from zeekdb.tiers.tier import settle
from zeekdb.tiers.warm_address import Address, Host, parse

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

SLOTS: Final = 16384
REDIRECTS_MAX: Final = 8  # rounds of a batch
TRY_AGAIN_S: Final = 0.01
COPIED_MAX: Final = 16 << 10  # bytes of an argument that joins its neighbours; larger ones are sent from where they lie
READ_BYTES: Final = 256 << 10  # at once from a socket, as much as uvloop reads
ASK_AT_ONCE: Final = 3  # nodes that are asked for the cluster's map side by side
CLOSING_S: Final = 1.0
FAILURES: Final = ("CLUSTERDOWN", "MASTERDOWN")  # replies that say that nobody is served

Buffer = bytes | bytearray | memoryview
Word = Buffer | tuple[Buffer, ...]  # an argument, or the parts of one
Command = tuple[Word, ...]  # in a cluster, the second word is its key
T = TypeVar("T")


class LinkDown(Exception):
    """The server, or the way to it, failed. The text has no secrets."""


class Refusal(NamedTuple):
    """An error reply."""

    code: str  # OOM, READONLY, WRONGTYPE, NOPERM, ERR …
    text: str  # with the code


def pack(commands: Iterable[Command]) -> list[Buffer]:
    """Commands as RESP: pieces for a vectored write. What is large is not copied."""
    out: list[Buffer] = []
    small: list[Buffer] = []
    for words in commands:
        small.append(b"*%d\r\n" % len(words))
        for word in words:
            if isinstance(word, bytes) and len(word) <= COPIED_MAX:
                small.append(b"$%d\r\n%b\r\n" % (len(word), word))
                continue
            parts = word if isinstance(word, tuple) else (word,)
            views = [memoryview(part).cast("B") if memoryview(part).nbytes else memoryview(b"") for part in parts]
            small.append(b"$%d\r\n" % sum(view.nbytes for view in views))
            for view in views:
                if view.nbytes > COPIED_MAX:
                    out += (b"".join(small), view)
                    small = []
                else:
                    small.append(view)
            small.append(b"\r\n")
    out.append(b"".join(small))
    return out


async def discard(connection: AbstractConnection, writer: asyncio.StreamWriter | None = None) -> None:
    """Close at once, whatever still waits to be sent, and let go of the memory that it lies in.

    `writer` is the connection's from before something happened to it: redis-py closes in order and forgets the writer
    when a command is cancelled, and uvloop then goes on sending from memory that is no longer ours.
    """
    writer = writer or connection._writer

    async def close() -> None:
        if writer is not None:
            writer.transport.abort()
        with contextlib.suppress(Exception):
            await connection.disconnect(nowait=True)
        if writer is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(writer.wait_closed(), CLOSING_S)

    await settle(asyncio.ensure_future(close()))


async def together(work: Iterable[Awaitable[T]]) -> list[T]:
    """All results, once all have ended, however they did: they use their caller's memory. The first error, if any."""
    results = await asyncio.gather(*work, return_exceptions=True)
    good = [result for result in results if not isinstance(result, BaseException)]
    if len(good) < len(results):
        raise next(result for result in results if isinstance(result, BaseException))
    return good


class Driver:
    """What is used of redis-py, imported when a tier is opened."""

    def __init__(self) -> None:
        try:
            import hiredis  # noqa: F401
            from redis import crc, exceptions
            from redis.asyncio import connection, retry
            from redis.backoff import NoBackoff
        except ImportError:
            raise Unavailable(
                "kv-warm-url needs a package that is not installed: pip install 'zeekdb[tiers]'"
            ) from None
        self.connection = connection
        self.slot: Callable[[bytes], int] = crc.key_slot
        self.no_retry = retry.Retry(NoBackoff(), 0)
        self.errors = exceptions
        self.codes: dict[type[Exception], str] = {
            exceptions.OutOfMemoryError: "OOM", exceptions.ReadOnlyError: "READONLY",
            exceptions.NoPermissionError: "NOPERM", exceptions.ExecAbortError: "EXECABORT",
            exceptions.MovedError: "MOVED", exceptions.AskError: "ASK", exceptions.TryAgainError: "TRYAGAIN",
            exceptions.ClusterDownError: "CLUSTERDOWN", exceptions.MasterDownError: "MASTERDOWN",
        }  # fmt: skip
        # What says that the link or the server is of no use now; all else that a server replies is about a command.
        self.failures: tuple[type[Exception], ...] = (
            exceptions.ConnectionError, exceptions.TimeoutError, exceptions.InvalidResponse,
            exceptions.AuthenticationWrongNumberOfArgsError, OSError, EOFError,
        )  # fmt: skip

    def dial(
        self, address: Address, host: Host | None, timeout_s: float, *, sentinel: bool = False
    ) -> AbstractConnection:  # fmt: skip
        """A connection that is not connected yet."""
        options: dict[str, Any] = {
            "socket_timeout": None,  # the guard's deadline ends whatever takes too long
            "socket_connect_timeout": timeout_s,
            "socket_read_size": READ_BYTES,
            "retry": self.no_retry,
            "protocol": 2 if sentinel else address.protocol,
            "username": (address.sentinel_username if sentinel else address.username) or None,
            "password": (address.sentinel_password if sentinel else address.password) or None,
            "db": 0 if sentinel else address.db,
        }
        if host is None:
            return self.connection.UnixDomainSocketConnection(path=address.path, **options)
        if address.tls is None:
            return self.connection.Connection(host=host[0], port=host[1], **options)
        tls: dict[str, Any] = {"ssl_check_hostname": address.tls.get("ssl_cert_reqs", "required") == "required"}
        return self.connection.SSLConnection(host=host[0], port=host[1], **options, **(tls | address.tls))

    def refusal(self, error: Exception) -> Refusal:
        """An error reply, its code in front again where redis-py took it away (which codes it knows depends on its
        version)."""
        text = str(error)
        code = self.codes.get(type(error))
        if code is None:
            return Refusal(text.split(" ", 1)[0], text)
        return Refusal(code, f"{code} {text}")


class Node:
    """Connections to one server: at most `most`, the last used first."""

    def __init__(self, driver: Driver, dial: Callable[[], Awaitable[AbstractConnection]], most: int) -> None:
        self.driver = driver
        self.failed = False  # since somebody last set it back
        self._dial = dial
        self._permits = asyncio.Semaphore(most)
        self._free: list[AbstractConnection] = []
        self._generation = 0

    @contextlib.asynccontextmanager
    async def link(self, *, fresh: bool = False) -> AsyncIterator[tuple[AbstractConnection, bool]]:
        """A connection of the caller's own, and whether it was used before. Any exception closes it."""
        async with self._permits:
            generation, connection, writer = self._generation, None, None
            is_used = bool(self._free) and not fresh
            try:
                connection = self._free.pop() if is_used else await self._dial()
                writer = connection._writer
                yield connection, is_used
            except BaseException:
                self.failed = True
                if connection is not None:
                    await discard(connection, writer)
                await self.forget()  # a server that does not answer one of them answers none
                raise
            if generation == self._generation:
                self._free.append(connection)
            else:
                await discard(connection)

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """The replies in their order. One of Driver.failures."""
        packed = pack(commands)
        fresh = False
        while True:
            replies: list[Any] = []
            is_used = False
            try:
                async with self.link(fresh=fresh) as (connection, is_used):
                    await exchange(self.driver, connection, packed, len(commands), replies)
                    return replies
            except self.driver.failures:
                if not is_used or replies:
                    raise
                fresh = True

    async def forget(self) -> None:
        """No connection that there is now is used again."""
        self._generation += 1
        idle, self._free = self._free, []
        await together(discard(connection) for connection in idle)


async def exchange(
    driver: Driver, connection: AbstractConnection, packed: list[Buffer], count: int, replies: list[Any]
) -> None:
    """Send, and append the replies as they come."""
    await connection.send_packed_command(packed, check_health=False)  # type: ignore[arg-type]
    for _ in range(count):
        try:
            replies.append(await connection.read_response(disable_decoding=True))
        except driver.errors.ResponseError as error:
            refusal = driver.refusal(error)
            if isinstance(error, driver.failures) or refusal.code in FAILURES:
                raise driver.errors.ConnectionError(refusal.text) from None
            replies.append(refusal)


class WarmClient:
    """See the module. Every method but `close` raises LinkDown."""

    def __init__(self, url: str, *, pool: int = 16, timeout_s: float = 1.0) -> None:
        self.address = parse(url)
        self.scrub = scrubber([url])
        self.pool = pool
        self.timeout_s = timeout_s
        self._driver: Driver | None = None
        self._nodes: dict[Host | None, Node] = {}  # None: the only one
        self._slots: list[Node | None] = []
        self._is_stale = True
        self._refreshing = asyncio.Lock()

    @property
    def driver(self) -> Driver:
        """redis-py. Unavailable when it is not installed."""
        if self._driver is None:
            self._driver = Driver()
        return self._driver

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Replies in order: bytes, int, None, str, lists of them, Refusal."""
        async with self._failures_scrubbed():
            if self.address.mode == "cluster":
                replies = await self._ask_cluster(commands)
            else:
                replies = await self._only().ask(commands)
            return [await self._judged(reply) for reply in replies]

    async def ask_each(self, command: Command) -> list[tuple[Host | None, Any]]:
        """A command to every primary: where, and the reply."""
        async with self._failures_scrubbed():
            nodes = await self._primaries()
            replies = await together(node.ask([command]) for node in nodes.values())
            return [(where, await self._judged(reply[0])) for where, reply in zip(nodes, replies, strict=True)]

    async def ask_at(self, where: Host | None, commands: Sequence[Command]) -> list[Any]:
        """Commands to one of those that `ask_each` has named; in a cluster MOVED is a Refusal."""
        async with self._failures_scrubbed():
            return [await self._judged(reply) for reply in await self._node(where).ask(commands)]

    @contextlib.asynccontextmanager
    async def session(self, key: bytes) -> AsyncIterator[Callable[[Sequence[Command]], Awaitable[list[Any]]]]:
        """One connection, to whoever has the key, for as long as the block lasts: for WATCH. MOVED is a Refusal."""
        async with self._failures_scrubbed():
            node = self._only() if self.address.mode != "cluster" else await self._owner(key)
            async with node.link(fresh=False) as (connection, _):

                async def ask(commands: Sequence[Command]) -> list[Any]:
                    replies: list[Any] = []
                    await exchange(self.driver, connection, pack(commands), len(commands), replies)
                    return [await self._judged(reply) for reply in replies]

                yield ask

    async def subscriber(self) -> AbstractConnection:
        """A connection outside of the pool, for `discard` to close. All nodes of a cluster pass messages on."""
        async with self._failures_scrubbed():
            if self.address.mode != "cluster":
                return await self._dial(None)
            where = random.choice(list(await self._primaries()))
            try:
                return await self._dial(where)
            except BaseException:
                self._is_stale = True
                raise

    async def probe(self) -> None:
        """A round trip to every primary."""
        for _, reply in await self.ask_each((b"PING",)):
            if isinstance(reply, Refusal):
                raise LinkDown(self.scrub(reply.text))

    async def close(self) -> None:
        """Closes every connection. Harmless when repeated."""
        nodes, self._nodes = list(self._nodes.values()), {}
        self._slots, self._is_stale = [], True
        await together(node.forget() for node in nodes)

    # ---- all ---------------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _failures_scrubbed(self) -> AsyncIterator[None]:
        try:
            yield
        except self.driver.failures as error:
            text = self.scrub(str(error) or type(error).__name__)
            raise LinkDown(f"{self.address}: {text}") from None  # what it came from may quote more

    async def _judged(self, reply: Any) -> Any:
        """The reply as callers see it."""
        if self.address.mode == "sentinel" and isinstance(reply, Refusal) and reply.code == "READONLY":
            await self._only().forget()
            raise self.driver.errors.ConnectionError("the primary has become a replica")
        return reply

    def _node(self, where: Host | None) -> Node:
        node = self._nodes.get(where)
        if node is None:
            node = self._nodes[where] = Node(self.driver, lambda: self._dial(where), self.pool)
        return node

    def _only(self) -> Node:
        return self._node(None)

    async def _primaries(self) -> dict[Host | None, Node]:
        if self.address.mode != "cluster":
            return {None: self._only()}
        await self._refresh_map()
        owners = set(self._slots)
        return {where: node for where, node in self._nodes.items() if node in owners}

    async def _dial(self, where: Host | None) -> AbstractConnection:
        """A connected connection."""
        address = self.address
        if address.mode == "sentinel":
            where = await self._ask_sentinels()
        elif where is None and address.hosts:
            where = address.hosts[0]
        connection = self.driver.dial(address, where, self.timeout_s)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            if address.mode == "sentinel":
                replies: list[Any] = []
                await exchange(self.driver, connection, pack([(b"ROLE",)]), 1, replies)
                if not isinstance(replies[0], list) or replies[0][0] != b"master":
                    raise self.driver.errors.ConnectionError("what the sentinels name is no primary yet")
        except BaseException:
            await discard(connection)
            raise
        return connection

    # ---- sentinel ----------------------------------------------------------------------------------------------------

    async def _ask_sentinels(self) -> Host:
        """Where the primary is, from the first sentinel that knows."""
        service = self.address.service.encode()

        async def one(host: Host) -> Host:
            connection = self.driver.dial(self.address, host, self.timeout_s, sentinel=True)
            try:
                await connection.connect()  # type: ignore[no-untyped-call]
                replies: list[Any] = []
                words: Command = (b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", service)
                await exchange(self.driver, connection, pack([words]), 1, replies)
            finally:
                await discard(connection)
            if not isinstance(replies[0], list):
                said = replies[0].text if replies[0] else "no such service"
                raise self.driver.errors.ConnectionError(f"a sentinel knows no primary: {said}")
            return replies[0][0].decode(), int(replies[0][1])

        return await self._first(one(host) for host in self.address.hosts)

    async def _first(self, work: Iterable[Awaitable[T]]) -> T:
        """The first good result; the others are ended. The last failure when there is none."""
        tasks = [asyncio.ensure_future(one) for one in work]
        failure: BaseException | None = None
        try:
            for next_one in asyncio.as_completed(tasks):
                try:
                    return await next_one
                except self.driver.failures as error:
                    failure = error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        raise failure or self.driver.errors.ConnectionError("there is nobody to ask")

    # ---- cluster -----------------------------------------------------------------------------------------------------

    async def _refresh_map(self) -> None:
        """Ask for the map when there is none or it is doubtful."""
        if not self._is_doubtful():
            return
        async with self._refreshing:
            if not self._is_doubtful():
                return
            known = [where for where in self._nodes if where is not None]
            random.shuffle(known)
            places = list(dict.fromkeys([*known, *self.address.hosts]))
            failure: BaseException | None = None
            for at in range(0, len(places), ASK_AT_ONCE):
                try:
                    rows = await self._first(self._ask_map(where) for where in places[at : at + ASK_AT_ONCE])
                except self.driver.failures as error:
                    failure = error
                else:
                    await self._take_map(rows)
                    return
            raise failure or self.driver.errors.ConnectionError("the cluster has no nodes")

    def _is_doubtful(self) -> bool:
        return self._is_stale or any(node.failed for node in self._nodes.values())

    async def _ask_map(self, where: Host) -> list[tuple[int, int, Host]]:
        """First and last slot of each range, and whose it is."""
        connection = await self._dial(where)
        replies: list[Any] = []
        try:
            await exchange(self.driver, connection, pack([(b"CLUSTER", b"SLOTS")]), 1, replies)
        finally:
            await discard(connection)
        if not isinstance(replies[0], list):
            raise self.driver.errors.ConnectionError(f"it is no node of a cluster: {replies[0].text}")
        rows = [(row[0], row[1], ((row[2][0] or b"").decode() or where[0], int(row[2][1]))) for row in replies[0]]
        if sum(last - first + 1 for first, last, _ in rows) < SLOTS:
            raise self.driver.errors.ConnectionError("the cluster does not serve all slots")
        return rows

    async def _take_map(self, rows: list[tuple[int, int, Host]]) -> None:
        slots: list[Node | None] = [None] * SLOTS
        for first, last, where in rows:
            slots[first : last + 1] = [self._node(where)] * (last - first + 1)
        self._slots, self._is_stale = slots, False
        owners = {where for _, _, where in rows}
        gone = [self._nodes.pop(where) for where in list(self._nodes) if where not in owners]
        for node in self._nodes.values():
            node.failed = False
        await together(node.forget() for node in gone)

    async def _owner(self, key: bytes) -> Node:
        await self._refresh_map()
        node = self._slots[self.driver.slot(key)]
        assert node is not None
        return node

    async def _ask_cluster(self, commands: Sequence[Command]) -> list[Any]:
        """By node, at once; again for those that were sent elsewhere."""
        replies: list[Any] = [None] * len(commands)
        slots = [self.driver.slot(bytes(words[1])) for words in commands]  # type: ignore[arg-type]
        pending: Sequence[int] = range(len(commands))
        asking: dict[int, Node] = {}  # by slot, for this round only
        for _ in range(REDIRECTS_MAX):
            await self._refresh_map()
            groups: dict[tuple[Node, bool], list[int]] = {}
            for index in pending:
                node = asking.get(slots[index]) or self._slots[slots[index]]
                assert node is not None
                groups.setdefault((node, slots[index] in asking), []).append(index)
            results = await together(
                self._ask_node(node, [commands[index] for index in group], is_asking)
                for (node, is_asking), group in groups.items()
            )
            again, asking = [], {}
            for index, reply in zip(itertools.chain(*groups.values()), itertools.chain(*results), strict=True):
                code = reply.code if isinstance(reply, Refusal) else ""
                if code == "MOVED":
                    self._slots[slots[index]] = self._node(_target(reply))
                    self._is_stale = True
                elif code == "ASK":
                    asking[slots[index]] = self._node(_target(reply))
                elif code == "TRYAGAIN":
                    await asyncio.sleep(TRY_AGAIN_S)
                else:
                    replies[index] = reply
                    continue
                again.append(index)
            if not again:
                return replies
            pending = again
        raise self.driver.errors.ConnectionError("the cluster sends us around in circles")

    async def _ask_node(self, node: Node, commands: list[Command], is_asking: bool) -> list[Any]:
        if not is_asking:
            return await node.ask(commands)
        doubled = list(itertools.chain.from_iterable(((b"ASKING",), words) for words in commands))
        return (await node.ask(doubled))[1::2]


def _target(redirection: Refusal) -> Host:
    """Of `MOVED slot host:port` and ASK."""
    host, _, port = redirection.text.rsplit(" ", 1)[-1].rpartition(":")
    return host, int(port)
