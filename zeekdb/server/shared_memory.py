"""The host arena in the hands of local clients: its descriptor, and room that they write to themselves."""

from __future__ import annotations

import asyncio
import os
import socket
from array import array
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from zeekdb.errors import CommandError
from zeekdb.hot import arena, region
from zeekdb.hot.blobview import BlobView
from zeekdb.hot.replies import NO_REPLY

if TYPE_CHECKING:
    from zeekdb.server.client import Client

RESERVED_SHARE: Final = 4  # of the arena's bytes, one in so many may be reserved by one client
RESERVED_MAX: Final = 4096  # pieces
REST_S: Final = 2.0  # for a client that was disconnected while it wrote to what it had reserved


@dataclass(slots=True)
class Attached:
    """A client that has the arena mapped: room that it reserved and has not committed."""

    reserved: dict[int, BlobView] = field(default_factory=dict)  # by offset
    bytes: int = 0


class SharedMemory:
    """Fills `commands.ports.SharedMemoryPort`."""

    def __init__(self) -> None:
        self.attached: dict[Client, Attached] = {}
        self.resting: deque[Attached] = deque()  # of clients that have gone: one of them may still be copying

    def is_attached(self, client: Client) -> bool:
        """Whether the client has the arena mapped."""
        return client in self.attached

    def attach(self, client: Client, lease_max_ms: int) -> Any:
        """Sends the arena's descriptor with the reply's first byte."""
        size = arena.arena_stats()["size"]
        if not client.is_unix:
            raise CommandError("ERR KV.ATTACH needs a connection over the Unix socket")
        if not size:
            raise CommandError("ERR there is no host arena, see kv-memory")
        if client.output_bytes:
            raise CommandError("ERR KV.ATTACH can't be pipelined")
        text = b"*2\r\n:%d\r\n:%d\r\n" % (size, lease_max_ms)
        with socket.socket(fileno=os.dup(client.fd)) as sock:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [arena.arena_fd()]))
            try:
                sock.sendmsg([text], [rights])
            except OSError as error:
                raise CommandError(f"ERR can't hand the arena over: {error.strerror}") from None
        self.attached.setdefault(client, Attached())
        return NO_REPLY

    def reserve(self, client: Client, sizes: list[int]) -> list[int]:
        """Room for blocks that the client writes itself: offsets, -1 where there is none."""
        mine = self._attached(client)
        bytes_max = arena.arena_stats()["size"] // RESERVED_SHARE
        offsets = []
        for size in sizes:
            allowed = mine.bytes + size <= bytes_max and len(mine.reserved) < RESERVED_MAX
            view = region.reserve(size) if allowed else None
            if view is None:
                offsets.append(-1)
                continue
            offset = region.fix(view)
            mine.reserved[offset] = view
            mine.bytes += size
            offsets.append(offset)
        return offsets

    def _attached(self, client: Client) -> Attached:
        try:
            return self.attached[client]
        except KeyError:
            raise CommandError("ERR the connection has not called KV.ATTACH") from None

    def reserved(self, client: Client, offsets: list[int]) -> list[BlobView]:
        """What was reserved there. CommandError."""
        mine = self._attached(client)
        if len(set(offsets)) < len(offsets) or any(offset not in mine.reserved for offset in offsets):
            raise CommandError("ERR nothing was reserved at this offset")
        return [mine.reserved[offset] for offset in offsets]

    def release(self, client: Client, offsets: list[int]) -> None:
        """The client writes there no more."""
        mine = self._attached(client)
        for offset in offsets:
            mine.bytes -= len(mine.reserved.pop(offset))

    def forget_client(self, client: Client) -> None:
        """The connection has ended: what it had reserved is free again once its process has had time to notice."""
        gone = self.attached.pop(client, None)
        if gone is not None and gone.reserved:
            self.resting.append(gone)
            asyncio.get_running_loop().call_later(REST_S, self._wake)

    def _wake(self) -> None:
        if self.resting:
            self.resting.popleft()

    def close(self) -> None:
        """No client reads or writes any more."""
        self.attached.clear()
        self.resting.clear()
