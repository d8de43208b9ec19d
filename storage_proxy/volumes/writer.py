"""One large file on its way into a staging area: written in place by several threads, hashed behind them.

The pieces that are there are written to the journal as they fill up, at no cost, and every now and then once more
when a sync in the background has made them durable. The hash follows the part of the file that is whole from its start on.

What comes in order, in aligned buffers, goes past the page cache by a thread of its own, and is hashed from those buffers. What is ahead of
the hash, or unaligned, goes through the page cache, and is read from there. Nothing is read twice from a cold disk.
"""

import fcntl
import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import NamedTuple

from proxy_client.errors import StorageError, StorageFailure
from storage_proxy.storages.base import PIECE, Digests, PlannedFile, StagedWriter
from storage_proxy.volumes import fsio, threads
from storage_proxy.volumes.area import TREE, Area, part_of
from storage_proxy.volumes.beneath import open_beneath
from storage_proxy.volumes.direct import ALIGN, DirectFile, is_aligned
from storage_proxy.volumes.paths import shown
from storage_proxy.volumes.threads import stop_point

_SYNC = 64 << 20  # bytes between two syncs in the background
_FICLONE = 0x40049409  # linux/fs.h
_COPY = 8 << 20  # bytes copied between two looks at whether anybody still wants them
# Buffers on their way to the disk, at most, and those of one call: what a killed process loses of a connection stays below a piece.
_UNDER_WAY = 14
_TOGETHER = 7


def _nothing() -> None:
    pass


class _Queued(NamedTuple):
    """A buffer on its way to the disk."""

    offset: int
    data: memoryview
    release: Callable[[], None]

    @property
    def stop(self) -> int:
        """Where it ends in the file."""
        return self.offset + len(self.data)


