"""Writing past the page cache: bytes in aligned memory go straight to the disk.

On a local disk this costs a twentieth of the processor time of a copy into the page cache and its write-back, and a stream is on the disk sooner
(docs/decisions/0011). It is done where that was measured: ext4 and XFS.
"""

import ctypes
import errno
import os
from collections.abc import Sequence

from storage_proxy.volumes import fsio

ALIGN = 4096  # bytes: what every disk and both file systems are content with
_KINDS = {0xEF53, 0x58465342}  # f_type of ext4 and XFS (linux/magic.h)
_REFUSED = {errno.EINVAL, errno.EOPNOTSUPP}

_libc = ctypes.CDLL(None, use_errno=True)


class _StatFS(ctypes.Structure):
    """`struct statfs`: only its first field is looked at."""

    _fields_ = (("f_type", ctypes.c_long), ("rest", ctypes.c_char * 512))


def is_aligned(offset: int, data: memoryview) -> bool:
    """Whether `data` may go to `offset` this way; its last bytes need not fill a block."""
    if offset % ALIGN or len(data) < ALIGN or data.readonly:
        return False
    return ctypes.addressof(ctypes.c_char.from_buffer(data)) % ALIGN == 0


class DirectFile:
    """A second descriptor of an open file, to write by; None where there is no such way."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def of(cls, fd: int) -> "DirectFile | None":
        """Open one for a file that is open for writing."""
        found = _StatFS()
        if (
            not hasattr(os, "O_DIRECT")
            or _libc.fstatfs(fd, ctypes.byref(found))
            or found.f_type not in _KINDS
        ):
            return None
        try:
            direct = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
        except OSError:  # no /proc, or a file system that changed its mind: the other way is always there
            return None
        # What is read ahead would fill pages of what is about to be written.
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        return cls(direct)

    def write(self, offset: int, views: Sequence[memoryview]) -> bool:
        """Write aligned views of whole blocks one after the other; False where the file system refuses the way.

        Then some may be written. Raises OSError for everything else.
        """
        left = list(views)
        while left:
            try:
                count = fsio.write_vector(self._fd, left, offset)
            except OSError as exc:
                if exc.errno in _REFUSED:
                    return False
                raise
            offset += count
            while left and count >= len(left[0]):
                count -= len(left.pop(0))
            if count:
                left[0] = left[0][count:]
        return True

    def close(self) -> None:
        """Let go of the descriptor."""
        os.close(self._fd)
