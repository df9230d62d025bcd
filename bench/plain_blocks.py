"""The least that a server of blocks can do, as a ceiling for what LMCache can measure on a machine.

    python bench/plain_blocks.py PORT GIBIBYTES

SET is received into memory that was touched at the start, GET is sent from it, EXISTS looks into a dictionary. Nothing
is checked, nothing is freed: when the memory is full it begins again at its start, and a key stored again keeps its
place. One thread, one block at a time; it understands what LMCache's `resp` client sends and nothing else but PING.
"""

from __future__ import annotations

import mmap
import selectors
import socket
import sys
from dataclasses import dataclass

HEAD_BYTES_MAX = 4096
RECEIVE_BYTES_MAX = 4 << 20
MADV_POPULATE_WRITE = 23


@dataclass
class Incoming:
    """Where a connection's value goes, and what of it is still to come; the CRLF behind it is counted apart."""

    at: int = 0
    left: int = 0
    tail: int = 0


class Blocks:
    """The memory and where the keys stand in it."""

    def __init__(self, size: int) -> None:
        memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
        memory.madvise(MADV_POPULATE_WRITE)
        self.memory = memoryview(memory)
        self.places: dict[bytes, tuple[int, int]] = {}
        self.end = 0

    def place(self, key: bytes, size: int) -> int:
        """Where the key's value goes."""
        at, before = self.places.get(key, (0, -1))
        if before != size:
            at = self.end if self.end + size <= len(self.memory) else 0
            self.end = at + size
            self.places[key] = at, size
        return at

    def turn(self, sock: socket.socket, state: Incoming) -> bool:
        """What can be read now; False when the other side has closed."""
        if state.left:
            view = self.memory[state.at : state.at + min(state.left, RECEIVE_BYTES_MAX)]
            n = sock.recv_into(view)
            state.at += n
            state.left -= n
            return n > 0
        if state.tail:
            n = len(sock.recv(state.tail))
            state.tail -= n
            if not state.tail:
                sock.sendall(b"+OK\r\n")
            return n > 0
        return self.command(sock, state)

    def command(self, sock: socket.socket, state: Incoming) -> bool:
        """A command's head, which comes in one piece."""
        head = sock.recv(HEAD_BYTES_MAX, socket.MSG_PEEK)
        parts = head.split(b"\r\n", 6)
        name = parts[2] if len(parts) > 2 else b""
        if name == b"SET":
            sock.recv(len(head) - len(parts[6]))
            state.left, state.tail = int(parts[5][1:]), 2
            state.at = self.place(parts[4], state.left)
            return True
        sock.recv(len(head))
        if name == b"EXISTS":
            sock.sendall(b":%d\r\n" % (parts[4] in self.places))
        elif name == b"GET":
            at, size = self.places[parts[4]]
            sock.sendall(b"$%d\r\n" % size)
            sock.sendall(self.memory[at : at + size])
            sock.sendall(b"\r\n")
        elif name:
            sock.sendall(b"+PONG\r\n")
        return bool(head)


def main() -> None:
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    blocks = Blocks(int(sys.argv[2]) << 30)  # takes seconds: who connects meanwhile waits for its answer
    selector = selectors.EpollSelector()
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            if key.data is None:
                client, _ = listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(client, selectors.EVENT_READ, Incoming())
                continue
            try:
                open_still = blocks.turn(sock, key.data)
            except ConnectionError:
                open_still = False
            if not open_still:
                selector.unregister(sock)
                sock.close()


if __name__ == "__main__":
    main()
