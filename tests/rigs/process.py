"""A server as a child process: started, awaited, ended, and its folder removed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.support import DEADLINE_S, wait_for

STARTS_MAX = 3  # a free port may be somebody else's by the time that the server binds it
START_DEADLINE_S = 30.0


def program(name: str, package: str, *folders: str) -> str:
    """The path of a program, looked for in PATH and in the folders; skips the test where there is none."""
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(folders))
    if not found:
        pytest.skip(f"no {name} on this machine (Debian package: {package})")
    return found


def leash() -> list[str]:
    """What to put before a command so that it ends when the tests are killed, where util-linux has it."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []


def listens(address: tuple[str, int] | str) -> bool:
    """Whether somebody accepts connections there."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        with contextlib.suppress(OSError):
            probe.connect(address)
            return True
    return False


class Process:
    """A child in a session of its own, with a folder and a log."""

    def __init__(self, name: str, *, owner: int = -1) -> None:
        """`owner`: the user's id that the folder belongs to and that the process runs as; -1: ours."""
        self.name = name
        self.owner = owner
        self.folder = Path(tempfile.mkdtemp(prefix=f"zeekdb-{name}-"))
        if owner >= 0:
            os.chown(self.folder, owner, -1)
        self.log_file = self.folder / "log"
        self.child: subprocess.Popen[bytes] | None = None

    def start(
        self, command: Sequence[str], answers: Callable[[], bool], environment: dict[str, str] | None = None
    ) -> None:
        """Run the command in the folder, and wait until `answers` says True. RuntimeError when it ends instead."""
        user = self.owner if self.owner >= 0 else None
        with self.log_file.open("ab") as log:
            self.child = subprocess.Popen(
                [*leash(), *command],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                user=user,
                extra_groups=[] if user is not None else None,
                start_new_session=True,
            )

        def ready() -> bool:
            if self.child is not None and self.child.poll() is not None:
                raise RuntimeError(f"{self.name} ended with {self.child.returncode}:\n{self.log()}")
            return answers()

        try:
            wait_for(ready, START_DEADLINE_S, f"{self.name} answers")
        except BaseException:
            print(self.log())
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """The child's id."""
        assert self.child is not None
        return self.child.pid

    def log(self) -> str:
        """What it has written so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def signal(self, signum: int) -> None:
        """To the child and its process group (SIGSTOP and SIGCONT make a server hang and go on)."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signum)

    def kill(self, gently: int = 0, deadline_s: float = DEADLINE_S) -> None:
        """End it, by the signal `gently` at first where one is given; its folder stays. Harmless when repeated."""
        if self.child is None:
            return
        if gently and self.child.poll() is None:
            self.child.send_signal(gently)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(deadline_s)
        self.signal(signal.SIGKILL)
        self.child.wait(DEADLINE_S)

    def stop(self) -> None:
        """End it and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
