"""Remote tiers that fail on request, and a load that notices whatever a client must not notice.

A `Remote` is one engine behind a proxy, with the directives that make a server use it, and its faults: those of the
network by the proxy (tests/rigs/proxy.py), those of the engine (wrong password, full) by the engine itself where it can
be told, otherwise by the proxy in its name.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.kv import Kv
from tests.rigs.postgres import Postgres
from tests.rigs.proxy import Proxy
from tests.rigs.redis import Redis
from tests.rigs.s3 import ACCESS_KEY, S3, SECRET_KEY
from tests.support import Server, wait_for

SECRET = "s3cr3t-of-the-tests"
TIMEOUT_MS = 500  # of every remote tier here; `slow` takes four times as long each way
KEYS = 48  # of each connection
BLOCK_BYTES_MAX = 96 << 10
NETWORK = ("dead", "hang", "slow", "cut", "reset")
ENGINE = ("auth", "full")


class Remote:
    """An engine behind a proxy. `name` is the tier's in KV.TIERS."""

    name = ""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy

    def directives(self) -> list[str]:
        """For the server."""
        raise NotImplementedError

    def blocks(self) -> int:
        """How many blocks (or parts of such) the engine has, asked past the proxy."""
        raise NotImplementedError

    def break_(self, fault: str) -> None:
        """From now on."""
        if fault == "dead":
            self.proxy.dead()
        elif fault == "hang":
            self.proxy.hang()
        elif fault == "slow":
            self.proxy.slow(2.0)
        elif fault == "cut":
            self.proxy.cut(3)
        elif fault == "reset":  # whoever talks is cut off again and again
            self.proxy.cut(0)
        elif fault == "auth":
            self.refuse()
        elif fault == "full":
            self.fill()
        else:
            raise ValueError(fault)

    def refuse(self) -> None:
        """Nobody is let in, whoever is in is thrown out."""
        raise NotImplementedError

    def fill(self) -> None:
        """No room for anything new; what is there can be read."""
        raise NotImplementedError

    def heal(self) -> None:
        """All is well again."""
        self.proxy.passing()


class WarmRemote(Remote):
    """redis-server with a password."""

    name = "warm"

    def __init__(self, proxy: Proxy, server: Redis) -> None:
        super().__init__(proxy)
        self.server = server

    def directives(self) -> list[str]:
        url = f"redis://:{SECRET}@127.0.0.1:{self.proxy.port}/0"
        return ["--kv-warm-url", url, "--kv-warm-write", "store", "--kv-warm-timeout", str(TIMEOUT_MS)]

    def blocks(self) -> int:
        return int(self.server("DBSIZE"))

    def refuse(self) -> None:
        assert self.server("CONFIG", "SET", "requirepass", "another") == "OK"
        self.server.password = "another"
        self.proxy.reset_connections()

    def fill(self) -> None:
        assert self.server("CONFIG", "SET", "maxmemory", "1mb") == "OK"

    def heal(self) -> None:
        assert self.server("CONFIG", "SET", "maxmemory", "0") == "OK"
        assert self.server("CONFIG", "SET", "requirepass", SECRET) == "OK"
        self.server.password = SECRET
        super().heal()


# A full disk, as PostgreSQL reports it, on every table that the server has made.
DISK_FULL = """
CREATE OR REPLACE FUNCTION public.disk_full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';
END $$;
DO $$ DECLARE t record; BEGIN
    FOR t IN SELECT c.oid::regclass AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
                   AND n.nspname NOT IN ('pg_catalog', 'information_schema')
    LOOP
        EXECUTE format('CREATE OR REPLACE TRIGGER a_disk_full BEFORE INSERT ON %s FOR EACH STATEMENT '
                       'EXECUTE FUNCTION public.disk_full()', t.name);
    END LOOP;
END $$;
"""
DISK_FREE = "DROP FUNCTION IF EXISTS public.disk_full CASCADE;"


class PostgresRemote(Remote):
    """A role with a password of its own, which owns a database."""

    name = "postgres"

    def __init__(self, proxy: Proxy, server: Postgres, database: str) -> None:
        super().__init__(proxy)
        self.server, self.database = server, database
        self.role = f"writer_{database}"
        server.sql(f"CREATE ROLE {self.role} LOGIN SUPERUSER PASSWORD '{SECRET}'")

    def directives(self) -> list[str]:
        url = f"postgresql://{self.role}:{SECRET}@127.0.0.1:{self.proxy.port}/{self.database}"
        return ["--kv-postgres-url", url, "--kv-postgres-write", "store", "--kv-postgres-timeout", str(TIMEOUT_MS)]

    def blocks(self) -> int:
        return int(self.server.sql("SELECT count(*) FROM zeekdb.kv_cache_blobs", self.database)[0][0])

    def refuse(self) -> None:
        self.server.sql(f"ALTER ROLE {self.role} PASSWORD 'another'")
        self.proxy.reset_connections()

    def fill(self) -> None:
        self.server.sql(DISK_FULL, self.database)

    def heal(self) -> None:
        self.server.sql(f"ALTER ROLE {self.role} PASSWORD '{SECRET}'")
        self.server.sql(DISK_FREE, self.database)
        super().heal()


def refusal(status: str, code: str) -> bytes:
    """An answer of S3's."""
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    return f"{head}\r\n{body}".encode()


class ObjectsRemote(Remote):
    """moto's S3 server, which lets everybody in and is never full: the proxy says no in its place."""

    name = "objects"

    def __init__(self, proxy: Proxy, server: S3, bucket: str) -> None:
        super().__init__(proxy)
        self.server, self.bucket = server, bucket

    def directives(self) -> list[str]:
        keys = f"access_key_id={ACCESS_KEY}&secret_access_key={SECRET_KEY.replace('/', '%2F').replace('+', '%2B')}"
        url = f"s3://{self.bucket}/prefix?endpoint=http://127.0.0.1:{self.proxy.port}&region=us-east-1&{keys}"
        return ["--kv-objects-url", url, "--kv-objects-write", "store", "--kv-objects-timeout", str(TIMEOUT_MS),
                "--kv-objects-min", "0"]  # fmt: skip

    def blocks(self) -> int:
        return self.server.ask("GET", f"/{self.bucket}?list-type=2")[1].count(b"<Key>")

    def refuse(self) -> None:
        self.proxy.answer(refusal("403 Forbidden", "AccessDenied"), closes=True)

    def fill(self) -> None:
        self.proxy.answer(refusal("507 Insufficient Storage", "QuotaExceeded"), closes=True)


# ---- the load ------------------------------------------------------------------------------------------------------


def content(name: str, version: int) -> bytes:
    """What is stored under a key for the n-th time."""
    dice = random.Random(f"{name}:{version}")
    return dice.randbytes(dice.randint(1, BLOCK_BYTES_MAX))


class Client(threading.Thread):
    """One connection with keys of its own. It knows what must be there, and `error` says what was otherwise."""

    def __init__(self, server: Server, name: str, seed: int) -> None:
        super().__init__(daemon=True, name=name)
        self.server = server
        self.dice = random.Random(seed)
        self.versions: Counter[str] = Counter()
        self.there: dict[str, int] = {}  # key: version that was acknowledged and not deleted
        self.names = [f"{name}:{number}" for number in range(KEYS)]
        self.done: Counter[str] = Counter()
        self.error = ""
        self.stopping = threading.Event()

    def run(self) -> None:
        try:
            with Kv(self.server) as kv:
                while not self.stopping.is_set():
                    names = self.dice.sample(self.names, 4)
                    self.dice.choice((self.store, self.read, self.look, self.delete, self.store))(kv, names)
        except (OSError, EOFError, AssertionError) as error:
            self.error = f"{self.name}: {type(error).__name__}: {error}"

    def store(self, kv: Kv, names: list[str]) -> None:
        fresh = [name for name in names if name not in self.there]
        if not fresh:
            return
        self.versions.update(fresh)
        said = kv.store({name: content(name, self.versions[name]) for name in fresh})
        for name, reply in zip(fresh, said, strict=True):
            assert reply in (1, -1), f"stored {name}: {reply}"
            if reply == 1:
                self.there[name] = self.versions[name]
        self.done["stored"] += said.count(1)
        self.done["no room"] += said.count(-1)

    def read(self, kv: Kv, names: list[str]) -> None:
        for name, data in zip(names, kv.get(names), strict=True):
            self.check(name, data)

    def check(self, name: str, data: bytes | None) -> None:
        """It is what was stored last, or nothing if that was deleted."""
        version = self.there.get(name)
        if version is None:
            assert data is None, f"{name} was deleted, and is there again"
        else:
            assert data is not None, f"{name} was acknowledged, and is gone"
            assert data == content(name, version), f"{name}: other bytes than were stored"
            self.done["read"] += 1

    def look(self, kv: Kv, names: list[str]) -> None:
        for name, tier in zip(names, kv.where(names), strict=True):
            assert (tier != 0) == (name in self.there), f"{name}: found in tier {tier}"
        self.done["looked"] += 1

    def delete(self, kv: Kv, names: list[str]) -> None:
        gone = [name for name in names if name in self.there][:1]
        if gone:
            assert kv.of_keys("KV.DEL", gone) == 1
            del self.there[gone[0]]
            self.done["deleted"] += 1

    def check_all(self) -> None:
        """Everything that was acknowledged is there, whatever tier it has gone to."""
        with Kv(self.server) as kv:
            for at in range(0, len(self.names), 8):
                self.read(kv, self.names[at : at + 8])


class Load:
    """Some clients at work."""

    def __init__(self, server: Server, clients: int = 2) -> None:
        self.clients = [Client(server, f"c{seed}", seed) for seed in range(clients)]

    def __enter__(self) -> Load:
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """They finish what they are at."""
        for client in self.clients:
            client.stopping.set()
        for client in self.clients:
            client.join(60)
            assert not client.is_alive(), f"{client.name} still waits for a reply"

    def done(self, what: str) -> int:
        """By all of them."""
        return sum(client.done[what] for client in self.clients)

    def goes_on(self, count: int = 60) -> None:
        """Until each of them has stored and read so many blocks more; none has seen an error."""
        before = [(client.done["stored"], client.done["read"]) for client in self.clients]

        def further() -> bool:
            self.check()
            return all(
                client.done["stored"] >= stored + count and client.done["read"] >= read + count
                for client, (stored, read) in zip(self.clients, before, strict=True)
            )

        wait_for(further, 60, "clients store and read")

    def check(self) -> None:
        """None has seen an error."""
        errors = [client.error for client in self.clients if client.error]
        assert not errors, errors

    def check_all(self) -> None:
        """Nor is anything lost."""
        self.check()
        for client in self.clients:
            client.check_all()


def watch(
    kv: Kv, name: str, condition: Callable[[dict[str, Any]], bool], deadline_s: float, what: str
) -> dict[str, Any]:  # fmt: skip
    """What KV.TIERS says of the tier, once the condition holds."""
    found: dict[str, Any] = {}

    def holds() -> bool:
        nonlocal found
        found = kv.tier(name)
        return condition(found)

    try:
        wait_for(holds, deadline_s, what)
    except AssertionError as error:
        raise AssertionError(f"{error}; KV.TIERS says {found}") from None
    return found
