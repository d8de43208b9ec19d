"""Directories in memory, for what is written often and lost gladly."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

MEMORY = Path("/dev/shm")  # noqa: S108 -- a name of our own below it
ROOM = 2 << 30


@contextmanager
def quick_directory(otherwise: Path) -> Iterator[Path]:
    """Yield a directory in memory where that has room and keeps attributes of files, else the other one."""
    if not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < ROOM:
        yield otherwise
        return
    with TemporaryDirectory(dir=MEMORY, prefix="stowage-test-") as path:
        try:
            os.setxattr(path, "user.probe", b"x")
        except OSError:
            yield otherwise
        else:
            yield Path(path)
