"""Function libraries: loaded as a whole, replaced as a whole, and saved with the data."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field

from zeekdb.errors import CommandError
from zeekdb.hot.lua import Interpreter, ScriptError
from zeekdb.hot.rdb import DamagedValue, decode_string, encode_string
from zeekdb.scripting.shebang import FLAGS, library_header

NAME = re.compile(r"[A-Za-z0-9_]+")
SOURCE_NAME = b"@user_function"
RECORD, OLD_RECORD = 0xF5, 0xF6  # of a library in an RDB file; the second was a release candidate's


@dataclass(slots=True)
class Function:
    """One function of a library."""

    name: bytes
    library: Library
    reference: int  # the interpreter's
    flags: int
    description: bytes | None


@dataclass(slots=True)
class Library:
    """A library as it was loaded."""

    name: str
    engine: str
    code: bytes
    functions: dict[bytes, Function] = field(default_factory=dict)  # by lower-case name


class Libraries:
    """All libraries, and their functions by lower-case name."""

    def __init__(self, interpreter: Interpreter) -> None:
        self.interpreter = interpreter
        interpreter.on_register = self._register
        self.libraries: dict[str, Library] = {}
        self.functions: dict[bytes, Function] = {}
        self._loading: Library | None = None

    # ------------------------------------------------------------ loading

    def _register(self, name: bytes, reference: int, flags: list[bytes], description: bytes | None) -> None:
        library = self._loading
        assert library is not None
        text = name.decode("utf-8", "surrogateescape")
        if not NAME.fullmatch(text):
            raise CommandError(
                "ERR Library names can only contain letters, numbers, or underscores(_) and must be at least one "
                "character long"
            )
        if name.lower() in library.functions:
            raise CommandError("ERR Function already exists in the library")
        known = 0
        for flag in flags:
            word = flag.decode("utf-8", "surrogateescape")
            if word not in FLAGS:
                raise CommandError("ERR unknown flag given")
            known |= FLAGS[word]
        library.functions[name.lower()] = Function(name, library, reference, known, description)

    def compile(self, code: bytes, taken: Collection[str] = ()) -> Library:
        """A library that is not yet among the others, and has none of the `taken` names. CommandError."""
        engine, name, body = library_header(code)
        if engine.lower() != "lua":
            raise CommandError(f"ERR Engine '{engine}' not found")
        if not NAME.fullmatch(name):
            raise CommandError(
                "ERR Library names can only contain letters, numbers, or underscores(_) and must be at least one "
                "character long"
            )
        if name in taken:
            raise CommandError(f"ERR Library '{name}' already exists")
        library = self._loading = Library(name, engine.upper(), code)
        try:
            chunk = self.interpreter.compile(body, SOURCE_NAME)
            try:
                self.interpreter.load(chunk)
            finally:
                self.interpreter.release(chunk)
            if not library.functions:
                raise CommandError("ERR No functions registered")
        except ScriptError as error:
            self._release(library)
            message = error.message
            if message.startswith("ERR "):
                raise CommandError(f"ERR Error registering functions: {message}") from None
            raise CommandError(f"ERR Error compiling function: {message}") from None
        except CommandError:
            self._release(library)
            raise
        finally:
            self._loading = None
        return library

    def load(self, code: bytes, replace: bool) -> str:
        """FUNCTION LOAD: the library's name. CommandError, and everything is as before."""
        library = self.compile(code, () if replace else self.libraries)
        try:
            self._check(library, self.libraries, replace)
        except CommandError:
            self._release(library)
            raise
        self._put(library)
        return library.name

    @staticmethod
    def _check(library: Library, others: dict[str, Library], replace: bool, quote: str = "'") -> None:
        if library.name in others and not replace:
            raise CommandError(f"ERR Library {quote}{library.name}{quote} already exists")
        for other in others.values():
            for name in library.functions.keys() & other.functions.keys():
                if other.name != library.name:
                    shown = library.functions[name].name.decode("utf-8", "surrogateescape")
                    raise CommandError(f"ERR Function {shown} already exists")

    def _put(self, library: Library) -> None:
        self.drop(library.name)
        self.libraries[library.name] = library
        self.functions |= library.functions

    def _release(self, library: Library) -> None:
        for function in library.functions.values():
            self.interpreter.release(function.reference)

    def drop(self, name: str) -> bool:
        """FUNCTION DELETE; False when there is none."""
        library = self.libraries.pop(name, None)
        if library is None:
            return False
        for function in library.functions:
            del self.functions[function]
        self._release(library)
        return True

    def flush(self) -> None:
        """FUNCTION FLUSH."""
        for name in list(self.libraries):
            self.drop(name)
        self.interpreter.collect()

    # ------------------------------------------------------------ as bytes

    def records(self) -> bytes:
        """Every library as an RDB file holds it."""
        return b"".join(
            bytes([RECORD]) + encode_string(library.code, compress=False) for library in self.libraries.values()
        )

    def restore(self, records: bytes, policy: bytes) -> None:
        """FUNCTION RESTORE, of what `records` made: APPEND (nothing of it may be there already), REPLACE or FLUSH.

        All or nothing. CommandError.
        """
        fresh: dict[str, Library] = {}
        try:
            for code in self._codes(records):
                library = self.compile(code)
                self._check(library, fresh, replace=False, quote="")
                fresh[library.name] = library
            if policy != b"FLUSH":
                kept = {name: each for name, each in self.libraries.items() if name not in fresh}
                for library in fresh.values():
                    self._check(library, self.libraries if policy == b"APPEND" else kept, replace=False, quote="")
        except CommandError:
            for library in fresh.values():
                self._release(library)
            raise
        if policy == b"FLUSH":
            self.flush()
        for library in fresh.values():
            self._put(library)

    @staticmethod
    def _codes(data: bytes) -> list[bytes]:
        codes, at = [], 0
        try:
            while at < len(data):
                if data[at] == OLD_RECORD:
                    raise CommandError("ERR Pre-release function format not supported.")
                if data[at] != RECORD:
                    raise CommandError("ERR given type is not a function")
                code, at = decode_string(data, at + 1)
                codes.append(code)
        except DamagedValue:
            raise CommandError("ERR Failed loading library data") from None
        return codes
