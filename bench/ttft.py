"""Time to first token: the prefix that prompts share computed again each time, and loaded from ZeekDB.

    python bench/ttft.py [--prefix 512 1024 2048] [--prompts 5] [--dtype f32 bf16] [--checkpoint FOLDER] [--write]

A Llama-like model on the CPU (bench/llama.py; random weights from a seed, or a checkpoint's) answers prompts that share
a prefix and go on with a suffix of their own. The first prompt is computed, and its prefix's keys and values are kept
with KV.STORE. Each of the others is then answered twice, in turns: once computed whole, once with KV.MATCH, KV.FETCH
and only the suffix computed. The time runs from the tokens of the prompt to the first token of the answer and is the
median over the prompts; both answers go on greedily for 16 tokens, which must be the same ones.

Two things say whether equal tokens mean anything: how far the logits are apart at most, and how far they are apart
when the same suffix follows another prefix. The model is small, which makes loading look worse than it is: a larger
one computes more per byte of keys and values.

The arithmetic wants the cores for itself: threads of torch that wait for one another make a busy machine's times
several times as long, and the ratio meaningless; `--threads 1` is steadier there.

Needs torch and redis (`pip install torch redis`; for the plot matplotlib). ZEEKDB_PYTHON names the interpreter that
runs the server where it is not the one that runs this.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.servers import RESULTS, Server, machine, median, save, table, write_block

try:
    import redis
    import torch

    from bench.llama import DTYPES, Llama, NotAModel, Shape, greedy
    from bench.prefixes import Loaded, Prefixes
except ImportError as error:
    sys.exit(
        f"{error.name} is missing: pip install numpy redis, and for the CPU "
        "pip install torch --index-url https://download.pytorch.org/whl/cpu"
    )

BAR = 5.0  # times lower for BAR_PREFIX tokens
BAR_PREFIX = 2_048
SPARE_BYTES = 64 << 20  # of the region, beyond twice what is stored
CHART_COLUMNS = 60
BUSY_LOAD = 0.5  # runnable threads per core, before ours


@dataclass
class Answer:
    """What one way to answer a prompt gave, and the seconds to its first token."""

    first_s: float
    tokens: list[int]
    logits: torch.Tensor  # [answer's tokens, vocabulary]
    loaded: Loaded


@dataclass
class Row:
    """What was measured of one prefix; times in ms, medians."""

    dtype: str
    prefix: int
    megabytes: float
    recompute_ms: float = 0.0
    load_ms: float = 0.0
    parts_ms: dict[str, float] = field(default_factory=dict)
    store_ms: float = 0.0
    equal: int = 0
    prompts: int = 0
    difference: float = 0.0  # the largest of logits, both ways
    other_prefix: float = 0.0  # the largest of logits, the same suffix after another prefix
    margin: float = 0.0  # the smallest by which a token was chosen

    @property
    def ratio(self) -> float:
        """How many times lower."""
        return self.recompute_ms / self.load_ms


def answer(model: Llama, prompt: list[int], count: int, prefixes: Prefixes | None) -> Answer:
    """Answers a prompt with what is known of it loaded, or nothing."""
    begin = perf_counter()
    cache = model.cache(len(prompt) + count)
    loaded = prefixes.load(prompt, cache) if prefixes else Loaded()
    logits = model.forward(prompt[cache.tokens :], cache)
    logits.argmax().item()
    first_s = perf_counter() - begin
    tokens, seen = greedy(model, logits, cache, count)
    return Answer(first_s, tokens, torch.stack(seen), loaded)


def keep(model: Llama, prefixes: Prefixes, prompt: list[int], length: int) -> float:
    """Computes a prompt and keeps its prefix's blocks. Seconds that keeping took."""
    cache = model.cache(len(prompt))
    model.forward(prompt, cache)
    begin = perf_counter()
    stored = prefixes.save(prompt[:length], cache)
    if stored != [1] * (length // prefixes.block):
        raise RuntimeError(f"KV.STORE of new blocks replied {stored}")
    return perf_counter() - begin


def distance(one: Answer, other: Answer) -> float:
    """The largest difference of logits, as long as both answers had gone the same way."""
    same = 1 + next(
        (at for at, (a, b) in enumerate(zip(one.tokens, other.tokens, strict=True)) if a != b), len(one.tokens)
    )
    return (one.logits[:same] - other.logits[:same]).abs().max().item()


def measure(model: Llama, prefixes: Prefixes, row: Row, arguments: argparse.Namespace) -> None:
    """Fills a row."""
    draw = random.Random(f"{arguments.seed} {row.prefix}")

    def tokens(count: int) -> list[int]:
        return [draw.randrange(model.shape.vocabulary) for _ in range(count)]

    shared = tokens(row.prefix)
    first, *prompts = (shared + tokens(arguments.suffix) for _ in range(arguments.prompts + 1))
    row.store_ms = 1e3 * keep(model, prefixes, first, row.prefix)
    for way in (None, prefixes):  # the first time of either way pays for memory and threads
        answer(model, first, 2, way)
    pairs: list[tuple[Answer, Answer]] = []
    for turn, prompt in enumerate(prompts):
        ways: list[Prefixes | None] = [None, prefixes]
        order = ways if turn % 2 == 0 else ways[::-1]
        found = {way: answer(model, prompt, arguments.tokens, way) for way in order}
        pairs.append((found[None], found[prefixes]))
    expected = row.prefix // prefixes.block * prefixes.block
    if any(loaded.loaded.tokens != expected for _, loaded in pairs):
        raise RuntimeError("a prefix was stored and not found again")
    row.recompute_ms = 1e3 * median(computed.first_s for computed, _ in pairs)
    row.load_ms = 1e3 * median(loaded.first_s for _, loaded in pairs)
    steps = {
        name: median(getattr(loaded.loaded, f"{name}_s") for _, loaded in pairs) for name in ("match", "fetch", "copy")
    }
    row.parts_ms = {name: 1e3 * value for name, value in steps.items()}
    row.parts_ms["suffix"] = row.load_ms - sum(row.parts_ms.values())
    row.prompts = len(pairs)
    row.equal = sum(computed.tokens == loaded.tokens for computed, loaded in pairs)
    row.difference = max(distance(*pair) for pair in pairs)
    best = torch.cat([computed.logits for computed, _ in pairs]).topk(2).values
    row.margin = (best[:, 0] - best[:, 1]).min().item()
    stranger = answer(model, tokens(row.prefix) + prompts[-1][row.prefix :], 1, None)
    row.other_prefix = (stranger.logits[0] - pairs[-1][0].logits[0]).abs().max().item()


def chart(rows: list[Row]) -> str:
    """Bars of letters: a row's two times."""
    most = max(max(row.recompute_ms, row.load_ms) for row in rows)

    def bar(value: float) -> str:
        return "█" * max(1, round(value / most * CHART_COLUMNS)) + f" {value:,.0f} ms"

    lines = []
    for row in rows:
        lines += [
            f"{row.dtype:>4} {row.prefix:>6,}  computed  {bar(row.recompute_ms)}",
            f"{'':11}  loaded    {bar(row.load_ms)}",
        ]
    return "\n".join(lines)


def plot(rows: list[Row], title: str, path: Path) -> bool:
    """The same as a picture, where matplotlib is; whether it is."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    dtypes = list(dict.fromkeys(row.dtype for row in rows))
    figure, axes = pyplot.subplots(1, len(dtypes), figsize=(5 * len(dtypes), 3.6), squeeze=False, layout="constrained")
    for ax, dtype in zip(axes[0], dtypes, strict=True):
        mine = [row for row in rows if row.dtype == dtype]
        places = range(len(mine))
        ax.bar([at - 0.2 for at in places], [row.recompute_ms for row in mine], 0.38, label="computed", color="#b0b0b0")
        below = [0.0] * len(mine)
        for name, label, color in (
            ("match", "loaded: KV.MATCH", "#08306b"),
            ("fetch", "loaded: KV.FETCH", "#2171b5"),
            ("copy", "loaded: into the cache", "#6baed6"),
            ("suffix", "loaded: suffix computed", "#fdae6b"),
        ):
            heights = [row.parts_ms[name] for row in mine]
            ax.bar([at + 0.2 for at in places], heights, 0.38, bottom=below, label=label, color=color)
            below = [low + height for low, height in zip(below, heights, strict=True)]
        for at, row in zip(places, mine, strict=True):
            ax.text(at + 0.2, row.load_ms, f"÷{row.ratio:.1f}", ha="center", va="bottom")
        ax.set_xticks(list(places), [f"{row.prefix:,}" for row in mine])
        ax.set_xlabel("tokens of the shared prefix")
        ax.set_ylabel("time to first token, ms")
        ax.set_title(dtype)
    axes[0][0].legend(fontsize="small")
    figure.suptitle(title, fontsize="medium")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)
    return True


def report(rows: list[Row]) -> str:
    """The figures as a table."""
    head = [
        "type", "prefix", "KV", "computed ms", "loaded ms", "lower by", "bar", "match + fetch + copy + suffix ms",
        "KV.STORE ms", "equal answers", "logits differ by", "with another prefix by", "smallest margin",
    ]  # fmt: skip
    lines = [
        [
            row.dtype, f"{row.prefix:,}", f"{row.megabytes:.1f} MB", f"{row.recompute_ms:,.0f}", f"{row.load_ms:,.0f}",
            f"**{row.ratio:.1f}×**",
            f"{BAR:.0f}× {'met' if row.ratio >= BAR else 'missed'}" if row.prefix == BAR_PREFIX else "",
            " + ".join(f"{value:.1f}" for value in row.parts_ms.values()), f"{row.store_ms:.0f}",
            f"{row.equal} of {row.prompts}", f"{row.difference:.1e}", f"{row.other_prefix:.2f}", f"{row.margin:.1e}",
        ]
        for row in rows
    ]  # fmt: skip
    return table(head, lines)


def words() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--prefix", type=int, nargs="+", default=[512, 1024, BAR_PREFIX], help="tokens, whole blocks")
    parser.add_argument("--suffix", type=int, default=32, help="tokens of a prompt's own")
    parser.add_argument("--prompts", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=16, help="of each answer, for the comparison")
    parser.add_argument("--block", type=int, default=256, help="tokens of a block")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument(
        "--checkpoint", type=Path, help="a folder in Hugging Face's Llama format, instead of random weights"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="that torch computes with")
    parser.add_argument(
        "--write", action="store_true", help="keep the figures and the plot, and the table in README.md"
    )
    arguments = parser.parse_args()
    if arguments.block < 1 or any(length < 1 or length % arguments.block for length in arguments.prefix):
        parser.error("a prefix is one block or several whole ones")
    if min(arguments.suffix, arguments.prompts, arguments.tokens, arguments.threads) < 1:
        parser.error("--suffix, --prompts, --tokens and --threads are 1 at least")
    return arguments


def run(arguments: argparse.Namespace) -> tuple[list[Row], Shape]:
    """All rows, each type with a server and a model of its own. NotAModel, OSError for a checkpoint."""
    rows: list[Row] = []
    for dtype in arguments.dtype:
        if arguments.checkpoint:
            model = Llama.load(arguments.checkpoint, DTYPES[dtype])
        else:
            model = Llama.random(Shape(), DTYPES[dtype], arguments.seed)
        shape, token_bytes = model.shape, model.cache(1).token_bytes
        memory = 2 * token_bytes * sum(arguments.prefix) + SPARE_BYTES
        with Server("zeekdb", "--kv-memory", str(memory)) as server, redis.Redis(port=server.port) as client:
            prefixes = Prefixes(client, f"llama-{dtype}", shape, dtype, arguments.block)
            for length in arguments.prefix:
                rows.append(Row(dtype, length, token_bytes * length / 1e6))
                measure(model, prefixes, rows[-1], arguments)
                print(f"{dtype} {length:,}: {rows[-1].ratio:.1f}× lower", file=sys.stderr)
        del model
    return rows, shape


def describe(shape: Shape, arguments: argparse.Namespace) -> tuple[str, str]:
    """The model's size, and all that the figures depend on."""
    size = (
        f"{shape.parameters / 1e6:,.0f} million parameters ({shape.layers} layers of {shape.hidden}, "
        f"{shape.heads} heads, {shape.kv_heads} of keys and values × {shape.dim})"
    )
    kind = f"the checkpoint {arguments.checkpoint.name}" if arguments.checkpoint else "random weights"
    return size, (
        f"{size}, {kind}; torch {torch.__version__}, threads: {arguments.threads}. "
        f"Blocks of {arguments.block} tokens, suffixes of {arguments.suffix}"
    )


def main() -> int:
    arguments = words()
    torch.set_num_threads(arguments.threads)
    if (load := os.getloadavg()[0]) > BUSY_LOAD * (os.cpu_count() or 1):
        print(f"the machine is busy (load {load:.1f}): times will be too long, see --threads", file=sys.stderr)
    try:
        rows, shape = run(arguments)
    except (NotAModel, OSError) as error:
        print(f"{arguments.checkpoint}: {error}", file=sys.stderr)
        return 2
    size, about = describe(shape, arguments)
    text = f"{machine()}. {about}:\n\n{report(rows)}"
    print(f"{text}\n\n{chart(rows)}")
    if arguments.write:
        figures = [{**asdict(row), "ratio": row.ratio} for row in rows]
        save("ttft", {"about": about, "parameters": shape.parameters, "model": asdict(shape), "rows": figures})
        write_block(Path(__file__).with_name("README.md"), "ttft", text)
        if not plot(rows, size, RESULTS / "ttft.png"):
            print("no plot: pip install matplotlib", file=sys.stderr)
    wrong = sum(row.prompts - row.equal for row in rows)
    if wrong:
        print(f"{wrong} answers are not the same both ways", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
