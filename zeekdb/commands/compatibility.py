"""docs/COMPATIBILITY.md, written from the declarations: `python -m zeekdb.commands.compatibility NAMES`.

NAMES is a file with Redis 7.2's names of commands, one a line, subcommands as `config|get`.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path

import zeekdb.commands
from zeekdb.commands.introspection import everything
from zeekdb.commands.spec import REGISTRY, Command
from zeekdb.config.options import SECTIONS, Directive
from zeekdb.observe.info import REDIS_VERSION

HEAD = f"""# Compatibility

This page is written by `python -m zeekdb.commands.compatibility tests/fixtures/redis_commands.txt`; change the
declarations in `zeekdb/commands` or `zeekdb/config/options.py` instead. Clients see Redis {REDIS_VERSION}:

```sh
redis-cli info server | grep redis_version
redis-cli command docs get
make compat    # runs Redis's own test suite
```

## Where answers differ

- Memory is freed in slices after every command, so FLUSHALL, FLUSHDB, DEL and UNLINK never block, with or without
  ASYNC and the `lazyfree-*` directives.
- Keys expire exactly, from an index; `expired_stale_perc` is always 0.
- MEMORY and INFO memory count ZeekDB's own structures, which are smaller; fields of jemalloc repeat the totals.
- LATENCY HISTOGRAM and the percentiles of INFO come from buckets of powers of two, interpolated.
- COMMAND DOCS has summaries in ZeekDB's own words, and arguments by the names that Redis 7.0 gives them.
- There are no modules, and DEBUG has what test suites use, not what crashes the server.
- DEBUG RELOAD and LOADAOF send every value through its serialisation; they read no file.
- RESTORE always checks payloads deeply, whatever `sanitize-dump-payload` says. A payload that goes on behind its value
  is refused.
- MIGRATE serves everybody else meanwhile: a key that changes on its way is sent again, and after five rounds stays
  where it is, with the error TRYAGAIN. Inside EXEC or a script it blocks, as in Redis.

Vector sets are those of Redis 8, over usearch's HNSW graph:

- A search runs where its command runs, one with a filter in slices between which others are served; CAS and NOTHREAD
  are taken and change nothing. Where EF is 1/32 of the elements or more, all are compared, which is then the faster
  way: small sets answer exactly.
- VLINKS answers one layer, the 2 × M nearest that a search finds: the library does not show its links.
- Scores under Q8 are the cosine of what is stored, so an element is like itself by exactly 1.
- Components that are infinite or no number are refused. A field's value may have any JSON escape, and a broken object
  has no fields at all, nor has one of more than 1 MiB. A filter has at most 4,096 words and 65,536 characters.
- REDUCE projects with signs and a Walsh-Hadamard transform of its own, so VEMB of a reduced vector differs.
- VREM leaves the element's place in the graph to the next insertion; memory goes back when the last element goes.
- DUMP and snapshots hold them in a format of ZeekDB's own, graph included.
"""


OURS = "CONFIG GET shows them by their exact names only: tools set back all that `CONFIG GET *` gave them."


def load_declarations() -> None:
    """Import every family of commands."""
    for module in pkgutil.iter_modules(zeekdb.commands.__path__):
        if module.name != "compatibility":
            importlib.import_module(f"zeekdb.commands.{module.name}")


def page(redis_names: Sequence[str]) -> str:
    """The whole page."""
    parts = [HEAD, "## Commands", "", commands_table(), "", "## Commands of Redis 7.2 that are not there yet", ""]
    ours = {spec.lower for spec in everything()}
    missing = [name for name in redis_names if name not in ours]
    parts += [missing_by_container(missing), "", "## Directives that are accepted and have no effect yet", ""]
    parts.append(", ".join(f"`{d.name}`" for d in directives() if d.later and not d.hidden))
    parts += ["", "## Directives that Redis does not have", "", OURS, ""]
    for d in directives():
        if d.ours:
            parts.append(f"- `{d.name}` (default {d.kind.show(d.default) or 'none'}): {d.doc}")
    return "\n".join(parts) + "\n"


def directives() -> list[Directive]:
    """All directives, in the order of the table."""
    return [directive for _, section in SECTIONS for directive in section]


def commands_table() -> str:
    """A row for every command, by group."""
    rows = ["| command | group | since Redis | complexity | what it does |", "|---|---|---|---|---|"]
    for spec in sorted(REGISTRY.values(), key=lambda spec: (spec.group, spec.name)):
        rows.append(row(spec))
        rows += [row(sub) for sub in sorted(spec.subcommands.values(), key=lambda sub: sub.name)]
    return "\n".join(rows)


def row(spec: Command) -> str:
    """One command's row."""
    cells = (spec.name.replace("|", " "), spec.group, spec.since, spec.complexity, spec.summary)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def missing_by_container(names: Sequence[str]) -> str:
    """Names in one line; the subcommands of a command that is missing as a whole are not named."""
    whole = {name for name in names if "|" not in name}
    shown = [name for name in names if name.partition("|")[0] not in whole or "|" not in name]
    return ", ".join(name.replace("|", " ").upper() for name in shown) or "None."


if __name__ == "__main__":
    load_declarations()
    sys.stdout.write(page(Path(sys.argv[1]).read_text(encoding="utf-8").split()))
