"""The bytes of one import: threads that ask for ranges of files side by side and write them in place.

A small file is one request, one buffer and one write. A large one is cut into parts as threads become free; each part is
asked for by its own range, so that a file comes over as many connections as help. What a broken connection brought stays.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import structlog

from proxy_client.errors import (
    DigestMismatch,
    SourceError,
    SourceInvalid,
    SourceUnavailable,
    StorageError,
)
from storage_proxy.concurrency import to_the_end
from storage_proxy.imports.progress import ImportProgress
from storage_proxy.registries.base import AbstractRegistry, FileStream
from storage_proxy.registries.patience import Patience, RateFloor, RetryLater
from storage_proxy.settings import TransferSection
from storage_proxy.storages.base import PIECE, Digests, ImportPlan, PlannedFile, StagedWriter, StagingArea
from storage_proxy.transfer.buffers import SIZE, Buffers
from storage_proxy.transfer.connections import Stalled
from storage_proxy.transfer.gate import Claimant, ConnectionGate
from storage_proxy.transfer.line import Cut, Line
from storage_proxy.transfer.width import TICK, Width
from storage_proxy.verifiers.integrity import mismatch
from storage_proxy.volumes.direct import ALIGN
from storage_proxy.volumes.threads import Stopped, stopping_with

log = structlog.get_logger()

_PART = 64 << 20  # bytes of one request, at most
_TOGETHER = 16  # small files that are handed on at once
_BEHIND = 4  # full buffers that wait for disk and hash
# Connections to begin with. One is enough for a fast source, and brings a file in order.
_FEW = 4  # for large files
_MANY = 8  # for small ones
_ALONE = 1  # for one large file


@dataclass
class _Large:
    """A file that comes in parts. `gaps` are the ranges that nobody is fetching; `single`: over one connection only."""

    file: PlannedFile
    writer: StagedWriter | None = None
    gaps: list[tuple[int, int]] = field(default_factory=list)
    active: int = 0
    single: bool = False
    second: bool = False

    @property
    def size_of_gaps(self) -> int:
        return sum(stop - start for start, stop in self.gaps)


@dataclass
class _Part:
    """A range of a large file that one thread fetches; `at` is how far it is."""

    large: _Large
    at: int
    stop: int


class _NoRanges(Exception):
    """The registry answered with the whole file."""


@dataclass(frozen=True)
class Engine:
    """What all transfers of one worker share."""

    settings: TransferSection
    gate: ConnectionGate
    buffers: Buffers


class Transfer:
    """Fetches files of one import into a staging area. `arrived` is called, in the event loop, with each one that is whole and right."""

    def __init__(
        self,
        engine: Engine,
        plan: ImportPlan,
        staging: StagingArea,
        registry: AbstractRegistry,
        progress: ImportProgress,
        arrived: Callable[[PlannedFile, Digests], None],
    ) -> None:
        self._engine = engine
        self._settings = engine.settings
        self._plan = plan
        self._staging = staging
        self._registry = registry
        self._progress = progress
        self._arrived = arrived
        self._claimant = Claimant(registry.host, plan.requested_by, plan.task_id)
        self._line = Line()
        self._lock = threading.Lock()
        self._small: deque[PlannedFile] = deque()
        self._large: list[_Large] = []
        self._threads: set[threading.Thread] = set()
        self._left = 0
        self._done_files: list[tuple[PlannedFile, Digests]] = []
        self._fault: BaseException | None = None
        self._received = 0
        self._waited = 0.0
        self._width = Width(1)
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()

    async def run(self, files: Iterable[PlannedFile]) -> None:
        """Return when every file is there. Raises the first error that lasts; then, and when cancelled, nothing is at work any more."""
        for file in files:
            if file.size <= SIZE:
                self._small.append(file)
            else:
                self._large.append(_Large(file))
        self._left = len(self._small) + len(self._large)
        if not self._left:
            return
        self._width.now = _MANY if self._small else _ALONE if self._left == 1 else _FEW
        try:
            await self._follow()
        finally:
            self._line.cut()
            await to_the_end(self._end())
        if self._fault is not None:
            raise self._fault

    async def _follow(self) -> None:
        """Keep as many threads as the width allows, and adapt that."""
        received, waited, looked = 0, 0.0, time.monotonic()
        while not self._over.is_set():
            self._man()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), TICK)
            self._hand_on()
            now = time.monotonic()
            with self._lock:
                new, idle, threads = self._received - received, self._waited - waited, len(self._threads)
                received, waited = self._received, self._waited
            took, looked = now - looked, now
            hungry = idle / (took * threads) if threads else 0.0
            if self._engine.buffers.taken - threads > _BEHIND:
                hungry = 0.0  # disk and hash are behind: more connections would only bring more of what waits for them
            self._width.tick(new / took, hungry, self._engine.gate.bound(self._registry.host))

    def _man(self) -> None:
        with self._lock:
            wanted = min(self._width.now, self._work_left())
            for _ in range(wanted - len(self._threads)):
                thread = threading.Thread(target=self._work, name="fetch", daemon=True)
                self._threads.add(thread)
                thread.start()

    def _work_left(self) -> int:
        """Return how many threads could have something to do."""
        parts = sum(
            large.active + (1 if large.single or large.writer is None else -(-large.size_of_gaps // PIECE))
            for large in self._large
        )
        return len(self._small) + parts + len(self._threads) if self._small else parts

    async def _end(self) -> None:
        """Wait until no thread is at work, and keep what is there for the next attempt."""

        def join() -> None:
            for thread in tuple(self._threads):
                thread.join()
            for large in self._large:
                if large.writer is not None:
                    with suppress(StorageError):
                        large.writer.close()

        await asyncio.to_thread(join)
        with suppress(StorageError):
            await self._staging.settle()

    # What the threads do.

    def _work(self) -> None:
        stopping_with(self._line.event)
        try:
            while (work := self._next()) is not None:
                if isinstance(work, _Part):
                    self._fetch_part(work)
                else:
                    self._fetch_small(work)
        except (Cut, Stopped):
            pass
        except BaseException as exc:  # noqa: BLE001 -- a thread's run ends here; whoever runs the transfer meets the error
            self._fail(exc)
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _fail(self, exc: BaseException) -> None:
        with self._lock:
            self._fault = self._fault or exc
        self._line.cut()
        self._loop.call_soon_threadsafe(self._over.set)

    def _next(self) -> PlannedFile | _Part | None:
        """Take the next piece of work; None where there is none, or too many threads are at it."""
        with self._lock:
            self._line.check()
            if len(self._threads) > self._width.now:
                return None
            streams = sum(large.active for large in self._large)
            if self._small and streams >= max(1, self._width.now // 2):
                return self._small.popleft()
            part = self._next_part()
            if part is not None:
                return part
            return self._small.popleft() if self._small else None

    def _next_part(self) -> _Part | None:
        free = [
            large
            for large in self._large
            if (large.writer is None and not large.active)
            or (large.gaps and not (large.single and large.active))
        ]
        if not free:
            return None
        # Rather a file of its own for each connection than many for one: then the hashes run side by side too.
        chosen = min(free, key=lambda large: large.active)
        chosen.active += 1
        return self._cut(chosen)

    def _cut(self, large: _Large) -> _Part:
        """Cut the next part from a file's gaps; empty where the file is not opened yet."""
        if not large.gaps:
            return _Part(large, 0, 0)
        start, stop = large.gaps.pop(0)
        if large.single:
            large.gaps.clear()
            return _Part(large, start, large.file.size)
        left = sum(other.size_of_gaps for other in self._large) + stop - start
        size = max(PIECE, min(_PART, left // (4 * self._width.now)))
        end = min(stop, max(start // PIECE + 1, (start + size) // PIECE) * PIECE)
        if end < stop:
            large.gaps.insert(0, (end, stop))
        return _Part(large, start, end)

    # A large file.

    def _fetch_part(self, part: _Part) -> None:
        large = part.large
        if large.writer is None:
            self._open(large)
            with self._lock:
                part = self._cut(large) if large.gaps else part
        try:
            self._insist(part)
        except _NoRanges:
            with self._lock:
                large.single = True
                large.gaps = sorted([*large.gaps, (part.at, part.stop)])
                large.active -= 1
            return
        with self._lock:
            large.active -= 1
            whole = not large.active and not large.gaps
        if whole:
            self._finish(large)

    def _open(self, large: _Large) -> None:
        writer = self._staging.open_writer(large.file)
        gaps = writer.missing()
        with self._lock:
            large.writer, large.gaps = writer, gaps
            self._progress.have(large.file.size - large.size_of_gaps)

    def _insist(self, part: _Part) -> None:
        """Fetch a part with as many tries as it takes. Raises the error that lasts, or `_NoRanges`."""
        patience = Patience(self._settings, self._settings.retries, self._line)
        floor = RateFloor(self._settings)
        while part.at < part.stop:
            furthest = part.at
            try:
                with self._asked(part.large.file, part.at, part.stop) as stream:
                    self._receive(part, stream, floor)
            except SourceError as fault:
                patience.progressed(part.at - furthest)
                self._wait(patience, fault)

    @contextmanager
    def _asked(self, file: PlannedFile, start: int, stop: int) -> Iterator[FileStream]:
        opening = self._registry.open_range(
            self._plan.model_id, self._plan.commit, file, start, stop, self._line
        )
        with self._engine.gate.connection(self._claimant, self._line):
            asked = time.monotonic()
            with opening as stream:
                self._wait_ended(time.monotonic() - asked)
                yield stream

    def _wait_ended(self, seconds: float) -> None:
        """Count how long a receiver waited for the source."""
        with self._lock:
            self._waited += seconds

    def _wait(self, patience: Patience, fault: SourceError) -> None:
        if isinstance(fault, RetryLater):
            longest = self._settings.retry_after_max
            pause = fault.seconds if fault.seconds is not None and fault.seconds <= longest else None
            self._engine.gate.complained(self._registry.host, pause)
        elif isinstance(fault, Stalled):
            self._engine.gate.complained(self._registry.host)
        log.info(
            "the registry is asked again",
            host=self._registry.host,
            reason=str(fault),
            task_id=str(self._plan.task_id),
        )
        patience.wait(fault)

    def _receive(self, part: _Part, stream: FileStream, floor: RateFloor) -> None:
        large, at = part.large, stream.offset
        writer = large.writer
        assert writer is not None  # noqa: S101 -- a part is cut from an opened file
        if (at, stream.stop) != (part.at, part.stop):
            self._take_whole(part)
        # Over one connection, everything from here on is this thread's; some of it may be there already.
        missing = writer.missing() if large.single else [(part.at, part.stop)]
        while at < part.stop:
            buffer = self._engine.buffers.take(self._line)
            # After a break in the middle of a block: the one after this buffer begins with a block again.
            view = buffer[: min(SIZE - at % ALIGN, part.stop - at)]
            filled = 0
            try:
                while filled < len(view):
                    filled += self._read(part.large.file, stream, view[filled:], floor)
                if at + filled == part.stop:
                    self._insist_on_end(part.large.file, stream)
            except SourceInvalid:
                self._engine.buffers.give_back(buffer)
                raise
            except BaseException:
                self._put(part, writer, at, buffer, filled, missing)
                raise
            self._put(part, writer, at, buffer, filled, missing)
            at += filled
        part.at = part.stop

    def _take_whole(self, part: _Part) -> None:
        """Read on to the file's end, since the registry sends all of it. Raises `_NoRanges` if others are at that file."""
        large = part.large
        with self._lock:
            if large.active > 1:
                raise _NoRanges
            large.single = True
            large.gaps.clear()
            part.stop = large.file.size

    def _put(
        self,
        part: _Part,
        writer: StagedWriter,
        at: int,
        buffer: memoryview,
        filled: int,
        missing: list[tuple[int, int]],
    ) -> None:
        """Write what of a buffer is not there yet."""
        ranges = [
            (max(at, start), min(at + filled, stop))
            for start, stop in missing
            if start < at + filled and stop > at
        ]
        if not ranges:
            self._engine.buffers.give_back(buffer)
            return
        release = self._engine.buffers.returning(buffer, len(ranges))
        for number, (start, stop) in enumerate(ranges, start=1):
            try:
                writer.write(start, buffer[start - at : stop - at], release)
            except BaseException:
                for _ in ranges[number:]:
                    release()
                raise
            self._count(stop - start)
            part.at = stop

    def _count(self, size: int) -> None:
        with self._lock:
            self._received += size
        self._progress.received(size)

    def _read(self, file: PlannedFile, stream: FileStream, view: memoryview, floor: RateFloor) -> int:
        asked = time.monotonic()
        count = stream.readinto(view)
        waited = time.monotonic() - asked
        self._wait_ended(waited)
        if not count:
            raise SourceUnavailable(f"the registry ended {file.path} before its {file.size} bytes were there")
        floor.count(count, waited)
        return count

    @staticmethod
    def _insist_on_end(file: PlannedFile, stream: FileStream) -> None:
        if stream.readinto(memoryview(bytearray(1))):
            raise SourceInvalid(
                f"the registry sends more than the {file.size} bytes it states for {file.path}"
            )

    def _finish(self, large: _Large) -> None:
        writer = large.writer
        assert writer is not None  # noqa: S101 -- it was written to
        found = writer.finish()
        writer.close()
        if large.file.matches(found):
            self._done(large.file, found)
            return
        if large.second:
            raise DigestMismatch(f"{mismatch(large.file, found)} (fetched twice)")
        # Once more, over one connection: some network file systems mix up what is written side by side.
        self._progress.have(-large.file.size)
        again = self._staging.open_writer(large.file)
        again.restart()
        with self._lock:
            large.second = large.single = True
            large.writer, large.gaps = again, [(0, large.file.size)]

    # A small file.

    def _fetch_small(self, file: PlannedFile) -> None:
        found = self._take_small(file)
        if not file.matches(found):
            self._progress.have(-file.size)
            found = self._take_small(file)
        if not file.matches(found):
            raise DigestMismatch(f"{mismatch(file, found)} (fetched twice)")
        self._done(file, found)

    def _take_small(self, file: PlannedFile) -> Digests:
        patience = Patience(self._settings, self._settings.retries, self._line)
        floor = RateFloor(self._settings)
        buffer = self._engine.buffers.take(self._line)
        filled = 0
        try:
            while filled < file.size:
                try:
                    with self._asked(file, filled, file.size) as stream:
                        if stream.offset != filled:
                            self._progress.have(-filled)
                            filled = 0
                        while filled < file.size:
                            count = self._read(file, stream, buffer[filled : file.size], floor)
                            self._count(count)
                            filled += count
                            patience.progressed(count)
                        self._insist_on_end(file, stream)
                except SourceInvalid as fault:
                    # What came may be anything: nothing of this file is kept.
                    self._progress.have(-filled)
                    filled = 0
                    self._wait(patience, fault)
                except SourceError as fault:
                    self._wait(patience, fault)
            return self._staging.add(file, buffer[: file.size])
        finally:
            self._engine.buffers.give_back(buffer)

    def _done(self, file: PlannedFile, found: Digests) -> None:
        self._progress.file_done()
        with self._lock:
            self._left -= 1
            self._done_files.append((file, found))
            # A wake-up of the event loop costs as much as a small file: those go together, at the latest with the next look.
            waking = not self._left or len(self._done_files) == _TOGETHER or file.size > SIZE
        if waking:
            self._loop.call_soon_threadsafe(self._hand_on)

    def _hand_on(self) -> None:
        with self._lock:
            done, self._done_files = self._done_files, []
            last = not self._left
        for file, found in done:
            self._arrived(file, found)
        if last:
            self._over.set()
