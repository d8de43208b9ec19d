"""What a staging area promises, above all across deaths."""

import asyncio
import errno
import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import pytest

from proxy_client.errors import DiskFull, StorageFailure
from storage_proxy.storages.base import StagedWriter, StagingArea
from storage_proxy.storages.vfs import VFSStorage
from storage_proxy.volumes import fsio
from storage_proxy.volumes.staging import part_of
from tests.storages.faults import KILLED, dying_at, in_child
from tests.storages.models import Model, Storage, digests_of, look

pytestmark = pytest.mark.anyio

TASK = UUID(int=1)
DATA = bytes(range(256)) * 40_960  # 10 MiB
MIB = 1 << 20


async def staging_in(mount: Path) -> StagingArea:
    return await VFSStorage("archive", mount).open_staging(TASK)


def area(mount: Path) -> Path:
    return mount / ".staging" / str(TASK)


def write_and_die(mount: Path, size: int) -> None:
    async def work() -> None:
        staging = await staging_in(mount)
        writer = staging.open_writer("a/big", len(DATA))
        await writer.__aenter__()
        for begin in range(0, size, 100_000):
            await writer.write(DATA[begin : min(begin + 100_000, size)])
        os._exit(KILLED)

    assert in_child(work) == KILLED


async def finish(writer: StagedWriter) -> None:
    await writer.write(DATA[writer.offset :])
    assert await writer.finish() == digests_of(DATA)


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


async def test_a_finished_file_has_its_digests(mount: Path) -> None:
    staging = await staging_in(mount)
    assert await staging.digests("a/big") is None
    async with staging.open_writer("a/big", len(DATA)) as writer:
        assert writer.offset == 0
        await finish(writer)
    assert await staging.digests("a/big") == digests_of(DATA)
    assert b"".join([chunk async for chunk in staging.read("a/big")]) == DATA
    assert await (await staging_in(mount)).digests("a/big") == digests_of(DATA)
    assert (area(mount) / "tree" / "a" / "big").read_bytes() == DATA


async def test_pieces_of_any_size_and_kind_are_written_in_order(mount: Path) -> None:
    staging = await staging_in(mount)
    buffer = bytearray(70_001)
    async with staging.open_writer("a", len(DATA)) as writer:
        while writer.offset < len(DATA):
            piece = DATA[writer.offset : writer.offset + (1 + writer.offset * 7 % len(buffer))]
            buffer[: len(piece)] = piece
            await writer.write(memoryview(buffer)[: len(piece)])  # the buffer is reused at once
        assert await writer.finish() == digests_of(DATA)


async def test_an_empty_file_and_one_of_another_size_than_stated(mount: Path) -> None:
    staging = await staging_in(mount)
    async with staging.open_writer("empty", 0) as writer:
        assert await writer.finish() == digests_of(b"")
    async with staging.open_writer("short", 100) as writer:
        await writer.write(b"short")
        assert await writer.finish() == digests_of(b"short")


def test_a_killed_writers_successor_goes_on(mount: Path) -> None:
    write_and_die(mount, len(DATA) - 10)

    async def go_on() -> None:
        async with (await staging_in(mount)).open_writer("a/big", len(DATA)) as writer:
            assert len(DATA) - 8 * MIB <= writer.offset < len(DATA)
            await finish(writer)

    asyncio.run(go_on())


def test_bytes_beyond_the_durable_ones_are_not_trusted(mount: Path) -> None:
    write_and_die(mount, 5 * MIB)
    part = area(mount) / part_of("a/big")
    journal = (area(mount) / "journal").read_text().split()
    durable = json.loads(journal[-1])["offset"]
    # What a power cut may leave behind: a longer file with garbage where nothing was synced.
    with part.open("r+b") as file:
        file.seek(durable)
        file.write(b"garbage" * MIB)

    async def go_on() -> None:
        async with (await staging_in(mount)).open_writer("a/big", len(DATA)) as writer:
            assert writer.offset == durable
            await finish(writer)

    asyncio.run(go_on())


