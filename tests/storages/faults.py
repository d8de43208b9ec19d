"""Death and error at the N-th change of the file system."""

import asyncio
import errno
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from storage_proxy.volumes import fsio, threads

KILLED = 77
_CHANGES = {"copy_file_range", "fchmod", "fchown", "fdatasync", "fsync", "ftruncate", "link"} | {
    "mkdir",
    "pwrite",
    "pwritev",
    "rename",
    "rmdir",
    "unlink",
    "write",
}


class Faults:
    """Stands in for `os` inside `fsio`, and for `renameat2`: counts changes, and strikes before the N-th one.

    `for_good`: before every later one too.
    """

    def __init__(
        self, at: int, strike: Callable[[], None], *, renameat2: bool = True, for_good: bool = False
    ) -> None:
        self.count = 0
        self._at = at
        self._strike = strike
        self._for_good = for_good
        self._has_renameat2 = renameat2
        self._renameat2 = fsio._renameat2

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in _CHANGES:
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            self._step()
            return real(*args, **kwargs)

        return call

    def _step(self) -> None:
        self.count += 1
        if self.count == self._at or (self._for_good and self.count > self._at):
            self._strike()

    def renameat2(self, *args: Any) -> None:
        if not self._has_renameat2:
            raise OSError(errno.EINVAL, "this file system has no flags for renaming")
        self._step()
        self._renameat2(*args)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> "Faults":
        monkeypatch.setattr(fsio, "os", self)
        monkeypatch.setattr(fsio, "_renameat2", self.renameat2)
        return self


class Broken:
    """Stands in for `os` inside `fsio`: the named calls fail."""

    def __init__(self, number: int, *names: str) -> None:
        self._number = number
        self._names = names

    def __getattr__(self, name: str) -> Any:
        return self._fail if name in self._names else getattr(os, name)

    def _fail(self, *_: object, **__: object) -> None:
        raise OSError(self._number, "injected")


def die() -> None:
    os._exit(KILLED)


def fail() -> None:
    raise OSError(errno.EIO, "injected")


def in_child(work: Callable[[], Coroutine[Any, Any, object]]) -> int:
    """Run `work` in a child process; return its exit status, 0 if it came to its end."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        # The parent's threads did not come along.
        threads._pool, threads.background, threads.syncs = (ThreadPoolExecutor() for _ in range(3))
        asyncio.run(work())
        status = 0
    finally:
        os._exit(status)


def dying_at(number: int, work: Callable[[], Coroutine[Any, Any, object]], *, renameat2: bool = True) -> int:
    """Run `work` in a child process that dies before its N-th change."""

    async def run() -> None:
        with pytest.MonkeyPatch.context() as monkeypatch:
            Faults(number, die, renameat2=renameat2).install(monkeypatch)
            await work()

    return in_child(run)
