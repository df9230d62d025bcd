"""Certificates for servers on this machine, made by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.rigs.process import program


class Certificates(NamedTuple):
    """Files in PEM."""

    authority: Path
    certificate: Path  # of localhost and 127.0.0.1, signed by the authority
    key: Path


def certificates(folder: Path) -> Certificates:
    """A new authority, and a certificate by it. The key is readable by its owner alone."""
    openssl = program("openssl", "openssl")
    authority, authority_key = folder / "ca.crt", folder / "ca.key"
    certificate, key, request = folder / "server.crt", folder / "server.key", folder / "server.csr"
    names = folder / "names"
    names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")

    def run(*words: str | Path) -> None:
        subprocess.run([openssl, *map(str, words)], check=True, capture_output=True)

    run("req", "-x509", *new_key, "-keyout", authority_key, "-out", authority, "-days", "2", "-subj", "/CN=tests")
    run("req", *new_key, "-keyout", key, "-out", request, "-subj", "/CN=localhost")
    run("x509", "-req", "-in", request, "-CA", authority, "-CAkey", authority_key, "-CAcreateserial",
        "-out", certificate, "-days", "2", "-extfile", names)  # fmt: skip
    key.chmod(0o600)
    return Certificates(authority, certificate, key)
