"""clamd: a stand-in that speaks its protocol, and the real one where it is installed."""

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import pytest

from proxy_client.errors import BadRequest, Unavailable
from storage_proxy.verifiers.base import FileResult, StagedFile
from storage_proxy.verifiers.clamav import ClamavVerifier
from storage_proxy.verifiers.policy import Policy

pytestmark = pytest.mark.anyio

SIGNATURE = b"STOWAGE-CLAMAV-TEST-" + b"SIGNATURE"


@dataclass
class Clamd:
    """Speaks clamd's protocol (clamd(8)) as far as a scanner needs it."""

    version: str = "ClamAV 1.4.3/27500/Sun Nov 22 09:00:00 2026"
    alerts_on_limits: bool = True
    answer: Callable[[bytes], str] = lambda content: "StowageTest FOUND" if SIGNATURE in content else "OK"
    silent: bool = False
    commands: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def serve(self, family: int = socket.AF_UNIX) -> AsyncIterator[str]:
        with TemporaryDirectory() as folder, socket.socket(family) as listener:
            listener.bind(f"{folder}/clamd" if family == socket.AF_UNIX else ("127.0.0.1", 0))
            listener.listen()
            listener.settimeout(0.0)
            task = asyncio.create_task(self._accept(listener))
            name = listener.getsockname()
            try:
                yield name if family == socket.AF_UNIX else f"127.0.0.1:{name[1]}"
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                connection, _ = await asyncio.get_running_loop().sock_accept(listener)
                group.create_task(asyncio.to_thread(self._talk, connection))

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(5)
            command = self._until_nul(connection)
            self.commands.append(command)
            if self.silent:
                connection.recv(1 << 20)
            elif command == "VERSION":
                connection.sendall(self.version.encode() + b"\0")
            elif command == "FILDES":
                _, (descriptor,), _, _ = socket.recv_fds(connection, 1, 1)
                with os.fdopen(descriptor, "rb") as stream:
                    connection.sendall(f"fd[9]: {self.answer(stream.read())}\0".encode())
            elif command == "INSTREAM":
                content = self._chunks(connection)
                if content.startswith(b"\x1f\x8b"):
                    limited = "Heuristics.Limits.Exceeded.MaxRecursion FOUND"
                    connection.sendall(f"stream: {limited if self.alerts_on_limits else 'OK'}\0".encode())
                else:
                    connection.sendall(f"stream: {self.answer(content)}\0".encode())

    def _until_nul(self, connection: socket.socket) -> str:
        command = b""
        while not command.endswith(b"\0"):
            command += connection.recv(1)
        assert command.startswith(b"z")
        return command[1:-1].decode()

    def _chunks(self, connection: socket.socket) -> bytes:
        content = b""
        with connection.makefile("rb") as stream:
            while length := int.from_bytes(stream.read(4), "big"):
                content += stream.read(length)
        return content


@pytest.fixture
def staged(tmp_path: Path) -> Callable[[bytes], StagedFile]:
    def stage(content: bytes) -> StagedFile:
        (tmp_path / "file").write_bytes(content)

        def opened() -> BinaryIO:
            return (tmp_path / "file").open("rb")

        return StagedFile("weights.bin", len(content), None, opened)

    return stage


Stage = Callable[[bytes], StagedFile]


async def shown(clamd: Clamd, file: StagedFile, family: int = socket.AF_UNIX) -> FileResult:
    async with clamd.serve(family) as where:
        return await ClamavVerifier(where, timeout=5).examine_file(file, Policy())


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
async def test_a_virus_is_blocked_and_others_are_clean(staged: Stage, family: int) -> None:
    result = await shown(Clamd(), staged(b"x" * 600_000 + SIGNATURE), family)
    assert [(found.file, found.rule, found.severity) for found in result.findings] == [
        ("weights.bin", "StowageTest", "block")
    ]
    assert await shown(Clamd(), staged(b"harmless"), family) == FileResult()
    assert await shown(Clamd(), staged(b""), family) == FileResult()


async def test_a_unix_socket_is_given_the_open_file(staged: Stage) -> None:
    clamd = Clamd()
    await shown(clamd, staged(b"x"))
    assert clamd.commands == ["VERSION", "INSTREAM", "FILDES"]


async def test_engine_and_database_are_recorded(staged: Stage) -> None:
    async with Clamd().serve() as where:
        verifier = ClamavVerifier(where)
        await verifier.examine_file(staged(b"x"), Policy())
    assert verifier.version == "1.4.3, database 27500 of Sun Nov 22 09:00:00 2026"