class DirectoryWriter(StagedWriter):
    """A file in the parts of an `Area`. After an error nothing is accepted until `restart`."""

    def __init__(self, area: Area, file: PlannedFile) -> None:
        self.size = file.size
        self._file = file
        self._area = area
        self._doing = f"writing {shown(file.path)}"
        self._lock = threading.Lock()
        # Who waits for what, all under one lock: a wake-up that nobody needs costs more than a buffer.
        self._to_write = threading.Condition(self._lock)
        self._to_hash = threading.Condition(self._lock)
        self._changed = threading.Condition(self._lock)
        self._folder = -1
        self._fd = -1
        self._direct: DirectFile | None = None
        self._queue: deque[_Queued] = deque()
        self._queue_end = 0
        self._behind: threading.Thread | None = None
        self._writing = 0
        self._fault: Exception | None = None
        self._fills: dict[int, int] = {}
        self._noted: dict[int, int] = {}
        self._undurable: dict[int, int] = {}
        self._unsynced = 0
        self._sync: Future[None] | None = None
        self._hasher: threading.Thread | None = None
        self._stopping = False
        self._spare: memoryview | None = None
        self._waiting: dict[int, _Queued] = {}
        self._forget_hash()
        with fsio.translated(self._doing):
            try:
                self._open()
            except BaseException:
                self._close_files()
                raise

    # What is there.

    def _open(self) -> None:
        with self._area.open() as area:
            self._area.insist_on_claim(area)
            self._folder = os.dup(area)
        self._area.journal.refresh(self._folder)
        self._fills = self._area.journal.fills(self._file.path)
        part = part_of(self._file.path)
        try:
            self._fd = open_beneath(self._folder, part, os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError:
            self._fd = fsio.create(self._folder, part, self._area.modes)
        self._area.modes.apply(self._fd)
        self._direct = DirectFile.of(self._fd)
        found = os.fstat(self._fd).st_size
        claimed = max((piece * PIECE + fill for piece, fill in self._fills.items()), default=0)
        if (
            found > self.size
            or claimed > found
            or any(fill > self._length(n) for n, fill in self._fills.items())
        ):
            # Not what the journal speaks of: somebody else was here.
            self._begin_again()
        self._noted, self._undurable = dict(self._fills), dict(self._fills)
        if found < self.size:
            fsio.allocate(self._fd, self.size)
        self._advance()

    def _length(self, piece: int) -> int:
        """Return how long a piece is; 0 beyond the end."""
        return max(0, min(PIECE, self.size - piece * PIECE))

    def missing(self) -> list[tuple[int, int]]:
        gaps: list[tuple[int, int]] = []
        self._settle_queue()
        with self._lock:
            for piece in range(-(-self.size // PIECE)):
                start = piece * PIECE + self._fills.get(piece, 0)
                stop = piece * PIECE + self._length(piece)
                if start == stop:
                    continue
                if gaps and gaps[-1][1] == start:
                    gaps[-1] = (gaps[-1][0], stop)
                else:
                    gaps.append((start, stop))
        return gaps

    # Writing.

    def write(self, offset: int, data: memoryview, release: Callable[[], None] = _nothing) -> None:
        buffer, handed_on = _Queued(offset, data, release), False
        try:
            with fsio.translated(self._doing), self._guarded():
                if buffer.stop > self.size:
                    raise StorageFailure(f"{shown(self._file.path)} is longer than {self.size} bytes")
                if handed_on := self._queues(buffer):
                    return
                if offset == self._queue_end:
                    self._settle_queue()
                self._guarded()  # the writing may have failed while this call waited
                self._area.insist_on_claim(self._folder)
                fsio.write_at(self._fd, data, offset)
                handed_on = True
                whole = self._filled([buffer])
                for piece, length in whole.items():
                    fsio.start_writing_back(self._fd, piece * PIECE, length)
                self._note(whole)
        finally:
            if not handed_on:
                release()

    def _queues(self, buffer: _Queued) -> bool:
        """Leave a buffer to the thread that writes past the page cache, if it follows what is there in order."""
        if self._direct is None or not is_aligned(buffer.offset, buffer.data):
            return False
        with self._lock:
            while self._in_order(buffer) and len(self._queue) + self._writing >= _UNDER_WAY:
                self._changed.wait(timeout=0.5)
                stop_point()
            if not self._in_order(buffer):
                return False
            self._queue.append(buffer)
            self._queue_end = buffer.stop
            if self._behind is None:
                self._behind = threading.Thread(target=self._write_behind, name="write", daemon=True)
                self._behind.start()
            self._to_write.notify()
        return True

    def _in_order(self, buffer: _Queued) -> bool:
        end = self._queue_end if self._queue or self._writing else self._frontier
        return buffer.offset == end and self._at_work

    def _write_behind(self) -> None:
        batch: list[_Queued] = []
        try:
            while batch := self._next_batch():
                self._area.insist_on_claim(self._folder)
                self._write_directly(batch)
                written, batch = batch, []
                self._filled(written)
                pieces = range(written[0].offset // PIECE, (written[-1].stop - 1) // PIECE + 1)
                self._note({piece: self._fills[piece] for piece in pieces})
        except Exception as exc:  # noqa: BLE001 -- a thread's run ends here; whoever goes on meets the error
            self._failed(exc)
        finally:
            with self._lock:
                batch.extend(self._queue)
                self._queue.clear()
                self._writing, self._behind = 0, None
                self._changed.notify_all()
            for left in batch:
                left.release()

    def _next_batch(self) -> list[_Queued]:
        """Take what one call writes; nothing where nothing more comes."""
        with self._lock:
            self._writing = 0
            self._changed.notify_all()
            while not self._queue and self._at_work:
                self._to_write.wait()
            if self._fault is not None:
                return []
            batch = [self._queue.popleft() for _ in range(min(_TOGETHER, len(self._queue)))]
            self._writing = len(batch)
            return batch

    def _write_directly(self, batch: list[_Queued]) -> None:
        """Write buffers that follow each other; only the last one may end within a block."""
        views = [queued.data for queued in batch]
        rest = len(views[-1]) % ALIGN
        last = views[-1]
        if rest:
            views[-1] = last[:-rest]
        if self._direct is not None and not self._direct.write(batch[0].offset, views):
            self._direct.close()
            self._direct = None
        if self._direct is None:
            for queued in batch:
                fsio.write_at(self._fd, queued.data, queued.offset)
        elif rest:
            fsio.write_at(self._fd, last[-rest:], batch[-1].stop - rest)

    def _settle_queue(self) -> None:
        """Wait until everything that was queued is written, or the writing failed."""
        with self._lock:
            while (self._queue or self._writing) and self._fault is None:
                self._changed.wait(timeout=1.0)
                stop_point()

    def _guarded(self) -> "_Guard":
        if isinstance(self._fault, OSError):
            raise fsio.storage_error(self._fault, self._doing) from self._fault
        if isinstance(self._fault, StorageError):
            raise type(self._fault)(self._fault.message) from self._fault
        if self._fault is not None:
            raise StorageFailure(f"an earlier write to {shown(self._file.path)} failed") from self._fault
        return _Guard(self)

    def _filled(self, written: list[_Queued]) -> dict[int, int]:
        """Count buffers that were written, and hand them to the hash if it comes to them next; return which pieces are whole now.

        Each is released, here or by the hash.
        """
        whole: dict[int, int] = {}
        left, free = deque(written), []
        try:
            with self._lock:
                while left:
                    self._count(left[0], whole)
                    buffer = left.popleft()
                    if len(buffer.data) and buffer.offset == self._frontier and self._at_work:
                        self._waiting[buffer.offset] = buffer
                    else:
                        free.append(buffer)
                    self._advance()
                self._start_hasher()
                self._to_hash.notify()
                self._changed.notify_all()
        finally:
            for buffer in (*free, *left):
                buffer.release()
        return whole

    @property
    def _at_work(self) -> bool:
        return not self._stopping and self._fault is None

    def _count(self, buffer: _Queued, whole: dict[int, int]) -> None:
        begin, size = buffer.offset, len(buffer.data)
        while size:
            piece, inside = divmod(begin, PIECE)
            if self._fills.get(piece, 0) != inside:
                raise StorageFailure(f"{shown(self._file.path)} is not written from front to back")
            count = min(size, PIECE - inside)
            self._fills[piece] = inside + count
            if inside + count == self._length(piece):
                whole[piece] = inside + count
            begin, size = begin + count, size - count

    def _note(self, fills: dict[int, int]) -> None:
        """Write down how far pieces are, and have that made durable every now and then."""
        if not fills:
            return
        self._area.journal.record_fills(self._folder, self._file.path, fills, durable=False)
        with self._lock:
            self._unsynced += sum(fill - self._noted.get(piece, 0) for piece, fill in fills.items())
            self._noted.update(fills)
            self._undurable.update(fills)
            if self._unsynced < _SYNC or (self._sync is not None and not self._sync.done()):
                return
            fills, self._undurable, self._unsynced = self._undurable, {}, 0
            self._sync = threads.background.submit(self._make_durable, fills)

    def _make_durable(self, fills: dict[int, int]) -> None:
        with self._guarded():
            fsio.fdatasync(self._fd)
            self._area.insist_on_claim(self._folder)
            self._area.journal.record_fills(self._folder, self._file.path, fills, durable=True)

    def _settle_sync(self) -> None:
        if (sync := self._sync) is not None:
            with suppress(Exception):  # it is in `_fault`, which whoever goes on meets
                sync.result()
            self._sync = None

    def copy_from(self, fd: int) -> None:
        with fsio.translated(self._doing), self._guarded():
            self._settle_queue()
            if os.fstat(fd).st_size != self.size:
                raise StorageFailure(f"the copy of {shown(self._file.path)} has another size than it should")
            self._area.insist_on_claim(self._folder)
            if self.size and not self._cloned(fd):
                for begin in range(0, self.size, _COPY):
                    stop_point()
                    self._area.insist_on_claim(self._folder)
                    fsio.copy_range(fd, self._fd, begin, min(_COPY, self.size - begin))
            # What was hashed before may have been overwritten with something else.
            self._stop_threads()
            self._forget_hash()
            with self._lock:
                for piece in range(-(-self.size // PIECE)):
                    self._fills[piece] = self._length(piece)
                self._advance()
                self._start_hasher()
                self._to_hash.notify()

    def _cloned(self, fd: int) -> bool:
        try:
            fcntl.ioctl(self._fd, _FICLONE, fd)
        except OSError:
            return False
        return True

    def restart(self) -> None:
        with fsio.translated(self._doing):
            self._stop_threads()
            self._settle_sync()
            self._area.insist_on_claim(self._folder)
            self._begin_again()
            self._fault = None
            self._forget_hash()

    def _begin_again(self) -> None:
        self._area.journal.record_restart(self._folder, self._file.path)
        fsio.truncate(self._fd, 0)
        self._fills, self._noted, self._undurable, self._unsynced = {}, {}, {}, 0

    # Hashing.

    def _forget_hash(self) -> None:
        self._sha256 = hashlib.sha256()
        self._blob = fsio.blob_hash(self.size) if self._file.wants_blob_id else None
        self._hashed = 0
        self._frontier = 0

    def _advance(self) -> None:
        """Move the frontier to where the file is no longer whole from its start on."""
        piece = self._frontier // PIECE
        while piece * PIECE < self.size and self._fills.get(piece, 0) == self._length(piece):
            piece += 1
        self._frontier = min(self.size, piece * PIECE + self._fills.get(piece, 0))

    def _start_hasher(self) -> None:
        if self._hasher is None and not self._stopping:
            self._hasher = threading.Thread(target=self._hash, name="hash", daemon=True)
            self._hasher.start()

    def _hash(self) -> None:
        batch: list[_Queued] = []
        try:
            while (work := self._next_to_hash()) is not None:
                begin, end, batch = work
                if not batch:
                    data = self._read_back(begin, end)
                    self._update(data)
                    end = begin + len(data)
                while batch:
                    self._update(batch[-1].data)
                    batch.pop().release()
                with self._lock:
                    self._hashed = end
                    self._changed.notify_all()
        except Exception as exc:  # noqa: BLE001 -- a thread's run ends here; whoever waits for the hash meets the error
            self._failed(exc)
        finally:
            for left in batch:
                left.release()
            self._release_waiting()

    def _next_to_hash(self) -> tuple[int, int, list[_Queued]] | None:
        """Return the next range, with the buffers that hold it, the first one last; without any it is read back."""
        with self._lock:
            while self._hashed >= self._frontier and self._at_work:
                self._to_hash.wait()
            if not self._at_work:
                return None
            begin = end = self._hashed
            batch: list[_Queued] = []
            while len(batch) < _TOGETHER and (found := self._waiting.pop(end, None)) is not None:
                batch.append(found)
                end = found.stop
            if not batch:
                end = min([self._frontier, *self._waiting])
            return begin, end, batch[::-1]

    def _update(self, data: memoryview) -> None:
        self._sha256.update(data)
        if self._blob is not None:
            self._blob.update(data)

    def _read_back(self, begin: int, end: int) -> memoryview:
        if self._spare is None:
            self._spare = memoryview(bytearray(fsio.CHUNK))
        view = self._spare[: min(len(self._spare), end - begin)]
        count = os.preadv(self._fd, [view], begin)
        if not count:
            raise StorageFailure(f"{shown(self._file.path)} was cut while it was written")
        return view[:count]

    def _failed(self, exc: Exception) -> None:
        with self._lock:
            self._fault = self._fault or exc
            self._wake_all()

    def _wake_all(self) -> None:
        for condition in (self._to_write, self._to_hash, self._changed):
            condition.notify_all()

    def _release_waiting(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for left in waiting.values():
            left.release()

    def _stop_threads(self) -> None:
        with self._lock:
            at_work = (self._behind, self._hasher)
            self._hasher = None
            self._stopping = True
            self._wake_all()
        for thread in at_work:
            if thread is not None:
                thread.join()
        self._release_waiting()
        with self._lock:
            self._stopping = False

    # The end.

    def finish(self) -> Digests:
        with fsio.translated(self._doing), self._guarded():
            self._settle_queue()
            if self._fault is not None:
                raise self._fault
            with self._lock:
                if self._frontier != self.size:
                    raise StorageFailure(f"{shown(self._file.path)} is not whole")
                if self.size:
                    self._start_hasher()
                while self._hashed < self.size and self._fault is None:
                    self._changed.wait(timeout=1.0)
                    stop_point()
            self._settle_sync()
            if self._fault is not None:
                raise self._fault
            fsio.fdatasync(self._fd)
            found = Digests(
                self.size,
                self._sha256.hexdigest(),
                self._blob.hexdigest() if self._blob is not None else None,
            )
            target = f"{TREE}/{self._file.path}"
            self._area.insist_on_claim(self._folder)
            above = target.rpartition("/")[0]
            fsio.make_folders(self._folder, above, self._area.modes, durable=False)
            fsio.rename(self._folder, part_of(self._file.path), self._folder, target)
            identity = fsio.Identity.of(os.fstat(self._fd))
            self._area.journal.record_finished(self._folder, [(self._file.path, identity, found)])
            self._fills = self._noted = {}
        return found

    def close(self) -> None:
        with fsio.translated(self._doing):
            try:
                self._stop_threads()
                self._settle_sync()
                if self._fd >= 0 and self._fault is None and self._fills != self._noted:
                    self._area.insist_on_claim(self._folder)
                    self._area.journal.record_fills(self._folder, self._file.path, self._fills, durable=False)
            finally:
                self._close_files()

    def _close_files(self) -> None:
        if self._direct is not None:
            self._direct.close()
            self._direct = None
        for fd in (self._fd, self._folder):
            if fd >= 0:
                os.close(fd)
        self._fd = self._folder = -1


class _Guard:
    """Remembers the first error, since after it file, journal and hash may differ."""

    def __init__(self, writer: DirectoryWriter) -> None:
        self._writer = writer

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, Exception):
            self._writer._failed(error)  # noqa: SLF001 -- the guard is a part of the writer
