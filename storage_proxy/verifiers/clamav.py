"""ClamAV: each file is shown to a `clamd` that the operator runs (clamd(8), COMMANDS)."""

import asyncio
import contextlib
import gzip
import os
import socket
import time
from typing import BinaryIO

from proxy_client.errors import BadRequest, Unavailable
from proxy_client.wire import Finding
from storage_proxy.verifiers.base import FileResult, FileVerifier, StagedFile, plain
from storage_proxy.verifiers.policy import Policy

_CHUNK = 1 << 18
_LONGEST_ANSWER = 1 << 16
_AT_ONCE = 4
_CHECKED_EVERY = 60.0
_LIMIT_ALERT = "Heuristics.Limits.Exceeded"
_DEEPER_THAN_ANY_LIMIT = 110  # MaxRecursion is at most 100


class ClamavVerifier(FileVerifier):
    """Asks a clamd. What it skipped because of its own limits is not covered, and a clamd that would not say so is refused."""

    name = "clamav"

    def __init__(self, socket: str = "/run/clamav/clamd.ctl", timeout: float = 120.0) -> None:
        """Take the path of a Unix socket or `HOST:PORT`; `timeout` in seconds is for one file.

        Files go to a Unix socket as open descriptors, else as bytes over the connection. Raises `BadRequest`.
        """
        self.version = "not asked yet"
        self._address = _address(socket)
        self._timeout = timeout
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._checking = asyncio.Lock()
        self._checked = -_CHECKED_EVERY

    async def examine_file(self, file: StagedFile, policy: Policy) -> FileResult:  # noqa: ARG002 -- clamd has a configuration of its own
        """Raises `Unavailable`: no clamd, no answer in time, an answer that is none, or a clamd that hides what it skips."""
        async with self._gate:
            await self._check_engine()
            stream = await asyncio.to_thread(file.open)
            with stream:
                answer = await self._ask_in_time(stream)
        return _result(file.path, answer)

    async def _check_engine(self) -> None:
        """Learn the versions of engine and signatures, and that clamd tells when it skips something; not for every file."""
        async with self._checking:
            if time.monotonic() - self._checked < _CHECKED_EVERY:
                return
            self.version = _version(await self._ask_in_time(None))
            answer = await self._ask_in_time(_nested())
            if _LIMIT_ALERT not in answer:
                raise Unavailable(
                    "clamd must run with AlertExceedsMax yes: else it passes what it did not look at"
                )
            self._checked = time.monotonic()

    async def _ask_in_time(self, what: BinaryIO | bytes | None) -> str:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._ask(what)
        except TimeoutError as exc:
            raise Unavailable("clamd does not answer in time") from exc
        except OSError as exc:
            raise Unavailable("clamd is away") from exc

    async def _ask(self, what: BinaryIO | bytes | None) -> str:
        """Ask for the version (None), or for a verdict on a file or on bytes; return the answer."""
        loop = asyncio.get_running_loop()
        with await self._connect(loop) as connection:
            try:
                if what is None:
                    await loop.sock_sendall(connection, b"zVERSION\0")
                elif isinstance(what, bytes) or connection.family != socket.AF_UNIX:
                    await _send_bytes(loop, connection, what)
                else:
                    await loop.sock_sendall(connection, b"zFILDES\0")
                    await _send_descriptor(connection, what.fileno())
            except (BrokenPipeError, ConnectionResetError):
                # clamd closes the connection once it has enough; its answer is there nevertheless.
                pass
            return await _receive(loop, connection)

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> socket.socket:
        if isinstance(self._address, str):
            return await _connected(loop, socket.AF_UNIX, self._address)
        found = await loop.getaddrinfo(*self._address, type=socket.SOCK_STREAM)
        for family, _, _, _, address in found[:-1]:
            with contextlib.suppress(OSError):
                return await _connected(loop, family, address)
        return await _connected(loop, found[-1][0], found[-1][4])


async def _connected(
    loop: asyncio.AbstractEventLoop, family: int, address: str | tuple[object, ...]
) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.settimeout(0.0)
        await loop.sock_connect(connection, address)
    except BaseException:
        connection.close()
        raise
    return connection


async def _send_descriptor(connection: socket.socket, descriptor: int) -> None:
    while True:
        try:
            socket.send_fds(connection, [b"\0"], [descriptor])
        except BlockingIOError:
            await asyncio.sleep(0.01)
        else:
            return


async def _send_bytes(
    loop: asyncio.AbstractEventLoop, connection: socket.socket, what: BinaryIO | bytes
) -> None:
    """Send chunks, each behind its length; one of length zero ends them."""
    await loop.sock_sendall(connection, b"zINSTREAM\0")
    while chunk := what if isinstance(what, bytes) else await asyncio.to_thread(what.read, _CHUNK):
        await loop.sock_sendall(connection, len(chunk).to_bytes(4, "big") + chunk)
        what = b"" if isinstance(what, bytes) else what
    await loop.sock_sendall(connection, bytes(4))


async def _receive(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> str:
    answer = b""
    while b"\0" not in answer and len(answer) < _LONGEST_ANSWER:
        if not (some := await loop.sock_recv(connection, 4096)):
            break
        answer += some
    return answer.split(b"\0", 1)[0].decode("utf-8", "replace")


def _result(path: str, answer: str) -> FileResult:
    """Read an answer: `NAME: OK`, `NAME: SIGNATURE FOUND` or `… ERROR`."""
    said = answer.partition(": ")[2]
    if said == "OK":
        return FileResult()
    signature = said.removesuffix(" FOUND")
    if signature.startswith(_LIMIT_ALERT):
        return FileResult(covered=False, reason=plain(f"skipped by clamd: {signature}"))
    if said.endswith(" FOUND"):
        finding = Finding(
            file=path,
            rule=plain(signature),
            category="malware",
            severity="block",
            message=plain(f"clamd found {signature}"),
        )
        return FileResult(findings=[finding])
    if "size limit exceeded" in answer:
        return FileResult(covered=False, reason="larger than clamd's StreamMaxLength")
    raise Unavailable(plain(f"clamd could not look at the file: {answer or 'no answer'}"))


def _version(answer: str) -> str:
    """Read `ClamAV ENGINE/DATABASE/DATE`; a database without a version is the operator's own signatures."""
    engine, _, database = answer.partition("/")
    if not engine.startswith("ClamAV "):
        raise Unavailable("what answers is no clamd")
    number, _, date = database.partition("/")
    known = f"database {number} of {date}" if number else "database without a version"
    return plain(f"{engine.removeprefix('ClamAV ')}, {known}")


def _nested() -> bytes:
    """Return something small that is nested deeper than any clamd follows."""
    content = b"stowage"
    for _ in range(_DEEPER_THAN_ANY_LIMIT):
        content = gzip.compress(content, mtime=0)
    return content


def _address(where: str) -> str | tuple[str, int]:
    if "/" in where:
        return os.fspath(where)
    host, colon, port = where.rpartition(":")
    if not colon or not host or not port.isdigit():
        raise BadRequest(
            "clamav: the socket is an absolute path or HOST:PORT", field="verification.clamav-socket"
        )
    return host.strip("[]"), int(port)
