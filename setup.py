"""Builds the hot room: every .pyx in zeekdb/hot is one extension with a typed .pyi door."""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

sanitize = os.environ.get("ZEEKDB_SANITIZE", "")  # "address,undefined" for make fuzz
flags = ["-O2", "-g1", "-fno-strict-aliasing", "-Wno-unused-function", "-Wno-unreachable-code"]
links: list[str] = []
if sanitize:
    flags += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-O1"]
    links += [f"-fsanitize={sanitize}"]

directives = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
    "cdivision": True,
    "embedsignature": False,
}
extensions = []
if not os.environ.get("ZEEKDB_LINK_ONLY"):  # make links the package into its venv and builds in place
    extensions = cythonize(
        [
            Extension(f"zeekdb.hot.{path.stem}", [str(path)], extra_compile_args=flags, extra_link_args=links)
            for path in sorted(Path("zeekdb/hot").glob("*.pyx"))
        ],
        compiler_directives=directives,
        nthreads=os.cpu_count() or 1,
    )
setup(ext_modules=extensions)
