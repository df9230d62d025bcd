"""CONFIG GET, CONFIG SET and their hooks."""

from __future__ import annotations

import pytest

from zeekdb.config.config import Config, glob_to_regex
from zeekdb.config.options import DIRECTIVES, NAMES
from zeekdb.config.units import ConfigError
from zeekdb.errors import CommandError


@pytest.fixture
def config() -> Config:
    return Config()


def refusal(config: Config, *pairs: tuple[str, str]) -> str:
    """The error of a CONFIG SET that must fail."""
    with pytest.raises(CommandError) as caught:
        config.set(pairs)
    return caught.value.message


def test_attributes_have_defaults(config: Config) -> None:
    assert config.port == 6379
    assert config.hash_max_listpack_entries == 512
    assert config.output_buffer_limit("replica") == (256 << 20, 64 << 20, 60)
    assert config.output_buffer_limit("normal") == (0, 0, 0)


def test_every_default_survives_its_own_text() -> None:
    config = Config()
    for directive in DIRECTIVES.values():
        if directive.name == "dir":
            continue
        text = directive.kind.show(directive.default)
        config.parse(directive.name, text.split() or [""] if directive.kind.multi else [text])
        assert config.value(directive) == directive.default, directive.name


def test_get_takes_globs_and_older_names(config: Config) -> None:
    assert config.get("maxmemory") == {"maxmemory": "0"}
    assert set(config.get("hash-max-*")) == {
        "hash-max-listpack-entries", "hash-max-ziplist-entries", "hash-max-listpack-value", "hash-max-ziplist-value",
    }  # fmt: skip
    assert config.get("MAXCLIENTS", "hz") == {"maxclients": "10000", "hz": "10"}
    assert config.get("nope") == {}


def test_hidden_directives_answer_only_to_their_name(config: Config) -> None:
    assert "key-load-delay" not in config.get("*")
    assert "kv-memory" not in config.get("*")
    assert {"kv-memory", "kv-warm-url"} <= set(config.get("kv-*")) and "kv-gpu-twin" not in config.get("kv-*")
    assert config.get("key-load-delay") == {"key-load-delay": "0"}


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("a*c", "abbc", True),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("[hx]ash", "hash", True),
        ("[^h]ash", "hash", False),
        ("a\\*", "a*", True),
        ("a\\*", "ab", False),
        ("***a", "a", True),
        ("[", "[", True),
    ],
)
def test_globs(pattern: str, text: str, matches: bool) -> None:
    assert bool(glob_to_regex(pattern).fullmatch(text)) is matches


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("port", "abc", "argument couldn't be parsed into an integer"),
        ("port", "70000", "argument must be between 0 and 65535 inclusive"),
        ("maxmemory", "1zz", "argument must be a memory value"),
        ("maxmemory-clients", "200%", "percentage argument must be less or equal to 100"),
        ("appendonly", "maybe", "argument must be 'yes' or 'no'"),
        ("daemonize", "yes", "can't set immutable config"),
        ("dir", "/", "can't set protected config"),
        ("save", "1", "Invalid save parameters"),
        ("oom-score-adj-values", "1 2", "wrong number of arguments"),
        ("client-output-buffer-limit", "normal 1 2", "Wrong number of arguments in buffer limit configuration."),
        ("notify-keyspace-events", "q", "Invalid event class character. Use 'Ag$lshzxeKEtmdn'."),
        ("shutdown-on-sigint", "save nosave", "shutdown options SAVE and NOSAVE can't be used simultaneously"),
        ("maxmemory-samples", "0", "argument must be between 1 and 2147483647 inclusive"),
        ("lfu-log-factor", "1.5", "argument couldn't be parsed into an integer"),
        ("proc-title-template", "{x}", "template format is invalid or contains unknown variables"),
    ],
)
def test_refusals_have_redis_words(config: Config, name: str, value: str, why: str) -> None:
    wanted = f"ERR CONFIG SET failed (possibly related to argument '{name}') - {why}"
    assert refusal(config, (name, value)) == wanted


def test_unknown_names(config: Config) -> None:
    assert refusal(config, ("nope", "1")) == "ERR Unknown option or number of arguments for CONFIG SET - 'nope'"


