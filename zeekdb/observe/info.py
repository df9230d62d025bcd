"""INFO: sections of `field:value` lines. Tools parse them, so names and formats are Redis's to the letter.

A section is a function from what the server knows (`commands.ports.ServerPort`) and the keyspace to its lines.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

REDIS_VERSION = "7.2.4"
INFO_MODELS_MAX = 64  # lines of the section on tensors
UNSAFE = str.maketrans("#:\r\n", "____")  # in a field's name; so does Redis

Fields = list[tuple[str, Any]]


def human(size: int) -> str:
    """1536 -> "1.50K"."""
    if size < 1024:
        return f"{size}B"
    value = float(size)
    for unit in "KMGTP":
        value /= 1024
        if value < 1024 or unit == "P":
            break
    return f"{value:.2f}{unit}"


def resident_bytes() -> int:
    """Resident set size of this process."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@cache
def system_bytes() -> int:
    """Memory of the machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def server_section(server: Any, keyspace: Any) -> Fields:
    """# Server"""
    now_s = time.time()
    uptime_s = int(now_s - server.start_s)
    config = server.config
    return [
        ("redis_version", REDIS_VERSION),
        ("redis_git_sha1", "00000000"),
        ("redis_git_dirty", 0),
        ("redis_build_id", "0"),
        ("redis_mode", "cluster" if config.cluster_enabled else "standalone"),
        ("os", f"{platform.system()} {platform.release()} {platform.machine()}"),
        ("arch_bits", 64 if sys.maxsize > 2**32 else 32),
        ("monotonic_clock", "POSIX clock_gettime"),
        ("multiplexing_api", "epoll"),
        ("atomicvar_api", "c11-builtin"),
        ("gcc_version", "0.0.0"),
        ("process_id", os.getpid()),
        ("process_supervised", "no"),
        ("run_id", server.run_id),
        ("tcp_port", config.port),
        ("server_time_usec", int(now_s * 1_000_000)),
        ("uptime_in_seconds", uptime_s),
        ("uptime_in_days", uptime_s // 86400),
        ("hz", config.hz),
        ("configured_hz", config.hz),
        ("lru_clock", int(now_s) & 0xFFFFFF),
        ("executable", sys.argv[0] and os.path.abspath(sys.argv[0])),
        ("config_file", config.path),
        ("io_threads_active", 0),
        *(
            (f"listener{number}", ",".join([f"name={name}", *(f"bind={a}" for a in addresses), f"port={port}"]))
            for number, (name, addresses, port) in enumerate(server.listeners())
        ),
        ("python_version", platform.python_version()),
        ("zeekdb_version", _version()),
    ]


@cache
def _version() -> str:
    return str(sys.modules["zeekdb"].__version__)


def clients_section(server: Any, keyspace: Any) -> Fields:
    """# Clients"""
    clients = list(server.clients())
    return [
        ("connected_clients", sum(client.kind != "replica" for client in clients)),
        ("cluster_connections", 0),
        ("maxclients", server.config.maxclients),
        ("client_recent_max_input_buffer", max((client.query_buffer_used for client in clients), default=0)),
        ("client_recent_max_output_buffer", max((client.reply_list_memory for client in clients), default=0)),
        ("blocked_clients", sum(client.is_blocked for client in clients)),
        ("tracking_clients", len(server.tracking.clients)),
        ("clients_in_timeout_table", 0),
        ("total_blocking_keys", 0),
        ("total_blocking_keys_on_nokey", 0),
    ]


def memory_figures(server: Any, keyspace: Any) -> dict[str, int]:
    """What INFO memory and MEMORY STATS share, in bytes."""
    used = keyspace.memory_used()
    clients = server.client_memory.normal
    tables = sum(db.table_stats().get("overhead", 0) for db in keyspace.databases if len(db))
    replicas = server.client_memory.replicas
    backlog = len(server.primary.backlog.data) if server.primary.backlog is not None else 0
    overhead = server.startup_memory + clients + replicas + backlog + tables
    server.stats.peak_memory = max(server.stats.peak_memory, used)
    return {
        "used": used,
        "peak": server.stats.peak_memory,
        "startup": server.startup_memory,
        "clients": clients,
        "replicas": replicas,
        "backlog": backlog,
        "overhead": overhead,
        "dataset": max(0, used - overhead),
        "rss": resident_bytes(),
    }


def memory_section(server: Any, keyspace: Any) -> Fields:
    """# Memory"""
    memory = memory_figures(server, keyspace)
    used, rss, config = memory["used"], memory["rss"], server.config
    net = max(1, used - memory["startup"])
    total = system_bytes()
    ratio = rss / used if used else 0.0
    resident = max(keyspace.memory_resident(), used)
    scripts = server.runner.figures()
    pending = server.appendonly.log.pending if server.appendonly.log else 0
    return [
        ("used_memory", used),
        ("used_memory_human", human(used)),
        ("used_memory_rss", rss),
        ("used_memory_rss_human", human(rss)),
        ("used_memory_peak", memory["peak"]),
        ("used_memory_peak_human", human(memory["peak"])),
        ("used_memory_peak_perc", f"{100 * used / max(1, memory['peak']):.2f}%"),
        ("used_memory_overhead", memory["overhead"]),
        ("used_memory_startup", memory["startup"]),
        ("used_memory_dataset", memory["dataset"]),
        ("used_memory_dataset_perc", f"{100 * memory['dataset'] / net:.2f}%"),
        ("allocator_allocated", used),
        ("allocator_active", resident),
        ("allocator_resident", resident),
        ("allocator_muzzy", 0),
        ("total_system_memory", total),
        ("total_system_memory_human", human(total)),
        ("used_memory_lua", scripts.eval_bytes),
        ("used_memory_vm_eval", scripts.eval_bytes),
        ("used_memory_lua_human", human(scripts.eval_bytes)),
        ("used_memory_scripts_eval", scripts.script_bytes),
        ("number_of_cached_scripts", scripts.scripts),
        ("number_of_functions", scripts.functions),
        ("number_of_libraries", scripts.libraries),
        ("used_memory_vm_functions", scripts.function_bytes),
        ("used_memory_vm_total", scripts.eval_bytes + scripts.function_bytes),
        ("used_memory_vm_total_human", human(scripts.eval_bytes + scripts.function_bytes)),
        ("used_memory_functions", scripts.library_bytes),
        ("used_memory_scripts", scripts.script_bytes + scripts.library_bytes),
        ("used_memory_scripts_human", human(scripts.script_bytes + scripts.library_bytes)),
        ("maxmemory", config.maxmemory),
        ("maxmemory_human", human(config.maxmemory)),
        ("maxmemory_policy", config.maxmemory_policy),
        ("allocator_frag_ratio", f"{resident / max(1, used):.2f}"),
        ("allocator_frag_bytes", resident - used),
        ("allocator_rss_ratio", "1.00"),
        ("allocator_rss_bytes", 0),
        ("rss_overhead_ratio", f"{rss / max(1, resident):.2f}"),
        ("rss_overhead_bytes", rss - resident),
        ("mem_fragmentation_ratio", f"{ratio:.2f}"),
        ("mem_fragmentation_bytes", rss - used),
        ("mem_not_counted_for_evict", memory["replicas"] + pending),
        ("mem_replication_backlog", memory["backlog"]),
        ("mem_total_replication_buffers", memory["backlog"] + memory["replicas"]),
        ("mem_clients_slaves", memory["replicas"]),
        ("mem_clients_normal", memory["clients"]),
        ("mem_cluster_links", 0),
        ("mem_aof_buffer", pending),
        ("mem_allocator", "libc"),
        ("active_defrag_running", 0),
        ("lazyfree_pending_objects", keyspace.lazyfree_pending),
        ("lazyfreed_objects", keyspace.lazyfreed),
    ]


def persistence_section(server: Any, keyspace: Any) -> Fields:
    """# Persistence"""
    saving, current = server.saving, server.snapshots.current
    return [
        ("loading", int(server.loading)),
        ("async_loading", 0),
        ("current_cow_peak", 0),
        ("current_cow_size", 0),
        ("current_cow_size_age", 0),
        ("current_fork_perc", f"{100 * current.seen / max(current.total, 1) if current else 0:.2f}"),
        ("current_save_keys_processed", current.seen if current else 0),
        ("current_save_keys_total", current.total if current else 0),
        ("rdb_changes_since_last_save", keyspace.dirty),
        ("rdb_bgsave_in_progress", int(saving.in_progress)),
        ("rdb_last_save_time", int(server.last_save_s)),
        ("rdb_last_bgsave_status", "ok" if saving.last_ok else "err"),
        ("rdb_last_bgsave_time_sec", saving.last_seconds),
        ("rdb_current_bgsave_time_sec", saving.current_seconds),
        ("rdb_saves", saving.saves),
        ("rdb_next_scheduled_save", int(saving.next_s)),
        ("rdb_last_cow_size", 0),
        ("rdb_last_load_keys_expired", saving.expired_keys),
        ("rdb_last_load_keys_loaded", saving.loaded_keys),
        *server.appendonly.fields(),
        *server.loader.fields(),
    ]


def stats_section(server: Any, keyspace: Any) -> Fields:
    """# Stats"""
    server.sample()
    stats, rate = server.stats, server.sampler.rate
    denied: dict[str, int] = server.acl.log.denied
    return [
        ("total_connections_received", stats.total_connections_received),
        ("total_commands_processed", stats.total_commands_processed),
        ("instantaneous_ops_per_sec", round(rate("total_commands_processed"))),
        ("total_net_input_bytes", stats.total_net_input_bytes),
        ("total_net_output_bytes", stats.total_net_output_bytes),
        ("total_net_repl_input_bytes", 0),
        ("total_net_repl_output_bytes", 0),
        ("instantaneous_input_kbps", f"{rate('total_net_input_bytes') / 1024:.2f}"),
        ("instantaneous_output_kbps", f"{rate('total_net_output_bytes') / 1024:.2f}"),
        ("instantaneous_input_repl_kbps", "0.00"),
        ("instantaneous_output_repl_kbps", "0.00"),
        ("rejected_connections", stats.rejected_connections),
        ("sync_full", stats.sync_full),
        ("sync_partial_ok", stats.sync_partial_ok),
        ("sync_partial_err", stats.sync_partial_err),
        ("expired_keys", keyspace.expired),
        ("expired_subkeys", keyspace.expired_fields),
        ("expired_stale_perc", "0.00"),
        ("expired_time_cap_reached_count", stats.keys_expired_per_cycle_max_reached),
        ("expire_cycle_cpu_milliseconds", 0),
        ("evicted_keys", keyspace.evicted),
        ("evicted_clients", stats.evicted_clients),
        *server.eviction_figures(),
        ("keyspace_hits", keyspace.hits),
        ("keyspace_misses", keyspace.misses),
        ("pubsub_channels", len(server.pubsub.channels.audiences)),
        ("pubsub_patterns", len(server.pubsub.patterns.audiences)),
        ("pubsubshard_channels", len(server.pubsub.shard_channels.audiences)),
        ("latest_fork_usec", 0),
        ("total_forks", 0),
        ("migrate_cached_sockets", server.migration.cached),
        ("slave_expires_tracked_keys", 0),
        ("active_defrag_hits", 0),
        ("active_defrag_misses", 0),
        ("active_defrag_key_hits", 0),
        ("active_defrag_key_misses", 0),
        ("total_active_defrag_time", 0),
        ("current_active_defrag_time", 0),
        ("tracking_total_keys", len(server.tracking.readers)),
        ("tracking_total_items", server.tracking.items()),
        ("tracking_total_prefixes", len(server.tracking.prefixes)),
        ("unexpected_error_replies", stats.unexpected_error_replies),
        ("total_error_replies", stats.total_error_replies),
        ("dump_payload_sanitizations", 0),
        ("total_reads_processed", stats.total_reads_processed),
        ("total_writes_processed", stats.total_writes_processed),
        ("io_threaded_reads_processed", 0),
        ("io_threaded_writes_processed", 0),
        ("reply_buffer_shrinks", 0),
        ("reply_buffer_expands", 0),
        ("client_query_buffer_limit_disconnections", stats.client_query_buffer_limit_disconnections),
        ("client_output_buffer_limit_disconnections", stats.client_output_buffer_limit_disconnections),
        ("eventloop_cycles", stats.eventloop_cycles),
        ("eventloop_duration_sum", stats.eventloop_duration_us),
        ("eventloop_duration_cmd_sum", stats.eventloop_duration_cmd_us),
        ("instantaneous_eventloop_cycles_per_sec", 0),
        ("instantaneous_eventloop_duration_usec", 0),
        ("acl_access_denied_auth", denied["auth"]),
        ("acl_access_denied_cmd", denied["command"]),
        ("acl_access_denied_key", denied["key"]),
        ("acl_access_denied_channel", denied["channel"]),
    ]


def replication_section(server: Any, keyspace: Any) -> Fields:
    """# Replication"""
    primary = server.primary
    replicas = list(primary.replicas.values())
    backlog = primary.backlog
    fields: Fields = server.replica.fields() if server.replica.active else [("role", "master")]
    fields.append(("connected_slaves", len(replicas)))
    if server.config.min_replicas_to_write and server.config.min_replicas_max_lag:
        fields.append(("min_slaves_good_slaves", primary.good_replicas()))
    for number, replica in enumerate(replicas):
        host = replica.address or replica.client.addr.rsplit(":", 1)[0]
        fields.append((
            f"slave{number}",
            f"ip={host},port={replica.port},state={replica.state},offset={replica.acknowledged},lag={replica.lag_s()}",
        ))  # fmt: skip
    return [
        *fields,
        ("master_failover_state", "no-failover"),
        ("master_replid", server.replication_id),
        ("master_replid2", "0" * 40),
        ("master_repl_offset", primary.offset),
        ("second_repl_offset", -1),
        ("repl_backlog_active", int(backlog is not None)),
        ("repl_backlog_size", server.config.repl_backlog_size),
        ("repl_backlog_first_byte_offset", backlog.begin + 1 if backlog else 0),
        ("repl_backlog_histlen", len(backlog.data) if backlog else 0),
    ]


def cpu_section(server: Any, keyspace: Any) -> Fields:
    """# CPU"""
    mine, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    thread = resource.getrusage(getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF))
    return [
        ("used_cpu_sys", f"{mine.ru_stime:.6f}"),
        ("used_cpu_user", f"{mine.ru_utime:.6f}"),
        ("used_cpu_sys_children", f"{children.ru_stime:.6f}"),
        ("used_cpu_user_children", f"{children.ru_utime:.6f}"),
        ("used_cpu_sys_main_thread", f"{thread.ru_stime:.6f}"),
        ("used_cpu_user_main_thread", f"{thread.ru_utime:.6f}"),
    ]


