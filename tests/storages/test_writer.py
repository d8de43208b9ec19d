"""What a writer of a large file promises, above all across deaths. Pieces are small here."""

import asyncio
import ctypes
import errno
import json
import os
import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from proxy_client.errors import DiskFull, StorageError, StorageFailure
from storage_proxy.storages.base import StagingArea
from storage_proxy.storages.vfs import VFSStorage
from storage_proxy.volumes import fsio, journal, writer
from tests.storages.faults import KILLED, Broken, in_child
from tests.storages.models import digests_of, fill, planned, write
from tests.storages.pieces import (
    BIG,
    DATA,
    PIECE,
    TASK,
    WHOLE,
    area,
    part,
    reopened,
    staging_in,
    write_and_die,
    write_range,
)

pytestmark = pytest.mark.usefixtures("small_pieces", "nothing_left")


def test_a_killed_writers_successor_misses_at_most_a_piece_of_each_thread(mount: Path) -> None:
    write_and_die(mount, (0, 2 * PIECE + 5), (4 * PIECE, 5 * PIECE), (7 * PIECE, 9 * PIECE - 1))
    with reopened(mount).open_writer(BIG) as successor:
        assert successor.missing() == [
            (2 * PIECE, 4 * PIECE),
            (5 * PIECE, 7 * PIECE),
            (8 * PIECE, len(DATA)),
        ]
        fill(successor, DATA)
        assert successor.finish() == WHOLE
    assert (area(mount) / "tree" / "a" / "big").read_bytes() == DATA


def test_who_died_before_the_end_has_nothing_to_write_any_more(mount: Path) -> None:
    write_and_die(mount, (0, len(DATA)))
    with reopened(mount).open_writer(BIG) as successor:
        assert successor.missing() == []
        assert successor.finish() == WHOLE


