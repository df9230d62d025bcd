"""What both forms of the client know of a socket: its limits, the memory that comes through it, what went wrong."""

from __future__ import annotations

import array
import os
import socket
import struct
from typing import Final

from zeekdb.client.address import Address
from zeekdb.client.calls import Link
from zeekdb.client.leases import Mapping
from zeekdb.client.wire import Reader, Reply
from zeekdb.errors import CommandError, Unavailable

ATTEMPTS_MAX: Final = 2  # of a call that may be repeated
IOV_MAX: Final = min(os.sysconf("SC_IOV_MAX"), 1024)  # pieces of one sendmsg
TIMEOUT_S_DEFAULT: Final = 30.0
TIMEOUT_S_MIN: Final = 0.001
CONNECT_TIMEOUT_S_DEFAULT: Final = 5.0
ATTACH: Final = [b"KV.ATTACH"]
RIGHTS_SPACE: Final = socket.CMSG_SPACE(struct.calcsize("i"))
RIGHTS_FLAGS: Final = socket.MSG_CMSG_CLOEXEC


class SocketLink(Link):
    """A connection: its socket and the replies that come in there."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self.sock = sock
        self.reader = Reader()


def rights_of(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors that came with a message."""
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def close_all(fds: list[int]) -> None:
    """Of descriptors that came."""
    for fd in fds:
        os.close(fd)


def mapping_of(reply: Reply, fds: list[int]) -> Mapping:
    """The arena of KV.ATTACH's reply; closes the descriptors. CommandError, Unavailable."""
    try:
        if isinstance(reply, CommandError):
            raise reply
        if len(fds) != 1 or not isinstance(reply, list) or len(reply) < 2:
            raise Unavailable("the server's arena did not come with its reply")
        return Mapping(fds[0], reply[0], reply[1])
    finally:
        close_all(fds)


def broken(address: Address, error: Exception) -> Unavailable:
    """An error of the network as the caller sees it."""
    if isinstance(error, BlockingIOError | TimeoutError):
        return Unavailable(f"{address}: timed out")
    return Unavailable(f"{address}: {getattr(error, 'strerror', None) or error}")