def modules_section(server: Any, keyspace: Any) -> Fields:
    """# Modules: there are none."""
    return []


def commandstats_section(server: Any, keyspace: Any) -> Fields:
    """# Commandstats"""
    return [
        (
            f"cmdstat_{name}",
            ",".join([
                f"calls={it.calls}",
                f"usec={it.usec}",
                f"usec_per_call={it.usec / max(1, it.calls):.2f}",
                f"rejected_calls={it.rejected_calls}",
                f"failed_calls={it.failed_calls}",
            ]),
        )
        for name, it in server.command_stats().items()
        if it.calls or it.rejected_calls or it.failed_calls
    ]


def errorstats_section(server: Any, keyspace: Any) -> Fields:
    """# Errorstats"""
    return [(f"errorstat_{code}", f"count={count}") for code, count in sorted(server.error_stats.items())]


def latencystats_section(server: Any, keyspace: Any) -> Fields:
    """# Latencystats"""
    wanted = server.config.latency_tracking_info_percentiles
    if not server.config.latency_tracking or not wanted:
        return []
    fields: Fields = []
    for name, it in server.command_stats().items():
        histogram = it.histogram
        if histogram is not None:
            shown = zip(wanted, histogram.percentiles_us(wanted), strict=True)
            fields.append((f"latency_percentiles_usec_{name}", ",".join(f"p{p:.6g}={us:.3f}" for p, us in shown)))
    return fields


