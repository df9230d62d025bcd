"""The script cache: large scripts do not keep others from being compiled."""

from __future__ import annotations

from zeekdb.hot.lua import Interpreter
from zeekdb.scripting.scripts import EVALUATED_MAX, Scripts


def test_large_scripts_make_room_for_others() -> None:
    lua = Interpreter(16 << 20)
    scripts = Scripts(lua)
    for number in range(60):
        scripts.get(b"return {" + b"%d," % number * 40_000 + b"}")
    assert scripts.get(b"return 1").reference
    assert lua.memory_used < 12 << 20


def test_the_oldest_that_were_only_run_go_first() -> None:
    scripts = Scripts(Interpreter(64 << 20))
    kept = scripts.get(b"return 'kept'", load=True)
    first = scripts.get(b"return 'first'")
    for number in range(EVALUATED_MAX):
        scripts.get(b"return %d" % number)
    assert scripts.find(kept.sha) is kept
    assert scripts.find(first.sha) is None
    assert len(scripts) == EVALUATED_MAX + 1
