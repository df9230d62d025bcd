"""The tensor region through zeekdb.client, beside plain sockets, redis-server and numpy's copy in the same run.

    python bench/region.py [--rounds 5] [--connections 1,4] [--only wire,attach,lookup,latency] [--write]

Every figure is a median of rounds in turns. The plain sockets are two processes that move the same bytes between reused
buffers and do nothing else; where there are several connections, each has a client process of its own (and a server's,
if plain). CPU is the server's, in seconds per GB that it moved.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from bench.servers import Server, command_line, machine, median, publish, table
from zeekdb.client import Region
from zeekdb.client.calls import Exchange

MIB = 1 << 20
BLOCK = 4 * MIB
BLOCKS = 16
MOVED = BLOCK * BLOCKS  # bytes of one command
SETS = 4
LOCAL_BLOCKS = 256  # 1 GiB
KEYS = 1024
TRAFFIC_S = 5.0
PING_S = 0.001
MODEL = "bench"
ARENA = "3gb"

Mover = Callable[[str], None]


# ---------------------------------------------------------------- who moves bytes


def buffers(count: int = BLOCKS) -> list[np.ndarray[Any, Any]]:
    """Blocks of random bytes, each page touched."""
    pattern = np.frombuffer(os.urandom(MIB), np.uint8)
    return [np.tile(pattern, BLOCK // MIB) for _ in range(count)]


def plain_server(listener: socket.socket) -> None:
    """Serves one connection: g: sends a command's blocks; p: receives them, and says so."""
    views = [memoryview(each) for each in buffers()]
    sock, _ = listener.accept()
    while what := sock.recv(1):
        for view in views:
            if what == b"g":
                sock.sendall(view)
            else:
                receive(sock, view)
        if what == b"p":
            sock.sendall(b".")


def receive(sock: socket.socket, view: memoryview) -> None:
    """Exactly the view's bytes."""
    got = 0
    while got < len(view):
        n = sock.recv_into(view[got:])
        if not n:
            raise ConnectionError("closed")
        got += n


def plain_mover(address: Any) -> Mover:
    """Moves the blocks through a plain socket."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    sock = socket.socket(family)
    sock.connect(address)
    views = [memoryview(each) for each in buffers()]

    def move(what: str) -> None:
        if what == "d":
            return
        sock.sendall(what.encode())
        for view in views:
            if what == "g":
                receive(sock, view)
            else:
                sock.sendall(view)
        if what == "p":
            sock.recv(1)

    return move


def region_mover(address: str, name: str) -> Mover:
    """Moves them with KV.MGET and KV.MSET: SETS different ones, which are removed before they are stored again."""
    region = Region(address, MODEL)
    blocks = buffers()
    keys = [[f"{name}:{number}:{at}" for at in range(BLOCKS)] for number in range(SETS)]
    region.put_from(keys[0], blocks)
    last = 0

    def move(what: str) -> None:
        nonlocal last
        if what == "d":
            for some in keys:
                region.delete(some)
        elif what == "g":
            if not all(region.get_into(keys[last], blocks)):
                raise RuntimeError("a block is missing")
        else:
            last = (last + 1) % SETS
            if region.put_from(keys[last], blocks) != [1] * BLOCKS:
                raise RuntimeError("a block was not stored")

    return move


def redis_mover(address: str, name: str) -> Mover:
    """Moves them with MGET and MSET, through the same client."""
    region = Region(address, MODEL)
    views = [memoryview(each) for each in buffers()]
    keys = [[f"{name}:{number}:{at}".encode() for at in range(BLOCKS)] for number in range(SETS)]
    stores = [[b"MSET", *(word for pair in zip(some, views, strict=True) for word in pair)] for some in keys]
    region._exchange(Exchange(stores[0]))
    last = 0

    def move(what: str) -> None:
        nonlocal last
        if what == "d":
            for some in keys:
                region._exchange(Exchange([b"DEL", *some]))
        elif what == "g":
            region._exchange(Exchange([b"MGET", *keys[last]], views))
        else:
            last = (last + 1) % SETS
            region._exchange(Exchange(stores[last]))

    return move


# ---------------------------------------------------------------- processes


def work(make: Callable[..., Mover], arguments: tuple[Any, ...], pipe: Connection) -> None:
    """A client's process: does what the pipe says, and answers with (begin, end, how often)."""
    move = make(*arguments)
    pipe.send(None)
    while (order := pipe.recv()) is not None:
        what, times, until = order
        done = 0
        begin = time.monotonic()
        while done < times or time.monotonic() < until:
            if until and what == "p":
                move("d")
            move(what)
            done += 1
        pipe.send((begin, time.monotonic(), done))


