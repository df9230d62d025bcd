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
    (r"geo.*", "geo commands"),
    (r"pf.*", "HyperLogLog"),
    (r"cluster|asking|readonly|readwrite", "cluster mode"),
    (r"module", "modules"),
    (r"migrate", "MIGRATE"),
)
# Tests that only wait for something absent and take the rest of their unit with them: (pattern of names, reason).
WAITING = ((r"evicted events|message of eviction keys", f"eviction: {LATER}"),)
RULES = (
    (r"unit/type/stream", r"", r"", f"streams: {LATER}"),
    (r"unit/(scripting|functions|cluster-scripting)", r"", r"", f"scripts: {LATER}"),
    (r"unit/pubsub", r"", r"", f"pub/sub: {LATER}"),
    (r"unit/tracking", r"", r"", f"client tracking: {LATER}"),
    (r"unit/multi", r"", r"", f"transactions: {LATER}"),
    (r"unit/geo", r"", r"", f"geo commands: {LATER}"),
    (r"unit/hyperloglog", r"", r"", f"HyperLogLog: {LATER}"),
    (r"unit/(aofrw|dump)|integration/(aof|rdb|convert|corrupt|dismiss)", r"", r"", f"persistence: {LATER}"),
    (r"integration/(replication|psync|block-repl|failover)|unit/wait", r"", r"", f"replication: {LATER}"),
    (r"unit/cluster", r"", r"", f"cluster mode: {LATER}"),
    (r"unit/(maxmemory|client-eviction)", r"", r"", f"eviction: {LATER}"),
    (r"", r"Linked LMOVEs", r"", f"blocking commands: {LATER}"),
    (r"", r"sanitize dump|Dumping an RDB", r"", f"persistence: {LATER}"),
    (r"", r"Connecting as a replica", r"", f"replication: {LATER}"),
    (r"", r"scripting engine|by functions", r"", f"scripts: {LATER}"),
    (r"", r"", r"subcommand 'tracking'", f"client tracking: {LATER}"),
    (r"", r"COMMAND GETKEYS (EVAL|MORE)|EVAL command|COMMAND LIST FILTERBY ACLCAT", r"", f"scripts: {LATER}"),
    (r"", r"XGROUP|XREAD", r"", f"streams: {LATER}"),
    (r"", r"GEORADIUS", r"", f"geo commands: {LATER}"),
    (r"", r"COMMAND LIST FILTERBY PATTERN", r"cluster", f"cluster mode: {LATER}"),
    (r"", r"MIGRATE|sensitive fields", r"", f"MIGRATE: {LATER}"),
    (r"", r"trim on SET with big value", r"", "runs where the allocator is jemalloc"),
    (r"replybufsize", r"", r"", "an idle connection has no reply buffer here: its size is 0"),
    (r"keyspace", r"MOVE basic usage", r"", f"counts keys that the stream tests before it leave: {LATER}"),
    (r"", r"very long nested loops", r"", "finds the match: Redis's recursion gives up after a thousand steps"),
    (r"introspection$", r"CLIENT (LIST|INFO)$", r"qbuf", "qbuf is 0: connections share one buffer for input"),
    (r"", r"CONFIG sanity", r"shards", "shards, a directive of ours, cannot change while the server runs"),
    (r"", r"shared objects", r"", "nothing is shared here, so a reference count is 1"),
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
    return " ".join(lines[0].replace("|", "/").split())[:160] if lines else "not run in this run of the unit"


def is_derived(text: str) -> bool:
    """Whether a reason in expected.txt was only taken from a report, so that a newer report may replace it."""
    return bool(re.search(r"\bno [A-Z]+ yet$|Expected |\(context:|not run in this run|stopped after", text))
