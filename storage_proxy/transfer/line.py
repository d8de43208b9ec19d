"""What blocking network work hangs on: cut it, and whoever reads, connects or waits stops within moments."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

T = TypeVar("T")

# Its own pool: a registry that does not answer must not take the threads of the file systems.
_calls = ThreadPoolExecutor(max_workers=64, thread_name_prefix="calls")


class Cut(Exception):
    """Nobody wants the outcome any more."""


class Line:
    """Cutting it is final, and may be done by any thread, at any time, more than once."""

    def __init__(self) -> None:
        self._cut = threading.Event()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()

    @property
    def event(self) -> threading.Event:
        """Return what is set once the line is cut."""
        return self._cut

    @property
    def is_cut(self) -> bool:
        """Whether everything on this line is to end."""
        return self._cut.is_set()

    def check(self) -> None:
        """Raise `Cut` if everything is to end."""
        if self._cut.is_set():
            raise Cut

    def cut(self) -> None:
        """End everything that hangs on this line."""
        with self._lock:
            self._cut.set()
            for held in self._sockets:
                with suppress(OSError):
                    held.shutdown(socket.SHUT_RDWR)

    def wait(self, seconds: float) -> None:
        """Sleep. Raises `Cut`."""
        if self._cut.wait(seconds):
            raise Cut

    @contextmanager
    def holding(self, held: socket.socket) -> Iterator[None]:
        """Shut the socket down if the line is cut meanwhile. Raises `Cut`."""
        with self._lock:
            if self._cut.is_set():
                raise Cut
            self._sockets.add(held)
        try:
            yield
        finally:
            with self._lock:
                self._sockets.discard(held)


async def on_line(work: Callable[[Line], T], *, within: float | None = None) -> T:
    """Run blocking network work in a thread. A cancelled caller cuts the line and waits for the work to end.

    Raises TimeoutError after `within` seconds.
    """
    line = Line()
    future = asyncio.get_running_loop().run_in_executor(_calls, work, line)
    try:
        async with asyncio.timeout(within):
            return await asyncio.shield(future)
    except (asyncio.CancelledError, TimeoutError):
        line.cut()
        while not future.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        future.exception()  # looked at, so that asyncio does not complain of an error that nobody saw
        raise
