"""Why a test of Redis's suite does not pass yet: rules that give a whole family its reason.

A rule is (unit, test, report, reason): regular expressions, searched; the first rule that fits gives the reason. What
no rule fits gets the first line of the suite's report, to be replaced by a written reason in expected.txt.
"""

from __future__ import annotations

import re

LATER = "later issue"
# The command that a report found missing, by the issue that brings it.
FAMILIES = (
    (r"x[a-z]+", "streams"),
    (r"b[lrz][a-z]*(pop|move|push)[a-z]*", "blocking commands"),
    (r"eval.*|script|fcall.*|function", "scripts"),
    (r"p?s?(un)?subscribe|s?publish|pubsub", "pub/sub"),
    (r"multi|exec|discard|watch|unwatch", "transactions"),
    (r"(bg)?save|bgrewriteaof|lastsave|dump|restore|restore-asking", "persistence"),
    (r"p?sync|replicaof|slaveof|replconf|wait|waitaof|failover|role", "replication"),
    (r"acl", "ACL"),
    (r"geo.*", "geo commands"),
    (r"pf.*", "HyperLogLog"),
    (r"cluster|asking|readonly|readwrite", "cluster mode"),
    (r"module", "modules"),
)
# Tests that only wait for something absent, five seconds each: left out while the server has no such command.
# (command, pattern of test names, reason)
WAITING = (("BLPOP", r"B[LRZ]M?(POP|MOVE|PUSH)|[Bb]lock", f"blocking commands: {LATER}"),)
RULES = (
    (r"unit/type/stream", r"", r"", f"streams: {LATER}"),
    (r"unit/(scripting|functions|cluster-scripting)", r"", r"", f"scripts: {LATER}"),
    (r"unit/pubsub", r"", r"", f"pub/sub: {LATER}"),
    (r"unit/tracking", r"", r"", f"client tracking: {LATER}"),
    (r"unit/multi", r"", r"", f"transactions: {LATER}"),
    (r"unit/acl", r"", r"", f"ACL: {LATER}"),
    (r"unit/geo", r"", r"", f"geo commands: {LATER}"),
    (r"unit/hyperloglog", r"", r"", f"HyperLogLog: {LATER}"),
    (r"unit/(aofrw|dump)|integration/(aof|rdb|convert|corrupt|dismiss)", r"", r"", f"persistence: {LATER}"),
    (r"integration/(replication|psync|block-repl|failover)|unit/wait", r"", r"", f"replication: {LATER}"),
    (r"unit/cluster", r"", r"", f"cluster mode: {LATER}"),
    (r"unit/(maxmemory|client-eviction)", r"", r"", f"eviction: {LATER}"),
    (r"", r"", r"SYNC|attach_to_replication_stream", f"replication: {LATER}"),
    (r"", r"", r"debug (reload|loadaof)|DEBUG (RELOAD|LOADAOF)|bgsave|bgrewriteaof", f"persistence: {LATER}"),
)


def reason(unit: str, test: str, report: str) -> str:
    """One line for expected.txt."""
    missing = re.search(r"(?i)unknown command '?([a-z.|-]+)", report)
    if missing:
        for pattern, family in FAMILIES:
            if re.fullmatch(pattern, missing[1].lower()):
                return f"{family}: {LATER}"
        return f"no {missing[1].upper()} yet"
    for unit_pattern, test_pattern, report_pattern, text in RULES:
        if re.search(unit_pattern, unit) and re.search(test_pattern, test) and re.search(report_pattern, report):
            return text
    lines = [line.strip() for line in report.splitlines() if line.strip()]
    return " ".join(lines[0].replace("|", "/").split())[:160] if lines else "no report"