@pytest.mark.parametrize(
    "answer", ["Heuristics.Limits.Exceeded.MaxFileSize FOUND", "INSTREAM size limit exceeded. ERROR"]
)
async def test_what_clamd_skips_is_not_covered(staged: Stage, answer: str) -> None:
    result = await shown(Clamd(answer=lambda _: answer), staged(b"x"))
    assert (list(result.findings), result.covered) == ([], False)


async def test_a_clamd_that_hides_what_it_skips_is_refused(staged: Stage) -> None:
    with pytest.raises(Unavailable, match="AlertExceedsMax"):
        await shown(Clamd(alerts_on_limits=False), staged(b"x"))


@pytest.mark.parametrize("answer", ["Can't allocate memory ERROR", "", "what", "OK?"])
async def test_an_answer_that_is_none_is_an_error(staged: Stage, answer: str) -> None:
    with pytest.raises(Unavailable):
        await shown(Clamd(answer=lambda _: answer), staged(b"x"))


async def test_something_else_on_the_socket_is_an_error(staged: Stage) -> None:
    with pytest.raises(Unavailable, match="no clamd"):
        await shown(Clamd(version="220 mail"), staged(b"x"))


async def test_a_missing_clamd_is_an_error(staged: Stage, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="away"):
        await ClamavVerifier(f"{tmp_path}/none").examine_file(staged(b"x"), Policy())
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(Unavailable, match="away"):
            await ClamavVerifier(where).examine_file(staged(b"x"), Policy())


async def test_a_silent_clamd_is_an_error(staged: Stage) -> None:
    async with Clamd(silent=True).serve() as where:
        with pytest.raises(Unavailable, match="in time"):
            await ClamavVerifier(where, timeout=0.2).examine_file(staged(b"x"), Policy())


@pytest.mark.parametrize("where", ["", "clamd", "host:", ":3310", "host:port"])
def test_an_address_that_is_none_is_a_wrong_setting(where: str) -> None:
    with pytest.raises(BadRequest, match="HOST:PORT"):
        ClamavVerifier(where)


# The real one.


@pytest.fixture
async def real(tmp_path: Path) -> AsyncIterator[Callable[[str], Awaitable[str]]]:
    program = os.environ.get("STOWAGE_CLAMD") or shutil.which("clamd")
    if program is None:
        pytest.skip("no clamd here; STOWAGE_CLAMD names one that is elsewhere")
    signatures = tmp_path / "signatures"
    signatures.mkdir()
    (signatures / "test.ndb").write_text(f"StowageTest:0:*:{SIGNATURE.hex()}\n")
    configuration = tmp_path / "clamd.conf"
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))

        async def start(more: str) -> str:
            configuration.write_text(
                f"DatabaseDirectory {signatures}\nLocalSocket {folder}/clamd\nForeground yes\n"
                f"MaxFileSize 1M\n{more}\n"
            )
            process = await asyncio.create_subprocess_exec(
                program, "-c", configuration, stdout=asyncio.subprocess.DEVNULL
            )
            stack.push_async_callback(process.wait)
            stack.callback(process.kill)
            while not any(folder.iterdir()):  # noqa: ASYNC240 -- one look at an empty folder
                assert process.returncode is None
                await asyncio.sleep(0.05)
            return f"{folder}/clamd"

        yield start


async def test_the_real_clamd_finds_skips_and_passes(
    real: Callable[[str], Awaitable[str]], staged: Stage
) -> None:
    verifier = ClamavVerifier(await real("AlertExceedsMax yes"))
    assert (await verifier.examine_file(staged(b"x" + SIGNATURE), Policy())).findings[0].category == "malware"
    assert await verifier.examine_file(staged(b"harmless"), Policy()) == FileResult()
    assert not (await verifier.examine_file(staged(os.urandom(2 << 20)), Policy())).covered
    assert verifier.version.endswith("database without a version")


async def test_the_real_clamd_is_refused_where_it_hides_what_it_skips(
    real: Callable[[str], Awaitable[str]], staged: Stage
) -> None:
    verifier = ClamavVerifier(await real("AlertExceedsMax no"))
    with pytest.raises(Unavailable, match="AlertExceedsMax"):
        await verifier.examine_file(staged(b"harmless"), Policy())
