"""Memory as a machine has it that has been up for a while: none is free, files that nobody needs fill it.

A fresh file's pages are then taken from that cache. Free memory would be worse in a virtual machine whose balloon
hands it back to the host at once: the first write to such a page waits for the host, which costs ten times the write
itself, and whoever happens to get such pages seems slow.
"""

import os
from pathlib import Path
from types import TracebackType
from typing import Self

_BLOCK = 8 << 20
_LEFT = 1 << 30  # bytes that stay free


class FullCache:
    """Keeps the page cache full by reading a file of holes, which takes no room on the disk.

    path: of that file, which is made, and removed at the end of the block.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._buffer = bytearray(_BLOCK)
        self._position = 0
        self._size = 2 * _memory("MemTotal") // _BLOCK * _BLOCK

    def __enter__(self) -> Self:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.truncate(self._file, self._size)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)
        self._path.unlink()

    def fill(self) -> None:
        """Fill what has become free since."""
        for _ in range(0, _memory("MemFree") - _LEFT, _BLOCK):
            os.preadv(self._file, [self._buffer], self._position)
            # What was read longest ago has made room for others, or will be the next to do so.
            self._position = (self._position + _BLOCK) % self._size


def _memory(what: str) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, amount = line.partition(":")
        if name == what:
            return int(amount.split()[0]) * 1024
    raise OSError(f"/proc/meminfo does not tell {what}")
