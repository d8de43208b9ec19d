"""What a staging area in a directory promises besides its writers."""

import asyncio
import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proxy_client.errors import DiskFull, StorageError, StorageFailure
from storage_proxy.storages.base import StagingArea
from storage_proxy.volumes import fsio, journal
from tests.storages.faults import KILLED, Broken, dying_at, in_child
from tests.storages.models import Storage, digests_of, fill, look, planned, write
from tests.storages.pieces import (
    BIG,
    DATA,
    PIECE,
    TASK,
    WHOLE,
    area,
    descriptors,
    staging_in,
    write_range,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("small_pieces", "nothing_left")]


def test_a_discard_that_died_is_repeated(mount: Path) -> None:
    async def prepare() -> None:
        staging = await staging_in(mount)
        for name in ("a", "b/c"):
            await asyncio.to_thread(write, staging, planned(name, b"x"), b"x")

    async def discard() -> None:
        await (await staging_in(mount)).discard()

    number, status = 0, KILLED
    while status == KILLED:
        number += 1
        asyncio.run(prepare())
        status = dying_at(number, discard)
        asyncio.run(discard())
        assert not list((mount / ".staging").iterdir())
    assert status == 0
    assert number > 5


async def test_who_opens_it_next_takes_it_over(mount: Path) -> None:
    # A worker that stood still longer than its lease goes on as if nothing had happened.
    late = await staging_in(mount)
    small = planned("small", b"x")
    late.add(small, b"x")
    first, second = late.open_writer(BIG), late.open_writer(planned("b", DATA))
    write_range(first, 0, PIECE)
    fill(second, DATA)
    mine = await staging_in(mount)
    with mine.open_writer(BIG) as successor:
        for attempt in (
            lambda: write_range(first, PIECE, 2 * PIECE),
            first.restart,
            second.finish,
            lambda: late.open_writer(planned("d", b"1")),
            lambda: late.add(planned("d", b"1"), b"1"),
        ):
            with pytest.raises(StorageFailure, match="another worker"):
                attempt()
        with pytest.raises(StorageFailure, match="another worker"):
            await late.settle()
        with pytest.raises(StorageFailure, match="another worker"):
            await late.drop("a/big")
        fill(successor, DATA)
        assert successor.finish() == WHOLE
    first.close()
    second.close()
    assert (area(mount) / "tree" / "a" / "big").read_bytes() == DATA
    assert await mine.digests(BIG) == WHOLE
    assert not (area(mount) / "tree" / "b").exists()


# Small files.