def test_after_a_power_cut_only_what_was_durable_counts(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_SYNC", 2 * PIECE)

    async def work() -> None:
        file = (await staging_in(mount)).open_writer(BIG)
        for piece in range(7):
            write_range(file, piece * PIECE, (piece + 1) * PIECE)
            if isinstance(file, writer.DirectoryWriter) and file._sync is not None:
                file._sync.result()
        os._exit(KILLED)

    assert in_child(work) == KILLED
    entries = [json.loads(line) for line in (area(mount) / "journal").read_text().split()]
    durable = {piece for entry in entries if "boot" not in entry for piece, _ in entry["fills"]}
    assert durable == set(range(6))
    with reopened(mount).open_writer(BIG) as successor:
        assert successor.missing() == [(7 * PIECE, len(DATA))]
    # What a power cut may leave behind: garbage where nothing was synced.
    with part(mount).open("r+b") as file:
        file.seek(6 * PIECE)
        file.write(b"garbage" * 5000)
    monkeypatch.setattr(journal, "boot_id", lambda: "another boot")
    with reopened(mount).open_writer(BIG) as successor:
        assert successor.missing() == [(6 * PIECE, len(DATA))]
        fill(successor, DATA)
        assert successor.finish() == WHOLE


def test_pieces_are_said_to_be_durable_only_after_a_sync(
    mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_SYNC", PIECE)
    events: list[str] = []
    sync, record = fsio.fdatasync, journal.Journal.record_fills

    def synced(fd: int) -> None:
        sync(fd)
        events.append("synced")

    def recorded(*args: object, durable: bool) -> None:
        events.append(f"durable={durable}")
        record(*args, durable=durable)

    monkeypatch.setattr(fsio, "fdatasync", synced)
    monkeypatch.setattr(journal.Journal, "record_fills", recorded)
    with reopened(mount).open_writer(BIG) as file:
        write_range(file, 0, PIECE)
    assert events == ["durable=False", "synced", "durable=True"]


@pytest.mark.parametrize(
    "tail", [b'\n{"part":"a/big","fil', b"\n\0\0\0\0", b'\n{"part":"a/big"}\n', b"\n[]\n", b"\n\xff\xfe\n"]
)
def test_a_torn_journal_costs_nothing_but_its_end(mount: Path, tail: bytes) -> None:
    write_and_die(mount, (0, 5 * PIECE))
    with (area(mount) / "journal").open("ab") as torn:
        torn.write(tail)
    with reopened(mount).open_writer(BIG) as successor:
        assert successor.missing() == [(5 * PIECE, len(DATA))]
        fill(successor, DATA)
        successor.finish()
    assert b'"file":"a/big"' in (area(mount) / "journal").read_bytes()
    assert asyncio.run(reopened(mount).digests(BIG)) == WHOLE


def test_a_sync_that_is_late_takes_nothing_back(mount: Path, staging: StagingArea) -> None:
    book = journal.Journal()
    with VFSStorage("archive", mount)._mount() as root, fsio.opened(root, f".staging/{TASK}") as folder:
        book.record_fills(folder, "a/big", {0: PIECE, 1: PIECE}, durable=False)
        book.record_fills(folder, "a/big", {0: PIECE, 1: 100}, durable=True)
    assert book.fills("a/big") == {0: PIECE, 1: PIECE}


@pytest.mark.parametrize("size", [0, PIECE, len(DATA) + 1])
def test_a_part_that_somebody_cut_or_grew_begins_again(mount: Path, size: int) -> None:
    write_and_die(mount, (0, 9 * PIECE))
    os.truncate(part(mount), size)
    with reopened(mount).open_writer(BIG) as successor:
        assert successor.missing() == [(0, len(DATA))]
        assert part(mount).stat().st_size == 0
        write_range(successor, 8 * PIECE, 9 * PIECE)
    with reopened(mount).open_writer(BIG) as successor:
        assert successor.missing() == [(0, 8 * PIECE), (9 * PIECE, len(DATA))]
        fill(successor, DATA)
        assert successor.finish() == WHOLE


def test_a_part_that_is_gone_is_not_believed_in(mount: Path) -> None:
    write_and_die(mount, (0, 9 * PIECE))
    part(mount).unlink()
    with reopened(mount).open_writer(BIG) as successor:
        assert successor.missing() == [(0, len(DATA))]
        write_range(successor, 8 * PIECE, 9 * PIECE)
    with reopened(mount).open_writer(BIG) as successor:
        assert successor.missing() == [(0, 8 * PIECE), (9 * PIECE, len(DATA))]


# Hashing and buffers.


@pytest.mark.parametrize("lfs", [True, False], ids=["sha256", "blob id"])
@pytest.mark.parametrize("seed", range(4))
def test_the_hash_follows_whatever_the_order(mount: Path, seed: int, lfs: bool) -> None:
    # Ranges by four threads in any order, in buffers that are reused as soon as they are released.
    order = random.Random(seed)  # noqa: S311 -- the same in every run
    starts = list(range(0, len(DATA), PIECE))
    order.shuffle(starts)
    steps = [order.randrange(1000, 70_000) for _ in starts]
    file = planned("a/big", DATA, lfs=lfs)

    def put(start: int, step: int) -> None:
        stop = min(start + PIECE, len(DATA))
        for begin in range(start, stop, step):
            buffer = bytearray(DATA[begin : min(begin + step, stop)])
            view = memoryview(buffer)
            output.write(begin, view, lambda view=view: view.__setitem__(slice(None), b"\xff" * len(view)))

    with reopened(mount).open_writer(file) as output:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(put, starts, steps))
        assert output.finish() == digests_of(DATA, blob_id=not lfs)
    assert (area(mount) / "tree" / "a" / "big").read_bytes() == DATA


@pytest.mark.parametrize("end", ["finish", "restart", "close", "error", "broken hash", "takeover"])
def test_every_buffer_is_released_once_whatever_happens(
    mount: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    released: Counter[int] = Counter()
    offsets = [0, *range(4 * PIECE, 7 * PIECE, 9000), *range(100, 4 * PIECE, 9000)]
    stops = {0: 100} | {begin: min(begin + 9000, 7 * PIECE) for begin in offsets if begin >= 4 * PIECE}
    staging = reopened(mount)

    def release(begin: int) -> Callable[[], None]:
        return lambda: released.update([begin])

    with suppress(StorageError), staging.open_writer(BIG) as output:
        output.write(0, memoryview(b""), release(-1))
        for count, begin in enumerate(offsets):
            if count == 20:
                if end == "error":
                    monkeypatch.setattr(fsio, "os", Broken(errno.EIO, "pwrite"))
                if end == "broken hash":
                    monkeypatch.setattr(output, "_read_back", Broken(errno.EIO, "pread").pread)
                if end == "takeover":
                    reopened(mount)
            stop = stops.get(begin, min(begin + 9000, 4 * PIECE))
            with suppress(StorageError):
                output.write(begin, memoryview(DATA)[begin:stop], release(begin))
        if end == "finish":
            fill(output, DATA)
            output.finish()
        if end == "restart":
            output.restart()
            assert set(released.values()) == {1}
            output.write(0, memoryview(DATA)[:10], release(-2))
    expected = {-1, *offsets} | ({-2} if end == "restart" else set())
    assert released == dict.fromkeys(expected, 1)
    monkeypatch.undo()


def test_what_is_written_over_by_a_copy_is_hashed_again(staging: StagingArea, tmp_path: Path) -> None:
    other = b"?" + DATA[1:]
    (tmp_path / "source").write_bytes(other)
    with staging.open_writer(BIG) as file, (tmp_path / "source").open("rb") as source:
        write_range(file, 0, 3 * PIECE)
        file.copy_from(source.fileno())
        assert file.finish() == digests_of(other, blob_id=False)


# Errors.


def test_after_an_error_nothing_is_accepted_until_a_restart(
    staging: StagingArea, monkeypatch: pytest.MonkeyPatch
) -> None:
    with staging.open_writer(BIG) as file:
        write_range(file, 0, PIECE)
        with monkeypatch.context() as patch:
            patch.setattr(fsio, "os", Broken(errno.EIO, "pwrite"))
            with pytest.raises(StorageFailure, match="EIO"):
                write_range(file, PIECE, 2 * PIECE)
        for attempt in (lambda: write_range(file, PIECE, 2 * PIECE), file.finish, lambda: file.copy_from(0)):
            with pytest.raises(StorageFailure):
                attempt()
        file.restart()
        fill(file, DATA)
        assert file.finish() == WHOLE


@pytest.mark.parametrize("call", ["pwrite", "fdatasync", "rename", "write"])
def test_a_full_disk_is_said_and_leaves_a_usable_part(
    mount: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(writer, "_SYNC", PIECE)
    with reopened(mount).open_writer(BIG) as file:
        write_range(file, 0, 5 * PIECE)
    staging = reopened(mount)
    with monkeypatch.context() as patch:
        patch.setattr(fsio, "os", Broken(errno.ENOSPC, call))
        with pytest.raises(DiskFull) as raised:
            write(staging, BIG, DATA)
        assert str(mount) not in raised.value.message
    with staging.open_writer(BIG) as file:
        assert all(start >= 5 * PIECE for start, _ in file.missing())
        fill(file, DATA)
        assert file.finish() == WHOLE


def test_an_error_of_one_thread_is_the_error_of_all(
    staging: StagingArea, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_SYNC", PIECE)
    file = staging.open_writer(BIG)
    with monkeypatch.context() as patch:
        patch.setattr(fsio, "os", Broken(errno.ENOSPC, "fdatasync"))
        write_range(file, 0, PIECE)
        assert isinstance(file, writer.DirectoryWriter)
        assert file._sync is not None
        file._sync.exception()  # it has failed in the background
        with pytest.raises(DiskFull):
            write_range(file, PIECE, 2 * PIECE)
    with pytest.raises(DiskFull):
        file.finish()
    file.close()


def test_a_preallocation_that_finds_no_room_fails_the_opening(
    staging: StagingArea, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fsio, "_libc", _Allocation(errno.ENOSPC))
    with pytest.raises(DiskFull, match="ENOSPC"):
        staging.open_writer(BIG)
    # NFS before 4.2, some FUSE: no preallocation, no harm.
    monkeypatch.setattr(fsio, "_libc", _Allocation(errno.EOPNOTSUPP))
    assert write(staging, BIG, DATA) == WHOLE


class _Allocation:
    """Stands in for the C library: `fallocate` fails, and `sync_file_range` is not there."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._libc = fsio._libc

    def __getattr__(self, name: str) -> object:
        if name == "sync_file_range":
            raise AttributeError(name)
        return getattr(self._libc, name)

    def fallocate(self, *_: object) -> int:
        ctypes.set_errno(self._number)
        return -1


# Copies.


@pytest.mark.parametrize("number", [None, errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_copy_is_a_file_of_its_own(
    mount: Path, staging: StagingArea, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None
) -> None:
    if number is not None:
        monkeypatch.setattr(fsio, "os", Broken(number, "copy_file_range"))
    monkeypatch.setattr(writer, "_COPY", 3 * PIECE)
    (tmp_path / "source").write_bytes(DATA)
    with staging.open_writer(BIG) as file, (tmp_path / "source").open("rb") as source:
        source.seek(100)
        file.copy_from(source.fileno())
        assert file.finish() == WHOLE
        assert source.tell() == 100
    found, origin = (area(mount) / "tree" / "a" / "big").stat(), (tmp_path / "source").stat()
    assert (found.st_nlink, origin.st_nlink) == (1, 1)
    assert found.st_ino != origin.st_ino


def test_a_source_that_is_cut_while_it_is_copied_is_an_error(
    staging: StagingArea, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_COPY", PIECE)
    (tmp_path / "source").write_bytes(DATA)
    copy = fsio.copy_range

    def cut(source: int, target: int, offset: int, size: int) -> None:
        copy(source, target, offset, size)
        os.truncate(tmp_path / "source", 100)

    monkeypatch.setattr(fsio, "copy_range", cut)
    with staging.open_writer(BIG) as file, (tmp_path / "source").open("rb") as source:
        with pytest.raises(StorageFailure, match="EIO"):
            file.copy_from(source.fileno())
        with pytest.raises(StorageFailure):
            file.finish()
