"""Worker processes in which strangers' bytes are parsed: long-lived, limited, and expendable."""

import asyncio
import json
import os
import socket
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, Self

from proxy_client.errors import StowageError
from proxy_client.wire import Finding
from storage_proxy.concurrency import side_by_side
from storage_proxy.verifiers.base import FileResult, SandboxedVerifier, StagedFile
from storage_proxy.verifiers.policy import Policy
from storage_proxy.verifiers.worker import MOST_FILES, NOTHING_FOUND, PAUSE
from storage_proxy.volumes.threads import in_thread

MEMORY = 1536 << 20
"""Bytes of address space of one worker process: picklescan keeps some 15 for each byte of its largest file, 64 MiB."""
MOST_BYTES = 8 << 20
"""Bytes from which on a worker process is handed no further file at once: others may be idle."""
_LARGEST_ANSWER = 64 << 20
_LIFE = 20_000  # files, after which a worker process is replaced: whatever it has gathered goes
_START = 60  # seconds that a worker process may take until it is ready
_LENGTH = struct.Struct("!I")
_PIECE = 1 << 16


@dataclass(frozen=True)
class Answer:
    """What became of one verifier and one file: a result, or why there is none. `seconds` it took."""

    result: FileResult | None = None
    error: str | None = None
    seconds: float = 0.0


class _Died(Exception):
    """The worker process is gone, or answers what no worker answers."""


class _Worker:
    """One process. Answers come as they are made, but it rings only now and then: to be woken for each costs more than they do."""

    def __init__(
        self, process: asyncio.subprocess.Process, connection: socket.socket, answers: socket.socket
    ) -> None:
        self._process = process
        self._connection = connection
        self._answers = answers
        self._received = bytearray()
        self._overdue = False
        self.served = 0

    @classmethod
    async def start(cls, memory: int) -> "_Worker":
        with ExitStack() as theirs, ExitStack() as ours:
            pairs = [socket.socketpair() for _ in range(2)]
            for mine, other in pairs:
                ours.enter_context(mine).setblocking(False)  # noqa: FBT003 -- socket's signature
                theirs.enter_context(other)
            numbers = [other.fileno() for _, other in pairs]
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-B", "-P", "-m", "storage_proxy.verifiers.worker"),
                *map(str, [*numbers, memory, os.getpid()]),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                cwd="/",
                env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "LC_ALL": "C.UTF-8"},
                pass_fds=numbers,
            )
            ours.pop_all()
        worker = cls(process, *(mine for mine, _ in pairs))
        try:
            # A busy machine takes its time; no file is to be charged for it.
            async with asyncio.timeout(_START):
                ready = await asyncio.get_running_loop().sock_recv(worker._connection, 1)
        except TimeoutError:
            ready = b""
        except BaseException:
            await worker.end()
            raise
        if not ready:
            await worker.end()
            raise OSError("the worker process did not start")
        return worker

    async def ask(self, streams: Sequence[BinaryIO], request: Mapping[str, Any]) -> None:
        """Hand over the open files and what to do with them."""
        self.served += len(streams)
        body = json.dumps(request).encode()
        try:
            socket.send_fds(self._connection, [b"\0"], [stream.fileno() for stream in streams])
            await asyncio.get_running_loop().sock_sendall(self._connection, _LENGTH.pack(len(body)) + body)
        except OSError as exc:
            raise _Died from exc

    def answer(self) -> dict[str, Any] | None:
        """Return the next answer if it is here. Raises `_Died`."""
        while (body := self._cut()) is None:
            try:
                some = self._answers.recv(_PIECE)
            except BlockingIOError:
                return None
            except OSError as exc:
                raise _Died from exc
            if not some:
                raise _Died
            self._received += some
        if len(body) == NOTHING_FOUND.size and not body[0]:
            return {"findings": [], "covered": True, "reason": None, "seconds": NOTHING_FOUND.unpack(body)[0]}
        try:
            answer = json.loads(body)
        except ValueError as exc:
            raise _Died from exc
        if not isinstance(answer, dict):
            raise _Died
        return answer

    async def next_answer(self, seconds: float) -> dict[str, Any]:
        """Return the next answer. Raises `_Died`, and `TimeoutError` for one that took longer than so many seconds."""
        if (answer := self.answer()) is not None:
            return answer
        if not self._overdue:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds + PAUSE):
                    return await self._wait()
            # What came without a ring came within `PAUSE`: what is not here by now has had its seconds.
            self._overdue = True
            if (answer := self.answer()) is not None:
                return answer
        raise TimeoutError

    async def _wait(self) -> dict[str, Any]:
        loop, gone = asyncio.get_running_loop(), False
        while (answer := self.answer()) is None:
            if gone:
                raise _Died
            try:
                if self._received:
                    # Half an answer: the rest is being written.
                    self._received += await loop.sock_recv(self._answers, _PIECE)
                else:
                    gone = not await loop.sock_recv(self._connection, _PIECE)
            except OSError as exc:
                raise _Died from exc
        return answer

    def _cut(self) -> bytes | None:
        """Take one answer off what was received, if it is whole."""
        if len(self._received) < _LENGTH.size:
            return None
        end = _LENGTH.size + _LENGTH.unpack_from(self._received)[0]
        if end > _LARGEST_ANSWER:
            raise _Died
        if len(self._received) < end:
            return None
        body = bytes(self._received[_LENGTH.size : end])
        del self._received[:end]
        return body

    async def end(self) -> None:
        """End the process, whatever it is doing, and wait until it is gone."""
        self._connection.close()
        self._answers.close()
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


