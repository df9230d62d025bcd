"""The vectors of contexts: what the embedding keeps, and how fast they are written and found.

    python bench/vectors_tier.py [--parts store,embedding] [--count 100000] [--engines embedded:] [--write]

*store*: vectors of 512 dimensions (a mixture of 1,000 Gaussians, which is what embeddings are like) go through the
server's own door, queue, guard and all, into each engine: vectors/s until the last is written, then seconds until all
graphs are built; searches for the 10 nearest of one tenant in four, one after the other, before and after, and their
recall against brute force. How late turns of the event loop come meanwhile says what a server would feel.

*embedding*: what contexts have in common (`bench/topics.py`: topic, family, prefix) and whether their vectors are
nearer than others': the area under the ROC curve over all pairs (0.5: chance), and how often the nearest is one of its
own group. Beside the embedding as it is, variants that leave something out. Needs torch.

Two cores are shared by the engine, its index builder and this program; times are of one run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from bench.servers import RESULTS, machine, save, table, write_block
from zeekdb.tensors.embedding import Embedder, finished
from zeekdb.tensors.layout import Layout
from zeekdb.tiers.tier import Name

DIM = 512
TENANTS = 4
NEIGHBOURS = 10
QUERIES = 300
CLUSTERS, SPREAD = 1000, 0.8
UPSERT_BAR, SEARCH_BAR_MS = 2000, 5.0
BUILD_WAIT_S = 300.0
TURN_S = 0.001


def report(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- the store ----------------------------------------------------------------------------------------------------


def clustered(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors and queries, of length one."""
    random = np.random.default_rng(7)
    rows = random.standard_normal((count + QUERIES, DIM), dtype=np.float32)
    centres = random.standard_normal((CLUSTERS, DIM), dtype=np.float32)
    rows *= SPREAD
    rows += centres[random.integers(0, CLUSTERS, len(rows))]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows[:count], rows[count:]


class Turns:
    """How late turns of the event loop come, ms: 99 of 100, and the latest."""

    def __init__(self) -> None:
        self.late_ms: list[float] = []
        self.task = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(TURN_S)
            self.late_ms.append((time.perf_counter() - begun - TURN_S) * 1e3)

    def take(self) -> tuple[float, float]:
        found, self.late_ms = self.late_ms or [0.0], []
        return round(float(np.quantile(found, 0.99)), 1), round(max(found), 1)