def cluster_section(server: Any, keyspace: Any) -> Fields:
    """# Cluster"""
    return [("cluster_enabled", int(server.config.cluster_enabled))]


def keyspace_section(server: Any, keyspace: Any) -> Fields:
    """# Keyspace"""
    return [
        (
            f"db{db.index}",
            f"keys={len(db)},expires={db.volatile_count()},avg_ttl={db.average_ttl_ms()},subexpiry={db.timed_count()}",
        )
        for db in keyspace.databases
        if len(db)
    ]


def tensors_section(server: Any, keyspace: Any) -> Fields:
    """# Tensors: the region's blocks, each model"""
    tensors = server.tensors
    rows = [
        ("tensors_model_" + name.decode("utf-8", "replace").translate(UNSAFE), tensors.stats(name))
        for name in sorted(tensors.region.models)[:INFO_MODELS_MAX]
    ]
    return [
        *((f"tensors_{name}", value) for name, value in tensors.stats(None).items()),
        *((name, ",".join(f"{field}={shown(value)}" for field, value in row.items())) for name, row in rows),
    ]


def tiers_section(server: Any, keyspace: Any) -> Fields:
    """# Tiers: where blocks are, from the fastest to the largest, and what was warmed at the start"""
    tensors = server.tensors
    rows = [("tier_" + tier.pop("name").decode(), tier) for tier in tensors.tiers()]
    rows.append(("warming", tensors.warming.figures()))
    return [(name, ",".join(f"{field}={shown(value)}" for field, value in row.items())) for name, row in rows]


