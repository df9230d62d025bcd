"""Listening sockets: TCP on several addresses, one Unix socket, and who may come in."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zeekdb.server.server import Server

log = logging.getLogger("zeekdb")

ACCEPTS_PER_EVENT = 64
ACCEPT_RETRY_S = 0.1  # after running out of descriptors

PROTECTED = (
    b"-DENIED Redis is running in protected mode because protected mode is enabled and no password is set for the "
    b"default user. In this mode connections are only accepted from the loopback interface. If you want to connect "
    b"from external computers to Redis you may adopt one of the following solutions: 1) Just disable protected mode "
    b"sending the command 'CONFIG SET protected-mode no' from the loopback interface by connecting to Redis from the "
    b"same host the server is running, however MAKE SURE Redis is not publicly accessible from internet if you do so. "
    b"Use CONFIG REWRITE to make this change permanent. 2) Alternatively you can just disable the protected mode by "
    b"editing the Redis configuration file, and setting the protected mode option to 'no', and then restarting the "
    b"server. 3) If you started the server manually just for testing, restart it with the '--protected-mode no' "
    b"option. 4) Setup a an authentication password for the default user. NOTE: You only need to do one of the above "
    b"things in order for the server to start accepting connections from the outside.\r\n"
)


def format_address(address: object) -> str:
    """As CLIENT LIST prints it: `127.0.0.1:50412`, `[::1]:50412`."""
    if isinstance(address, tuple):
        host, port = address[0], address[1]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"{address}:0"


def is_loopback(address: object) -> bool:
    """Whether a peer's address is this machine's own; Unix sockets count."""
    if not isinstance(address, tuple):
        return True
    host = str(address[0]).removeprefix("::ffff:")
    return host == "::1" or host.startswith("127.")


class Listeners:
    """Opens, watches and closes the listening sockets of one server."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self.loop = loop
        self.tcp: list[socket.socket] = []
        self.unix: list[socket.socket] = []

    def open_tcp(self, addresses: list[str], port: int, backlog: int) -> None:
        """Bind every address; an address with a leading `-` may be missing. OSError when none can be bound."""
        opened: list[socket.socket] = []
        try:
            for address in addresses:
                optional = address.startswith("-")
                try:
                    opened.append(self._bind(address.removeprefix("-"), port, backlog))
                except OSError as error:
                    if optional and error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT):
                        continue
                    raise OSError(
                        error.errno, f"Could not create server TCP listening socket {address}:{port}: {error.strerror}"
                    ) from error
            if not opened and addresses:
                raise OSError(errno.EADDRNOTAVAIL, f"Failed listening on port {port} (tcp), aborting.")
        except OSError:
            for sock in opened:
                sock.close()
            raise
        self.close_tcp()
        self.tcp = opened
        for sock in opened:
            self.loop.add_reader(sock.fileno(), self._accept, sock, False)

    def _bind(self, address: str, port: int, backlog: int) -> socket.socket:
        host = {"*": "0.0.0.0", "::*": "::"}.get(address, address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((host, port))
            sock.listen(backlog)
        except BaseException:
            sock.close()
            raise
        return sock

    def open_unix(self, path: str, mode: int, backlog: int) -> None:
        """Listen on `path`; a stale socket file there is replaced, anything else is not."""
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.stat(path).st_mode):
                os.unlink(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.bind(path)
        if mode:
            os.chmod(path, mode)
        sock.listen(backlog)
        self.unix.append(sock)
        self.loop.add_reader(sock.fileno(), self._accept, sock, True)

    def close_tcp(self) -> None:
        """Stop listening on TCP; connections stay."""
        for sock in self.tcp:
            self.loop.remove_reader(sock.fileno())
            sock.close()
        self.tcp = []

    def close(self) -> None:
        """Stop listening altogether and remove the Unix socket's file."""
        self.close_tcp()
        for sock in self.unix:
            self.loop.remove_reader(sock.fileno())
            with contextlib.suppress(OSError):
                os.unlink(sock.getsockname())
            sock.close()
        self.unix = []

    # ------------------------------------------------------------ accepting

    def accept_waiting(self) -> None:
        """Lets in who waits, while the loop cannot."""
        for sock in self.tcp:
            self._accept(sock, False)
        for sock in self.unix:
            self._accept(sock, True)

    def _accept(self, listener: socket.socket, is_unix: bool) -> None:
        for _ in range(ACCEPTS_PER_EVENT):
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # Out of descriptors: a level-triggered listener would spin, so look away for a moment.
                log.warning("Accepting client connection: %s", error.strerror)
                self.loop.remove_reader(listener.fileno())
                self.loop.call_later(ACCEPT_RETRY_S, self._resume, listener, is_unix)
                return
            self._admit(sock, address, is_unix)

    def _resume(self, listener: socket.socket, is_unix: bool) -> None:
        if listener.fileno() >= 0:
            self.loop.add_reader(listener.fileno(), self._accept, listener, is_unix)

    def _admit(self, sock: socket.socket, address: object, is_unix: bool) -> None:
        server = self.server
        refusal = b""
        if server.client_count() >= server.config.maxclients:
            refusal = b"-ERR max number of clients reached\r\n"
        elif not is_unix and server.is_protected() and not is_loopback(address):
            refusal = PROTECTED
        if refusal:
            server.stats.rejected_connections += 1
            with contextlib.suppress(OSError), sock:
                sock.setblocking(False)
                sock.send(refusal)
            return
        try:
            sock.setblocking(False)
            if not is_unix:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._keep_alive(sock, server.config.tcp_keepalive)
            local = sock.getsockname()
        except OSError:
            sock.close()
            return
        peer = f"{local}:0" if is_unix else format_address(address)
        server.admit(sock.detach(), peer, format_address(local), is_unix)

    @staticmethod
    def _keep_alive(sock: socket.socket, seconds: int) -> None:
        if seconds <= 0:
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(seconds // 3, 1))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
