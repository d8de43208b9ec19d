"""Worker processes in which strangers' bytes are parsed: long-lived, limited, and expendable."""

import asyncio
import json
import os
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, Self

from proxy_client.errors import StowageError
from proxy_client.wire import Finding
from storage_proxy.verifiers.base import FileResult, SandboxedVerifier, StagedFile
from storage_proxy.verifiers.policy import Policy
from storage_proxy.volumes.threads import in_thread

MEMORY = 1536 << 20
"""Bytes of address space of one worker process: picklescan keeps some 15 for each byte of its largest file, 64 MiB."""
_LARGEST_ANSWER = 64 << 20
_LIFE = 20_000  # files, after which a worker process is replaced: whatever it has gathered goes
_LENGTH = struct.Struct("!I")


@dataclass(frozen=True)
class Answer:
    """What became of one verifier and one file: a result, or why there is none. `seconds` it took."""

    result: FileResult | None = None
    error: str | None = None
    seconds: float = 0.0


class _Died(Exception):
    """The worker process is gone, or answers what no worker answers."""


class _Worker:
    def __init__(self, process: asyncio.subprocess.Process, connection: socket.socket) -> None:
        self._process = process
        self._connection = connection
        self.served = 0

    @classmethod
    async def start(cls, memory: int) -> "_Worker":
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-B", "-P", "-m", "storage_proxy.verifiers.worker"),
                    *(str(theirs.fileno()), str(memory), str(os.getpid())),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.DEVNULL,
                    cwd="/",
                    env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "LC_ALL": "C.UTF-8"},
                    pass_fds=[theirs.fileno()],
                )
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)  # noqa: FBT003 -- socket's signature
        return cls(process, ours)

    async def ask(self, stream: BinaryIO, request: Mapping[str, Any]) -> None:
        """Hand over the open file and what to do with it."""
        self.served += 1
        body = json.dumps(request).encode()
        try:
            socket.send_fds(self._connection, [b"\0"], [stream.fileno()])
            await asyncio.get_running_loop().sock_sendall(self._connection, _LENGTH.pack(len(body)) + body)
        except OSError as exc:
            raise _Died from exc

    async def answer(self) -> dict[str, Any]:
        """Return the next verifier's answer to the last request. Raises `_Died`."""
        (length,) = _LENGTH.unpack(await self._receive(_LENGTH.size))
        if length > _LARGEST_ANSWER:
            raise _Died
        try:
            answer = json.loads(await self._receive(length))
        except ValueError as exc:
            raise _Died from exc
        if not isinstance(answer, dict):
            raise _Died
        return answer

    async def _receive(self, length: int) -> bytes:
        received = bytearray()
        while len(received) < length:
            try:
                some = await asyncio.get_running_loop().sock_recv(
                    self._connection, min(1 << 16, length - len(received))
                )
            except OSError as exc:
                raise _Died from exc
            if not some:
                raise _Died
            received += some
        return bytes(received)

    async def end(self) -> None:
        """End the process, whatever it is doing, and wait until it is gone."""
        self._connection.close()
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
        self, verifiers: Sequence[SandboxedVerifier], file: StagedFile, policy: Policy
    ) -> list[Answer]:
        """Run the verifiers over one file, one after the other, and return their answers in their order.

        Who kills its worker process or takes more than `policy.limits.seconds` is answered for by an error; the
        others go on in another process.
        """
        answers: list[Answer] = []
        async with self._free:
            while len(answers) < len(verifiers):
                answers += await self._some(verifiers[len(answers) :], file, policy)
        return answers

    async def _some(
        self, verifiers: Sequence[SandboxedVerifier], file: StagedFile, policy: Policy
    ) -> list[Answer]:
        """Return the answers up to the first that ends its worker process; at least one."""
        try:
            stream = await in_thread(file.open)
        except (OSError, StowageError):
            return [Answer(error="the file could not be opened") for _ in verifiers]
        answers: list[Answer] = []
        worker: _Worker | None = None
        whole = False
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            with stream:
                worker = self._idle.pop() if self._idle else await _Worker.start(self._memory)
                await worker.ask(stream, _request(verifiers, file, policy))
            for _ in verifiers:
                started = loop.time()
                async with asyncio.timeout(policy.limits.seconds):
                    answers.append(_read(await worker.answer(), loop.time() - started))
            whole = worker.served < _LIFE
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


def _request(verifiers: Sequence[SandboxedVerifier], file: StagedFile, policy: Policy) -> dict[str, Any]:
    return {
        "path": file.path,
        "size": file.size,
        "policy": policy.model_dump(mode="json"),
        "verifiers": [
            [type(verifier).__module__, type(verifier).__qualname__, dict(verifier.arguments)]
            for verifier in verifiers
        ],
    }


def _read(answer: Mapping[str, Any], seconds: float) -> Answer:
    if "error" in answer:
        return Answer(error=str(answer["error"]), seconds=seconds)
    try:
        result = FileResult(
            findings=[Finding.model_validate(finding) for finding in answer["findings"]],
            covered=answer["covered"] is True,
            reason=None if answer["reason"] is None else str(answer["reason"]),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise _Died from exc
    return Answer(result, seconds=seconds)