class Clients:
    """Client processes of one kind that move bytes at the same time."""

    def __init__(self, makes: list[tuple[Callable[..., Mover], tuple[Any, ...]]]) -> None:
        self.pipes, self.processes = [], []
        for make, arguments in makes:
            mine, other = multiprocessing.Pipe()
            process = multiprocessing.Process(target=work, args=(make, arguments, other), daemon=True)
            process.start()
            other.close()
            mine.recv()
            self.pipes.append(mine)
            self.processes.append(process)

    def turn(self, what: str) -> float:
        """Each moves SETS times; GB/s over all clients, from the first one's begin to the last one's end."""
        for order in ("d", "p") if what == "p" else (what,):
            for pipe in self.pipes:
                pipe.send((order, 1 if order == "d" else SETS, 0.0))
            spans = [pipe.recv() for pipe in self.pipes]
        seconds = max(end for _, end, _ in spans) - min(begin for begin, _, _ in spans)
        return sum(done for _, _, done in spans) * MOVED / seconds / 1e9

    def begin(self, what: str, seconds: float) -> None:
        """Lets them move for so long; `end` waits."""
        for pipe in self.pipes:
            pipe.send((what, 1, time.monotonic() + seconds))

    def end(self, seconds: float) -> float:
        """GB/s over that time."""
        return sum(pipe.recv()[2] for pipe in self.pipes) * MOVED / seconds / 1e9

    def stop(self) -> None:
        """Ends the processes."""
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            pipe.send(None)
            process.join(10)


def plain_clients(transport: str, count: int) -> Clients:
    """Clients with a plain server process for each."""
    makes = []
    for _ in range(count):
        if transport == "tcp":
            listener = socket.create_server(("127.0.0.1", 0))
        else:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(os.path.join(tempfile.mkdtemp(prefix="bench-"), "s"))
            listener.listen()
        multiprocessing.Process(target=plain_server, args=(listener,), daemon=True).start()
        makes.append((plain_mover, (listener.getsockname(),)))
    return Clients(makes)


def clients_of(server: Server, transport: str, count: int) -> Clients:
    """Clients of a server."""
    address = f"redis://127.0.0.1:{server.port}" if transport == "tcp" else server.unix
    make = redis_mover if server.kind == "redis" else region_mover
    return Clients([(make, (address, f"{transport}{count}:{at}")) for at in range(count)])


def new_zeekdb() -> Server:
    """A ZeekDB with the model declared."""
    server = Server("zeekdb", "--kv-memory", ARENA)
    if server.call("KV.MODEL", "SET", MODEL) != b"+OK":
        raise RuntimeError("the model was refused")
    return server


# ---------------------------------------------------------------- what is measured


def wire(rounds: int, counts: list[int]) -> tuple[list[list[str]], dict[str, Any]]:
    """KV.MGET and KV.MSET of 16 x 4 MiB beside plain sockets and redis-server."""
    rows, data = [], {}
    for transport in ("tcp", "unix"):
        for count in counts:
            with new_zeekdb() as zeekdb, Server("redis") as redis:
                kinds = {
                    "plain": plain_clients(transport, count),
                    "redis": clients_of(redis, transport, count),
                    "zeekdb": clients_of(zeekdb, transport, count),
                }
                servers = {"redis": redis, "zeekdb": zeekdb}
                rates: dict[tuple[str, str], list[float]] = {}
                cpu: dict[tuple[str, str], list[float]] = {}
                for turn in range(rounds + 1):
                    for what in ("g", "p"):
                        for kind, clients in kinds.items():
                            before = servers[kind].cpu_s() if kind in servers else 0.0
                            rate = clients.turn(what)
                            after = servers[kind].cpu_s() if kind in servers else 0.0
                            if turn:  # the first faults the buffers in
                                rates.setdefault((kind, what), []).append(rate)
                                cpu.setdefault((kind, what), []).append((after - before) / (SETS * count * MOVED / 1e9))
                for clients in kinds.values():
                    clients.stop()
            for what, name in (("g", "MGET"), ("p", "MSET")):
                gbps = {kind: median(rates[kind, what]) for kind in kinds}
                share = median(z / p for z, p in zip(rates["zeekdb", what], rates["plain", what], strict=True))
                label = f"{name}, {transport}, {count} connection{'s' if count > 1 else ''}"
                rows.append([
                    label, f"{gbps['plain']:.2f}", f"{gbps['redis']:.2f}", f"{gbps['zeekdb']:.2f}", f"**{share:.0%}**",
                    f"80% {'met' if share >= 0.8 else 'missed'}", f"{median(cpu['redis', what]):.2f}",
                    f"{median(cpu['zeekdb', what]):.2f}",
                ])  # fmt: skip
                data[label] = rows[-1][1:]
    return rows, data


