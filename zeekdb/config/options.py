"""Every directive, one line each: name, kind, default, what it is, and what sets it apart.

`D(name, kind, default, doc, …)`: `unit` is what the number counts; `alias` an older name that CONFIG GET lists too;
`immutable` only the start sets it; `protected` needs `enable-protected-configs`; `sensitive` never appears in logs;
`hidden` answers only to its exact name; what is `ours`, to patterns that begin with a letter: tools set back all that
CONFIG GET * gave them, and leave out only those directives of Redis that they know; `hook` names what is applied when
it changes (see `Config.on_change`; several directives may share one); `later` is accepted and stored, but has no
effect yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from zeekdb.config.schedule import Schedules
from zeekdb.config.units import (
    INT_MAX,
    INT_MIN,
    LONG_MAX,
    UINT_MAX,
    ULONG_MAX,
    Bool,
    ConfigError,
    Enum,
    Events,
    Flags,
    Int,
    Integers,
    Kind,
    Memory,
    MemoryOrPercent,
    ModelSizes,
    Namespaces,
    Octal,
    OutputLimits,
    Percentiles,
    PowerOfTwo,
    ReplicaOf,
    SavePoints,
    Text,
    Words,
)  # fmt: skip
from zeekdb.config.urls import Url


@dataclass(frozen=True)
class Directive:
    """What the table says of one directive."""

    name: str
    kind: Kind
    default: Any
    doc: str
    unit: str = ""
    alias: str = ""
    immutable: bool = False
    protected: bool = False
    sensitive: bool = False
    hidden: bool = False
    ours: bool = False
    hook: str = ""
    later: bool = False

    @property
    def attribute(self) -> str:
        """The name as an attribute of Config."""
        return self.name.replace("-", "_")


D = Directive
POLICIES = (
    "volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl", "volatile-fifo", "volatile-s3fifo", "volatile-learned",
    "allkeys-lru", "allkeys-lfu", "allkeys-random", "allkeys-fifo", "allkeys-s3fifo", "allkeys-learned", "noeviction",
)  # fmt: skip
YES_NO, COUNT, PORT, TEXT = Bool(), Int(0, LONG_MAX), Int(0, 65535), Text()
NATURAL, POSITIVE = Int(0, INT_MAX), Int(1, INT_MAX)
BYTES = Memory()
CODING, WRITES = Enum("raw", "zstd", "fp16", "int8"), Enum("store", "demote")
TIMEOUT_MS = Int(10, 600000)
ACTION = Enum("no", "yes", "local")
SIGNAL = Flags("default", "save", "nosave", "now", "force")


def base_name(word: str, name: str, may_be_empty: bool = False) -> Text:
    """Text that names a file or folder in `dir`, never a path."""

    def check(text: str) -> str | None:
        if not text and not may_be_empty:
            return f"{name} can't be empty"
        return f"{name} can't be a path, just a {word}" if "/" in text else None

    return Text(check)


def title_problem(text: str) -> str | None:
    """proc-title-template: words in braces must be known ones."""
    rest = text
    for word in ("title", "listen-addr", "server-mode", "port", "tls-port", "unixsocket", "config-file"):
        rest = rest.replace("{" + word + "}", "")
    return "template format is invalid or contains unknown variables" if "{" in rest or "}" in rest else None


def host_problem(text: str) -> str | None:
    """cluster-announce-hostname: letters, digits, dots, hyphens."""
    if len(text) >= 256:
        return "Hostnames must be less than 256 characters"
    plain = all(c.isascii() and (c.isalnum() or c in "-.") for c in text)
    return None if plain else "Hostnames may only contain alphanumeric characters, hyphens or dots"


class NoDefrag(Bool):
    """yes or no, of which only no is possible: memory is compacted without being asked."""

    def parse(self, arguments: Any) -> bool:
        if super().parse(arguments):
            raise ConfigError("Active defragmentation cannot be enabled: this server compacts its memory by itself")
        return False


SECTIONS: tuple[tuple[str, tuple[Directive, ...]], ...] = (
    ("Network", (
        D("bind", Words(16, "Too many bind addresses specified."), ("*", "-::*"), "Addresses to listen on; a leading '-' forgives an address that is missing here.", hook="listen"),
        D("port", PORT, 6379, "TCP port; 0 listens on no TCP port.", hook="listen"),
        D("unixsocket", TEXT, "", "Path of a Unix socket to listen on.", immutable=True),
        D("unixsocketperm", Octal(0, 0o777), 0, "Permission bits of the Unix socket, in octal; 0 leaves them to the umask.", immutable=True),
        D("tcp-backlog", NATURAL, 511, "Connections that the kernel queues until they are accepted.", immutable=True),
        D("tcp-keepalive", NATURAL, 300, "Interval of TCP keepalive probes; 0 sends none.", "s", hook="tcp-keepalive"),
        D("timeout", NATURAL, 0, "Close a client that is idle for longer; 0 never does.", "s", hook="timeout"),
        D("maxclients", Int(1, UINT_MAX), 10000, "Connections served at once; further ones get an error.", hook="maxclients"),
        D("protected-mode", YES_NO, True, "Refuse other hosts while there is no password.", hook="protected-mode"),
        D("bind-source-addr", TEXT, "", "Address from which outgoing connections start.", later=True),
        D("socket-mark-id", Int(0, UINT_MAX), 0, "Mark (SO_MARK) set on the listening sockets.", immutable=True, later=True),
    )),
    ("TLS", (
        D("tls-port", PORT, 0, "TCP port that speaks TLS; 0 has none.", later=True),
        D("tls-cert-file", TEXT, "", "Certificate of the server, in PEM.", later=True),
        D("tls-key-file", TEXT, "", "Private key of the server, in PEM.", later=True),
        D("tls-key-file-pass", TEXT, "", "Pass phrase of the server's key.", sensitive=True, later=True),
        D("tls-client-cert-file", TEXT, "", "Certificate for outgoing connections.", later=True),
        D("tls-client-key-file", TEXT, "", "Private key for outgoing connections.", later=True),
        D("tls-client-key-file-pass", TEXT, "", "Pass phrase of the key for outgoing connections.", sensitive=True, later=True),
        D("tls-dh-params-file", TEXT, "", "Diffie-Hellman parameters for old TLS libraries.", later=True),
        D("tls-ca-cert-file", TEXT, "", "Certificates of the authorities that are trusted.", later=True),
        D("tls-ca-cert-dir", TEXT, "", "Folder of the authorities that are trusted.", later=True),
        D("tls-auth-clients", Enum("no", "yes", "optional"), "yes", "Whether clients must show a certificate.", later=True),
        D("tls-replication", YES_NO, False, "Speak TLS to the primary.", later=True),
        D("tls-cluster", YES_NO, False, "Speak TLS on the cluster bus.", later=True),
        D("tls-protocols", TEXT, "", "Versions of TLS that are allowed.", later=True),
        D("tls-ciphers", TEXT, "", "Ciphers of TLS 1.2 that are allowed.", later=True),
        D("tls-ciphersuites", TEXT, "", "Cipher suites of TLS 1.3 that are allowed.", later=True),
        D("tls-prefer-server-ciphers", YES_NO, False, "Prefer the server's order of ciphers.", later=True),
        D("tls-session-caching", YES_NO, True, "Let clients resume sessions.", later=True),
        D("tls-session-cache-size", NATURAL, 20480, "Sessions that are kept for resumption.", later=True),
        D("tls-session-cache-timeout", NATURAL, 300, "How long a session can be resumed.", "s", later=True),
    )),
    ("Process", (
        D("daemonize", YES_NO, False, "Run in the background.", immutable=True),
        D("supervised", Enum("upstart", "systemd", "auto", "no"), "no", "Tell a supervisor when the server is ready.", immutable=True, later=True),
        D("pidfile", TEXT, "", "File that holds the process id while the server runs; a daemon has one by default.", immutable=True),
        D("dir", TEXT, ".", "Working folder: data files and relative paths belong here.", protected=True, hook="dir"),
        D("loglevel", Enum("debug", "verbose", "notice", "warning", "nothing"), "notice", "Least important messages that are still logged.", hook="loglevel"),
        D("logfile", TEXT, "", "File to log to; empty is the standard output.", immutable=True),
        D("syslog-enabled", YES_NO, False, "Log to the system's logger as well.", immutable=True, later=True),
        D("syslog-ident", TEXT, "redis", "Name in the system's log.", immutable=True, later=True),
        D("syslog-facility", Enum("user", *(f"local{n}" for n in range(8))), "local0", "Facility in the system's log.", immutable=True, later=True),
        D("crash-log-enabled", YES_NO, True, "Log a report when the server crashes.", later=True),
        D("crash-memcheck-enabled", YES_NO, True, "Test the memory after a crash.", later=True),
        D("databases", POSITIVE, 16, "Databases, numbered from 0.", immutable=True),
        D("shards", PowerOfTwo(1, 65536), 16, "Shards of each database; a power of two. More shards, smaller steps of resizing and expiry.", immutable=True, ours=True),
        D("always-show-logo", YES_NO, False, "Draw the logo at start even when the output is no terminal.", immutable=True),
        D("set-proc-title", YES_NO, True, "Show addresses and mode in the process title.", immutable=True, later=True),
        D("proc-title-template", Text(title_problem), "{title} {listen-addr} {server-mode}", "What the process title shows.", later=True),
        D("locale-collate", TEXT, "", "Locale by which SORT ALPHA compares; empty takes the environment's.", hook="locale-collate", later=True),
        D("hz", NATURAL, 10, "How often a second the server does its housekeeping.", "1/s", hook="hz"),
        D("dynamic-hz", YES_NO, True, "Do it more often while many clients are connected.", later=True),
        D("shutdown-timeout", NATURAL, 10, "How long a shutdown waits for replicas to catch up.", "s", later=True),
        D("shutdown-on-sigint", SIGNAL, (), "What SIGINT does beside stopping the server.", hook="shutdown"),
        D("shutdown-on-sigterm", SIGNAL, (), "What SIGTERM does beside stopping the server.", hook="shutdown"),
        D("io-threads", Int(1, 128), 1, "Threads for reading and writing; the server needs one.", immutable=True, later=True),
        D("io-threads-do-reads", YES_NO, False, "Let those threads read as well.", immutable=True, later=True),
        D("server_cpulist", TEXT, "", "Processors that the server may run on.", immutable=True, later=True),
        D("bio_cpulist", TEXT, "", "Processors for background work.", immutable=True, later=True),
        D("aof_rewrite_cpulist", TEXT, "", "Processors for rewriting the AOF.", immutable=True, later=True),
        D("bgsave_cpulist", TEXT, "", "Processors for snapshots.", immutable=True, later=True),
        D("oom-score-adj", Enum("no", "yes", "relative", "absolute", same={"yes": "relative"}), "no", "Adjust how readily the kernel kills this process.", later=True),
        D("oom-score-adj-values", Integers(3, -2000, 2000), (0, 200, 800), "By how much: primary, replica, background work.", later=True),
        D("disable-thp", YES_NO, True, "Ask the kernel for no transparent huge pages.", immutable=True, later=True),
        D("ignore-warnings", TEXT, "", "Warnings about the system that must not stop the start.", later=True),
        D("watchdog-period", NATURAL, 0, "Log what the server does when it hangs for longer.", "ms", hidden=True, later=True),
        D("use-exit-on-panic", YES_NO, False, "Exit rather than abort on an internal error.", hidden=True, later=True),
        D("jemalloc-bg-thread", YES_NO, True, "Return freed memory from a thread of the allocator.", later=True),
    )),
    ("Security", (
        D("requirepass", TEXT, "", "Password of the default user; empty asks for none.", sensitive=True, hook="requirepass"),
        D("aclfile", TEXT, "", "File of users.", immutable=True),
        D("acllog-max-len", COUNT, 128, "Entries that ACL LOG keeps."),
        D("acl-pubsub-default", Enum("allchannels", "resetchannels"), "resetchannels", "Channels of a new user."),
        D("enable-protected-configs", ACTION, "no", "Who may set protected directives by CONFIG SET: nobody, everybody, local connections.", immutable=True),
        D("enable-debug-command", ACTION, "no", "Who may use DEBUG.", immutable=True),
        D("enable-module-command", ACTION, "no", "Who may use MODULE.", immutable=True),
        D("sanitize-dump-payload", Enum("no", "yes", "clients"), "no", "Whether RESTORE checks payloads deeply; here it always does.", later=True),
    )),
    ("Memory", (
        D("maxmemory", Memory(0, ULONG_MAX), 0, "Most memory for data; 0 has no limit.", "bytes", hook="maxmemory"),
        D("maxmemory-policy", Enum(*POLICIES), "noeviction", "What goes when memory is full.", hook="maxmemory"),
        D("maxmemory-samples", POSITIVE, 5, "Keys compared to find one to evict."),
        D("maxmemory-eviction-tenacity", Int(0, 100), 10, "How hard eviction tries before it serves the next client."),
        D("maxmemory-clients", MemoryOrPercent(0, LONG_MAX), 0, "Most memory for all clients' buffers, or a share of maxmemory; 0 has no limit.", "bytes or %"),
        D("lfu-log-factor", NATURAL, 10, "How slowly the LFU counter grows.", hook="lfu"),
        D("lfu-decay-time", NATURAL, 1, "After how long an LFU counter falls by one; 0 never.", "min", hook="lfu"),
        D("active-expire-effort", Int(1, 10), 1, "How much time goes to removing expired keys.", hook="active-expire-effort", later=True),
        D("lazyfree-lazy-eviction", YES_NO, False, "Free evicted values in the background. Large values always are.", later=True),
        D("lazyfree-lazy-expire", YES_NO, False, "Free expired values in the background. Large values always are.", later=True),
        D("lazyfree-lazy-server-del", YES_NO, False, "Free replaced values in the background. Large values always are.", later=True),
        D("lazyfree-lazy-user-del", YES_NO, False, "Let DEL work as UNLINK does. Large values always are freed in slices.", later=True),
        D("lazyfree-lazy-user-flush", YES_NO, False, "Let FLUSHALL and FLUSHDB be ASYNC by default. They never block here.", later=True),
        D("activerehashing", YES_NO, True, "Go on with resizing tables while idle.", hook="activerehashing", later=True),
        D("activedefrag", NoDefrag(), False, "Defragment memory in the background; here it is compacted whenever that pays.", later=True),
        D("active-defrag-ignore-bytes", Memory(1, LONG_MAX), 100 << 20, "Fragmentation that defragmentation ignores.", "bytes", later=True),
        D("active-defrag-threshold-lower", Int(0, 1000), 10, "Fragmentation at which it begins.", "%", later=True),
        D("active-defrag-threshold-upper", Int(0, 1000), 100, "Fragmentation at which it works hardest.", "%", later=True),
        D("active-defrag-cycle-min", Int(1, 99), 1, "Least share of a processor for it.", "%", later=True),
        D("active-defrag-cycle-max", Int(1, 99), 25, "Largest share of a processor for it.", "%", later=True),
        D("active-defrag-max-scan-fields", Int(1, LONG_MAX), 1000, "Fields that it handles at once.", later=True),
        D("tracking-table-max-keys", COUNT, 1000000, "Keys remembered for client-side caching."),
    )),
    ("Small values", (
        D("hash-max-listpack-entries", COUNT, 512, "Fields up to which a hash is packed.", alias="hash-max-ziplist-entries", hook="hash-limits"),
        D("hash-max-listpack-value", BYTES, 64, "Longest field or value of a packed hash.", "bytes", alias="hash-max-ziplist-value", hook="hash-limits"),
        D("list-max-listpack-size", Int(INT_MIN, INT_MAX), -2, "Elements of a list's node, or its size: -1 is 4 kB, -2 8 kB, to -5 64 kB.", alias="list-max-ziplist-size", hook="list-limits"),
        D("list-compress-depth", NATURAL, 0, "Nodes at either end of a list that stay uncompressed; 0 compresses none.", later=True),
        D("set-max-intset-entries", COUNT, 512, "Members up to which a set of integers is packed.", hook="set-limits"),
        D("set-max-listpack-entries", COUNT, 128, "Members up to which any set is packed.", hook="set-limits"),
        D("set-max-listpack-value", BYTES, 64, "Longest member of a packed set.", "bytes", hook="set-limits"),
        D("zset-max-listpack-entries", COUNT, 128, "Members up to which a sorted set is packed.", alias="zset-max-ziplist-entries", hook="zset-limits"),
        D("zset-max-listpack-value", BYTES, 64, "Longest member of a packed sorted set.", "bytes", alias="zset-max-ziplist-value", hook="zset-limits"),
        D("hll-sparse-max-bytes", BYTES, 3000, "Size up to which a HyperLogLog is sparse.", "bytes"),
        D("stream-node-max-bytes", BYTES, 4096, "Size of a stream's node; 0 has no limit.", "bytes", hook="stream-limits"),
        D("stream-node-max-entries", COUNT, 100, "Entries of a stream's node; 0 has no limit.", hook="stream-limits"),
    )),
    ("Limits of clients", (
        D("client-query-buffer-limit", Memory(1 << 20, LONG_MAX), 1 << 30, "Most bytes of a client's unfinished command.", "bytes", hook="client-limits"),
        D("proto-max-bulk-len", Memory(1 << 20, LONG_MAX), 512 << 20, "Longest argument and longest string.", "bytes", hook="client-limits"),
        D("client-output-buffer-limit", OutputLimits(), {"normal": (0, 0, 0), "slave": (256 << 20, 64 << 20, 60), "pubsub": (32 << 20, 8 << 20, 60)}, "Per class (normal, replica, pubsub): hard limit, soft limit and seconds of unread replies; 0 has no limit.", hook="client-limits"),
        D("notify-keyspace-events", Events(), "", "Classes of keyspace events to publish."),
        D("lua-memory-limit", BYTES, 512 << 20, "Memory that scripts may use, and functions: more is an error for the script.", "bytes"),
        D("busy-reply-threshold", COUNT, 5000, "After how long other clients of a running script get -BUSY.", "ms", alias="lua-time-limit"),
    )),
    ("Watching the server", (
        D("slowlog-log-slower-than", Int(-1, LONG_MAX), 10000, "Commands that take longer enter the slow log; 0 logs all, -1 none.", "µs", hook="slowlog"),
        D("slowlog-max-len", COUNT, 128, "Entries that the slow log keeps.", hook="slowlog"),
        D("latency-monitor-threshold", COUNT, 0, "Events that take at least as long are kept for LATENCY; 0 keeps none.", "ms", hook="latency"),
        D("latency-tracking", YES_NO, True, "Keep a histogram of durations per command.", hook="latency-tracking"),
        D("latency-tracking-info-percentiles", Percentiles(), (50.0, 99.0, 99.9), "Percentiles that INFO latencystats shows."),
    )),
    ("Snapshots", (
        D("save", SavePoints(), ((3600, 1), (300, 100), (60, 10000)), 'Take a snapshot after so many seconds with so many changes; "" never does.'),
        D("snapshot-schedule", Schedules(), (), 'Take a snapshot at these local times, as in a crontab (@daily and the like too); "" never does.', ours=True),
        D("dbfilename", base_name("filename", "dbfilename", may_be_empty=True), "dump.rdb", "Name of the snapshot.", protected=True),
        D("rdbcompression", YES_NO, True, "Compress strings in snapshots and payloads."),
        D("rdbchecksum", YES_NO, True, "Put a checksum at the end of snapshots.", immutable=True),
        D("rdb-del-sync-files", YES_NO, False, "Delete snapshots that were made for replication.", later=True),
        D("rdb-save-incremental-fsync", YES_NO, True, "Write snapshots to disk as they grow."),
        D("rdb-key-save-delay", Int(INT_MIN, INT_MAX), 0, "Wait for each key while saving; for tests.", "µs", hidden=True, later=True),
        D("key-load-delay", Int(INT_MIN, INT_MAX), 0, "Wait for each key while loading; for tests.", "µs", hidden=True, later=True),
        D("loading-process-events-interval-bytes", Memory(1024, INT_MAX), 2 << 20, "Serve clients after every so many bytes while loading.", "bytes", hidden=True, later=True),
        D("stop-writes-on-bgsave-error", YES_NO, True, "Refuse writes after a snapshot failed."),
    )),
    ("Append-only file", (
        D("appendonly", YES_NO, False, "Log every write to disk."),
        D("appendfilename", base_name("filename", "appendfilename"), "appendonly.aof", "Stem of the names of the AOF's files.", immutable=True),
        D("appenddirname", base_name("dirname", "appenddirname"), "appendonlydir", "Folder of the AOF's files.", immutable=True),
        D("appendfsync", Enum("everysec", "always", "no"), "everysec", "When writes must have reached the disk."),
        D("no-appendfsync-on-rewrite", YES_NO, False, "Do not sync while a rewrite runs."),
        D("auto-aof-rewrite-percentage", NATURAL, 100, "Growth at which the AOF is rewritten; 0 never.", "%"),
        D("auto-aof-rewrite-min-size", BYTES, 64 << 20, "Size below which it is not.", "bytes"),
        D("aof-load-truncated", YES_NO, True, "Start even when the AOF's tail is torn."),
        D("aof-use-rdb-preamble", YES_NO, True, "Begin a rewritten AOF with a snapshot; otherwise with commands."),
        D("aof-timestamp-enabled", YES_NO, False, "Note times in the AOF for point-in-time restore."),
        D("aof-rewrite-incremental-fsync", YES_NO, True, "Write a rewritten AOF to disk as it grows."),
        D("aof-disable-auto-gc", YES_NO, False, "Keep the AOF's old files.", hidden=True),
    )),
    ("Replication", (
        D("replicaof", ReplicaOf(2), (), "Host and port of the primary to follow.", alias="slaveof", immutable=True),
        D("masteruser", TEXT, "", "User to log in as at the primary.", sensitive=True),
        D("masterauth", TEXT, "", "Password at the primary.", sensitive=True),
        D("replica-serve-stale-data", YES_NO, True, "Answer reads while the link to the primary is down.", alias="slave-serve-stale-data"),
        D("replica-read-only", YES_NO, True, "Refuse writes on a replica.", alias="slave-read-only"),
        D("replica-ignore-maxmemory", YES_NO, True, "Leave eviction to the primary.", alias="slave-ignore-maxmemory"),
        D("replica-lazy-flush", YES_NO, False, "Drop old data in the background when a full copy arrives.", alias="slave-lazy-flush", later=True),
        D("replica-priority", NATURAL, 100, "Sentinel prefers small ones; 0 is never promoted.", alias="slave-priority"),
        D("replica-announced", YES_NO, True, "Let Sentinel show this replica."),
        D("replica-announce-ip", TEXT, "", "Address to announce to the primary.", alias="slave-announce-ip"),
        D("replica-announce-port", PORT, 0, "Port to announce to the primary.", alias="slave-announce-port"),
        D("replica-ignore-disk-write-errors", YES_NO, False, "Let a replica go on when its disk fails.", later=True),
        D("repl-diskless-sync", YES_NO, True, "Send full copies from memory."),
        D("repl-diskless-sync-delay", NATURAL, 5, "How long to wait for further replicas first.", "s", later=True),
        D("repl-diskless-sync-max-replicas", NATURAL, 0, "Replicas that end this wait; 0 waits it out.", later=True),
        D("repl-diskless-load", Enum("disabled", "on-empty-db", "swapdb"), "disabled", "Load full copies from the socket.", later=True),
        D("repl-ping-replica-period", POSITIVE, 10, "How often replicas are pinged.", "s", alias="repl-ping-slave-period"),
        D("repl-timeout", POSITIVE, 60, "Silence after which a link is given up.", "s"),
        D("repl-disable-tcp-nodelay", YES_NO, False, "Send fewer, larger packets to replicas.", later=True),
        D("repl-backlog-size", Memory(1, LONG_MAX), 1 << 20, "Writes kept for replicas that come back.", "bytes"),
        D("repl-backlog-ttl", COUNT, 3600, "How long they are kept without replicas; 0 for ever.", "s"),
        D("min-replicas-to-write", NATURAL, 0, "Refuse writes with fewer replicas; 0 never does.", alias="min-slaves-to-write"),
        D("min-replicas-max-lag", NATURAL, 10, "Lag up to which a replica counts.", "s", alias="min-slaves-max-lag"),
        D("propagation-error-behavior", Enum("ignore", "panic", "panic-on-replicas"), "ignore", "What an error while applying the primary's writes does.", later=True),
    )),
    ("Tensor region", (
        D("kv-memory", BYTES, 256 << 20, "Size of the host arena for KV-cache blocks, beside maxmemory; taken once the first block comes; 0 has none.", "bytes", immutable=True, ours=True),
        D("kv-prefault", YES_NO, False, "Take the arena's memory from the system at the start.", immutable=True, ours=True),
        D("kv-watermark", Int(1, 100), 95, "How full the arena may be before blocks leave it ahead of need.", "%", ours=True),
        D("kv-lease-max", Int(1, INT_MAX), 600000, "Longest lease of a block.", "ms", ours=True),
        D("kv-namespace", Namespaces(), (), "Serve SET, GET, MGET, EXISTS and DEL of keys like PATTERN as blocks of MODEL: PATTERN MODEL …", ours=True, hook="kv-namespace"),
        D("kv-exists-lease", NATURAL, 10000, "How long a block of such a key stays at least once EXISTS has promised it; 0 gives no lease.", "ms", ours=True),
        D("kv-gpu", ModelSizes(), (), "GPU memory for the blocks of MODEL, which has a layout; kv-memory is then page-locked at the start: MODEL BYTES …", immutable=True, ours=True),
        D("kv-gpu-twin", YES_NO, False, "Let host memory stand in for the GPU's, for tests.", immutable=True, hidden=True, ours=True),
        D("kv-ssd-path", TEXT, "", "Folder of the SSD tier, which survives a restart; none without.", immutable=True, ours=True),
        D("kv-ssd-size", Memory(1 << 20, LONG_MAX), 64 << 30, "Most bytes of its files.", "bytes", immutable=True, ours=True),
        D("kv-ssd-uses", Int(1, 4), 2, "Uses, the storing counted, from which on a block is worth writing to it.", ours=True),
    )),
    ("Tiers", (
        D("kv-node", TEXT, "", "Name of this node among those that share tiers; without, its host name and port.", immutable=True, ours=True),
        D("kv-find-deadline", NATURAL, 50, "How long a read waits for what other nodes may have stored; 0 never asks.", "ms", ours=True),
        D("kv-adopt", NATURAL, 1000000, "How many blocks of shared tiers the index takes in at the start, ahead of questions about them; about 200 bytes each.", immutable=True, ours=True),
        D("kv-warming", NATURAL, 0, "How long popular blocks are brought into memory at the start; 0 brings none.", "ms", ours=True),
        D("kv-warming-bytes", BYTES, 1 << 30, "And how much of them.", "bytes", ours=True),
        D("kv-warm-url", Url("redis", "rediss", "unix", "redis+sentinel", "redis+cluster", "rediss+sentinel", "rediss+cluster"), "", "Redis, Valkey, Dragonfly or ZeekDB that nodes share blocks in; none without.", immutable=True, sensitive=True, ours=True),
        D("kv-warm-pool", Int(1, 1024), 16, "Connections to it.", immutable=True, ours=True),
        D("kv-warm-batch", Int(1, 4096), 64, "Blocks of one pipeline.", immutable=True, ours=True),
        D("kv-warm-ttl", COUNT, 86400, "How long a block stays there; 0 as long as it may.", "s", ours=True),
        D("kv-warm-compression", CODING, "raw", "How blocks are kept there.", immutable=True, ours=True),
        D("kv-warm-min", BYTES, 0, "Smallest block that goes there.", "bytes", ours=True),
        D("kv-warm-max", BYTES, 256 << 20, "Largest block that goes there.", "bytes", ours=True),
        D("kv-warm-write", WRITES, "store", "When: every block as it is stored, or what the tiers above let go of.", ours=True),
        D("kv-warm-timeout", TIMEOUT_MS, 1000, "How long an answer may take.", "ms", immutable=True, ours=True),
        D("kv-postgres-url", Url("embedded", "postgresql", "postgres"), "", "PostgreSQL for the catalogue and cold blocks: a URL, or embedded:DIR; none without.", immutable=True, sensitive=True, ours=True),
        D("kv-postgres-reader-url", Url("postgresql", "postgres"), "", "The same for those who only read; else the one above.", immutable=True, sensitive=True, ours=True),
        D("kv-postgres-pool", Int(1, 256), 8, "Connections to it.", immutable=True, ours=True),
        D("kv-postgres-batch", Int(1, 100000), 1000, "Rows written at a time.", immutable=True, ours=True),
        D("kv-postgres-ttl", COUNT, 0, "How long a cold block stays there; 0 as long as it may.", "s", ours=True),
        D("kv-postgres-compression", CODING, "zstd", "How cold blocks are kept there.", immutable=True, ours=True),
        D("kv-postgres-min", BYTES, 0, "Smallest block that goes there.", "bytes", ours=True),
        D("kv-postgres-max", BYTES, 1 << 20, "Largest block that goes there; 0 keeps none.", "bytes", ours=True),
        D("kv-postgres-write", WRITES, "demote", "When: every block as it is stored, or what the tiers above let go of.", ours=True),
        D("kv-postgres-timeout", TIMEOUT_MS, 1000, "How long an answer may take.", "ms", immutable=True, ours=True),
        D("kv-log-sample", Int(0, 100), 100, "How much of what is read and written goes to the access log.", "%", ours=True),
        D("kv-log-days", Int(1, 3650), 7, "How long the access log is kept.", "days", ours=True),
        D("kv-versions", Int(0, 1000), 8, "Earlier versions kept of a block that is overwritten, with their bytes.", ours=True),
        D("kv-qdrant-url", Url("embedded", "http", "https", "memory", "path"), "", "Qdrant for the embeddings of contexts: a URL, embedded:DIR, path:DIR or memory:; none without.", immutable=True, sensitive=True, ours=True),
        D("kv-qdrant-dim", Int(8, 4096), 512, "Dimensions of an embedding.", immutable=True, ours=True),
        D("kv-qdrant-m", Int(4, 128), 16, "Edges of a point in the HNSW graph.", immutable=True, ours=True),
        D("kv-qdrant-ef", Int(4, 4096), 100, "Candidates while the graph is built.", immutable=True, ours=True),
        D("kv-qdrant-batch", Int(1, 4096), 256, "Embeddings written at a time.", immutable=True, ours=True),
        D("kv-qdrant-timeout", TIMEOUT_MS, 1000, "How long an answer may take.", "ms", immutable=True, ours=True),
        D("kv-objects-url", Url("file", "s3", "gs", "az"), "", "Object storage for large blocks and archives: s3://bucket/prefix, gs://, az:// or file:///DIR; none without.", immutable=True, sensitive=True, ours=True),
        D("kv-objects-pool", Int(1, 1024), 16, "Requests under way.", immutable=True, ours=True),
        D("kv-objects-batch", Int(1, 4096), 64, "Blocks handed over at a time.", immutable=True, ours=True),
        D("kv-objects-ttl", COUNT, 0, "How long an object stays there; 0 for good.", "days", ours=True),
        D("kv-objects-compression", CODING, "zstd", "How blocks are kept there.", immutable=True, ours=True),
        D("kv-objects-min", BYTES, 1 << 20, "Smallest block that goes there by itself; archives and KV.DEMOTE go below.", "bytes", ours=True),
        D("kv-objects-max", BYTES, 4 << 30, "Largest block that goes there.", "bytes", ours=True),
        D("kv-objects-write", WRITES, "demote", "When: every block as it is stored, or what the tiers above let go of.", ours=True),
        D("kv-objects-timeout", TIMEOUT_MS, 10000, "How long an answer may take.", "ms", immutable=True, ours=True),
    )),
    ("Cluster", (
        D("cluster-enabled", YES_NO, False, "Be a node of a cluster.", immutable=True, later=True),
        D("cluster-config-file", TEXT, "nodes.conf", "File of the cluster's state.", immutable=True, later=True),
        D("cluster-node-timeout", COUNT, 15000, "Silence after which a node counts as failed.", "ms", later=True),
        D("cluster-port", PORT, 0, "Port of the cluster bus; 0 is the port plus 10000.", immutable=True, later=True),
        D("cluster-replica-validity-factor", NATURAL, 10, "How stale a replica may be to be promoted.", alias="cluster-slave-validity-factor", later=True),
        D("cluster-replica-no-failover", YES_NO, False, "Never promote this replica by itself.", alias="cluster-slave-no-failover", later=True),
        D("cluster-migration-barrier", NATURAL, 1, "Replicas that a primary keeps when others need one.", later=True),
        D("cluster-allow-replica-migration", YES_NO, True, "Let replicas move to primaries that have none.", later=True),
        D("cluster-require-full-coverage", YES_NO, True, "Stop serving while slots have no owner.", later=True),
        D("cluster-allow-reads-when-down", YES_NO, False, "Answer reads nonetheless.", later=True),
        D("cluster-allow-pubsubshard-when-down", YES_NO, True, "Serve sharded pub/sub nonetheless.", later=True),
        D("cluster-link-sendbuf-limit", Memory(0, ULONG_MAX), 0, "Most memory of a link on the bus; 0 has no limit.", "bytes", later=True),
        D("cluster-announce-ip", TEXT, "", "Address to announce.", later=True),
        D("cluster-announce-port", PORT, 0, "Port to announce.", later=True),
        D("cluster-announce-tls-port", PORT, 0, "TLS port to announce.", later=True),
        D("cluster-announce-bus-port", PORT, 0, "Bus port to announce.", later=True),
        D("cluster-announce-hostname", Text(host_problem), "", "Host name to announce.", later=True),
        D("cluster-announce-human-nodename", TEXT, "", "Name of this node in logs.", later=True),
        D("cluster-preferred-endpoint-type", Enum("ip", "hostname", "unknown-endpoint"), "ip", "What redirections name.", later=True),
    )),
)  # fmt: skip

DIRECTIVES: dict[str, Directive] = {d.name: d for _, directives in SECTIONS for d in directives}
NAMES: dict[str, Directive] = {  # with the older names
    **DIRECTIVES,
    **{d.alias: d for d in DIRECTIVES.values() if d.alias},
}
