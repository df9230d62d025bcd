"""Which backups are kept: all of the last day, then one a day, one a week, one a month.

Each is the newest of its span (UTC). What a kept increment builds upon is kept, and so is the newest full backup,
however old: a directory of backups never becomes one without.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from zeekdb.tools.backup_store import Backup

DAY_S = 86_400


@dataclass(frozen=True)
class Policy:
    """Ages in seconds up to which backups are kept: all, or one a span."""

    all_s: int = DAY_S
    daily_s: int = 7 * DAY_S
    weekly_s: int = 30 * DAY_S
    monthly_s: int = 365 * DAY_S


def plan(backups: list[Backup], policy: Policy, now_s: float) -> dict[str, str]:
    """For the id of every backup that is kept, why. Each server's are looked at for themselves."""
    kept: dict[str, str] = {}
    taken: set[str] = set()
    for backup in sorted(backups, key=lambda each: each.created_ms, reverse=True):
        reason = _reason(backup, policy, now_s, taken)
        if reason:
            kept[backup.id] = reason
    last_full: dict[str, Backup] = {}
    for backup in sorted(backups, key=lambda each: each.created_ms):
        if backup.kind == "full":
            last_full[backup.source] = backup
    for backup in last_full.values():
        kept.setdefault(backup.id, "the last full one")
    by_id = {backup.id: backup for backup in backups}
    for name in list(kept):
        child = by_id[name]
        while child.parent in by_id:
            kept.setdefault(child.parent, f"{child.id} needs it")
            child = by_id[child.parent]
    return kept


def _reason(backup: Backup, policy: Policy, now_s: float, taken: set[str]) -> str:
    """Why it is kept for its own sake; "": it is not. `taken`: spans that have theirs."""
    age_s = now_s - backup.created_s
    if age_s < policy.all_s:
        return "recent"
    moment = datetime.fromtimestamp(backup.created_s, UTC)
    year, week, _ = moment.isocalendar()
    for age_max_s, span, name in (
        (policy.daily_s, f"{moment:%Y-%m-%d}", "day"),
        (policy.weekly_s, f"{year}-W{week:02}", "week"),
        (policy.monthly_s, f"{moment:%Y-%m}", "month"),
    ):
        if age_s < age_max_s:
            if (mark := f"{backup.source} {name} {span}") in taken:
                return ""
            taken.add(mark)
            return f"the {name} {span}"
    return ""
