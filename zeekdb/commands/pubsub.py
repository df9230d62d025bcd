"""Publish and subscribe."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from zeekdb.commands.context import Context
from zeekdb.commands.reply import help_lines
from zeekdb.commands.spec import FAST, LOADING, NOSCRIPT, PUBSUB, STALE, KeySpec, command, container
from zeekdb.errors import CommandError
from zeekdb.hot.keyspace import glob_match
from zeekdb.hot.replies import NO_REPLY, NoReply

GROUP = "pubsub"
ANY_STATE = PUBSUB | LOADING | STALE
LISTENS = ANY_STATE | NOSCRIPT
SHARDS = (KeySpec(("not_key",), index=1, last=-1),)
SHARD = (KeySpec(("not_key",), index=1),)
PER_CHANNEL = "O(N) where N is the number of channels to subscribe to."
PER_GONE = "O(N) where N is the number of channels to unsubscribe from."


def _check(ctx: Context) -> None:
    if ctx.in_script:
        raise CommandError("ERR SUBSCRIBE isn't allowed for a DENY BLOCKING client")


@command("SUBSCRIBE", arity=-2, flags=LISTENS, group=GROUP, since="2.0.0", complexity=PER_CHANNEL)
def subscribe(ctx: Context, *channels: bytes) -> NoReply:
    """Listens for messages published to channels."""
    _check(ctx)
    ctx.server.pubsub.subscribe(ctx.client, ctx.server.pubsub.channels, channels)
    return NO_REPLY


@command("UNSUBSCRIBE", arity=-1, flags=LISTENS, group=GROUP, since="2.0.0", complexity=PER_GONE)
def unsubscribe(ctx: Context, *channels: bytes) -> NoReply:
    """Stops listening to messages posted to channels."""
    ctx.server.pubsub.unsubscribe(ctx.client, ctx.server.pubsub.channels, channels)
    return NO_REPLY


@command("PSUBSCRIBE", arity=-2, flags=LISTENS, group=GROUP, since="2.0.0",
         complexity="O(N) where N is the number of patterns to subscribe to.")  # fmt: skip
def psubscribe(ctx: Context, *patterns: bytes) -> NoReply:
    """Listens for messages published to channels that match one or more patterns."""
    _check(ctx)
    ctx.server.pubsub.subscribe(ctx.client, ctx.server.pubsub.patterns, patterns)
    return NO_REPLY


@command("PUNSUBSCRIBE", arity=-1, flags=LISTENS, group=GROUP, since="2.0.0",
         complexity="O(N) where N is the number of patterns to unsubscribe.")  # fmt: skip
def punsubscribe(ctx: Context, *patterns: bytes) -> NoReply:
    """Stops listening to messages published to channels that match one or more patterns."""
    ctx.server.pubsub.unsubscribe(ctx.client, ctx.server.pubsub.patterns, patterns)
    return NO_REPLY


@command("SSUBSCRIBE", arity=-2, flags=LISTENS, keys=SHARDS, group=GROUP, since="7.0.0",
         complexity="O(N) where N is the number of shard channels to subscribe to.")  # fmt: skip
def ssubscribe(ctx: Context, *channels: bytes) -> NoReply:
    """Listens for messages published to shard channels."""
    _check(ctx)
    ctx.server.pubsub.subscribe(ctx.client, ctx.server.pubsub.shard_channels, channels)
    return NO_REPLY


@command("SUNSUBSCRIBE", arity=-1, flags=LISTENS, keys=SHARDS, group=GROUP, since="7.0.0",
         complexity="O(N) where N is the number of shard channels to unsubscribe.")  # fmt: skip
def sunsubscribe(ctx: Context, *channels: bytes) -> NoReply:
    """Stops listening to messages posted to shard channels."""
    ctx.server.pubsub.unsubscribe(ctx.client, ctx.server.pubsub.shard_channels, channels)
    return NO_REPLY


@command(
    "PUBLISH", arity=3, flags=ANY_STATE | FAST, group=GROUP, since="2.0.0",
    complexity="O(N+M) where N is the number of clients subscribed to the receiving channel and M is the total number "
               "of subscribed patterns (by any client).",
)  # fmt: skip
def publish(ctx: Context, channel: bytes, message: bytes) -> int:
    """Posts a message to a channel."""
    ctx.effect(b"PUBLISH", channel, message)
    receivers: int = ctx.server.pubsub.publish(channel, message)
    return receivers


@command("SPUBLISH", arity=3, flags=ANY_STATE | FAST, keys=SHARD, group=GROUP, since="7.0.0",
         complexity="O(N) where N is the number of clients subscribed to the receiving shard channel.")  # fmt: skip
def spublish(ctx: Context, channel: bytes, message: bytes) -> int:
    """Posts a message to a shard channel."""
    ctx.effect(b"SPUBLISH", channel, message)
    receivers: int = ctx.server.pubsub.publish_to_shard(channel, message)
    return receivers


container("PUBSUB", group=GROUP, since="2.8.0", summary="A container for Pub/Sub commands.")


def _matching(names: Iterable[bytes], pattern: tuple[bytes, ...], command_name: str) -> list[bytes]:
    if len(pattern) > 1:
        raise CommandError(
            f"ERR unknown subcommand or wrong number of arguments for '{command_name}'. Try PUBSUB HELP."
        )
    return [name for name in names if not pattern or glob_match(pattern[0], name)]


@command("PUBSUB|CHANNELS", arity=-2, flags=ANY_STATE, group=GROUP, since="2.8.0",
         complexity="O(N) where N is the number of active channels, and assuming constant time pattern matching "
                    "(relatively short channels and patterns)")  # fmt: skip
def pubsub_channels(ctx: Context, *pattern: bytes) -> list[bytes]:
    """Returns the channels that have subscribers."""
    return _matching(ctx.server.pubsub.channels.audiences, pattern, "channels")


@command("PUBSUB|SHARDCHANNELS", arity=-2, flags=ANY_STATE, group=GROUP, since="7.0.0",
         complexity="O(N) where N is the number of active shard channels, and assuming constant time pattern matching "
                    "(relatively short shard channels).")  # fmt: skip
def pubsub_shardchannels(ctx: Context, *pattern: bytes) -> list[bytes]:
    """Returns the shard channels that have subscribers."""
    return _matching(ctx.server.pubsub.shard_channels.audiences, pattern, "shardchannels")


def _counts(audiences: dict[bytes, Any], names: tuple[bytes, ...]) -> list[Any]:
    flat: list[Any] = []
    for name in names:
        flat += [name, len(audiences[name].clients) if name in audiences else 0]
    return flat


@command("PUBSUB|NUMSUB", arity=-2, flags=ANY_STATE, group=GROUP, since="2.8.0",
         complexity="O(N) for the NUMSUB subcommand, where N is the number of requested channels")  # fmt: skip
def pubsub_numsub(ctx: Context, *channels: bytes) -> list[Any]:
    """Returns how many subscribers channels have."""
    return _counts(ctx.server.pubsub.channels.audiences, channels)


@command("PUBSUB|SHARDNUMSUB", arity=-2, flags=ANY_STATE, group=GROUP, since="7.0.0",
         complexity="O(N) where N is the number of requested shard channels")  # fmt: skip
def pubsub_shardnumsub(ctx: Context, *channels: bytes) -> list[Any]:
    """Returns how many subscribers shard channels have."""
    return _counts(ctx.server.pubsub.shard_channels.audiences, channels)


@command("PUBSUB|NUMPAT", arity=2, flags=ANY_STATE, group=GROUP, since="2.8.0", complexity="O(1)")
def pubsub_numpat(ctx: Context) -> int:
    """Returns how many patterns are subscribed to."""
    return len(ctx.server.pubsub.patterns.audiences)


@command("PUBSUB|HELP", arity=2, flags=LOADING | STALE, group=GROUP, since="6.2.0", complexity="O(1)")
def pubsub_help(ctx: Context) -> list[str]:
    """Lists the subcommands."""
    return help_lines(
        "PUBSUB",
        "CHANNELS [<pattern>]",
        "    Return the currently active channels matching a <pattern> (default: '*').",
        "NUMPAT",
        "    Return number of subscriptions to patterns.",
        "NUMSUB [<channel> ...]",
        "    Return the number of subscribers for the specified channels, excluding",
        "    pattern subscriptions(default: no channels).",
        "SHARDCHANNELS [<pattern>]",
        "    Return the currently active shard level channels matching a <pattern> (default: '*').",
        "SHARDNUMSUB [<shardchannel> ...]",
        "    Return the number of subscribers for the specified shard level channel(s)",
    )
