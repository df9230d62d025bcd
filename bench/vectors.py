"""Vector sets at 100,000 × 768: which index library, and what VSIM answers over a socket.

    python bench/vectors.py [--count 100000] [--parts libraries,server]

Two kinds of data. *Clustered*: a mixture of 1,000 Gaussians on the sphere, which is what embeddings are like. *Uniform*
directions: every pair is nearly orthogonal, nothing is near, and no graph helps; it shows the worst case. Queries come
from the same distribution and are not in the index. Recall is over the 10 nearest by brute force on 32-bit floats.
Every library builds and searches on one thread. hnswlib is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from bench.servers import Server, encode, machine, save, table

DIM = 768
NEIGHBOURS = 10
CLUSTERS = 1000
SPREAD = 0.8  # standard deviation inside a cluster, that of the centres being 1
QUERIES = 500
M = 16
EF_BUILD = 200
EF_SEARCH = (50, 100, 200, 400)
PIPELINE = 50
RECALL_BAR, P50_BAR_MS = 0.95, 2.0


def make(data: str, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors, queries, and for each query the places of its nearest vectors."""
    random = np.random.default_rng(7)
    rows = random.standard_normal((count + QUERIES, DIM), dtype=np.float32)
    if data == "clustered":
        centres = random.standard_normal((CLUSTERS, DIM), dtype=np.float32)
        rows *= SPREAD
        rows += centres[random.integers(0, CLUSTERS, len(rows))]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    base, queries = rows[:count], rows[count:]
    truth = np.argpartition(-(queries @ base.T), NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    return base, queries, truth


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measured(search: Callable[[np.ndarray], Any], queries: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Recall, and milliseconds per search."""
    spent, hits = [], 0
    for query, nearest in zip(queries, truth, strict=True):
        begin = time.perf_counter()
        found = search(query)
        spent.append((time.perf_counter() - begin) * 1e3)
        hits += len(np.intersect1d(np.asarray(found, np.int64), nearest))
    return {
        "recall": hits / truth.size,
        "p50_ms": float(np.median(spent)),
        "p99_ms": float(np.quantile(spent, 0.99)),
    }


# --- libraries ----------------------------------------------------------------------------------------------------


def quantised(rows: np.ndarray) -> np.ndarray:
    """int8 with a range for each row, as a vector set keeps it."""
    return np.rint(rows * (127 / np.abs(rows).max(axis=-1, keepdims=True))).astype(np.int8)


def usearch(scalar: str, base: np.ndarray, queries: np.ndarray) -> Iterator[Any]:
    """Yields (rows, prepared queries), then for each EF a search, and last an exhaustive one."""
    from usearch.index import Index

    prepare = quantised if scalar == "i8" else np.asarray
    rows, prepared = prepare(base), prepare(queries)
    index = Index(
        ndim=DIM, metric="cos" if scalar == "i8" else "ip", dtype=scalar, connectivity=M, expansion_add=EF_BUILD
    )
    yield prepared
    for begin in range(0, len(rows), 1000):
        keys = np.arange(begin, min(begin + 1000, len(rows)), dtype=np.uint64)
        index.add(keys, rows[begin : begin + 1000], threads=1)
    yield None
    for ef in EF_SEARCH:
        index.expansion_search = ef
        yield str(ef), lambda query: index.search(query, NEIGHBOURS, threads=1).keys
    yield "all", lambda query: index.search(query, NEIGHBOURS, exact=True, threads=1).keys


def hnswlib(base: np.ndarray, queries: np.ndarray) -> Iterator[Any]:
    """The same for hnswlib, which has no exhaustive search."""
    import hnswlib

    index = hnswlib.Index(space="ip", dim=DIM)
    index.init_index(max_elements=len(base), M=M, ef_construction=EF_BUILD)
    yield queries
    index.add_items(base, num_threads=1)
    yield None
    for ef in EF_SEARCH:
        index.set_ef(ef)
        yield str(ef), lambda query: index.knn_query(query, NEIGHBOURS, num_threads=1)[0][0]


LIBRARIES: dict[str, Callable[[np.ndarray, np.ndarray], Iterator[Any]]] = {
    "usearch int8": lambda base, queries: usearch("i8", base, queries),
    "usearch f32": lambda base, queries: usearch("f32", base, queries),
    "hnswlib f32": hnswlib,
}


def library(name: str, data: str, count: int) -> dict[str, Any]:
    """One library on one kind of data; runs in a process of its own."""
    base, queries, truth = make(data, count)
    steps = LIBRARIES[name](base, queries)
    prepared = next(steps)
    memory, begin = resident(), time.perf_counter()
    next(steps)
    figures: dict[str, Any] = {"build_s": time.perf_counter() - begin, "memory_bytes": resident() - memory}
    figures["search"] = {ef: measured(search, prepared, truth) for ef, search in steps}
    return figures


def library_rows(name: str, data: str, figures: dict[str, Any]) -> list[list[str]]:
    """Its part of the table."""
    head = [name, data, f"{figures['build_s']:.0f}", f"{figures['memory_bytes'] / (1 << 20):.0f}"]
    return [
        [*(head if not place else [""] * 4), ef, f"{each['recall']:.3f}", f"{each['p50_ms']:.2f}",
         f"{each['p99_ms']:.2f}"]
        for place, (ef, each) in enumerate(figures["search"].items())
    ]  # fmt: skip


# --- the server ---------------------------------------------------------------------------------------------------


def converse(sock: Any, replies: Any, commands: list[bytes]) -> None:
    """Sends commands whose replies are one line each."""
    sock.sendall(b"".join(commands))
    for _ in commands:
        line = replies.readline()
        if line[:1] == b"-":
            raise RuntimeError(line)


def array(replies: Any) -> list[bytes]:
    """An array of bulk strings."""
    items = []
    for _ in range(int(replies.readline()[1:])):
        size = int(replies.readline()[1:])
        items.append(replies.read(size + 2)[:-2])
    return items


def server(data: str, count: int) -> dict[str, Any]:
    """VADD, VSIM with the defaults, and DEL, over a socket; the server on one core, this program on another."""
    base, queries, truth = make(data, count)
    cores = sorted(os.sched_getaffinity(0))
    with Server("zeekdb") as zeekdb, zeekdb.connect() as sock:
        os.sched_setaffinity(zeekdb.process.pid, {cores[0]})
        os.sched_setaffinity(0, {cores[-1]})
        replies = sock.makefile("rb")
        converse(sock, replies, [encode(b"VCARD", b"vectors")])  # imports the packages
        memory, begin = zeekdb.rss(), time.perf_counter()
        for start in range(0, count, PIPELINE):
            batch = [
                encode(b"VADD", b"vectors", b"FP32", row.tobytes(), b"%d" % place)
                for place, row in enumerate(base[start : start + PIPELINE], start)
            ]
            converse(sock, replies, batch)
        figures: dict[str, Any] = {"build_s": time.perf_counter() - begin, "memory_bytes": zeekdb.rss() - memory}

        def search(query: np.ndarray, *options: bytes) -> list[int]:
            sock.sendall(encode(b"VSIM", b"vectors", b"FP32", query.tobytes(), *options))
            return [int(name) for name in array(replies)]

        figures["search"] = {
            "default": measured(search, queries, truth),
            "EF 400": measured(lambda query: search(query, b"EF", b"400"), queries, truth),
            "TRUTH": measured(lambda query: search(query, b"TRUTH"), queries, truth),
        }
        begin = time.perf_counter()
        converse(sock, replies, [encode(b"DEL", b"vectors")])
        figures["del_ms"] = (time.perf_counter() - begin) * 1e3
        return figures


# --- the program --------------------------------------------------------------------------------------------------


def apart(*arguments: str) -> Any:
    """This program with other arguments, in a process of its own; what it prints is JSON."""
    done = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--parts", type=lambda text: text.split(","), default=["libraries", "server"])
    parser.add_argument("--one", nargs=2, metavar=("LIBRARY", "DATA"), help="one measurement, as JSON")
    arguments = parser.parse_args()
    if arguments.one:
        name, data = arguments.one
        print(json.dumps(server(data, arguments.count) if name == "server" else library(name, data, arguments.count)))
        return
    names = [name for name in LIBRARIES if importlib.util.find_spec(name.split()[0])] * ("libraries" in arguments.parts)
    names += ["server"] * ("server" in arguments.parts)
    rows, results, met = [], {}, True
    for data in ("clustered", "uniform"):
        for name in names:
            figures = apart("--one", name, data, "--count", str(arguments.count))
            results[f"{name}, {data}"] = figures
            rows += library_rows(name, data, figures)
            print("\n".join(" ".join(row) for row in rows[-len(figures["search"]) :]), file=sys.stderr)
            if name == "server":
                print(f"DEL: {figures['del_ms']:.1f} ms", file=sys.stderr)
            if (name, data) == ("server", "clustered"):
                default = figures["search"]["default"]
                met = default["recall"] >= RECALL_BAR and default["p50_ms"] < P50_BAR_MS
    print(f"{machine()}, {arguments.count:,} × {DIM}, M {M}, EF {EF_BUILD} when building.\n")
    print(table(["index", "data", "build s", "MiB", "EF", "recall@10", "p50 ms", "p99 ms"], rows))
    print(f"\nServer, clustered, recall >= {RECALL_BAR} and p50 < {P50_BAR_MS} ms: {'met' if met else 'missed'}")
    save("vectors", {"count": arguments.count, "dim": DIM, **results})


if __name__ == "__main__":
    main()
