"""python -m tests.differential.run --commands 300000 --seed 1: random commands to redis-server and ZeekDB.

Ends with 0 when no reply and no key differed but by the rules of `accepted.py`. A difference is printed as the
shortest sequence found that shows it, and with the seed that repeats it.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.differential.generators import FAMILIES, seed_of_today, story
from tests.differential.oracle import Difference, Pair, servers

STORY_COMMANDS = 150


def check(pair: Pair, seed: int, stories: int = 1, families: tuple[str, ...] = tuple(FAMILIES)) -> Difference | None:
    """Stories that each begin with empty servers; odd seeds speak RESP3. The first difference, made small."""
    for each in range(seed, seed + stories):
        found = pair.compare(story(each, STORY_COMMANDS, families), 2 + each % 2)
        if found is not None:
            return pair.minimise(found)
    return None


def main() -> int:
    """Run, report, and say by the exit status whether the servers agreed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--family", action="append", choices=list(FAMILIES), help="only these; may come several times")
    parser.add_argument("--subject", choices=["zeekdb", "redis"], default="zeekdb")
    parser.add_argument("--differences", type=int, default=1, help="go on after a difference until there are so many")
    options = parser.parse_args()
    seed = seed_of_today() if options.seed is None else options.seed
    families = tuple(options.family or FAMILIES)
    found: dict[str, Difference] = {}
    begin = time.monotonic()
    with servers(options.subject) as pair:
        stories = -(-options.commands // STORY_COMMANDS)
        for number in range(stories):
            difference = check(pair, seed + number, 1, families)
            if difference is None:
                continue
            name = (*difference.commands, *difference.looks)[-1][0].decode("latin-1").upper()
            if name not in found:
                found[name] = difference
                print(f"--- --seed {seed + number} --commands 1\n{difference}\n", flush=True)
            if len(found) >= options.differences:
                break
    took_s = time.monotonic() - begin
    print(f"seed {seed}: {(number + 1) * STORY_COMMANDS} commands in {took_s:.0f} s, {len(found)} differences")
    for reason, times in pair.allowed.most_common():
        print(f"{times:8} allowed: {reason}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
