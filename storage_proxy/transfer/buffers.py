"""The buffers that bytes pass through between a socket and a file: as many as there are, whatever the size of a model."""

import mmap
import threading
from collections.abc import Callable

from storage_proxy.transfer.line import Line

SIZE = 512 << 10  # bytes
_LOOK = 0.5  # seconds after which a waiting thread looks whether its line was cut


class Buffers:
    """At most `most` buffers of `SIZE` bytes for one worker. All threads share it.

    With `aligned` each begins at a page of memory, as writing past the page cache wants it (see `StagedWriter.write`).
    """

    def __init__(self, most: int, *, aligned: bool = True) -> None:
        self._aligned = aligned
        self._lock = threading.Condition()
        self._most = most
        self._made = 0
        self._idle: list[memoryview] = []

    @property
    def taken(self) -> int:
        """How many are somebody's now."""
        with self._lock:
            return self._made - len(self._idle)

    def take(self, line: Line) -> memoryview:
        """Return a buffer with anything in it; waits for one. Raises `Cut`."""
        with self._lock:
            while True:
                line.check()
                if self._idle:
                    return self._idle.pop()
                if self._made < self._most:
                    self._made += 1
                    return self._make()
                self._lock.wait(_LOOK)

    def _make(self) -> memoryview:
        if self._aligned:
            return memoryview(mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        return memoryview(bytearray(SIZE + 1))[
            1:
        ]  # memory from `malloc` begins at an even address, this does not

    def give_back(self, buffer: memoryview) -> None:
        """Let somebody else have it."""
        with self._lock:
            self._idle.append(buffer)
            self._lock.notify()

    def returning(self, buffer: memoryview, times: int = 1) -> Callable[[], None]:
        """Return a function whose `times`-th call gives the buffer back."""
        left = times
        lock = threading.Lock()

        def release() -> None:
            nonlocal left
            with lock:
                left -= 1
                last = left == 0
            if last:
                self.give_back(buffer)

        return release