def test_all_or_nothing(config: Config) -> None:
    assert "'hz'" in refusal(config, ("timeout", "5"), ("hz", "x"))
    assert config.timeout == 0
    assert "duplicate parameter" in refusal(config, ("timeout", "5"), ("timeout", "6"))
    config.set({"timeout": "5", "hz": "20"})
    assert (config.timeout, config.hz) == (5, 20)


def test_protected_directives_open_to_those_allowed(config: Config) -> None:
    config.enable_protected_configs = "local"
    assert "protected" in refusal(config, ("dbfilename", "x.rdb"))
    config.set({"dbfilename": "x.rdb"}, local=True)
    assert config.dbfilename == "x.rdb"


def test_hooks_run_once_a_change(config: Config) -> None:
    calls: list[int] = []
    config.on_change("hash-limits", lambda: calls.append(config.hash_max_listpack_entries))
    config.set({"hash-max-listpack-entries": "10", "hash-max-listpack-value": "20"})
    config.set({"hash-max-listpack-entries": "10"})
    assert calls == [10]
    with pytest.raises(ValueError, match="no directive"):
        config.on_change("nope", lambda: None)


def test_a_hook_that_refuses_takes_everything_back(config: Config) -> None:
    applied: list[int] = []

    def refuse() -> None:
        if config.port == 1:
            raise ConfigError("Unable to listen on this port")

    config.on_change("timeout", lambda: applied.append(config.timeout))
    config.on_change("port", refuse)
    message = refusal(config, ("timeout", "7"), ("port", "1"))
    assert message == "ERR CONFIG SET failed (possibly related to argument 'port') - Unable to listen on this port"
    assert (config.timeout, config.port) == (0, 6379)
    assert applied == [7, 0]


def test_limits_of_classes_that_are_not_named_stay(config: Config) -> None:
    config.set({"client-output-buffer-limit": "normal 1mb 2mb 3 replica 4 5 6"})
    shown = config.get("client-output-buffer-limit")["client-output-buffer-limit"]
    assert shown == "normal 1048576 2097152 3 slave 4 5 6 pubsub 33554432 8388608 60"


@pytest.mark.parametrize(
    ("name", "given", "shown"),
    [
        ("maxmemory", "1gb", "1073741824"),
        ("maxmemory", "1g", "1000000000"),
        ("maxmemory", "10KB", "10240"),
        ("maxmemory-clients", "10%", "10%"),
        ("maxmemory-policy", "ALLKEYS-lru", "allkeys-lru"),
        ("notify-keyspace-events", "zKE", "zKE"),
        ("notify-keyspace-events", "g$lshzxetd", "A"),
        ("notify-keyspace-events", "KEA", "AKE"),
        ("save", "", ""),
        ("save", "10 20 30 40", "10 20 30 40"),
        ("latency-tracking-info-percentiles", "1.5 99.99 100", "1.5 99.99 100"),
        ("shutdown-on-sigterm", "now FORCE", "now force"),
        ("oom-score-adj", "yes", "relative"),
        ("slave-priority", "5", "5"),
    ],
)
def test_values_come_back_as_redis_prints_them(config: Config, name: str, given: str, shown: str) -> None:
    config.set({name: given})
    assert config.get(name) == {name: shown}


def test_older_names_set_the_same_value(config: Config) -> None:
    config.set({"list-max-ziplist-size": "-3"})
    assert config.list_max_listpack_size == -3
    assert all(NAMES[d.alias] is d for d in DIRECTIVES.values() if d.alias)


@pytest.mark.parametrize(("name", "value", "again"), [
    ("kv-namespace", "p:{}* m", "more than 64 patterns"),
    ("kv-gpu", "m{} 1mb", "more than 64 models"),
])  # fmt: skip
def test_pairs_add_up_over_lines_as_far_as_they_may(config: Config, name: str, value: str, again: str) -> None:
    for n in range(64):
        config.parse(name, value.format(n).split(), first=n == 0)
    assert len(config.value(NAMES[name])) == 64
    with pytest.raises(ConfigError, match=again):
        config.parse(name, value.format(64).split(), first=False)
    config.parse(name, [""], first=False)
    assert config.value(NAMES[name]) == ()


def test_a_model_has_one_size_on_the_gpu(config: Config) -> None:
    config.parse("kv-gpu", ["m", "1mb"])
    with pytest.raises(ConfigError, match="one size"):
        config.parse("kv-gpu", ["m", "2mb"], first=False)