def attach(rounds: int) -> tuple[list[list[str]], dict[str, Any]]:
    """1 GiB out of the mapped arena beside numpy's copy; views."""
    with new_zeekdb() as server, Region(server.unix, MODEL) as region:
        region.attach()
        keys = [f"local:{at}" for at in range(LOCAL_BLOCKS)]
        source = np.ones((LOCAL_BLOCKS, BLOCK), np.uint8)
        target = np.ones((LOCAL_BLOCKS, BLOCK), np.uint8)
        begin = time.perf_counter()
        if region.put_from(keys, list(source)) != [1] * LOCAL_BLOCKS:
            raise RuntimeError("a block was not stored")
        first_put_s = time.perf_counter() - begin
        reading = Region(server.unix, MODEL)
        reading.attach()
        rates: dict[str, list[float]] = {"numpy": [], "get_into": [], "put_from": []}
        first_s, view_us = 0.0, []
        for turn in range(rounds + 1):
            begin = time.perf_counter()
            np.copyto(target, source)
            between = time.perf_counter()
            if not all(reading.get_into(keys, list(target))):
                raise RuntimeError("a block is missing")
            end = time.perf_counter()
            region.delete(keys)
            put = time.perf_counter()
            region.put_from(keys, list(source))
            after = time.perf_counter()
            if not turn:
                first_s = end - between
                continue
            rates["numpy"].append(target.nbytes / (between - begin) / 1e9)
            rates["get_into"].append(target.nbytes / (end - between) / 1e9)
            rates["put_from"].append(target.nbytes / (after - put) / 1e9)
        gc.disable()
        for _ in range(20 * rounds):
            begin = time.perf_counter()
            views = reading.views(keys, 10_000)
            view_us.append((time.perf_counter() - begin) / LOCAL_BLOCKS * 1e6)
            views.lease.unlock()
        gc.enable()
        reading.close()
    share = median(g / n for g, n in zip(rates["get_into"], rates["numpy"], strict=True))
    put_share = median(p / n for p, n in zip(rates["put_from"], rates["numpy"], strict=True))
    view = median(view_us)
    gib = target.nbytes / 1e9
    rows = [
        ["numpy copies 1 GiB", f"{median(rates['numpy']):.2f} GB/s", "", ""],
        ["get_into, attached", f"{median(rates['get_into']):.2f} GB/s", f"**{share:.0%}** of numpy",
         f"80% {'met' if share >= 0.8 else 'missed'}"],
        ["the first time (pages are mapped)", f"{gib / first_s:.2f} GB/s", "", ""],
        ["put_from, attached", f"{median(rates['put_from']):.2f} GB/s", f"{put_share:.0%} of numpy", ""],
        ["the first time (pages are taken)", f"{gib / first_put_s:.2f} GB/s", "", ""],
        ["a view, in 256 at a time", f"{view:.1f} µs", "", f"20 µs {'met' if view < 20 else 'missed'}"],
    ]  # fmt: skip
    return rows, {row[0]: row[1:] for row in rows}