def shown(value: Any) -> str:
    """A figure inside a line of several."""
    if isinstance(value, bytes):
        return " ".join(value.decode("utf-8", "replace").replace(",", ";").split())  # drivers' errors have lines
    return f"{value:.1f}" if isinstance(value, float) else str(value)


SECTIONS: dict[str, tuple[str, Callable[[Any, Any], Fields]]] = {
    "server": ("Server", server_section),
    "clients": ("Clients", clients_section),
    "memory": ("Memory", memory_section),
    "persistence": ("Persistence", persistence_section),
    "stats": ("Stats", stats_section),
    "replication": ("Replication", replication_section),
    "cpu": ("CPU", cpu_section),
    "modules": ("Modules", modules_section),
    "commandstats": ("Commandstats", commandstats_section),
    "errorstats": ("Errorstats", errorstats_section),
    "latencystats": ("Latencystats", latencystats_section),
    "cluster": ("Cluster", cluster_section),
    "tensors": ("Tensors", tensors_section),
    "tiers": ("Tiers", tiers_section),
    "keyspace": ("Keyspace", keyspace_section),
}
DEFAULT = frozenset(SECTIONS) - {"commandstats", "latencystats"}


def build(server: Any, keyspace: Any, wanted: Iterable[str] = ()) -> str:
    """The text of INFO for these sections (`default`, `all`, `everything` too); unknown ones add nothing."""
    names = {name.lower() for name in wanted} or {"default"}
    if names & {"all", "everything"}:
        chosen = frozenset(SECTIONS)
    else:
        chosen = frozenset(SECTIONS) & names | (DEFAULT if "default" in names else frozenset())
    parts = []
    for name, (title, section) in SECTIONS.items():
        if name in chosen:
            lines = [f"# {title}", *(f"{field}:{value}" for field, value in section(server, keyspace))]
            parts.append("".join(f"{line}\r\n" for line in lines))
    return "\r\n".join(parts)