async def test_small_files_are_recorded_only_when_they_are_durable(
    mount: Path, staging: StagingArea, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[object] = []
    sync, record = fsio.fdatasync, journal.Journal.record_finished

    def synced(fd: int) -> None:
        sync(fd)
        events.append(Path(f"/proc/self/fd/{fd}").readlink().name)

    def recorded(book: journal.Journal, folder: int, files: list[tuple[str, object, object]]) -> None:
        events.append([path for path, *_ in files])
        record(book, folder, files)

    monkeypatch.setattr(fsio, "fdatasync", synced)
    monkeypatch.setattr(journal.Journal, "record_finished", recorded)
    names = [f"{number:03}" for number in range(130)]
    for name in names:
        staging.add(planned(name, b"x"), b"x")
    await staging.settle()
    await staging.settle()
    # Side by side, in any order; each batch is written down when the last of its own is on the disk.
    assert sorted(event for event in events if isinstance(event, str)) == names
    for batch in (names[:128], names[128:]):
        assert set(batch) <= set(map(str, events[: events.index(batch)]))


async def test_the_error_of_a_batch_in_the_background_is_told(
    mount: Path, staging: StagingArea, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(fsio, "os", Broken(errno.ENOSPC, "fdatasync"))
        for number in range(128):
            staging.add(planned(f"{number:03}", b"x"), b"x")
        with pytest.raises(DiskFull):
            await staging.settle()
    await staging.settle()
    successor = await staging_in(mount)  # who reads what nobody wrote down
    wanted = [planned(f"{number:03}", b"x") for number in range(128)]
    assert len(await successor.all_digests(wanted)) == len(wanted)


async def test_a_small_file_that_a_kill_tore_is_found_out(mount: Path) -> None:
    small = planned("a/small", b"whole content", lfs=False)

    async def work() -> None:
        staging = await staging_in(mount)
        real = fsio.write_at

        def torn(fd: int, data: memoryview, offset: int) -> None:
            real(fd, data[:5], offset)
            os._exit(KILLED)

        fsio.write_at = torn
        staging.add(small, b"whole content")

    assert await asyncio.to_thread(in_child, work) == KILLED
    staging = await staging_in(mount)
    found = await staging.digests(small)
    assert found is not None
    assert not small.matches(found)
    assert small.matches(staging.add(small, b"whole content"))
    await staging.settle()
    assert await (await staging_in(mount)).digests(small) == digests_of(b"whole content")


async def test_a_small_file_that_a_kill_left_unrecorded_is_read_again(mount: Path) -> None:
    small = planned("a/small", b"content", lfs=False)

    async def work() -> None:
        (await staging_in(mount)).add(small, b"content")
        os._exit(KILLED)

    assert await asyncio.to_thread(in_child, work) == KILLED
    assert not (area(mount) / "journal").exists()
    staging = await staging_in(mount)
    assert await staging.digests(small) == digests_of(b"content")
    assert b'"file"' in (area(mount) / "journal").read_bytes()


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
async def test_leftovers_are_replaced(mount: Path, staging: StagingArea, tmp_path: Path, kind: str) -> None:
    there = area(mount) / "tree" / "a" / "small"
    there.parent.mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.write_bytes(b"theirs")
    if kind == "file":
        there.write_bytes(b"left from before, and longer")
    elif kind == "folder":
        (there / "deep").mkdir(parents=True)
    else:
        there.symlink_to(outside)
    small = planned("a/small", b"content")
    staging.add(small, b"content")
    await staging.settle()
    assert await staging.digests(small) == digests_of(b"content", blob_id=False)
    assert there.read_bytes() == b"content"
    assert not there.is_symlink()
    assert outside.read_bytes() == b"theirs"


async def test_a_batch_that_cannot_be_made_durable_is_an_error_and_no_record(
    mount: Path, staging: StagingArea, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = planned("small", b"x")
    staging.add(small, b"x")
    with monkeypatch.context() as patch:
        patch.setattr(fsio, "os", Broken(errno.EDQUOT, "fdatasync"))
        with pytest.raises(StorageError, match="EDQUOT"):
            await staging.settle()
    assert not (area(mount) / "journal").exists()
    await staging.settle()
    assert await staging.digests(small) == digests_of(b"x", blob_id=False)


@pytest.mark.parametrize("end", ["drop", "discard", "abandon", "settle"])
async def test_the_descriptors_of_a_batch_are_closed(mount: Path, end: str) -> None:
    staging = await staging_in(mount)
    before = descriptors()
    for number in range(3):
        staging.add(planned(f"{number}", b"x"), b"x")
    assert len(descriptors() - before) == 4  # theirs, and the area's
    if end == "drop":
        await staging.drop("0")
    elif end == "discard":
        await staging.discard()
    elif end == "settle":
        await staging.settle()
    del staging
    assert descriptors() == before


async def test_a_finished_file_that_somebody_changed_is_read_again(mount: Path, staging: StagingArea) -> None:
    small = planned("a", b"right")
    write(staging, small, b"right")
    (area(mount) / "tree" / "a").write_bytes(b"wrong")
    assert await staging.digests(small) == digests_of(b"wrong", blob_id=False)


async def test_a_blob_id_that_nobody_asked_for_before_is_found_by_reading(staging: StagingArea) -> None:
    write(staging, planned("a", b"x"), b"x")
    assert await staging.digests(planned("a", b"x")) == digests_of(b"x", blob_id=False)
    assert await staging.digests(planned("a", b"x", lfs=False)) == digests_of(b"x")


# Many at once.


@pytest.mark.parametrize("directory", ["vfs", "vfolder"], indirect=True)
async def test_eight_writers_with_four_threads_each(directory: Storage) -> None:
    staging = await directory.storage.open_staging(TASK)
    files = {f"folder{number % 3}/{number}": DATA[number:] for number in range(8)}

    def bring(path: str) -> None:
        data = files[path]
        with staging.open_writer(planned(path, data)) as file, ThreadPoolExecutor(4) as threads:
            pieces = range(0, len(data), PIECE)
            list(
                threads.map(lambda begin: file.write(begin, memoryview(data)[begin : begin + PIECE]), pieces)
            )
            assert file.finish() == digests_of(data, blob_id=False)

    await asyncio.gather(*(asyncio.to_thread(bring, path) for path in files))
    again = await directory.storage.open_staging(TASK)
    assert await again.all_digests([planned(path, data) for path, data in files.items()]) == {
        path: digests_of(data, blob_id=False) for path, data in files.items()
    }
    assert look(directory.root) == {}


async def test_a_reader_that_breaks_off_leaves_no_descriptor(mount: Path, staging: StagingArea) -> None:
    write(staging, BIG, DATA)
    with pytest.raises(StorageFailure):
        await anext(aiter(staging.read("none")))
    reading = staging.read("a/big")
    await anext(reading)
    await reading.aclose()


async def test_nobody_else_may_look_into_staging(mount: Path, staging: StagingArea) -> None:
    write(staging, planned("a/b", b"x"), b"x")
    for path in (mount / ".staging", area(mount), area(mount) / "parts"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((area(mount) / "journal").stat().st_mode) == 0o600