def lookup(rounds: int) -> tuple[list[list[str]], dict[str, Any]]:
    """KV.LOOKUP of 1,024 keys: the server's time per call."""
    rows = []
    with new_zeekdb() as server, Region(server.unix, MODEL) as region:
        keys = [os.urandom(16).hex() for _ in range(64 * KEYS)]
        region.put_from(keys, [b"x"] * len(keys))
        for name, lease_ms in (("without a lease", 0), ("with a lease", 5000)):
            figures, seen = [], []
            for turn in range(rounds):
                server.call("CONFIG", "RESETSTAT")
                for at in range(0, len(keys), KEYS):  # other keys each time, and none in a cache
                    begin = time.perf_counter()
                    found = region.lookup(keys[at : at + KEYS], lease_ms)
                    seen.append((time.perf_counter() - begin) * 1e6)
                    if found.prefix != KEYS:
                        raise RuntimeError(f"keys are missing in round {turn}")
                stats = server.info("commandstats", "cmdstat_kv.lookup")
                figures.append(float(dict(field.split("=") for field in stats.split(","))["usec_per_call"]))
            us = median(figures)
            rows.append([f"KV.LOOKUP of 1,024 keys {name}", f"{us:.0f} µs", f"{median(seen):.0f} µs for the client",
                         f"300 µs {'met' if us < 300 else 'missed'}"])  # fmt: skip
    return rows, {row[0]: row[1:] for row in rows}


def ping(port: int, seconds: float, pipe: Connection) -> None:
    """GETs a small value every millisecond; the waits in ms, sorted."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$100\r\n" + b"x" * 100 + b"\r\n")
    sock.recv(64)
    waits = []
    pipe.send(None)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        begin = time.perf_counter()
        sock.sendall(b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n")
        sock.recv(4096)
        wait = time.perf_counter() - begin
        waits.append(wait * 1e3)
        if wait < PING_S:
            time.sleep(PING_S - wait)
    pipe.send(sorted(waits))


def latency(rounds: int) -> tuple[list[list[str]], dict[str, Any]]:
    """GET on another connection while tensors move; beside an idle server with the same bytes in plain sockets."""
    rows = []
    with new_zeekdb() as zeekdb, Server("redis") as redis:
        cases = [
            (f"{name} {transport}", server, clients, what)
            for transport in ("unix", "tcp")
            for name, server, clients in (
                ("plain sockets beside an idle ZeekDB,", zeekdb, plain_clients(transport, 2)),
                ("redis", redis, clients_of(redis, transport, 2)),
                ("ZeekDB", zeekdb, clients_of(zeekdb, transport, 2)),
            )
            for what in "gp"
        ]
        found: dict[str, list[tuple[float, float, float]]] = {}
        for _ in range(rounds):
            for name, server, clients, what in cases:
                mine, other = multiprocessing.Pipe()
                process = multiprocessing.Process(target=ping, args=(server.port, TRAFFIC_S, other), daemon=True)
                process.start()
                mine.recv()
                clients.begin(what, TRAFFIC_S)
                waits = mine.recv()
                process.join()
                label = f"{name} {'MGET' if what == 'g' else 'MSET'}"
                found.setdefault(label, []).append(
                    (clients.end(TRAFFIC_S), waits[int(len(waits) * 0.99)], waits[-1])
                )  # fmt: skip
        for clients in {id(each): each for _, _, each, _ in cases}.values():
            clients.stop()
    for label, figures in found.items():
        gbps, p99, worst = (median(figure[at] for figure in figures) for at in range(3))
        is_met = p99 < 2 and worst < 10
        bar = f"p99 2 ms, max 10 ms {'met' if is_met else 'missed'}" if label.startswith("ZeekDB") else ""
        rows.append([label, f"{gbps:.2f}", f"{p99:.2f}", f"{worst:.2f}", bar])
    return rows, {row[0]: row[1:] for row in rows}


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", default="1,4")
    parser.add_argument("--only", default="wire,attach,lookup,latency")
    arguments = parser.parse_args()
    only = arguments.only.split(",")
    text, data = [machine() + "."], {}
    if "wire" in only:
        rows, data["wire"] = wire(arguments.rounds, [int(count) for count in arguments.connections.split(",")])
        head = ["16 x 4 MiB, GB/s", "plain", "Redis", "ZeekDB", "of plain", "bar", "Redis CPU s/GB", "ZeekDB CPU s/GB"]
        text.append(table(head, rows))
    if "attach" in only:
        rows, data["attach"] = attach(arguments.rounds)
        text.append(table(["shared memory", "measured", "", "bar"], rows))
    if "lookup" in only:
        rows, data["lookup"] = lookup(arguments.rounds)
        text.append(table(["lookup", "server's time", "", "bar"], rows))
    if "latency" in only:
        rows, data["latency"] = latency(arguments.rounds)
        text.append(table(["GET beside", "GB/s moved", "p99 ms", "max ms", "bar"], rows))
    publish("region", data, "\n\n".join(text), arguments.write)


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    main()
