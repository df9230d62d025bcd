"""Large values: CPU of SET and GET, the wire's speed for a reader with a reused buffer, and memory after overwrites.

    python bench/large.py [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.servers import Server, machine, median, save, table

MIB = 1 << 20


def receive(sock: socket.socket, view: memoryview, size: int) -> None:
    """Exactly size bytes into the buffer."""
    got = 0
    while got < size:
        n = sock.recv_into(view[got:size])
        if not n:
            raise ConnectionError("closed")
        got += n


def plain_gbps(size: int, times: int) -> float:
    """What two plain TCP sockets move on this machine: a child sends the same buffer, we receive into one."""
    listener = socket.create_server(("127.0.0.1", 0))
    child = os.fork()
    if child == 0:
        data = memoryview(bytearray(os.urandom(1024)) * (size // 1024))
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(times + 1):
            sock.recv(1)
            sock.sendall(data)
        os._exit(0)
    with socket.create_connection(listener.getsockname()) as sock:
        view = memoryview(bytearray(size))
        sock.send(b"x")
        receive(sock, view, size)
        begin = time.perf_counter()
        for _ in range(times):
            sock.send(b"x")
            receive(sock, view, size)
        elapsed = time.perf_counter() - begin
    os.waitpid(child, 0)
    listener.close()
    return size * times / elapsed / 1e9


def set_many(server: Server, size: int, times: int) -> tuple[float, float]:
    """(CPU ms per SET, GB/s)."""
    value = memoryview(bytearray(os.urandom(1024)) * (size // 1024))
    head = b"*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n$%d\r\n" % size
    reply = bytearray(5)
    with server.connect() as sock:
        cpu, begin = 0.0, 0.0
        for turn in range(times + 2):
            if turn == 2:  # the first two fault the slabs in
                cpu, begin = server.cpu_s(), time.perf_counter()
            sock.sendall(head)
            sock.sendall(value)
            sock.sendall(b"\r\n")
            receive(sock, memoryview(reply), 5)
            if reply != b"+OK\r\n":
                raise RuntimeError(bytes(reply))
        return (server.cpu_s() - cpu) / times * 1e3, size * times / (time.perf_counter() - begin) / 1e9


def get_many(server: Server, size: int, times: int) -> tuple[float, float]:
    """(CPU ms per GET, GB/s), received into one buffer."""
    whole = len(b"$%d\r\n" % size) + size + 2
    view = memoryview(bytearray(whole))
    command = b"*2\r\n$3\r\nGET\r\n$3\r\nbig\r\n"
    with server.connect() as sock:
        sock.sendall(command)
        receive(sock, view, whole)
        cpu, begin = server.cpu_s(), time.perf_counter()
        for _ in range(times):
            sock.sendall(command)
            receive(sock, view, whole)
        return (server.cpu_s() - cpu) / times * 1e3, size * times / (time.perf_counter() - begin) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    rows, data = [], {}
    with Server("redis") as redis, Server("zeekdb") as zeekdb:
        for size, times, bar in ((32 * MIB, 40, 4.0), (MIB, 800, 1.2)):
            figures: dict[str, list[tuple[float, float]]] = {}
            plain: list[float] = []
            for _ in range(arguments.rounds):
                plain.append(plain_gbps(size, times))
                for server in (redis, zeekdb):
                    figures.setdefault(f"{server.kind} SET", []).append(set_many(server, size, times))
                    figures.setdefault(f"{server.kind} GET", []).append(get_many(server, size, times))
            wire = median(plain)
            for what in ("SET", "GET"):
                r_cpu, z_cpu = (median(f[0] for f in figures[f"{kind} {what}"]) for kind in ("redis", "zeekdb"))
                r_rate, z_rate = (median(f[1] for f in figures[f"{kind} {what}"]) for kind in ("redis", "zeekdb"))
                rows.append([
                    f"{what} {size // MIB} MiB", f"{r_cpu:.2f}", f"{z_cpu:.2f}", f"**{r_cpu / z_cpu:.2f}**",
                    f"{bar} {'met' if r_cpu / z_cpu >= bar else 'missed'}", f"{r_rate:.2f}", f"{z_rate:.2f}",
                    f"{z_rate / wire:.0%} of {wire:.2f}",
                ])  # fmt: skip
                data[rows[-1][0]] = rows[-1][1:]
        before = zeekdb.rss()
        set_many(zeekdb, 32 * MIB, 1000)
        growth = zeekdb.rss() - before
    print(machine() + ".\n")
    head = ["", "Redis CPU ms", "ZeekDB CPU ms", "factor", "bar", "Redis GB/s", "ZeekDB GB/s", "of plain sockets"]
    print(table(head, rows))
    print(f"\nResident memory after 1,000 more overwrites of a 32 MiB value: {growth / MIB:+.1f} MiB")
    data["growth MiB"] = [f"{growth / MIB:.1f}"]
    save("large", data)


if __name__ == "__main__":
    main()
