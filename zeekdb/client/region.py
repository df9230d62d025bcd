"""The tensor region, blocking."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

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
from zeekdb.client.leases import SyncLease, SyncLookup, SyncViews
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


class Region:
    """Blocks of one model and salt on one server.

    A block is any number of bytes under a key; equal keys mean equal bytes, so storing one again changes nothing. Sizes
    are bytes, leases milliseconds, lifetimes seconds. Buffers are whatever has the buffer protocol, numpy arrays and
    CPU tensors of torch, in C order; their bytes go from and to where they lie.

    Errors: CommandError is what the server refuses, and a block of another size than its buffer; Unavailable is the
    network, the server gone, or nothing moving for `timeout_s`; ValueError and TypeError are arguments that never were
    sent. A call that may be repeated is tried once more on a new connection when the old one turns out to be broken,
    but never after a timeout. After Unavailable it is unknown whether the call was carried out.

    Threads may share a Region: their calls take turns, so a large one holds up the others. One Region for each thread
    moves more. A forked child needs a Region of its own.
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
        self._lock = threading.RLock()

    def __enter__(self) -> Region:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection, and with it what it has reserved; the next call would open another. Leases stay."""
        with self._lock:
            self._drop()
            self._is_attached = False
            if self._pool is not None:
                self._pool.shutdown()
                self._pool = self._calls.threads = None

    # ------------------------------------------------------------ calls

    def declare(self, **fields: Any) -> None:
        """KV.MODEL SET: `layers`, `heads`, `dim`, `dtype`, `block`, `codec`, `ttl`, `quota`; opaque without layers."""
        self._run(self._calls.declare(fields))

    def lookup(self, keys: Sequence[Key], lease_ms: int = 0) -> SyncLookup:
        """What is there of the keys, and where. With `lease_ms` what is there stays so long; `with` gives it back."""
        found = self._run(self._calls.lookup(names(keys), lease_ms))
        return SyncLookup(found.prefix, found.present, found.tiers, self._lease(found.leased, found.end_s))

    def unlock(self, keys: Sequence[Key]) -> int:
        """Gives leases back, one of each key; how many there were."""
        return self._run(self._calls.unlock(names(keys)))

    def get(self, keys: Sequence[Key]) -> list[bytes | None]:
        """The blocks' bytes; None for one that is not there."""
        return self._run(self._calls.get(names(keys)))

    def get_into(self, keys: Sequence[Key], buffers: Sequence[Any], lease_ms: int = COPY_LEASE_MS) -> list[bool]:
        """Receives each block into its buffer; whether it was there. The buffer of an absent one may have changed.

        OutOfRange when a block's size is not its buffer's. Attached, the bytes are copied out of the server's memory
        under a lease of `lease_ms`; what turns out not to have stayed meanwhile comes through the socket.
        """
        return self._run(self._calls.get_into(names(keys), buffers, lease_ms))

    def put_from(
        self, keys: Sequence[Key], buffers: Sequence[Any], ttl: int = 0, group: Key | None = None,
        parent: Key | None = None,
    ) -> list[int]:  # fmt: skip
        """Stores each buffer's bytes, the keys in the order of their context: STORED, SHARED (was there) or DROPPED.

        `ttl`: seconds, 0 for the model's own; blocks of a `group` are evicted together; `parent` is the key before the
        first. Attached, the bytes are copied into the server's memory, else they are sent.
        """
        group, parent = (None if name is None else names((name,))[0] for name in (group, parent))
        return self._run(self._calls.put_from(names(keys), buffers, ttl, group, parent))

    def views(self, keys: Sequence[Key], lease_ms: int) -> SyncViews:
        """The blocks where they lie, without a copy, for as long as the lease runs; None for what is not there.

        What is not in host memory, and everything while not attached, is fetched and its view is a copy. `with` gives
        the lease back.
        """
        seen, lease = self._run(self._calls.views(names(keys), lease_ms, self._lease))
        views = SyncViews(seen)
        assert isinstance(lease, SyncLease)
        views.lease = lease
        return views

    def store(self, tokens: Tokens, tensors: Any, ttl: int = 0, group: Key | None = None) -> list[int]:
        """Stores the whole blocks of a context named by its token ids; as `put_from`.

        `tokens`: [n] integers, or their bytes as little-endian u32; `tensors`: one buffer of all blocks one after the
        other, or a list of one for each.
        """
        named = None if group is None else names((group,))[0]
        return self._run(self._calls.store(tokens, tensors, ttl, named))

    def match(self, tokens: Tokens, lease_ms: int = 0) -> tuple[int, int]:
        """(tokens, blocks) of the context that are there from its begin on."""
        return self._run(self._calls.match(tokens, lease_ms))

    def fetch(self, tokens: Tokens, layers: tuple[int, int] | None = None) -> list[bytes]:
        """The blocks of the longest prefix that is there, or of their layers a range (its end excluded)."""
        return self._run(self._calls.fetch(tokens, layers))

    def fetch_into(self, tokens: Tokens, buffers: Sequence[Any], layers: tuple[int, int] | None = None) -> int:
        """The same, received into buffers of a block's (or its layers') size; how many were filled."""
        return sum(item is True for item in self._run(self._calls.fetch(tokens, layers, buffers)))

    def delete(self, keys: Sequence[Key]) -> int:
        """Removes blocks, leased ones too; how many there were."""
        return self._run(self._calls.count(b"KV.DEL", names(keys)))

    def pin(self, keys: Sequence[Key]) -> int:
        """Keeps blocks in host memory until they are unpinned as often; how many are there."""
        return self._run(self._calls.count(b"KV.PIN", names(keys), is_repeatable=False))

    def unpin(self, keys: Sequence[Key]) -> int:
        """Takes a pin of each back; how many had one."""
        return self._run(self._calls.count(b"KV.UNPIN", names(keys), is_repeatable=False))

    def attach(self) -> int:
        """Maps the server's memory, from now on and after each new connection; its size in bytes.

        CommandError over TCP or where the server has no such memory: then everything goes through the socket.
        """
        with self._lock:
            link = self._link
            if link is None or link.mapping is None:
                self._drop()  # it may be broken without our knowing
                link = self._connected()
                self._attach(link)
            self._is_attached = True
            assert link.mapping is not None
            return link.mapping.size

    def _lease(self, keys: Sequence[bytes], end_s: float) -> SyncLease:
        return SyncLease(keys, end_s, lambda given: self._run(self._calls.unlock(given)))

    # ------------------------------------------------------------ steps

    def _run(self, steps: Steps[T]) -> T:
        with self._lock:
            try:
                step = next(steps)
                while True:
                    try:
                        result = self._do(step)
                    except Exception as error:
                        step = steps.throw(error)
                    else:
                        step = steps.send(result)
            except StopIteration as done:
                value: T = done.value
                return value

    def _do(self, step: Step) -> Any:
        if isinstance(step, Exchange):
            return self._exchange(step)
        if isinstance(step, Job):
            try:
                step.run()
            except BaseException:
                self._drop()
                raise
            return None
        if isinstance(step, Abandon):
            if step.link is self._link:
                self._drop()
            return None
        assert isinstance(step, Connected)
        return self._connected()

    def _exchange(self, step: Exchange) -> Reply:
        pieces = encode(step.words)
        for attempt in range(ATTEMPTS_MAX):
            if step.link is not None and step.link is not self._link:
                raise LinkLost(f"{self.address}: the connection is another")
            link = self._connected()
            try:
                self._send(link, pieces[:])
                reply = self._receive(link, step.sinks)
            except (OSError, EOFError) as error:
                self._drop()
                if step.link is not None:
                    raise LinkLost(str(broken(self.address, error))) from error
                is_over = isinstance(error, BlockingIOError | TimeoutError) or attempt + 1 == ATTEMPTS_MAX
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

    def _connected(self) -> SocketLink:
        if self._link is None:
            try:
                link = SocketLink(self._connect())
            except OSError as error:
                raise broken(self.address, error) from error
            self._link = link
            try:
                if command := self.address.sign_in():
                    self._say(link, command)
                if self._is_attached:
                    try:
                        self._attach(link)
                    except CommandError:
                        pass  # this server has no memory to share
            except BaseException:
                self._drop()
                raise
        return self._link

    def _connect(self) -> socket.socket:
        if self.address.path:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.settimeout(self.connect_timeout_s)
                sock.connect(self.address.path)
            except BaseException:
                sock.close()
                raise
        else:
            sock = socket.create_connection((self.address.host, self.address.port), self.connect_timeout_s)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(None)  # the kernel keeps the time: a poll before each call would cost one more
        wait = struct.pack("ll", int(self.timeout_s), int(self.timeout_s % 1 * 1e6))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, wait)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)
        return sock

    def _say(self, link: SocketLink, words: Sequence[Word], fds: list[int] | None = None) -> Reply:
        """A command on a connection that is being opened."""
        try:
            self._send(link, encode(words))
            reply = self._receive(link, (), fds)
        except (OSError, EOFError) as error:
            raise broken(self.address, error) from error
        if isinstance(reply, CommandError) and fds is None:
            raise reply
        return reply

    def _attach(self, link: SocketLink) -> None:
        fds: list[int] = []
        try:
            reply = self._say(link, ATTACH, fds)
        except BaseException:
            self._drop()
            close_all(fds)
            raise
        link.mapping = mapping_of(reply, fds)

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.sock.close()

    @staticmethod
    def _send(link: SocketLink, pieces: list[Word]) -> None:
        while pieces:
            advance(pieces, link.sock.sendmsg(pieces[:IOV_MAX]))

    @staticmethod
    def _receive(link: SocketLink, sinks: Sinks = (), fds: list[int] | None = None) -> Reply:
        receiving = link.reader.reply(sinks)
        try:
            target = next(receiving)
            while True:
                if fds is not None:
                    received, ancillary, _, _ = link.sock.recvmsg_into([target], RIGHTS_SPACE, RIGHTS_FLAGS)
                    fds += rights_of(ancillary)
                else:  # not MSG_WAITALL, which was slower by a sixth: it sleeps where one could copy
                    received = link.sock.recv_into(target)
                target = receiving.send(received)
        except StopIteration as done:
            return done.value


