"""What goes past the page cache: only what comes in order and aligned, and as safely as everything else. Pieces are small here."""

import asyncio
import errno
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from proxy_client.errors import DiskFull, StorageError
from storage_proxy.storages.base import StagedWriter
from storage_proxy.volumes import fsio, writer
from storage_proxy.volumes.direct import ALIGN, DirectFile, is_aligned
from tests.storages.faults import KILLED, in_child
from tests.storages.models import aligned, digests_of, fill, planned
from tests.storages.pieces import area, part, reopened, staging_in

PIECE = 1 << 16
DATA = random.Random(2).randbytes(40 * PIECE + 777)  # noqa: S311 -- the same in every run
BIG = planned("a/big", DATA)
WHOLE = digests_of(DATA, blob_id=False)

pytestmark = pytest.mark.usefixtures("small_pieces", "nothing_left")


@pytest.fixture(autouse=True)
def on_such_a_file_system(tmp_path: Path) -> None:
    with (tmp_path / "probe").open("wb") as probe:
        direct = DirectFile.of(probe.fileno())
    if direct is None:
        pytest.skip("the file system of the temporary folder has no O_DIRECT, or is neither ext4 nor XFS")
    direct.close()


def put(output: StagedWriter, start: int, stop: int, step: int = 2 * ALIGN) -> None:
    """Write a range as a transfer does: from buffers that hold something else as soon as they are released."""
    at = start
    while at < stop:
        size = min(step - at % ALIGN, stop - at)
        view = aligned(DATA[at : at + size])
        output.write(at, view, lambda view=view: view.__setitem__(slice(None), b"\xff" * len(view)))  # type: ignore[misc]
        at += size


