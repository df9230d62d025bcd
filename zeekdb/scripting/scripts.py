"""The script cache: EVAL's bodies by what they are, EVALSHA's by their SHA-1."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from zeekdb.errors import CommandError
from zeekdb.hot.lua import Interpreter, ScriptError
from zeekdb.scripting.shebang import script_flags

EVALUATED_MAX = 500  # scripts kept that nobody has loaded, only run; the oldest go first
FORGOTTEN_AT_ONCE = 50  # when they take too much memory
SOURCE_NAME = b"@user_script"


@dataclass(slots=True)
class Script:
    """A compiled script."""

    body: bytes
    sha: bytes  # 40 hex digits
    reference: int  # the interpreter's
    flags: int
    loaded: bool  # by SCRIPT LOAD: it stays


class Scripts:
    """All scripts of one interpreter."""

    def __init__(self, interpreter: Interpreter) -> None:
        self.interpreter = interpreter
        self.by_body: dict[bytes, Script] = {}
        self.by_sha: dict[bytes, Script] = {}
        self.evaluated: dict[bytes, None] = {}  # bodies, oldest first

    def __len__(self) -> int:
        return len(self.by_sha)

    def get(self, body: bytes, load: bool = False) -> Script:
        """The script with this body, compiled when it is new. CommandError."""
        script = self.by_body.get(body)
        if script is None:
            if self.interpreter.memory_used > self.interpreter.memory_limit // 2:
                self._make_room()
            script = self._compile(body)
            if not load:
                self.evaluated[body] = None
                if len(self.evaluated) > EVALUATED_MAX:
                    self._forget(next(iter(self.evaluated)))
        if load:
            script.loaded = True
            self.evaluated.pop(body, None)
        return script

    def find(self, sha: bytes) -> Script | None:
        """The script with this SHA-1, in whatever case it is written."""
        return self.by_sha.get(sha) or self.by_sha.get(sha.lower())

    def _compile(self, body: bytes) -> Script:
        flags, code = script_flags(body)
        try:
            reference = self.interpreter.compile(code, SOURCE_NAME)
        except ScriptError as error:
            raise CommandError(f"ERR Error compiling script (new function): {error.message}") from None
        sha = hashlib.sha1(body, usedforsecurity=False).hexdigest().encode()
        script = self.by_body[body] = self.by_sha[sha] = Script(body, sha, reference, flags, loaded=False)
        return script

    def _make_room(self) -> None:
        """Forgets scripts that were only run, the oldest first, until all take half of the memory at most."""
        self.interpreter.collect()
        while self.evaluated and self.interpreter.memory_used > self.interpreter.memory_limit // 2:
            for body in list(self.evaluated)[:FORGOTTEN_AT_ONCE]:
                self._forget(body)
            self.interpreter.collect()

    def _forget(self, body: bytes) -> None:
        script = self.by_body.pop(body)
        del self.by_sha[script.sha]
        self.evaluated.pop(body, None)
        self.interpreter.release(script.reference)

    def flush(self) -> None:
        """SCRIPT FLUSH."""
        for body in list(self.by_body):
            self._forget(body)
        self.interpreter.collect()

    @property
    def memory(self) -> int:
        """Bytes of bodies; the compiled forms are the interpreter's."""
        return sum(len(body) for body in self.by_body)