class Sandbox:
    """Runs `SandboxedVerifier`s in worker processes, which start when they are needed and serve one event loop.

    Each has `memory` bytes of address space, no network, no files to write and the CPU seconds of one file; see
    `storage_proxy.verifiers.confinement`. A context manager; `close` may be repeated.
    """

    def __init__(self, processes: int | None = None, memory: int = MEMORY) -> None:
        """Prepare for as many processes as there are processors, at most 4, if `processes` is None."""
        self._memory = memory
        self._idle: list[_Worker] = []
        self._free = asyncio.Semaphore(processes or min(4, os.cpu_count() or 1))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the worker processes that do nothing at present."""
        while self._idle:
            await self._idle.pop().end()

    async def examine(
        self, verifiers: Sequence[SandboxedVerifier], files: Sequence[StagedFile], policy: Policy
    ) -> list[list[Answer]]:
        """Run the verifiers over each file, one after the other; return each file's answers, all in the given orders.

        Who kills its worker process or takes more than `policy.limits.seconds` with a file is answered for by an error; the
        others, and the other files, go on in another process.
        """

        async def work(batch: Sequence[StagedFile]) -> list[list[Answer]]:
            async with self._free:
                return await self._examine(verifiers, batch, policy)

        batches = list(_batches(files))
        return [
            answers for batch in await side_by_side(work, batches, width=len(batches)) for answers in batch
        ]

    async def _examine(
        self, verifiers: Sequence[SandboxedVerifier], files: Sequence[StagedFile], policy: Policy
    ) -> list[list[Answer]]:
        width = len(verifiers)
        answers: list[Answer] = []
        while len(answers) < width * len(files):
            at, done = divmod(len(answers), width)
            answers += await self._some(verifiers, files[at:], done, policy)
        return [answers[width * at : width * (at + 1)] for at in range(len(files))]

    async def _some(
        self, verifiers: Sequence[SandboxedVerifier], files: Sequence[StagedFile], done: int, policy: Policy
    ) -> list[Answer]:
        """Return the answers, file by file, up to the first that ends its worker process; at least one.

        done: verifiers that have answered for the first file.
        """
        answers: list[Answer] = []
        worker: _Worker | None = None
        whole = False
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            with ExitStack() as opened:
                streams = await in_thread(_open, files, opened)
                there = [
                    (file, stream) for file, stream in zip(files, streams, strict=True) if stream is not None
                ]
                if there:
                    worker = self._idle.pop() if self._idle else await _Worker.start(self._memory)
                    skipped = 0 if streams[0] is None else done
                    request = _request(verifiers, [file for file, _ in there], skipped, policy)
                    await worker.ask([stream for _, stream in there], request)
            for stream in streams:
                expected = len(verifiers) - done
                done = 0
                if worker is None or stream is None:
                    answers += [Answer(error="the file could not be opened")] * expected
                    continue
                for _ in range(expected):
                    started = loop.time()
                    answers.append(_read(await worker.next_answer(policy.limits.seconds), policy))
            whole = worker is not None and worker.served < _LIFE
        except TimeoutError:
            answers.append(Answer(error="took too long", seconds=loop.time() - started))
        except _Died:
            answers.append(Answer(error="its worker process died", seconds=loop.time() - started))
        except OSError:
            answers.append(Answer(error="no worker process could be started"))
        finally:
            if worker is not None:
                if whole:
                    self._idle.append(worker)
                else:
                    await worker.end()
        return answers


def _batches(files: Sequence[StagedFile]) -> Iterator[Sequence[StagedFile]]:
    """Cut the files into what one worker process is handed at once."""
    begin = size = 0
    for at, file in enumerate(files):
        size += file.size
        if size >= MOST_BYTES or at + 1 - begin == MOST_FILES:
            yield files[begin : at + 1]
            begin, size = at + 1, 0
    if begin < len(files):
        yield files[begin:]


def _open(files: Sequence[StagedFile], opened: ExitStack) -> list[BinaryIO | None]:
    """Open each file, None where that cannot be; whatever happens, `opened` closes them."""
    streams: list[BinaryIO | None] = []
    for file in files:
        try:
            streams.append(opened.enter_context(file.open()))
        except (OSError, StowageError):
            streams.append(None)
    return streams


def _request(
    verifiers: Sequence[SandboxedVerifier], files: Sequence[StagedFile], done: int, policy: Policy
) -> dict[str, Any]:
    return {
        "files": [[file.path, file.size] for file in files],
        "done": done,
        "policy": policy.model_dump(mode="json"),
        "verifiers": [
            [type(verifier).__module__, type(verifier).__qualname__, dict(verifier.arguments)]
            for verifier in verifiers
        ],
    }


def _read(answer: Mapping[str, Any], policy: Policy) -> Answer:
    try:
        seconds = min(max(0.0, float(answer["seconds"])), policy.limits.seconds)
        if "error" in answer:
            return Answer(error=str(answer["error"]), seconds=seconds)
        result = FileResult(
            findings=[Finding.model_validate(finding) for finding in answer["findings"]],
            covered=answer["covered"] is True,
            reason=None if answer["reason"] is None else str(answer["reason"]),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise _Died from exc
    return Answer(result, seconds=seconds)
