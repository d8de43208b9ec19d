"""Small file systems of our own, real ones; only for root, and where mounting is permitted."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def run(*command: str | Path) -> bool:
    """Run a command that may be refused here; whether it worked."""
    if shutil.which(command[0]) is None:
        return False
    return not subprocess.run(command, capture_output=True, check=False).returncode


@contextmanager
def mounted(at: Path, *what: str | Path) -> Iterator[Path]:
    """Mount for the length of a block; `what` are the arguments of `mount` before the place."""
    at.mkdir(parents=True, exist_ok=True)
    if not run("mount", *what, at):
        pytest.skip("mounting is not permitted here")
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", at], check=True)


def make_image(path: Path, size: int, *mkfs: str) -> None:
    """Make an image of a file system; `size` in bytes."""
    with path.open("wb") as image:
        image.truncate(size)
    if not run(*mkfs, path):
        pytest.skip(f"{mkfs[0]} is not here")