def truth_of(base: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The nearest of tenant 1, by brute force."""
    own = np.arange(1, len(base), TENANTS)
    return own[np.argpartition(-(queries @ base[own].T), NEIGHBOURS, axis=1)[:, :NEIGHBOURS]]


async def searched(store: Any, queries: np.ndarray, nearest: np.ndarray) -> dict[str, float]:
    """p50 and p99 of one search after the other, ms, and recall."""
    spent, hits = [], 0
    for query, truth in zip(queries, nearest, strict=True):
        begun = time.perf_counter()
        found = await store.search(b"bench", b"tenant 1", query.tobytes(), NEIGHBOURS, None)
        spent.append((time.perf_counter() - begun) * 1e3)
        hits += len({int(match.key) for match in found} & set(truth.tolist()))
    return {
        "p50_ms": round(float(np.median(spent)), 2), "p99_ms": round(float(np.quantile(spent, 0.99)), 2),
        "recall": round(hits / nearest.size, 3),
    }  # fmt: skip


async def measured(url: str, count: int) -> dict[str, Any]:
    """One engine."""
    from zeekdb.tiers.vectors.engine import Options
    from zeekdb.tiers.vectors.store import QUEUE_MAX, Context, VectorStore, engine_of

    engine = engine_of(url, Options(DIM, 16, 100), 30.0)
    store = VectorStore(engine, dim=DIM, timeout_s=30.0)
    await store.open()
    base, queries = clustered(count)
    nearest = truth_of(base, queries)
    turns = Turns()
    begun = time.perf_counter()
    for at, vector in enumerate(base):
        while store.stats().more["queue"] >= QUEUE_MAX:  # noqa: ASYNC110  # as a client that is told to come again
            await asyncio.sleep(TURN_S)
        keys = (*(b"%016d" % (at * 8 + each) for each in range(7)), b"%d" % at)
        name = Name(b"bench", b"tenant %d" % (at % TENANTS), b"%d" % at)
        assert store.put(Context(name, vector.tobytes(), keys, 8, (0, 2048), (10, 24), 3.0))
        if not at % 64:
            await asyncio.sleep(0)
    await store.settled()
    row: dict[str, Any] = {
        "engine": engine.name,
        "url": url.split(":")[0],
        "count": count,
        "load": round(os.getloadavg()[0], 1),
    }
    row["upserts_per_s"] = round(count / (time.perf_counter() - begun))
    row["turn_ms"] = turns.take()
    row["before"] = await searched(store, queries, nearest)
    if hasattr(engine, "figures"):
        begun = time.perf_counter()
        while (await engine.figures())["waiting"] and time.perf_counter() - begun < BUILD_WAIT_S:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        row["build_s"] = round(time.perf_counter() - begun, 1)
        row |= await engine.figures()
        row["build_turn_ms"] = turns.take()
        row["after"] = await searched(store, queries, nearest)
    turns.task.cancel()
    await store.close()
    begun = time.perf_counter()
    if not url.startswith("memory:"):
        again = VectorStore(engine_of(url, Options(DIM, 16, 100), 30.0), dim=DIM, timeout_s=30.0)
        await again.open()
        row["reopened"] = len(await again.search(b"bench", b"tenant 1", queries[0].tobytes(), NEIGHBOURS, None))
        row["reopen_s"] = round(time.perf_counter() - begun, 2)
        await again.close()
    return row


def store_part(engines: list[str], count: int) -> tuple[list[dict[str, Any]], str]:
    """Rows, and the table of them."""
    rows = []
    for kind in engines:
        folder = tempfile.mkdtemp(prefix="bench-vectors-")
        try:
            few = count if kind == "embedded:" else min(count, 2000)  # the client's local modes compare with all
            rows.append(asyncio.run(measured(kind + (folder if kind != "memory:" else ""), few)))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        report(json.dumps(rows[-1]))
    return rows, store_table(rows)


def store_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        [
            f"{row['engine']}, {row['url']}:", f"{row['load']}", f"{row['count']:,}", f"{row['upserts_per_s']:,}",
            f"{row['before']['p50_ms']} / {row['before']['p99_ms']}, {row['before']['recall']}",
            f"{row['after']['p50_ms']} / {row['after']['p99_ms']}, {row['after']['recall']}" if "after" in row else "",
            f"{row.get('build_s', '')}", f"{row['turn_ms'][0]} / {row['turn_ms'][1]}",
        ]
        for row in rows
    ]  # fmt: skip
    head = [
        "engine", "load average", "vectors", "upserts/s", "search p50 / p99 ms, recall@10: at once", "with graphs",
        "graphs built after s", "turns late by, p99 / most ms",
    ]  # fmt: skip
    return table(head, lines)


# --- the embedding ------------------------------------------------------------------------------------------------


class Plain(Embedder):
    """Without the square root."""

    @staticmethod
    def powered(pooled: Any) -> Any:
        return pooled


class TurnedBack(Embedder):
    """Keys turned back to position 0, which takes what a layout does not say. `first`: the block's position."""

    first = 0

    def pooled(self, view: memoryview, layer: int) -> Any:
        from bench.llama import frequencies
        from bench.topics import SHAPE

        layout = self.layout
        keys = self.keys(view, layer).reshape(layout.block, layout.heads, 2, layout.dim // 2)
        turns = np.outer(self.first + np.arange(layout.block), frequencies(SHAPE).numpy())[:, None]
        one, other = keys[:, :, 0], keys[:, :, 1]
        back = (one * np.cos(turns) + other * np.sin(turns), other * np.cos(turns) - one * np.sin(turns))
        return np.concatenate(back, -1).mean(axis=0).reshape(-1)


def embedded(keys: np.ndarray, maker: Embedder) -> np.ndarray:
    """The vectors of contexts [n, layers, tokens, heads, dim]."""
    vectors = []
    for context in keys:
        total = maker.nothing()
        for begin in range(0, context.shape[1], maker.layout.block):
            block = context[:, begin : begin + maker.layout.block]
            if isinstance(maker, TurnedBack):
                maker.first = begin
            total = total + maker.block(np.stack([block, block]).tobytes())  # values are not looked at
        made = finished(total)
        assert made is not None
        vectors.append(np.frombuffer(made.vector, "<f4"))
    return np.stack(vectors)


def separation(vectors: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """auc over all pairs; nearest: share whose nearest is of the same label; mean cosines of both kinds of pairs."""
    scores = vectors @ vectors.T
    upper = np.triu_indices(len(vectors), 1)
    same, pairs = (labels[:, None] == labels)[upper], scores[upper]
    ranks = np.empty(len(pairs))
    ranks[pairs.argsort()] = np.arange(1, len(pairs) + 1)
    ours, others = int(same.sum()), int((~same).sum())
    np.fill_diagonal(scores, -2)
    return {
        "auc": round(float((ranks[same].sum() - ours * (ours + 1) / 2) / (ours * others)), 3),
        "nearest": round(float((labels[scores.argmax(1)] == labels).mean()), 3),
        "same": round(float(pairs[same].mean()), 3), "other": round(float(pairs[~same].mean()), 3),
    }  # fmt: skip


def variants(layout: Layout) -> dict[str, Callable[[], Embedder]]:
    def layers(chosen: tuple[int, ...]) -> Embedder:
        maker = Embedder(layout, "raw", DIM)
        maker.layers = chosen
        return maker

    return {
        "as it is": lambda: Embedder(layout, "raw", DIM),
        "without the square root": lambda: Plain(layout, "raw", DIM),
        "keys turned back": lambda: TurnedBack(layout, "raw", DIM),
        "first layer": lambda: layers((0,)),
        "all layers": lambda: layers(tuple(range(layout.layers))),
        "last layer": lambda: layers((layout.layers - 1,)),
        "64 dimensions": lambda: Embedder(layout, "raw", 64),
    }


def embedding_part(steps: int, threads: int) -> tuple[list[dict[str, Any]], str]:
    import torch

    from bench.topics import BLOCK, SHAPE, Model, documents, sampled

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    texts = documents()
    learned = [tokens for at, tokens in enumerate(texts.values()) if at % 2]
    topical, prefixed = sampled({name: tokens for at, (name, tokens) in enumerate(texts.items()) if not at % 2})
    layout = Layout(SHAPE.layers, SHAPE.kv_heads, SHAPE.dim, "f16", BLOCK)
    rows = []
    for weights in ("random weights", f"trained for {steps} steps"):
        model = Model()
        if weights.startswith("trained"):
            loss = model.train(learned, steps, report)
            weights += f", loss {loss:.2f}"
        by_topic, by_prefix = model.keys(topical), model.keys(prefixed)
        for name, make in variants(layout).items():
            vectors = embedded(by_topic, make())
            row = {
                "weights": weights, "variant": name, "topic": separation(vectors, topical.labels),
                "family": separation(vectors, topical.families),
                "prefix": separation(embedded(by_prefix, make()), prefixed.labels),
            }  # fmt: skip
            report(json.dumps(row))
            rows.append(row)
    lines = [
        [row["weights"], row["variant"], *(f"{row[kind]['auc']}, {row[kind]['nearest']}" for kind in KINDS)]
        for row in rows
    ]
    about = (
        f"{len(topical.labels)} contexts of {len(set(topical.labels))} topics, {len(prefixed.labels)} with prefixes."
    )
    head = ["weights", "variant", *(f"{kind}: AUC, nearest is one" for kind in KINDS)]
    return rows, f"{about}\n\n{table(head, lines)}"


KINDS = ("prefix", "topic", "family")


def main() -> int:
    words = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    words.add_argument("--parts", default="store,embedding")
    words.add_argument("--count", type=int, default=100_000)
    words.add_argument("--engines", default="embedded:,memory:,path:")
    words.add_argument("--train", type=int, default=500, help="steps of 8 × 192 words")
    words.add_argument("--threads", type=int, default=1, help="torch's; on a busy machine more take longer")
    words.add_argument("--write", action="store_true", help="into bench/results and bench/README.md")
    given = words.parse_args()
    parts = given.parts.split(",")
    path = RESULTS / "vectors_tier.json"
    results: dict[str, Any] = json.loads(path.read_text())["data"] if path.exists() else {}
    passed = True
    for part in parts:
        rows, text = (
            store_part(given.engines.split(","), given.count)
            if part == "store"
            else embedding_part(given.train, given.threads)
        )
        print(f"{text}\n")
        results[part] = {"machine": machine(), "rows": rows}
        if part == "store":
            first = rows[0]
            p50 = first.get("after", first["before"])["p50_ms"]
            passed = first["upserts_per_s"] >= UPSERT_BAR and p50 < SEARCH_BAR_MS
            print(f"at least {UPSERT_BAR:,} upserts/s, p50 under {SEARCH_BAR_MS} ms: {'yes' if passed else 'NO'}")
        if given.write:
            write_block(Path(__file__).with_name("README.md"), f"vectors-{part}", f"{machine()}.\n\n{text}")
    if given.write:
        save("vectors_tier", results)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
