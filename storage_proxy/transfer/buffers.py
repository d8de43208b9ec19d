"""The buffers that bytes pass through between a socket and a file: as many as there are, whatever the size of a model."""

import threading
from collections.abc import Callable

from storage_proxy.transfer.line import Line

SIZE = 512 << 10  # bytes
_LOOK = 0.5  # seconds after which a waiting thread looks whether its line was cut


class Buffers:
    """At most `most` buffers of `SIZE` bytes for one worker. All threads share it."""

    def __init__(self, most: int) -> None:
        self._lock = threading.Condition()
        self._left = most
        self._idle: list[memoryview] = []

    def take(self, line: Line) -> memoryview:
        """Return a buffer with anything in it; waits for one. Raises `Cut`."""
        with self._lock:
            while True:
                line.check()
                if self._idle:
                    return self._idle.pop()
                if self._left:
                    self._left -= 1
                    return memoryview(bytearray(SIZE))
                self._lock.wait(_LOOK)

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