@pytest.mark.parametrize(
    "tail", [b'\n{"part":"a/big","off', b"\n\0\0\0\0", b'\n{"part":"a/big"}\n', b"\n[]\n", b"\n\xff\xfe\n"]
)
def test_a_torn_journal_costs_nothing_but_its_end(mount: Path, tail: bytes) -> None:
    write_and_die(mount, 5 * MIB)
    with (area(mount) / "journal").open("ab") as journal:
        journal.write(tail)

    async def go_on() -> None:
        staging = await staging_in(mount)
        async with staging.open_writer("a/big", len(DATA)) as writer:
            assert writer.offset >= 4 * MIB
            await finish(writer)
        assert await (await staging_in(mount)).digests("a/big") == digests_of(DATA)

    asyncio.run(go_on())
    assert b'"file":"a/big"' in (area(mount) / "journal").read_bytes()


def test_a_part_that_somebody_cut_begins_again(mount: Path) -> None:
    write_and_die(mount, 9 * MIB)
    os.truncate(area(mount) / part_of("a/big"), MIB)

    async def go_on() -> None:
        async with (await staging_in(mount)).open_writer("a/big", len(DATA)) as writer:
            assert writer.offset == 0
            await finish(writer)

    asyncio.run(go_on())


def test_a_part_longer_than_the_whole_file_begins_again(mount: Path) -> None:
    write_and_die(mount, 9 * MIB)

    async def go_on() -> None:
        async with (await staging_in(mount)).open_writer("a/big", MIB) as writer:
            assert writer.offset == 0

    asyncio.run(go_on())


async def test_who_opens_it_next_takes_it_over(mount: Path) -> None:
    # A worker that stood still longer than its lease goes on as if nothing had happened.
    late = await staging_in(mount)
    writer = late.open_writer("a/big", len(DATA))
    await writer.__aenter__()
    await writer.write(DATA[:MIB])
    mine = await staging_in(mount)
    async with mine.open_writer("a/big", len(DATA)) as successor:
        with pytest.raises(StorageFailure, match="another worker"):
            await writer.finish()
        with pytest.raises(StorageFailure, match="another worker"):
            await writer.restart()
        with pytest.raises(StorageFailure, match="another worker"):
            await late.drop("a/big")
        with pytest.raises(StorageFailure, match="another worker"):
            await late.open_writer("b", 1).__aenter__()
        await finish(successor)
    with suppress(StorageFailure):
        await writer.__aexit__(None, None, None)
    assert (area(mount) / "tree" / "a" / "big").read_bytes() == DATA
    assert await mine.digests("a/big") == digests_of(DATA)


async def test_leaving_without_finish_keeps_every_byte(mount: Path) -> None:
    staging = await staging_in(mount)
    with suppress(ConnectionResetError):
        async with staging.open_writer("a/big", len(DATA)) as writer:
            await writer.write(DATA[:12_345])
            raise ConnectionResetError
    assert await staging.digests("a/big") is None
    async with staging.open_writer("a/big", len(DATA)) as writer:
        assert writer.offset == 12_345
        await finish(writer)


async def test_a_restart_forgets_every_byte(mount: Path) -> None:
    staging = await staging_in(mount)
    async with staging.open_writer("a/big", len(DATA)) as writer:
        await writer.write(b"x" * 6 * MIB)
        await writer.restart()
        assert writer.offset == 0
    async with staging.open_writer("a/big", len(DATA)) as writer:
        assert writer.offset == 0
        await writer.write(b"x")
        await writer.restart()
        await finish(writer)


async def test_a_dropped_file_is_gone_finished_or_not(mount: Path) -> None:
    staging = await staging_in(mount)
    async with staging.open_writer("a/big", len(DATA)) as writer:
        await finish(writer)
    await staging.drop("a/big")
    await staging.drop("a/big")
    assert await staging.digests("a/big") is None
    async with staging.open_writer("a/big", len(DATA)) as writer:
        assert writer.offset == 0
        await writer.write(b"x" * 6 * MIB)
    await staging.drop("a/big")
    assert not list((area(mount) / "parts").iterdir())
    async with staging.open_writer("a/big", len(DATA)) as writer:
        assert writer.offset == 0


async def test_a_finished_file_that_somebody_changed_is_read_again(mount: Path) -> None:
    staging = await staging_in(mount)
    async with staging.open_writer("a", 5) as writer:
        await writer.write(b"right")
        await writer.finish()
    (area(mount) / "tree" / "a").write_bytes(b"wrong")
    assert await staging.digests("a") == digests_of(b"wrong")


