"""Why a test of Redis's suite does not pass yet: rules that give a whole family its reason.

A rule is (unit, test, report, reason): regular expressions, searched; the first rule that fits gives the reason. What
no rule fits gets the first line of the suite's report, to be replaced by a written reason in expected.txt.
"""

from __future__ import annotations

import re

RULES = (
    (r"dump", r"invalid payload size", r"", "redis-server 7.0.15 fails it too: it does not know the version either"),
    (r"", r"trim on SET with big value", r"", "runs where the allocator is jemalloc"),
    (r"replybufsize", r"", r"", "an idle connection has no reply buffer here: its size is 0"),
    (r"", r"very long nested loops", r"", "finds the match: Redis's recursion gives up after a thousand steps"),
    (r"latency-monitor", r"expire events", r"", "no cycle of expiry takes so long: each has a budget of 1 ms"),
    (r"pause", r"expires are skipped", r"", "what is due goes when it is met, paused or not: it reads as absent"),
    (r"", r"shared objects", r"", "nothing is shared here, so a reference count is 1"),
)


def reason(unit: str, test: str, report: str) -> str:
    """One line for expected.txt."""
    for unit_pattern, test_pattern, report_pattern, text in RULES:
        if re.search(unit_pattern, unit) and re.search(test_pattern, test) and re.search(report_pattern, report):
            return text
    lines = [line.strip() for line in report.splitlines() if line.strip()]
    return " ".join(lines[0].replace("|", "/").split())[:160] if lines else "not run in this run of the unit"


def is_derived(text: str) -> bool:
    """Whether a reason in expected.txt was only taken from a report, so that a newer report may replace it."""
    return bool(re.search(r"\bno [A-Z]+ yet$|Expected |\(context:|not run in this run|stopped after", text))
