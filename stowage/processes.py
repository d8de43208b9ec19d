"""The processes of the embedded stack: how each is started, kept running and ended."""

import asyncio
import ctypes
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LOWEST_PORT = 15000
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0  # seconds before a part is started again
_STEADY = 10.0  # seconds after which a part counts as having started well
_libc = ctypes.CDLL(None, use_errno=True)


class CannotStart(Exception):
    """A part of the stack cannot be started; the message says why and what to do."""


def dies_with_parent(death_signal: signal.Signals) -> Callable[[], None]:
    """Make a `preexec_fn`: the kernel sends the child this signal once the thread that started it is gone.

    Start children from the main thread: prctl(2) ties the signal to the thread, not to the process.
    """
    parent = os.getpid()

    def set_death_signal() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:  # the parent ended between fork and prctl
            os.kill(os.getpid(), signal.SIGKILL)

    return set_death_signal


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Say whether a listener could bind this TCP port now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Choose a free TCP port of 127.0.0.1 for a service that will want it again after a restart.

    It lies below the kernel's range for outgoing connections: a client that knocks at a closed port of that range
    can be connected to itself, and then holds the port against the service that comes back.
    """
    try:
        highest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        highest = 32768
    for _ in range(100):
        if highest <= _LOWEST_PORT:
            break
        port = random.randrange(_LOWEST_PORT, highest)  # noqa: S311 -- a port is no secret
        if port_is_free(port):
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def address(host: str, port: int) -> str:
    """Write HOST:PORT, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def spawn(
    command: Sequence[str], *, log: Path, environment: Mapping[str, str], directory: Path
) -> subprocess.Popen[bytes]:
    """Start a child whose output is appended to a log; it is killed when this process ends.

    Call it from the main thread. The child has a session of its own: a terminal's Ctrl-C does not reach it.
    """
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 -- commands of our own
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=directory,
            start_new_session=True,
            preexec_fn=dies_with_parent(signal.SIGKILL),  # noqa: PLW1509 -- called from the main thread
        )


class Part:
    """One process of the stack, started again whenever it ends, until `end`.

    name: for people. start: starts it, called in the main thread. before: what a restart has to wait for, called in
    a thread. stop_signals: sent by `end` one after the other, each with the seconds to wait for its effect. changed:
    called after every start. ended: called with the pause in seconds before the next start, whenever it ended by itself.
    """

    def __init__(
        self,
        name: str,
        start: Callable[[], subprocess.Popen[bytes]],
        *,
        log: Path,
        changed: Callable[[], None],
        ended: Callable[["Part", float], None],
        before: Callable[[], None] | None = None,
        stop_signals: Sequence[tuple[signal.Signals, float]] = (
            (signal.SIGTERM, 10.0),
            (signal.SIGKILL, 10.0),
        ),
    ) -> None:
        self.name = name
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.failures = 0  # ends in a row, each soon after a start
        self.last_end = ""  # how it ended, for people
        self._start = start
        self._before = before
        self._stop_signals = stop_signals
        self._changed = changed
        self._ended = ended
        self._ending = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    def keep(self, threads: Executor) -> None:
        """Start it now, and again whenever it ends."""
        self._keeper = asyncio.create_task(self._keep(threads), name=self.name)

    def start_no_more(self) -> None:
        """Leave it as it is once it ends, without a word."""
        self._ending.set()

    async def end(self) -> None:
        """Stop it for good; returns when it is gone."""
        self._ending.set()
        if self._keeper is None:
            return
        for how, patience in self._stop_signals:
            if self.process is not None and self.process.poll() is None:
                self.process.send_signal(how)
            done, _ = await asyncio.wait([self._keeper], timeout=patience)
            if done:
                break

    def hasten(self) -> None:
        """Send the last of the stop signals now."""
        self._ending.set()
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(self._stop_signals[-1][0])

    async def _keep(self, threads: Executor) -> None:
        loop = asyncio.get_running_loop()
        pause, again = _FIRST_PAUSE, False
        while not self._ending.is_set():
            started = time.monotonic()
            try:
                if again and self._before is not None:
                    await loop.run_in_executor(threads, self._before)
                if self._ending.is_set():
                    return
                self.process = self._start()
                self._changed()
                how = _how_it_ended(await loop.run_in_executor(threads, self.process.wait))
            except (OSError, CannotStart) as exc:
                how = f"could not be started ({exc})"
            if self._ending.is_set():
                return
            if time.monotonic() - started > _STEADY:
                pause, self.failures = _FIRST_PAUSE, 0
            self.failures, self.last_end = self.failures + 1, how
            self._ended(self, pause)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause)
            pause, again = min(pause * 2, _LONGEST_PAUSE), True


def tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 16384))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"


def _how_it_ended(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
