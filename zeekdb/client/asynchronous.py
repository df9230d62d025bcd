"""The tensor region for asyncio: the same calls as `region.Region`, each awaited.

The socket is tried first and waited for only when it has nothing: most of a large block comes in without a turn of the
loop. So that others get theirs, one is given after every FAIR_BYTES. Copies of more than INLINE_BYTES_MAX out of and
into the server's memory run in a thread.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from zeekdb.client.address import Address
from zeekdb.client.calls import (
    COPY_LEASE_MS,
    Abandon,
    Calls,
    Connected,
    Exchange,
    Job,
    Key,
    LinkLost,
    Step,
    Steps,
    Tokens,
    names,
)
from zeekdb.client.leases import AsyncLease, AsyncLookup, AsyncViews
from zeekdb.client.links import (
    ATTACH,
    ATTEMPTS_MAX,
    CONNECT_TIMEOUT_S_DEFAULT,
    IOV_MAX,
    RIGHTS_FLAGS,
    RIGHTS_SPACE,
    TIMEOUT_S_DEFAULT,
    TIMEOUT_S_MIN,
    SocketLink,
    broken,
    close_all,
    mapping_of,
    rights_of,
)
from zeekdb.client.wire import Reply, Sinks, Word, advance, encode
from zeekdb.errors import CommandError

T = TypeVar("T")
FAIR_BYTES: Final = 4 << 20
INLINE_BYTES_MAX: Final = 256 << 10


class AsyncRegion:
    """`region.Region` for asyncio; what is said there of blocks, buffers and errors holds here.

    Tasks of one loop may share it: their calls take turns. A call that is cancelled ends the connection (the next one
    opens another), after a copy that is under way has ended: no buffer is touched once a call is over.
    """

    def __init__(
        self, address: str, model: Key, salt: Key = b"", *, timeout_s: float = TIMEOUT_S_DEFAULT,
        connect_timeout_s: float = CONNECT_TIMEOUT_S_DEFAULT, copy_threads: int = 1,
    ) -> None:  # fmt: skip
        """`address`: as Address.parse. Connects with the first call. `copy_threads` share large copies."""
        if timeout_s < TIMEOUT_S_MIN:
            raise ValueError(f"a timeout is at least {TIMEOUT_S_MIN} s")
        self.address = Address.parse(address)
        self.timeout_s = timeout_s
        self.connect_timeout_s = connect_timeout_s
        self._pool = ThreadPoolExecutor(copy_threads) if copy_threads > 1 else None
        self._calls = Calls(model, salt, self._pool, copy_threads)
        self._link: SocketLink | None = None
        self._is_attached = False
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> AsyncRegion:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection, and with it what it has reserved; the next call would open another. Leases stay."""
        async with self._lock:
            self._drop()
            self._is_attached = False
            if self._pool is not None:
                self._pool.shutdown()
                self._pool = self._calls.threads = None

    # ------------------------------------------------------------ calls: see Region

    async def declare(self, **fields: Any) -> None:
        """KV.MODEL SET."""
        await self._run(self._calls.declare(fields))

    async def lookup(self, keys: Sequence[Key], lease_ms: int = 0) -> AsyncLookup:
        """What is there of the keys, and where; `async with` gives the lease back."""
        found = await self._run(self._calls.lookup(names(keys), lease_ms))
        return AsyncLookup(found.prefix, found.present, found.tiers, self._lease(found.leased, found.end_s))

    async def unlock(self, keys: Sequence[Key]) -> int:
        """Gives leases back, one of each key; how many there were."""
        return await self._run(self._calls.unlock(names(keys)))

    async def get(self, keys: Sequence[Key]) -> list[bytes | None]:
        """The blocks' bytes; None for one that is not there."""
        return await self._run(self._calls.get(names(keys)))

    async def get_into(self, keys: Sequence[Key], buffers: Sequence[Any], lease_ms: int = COPY_LEASE_MS) -> list[bool]:
        """Receives each block into its buffer; whether it was there."""
        return await self._run(self._calls.get_into(names(keys), buffers, lease_ms))

    async def put_from(
        self, keys: Sequence[Key], buffers: Sequence[Any], ttl: int = 0, group: Key | None = None,
        parent: Key | None = None,
    ) -> list[int]:  # fmt: skip
        """Stores each buffer's bytes: STORED, SHARED or DROPPED."""
        group, parent = (None if name is None else names((name,))[0] for name in (group, parent))
        return await self._run(self._calls.put_from(names(keys), buffers, ttl, group, parent))

    async def views(self, keys: Sequence[Key], lease_ms: int) -> AsyncViews:
        """The blocks where they lie, for as long as the lease runs; None for what is not there."""
        seen, lease = await self._run(self._calls.views(names(keys), lease_ms, self._lease))
        views = AsyncViews(seen)
        assert isinstance(lease, AsyncLease)
        views.lease = lease
        return views

    async def store(self, tokens: Tokens, tensors: Any, ttl: int = 0, group: Key | None = None) -> list[int]:
        """Stores the whole blocks of a context named by its token ids."""
        named = None if group is None else names((group,))[0]
        return await self._run(self._calls.store(tokens, tensors, ttl, named))

    async def match(self, tokens: Tokens, lease_ms: int = 0) -> tuple[int, int]:
        """(tokens, blocks) of the context that are there from its begin on."""
        return await self._run(self._calls.match(tokens, lease_ms))

    async def fetch(self, tokens: Tokens, layers: tuple[int, int] | None = None) -> list[bytes]:
        """The blocks of the longest prefix that is there, or some of their layers."""
        return await self._run(self._calls.fetch(tokens, layers))

    async def fetch_into(self, tokens: Tokens, buffers: Sequence[Any], layers: tuple[int, int] | None = None) -> int:
        """The same, received into buffers; how many were filled."""
        return sum(item is True for item in await self._run(self._calls.fetch(tokens, layers, buffers)))

    async def delete(self, keys: Sequence[Key]) -> int:
        """Removes blocks, leased ones too; how many there were."""
        return await self._run(self._calls.count(b"KV.DEL", names(keys)))

    async def pin(self, keys: Sequence[Key]) -> int:
        """Keeps blocks in host memory until they are unpinned as often; how many are there."""
        return await self._run(self._calls.count(b"KV.PIN", names(keys), is_repeatable=False))

    async def unpin(self, keys: Sequence[Key]) -> int:
        """Takes a pin of each back; how many had one."""
        return await self._run(self._calls.count(b"KV.UNPIN", names(keys), is_repeatable=False))

    async def attach(self) -> int:
        """Maps the server's memory, from now on and after each new connection; its size in bytes."""
        async with self._lock:
            link = self._link
            if link is None or link.mapping is None:
                self._drop()  # it may be broken without our knowing
                link = await self._connected()
                await self._attach(link)
            self._is_attached = True
            assert link.mapping is not None
            return link.mapping.size

    def _lease(self, keys: Sequence[bytes], end_s: float) -> AsyncLease:
        return AsyncLease(keys, end_s, lambda given: self._run(self._calls.unlock(given)))

    # ------------------------------------------------------------ steps

    async def _run(self, steps: Steps[T]) -> T:
        async with self._lock:
            try:
                step = next(steps)
                while True:
                    try:
                        result = await self._do(step)
                    except Exception as error:
                        step = steps.throw(error)
                    else:
                        step = steps.send(result)
            except StopIteration as done:
                value: T = done.value
                return value

    async def _do(self, step: Step) -> Any:
        if isinstance(step, Exchange):
            return await self._exchange(step)
        if isinstance(step, Job):
            return await self._work(step)
        if isinstance(step, Abandon):
            if step.link is self._link:
                self._drop()
            return None
        assert isinstance(step, Connected)
        return await self._connected()

    async def _work(self, job: Job) -> None:
        try:
            if job.nbytes <= INLINE_BYTES_MAX:
                job.run()
                return
            done = asyncio.get_running_loop().run_in_executor(None, job.run)
            try:
                await asyncio.shield(done)
            except asyncio.CancelledError:
                await asyncio.wait([done])  # it writes to the caller's memory
                raise
        except BaseException:
            self._drop()
            raise

    async def _exchange(self, step: Exchange) -> Reply:
        pieces = encode(step.words)
        for attempt in range(ATTEMPTS_MAX):
            if step.link is not None and step.link is not self._link:
                raise LinkLost(f"{self.address}: the connection is another")
            link = await self._connected()
            try:
                await self._send(link, pieces[:])
                reply = await self._receive(link, step.sinks)
            except (OSError, EOFError) as error:
                self._drop()
                if step.link is not None:
                    raise LinkLost(str(broken(self.address, error))) from error
                is_over = isinstance(error, TimeoutError) or attempt + 1 == ATTEMPTS_MAX
                if is_over or not step.is_repeatable:
                    raise broken(self.address, error) from error
            except BaseException:
                self._drop()
                raise
            else:
                if isinstance(reply, CommandError):
                    raise reply
                return reply
        raise AssertionError

    # ------------------------------------------------------------ the connection

    async def _connected(self) -> SocketLink:
        if self._link is None:
            try:
                async with asyncio.timeout(self.connect_timeout_s):
                    link = SocketLink(await self._connect())
            except OSError as error:
                raise broken(self.address, error) from error
            self._link = link
            try:
                if command := self.address.sign_in():
                    await self._say(link, command)
                if self._is_attached:
                    try:
                        await self._attach(link)
                    except CommandError:
                        pass  # this server has no memory to share
            except BaseException:
                self._drop()
                raise
        return self._link

    async def _connect(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        if self.address.path:
            places = [(socket.AF_UNIX, socket.SOCK_STREAM, 0, "", self.address.path)]
        else:
            places = await loop.getaddrinfo(self.address.host, self.address.port, type=socket.SOCK_STREAM)  # type: ignore[assignment]
        failed: OSError | None = None
        for family, kind, protocol, _, place in places:
            sock = socket.socket(family, kind, protocol)
            sock.setblocking(False)
            try:
                await loop.sock_connect(sock, place)
                if family != socket.AF_UNIX:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock
            except OSError as error:
                sock.close()
                failed = error
            except BaseException:
                sock.close()
                raise
        raise failed or OSError("the name has no address")

    async def _say(self, link: SocketLink, words: Sequence[Word], fds: list[int] | None = None) -> Reply:
        """A command on a connection that is being opened."""
        try:
            await self._send(link, encode(words))
            reply = await self._receive(link, (), fds)
        except (OSError, EOFError) as error:
            raise broken(self.address, error) from error
        if isinstance(reply, CommandError) and fds is None:
            raise reply
        return reply

    async def _attach(self, link: SocketLink) -> None:
        fds: list[int] = []
        try:
            reply = await self._say(link, ATTACH, fds)
        except BaseException:
            self._drop()
            close_all(fds)
            raise
        link.mapping = mapping_of(reply, fds)

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.sock.close()

    async def _send(self, link: SocketLink, pieces: list[Word]) -> None:
        loop = asyncio.get_running_loop()
        ready = Readiness(loop.add_writer, loop.remove_writer, link.sock.fileno())
        unfair = 0
        try:
            while pieces:
                try:
                    sent = link.sock.sendmsg(pieces[:IOV_MAX])
                except BlockingIOError:
                    await ready.wait(self.timeout_s)
                    unfair = 0
                    continue
                advance(pieces, sent)
                unfair += sent
                if unfair >= FAIR_BYTES:
                    await asyncio.sleep(0)
                    unfair = 0
        finally:
            ready.end()

    async def _receive(self, link: SocketLink, sinks: Sinks = (), fds: list[int] | None = None) -> Reply:
        loop = asyncio.get_running_loop()
        ready = Readiness(loop.add_reader, loop.remove_reader, link.sock.fileno())
        receiving = link.reader.reply(sinks)
        unfair = 0
        try:
            target = next(receiving)
            while True:
                try:
                    if fds is None:
                        received = link.sock.recv_into(target)
                    else:
                        received, ancillary, _, _ = link.sock.recvmsg_into([target], RIGHTS_SPACE, RIGHTS_FLAGS)
                        fds += rights_of(ancillary)
                except BlockingIOError:
                    await ready.wait(self.timeout_s)
                    unfair = 0
                    continue
                target = receiving.send(received)
                unfair += received
                if unfair >= FAIR_BYTES:
                    await asyncio.sleep(0)
                    unfair = 0
        except StopIteration as done:
            return done.value
        finally:
            ready.end()


class Readiness:
    """Watches one direction of a socket during a transfer: to begin and end that for each wait would cost more."""

    __slots__ = ("_fd", "_future", "_is_watching", "_unwatch", "_watch")

    def __init__(self, watch: Callable[..., Any], unwatch: Callable[[int], Any], fd: int) -> None:
        """`watch(fd, callback)` and `unwatch(fd)` are the loop's."""
        self._watch = watch
        self._unwatch = unwatch
        self._fd = fd
        self._future: asyncio.Future[None] | None = None
        self._is_watching = False

    async def wait(self, timeout_s: float) -> None:
        """Until the socket is ready. TimeoutError."""
        loop = asyncio.get_running_loop()
        self._future = loop.create_future()
        timer = loop.call_later(timeout_s, self._time_out)
        if not self._is_watching:
            self._watch(self._fd, self._wake)
            self._is_watching = True
        try:
            await self._future
        finally:
            timer.cancel()
            self._future = None

    def end(self) -> None:
        """Watches no longer; before the socket is closed."""
        if self._is_watching:
            self._unwatch(self._fd)
            self._is_watching = False

    def _wake(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def _time_out(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_exception(TimeoutError())
