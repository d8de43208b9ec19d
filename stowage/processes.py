"""What every child process of the embedded stack is started with."""

import ctypes
import os
import random
import signal
import socket
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LOWEST_PORT = 15000
_libc = ctypes.CDLL(None, use_errno=True)


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