async def test_the_plan_is_kept_and_another_commits_is_refused(mount: Path) -> None:
    staging = await staging_in(mount)
    assert await staging.load_plan() is None
    plan = Model({"a": b"1", "ümlaut": b""}).plan("a/b")
    await staging.save_plan(plan)
    staging = await staging_in(mount)
    assert await staging.load_plan() == plan
    await staging.save_plan(plan)
    with pytest.raises(StorageFailure, match="discard"):
        await staging.save_plan(Model({"a": b"2"}).plan("a/b"))
    await staging.discard()
    await staging.discard()
    assert not area(mount).exists()
    assert await (await staging_in(mount)).load_plan() is None


def test_a_discard_that_died_is_repeated(mount: Path) -> None:
    async def fill() -> None:
        staging = await staging_in(mount)
        for name in ("a", "b/c"):
            async with staging.open_writer(name, 1) as writer:
                await writer.write(b"x")
                await writer.finish()

    async def discard() -> None:
        await (await staging_in(mount)).discard()

    number, status = 0, KILLED
    while status == KILLED:
        number += 1
        asyncio.run(fill())
        status = dying_at(number, discard)
        asyncio.run(discard())
        assert not list((mount / ".staging").iterdir())
    assert status == 0
    assert number > 5


@pytest.mark.parametrize("call", ["write", "fdatasync"])
async def test_a_full_disk_is_said_and_leaves_a_usable_part(
    mount: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    staging = await staging_in(mount)
    async with staging.open_writer("a/big", len(DATA)) as writer:
        await writer.write(DATA[: 5 * MIB])

    class Full:
        def __getattr__(self, name: str) -> object:
            return self._full if name == call else getattr(os, name)

        @staticmethod
        def _full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "injected")

    with monkeypatch.context() as patch:
        patch.setattr(fsio, "os", Full())
        with pytest.raises(DiskFull) as raised:
            async with staging.open_writer("a/big", len(DATA)) as writer:
                await finish(writer)
        assert str(mount) not in raised.value.message
    async with staging.open_writer("a/big", len(DATA)) as writer:
        assert writer.offset >= 4 * MIB
        await finish(writer)


async def test_a_cancelled_writer_keeps_what_was_written(mount: Path) -> None:
    staging = await staging_in(mount)
    started = asyncio.Event()

    async def write() -> None:
        async with staging.open_writer("a/big", len(DATA)) as writer:
            for begin in range(0, 6 * MIB, MIB):
                await writer.write(DATA[begin : begin + MIB])
            started.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with staging.open_writer("a/big", len(DATA)) as writer:
        assert writer.offset == 6 * MIB
        await finish(writer)


async def test_descriptors_are_closed_whatever_happens(mount: Path) -> None:
    before = descriptors()
    staging = await staging_in(mount)
    for _ in range(3):
        async with staging.open_writer("a/big", len(DATA)) as writer:
            await writer.write(DATA[:MIB])
        reading = staging.read("none")
        with pytest.raises(StorageFailure):
            await anext(reading)
    async with staging.open_writer("a/big", len(DATA)) as writer:
        await finish(writer)
    reading = staging.read("a/big")
    await anext(reading)
    await reading.aclose()
    assert descriptors() == before


async def test_many_writers_at_once(place: Storage) -> None:
    staging = await place.storage.open_staging(TASK)

    async def write(number: int) -> None:
        data = b"%d" % number * 10_000
        async with staging.open_writer(f"folder{number % 3}/{number}", len(data)) as writer:
            await writer.write(data)
            assert await writer.finish() == digests_of(data)

    await asyncio.gather(*(write(number) for number in range(100)))
    again = await place.storage.open_staging(TASK)
    for number in range(100):
        assert await again.digests(f"folder{number % 3}/{number}") == digests_of(b"%d" % number * 10_000)
    assert look(place.root) == {}


async def test_nobody_else_may_look_into_staging(mount: Path) -> None:
    staging = await staging_in(mount)
    async with staging.open_writer("a/b", 1) as writer:
        await writer.write(b"x")
        await writer.finish()
    for path in (mount / ".staging", area(mount), area(mount) / "parts"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((area(mount) / "journal").stat().st_mode) == 0o600
