"""Verifiers that misbehave, importable by worker processes."""

import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from proxy_client.wire import Finding
from storage_proxy.storages.base import PlannedFile
from storage_proxy.verifiers.base import (
    FileResult,
    FileVerifier,
    SandboxedVerifier,
    StagedFile,
    TreeResult,
    TreeVerifier,
)
from storage_proxy.verifiers.policy import Policy


def finding(file: str, severity: str = "block", message: str = "found") -> Finding:
    return Finding(file=file, rule="rule", category="code", severity=severity, message=message)


class Reader(SandboxedVerifier):
    """Tells what it was given."""

    name, version = "reader", "1"

    def __init__(self, word: str = "none") -> None:
        self.arguments = {"word": word}
        self._word = word

    def examine(self, path: str, stream: BinaryIO, size: int, policy: Policy) -> FileResult:
        content = stream.read().decode()
        return FileResult([finding(path, "note", f"{self._word} {size} {content} {policy.limits.depth}")])


class Prober(SandboxedVerifier):
    """Tries what a worker process must not do; finds what it could."""

    name, version = "prober", "1"

    def __init__(self, folder: str = "") -> None:
        self.arguments = {"folder": folder}
        self._folder = Path(folder)

    def examine(self, path: str, stream: BinaryIO, size: int, policy: Policy) -> FileResult:  # noqa: ARG002
        attempts: dict[str, Callable[[], Any]] = {
            "socket": socket.socket,
            "write": lambda: (self._folder / "written").write_text("x"),
            "append": lambda: (self._folder / "there").write_text("x"),
            "remove": (self._folder / "there").unlink,
            "rename": lambda: (self._folder / "there").rename(self._folder / "elsewhere"),
            "program": lambda: os.posix_spawn("/bin/true", ["true"], {}),
            "fork": os.fork,
            "kill": lambda: os.kill(os.getppid(), 0),
            "memory": lambda: bytearray(8 << 30),
            "secret": lambda: os.environ["STOWAGE_SECRET_OF_THIS_TEST"],
        }
        done = []
        for name, attempt in attempts.items():
            try:
                attempt()
            except (OSError, MemoryError, KeyError):
                continue
            done.append(name)
        return FileResult([finding(path, message=name) for name in done])


class Dying(SandboxedVerifier):
    name, version = "dying", "1"

    def examine(self, path: str, stream: BinaryIO, size: int, policy: Policy) -> FileResult:  # noqa: ARG002
        os._exit(0)


class Hanging(SandboxedVerifier):
    name, version = "hanging", "1"

    def examine(self, path: str, stream: BinaryIO, size: int, policy: Policy) -> FileResult:  # noqa: ARG002
        time.sleep(600)
        return FileResult()


class Obeying(SandboxedVerifier):
    """Does what the file says: ends its process, never ends, or says more than a socket holds."""

    name, version = "obeying", "1"

    def examine(self, path: str, stream: BinaryIO, size: int, policy: Policy) -> FileResult:  # noqa: ARG002
        match stream.read():
            case b"die":
                os._exit(0)
            case b"hang":
                time.sleep(600)
            case b"talk":
                return FileResult([finding(path, "note", "x" * 4_000_000)])
        return FileResult()


class Greedy(SandboxedVerifier):
    name, version = "greedy", "1"

    def examine(self, path: str, stream: BinaryIO, size: int, policy: Policy) -> FileResult:  # noqa: ARG002
        return FileResult([finding(path, message=str(len(bytearray(8 << 30))))])


class Blind(SandboxedVerifier):
    """Covers nothing, and says nothing of it."""

    name, version = "blind", "1"

    def examine(self, path: str, stream: BinaryIO, size: int, policy: Policy) -> FileResult:  # noqa: ARG002
        return FileResult(covered=False)


class Idle(TreeVerifier):
    """Sees no files."""

    name, version = "idle", "1"

    async def examine_tree(
        self,
        files: Sequence[StagedFile],  # noqa: ARG002
        planned: Sequence[PlannedFile],  # noqa: ARG002
        policy: Policy,  # noqa: ARG002
    ) -> TreeResult:
        return TreeResult()


class Asking(FileVerifier):
    """Answers what it was made with, or raises it."""

    name, version = "asking", "1"

    def __init__(self, answer: FileResult | Exception = FileResult()) -> None:  # noqa: B008 -- frozen
        self._answer = answer

    async def examine_file(self, file: StagedFile, policy: Policy) -> FileResult:  # noqa: ARG002
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer
