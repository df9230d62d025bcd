"""CLUSTER and its kin, as a server answers that is not part of a cluster: everything is refused, HELP too."""

from __future__ import annotations

from typing import Any, Final

from zeekdb.commands.context import Context
from zeekdb.commands.spec import (
    ADMIN,
    FAST,
    LOADING,
    NO_ASYNC_LOADING,
    NOSCRIPT,
    STALE,
    Handler,
    command,
    container,
)
from zeekdb.errors import CommandError

DISABLED: Final = "ERR This instance has cluster support disabled"
LOOK: Final = LOADING | STALE
CHANGE: Final = ADMIN | NO_ASYNC_LOADING | STALE
VARIES: Final = ("nondeterministic_output",)
PER_SLOT: Final = "O(N) where N is the total number of hash slot arguments"
PER_RANGE: Final = (
    "O(N) where N is the total number of the slots between the start slot and end slot arguments."
)
PER_NODE: Final = "O(N) where N is the total number of Cluster nodes"

container("CLUSTER", group="cluster", since="3.0.0", summary="A container for Redis Cluster commands")


def refusing(summary: str) -> Handler:
    """A handler that answers any arguments with the same refusal."""

    def refuse(ctx: Context, *args: bytes) -> Any:
        raise CommandError(DISABLED)

    refuse.__doc__ = summary
    return refuse


def declare(name: str, arity: int, flags: int, summary: str, complexity: str = "O(1)", **more: Any) -> None:
    """One subcommand; `since` is 3.0.0 unless said otherwise."""
    facts: dict[str, Any] = {"group": "cluster", "since": "3.0.0", **more}
    command(f"CLUSTER|{name}", arity=arity, flags=flags, complexity=complexity, **facts)(refusing(summary))


# --- slots --------------------------------------------------------------------------------------------------------

declare("ADDSLOTS", -3, CHANGE, "Assigns hash slots to this node", PER_SLOT)
declare("ADDSLOTSRANGE", -4, CHANGE, "Assigns ranges of hash slots to this node", PER_RANGE, since="7.0.0")
declare("DELSLOTS", -3, CHANGE, "Takes hash slots from this node", PER_SLOT)
declare("DELSLOTSRANGE", -4, CHANGE, "Takes ranges of hash slots from this node", PER_RANGE, since="7.0.0")
declare("FLUSHSLOTS", 2, CHANGE, "Takes all hash slots from this node")
declare("SETSLOT", -4, CHANGE, "Binds a hash slot to a node, or says where it is moving")
declare("KEYSLOT", 3, STALE, "Returns the hash slot of a key", "O(N) where N is the number of bytes in the key")
declare("COUNTKEYSINSLOT", 3, STALE, "Returns how many keys a hash slot holds")
declare(
    "GETKEYSINSLOT", 4, STALE, "Returns keys of a hash slot", "O(log(N)) where N is the number of requested keys",
    tips=VARIES,
)  # fmt: skip
declare(
    "SLOTS", 2, LOOK, "Returns which nodes serve which hash slots", PER_NODE, tips=VARIES,
    history=(("4.0.0", "Added node IDs."), ("7.0.0", "Added additional networking metadata field.")),
    doc_flags=("deprecated",), deprecated_since="7.0.0", replaced_by="`CLUSTER SHARDS`",
)  # fmt: skip
declare(
    "SLOT-STATS", -4, LOOK, "Returns figures of hash slots",
    "O(N) where N is the total number of slots based on arguments. O(N*log(N)) with ORDERBY subcommand.",
    since="8.0.0", tips=(*VARIES, "request_policy:all_shards"),
)  # fmt: skip

# --- nodes --------------------------------------------------------------------------------------------------------

declare("MEET", -4, CHANGE, "Makes this node shake hands with another",
        history=(("4.0.0", "Added the optional `cluster_bus_port` argument."),))  # fmt: skip
declare("FORGET", 3, CHANGE, "Removes a node from this node's table")
declare("REPLICATE", 3, CHANGE, "Makes this node the replica of another")
declare("FAILOVER", -2, CHANGE, "Makes this replica take its primary's place")
declare(
    "RESET", -2, ADMIN | NOSCRIPT | STALE, "Makes this node forget the cluster",
    "O(N) where N is the number of known nodes. The command may execute a FLUSHALL as a side effect.",
)  # fmt: skip
declare("BUMPEPOCH", 2, CHANGE, "Moves the configuration epoch on", tips=VARIES)
declare("SET-CONFIG-EPOCH", 3, CHANGE, "Sets the configuration epoch of a new node")
declare("SAVECONFIG", 2, CHANGE, "Writes the cluster's state to disk")
declare(
    "COUNT-FAILURE-REPORTS", 3, ADMIN | STALE, "Returns how many nodes report that a node fails",
    "O(N) where N is the number of failure reports", tips=VARIES,
)  # fmt: skip
declare("REPLICAS", 3, ADMIN | STALE, "Lists the replicas of a node", "O(N) where N is the number of replicas.",
        since="5.0.0", tips=VARIES)  # fmt: skip
declare("SLAVES", 3, ADMIN | STALE, "Lists the replicas of a node", "O(N) where N is the number of replicas.",
        tips=VARIES, doc_flags=("deprecated",), deprecated_since="5.0.0", replaced_by="`CLUSTER REPLICAS`")  # fmt: skip
declare("INFO", 2, LOOK, "Tells how the cluster is doing", tips=VARIES)
declare("LINKS", 2, STALE, "Lists the connections to other nodes", PER_NODE, since="7.0.0", tips=VARIES)
declare("MYID", 2, LOOK, "Returns the name of this node")
declare("MYSHARDID", 2, LOOK, "Returns the name of this node's shard", since="7.2.0", tips=VARIES)
declare("NODES", 2, LOOK, "Returns what this node knows of all nodes", PER_NODE, tips=VARIES)
declare("SHARDS", 2, LOOK, "Returns the shards with their nodes and hash slots", PER_NODE, since="7.0.0", tips=VARIES)
declare("HELP", 2, LOOK, "Lists the subcommands", since="5.0.0")

# --- connections to a node ----------------------------------------------------------------------------------------


@command("ASKING", arity=1, flags=FAST, group="cluster", since="3.0.0", acl=("connection",), complexity="O(1)")
def asking(ctx: Context) -> str:
    """Lets the next command reach a hash slot that is being imported."""
    raise CommandError(DISABLED)


@command("READONLY", arity=1, flags=FAST | LOOK, group="cluster", since="3.0.0", acl=("connection",), complexity="O(1)")
def readonly(ctx: Context) -> str:
    """Lets this connection read from a replica of a cluster."""
    raise CommandError(DISABLED)


@command(
    "READWRITE", arity=1, flags=FAST | LOOK, group="cluster", since="3.0.0", acl=("connection",), complexity="O(1)"
)
def readwrite(ctx: Context) -> str:
    """Ends what READONLY began."""
    raise CommandError(DISABLED)
