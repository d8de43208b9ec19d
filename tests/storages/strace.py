"""Death and error at the N-th system call of a whole process, by `strace --inject`."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from proxy_client.errors import StorageError
from storage_proxy.volumes import threads

_CALLS = (
    *(
        "write",
        "pwrite64",
        "pwritev",
        "pwritev2",
        "ftruncate",
        "fallocate",
        "copy_file_range",
        "fsync",
        "fdatasync",
    ),
    *("rename", "renameat", "renameat2", "mkdir", "mkdirat", "linkat", "unlinkat", "fchmod"),
)
_FAILED = 3

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

Work = Callable[[], Coroutine[Any, Any, object]]


@dataclass(frozen=True)
class Outcome:
    """How a traced process ended; `error` is the code of a `StorageError`, `struck` says whether the call was made."""

    killed: bool
    error: str
    struck: bool
    story: str


def calls_of(work: Work, log: Path) -> list[tuple[str, int]]:
    """Return every change of the file system that a process makes: (name, N) is a thread's N-th call of that name."""
    outcome = _traced(work, log, [])
    assert not outcome.killed
    assert not outcome.error
    counts = Counter(re.findall(r"^(\d+) +(\w+)\(", log.read_text(), re.MULTILINE))
    most: dict[str, int] = {}
    for (_, name), count in counts.items():
        most[name] = max(count, most.get(name, 0))
    return [(name, number) for name in _CALLS for number in range(1, most.get(name, 0) + 1)]


def turn(of: int) -> int:
    """Choose another number below `of` every day, or what STOWAGE_TURN says."""
    chosen = int(os.environ.get("STOWAGE_TURN", datetime.now(UTC).toordinal())) % of
    print(f"STOWAGE_TURN={chosen}")  # noqa: T201 -- shown beside a failure, to have it again
    return chosen


def struck_at(call: tuple[str, int], strike: str, work: Work, log: Path) -> Outcome:
    """Run `work` in a child process that is struck at a call: `signal=KILL`, or `error=ENOSPC` and the like."""
    return _traced(work, log, [f"--inject={call[0]}:{strike}:when={call[1]}"])


def _traced(work: Work, log: Path, options: list[str]) -> Outcome:
    ready, go = os.pipe()
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        os.close(go)
        _run(work, ready, tell)
    os.close(ready)
    os.close(tell)
    command = ["strace", "-f", "-o", str(log), f"--trace={','.join(_CALLS)}", *options, "-p", str(child)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        attached = tracer.stderr.readline()
        os.close(go)
        with os.fdopen(told, "rb") as pipe:
            error = pipe.read().decode()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        tracer.stderr.read()
    if "attached" not in attached:
        pytest.skip(f"strace may not trace here: {attached}")
    story = log.read_text()
    killed = status == -signal.SIGKILL
    assert killed or status == (_FAILED if error else 0), (status, error, story[-3000:])
    return Outcome(killed, error, killed or "INJECTED" in story, story[-3000:])


def _run(work: Work, ready: int, tell: int) -> None:
    async def in_one_thread() -> None:
        # The parent's threads did not come along. One does all the work, since strace counts the calls of each.
        threads._pool, threads.background, threads.syncs = (ThreadPoolExecutor(1) for _ in range(3))
        asyncio.get_running_loop().set_default_executor(threads._pool)
        await work()

    status = 1
    try:
        os.read(ready, 1)
        try:
            asyncio.run(in_one_thread())
            status = 0
        except StorageError as error:
            status = _FAILED
            os.writev(tell, [error.code.encode()])  # a call that nothing strikes
        except BaseException as error:
            os.writev(tell, [repr(error).encode()])
            raise
    finally:
        os._exit(status)
