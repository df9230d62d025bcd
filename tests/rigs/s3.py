"""moto's S3 server: a process that speaks S3 over HTTP and keeps everything in memory."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import itertools
import sys
from collections.abc import Iterator

import pytest

from tests.rigs.process import STARTS_MAX, Process
from tests.support import free_port

ACCESS_KEY, SECRET_KEY, REGION = "test-access", "test/secret+key", "us-east-1"
# moto wants to see a signature, and does not look at it.
SIGNED = {
    "Authorization": f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/20260101/{REGION}/s3/aws4_request, "
    "SignedHeaders=host, Signature=0"
}


class S3:
    """One server; any key is let in."""

    def __init__(self) -> None:
        if importlib.util.find_spec("moto") is None or importlib.util.find_spec("flask") is None:
            pytest.skip("moto is not installed (pip install 'moto[s3,server]', in the extra dev)")
        self.process = Process("s3")
        self._numbers = itertools.count(1)
        self.port = 0
        for attempt in range(STARTS_MAX):
            self.port = free_port()
            try:
                self.start()
                return
            except RuntimeError:
                if attempt == STARTS_MAX - 1:
                    self.stop()
                    raise

    def start(self) -> None:
        """Begin (again), where it was; empty."""
        words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.process.start(words, self.answers)

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """(status, body) of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, SIGNED)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def answers(self) -> bool:
        """Whether it serves."""
        try:
            return self.ask("GET", "/moto-api/data.json")[0] == 200
        except OSError:
            return False

    def reset(self) -> None:
        """Forget all buckets."""
        assert self.ask("POST", "/moto-api/reset")[0] == 200

    def bucket(self) -> str:
        """The name of a new one."""
        name = f"zeekdb-test-{next(self._numbers)}"
        status, said = self.ask("PUT", f"/{name}")
        assert status == 200, said
        return name

    @property
    def endpoint(self) -> str:
        """As S3 clients take it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> tuple[str, int]:
        """For a proxy."""
        return "127.0.0.1", self.port

    @property
    def environment(self) -> dict[str, str]:
        """What a process that uses it finds its keys in."""
        return {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": REGION}

    def stop(self) -> None:
        """The end."""
        self.process.stop()


@contextlib.contextmanager
def s3() -> Iterator[S3]:
    """A server of a test's own."""
    server = S3()
    try:
        yield server
    finally:
        server.stop()
