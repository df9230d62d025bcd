"""The fuzzers: `make fuzz`, or `make fuzz MINUTES=5`, or with ARGS='--seed 7 --round 123' to play a finding again.

Half of the time goes to the wire (see wire.py), half to the structures behind it (see structures.py), to scripts, to
sketches, to damaged values (see payloads.py) and to damaged files (see files.py).
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time

from tests.fuzz import sanitize
from tests.fuzz.wire import DIRECTIVES, Finding, WireFuzzer
from tests.support import ROOT, Server


def fuzz_wire(seed: int, seconds: float, environment: dict[str, str], only: int | None = None) -> int:
    """Rounds until the time is over; how many there were. Finding when the server breaks."""
    end = time.monotonic() + seconds
    said = time.monotonic()
    number = only or 0
    with Server(*DIRECTIVES, unix=True, environment=environment) as server:
        fuzzer = WireFuzzer(server, seed)
        while time.monotonic() < end:
            fuzzer.round(number)
            number += 1
            if only is not None:
                break
            if time.monotonic() - said > 60:
                said = time.monotonic()
                print(f"wire: {number} rounds, {server.rss_bytes() >> 20} MiB resident", flush=True)
    return number


def fuzz_structures(seed: int, seconds: float, environment: dict[str, str]) -> int:
    """The structures in processes of their own, which a sanitizer may end; the exit status."""
    paths = os.pathsep.join(filter(None, [environment.get("PYTHONPATH"), str(ROOT)]))
    variables = {**os.environ, **environment, "PYTHONPATH": paths}
    status = 0
    shares = {"structures": 0.4, "sketches": 0.1, "payloads": 0.15, "files": 0.15, "scripts": 0.2}
    for module, share in shares.items():
        options = ["--seed", str(seed), "--seconds", str(seconds * share)]
        command = [sys.executable, "-m", f"tests.fuzz.{module}", *options]
        status = status or subprocess.run(command, cwd="/", env=variables).returncode
    return status


def main() -> int:
    """Parse the arguments and fuzz."""
    parser = argparse.ArgumentParser(description="Fuzz the hot room")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument("--round", type=int, help="play this round of the wire fuzzer only")
    parser.add_argument("--only", choices=["wire", "structures"])
    parser.add_argument("--sanitize", action="store_true", help="build and run with the sanitizers")
    options = parser.parse_args()
    environment = sanitize.build() if options.sanitize else {}
    print(f"seed {options.seed}", flush=True)
    if options.round is not None:
        options.only = "wire"
    seconds = options.minutes * 60 / (1 if options.only else 2)
    failed = False
    if options.only != "wire" and fuzz_structures(options.seed, seconds, environment):
        print(f"the structures failed; seed {options.seed}")
        failed = True
    if options.only != "structures":
        try:
            print(f"wire: {fuzz_wire(options.seed, seconds, environment, options.round)} rounds without a finding")
        except Finding as finding:
            print(finding)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