class Spy:
    """Stands in for `fsio.write_vector`."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, strike: Callable[[int], None] = lambda _: None
    ) -> None:
        self.calls: list[tuple[int, int]] = []
        self._strike = strike
        self._write = fsio.write_vector
        monkeypatch.setattr(fsio, "write_vector", self)

    def __call__(self, fd: int, views: Sequence[memoryview], offset: int) -> int:
        self._strike(len(self.calls))
        self.calls.append((offset, sum(map(len, views))))
        return self._write(fd, views, offset)

    @property
    def size(self) -> int:
        return sum(size for _, size in self.calls)


def failing(number: int, at: int) -> Callable[[int], None]:
    def strike(count: int) -> None:
        if count >= at:
            raise OSError(number, os.strerror(number))

    return strike


def test_what_comes_in_order_goes_past_the_page_cache(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    with reopened(mount).open_writer(BIG) as output:
        put(output, 0, len(DATA))
        assert output.finish() == WHOLE
    assert (area(mount) / "tree" / "a" / "big").read_bytes() == DATA
    assert spy.size == len(DATA) // ALIGN * ALIGN
    assert all(offset % ALIGN == size % ALIGN == 0 for offset, size in spy.calls)


def test_what_is_ahead_of_the_hash_or_unaligned_does_not(
    mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(monkeypatch)
    with reopened(mount).open_writer(BIG) as output:
        put(output, 5 * PIECE, 9 * PIECE)
        for at in range(0, 5 * PIECE, 10_000):
            output.write(at, memoryview(DATA)[at : min(at + 10_000, 5 * PIECE)])
        assert spy.calls == []
        fill(output, DATA)
        assert output.finish() == WHOLE


def test_after_a_break_in_the_middle_of_a_block_it_goes_on(
    mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(monkeypatch)
    with reopened(mount).open_writer(BIG) as output:
        for start, stop in ((0, 5000), (5000, 5001), (5001, 3 * PIECE + 1), (3 * PIECE + 1, len(DATA))):
            put(output, start, stop)
        assert output.finish() == WHOLE
    assert spy.size > len(DATA) - 4 * 2 * ALIGN


@pytest.mark.parametrize("seed", range(6))
def test_any_mixture_is_exact(mount: Path, seed: int) -> None:
    order = random.Random(seed)  # noqa: S311 -- the same in every run
    ranges = [(at, min(at + 4 * PIECE, len(DATA))) for at in range(0, len(DATA), 4 * PIECE)]
    if seed % 2:
        order.shuffle(ranges)
    steps = [order.choice([ALIGN, 3 * ALIGN, 70_000, 9 * ALIGN]) for _ in ranges]

    with reopened(mount).open_writer(BIG) as output:
        with ThreadPoolExecutor(1 + seed % 3) as threads:
            list(threads.map(lambda found: put(output, *found[0], found[1]), zip(ranges, steps, strict=True)))
        assert output.missing() == []
        assert output.finish() == WHOLE
    assert (area(mount) / "tree" / "a" / "big").read_bytes() == DATA


@pytest.mark.parametrize("at", [0, 3])
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_that_refuses_gets_it_the_other_way(
    mount: Path, monkeypatch: pytest.MonkeyPatch, number: int, at: int
) -> None:
    spy = Spy(monkeypatch, failing(number, at))
    with reopened(mount).open_writer(BIG) as output:
        put(output, 0, len(DATA))
        assert output.finish() == WHOLE
    assert len(spy.calls) == at
    assert (area(mount) / "tree" / "a" / "big").read_bytes() == DATA


def test_a_call_that_writes_less_is_gone_on_with(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = fsio.write_vector

    def less(fd: int, views: Sequence[memoryview], offset: int) -> int:
        return write(fd, [views[0][:ALIGN]], offset)

    monkeypatch.setattr(fsio, "write_vector", less)
    with reopened(mount).open_writer(BIG) as output:
        put(output, 0, len(DATA), 3 * ALIGN)
        assert output.finish() == WHOLE


@pytest.mark.parametrize("end", ["finish", "close", "restart"])
@pytest.mark.parametrize("at", [0, 2])
def test_a_full_disk_is_the_next_calls_error_and_no_buffer_is_kept(
    mount: Path, monkeypatch: pytest.MonkeyPatch, at: int, end: str
) -> None:
    released: Counter[int] = Counter()
    written = 0
    staging = reopened(mount)
    output = staging.open_writer(BIG)

    def write_all() -> None:
        nonlocal written
        for begin in range(0, len(DATA), ALIGN):
            written += 1
            output.write(
                begin,
                aligned(DATA[begin : begin + ALIGN]),
                lambda begin=begin: released.update([begin]),  # type: ignore[misc]
            )
        output.finish()

    with monkeypatch.context() as patch:
        Spy(patch, failing(errno.ENOSPC, at))
        with pytest.raises(DiskFull):
            write_all()
    if end == "finish":
        with pytest.raises(DiskFull):
            output.finish()
    if end == "restart":
        output.restart()
        put(output, 0, len(DATA))
        assert output.finish() == WHOLE
    output.close()
    assert set(released.values()) == {1}
    assert len(released) == written
    if end != "restart":
        with staging.open_writer(BIG) as successor:
            assert sum(stop - start for start, stop in successor.missing()) <= len(DATA)
            fill(successor, DATA)
            assert successor.finish() == WHOLE


def test_closing_keeps_what_was_under_way(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(monkeypatch)
    with reopened(mount).open_writer(BIG) as output:
        put(output, 0, 7 * PIECE)
    assert spy.size == 7 * PIECE
    with reopened(mount).open_writer(BIG) as successor:
        assert successor.missing() == [(7 * PIECE, len(DATA))]
        fill(successor, DATA)
        assert successor.finish() == WHOLE


def test_who_is_killed_loses_less_than_what_may_be_under_way(
    mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, buffer = 30 * PIECE, 4 * ALIGN

    async def work() -> None:
        put((await staging_in(mount)).open_writer(BIG), 0, stop, buffer)
        os._exit(KILLED)

    assert in_child(work) == KILLED
    with reopened(mount).open_writer(BIG) as successor:
        ((start, end),) = successor.missing()
        assert end == len(DATA)
        assert start >= stop - writer._UNDER_WAY * buffer
        put(successor, start, end)
        assert successor.finish() == WHOLE


def test_a_taken_over_writer_writes_nothing_more(mount: Path) -> None:
    with suppress(StorageError), reopened(mount).open_writer(BIG) as output:
        put(output, 0, PIECE)
        asyncio.run(staging_in(mount))
        before = part(mount).stat()
        with pytest.raises(StorageError, match="taken over"):
            put(output, PIECE, len(DATA))
        assert part(mount).stat().st_size <= before.st_size + 2 * PIECE


def test_memory_that_begins_elsewhere_is_told_apart() -> None:
    memory = aligned(b"x" * 3 * ALIGN)
    assert is_aligned(0, memory)
    assert is_aligned(ALIGN, memory[ALIGN:])
    assert not is_aligned(1, memory)
    assert not is_aligned(0, memory[1:])
    assert not is_aligned(0, memory[: ALIGN - 1])
    assert not is_aligned(0, memory.toreadonly())


def test_where_there_is_no_such_way_nothing_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "file").open("wb") as file:
        found: Any = DirectFile.of(file.fileno())
        assert found is not None
        found.close()
        monkeypatch.delattr(os, "O_DIRECT")
        assert DirectFile.of(file.fileno()) is None
    with Path("/proc/self/clear_refs").open("wb") as file:
        monkeypatch.undo()
        assert DirectFile.of(file.fileno()) is None
